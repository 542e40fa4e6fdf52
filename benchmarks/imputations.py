"""What each imputation is worth where the joint distribution of the modalities is known.

    python -m benchmarks.imputations [--families frank,independence] [--test 2000] [--small]
        [--out result.json]

3,200 stays of patients with two stays each. Two modalities are drawn from a Gaussian mixture each
and a copula of known Kendall's tau; the log odds of the label are a linear function of the second
one, which 40 % of the stays, chosen at random, lack. Training, validation and test stays are split
by patient: 800, 400 and 2,000. `cm2 fuse` trains one run for each imputation and seed, with the
true family (Frank's for independence) and the same options; nothing is tuned. Every prediction is
judged on the same test stays, and on those of them that lack the second modality: patients are
resampled, seeds averaged inside each resample, intervals are of 95 %. Under independence the
present modality says nothing of the absent one: draws given it must do what marginal draws do.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from cm2 import fuse, write_cache
from cm2.errors import ConfigError
from cm2.fuse.config import FuseConfig
from cm2.fuse.evaluation.contenders import Judged, judged
from cm2.fuse.evaluation.layout import markdown_table, p_value, span
from cm2.fuse.evaluation.metrics import holm, with_interval
from cm2.fuse.evaluation.paired import paired
from cm2.fuse.evaluation.understanding import kendall
from cm2.fuse.group import RunGroup
from cm2.fuse.known_joint import FAMILIES, MEANS, STDS, WEIGHTS, joint_draws
from cm2.fuse.reproduce.train import predict_test

IMPUTATIONS: tuple[str, ...] = get_args(FuseConfig.model_fields["impute"].annotation)
BASELINE, MARGIN = "zero", 0.02
WHOLE, LACKING = "all", "without second"
OPTIONS: dict[str, Any] = {
    "task": "event",
    "hidden": 16,
    "fusion_hidden": 16,
    "copula_dim": 2,
    "K": 2,
    "lr": 1e-2,
    "lr_copula": 1e-1,  # at the default the dependence stays near its start in so few steps
    "batch_size": 200,
    "epochs": 15,
}


def build(
    cache: Path, family: str, sizes: tuple[int, int, int], tau: float, missing: float
) -> None:
    """Write the cache of one family; the task is `event`."""
    random = np.random.default_rng(FAMILIES.index(family))
    n = sum(sizes)
    first, second = np.moveaxis(joint_draws(family, n, 2, tau, random), 1, 0)
    means, variances = MEANS.sum(1), (STDS**2).sum(1)  # of the sum of the coordinates
    deviation = np.sqrt(WEIGHTS @ (variances + means**2) - (WEIGHTS @ means) ** 2)
    signal = (second.sum(1) - WEIGHTS @ means) / deviation
    y = random.random(n) < 1 / (1 + np.exp(1.2 - 2.0 * signal))
    second[random.random(n) < missing] = np.nan
    stays = {
        "stay_id": np.arange(n),
        "subject_id": np.arange(n) // 2,
        "split": np.repeat(["train", "val", "test"], sizes),
        "y_event": y.astype(np.int64),
    }
    write_cache(cache, stays, {"first": first, "second": second})


def train(
    cache: Path, family: str, seeds: Sequence[int], epochs: int
) -> tuple[dict[str, RunGroup], dict[str, str]]:
    """Train every imputation; return its groups, and why there is none of the others."""
    groups, refused = {}, {}
    copula = "frank" if family == "independence" else family
    for how in IMPUTATIONS:
        options = {**OPTIONS, "copula": copula, "impute": how, "epochs": epochs}
        try:
            group = fuse(cache, seeds=seeds, device="cpu", **options)
        except ConfigError as error:
            refused[how] = str(error).replace(f"{cache}/", "")
            continue
        assert isinstance(group, RunGroup)
        for run in group.members:
            predict_test(run, cache)
        groups[how] = group
    return groups, refused


def judge(groups: dict[str, RunGroup], replicates: int) -> dict[str, dict[str, Any]]:
    """AUROC of every imputation on all test stays, and on those without the second modality.

    Returns:
        For each of the two: n, positives, and `auroc` by imputation.
    """
    data = paired(list(groups.values()), "test")
    patterns = groups[BASELINE].predictions("test")[0]["pattern"].to_pylist()
    lacking = np.array([text == "first" for text in patterns])
    result = {}
    for name, rows in ((WHOLE, np.ones_like(lacking)), (LACKING, lacking)):
        y, subjects = data.y[rows], data.subjects[rows]
        result[name] = {
            "n": len(y),
            "positives": int(y.sum()),
            "auroc": {
                how: judged(y, [one[rows] for one in p], subjects, replicates=replicates)["auroc"]
                for how, p in zip(groups, data.p, strict=True)
            },
        }
    return result


def against_baseline(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each imputation and set of stays: value, difference, p and p after Holm."""
    rows = []
    for name, part in found.items():
        zero: Judged = part["auroc"][BASELINE]
        for how, one in part["auroc"].items():
            row = {"stays": name, "imputation": how, "n": part["n"]}
            row |= {"positives": part["positives"], **with_interval(one.value, one.replicates)}
            row["sd"] = one.sd
            if how != BASELINE:
                row["difference"] = one.difference(zero)._asdict()
            rows.append(row)
    tested = [row["difference"] for row in rows if "difference" in row]
    for entry, p in zip(tested, holm([entry["p"] for entry in tested]), strict=True):
        entry["p_holm"] = p
    return rows


def gap(one: Judged, other: Judged) -> str:
    """A difference with its interval."""
    found = one.difference(other)
    return span(found.value, found.low, found.high, "+")


def show(family: str, found: dict[str, dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Print values and differences from zeros, then the differences of all pairs."""
    cells = []
    for row in rows:
        value = span(row["value"], row["low"], row["high"])
        value += "" if row["sd"] is None else f" ± {row['sd']:.3f}"
        told = row.get("difference")
        cells.append(
            [
                *(row[key] for key in ("stays", "imputation", "n", "positives")),
                value,
                "" if told is None else span(told["value"], told["low"], told["high"], "+"),
                "" if told is None else p_value(told["p_holm"]),
            ]
        )
    header = ["test stays", "imputation", "n", "positives", "AUROC", f"minus {BASELINE}", "p Holm"]
    print(markdown_table(header, cells))
    comparisons = sum("difference" in row for row in rows)
    print(f"\np: paired bootstrap, after Holm over {comparisons} comparisons.")
    for name, part in found.items():
        auroc = part["auroc"]
        print(
            f"\nRow minus column, AUROC, {name} (n {part['n']}, positives {part['positives']}):\n"
        )
        names = list(auroc)
        print(
            markdown_table(
                ["", *names[:-1]],
                [
                    [
                        a,
                        *(
                            gap(auroc[a], auroc[b]) if j < i else ""
                            for j, b in enumerate(names[:-1])
                        ),
                    ]
                    for i, a in enumerate(names)
                    if i
                ],
            )
        )


def agreement(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Under independence: whether conditional and marginal draws agree within `MARGIN`."""
    result = {}
    for name, part in found.items():
        apart = part["auroc"]["conditional"].difference(part["auroc"]["marginal"])
        inside = apart.low is not None and apart.low > -MARGIN and apart.high < MARGIN
        print(
            f"conditional minus marginal, {name}: {span(apart.value, apart.low, apart.high, '+')}; "
            f"the interval {'lies' if inside else 'does not lie'} within ±{MARGIN}"
        )
        result[name] = {**apart._asdict(), "margin": MARGIN, "holds": inside}
    return result


def main() -> None:
    """Draw, train, judge and print one family after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--tau", type=float, default=0.5, help="Kendall's tau of the modalities")
    parser.add_argument("--missing", type=float, default=0.4, help="share without the second")
    parser.add_argument("--test", type=int, default=2000, help="test stays")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="seconds: shows that it runs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("cm2").setLevel(logging.ERROR)  # warnings are counted below
    sizes, epochs, replicates = (800, 400, options.test), OPTIONS["epochs"], 2000
    if options.small:
        sizes, epochs, replicates = (120, 60, 120), 2, 50
    seeds = tuple(range(2 if options.small else options.seeds))
    families = ["independence"] if options.small else options.families.split(",")
    result: dict[str, Any] = {}
    for family in families:
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder) / "cache"
            build(cache, family, sizes, options.tau, options.missing)
            groups, refused = train(cache, family, seeds, epochs)
            found = judge(groups, replicates)
            rows = against_baseline(found)
            tau = 0.0 if family == "independence" else options.tau
            print(f"\n### {family}, Kendall's tau {tau:g}, {len(seeds)} seeds\n")
            show(family, found, rows)
            runs = [run for group in groups.values() for run in group.members]
            learned = [tau for run in runs for tau in kendall(run.learned or {}).values()]
            print(
                f"\nlearned Kendall's tau of {len(runs)} runs: mean {np.mean(learned):.2f}, "
                f"{min(learned):.2f} to {max(learned):.2f}; epochs: "
                f"{min(run.info['epochs'] for run in runs)} to "
                f"{max(run.info['epochs'] for run in runs)}"
            )
            result[family] = {"rows": rows, "refused": refused, "learned_tau": learned}
            if family == "independence":
                result[family]["agreement"] = agreement(found)
            warned = Counter(text for run in runs for text in run.info["warnings"])
            for text, count in warned.items():
                print(f"warned in {count} of {len(runs)} runs: {text}")
            for how, why in refused.items():
                print(f"{how} is left out: {why}")
    if options.out:
        options.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
