"""Import of trees in the layouts of mimic3-benchmarks and MedFuse."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

from cm2.cache.cohort import Cohort, view
from cm2.errors import CM2Error, ConfigError, DataError, LeakageError, SchemaError
from cm2.extract.config import ExtractConfig
from cm2.extract.runner import extract
from cm2.extract.sources.tree_series import header

STAYS = {  # subject: (stay id, split, dies, hours to the next admission)
    10001: (200001, "train", 1),
    10002: (200002, "train", 0),
    10003: (200003, "val", 0),
    10004: (200004, "test", 1),
}
LINES = [
    {"Hours": "0.5", "Heart Rate": "80", "Glascow coma scale eye opening": "None"},
    {"Hours": "3.0", "Heart Rate": "90.5", "Glascow coma scale total": "15.0"},
    {"Hours": "47.9", "Fraction inspired oxygen": "0.005", "Capillary refill rate": "1.0"},
]


def write(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def stays_row(subject: int, upper: bool) -> dict[str, Any]:
    stay, _, dies = STAYS[subject]
    row = {
        "subject_id": subject,
        "hadm_id": stay - 100000,
        "icustay_id" if upper else "stay_id": stay,
        "last_careunit": "MICU",
        "intime": "2150-01-01 00:00:00",
        "outtime": "2150-01-04 00:00:00",
        "los": "3.0",
        "admittime": "2150-01-01 00:00:00",
        "dischtime": "2150-01-05 00:00:00",
        "deathtime": "",
        "ethnicity" if upper else "race": "WHITE",
        "gender": "F",
        "age": "60.0",
        "mortality": dies,
    }
    return {name.upper(): value for name, value in row.items()} if upper else row


def write_root(root: Path, upper: bool = True) -> Path:
    rows = [stays_row(subject, upper) for subject in STAYS]
    write(root / "all_stays.csv", list(rows[0]), rows)
    for subject, (stay, split, _) in STAYS.items():
        folder = root / ("test" if split == "test" else "train") / str(subject)
        write(folder / "episode1.csv", ["Icustay", "Age"], [{"Icustay": stay, "Age": 60}])
        write(folder / "episode1_timeseries.csv", list(header()), LINES)
    return root


def write_task(folder: Path, *, ids: bool, name: str = "in-hospital-mortality") -> Path:
    folder = folder / name
    columns = ["stay", "period_length", "stay_id", "y_true"] if ids else ["stay", "y_true"]
    for split in ("train", "val", "test"):
        rows = []
        for subject, (stay, mine, dies) in STAYS.items():
            if mine != split:
                continue
            series = f"{subject}_episode1_timeseries.csv"
            write(folder / ("test" if split == "test" else "train") / series, list(header()), LINES)
            line = {"stay": series, "period_length": 0, "stay_id": stay, "y_true": dies}
            rows.append({column: line[column] for column in columns})
        write(folder / f"{split}_listfile.csv", columns, rows)
    return folder


def imported(tree: Path, cache: Path, **options: Any) -> Cohort:
    extract(ExtractConfig(from_tree=tree, cache=cache, **options))
    return Cohort.open(cache)


def labels(cohort: Cohort, column: str) -> list[Any]:
    return cohort.stays[column].to_pylist()


def test_lists_of_mimic3_benchmarks_with_root_beside_them(tmp_path: Path) -> None:
    write_root(tmp_path / "data" / "root")
    write_task(tmp_path / "data", ids=False)
    cohort = imported(tmp_path / "data", tmp_path / "cache", preset="reference")
    assert labels(cohort, "stay_id") == [200001, 200002, 200003, 200004]
    assert labels(cohort, "split") == ["train", "train", "val", "test"]
    assert labels(cohort, "y_ihm") == [1, 0, 0, 1]
    assert labels(cohort, "in_readm") == [True] * 4
    assert labels(cohort, "y_readm") == [1, 0, 0, 1]
    assert cohort.info["dataset"] == "mimic3"
    assert cohort.info["attrition"][1] == {
        "rule": "eligible at 48 h",
        "stays": 4,
        "subjects": 4,
        "paper": 21139,
    }
    stored = view(tmp_path / "cache", cohort, "ehr")
    assert stored.values.shape == (4, 24, 76)
    column = {name: i for i, name in enumerate(stored.columns)}
    first = stored.values[0]
    assert first[0, column["Heart Rate"]] == 80
    assert first[1, column["Heart Rate"]] == 90.5
    assert first[0, column["Glascow coma scale eye opening->None"]] == 1
    assert first[1, column["Glascow coma scale total->15"]] == 1
    assert first[1, column["mask->Glascow coma scale total"]] == 1
    assert first[23, column["Capillary refill rate->1.0"]] == 1
    assert first[23, column["Fraction inspired oxygen"]] == np.float32(0.005)


def test_the_corrected_preset_merges_spellings_and_drops_what_is_out_of_bounds(
    tmp_path: Path,
) -> None:
    cohort = imported(write_root(tmp_path / "root"), tmp_path / "cache")
    stored = view(tmp_path / "cache", cohort, "ehr")
    assert stored.values.shape == (4, 24, 59)
    column = {name: i for i, name in enumerate(stored.columns)}
    assert stored.values[0, 0, column["Glasgow coma scale eye opening->1"]] == 1
    assert stored.values[0, 23, column["mask->Fraction inspired oxygen"]] == 0


PHENOTYPES = ["Acute cerebrovascular disease", "Pleurisy; pneumothorax; collapse", "Shock"]
DISEASES = {10001: (1, 0, 1), 10002: (0, 0, 0), 10003: (0, 1, 0), 10004: (0, 0, 1)}


def write_phenotyping(folder: Path, *, ids: bool) -> Path:
    """The task that lists several labels, for stays of any length."""
    folder = folder / "phenotyping"
    columns = ["stay", "period_length", *(["stay_id"] if ids else []), *PHENOTYPES]
    for split in ("train", "val", "test"):
        rows = []
        for subject, (stay, mine, _) in STAYS.items():
            if mine != split:
                continue
            series = f"{subject}_episode1_timeseries.csv"
            lines = [*LINES, {"Hours": "60.0", "Heart Rate": "200"}]
            write(folder / ("test" if split == "test" else "train") / series, list(header()), lines)
            line = {"stay": series, "period_length": 72.5, "stay_id": f"{stay}.0"}
            line |= dict(zip(PHENOTYPES, DISEASES[subject], strict=True))
            rows.append({column: line[column] for column in columns})
        write(folder / f"{split}_listfile.csv", columns, rows)
    return folder


@pytest.mark.parametrize("ids", [True, False])
def test_phenotypes_become_one_task_of_several_labels(
    ids: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cohort = imported(write_phenotyping(tmp_path, ids=ids), tmp_path / "cache")
    assert cohort.tasks == ("phenotyping",)
    assert labels(cohort, "in_phenotyping") == [True] * 4
    for place, name in enumerate(("acute_cerebrovascular_disease", None, "shock")):
        name = name or "pleurisy_pneumothorax_collapse"
        found = labels(cohort, f"y_phenotyping__{name}")
        assert found == [DISEASES[subject][place] for subject in STAYS]
    assert cohort.info["tasks"]["phenotyping"] == {"stays": 4, "positives": 3, "labels": 3}
    assert "end at 48 h" in cohort.info["rules"]["phenotyping"]
    assert "eligible at 48 h" not in [row["rule"] for row in cohort.info["attrition"]]
    assert "3 labels, published are 25" in caplog.text
    series = view(tmp_path / "cache", cohort, "ehr")
    assert series.values[..., list(series.columns).index("Heart Rate")].max() < 100


def test_phenotypes_stand_beside_deaths_which_only_long_stays_have(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_phenotyping(tmp_path, ids=True)
    root = write_root(tmp_path / "root")
    table = (root / "all_stays.csv").read_text().replace(",3.0,", ",1.5,", 1)
    (root / "all_stays.csv").write_text(table)
    (tmp_path / "decompensation").mkdir()
    (tmp_path / "decompensation" / "train_listfile.csv").write_text("stay,period_length,y_true\n")
    cohort = imported(tmp_path, tmp_path / "cache")
    assert cohort.tasks == ("ihm", "readm", "phenotyping")
    assert labels(cohort, "in_phenotyping") == [True] * 4
    assert labels(cohort, "in_ihm") == [False, True, True, True]
    assert "decompensation: no task of cm2" in caplog.text


def other_columns(text: str) -> str:
    return text.replace("Shock", "Sepsis")


def no_number(text: str) -> str:
    return text.replace(",0,1,0", ",0,x,0")


def one_name_for_two(text: str) -> str:
    return text.replace("Shock", "acute cerebrovascular, disease".replace(",", ";"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (other_columns, "expected the 3 labels of the other lists"),
        (no_number, "expected a whole number as Pleurisy"),
        (one_name_for_two, "one column per phenotype"),
    ],
)
def test_lists_of_phenotypes_that_do_not_fit_are_refused(
    damage: Any, words: str, tmp_path: Path
) -> None:
    task = write_phenotyping(tmp_path, ids=True)
    lists = task / "val_listfile.csv"
    lists.write_text(damage(lists.read_text()))
    with pytest.raises(SchemaError, match=words):
        imported(task, tmp_path / "cache")


def test_lists_of_medfuse_name_their_stays_and_need_no_root(tmp_path: Path) -> None:
    task = write_task(tmp_path, ids=True, name="readmission")
    cohort = imported(task, tmp_path / "cache", dataset="mimic4")
    assert labels(cohort, "stay_id") == [200001, 200002, 200003, 200004]
    assert cohort.tasks == ("readm",)
    assert cohort.info["dataset"] == "mimic4"


def test_without_root_and_ids_stays_are_named_by_subject_and_episode(tmp_path: Path) -> None:
    cohort = imported(write_task(tmp_path, ids=False), tmp_path / "cache")
    assert labels(cohort, "stay_id") == [10001001, 10002001, 10003001, 10004001]
    assert cohort.info["rules"]["stay_ids"] == "subject_id * 1000 + episode"


def test_root_alone_gives_both_tasks_and_keeps_its_test_patients(tmp_path: Path) -> None:
    root = write_root(tmp_path / "root", upper=False)
    cohort = imported(root, tmp_path / "cache")
    assert cohort.tasks == ("ihm", "readm")
    assert labels(cohort, "split")[3] == "test"
    assert "test" not in labels(cohort, "split")[:3]


def test_a_second_call_encodes_nothing(tmp_path: Path) -> None:
    root = write_root(tmp_path / "root")
    config = ExtractConfig(from_tree=root, cache=tmp_path / "cache")
    assert extract(config).modalities[0].encoded == 4
    assert extract(config).modalities[0].encoded == 0


def break_header(task: Path) -> None:
    path = task / "train" / "10001_episode1_timeseries.csv"
    path.write_text(path.read_text().replace("Heart Rate", "Heart rate"))


def break_order(task: Path) -> None:
    path = task / "train" / "10001_episode1_timeseries.csv"
    path.write_text(path.read_text().replace("47.9", "2.9"))


def break_category(task: Path) -> None:
    path = task / "train" / "10001_episode1_timeseries.csv"
    path.write_text(path.read_text().replace("None", "secret words"))


def lose_series(task: Path) -> None:
    (task / "train" / "10001_episode1_timeseries.csv").unlink()


def leak(task: Path) -> None:
    with (task / "val_listfile.csv").open("a") as file:
        file.write("10001_episode1_timeseries.csv,0,200001,1\n")


def bad_label(task: Path) -> None:
    path = task / "train_listfile.csv"
    path.write_text(path.read_text().replace("200001,1", "200001,2"))


def other_bytes(task: Path) -> None:
    with (task / "train_listfile.csv").open("ab") as file:
        file.write(b"\xff\xfe_episode1_timeseries.csv,0,200001,1\n")


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (break_header, SchemaError, "missing or unknown: Heart Rate, Heart rate"),
        (break_order, DataError, "hours go back"),
        (break_category, SchemaError, "eye opening: expected one of the known categories"),
        (lose_series, DataError, "line 2: .* is not there"),
        (leak, LeakageError, "subject 10001 is in train and in val"),
        (bad_label, SchemaError, "line 2: expected y_true 0 or 1"),
        (other_bytes, SchemaError, "line 4: expected a name such as"),
    ],
)
def test_what_is_wrong_with_a_tree_is_said(
    damage: Any, error: type[CM2Error], words: str, tmp_path: Path
) -> None:
    task = write_task(tmp_path, ids=True)
    damage(task)
    with pytest.raises(error, match=words) as caught:
        imported(task, tmp_path / "cache")
    assert "secret" not in str(caught.value)


def test_a_series_that_is_another_stay_in_the_lists_of_another_task_is_refused(
    tmp_path: Path,
) -> None:
    write_task(tmp_path, ids=True)
    lists = write_task(tmp_path, ids=True, name="readmission") / "train_listfile.csv"
    lists.write_text(lists.read_text().replace("200001", "200009"))
    with pytest.raises(DataError, match=r"episode1_timeseries\.csv is stay 200009"):
        imported(tmp_path, tmp_path / "cache")


def test_stays_that_are_not_in_all_stays_are_refused(tmp_path: Path) -> None:
    write_root(tmp_path / "root")
    task = write_task(tmp_path, ids=True)
    lists = task / "test_listfile.csv"
    lists.write_text(lists.read_text().replace("200004", "200009"))
    with pytest.raises(DataError, match="not in its all_stays"):
        imported(tmp_path, tmp_path / "cache")


def test_a_tree_has_no_films_and_another_folder_is_no_tree(tmp_path: Path) -> None:
    root = write_root(tmp_path / "root")
    with pytest.raises(ConfigError, match="series only"):
        imported(root, tmp_path / "cache", modality=("cxr",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="expected all_stays"):
        imported(tmp_path / "empty", tmp_path / "cache")


@pytest.fixture(scope="module")
def restated() -> ModuleType:
    """The plain restatement of the published rules that the reference preset is held to."""
    path = Path(__file__).parent / "modalities" / "test_reference_series.py"
    spec = importlib.util.spec_from_file_location("restated", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_tree_of_the_real_demo_gives_the_series_of_its_raw_tables(
    shared: Path, restated: ModuleType, tmp_path: Path
) -> None:
    folder = shared / "data" / "mimiciii_demo"
    stays = restated.kept_stays(folder)
    series = restated.subject_series(folder, stays)
    listed = []
    for stay in stays:
        start, end = restated.when(stay["INTIME"]), restated.when(stay["OUTTIME"])
        lines = []
        for time, (owner, values) in sorted(series.get(stay["SUBJECT_ID"], {}).items()):
            hours = (time - start).total_seconds() / 3600
            ours = owner == stay["ICUSTAY_ID"] or start <= time <= end
            if ours and -1e-6 < hours < 48 + 1e-6:
                lines.append({"Hours": repr(hours), **values})
        if lines and float(stay["LOS"]) >= 2:
            name = f"{stay['SUBJECT_ID']}_episode{len(listed)}_timeseries.csv"
            write(tmp_path / "in-hospital-mortality" / "train" / name, list(header()), lines)
            listed.append({"stay": name, "period_length": 0, "stay_id": stay["ICUSTAY_ID"]})
    for split in ("train", "test"):
        rows = [{**row, "y_true": 0} for row in listed] if split == "train" else []
        columns = ["stay", "period_length", "stay_id", "y_true"]
        write(tmp_path / "in-hospital-mortality" / split / "listfile.csv", columns, rows)
    tree = imported(tmp_path / "in-hospital-mortality", tmp_path / "a", preset="reference")
    extract(ExtractConfig(data=folder, cache=tmp_path / "b", preset="reference"))
    raw = Cohort.open(tmp_path / "b")
    assert tree.stays.num_rows == 57
    keep = pl.Series(raw.stays["in_ihm"].to_pylist()).arg_true().to_numpy()
    ours, theirs = view(tmp_path / "a", tree, "ehr"), view(tmp_path / "b", raw, "ehr")
    assert labels(tree, "stay_id") == [labels(raw, "stay_id")[row] for row in keep]
    assert ours.space == theirs.space
    np.testing.assert_allclose(ours.values, theirs.values[keep], rtol=1e-6)
