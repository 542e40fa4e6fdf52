"""Noisy embeddings for the objective `elbo`: a bound on the likelihood of the targets.

Model: latents w of all modalities follow the copula-mixture density p(w); the targets depend on
w alone, p(y | w). For a stay with the modalities S take

    q(w | x) = prod_{m in S} N(w_m; e_m(x_m), diag t_m^2) · p(w_absent | w_S)

    log p(y) >= E_q log p(y | w) - E_q [sum_{m in S} log q(w_m | x_m) - log p_S(w_S)]

whatever the noise t and the encoders e are: the absent block has the same density in q and p, so
it cancels. The bracket is a KL divergence, hence never negative in expectation, so the objective
cannot run to minus infinity as the paper's does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..copula.joint import JointModel, JointTerms
from ..copula.normal import normal_quantile
from .interface import RowLoss

START = 0.3
"""Noise at the start, in standard deviations of the (white) coordinates."""


class Posterior(nn.Module):
    """Gaussian noise of learned size around the coordinates of every modality.

    Args:
        M: Modalities.
        D: Coordinates of the copula space.
    """

    def __init__(self, M: int, D: int) -> None:
        super().__init__()
        self.log_noise = nn.Parameter(torch.full((M, D), math.log(START)))

    def sample(self, w: Tensor, uniforms: Tensor) -> Tensor:
        """Draw latents, differentiable in the means and the noise.

        Args:
            w: Means, ``(B, M, D)``.
            uniforms: In (0, 1), ``(S, B, M, D)``.
        """
        normal = normal_quantile(torch.log(uniforms), torch.log1p(-uniforms))
        return w + self.log_noise.exp() * normal.to(w.dtype)

    def entropy(self, available: Tensor) -> Tensor:
        """Entropy of the noise of the modalities that are present, ``(B,)`` nats."""
        one = self.log_noise + 0.5 * math.log(2 * math.pi * math.e)
        return (available.to(one.dtype).unsqueeze(-1) * one).sum((1, 2))


def divergence(
    posterior: Posterior, joint: JointModel, terms: JointTerms, available: Tensor, started: Tensor
) -> RowLoss:
    """One-sample (or S-sample) estimate of KL(q || p) by stay, per coordinate.

    Args:
        posterior: The noise.
        joint: The prior.
        terms: Its terms at the S sampled latents of B stays, leading axis ``(S * B,)``.
        available: ``(B, M)`` bool.
        started: 1 once the mixtures have started from data; no row contributes before.
    """
    log_p = joint.total(terms).reshape(-1, len(available)).mean(0)
    value = -log_p - posterior.entropy(available)
    return RowLoss(value / joint.D, (started > 0) & available.any(1))
