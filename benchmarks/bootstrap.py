"""Bootstrap of AUROC and AUPR: this project against a loop over scikit-learn, same resamples.

    python -m benchmarks.bootstrap --rounds 5 [--small] [--out result.json]

Baseline: for each replicate, roc_auc_score and average_precision_score of scikit-learn with the
replicate's counts as weights on n stays (and, to be fair to it, a second baseline that indexes the
drawn rows without weights). A and B alternate; outputs are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits

from cm2.fuse.evaluation.bootstrap import bootstrap, resamples

Values = np.ndarray


def data(n: int, patients: int) -> tuple[Values, Values, Values]:
    """Labels (15 % positive), probabilities with ties, and the patient of each stay."""
    generator = np.random.default_rng(0)
    y = (generator.random(n) < 0.15).astype(int)
    p = np.round(1 / (1 + np.exp(1.5 - generator.normal(size=n) - y)), 4)
    return y, p, np.unique(generator.integers(0, patients, n), return_inverse=True)[1]


def ours(y: Values, p: Values, groups: Values, replicates: int) -> Values:
    """AUROC, AUPR (and Brier and ECE, which the baseline leaves out) of every replicate."""
    values = bootstrap(y, [p], groups, replicates=replicates)[0].values
    return np.stack([values["auroc"], values["aupr"]])


def weighted_loop(y: Values, p: Values, groups: Values, replicates: int) -> Values:
    """scikit-learn with counts as weights: the same resamples."""
    rows = []
    for block in resamples(int(groups.max()) + 1, replicates, 0):
        for counts in block:
            weight = counts[groups]
            rows.append(
                (
                    roc_auc_score(y, p, sample_weight=weight),
                    average_precision_score(y, p, sample_weight=weight),
                )
            )
    return np.array(rows).T


def indexed_loop(y: Values, p: Values, groups: Values, replicates: int) -> Values:
    """scikit-learn on drawn rows, the usual loop; the order of rows differs, values do not."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(groups.max() + 2))
    members = [order[a:b] for a, b in itertools.pairwise(starts)]
    rows = []
    for block in resamples(int(groups.max()) + 1, replicates, 0):
        for counts in block:
            drawn = np.repeat(np.arange(len(counts)), counts)
            index = np.concatenate([members[unit] for unit in drawn])
            rows.append(
                (roc_auc_score(y[index], p[index]), average_precision_score(y[index], p[index]))
            )
    return np.array(rows).T


def timed(work: Callable[[], Values]) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Check that the outputs agree, time in alternation, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="threads of the BLAS")
    parser.add_argument("--small", action="store_true", help="seconds: checks agreement only")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    threadpool_limits(options.threads)
    n, replicates = (300, 50) if options.small else (5000, 1000)
    y, p, groups = data(n, int(n * 0.8))
    methods = {"cm2": ours, "sklearn weights": weighted_loop, "sklearn rows": indexed_loop}
    check = {name: call(y, p, groups, 50) for name, call in methods.items()}
    apart = max(float(np.abs(check["cm2"] - other).max()) for other in check.values())
    print(f"largest difference over 50 replicates: {apart:.1e}")
    if apart > 1e-12:
        raise SystemExit("cm2 and scikit-learn disagree by more than 1e-12")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for _ in range(options.rounds):
        for name, call in methods.items():
            times[name].append(timed(lambda call=call: call(y, p, groups, replicates)))
    result = {
        "n": n,
        "patients": int(groups.max()) + 1,
        "replicates": replicates,
        "difference": apart,
        "load": os.getloadavg(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "sklearn": sklearn.__version__,
        },
    }
    for name, pairs in times.items():
        wall, cpu = zip(*pairs, strict=True)
        spread = (max(wall) - min(wall)) / statistics.median(wall)
        result[name] = {"wall": wall, "cpu": cpu}
        print(
            f"{name:16s} wall median {statistics.median(wall):.4f} s "
            f"(min {min(wall):.4f}, max {max(wall):.4f}), cpu {statistics.median(cpu):.4f} s"
            + ("  spread > 30 %" if spread > 0.3 else "")
        )
    for name in list(methods)[1:]:
        ratios = sorted(b[0] / a[0] for a, b in zip(times["cm2"], times[name], strict=True))
        print(
            f"cm2 is {statistics.median(ratios):.0f}x faster than {name} "
            f"({ratios[0]:.0f} to {ratios[-1]:.0f} over {options.rounds} paired rounds)"
        )
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        print(f"load {os.getloadavg()[0]:.1f} is above the number of cores: timings are disturbed")
    if options.out:
        options.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
