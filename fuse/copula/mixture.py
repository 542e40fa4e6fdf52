"""Diagonal Gaussian mixtures as pure functions: density, distribution, Rosenblatt transform, EM.

Leading axes of a mixture broadcast against those of the data: `x` of shape (B, M, D) goes with
one mixture per modality, (M, K, D). Logs are natural; every distribution value is the pair
(log u, log(1 - u)), because u alone loses one tail.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..readable import readable
from .normal import (
    LOG_SQRT_2PI,
    SQRT_HALF,
    complete,
    log_ndtr,
    log_ndtr_value,
    ndtri_exp,
    normal_quantile,
)

# Reaches float64 rounding from any bracket of `_bracket` (tests/fuse/copula/test_mixture.py).
SOLVER_STEPS = 12
# Five to seven settle nearly all roots; the others are bracketed.
NEWTON_STEPS = 8


class Mixture(NamedTuple):
    """A Gaussian mixture with diagonal covariances, sum_k pi_k prod_d N(x_d; mu_kd, s_kd^2).

    Attributes:
        log_weights: Normalised log pi, shape (..., K); -inf switches a component off.
        means: Shape (..., K, D).
        stds: Standard deviations, positive, shape (..., K, D).
    """

    log_weights: Tensor
    means: Tensor
    stds: Tensor

    def detach(self) -> Mixture:
        """The same mixture, cut from the graph."""
        return Mixture(*(part.detach() for part in self))


def _standardise(x: Tensor, mix: Mixture) -> Tensor:
    return (x.unsqueeze(-2) - mix.means) / mix.stds  # (..., K, D)


def _log_normal(z: Tensor, mix: Mixture) -> Tensor:
    return z * (-0.5 * z) - (torch.log(mix.stds) + LOG_SQRT_2PI)


def log_prob(x: Tensor, mix: Mixture) -> Tensor:
    """Log density, log sum_k pi_k prod_d N(x_d; mu_kd, s_kd).

    Args:
        x: Points, shape (..., D).
        mix: Leading axes broadcast against those of `x`.

    Returns:
        Nats, shape (...).
    """
    return torch.logsumexp(mix.log_weights + _log_normal(_standardise(x, mix), mix).sum(-1), -1)


def responsibilities(x: Tensor, mix: Mixture) -> Tensor:
    """Log probability of each component given the point, shape (..., K)."""
    log_joint = mix.log_weights + _log_normal(_standardise(x, mix), mix).sum(-1)
    return torch.log_softmax(log_joint, -1)


def _conditional_log_weights(z: Tensor, mix: Mixture) -> Tensor:
    """log P(component k | x_1..x_{d-1}) for every d, shape (..., K, D).

    The sum over earlier coordinates is a shifted cumulative sum, not cumsum minus the term: that
    difference loses the digits that decide. Only differences between components matter, so the
    largest is subtracted first, which keeps float32 exact enough at D = 1,024.
    """
    log_normal = z * (-0.5 * z) - torch.log(mix.stds)
    log_normal = log_normal - log_normal.amax(-2, keepdim=True).detach()
    before = torch.cumsum(log_normal, -1)[..., :-1]
    before = torch.cat((torch.zeros_like(log_normal[..., :1]), before), -1)
    return torch.log_softmax(mix.log_weights.unsqueeze(-1) + before, -2)


def _mixed_cdf(z: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """The pair of sum_k w_k Phi(z_k) over axis -2; `log_weights` broadcasts against `z`.

    Only the smaller tail is computed in log space; the other follows from it without loss.
    """
    if z.shape[-2] == 1:
        z = z.squeeze(-2)
        return complete(log_ndtr(-z.abs()), z > 0)
    with torch.no_grad():
        # Any side with a tail below about 0.9 will do, so plain probabilities decide.
        mass = log_weights.exp() * (z * -SQRT_HALF).erfc_()
        upper = mass.sum(-2) > 1.0  # erfc is twice the probability; (..., D)
        sign = 1.0 - 2.0 * upper.to(z.dtype)
    small = torch.logsumexp(log_weights + log_ndtr(z * sign.unsqueeze(-2)), -2)
    return complete(small, upper)


def coordinate_cdf(x: Tensor, mix: Mixture) -> tuple[Tensor, Tensor]:
    """Distribution function of each coordinate on its own, as the pair, each (..., D).

    With K > 1 the coordinates of u are dependent; `rosenblatt` gives independent ones.
    """
    return _mixed_cdf(_standardise(x, mix), mix.log_weights.unsqueeze(-1))


def rosenblatt(x: Tensor, mix: Mixture) -> tuple[Tensor, Tensor]:
    """Distribution of each coordinate given the earlier ones, F(x_d | x_1..x_{d-1}).

    If x follows the mixture, u is uniform on the cube with independent coordinates (Rosenblatt
    1952), which is what a copula per coordinate needs for the joint density to be one.

    Args:
        x: Points, shape (..., D).
        mix: Leading axes broadcast against those of `x`.

    Returns:
        (log u, log(1 - u)), each of shape (..., D).
    """
    z = _standardise(x, mix)
    single = z.shape[-2] == 1
    return _mixed_cdf(z, torch.zeros_like(z) if single else _conditional_log_weights(z, mix))


def log_cdf(x: Tensor, mix: Mixture) -> Tensor:
    """log P(X_1 <= x_1, ..., X_D <= x_D), shape (...): the vector distribution of the paper.

    Not uniform under the mixture for D > 1, so not an argument of a copula; kept for parity.
    """
    return torch.logsumexp(mix.log_weights + log_ndtr(_standardise(x, mix)).sum(-1), -1)


def _bracket(
    log_small: Tensor, roots: Tensor, log_weights: Tensor, means: Tensor, stds: Tensor
) -> tuple[Tensor, Tensor]:
    """Two points around the root, at most one standard deviation of a component apart.

    The root lies between the roots of the components alone. Between those, the distribution is
    evaluated at every component's mean and at -6..6 of its deviations from it: a bracket that
    follows the components has no gap between two of them, where Newton would wander.
    """
    low, high = roots.amin(-1), roots.amax(-1)
    offsets = torch.arange(-6.0, 7.0, dtype=means.dtype, device=means.device)
    points = (means.unsqueeze(-1) + stds.unsqueeze(-1) * offsets).flatten(-2)  # (..., 13 K)
    z = (means.unsqueeze(-2) - points.unsqueeze(-1)) * (SQRT_HALF / stds.unsqueeze(-2))
    mass = (log_weights.exp().unsqueeze(-2) * z.erfc_()).sum(-1)
    target = 2.0 * torch.exp(log_small).unsqueeze(-1)
    # Rounding must not put a point on the wrong side; below 1e-280 mass says nothing.
    sure = target > 1e-280
    below = sure & (mass < target * (1.0 - 1e-12))
    above = sure & (mass > target * (1.0 + 1e-12))
    low = torch.maximum(low, points.masked_fill(~below, -math.inf).amax(-1))
    high = torch.minimum(high, points.masked_fill(~above, math.inf).amin(-1))
    return low, torch.maximum(low, high)


def _solve(
    log_small: Tensor, quantile: Tensor, log_weights: Tensor, means: Tensor, stds: Tensor
) -> Tensor:
    """x with log sum_k w_k Phi((x - mu_k) / s_k) = log_small, components last; float64.

    Plain Newton settles all but a few roots; those are bracketed.
    """
    roots = means + stds * quantile.unsqueeze(-1)
    log_weights, means, stds = (part.expand_as(roots) for part in (log_weights, means, stds))
    if not readable(roots):
        return _solve_safely(log_small, roots, log_weights, means, stds)
    x, settled = _newton(log_small, roots, log_weights.exp(), means, stds)
    if not settled.all():
        left = ~settled  # not its indices: a point alone has no axis to index
        parts = (part[left] for part in (log_small, roots, log_weights, means, stds))
        x = x.masked_scatter(left, _solve_safely(*parts))
    return x


def _newton(
    log_small: Tensor, roots: Tensor, weights: Tensor, means: Tensor, stds: Tensor
) -> tuple[Tensor, Tensor]:
    """Newton on the logarithm, with probabilities in plain numbers, between the extreme roots.

    Returns:
        Points, and whether the last step to each was so small that what is left is rounding.
    """
    low, high, finest = roots.amin(-1), roots.amax(-1), stds.amin(-1)
    x = (weights * roots).sum(-1)
    settled = torch.zeros_like(x, dtype=torch.bool)
    rate, density = SQRT_HALF / stds, 2.0 * math.exp(-LOG_SQRT_2PI) * weights / stds
    for _ in range(NEWTON_STEPS):
        z = (means - x.unsqueeze(-1)) * rate
        tail = (weights * torch.erfc(z)).sum(-1)  # erfc is twice the probability
        slope = (density * torch.exp(-z.square())).sum(-1)
        step = (torch.log(0.5 * tail) - log_small) * tail / slope
        # A settled root rests: how many steps the others need must not change its last digit.
        x = torch.where(settled, x, torch.clamp(x - step, low, high))
        # Never where a number has underflowed: the step is infinite then, or not a number.
        settled = settled | (step.abs() <= 1e-7 * finest)
        if settled.all():
            break
    return x, settled & (log_small > -600.0)


def _solve_safely(
    log_small: Tensor, roots: Tensor, log_weights: Tensor, means: Tensor, stds: Tensor
) -> Tensor:
    """Newton on the logarithm in a bracket, by bisection where it leaves it; `roots` by component.

    A fixed number of steps, whatever the values.
    """
    low, high = _bracket(log_small, roots, log_weights, means, stds)
    x = 0.5 * (low + high)
    # A converged step may leave the bracket by rounding, which is no reason to bisect.
    slack = 1e-9 * (high - low)
    log_scale = log_weights - torch.log(stds) - LOG_SQRT_2PI
    for step in range(SOLVER_STEPS):
        z = (x.unsqueeze(-1) - means) / stds
        log_tail = torch.logsumexp(log_weights + log_ndtr_value(z), -1)
        slope = torch.exp(log_scale - 0.5 * z.square() - log_tail.unsqueeze(-1)).sum(-1)
        error = log_tail - log_small
        above = error > 0
        low, high = torch.where(above, low, x), torch.where(above, x, high)
        newton = x - error / slope.clamp_min(1e-300)  # 0 in a gap between components
        inside = (newton >= low - slack) & (newton <= high + slack)
        # Often the root is an end of the bracket (one component alone), so try the end first.
        instead = torch.clamp(newton, low, high) if step < 2 else 0.5 * (low + high)
        x = torch.where(inside, newton, instead)
    return x


def _solve_all(log_small: Tensor, upper: Tensor, mix: Mixture) -> Tensor:
    """Coordinate after coordinate, since each conditions the weights of the next; no gradient."""
    dtype = log_small.dtype
    log_small, log_weights = log_small.double(), mix.log_weights.double()
    # Upper tails are solved as lower tails of the mirrored mixture.
    sign = 1.0 - 2.0 * upper.double()
    means = mix.means.double() * sign.unsqueeze(-2)
    stds = mix.stds.double().expand_as(means)
    quantile = ndtri_exp(log_small)
    values = []
    for d in range(means.shape[-1]):
        m, s = means[..., d], stds[..., d]
        x = _solve(log_small[..., d], quantile[..., d], log_weights, m, s)
        values.append(x)
        z = (x.unsqueeze(-1) - m) / s
        log_weights = torch.log_softmax(log_weights - 0.5 * z.square() - torch.log(s), -1)
    return (torch.stack(values, -1) * sign).to(dtype)


def _implicit(x: Tensor, log_small: Tensor, upper: Tensor, mix: Mixture) -> Tensor:
    """The value `x`, with the gradient of the inverse Rosenblatt transform.

    x solves G(x; mixture) = log_small with a triangular Jacobian J, so dx = J^-1 (d log_small -
    dG): one Newton step of the whole system, J cut from the graph, by forward substitution.
    J[d, e] = sum_k (p_kd - r_kd) a_ke for e < d, where r are the weights given the earlier
    coordinates, p the same given the tail event and a the slope of the log normal density.
    """
    z = _standardise(x.detach(), mix)
    log_r = _conditional_log_weights(z, mix)
    sign = 1.0 - 2.0 * upper.to(x.dtype)
    terms = log_r + log_ndtr(z * sign.unsqueeze(-2))
    log_tail = torch.logsumexp(terms, -2)
    residual = log_tail - log_small  # (..., D)
    with torch.no_grad():
        shift = torch.softmax(terms, -2) - log_r.exp()  # (..., K, D)
        log_density = torch.logsumexp(log_r + _log_normal(z, mix), -2)
        # In a gap between components the quantile is as good as vertical: the bound keeps the
        # gradient finite there.
        slope = sign * torch.exp(log_tail - log_density).clamp_max(1e6).reciprocal()
        pull = -z / mix.stds
    steps, carried = [], torch.zeros_like(shift[..., 0])
    for d in range(x.shape[-1]):
        step = (residual[..., d] - (shift[..., d] * carried).sum(-1)) / slope[..., d]
        carried = carried + pull[..., d] * step.unsqueeze(-1)
        steps.append(step)
    move = torch.stack(steps, -1)
    return x.detach() - (move - move.detach())


def rosenblatt_inverse(log_u: Tensor, log_sf: Tensor, mix: Mixture) -> Tensor:
    """The point whose Rosenblatt transform is u, differentiable in u and in the mixture.

    Sequential over the D coordinates (one closed form for K = 1). Each is solved in a bracket by
    a fixed number of safeguarded Newton steps; the gradient is implicit.

    Args:
        log_u: log u, shape (..., D).
        log_sf: log(1 - u), same shape.
        mix: Leading axes broadcast against those of `log_u`.
    """
    if mix.means.shape[-2] == 1:
        return mix.means[..., 0, :] + mix.stds[..., 0, :] * normal_quantile(log_u, log_sf)
    upper = log_sf < log_u
    log_small = torch.where(upper, log_sf, log_u)
    x = _solve_all(log_small.detach(), upper, mix.detach())
    return _implicit(x, log_small, upper, mix)


def coordinate_inverse(log_u: Tensor, log_sf: Tensor, mix: Mixture) -> Tensor:
    """The point whose coordinates on their own have distribution u: inverse of `coordinate_cdf`."""
    single = Mixture(  # every coordinate becomes a mixture with D = 1
        mix.log_weights.unsqueeze(-2),
        mix.means.transpose(-1, -2).unsqueeze(-1),
        mix.stds.transpose(-1, -2).unsqueeze(-1),
    )
    return rosenblatt_inverse(log_u.unsqueeze(-1), log_sf.unsqueeze(-1), single).squeeze(-1)


def sample(uniforms: Tensor, mix: Mixture) -> Tensor:
    """Draws: the first uniform number picks the component, the others the point in it.

    The gradient is the implicit one of the Rosenblatt transform, so it reaches the weights too,
    although the pick itself is discrete (Figurnov, Mohamed and Mnih 2018).

    Args:
        uniforms: In (0, 1), shape (..., 1 + D).
        mix: Leading axes broadcast against those of `uniforms`.

    Returns:
        Shape (..., D).
    """
    pick, within = uniforms[..., 0], uniforms[..., 1:]
    means, stds = (part.expand(*within.shape[:-1], *part.shape[-2:]) for part in mix[1:])
    bounds = torch.cumsum(mix.log_weights.exp(), -1)[..., :-1]
    k = (pick.unsqueeze(-1) > bounds).sum(-1)[..., None, None]
    k = k.expand(*within.shape[:-1], 1, within.shape[-1])
    mean, std = (torch.gather(part, -2, k).squeeze(-2) for part in (means, stds))
    x: Tensor = mean + std * torch.special.ndtri(within)
    if mix.means.shape[-2] == 1:
        return x
    log_u, log_sf = rosenblatt(x.detach(), mix.detach())
    upper = log_sf < log_u
    return _implicit(x, torch.where(upper, log_sf, log_u), upper, mix)


def separate(mix: Mixture, distance: float = 1e-3) -> Mixture:
    """Move apart components that coincide: they would share every later gradient and EM step.

    Args:
        mix: Any mixture.
        distance: Root mean square difference of the means, in standard deviations, below which a
            component counts as a copy of an earlier one.
    """
    K = mix.means.shape[-2]
    gap = (mix.means.unsqueeze(-2) - mix.means.unsqueeze(-3)) / mix.stds.unsqueeze(-2)
    ratio = torch.log(mix.stds.unsqueeze(-2) / mix.stds.unsqueeze(-3))
    apart = (gap.square() + ratio.square()).mean(-1).sqrt()  # (..., K, K)
    earlier = torch.ones(K, K, dtype=torch.bool, device=apart.device).tril(-1)
    copies = ((apart < distance) & earlier).sum(-1)  # how many earlier components it equals
    return mix._replace(means=mix.means + 0.5 * copies.unsqueeze(-1) * mix.stds)


def em_step(x: Tensor, weights: Tensor, mix: Mixture, floor: float) -> Mixture:
    """One step of expectation maximisation; the weighted log likelihood cannot fall.

    Args:
        x: Points, shape (..., N, D).
        weights: Weight of each point, 0 for a point that does not count, shape (..., N).
        mix: Leading axes as those of `x` without N.
        floor: Smallest standard deviation.

    Returns:
        The updated mixture; a component that no point claims keeps its place.
    """
    lifted = Mixture(
        *(part.unsqueeze(-1 - axes) for part, axes in zip(mix, (1, 2, 2), strict=True))
    )
    x = torch.where(weights.unsqueeze(-1) > 0, x, 0.0)
    mass = responsibilities(x, lifted).exp() * weights.unsqueeze(-1)  # (..., N, K)
    total = mass.sum(-2)  # (..., K)
    claimed = (total > 1e-6 * weights.sum(-1, keepdim=True)).unsqueeze(-1)
    share = (mass / total.clamp_min(torch.finfo(x.dtype).tiny).unsqueeze(-2)).transpose(-1, -2)
    means = torch.where(claimed, share @ x, mix.means)
    # Around the new mean, not E[x^2] - mean^2, which cancels.
    deviation = (x.unsqueeze(-3) - means.unsqueeze(-2)).square()  # (..., K, N, D)
    variance = (share.unsqueeze(-2) @ deviation).squeeze(-2)
    stds = torch.where(claimed, variance.sqrt().clamp_min(floor), mix.stds)
    total = total.clamp_min(1e-6 * weights.sum(-1, keepdim=True))
    return Mixture(torch.log(total) - torch.log(total.sum(-1, keepdim=True)), means, stds)
