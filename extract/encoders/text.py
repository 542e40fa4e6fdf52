"""Text encoders: one vector per text, the last hidden state at its first token, [CLS]."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cache.atomic import sha256_file
from ...cache.fingerprint import fingerprint
from ...errors import ConfigError, UnsupportedError
from .device import one_thread, resolve_device
from .weights import Weights, assign, read_state, seeded, state_sha256

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VOCABULARY = Path(__file__).with_name("vocabulary.txt")
SHAPES: Mapping[str, Mapping[str, int]] = {
    "tinybert": {
        "hidden_size": 312,
        "num_hidden_layers": 4,
        "num_attention_heads": 12,
        "intermediate_size": 1200,
        "max_position_embeddings": 512,
    }
}
"""Offered encoders; `tinybert` is the shape of TinyBERT_General_4L_312D, the paper's choice."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_HEADS = ("pooler.", "cls.", "classifier.", "lm_head.", "qa_outputs.", "fit_dense")


class TextEncoder:
    """A BERT from a folder of the user, or one of a known shape that has learnt nothing.

    Args:
        name: One of `SHAPES`.
        weights: A seed (with the vocabulary of this project), or a folder with config.json,
            model.safetensors and tokenizer.json or vocab.txt.
        device: auto, cpu, cuda or cuda:N.
        max_tokens: Longer texts are cut here, the two special tokens included.
        batch_tokens: Tokens per forward pass, padding included.

    Raises:
        UnsupportedError: No encoder of that name, or one of another kind in the folder.
        ConfigError: The folder is not complete.
    """

    def __init__(
        self,
        name: str,
        weights: Weights,
        device: str = "cpu",
        max_tokens: int = 512,
        batch_tokens: int = 4096,
    ) -> None:
        if name not in SHAPES:
            raise UnsupportedError(
                f"no text encoder is called {name!r}; offered: {', '.join(SHAPES)}"
            )
        self.name, self.weights, self._device = name, weights, device
        self._batch_tokens = batch_tokens
        self._folder = _checked_folder(weights)
        shape = SHAPES[name] if self._folder is None else _read_shape(self._folder)
        self.width = shape["hidden_size"]
        self.max_tokens = min(max_tokens, shape["max_position_embeddings"])

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights: of the file, or of the tensors that the seed gave."""
        if self._folder is None:
            return state_sha256(self._network)
        return sha256_file(self.weights.file())

    @cached_property
    def tokenizer_sha256(self) -> str:
        """SHA-256 of everything that turns text into token ids."""
        if self._folder is None:
            return hashlib.sha256(VOCABULARY.read_bytes()).hexdigest()
        present = [self._folder / name for name in (*_TOKENIZER_FILES, "config.json")]
        return fingerprint({file.name: sha256_file(file) for file in present if file.is_file()})

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer, BertTokenizer

        if self._folder is None:
            words = VOCABULARY.read_text(encoding="utf-8").splitlines()
            vocabulary = {word: place for place, word in enumerate(words)}
            return BertTokenizer(vocab=vocabulary, do_lower_case=True)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            self._folder, local_files_only=True, trust_remote_code=False
        )
        return tokenizer

    @cached_property
    def _network(self) -> PreTrainedModel:
        """The network on the CPU, in evaluation mode."""
        from transformers import BertConfig, BertModel

        if self._folder is None:
            shape: Any = dict(SHAPES[self.name])
            config = BertConfig(vocab_size=len(self._tokenizer), **shape)
        else:
            config = BertConfig.from_pretrained(self._folder, local_files_only=True)
            if len(self._tokenizer) > config.vocab_size:
                raise ConfigError(
                    f"{self._folder}: the tokenizer knows {len(self._tokenizer)} tokens, the "
                    f"encoder {config.vocab_size}; they do not belong together"
                )
        config._attn_implementation = "sdpa"
        with seeded(self.weights.seed or 0):
            network: PreTrainedModel = BertModel(config, add_pooling_layer=False)
        if self._folder is not None:
            file = self.weights.file()
            state = read_state(file)
            if any(name.startswith("bert.") for name in state):  # saved together with a head
                state = {n[5:]: t for n, t in state.items() if n.startswith("bert.")}
            assign(network, state, _HEADS, f"{file} as {self.name}")
        network.train(mode=False)
        return network

    @cached_property
    def _ready(self) -> tuple[PreTrainedModel, torch.device]:
        device = resolve_device(self._device)
        self._network.to(device)  # type: ignore[arg-type]  # its own stub is too narrow
        return self._network, device

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text with the special tokens, cut at `max_tokens`."""
        if not texts:
            return []
        found = self._tokenizer(list(texts), truncation=True, max_length=self.max_tokens)
        return [list(map(int, ids)) for ids in found["input_ids"]]

    def says_something(self, ids: Sequence[int]) -> bool:
        """Whether any token is neither special nor unknown."""
        silent = set(self._tokenizer.all_special_ids)
        return any(token not in silent for token in ids)

    def encode(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Encode token ids in batches of similar length.

        Args:
            ids: n token sequences, each at least the special tokens.

        Returns:
            float32, shape [n, width], in the order given.
        """
        import torch

        vectors = np.zeros((len(ids), self.width), np.float32)
        network, device = self._ready
        pad = int(self._tokenizer.pad_token_id or 0)
        with one_thread(), torch.inference_mode():
            for rows in _buckets([len(row) for row in ids], self._batch_tokens):
                longest = max(len(ids[row]) for row in rows)
                tokens = torch.full((len(rows), longest), pad)  # [b, L]
                mask = torch.zeros(len(rows), longest, dtype=torch.long)
                for place, row in enumerate(rows):
                    tokens[place, : len(ids[row])] = torch.tensor(ids[row])
                    mask[place, : len(ids[row])] = 1
                out = network(input_ids=tokens.to(device), attention_mask=mask.to(device))
                vectors[rows] = out.last_hidden_state[:, 0].float().cpu().numpy()
        return vectors


def _buckets(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Split rows into batches of similar length, none above `budget` tokens with padding."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if rows and lengths[row] * (len(rows) + 1) > budget:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _checked_folder(weights: Weights) -> Path | None:
    """The folder of a text encoder with all its parts; None for random weights."""
    if weights.path is None:
        return None
    folder = weights.path
    if not folder.is_dir():
        raise ConfigError(
            f"{weights.modality}: a text encoder is a folder with config.json, model.safetensors "
            f"and tokenizer.json or vocab.txt; found the single file {folder}"
        )
    missing = [n for n in ("config.json", "model.safetensors") if not (folder / n).is_file()]
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        missing.append("tokenizer.json or vocab.txt")
    if missing:
        raise ConfigError(f"{folder}: the text encoder lacks {', '.join(missing)}")
    return folder


def _read_shape(folder: Path) -> dict[str, int]:
    """Width and longest text from the config.json of an encoder.

    Raises:
        ConfigError: It is damaged.
        UnsupportedError: It describes another kind of network.
    """
    file = folder / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        kind = str(content.get("model_type", "bert"))
        shape = {name: int(content[name]) for name in ("hidden_size", "max_position_embeddings")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{file}: expected the configuration of a BERT with hidden_size and "
            "max_position_embeddings, found something else"
        ) from error
    if kind != "bert":
        raise UnsupportedError(f"{file}: expected model_type bert, found {kind}")
    return shape


__all__ = ["SHAPES", "VOCABULARY", "TextEncoder"]
