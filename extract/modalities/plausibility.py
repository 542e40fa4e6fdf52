"""How often each variable was observed and what its values were: a check by eye of a source."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from ..sources.catalogue import Catalogue

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


def plausibility(
    found: pl.DataFrame, cells: npt.NDArray[np.float32], catalogue: Catalogue
) -> list[dict[str, object]]:
    """Return one row per variable.

    Args:
        found: stay_id, hours, variable, value: the measurements of the stays.
        cells: ``[N, T, V]``, NaN where a bin has no measurement.
        catalogue: The variables; under `reference` places of coma-scale texts have no quantiles.

    Returns:
        variable, unit, measurements, stays (share with any), observed (share of bins with one, over
        stays with any measurement at all), and p1, p25, p50, p75, p99 of the measurements.
    """
    observed = ~np.isnan(cells)
    measured = observed.any(axis=(1, 2))
    rows: list[dict[str, object]] = []
    for i, variable in enumerate(catalogue.variables):
        values = found.filter(pl.col("variable") == i)["value"]
        places = catalogue.preset == "reference" and variable.name.startswith("Glasgow")
        quantiles = {
            f"p{level * 100:.0f}": None
            if places or values.is_empty()
            else round(float(np.quantile(values.to_numpy(), level)), 4)
            for level in QUANTILES
        }
        mine = observed[measured, :, i]
        rows.append(
            {
                "variable": variable.name,
                "unit": variable.unit,
                "measurements": values.len(),
                "stays": round(float(mine.any(axis=1).mean()), 4) if mine.size else 0.0,
                "observed": round(float(mine.mean()), 4) if mine.size else 0.0,
                **quantiles,
            }
        )
    return rows


__all__ = ["QUANTILES", "plausibility"]
