"""Heads that read one token per modality."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import LSTM, Dropout


class LSTMHead(nn.Module):
    """2-layer LSTM over the tokens that are present or imputed, then a linear map (paper, 3.5).

    Each token carries the availability bits of the stay, so that an imputed value can be told
    from a real one.

    Args:
        size: Width D of a token.
        modalities: Number M of modalities.
        hidden: Width of the LSTM.
        targets: Number C of targets.
    """

    def __init__(self, size: int, modalities: int, hidden: int, targets: int = 1) -> None:
        super().__init__()
        self.hidden = hidden
        self.lstm = LSTM(size + modalities, hidden)
        self.dropout = Dropout()
        self.linear = nn.Linear(hidden, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Name the dropout noise; see `FusionModel.noise`."""
        return {"dropout.head": (self.hidden,)} if training else {}

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
        bits = available.to(tokens.dtype).unsqueeze(1).expand(-1, tokens.shape[1], -1)
        _, last = self.lstm(torch.cat([tokens, bits], -1), read)
        logits: Tensor = self.linear(self.dropout(last, dropout, noise))
        return logits


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
