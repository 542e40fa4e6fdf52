"""Losses that draw the modalities' embeddings together, and the fit of what they need."""

from __future__ import annotations

import warnings
from itertools import combinations
from typing import NamedTuple

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from ..copula.goodness import fit
from ..copula.joint import JointModel, JointTerms
from ..copula.whitening import CopulaSpace
from .interface import RowLoss

EM_STEPS = 5
MEMORY = 128
"""Rows that the moving averages of the copula space remember."""


class CopulaLosses(NamedTuple):
    """The named losses and the terms they come from."""

    losses: dict[str, RowLoss]
    terms: JointTerms


def copula_losses(
    joint: JointModel,
    w: Tensor,
    available: Tensor,
    started: Tensor,
    align: bool,
    over: str = "all",
    full: bool = False,
) -> CopulaLosses:
    """Negative log-likelihoods by stay, each per coordinate.

    `marginal` moves the mixtures alone. `copula` moves the copula's parameters and, when `align`,
    the embeddings. With `full` nothing is cut, and `likelihood`, the whole log density, is added.

    Args:
        joint: The joint density.
        w: Copula coordinates, ``(B, M, D_c)``.
        available: ``(B, M)`` bool.
        started: 1 once the mixtures have started from data; no row contributes before.
        align: Whether embeddings are moved.
        over: `all` takes the copula of all modalities that a stay has, `pairs` the mean of the
            log densities of its pairs (a composite likelihood).
        full: Let every term move everything.
    """
    terms = joint.log_terms(w if align else w.detach(), available, detach=not full)
    copula = terms.copula
    if over == "pairs" and joint.M > 2:
        copula = _pairwise(joint, w if align else w.detach(), available)
    present = available.sum(1)
    live = started > 0
    marginal = terms.marginal.sum(1) / (present.clamp(min=1) * joint.D)
    losses = {
        "copula": RowLoss(-copula, live & (present >= 2)),
        "marginal": RowLoss(-marginal, live & (present >= 1)),
    }
    if full:
        losses["likelihood"] = RowLoss(-joint.total(terms) / joint.D, live & (present >= 1))
    return CopulaLosses(losses, terms)


def _pairwise(joint: JointModel, w: Tensor, available: Tensor) -> Tensor:
    """Mean over the pairs that a stay has of the pair's log copula density, ``(B,)``."""
    total, count = torch.zeros_like(w[:, 0, 0]), torch.zeros_like(available[:, 0], dtype=w.dtype)
    for a, b in combinations(range(joint.M), 2):
        pair = torch.zeros(joint.M, dtype=torch.bool, device=w.device)
        pair[[a, b]] = True
        total = total + joint.log_terms(w, available & pair).copula
        count = count + (available[:, a] & available[:, b])
    return total / count.clamp(min=1)


def start_mixture(w: Tensor, K: int, floor: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a diagonal Gaussian mixture by EM from a k-means++ start.

    Args:
        w: Training rows, ``(N, D_c)``, N >= K.
        K: Components.
        floor: Smallest standard deviation.
        seed: Seed of the start.

    Returns:
        Weights ``(K,)``, means ``(K, D_c)`` and standard deviations ``(K, D_c)``.
    """
    mixture = GaussianMixture(
        K,
        covariance_type="diag",
        reg_covar=floor**2,
        init_params="k-means++",
        random_state=seed % 2**32,
    )
    with warnings.catch_warnings():
        # A start need not have converged.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(w.cpu().numpy())
    return (
        torch.from_numpy(mixture.weights_),
        torch.from_numpy(mixture.means_),
        torch.from_numpy(mixture.covariances_).sqrt(),
    )


@torch.no_grad()
def track(space: CopulaSpace, z: Tensor, available: Tensor) -> None:
    """Move the statistics of the copula space towards those of one batch.

    Between two exact passes the embeddings drift, and along directions of little variance a small
    drift is many standard deviations. The moving average is taken in the white coordinates, where
    the covariance is the identity: if A = (1 - a) I + a C is its average with the batch's and
    A = L L', white coordinates are multiplied by the inverse of L' from the right. L is
    triangular, so the result is again the unique Cholesky transform. The regression from
    projected to whole embeddings stays what the last exact pass found; only its means move.

    Args:
        space: Its buffers are replaced.
        z: Embeddings of a batch, ``(B, M, D)``.
        available: ``(B, M)`` bool.
    """
    whitening = space.whitening
    n = available.sum(0).to(z.dtype)  # (M,)
    rate = n / (n + MEMORY)
    share = (available / n.clamp(min=1)).to(z.dtype).T.unsqueeze(1)  # (M, 1, B)
    z = torch.where(available.unsqueeze(-1), z, 0.0)
    v = space.project(z)
    w = whitening(v).transpose(0, 1)  # (M, B, D_c)
    mean = share @ w
    centred = w - mean
    covariance = centred.mT @ (share.mT * centred)
    eye = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
    a = rate[:, None, None]
    average = (1 - a) * eye + a * covariance + a * (1 - a) * mean.mT @ mean
    factor = torch.linalg.cholesky(average)
    whitening.transform.copy_(
        torch.linalg.solve_triangular(factor.mT, whitening.transform, upper=True, left=False)
    )
    whitening.decoder.copy_(factor.mT @ whitening.decoder)
    for buffer, values in ((whitening.mean, v), (whitening.embedding_mean, z)):
        moved = (share @ values.transpose(0, 1)).squeeze(1) - buffer
        buffer.add_(rate.unsqueeze(-1) * moved)


def fitted_tau(joint: JointModel, terms: JointTerms, available: Tensor) -> object:
    """Kendall's tau of the copula that fits given arguments best, the rest of the model held.

    On rows that training has not seen this is an honest figure: the learned parameter starts at
    a small positive dependence, and moves at the pace of the learning rate.

    Args:
        joint: Left as it is.
        terms: Copula arguments of some rows, from `JointModel.log_terms`.
        available: ``(N, M)`` bool.

    Returns:
        As JSON; None for a family without parameter or with no row of two modalities.
    """
    rows = available.sum(1) >= 2
    if joint.raw.numel() == 0 or not rows.any():
        return None
    log_u, log_sf = terms.log_u[rows].detach(), terms.log_sf[rows].detach()
    raw = fit(joint.copula, joint.raw, log_u, log_sf, available[rows])
    tau = joint.copula.kendall_tau(joint.copula.natural(raw, joint.M))
    return tau.tolist() if torch.isfinite(tau).all() else None
