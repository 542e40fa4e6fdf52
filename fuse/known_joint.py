"""Data whose joint distribution is known: a Gaussian mixture for each modality, and a copula.

Arguments of the copula come from numpy and scipy (frailties, elliptical vectors), and the inverse
Rosenblatt transform is written out anew, so that nothing that is judged by these data draws them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, optimize, special, stats

Array = NDArray[np.float64]
WEIGHTS = np.array([0.35, 0.65])
MEANS = np.array([[-1.5, 1.0], [1.5, -0.5]])
STDS = np.array([[0.5, 0.8], [0.7, 0.4]])
"""The mixture of every modality: weights of its components (K,), means and deviations (K, D)."""

DEGREES = 5
"""Degrees of freedom of Student's copula."""

FAMILIES = ("clayton", "frank", "gumbel", "gaussian", "student", "independence")


def joint_draws(family: str, n: int, M: int, tau: float, random: np.random.Generator) -> Array:
    """Draw modalities that share one mixture and depend on each other coordinate by coordinate.

    Args:
        family: Out of `FAMILIES`.
        n: Number of stays.
        M: Number of modalities.
        tau: Kendall's tau of every pair of modalities, above 0 and below 1.
        random: Where the numbers come from.

    Returns:
        Shape ``(n, M, D)``.
    """
    D = MEANS.shape[1]
    u = np.stack([copula_draws(family, n, M, tau, random) for _ in range(D)], -1)
    return np.stack([mixture_draws(u[:, m]) for m in range(M)], 1)


def copula_draws(family: str, n: int, M: int, tau: float, random: np.random.Generator) -> Array:
    """Draw arguments of a copula, shape ``(n, M)``, uniform on (0, 1); see `joint_draws`."""
    E = random.exponential(size=(n, M))
    if family == "clayton":
        theta = 2 * tau / (1 - tau)
        u = (1 + E / random.gamma(1 / theta, size=(n, 1))) ** (-1 / theta)
    elif family == "frank":
        theta = frank_theta(tau)
        p = -np.expm1(-theta)
        V = stats.logser.rvs(p, size=(n, 1), random_state=random)
        u = -np.log1p(-p * np.exp(-E / V)) / theta
    elif family == "gumbel":
        a = 1 - tau
        angle, W = np.pi * random.random((n, 1)), random.exponential(size=(n, 1))
        V = np.sin(a * angle) / np.sin(angle) ** (1 / a)
        V *= (np.sin((1 - a) * angle) / W) ** ((1 - a) / a)
        u = np.exp(-((E / V) ** a))
    elif family == "independence":
        u = random.random((n, M))
    else:
        rho = np.sin(np.pi * tau / 2)
        R = np.full((M, M), rho) + (1 - rho) * np.eye(M)
        z = random.multivariate_normal(np.zeros(M), R, size=n)
        if family == "student":
            t = z / np.sqrt(random.chisquare(DEGREES, size=(n, 1)) / DEGREES)
            u = stats.t.cdf(t, DEGREES)
        else:
            u = special.ndtr(z)
    return np.asarray(u)


def frank_theta(tau: float) -> float:
    """Parameter of Frank's copula with a Kendall's tau above 0, by its Debye function."""

    def gap(theta: float) -> float:
        area = integrate.quad(lambda t: t / np.expm1(t), 0, theta)[0]
        return float(1 - 4 / theta * (1 - area / theta) - tau)

    return float(optimize.brentq(gap, 1e-3, 500))


def mixture_draws(u: Array) -> Array:
    """Find the values ``(n, D)`` of the mixture whose Rosenblatt transform is u, by bisection."""
    x = np.empty_like(u)
    weights = np.broadcast_to(WEIGHTS, (len(u), len(WEIGHTS)))
    for d in range(u.shape[1]):
        low, high = np.full(len(u), -20.0), np.full(len(u), 20.0)
        for _ in range(60):
            middle = (low + high) / 2
            below = special.ndtr((middle[:, None] - MEANS[:, d]) / STDS[:, d])
            under = (weights * below).sum(1) < u[:, d]
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        x[:, d] = (low + high) / 2
        weights = weights * stats.norm.pdf(x[:, d : d + 1], MEANS[:, d], STDS[:, d])
        weights /= weights.sum(1, keepdims=True)
    return x


__all__ = ["FAMILIES", "MEANS", "STDS", "WEIGHTS", "joint_draws"]
