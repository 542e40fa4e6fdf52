"""Cost of each family's log density and gradient against a fusion step and other libraries.

    python -m benchmarks.copula_families --rounds 5 [--threads 1] [--small] [--out result.json]

Baselines, all timed in alternation in one process: the cached fusion step (two-layer nn.LSTM,
256 -> 512, over two tokens, forward + backward + Adam); and pyvinecopulib and statsmodels on the
same points (density only, no gradient on either side). Densities are compared before timing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyvinecopulib as pv
import torch
from statsmodels.distributions.copula.api import (
    ClaytonCopula,
    FrankCopula,
    GaussianCopula,
    GumbelCopula,
    StudentTCopula,
)

from cm2.fuse.copula import COPULAS, get_copula

from .timing import in_turns

FAMILIES = [name for name in COPULAS if name != "independence"]


def density_step(family: str, B: int, D: int, M: int, dtype: torch.dtype) -> Callable[[], object]:
    """Log density and gradient to points and parameters, as in training."""
    copula = get_copula(family)
    raw = copula.initial(M, 0.4).to(dtype).requires_grad_()
    u = torch.rand(B, D, M, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    log_u = torch.log(u).to(dtype).requires_grad_()
    log_sf = torch.log1p(-u).to(dtype).requires_grad_()

    def step() -> object:
        value = copula.log_density(log_u, log_sf, copula.natural(raw, M)).mean()
        return torch.autograd.grad(value, [log_u, log_sf, raw])

    return step


def fusion_step(B: int) -> Callable[[], object]:
    """The step that the copula term is added to, without the copula term."""
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(256, 512, num_layers=2, batch_first=True)
    head = torch.nn.Linear(512, 1)
    optimiser = torch.optim.Adam([*lstm.parameters(), *head.parameters()], fused=True)
    tokens, labels = torch.randn(B, 2, 256), torch.rand(B, 1).round()

    def step() -> object:
        optimiser.zero_grad()
        logits = head(lstm(tokens)[0][:, -1])
        torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
        return optimiser.step()

    return step


def library_steps(family: str, n: int) -> dict[str, Callable[[], Any]]:
    """The same bivariate log density by cm2, pyvinecopulib and statsmodels."""
    copula = get_copula(family)
    params = copula.natural(copula.initial(2, 0.4), 2)
    u = torch.rand(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    log_u, log_sf = torch.log(u), torch.log1p(-u)
    points, column = u.numpy(), np.asfortranarray(u.numpy())
    if "theta" in params:
        theta = params["theta"].item()
        parameters = [[theta]]
        classes = {"clayton": ClaytonCopula, "frank": FrankCopula, "gumbel": GumbelCopula}
        other = classes[family](theta=theta)
    else:
        corr = params["correlation"].numpy()
        parameters = [[corr[0, 1]]] + ([[params["nu"].item()]] if "nu" in params else [])
        other = (
            StudentTCopula(corr=corr, df=params["nu"].item())
            if "nu" in params
            else GaussianCopula(corr=corr)
        )
    vine = pv.Bicop(family=getattr(pv.BicopFamily, family), parameters=np.array(parameters))

    def ours() -> Any:
        with torch.no_grad():
            return copula.log_density(log_u, log_sf, params).numpy()

    return {
        "cm2": ours,
        "pyvinecopulib": lambda: np.log(vine.pdf(column)),
        "statsmodels": lambda: np.log(other.pdf(points)),
    }


def alternate(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each step, taken in turns after one warm-up each."""
    return {
        name: {
            "median": 1e3 * statistics.median(wall for _, wall in pairs),
            "min": 1e3 * min(wall for _, wall in pairs),
            "max": 1e3 * max(wall for _, wall in pairs),
            "cpu": 1e3 * statistics.median(cpu for cpu, _ in pairs),
        }
        for name, pairs in in_turns(steps, rounds).items()
    }


def show(title: str, table: dict[str, dict[str, float]], baseline: str) -> None:
    """Print one table; ratios are of processor time, which other jobs disturb least."""
    print(f"\n{title}")
    print(f"{'':24}{'median ms':>11}{'min':>9}{'max':>9}{'cpu':>9}{'/ ' + baseline:>18}")
    for name, row in table.items():
        ratio = row["cpu"] / table[baseline]["cpu"]
        print(
            f"{name:24}{row['median']:11.2f}{row['min']:9.2f}{row['max']:9.2f}{row['cpu']:9.2f}"
            f"{ratio:18.3f}"
        )


def agreement(family: str, n: int) -> dict[str, float]:
    """Largest difference of the log densities."""
    values = {name: step() for name, step in library_steps(family, n).items()}
    differences = {
        name: float(np.abs(values["cm2"] - value).max()) for name, value in values.items()
    }
    for name, difference in differences.items():
        if not difference < 1e-6:
            raise SystemExit(f"{family}: cm2 and {name} differ by {difference}")
    return differences


def main() -> None:
    """Compare, then time in alternation, then print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="seconds: checks agreement only")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    n = 200 if options.small else 20_000
    result: dict[str, Any] = {"agreement": {f: agreement(f, n) for f in FAMILIES}}
    for family, differences in result["agreement"].items():
        shown = ", ".join(f"{k} {v:.1e}" for k, v in differences.items() if k != "cm2")
        print(f"{family}: largest difference in log density to {shown}")
    if options.small:
        return
    B = 256
    result["families"] = {}
    for D in (16, 256):
        steps = {"fusion step": fusion_step(B)}
        steps |= {f: density_step(f, B, D, 2, torch.float32) for f in FAMILIES}
        result["families"][D] = alternate(steps, options.rounds)
        show(f"B={B}, D={D}, M=2, float32", result["families"][D], "fusion step")
    result["growth"] = {}
    for family in FAMILIES:
        sizes = {
            f"D={D} M={M}": density_step(family, B, D, M, torch.float64)
            for D, M in ((64, 2), (128, 2), (256, 2), (64, 3), (64, 4))
        }
        result["growth"][family] = alternate(sizes, options.rounds)
        show(f"{family}, B={B}, float64: growth", result["growth"][family], "D=64 M=2")
    result["libraries"] = {}
    for family in FAMILIES:
        result["libraries"][family] = alternate(library_steps(family, n), options.rounds)
        show(f"{family}, {n} points, density only", result["libraries"][family], "cm2")
    result["conditions"] = {
        "load": os.getloadavg(),
        "threads": options.threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyvinecopulib": pv.__version__,
    }
    spread = max(r["max"] / r["min"] for r in result["families"][256].values())
    print(
        f"\nload {os.getloadavg()[0]:.1f}, torch {torch.__version__}, {options.threads} thread(s)"
    )
    if os.getloadavg()[0] > (os.cpu_count() or 1) or spread > 1.3:
        print(f"not trustworthy: the machine was busy (max/min up to {spread:.1f})")
    if options.out:
        options.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
