"""The route of an existing tree of mimic3-benchmarks or MedFuse: its series, cleaned already."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import polars as pl

from ..cache.cohort import Cohort, write_cohort
from ..errors import ConfigError
from . import receipts
from .config import MODALITIES, ExtractConfig
from .estimate import Estimate, steps
from .modalities import ehr
from .modalities.series_vectors import run_of
from .sources.catalogue import published
from .sources.tree_series import values
from .sources.trees import open_tree
from .tree_cohort import TreeData, build, rules
from .work import Plan

_SERIES_PER_SECOND = 400.0
_ROWS_PER_SERIES = 70


class TreeRoute:
    """A folder that mimic3-benchmarks or MedFuse has written.

    Args:
        config: Options; `from_tree` is the folder.

    Raises:
        ConfigError: A modality that such a tree does not have, or weights that none can take.
        DataError: The folder is no such tree.
    """

    def __init__(self, config: ExtractConfig) -> None:
        if config.modality not in (("ehr",), MODALITIES):
            raise ConfigError(
                f"--from: an existing tree holds series only (--modality ehr), found "
                f"{', '.join(config.modality)}. Films and notes need the raw data with --data."
            )
        if config.weights and run_of(config, "ehr", sole=True) is None:
            raise ConfigError(
                "--weights: the series of a tree are encoded by a run alone; give its folder, or "
                "leave it out"
            )
        self.modalities: tuple[str, ...] = ("ehr",)
        self.config = config
        self.path = config.from_tree or config.data
        self.data = TreeData(open_tree(self.path), config)

    def cohort(self) -> Cohort:
        """Open the cohort, build it if absent, look again when files or rules have changed."""
        config = self.config
        if Cohort.exists(config.cache, config.cohort) and config.splits is None:
            cohort = Cohort.open(config.cache, config.cohort)
            seed = cohort.info["split"].get("seed", config.split_seed)
            same = cohort.info["release"] == "imported tree" and seed == config.split_seed
            if same and receipts.seen_tables(config, self.tables()):
                return cohort
        cohort = write_cohort(config.cache, config.cohort, *build(self.data))
        receipts.write_tables(config, self.tables())
        return cohort

    def plan(self, cohort: Cohort, modality: str) -> Plan:
        """Return the work: one series per stay with any measurement."""
        provenance = {"tree": rules(self.data), "series": self.data.stays.height}
        catalogue = published(self.config.preset)
        found = values(self.data.series, catalogue)
        stays = cohort.stays["stay_id"].to_pylist()
        return ehr.plan_of(found, stays, self.config, catalogue, provenance)

    def tables(self, modality: str | None = None) -> receipts.Looks:
        """Every file of the tree."""
        return self._looks

    @cached_property
    def _looks(self) -> receipts.Looks:
        roots = {Path(self.path), *([self.data.tree.root] if self.data.tree.root else [])}
        return [look for root in sorted(roots) for look in receipts.sources(root)]

    def estimate(self, modality: str) -> Estimate:
        """Estimate from the number of series."""
        stays: pl.DataFrame = self.data.stays
        read = sum(Path(path).stat().st_size for path in stays["series"])
        columns = len(published(self.config.preset).columns())
        return Estimate(
            modality=modality,
            rows=stays.height * _ROWS_PER_SERIES,
            read_bytes=read,
            items=stays.height,
            write_bytes=stays.height * columns * steps(self.config) * 4,
            files=2 * -(-stays.height // ehr.SHARD_ITEMS) + 10,
            minutes=round(stays.height / _SERIES_PER_SECOND / 60, 1),
            missing="",
        )


__all__ = ["TreeRoute"]
