from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cm2.errors import ConfigError
from cm2.extract import estimate
from cm2.extract.config import ExtractConfig
from cm2.extract.doctor import Check, doctor
from cm2.extract.sources import open_source
from cm2.extract.sources.catalogue import published


def by_name(data: Path | None, cache: Path, verify: bool = False) -> dict[str, Check]:
    return {check.name: check for check in doctor(data, cache, verify)}


def test_a_complete_tree_is_fine_and_nothing_is_written(mimic4: Any, tmp_path: Path) -> None:
    root = mimic4.write(tmp_path / "root")
    before = sorted(tmp_path.rglob("*"))
    checks = by_name(root, tmp_path / "cache")
    assert all(check.ok for check in checks.values())
    assert not any(check.remedy for check in checks.values())
    assert "mimic4" in checks["source"].detail
    assert "rows" in checks["estimate ehr"].detail
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_table_is_named_with_its_purpose(mimic4: Any, tmp_path: Path) -> None:
    root = mimic4.write(tmp_path / "root")
    (root / "hosp" / "labevents.csv.gz").unlink()
    checks = by_name(root, tmp_path)
    assert not checks["hosp/labevents"].ok
    assert "labevents.csv.gz" in checks["hosp/labevents"].remedy
    assert checks["icu/chartevents"].ok
    assert "estimate ehr" not in checks


def test_a_renamed_column_is_found_before_the_work(mimic3: Any, tmp_path: Path) -> None:
    mimic3.headers["chartevents"] = [
        "chart_time" if c == "charttime" else c for c in mimic3.headers["chartevents"]
    ]
    checks = by_name(mimic3.write(tmp_path / "root"), tmp_path)
    assert not checks["chartevents"].ok
    assert "Did you rename chart_time" in checks["chartevents"].remedy


def test_a_truncated_small_table_is_found(mimic3: Any, tmp_path: Path) -> None:
    root = mimic3.write(tmp_path / "root")
    path = root / "icustays.csv.gz"
    path.write_bytes(path.read_bytes()[:-5])
    checks = by_name(root, tmp_path)
    assert not checks["source"].ok
    assert "truncated" in checks["source"].detail


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    checks = by_name(tmp_path, tmp_path / "cache")
    assert not checks["source"].ok
    assert "expected ICUSTAYS" in checks["source"].detail


def test_without_data_only_the_machine_is_examined(tmp_path: Path) -> None:
    checks = by_name(None, tmp_path)
    assert {"python", "torch", "polars", "memory", "cache"} <= set(checks)
    assert "source" not in checks


def test_a_cache_below_a_file_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not by_name(None, tmp_path / "file" / "cache")["cache"].ok


def test_checksums_are_compared(mimic4: Any, tmp_path: Path) -> None:
    root = mimic4.write(tmp_path / "root")
    assert not by_name(root, tmp_path, verify=True)["checksums"].ok
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*.csv.gz")}
    lines = [
        *(f"{hashlib.sha256(p.read_bytes()).hexdigest()} {name}" for name, p in files.items()),
        f"{'0' * 64} icu/absent.csv.gz",
        f"{'0' * 64} ../root/icu/icustays.csv.gz",
    ]
    (root / "SHA256SUMS.txt").write_text("\n".join(lines[:-1]))
    found = by_name(root, tmp_path, verify=True)["checksums"]
    assert found.ok
    assert found.detail == f"{len(files)} files match, 1 listed ones are not here"
    path = files["icu/icustays.csv.gz"]
    path.write_bytes(path.read_bytes() + b"\0")
    found = by_name(root, tmp_path, verify=True)["checksums"]
    assert not found.ok
    assert "icu/icustays.csv.gz" in found.detail


def test_tables_that_are_links_are_compared_and_those_in_no_list_are_named(
    mimic4: Any, tmp_path: Path
) -> None:
    disc = mimic4.write(tmp_path / "disc")
    root = tmp_path / "root"
    for path in disc.rglob("*.csv.gz"):
        link = root / path.relative_to(disc)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.csv.gz"))
    lines = [f"{hashlib.sha256((root / n).read_bytes()).hexdigest()}  {n}" for n in names]
    (root / "SHA256SUMS.txt").write_bytes(b"\xff\n" + "\n".join(lines).encode())
    found = by_name(root, tmp_path, verify=True)["checksums"]
    assert (found.ok, found.detail) == (True, f"{len(names)} files match")
    rest = [line for line in lines if "chartevents" not in line]
    (root / "SHA256SUMS.txt").write_text("\n".join(rest))
    found = by_name(root, tmp_path, verify=True)["checksums"]
    assert not found.ok
    assert "not checked: chartevents.csv.gz" in found.detail


@pytest.mark.parametrize(("compiled", "told"), [(True, "compiled"), (False, "C compiler")])
def test_it_says_whether_long_tables_are_read_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool, told: str
) -> None:
    monkeypatch.setattr("cm2.extract.doctor.COMPILED", compiled)
    check = by_name(None, tmp_path)["row filter"]
    assert check.ok
    assert told in check.detail
    assert ("not compiled" in check.detail) is not compiled


def test_verify_without_data_is_refused_not_ignored(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data"):
        doctor(None, tmp_path, verify=True)


def test_a_missing_or_old_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda n: "1.9" if n == "torch" else real(n))
    found = by_name(None, tmp_path)["torch"]
    assert (found.ok, found.detail) == (False, "1.9, expected 2.10 or later")

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert by_name(None, tmp_path)["h5py"].detail == "not installed"


def test_the_examination_does_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cm2.extract.doctor import doctor; "
        f"doctor(None, Path({str(tmp_path)!r}), False); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_estimate_is_near_the_truth_on_the_demo(shared: Path, tmp_path: Path) -> None:
    root = shared / "data" / "mimiciii_demo"
    config = ExtractConfig(data=root, cache=tmp_path)
    told = estimate.ehr(open_source(root), config, published("corrected"))
    assert told.rows == pytest.approx(758355 + 76074, rel=0.3)
    assert told.items == pytest.approx(114, rel=0.3)
    assert told.minutes < 0.2
    assert told.missing == ""
    assert told.as_row()["modality"] == "ehr"


def test_a_table_shorter_than_in_its_release_and_a_missing_part_are_named(
    shared: Path, tmp_path: Path
) -> None:
    root = tmp_path / "demo"
    shutil.copytree(shared / "data" / "mimiciii_demo", root)
    table = root / "ICUSTAYS.csv.gz"
    lines = gzip.decompress(table.read_bytes()).splitlines(keepends=True)
    table.write_bytes(gzip.compress(b"".join(lines[:-2])))
    (root / "LABEVENTS.csv.gz").rename(root / "LABEVENTS_2.csv.gz")
    checks = {check.name: check for check in doctor(root, tmp_path / "cache", False)}
    assert not checks["rows"].ok
    assert "icustays has 134 rows, 136 in the release" in checks["rows"].detail
    assert not checks["labevents"].ok
    assert "part 1 is missing" in checks["labevents"].detail
