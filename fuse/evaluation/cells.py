"""The rule for small cells: a report shows no group of fewer than five stays.

Groups of stays that share an availability pattern are pooled until each holds five; event counts
of one to four are withheld, and where a single one is withheld the next smallest is too, so that
it cannot be had by subtraction from the total. Totals of the cohort and of a split are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SMALLEST = 5
POOLED = "rare patterns"


def pooled(sizes: Mapping[str, int]) -> dict[str, str]:
    """Name the group that each pattern is shown under: its own, or that of the rare ones.

    Args:
        sizes: Stays of each pattern.
    """
    rare = [name for name, n in sizes.items() if n < SMALLEST]
    kept = sorted((n, name) for name, n in sizes.items() if n >= SMALLEST)
    while rare and sum(sizes[name] for name in rare) < SMALLEST and kept:
        rare.append(kept.pop(0)[1])
    return {name: POOLED if name in rare else name for name in sizes}


def withheld(counts: Sequence[int]) -> list[bool]:
    """Tell which counts of the parts of a known total are not shown.

    Args:
        counts: One count for each part.
    """
    hidden = [0 < n < SMALLEST for n in counts]
    if sum(hidden) == 1 and len(counts) > 1:
        rest = [(n, i) for i, n in enumerate(counts) if not hidden[i]]
        hidden[min(rest)[1]] = True
    return hidden
