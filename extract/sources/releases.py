"""Which release a folder holds, told by its layout and by how many rows its tables have.

A table whose length is not that of its release is a table that was cut, or of another release:
a short CHARTEVENTS gives wrong series and no other sign. Only a release that is recognised by two
of its three small tables is held to its counts; others are taken as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import DataError

logger = logging.getLogger("cm2.extract.releases")

DRIFT = 0.005
_SMALL = ("icustays", "admissions", "patients")
_ENOUGH = 2  # of these must fit: then the third was cut, and no subset is taken for a release


@dataclass(frozen=True)
class Release:
    """A release and the rows of its tables.

    Args:
        name: As PhysioNet calls it.
        rows: Table, without folder, to its number of rows.
    """

    name: str
    rows: Mapping[str, int]


# MIMIC-III 1.4, MIMIC-IV 2.0, 2.1: the row checks of mimic-code. The demos: counted. MIMIC-IV 1.0,
# 2.2 and 3.1: as quoted in public, not counted by us; tables without such a figure are left out.
RELEASES: dict[str, tuple[Release, ...]] = {
    "mimic3": (
        Release(
            "1.4",
            {
                "icustays": 61_532,
                "admissions": 58_976,
                "patients": 46_520,
                "chartevents": 330_712_483,
                "labevents": 27_854_055,
            },
        ),
        Release("1.4 demo", {"icustays": 136, "admissions": 129, "patients": 100}),
    ),
    "mimic4": (
        Release(
            "1.0",
            {
                "icustays": 76_540,
                "admissions": 523_740,
                "patients": 382_278,
                "chartevents": 329_499_788,
                "labevents": 122_103_667,
            },
        ),
        Release(
            "2.0",
            {
                "icustays": 76_943,
                "admissions": 454_324,
                "patients": 315_460,
                "chartevents": 329_822_285,
                "labevents": 124_342_638,
            },
        ),
        Release(
            "2.1",
            {
                "icustays": 73_141,
                "admissions": 431_088,
                "patients": 299_777,
                "chartevents": 314_035_266,
                "labevents": 118_057_948,
            },
        ),
        Release(
            "2.2",
            {
                "icustays": 73_181,
                "admissions": 431_231,
                "patients": 299_712,
                "chartevents": 313_645_063,
            },
        ),
        Release(
            "3.1",
            {
                "icustays": 94_458,
                "admissions": 546_028,
                "patients": 364_627,
                "labevents": 158_374_764,
            },
        ),
        Release("2.2 demo", {"icustays": 140, "admissions": 275, "patients": 100}),
    ),
}


def recognise(dataset: str, rows: Mapping[str, int]) -> Release | None:
    """Return the release whose small tables these are, the nearest one; None for none.

    Args:
        dataset: mimic3 or mimic4.
        rows: Table, without folder, to the rows found.
    """
    near = []
    for release in RELEASES[dataset]:
        off = [abs(rows[t] - release.rows[t]) / release.rows[t] for t in _SMALL if t in rows]
        fitting = [share for share in off if share <= DRIFT]
        if len(fitting) >= _ENOUGH:
            near.append((-len(fitting), sum(fitting), release.name, release))
    return min(near)[3] if near else None


def drift(release: Release, rows: Mapping[str, int]) -> list[str]:
    """Return one sentence for each table that is over `DRIFT` longer or shorter than known."""
    return [
        f"{table} has {rows[table]:,} rows, {known:,} in the release "
        f"({(rows[table] - known) / known:+.1%})"
        for table, known in release.rows.items()
        if table in rows and abs(rows[table] - known) > DRIFT * known
    ]


def check(dataset: str, release: Release | None, rows: Mapping[str, int], *, allow: bool) -> None:
    """Refuse tables that are not as long as in their release.

    Args:
        dataset: mimic3 or mimic4.
        release: The release recognised; None lets everything pass.
        rows: Table to the rows found.
        allow: Only warn.

    Raises:
        DataError: A count deviates by more than `DRIFT`, and `allow` is not set.
    """
    found = drift(release, rows) if release is not None else []
    if not found or release is None:
        return
    said = f"This looks like {dataset} {release.name}, but " + "; ".join(found) + "."
    if allow:
        logger.warning("%s Going on as --allow-count-drift asks.", said)
        return
    raise DataError(
        f"{said} A table may be cut or of another release: compare the files with its "
        "SHA256SUMS.txt (`cm2 doctor --verify`), or go on with --allow-count-drift."
    )


__all__ = ["DRIFT", "RELEASES", "Release", "check", "drift", "recognise"]
