"""Options of the form MODALITY=VALUE that say what a trunk is and where it starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...cache.store import Store
from ...errors import ConfigError
from ...extract.encoders.networks import NETWORKS
from ...extract.encoders.weights import Weights
from ..config import FuseConfig, unknown

NETWORK = "resnet34"
RANDOM, HASH = "random:", "sha256:"


def trunk_of(config: FuseConfig, modality: str) -> str:
    """Network of a modality's trunk; "" where none is named."""
    return _pairs(config.trunk).get(modality, "")


def init_of(config: FuseConfig, modality: str) -> str:
    """Where a modality's encoder starts; "" for the seed of the run."""
    return _pairs(config.init).get(modality, "")


def settled(
    config: FuseConfig, pixels: Mapping[str, Store]
) -> tuple[FuseConfig, dict[str, Weights]]:
    """Say of every trunk what it is, which pixels it sees, and which weights it starts from.

    Args:
        config: Options as given; its modalities are resolved.
        pixels: Stores of the modalities that are streamed.

    Returns:
        The configuration with every trunk named and files replaced by their hash, and the weights
        in files, by modality.

    Raises:
        ConfigError: There is nothing to stream, or a trunk or weights fit nothing.
    """
    names = [text.partition("@")[0] for text in config.modalities]
    if not pixels:
        raise ConfigError(
            f"mode = 'stream' trains encoders from pixels, and the cache holds none of "
            f"{', '.join(names)}. Run `cm2 extract --modality cxr --level pixels` first."
        )
    trunks, inits = _pairs(config.trunk), _pairs(config.init)
    for option, given in (("trunk", trunks), ("init", inits)):
        for name in given.keys() - pixels.keys():
            raise ConfigError(
                f"{option} = '{name}=…': no modality of that name is streamed; streamed are "
                f"{', '.join(pixels)}."
            )
    starts: dict[str, Weights] = {}
    for name in pixels:
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
    update = {
        "trunk": tuple(f"{name}={trunks[name]}" for name in pixels),
        "init": tuple(f"{name}={inits[name]}" for name in pixels),
        "crop": _crop(config, pixels),
    }
    return config.model_copy(update=update), starts


def side_of(store: Store) -> int:
    """Side in pixels of the films of a store, whether it holds them or names their files."""
    crop = store.space.parts["crop"]
    assert isinstance(crop, int)
    return crop


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


def _pairs(words: tuple[str, ...]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


__all__ = ["HASH", "NETWORK", "RANDOM", "init_of", "settled", "side_of", "trunk_of"]
