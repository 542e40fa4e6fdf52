"""Options of the form MODALITY=VALUE that say what a trunk is and where it starts."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from ...cache.layout import FILM_VIEWS
from ...cache.store import Store
from ...errors import ConfigError
from ...extract.encoders.networks import NETWORKS
from ...extract.encoders.trained import FUSION
from ...extract.encoders.weights import Weights
from ..config import FuseConfig, unknown
from .text_start import described, is_text, names_files, text_start

NETWORK = "resnet34"
RANDOM, HASH = "random:", "sha256:"


def trunk_of(config: FuseConfig, modality: str) -> str:
    """Network of a modality's trunk; "" where none is named."""
    return pairs(config.trunk).get(modality, "")


def width_of(trunk: str) -> int:
    """Length of the vectors of a trunk, as a resolved configuration names it."""
    text = described(trunk)
    return NETWORKS[trunk].width if text is None else text.width


def init_of(config: FuseConfig, modality: str) -> str:
    """Where a modality's encoder starts; "" for the seed of the run."""
    return pairs(config.init).get(modality, "")


OF_FILMS = ("crop", "augment", "trunk_norm", "lr_trunk", "freeze_trunk_epochs")
OF_TEXTS = ("lr_text", "freeze_text_epochs")


def streamed_of(config: FuseConfig, stores: Mapping[str, Store]) -> dict[str, Store]:
    """Choose the modalities that are streamed: films, and the texts that have a trunk or a start.

    Args:
        config: Options as given.
        stores: Of every modality.
    """
    named = pairs(config.trunk).keys() | pairs(config.init).keys()
    return {
        name: store
        for name, store in stores.items()
        if store.space.view in FILM_VIEWS or (name in named and is_text(store))
    }


def settled(
    config: FuseConfig, streamed: Mapping[str, Store], series: Collection[str] = ()
) -> tuple[FuseConfig, dict[str, Weights]]:
    """Say of every trunk what it is, which pixels it sees, and which weights it starts from.

    Args:
        config: Options as given; its modalities are resolved.
        streamed: Stores of the modalities that are streamed; see `streamed_of`.
        series: Names of the series: their encoder may start from a run.

    Returns:
        The configuration with every trunk named and files replaced by their hash, and the weights
        in files, by modality.

    Raises:
        ConfigError: There is nothing to stream, or a trunk or weights fit nothing.
    """
    names = [text.partition("@")[0] for text in config.modalities]
    if not streamed:
        raise ConfigError(
            f"mode = 'stream' trains encoders, and there is nothing to train of {', '.join(names)}:"
            " no pixels, and no trunk of texts. Run `cm2 extract --modality cxr --level pixels` "
            "first, or give --trunk report=store."
        )
    trunks, inits = pairs(config.trunk), pairs(config.init)
    starting = (*series, FUSION)
    for option, given, others in (("trunk", trunks, ()), ("init", inits, starting)):
        for name in given.keys() - streamed.keys() - set(others):
            raise ConfigError(
                f"{option} = '{name}=…': no modality of that name is streamed; streamed are "
                f"{', '.join(streamed)}."
            )
    pixels = {name: store for name, store in streamed.items() if store.space.view in FILM_VIEWS}
    _require_read(config, OF_FILMS, "films", bool(pixels))
    _require_read(config, OF_TEXTS, "texts", len(pixels) < len(streamed))
    words, starts = started(config, series)
    inits |= words
    for name, store in streamed.items():
        if name not in pixels:
            text = text_start(name, store, trunks.get(name, ""), inits.get(name, ""))
            trunks[name] = json.dumps(text.network.to_json(), sort_keys=True, separators=(",", ":"))
            inits[name] = f"{RANDOM}{text.seed}"
            if text.weights is not None:
                starts[name] = text.weights
                inits[name] = HASH + text.weights.sha256()
            continue
        network = trunks.setdefault(name, NETWORK)
        if network not in NETWORKS:
            raise ConfigError(unknown("trunk", network, tuple(NETWORKS)))
        word = inits.get(name, "")
        if word in ("", f"{RANDOM}run"):
            inits[name] = f"{RANDOM}run"
        elif word.startswith(RANDOM):
            if not word.removeprefix(RANDOM).isdecimal():
                raise ConfigError(f"init = '{name}={word}': expected random:SEED, a whole number.")
        else:
            starts[name] = Weights(name, path=Path(word).expanduser())
            inits[name] = HASH + starts[name].sha256()
    if config.trunk_norm != "own" and not any(_has_batch_norm(trunks[name]) for name in pixels):
        raise ConfigError(
            f"trunk_norm = {config.trunk_norm!r} is about batch norms, and "
            f"{', '.join(trunks[name] for name in pixels)} has none: leave it out."
        )
    update = {
        "trunk": tuple(f"{name}={trunks[name]}" for name in streamed),
        "init": tuple(f"{name}={inits[name]}" for name in (*streamed, *words)),
        "crop": _crop(config, pixels) if pixels else 0,
    }
    return config.model_copy(update=update), starts


def started(
    config: FuseConfig, series: Collection[str]
) -> tuple[dict[str, str], dict[str, Weights]]:
    """Say of each series with a start, and of `FUSION`, which weights that is.

    Args:
        config: Options as given.
        series: Names of the series.

    Returns:
        The hash of the weights in the form that a configuration holds, and the weights.

    Raises:
        ConfigError: A start is no run, or one without such an encoder.
    """
    words: dict[str, str] = {}
    starts: dict[str, Weights] = {}
    for name in (*series, FUSION):
        word = init_of(config, name)
        if not word:
            continue
        starts[name] = Weights(name, path=Path(word).expanduser())
        if not starts[name].of_run:
            raise ConfigError(
                f"init = '{name}={word}': that is no run. {name} starts from a run, or from the "
                "seed of this one without --init."
            )
        starts[name].trained.require(FUSION if name == FUSION else "lstm")
        words[name] = HASH + starts[name].sha256()
    return words, starts


def settled_cached(
    config: FuseConfig, series: Collection[str]
) -> tuple[FuseConfig, dict[str, Weights]]:
    """Say of every series which run its encoder starts from, where vectors are read as they are.

    Args:
        config: Options as given.
        series: Names of the series.

    Returns:
        The configuration with runs replaced by the hash of their weights, and these by modality.

    Raises:
        ConfigError: A start is named for what is no series, or is no run.
    """
    for name, word in pairs(config.init).items():
        if name not in (*series, FUSION):
            raise ConfigError(
                f"init = '{name}={word}': mode = 'cached' trains encoders of series only "
                f"({', '.join(series) or 'there is none'}). What made the vectors of {name} is "
                f"chosen by `cm2 extract --modality {name} --weights`."
            )
    words, starts = started(config, series)
    init = tuple(f"{name}={word}" for name, word in words.items())
    return config.model_copy(update={"init": init}), starts


def side_of(store: Store) -> int:
    """Side in pixels of the films of a store, whether it holds them or names their files."""
    crop = store.space.parts["crop"]
    assert isinstance(crop, int)
    return crop


def _require_read(config: FuseConfig, names: tuple[str, ...], kind: str, there: bool) -> None:
    for name in names:
        if not there and getattr(config, name) != FuseConfig.model_fields[name].default:
            raise ConfigError(f"{name} is about {kind}, and no {kind} are streamed: leave it out.")


def _has_batch_norm(network: str) -> bool:
    return not (network.endswith("_gn") or NETWORKS[network].tokens)


def _crop(config: FuseConfig, pixels: Mapping[str, Store]) -> int:
    sides = {side_of(store) for store in pixels.values() if store.items.num_rows}
    if not sides:
        raise ConfigError("The stores of pixels hold no film: there is nothing to stream.")
    if config.crop > min(sides):
        raise ConfigError(
            f"crop = {config.crop} is wider than the {min(sides)} stored pixels. Lower it, or "
            "extract with a larger --side."
        )
    return config.crop or 7 * min(sides) // 8


def pairs(words: tuple[str, ...]) -> dict[str, str]:
    """Read MODALITY=VALUE words."""
    return dict(word.split("=", 1) for word in words)


__all__ = [
    "HASH",
    "NETWORK",
    "RANDOM",
    "init_of",
    "names_files",
    "pairs",
    "settled",
    "settled_cached",
    "side_of",
    "streamed_of",
    "trunk_of",
    "width_of",
]
