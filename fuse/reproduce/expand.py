"""From an experiment and caches to what is trained: rooms of configurations. Nothing is run here.

A room is one table: one setting, cache and task; its lines see the same stays, seeds and budget.
What cannot be trained here (a modality that lacks, a method that is not built in) is named with its
reason and never filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...cache.cohort import Cohort
from ...cache.layout import modality_folder
from ...cache.reader import Store, stores_of
from ...errors import ConfigError, quoted
from .. import combinations
from ..config import MODELS, FuseConfig, unknown
from ..drop import Drop
from ..identity import identify
from ..inert import unread
from ..methods import find, short
from ..presets import resolve
from ..sweep.axis import Axis
from .budget import settings
from .experiments import Experiment, Line, Options, Setting, method
from .streamed import TRUNKS, streamed, trunks_of

OF_CM2 = (*combinations.OF_CM2, "temperature", "published")
"""Options of a preset that are about CM2 alone: the other methods do not take them."""


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        caches: Folders of caches.
        cohort: Name of the cohort in each.
        tasks: Tasks; empty takes those of the experiment.
        modalities: Modalities of every setting, NAME or NAME@SPACE; empty takes the paper's.
        methods: Which lines, by key, and further methods such as `cm2+align=none`; `all` is every
            method there is; empty takes those of the experiment.
        options: Options under every line, with `preset` if one is named.
        tune: Options and values of which the best on validation is taken, for every method alike.
        tries: Settings of every method that validation chooses from, see `budget`; None takes all
            of `tune`.
        stream: Train the encoders of films and texts too, instead of reading what they made.
        trunks: Their networks by modality, where they are not the paper's.
    """

    caches: tuple[Path, ...]
    cohort: str = "default"
    tasks: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    options: Options = field(default_factory=dict)
    tune: tuple[Axis, ...] = ()
    tries: int | None = None
    stream: bool = False
    trunks: Mapping[str, str] = field(default_factory=dict)

    def from_cache(self) -> Request:
        """The same lines on what the encoders made, frozen."""
        idle = combinations.STREAM_ONLY
        options = {name: value for name, value in self.options.items() if name not in idle}
        starts = self.options.get("init", ())
        trained = {*TRUNKS, *self.trunks}
        options["init"] = tuple(t for t in starts if t.partition("=")[0] not in trained)
        tune = tuple(axis for axis in self.tune if axis.name not in idle)
        return replace(self, options=options, tune=tune, stream=False, trunks={})


@dataclass(frozen=True)
class Entry:
    """A line in a room.

    Attributes:
        line: The line.
        tries: Configurations without their seeds, of which validation chooses one.
    """

    line: Line
    tries: tuple[FuseConfig, ...]


@dataclass(frozen=True)
class Room:
    """One table.

    Attributes:
        setting: What is particular about it.
        cache: Where the data are.
        info: What the cohort knows of itself: dataset, release, synthetic.
        task: The task.
        modalities: NAME or NAME@SPACE in order.
        entries: What is trained.
        baselines: By title, positions of what every line is compared with.
    """

    setting: Setting
    cache: Path
    info: Mapping[str, Any]
    task: str
    modalities: tuple[str, ...]
    entries: tuple[Entry, ...]
    baselines: Mapping[str, int]

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.info.get("dataset", ""))

    @property
    def title(self) -> str:
        """Data set, task, setting and modalities in one line."""
        names = "+".join(text.partition("@")[0] for text in self.modalities)
        return f"{self.dataset}, {self.task}, {self.setting.title} ({names})"


@dataclass(frozen=True)
class Plan:
    """What an experiment comes to on the caches that are there.

    Attributes:
        experiment: The experiment.
        rooms: What is trained, table by table.
        skipped: What is not, one sentence each.
    """

    experiment: Experiment
    rooms: tuple[Room, ...]
    skipped: tuple[str, ...]


def expand(experiment: Experiment, request: Request) -> Plan:
    """Lay an experiment over caches.

    Args:
        experiment: The table or figure.
        request: What the user asks for.

    Raises:
        ConfigError: Nothing is left to train; the message says why.
        DataError: A cache has no such cohort.
        IntegrityError: A file of a cache is not what was written.
    """
    rooms: list[Room] = []
    skipped: list[str] = []
    for setting in experiment.settings:
        for cache in request.caches:
            cohort = Cohort.open(cache, request.cohort)
            where = f"{setting.title}, {cohort.info.get('dataset', '')} ({cache})"
            try:
                modalities = _modalities(setting, cache, cohort, request)
                tasks = _tasks(experiment, cohort, request.tasks)
            except ConfigError as error:
                skipped.append(f"{where}: {error}")
                continue
            for task in tasks:
                room, lacking = _room(
                    setting, cache, cohort, task, modalities, request, experiment.of_copula
                )
                skipped += [f"{where}, {task}: {text}" for text in lacking]
                if room is not None:
                    rooms.append(room)
    if not rooms:
        raise ConfigError("Nothing can be trained:\n  " + "\n  ".join(skipped))
    return Plan(experiment, tuple(rooms), tuple(dict.fromkeys(skipped)))


def parse_method(text: str) -> Line:
    """Read NAME, NAME:PRESET, and +OPTION=VALUE behind it, such as `cm2+align=none+K=1`.

    Raises:
        ConfigError: Anything else; the nearest method is named.
    """
    from ...options import read_settings

    name, *parts = text.split("+")
    if not name:
        raise ConfigError(f"--methods: expected NAME or NAME+OPTION=VALUE, found {text!r}")
    options = read_settings(None, parts)
    before, _, preset = name.rpartition(":")
    if before in MODELS or before.rpartition(":")[0].endswith(".py"):
        name, options = before, {"preset": preset, **options}
    if name not in MODELS and ":" not in name:
        raise ConfigError(f"--methods {text}: {unknown('method', name, MODELS)}")
    line = method(name, **options)
    return replace(line, key=text, title=line.title.replace(name, short(name)))


def _modalities(setting: Setting, cache: Path, cohort: Cohort, request: Request) -> tuple[str, ...]:
    dataset = str(cohort.info.get("dataset", ""))
    wanted = request.modalities or setting.modalities.get(dataset, ())
    if not wanted:
        raise ConfigError(
            f"the paper has no such data; name the modalities (--modalities "
            f"{','.join(cohort.modalities)}) and the task."
        )
    names = [text.partition("@")[0] for text in wanted]
    if lacking := [name for name in names if name not in cohort.modalities]:
        raise ConfigError(
            f"the cache lacks {' and '.join(lacking)}: `cm2 extract --modality {lacking[0]} "
            f"--cache {quoted(cache)}` adds it."
        )
    return tuple(
        _stored(cache, text, setting.image) if name == "cxr" and not request.stream else text
        for name, text in zip(names, wanted, strict=True)
    )


def _stored(cache: Path, text: str, begins: str) -> str:
    """Name the store of films whose encoder's name begins as asked."""
    if not begins or "@" in text:
        return text
    found = []
    for space in stores_of(modality_folder(cache, text)):
        parts = Store.open(cache, text, space).space.parts
        if str(parts.get("encoder", "")).startswith(begins) and parts.get("level") == "pooled":
            found.append(f"{text}@{space}")
    if len(found) != 1:
        there = f"{len(found)} stores ({', '.join(found)}): name one" if found else "no store"
        raise ConfigError(
            f"the cache has {there} of {text} by an encoder {begins!r}: `cm2 extract --modality "
            f"{text} --encoder NAME --cache {quoted(cache)}` makes one."
        )
    return found[0]


def _tasks(experiment: Experiment, cohort: Cohort, asked: tuple[str, ...]) -> tuple[str, ...]:
    wanted = asked or experiment.tasks or (cohort.tasks if len(cohort.tasks) == 1 else ())
    tasks = tuple(task for task in wanted if task in cohort.tasks)
    if not tasks:
        raise ConfigError(
            f"the cohort has no task {' or '.join(wanted) or 'named'}; it has "
            f"{', '.join(cohort.tasks)}: name one by --task."
        )
    return tasks


def _room(
    setting: Setting,
    cache: Path,
    cohort: Cohort,
    task: str,
    modalities: tuple[str, ...],
    request: Request,
    of_copula: bool,
) -> tuple[Room | None, list[str]]:
    """Configure every line; return what cannot be configured with its reason."""
    base = {**request.options, "task": task, "cohort": request.cohort, "modalities": modalities}
    base |= {"rows": setting.rows, "drop": setting.drop, **setting.options}
    entries: list[Entry] = []
    lacking: list[str] = []
    for line in _lines(setting, modalities, request.methods, compared=not of_copula):
        if any(line.key == entry.line.key for entry in entries):
            continue
        if (name := str(line.options["model"])) not in MODELS and ":" not in name:
            lacking.append(f"{line.title} is left out: there is no method {name!r} here.")
            continue
        if of_copula and line.options["model"] != "cm2":
            lacking.append(f"{line.title} is left out: it has no copula to look at.")
            continue
        try:
            tries = _tries(line, base, request, setting.image)
            if request.stream or tries[0].reads_blank:  # not every store has what that takes
                identify(tries[0], cache)
            entries.append(Entry(line, tries))
        except ConfigError as error:
            lacking.append(f"{line.title} is left out: {error}")
    keys = [entry.line.key for entry in entries]
    cm2 = next((i for i, entry in enumerate(entries) if entry.line.cm2), None)
    baselines = {} if cm2 is None else {entries[cm2].line.title: cm2}
    for key in (f"alone:{names_of(modalities)[0]}", "concat"):
        if key in keys:
            baselines[entries[keys.index(key)].line.title] = keys.index(key)
    if not entries:
        return None, lacking
    return Room(setting, cache, cohort.info, task, modalities, tuple(entries), baselines), lacking


def _lines(
    setting: Setting, modalities: tuple[str, ...], asked: tuple[str, ...], compared: bool
) -> Iterator[Line]:
    """Yield the lines asked for, and those that every line is compared with."""
    own = {line.key: line for line in setting.lines}
    for text in asked or tuple(own):
        for name in MODELS if text == "all" else (text,):
            line = own.get(name) or parse_method(name)
            if line.options["model"] == "single" and "modalities" not in line.options:
                yield from (_alone(part, modalities, setting) for part in modalities)
            else:
                yield line
    if not compared:
        return
    if len(modalities) > 1:
        yield _alone(modalities[0], modalities, setting)
        yield method("concat")
    yield from (line for line in setting.lines if line.cm2)


def _alone(one: str, modalities: tuple[str, ...], setting: Setting) -> Line:
    name = one.partition("@")[0]
    options: dict[str, Any] = {"model": "single", "modalities": (one,)}
    others = tuple(other for other in modalities if other != one)
    options["require" if setting.rows == "matched" else "beside"] = others
    title = {"ehr": "EHR", "cxr": "film"}.get(name, name)
    return Line(f"alone:{name}", f"{title} alone", options, added=True)


def _tries(line: Line, base: Options, request: Request, image: str = "") -> tuple[FuseConfig, ...]:
    model, own_preset = str(line.options["model"]), line.options.get("preset")
    own = find(model).options
    idle = (*unread(model), *(() if model == "cm2" else OF_CM2))
    # A preset under all lines is that of CM2, of which the other methods take the recipe; the paper
    # states one for each of them.
    named = {"preset": own_preset} if own_preset else {}
    if own_preset or base.get("preset") == "paper":
        named["model"] = model
    options = resolve({**base, **named})
    if "series_encoder" in base and "series" in own.model_fields:  # encoders are its own option
        options["options"] = {**options.get("options", {}), "series": base["series_encoder"]}
    options = {name: value for name, value in options.items() if name not in idle}
    options |= {name: value for name, value in line.options.items() if name != "preset"}
    read = names_of(options["modalities"])
    options["drop"] = tuple(text for text in options["drop"] if Drop.parse(text).name in read)
    if not options["drop"]:
        options.pop("beside", None)
    fixed = {*idle, *line.options}
    if request.stream:
        options = streamed(options, read, trunks_of(request.trunks, image))
        fixed |= set() if "mode" in options else set(combinations.STREAM_ONLY)
    tuned = [axis for axis in request.tune if axis.name not in fixed]
    return settings(options, tuned, request.tries)


def names_of(modalities: Sequence[str]) -> tuple[str, ...]:
    """Names of modalities given as NAME or NAME@SPACE."""
    return tuple(text.partition("@")[0] for text in modalities)


__all__ = ["OF_CM2", "Entry", "Plan", "Request", "Room", "expand", "names_of", "parse_method"]
