"""How vectors become arguments of a copula: five couplings, three of which give a density.

`rosenblatt`  coordinate d of every modality given its own earlier coordinates: independent
              uniforms, one copula per coordinate, an exact joint density (default)
`coordinate`  the distribution of each coordinate on its own: for K > 1 the coordinates of u are
              dependent, so this is a composite likelihood (equal to `rosenblatt` for K = 1)
`component`   a copula per coordinate inside every combination of components: exact, no order of
              the coordinates, K^M terms
`kendall`     V = K(F(w)), the vector distribution made uniform by its Kendall function: exact,
              one copula value for the whole vector, K = 1 only
`joint`       the vector distribution F(w) itself, as the paper writes it: not uniform for D > 1,
              so not a density (its integral reaches 10^32 at D = 64); kept for parity
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ConfigError
from .mixture import (
    Mixture,
    coordinate_cdf,
    coordinate_inverse,
    log_cdf,
    rosenblatt,
    rosenblatt_inverse,
)
from .normal import complete, log1mexp

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Coupling:
    """One way from vectors to copula arguments.

    Attributes:
        transform: Vectors (..., D) under a mixture to the pair, (..., D) or (..., 1).
        inverse: The way back, or None where a vector does not follow from its argument.
        scalar: One copula value per stay instead of one per coordinate.
        density: Whether marginals times copula integrate to one.
    """

    transform: Callable[[Tensor, Mixture], Pair]
    inverse: Callable[[Tensor, Tensor, Mixture], Tensor] | None
    scalar: bool
    density: bool


def gamma_pair(x: Tensor, n: int) -> Pair:
    """Upper and lower tail of a Gamma(n, 1) variable in log space: log Q(n, x), log P(n, x).

    Sums of positive terms on either side of x = n: e^-x sum_{i<n} x^i / i! above it, its
    continuation from i = n below it, which converges in about 9 sqrt(n) terms.

    Args:
        x: Positive, any shape.
        n: A whole number of at least 1.
    """
    above = x > n
    log_x = torch.log(x).unsqueeze(-1)

    def tail(first: int, last: int, use: Tensor) -> Tensor:
        i = torch.arange(first, last, dtype=x.dtype, device=x.device)
        terms = i * torch.where(use.unsqueeze(-1), log_x, math.log(n)) - torch.lgamma(i + 1)
        return torch.logsumexp(terms, -1) - torch.where(use, x, float(n))

    log_q = tail(0, n, above)
    log_p = tail(n, n + 40 + 9 * math.isqrt(n), ~above)
    return complete(torch.where(above, log_q, log_p), ~above)


def _kendall(x: Tensor, mix: Mixture) -> Pair:
    # Independent coordinates: -log F(X) is a sum of D unit exponentials. Each from its own pair:
    # far above the mean log F itself rounds to 0. Not below where the slope of its log overflows.
    total = -coordinate_cdf(x, mix)[0].sum(-1)
    pair = gamma_pair(total.clamp_min(1e8 * torch.finfo(x.dtype).tiny), x.shape[-1])
    return pair[0].unsqueeze(-1), pair[1].unsqueeze(-1)


def _joint(x: Tensor, mix: Mixture) -> Pair:
    # Far above all components log F rounds to 0, where log(1 - F) has no value.
    log_f = log_cdf(x, mix).unsqueeze(-1).clamp_max(-torch.finfo(x.dtype).tiny)
    return log_f, log1mexp(-log_f)


COUPLINGS = {
    "rosenblatt": Coupling(rosenblatt, rosenblatt_inverse, scalar=False, density=True),
    "coordinate": Coupling(coordinate_cdf, coordinate_inverse, scalar=False, density=False),
    "component": Coupling(rosenblatt, rosenblatt_inverse, scalar=False, density=True),
    "kendall": Coupling(_kendall, None, scalar=True, density=True),
    "joint": Coupling(_joint, None, scalar=True, density=False),
}


def get_coupling(name: str, K: int) -> Coupling:
    """Look up a coupling.

    Raises:
        ConfigError: An unknown name, or `kendall` with several components.
    """
    if name not in COUPLINGS:
        raise ConfigError(f"Unknown coupling {name!r}. Known: {', '.join(COUPLINGS)}.")
    if name == "kendall" and K > 1:
        raise ConfigError(
            f"The Kendall function of a mixture has no closed form: coupling `kendall` needs "
            f"K = 1, found K = {K}. Use `rosenblatt`, which is exact for any K."
        )
    return COUPLINGS[name]
