"""The route of a MIMIC release: cohort by its rules; series, films and texts of its stays."""

from __future__ import annotations

import logging
from functools import cached_property

from ..cache.cohort import Cohort, write_cohort
from ..errors import ConfigError
from . import receipts
from .cohort import build, check
from .config import MODALITIES, ExtractConfig
from .encoders import ENCODED, weights
from .estimate import Estimate
from .estimate import ehr as ehr_estimate
from .modalities.series_vectors import run_of
from .sources import Source, open_source
from .sources.catalogue import Catalogue, published
from .sources.mimic_cxr import find_metadata
from .sources.report_texts import find_texts
from .work import Plan

_log = logging.getLogger("cm2.extract")


class MimicRoute:
    """A folder of MIMIC-III, or of MIMIC-IV with its films and reports.

    Args:
        config: Options.

    Raises:
        ConfigError: An encoder or weights that no modality can take.
        DataError: The folder is no release, or notes are wanted and it has none.
        SchemaError: A row of --items or --variables is not what it must be.
    """

    def __init__(self, config: ExtractConfig) -> None:
        self.source = open_source(config.data, config.dataset)
        self.modalities = _wanted(self.source, config)
        self.config = config.model_copy(update={"modality": self.modalities})
        self._check_encoder()
        self.catalogue = _catalogue(config)
        if "note" in self.modalities:
            from .modalities import notes

            notes.require(self.source)

    def cohort(self) -> Cohort:
        """Open the cohort, build it if absent, look again when the tables have changed since."""
        config = self.config
        for modality in self.modalities:  # before tables are read for minutes
            self._weights(modality)
        if Cohort.exists(config.cache, config.cohort):
            cohort = Cohort.open(config.cache, config.cohort)
            check(cohort, self.source, config)
            if receipts.seen_tables(config, self.tables()):
                return cohort
        wanted = (self.catalogue,) if "ehr" in self.modalities else ()
        stays, info = build(self.source, config, *wanted)
        cohort = write_cohort(config.cache, config.cohort, stays, info)
        receipts.write_tables(config, self.tables())
        return cohort

    def plan(self, cohort: Cohort, modality: str) -> Plan:
        """Return the work of one modality."""
        from .modalities import cxr, ehr, notes, reports, static

        if modality == "ehr":
            return ehr.plan(self.source, cohort, self.config, self.catalogue)
        if modality == "static":
            return static.plan(self.source, cohort)
        chosen = self._weights(modality)
        if modality == "cxr":
            return cxr.plan(self.source, cohort, self.config, chosen)
        assert chosen is not None  # texts are always encoded
        if modality == "note":
            return notes.plan(self.source, cohort, self.config, chosen)
        return reports.plan(self.source, cohort, self.config, chosen)

    def tables(self, modality: str | None = None) -> receipts.Looks:
        """Every table of the release, looked at once: before any of them is read."""
        return self._looks

    @cached_property
    def _looks(self) -> receipts.Looks:
        return receipts.sources(self.config.data)

    def estimate(self, modality: str) -> Estimate:
        """Estimate from sizes of files."""
        from .estimate_items import items

        if modality == "ehr":
            return ehr_estimate(self.source, self.config, self.catalogue)
        return items(self.source, self.config, modality)

    def _weights(self, modality: str) -> weights.Weights | None:
        """The weights of a modality; None where nothing is encoded."""
        if not self.config.encodes(modality):
            return None
        encoded = [name for name in self.modalities if name in ENCODED]
        given, synthetic = self.config.weights, self.source.synthetic
        return weights.choose(given, modality, encoded, synthetic=synthetic)

    def _check_encoder(self) -> None:
        """Refuse an encoder or weights that no modality of this call can take."""
        encoded = [name for name in self.modalities if name in ENCODED]
        for word in self.config.encoder:
            modality, equals, _ = word.partition("=")
            if (equals and modality not in encoded) or not encoded:
                raise ConfigError(
                    f"--encoder {word}: expected [MODALITY=]NAME for one of the modalities of this "
                    f"call that have an encoder: {', '.join(encoded) or 'none'}"
                )
            if not equals and len(encoded) > 1:
                raise ConfigError(
                    f"--encoder {word}: several modalities of this call have an encoder; write "
                    + " or ".join(f"{m}={word}" for m in encoded)
                )
        series = [run_of(self.config, m, sole=len(self.modalities) == 1) for m in self.modalities]
        if self.config.weights and not encoded and not any(series):
            raise ConfigError(
                f"--weights: {', '.join(self.modalities)} has no encoder that could take any"
            )


def offered(source: Source) -> tuple[str, ...]:
    """Return the modalities that a source has data for."""
    from .modalities import notes

    there = {"ehr", "static"}
    if find_metadata(source.root) is not None:
        there.add("cxr")
        if find_texts(source.root) is not None:
            there.add("report")
    if notes.is_offered(source):
        there.add("note")
    return tuple(name for name in MODALITIES if name in there)


def _catalogue(config: ExtractConfig) -> Catalogue:
    """The published variables, or those of the user over them."""
    if config.items is None and config.variables is None:
        return published(config.preset)
    from .sources.own_catalogue import with_own

    return with_own(config.items, config.variables)


def _wanted(source: Source, config: ExtractConfig) -> tuple[str, ...]:
    """The modalities to extract; of `all` those that the source offers."""
    if config.modality != MODALITIES:
        return config.modality
    there = offered(source)
    if there != MODALITIES:
        absent = ", ".join(name for name in MODALITIES if name not in there)
        _log.info("%s holds no data for %s", source.root, absent)
    return there


__all__ = ["MimicRoute", "offered"]
