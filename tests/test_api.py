from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cm2
from cm2.errors import ConfigError
from cm2.fuse.group import RunGroup
from cm2.fuse.rundir import RunDir

SMALL = {"hidden": 8, "fusion_hidden": 8, "epochs": 2, "lr": 1e-2, "model": "concat"}
BUT_LR = {name: value for name, value in SMALL.items() if name != "lr"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    random = np.random.default_rng(0)
    ids = np.arange(150)
    x = random.normal(size=(150, 3))
    sign = np.where(x[:, 0] > 0, 1, 0)
    lines = [f"{i},{i},{y}" for i, y in zip(ids, sign, strict=True)]
    (folder / "stays.csv").write_text("stay_id,subject_id,y_ihm\n" + "\n".join(lines))
    np.savez(folder / "labs.npz", stay_id=ids, values=x.astype(np.float32))
    done = cm2.extract(
        folder / "C", stays=folder / "stays.csv", modality=f"labs={folder / 'labs.npz'}"
    )
    assert done.tasks
    return folder / "C"


def test_the_commands_are_functions_with_their_options(cache: Path) -> None:
    run = cm2.fuse(cache, **SMALL)
    assert isinstance(run, RunDir)
    assert run.finished
    found = cm2.evaluate(run.path, cache, bootstrap=20)
    assert found["auroc"]["value"] > 0.6
    assert run.info["looks"] == {"test": 1}
    other = cm2.fuse(cache, model="availability")
    cm2.evaluate(other.path, cache, bootstrap=20)
    rows = cm2.compare([run.path, other.path], bootstrap=20, metrics=("auroc",))
    assert [row["metric"] for row in rows] == ["auroc", "auroc"]
    assert rows[0]["difference"] > 0


def test_several_seeds_are_a_group(cache: Path) -> None:
    group = cm2.fuse(cache, seeds=(0, 1), **SMALL)
    assert isinstance(group, RunGroup)
    assert [run.config.seed for run in group.members] == [0, 1]


def test_what_is_one_on_the_command_line_may_be_one_here(cache: Path) -> None:
    group = cm2.fuse(cache, seeds="0:1", **SMALL)
    assert isinstance(group, RunGroup)
    run = group.members[0].path
    found = cm2.evaluate(run, cache, bootstrap=20, by="split,y_ihm", threshold="youden")
    assert sorted(found["by_group"]) == ["split", "y_ihm"]
    (row,) = cm2.compare(run, bootstrap=20, metrics="auroc")
    assert row["metric"] == "auroc"


def test_a_run_or_group_stands_for_its_directory(cache: Path) -> None:
    run, group = cm2.fuse(cache, **SMALL), cm2.fuse(cache, seeds=1, **SMALL)
    assert isinstance(group, RunGroup)
    assert [one.config.seed for one in group.members] == [1]  # as --seeds 1
    for one in (run, group):
        assert "auroc" in cm2.evaluate(one, cache, bootstrap=20)
    rows = cm2.compare([group, run], baseline=run, bootstrap=20, metrics="auroc")
    assert len(rows) == 2
    assert len(cm2.compare(run, bootstrap=20, metrics="auroc")) == 1


def test_a_threshold_that_is_a_bare_number_is_told_the_rules(cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"p=VALUE; found '0.5'"):
        cm2.evaluate(cm2.fuse(cache, **SMALL), cache, threshold=0.5)  # type: ignore[arg-type]


def test_a_sweep_ranks_the_settings_of_its_grid(cache: Path, tmp_path: Path) -> None:
    found = cm2.sweep(cache, ["lr=1e-2,1e-6"], out=tmp_path / "sweep", jobs=1, **BUT_LR)
    members = found.roll().members
    assert sorted(m.run.config.lr for m in members) == [1e-6, 1e-2]
    assert all(m.run.finished for m in members)
    assert not found.failures()
    with pytest.raises(ConfigError, match="lambda_cop"):
        cm2.sweep(cache, ["lamda_cop=1,2"], **BUT_LR)


def test_unknown_options_are_refused_with_the_nearest(cache: Path) -> None:
    with pytest.raises(ConfigError, match="lambda_cop"):
        cm2.fuse(cache, lamda_cop=1)
    with pytest.raises(ConfigError, match="modality"):
        cm2.extract(cache, modalityy="ehr")


def test_a_stage_is_still_the_package_of_its_name() -> None:
    from cm2.fuse.config import FuseConfig

    assert cm2.fuse.config.FuseConfig is FuseConfig


def test_the_public_names_are_few_and_import_nothing_heavy() -> None:
    assert len(cm2.__all__) <= 13  # twelve and the version
    code = "import sys, cm2; cm2.fuse; cm2.extract; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in cm2.__all__:
        assert getattr(cm2, name) is not None
