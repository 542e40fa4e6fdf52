"""The learned marginal of one modality: a Gaussian mixture with unconstrained parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import ConfigError, DataError
from .mixture import Mixture, em_step, separate

_CODE, _HIDDEN = 8, 16


class MixtureMarginal(nn.Module):
    """Parameters of a mixture of K diagonal Gaussians in D dimensions.

    Standard deviations are floor + softplus(raw). The weights are a softmax of free logits, or,
    as the paper describes, of a small perceptron. A marginal is one distribution for all stays,
    so the perceptron reads a learned code and not the stay: it is a reparameterisation of the
    logits (paper, section 3.2).

    Args:
        K: Components.
        D: Coordinates.
        weights: `logits` or `mlp`.
        floor: Smallest standard deviation, in the units of the (whitened) data.

    Raises:
        ConfigError: An impossible number of components, width, floor or kind of weights.
    """

    def __init__(self, K: int, D: int, weights: str = "logits", floor: float = 1e-2) -> None:
        super().__init__()
        if K < 1 or D < 1 or not floor > 0:
            raise ConfigError(
                f"A mixture needs K >= 1, D >= 1 and floor > 0; found {K=}, {D=}, {floor=}."
            )
        if weights not in ("logits", "mlp"):
            raise ConfigError(f"Mixture weights come from `logits` or `mlp`; found {weights!r}.")
        self.K, self.D, self.floor = K, D, floor
        # Fixed, distinct positions: the real start comes from the data through `start`.
        generator = torch.Generator().manual_seed(0)
        self.means = nn.Parameter(0.5 * torch.randn(K, D, generator=generator) * (K > 1))
        self.raw_stds = nn.Parameter(self._raw(torch.ones(K, D)))
        self.logits = nn.Parameter(torch.zeros(K))
        self.code: nn.Parameter | None = None
        if weights == "mlp":
            self.code = nn.Parameter(torch.randn(_CODE, generator=generator))
            self.inner = nn.Parameter(torch.randn(_HIDDEN, _CODE, generator=generator) / _CODE**0.5)
            self.outer = nn.Parameter(torch.randn(K, _HIDDEN, generator=generator) / _HIDDEN**0.5)

    def _raw(self, stds: Tensor) -> Tensor:
        """Inverse of floor + softplus; a deviation at the floor is kept a little above it."""
        excess = (stds - self.floor).clamp_min(1e-2 * self.floor)
        return excess + torch.log(-torch.expm1(-excess))

    def _scores(self) -> Tensor:
        if self.code is None:
            return self.logits
        return self.logits + self.outer @ torch.tanh(self.inner @ self.code)

    def mixture(self) -> Mixture:
        """The mixture, differentiable in the parameters."""
        stds = self.floor + nn.functional.softplus(self.raw_stds)
        return Mixture(torch.log_softmax(self._scores(), -1), self.means, stds)

    @torch.no_grad()
    def start(self, weights: Tensor, means: Tensor, stds: Tensor) -> None:
        """Take over a mixture fitted to the training rows; coinciding components are separated.

        Args:
            weights: Component weights, non-negative, any scale, shape (K,).
            means: Shape (K, D).
            stds: Standard deviations, shape (K, D); raised to the floor.

        Raises:
            DataError: Shapes that do not fit, values that are not finite, a negative weight.
        """
        expected = {"weights": (self.K,), "means": (self.K, self.D), "stds": (self.K, self.D)}
        for name, value in {"weights": weights, "means": means, "stds": stds}.items():
            if tuple(value.shape) != expected[name]:
                raise DataError(
                    f"The start of a mixture needs {name} of shape {expected[name]}, found "
                    f"{tuple(value.shape)}. Fit as many components and coordinates as configured."
                )
            if not torch.isfinite(value).all() or (name != "means" and (value < 0).any()):
                raise DataError(
                    f"The start of a mixture has {name} that are negative or not finite. "
                    "Look for constant or missing columns in the rows it was fitted to."
                )
        log_weights = torch.log((weights / weights.sum()).clamp_min(1e-6))
        self.assign(separate(Mixture(log_weights, means, stds.clamp_min(self.floor))))

    @torch.no_grad()
    def assign(self, mix: Mixture) -> None:
        """Set the parameters so that `mixture()` returns `mix` (weights up to normalisation)."""
        self.logits.add_(mix.log_weights.to(self.logits) - self._scores())
        self.means.copy_(mix.means)
        self.raw_stds.copy_(self._raw(mix.stds.to(self.raw_stds.dtype)))

    @torch.no_grad()
    def refresh(self, x: Tensor, weights: Tensor, steps: int = 1) -> None:
        """Let the mixture follow moved data by EM steps; coinciding components are separated.

        Args:
            x: Training rows, shape (N, D).
            weights: 0 for rows that do not count, shape (N,).
            steps: Number of EM steps.
        """
        mix = separate(Mixture(*(part.to(x.dtype) for part in self.mixture())))
        for _ in range(steps):
            mix = em_step(x, weights.to(x.dtype), mix, self.floor)
        self.assign(mix)
