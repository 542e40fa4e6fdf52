"""Lines that train the encoders of films and texts together with the fusion, as the paper does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ConfigError
from ...extract.encoders.networks import NETWORKS
from ..combinations import STREAM_ONLY
from ..config import FuseConfig
from ..stream.options import OF_FILMS, OF_TEXTS, RANDOM, pairs

TRUNKS = {"cxr": "resnet34", "report": "tinybert", "note": "tinybert"}
"""The paper's networks by modality: ResNet34, and the BERT of 4 layers of width 312."""

_OF_IMAGE = {"": TRUNKS["cxr"], "resnet": "resnet34", "vit": "vit_s_16"}


def trunks_of(own: Mapping[str, str], image: str = "") -> dict[str, str]:
    """Networks by modality.

    Args:
        own: What the user names, which goes before.
        image: How the film encoder of a setting begins, see `Setting`.
    """
    return {**TRUNKS, "cxr": _OF_IMAGE[image], **own}


def streamed(
    options: Mapping[str, Any], read: Sequence[str], trunks: Mapping[str, str]
) -> dict[str, Any]:
    """Let a line train the encoders of the films and texts that it reads.

    A line that reads neither is trained from the cache, and options of streaming are left out.

    Args:
        options: Its options.
        read: Names of its modalities.
        trunks: From `trunks_of`.
    """
    starts = options.get("init", ())
    options = {**options, "init": tuple(text for text in starts if text.partition("=")[0] in read)}
    own = {name: trunks[name] for name in read if name in trunks}
    if not own:
        return {name: value for name, value in options.items() if name not in STREAM_ONLY}
    films = [network in NETWORKS for network in own.values()]
    idle = (*(() if any(films) else OF_FILMS), *(OF_TEXTS if all(films) else ()))
    return {
        **{name: value for name, value in options.items() if name not in idle},
        "mode": "stream",
        "trunk": tuple(f"{name}={network}" for name, network in own.items()),
    }


def as_published(config: FuseConfig, name: str, image: str = "") -> bool:
    """Whether the encoder of a modality is trained as the paper trains it.

    That is its network, where films start from random weights and texts from trained ones.

    Args:
        config: A configuration of `streamed`.
        name: The modality; one that the paper does not encode is as it was.
        image: See `trunks_of`.
    """
    if name not in TRUNKS:
        return True
    given = pairs(config.init).get(name, RANDOM)
    right_start = given.startswith(RANDOM) == (name == "cxr")
    return right_start and pairs(config.trunk).get(name) == trunks_of({}, image)[name]


def parse_trunks(words: Sequence[str], stream: bool) -> dict[str, str]:
    """Read MODALITY=NETWORK words.

    Raises:
        ConfigError: Anything else, or nothing is streamed.
    """
    if words and not stream:
        raise ConfigError("--trunk names a network that is trained: give --stream too.")
    if wrong := [word for word in words if not all(word.partition("="))]:
        raise ConfigError(f"--trunk expects MODALITY=NETWORK, found {wrong[0]!r}.")
    return pairs(tuple(words))


__all__ = ["TRUNKS", "as_published", "parse_trunks", "streamed", "trunks_of"]
