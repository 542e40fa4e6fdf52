"""Models of the hub: found in the offline cache alone, fetched only when that is the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cm2.cache import atomic
from cm2.errors import ConfigError, ResourceError
from cm2.extract.encoders import hub, pretraining
from cm2.extract.encoders.weights import Weights, choose

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline cache with one model, as the hub's own tools lay it out."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--someone--small-bert"
    snapshot = model / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    save_file({"x": torch.zeros(1)}, snapshot / "model.safetensors")
    (snapshot / "config.json").write_text("{}")
    return snapshot


def hubs(modality: str = "report") -> tuple[str, ...]:
    return (modality,)


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_model_is_found_by_branch_and_by_commit(revision: str, cached: Path) -> None:
    word = f"hub:someone/small-bert@{revision}"
    found = choose([word], "report", hubs(), synthetic=False)
    assert found.path == cached
    assert found.note == word
    assert found.provenance["commit"] == COMMIT
    assert found.provenance["random_weights"] is False


def test_a_branch_that_moved_changes_the_files_that_are_looked_at(cached: Path) -> None:
    weights = choose(["report=hub:someone/small-bert@main"], "report", hubs(), synthetic=False)
    assert cached.parents[1] / "refs" / "main" in weights.files()
    assert cached / "model.safetensors" in weights.files()


@pytest.mark.parametrize(
    "word",
    ["hub:someone/small-bert", "hub:someone/../up@main", "hub:@main", "hub:a/b/c@main", "hub:a/b@"],
)
def test_a_model_without_its_revision_or_out_of_the_cache_is_refused(
    word: str, cached: Path
) -> None:
    with pytest.raises(ConfigError, match="expected hub:OWNER/NAME@REVISION"):
        choose([word], "report", hubs(), synthetic=False)


@pytest.mark.parametrize("word", ["hub:someone/small-bert@v2", "hub:someone/other@main"])
def test_what_the_cache_lacks_is_named_with_the_command_that_gets_it(
    word: str, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("network")
    )
    with pytest.raises(ConfigError, match=f"cm2 weights fetch {word}"):
        choose([word], "report", hubs(), synthetic=False)


def test_nothing_is_fetched_where_that_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: pytest.fail("network"))
    monkeypatch.setenv("CM2_OFFLINE", "1")
    with pytest.raises(ConfigError, match="CM2_OFFLINE is set"):
        hub.fetch("hub:someone/small-bert@main")


@pytest.mark.parametrize(
    ("listed", "pickled"),
    [(["model.safetensors", "pytorch_model.bin"], False), (["pytorch_model.bin"], True)],
)
def test_pickled_weights_are_fetched_only_where_there_are_no_others(
    listed: list[str], pickled: bool, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(cached)

    monkeypatch.delenv("CM2_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: listed)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.fetch("someone/small-bert@main") == cached
    assert (asked["name"], asked["revision"]) == ("someone/small-bert", "main")
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)
    assert ("pytorch_model.bin" in patterns) == pickled
    assert "*.py" not in patterns


def test_a_failed_download_says_so_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def broken(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.delenv("CM2_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", broken)
    with pytest.raises(ResourceError, match="download failed"):
        hub.fetch("someone/small-bert@main")


def test_an_unfinished_run_is_no_encoder(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "run.json", {"status": "running"})
    with pytest.raises(ConfigError, match="is not finished"):
        choose([str(tmp_path)], "report", hubs(), synthetic=False)


@pytest.mark.parametrize(
    ("name", "data", "warned"),
    [
        ("emilyalsentzer/Bio_ClinicalBERT", "MIMIC-III notes", "has seen"),
        ("microsoft/BiomedVLP-CXR-BERT-general", "MIMIC-CXR reports", "has seen"),
        ("nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121", "by its name", "has seen"),
        ("stanford/densenet121-chexpert", "CheXpert", "may have"),
        ("resnet34-b627a593", "ImageNet-1k", ""),
        ("huawei-noah/TinyBERT_General_4L_312D", "Wikipedia", ""),
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence pairs", ""),
        ("anything/else", "not stated", ""),
    ],
)
def test_encoders_that_saw_mimic_are_known_and_warned_of(
    name: str, data: str, warned: str, tmp_path: Path
) -> None:
    found = pretraining.pretraining(tmp_path / "none", name)
    assert data in found
    said = pretraining.caution("report", found)
    assert warned in said
    assert bool(said) == bool(warned)


def test_what_a_file_states_of_itself_stands_above_its_name(tmp_path: Path) -> None:
    path = tmp_path / "resnet34-b627a593.safetensors"
    save_file(
        {"x": torch.zeros(1)},
        path,
        metadata={"cm2": json.dumps({"pretrained_on": "MIMIC-CXR films"})},
    )
    weights = Weights("cxr", path=path)
    assert weights.pretrained_on == "MIMIC-CXR films"
    assert "has seen patients of MIMIC" in weights.caution
    assert Weights("cxr", seed=0).caution == ""
    assert Weights("cxr", seed=0).pretrained_on == "nothing"


def test_a_folder_may_say_where_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"_name_or_path": "emilyalsentzer/Bio_ClinicalBERT"})
    )
    assert Weights("report", path=tmp_path).pretrained_on == "MIMIC-III notes"
