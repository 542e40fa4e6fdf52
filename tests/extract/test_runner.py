"""Stage one as a whole: no-op, resume, rejects, limits, changed sources, several processes."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cm2.cache import atomic
from cm2.cache.cohort import Cohort, view
from cm2.cache.store import Store
from cm2.errors import ConfigError, DataError, Interrupted, RejectsError
from cm2.extract import runner
from cm2.extract.config import ExtractConfig
from cm2.extract.mimic import MimicRoute
from cm2.extract.modalities import cxr, reports
from cm2.extract.runner import extract
from cm2.extract.sources.demo import DemoTruth, write_demo
from cm2.extract.work import Work
from cm2.progress import Stop

STAYS, SEED = 60, 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    write_demo(out, STAYS, SEED)
    return out


@pytest.fixture(scope="module")
def truth(data: Path) -> DemoTruth:
    return write_demo(data, STAYS, SEED)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with everything, made without any disturbance."""
    cache = tmp_path_factory.mktemp("cache")
    extract(ExtractConfig(data=data, cache=cache, modality=("all",)))
    return cache


@pytest.fixture
def own(data: Path, tmp_path: Path) -> Path:
    """A copy of the source tree that a test may damage; times are kept."""
    return Path(shutil.copytree(data, tmp_path / "data"))


def config(data: Path, cache: Path, *modality: str, **more: object) -> ExtractConfig:
    return ExtractConfig.model_validate(
        {"data": data, "cache": cache, "modality": modality or ("all",), **more}
    )


def digests(cache: Path) -> dict[str, str]:
    """Hash of every file but the receipts, which name the times of the source."""
    return {
        str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(cache.rglob("*"))
        if path.is_file() and path.parent.name != "receipts"
    }


def test_the_cohort_is_what_the_demo_says(whole: Path, truth: DemoTruth) -> None:
    cohort = Cohort.open(whole)
    kept = [row["stays"] for row in cohort.info["attrition"]]
    expected = list(truth.attrition.values())
    assert [kept[0], kept[1], kept[2], kept[-1]] == [*expected[:3], expected[-1]]
    stays = cohort.stays.to_pydict()
    assert sum(stays["in_ihm"]) == truth.task_stays == STAYS
    died = sum(bool(y) for y, task in zip(stays["y_ihm"], stays["in_ihm"], strict=True) if task)
    assert died == truth.task_deaths
    assert cohort.info["synthetic"] is True


def test_every_modality_reads_back_aligned_with_the_stays(whole: Path) -> None:
    cohort = Cohort.open(whole)
    assert cohort.modalities == ("cxr", "ehr", "report", "static")
    n = cohort.stays.num_rows
    films, texts, series = (view(whole, cohort, name) for name in ("cxr", "report", "ehr"))
    assert films.values.shape == (n, 1, 512)
    assert texts.values.shape == (n, 4, 312)
    assert series.values.shape == (n, 24, 59)
    assert 0 < texts.has.sum() < films.has.sum() < n
    assert not (texts.has & ~films.has).any()
    assert set(cohort.links("cxr").table["why_no"].to_pylist()) >= {None, "no_film"}
    assert "no_report" in cohort.links("report").table["why_no"].to_pylist()


def test_a_second_call_does_nothing_and_says_the_same(
    data: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    monkeypatch.setattr(MimicRoute, "plan", lambda *_: pytest.fail("looked at the source again"))
    summary = extract(config(data, whole))
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    assert [m.encoded for m in summary.modalities] == [0, 0, 0, 0]
    assert all(m.complete and m.items > 0 and m.tasks["ihm"] > 0 for m in summary.modalities)
    assert "in one care unit" in summary.as_text()
    assert summary.as_dict()["modalities"][1]["weights"] == "random:0"


def test_random_weights_are_said_loudly(
    data: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "cm2"):
        extract(config(data, whole, "cxr"))
    assert any("random weights (random:0)" in message for message in caplog.messages)


@pytest.mark.parametrize("modality", ["cxr", "report"])
def test_weights_are_demanded_as_soon_as_the_data_are_not_synthetic(
    modality: str, own: Path, tmp_path: Path
) -> None:
    (own / "SYNTHETIC.json").unlink()
    with pytest.raises(ConfigError, match=f"--weights {modality}=PATH"):
        extract(config(own, tmp_path / "cache", modality))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("named", ["cxr=absent.safetensors", "cxr=hub:a/b@main", "cxr=random:x"])
def test_weights_that_cannot_be_meant_are_refused_before_a_table_is_read(
    named: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        extract(config(data, tmp_path / "cache", "ehr,cxr", weights=(named,)))
    assert not (tmp_path / "cache").exists()
    (planned,) = runner.plan(config(data, tmp_path / "cache", "cxr", weights=(named,)))
    assert planned["missing"] == str(refused.value)


# --- interrupted work ---------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: no handler of the product may catch it."""


def test_a_kill_at_any_durable_step_costs_nothing(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports in shards of 1, killed again and again, each time in another phase."""
    monkeypatch.setattr(reports, "SHARD_ITEMS", 1)
    undisturbed = tmp_path / "undisturbed"
    extract(config(data, undisturbed, "report"))
    expected = digests(undisturbed)
    cache = tmp_path / "cache"
    steps = kills = 0

    def step(name: str) -> None:
        nonlocal steps
        steps += 1
        if steps == 9 + kills % 8:  # a shard takes eight steps; every phase has its turn
            raise Killed(name)

    monkeypatch.setattr(atomic, "step_hook", step)
    while True:
        steps = 0
        try:
            extract(config(data, cache, "report"))
            break
        except Killed:
            kills += 1
            assert kills < 100
    assert kills > 8
    leftovers = [path for path in cache.rglob("*") if atomic.TEMPORARY.fullmatch(path.name)]
    assert not leftovers
    assert digests(cache) == expected


def test_a_stop_ends_between_shards_and_the_next_call_continues(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "SHARD_ITEMS", 4)
    extract(config(data, tmp_path / "a", "report"))
    encoded: list[int] = []
    real = reports.ReportEncoder.__call__

    def counted(self: reports.ReportEncoder, work: list[Work]) -> object:
        encoded.append(len(work))
        return real(self, work)

    monkeypatch.setattr(reports.ReportEncoder, "__call__", counted)

    class Once(Stop):
        def check(self, finished: str) -> None:
            if len(encoded) == 2:
                raise Interrupted(finished)

    with pytest.raises(Interrupted, match="8 of"):
        extract(config(data, tmp_path / "b", "report"), stop=Once())
    first = sum(encoded)
    summary = extract(config(data, tmp_path / "b", "report"))
    assert sum(encoded) == summary.modalities[0].items
    assert summary.modalities[0].encoded == summary.modalities[0].items - first
    assert digests(tmp_path / "b") == digests(tmp_path / "a")


def test_a_limit_leaves_a_partial_store_that_a_full_call_completes(
    data: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    summary = extract(config(data, cache, "report", limit=3))
    some = summary.modalities[0]
    assert (some.encoded, some.complete, some.stays) == (3, False, 3)
    assert summary.next_command().startswith("cm2 extract … --modality report")
    assert Store.open(cache, "report").manifest["state"] == "partial"
    summary = extract(config(data, cache, "report"))
    assert summary.next_command().startswith("cm2 fuse")
    rest = summary.modalities[0]
    assert rest.complete
    assert rest.encoded == rest.items - 3 > 0
    assert rest.stays == rest.items


# --- damaged and changed things ------------------------------------------------------------------


def linked_files(cache: Path, data: Path, modality: str) -> list[Path]:
    items = Store.open(cache, modality).items["item_id"].to_pylist()
    ending = ".jpg" if modality == "cxr" else ".txt"
    return [next((data / "files").rglob(item + ending)) for item in items]


def test_bad_files_are_rejected_the_rest_is_stored_and_the_share_decides(
    own: Path, whole: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    gone, empty, broken = linked_files(whole, own, "cxr")[:3]
    gone.unlink()
    empty.write_bytes(b"")
    broken.write_bytes(b"no picture")
    with pytest.raises(RejectsError, match=r"cxr: 3 of \d+ items .*rejects-"):
        extract(config(own, cache, "cxr"))
    store = Store.open(cache, "cxr")
    assert store.manifest["state"] == "complete"
    errors = dict(
        zip(store.rejects["item_id"].to_pylist(), store.rejects["error"].to_pylist(), strict=True)
    )
    assert errors == {
        gone.stem: "MissingFile",
        empty.stem: "EmptyFile",
        broken.stem: "NotAnImage",
    }
    with pytest.raises(RejectsError):  # nothing has changed: the answer does not either
        extract(config(own, cache, "cxr"))
    summary = extract(config(own, cache, "cxr", max_reject=0.9)).modalities[0]
    assert (summary.rejected, summary.encoded) == (3, 0)
    assert summary.absent["rejected"] == 3
    has = view(cache, Cohort.open(cache), "cxr").has
    assert has.sum() == summary.stays == summary.items - 3


def test_mended_files_are_encoded_alone(own: Path, whole: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    bad = linked_files(whole, own, "report")[0]
    good = bad.read_bytes()
    bad.unlink()
    summary = extract(config(own, cache, "report", max_reject=1.0)).modalities[0]
    assert summary.absent.get("no_report", 0) >= 1  # a report has no list that promises it
    bad.write_bytes(good)
    mended = extract(config(own, cache, "report")).modalities[0]
    assert (mended.encoded, mended.stays) == (1, summary.stays + 1)
    mine, theirs = (view(place, Cohort.open(place), "report").values for place in (cache, whole))
    assert (abs(mine - theirs) < 1e-5).all()


def test_a_file_that_has_changed_is_encoded_again_alone(
    own: Path, whole: Path, tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(whole, tmp_path / "cache"))
    text = linked_files(cache, own, "report")[0]
    text.write_text("\n IMPRESSION: Something else entirely.\n")
    summary = extract(config(own, cache, "report")).modalities[0]
    assert (summary.encoded, summary.complete) == (1, True)
    before, after = (Store.open(place, "report") for place in (whole, cache))
    items = before.items["item_id"].to_pylist()
    old, new = (store.read(items)["values"] for store in (before, after))
    changed = [item for item, a, b in zip(items, old, new, strict=True) if (a != b).any()]
    assert changed == [text.stem]


def test_a_report_without_sections_is_an_absence_and_no_reject(
    own: Path, whole: Path, tmp_path: Path
) -> None:
    bare = linked_files(whole, own, "report")[0]
    bare.write_text("\n INDICATION: Cough.\n")
    summary = extract(config(own, tmp_path / "cache", "report")).modalities[0]
    assert summary.rejected == 0
    assert summary.absent["no_section"] == 1


def test_a_tree_without_any_of_its_films_ends_in_an_error_and_one_without_reports_too(
    own: Path, tmp_path: Path
) -> None:
    for path in (own / "files").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(DataError, match=r"Not one of \d+ listed films is there.*mounted"):
        extract(config(own, tmp_path / "cache", "cxr"))
    assert not (tmp_path / "cache/stores").exists()
    for path in (own / "files").rglob("*.txt"):
        path.unlink()
    with pytest.raises(DataError, match="expected reports of MIMIC-CXR"):
        extract(config(own, tmp_path / "cache", "report"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    times = path.stat()
    path.write_bytes(bytes(content))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    "pattern", ["stores/report/*/shard-*.h5", "cohorts/default/links/report*.parquet"]
)
def test_the_same_call_mends_a_flipped_bit(
    pattern: str, data: Path, whole: Path, tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(whole, tmp_path / "cache"))
    damaged = sorted(cache.glob(pattern))[0]
    flip(damaged)
    assert digests(cache) != digests(whole)
    extract(config(data, cache, "report"))
    assert digests(cache) == digests(whole)


@pytest.mark.parametrize("what", ["film", "table", "code"])
def test_a_changed_source_is_looked_at_again(
    what: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    extract(config(own, cache, "report"))
    looks: list[str] = []
    real = MimicRoute.plan
    monkeypatch.setattr(MimicRoute, "plan", lambda *given: looks.append(given[-1]) or real(*given))
    extract(config(own, cache, "report"))
    assert not looks
    if what == "film":
        text = linked_files(cache, own, "report")[0]
        os.utime(text, ns=(1, 1))
    elif what == "table":
        os.utime(own / "mimic-cxr-2.0.0-metadata.csv.gz", ns=(1, 1))
    else:
        monkeypatch.setattr("cm2.extract.receipts._code", lambda: [["another"]])
    assert extract(config(own, cache, "report")).modalities[0].encoded == 0
    assert looks == ["report"]


def test_other_rules_or_other_tables_never_enter_an_existing_cohort(
    own: Path, whole: Path, tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(whole, tmp_path / "cache"))
    with pytest.raises(ConfigError, match="split"):
        extract(config(own, cache, "ehr", split_seed=3))
    with pytest.raises(ConfigError, match="readm"):
        extract(config(own, cache, "ehr", readm_rule="hospital"))
    other = tmp_path / "other"
    write_demo(other, STAYS, SEED + 1)
    with pytest.raises(ConfigError, match="other stays or rules"):
        extract(config(other, cache, "ehr"))
    after = digests(cache)  # measurements read for the refused cohort may stay: they name their own
    assert {name: after[name] for name in digests(whole)} == digests(whole)
    assert all(name.startswith("events/") for name in set(after) - set(digests(whole)))


def test_an_encoder_or_weights_that_nothing_can_take_are_refused(
    data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="resnet99"):
        extract(config(data, tmp_path / "cache", "cxr", encoder="resnet99"))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(ConfigError, match="--encoder report=tinybert"):
        extract(config(data, tmp_path, "cxr", encoder="report=tinybert"))
    with pytest.raises(ConfigError, match="no encoder that could take"):
        extract(config(data, tmp_path, "ehr", weights=("random:1",)))
    assert not list(tmp_path.iterdir())


def test_all_means_what_the_source_offers(mimic3: Callable[..., object], tmp_path: Path) -> None:
    mimic3.write(tmp_path / "data")  # type: ignore[attr-defined]
    summary = extract(config(tmp_path / "data", tmp_path / "cache"))
    assert [m.name for m in summary.modalities] == ["ehr", "static"]
    with pytest.raises(DataError, match=r"mimic-cxr-2\.0\.0-metadata"):
        extract(config(tmp_path / "data", tmp_path / "cache", "cxr", weights=("random:0",)))


# --- several processes, several weights ----------------------------------------------------------


@pytest.mark.slow
def test_two_modalities_at_once_end_as_one_after_the_other(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    program = "from cm2.cli import main; main()"
    options = ["extract", "--data", str(data), "--cache", str(cache), "--modality"]
    workers = [
        subprocess.Popen([sys.executable, "-c", program, "-q", *options, name])
        for name in ("ehr", "cxr", "report", "static")
    ]
    assert [worker.wait(timeout=200) for worker in workers] == [0, 0, 0, 0]
    assert digests(cache) == digests(whole)


def test_other_weights_make_another_store_beside_the_first(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(whole, tmp_path / "cache"))
    before = digests(cache)
    links = Cohort.open(cache).links("report").fingerprint
    summary = extract(config(data, cache, "report", weights=("report=random:1",))).modalities[0]
    assert summary.encoded == summary.items
    assert len(list((cache / "stores/report").iterdir())) == 2
    assert Cohort.open(cache).links("report").fingerprint == links
    after = digests(cache)
    assert {name: after[name] for name in before} == before


def test_shards_are_a_function_of_their_items_alone(data: Path, whole: Path) -> None:
    store = Store.open(whole, "cxr")
    assert {entry["name"] for entry in store.manifest["shards"]} == {
        path.stem.removeprefix("shard-") for path in store.path.glob("shard-*.h5")
    }
    assert store.items["hours_from_intime"].to_pylist() == pytest.approx(
        [h for h in store.items["hours_from_intime"].to_pylist() if 0 <= h <= 48]
    )
    assert set(store.items["view"].to_pylist()) == {"AP"}
    assert store.items.num_rows <= cxr.SHARD_ITEMS


def test_a_dry_run_tells_the_work_and_writes_nothing(
    own: Path, whole: Path, tmp_path: Path
) -> None:
    linked_files(whole, own, "cxr")[0].unlink()
    (own / "SYNTHETIC.json").unlink()
    cache = tmp_path / "cache"
    rows = {str(row["modality"]): row for row in runner.plan(config(own, cache))}
    assert not cache.exists()
    films = Store.open(whole, "cxr").items.num_rows
    assert rows["cxr"]["items"] == films - 1
    assert rows["cxr"]["missing"] == f"--weights cxr=PATH; 1 of {films} files"
    assert rows["report"]["items"] == Store.open(whole, "report").items.num_rows
    assert rows["ehr"]["missing"] == ""


@pytest.mark.parametrize(
    ("level", "views"), [("pooled", 0), ("pooled", 3), ("grid", 0), ("pixels", 0), ("files", 0)]
)
def test_a_dry_run_knows_how_large_films_are_at_every_level(
    level: str, views: int, own: Path, tmp_path: Path
) -> None:
    (own / "SYNTHETIC.json").unlink()
    given = ("random:0",) if level in ("pooled", "grid") else ()
    call = config(own, tmp_path / "cache", "cxr", level=level, views=views, weights=given)
    (planned,) = runner.plan(call)
    assert planned["missing"] == ""
    extract(call)
    store = Store.open(tmp_path / "cache", "cxr")
    arrays = store.manifest["arrays"].values()
    held = sum(np.prod(a["shape"]) * np.dtype(a["dtype"]).itemsize for a in arrays)
    assert planned["write_bytes"] == pytest.approx(held * store.items.num_rows, rel=0.01)


def test_the_next_command_names_the_store_where_a_modality_has_several(
    data: Path, tmp_path: Path
) -> None:
    def after(**options: Any) -> str:
        return extract(config(data, tmp_path, "ehr", **options)).next_command()

    assert after() == f"cm2 fuse --cache {tmp_path} --task ihm"
    space = Store.open(tmp_path, "ehr").space.id
    assert f"--modalities ehr@{space}" not in after(step_hours=1.0)
    assert after() == f"cm2 fuse --cache {tmp_path} --task ihm --modalities ehr@{space}"
    assert after(cohort="b").startswith(f"cm2 fuse --cache {tmp_path} --task ihm --cohort b ")


def test_the_next_command_can_be_given_to_a_shell_as_it_stands(data: Path, tmp_path: Path) -> None:
    command = extract(config(data, tmp_path / "my cache", "ehr")).next_command()
    assert shlex.split(command)[2:4] == ["--cache", str(tmp_path / "my cache")]
