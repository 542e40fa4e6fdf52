"""Promises of the whole way: killed, repeated, doubled and damaged work, by the command line."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = ["--task", "ihm", "--hidden", "16", "--epochs", "4"]
FUSE = [*SMALL, "--fusion-hidden", "16"]
FUSE += ["--K", "3", "--copula", "frank", "--impute", "conditional", "--copula-dim", "4"]

# What carries times or paths, and is therefore not compared; a receipt is a shortcut that looks at
# the times of source files, and a temporary file of a killed process is left to `cm2 cache gc`.
TIMED = {"run.json", "log.jsonl", "report.html", "provenance.json", "lease.json"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cm2", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "from cm2.cli import main; main()", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in TIMED
        and path.suffix != ".tmp"
        and "receipts" not in path.parts
    }


def one_run(cache: Path) -> Path:
    (found,) = [path.parent for path in (cache / "runs").rglob("config.json")]
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cm2.extract.sources.demo import write_demo

    out = tmp_path_factory.mktemp("source")
    write_demo(out, stays=90, seed=3)
    return out


@pytest.fixture(scope="module")
def cache(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with all modalities and one finished run, made without disturbance."""
    out = tmp_path_factory.mktemp("whole") / "cache"
    done = run("extract", "--data", str(source), "--cache", str(out), "--modality", "all")
    assert done.returncode == 0, done.stderr
    done = run("fuse", "--cache", str(out), *FUSE)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.fault
def test_a_killed_extraction_repeated_ends_with_the_same_bytes(
    source: Path, cache: Path, tmp_path: Path, killed: Callable[..., bool]
) -> None:
    target = tmp_path / "cache"
    arguments = ["extract", "--data", str(source), "--cache", str(target), "--modality", "all"]
    assert killed(3, *arguments)
    for step in (9, 17, 30, 44):
        if not killed(step, *arguments):
            break  # everything was written before that step
    assert run(*arguments).returncode == 0
    for part in ("cohorts", "events", "stores"):
        assert digests(target / part) == digests(cache / part)


@pytest.mark.fault
def test_a_killed_training_repeated_ends_with_the_same_bytes(
    cache: Path, tmp_path: Path, killed: Callable[..., bool]
) -> None:
    target = tmp_path / "cache"
    shutil.copytree(cache, target, ignore=shutil.ignore_patterns("runs"))
    assert killed(2, "fuse", "--cache", str(target), *FUSE)
    for step in (11, 23, 37, 5, 60):
        if not killed(step, "fuse", "--cache", str(target), *FUSE):
            break
    done = run("fuse", "--cache", str(target), *FUSE)
    assert done.returncode == 0, done.stderr
    undisturbed, resumed = digests(one_run(cache)), digests(one_run(target))
    assert undisturbed == resumed


@pytest.mark.fault
def test_two_extractions_at_once_end_as_if_one_after_the_other(
    source: Path, cache: Path, tmp_path: Path
) -> None:
    target = tmp_path / "cache"
    shared_options = ["--data", str(source), "--cache", str(target)]
    both = [start("extract", *shared_options, "--modality", name) for name in ("ehr", "cxr")]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    assert digests(target / "cohorts").items() <= digests(cache / "cohorts").items()
    for modality in ("ehr", "cxr"):
        part = Path("stores") / modality
        assert digests(target / part) == digests(cache / part)


def test_extracting_another_modality_changes_no_identity(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "cache"
    extract = ["extract", "--data", str(source), "--cache", str(target), "--modality"]
    assert run(*extract, "ehr").returncode == 0
    single = ["fuse", "--cache", str(target), "--model", "single", "--modalities", "ehr", *SMALL]
    assert run(*single).returncode == 0
    before = one_run(target)
    assert run(*extract, "report").returncode == 0
    assert run(*single).returncode == 0
    assert one_run(target) == before


def test_the_same_command_returns_the_finished_run_and_another_option_trains_elsewhere(
    cache: Path, tmp_path: Path
) -> None:
    target = tmp_path / "cache"
    shutil.copytree(cache, target)
    before = digests(target / "runs")
    again = run("fuse", "--cache", str(target), *FUSE)
    assert again.returncode == 0
    assert digests(target / "runs") == before
    other = run("fuse", "--cache", str(target), *FUSE, "--epochs", "1", "--copula", "gaussian")
    assert other.returncode == 0, other.stderr
    assert len(list((target / "runs").rglob("config.json"))) == 2


def test_a_directory_of_another_training_is_refused_with_the_difference(cache: Path) -> None:
    refused = run("fuse", "--cache", str(cache), *FUSE, "--seed", "7", "--out", str(one_run(cache)))
    assert refused.returncode == 2
    assert "seed" in refused.stderr


@pytest.mark.fault
def test_a_second_process_on_a_running_directory_is_told_who_runs_it(
    cache: Path, tmp_path: Path
) -> None:
    target = tmp_path / "cache"
    shutil.copytree(cache, target, ignore=shutil.ignore_patterns("runs"))
    long = [*FUSE, "--epochs", "500", "--patience", "500"]
    first = start("fuse", "--cache", str(target), *long)
    try:
        for _ in range(600):
            if list((target / "runs").rglob("metrics.jsonl")):
                break
            time.sleep(0.1)
        second = run("fuse", "--cache", str(target), *long)
        assert second.returncode == 6
        assert str(first.pid) in second.stderr
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
    assert first.returncode == 130


@pytest.mark.parametrize(
    "pattern",
    [
        "stores/cxr/*/shard-*.h5",
        "stores/ehr/*/shard-*.h5",
        "cohorts/default/stays.parquet",
        "cohorts/default/links/cxr-*.parquet",
        "cohorts/default/cohort.json",
    ],
)
@pytest.mark.fault
def test_a_flipped_bit_in_the_cache_is_refused_with_a_remedy(
    cache: Path, tmp_path: Path, pattern: str
) -> None:
    target = tmp_path / "cache"
    shutil.copytree(cache, target, ignore=shutil.ignore_patterns("runs"))
    _flip(next(iter(sorted(target.glob(pattern)))))
    done = run("fuse", "--cache", str(target), *FUSE)
    assert done.returncode == 5, done.stderr
    assert "cm2 " in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(target.rglob("best.safetensors"))


@pytest.mark.parametrize("name", ["config.json", "best.safetensors"])
@pytest.mark.fault
def test_a_flipped_bit_in_a_run_is_refused_with_a_remedy(
    cache: Path, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "cache"
    shutil.copytree(cache, target)
    damaged = one_run(target)
    _flip(damaged / name)
    done = run("predict", str(damaged), "--cache", str(target), "--out", str(tmp_path / "p.csv"))
    assert done.returncode == 5, done.stderr
    assert name in done.stderr
    assert not (tmp_path / "p.csv").exists()


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_evaluation_counts_the_look_and_the_report_opens_offline(
    cache: Path, tmp_path: Path
) -> None:
    target = tmp_path / "cache"
    shutil.copytree(cache, target)
    trained = one_run(target)
    assert not (trained / "test_metrics.json").exists()
    judged = run("evaluate", str(trained), "--cache", str(target), "--bootstrap", "50")
    assert judged.returncode == 0, judged.stderr
    assert "AUROC" in judged.stdout
    page = tmp_path / "report.html"
    written = run("report", str(trained), "--cache", str(target), "--out", str(page))
    assert written.returncode == 0, written.stderr
    text = page.read_text("utf-8")
    assert "<svg" in text
    assert 'src="http' not in text
    assert 'href="http' not in text


@pytest.mark.fault
def test_a_stopped_extraction_says_so_and_the_same_command_continues(
    source: Path, cache: Path, tmp_path: Path
) -> None:
    target = tmp_path / "cache"
    arguments = ["extract", "--data", str(source), "--cache", str(target), "--modality", "all"]
    process = start(*arguments)
    for _ in range(600):
        if list(target.glob("cohorts/default/links/*.json")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 143), errors.decode()
    assert run(*arguments).returncode == 0
    assert digests(target / "stores") == digests(cache / "stores")


def test_a_whole_cache_and_a_whole_run_pass_inspection(cache: Path) -> None:
    for path in (cache, one_run(cache)):
        done = run("inspect", str(path), "--verify")
        assert done.returncode == 0, done.stderr
