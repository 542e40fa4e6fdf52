"""Arrays of the user: an npz file with stay_id, values [n, D] or [n, T, D], and perhaps a mask."""

from __future__ import annotations

import zipfile
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...cache.cohort import Cohort
from ...cache.store import Space
from ...errors import DataError, SchemaError
from ..work import Plan
from . import rows
from .spec import KNOWN, OwnFile
from .times import NOT_CHECKED

Array = npt.NDArray[np.generic]


def plan(spec: OwnFile, cohort: Cohort, made_by: str | None) -> Plan:
    """Return the work of an npz file.

    Args:
        spec: The file.
        cohort: The stays.
        made_by: What the vectors are, in the user's words; part of the space.

    Raises:
        DataError: The file is unreadable, a stay stands twice, or none belongs to the cohort.
        SchemaError: An array is missing or of the wrong shape or type.
    """
    found = _read(spec)
    return plan_of(spec, cohort, found[spec.id], found["values"], found.get("mask"), made_by)


def plan_of(
    spec: OwnFile,
    cohort: Cohort,
    stay_ids: Array,
    values: Array,
    mask: Array | None,
    made_by: str | None,
) -> Plan:
    """Return the work of arrays; see `plan`. Empty values are NaN, or False in the mask."""
    ids = _ids(spec, stay_ids)
    numbers = _values(spec, values, len(ids))
    steps, known = _mask(spec, mask, numbers)
    names = {str(value) for value in cohort.stays["stay_id"].to_pylist()}
    mine = np.array([name in names for name in ids], dtype=bool)
    numbers, known, steps = numbers[mine], known[mine], None if steps is None else steps[mine]
    ids = [name for name, here in zip(ids, mine, strict=True) if here]
    if numbers.ndim == 3:
        some = known.any(axis=2)  # a step without any value is no step
        steps = some if steps is None else steps & some
        known = known & steps[..., None]
    width = numbers.shape[-1]
    axes = tuple(range(1, known.ndim))
    there = known.any(axis=axes)
    infinite = (np.isinf(numbers) & known).any(axis=axes)
    gaps = (mask is not None and mask.shape == values.shape) or bool(np.isnan(values).any())
    numbers = np.where(known, numbers, np.float32(0))
    names_of = spec.columns or (tuple(f"x{i}" for i in range(width)) if gaps else ())
    if spec.columns and len(spec.columns) != width:
        raise SchemaError(
            f"{spec.file}: {spec.table} names {len(spec.columns)} columns, values have {width}"
        )
    if gaps:
        numbers = np.concatenate([numbers, known.astype(np.float32)], axis=-1)
        names_of = (*names_of, *(f"{KNOWN}{name}" for name in names_of))
    view: Literal["series", "vector"] = "series" if numbers.ndim == 3 else "vector"
    space = Space(
        spec.name,
        view,
        {"own": "arrays", "made_by": made_by or "", "width": width, "gaps": gaps},
        names_of,
    )
    kept = [stay for stay, here in zip(ids, there, strict=True) if here]
    held = rows.Rows(
        stays=kept,
        values=np.ascontiguousarray(numbers[there], dtype=np.float32),
        mask=None if steps is None else steps[there],
        rejects={int(row): rows.INFINITE for row in np.flatnonzero(infinite[there])},
        absent={s: rows.ALL_EMPTY for s, here in zip(ids, there, strict=True) if not here},
        ignored=int((~mine).sum()),
    )
    return rows.plan(spec, cohort, space, held, {"rows": "one per stay"}, NOT_CHECKED)


def shape_of(spec: OwnFile) -> tuple[int, ...]:
    """Shape of the values of an npz file.

    Raises:
        DataError: It is not there or unreadable.
    """
    return _read(spec)["values"].shape


def _read(spec: OwnFile) -> dict[str, Array]:
    if not spec.file.is_file():
        raise DataError(f"{spec.file}: expected an npz file, found no such file.")
    try:
        with np.load(spec.file, allow_pickle=False) as content:
            names = [name for name in (spec.id, "values", "mask") if name in content]
            found = {name: content[name] for name in names}
            there = ", ".join(content.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise DataError(
            f"{spec.file}: not a readable npz of plain arrays ({type(error).__name__}); arrays of "
            "Python objects are never read"
        ) from error
    for name in (spec.id, "values"):
        if name not in found:
            raise SchemaError(f"{spec.file}: expected the array {name!r}, found {there or 'none'}")
    return found


def _ids(spec: OwnFile, ids: Array) -> list[str]:
    if ids.ndim != 1 or ids.dtype.kind not in "iuUS":
        raise SchemaError(
            f"{spec.file}: {spec.id} must be one row of whole numbers or text, found {ids.dtype} "
            f"of shape {ids.shape}"
        )
    texts = [v.decode() if isinstance(v, bytes) else str(v).strip() for v in ids.tolist()]
    if len(set(texts)) != len(texts):
        double = next(text for text in texts if texts.count(text) > 1)
        raise DataError(f"{spec.file}: {spec.id} {double} stands twice; expected one row per stay")
    return texts


def _values(spec: OwnFile, values: Array, n: int) -> npt.NDArray[np.float32]:
    if values.ndim not in (2, 3) or len(values) != n or 0 in values.shape:
        raise SchemaError(
            f"{spec.file}: values must have the shape [n, D] or [n, T, D] with n = {n} as "
            f"{spec.id}, found {values.shape}"
        )
    if values.dtype.kind not in "fiub":
        raise SchemaError(f"{spec.file}: values must be numbers, found {values.dtype}")
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _mask(
    spec: OwnFile, mask: Array | None, values: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.bool_] | None, npt.NDArray[np.bool_]]:
    """Real steps [n, T] or None, and which cells have a value."""
    known = ~np.isnan(values)
    if mask is None:
        return None, known
    if mask.dtype.kind not in "biu" or not np.isin(mask, (0, 1)).all():
        raise SchemaError(f"{spec.file}: mask must hold 0 and 1, found {mask.dtype}")
    if mask.shape == values.shape:
        return None, known & mask.astype(bool)
    if values.ndim == 3 and mask.shape == values.shape[:2]:
        return mask.astype(bool), known & mask.astype(bool)[..., None]
    raise SchemaError(
        f"{spec.file}: mask must mark cells {values.shape}"
        + (f" or steps {values.shape[:2]}" if values.ndim == 3 else "")
        + f", found {mask.shape}"
    )


__all__ = ["plan", "plan_of", "shape_of"]
