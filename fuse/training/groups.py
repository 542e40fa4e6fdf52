"""Several runs of one configuration: other seeds, or the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...cache.fingerprint import fingerprint
from ...cache.layout import RUNS
from ...errors import CM2Error, ConfigError
from ...progress import Progress, Stop, never, silent
from ..config import FuseConfig
from ..group import RunGroup, is_group, member
from ..identity import identify, modality_names
from ..methods import short
from . import pretrain as before
from . import trainer


def members(config: FuseConfig, seeds: Sequence[int], every_fold: bool = False) -> list[FuseConfig]:
    """Configurations of a group, by seed and fold.

    Args:
        config: What they share.
        seeds: Seeds; empty takes that of the configuration.
        every_fold: All folds of the configuration's cross-validation instead of its one.
    """
    folds = range(config.folds) if every_fold else (config.fold,)
    own = (config.seed, config.fold)
    return [
        config
        if (seed, fold) == own
        else FuseConfig.of({**config.model_dump(), "seed": seed, "fold": fold})
        for seed in seeds or (config.seed,)
        for fold in folds
    ]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read `0:4` (inclusive), `0,2,5`, or both together.

    Raises:
        ConfigError: Anything else, or a seed named twice.
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, colon, last = part.partition(":")
            seeds += range(int(first), int(last) + 1) if colon else [int(first)]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds expects FIRST:LAST or a list such as 0,2,5, found {text!r}.")
    return tuple(seeds)


def fuse_group(
    config: FuseConfig,
    cache: Path,
    seeds: Sequence[int],
    every_fold: bool = False,
    out: Path | None = None,
    *,
    device: str = "auto",
    progress: Progress = silent,
    stop: Stop | None = None,
    save_steps: int = 0,
    workers: int = 2,
    compiled: bool = False,
    pretrain: Mapping[str, str] | None = None,
) -> RunGroup:
    """Train every member of a group; finished ones are taken as they are.

    Members lie below `CACHE/runs` at their own identity; the group refers to them.

    Args:
        config: What they share.
        cache: Where the embeddings are.
        seeds: Seeds; empty takes that of the configuration.
        every_fold: Train all folds of the configuration's cross-validation.
        out: Directory of the group; by default one below `CACHE/runs`.
        device: See `trainer.fuse`.
        progress: Counts runs, and the epochs of each.
        stop: Asked after every epoch.
        save_steps: See `trainer.fuse`.
        workers: See `trainer.fuse`.
        compiled: See `trainer.fuse`.
        pretrain: Encoders that every member trains before, see `pretrain.parse`.

    Raises:
        ConfigError: `out` holds something else, or a configuration cannot be meant.
        Interrupted: A stop was requested; the same call continues.
        CM2Error: A member failed; the message says which.
    """
    from ..evaluation.group import judge_group

    stop = stop or never()
    configs = [
        before.pretrained(
            one,
            cache,
            pretrain or {},
            device=device,
            progress=progress,
            stop=stop,
            save_steps=save_steps,
            workers=workers,
            compiled=compiled,
        )
        for one in members(config, seeds, every_fold)
    ]
    identities = [identify(one, cache) for one in configs]
    digest = fingerprint([one.digest for one in identities])
    kind = "folds" if every_fold else "seeds"
    modalities = "+".join(modality_names(identities[0].config))
    name = f"{kind}-{short(config.model)}-{config.task}-{modalities}"
    path = cache / RUNS / f"{name[:80]}-{digest[:12]}" if out is None else out
    _require_ours(path, digest)
    content: dict[str, Any] = {"identity": digest, "kind": kind, "folds": config.folds}
    places = [cache / RUNS / one.name for one in identities]
    # Before the first member, so that a killed group is seen to be unfinished.
    group = RunGroup.write(path, dict(zip(places, configs, strict=True)), content)
    with progress(f"fuse {kind}", len(configs), "runs") as advance:
        for one in configs:
            try:
                trainer.fuse(
                    one,
                    cache,
                    device=device,
                    progress=progress,
                    stop=stop,
                    save_steps=save_steps,
                    workers=workers,
                    compiled=compiled,
                )
            except CM2Error as error:
                error.args = (f"The member of {member(one)} of the group {path}: {error}",)
                raise
            advance(1)
    judge_group(group, "val")
    return group


def plan(
    config: FuseConfig,
    cache: Path,
    seeds: Sequence[int],
    every_fold: bool = False,
    pretrain: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Say what `fuse_group` would do: what `pretrain.plan` says of every member."""
    return [
        {
            "seed": one.seed,
            "fold": one.fold if one.folds else None,
            **before.plan(one, cache, pretrain or {}),
        }
        for one in members(config, seeds, every_fold)
    ]


def _require_ours(path: Path, digest: str) -> None:
    """Raise ConfigError when the directory holds anything but this group."""
    if is_group(path):
        if RunGroup(path).record["identity"] != digest:
            raise ConfigError(f"{path} holds another group of runs. Choose another --out.")
        return
    trainer.require_empty(path, "group")


__all__ = ["fuse_group", "members", "parse_seeds", "plan"]
