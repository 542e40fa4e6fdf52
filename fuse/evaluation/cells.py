"""The rule for small cells: a report shows no group of fewer than five stays.

Groups of stays that share an availability pattern are pooled until each holds five; event counts
of one to four are withheld, and where a single one is withheld the next smallest is too, so that
it cannot be had by subtraction from the total. Totals of the cohort and of a split are shown.
Synthetic stays are nobody's: their counts are all shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
