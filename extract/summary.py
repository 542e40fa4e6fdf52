"""What an extraction did, for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..cache.layout import modality_folder
from ..cache.reader import stores_of
from ..errors import quoted

# Named, as what a finished extraction tells again comes from JSON, whose keys are sorted.
_PLAUSIBILITY = (
    *("variable", "unit", "measurements", "stays", "observed"),
    *("p1", "p25", "p50", "p75", "p99"),
)


@dataclass(frozen=True)
class ModalityResult:
    """One modality of one cohort.

    Args:
        items: Items that the stays link.
        encoded: Of these, encoded by this call.
        rejected: Of these, unreadable.
        stays: Stays of the cohort that have the modality.
        tasks: Per task: eligible stays with a known label that have the modality.
        absent: Stays without, by reason code.
        space: Id of the space.
        complete: Whether nothing is left to encode.
        weights: What the encoder's weights are; empty without an encoder.
        caution: A warning about these weights, such as that they have seen the test patients, or
            about the file.
        seconds: Time taken; 0 when nothing had changed.
        rejects: Table of the rejects, relative to the cache.
        plausibility: Per variable how often it was observed, and quantiles of its values.
        timing: What is known of the times of the items against the prediction time; empty where
            the source guarantees it.
    """

    name: str
    items: int
    encoded: int
    rejected: int
    stays: int
    tasks: Mapping[str, int]
    absent: Mapping[str, int]
    space: str
    complete: bool
    weights: str = ""
    caution: str = ""
    seconds: float = 0.0
    rejects: str = ""
    plausibility: Sequence[Mapping[str, Any]] = ()
    timing: str = ""


@dataclass(frozen=True)
class ExtractSummary:
    """The cohort and its modalities after an extraction.

    Args:
        cache: Folder of the cache.
        cohort: Name of the cohort.
        dataset: Data set, release, and whether it is synthetic.
        stays: Stays of the cohort.
        attrition: Rows of rule, stays, subjects, paper.
        tasks: Per task: eligible stays, positives.
        modalities: One entry per modality of this call.
    """

    cache: Path
    cohort: str
    dataset: str
    stays: int
    attrition: Sequence[Mapping[str, Any]]
    tasks: Mapping[str, Mapping[str, Any]]
    modalities: Sequence[ModalityResult] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {**asdict(self), "cache": str(self.cache)}

    def next_command(self) -> str:
        """The command that trains on the first task; names a store where a modality has several.

        While a store is partial, it is the one that goes on with it.
        """
        partial = [m.name for m in self.modalities if not m.complete]
        if partial:
            return (
                f"cm2 extract … --modality {','.join(partial)}, the other parts of --shard or "
                "without --limit: what is not encoded yet counts as absent"
            )
        task = quoted(next(iter(self.tasks)))
        command = f"cm2 fuse --cache {quoted(self.cache)} --task {task}"
        command += f" --cohort {self.cohort}" if self.cohort != "default" else ""
        several = [len(stores_of(modality_folder(self.cache, m.name))) > 1 for m in self.modalities]
        if not any(several):
            return command
        names = [
            f"{m.name}@{m.space}" if many else m.name
            for m, many in zip(self.modalities, several, strict=True)
        ]
        return f"{command} --modalities {','.join(names)}"

    def as_text(self) -> str:
        """Tables of attrition, tasks and modalities."""
        from ..console import table

        papers = any(row.get("paper") is not None for row in self.attrition)
        head = ["stays kept", "stays", "subjects", *(["paper"] if papers else [])]
        keys = ["rule", "stays", "subjects", *(["paper"] if papers else [])]
        parts = [
            f"cohort {self.cohort}: {self.dataset}",
            table(head, [[row.get(key) for key in keys] for row in self.attrition]),
            table(
                ["task", "stays", "positives", *(["paper"] if papers else [])],
                [
                    [name, task["stays"], task["positives"]]
                    + ([task.get("paper_positives")] if papers else [])
                    for name, task in self.tasks.items()
                ],
            ),
            table(
                ["modality", "items", "encoded now", "rejected", "stays with"]
                + [f"in {name}" for name in self.tasks]
                + ["state", "weights", "seconds"],
                [
                    [m.name, m.items, m.encoded, m.rejected, m.stays]
                    + [m.tasks.get(name, 0) for name in self.tasks]
                    + [
                        "complete" if m.complete else "partial",
                        m.weights or "-",
                        round(m.seconds, 1),
                    ]
                    for m in self.modalities
                ],
            ),
        ]
        for m in self.modalities:
            if m.caution:
                parts.append(f"caution: {m.caution}")
            if m.timing:
                parts.append(f"prediction time of {m.name}: {m.timing}")
            if m.plausibility:
                cells = [[row.get(name) for name in _PLAUSIBILITY] for row in m.plausibility]
                parts.append(table(_PLAUSIBILITY, cells))
            if m.absent:
                reasons = ", ".join(f"{reason} {count:,}" for reason, count in m.absent.items())
                parts.append(f"stays without {m.name}: {reasons}")
        return "\n\n".join(parts)


__all__ = ["ExtractSummary", "ModalityResult"]
