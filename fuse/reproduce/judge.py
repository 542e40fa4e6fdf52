"""The lines of a room against CM2, one modality alone and concatenation, on the same test stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError
from ..evaluation.contenders import Floats, Judged, judged
from ..evaluation.metrics import holm, with_interval
from ..evaluation.targets import Wide, target_names, wide
from ..group import RunGroup

METRICS = ("auroc", "aupr")
PER_COMPARISON = 60
"""Resamples for each comparison of a Holm family: fewer, and its smallest p could never pass."""


class _Scores(NamedTuple):
    """What the seeds of one model say about the test stays.

    Attributes:
        stays: Ids.
        y: Targets, ``(n, C)``.
        subjects: Patients, ``(n,)``.
        p: By seed, ``(n, C)``.
    """

    stays: tuple[Any, ...]
    y: Floats
    subjects: Any
    p: list[Floats]


@dataclass(frozen=True)
class Verdict:
    """One metric of one line.

    Attributes:
        metric: `auroc` or `aupr`.
        n: Test stays with a known target.
        positives: Those with an event.
        value: With `low`, `high`, and `sd` over seeds.
        against: By baseline: difference, low, high, p, p_holm, n (stays that both judged).
        comparisons: Size of each baseline's Holm family.
        replicates: Bootstrap resamples.
    """

    metric: str
    n: int
    positives: int
    value: Mapping[str, Any]
    against: Mapping[str, dict[str, Any]]
    comparisons: int
    replicates: int


def judge(
    groups: Sequence[RunGroup], baselines: Mapping[str, int], replicates: int = 0
) -> list[dict[str, Verdict]]:
    """Judge groups on their own test stays, and their differences on those that both have.

    A group's metric is the mean over its seeds inside each resample of patients. Holm's family is
    every line times AUROC and AUPR, for each baseline by itself.

    Args:
        groups: Groups whose test stays were predicted.
        baselines: By title, positions of what all others are compared with.
        replicates: Bootstrap resamples; 0 takes as many as Holm's family needs, at least 1,000.

    Returns:
        By group, by metric.

    Raises:
        DataError: Members of a group judged different stays.
    """
    family = (len(groups) - 1) * len(METRICS)
    replicates = replicates or max(1000, PER_COMPARISON * family)
    table = _Table([_scores(group) for group in groups], replicates)
    against: list[dict[str, dict[str, dict[str, Any]]]] = [{m: {} for m in METRICS} for _ in groups]
    for title, b in baselines.items():
        found = []
        for i in range(len(groups)):
            if i == b:
                continue
            common = table.common(i, b)
            if not common:
                continue
            mine, theirs = table.judged(i, common), table.judged(b, common)
            for metric in METRICS:
                gap = mine[metric].difference(theirs[metric])
                entry = {"difference": gap.value, "low": gap.low, "high": gap.high, "p": gap.p}
                against[i][metric][title] = {**entry, "n": len(common)}
                found.append(against[i][metric][title])
        for entry, p in zip(found, holm([entry["p"] for entry in found]), strict=True):
            entry["p_holm"] = p
    verdicts = []
    for i, scores in enumerate(table.scores):
        own = table.judged(i, scores.stays)
        verdicts.append(
            {
                metric: Verdict(
                    metric,
                    len(scores.y),
                    int((scores.y == 1).any(1).sum()),
                    {
                        **with_interval(own[metric].value, own[metric].replicates),
                        "sd": own[metric].sd,
                    },
                    against[i][metric],
                    family,
                    replicates,
                )
                for metric in METRICS
            }
        )
    return verdicts


class _Table:
    """Every model on every set of stays that is asked for, judged once."""

    def __init__(self, scores: list[_Scores], replicates: int) -> None:
        self.scores = scores
        self._replicates = replicates
        self._rows = [{stay: row for row, stay in enumerate(one.stays)} for one in scores]
        self._known: dict[tuple[int, tuple[Any, ...]], dict[str, Judged]] = {}

    def common(self, i: int, b: int) -> tuple[Any, ...]:
        """Stays of both, in the baseline's order."""
        return tuple(stay for stay in self.scores[b].stays if stay in self._rows[i])

    def judged(self, i: int, stays: tuple[Any, ...]) -> dict[str, Judged]:
        """Every metric of a model on some of its stays."""
        if (i, stays) not in self._known:
            scores = self.scores[i]
            rows = np.array([self._rows[i][stay] for stay in stays])
            p = [one[rows] for one in scores.p]
            self._known[i, stays] = judged(
                scores.y[rows], p, scores.subjects[rows], replicates=self._replicates
            )
        return self._known[i, stays]


def _scores(group: RunGroup) -> _Scores:
    found: list[Wide] = []
    for table in group.predictions("test"):
        one = wide(table, target_names(table), str(group.path))
        known = np.flatnonzero(~np.isnan(one.y).all(1))
        order = known[np.argsort([str(one.stays[row]) for row in known], kind="stable")]
        found.append(
            Wide([one.stays[row] for row in order], one.y[order], one.p[order], one.subjects[order])
        )
    if not found[0].stays:
        raise DataError(f"No test stay of {group.path} has a known target.")
    if any(one.stays != found[0].stays for one in found):
        raise DataError(f"The members of {group.path} judged different stays. Train them again.")
    return _Scores(tuple(found[0].stays), found[0].y, found[0].subjects, [one.p for one in found])


__all__ = ["METRICS", "Verdict", "judge"]
