"""Runs per hour of `cm2 sweep` against the obvious ways, and halving against the whole grid.

A  one `cm2 fuse` process after another, with the defaults of its libraries (a part of the grid,
   spread evenly over it; every run costs about the same)
B  the obvious script: Optuna's grid sampler around a plain PyTorch loop over the same tensors, one
   process (concatenation of encoders only: it computes less than the sweep's model does; the same
   part of the grid)
C  `cm2 sweep` with one process per core
S  `cm2 sweep --jobs 1`: what the processes add
P  `cm2 sweep --precision bf16`
D  `cm2 sweep --halving`: settings per hour, and whether its best setting is that of C
E  `cm2 sweep --engine ensemble`: runs of one shape at once, in each of the processes
F  the same with `--halving`

All take turns. On a machine that others use too, only ratios of one round mean something. What
processes can gain at all is measured too: bare training loops, one in each core, against one alone.

    python -m benchmarks.sweep_processes --cache C --task ihm --rounds 1
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

LR, DROPOUT = ("1e-4", "3e-4", "1e-3", "3e-3"), ("0.1", "0.3", "0.5")
FAMILIES, WEIGHTS = ("frank", "gumbel"), ("1e-3", "1e-1", "1e-2", "3e-2", "3e-3", "3e-1")
PROGRAM = "from cm2.cli import main; main()"

LOOP = """
import sys, optuna, torch
from sklearn.metrics import roc_auc_score
import cm2
cache, task, hidden, epochs, batch, rates, dropouts, trials = sys.argv[1:9]
optuna.logging.set_verbosity(optuna.logging.ERROR)
data = {s: cm2.open_cache(cache).dataset(task, s) for s in ("train", "val")}
names = list(data["train"]["x"])
def tensors(part):
    known = ~torch.as_tensor(part["y"]).reshape(len(part["y"]), -1)[:, 0].isnan()
    x = {n: torch.as_tensor(part["x"][n])[known].float().nan_to_num() for n in names}
    return x, torch.as_tensor(part["available"])[known], \
        torch.as_tensor(part["y"]).reshape(len(known), -1)[known, 0].float()
train, val = tensors(data["train"]), tensors(data["val"])
H = int(hidden)
class Net(torch.nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.encode = torch.nn.ModuleDict(
            {n: torch.nn.LSTM(x.shape[-1], H, 2, batch_first=True) if x.ndim == 3
             else torch.nn.Linear(x.shape[-1], H) for n, x in train[0].items()})
        self.drop = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(H * len(names), 1)
    def forward(self, x, has):
        z = [self.encode[n](x[n]) for n in names]
        z = [v[0][:, -1] if isinstance(v, tuple) else v for v in z]
        z = [v * has[:, i:i+1] for i, v in enumerate(z)]
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
optuna.create_study(sampler=sampler, direction="maximize").optimize(objective, int(trials))
"""


BARE = """
import sys, time, torch
torch.set_num_threads(1)
x, lstm = torch.randn(256, 8, 64), torch.nn.LSTM(64, 32, 2, batch_first=True)
optimizer = torch.optim.Adam(lstm.parameters(), fused=True)
def step():
    optimizer.zero_grad()
    lstm(x)[0].sum().backward()
    optimizer.step()
for _ in range(20):
    step()
print("ready", flush=True)
sys.stdin.readline()
steps, end = 0, time.perf_counter() + 5
while time.perf_counter() < end:
    step()
    steps += 1
print(steps)
"""


def bare(number: int) -> int:
    """Steps that so many bare training loops take in five seconds, side by side."""
    command = [sys.executable, "-c", BARE]
    pipe = subprocess.PIPE
    loops = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(number)]
    for loop in loops:
        assert loop.stdout is not None
        loop.stdout.readline()  # it is ready
    for loop in loops:
        assert loop.stdin is not None
        loop.stdin.write("go\n")
        loop.stdin.flush()
    return sum(int(loop.communicate()[0]) for loop in loops)


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
    parser.add_argument("--fusion-hidden", help="by default as wide as --hidden")
    parser.add_argument("--epochs", default="12")
    parser.add_argument("--batch-size", default="64")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--alone", type=int, default=6, help="runs of the ways A and B")
    parser.add_argument("--arms", default="ABCSPDEF")
    parser.add_argument("--rates", type=int, default=len(LR), help="learning rates in the grid")
    parser.add_argument("--weights", type=int, default=2, help="values of lambda in the grid")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    base = ["--task", options.task, "--hidden", options.hidden, "--fusion-hidden"]
    base += [options.fusion_hidden or options.hidden]
    base += ["--epochs", options.epochs, "--batch-size", options.batch_size, "--device", "cpu"]
    base += ["--patience", options.epochs, "--warmup", "1"]
    axes = {"lr": LR[: options.rates], "dropout": DROPOUT}
    axes |= {"copula": FAMILIES, "lambda_cop": WEIGHTS[: options.weights]}
    grid = [word for name, v in axes.items() for word in ("--grid", f"{name}={','.join(v)}")]
    settings = list(itertools.product(*axes.values()))
    alone = settings[:: -(-len(settings) // options.alone)]
    one_by_one = [
        ["fuse", *base, "--lr", lr, "--dropout", d, "--copula", family, "--lambda-cop", weight]
        for lr, d, family, weight in alone
    ]
    loop = [str(options.cache), options.task, options.hidden, options.epochs, options.batch_size]
    loop += [",".join(sorted({s[i] for s in alone})) for i in (0, 1)]
    loop += [str(len(alone))]
    more = {"C": [], "S": ["--jobs", "1"], "P": ["--precision", "bf16"], "D": ["--halving"]}
    more |= {"E": ["--engine", "ensemble"], "F": ["--engine", "ensemble", "--halving"]}
    seconds: dict[str, list[float]] = {name: [] for name in options.arms}
    best: dict[str, object] = {}
    for _ in range(options.rounds):
        for name in options.arms:
            if name == "A":
                took = timed(options.cache, one_by_one)[0] / len(alone)
            elif name == "B":
                start = time.perf_counter()
                subprocess.run([sys.executable, "-c", LOOP, *loop], check=True)
                took = (time.perf_counter() - start) / len(alone)
            else:
                words = ["sweep", *base, *grid, *more[name], "--json"]
                whole, (printed,) = timed(options.cache, [words])
                took = whole / len(settings)
                best[name] = json.loads(printed)["best"][0]["setting"]
            seconds[name].append(took)
            print(f"{name}: {took:.2f} s for a setting", file=sys.stderr)
    ways = [("C", "A"), ("C", "B"), ("C", "S"), ("P", "C"), ("D", "A"), ("D", "C")]
    ways += [("E", "A"), ("E", "C"), ("F", "A"), ("F", "C")]
    rows = {n: round(3600 / statistics.median(v), 1) for n, v in seconds.items()}
    ratio = {
        f"{one} / {other}": [
            round(b / a, 2) for a, b in zip(seconds[one], seconds[other], strict=True)
        ]
        for one, other in ways
        if one in seconds and other in seconds
    }
    cores = os.cpu_count() or 1
    limits = [bare(cores) / bare(1) for _ in range(3)]
    result = {
        "settings": len(settings),
        "bare loops in all cores against one": [round(value, 2) for value in limits],
        "settings per hour, median": rows,
        "ratios of settings per hour, by round": ratio,
        "best setting": best,
        "load": os.getloadavg(),
        "cores": cores,
    }
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
