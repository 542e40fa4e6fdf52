"""The commands of the README from the films to a sweep on their trained encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def cm2(*words: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
    program = "from cm2.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == expected, done.stderr
    return done


@pytest.mark.slow
def test_films_are_streamed_stored_and_swept_and_another_split_is_refused(tmp_path: Path) -> None:
    cache, run = tmp_path / "cache", tmp_path / "streamed"
    demo = cm2("demo", "--out", str(tmp_path / "demo"), "--stays", "120", "--data-only")
    source = ("--data", demo.stdout.strip(), "--cache", str(cache))
    cm2("extract", *source, "--modality", "ehr")
    cm2("extract", *source, "--modality", "cxr", "--level", "pixels", "--side", "32")
    stream = ("--mode", "stream", "--model", "concat", "--trunk", "cxr=resnet8")
    small = ("--cache", str(cache), "--hidden", "8")
    cm2("fuse", *small, *stream, "--modalities", "ehr,cxr", "--epochs", "2", "--out", str(run))

    encoded = ("--modality", "cxr", "--weights", str(run), "--json")
    stored = json.loads(cm2("extract", *source, *encoded).stdout)
    (space,) = (one["space"] for one in stored["modalities"])
    assert (cache / "stores" / "cxr" / space).is_dir()

    grid = ("--grid", "lr=1e-3,1e-2", "--model", "concat", "--epochs", "2", "--seeds", "0")
    sweep = tmp_path / "sweep"
    cm2("sweep", *small, *grid, "--modalities", f"ehr,cxr@{space}", "--out", str(sweep))
    judged = cm2("compare", str(sweep)).stdout
    assert "0.001" in judged
    assert "0.01" in judged

    other = ("--cohort", "other", "--split-seed", "7")
    cm2("extract", *source, *other, "--modality", "ehr")
    cm2("extract", *source, *other, *encoded)
    refused = ("--cohort", "other", "--model", "concat", "--modalities", f"ehr,cxr@{space}")
    done = cm2("fuse", *small, *refused, expected=3)
    assert "patients who are in the validation or test split here" in done.stderr
