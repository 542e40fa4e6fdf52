"""The rule for small cells: a report shows no group of fewer than five stays.

Groups of stays that share an availability pattern are pooled until each holds five; event counts
of one to four are withheld, and where a single one is withheld the next smallest is too, so that
it cannot be had by subtraction from the total. Totals of the cohort and of a split are shown, so
how many stays have a modality says how many lack it: both are held to five. Synthetic stays are
nobody's: their counts are all shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

SMALLEST = 5


def pooled(sizes: Mapping[str, int], smallest: int = SMALLEST) -> dict[str, tuple[str, ...]]:
    """Name the group of patterns that each pattern is shown in; most groups hold one.

    The rare patterns form one group. While it is too small, the pattern that is nearest to them
    (fewest modalities differ, then fewest stays) joins it.

    Args:
        sizes: Stays of each pattern, such as "ehr+cxr".
        smallest: Stays that a group must hold.
    """
    rare = {name for name, n in sizes.items() if n < smallest}
    while rare and sum(sizes[name] for name in rare) < smallest and len(rare) < len(sizes):
        others = [name for name in sizes if name not in rare]
        rare.add(min(others, key=lambda name: (_distance(name, rare), sizes[name], name)))
    together = tuple(sorted(rare))
    return {name: together if name in rare else (name,) for name in sizes}


def _distance(pattern: str, group: set[str]) -> int:
    own = set(pattern.split("+"))
    return min(len(own ^ set(other.split("+"))) for other in group)


def withheld(counts: Sequence[int], smallest: int = SMALLEST) -> list[bool]:
    """Tell which counts of the parts of a known total are not shown.

    Args:
        counts: One count for each part.
        smallest: Counts from 1 to below this are not shown.
    """
    hidden = [0 < n < smallest for n in counts]
    if sum(hidden) == 1 and len(counts) > 1:
        rest = [(n, i) for i, n in enumerate(counts) if not hidden[i]]
        hidden[min(rest)[1]] = True
    return hidden


def bounded(n: int, of: int, smallest: int = SMALLEST) -> tuple[str, int]:
    """Write how many of a known total there are, where few that are, or are not, stay unknown.

    Args:
        n: The count.
        of: The total, which is shown.
        smallest: Counts from 1 to below this are not told.

    Returns:
        The count in words, and the count that stands for it in a figure.
    """
    if 0 < n < of < 2 * smallest - 1:  # a bound would tell which
        return "some", of // 2
    if 0 < n < min(smallest, of):
        return f"< {smallest}", smallest
    if 0 < of - n < smallest <= of:
        return f"over {of - smallest}", of - smallest
    return str(n), n


def evened(counts: ArrayLike, smallest: float = SMALLEST) -> NDArray[np.float64]:
    """Spread a histogram evenly over neighbouring bins until they hold enough together.

    What a bin holds then cannot be had by subtraction either, and the sum is as before.

    Args:
        counts: One count for each bin.
        smallest: What neighbours must hold together; bins that hold it stand alone.

    Returns:
        What to draw in each bin; bins between groups stay empty.
    """
    shown = np.asarray(counts, float).copy()
    filled = np.flatnonzero(shown)
    groups: list[list[int]] = []  # first and last bin
    held = smallest
    for i in map(int, filled):
        if held >= smallest:
            groups.append([i, i])
            held = 0.0
        groups[-1][1] = i
        held += shown[i]
    if held < smallest:  # the last group joins the one before it, or is all there is
        last = groups.pop()[1]
        groups = [*groups[:-1], [groups[-1][0], last]] if groups else [[0, len(shown) - 1]]
    for first, last in groups:
        shown[first : last + 1] = shown[first : last + 1].mean()
    return shown
