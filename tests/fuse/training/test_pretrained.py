from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cm2.cache import atomic
from cm2.cache.store import Store
from cm2.extract.encoders.weights import Weights
from cm2.fuse.config import FuseConfig
from cm2.fuse.evaluation import report
from cm2.fuse.identity import identify
from cm2.fuse.training.trainer import fuse


def test_an_encoder_that_saw_the_patients_is_told_of_in_run_and_report_and_changes_no_identity(
    make_cache: Callable[..., Path], tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache")
    config = FuseConfig(
        modalities=("ehr", "cxr"), epochs=1, hidden=8, fusion_hidden=8, model="concat"
    )
    before = identify(config, cache)
    (tmp_path / "rad-dino").mkdir()
    facts = Weights("cxr", path=tmp_path / "rad-dino").provenance
    store = Store.open(cache, "cxr").path
    atomic.write_json(store / "provenance.json", facts)
    found = identify(config, cache)
    assert found.digest == before.digest

    run = fuse(config, cache, tmp_path / "run")
    (said,) = [line for line in run.info["warnings"] if "MIMIC" in line]
    assert said.startswith("cxr (rad-dino): the encoder was pre-trained on chest films, MIMIC-CXR")
    page = report.write_report(run, tmp_path / "report.html", cache=cache).read_text("utf-8")
    assert said in page
    assert "pre-trained on chest films, MIMIC-CXR among them" in page.split("Frozen: encoded", 1)[1]
