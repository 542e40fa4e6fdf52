"""What a trunk of texts is and where it starts: by name, by a folder, or as its store was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...cache.store import Store
from ...errors import ConfigError
from ...extract.encoders import hub
from ...extract.encoders.networks import NETWORKS
from ...extract.encoders.text import SHAPES, TextEncoder, own_tokenizer_sha256, shaped
from ...extract.encoders.text_network import TextNetwork, Vocabulary
from ...extract.encoders.weights import Weights
from ..config import unknown

STORE = "store"
RANDOM = "random:"


class TextStart(NamedTuple):
    """A trunk of texts before it exists.

    Attributes:
        network: What it is.
        seed: Of its weights, `run` for that of the run; None with weights.
        weights: In files; None when it starts from a seed.
    """

    network: TextNetwork
    seed: str | None
    weights: Weights | None


def is_text(store: Store) -> bool:
    """Whether a store keeps the token ids of its texts."""
    return "ids" in store.manifest["arrays"]


def described(word: str) -> TextNetwork | None:
    """Read the description that a resolved configuration holds; None for another word."""
    return TextNetwork.from_json(json.loads(word)) if word.startswith("{") else None


def names_files(word: str) -> bool:
    """Whether a trunk is a folder of weights or a copy of the hub, which an init replaces."""
    return bool(word) and described(word) is None and word not in (STORE, *SHAPES, *NETWORKS)


def text_start(name: str, store: Store, trunk: str, init: str) -> TextStart:
    """Resolve `--trunk NAME=…` and `--init NAME=…` of a modality of texts.

    Args:
        name: The modality.
        store: Its token ids.
        trunk: `store`, one of `SHAPES`, a folder of weights, hub:ID@REVISION, or "".
        init: random:SEED, a folder of weights, a run, hub:ID@REVISION, or "".

    Raises:
        ConfigError: They name nothing, or read other token ids than the store holds.
    """
    known = described(trunk)
    if known is not None and init and not init.startswith(RANDOM):
        return TextStart(_fitting(name, store, known, trunk), None, _weights(name, init))
    if not trunk and init.startswith(RANDOM):
        trunk = STORE
    if trunk == STORE and not init:
        init = _origin(name, store)
    if init and not init.startswith(RANDOM):
        weights = _weights(name, init)
        network = _read_as_stored(name, store, weights)
        if trunk == STORE:
            _require_same(name, store, weights)
        elif trunk and trunk not in SHAPES and _weights(name, trunk).path != weights.path:
            raise ConfigError(f"trunk and init of {name} name two encoders: leave one out")
        elif trunk in SHAPES and shaped(trunk, network.vocabulary.size).items() - (
            network.config.items()
        ):
            raise ConfigError(
                f"init = '{name}={init}' is no {trunk}: leave out the trunk, which a folder of "
                "weights and a run say themselves"
            )
        return TextStart(network, None, weights)
    seed = init.removeprefix(RANDOM) or "run"
    if seed != "run" and not seed.isdecimal():
        raise ConfigError(f"init = '{name}={init}': expected random:SEED, a whole number.")
    if known is not None:
        return TextStart(_fitting(name, store, known, trunk), seed, None)
    if trunk == STORE:
        trunk = str(store.space.parts["encoder"])
    if trunk in SHAPES:
        return TextStart(_of_shape(name, store, trunk), seed, None)
    if not (trunk.startswith(hub.PREFIX) or Path(trunk).expanduser().exists()):
        raise ConfigError(unknown("trunk", trunk, (STORE, *SHAPES, "a folder", "hub:ID@REVISION")))
    weights = _weights(name, trunk)
    network = _read_as_stored(name, store, weights)
    return TextStart(network, seed, None) if init else TextStart(network, None, weights)


def _origin(name: str, store: Store) -> str:
    """Where the weights of a store came from, as `init` names it."""
    origin = str(store.provenance.get("weights", ""))
    if origin.startswith((RANDOM, hub.PREFIX)):
        return origin
    raise ConfigError(
        f"trunk = '{name}=store': the store was made with weights of {origin or 'an unknown place'}"
        f", and where they lie no store records. Give them: --init {name}=FOLDER"
    )


def _weights(name: str, word: str) -> Weights:
    if word.startswith(hub.PREFIX):
        reference = hub.HubReference.parse(word)
        return Weights(name, path=reference.snapshot(), reference=reference)
    weights = Weights(name, path=Path(word).expanduser())
    weights.parts()  # refuses what is not there
    return weights


def _read_as_stored(name: str, store: Store, weights: Weights) -> TextNetwork:
    """What weights are, if they read the store's token ids; pooled and cut as its vectors were."""
    parts: Mapping[str, Any] = store.space.parts
    if weights.of_run:
        weights.trained.require("text")
        network = TextNetwork.from_json(weights.trained.facts["network"])
    else:
        pooling, long = parts["pooling"], parts["long"]
        network = TextEncoder(
            next(iter(SHAPES)), weights, "cpu", int(parts["max_tokens"]), None, pooling, long
        ).description
    return _fitting(name, store, network, str(weights.path))


def _fitting(name: str, store: Store, network: TextNetwork, what: str) -> TextNetwork:
    if network.vocabulary.tokenizer != store.space.parts["tokenizer"]:
        raise ConfigError(
            f"{what}: its tokenizer is another than the one that made the token ids of "
            f"{name}@{store.space.id}. Extract {name} with these weights first."
        )
    return network


def _require_same(name: str, store: Store, weights: Weights) -> None:
    if not weights.of_run and weights.sha256() != store.space.parts["weights"]:
        raise ConfigError(
            f"trunk = '{name}=store': {weights.path} holds other weights than those that made "
            f"{name}@{store.space.id}. Leave out the trunk to start from them all the same."
        )


def _of_shape(name: str, store: Store, shape: str) -> TextNetwork:
    """A shape by name over the vocabulary of a store."""
    parts: Mapping[str, Any] = store.space.parts
    recorded = store.provenance.get("vocabulary")
    if recorded is not None:
        vocabulary = Vocabulary.from_json(recorded)
    elif parts["tokenizer"] == own_tokenizer_sha256():
        vocabulary = TextEncoder(shape, Weights(name, seed=0)).vocabulary
    else:
        raise ConfigError(
            f"{name}@{store.space.id} was written before stores recorded their vocabulary: extract "
            f"it again into another cache, or name the folder of its encoder: --trunk {name}=FOLDER"
        )
    longest = SHAPES[shape]["max_position_embeddings"]
    return TextNetwork(
        shaped(shape, vocabulary.size),
        vocabulary,
        min(int(parts["max_tokens"]), longest),
        parts["pooling"],
        parts["long"],
    )


__all__ = ["STORE", "TextStart", "described", "is_text", "names_files", "text_start"]
