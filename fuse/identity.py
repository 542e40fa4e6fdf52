"""What makes a run the run it is: its resolved configuration and the data it sees.

Never the device, the number of workers, or a path. Nothing here imports torch, so that a finished
run is recognised at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cache.cohort import Cohort
from ..cache.fingerprint import fingerprint
from ..cache.layout import ARRAY_VIEWS, FILM_VIEWS
from ..cache.store import Store
from ..errors import ConfigError, DataError, quoted
from ..extract.encoders.weights import Weights
from .config import FuseConfig, unknown
from .methods import short
from .stream.options import init_of, settled, settled_cached, streamed_of

if TYPE_CHECKING:
    from .rows import FusionData

NUMERICS_VERSION = 7
"""Raised by hand whenever the same configuration and data would give other numbers."""

ROWS = ("task", "modalities", "require", "beside", "rows", "drop", "drop_train", "folds", "fold")
"""Options that decide which rows a run sees and what is in them."""

_ORDER = ("ehr", "cxr", "report", "note", "static")


@dataclass(frozen=True)
class Identity:
    """A run before it exists.

    Attributes:
        config: The configuration with its modalities resolved to NAME@SPACE.
        record: Everything that enters the identity, as JSON.
        spaces: By modality, what its vectors are: encoder, hash of its weights, preparation; where
            the weights came from, whether they were never trained, what they have learnt from, and
            a warning if that may hold the stays to be judged.
        cohort: The opened cohort.
        starts: Weights in files from which encoders start, by modality.
    """

    config: FuseConfig
    record: dict[str, Any]
    spaces: dict[str, dict[str, Any]]
    cohort: Cohort
    starts: Mapping[str, Weights] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """64 hexadecimal digits; the first 12 name the run."""
        return fingerprint(self.record)

    @property
    def name(self) -> str:
        """Folder of the run below `CACHE/runs`."""
        modalities = "+".join(modality_names(self.config))
        return (
            f"{short(self.config.model)}-{self.config.task}-{modalities}"[:80]
            + f"-{self.digest[:12]}"
        )


def modality_names(config: FuseConfig) -> tuple[str, ...]:
    """Modalities of a configuration without their spaces."""
    return tuple(text.partition("@")[0] for text in config.modalities)


class _Seen(NamedTuple):
    """One modality of a cohort as runs see it."""

    text: str
    record: dict[str, Any]
    space: dict[str, Any]
    store: Store


class Inputs:
    """What runs see of a cache, read once for as many runs as ask.

    Args:
        cache: The cache; it must not change while this lives.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._cohorts: dict[str, Cohort] = {}
        self._modalities: dict[tuple[str, str, bool], _Seen] = {}
        self._rows: dict[str, FusionData] = {}

    def identify(self, config: FuseConfig) -> Identity:
        """Resolve a configuration; see `identify`."""
        if config.cohort not in self._cohorts:
            self._cohorts[config.cohort] = Cohort.open(self.cache, config.cohort)
        cohort = self._cohorts[config.cohort]
        if config.task not in cohort.tasks:
            raise ConfigError(unknown("task", config.task, tuple(cohort.tasks)))
        wanted = config.modalities or tuple(sorted(cohort.modalities, key=_rank))
        if not wanted:
            raise DataError(
                f"The cohort {config.cohort!r} of {self.cache} links no modality yet. "
                f"Run `cm2 extract --modality ehr --cache {quoted(self.cache)}` first."
            )
        stream = config.mode == "stream"
        seen = {text: self._modality(cohort, text, stream) for text in wanted}
        asked, counted = (
            {text: self._modality(cohort, text, False) for text in texts}
            for texts in (config.require, config.beside)
        )
        unread = (*asked.values(), *counted.values())
        parts = {part.store.space.modality: part for part in (*seen.values(), *unread)}
        spaces = {part.store.space.modality: dict(part.space) for part in seen.values()}
        config = config.model_copy(
            update={
                "modalities": tuple(part.text for part in seen.values()),
                "require": tuple(part.text for part in asked.values()),
                "beside": tuple(part.text for part in counted.values()),
            }
        )
        series = [n for n in spaces if parts[n].store.space.view == "series"]
        streamed: dict[str, Store] = {}
        if stream:
            streamed = streamed_of(config, {name: parts[name].store for name in spaces})
            config, starts = settled(config, streamed, series)
        else:
            config, starts = settled_cached(config, series)
        for name in (streamed.keys() | starts.keys()) & spaces.keys():
            weights = starts.get(name) or Weights(name, seed=0)
            spaces[name] |= {
                "origin": f"trained, from {init_of(config, name)}",
                "untrained": False,
                "pretrained_on": weights.pretrained_on,
                "caution": weights.caution,
            }
        record = {
            "numerics": NUMERICS_VERSION,
            "config": config.model_dump(mode="json"),
            "cohort": cohort.fingerprint,
            "modalities": {name: part.record for name, part in parts.items()},
        }
        if config.reads_blank:
            record["blanks"] = {
                part.store.space.modality: _blank(part.store)
                for part in seen.values()
                if part.store.space.view != "series"
            }
        if config.task in cohort.labels:  # added later: the cohort's hash does not tell of them
            record["labels"] = cohort.labels[config.task]
        return Identity(config, record, spaces, cohort, starts)

    def records(self, config: FuseConfig, cohort: Cohort) -> dict[str, dict[str, Any]]:
        """Space, content and links of each modality of a resolved configuration, as it is now."""
        stream = config.mode == "stream"
        parts = [self._modality(cohort, text, stream) for text in config.modalities]
        parts += [self._modality(cohort, text, False) for text in (*config.require, *config.beside)]
        return {part.store.space.modality: part.record for part in parts}

    def load(self, identity: Identity) -> FusionData:
        """Read the rows of a run; those of the last data are kept for the next run."""
        from .data import load

        config = identity.config
        if config.mode == "stream":  # items are read as they are needed, by a reader of the run's
            return load(self.cache, config, identity.cohort)
        told = fingerprint(
            [config.cohort, config.reads_blank, *(getattr(config, name) for name in ROWS)]
        )
        if told not in self._rows:
            self._rows = {told: load(self.cache, config, identity.cohort)}
        return self._rows[told]

    def _modality(self, cohort: Cohort, text: str, stream: bool) -> _Seen:
        found = self._modalities.get((cohort.name, text, stream))
        if found is not None:
            return found
        name, _, space_id = text.partition("@")
        if name not in cohort.modalities:
            raise ConfigError(unknown("modality", name, tuple(cohort.modalities)))
        views = FILM_VIEWS if stream else ARRAY_VIEWS
        store = Store.open(self.cache, name, space_id or None, views)
        links = cohort.links(name)
        linked = {item for row in links.table["items"].to_pylist() for item in row or ()}
        items = sorted(item for item in linked if store.holds(item))  # the others were rejected
        record = {
            "space": store.space.id,
            "content": store.content(items),
            "links": links.fingerprint,
        }
        origin = store.provenance
        space = {
            "view": store.space.view,
            **store.space.parts,
            "origin": str(origin.get("weights", "")),
            "untrained": bool(origin.get("random_weights")),
            "pretrained_on": str(origin.get("pretrained_on", "")),
            "caution": str(origin.get("caution", "")),
        }
        seen = _Seen(f"{name}@{store.space.id}", record, space, store)
        self._modalities[cohort.name, text, stream] = seen
        return seen


def _blank(store: Store) -> str:
    """Hash of what the encoder makes of an empty input.

    Raises:
        ConfigError: The store has none.
    """
    digest: str | None = store.manifest["blank"]
    if digest is None:
        name = store.space.modality
        raise ConfigError(
            f"blank is what an encoder makes of an empty input; {store.path} holds none"
            + (
                ": its images are encoded in training"
                if store.space.view == "pixels"
                else ": its vectors were not encoded by cm2"
            )
            + ". Choose zero, mean or learned (skip with mmtm and daft) for what is absent, or "
            f"leave {name} out."
        )
    return digest


def identify(config: FuseConfig, cache: Path) -> Identity:
    """Resolve a configuration against a cache.

    Args:
        config: What is to be trained.
        cache: The cache.

    Raises:
        ConfigError: Unknown task or modality, or an ambiguous store.
        DataError: The cache has no such cohort, or a modality of it was not extracted.
        IntegrityError: A file of the cache is not what was written.
    """
    return Inputs(cache).identify(config)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """List where two identity records differ.

    Args:
        ours: The record asked for.
        theirs: The record found.

    Returns:
        Lines ``name: found -> asked``.
    """
    left, right = _flat(theirs), _flat(ours)
    return [
        f"{name}: {left.get(name, 'absent')} -> {right.get(name, 'absent')}"
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    ]


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            result.update(_flat(value, f"{prefix}{name}."))
        else:
            result[prefix + name] = value
    return result


def _rank(name: str) -> tuple[int, str]:
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)
