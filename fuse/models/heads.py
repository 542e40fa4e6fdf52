"""Heads that read one token per modality."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from .attention import Summary
from .layers import LSTM, Dropout


class Head(nn.Module, ABC):
    """From tokens to logits.

    Every head is told the availability of the stay, so that an imputed value can be told from a
    real one.

    Subclasses end with `linear`, the last map.

    Args:
        hidden: Width of what the last map reads.
    """

    linear: nn.Linear

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.dropout = Dropout()

    @abstractmethod
    def gather(self, tokens: Tensor, read: Tensor, bits: Tensor) -> Tensor:
        """Turn tokens ``(B, M, D)`` of which some are read into ``(B, hidden)``."""

    def forward(
        self,
        tokens: Tensor,
        read: Tensor,
        available: Tensor,
        dropout: Tensor,
        noise: Tensor | None,
    ) -> Tensor:
        """Predict from tokens.

        Args:
            tokens: ``(B, M, D)``.
            read: Tokens that are read, ``(B, M)`` bool; the others are skipped.
            available: Modalities that were measured, ``(B, M)`` bool.
            dropout: Probability, scalar.
            noise: Uniform numbers ``(B, hidden)``, or None.

        Returns:
            Logits, ``(B, C)``.
        """
        gathered = self.gather(tokens, read, available.to(tokens.dtype))
        logits: Tensor = self.linear(self.dropout(gathered, dropout, noise))
        return logits


class LSTMHead(Head):
    """Stacked LSTM over the tokens that are present or imputed (paper, 3.5); bits in each token.

    Args:
        size: Width D of a token.
        modalities: Number M of modalities.
        hidden: Width of the LSTM.
        targets: Number C of targets.
        layers: Layers; two in the paper's text, one in its code.
    """

    def __init__(
        self, size: int, modalities: int, hidden: int, targets: int = 1, layers: int = 2
    ) -> None:
        super().__init__(hidden)
        self.lstm = LSTM(size + modalities, hidden, layers)
        self.linear = nn.Linear(hidden, targets)

    def gather(self, tokens: Tensor, read: Tensor, bits: Tensor) -> Tensor:
        """State after the last token that is read; zero if none is."""
        each = bits.unsqueeze(1).expand(-1, tokens.shape[1], -1)
        last: Tensor = self.lstm(torch.cat([tokens, each], -1), read)[1]
        return last


class ConcatHead(Head):
    """All tokens side by side and one linear map: the paper's "without fusion" (Table 5)."""

    def __init__(self, size: int, modalities: int, targets: int = 1) -> None:
        super().__init__(modalities * (size + 1))
        self.linear = nn.Linear(self.hidden, targets)

    def gather(self, tokens: Tensor, read: Tensor, bits: Tensor) -> Tensor:
        """Tokens, zero where skipped, and bits."""
        kept = torch.where(read.unsqueeze(-1), tokens, 0.0)
        return torch.cat([kept.flatten(1), bits], -1)


class TransformerHead(Head):
    """Self-attention over the tokens that are read, gathered by a token of its own.

    A token is projected together with the bits and told apart by a learned vector of its modality.

    Args:
        size: Width D of a token.
        modalities: Number M of modalities.
        hidden: Width of the attention.
        targets: Number C of targets.
        layers: Layers.
    """

    def __init__(
        self, size: int, modalities: int, hidden: int, targets: int = 1, layers: int = 2
    ) -> None:
        super().__init__(hidden)
        self.projection = nn.Linear(size + modalities, hidden)
        self.kind = nn.Parameter(0.02 * torch.randn(modalities, hidden))
        self.summary = Summary(hidden, layers)
        self.linear = nn.Linear(hidden, targets)

    def gather(self, tokens: Tensor, read: Tensor, bits: Tensor) -> Tensor:
        """Output of the gathering token."""
        each = bits.unsqueeze(1).expand(-1, tokens.shape[1], -1)
        x = self.projection(torch.cat([tokens, each], -1)) + self.kind
        gathered: Tensor = self.summary(x, read)
        return gathered


def make_head(config: FuseConfig, modalities: int, targets: int) -> Head:
    """Make the head that a configuration names."""
    D, hidden, layers = config.hidden, config.fusion_hidden, config.fusion_layers
    if config.fusion == "concat":
        return ConcatHead(D, modalities, targets)
    if config.fusion == "transformer":
        return TransformerHead(D, modalities, hidden, targets, layers)
    return LSTMHead(D, modalities, hidden, targets, layers)


def mean_probability(logits: Tensor) -> Tensor:
    """Average predictions, not embeddings, over draws.

    Args:
        logits: ``(S, B, C)``, one row per draw.

    Returns:
        Logit of the mean of the S probabilities, ``(B, C)``.
    """
    if logits.shape[0] == 1:
        return logits[0]
    positive = nn.functional.logsigmoid(logits).logsumexp(0)
    negative = nn.functional.logsigmoid(-logits).logsumexp(0)
    return positive - negative
