"""The exact copula term against the fusion step it is added to, and against the naive formula.

    python -m benchmarks.copula_joint --rounds 5 --threads 1 [--small] [--out result.json]

Baselines: (1) one cached training step in plain PyTorch: M tokens of width 256 (one of them
through Linear(512, 256)) into nn.LSTM(256, 512, 2 layers), linear head, binary cross-entropy,
backward, torch.optim.Adam with defaults; (2) the naive term: mixture distribution function of
each coordinate on its own, clamped to [1e-6, 1 - 1e-6], textbook density, mixture log density.
Exact and naive terms are both timed with marginals, forward and backward, to the same inputs.
A and B alternate; ratios are of processor time, which other jobs disturb less. Before timing,
exact and naive must agree where the naive one is right (K = 1, values within four standard
deviations).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from pathlib import Path

import torch
from torch import Tensor, nn

from cm2.fuse.copula.joint import JointModel
from cm2.fuse.copula.mixture import Mixture, log_prob

from .timing import Times, Work, in_turns, load_average

FAMILIES = ("independence", "clayton", "frank", "gumbel", "gaussian", "student")
THETA = 3.0


def fusion_step(B: int, M: int) -> Work:
    """One training step from cached embeddings."""
    torch.manual_seed(0)
    image, lstm, head = (
        nn.Linear(512, 256),
        nn.LSTM(256, 512, 2, batch_first=True),
        nn.Linear(512, 1),
    )
    parameters = [*image.parameters(), *lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters)
    cached, film, y = torch.randn(B, M - 1, 256), torch.randn(B, 512), torch.rand(B, 1).round()

    def step() -> None:
        optimizer.zero_grad()
        tokens = torch.cat([cached, image(film).unsqueeze(1)], 1)
        logits = head(lstm(tokens)[0][:, -1])
        nn.functional.binary_cross_entropy_with_logits(logits, y).backward()
        optimizer.step()

    return step


def joint_model(M: int, D: int, K: int, family: str, dtype: torch.dtype) -> JointModel:
    """A joint model with spread components, its dependence near THETA for Frank."""
    torch.manual_seed(0)
    joint = JointModel(M, D, K, family).to(dtype)
    for marginal in joint.marginals:
        marginal.start(torch.rand(K) + 0.5, torch.randn(K, D), 0.5 + torch.rand(K, D))
    if family == "frank":
        theta = torch.tensor(THETA, dtype=torch.float64)
        joint.raw.data.copy_(joint.copula.unconstrained({"theta": theta}, M))
    return joint


def exact_term(joint: JointModel, w: Tensor, available: Tensor) -> Tensor:
    """Negative marginal and copula terms, as a model adds them."""
    terms = joint.log_terms(w, available)
    return -(terms.copula.mean() + terms.marginal.mean() / joint.D)


def naive_term(mix: Mixture, theta: Tensor, w: Tensor) -> Tensor:
    """Clamped coordinate distributions and the textbook Frank density, M = 2."""
    z = (w.unsqueeze(-2) - mix.means.detach()) / mix.stds.detach()
    u = (mix.log_weights.detach().exp().unsqueeze(-1) * torch.special.ndtr(z)).sum(-2)
    u = u.clamp(1e-6, 1 - 1e-6)
    a, b = u[:, 0], u[:, 1]
    scale = 1 - torch.exp(-theta)
    below = scale - (1 - torch.exp(-theta * a)) * (1 - torch.exp(-theta * b))
    density = theta * scale * torch.exp(-theta * (a + b)) / below.square()
    return -(torch.log(density).mean() + log_prob(w.detach(), mix).mean() / w.shape[-1])


def term(
    B: int, M: int, D: int, K: int, family: str, dtype: torch.dtype = torch.float32
) -> tuple[Work, Work]:
    """Forward and backward of the exact and of the naive term on the same values."""
    joint = joint_model(M, D, K, family, dtype)
    w = torch.randn(B, M, D).to(dtype).requires_grad_()
    available = torch.ones(B, M, dtype=torch.bool)
    theta = torch.tensor(THETA, dtype=dtype, requires_grad=True)

    def exact() -> None:
        joint.zero_grad()
        w.grad = None
        exact_term(joint, w, available).backward()

    def naive() -> None:
        joint.zero_grad()
        w.grad = theta.grad = None
        naive_term(joint.mixture(), theta, w).backward()

    return exact, naive


def check() -> float:
    """Largest difference between exact and naive where the naive one holds, float64."""
    joint = joint_model(2, 16, 1, "frank", torch.float64)
    mix = joint.mixture()
    z = torch.randn(64, 2, 16, dtype=torch.float64).clamp(-4, 4)
    w = (mix.means[:, 0] + mix.stds[:, 0] * z).detach()
    exact = exact_term(joint, w, torch.ones(64, 2, dtype=torch.bool))
    return float((exact - naive_term(mix, torch.tensor(THETA).double(), w)).detach().abs())


def ratio(times: Times, a: str, b: str) -> tuple[float, float, float]:
    """Median, smallest and largest of a / b over the rounds, by processor time."""
    values = sorted(x[0] / y[0] for x, y in zip(times[a], times[b], strict=True))
    return statistics.median(values), values[0], values[-1]


def show(title: str, times: Times) -> None:
    """One line per work: medians, extremes, a mark when the rounds differ by more than 30 %."""
    print(title)
    for name, rounds in times.items():
        cpu, wall = ([1e3 * value for value in values] for values in zip(*rounds, strict=True))
        loose = (max(cpu) - min(cpu)) / statistics.median(cpu) > 0.3
        print(
            f"  {name:24s} cpu {statistics.median(cpu):9.2f} ms ({min(cpu):.2f} to {max(cpu):.2f})"
            f"  wall {statistics.median(wall):9.2f} ms" + ("  spread > 30 %" if loose else "")
        )


def main() -> None:
    """Check agreement, time in alternation, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="seconds: checks agreement only")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    apart = check()
    print(f"exact and naive differ by {apart:.1e} where the naive formula holds")
    if apart > 1e-9:
        raise SystemExit("the exact term disagrees with the textbook formula")
    rounds, repeats = (1, 1) if options.small else (options.rounds, 5)
    batches = (32,) if options.small else (32, 256)
    result: dict[str, object] = {"difference": apart, "rounds": rounds}
    for B in batches:
        works: dict[str, Work] = {"fusion step": fusion_step(B, 2)}
        for D in (16, 256):
            works[f"exact D={D}"], works[f"naive D={D}"] = term(B, 2, D, 3, "frank")
            works[f"exact D={D} float64"] = term(B, 2, D, 3, "frank", torch.float64)[0]
        times = in_turns(works, rounds, repeats)
        show(f"B={B}, M=2, K=3, Frank, forward + backward", times)
        result[f"B={B}"] = times
        for D in (16, 256):
            for suffix in ("", " float64"):
                middle, low, high = ratio(times, f"exact D={D}{suffix}", "fusion step")
                print(
                    f"  exact term D={D}{suffix}: {100 * middle:.1f} % of the fusion step "
                    f"({100 * low:.1f} to {100 * high:.1f})"
                )
            middle, low, high = ratio(times, f"exact D={D}", f"naive D={D}")
            print(f"  exact / naive D={D}: {middle:.2f} ({low:.2f} to {high:.2f})")
    B = batches[-1]
    growth = {
        "D": {f"D={D}": term(B, 2, D, 3, "frank")[0] for D in (64, 128, 256, 512)},
        "K": {f"K={K}": term(B, 2, 256, K, "frank")[0] for K in (1, 2, 3, 6, 12)},
        "M": {f"M={M}": term(B, M, 256, 3, "frank")[0] for M in (2, 3, 4)},
        "family": {name: term(B, 2, 256, 3, name)[0] for name in FAMILIES},
    }
    for name, works in growth.items():
        times = in_turns(works, rounds, max(1, repeats // 2))
        show(f"by {name} (B={B}, else M=2, D=256, K=3, Frank)", times)
        result[name] = times
        first = next(iter(works))
        shares = [f"{other} {ratio(times, other, first)[0]:.2f}" for other in works]
        print(f"  relative to {first}: {', '.join(shares)}")
    load = load_average()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    result |= {"load": load, "cores": os.cpu_count(), "threads": options.threads}
    result["versions"] = versions
    print(f"load {load:.1f}, {os.cpu_count()} cores, {options.threads} threads, {versions}")
    if options.out:
        options.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
