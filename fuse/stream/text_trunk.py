"""A transformer of texts as a trunk: token ids in, the vectors that `extract` would store out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...errors import ConfigError
from ...extract.encoders.text import buckets
from ...extract.encoders.text_folder import TextFolder
from ...extract.encoders.text_network import TextNetwork
from ...extract.encoders.weights import Weights
from .items import NO_TOKEN
from .trunks import Trunk

BATCH_TOKENS = 8192
"""Tokens of one forward pass, padding included."""


class TextTrunk(Trunk):
    """A text encoder without its head.

    Its own dropout is off, so that a step hangs on nothing but its rows.

    Args:
        network: What it is, and how it reads.
        seed: Of its random weights.
        parts: See `Trunk`.
    """

    def __init__(self, network: TextNetwork, seed: int, parts: int = 1) -> None:
        super().__init__(parts)
        self.description = network
        self.network = network.build(seed)
        self.width = network.width

    def encode(self, items: Tensor, noise: Tensor | None) -> Tensor:
        """Encode token ids ``(n, L)``, `NO_TOKEN` behind each end; long texts in windows."""
        vocabulary = self.description.vocabulary
        before, behind = (items.new_tensor(e) for e in (vocabulary.before, vocabulary.behind))
        windows: list[Tensor] = []
        owners: list[int] = []
        for row, length in enumerate((items != NO_TOKEN).sum(1).tolist()):
            bounds = self.description.windows(length)
            body = items[row, len(before) : length - len(behind)]
            cut = [torch.cat([before, body[start:end], behind]) for start, end in bounds]
            windows += cut or [items[row, :length]]
            owners += [row] * max(1, len(cut))
        vectors = self._passes(windows)
        if len(windows) == len(items):
            return vectors
        ends = len(before) + len(behind)
        weight = vectors.new_tensor([max(1, len(window) - ends) for window in windows])
        owner = torch.tensor(owners, device=items.device)
        total = vectors.new_zeros(len(items), self.width)
        total = total.index_add(0, owner, vectors * weight.unsqueeze(-1))
        summed = weight.new_zeros(len(items)).index_add(0, owner, weight)
        return total / summed.unsqueeze(-1)

    def _passes(self, windows: list[Tensor]) -> Tensor:
        """Vectors of token sequences, none longer than one pass, in batches of similar length."""
        kind = next(self.parameters()).dtype
        pad = self.description.vocabulary.pad
        order: list[int] = []
        vectors = []
        for rows in buckets([len(window) for window in windows], BATCH_TOKENS):
            ids = pad_sequence([windows[row] for row in rows], True, NO_TOKEN)
            real = ids != NO_TOKEN
            found = self.network(
                input_ids=ids.masked_fill(~real, pad), attention_mask=real.to(torch.int64)
            )
            vectors.append(self.description.pooled(found.last_hidden_state, real).to(kind))
            order += rows
        place = torch.tensor(order, device=windows[0].device).argsort()
        return torch.cat(vectors)[place]

    def load(self, weights: Weights) -> None:
        """Start from weights in a file.

        Raises:
            ConfigError: They do not fit the network.
        """
        if not weights.of_run:
            self.network.load_state_dict(TextFolder(weights).network().state_dict())
            return
        weights.trained.require("text")
        if TextNetwork.from_json(weights.trained.facts["network"]) != self.description:
            raise ConfigError(
                f"{weights.trained.path} trained another text encoder than the trunk of "
                f"{weights.modality}: leave out --trunk {weights.modality}."
            )
        self.network.load_state_dict(weights.trained.tensors)

    def train(self, mode: bool = True) -> TextTrunk:
        """Stay in evaluation, which switches dropout off."""
        super().train(False)
        return self


__all__ = ["BATCH_TOKENS", "TextTrunk"]
