"""Text encoding: length buckets against padding to 512; the whole extraction against its encoder.

    python -m benchmarks.extract_text [--rounds 5] [--threads 1] [--small] [--out result.json]
        [--weights FOLDER] [--notes metadata.csv]

Synthetic radiology reports with the assumed lengths of real sections (43 tokens on average), or the
column `clinical_notes` of a table of real ones. `padded` runs the same network over the same texts
in batches of 8 padded to 512 tokens, as the published pipelines do, `longest` in batches of 32
padded to their longest; `cm2` is `TextEncoder.encode`. The vectors must agree to 1e-5 before any
time counts. `extract` reads, sections, tokenises, encodes and commits reports from a tree of
files with one worker; `bare` is the network alone on the token ids of the same shards. Variants
take turns in one process; peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cm2.cache.store import Space
from cm2.extract import engine
from cm2.extract.config import ExtractConfig
from cm2.extract.encoders.text import TextEncoder
from cm2.extract.encoders.weights import Weights
from cm2.extract.modalities.reading import file_stamp
from cm2.extract.modalities.reports import SHARD_ITEMS, ReportEncoder
from cm2.extract.modalities.sections import SECTIONS
from cm2.extract.sources.demo_reports import write_report
from cm2.extract.work import Plan, Work
from cm2.progress import never, silent

from .timing import in_turns

PAD_TO, PAD_BATCH, LONGEST_BATCH = 512, 8, 32
MEAN_TOKENS = {"impression": 45, "findings": 75, "comparison": 9}


def reports(count: int, seed: int = 0) -> list[str]:
    """Reports whose sections have lengths as assumed of MIMIC-CXR, made of the demo's sentences."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        words = " ".join(write_report(rng.normal(), rng) for _ in range(12)).split()
        words = [word for word in words if not word.isupper()]
        parts = []
        for name, mean in MEAN_TOKENS.items():
            size = int(np.clip(mean * np.exp(rng.normal(scale=0.5) - 0.125), 2, 400) / 1.2)
            start = int(rng.integers(max(1, len(words) - size)))
            parts.append(f"\n {name.upper()}: " + " ".join(words[start : start + size]) + "\n")
        made.append("".join(parts))
    return made


def padded(encoder: TextEncoder, ids: Sequence[Sequence[int]], batch: int, to: int) -> np.ndarray:
    """[CLS] vectors in batches in the given order, padded to `to` tokens or the longest (0)."""
    network, pad = encoder._network, int(encoder._tokenizer.pad_token_id or 0)
    vectors = np.zeros((len(ids), encoder.width), np.float32)
    with torch.inference_mode():
        for start in range(0, len(ids), batch):
            rows = ids[start : start + batch]
            width = to or max(map(len, rows))
            tokens = torch.full((len(rows), width), pad)
            mask = torch.zeros(len(rows), width, dtype=torch.long)
            for place, row in enumerate(rows):
                tokens[place, : len(row)] = torch.tensor(row)
                mask[place, : len(row)] = 1
            out = network(input_ids=tokens, attention_mask=mask)
            vectors[start : start + batch] = out.last_hidden_state[:, 0].numpy()
    return vectors


def plan_of(folder: Path, texts: Sequence[str], encoder: TextEncoder) -> Plan:
    """Write reports as files and return the work of encoding them."""
    work = []
    for place, text in enumerate(texts):
        path = folder / f"s{50000000 + place}.txt"
        path.write_text(text)
        work.append(Work(path.stem, file_stamp(path), path, {}))
    links = pa.table({"stay_id": [0], "items": [[]], "has": [False], "why_no": ["none"]})
    space = Space("report", "vector", {**encoder.parts, "sections": list(SECTIONS)})
    return Plan(space, work, links, {}, {}, ReportEncoder(encoder), SHARD_ITEMS)


def timed(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of every variant, in turns."""
    found: dict[str, dict[str, float]] = {}
    for name, pairs in in_turns(variants, rounds, warm=False).items():
        seconds = [wall for _, wall in pairs]
        found[name] = {
            "median": statistics.median(seconds),
            "min": min(seconds),
            "max": max(seconds),
        }
    return found


def main() -> None:
    """Run, print and check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--reports", type=int, default=512)
    parser.add_argument("--weights", type=Path, help="folder of an encoder; random without")
    parser.add_argument("--notes", type=Path, help="table with the column clinical_notes")
    parser.add_argument("--small", action="store_true", help="seconds, to check that it runs")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.small:
        args.rounds, args.reports = 1, 12
    torch.set_num_threads(args.threads)
    weights = (
        Weights("report", seed=0) if args.weights is None else Weights("report", path=args.weights)
    )
    encoder = TextEncoder("tinybert", weights, "cpu")
    texts = reports(args.reports)
    shard = ReportEncoder(encoder)
    with tempfile.TemporaryDirectory() as name:
        work = plan_of(Path(name), texts, encoder).work
        read = [shard.prepare(item) for item in work]
    groups = [
        encoder.tokenise([p for text in read[start : start + SHARD_ITEMS] for p in text.parts if p])
        for start in range(0, len(read), SHARD_ITEMS)
    ]
    ids = [row for group in groups for row in group]
    if args.notes is not None:
        with args.notes.open(encoding="utf-8") as file:
            notes = [row["clinical_notes"] for row in csv.DictReader(file)]
        ids = encoder.tokenise([text for text in notes if text])
    found = encoder.encode(ids)
    for batch, to in ((PAD_BATCH, PAD_TO), (LONGEST_BATCH, 0)):
        difference = float(np.abs(found - padded(encoder, ids, batch, to)).max())
        assert difference <= 1e-5, f"vectors differ by {difference}"
    buckets = timed(
        {
            "padded": lambda: padded(encoder, ids, PAD_BATCH, PAD_TO),
            "longest": lambda: padded(encoder, ids, LONGEST_BATCH, 0),
            "cm2": lambda: encoder.encode(ids),
        },
        args.rounds,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = plan_of(folder, texts, encoder)
        runs = iter(range(1000))

        def extract() -> None:
            config = ExtractConfig(data=folder, cache=folder / f"cache{next(runs)}", workers=1)
            engine.encode(config, plan, silent, never())

        extract()
        stage = timed(
            {"extract": extract, "bare": lambda: [encoder.encode(group) for group in groups]},
            args.rounds,
        )
    lengths = [len(row) for row in ids]
    result: dict[str, Any] = {
        "texts": len(ids),
        "tokens_mean": round(statistics.mean(lengths), 1),
        "tokens_most": max(lengths),
        "largest_difference": difference,
        "seconds": {**buckets, **stage},
        "padded_over_cm2": buckets["padded"]["median"] / buckets["cm2"]["median"],
        "longest_over_cm2": buckets["longest"]["median"] / buckets["cm2"]["median"],
        "extract_of_bare": stage["bare"]["median"] / stage["extract"]["median"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": args.threads,
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(result, indent=2))
    print(
        f"buckets: {result['padded_over_cm2']:.1f}x over padding to {PAD_TO}; whole extraction at "
        f"{result['extract_of_bare']:.2f} of the bare encoder; {result['peak_mb']:.0f} MB"
    )
    if args.out:
        args.out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
