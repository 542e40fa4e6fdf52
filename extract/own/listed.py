"""Rows that each name one item of a stay: an image or a text; several per stay in time order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ...cache.store import EncodedShard, Reject
from ...errors import ConfigError, SchemaError
from ..config import ExtractConfig
from ..encoders.trained import is_run
from ..encoders.weights import Weights, choose
from ..work import Staged, Work
from . import rows
from .spec import OwnFile
from .tables import collect, filtered, header, require, scan
from .times import timed

_UNREAD = "no readable time:"


@dataclass(frozen=True)
class Listed:
    """The items of the stays of a cohort.

    Args:
        frame: `_id` (stay as text), `_hours` (null without times), `_what` (path or text, null or
            empty where there is none), `_unread` (the cell of the time holds something else), in
            the order of stays and times.
        late: Stays of rows after the prediction time.
        timeless: Stays of rows without a time, in a table with times.
        timing: What to record of the times.
        ignored: Rows of no stay.
        unused: Reason code -> rows of stays that are not used.
    """

    frame: pl.DataFrame
    late: frozenset[str]
    timeless: frozenset[str]
    timing: str
    ignored: int
    unused: Mapping[str, int]

    @property
    def of_no_stay(self) -> bool:
        """Whether the table names not one stay."""
        return self.frame.is_empty() and not self.late and not self.timeless


class Timed:
    """An encoder before which items go whose time cannot be read; see `work.Staged`.

    Args:
        encode: Encodes the others.
    """

    def __init__(self, encode: Staged) -> None:
        self._encode = encode

    @property
    def parallel(self) -> bool:
        """Whether several threads may encode at once."""
        return self._encode.parallel

    def __call__(self, work: Sequence[Work]) -> EncodedShard:
        """Encode one shard."""
        return self.finish(work, [self.prepare(item) for item in work])

    def prepare(self, item: Work) -> Any:
        """Read one item, or return the reject of its time."""
        if item.stamp.startswith(_UNREAD):
            return Reject(item.item_id, *rows.NOT_A_TIME)
        return self._encode.prepare(item)

    def finish(self, work: Sequence[Work], prepared: Sequence[Any]) -> EncodedShard:
        """Encode prepared items; rejects pass."""
        return self._encode.finish(work, prepared)


def read(spec: OwnFile, column: str, stays: pl.DataFrame, until_hours: float) -> Listed:
    """Read the table of a modality.

    Args:
        spec: The file.
        column: Its column of paths or texts.
        stays: `_id`, `_row` and perhaps `_intime` of the stays.
        until_hours: Rows later than this are not used, where the table has times.

    Raises:
        DataError: The file is unreadable.
        SchemaError: A column is missing or holds no text.
    """
    table = scan(spec.file)
    schema = header(spec.file, table)
    require(spec.file, schema, [spec.id, column], f"Name your columns in {spec.table}.")
    if schema[column] not in (pl.String, pl.Categorical):
        raise SchemaError(f"{spec.file}: {column!r} must hold text, found {schema[column]}")
    table = filtered(spec.file, table, schema, spec)
    total = int(collect(spec.file, table.select(pl.len())).item())
    unknown = ["", *(str(value) for value in spec.missing)]
    what = pl.col(column).cast(pl.String)
    table = table.with_columns(
        _what=pl.when(what.str.strip_chars().is_in(unknown)).then(None).otherwise(what)
    )
    mine, timing = timed(spec.file, table, schema, spec, stays, until_hours)
    marks = ("_hours", "_late", "_unread", "_timeless")
    frame = collect(spec.file, mine.select("_id", "_row", *marks, "_what"))
    late, timeless = frame.filter("_late"), frame.filter("_timeless")
    kept = frame.filter(~pl.col("_late"), ~pl.col("_timeless"))
    kept = kept.sort("_row", "_hours", "_what", nulls_last=True)
    return Listed(
        frame=kept.select("_id", "_hours", "_what", "_unread"),
        late=frozenset(late["_id"]),
        timeless=frozenset(timeless["_id"]),
        timing=timing,
        ignored=total - frame.height,
        unused={rows.AFTER_PREDICTION: late.height, rows.NO_TIME: timeless.height},
    )


def absent(listed: Listed, items: dict[str, list[str]]) -> dict[str, str]:
    """Why stays that the table names have no item."""
    return {
        **{stay: rows.NO_TIME for stay in listed.timeless if stay not in items},
        **{stay: rows.AFTER_PREDICTION for stay in listed.late if stay not in items},
        **{stay: rows.ALL_EMPTY for stay in set(listed.frame["_id"]) if stay not in items},
    }


def stamp_of(content: str, *, unread: bool) -> str:
    """Stamp of an item by that of its content; one whose time cannot be read is not encoded."""
    return f"{_UNREAD} {content}" if unread else content


def item_id(name: str, content: str, hours: float | None) -> str:
    """Name of an item by its source, content and time: what changes is another item."""
    digest = hashlib.sha256(f"{content} {hours}".encode()).hexdigest()
    tail = "".join(sign if sign.isprintable() else "?" for sign in name)[-200:]
    return f"{tail}:{digest[:16]}"


def encoder_of(
    spec: OwnFile, config: ExtractConfig, encoded: Sequence[str], default: str | None
) -> tuple[str | None, Weights]:
    """Name and weights of the encoder of a modality; a path as its name is both.

    Raises:
        ConfigError: Neither is named.
    """
    word = config.encoder_of(spec.name) or _of_table(spec, config)
    if word is None and config.weights:
        weights = choose(config.weights, spec.name, encoded, synthetic=False)
        if weights.of_run:
            return None, weights
    if word is None:
        raise ConfigError(
            f"{spec.name}: images and texts need an encoder; give --encoder {spec.name}=NAME "
            "(resnet34 for images, minilm or tinybert for texts) with --weights, or the path of a "
            f"folder with weights as --encoder {spec.name}=PATH"
        )
    if Path(word).expanduser().exists():
        given = [Path(value.removeprefix(f"{spec.name}=")) for value in config.weights]
        if any(is_run(path.expanduser()) for path in given):  # the folder is of its tokenizer
            return word, choose(config.weights, spec.name, encoded, synthetic=False)
        weights = Weights(spec.name, path=Path(word).expanduser())
        return default, weights
    return word, choose(config.weights, spec.name, encoded, synthetic=False)


def _of_table(spec: OwnFile, config: ExtractConfig) -> str | None:
    """The encoder that the TOML table names; a path counts from the TOML file."""
    if spec.encoder is None or config.config is None:
        return spec.encoder
    path = config.config.parent / Path(spec.encoder).expanduser()
    return str(path) if path.exists() else spec.encoder


__all__ = ["Listed", "Timed", "absent", "encoder_of", "item_id", "read", "stamp_of"]
