"""Series of any source as vectors, encoded by the LSTM of a finished run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...cache.store import EncodedShard, Space
from ...errors import ConfigError
from ..config import ExtractConfig
from ..encoders.series import SeriesEncoder
from ..encoders.trained import is_run
from ..encoders.weights import Weights
from ..work import Plan, Work


def run_of(config: ExtractConfig, modality: str, sole: bool) -> Path | None:
    """The run that `--weights` names for a modality of series; None for the series themselves.

    Args:
        config: Its `weights`.
        modality: The modality.
        sole: Whether it is the only one of the call, so that it need not be named.
    """
    for word in config.weights:
        name, equals, value = word.partition("=")
        if equals and name == modality and is_run(Path(value).expanduser()):
            return Path(value).expanduser()
        if sole and is_run(Path(word).expanduser()):
            return Path(word).expanduser()
    return None


def encoded(plan: Plan, run: Path) -> Plan:
    """Let the LSTM of a run encode the series of a plan.

    Args:
        plan: Series.
        run: Directory of the run.

    Raises:
        ConfigError: The plan is of no series, or the run was trained on others.
    """
    space = plan.space
    if space.view != "series":
        raise ConfigError(
            f"--weights {space.modality}=RUN: expected the series of a stay, found a {space.view}"
        )
    weights = Weights(space.modality, path=run)
    encoder = SeriesEncoder(weights, space.id)
    parts = {
        "series": space.id,
        "encoder": "lstm",
        "weights": encoder.sha256,
        **weights.space_parts,
    }
    return replace(
        plan,
        space=Space(space.modality, "vector", parts),
        provenance={**plan.provenance, **weights.provenance},
        encode=_Vectors(plan.encode, encoder),
        files=[*plan.files, *weights.files()],
        note=weights.note,
    )


class _Vectors:
    """Turns stays into a shard of vectors."""

    def __init__(
        self, encode: Callable[[Sequence[Work]], EncodedShard], encoder: SeriesEncoder
    ) -> None:
        self._encode, self._encoder = encode, encoder

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        shard = self._encode(work)
        if not shard.item_ids:
            return shard
        values = np.ascontiguousarray(shard.arrays["values"], dtype=np.float32)
        mask = shard.arrays.get("mask", np.ones(values.shape[:2], dtype=bool))
        return replace(shard, arrays={"values": self._encoder.encode(values, mask)})


__all__ = ["encoded", "run_of"]
