"""Text encoders: one vector per text, its first token [CLS] or the mean over its tokens."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConfigError, UnsupportedError
from .device import one_thread, resolve_device
from .text_folder import TextFolder
from .text_network import Long, Pooling, TextNetwork, Vocabulary
from .weights import Weights, state_sha256

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
    "bert2x128": {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 512,
        "max_position_embeddings": 512,
    },
}
"""Shapes by name, for encoders that start from a seed; a folder of weights brings its own.

`tinybert` is that of TinyBERT_General_4L_312D, the paper's choice, `minilm` of all-MiniLM-L6-v2,
`bert2x128` the smallest BERT of Turc et al. (2019).
"""

MOST_WINDOWS = 16
"""Of a text even longer than so many windows the rest is cut."""

_BATCH_TOKENS = {"cpu": 1024, "gpu": 32_768}


class TextEncoder:
    """A text encoder of the user or the hub, or one of a known shape that has learnt nothing.

    Args:
        name: One of `SHAPES`; a folder of weights says itself what it is. With weights of a run,
            None, or the folder of its tokenizer if that is another than this project's.
        weights: A seed (with the vocabulary of this project), a folder with config.json,
            model.safetensors and a tokenizer, or a run that trained the encoder.
        device: auto, cpu, cuda or cuda:N.
        max_tokens: Tokens of one pass, the special ones included; fewer where the encoder cannot.
        batch_tokens: Tokens per forward pass, padding included; by default few on a CPU, where
            caches are small, and many on a GPU.
        pooling: cls, the last hidden state at the first token; mean, over all tokens of the text.
        long: Longer texts are cut (truncate), or encoded in windows of equal length side by side
            and averaged, each by its number of tokens (windows).

    Raises:
        UnsupportedError: No encoder of that name, no encoder of text, or no [CLS] to take.
        ConfigError: The folder is not complete, or is not that of the run's tokenizer.
    """

    def __init__(
        self,
        name: str | None,
        weights: Weights,
        device: str = "cpu",
        max_tokens: int = 512,
        batch_tokens: int | None = None,
        pooling: Pooling = "cls",
        long: Long = "truncate",
    ) -> None:
        if name not in SHAPES and not weights.of_run:
            raise UnsupportedError(
                f"no text encoder is called {name!r}; offered: {', '.join(SHAPES)}, or any "
                "encoder of transformers by --weights FOLDER or hub:ID@REVISION"
            )
        self.weights, self._device, self._batch_tokens = weights, device, batch_tokens
        self.pooling, self.long = pooling, long
        self._lock = threading.RLock()
        self._folder = None
        if weights.of_run:
            self._folder = self._tokenizer_folder(name)
            trained = self._of_run
            # how texts are pooled and cut is what the run was trained with
            self.pooling, self.long = trained.pooling, trained.long
            self.name, self.width = trained.kind, trained.width
            self.max_tokens = trained.max_tokens
            return
        assert name is not None
        if weights.path is not None:
            self._folder = TextFolder(weights)
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

    @property
    def _of_run(self) -> TextNetwork:
        """What a run trained."""
        trained = self.weights.trained
        trained.require("text")
        return TextNetwork.from_json(trained.facts["network"])

    def _tokenizer_folder(self, name: str | None) -> TextFolder | None:
        """The folder of the tokenizer whose token ids a run read; None for this project's."""
        folder = None
        if name is not None:
            if not Path(name).expanduser().is_dir():
                raise ConfigError(
                    f"--encoder {name}: the run {self.weights.path} says what it trained; leave "
                    "the option out, or name the folder of the tokenizer"
                )
            folder = TextFolder(Weights(self.weights.modality, path=Path(name).expanduser()))
        found = own_tokenizer_sha256() if folder is None else folder.tokenizer_sha256
        if found != self._of_run.vocabulary.tokenizer:
            name = self.weights.modality
            other = "this project" if folder is None else folder.path
            raise ConfigError(
                f"{self.weights.path}: its encoder of {name} read token ids of another tokenizer "
                f"than that of {other}. Name the folder of its own: --encoder {name}=FOLDER"
            )
        return folder

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
        own: dict[str, object] = {}
        if self.weights.of_run:
            own = self.weights.space_parts
        elif self._folder is not None:
            own = {"config": self._folder.config_sha256}
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
        if self.weights.path is None or self.weights.of_run:
            return state_sha256(self._network)
        return self.weights.sha256()

    @property
    def tokenizer_sha256(self) -> str:
        """SHA-256 of everything that turns text into token ids."""
        return own_tokenizer_sha256() if self._folder is None else self._folder.tokenizer_sha256

    @property
    def vocabulary(self) -> Vocabulary:
        """The token ids that it reads."""
        before, behind = self._ends
        pad = int(self._tokenizer.pad_token_id or 0)
        size = len(self._tokenizer)
        return Vocabulary(self.tokenizer_sha256, size, pad, tuple(before), tuple(behind))

    @cached_property
    def description(self) -> TextNetwork:
        """What it is beside its weights."""
        if self.weights.of_run:
            return self._of_run
        vocabulary = self.vocabulary
        if self._folder is None:
            config = shaped(self.name, vocabulary.size)
        else:
            config = self._folder.plain_config
        return TextNetwork(config, vocabulary, self.max_tokens, self.pooling, self.long)

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
        if self.weights.of_run:
            network = self._of_run.build(0)
            network.load_state_dict(self.weights.trained.tensors)
            return network
        if self._folder is not None:
            return self._folder.network()
        return self.description.build(self.weights.seed or 0)

    @cached_property
    def _ready(self) -> tuple[PreTrainedModel, torch.device]:
        device = resolve_device(self._device)
        self._network.to(device)  # type: ignore[arg-type]  # its own stub is too narrow
        return self._network, device

    @cached_property
    def _ends(self) -> tuple[list[int], list[int]]:
        """The special tokens before and behind a text."""
        probe = "a"
        with self._lock:
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
        bounds = self.description.windows(len(ids))
        if not bounds:
            return [ids]
        before, behind = self._ends
        body = ids[len(before) : len(ids) - len(behind)]
        return [[*before, *body[start:end], *behind] for start, end in bounds]

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
                pooled = self.description.pooled(out.last_hidden_state.float(), there)
                vectors[rows] = pooled.cpu().numpy()
        return vectors


def own_tokenizer_sha256() -> str:
    """SHA-256 of the vocabulary of this project."""
    return hashlib.sha256(VOCABULARY.read_bytes()).hexdigest()


def shaped(name: str, tokens: int) -> dict[str, object]:
    """Configuration of one of `SHAPES`.

    Args:
        name: Its name.
        tokens: Size of the vocabulary.
    """
    return {"model_type": "bert", "vocab_size": tokens, **SHAPES[name]}


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


__all__ = [
    "MOST_WINDOWS",
    "SHAPES",
    "VOCABULARY",
    "Long",
    "Pooling",
    "TextEncoder",
    "buckets",
    "own_tokenizer_sha256",
    "shaped",
]
