"""DrFuse: what modalities share, what is their own, attention over both (Yao et al., 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import FuseConfig
from ..methods.drfuse import DrFuseOptions
from .branches import Branches
from .disentangled import make_split
from .encoders import Readers
from .interface import (
    FusionBatch,
    FusionModel,
    FusionOutput,
    Hyper,
    ModalitySpec,
    Objective,
    RowLoss,
)
from .layers import Dropout
from .task import binary


class DrFuse(FusionModel):
    """Shared and distinct features of every modality, weighed by attention for each target.

    Shared features are pooled as probabilities over the modalities that are there, drawn together
    by a divergence and kept apart from the distinct ones by their cosine; attention is ranked by
    how well each part predicts alone. The two networks per film of the publication are two small
    ones over its stored vector.

    An absent modality enters no pool, no attention and no loss.
    """

    Options: ClassVar[type[DrFuseOptions]] = DrFuseOptions
    reference: ClassVar[str] = "Yao et al., AAAI 2024"
    absence: ClassVar[str] = "masked in pool, attention and losses"

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        self.options = DrFuseOptions.of(config)
        D = config.hidden
        self.readers = Readers(self.specs, lambda spec: make_split(spec, D, self.options.series))
        self.project = nn.Sequential(
            nn.Linear(D, 2 * D), nn.ReLU(), nn.Linear(2 * D, D), nn.ReLU(), nn.Linear(D, D)
        )
        self.dropout = Dropout()
        self.branches = Branches(self.specs, D, targets)
        self.common = nn.Linear(D, targets)
        self.attention = nn.Linear(D, (2 + targets) * D)
        self.linear = nn.Linear(D, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the shared and of the distinct features."""
        tokens = (len(self.specs), 2 * self.config.hidden)
        return {"dropout.tokens": tokens} if training else {}

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        read, _ = self.readers.read(batch)
        there = batch.available.unsqueeze(-1)
        both = torch.where(there, torch.stack(read, 1), 0.0)  # (B, M, 2 D)
        both = self.dropout(both, hyper.dropout, batch.noise.get("dropout.tokens"))
        shared, distinct = both.chunk(2, -1)
        shared = self.project(shared)
        pooled = pool(shared, batch.available)
        alone: Tensor = self.branches(distinct)  # (M, B, C)
        common: Tensor = self.common(pooled)
        tokens = torch.cat([distinct, pooled.unsqueeze(1)], 1)
        present = torch.cat([batch.available, torch.ones_like(batch.available[:, :1])], 1)
        weights, values = self.attended(tokens, present)
        logits = ((weights @ values) * self.linear.weight).sum(-1) + self.linear.bias
        losses = {"task": binary(logits, batch.y, self.class_weights)}
        losses |= self.branches.losses(alone, batch, self.class_weights)
        losses["task.shared"] = binary(common, batch.y, self.class_weights)
        published = self.options.divergence == "published"
        losses["divergence"] = (half_divergence if published else divergence)(
            shared, batch.available
        )
        cosine = torch.cosine_similarity(shared, distinct, -1, 1e-6).abs()  # (B, M)
        for m, spec in enumerate(self.specs):
            losses[f"orthogonal.{spec.name}"] = RowLoss(cosine[:, m], batch.available[:, m])
        predictions = torch.cat([alone, common.unsqueeze(0)]).movedim(0, -1)  # (B, C, J)
        losses["rank"] = rank(weights, predictions, present, batch.y)
        z = torch.where(there, shared, 0.0)
        return FusionOutput(logits, z, losses, {"attention": weights})

    def attended(self, tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from the mean of the tokens to each of them, for each target by itself.

        Args:
            tokens: Distinct features and the pool, ``(B, J, D)``.
            present: ``(B, J)`` bool.

        Returns:
            Weights ``(B, C, J)``, and values ``(B, J, D)``.
        """
        q, v, *k = self.attention(tokens).chunk(2 + self.targets, -1)
        count = present.sum(1).reshape(-1, 1, 1)
        query = torch.where(present.unsqueeze(-1), q, 0.0).sum(1, keepdim=True) / count
        scores = (torch.stack(k, 1) * query.unsqueeze(1)).sum(-1) / q.shape[-1] ** 0.5
        lowest = torch.finfo(scores.dtype).min
        return scores.masked_fill(~present.unsqueeze(1), lowest).softmax(-1), v

    def objectives(self, hyper: Hyper) -> tuple[Objective, ...]:
        """All losses at once; the schedule of the task weighs every prediction."""
        options, one = self.options, torch.ones_like(hyper.task)
        names = [spec.name for spec in self.specs]
        weights = {
            "task": hyper.task,
            **dict.fromkeys(self.branches.names, options.weight_own * hyper.task),
            "task.shared": options.weight_shared * hyper.task,
            "divergence": options.weight_divergence * one,
            **{f"orthogonal.{name}": options.weight_orthogonal * one for name in names},
            "rank": options.weight_rank * one,
        }
        return (Objective(weights),)


def pool(h: Tensor, available: Tensor) -> Tensor:
    """Logit of the mean probability of the modalities that are there, for each feature.

    Args:
        h: Logits, ``(B, M, D)``.
        available: ``(B, M)`` bool.

    Returns:
        ``(B, D)``.
    """
    absent = ~available.unsqueeze(-1)
    lowest = torch.finfo(h.dtype).min
    yes = nn.functional.logsigmoid(h).masked_fill(absent, lowest).logsumexp(1)
    no = nn.functional.logsigmoid(-h).masked_fill(absent, lowest).logsumexp(1)
    return yes - no


def divergence(h: Tensor, available: Tensor) -> RowLoss:
    """Jensen-Shannon divergence of shared features as Bernoulli variables, summed over features.

    Args:
        h: Logits, ``(B, M, D)``.
        available: ``(B, M)`` bool; the mean is over the pairs of modalities that are there.
    """
    left, right = _pairs(h.shape[1])
    yes, no = nn.functional.logsigmoid(h), nn.functional.logsigmoid(-h)
    value = _half(yes[:, left], yes[:, right]) + _half(no[:, left], no[:, right])  # (B, P)
    there = available[:, left] & available[:, right]
    mean = torch.where(there, value, 0.0).sum(1) / there.sum(1).clamp(min=1)
    return RowLoss(mean, there.any(1))


def half_divergence(h: Tensor, available: Tensor) -> RowLoss:
    """What every public code computes in its place.

    The events alone and not their complements, of all stays whether they have the pair or not,
    divided by the number of those that have it.

    Args:
        h: Logits, ``(B, M, D)``.
        available: ``(B, M)`` bool.
    """
    left, right = _pairs(h.shape[1])
    yes = nn.functional.logsigmoid(h)
    there = available[:, left] & available[:, right]
    share = len(there) / there.sum(0).clamp(min=1)  # (P,)
    value = (_half(yes[:, left], yes[:, right]) * share).sum(1) / max(len(left), 1)
    return RowLoss(value, torch.ones_like(available[:, 0]))


def rank(weights: Tensor, predictions: Tensor, present: Tensor, y: Tensor) -> RowLoss:
    """Give more attention to what predicts better alone.

    Args:
        weights: Attention, ``(B, C, J)``.
        predictions: Logits from each part alone, ``(B, C, J)``; they are not moved.
        present: ``(B, J)`` bool.
        y: Targets, ``(B, C)``; NaN where unknown.

    Returns:
        Mean margin of the pairs in the wrong order, of the stays that have one.
    """
    left, right = _pairs(weights.shape[-1])
    known = ~y.isnan()
    target = torch.where(known, y, 0.0).to(predictions.dtype).unsqueeze(-1)
    error = nn.functional.binary_cross_entropy_with_logits(
        predictions.detach(), target.expand(predictions.shape), reduction="none"
    )
    better = torch.where(error[..., left] < error[..., right], 1.0, -1.0)
    margin = (better * (weights[..., right] - weights[..., left])).relu()
    margin = torch.where(known.unsqueeze(-1), margin, 0.0)
    margin = torch.where((present[:, left] & present[:, right]).unsqueeze(1), margin, 0.0)
    wrong = (margin > 0).sum((1, 2))
    return RowLoss(margin.sum((1, 2)) / wrong.clamp(min=1), wrong > 0)


def _half(p: Tensor, q: Tensor) -> Tensor:
    """Part of the divergence from log probabilities of one outcome, summed over features."""
    middle = torch.logaddexp(p, q) - math.log(2)
    return 0.5 * (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(-1)


def _pairs(n: int) -> tuple[list[int], list[int]]:
    pairs = list(combinations(range(n), 2))
    return [a for a, _ in pairs], [b for _, b in pairs]
