"""The route of the user's own data: a table of stays and one file per modality."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl

from ...cache.cohort import Cohort, write_cohort
from ...errors import CM2Error, ConfigError, DataError
from .. import receipts
from ..config import ExtractConfig
from ..encoders.trained import is_run
from ..estimate import Estimate
from ..work import Plan
from . import stays as own_stays
from .rows import NO_ROW
from .spec import Kind, OwnFile, own_files
from .tables import header, scan

# Measured on one core: items that an encoder turns into vectors in a second.
_ITEMS_PER_SECOND = {"images": 10.0, "texts": 40.0}
_ROWS_PER_SECOND = 2e5


class OwnRoute:
    """Files of the user.

    Args:
        config: Options.

    Raises:
        ConfigError: A modality without a file, or neither a table of stays nor a cohort.
    """

    def __init__(self, config: ExtractConfig) -> None:
        self.config = config
        self.files = {spec.name: spec for spec in own_files(config)}
        self.modalities = tuple(self.files)
        if not self.modalities:
            raise ConfigError("--stays needs at least one --modality NAME=FILE")
        if config.stays is None and not Cohort.exists(config.cache, config.cohort):
            raise ConfigError(
                f"The cache {config.cache} has no cohort {config.cohort!r} that the files could "
                "belong to. Give the table of stays with --stays FILE."
            )

    def cohort(self) -> Cohort:
        """Open the cohort that is there, or build it from the table of stays.

        Raises:
            ConfigError: An encoder or weights are named for a file that is not encoded.
        """
        config = self.config
        self._check_encoders()
        if config.stays is None:
            return Cohort.open(config.cache, config.cohort)
        if Cohort.exists(config.cache, config.cohort) and receipts.seen_tables(
            config, self.tables()
        ):
            return Cohort.open(config.cache, config.cohort)
        table, info = own_stays.build(config.stays, config)
        cohort = write_cohort(config.cache, config.cohort, table, info)
        receipts.write_tables(config, self.tables())
        return cohort

    def plan(self, cohort: Cohort, modality: str) -> Plan:
        """Return the work of one file.

        Raises:
            DataError: The file names stays of the cohort, and has nothing for any of them.
        """
        spec = self.files[modality]
        planned = self._plan(spec, cohort)
        if not planned.work:
            reasons = Counter(planned.links["why_no"].to_pylist())
            del reasons[NO_ROW]
            found = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
            raise DataError(
                f"{spec.file}: expected something to use for at least one stay, found nothing for "
                f"any of the {reasons.total():,} stays that it names ({found}). Are its times and "
                f"the columns named in {spec.table} those that you mean?"
            )
        return planned

    def _plan(self, spec: OwnFile, cohort: Cohort) -> Plan:
        modality = spec.name
        kind = kind_of(spec)
        if kind == "arrays":
            from . import arrays

            made_by = self.config.encoder_of(modality) or spec.encoder
            return arrays.plan(spec, cohort, made_by)
        stays = _named(cohort)
        config = self.config
        if kind == "table":
            from . import wide

            return wide.plan(spec, cohort, stays, config.until_hours)
        if kind == "events":
            from . import events

            return events.plan(spec, cohort, stays, config.step_hours, config.until_hours)
        from .listed import encoder_of

        encoded = [n for n, f in self.files.items() if kind_of(f) in ("images", "texts")]
        if kind == "images":
            from . import images

            if not config.encodes_films:
                return images.plan(spec, cohort, stays, config, None, None)
            name, weights = encoder_of(spec, config, encoded, None)
            return images.plan(spec, cohort, stays, config, name, weights)
        from . import texts

        name, weights = encoder_of(spec, config, encoded, "tinybert")
        return texts.plan(spec, cohort, stays, config, name, weights)

    def tables(self, modality: str | None = None) -> receipts.Looks:
        """The table of stays, the TOML file, and the file of the modality."""
        config = self.config
        paths = [path for path in (config.stays, config.config) if path is not None]
        if modality is not None:
            spec = self.files[modality]
            paths.append(spec.file)
            return [*receipts.look_at(paths), [spec.model_dump_json(), None, None]]
        return [
            *receipts.look_at(paths),
            [config.dataset_name, config.subject_is_stay, config.split_seed],
        ]

    def estimate(self, modality: str) -> Estimate:
        """Count rows; what is wrong with the file is told, not raised."""
        spec = self.files[modality]
        missing, rows, kind = "", 0, ""
        if self.config.stays is not None and not self.config.stays.is_file():
            missing = f"{self.config.stays}: no such file; "
        try:
            kind = kind_of(spec)
            if kind == "arrays":
                from .arrays import shape_of

                rows = shape_of(spec)[0]
            else:
                rows = int(scan(spec.file).select(pl.len()).collect().item())
        except (CM2Error, pl.exceptions.PolarsError) as error:
            missing += str(error)
        size = spec.file.stat().st_size if spec.file.is_file() else 0
        encoded = kind in _ITEMS_PER_SECOND
        seconds = rows / (_ITEMS_PER_SECOND[kind] if encoded else _ROWS_PER_SECOND)
        return Estimate(
            modality=modality,
            rows=rows,
            read_bytes=size,
            items=rows if encoded or kind == "arrays" else min(rows, self._stays(rows)),
            write_bytes=rows * 2048 if encoded else size,
            files=10,
            minutes=round(seconds / 60, 1),
            missing=missing.rstrip("; "),
        )

    def _check_encoders(self) -> None:
        """Refuse options that would be ignored, such as the encoder of a column of texts that is
        called otherwise; the file would be read as a table.
        """
        given = [("--encoder", word) for word in self.config.encoder]
        given += [("--weights", word) for word in self.config.weights]
        tables = self.files.items()
        given += [("the key encoder", f"{n}={f.encoder}") for n, f in tables if f.encoder]
        for option, word in given:
            name, equals, value = word.partition("=")
            if not equals or name not in self.files:
                continue
            spec = self.files[name]
            kind = kind_of(spec)
            takes_encoder = kind in (*_ITEMS_PER_SECOND, "arrays")  # for the record, of arrays
            takes_weights = kind in _ITEMS_PER_SECOND or (
                kind in ("arrays", "events") and is_run(Path(value).expanduser())
            )
            if not (takes_weights if option == "--weights" else takes_encoder):
                raise ConfigError(
                    f"{option} {word}: expected a file with the column {spec.text!r} or "
                    f"{spec.path!r}, found that {spec.file} has neither for it: it is read as "
                    f"{kind} and not encoded. Name the column of texts or paths in {spec.table}, "
                    f"or leave {option} {name}=… out."
                )

    def _stays(self, rows: int) -> int:
        """How many stays there are, as far as that can be told."""
        try:
            if self.config.stays is None:
                return int(Cohort.open(self.config.cache, self.config.cohort).stays.num_rows)
            counted: int = scan(self.config.stays).select(pl.len()).collect().item()
            return counted
        except (CM2Error, pl.exceptions.PolarsError):
            return rows


def kind_of(spec: OwnFile) -> Kind:
    """What a file holds: as its table says, else told from its name and columns.

    Raises:
        DataError: It is not there, or a folder.
    """
    if spec.kind is not None:
        return spec.kind
    path: Path = spec.file
    if path.is_dir():
        raise DataError(
            f"{path} is a folder; give a table with the columns stay_id and path that lists its "
            f"files: --modality {spec.name}=TABLE.csv"
        )
    if path.suffix == ".npz":
        return "arrays"
    schema = header(path, scan(path))
    if spec.variable in schema and spec.value in schema:
        return "events"
    if spec.path in schema:
        return "images"
    return "texts" if spec.text in schema else "table"


def _named(cohort: Cohort) -> pl.DataFrame:
    """Stays by the text of their id: `_id`, `_row`, and `_intime` if they have it."""
    ids = [str(value) for value in cohort.stays["stay_id"].to_pylist()]
    named = pl.DataFrame({"_id": ids, "_row": range(len(ids))})
    if "intime" not in cohort.stays.column_names:
        return named
    return named.with_columns(pl.Series("_intime", pl.from_arrow(cohort.stays["intime"])))


__all__ = ["OwnRoute", "kind_of"]
