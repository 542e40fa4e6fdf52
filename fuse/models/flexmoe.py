"""Flex-MoE: learned tokens for absent modalities, experts for combinations (Yun et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ..config import FuseConfig
from ..methods.flexmoe import FlexMoEOptions
from .attention import Attention
from .encoders import Encoders
from .interface import (
    FusionBatch,
    FusionModel,
    FusionOutput,
    Hyper,
    ModalitySpec,
    Objective,
    RowLoss,
    pattern_ids,
)
from .layers import Dropout
from .task import binary


class Experts(nn.Module):
    """Feed-forward networks of which a router takes the best few for every token.

    All are computed and most are given the weight 0: two dense products, no gathering.

    Args:
        size: Width D of a token, and of every hidden layer.
        experts: Number E of experts.
        top: How many of them a token is sent to.
    """

    def __init__(self, size: int, experts: int, top: int) -> None:
        super().__init__()
        self.experts, self.top = experts, min(top, experts)
        self.router = nn.Linear(size, experts)
        self.wide = nn.Linear(size, experts * size)
        self.narrow = nn.Linear(experts * size, size, bias=False)
        self.bias = nn.Parameter(torch.zeros(experts, size))
        nn.init.uniform_(self.narrow.weight, -(size**-0.5), size**-0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Send tokens ``(B, L, D)``.

        Returns:
            What the experts say, ``(B, L, D)``; the router's scores and weights, ``(B, L, E)``.
        """
        scores: Tensor = self.router(x)
        least = scores.topk(self.top, -1).values[..., -1:]
        lowest = torch.finfo(scores.dtype).min
        weights = scores.masked_fill(scores < least, lowest).softmax(-1)
        hidden = nn.functional.gelu(self.wide(x)).reshape(*x.shape[:-1], self.experts, -1)
        said = self.narrow((hidden * weights.unsqueeze(-1)).flatten(-2)) + weights @ self.bias
        return said, scores, weights


class Layer(nn.Module):
    """Pre-norm attention over all tokens, then experts.

    Args:
        size: Width D.
        options: See `FlexMoEOptions`.
    """

    def __init__(self, size: int, options: FlexMoEOptions) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention = Attention(size)
        self.experts = Experts(size, options.experts, options.top)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mix tokens ``(B, L, D)``; also the router's scores and weights, ``(B, L, E)``."""
        normed = self.before(x)
        every = torch.ones_like(x[..., 0], dtype=torch.bool)
        x = x + self.attention(normed, normed, every)
        said, scores, weights = self.experts(self.between(x))
        return x + said, scores, weights


class FlexMoE(FusionModel):
    """A few tokens for each modality, mixed by attention and a sparse mixture of experts.

    The router learns to send the stays of a combination to its own expert, and to use all experts
    evenly for complete stays. The public code adds the attention's output to itself; here it is
    added to what was attended from.

    An absent modality has learned tokens, others for each combination of those that are there.

    Raises:
        ConfigError: There are fewer experts than combinations of modalities.
    """

    Options: ClassVar[type[FlexMoEOptions]] = FlexMoEOptions
    reference: ClassVar[str] = "Yun et al., NeurIPS 2024"
    absence: ClassVar[str] = "learned tokens for each combination"
    compares_stays: tuple[str, ...] = ("balance",)

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.options = options = FlexMoEOptions.of(config)
        D, M, L = config.hidden, len(self.specs), options.tokens
        self.combinations = 2**M - 1
        if options.experts < self.combinations:
            raise ConfigError(
                f"{M} modalities have {self.combinations} combinations, each with an expert of its "
                f"own; found {options.experts} experts. Give --set model.experts="
                f"{self.combinations} or more."
            )
        self.encoders = Encoders(self.specs, D, config.series_encoder)
        self.dropout = Dropout()
        self.expand = nn.ModuleList(nn.Linear(D, L * D) for _ in self.specs)
        self.bank = nn.Parameter(0.02 * torch.randn(self.combinations, M, L, D))
        self.layers = nn.ModuleList(Layer(D, options) for _ in range(options.layers))
        self.norm = nn.LayerNorm(D)
        self.linear = nn.Linear(D, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the embeddings and of the gathered tokens."""
        tokens, head = (len(self.specs), self.config.hidden), (self.config.hidden,)
        return {"dropout.tokens": tokens, "dropout.head": head} if training else {}

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        z = self.encoders(batch)
        pattern = pattern_ids(batch.available) - 1
        x = self.tokens(self.dropout(z, hyper.dropout, batch.noise.get("dropout.tokens")), pattern)
        x = torch.where(batch.available[..., None, None], x, self.bank[pattern]).flatten(1, 2)
        experts = torch.arange(self.options.experts, device=z.device)
        own = (pattern.unsqueeze(-1) == experts).unsqueeze(1)  # (B, 1, E)
        routed, used = [], []
        for layer in self.layers:
            x, scores, weights = layer(x)
            routed.append(-torch.where(own, scores.log_softmax(-1), 0.0).sum(-1).mean(1))
            used.append(weights.mean(1))
        gathered: Tensor = self.norm(x.mean(1))
        gathered = self.dropout(gathered, hyper.dropout, batch.noise.get("dropout.head"))
        logits: Tensor = self.linear(gathered)
        complete = batch.available.all(1)
        # Outside training the epoch is 0, and every stay is judged.
        early = (batch.epoch > 0) & (batch.epoch <= self.options.complete_first)
        task = binary(logits, batch.y, self.class_weights)
        losses = {
            "task": RowLoss(task.value, task.rows & (complete | ~early)),
            "route": RowLoss(torch.stack(routed).sum(0), ~complete & ~early),
            "balance": balance(torch.stack(used), complete),
        }
        return FusionOutput(logits, z, losses, {})

    def tokens(self, z: Tensor, pattern: Tensor) -> Tensor:
        """Tokens ``(B, M, L, D)`` of embeddings ``(B, M, D)``."""
        each = [part(z[:, m]) for m, part in enumerate(self.expand)]
        tokens = torch.stack(each, 1)
        return tokens.reshape(*z.shape[:2], self.options.tokens, -1)

    def objectives(self, hyper: Hyper) -> tuple[Objective, ...]:
        """All losses at once."""
        one = torch.ones_like(hyper.task)
        weights = {
            "task": hyper.task,
            "route": self.options.weight_route * one,
            "balance": self.options.weight_balance * one,
        }
        return (Objective(weights),)


def balance(used: Tensor, rows: Tensor) -> RowLoss:
    """Squared coefficient of variation of what the experts are given by a batch.

    Args:
        used: Mean weights of each stay's tokens by layer, ``(N, B, E)``.
        rows: Stays that count, ``(B,)`` bool.
    """
    mean = torch.where(rows.unsqueeze(-1), used, 0.0).sum(1) / rows.sum().clamp(min=1)  # (N, E)
    uneven = mean.var(-1, unbiased=False) / mean.mean(-1).square().clamp(min=1e-10)
    return RowLoss(uneven.sum().expand(rows.shape), rows)
