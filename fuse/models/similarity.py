"""Alignment that compares embeddings themselves: cosine, KL divergence, InfoNCE.

Embeddings are scaled to length 1 first. What `over` means, for a stay with the modalities S
(both mean the same for two):

              pairs (mean over all pairs in S)        all
    cosine    1 - cos of the two                      1 - cos to the sum of the others, mean over S
    kl        the first of the pair teaches           the first of S teaches all others, mean
    infonce   mean of both directions                 each against the sum of the others, mean

A teacher receives no gradient (paper, Table 4, as its code has it). The negatives of `infonce`
are the other stays of the batch in which the same comparison can be made (van den Oord et al.,
2018; Radford et al., 2021).
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn

from .interface import RowLoss


def similarity(
    how: str, z: Tensor, available: Tensor, temperature: float, over: str = "all"
) -> RowLoss:
    """Distance of the embeddings of each stay from one another, averaged as the table above says.

    Args:
        how: `cosine`, `kl` or `infonce`.
        z: Embeddings, ``(B, M, D)``; absent ones are not read.
        available: ``(B, M)`` bool; stays with fewer than two do not contribute.
        temperature: Of the softmax over coordinates (`kl`) or over stays (`infonce`).
        over: `pairs` or `all`.
    """
    z = torch.where(available.unsqueeze(-1), z, 0.0)
    z = z * (z.square().sum(-1, keepdim=True) + 1e-12).rsqrt()
    rows = available.sum(1) >= 2
    if over == "pairs":
        parts = [_pair(how, z, available, a, b, temperature) for a, b in _pairs(z.shape[1])]
    elif how == "kl":
        parts = _first_teaches(z, available, temperature)
    else:
        parts = _against_the_others(how, z, available, rows, temperature)
    if not parts:  # one modality
        return RowLoss(torch.zeros_like(z[:, 0, 0]), rows)
    values = torch.stack([torch.where(there, value, 0.0) for value, there in parts])
    count = torch.stack([there for _, there in parts]).sum(0)
    return RowLoss(values.sum(0) / count.clamp(min=1), rows)


Part = tuple[Tensor, Tensor]
"""Values by stay, and where they count, each ``(B,)``."""


def _pairs(M: int) -> list[tuple[int, int]]:
    return list(combinations(range(M), 2))


def _pair(how: str, z: Tensor, available: Tensor, a: int, b: int, temperature: float) -> Part:
    there = available[:, a] & available[:, b]
    x, y = z[:, a], z[:, b]
    if how == "cosine":
        return 1 - (x * y).sum(-1), there
    if how == "kl":
        return _divergence(x, y, temperature), there
    forward = _contrast(x, y, there, temperature)
    return (forward + _contrast(y, x, there, temperature)) / 2, there


def _first_teaches(z: Tensor, available: Tensor, temperature: float) -> list[Part]:
    order = available.cumsum(1)
    first = available & (order == 1)
    teacher = torch.where(first.unsqueeze(-1), z, 0.0).sum(1)
    return [
        (_divergence(teacher, z[:, m], temperature), available[:, m] & (order[:, m] > 1))
        for m in range(1, z.shape[1])
    ]


def _against_the_others(
    how: str, z: Tensor, available: Tensor, rows: Tensor, temperature: float
) -> list[Part]:
    parts = []
    for m in range(z.shape[1]):
        others = z.sum(1) - z[:, m]
        others = others * (others.square().sum(-1, keepdim=True) + 1e-12).rsqrt()
        there = available[:, m] & rows
        if how == "cosine":
            parts.append((1 - (z[:, m] * others).sum(-1), there))
        else:
            parts.append((_contrast(z[:, m], others, there, temperature), there))
    return parts


def _divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL of the student's softmax over coordinates from the teacher's, ``(B,)`` nats."""
    p = nn.functional.log_softmax(teacher.detach() / temperature, -1)
    r = nn.functional.log_softmax(student / temperature, -1)
    return (p.exp() * (p - r)).sum(-1)


def _contrast(query: Tensor, key: Tensor, there: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding a stay's own key among those of all stays, ``(B,)`` nats."""
    scores = query @ key.mT / temperature
    own = scores.diagonal()
    scores = torch.where(there, scores, torch.finfo(scores.dtype).min)
    return scores.logsumexp(-1) - own
