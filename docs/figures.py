"""Draw the figures of docs/mathematics.md from the library itself: python docs/figures.py."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.mixture import GaussianMixture

from cm2.fuse.copula import COPULAS, get_copula
from cm2.fuse.copula.joint import JointModel
from cm2.fuse.copula.mixture import Mixture, coordinate_cdf, log_prob, rosenblatt, sample
from cm2.fuse.copula.normal import LOG_SQRT_2PI, complete, log_ndtr

HERE = Path(__file__).parent / "figures"
BLUE, RED, GREY = "#1f5a99", "#b3362b", "#777777"
TAU = 0.4


def save(figure: plt.Figure, name: str) -> None:
    """Write an SVG whose bytes depend on its content alone."""
    figure.savefig(HERE / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def families() -> None:
    """Contours of each family with standard normal margins, at the same Kendall's tau."""
    z = torch.linspace(-3, 3, 61, dtype=torch.float64)
    a, b = torch.meshgrid(z, z, indexing="xy")
    points = torch.stack([a, b], -1)
    log_u, log_sf = complete(log_ndtr(-points.abs()), points > 0)
    margins = (-0.5 * points.square() - LOG_SQRT_2PI).sum(-1)
    figure, axes = plt.subplots(1, 5, figsize=(12, 2.7), sharey=True)
    names = [name for name in COPULAS if name != "independence"]
    for axis, name in zip(axes, names, strict=True):
        copula = get_copula(name)
        params = copula.from_kendall_tau(torch.tensor(TAU, dtype=torch.float64), 2)
        if name == "student":
            params["nu"] = torch.tensor(3.0, dtype=torch.float64)
        density = (copula.log_density(log_u, log_sf, params) + margins).exp()
        levels = [0.003, 0.01, 0.03, 0.07, 0.13, 0.2]
        axis.contour(z, z, density, levels, colors=BLUE, linewidths=0.9)
        lower, upper = (
            float(x.flatten()[0 if x.ndim == 0 else 1]) for x in copula.tail_dependence(params)
        )
        axis.set_title(f"{name}\ntails {lower:.2f} | {upper:.2f}", fontsize=9)
        axis.set_aspect("equal")
        axis.tick_params(labelsize=7)
    figure.suptitle(f"Joint density, normal margins, Kendall's tau {TAU} for all", y=1.07)
    save(figure, "families")


def vector_distribution() -> None:
    """The distribution of F(X) for a D-vector, from its Kendall function."""
    w = np.logspace(-12, 0, 400)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    for D, shade in ((1, 0.25), (2, 0.45), (8, 0.7), (64, 1.0)):
        terms = [i * np.log(np.maximum(-np.log(w), 1e-300)) - math.lgamma(i + 1) for i in range(D)]
        cdf = np.minimum(1, w * np.exp(terms).sum(0))
        for axis in (left, right):
            axis.plot(w, cdf, color=BLUE, alpha=shade, label=f"D = {D}")
    left.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    right.set_xscale("log")
    left.set_xlabel("w")
    right.set_xlabel("w (log scale)")
    left.set_ylabel("P(F(X) ≤ w)")
    left.legend(fontsize=8)
    figure.suptitle("A vector's distribution function is uniform for D = 1 only")
    save(figure, "vector_distribution")


def two_clusters() -> Mixture:
    """A mixture whose coordinates are clearly dependent."""
    return Mixture(
        torch.log(torch.tensor([0.55, 0.45], dtype=torch.float64)),
        torch.tensor([[-1.5, -1.5], [1.5, 1.5]], dtype=torch.float64),
        torch.tensor([[0.7, 0.6], [0.6, 0.8]], dtype=torch.float64),
    )


def transforms() -> None:
    """Draws of a mixture, coordinate by coordinate and by the Rosenblatt transform."""
    generator = torch.Generator().manual_seed(0)
    mix = two_clusters()
    x = sample(torch.rand(350, 3, generator=generator, dtype=torch.float64), mix)
    panels = {
        "draws of a mixture, K = 2": x,
        "each coordinate alone: dependent": coordinate_cdf(x, mix)[0].exp(),
        "Rosenblatt: independent": rosenblatt(x, mix)[0].exp(),
    }
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2))
    for axis, (title, points) in zip(axes, panels.items(), strict=True):
        axis.scatter(*points.T, s=3, color=BLUE, alpha=0.5, linewidths=0)
        axis.set_title(title, fontsize=9)
        axis.set_aspect("equal")
    save(figure, "transforms")


def components() -> None:
    """Fits with one to six components to three clusters, and what held-out rows say."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-2.0, 0.0], [0.5, 1.8], [1.6, -1.2]], dtype=torch.float64)
    which = torch.randint(3, (2400,), generator=generator)
    noise = torch.randn(2400, 2, generator=generator, dtype=torch.float64)
    x = centres[which] + 0.55 * noise
    train, fresh = x[:400], x[400:]
    grid = torch.linspace(-4, 4, 61, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1)
    figure, axes = plt.subplots(1, 4, figsize=(13, 3))
    held_out: list[tuple[float, float]] = []
    for K in range(1, 7):
        fit = GaussianMixture(K, covariance_type="diag", n_init=5, random_state=0).fit(
            train.numpy()
        )
        mix = Mixture(
            torch.from_numpy(fit.weights_).log(),
            torch.from_numpy(fit.means_),
            torch.from_numpy(fit.covariances_).sqrt(),
        )
        if K <= 3:
            axis = axes[K - 1]
            axis.scatter(*train[:150].T, s=2, color=GREY, linewidths=0)
            axis.contour(grid, grid, log_prob(points, mix).exp(), 6, colors=BLUE, linewidths=0.8)
            axis.scatter(*mix.means.T, s=30, color=RED, marker="+")
            axis.set_title(f"K = {K}", fontsize=9)
        held_out.append((K, float(log_prob(fresh, mix).mean())))
    axes[3].plot(*zip(*held_out, strict=True), marker="o", color=BLUE)
    axes[3].set_xlabel("K")
    axes[3].set_title("held-out log density, nats per row", fontsize=9)
    save(figure, "components")


def imputation() -> None:
    """What is known of an absent modality: its marginal, and the conditional given the other."""
    torch.manual_seed(0)
    joint = JointModel(2, 1, 2, "clayton").double()
    start = torch.tensor([0.5, 0.5]), torch.tensor([[-1.2], [1.2]]), torch.tensor([[0.5], [0.6]])
    for marginal in joint.marginals:
        marginal.start(*start)
    tau = torch.tensor(0.5, dtype=torch.float64)
    joint.raw.data.copy_(joint.copula.unconstrained(joint.copula.from_kendall_tau(tau, 2), 2))
    grid = torch.linspace(-4, 4, 401, dtype=torch.float64)
    everyone = torch.ones(401, 2, dtype=torch.bool)
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), sharey=True)
    n = 2000
    for axis, seen in zip(axes, (-1.8, -0.2, 1.5), strict=True):
        w = torch.stack([torch.full_like(grid, seen), grid], -1).unsqueeze(-1)
        both = joint.log_prob(w, everyone).exp()
        alone = log_prob(grid.unsqueeze(-1), Mixture(*(part[1] for part in joint.mixture()))).exp()
        conditional = both / torch.trapezoid(both, grid)
        uniforms = torch.rand(n, 1, 2, 1, dtype=torch.float64)
        draws = joint.sample_missing(w[:1], torch.tensor([[True, False]]), uniforms)[:, 0, 1, 0]
        axis.hist(draws.detach().numpy(), 50, density=True, color=BLUE, alpha=0.25)
        axis.plot(grid, conditional.detach(), color=BLUE, label="given the present one")
        axis.plot(grid, alone.detach(), color=RED, linestyle="--", label="marginal (the paper)")
        axis.set_title(f"present modality at {seen}", fontsize=9)
    axes[0].legend(fontsize=7)
    save(figure, "imputation")


def main() -> None:
    """Draw everything."""
    HERE.mkdir(exist_ok=True)
    plt.rcParams.update({"svg.hashsalt": "cm2", "svg.fonttype": "none", "font.size": 9})
    families()
    vector_distribution()
    transforms()
    components()
    imputation()


if __name__ == "__main__":
    main()
