"""Encoders that runs of their own train first: `--pretrain cxr,report:findings,ehr`.

Such a run reads its modality alone, on all stays that have it, under the settings of the run that
starts from its weights. It is an ordinary run at the place of its identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...cache.layout import FILM_VIEWS
from ...errors import ConfigError
from ...progress import Progress, Stop, never, silent
from ..combinations import STREAM_ONLY
from ..config import FuseConfig, unknown
from ..drop import Drop
from ..identity import Identity, identify, modality_names
from ..inert import unread
from ..stream.options import OF_FILMS, OF_TEXTS, names_files, pairs
from . import trainer

SINGLE = "single"
_OWN = (
    *("model", "options", "published", "temperature", "require", "beside", "rows", "modalities"),
)
_OWN_OF_STREAM = ("trunk", "init", "freeze_trunk_epochs", "freeze_text_epochs")


def parse(words: Sequence[str]) -> dict[str, str]:
    """Read `cxr,report:findings`: modalities and their tasks, "" for that of the run.

    Raises:
        ConfigError: Anything else, or a modality named twice.
    """
    found: dict[str, str] = {}
    for part in (part.strip() for word in words for part in word.split(",")):
        name, colon, task = part.partition(":")
        if not name or name in found or (colon and not task):
            raise ConfigError(
                f"--pretrain expects MODALITY or MODALITY:TASK, once each, found {part!r}."
            )
        found[name] = task
    return found


def pretrained(
    config: FuseConfig,
    cache: Path,
    pretrain: Mapping[str, str],
    *,
    device: str = "auto",
    progress: Progress = silent,
    stop: Stop | None = None,
    save_steps: int = 0,
    workers: int = 2,
    compiled: bool = False,
) -> FuseConfig:
    """Train the encoders that a run starts from; finished ones are taken as they are.

    Args:
        config: The run that starts from them.
        cache: The cache.
        pretrain: Modalities and tasks, see `parse`.
        device: See `trainer.fuse`, as the others.
        progress: Counts epochs.
        stop: Asked after every epoch.
        save_steps: Steps after which the state is stored.
        workers: Threads that read items ahead.
        compiled: Compile encoders that are streamed.

    Returns:
        The configuration of the run, which starts from the weights.

    Raises:
        ConfigError: A modality has no encoder that is trained and could start from another run.
        Interrupted: A stop was requested; the same call continues.
    """
    stop = stop or never()
    runs: dict[str, Path] = {}
    for name, one in _before(config, cache, pretrain).items():
        runs[name] = trainer.fuse(
            one,
            cache,
            device=device,
            progress=progress,
            stop=stop,
            save_steps=save_steps,
            workers=workers,
            compiled=compiled and one.mode == "stream",
        ).path
    return started(config, runs)


def plan(
    config: FuseConfig, cache: Path, pretrain: Mapping[str, str], out: Path | None = None
) -> dict[str, Any]:
    """Say what a run would do with those that it starts from: see `trainer.plan`.

    Returns:
        What `trainer.plan` says of the run, what it says of the others under `pretrain`, and the
        hours of all together. The place of a run is named by its weights, which are not there
        before the others are trained.
    """
    if not pretrain:
        return trainer.plan(config, cache, out)
    before = _before(config, cache, pretrain)
    steps = {name: trainer.plan(one, cache, timed=True) for name, one in before.items()}
    if all(step["status"] == "finished" for step in steps.values()):
        own = trainer.plan(
            started(config, {name: Path(step["run"]) for name, step in steps.items()}), cache, out
        )
    else:
        own = trainer.plan(config, cache)
        own |= {"run": None if out is None else str(out), "status": "new"}
    hours = sum(part.get("hours_at_most", 0.0) for part in (own, *steps.values()))
    return {**own, "pretrain": steps, "hours_at_most_with_pretraining": round(hours, 3)}


def _before(config: FuseConfig, cache: Path, pretrain: Mapping[str, str]) -> dict[str, FuseConfig]:
    """Configure the run of each modality that is trained before."""
    if not pretrain:
        return {}
    identity = identify(config, cache)
    runs = {name: _alone(config, identity, name, task) for name, task in pretrain.items()}
    for name, one in runs.items():
        if one.mode == "cached":  # before hours of training, not after them
            _require_series_encoder(identity, cache, name)
    return runs


def _require_series_encoder(identity: Identity, cache: Path, name: str) -> None:
    from ..data import load
    from ..inference import build
    from ..models.starts import encoder_of

    data = load(cache, identity.config, identity.cohort)
    encoder_of(build(data.specs, identity.config), name)


def _alone(config: FuseConfig, identity: Identity, name: str, task: str) -> FuseConfig:
    names = modality_names(identity.config)
    if name not in names:
        raise ConfigError(unknown("modality to pretrain", name, names))
    streamed, view = name in pairs(identity.config.trunk), identity.spaces[name]["view"]
    if not streamed and (view != "series" or config.series_encoder != "lstm"):
        raise ConfigError(
            f"--pretrain {name}: no encoder of it is trained that could start from another run. "
            "Series under series_encoder = 'lstm' have one, and in mode = 'stream' films and texts "
            "with a --trunk."
        )
    own = _OWN_OF_STREAM if streamed else (*STREAM_ONLY, "init", "mode")
    idle = {*unread(SINGLE), *_OWN, *own}
    if streamed:
        idle |= set(OF_TEXTS if view in FILM_VIEWS else OF_FILMS)
    given = {key: value for key, value in config.model_dump().items() if key not in idle}
    for key in ("drop", "drop_train"):
        given[key] = tuple(word for word in given[key] if Drop.parse(word).name == name)
    for key in ("trunk", "init") if streamed else ("init",):
        word = pairs(getattr(config, key)).get(name)
        if word is not None and not streamed:
            raise ConfigError(f"--init and --pretrain of {name} name two starts: leave one out.")
        given[key] = () if word is None else (f"{name}={word}",)
    text = identity.config.modalities[names.index(name)]
    others = tuple(other for other in identity.config.modalities if other != text)
    if given["drop"] or given["drop_train"]:
        given["beside"] = (*others, *identity.config.require, *identity.config.beside)
    return FuseConfig.of(
        {**given, "model": SINGLE, "modalities": (text,), "task": task or config.task}
    )


def started(config: FuseConfig, runs: Mapping[str, Path]) -> FuseConfig:
    """Let a run start from the encoders of others.

    Args:
        config: The run.
        runs: By modality, directories of finished runs.
    """
    trunks, inits = pairs(config.trunk), pairs(config.init)
    inits |= {name: str(run) for name, run in runs.items()}
    for name in runs:
        if names_files(trunks.get(name, "")):
            del trunks[name]  # where the run before started; it says itself what it is
    update = {
        "trunk": tuple(f"{name}={word}" for name, word in trunks.items()),
        "init": tuple(f"{name}={word}" for name, word in inits.items()),
    }
    return FuseConfig.of({**config.model_dump(), **update})


__all__ = ["parse", "plan", "pretrained", "started"]
