"""What the copula term does to encoders on its own, and which remedy keeps scale, rank and margins.

    python -m benchmarks.copula_collapse [--small] [--out result.json]

512 stays, two views of width 16 that share 4 factors, a linear encoder of width 8 for each, K = 2
components, a Gaussian copula for each coordinate, Adam 5e-3, full batch, no task loss. Every
variant minimises -(log f_1 + log f_2 + sum_d log c_d); they differ in who is trained by what.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cm2.fuse.copula.joint import JointModel
from cm2.fuse.copula.monitors import effective_rank, ks_distance, spread
from cm2.fuse.copula.whitening import CopulaSpace

N, VIEW, SHARED, D, K = 512, 16, 4, 8, 2
FULL = "whitening in every step, with its gradient"
HELD = "whitening held between passes, no gradient"
FOLLOWED = "whitening held between passes, gradient of the batch"
VARIANTS = ("paper", "detached margins", "batch norm", "fixed noise", "elbo", FULL, HELD, FOLLOWED)
PASS = 5  # steps between two passes of the last two


class Outcome(NamedTuple):
    """Signs of health of one variant.

    Attributes:
        start: Objective before training, nats per stay.
        end: Objective after training.
        log_c: Sum over coordinates of the mean log copula density.
        spread: Standard deviation of the embedding, smaller of the views.
        rank: Effective rank of the embedding (of 8), smaller of the views.
        ks: Largest Kolmogorov-Smirnov distance of a coordinate of u to uniform.
        rho: Mean absolute correlation parameter.
    """

    start: float
    end: float
    log_c: float
    spread: float
    rank: float
    ks: float
    rho: float


def views() -> Tensor:
    """Two views that share four factors, (N, 2, VIEW)."""
    torch.manual_seed(0)
    shared = torch.randn(N, 1, SHARED).expand(N, 2, SHARED)
    own = torch.randn(N, 2, VIEW - SHARED)
    loading = torch.randn(2, VIEW, VIEW) / VIEW**0.5
    return torch.einsum("nmi,mij->nmj", torch.cat([shared, own], -1), loading)


class Encoders(nn.Module):
    """One linear map per view, and what a variant does to its output."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.variant = variant
        self.weight = nn.Parameter(torch.randn(2, VIEW, D) / VIEW**0.5)
        self.log_noise = nn.Parameter(torch.full((2, D), -1.0))
        self.space = CopulaSpace(2, D, D, shrinkage=1e-4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings, and what the joint density is evaluated at."""
        z = torch.einsum("nmi,mij->nmj", x, self.weight)
        if self.variant == "batch norm":
            z = (z - z.mean(0)) / z.std(0)
            return z, z
        if self.variant == "fixed noise":
            return z, z + 0.1 * torch.randn_like(z)
        if self.variant == "elbo":
            return z, z + self.log_noise.exp() * torch.randn_like(z)
        if self.variant == FULL:
            centred = (z - z.mean(0)).transpose(0, 1)
            factor = torch.linalg.cholesky(centred.mT @ centred / len(z) + 1e-6 * torch.eye(D))
            return z, torch.linalg.solve_triangular(factor, centred.mT, upper=False).permute(
                2, 0, 1
            )
        if self.variant == HELD:
            return z, self.space(z)
        if self.variant == FOLLOWED:
            return z, self.space(z, torch.ones(z.shape[:2], dtype=torch.bool))
        return z, z


def run(variant: str, steps: int) -> Outcome:
    """Train one variant and look at it."""
    x, everyone = views(), torch.ones(N, 2, dtype=torch.bool)
    encoders = Encoders(variant)
    joint = JointModel(2, D, K, "gaussian", params="per-dim", floor=1e-6)
    slow = 0.1 if variant in (HELD, FOLLOWED) else 1.0  # else a pass every step would be needed
    optimizer = torch.optim.Adam([*encoders.parameters(), *joint.parameters()], 5e-3 * slow)
    whitened = variant.startswith("whitening")
    detach = whitened or variant == "detached margins"
    objective = []
    for step in range(int(steps / slow)):
        if variant in (HELD, FOLLOWED) and step % PASS == 0:
            encoders.space.update(encoders(x)[0], everyone)
            joint.refresh(encoders(x)[1], everyone, steps=5)
        _, w = encoders(x)
        terms = joint.log_terms(w, everyone, detach=detach)
        loss = -(terms.marginal.sum(-1) + D * terms.copula).mean()
        if variant == "elbo":  # minus the entropy of the encoder's noise
            loss = loss - (encoders.log_noise + 0.5 * torch.log(torch.tensor(17.0795))).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.append(loss.item())
    with torch.no_grad():
        z, w = encoders(x)
        terms = joint.log_terms(w, everyone)
        rho = joint.copula_params()["correlation"][:, 0, 1]
        # The whitened coordinates are what the term acts on.
        seen = w if whitened or variant in ("fixed noise", "elbo") else z
        return Outcome(
            sum(objective[:5]) / len(objective[:5]),
            sum(objective[-20:]) / len(objective[-20:]),
            D * terms.copula.mean().item(),
            spread(seen, everyone).min().item(),
            effective_rank(seen, everyone).min().item(),
            ks_distance(terms.log_u, everyone).max().item(),
            rho.abs().mean().item(),
        )


def main() -> None:
    """Run every variant and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="20 steps instead of 1,200")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| variant | objective | log c | std | effective rank (of 8) | KS(u) | mean abs rho |")
    print("|---|---|---|---|---|---|---|")
    outcomes = {}
    for variant in VARIANTS:
        o = outcomes[variant] = run(variant, 20 if options.small else 1200)
        print(
            f"| {variant} | {o.start:.1f} to {o.end:.1f} | {o.log_c:.1f} | {o.spread:.3f} | "
            f"{o.rank:.1f} | {o.ks:.2f} | {o.rho:.2f} |",
            flush=True,
        )
    if options.out:
        options.out.write_text(json.dumps({k: o._asdict() for k, o in outcomes.items()}, indent=1))


if __name__ == "__main__":
    main()
