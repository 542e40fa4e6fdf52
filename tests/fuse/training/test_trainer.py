from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cm2.cache import atomic, checkpoint
from cm2.cache.lease import Lease
from cm2.errors import BusyError, ConfigError, DataError, IntegrityError, Interrupted
from cm2.fuse.config import COPULAS, FuseConfig
from cm2.fuse.inert import unread
from cm2.fuse.rundir import BEST, CONFIG, LAST, TRAINER, RunDir
from cm2.fuse.training.trainer import fuse, plan
from cm2.progress import Stop

CacheMaker = Callable[..., Path]

TINY = {"hidden": 8, "fusion_hidden": 8, "copula_dim": 4, "K": 2, "epochs": 4, "lr": 1e-2}
TIMED = {"run.json"}


def config(**options: object) -> FuseConfig:
    idle = unread(str(options.get("model", "cm2")))
    return FuseConfig.of({k: v for k, v in TINY.items() if k not in idle} | options)


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of every file that carries no times."""
    files = [p for p in sorted(run.rglob("*")) if p.is_file() and p.name not in TIMED]
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def undisturbed(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    fuse(config(), small_cache, out)
    return digests(out)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    # Predictions carry the name of the run's directory, so all runs that are compared share it.
    return tmp_path / "run"


def test_a_run_holds_what_it_promises(undisturbed: dict[str, str]) -> None:
    assert set(undisturbed) == {
        "best.safetensors",
        "config.json",
        "last.safetensors",
        "learned.json",
        "metrics.jsonl",
        "predictions/RESTRICTED.txt",
        "predictions/val.parquet",
        "val_metrics.json",
    }


def test_one_seed_gives_the_same_bytes(
    small_cache: Path, place: Path, undisturbed: dict[str, str]
) -> None:
    fuse(config(), small_cache, place)
    assert digests(place) == undisturbed


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "elbo"},
        {"fusion": "transformer", "series_encoder": "transformer"},
        {"precision": "bf16"},
        {"impute": "conditional", "draws": 2, "scheduler": "cosine"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_way_of_training_repeats_and_resumes_to_the_same_bytes(
    small_cache: Path, place: Path, options: dict[str, object]
) -> None:
    wanted = config(**{"epochs": 2, "modalities": ("ehr", "cxr"), **options})
    fuse(wanted, small_cache, place)
    expected = digests(place)
    shutil.rmtree(place)

    class StopFirst(Stop):
        def check(self, finished: str) -> None:
            if finished.startswith("epoch 1 "):
                raise Interrupted(finished)

    with pytest.raises(Interrupted):
        fuse(wanted, small_cache, place, stop=StopFirst())
    fuse(wanted, small_cache, place)
    assert digests(place) == expected


def test_another_seed_gives_another_run(small_cache: Path, place: Path) -> None:
    first = fuse(config(seed=1, epochs=1), small_cache, place)
    second = fuse(config(seed=2, epochs=1), small_cache, place.with_name("other"))
    assert first.history != second.history


def test_a_resumed_run_keeps_the_best_epoch_before_the_stop(small_cache: Path, place: Path) -> None:
    options = config(lr=0.1, epochs=12, patience=4, modalities=("ehr",))
    best = fuse(options, small_cache, place).info["best_epoch"]
    expected = digests(place)
    shutil.rmtree(place)

    class StopAfterBest(Stop):
        def check(self, finished: str) -> None:
            if finished.startswith(f"epoch {best + 2} "):
                raise Interrupted(finished)

    with pytest.raises(Interrupted):
        fuse(options, small_cache, place, stop=StopAfterBest())
    assert fuse(options, small_cache, place).info["best_epoch"] == best
    assert digests(place) == expected


class Killed(BaseException):
    pass


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_stopped_run_continues_to_the_same_bytes(
    small_cache: Path, place: Path, undisturbed: dict[str, str], epoch: int
) -> None:
    class StopAt(Stop):
        def check(self, finished: str) -> None:
            if finished.startswith(f"epoch {epoch} "):
                raise Interrupted(finished)

    with pytest.raises(Interrupted, match=f"epoch {epoch} "):
        fuse(config(), small_cache, place, stop=StopAt())
    assert not RunDir.open(place).finished
    run = fuse(config(), small_cache, place)
    assert run.finished
    assert digests(place) == undisturbed


def count_steps(small_cache: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    steps: list[str] = []
    monkeypatch.setattr(atomic, "step_hook", steps.append)
    fuse(config(), small_cache, place)
    shutil.rmtree(place)
    return len(steps)


@pytest.mark.fault
def test_a_failure_at_any_write_leaves_a_run_that_ends_the_same(
    small_cache: Path, place: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    total = count_steps(small_cache, place, monkeypatch)
    for fatal in range(3, total, max(total // 11, 1)):
        seen: list[str] = []

        def kill(step: str, seen: list[str] = seen, fatal: int = fatal) -> None:
            seen.append(step)
            if len(seen) == fatal:
                raise Killed

        monkeypatch.setattr(atomic, "step_hook", kill)
        with pytest.raises(Killed):
            fuse(config(), small_cache, place)
        monkeypatch.setattr(atomic, "step_hook", lambda step: None)
        fuse(config(), small_cache, place)
        assert digests(place) == undisturbed, fatal
        shutil.rmtree(place)


FUSE = """
from pathlib import Path
from cm2.fuse.config import FuseConfig
from cm2.fuse.training.trainer import fuse
fuse(FuseConfig.of(eval(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.mark.parametrize(
    "fatal",
    [30, *(pytest.param(n, marks=pytest.mark.fault) for n in (2, 6, 9, 14, 19, 25, 33, 40, 48))],
)
def test_kill_9_leaves_a_run_that_ends_the_same(
    small_cache: Path,
    place: Path,
    undisturbed: dict[str, str],
    killed: Callable[..., bool],
    fatal: int,
) -> None:
    assert killed(fatal, repr(TINY), str(small_cache), str(place), program=FUSE)
    fuse(config(), small_cache, place)
    assert {k: v for k, v in digests(place).items() if not k.endswith(".tmp")} == undisturbed


def test_scrambling_all_test_rows_changes_no_trained_artefact(
    make_cache: Callable[..., Path], tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    spoiled = make_cache(tmp_path / "cache", scramble="test")
    fuse(config(), spoiled, tmp_path / "run")
    after = digests(tmp_path / "run")
    assert after.keys() == undisturbed.keys()
    changed = {name for name, digest in after.items() if digest != undisturbed[name]}
    assert changed == {"config.json"}, "only the fingerprint of the data may differ"


def test_scrambling_validation_rows_is_seen(
    make_cache: Callable[..., Path], tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    spoiled = make_cache(tmp_path / "cache", scramble="val")
    fuse(config(), spoiled, tmp_path / "run")
    after = digests(tmp_path / "run")
    assert after["val_metrics.json"] != undisturbed["val_metrics.json"]
    assert after["last.safetensors"] == undisturbed["last.safetensors"]


def test_a_finished_run_returns_without_torch(small_cache: Path, place: Path) -> None:
    fuse(config(epochs=1), small_cache, place)
    code = (
        "import sys; from pathlib import Path\n"
        "from cm2.fuse.config import FuseConfig\n"
        "from cm2.fuse.training.trainer import fuse\n"
        f"run = fuse(FuseConfig.of({dict(TINY, epochs=1)!r}), Path(sys.argv[1]), "
        "Path(sys.argv[2]))\n"
        "assert run.finished and 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(small_cache), str(place)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_runs_lie_in_the_cache_by_identity(make_cache: Callable[..., Path], tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache", stays=60, modalities=("ehr",))
    first = fuse(config(model="concat", epochs=1), cache)
    assert first.path.parent == cache / "runs"
    assert first.path.name.startswith("concat-ihm-ehr-")
    before = (first.path / BEST).stat().st_mtime_ns
    assert fuse(config(model="concat", epochs=1), cache).path == first.path
    assert (first.path / BEST).stat().st_mtime_ns == before, "nothing is trained twice"
    assert fuse(config(model="concat", epochs=1, lr=2e-2), cache).path != first.path
    moved = cache.rename(tmp_path / "elsewhere")
    again = fuse(config(model="concat", epochs=1), moved)
    assert again.path == moved / "runs" / first.path.name


def test_another_modality_in_the_cache_changes_no_identity(
    make_cache: Callable[..., Path], tmp_path: Path
) -> None:
    options = config(model="concat", modalities=("ehr",), epochs=1)
    few = make_cache(tmp_path / "few", stays=60, modalities=("ehr",))
    more = make_cache(tmp_path / "more", stays=60, modalities=("ehr", "cxr"))
    assert Path(plan(options, few)["run"]).name == Path(plan(options, more)["run"]).name


def test_a_directory_with_another_run_is_refused_with_the_difference(
    small_cache: Path, place: Path
) -> None:
    fuse(config(epochs=1), small_cache, place)
    with pytest.raises(ConfigError, match=r"config\.copula: frank -> gumbel"):
        fuse(config(epochs=1, copula="gumbel"), small_cache, place)


def test_a_directory_with_other_files_is_refused(small_cache: Path, place: Path) -> None:
    place.mkdir()
    (place / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        fuse(config(), small_cache, place)
    assert [p.name for p in place.iterdir()] == ["thesis.tex"]


def test_a_second_process_is_told_who_runs_it(small_cache: Path, place: Path) -> None:
    place.mkdir()
    with Lease(place), pytest.raises(BusyError, match=f"process {os.getpid()}"):
        fuse(config(), small_cache, place)


@pytest.mark.parametrize("name", [CONFIG, TRAINER])
def test_a_flipped_bit_in_an_unfinished_run_is_refused(
    small_cache: Path, place: Path, name: str
) -> None:
    class StopSoon(Stop):
        def check(self, finished: str) -> None:
            raise Interrupted(finished)

    with pytest.raises(Interrupted):
        fuse(config(), small_cache, place, stop=StopSoon())
    data = bytearray((place / name).read_bytes())
    data[len(data) // 2] ^= 1
    (place / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=name):
        fuse(config(), small_cache, place)


def test_a_run_that_is_no_longer_finite_stops_with_advice_and_keeps_the_last_epoch(
    small_cache: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cm2.fuse.training import course

    monkeypatch.setattr(course, "learning_rate", lambda history, _: 1e-2 if not history else 1e38)
    with pytest.raises(ConfigError, match=r"epoch 2, step 2 of 2.*--lr"):
        fuse(config(model="concat"), small_cache, place)
    _, meta = checkpoint.load(place / TRAINER)
    assert [row["epoch"] for row in meta["history"]] == [1]


def test_a_validation_loss_that_is_not_finite_stops_with_advice_and_keeps_the_last_epoch(
    small_cache: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cm2.fuse.training import course

    monkeypatch.setattr(course, "learning_rate", lambda history, _: 1e-2 if not history else 1e25)
    with pytest.raises(ConfigError, match=r"epoch 2: the validation loss.*--lr"):
        fuse(config(model="concat", batch_size=2000), small_cache, place)
    _, meta = checkpoint.load(place / TRAINER)
    assert [row["epoch"] for row in meta["history"]] == [1]


def test_a_modality_that_no_training_stay_has_is_an_error_with_counts(
    make_cache: Callable[..., Path], tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache", 60, ("ehr", "cxr"), have={"cxr": 0.0})
    with pytest.raises(DataError, match=r"has cxr.*'cxr': 0.*--modalities ehr"):
        fuse(config(), cache)


def test_one_class_in_training_is_an_error(make_cache: Callable[..., Path], tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache", 60, ("ehr",), one_class="train")
    with pytest.raises(DataError, match="same target"):
        fuse(config(), cache)


def test_one_class_in_validation_selects_by_loss_and_says_so(
    make_cache: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_cache(tmp_path / "cache", 60, ("ehr",), one_class="val")
    run = fuse(config(model="single"), cache)
    losses = [row["val_loss"] for row in run.history]
    assert run.info["selected_by"] == "val_loss"
    assert run.info["best_epoch"] == 1 + losses.index(min(losses))
    assert any("AUROC is undefined" in text for text in run.info["warnings"])
    assert "AUROC is undefined" in caplog.text


def test_no_validation_stay_is_an_error(make_cache: Callable[..., Path], tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache", 5, ("ehr",))
    with pytest.raises(DataError, match="no val stay"):
        fuse(config(), cache)


def test_few_events_are_called_by_their_name(
    make_cache: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_cache(tmp_path / "cache", 60, ("ehr", "cxr"))
    with caplog.at_level(logging.WARNING, "cm2"):
        run = fuse(config(model="concat", epochs=1), cache)
    assert "prove nothing" in caplog.text
    assert any("prove nothing" in text for text in run.info["warnings"])
    assert any("cxr" in text and "random" in text for text in run.info["warnings"])


def test_the_model_single_needs_one_modality(small_cache: Path) -> None:
    with pytest.raises(ConfigError, match="--modalities ehr"):
        fuse(config(model="single"), small_cache)


def test_too_few_rows_for_a_mixture_are_an_error(
    make_cache: Callable[..., Path], tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache", 60, ("ehr", "cxr"), have={"cxr": 0.1})
    with pytest.raises(ConfigError, match=r"'cxr'.*--K"):
        fuse(config(K=30), cache)


def test_matched_rows_have_every_modality(small_cache: Path, place: Path) -> None:
    run = fuse(config(rows="matched", epochs=1), small_cache, place)
    patterns = set(run.predictions("val")["pattern"].to_pylist())
    assert patterns == {"ehr+cxr+report"}
    partial = plan(config(), small_cache)["rows"]["val"]["n"]
    assert 0 < run.info["rows"]["val"]["n"] < partial


def test_a_run_begun_by_another_version_asks_to_start_anew(small_cache: Path, place: Path) -> None:
    class StopSoon(Stop):
        def check(self, finished: str) -> None:
            raise Interrupted(finished)

    with pytest.raises(Interrupted):
        fuse(config(), small_cache, place, stop=StopSoon())
    run = RunDir.open(place)
    run.update(versions={**run.info["versions"], "cm2": "0.0.1"})
    with pytest.raises(ConfigError, match=r"begun by cm2 0\.0\.1"):
        fuse(config(), small_cache, place)


def test_predictions_are_the_long_form(small_cache: Path, place: Path) -> None:
    fuse(config(epochs=1), small_cache, place)
    table = pq.read_table(place / "predictions" / "val.parquet")
    assert table.column_names == [
        "run", "seed", "fold", "stay_id", "subject_id", "split", "task", "target", "y", "p",
        "pattern",
    ]  # fmt: skip
    assert set(table["split"].to_pylist()) == {"val"}
    assert None in table["y"].to_pylist(), "a stay with unknown target is predicted too"


def test_weights_of_the_last_epoch_differ_from_the_best(small_cache: Path, place: Path) -> None:
    run = fuse(config(epochs=6, lr=3e-2), small_cache, place)
    best, _ = checkpoint.load(place / BEST)
    last, _ = checkpoint.load(place / LAST)
    assert best.keys() == last.keys()
    same = all((best[name] == last[name]).all() for name in best)
    assert same == (run.info["best_epoch"] == run.info["epochs"])


def test_the_numbers_of_this_numerics_version(
    undisturbed: dict[str, str], small_cache: Path
) -> None:
    # When this fails on purpose, raise NUMERICS_VERSION in fuse/identity.py.
    losses = [row["val_loss"] for row in fuse(config(), small_cache).history]
    assert losses == pytest.approx(GOLDEN, rel=1e-3)


@pytest.fixture(scope="module")
def four_modalities(make_cache: CacheMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("ehr", "cxr", "report", "note")
    return make_cache(tmp_path_factory.mktemp("four") / "cache", modalities=names)


@pytest.mark.parametrize("copula", COPULAS)
@pytest.mark.parametrize("M", [2, 3, 4])
def test_every_family_trains_and_is_described_with_two_to_four_modalities(
    four_modalities: Path, place: Path, copula: str, M: int
) -> None:
    names = ("ehr", "cxr", "report", "note")[:M]
    options = config(copula=copula, modalities=names, epochs=2, impute="conditional")
    run = fuse(options, four_modalities, place)
    assert math.isfinite(run.history[-1]["train_copula"])
    assert (run.history[-1]["train_copula"] == 0) == (copula == "independence")
    assert run.learned is not None
    assert run.learned["family"] == copula
    assert set(run.learned["validation_ks"]) == set(names)
    assert len(run.learned["u_histogram"]) == M * (M - 1) // 2


GOLDEN = [0.6991944963, 0.6865104906, 0.6709285107, 0.6525411226]


def test_nothing_of_the_lease_stays_in_a_finished_run(small_cache: Path, place: Path) -> None:
    fuse(config(epochs=1), small_cache, place)
    assert not (place / Lease.NAME).exists()
