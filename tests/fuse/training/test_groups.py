"""Groups of seeds and folds, several labels, thinned modalities: from cache to judgement."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from sklearn.metrics import roc_auc_score

from cm2.cache import atomic, checkpoint, upkeep
from cm2.cache.cohort import Cohort
from cm2.errors import ConfigError, DataError, Interrupted
from cm2.fuse.config import FuseConfig
from cm2.fuse.data import load
from cm2.fuse.evaluation.compare import compare
from cm2.fuse.evaluation.evaluate import evaluate
from cm2.fuse.evaluation.looks import Looks
from cm2.fuse.group import RunGroup, open_runs
from cm2.fuse.identity import identify
from cm2.fuse.inert import unread
from cm2.fuse.listing import list_runs
from cm2.fuse.rundir import BEST
from cm2.fuse.training.groups import fuse_group, members, parse_seeds
from cm2.fuse.training.trainer import fuse
from cm2.progress import Stop

CacheMaker = Callable[..., Path]
TINY = {"model": "concat", "hidden": 8, "fusion_hidden": 8, "epochs": 2, "lr": 1e-2}


def config(**options: object) -> FuseConfig:
    idle = unread(str(options.get("model", TINY["model"])))
    return FuseConfig.of({k: v for k, v in TINY.items() if k not in idle} | options)


@pytest.fixture(scope="module")
def cache(make_cache: CacheMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("groups") / "cache", labels=("aki", "mi", "rare"))


def test_seeds_are_read_as_written() -> None:
    assert parse_seeds("0:3") == (0, 1, 2, 3)
    assert parse_seeds("0,2,5:6") == (0, 2, 5, 6)
    for wrong in ("", "a", "3:1", "1,1", "-1"):
        with pytest.raises(ConfigError, match="FIRST:LAST"):
            parse_seeds(wrong)


def test_a_group_of_seeds_averages_their_metrics(cache: Path) -> None:
    group = fuse_group(config(task="ihm"), cache, (0, 1, 2))
    found = group.metrics("val")
    assert found is not None
    values = [run.metrics("val")["auroc"]["value"] for run in group.members]  # type: ignore[index]
    assert found["auroc"]["values"] == pytest.approx(values)
    assert found["auroc"]["value"] == pytest.approx(np.mean(values))
    assert found["auroc"]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert found["auroc"]["low"] < found["auroc"]["value"] < found["auroc"]["high"]


def test_a_finished_group_trains_nothing_again_and_a_stopped_one_continues(
    cache: Path, tmp_path: Path
) -> None:
    class AfterOne(Stop):
        asked = 0

        def check(self, finished: str) -> None:
            self.asked += 1
            if self.asked == 3:
                raise Interrupted(finished)

    own = tmp_path / "cache"
    shutil.copytree(cache, own, ignore=shutil.ignore_patterns("runs"))
    with pytest.raises(Interrupted):
        fuse_group(config(task="ihm"), own, (5, 6), stop=AfterOne())
    group = fuse_group(config(task="ihm"), own, (5, 6))
    times = [run.info["finished"] for run in group.members]
    again = fuse_group(config(task="ihm"), own, (5, 6))
    assert [run.info["finished"] for run in again.members] == times
    assert again.path == group.path


def test_a_group_moves_with_its_cache(cache: Path, tmp_path: Path) -> None:
    group = fuse_group(config(task="ihm"), cache, (0, 1))
    moved = tmp_path / "elsewhere"
    shutil.copytree(cache, moved)
    (opened,) = open_runs([moved / group.path.relative_to(cache)])
    assert isinstance(opened, RunGroup)
    assert all(moved in run.path.parents for run in opened.members)


def test_another_group_in_the_directory_and_a_lost_member_are_refused(
    cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "group"
    own = tmp_path / "cache"
    shutil.copytree(cache, own, ignore=shutil.ignore_patterns("runs"))
    group = fuse_group(config(task="ihm"), own, (0, 1), out=out)
    with pytest.raises(ConfigError, match="another group"):
        fuse_group(config(task="ihm"), own, (0, 2), out=out)
    shutil.rmtree(group.members[1].path)
    with pytest.raises(DataError, match="is not there"):
        RunGroup.open(out)


def test_folds_cut_patients_and_every_stay_is_tested_once(cache: Path) -> None:
    tested: list[int] = []
    for one in members(config(task="ihm", folds=4), (), every_fold=True):
        data = load(cache, identify(one, cache).config)
        by_subject: dict[int, set[str]] = {}
        columns = zip(data.columns["subject_id"], data.columns["split"], strict=True)
        for subject, split in columns:
            by_subject.setdefault(subject, set()).add(split)
        assert all(len(splits) == 1 for splits in by_subject.values())
        tested += [data.columns["stay_id"][i] for i in data.rows("test", labelled=False)]
    assert sorted(tested) == sorted(data.columns["stay_id"])


def test_pooled_folds_judge_every_stay_by_a_model_that_did_not_see_it(cache: Path) -> None:
    group = fuse_group(config(task="ihm", folds=3), cache, (), every_fold=True)
    evaluate(group, cache, "test", replicates=50)
    (pooled,) = group.predictions("test")
    known = pooled.filter(pooled["y"].is_valid())
    found = group.metrics("test")
    assert found is not None
    assert found["n"] == known.num_rows == len(set(known["stay_id"].to_pylist()))
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(known["y"], known["p"]))
    assert [run.info["looks"] for run in group.members] == [{"test": 1}] * 3


def test_seeds_of_one_fold_keep_that_fold(cache: Path) -> None:
    found = members(config(task="ihm", folds=3, fold=2), (0, 1))
    assert [(one.seed, one.folds, one.fold) for one in found] == [(0, 3, 2), (1, 3, 2)]


@pytest.mark.parametrize("folds", [1, 2])
def test_too_few_folds_are_refused(folds: int) -> None:
    with pytest.raises(ConfigError, match=f"folds = {folds} leaves nothing to train on"):
        config(folds=folds)


def test_scrambled_test_rows_change_nothing_that_a_thinned_run_learns(
    make_cache: CacheMaker, tmp_path: Path
) -> None:
    thinned = {"drop": ("cxr=0.5:severity", "report=0.3")}
    learned, drops = [], []
    for scramble in ("", "test"):
        cache = make_cache(tmp_path / f"cache{scramble}", scramble=scramble)
        run = fuse(config(**thinned), cache, tmp_path / f"run{scramble}")
        learned.append(checkpoint.load(run.path / BEST, "")[0])
        drops.append(load(cache, run.config).whole.available)
    assert not torch.equal(*drops)  # severity was told anew from the scrambled rows
    assert learned[0].keys() == learned[1].keys()
    assert all(torch.equal(tensor, learned[1][name]) for name, tensor in learned[0].items())


def test_several_labels_are_trained_and_judged_one_by_one_and_together(cache: Path) -> None:
    run = fuse(config(task="ph", epochs=6), cache)
    table = run.predictions("val")
    assert table.num_rows == 3 * len(set(table["stay_id"].to_pylist()))
    found = run.metrics("val")
    assert found is not None
    by_label = {}
    for name in ("aki", "mi", "rare"):
        rows = [
            (y, p)
            for t, y, p in zip(*(table[c].to_pylist() for c in ("target", "y", "p")), strict=True)
            if t == name and y is not None
        ]
        by_label[name] = roc_auc_score(*zip(*rows, strict=True))
        assert found["targets"][name]["auroc"]["value"] == pytest.approx(by_label[name])
    assert found["auroc"]["value"] == pytest.approx(np.mean(list(by_label.values())))
    known = table.filter(table["y"].is_valid())
    assert found["micro"]["auroc"]["value"] == pytest.approx(roc_auc_score(known["y"], known["p"]))
    best = max(row["val_auroc"] for row in run.history)
    assert best == pytest.approx(found["auroc"]["value"])


def test_labels_that_differ_are_learned_apart(cache: Path) -> None:
    run = fuse(config(task="ph", epochs=6), cache)
    p = run.predictions("val")["p"].to_numpy().reshape(-1, 3)
    assert (p[:, 0] > p[:, 2]).mean() > 0.9  # `rare` is rarer


def test_several_labels_are_compared_by_their_mean(cache: Path) -> None:
    first, second = fuse(config(task="ph", seed=1), cache), fuse(config(task="ph", seed=2), cache)
    group = fuse_group(config(task="ph"), cache, (3, 4))
    for run in (first, second):
        evaluate(run, cache, replicates=20)
    evaluate(group, cache, replicates=20)
    rows = compare([first, group], second, replicates=20, metrics=("auroc",))
    assert [row["seeds"] for row in rows] == [1, 2, 1]
    values = [run.metrics("test")["auroc"]["value"] for run in group.members]  # type: ignore[index]
    assert rows[1]["value"] == pytest.approx(np.mean(values))
    assert rows[0]["difference"] == pytest.approx(rows[0]["value"] - rows[2]["value"])


def test_balanced_classes_weigh_the_same(cache: Path) -> None:
    plain = fuse(config(task="ihm", epochs=4), cache)
    even = fuse(config(task="ihm", epochs=4, class_weight="balanced"), cache)
    counts = even.info["rows"]["train"]
    n, events = counts["n"], counts["positives"]
    from cm2.fuse.inference import load_model

    weights = load_model(even)[0].class_weights
    assert weights[1, 0] == pytest.approx(n / (2 * events))
    assert weights[0, 0] == pytest.approx(n / (2 * (n - events)))
    mean = [run.predictions("val")["p"].to_numpy().mean() for run in (plain, even)]
    assert mean[1] > mean[0]


def test_thinning_takes_the_share_and_spares_what_a_stay_has_alone(cache: Path) -> None:
    whole = load(cache, identify(config(task="ihm"), cache).config)
    half = load(cache, identify(config(task="ihm", drop=("cxr=0.5",)), cache).config)
    more = load(cache, identify(config(task="ihm", drop=("cxr=0.8",)), cache).config)
    names = [spec.name for spec in whole.specs]
    m = names.index("cxr")
    able = whole.whole.available[:, m] & (whole.whole.available.sum(1) > 1)
    kept = half.whole.available[:, m]
    assert 0.35 < kept[able].float().mean() < 0.65
    assert half.whole.available.any(1).all()
    assert (more.whole.available[:, m] <= kept).all()  # nested
    assert (half.whole.available.sum(1) >= 1).all()
    only_train = load(cache, identify(config(task="ihm", drop_train=("cxr=0.5",)), cache).config)
    test = only_train.rows("test", labelled=False)
    assert (only_train.whole.available[test] == whole.whole.available[test]).all()


def test_thinning_by_severity_keeps_the_modality_for_the_sicker(cache: Path) -> None:
    data = load(cache, identify(config(task="ihm", drop=("cxr=0.5:severity",)), cache).config)
    whole = load(cache, identify(config(task="ihm"), cache).config)
    m = [spec.name for spec in data.specs].index("cxr")
    had = whole.whole.available[:, m]
    kept = data.whole.available[had, m]
    y = whole.whole.y[had, 0]
    assert y[kept].nanmean() > y[~kept].nanmean() + 0.2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"drop": ("cxr",)}, "NAME=SHARE"),
        ({"drop": ("cxr=1.5",)}, "NAME=SHARE"),
        ({"drop": ("cxr=0.5:sick",)}, "NAME=SHARE"),
        ({"drop": ("cxr=0.5",), "drop_train": ("cxr=0.2",)}, "withheld twice"),
        ({"drop": ("film=0.5",)}, "Unknown modality 'film'"),
    ],
)
def test_impossible_thinning_is_refused(
    cache: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        load(cache, identify(config(task="ihm", **options), cache).config)


def test_bfloat16_is_another_run_with_nearly_the_same_predictions(cache: Path) -> None:
    full = fuse(config(task="ihm", model="cm2", K=2, copula_dim=4), cache)
    half = fuse(config(task="ihm", model="cm2", K=2, copula_dim=4, precision="bf16"), cache)
    assert half.path != full.path
    p, q = (run.predictions("val")["p"].to_numpy() for run in (full, half))
    assert 0 < np.abs(p - q).max() < 0.02


def test_looks_at_subgroups_missingness_and_thresholds_are_stored(cache: Path) -> None:
    run = fuse(config(task="ihm", epochs=4), cache)
    looks = Looks(("sex", "age:50"), ("cxr", "report=0.5"), "sensitivity=0.8", "platt")
    found = evaluate(run, cache, "test", looks=looks, replicates=50)
    assert run.metrics("test") == found
    groups = found["by_group"]
    assert set(groups["sex"]) == {"F", "M", "unknown"}
    assert sum(part["n"] for part in groups["age"].values()) == found["n"]
    curve = found["missingness"]
    assert [(r["modality"], r["share"]) for r in curve[:4]] == [
        ("cxr", s) for s in (0.25, 0.5, 0.75, 1.0)
    ]
    assert [r["withheld"] for r in curve[:4]] == sorted(r["withheld"] for r in curve[:4])
    without = {entry["modality"]: entry for entry in found["without"]}
    assert without["cxr"]["n"] == curve[3]["withheld"]
    assert without["ehr"]["mean_absolute_change"] > 0
    assert found["threshold"]["rule"] == "sensitivity=0.8"
    assert found["recalibrated"]["auroc"]["value"] == pytest.approx(found["auroc"]["value"])
    assert len(found["decision"]["threshold"]) == len(found["decision"]["model"])


def test_withholding_everything_changes_only_stays_that_had_it(cache: Path) -> None:
    from cm2.fuse.evaluation.missingness import without
    from cm2.fuse.inference import forward, prepare, probabilities

    run = fuse(config(task="ihm", epochs=4), cache)
    loaded = prepare(run, cache, "test")
    had = loaded.data.whole.available[loaded.rows, 1].numpy()
    lost = loaded.rows[had]
    p = probabilities(forward(loaded.model, loaded.data, loaded.rows))
    q = probabilities(forward(loaded.model, without(loaded.data, 1, lost), loaded.rows))
    changed = (p != q).any(1)
    assert (changed == had).all()


def test_stays_of_another_cohort_do_not_overwrite_the_runs_own_result(
    cache: Path, make_cache: CacheMaker, tmp_path: Path
) -> None:
    run = fuse(config(task="ihm"), cache)
    own = evaluate(run, cache, "test", replicates=20)
    other = make_cache(tmp_path / "other", dataset="elsewhere", shift=1, seed=3)
    found = evaluate(run, other, "all", replicates=20)
    assert found["external"].startswith("elsewhere")
    assert own["external"] is None
    assert run.metrics("test") == own
    assert run.info["looks"]["test"] == 1


def test_the_same_stays_with_other_vectors_do_not_overwrite_the_runs_own_result(
    cache: Path, make_cache: CacheMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = fuse(config(task="ihm"), cache)
    own = evaluate(run, cache, "test", replicates=20)
    assert "extracted again" not in caplog.text
    other = make_cache(tmp_path / "other", labels=("aki", "mi", "rare"), offset=0.5)
    found = evaluate(run, other, "test", replicates=20)
    assert found["external"].startswith("made (test@")
    assert "ehr and cxr and report of" in caplog.text
    assert run.metrics("test") == own


def test_judging_validation_again_keeps_predictions_that_were_fitted_to_it_cross_fitted(
    cache: Path,
) -> None:
    options = {"combine": "stacking", "events": 5}
    run = fuse(
        FuseConfig.of({"model": "late", "task": "ihm", "epochs": 2, "options": options}), cache
    )
    before = run.predictions("val")
    own = run.metrics("val")
    assert own is not None
    found = evaluate(run, cache, "val", replicates=0)
    assert run.predictions("val")["p"].equals(before["p"])
    assert found["auroc"]["value"] == own["auroc"]["value"]
    every = evaluate(run, cache, "all", replicates=0)
    judged = run.predictions("all").filter(pc.equal(run.predictions("all")["split"], "val"))
    assert judged["p"].to_pylist() == before["p"].to_pylist()
    assert every["n"] > found["n"]


def test_a_group_is_judged_on_the_stays_of_another_cohort_and_not_on_its_own(
    cache: Path, make_cache: CacheMaker, tmp_path: Path
) -> None:
    group = fuse_group(config(task="ihm"), cache, (0, 1))
    own = evaluate(group, cache, "test", replicates=20)
    other = make_cache(tmp_path / "other", dataset="elsewhere", shift=1, seed=3)
    found = evaluate(group, other, "all", replicates=20)
    assert found["external"].startswith("elsewhere")
    assert own["external"] is None
    assert found["n"] != own["n"]
    assert group.metrics("test") == own


def files(group: RunGroup) -> dict[str, bytes]:
    """Content of the group and its members, but for what carries times."""
    places = [group.path, *(run.path for run in group.members)]
    return {
        f"{place.name}/{path.relative_to(place)}": path.read_bytes()
        for place in places
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def states(cache: Path, group: Path) -> tuple[object, object, object]:
    """What `cm2 ls`, `cache ls` and `inspect` say of a group."""
    (listed,) = (row for row in list_runs(cache) if row["name"] == group.name)
    (stored,) = (row for row in upkeep.ls(cache) if row["name"] == group.name)
    return listed["state"], stored["state"], upkeep.inspect(group)["state"]


def stays_of(cache: Path) -> list[int]:
    """Ids of the stays in the order of the cohort."""
    ids: list[int] = Cohort.open(cache, "default").stays["stay_id"].to_pylist()
    return ids


GROUPS = {
    "seeds": ({}, (0, 1), False),
    "folds": ({"folds": 3}, (), True),
    "bf16": ({"model": "cm2", "copula_dim": 4, "K": 1, "precision": "bf16"}, (0, 1), False),
}


class Killed(BaseException):
    pass


@pytest.mark.fault
@pytest.mark.parametrize("name", GROUPS)
def test_a_group_killed_at_any_of_20_points_is_unfinished_and_ends_with_the_same_bytes(
    make_cache: CacheMaker, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, seeds, every_fold = GROUPS[name]
    wanted = config(task="ihm", batch_size=24, **options)
    cache = make_cache(tmp_path / "cache", stays=90, modalities=("ehr", "cxr"))

    def train() -> RunGroup:
        # every step is kept, so that kills fall into epochs too
        return fuse_group(wanted, cache, seeds, every_fold, save_steps=1)

    steps: list[str] = []
    monkeypatch.setattr(atomic, "step_hook", steps.append)
    group = train()
    expected = files(group)
    for fatal in np.unique(np.linspace(4, len(steps) - 1, 20).astype(int)):
        shutil.rmtree(cache / "runs")
        seen: list[str] = []

        def kill(step: str, seen: list[str] = seen, fatal: int = int(fatal)) -> None:
            seen.append(step)
            if len(seen) == fatal:
                raise Killed

        monkeypatch.setattr(atomic, "step_hook", kill)
        with pytest.raises(Killed):
            train()
        monkeypatch.setattr(atomic, "step_hook", lambda step: None)
        found = states(cache, group.path)
        if not all(run.finished for run in RunGroup.find(group.path).begun):
            assert found == ("unfinished",) * 3, fatal
        assert {k: v for k, v in files(train()).items() if not k.endswith(".tmp")} == expected
        assert states(cache, group.path) == ("finished",) * 3


def test_a_group_is_known_before_its_last_member_and_goes_on(
    make_cache: CacheMaker, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache", stays=60, modalities=("ehr",))

    class AfterFirst(Stop):
        def check(self, finished: str) -> None:
            if finished.startswith("epoch 2 "):
                raise Interrupted(finished)

    with pytest.raises(Interrupted):
        fuse_group(config(task="ihm"), cache, (0, 1), stop=AfterFirst())
    (path,) = (cache / "runs").glob("seeds-*")
    assert states(cache, path) == ("unfinished",) * 3
    with pytest.raises(DataError, match="trains what lacks"):
        RunGroup.open(path)
    group = fuse_group(config(task="ihm"), cache, (0, 1))
    assert states(cache, group.path) == ("finished",) * 3


@pytest.mark.parametrize("name", ["seeds", "folds"])
def test_scrambling_all_test_rows_changes_no_trained_artefact_of_a_group(
    make_cache: CacheMaker, tmp_path: Path, name: str
) -> None:
    options, seeds, every_fold = GROUPS[name]
    wanted = config(task="ihm", **options)
    plain = make_cache(tmp_path / "plain", stays=90)
    before = fuse_group(wanted, plain, seeds, every_fold)
    for k in range(3 if every_fold else 1):
        one = members(wanted, seeds, every_fold)[k]
        tested = load(plain, identify(one, plain).config)
        ids = stays_of(plain)
        rows = {ids.index(tested.columns["stay_id"][i]) for i in tested.rows("test", False)}
        spoiled = make_cache(tmp_path / f"spoiled{k}", stays=90, scramble_rows=rows)
        compared = [k] if every_fold else range(len(seeds))
        after = fuse_group(wanted, spoiled, seeds, every_fold)
        for i in compared:
            for file in (BEST, "last.safetensors", "metrics.jsonl", "val_metrics.json"):
                ours, theirs = (g.members[i].path / file for g in (before, after))
                assert ours.read_bytes() == theirs.read_bytes(), (k, i, file)
        if every_fold:  # in the other folds the same rows are trained on
            other = (k + 1) % 3
            ours, theirs = (g.members[other].path / BEST for g in (before, after))
            assert ours.read_bytes() != theirs.read_bytes()


def test_a_group_leads_to_its_runs_through_links_and_after_a_move(tmp_path: Path) -> None:
    cache = tmp_path / "deep/er/cache"
    run = cache / "runs/one"
    run.mkdir(parents=True)
    (tmp_path / "link").symlink_to(cache)
    config = FuseConfig.of({"task": "ihm"})
    away = tmp_path / "link/sweeps/it/chosen"
    RunGroup.write(away, {run: config}, {"kind": "seeds"})
    assert RunGroup.find(away).members[0].path == tmp_path / "link/runs/one"
    cache.rename(tmp_path / "moved")
    (moved,) = RunGroup.find(tmp_path / "moved/sweeps/it/chosen").members
    assert moved.path == tmp_path / "moved/runs/one"
    disk = tmp_path / "disk/a/b"
    RunGroup.write(disk / "group", {tmp_path / "moved/runs/one": config}, {"kind": "seeds"})
    (tmp_path / "short").symlink_to(disk)
    (linked,) = RunGroup.find(tmp_path / "short/group").members
    assert linked.path.samefile(tmp_path / "moved/runs/one")
