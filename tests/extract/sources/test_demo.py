"""The synthetic hospital: same bytes for a seed, known copula, known counts, learnable signal."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import itertools
import json
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy import integrate, stats

from cm2.errors import ConfigError
from cm2.extract.sources.demo import DemoTruth, write_demo
from cm2.extract.sources.demo_films import Film, Sign, jpeg
from cm2.extract.sources.demo_patients import build_hospital, death_probability, frank_uniforms
from cm2.extract.sources.demo_reports import write_report


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoTruth]:
    out = tmp_path_factory.mktemp("demo")
    return out, write_demo(out, stays=40, seed=5)


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_one_seed_gives_the_same_bytes_and_another_seed_other_ones(
    tree: tuple[Path, DemoTruth], tmp_path: Path
) -> None:
    write_demo(tmp_path / "again", stays=40, seed=5)
    write_demo(tmp_path / "other", stays=40, seed=6)
    assert digests(tmp_path / "again") == digests(tree[0])
    other = digests(tmp_path / "other")
    assert other["hosp/patients.csv.gz"] != digests(tree[0])["hosp/patients.csv.gz"]


def test_a_finished_tree_is_left_alone_and_a_half_written_one_is_finished(
    tree: tuple[Path, DemoTruth], tmp_path: Path
) -> None:
    root = tmp_path / "demo"
    truth = write_demo(root, stays=12, seed=1)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_demo(root, stays=12, seed=1) == truth
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    whole = digests(root)
    marker = json.loads((root / "SYNTHETIC.json").read_text())
    (root / "SYNTHETIC.json").write_text(json.dumps({**marker, "complete": False}))
    (root / "icu/icustays.csv.gz").unlink()
    write_demo(root, stays=12, seed=1)
    assert digests(root) == whole


def test_a_folder_of_something_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not empty"):
        write_demo(tmp_path, stays=5)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    write_demo(tmp_path / "demo", stays=5, seed=1)
    with pytest.raises(ConfigError, match="another synthetic tree"):
        write_demo(tmp_path / "demo", stays=5, seed=2)


@pytest.mark.parametrize(
    "table",
    [
        "hosp/patients",
        "hosp/admissions",
        "hosp/labevents",
        "hosp/d_labitems",
        "hosp/diagnoses_icd",
        "icu/icustays",
        "icu/chartevents",
        "icu/d_items",
    ],
)
def test_headers_are_those_of_the_real_tables(
    table: str, tree: tuple[Path, DemoTruth], shared: Path
) -> None:
    def header(root: Path) -> list[str]:
        with gzip.open(root / f"{table}.csv.gz", "rt") as file:
            return next(csv.reader(file))

    assert header(tree[0]) == header(shared / "data/mimiciv_demo")


def test_severities_have_the_dependence_of_the_recorded_frank_copula() -> None:
    theta = 5.0
    u = frank_uniforms(np.random.default_rng(0), 20_000, theta)
    assert np.abs(np.quantile(u, [0.1, 0.5, 0.9], axis=0).T - [0.1, 0.5, 0.9]).max() < 0.015
    debye = integrate.quad(lambda t: t / np.expm1(t), 0, theta)[0] / theta
    expected = 1 - 4 / theta * (1 - debye)  # Kendall's tau of the Frank copula
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert stats.kendalltau(u[:, a], u[:, b]).statistic == pytest.approx(expected, abs=0.015)
    # Frank has no tail dependence: P(all below 0.05) follows its formula, not a clustered corner.
    d = np.expm1(-theta)
    corner = -np.log1p(np.expm1(-theta * 0.05) ** 2 / d) / theta
    below = ((u[:, 0] < 0.05) & (u[:, 1] < 0.05)).mean()
    assert below == pytest.approx(corner, abs=0.003)


def test_hospital_yields_exactly_the_wanted_task_stays_and_nobody_outlives_death() -> None:
    hospital = build_hospital(120, seed=2)
    assert sum(stay.kind == "clean" for stay in hospital.stays) == 120
    died = {a.hadm_id: a for a in hospital.admissions if a.died is not None}
    for stay in hospital.stays:
        assert stay.left > stay.entered
        assert (stay.hours < 48) == (stay.kind == "short") or stay.kind == "pair"
        if stay.hadm_id in died:
            assert stay.left <= died[stay.hadm_id].died == died[stay.hadm_id].discharged
    admissions = sorted(hospital.admissions, key=lambda a: (a.subject_id, a.admitted))
    for first, then in itertools.pairwise(admissions):
        if first.subject_id == then.subject_id:
            assert first.died is None
            assert then.admitted > first.discharged


def test_death_follows_every_modality_and_their_interaction() -> None:
    z = np.zeros(3)
    for place in range(3):
        worse = z.copy()
        worse[place] = 1
        assert death_probability(worse) > death_probability(z) + 0.01

    def logit(e: float, c: float) -> float:
        p = float(death_probability(np.array([e, c, 0.0])))
        return float(np.log(p / (1 - p)))

    assert logit(1, 1) - logit(1, 0) - logit(0, 1) + logit(0, 0) > 0.3


def test_films_are_listed_readable_and_marked_as_synthetic(tree: tuple[Path, DemoTruth]) -> None:
    root, truth = tree
    table = pl.read_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz")
    assert table.height == truth.films == len(list(root.rglob("*.jpg")))
    assert {"AP", "LATERAL"} <= set(table["ViewPosition"].to_list())
    row = table.row(0, named=True)
    subject = str(row["subject_id"])
    path = root / f"files/p{subject[:2]}/p{subject}/s{row['study_id']}/{row['dicom_id']}.jpg"
    with Image.open(path) as film:
        assert (film.mode, film.format, film.size) == ("L", "JPEG", (row["Columns"], row["Rows"]))
        assert b"synthetic" in film.info["comment"]
    assert len(list(root.rglob("s*.txt"))) == truth.reports > 0


def pixels(number: int, z: float, sign: Sign) -> np.ndarray:
    dicom = "-".join(f"{number * 5 + part:08x}" for part in range(5))
    content = jpeg(Film(1, 2, dicom, "AP", datetime(2150, 1, 1), z), seed=0, sign=sign)
    return np.asarray(Image.open(io.BytesIO(content)), float)


def test_a_pattern_turns_over_with_severity_and_leaves_brightness_and_contrast_alone() -> None:
    mild, grave = (np.stack([pixels(n, z, "pattern") for n in range(6)]) for z in (-2.0, 2.0))
    # the same patient, place and contrast: whatever differs is what severity does
    assert abs(mild.mean() - grave.mean()) < 0.2
    assert abs(mild.std((1, 2)) - grave.std((1, 2))).mean() < 1.0
    lungs = [film[:, 80:220, 30:120].reshape(6, -1) for film in (mild, grave)]
    nodules, holes = (stats.skew(grey - np.median(grey), axis=1).mean() for grey in lungs)
    assert nodules - holes > 0.3
    haze = pixels(0, 2.0, "haze").mean() - pixels(0, -2.0, "haze").mean()
    assert haze > 5  # what is held against it here


def test_a_tree_remembers_how_severity_shows_and_an_old_one_shows_haze(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    truth = write_demo(root, stays=5, seed=1)
    marker = json.loads((root / "SYNTHETIC.json").read_text())
    assert marker.pop("sign") == truth.sign == "haze"
    (root / "SYNTHETIC.json").write_text(json.dumps(marker))  # as written before there was another
    assert write_demo(root, stays=5, seed=1) == truth
    with pytest.raises(ConfigError, match="another synthetic tree"):
        write_demo(root, stays=5, seed=1, sign="pattern")
    with pytest.raises(ConfigError, match="haze or pattern"):
        write_demo(tmp_path / "other", stays=5, sign="fog")  # type: ignore[arg-type]


def test_severity_brightens_the_lungs_and_darkens_the_words() -> None:
    def film(number: int, z: float) -> float:
        shown = pixels(number, z, "haze")
        return float(shown[80:220, 40:110].mean() - shown[:40].mean())

    numbers = range(12)
    assert np.mean([film(n, 1.5) for n in numbers]) > np.mean([film(n, -1.5) for n in numbers]) + 8
    rng = np.random.default_rng(0)
    texts = {z: " ".join(write_report(z, rng).lower() for _ in range(40)) for z in (-1.8, 1.8)}
    assert texts[1.8].count("severe") > texts[-1.8].count("severe") + 5
    assert texts[-1.8].count("clear") > texts[1.8].count("clear") + 5
