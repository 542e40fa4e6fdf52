"""Distribution functions of the bivariate normal and t, for the copulas of a pair.

With r = -cos t the derivative of both to the correlation is explicit (Plackett 1954; Dunnett and
Sobel 1954), and at r = -1 the copula is the lower Frechet bound, so

    C(u, v) = max(u + v - 1, 0) + 1/(2 pi) integral_0^{arccos(-rho)} k(t) dt,
    k = exp(-q/2) (normal), (1 + q/nu)^(-nu/2) (t),
    q = (h - k)^2/(4 cos(t/2)^2) + (h + k)^2/(4 sin(t/2)^2),

a sum of non-negative terms. The integrand can be sharp near both ends of (0, pi), near the upper
limit and near its maximum, so the panels of the Gauss-Legendre rule shrink geometrically towards
all four. About 3,000 evaluations per point: meant for evaluation, not for a training loop.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .normal import log1mexp, normal_quantile
from .special import LOG_ZERO, broadcast, softplus
from .student import scaled_sinh, student_quantile

NODES = 10
DEPTH = 36


def gaussian_log_cdf(log_u: Tensor, log_sf: Tensor, rho: Tensor) -> Tensor:
    """log of the bivariate Gaussian copula at pairs (..., 2)."""
    h, k = normal_quantile(log_u, log_sf).unbind(-1)
    h, k, rho = broadcast(h, k, rho.to(h.dtype))
    t, log_weight = _panels(rho, h, k)
    near, far = (_safe_log((h - k).square()), _safe_log((h + k).square()))
    kernel = -0.5 * torch.exp(_log_quadratic(t, near, far))
    return _total(log_u, log_sf, kernel + log_weight)


def student_log_cdf(log_u: Tensor, log_sf: Tensor, rho: Tensor, nu: Tensor) -> Tensor:
    """log of the bivariate t copula at pairs (..., 2)."""
    y = student_quantile(log_u, log_sf, nu.unsqueeze(-1))
    scale = y.abs().amax(-1, keepdim=True).detach()
    h, k = scaled_sinh(y, -scale).unbind(-1)
    twice = 2.0 * scale.squeeze(-1)
    h, k, rho, nu, twice = broadcast(h, k, rho.double(), nu.double(), twice)
    t, log_weight = _panels(rho, h, k)
    near, far = (_safe_log((h - k).square()) + twice, _safe_log((h + k).square()) + twice)
    nu = nu.unsqueeze(-1)
    kernel = -0.5 * nu * softplus(_log_quadratic(t, near, far) - torch.log(nu))
    return _total(log_u, log_sf, kernel + log_weight)


def _safe_log(x: Tensor) -> Tensor:
    positive = x > 0
    return torch.where(positive, torch.log(torch.where(positive, x, 1.0)), LOG_ZERO)


def _log_quadratic(t: Tensor, log_near: Tensor, log_far: Tensor) -> Tensor:
    """log q at nodes t (..., N) from log (h - k)^2 and log (h + k)^2."""
    towards_one = log_near.unsqueeze(-1) - 2.0 * torch.log(2.0 * torch.cos(0.5 * t))
    towards_minus_one = log_far.unsqueeze(-1) - 2.0 * torch.log(2.0 * torch.sin(0.5 * t))
    return torch.logaddexp(towards_one, towards_minus_one)


def _total(log_u: Tensor, log_sf: Tensor, terms: Tensor) -> Tensor:
    integral = torch.logsumexp(terms, -1) - math.log(2.0 * math.pi)
    # max(u + v - 1, 0) = u - (1 - v)
    gap = log_u[..., 0] - log_sf[..., 1]
    positive = gap > 0
    bound = log_u[..., 0] + log1mexp(torch.where(positive, gap, 1.0))
    return torch.logaddexp(torch.where(positive, bound, LOG_ZERO), integral)


def _panels(rho: Tensor, h: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and log weights, each (..., N), of the integral over t."""
    top = torch.atan2(torch.sqrt((1.0 - rho) * (1.0 + rho)), -rho)
    fixed = top.detach().unsqueeze(-1)
    # q is smallest at r = h/k or k/h, whichever lies inside (-1, 1)
    larger = torch.maximum(h.abs(), k.abs()).detach()
    ratio = (h * k).detach() / torch.where(larger > 0, larger, 1.0).square()
    peak = torch.acos(-ratio.clamp(-1.0, 1.0)).unsqueeze(-1)
    steps = math.pi * 0.5 ** torch.arange(DEPTH, dtype=rho.dtype, device=rho.device)
    zero = torch.zeros_like(fixed)
    centres = [zero, zero + math.pi, fixed, torch.minimum(peak, fixed)]
    edges = torch.cat([c + s * steps for c in centres for s in (-1.0, 1.0)] + centres, -1)
    edges = torch.minimum(edges.clamp(min=0.0), fixed).sort(-1).values
    # the derivative to rho enters by stretching the grid
    edges = edges / fixed * top.unsqueeze(-1)
    x, w = np.polynomial.legendre.leggauss(NODES)
    node = torch.as_tensor(0.5 * (x + 1.0), dtype=rho.dtype, device=rho.device)
    log_weight = torch.as_tensor(np.log(0.5 * w), dtype=rho.dtype, device=rho.device)
    width = edges[..., 1:] - edges[..., :-1]
    nodes = edges[..., :-1, None] + width.unsqueeze(-1) * node
    nodes = torch.where(nodes > 0, nodes, 1.0)  # empty panels at 0
    log_width = _safe_log(width).unsqueeze(-1)
    return nodes.flatten(-2), (log_width + log_weight).flatten(-2)
