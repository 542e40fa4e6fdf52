"""An encoder of a finished run: its weights, what it reads, and whom it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cache import atomic, checkpoint
from ...cache.fingerprint import fingerprint
from ...cache.layout import RUN_BEST, RUN_INFO, TRAINING_SUBJECTS, subject_words
from ...errors import ConfigError, UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor


FUSION = "fusion"
"""Stands where a modality is named for all of a run's model but the trunks."""

_TRUNKS = "trunks."


@dataclass(frozen=True)
class Trained:
    """The encoder of one modality of a run, or its model without trunks.

    Args:
        path: Directory of the run.
        modality: The modality, or `FUSION`.
        facts: What the encoder is: `kind`, and what its kind needs.
        tensors: Its weights and buffers, by their names inside the encoder.
        subjects: Keys of the patients that the run was trained on, 16 hexadecimal digits each.
        task: What it was trained to predict.
    """

    path: Path
    modality: str
    facts: dict[str, Any]
    tensors: dict[str, Tensor]
    subjects: tuple[str, ...]
    task: str

    @classmethod
    def open(cls, path: Path, modality: str) -> Trained:
        """Read the encoder of a modality from a run.

        Raises:
            ConfigError: The run is not finished, or has no encoder of that modality.
            IntegrityError: A file of the run is not what was written.
        """
        info = atomic.read_json(path / RUN_INFO, f"Train {path} again.")
        if info.get("status") != "finished" or not (path / RUN_BEST).is_file():
            raise ConfigError(
                f"The run {path} is not finished. Give the `cm2 fuse` command that began it again."
            )
        tensors, meta = _read(path / RUN_BEST, (path / RUN_BEST).stat().st_mtime_ns)
        subjects = subject_words(tensors[TRAINING_SUBJECTS].tolist())
        task = str(meta["config"]["task"])
        if modality == FUSION:
            own = {n: t for n, t in tensors.items() if not n.startswith(_TRUNKS)}
            del own[TRAINING_SUBJECTS]
            return cls(path, FUSION, {"kind": FUSION}, own, subjects, task)
        encoders = dict(meta.get("encoders", {}))
        if modality not in encoders:
            offered = ", ".join(encoders) or "none"
            raise ConfigError(
                f"{path} trained no encoder of {modality} that could be used again; it has those "
                f"of: {offered}. A film's encoder is trained by `cm2 fuse --mode stream`, that of "
                "a series by any run with --series-encoder lstm."
            )
        facts = dict(encoders[modality])
        prefix = str(facts.pop("prefix"))
        own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        return cls(path, modality, facts, own, subjects, task)

    def require(self, kind: str) -> None:
        """Raise UnsupportedError when the encoder is of another kind."""
        if self.facts["kind"] != kind:
            raise UnsupportedError(
                f"{self.path}: its encoder of {self.modality} is one of kind "
                f"{self.facts['kind']!r}; what is extracted needs one of {kind!r}"
            )

    @property
    def space_parts(self) -> dict[str, object]:
        """What enters the space of everything that it encodes."""
        return {"training_subjects": fingerprint(list(self.subjects))}


@lru_cache(maxsize=2)
def _read(path: Path, changed: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return checkpoint.load(path, "Remove the run and train it again.")


def is_run(path: Path) -> bool:
    """Whether a folder is the directory of a run."""
    return (path / RUN_INFO).is_file()


__all__ = ["FUSION", "Trained", "is_run"]
