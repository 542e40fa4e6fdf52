"""A run directory: configuration, history, weights, predictions, metrics.

```
config.json          the configuration and everything else that enters the identity
run.json             status, versions, rows, times, warnings, looks at the test stays
trainer.safetensors  the last whole epoch of an unfinished run; gone when the run is finished
metrics.jsonl        one line per epoch
best.safetensors     weights and buffers of the chosen epoch; last.safetensors those of the last
learned.json         what a copula model learned about dependence
predictions/         val.parquet, test.parquet: restricted data, one row per stay
val_metrics.json     and test_metrics.json
lease.json           who trains it now
```
Nothing here imports torch.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..cache import atomic
from ..cache.layout import RUN_BEST, RUN_INFO, RUNS
from ..errors import ConfigError, DataError, IntegrityError, quoted
from .config import FuseConfig

CONFIG, INFO, HISTORY, LEARNED = "config.json", RUN_INFO, "metrics.jsonl", "learned.json"
BEST, LAST, TRAINER = RUN_BEST, "last.safetensors", "trainer.safetensors"
FITTED = (
    "A part of the model is fitted to the validation stays after the epoch was chosen: their "
    "stored predictions and metrics are cross-fitted by patient, later predictions of validation "
    "stays are not."
)
"""Warning of such a run, by which others know it."""

RESTRICTED = (
    "The files in this folder hold one row per stay. They fall under the data use agreement of "
    "their source: do not publish or share them.\n"
)


class RunDir:
    """One run on disk.

    Args:
        path: Its directory, which must hold a run; see `open`.
        writes: Whether this process writes; of several that train one run, only the first does.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path = path
        self.writes = writes

    def __fspath__(self) -> str:
        """The directory, so that it stands wherever a path does."""
        return str(self.path)

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Open an existing run.

        Raises:
            DataError: No run is there.
            IntegrityError: Its configuration is not what was written.
        """
        if not (path / CONFIG).is_file():
            raise DataError(
                f"{path} is no run: it has no {CONFIG}. `cm2 ls` and `cm2 fuse` print the "
                "directories of runs."
            )
        run = cls(path)
        _ = run.config
        return run

    @cached_property
    def record(self) -> dict[str, Any]:
        """Everything that enters the run's identity."""
        return atomic.read_json(self.path / CONFIG, self._remedy)

    @cached_property
    def config(self) -> FuseConfig:
        """The resolved configuration."""
        return FuseConfig.of(self.record["config"])

    @property
    def info(self) -> dict[str, Any]:
        """Content of run.json: status, model, rows and positives per split, versions, looks."""
        return atomic.read_json(self.path / INFO, self._remedy)

    @property
    def finished(self) -> bool:
        """Whether training has ended and every file is written."""
        return (self.path / INFO).is_file() and self.info["status"] == "finished"

    def require_finished(self) -> None:
        """Raise unless training has ended.

        Raises:
            ConfigError: The run is not finished.
        """
        if not self.finished:
            raise ConfigError(
                f"The run {self.path} is not finished. Give the `cm2 fuse` command that began it "
                "again: it continues."
            )

    @property
    def without_weights(self) -> bool:
        """Whether a sweep dropped the weights, as others of its runs were better."""
        return (self.path / INFO).is_file() and self.info.get("weights") == "dropped"

    def require_weights(self) -> None:
        """Raise unless the weights are there.

        Raises:
            ConfigError: The run is not finished, or a sweep dropped its weights.
        """
        self.require_finished()
        if self.without_weights:
            raise ConfigError(
                f"The run {self.path} has no weights: a sweep keeps those of its best runs only. "
                f"`cm2 fuse --cache CACHE --config {quoted(self.path)}` trains it again, to the "
                "same bytes on a CPU, and keeps them."
            )

    def drop_weights(self) -> None:
        """Remove the weights of a finished run; predictions and metrics stay."""
        self.update(weights="dropped")  # first: a kill in between leaves no claim that is false
        for name in (BEST, LAST):
            (self.path / name).unlink(missing_ok=True)

    @property
    def history(self) -> list[dict[str, Any]]:
        """One mapping per epoch."""
        path = self.path / HISTORY
        lines = path.read_text().splitlines() if path.is_file() else []
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise IntegrityError(f"{path} is not what was written. {self._remedy}") from error

    @property
    def learned(self) -> dict[str, Any] | None:
        """What the model learned beyond weights, or None."""
        return self._read(LEARNED)

    def metrics(self, split: str) -> dict[str, Any] | None:
        """Metrics of a split, or None if it was not judged."""
        return self._read(f"{split}_metrics.json")

    @property
    def elsewhere(self) -> list[dict[str, Any]]:
        """Metrics on the stays of other cohorts, in the order of their file names."""
        files = sorted(self.path.glob("*@*_metrics.json"))
        return [atomic.read_json(file, self._remedy) for file in files]

    def write_metrics(self, split: str, metrics: dict[str, Any]) -> None:
        """Store the metrics of a split."""
        if self.writes:
            atomic.write_json(self.path / f"{split}_metrics.json", metrics)

    def predictions(self, split: str) -> pa.Table:
        """Predictions of a split, one row per stay.

        Raises:
            DataError: They were not made.
            IntegrityError: The file is not what was written.
        """
        path = self._predictions(split)
        if not path.is_file():
            home = self.path.absolute().parent
            word, _, elsewhere = split.partition("@")
            cache = quoted(home.parent) if home.name == RUNS else "CACHE"
            raise DataError(
                f"{path} is not there: `cm2 evaluate {quoted(self.path)} --cache "
                f"{'OTHER' if elsewhere else cache} --split {word}` makes it."
            )
        digest = self.info.get("predictions", {}).get(split)
        return atomic.read_parquet(path, digest, self._remedy)

    def write_predictions(self, split: str, table: pa.Table) -> None:
        """Store the predictions of a split, and their hash in run.json."""
        if not self.writes:
            return
        path = self._predictions(split)
        atomic.write_bytes(path.parent / "RESTRICTED.txt", RESTRICTED.encode())
        digest = atomic.write_parquet(path, table)
        self.update(predictions={**self.info.get("predictions", {}), split: digest})

    def count_look(self, split: str) -> int:
        """Count one more look at a split's labels, and return how many there were."""
        looks = self.info.get("looks", {})
        count = int(looks.get(split, 0)) + 1
        self.update(looks={**looks, split: count})
        return count

    @property
    def test_looks(self) -> int:
        """How often the labels of its own test stays were looked at, alone or among all stays."""
        looks = self.info.get("looks", {})
        return int(looks.get("test", 0)) + int(looks.get("all", 0))

    def update(self, **entries: object) -> None:
        """Replace entries of run.json, whole or not at all."""
        if not self.writes:
            return
        path = self.path / INFO
        before = self.info if path.is_file() else {}
        atomic.write_json(path, {**before, **entries})

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Store all epochs so far."""
        if not self.writes:
            return
        lines = "".join(json.dumps(row, sort_keys=True, allow_nan=False) + "\n" for row in history)
        atomic.write_bytes(self.path / HISTORY, lines.encode())

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        return atomic.read_json(path, self._remedy) if path.is_file() else None

    def _predictions(self, split: str) -> Path:
        return self.path / "predictions" / f"{split}.parquet"

    @property
    def _remedy(self) -> str:
        return f"Remove {self.path} and give its `cm2 fuse` command again: it trains anew."
