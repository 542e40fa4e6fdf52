"""Runs per hour of `cm2 sweep` against the two obvious ways, and halving against the whole grid.

A  one `cm2 fuse` process after another, with the defaults of its libraries
B  the obvious script: Optuna's grid sampler around a plain PyTorch loop over the same tensors, one
   process (concatenation of encoders only: it computes less than the sweep's model does)
C  `cm2 sweep` with one process per core
D  `cm2 sweep --halving`: settings per hour, and whether its best setting is that of C

A and C alternate and train the same configurations to the same bytes. On a machine that others
use too, only ratios of one round mean something.

    python -m benchmarks.sweep_processes --cache C --task ihm --rounds 2
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LR, DROPOUT = ("1e-4", "1e-3", "3e-3"), ("0.1", "0.4")
PROGRAM = "from cm2.cli import main; main()"

LOOP = """
import sys, optuna, torch
from sklearn.metrics import roc_auc_score
import cm2
cache, task, hidden, epochs, batch, rates, dropouts = sys.argv[1:8]
optuna.logging.set_verbosity(optuna.logging.ERROR)
data = {s: cm2.open_cache(cache).dataset(task, s) for s in ("train", "val")}
names = list(data["train"]["x"])
def tensors(part):
    known = ~torch.as_tensor(part["y"]).reshape(len(part["y"]), -1)[:, 0].isnan()
    x = {n: torch.as_tensor(part["x"][n])[known].float() for n in names}
    return x, torch.as_tensor(part["available"])[known], \
        torch.as_tensor(part["y"]).reshape(len(known), -1)[known, 0].float()
train, val = tensors(data["train"]), tensors(data["val"])
H = int(hidden)
class Net(torch.nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.encode = torch.nn.ModuleDict(
            {n: torch.nn.LSTM(train[0][n].shape[-1], H, 2, batch_first=True) for n in names})
        self.drop = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(H * len(names), 1)
    def forward(self, x, has):
        z = [self.encode[n](x[n])[0][:, -1] * has[:, i:i+1] for i, n in enumerate(names)]
        return self.head(self.drop(torch.cat(z, 1)))[:, 0]
def objective(trial):
    torch.manual_seed(0)
    net = Net(trial.suggest_categorical("dropout", [float(v) for v in dropouts.split(",")]))
    rate = trial.suggest_categorical("lr", [float(v) for v in rates.split(",")])
    optimizer = torch.optim.Adam(net.parameters(), rate)
    best = 0.0
    for _ in range(int(epochs)):
        net.train()
        for rows in torch.randperm(len(train[2])).split(int(batch)):
            optimizer.zero_grad()
            logits = net({n: train[0][n][rows] for n in names}, train[1][rows])
            torch.nn.functional.binary_cross_entropy_with_logits(logits, train[2][rows]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            best = max(best, roc_auc_score(val[2], net(val[0], val[1])))
    return best
space = {"lr": rates, "dropout": dropouts}
sampler = optuna.samplers.GridSampler({n: [*map(float, v.split(","))] for n, v in space.items()})
optuna.create_study(sampler=sampler, direction="maximize").optimize(objective)
"""


def cm2(cache: Path, *words: str) -> str:
    """Run a command of cm2 and return what it prints."""
    command = [sys.executable, "-c", PROGRAM, "-q", *words, "--cache", str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def timed(cache: Path, work: list[list[str]]) -> tuple[float, list[str]]:
    """Seconds for some commands one after another on a fresh copy of the cache, and their words."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "cache"
        shutil.copytree(cache, copy, ignore=shutil.ignore_patterns("runs", "sweeps"))
        start = time.perf_counter()
        printed = [cm2(copy, *words) for words in work]
        return time.perf_counter() - start, printed


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--task", default="ihm")
    parser.add_argument("--hidden", default="64")
    parser.add_argument("--epochs", default="12")
    parser.add_argument("--batch-size", default="64")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    base = ["--task", options.task, "--hidden", options.hidden, "--fusion-hidden", options.hidden]
    base += ["--epochs", options.epochs, "--batch-size", options.batch_size, "--device", "cpu"]
    base += ["--patience", options.epochs]
    grid = ["--grid", f"lr={','.join(LR)}", "--grid", f"dropout={','.join(DROPOUT)}", "--json"]
    settings = list(itertools.product(LR, DROPOUT))
    loop = [str(options.cache), options.task, options.hidden, options.epochs, options.batch_size]
    loop += [",".join(LR), ",".join(DROPOUT)]
    seconds: dict[str, list[float]] = {name: [] for name in "ABCD"}
    best: dict[str, int] = {}
    for _ in range(options.rounds):
        one_by_one = [["fuse", *base, "--lr", lr, "--dropout", d] for lr, d in settings]
        seconds["A"].append(timed(options.cache, one_by_one)[0])
        for name, more in (("C", []), ("D", ["--halving"])):
            took, (printed,) = timed(options.cache, [["sweep", *base, *grid, *more]])
            seconds[name].append(took)
            best[name] = json.loads(printed)["best"][0]["setting"]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", LOOP, *loop], check=True)
        seconds["B"].append(time.perf_counter() - start)
    rows = {n: round(3600 * len(settings) / statistics.median(v), 1) for n, v in seconds.items()}
    ratio = {
        f"C / {other}": [round(b / c, 2) for b, c in zip(seconds[other], seconds["C"], strict=True)]
        for other in "AB"
    }
    ratio["D / A"] = [round(a / d, 2) for a, d in zip(seconds["A"], seconds["D"], strict=True)]
    result = {
        "settings": len(settings),
        "settings per hour, median": rows,
        "ratios by round": ratio,
        "halving finds the best of the whole grid": best["C"] == best["D"],
        "load": os.getloadavg(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
