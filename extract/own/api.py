"""Write a cache from arrays in memory: `cm2.write_cache`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from pydantic import ValidationError

from ...cache.cohort import Cohort, write_cohort, write_links
from ...cache.dataset import Cache, open_cache
from ...cache.layout import check_name
from ...cache.space import column_names
from ...errors import ConfigError, DataError, SchemaError
from ...progress import never, silent
from .. import engine
from ..config import ExtractConfig
from ..work import Plan
from . import arrays
from . import stays as own_stays
from .spec import OwnFile

_STAYS = Path("stays")


def write_cache(
    path: str | Path,
    stays: Any,
    modalities: Mapping[str, npt.ArrayLike],
    masks: Mapping[str, npt.ArrayLike] | None = None,
    *,
    columns: Mapping[str, Sequence[str]] | None = None,
    made_by: Mapping[str, str] | None = None,
    cohort: str = "default",
    dataset: str | None = None,
    subject_is_stay: bool = False,
    split_seed: int = 0,
) -> Cache:
    """Make a cache of your own vectors and series; `cm2 fuse` trains from it.

    What does not fit is refused before anything is written. The same call again changes nothing;
    other arrays for the same stays replace what the stays link.

    Args:
        path: Folder of the cache; made when absent.
        stays: One row per stay, as a dict of columns or a table of pandas, polars or pyarrow:
            stay_id, subject_id; optional split (train, val, test; else 70/10/20 by patient),
            y_<task> or y_<task>__<label> (0, 1 or nothing), in_<task>, intime, any subgroups.
        modalities: By name an array of the stays, row by row as in `stays`: [N, D] vectors or
            [N, T, D] series. NaN is unknown, as is what a masked array hides; a stay whose row is
            all NaN does not have it. A table of vectors tells the names of its columns.
        masks: By name 0 or 1: [N, T] real steps, or known cells in the shape of the array.
        columns: By name what the last axis means.
        made_by: By name what the vectors come from, such as an encoder and its version; vectors
            of different origin are never taken for each other.
        cohort: Name of the cohort.
        dataset: Name of the data set; patients of one name and id count as the same patient.
        subject_is_stay: Every stay is another patient, so no subject_id is needed.
        split_seed: Seed of the split by patient.

    Returns:
        The cache, opened.

    Raises:
        ConfigError: Another cohort of this name exists, or a name is unknown.
        DataError: A stay stands twice, a value is infinite, or an array is all NaN.
        SchemaError: A column or array is of the wrong type or shape.
        LeakageError: A subject is in two splits.
    """
    given = _config(
        data=path,
        cache=path,
        stays=_STAYS,
        cohort=cohort,
        dataset_name=dataset,
        subject_is_stay=subject_is_stay,
        split_seed=split_seed,
    )
    masks, columns, made_by = masks or {}, columns or {}, made_by or {}
    unknown = sorted({*masks, *columns, *made_by} - set(modalities))
    if unknown or not modalities:
        raise ConfigError(
            f"Expected at least one modality, and masks, columns and made_by of these alone; found "
            f"{', '.join(modalities) or 'no modality'}"
            + (f" and {', '.join(unknown)}." if unknown else ".")
        )
    frame = _frame(stays)
    table, info = own_stays.build_of(_STAYS, frame.lazy(), given)
    unwritten = Cohort(given.cache, cohort, table, info, "", {})
    ids = np.array(frame["stay_id"].cast(pl.String).str.strip_chars().to_list())
    plans = [
        _plan(name, unwritten, ids, values, masks.get(name), columns.get(name), made_by.get(name))
        for name, values in modalities.items()
    ]
    write_cohort(given.cache, cohort, table, info)
    for plan in plans:
        engine.encode(given, plan, silent, never())
        write_links(given.cache, cohort, plan.space.modality, plan.links, plan.rules)
    return open_cache(given.cache, cohort)


def _config(**options: object) -> ExtractConfig:
    try:
        return ExtractConfig.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "dataset" if first["loc"] == ("dataset_name",) else str(first["loc"][0])
        raise ConfigError(f"{name}: {first['msg']}; found {first['input']!r}") from None


def _plan(
    name: str,
    cohort: Cohort,
    ids: npt.NDArray[np.str_],
    values: npt.ArrayLike,
    mask: npt.ArrayLike | None,
    columns: Sequence[str] | None,
    made_by: str | None,
) -> Plan:
    names = tuple(columns or column_names(values))
    spec = OwnFile(name=check_name(name, "Modality"), file=Path(name), columns=names)
    if np.ma.isMaskedArray(values):  # else what it hides would count as measured
        values = np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)
    array = np.asarray(values)
    marks = None if mask is None else np.asarray(mask)
    plan = arrays.plan_of(spec, cohort, ids, array, marks, made_by)
    with np.errstate(over="ignore"):
        infinite = np.isinf(array.astype(np.float32))
    if marks is not None:
        infinite &= marks.astype(bool).reshape(marks.shape + (1,) * (array.ndim - marks.ndim))
    rows = np.flatnonzero(infinite.reshape(len(array), -1).any(axis=1))
    if len(rows):
        raise DataError(
            f"{name}: {len(rows)} rows hold a value that is infinite or too large for float32, the "
            f"first is row {rows[0]}, stay {ids[rows[0]]}; expected numbers, or NaN for unknown."
        )
    if not plan.work:
        raise DataError(f"{name}: no stay has a value; expected one that is not NaN.")
    return plan


def _frame(stays: Any) -> pl.DataFrame:
    """Any table as one of polars."""
    try:
        if isinstance(stays, pl.LazyFrame):
            return stays.collect()
        if isinstance(stays, pl.DataFrame):
            return stays
        if isinstance(stays, Mapping):
            return pl.DataFrame({str(name): _column(values) for name, values in stays.items()})
        if type(stays).__module__.partition(".")[0] == "pandas":
            stays = pa.Table.from_pandas(stays, preserve_index=False)
        if isinstance(stays, pa.Table):
            return pl.DataFrame(pl.from_arrow(stays))
    except (pl.exceptions.PolarsError, pa.ArrowException, TypeError, ValueError) as error:
        raise SchemaError(f"stays: not a table of equally long, plain columns: {error}") from None
    raise SchemaError(
        "stays: expected a dict of columns, or a table of pandas, polars or pyarrow; found "
        f"{type(stays).__name__}"
    )


def _column(values: Any) -> Any:
    return values if isinstance(values, pl.Series | np.ndarray) else list(values)


__all__ = ["write_cache"]
