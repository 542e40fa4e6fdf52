"""Text encoders: one vector per text, its first token [CLS] or the mean over its tokens."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...errors import UnsupportedError
from .device import one_thread, resolve_device
from .text_folder import TextFolder
from .weights import Weights, seeded, state_sha256

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
    },
    "minilm": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "max_position_embeddings": 512,
    },
}
"""Shapes by name, for encoders that start from a seed; a folder of weights brings its own.

`tinybert` is that of TinyBERT_General_4L_312D, the paper's choice, `minilm` of all-MiniLM-L6-v2.
"""

Pooling = Literal["cls", "mean"]
Long = Literal["truncate", "windows"]
MOST_WINDOWS = 16
"""Of a text even longer than so many windows the rest is cut."""

_BATCH_TOKENS = {"cpu": 1024, "gpu": 32_768}


class TextEncoder:
    """A text encoder of the user or the hub, or one of a known shape that has learnt nothing.

    Args:
        name: One of `SHAPES`; a folder of weights says itself what it is.
        weights: A seed (with the vocabulary of this project), or a folder with config.json,
            model.safetensors and a tokenizer.
        device: auto, cpu, cuda or cuda:N.
        max_tokens: Tokens of one pass, the special ones included; fewer where the encoder cannot.
        batch_tokens: Tokens per forward pass, padding included; by default few on a CPU, where
            caches are small, and many on a GPU.
        pooling: cls, the last hidden state at the first token; mean, over all tokens of the text.
        long: Longer texts are cut (truncate), or encoded in windows of equal length side by side
            and averaged, each by its number of tokens (windows).

    Raises:
        UnsupportedError: No encoder of that name, no encoder of text, or no [CLS] to take.
        ConfigError: The folder is not complete.
    """

    def __init__(
        self,
        name: str,
        weights: Weights,
        device: str = "cpu",
        max_tokens: int = 512,
        batch_tokens: int | None = None,
        pooling: Pooling = "cls",
        long: Long = "truncate",
    ) -> None:
        if name not in SHAPES:
            raise UnsupportedError(
                f"no text encoder is called {name!r}; offered: {', '.join(SHAPES)}, or any "
                "encoder of transformers by --weights FOLDER or hub:ID@REVISION"
            )
        self.weights, self._device, self._batch_tokens = weights, device, batch_tokens
        self.pooling, self.long = pooling, long
        self._folder = None if weights.path is None else TextFolder(weights)
        self.name = name if self._folder is None else self._folder.kind
        if self._folder is None:
            self.width = SHAPES[name]["hidden_size"]
            longest = SHAPES[name]["max_position_embeddings"]
        else:
            self.width, longest = self._folder.width, self._folder.longest
            if pooling == "cls" and self._tokenizer.cls_token_id is None:
                raise UnsupportedError(
                    f"{self._folder.path}: its tokenizer has no [CLS] token; use --pooling mean"
                )
        self.max_tokens = min(max_tokens, longest)
        self._lock = threading.RLock()

    @property
    def on_cpu(self) -> bool:
        """Whether it runs on the CPU."""
        return resolve_device(self._device).type == "cpu"

    def __getstate__(self) -> dict[str, Any]:
        """Without what the receiver makes again from the same weights."""
        made = ("_lock", "_network", "_ready", "_tokenizer")
        return {name: value for name, value in vars(self).items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.RLock()

    @property
    def parts(self) -> dict[str, object]:
        """What makes two vectors comparable, for the space of a store."""
        own = {} if self._folder is None else {"config": self._folder.config_sha256}
        return {
            "encoder": self.name,
            "weights": self.sha256,
            "tokenizer": self.tokenizer_sha256,
            "max_tokens": self.max_tokens,
            "pooling": self.pooling,
            "long": self.long,
            **own,
        }

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights: of the file, or of the tensors that the seed gave."""
        if self._folder is None:
            return state_sha256(self._network)
        return self.weights.sha256()

    @property
    def tokenizer_sha256(self) -> str:
        """SHA-256 of everything that turns text into token ids."""
        if self._folder is None:
            return hashlib.sha256(VOCABULARY.read_bytes()).hexdigest()
        return self._folder.tokenizer_sha256

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        if self._folder is not None:
            return self._folder.tokenizer
        from transformers import BertTokenizer

        words = VOCABULARY.read_text(encoding="utf-8").splitlines()
        vocabulary = {word: place for place, word in enumerate(words)}
        return BertTokenizer(vocab=vocabulary, do_lower_case=True)

    @cached_property
    def _network(self) -> PreTrainedModel:
        """The network on the CPU, in evaluation mode."""
        if self._folder is not None:
            network = self._folder.network()
        else:
            from transformers import BertConfig, BertModel

            shape: Any = dict(SHAPES[self.name])
            config = BertConfig(vocab_size=len(self._tokenizer), **shape)
            config._attn_implementation = "sdpa"
            with seeded(self.weights.seed or 0):
                network = BertModel(config, add_pooling_layer=False)
        network.train(mode=False)
        return network

    @cached_property
    def _ready(self) -> tuple[PreTrainedModel, torch.device]:
        device = resolve_device(self._device)
        self._network.to(device)  # type: ignore[arg-type]  # its own stub is too narrow
        return self._network, device

    @cached_property
    def _ends(self) -> tuple[list[int], list[int]]:
        """The special tokens before and behind a text."""
        probe = "a"
        bare = list(self._tokenizer(probe, add_special_tokens=False)["input_ids"])
        whole = list(self._tokenizer(probe)["input_ids"])
        start = next(
            place for place in range(len(whole) + 1) if whole[place : place + len(bare)] == bare
        )
        return whole[:start], whole[start + len(bare) :]

    @property
    def most_tokens(self) -> int:
        """Tokens of a text that are kept, the special ones included."""
        if self.long == "truncate":
            return self.max_tokens
        ends = sum(map(len, self._ends))
        return MOST_WINDOWS * (self.max_tokens - ends) + ends

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text with the special tokens, cut at `most_tokens`."""
        if not texts:
            return []
        most = self.most_tokens
        with self._lock:  # a tokenizer refuses two threads at once
            found = self._tokenizer(list(texts), truncation=True, max_length=most, verbose=False)
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
        pieces = [self._windows(row) for row in ids]
        flat = [window for row in pieces for window in row]
        vectors = self._encode(flat)
        if len(flat) == len(pieces):
            return vectors
        ends = sum(map(len, self._ends))
        weights = np.array([max(1, len(window) - ends) for window in flat], np.float64)
        owner = np.repeat(np.arange(len(pieces)), [len(row) for row in pieces])
        total = np.zeros((len(pieces), self.width))
        np.add.at(total, owner, vectors * weights[:, None])
        summed = np.bincount(owner, weights, minlength=len(pieces))
        mean: np.ndarray = (total / summed[:, None]).astype(np.float32)
        single = np.array([len(row) == 1 for row in pieces])
        mean[single] = vectors[np.flatnonzero(single[owner])]
        return mean

    def _windows(self, ids: Sequence[int]) -> list[Sequence[int]]:
        """Cut a long text into the fewest windows that hold it, as equal in length as can be."""
        if len(ids) <= self.max_tokens:
            return [ids]
        before, behind = self._ends
        body = ids[len(before) : len(ids) - len(behind)]
        room = self.max_tokens - len(before) - len(behind)
        count = -(-len(body) // room)
        bounds = [len(body) * place // count for place in range(count + 1)]
        return [[*before, *body[start:end], *behind] for start, end in pairwise(bounds)]

    def _encode(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """One vector per token sequence, none longer than one pass."""
        import torch

        vectors = np.zeros((len(ids), self.width), np.float32)
        network, device = self._ready
        budget = self._batch_tokens or _BATCH_TOKENS["cpu" if device.type == "cpu" else "gpu"]
        pad = int(self._tokenizer.pad_token_id or 0)
        with one_thread(), torch.inference_mode():
            for rows in buckets([len(row) for row in ids], budget):
                longest = max(len(ids[row]) for row in rows)
                tokens = np.full((len(rows), longest), pad, np.int64)  # [b, L]
                mask = np.zeros((len(rows), longest), np.int64)
                for place, row in enumerate(rows):
                    tokens[place, : len(ids[row])] = ids[row]
                    mask[place, : len(ids[row])] = 1
                there = torch.from_numpy(mask).to(device)
                out = network(input_ids=torch.from_numpy(tokens).to(device), attention_mask=there)
                hidden = out.last_hidden_state.float()  # [b, L, D]
                if self.pooling == "cls":
                    pooled = hidden[:, 0]
                else:
                    real = there.unsqueeze(-1)
                    pooled = (hidden * real).sum(1) / real.sum(1)
                vectors[rows] = pooled.cpu().numpy()
        return vectors


def buckets(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Split rows into batches of similar length, none above `budget` tokens with padding.

    The batches are a function of the lengths alone, so a shard gives the same bytes anywhere.
    """
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if rows and lengths[row] * (len(rows) + 1) > budget:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


__all__ = ["MOST_WINDOWS", "SHAPES", "VOCABULARY", "Long", "Pooling", "TextEncoder", "buckets"]
