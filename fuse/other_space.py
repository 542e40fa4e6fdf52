"""A cache whose vectors mean something else than those that a run reads: what differs there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cache.layout import modality_folder
from ..cache.reader import Store, stores_of
from ..cache.space import Space
from ..errors import DataError
from .models.interface import ModalitySpec
from .rundir import RunDir

_SHOWN = 5


def refuse_other_spaces(run: RunDir, specs: Sequence[ModalitySpec], cache: Path) -> None:
    """Refuse a cache that has a modality of the run in another space alone.

    Args:
        run: A finished run.
        specs: Its modalities.
        cache: Perhaps that of another hospital.

    Raises:
        DataError: With what differs, and how to extract the vectors that the run reads.
    """
    for spec, word in zip(specs, run.config.modalities, strict=True):
        name, _, wanted = word.partition("@")
        there = stores_of(modality_folder(cache, name))
        if not wanted or len(there) != 1 or there[0] == wanted:
            continue
        parts = run.info.get("spaces", {}).get(name, {})
        raise DataError(
            f"{run.path} reads {word}, {cache} holds {name}@{there[0]}. "
            + _difference(spec, parts, Store.open(cache, name).space)
        )


def _difference(spec: ModalitySpec, parts: Mapping[str, Any], here: Space) -> str:
    """Say what differs between the space of a run and that of a cache, and the way out."""
    levels = parts.get("levels") or {}
    table = f"the table [modality.{spec.name}] of a TOML file"
    if levels and levels != here.parts.get("levels"):
        named = ", ".join(
            f"{json.dumps(column)} = {json.dumps(list(words), ensure_ascii=False)}"
            for column, words in levels.items()
        )
        return (
            f"Their categories differ. Name those of the run in {table}, levels = {{{named}}}, and "
            "extract with --config; a word that is none of them counts as unknown."
        )
    if spec.columns != here.columns:
        return (
            f"Only the run has the columns {_some(spec.columns, here.columns)}, only the cache "
            f"{_some(here.columns, spec.columns)}. Extract with the options of the run's cache; of "
            f"your own data name the same variables with `keep` in {table}, in the same order."
        )
    said = [
        f"{name} {here.parts.get(name)!r} instead of {parts.get(name)!r}"
        for name in sorted(here.parts)
        if here.parts[name] != parts.get(name)
    ]
    return (
        f"It was made with other options ({', '.join(said) or 'see cm2 cache ls'}). Extract with "
        "those of the run's cache."
    )


def _some(columns: Sequence[str], others: Sequence[str]) -> str:
    found = [repr(column) for column in columns if column not in others]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (", ".join(found[:_SHOWN]) or "none") + more


__all__ = ["refuse_other_spaces"]
