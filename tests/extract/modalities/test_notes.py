"""Notes of MIMIC-III: exact hours, nothing wrong, late or too few; and their cleaned texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cm2.cache.cohort import Cohort
from cm2.cache.store import Store
from cm2.cache.view import view
from cm2.errors import DataError, SchemaError, UnsupportedError
from cm2.extract.config import ExtractConfig
from cm2.extract.encoders.text import TextEncoder
from cm2.extract.encoders.weights import Weights
from cm2.extract.modalities.note_text import clean
from cm2.extract.modalities.notes import read_note
from cm2.extract.modalities.texts import TextShards
from cm2.extract.runner import extract
from cm2.extract.work import Work

from ..conftest import Tree, at

HEADER = ["row_id", "subject_id", "hadm_id", "chartdate", "charttime", "storetime", "category"]
HEADER += ["description", "cgid", "iserror", "text"]


def note(
    row: int, hours: float | None, text: str = "Lungs are clear.", **more: str
) -> dict[str, str]:
    """A note of stay 1000, so many hours after its entry on the second of January."""
    time = "" if hours is None else at(hours, 2)
    base = {"row_id": str(row), "subject_id": "10", "hadm_id": "100", "charttime": time}
    return {**base, "category": "Nursing", "text": text, **more}


def written(tree: Tree, root: Path, *notes: dict[str, str], **options: Any) -> Path:
    for row in tree.tables["icustays"]:
        if row["icustay_id"] == "1000":
            row |= {"intime": at(0, 2), "outtime": at(60, 2)}
    tree.tables["noteevents"] = list(notes)
    tree.headers["noteevents"] = HEADER
    return tree.write(root, **options)


def config(data: Path, cache: Path, **more: Any) -> ExtractConfig:
    given = {"modality": "note", "weights": ("random:0",), "note_min": 1, **more}
    return ExtractConfig.model_validate({"data": data, "cache": cache, **given})


def linked(cache: Path, stay: int = 1000) -> tuple[list[str], str | None]:
    rows = Cohort.open(cache).links("note").table.to_pylist()
    return next((row["items"], row["why_no"]) for row in rows if row["stay_id"] == stay)


def taken(tree: Tree, tmp_path: Path, *notes: dict[str, str], **more: Any) -> list[str]:
    cache = tmp_path / "cache"
    extract(config(written(tree, tmp_path / "data", *notes), cache, **more))
    return linked(cache)[0]


def test_hours_count_exactly_from_icu_entry_with_both_ends(mimic3: Tree, tmp_path: Path) -> None:
    minute = 1 / 60
    found = taken(
        mimic3,
        tmp_path,
        note(1, -minute),
        note(2, 0),
        note(3, 0.5),
        note(4, 48),
        note(5, 48 + minute),
    )
    assert found == ["n2", "n3", "n4"]
    store = Store.open(tmp_path / "cache", "note")
    hours = dict(
        zip(
            store.items["item_id"].to_pylist(),
            store.items["hours_from_intime"].to_pylist(),
            strict=True,
        )
    )
    assert hours == {"n2": 0.0, "n3": 0.5, "n4": 48.0}


@pytest.mark.parametrize(
    "bad",
    [
        {"iserror": "1"},
        {"category": "Discharge summary"},
        {"category": "Discharge summary  "},
        {"charttime": ""},
        {"hadm_id": ""},
        {"hadm_id": "101"},
        {"subject_id": "11"},
        {"text": ""},
        {"storetime": at(49, 2)},
    ],
    ids=str,
)
def test_what_is_wrong_late_or_of_another_admission_is_left_out(
    bad: dict[str, str], mimic3: Tree, tmp_path: Path
) -> None:
    good = note(2, 5, storetime=at(6, 2), category="Physician ")
    assert taken(mimic3, tmp_path, note(1, 4, **bad), good) == ["n2"]


def test_notes_of_one_time_are_all_kept_in_the_order_of_their_ids(
    mimic3: Tree, tmp_path: Path
) -> None:
    notes = [note(9, 3), note(10, 3), note(2, 3), note(5, 1)]
    assert taken(mimic3, tmp_path, *notes) == ["n5", "n2", "n9", "n10"]


def test_the_last_ones_are_kept_and_too_few_are_none(mimic3: Tree, tmp_path: Path) -> None:
    notes = [note(row, row) for row in range(1, 8)]
    assert taken(mimic3, tmp_path, *notes, note_min=5) == [f"n{row}" for row in range(3, 8)]
    cache = tmp_path / "second"
    data = tmp_path / "data"
    extract(config(data, cache, note_min=2, note_max=2))
    assert linked(cache) == (["n6", "n7"], None)
    extract(config(data, cache, note_min=8, note_max=9))
    assert linked(cache) == ([], "too_few_notes")
    assert linked(cache, 1001) == ([], "no_note")


def test_notes_before_entry_count_only_when_asked_for(mimic3: Tree, tmp_path: Path) -> None:
    data = written(mimic3, tmp_path / "data", note(1, -5), note(2, -20))
    extract(config(data, tmp_path / "a"))
    assert linked(tmp_path / "a") == ([], "outside_window")
    extract(config(data, tmp_path / "b", note_lead_hours=5))
    assert linked(tmp_path / "b") == (["n1"], None)


def test_notes_become_vectors_of_their_cleaned_texts_in_time_order(
    mimic3: Tree, tmp_path: Path
) -> None:
    first = 'Severe "edema",\nseen by [**Doctor Last Name**] ___ today.\n\n'
    texts = {
        1: first + "Electronically signed on x",
        2: "Lungs are clear,\r\nno effusion",
    }
    data = written(mimic3, tmp_path / "data", note(2, 9, texts[2]), note(1, 4, texts[1]))
    cache = tmp_path / "cache"
    summary = extract(config(data, cache)).modalities[0]
    assert (summary.items, summary.encoded, summary.stays, summary.rejected) == (2, 2, 1, 0)
    found = view(cache, Cohort.open(cache), "note")
    row = Cohort.open(cache).stays["stay_id"].to_pylist().index(1000)
    encoder = TextEncoder("tinybert", Weights("note", seed=0))
    cleaned = ['Severe "edema", seen by today.', "Lungs are clear, no effusion"]
    expected = encoder.encode(encoder.tokenise(cleaned))
    np.testing.assert_allclose(found.values[row], expected, atol=1e-5)
    assert found.mask[row].tolist() == [True, True]
    assert found.has.sum() == 1
    again = extract(config(data, cache)).modalities[0]
    assert (again.encoded, again.seconds) == (0, 0.0)


def test_the_order_and_form_of_the_table_do_not_matter(mimic3: Tree, tmp_path: Path) -> None:
    notes = [note(row, row % 3, f"Edema, effusion {row}.\nClear.") for row in range(1, 9)]
    shards = []
    for name, options in {"a": {}, "b": {"upper": True, "gz": False, "shuffle": 4}}.items():
        written(mimic3, tmp_path / name, *notes, **options)
        cache = tmp_path / f"cache-{name}"
        extract(config(tmp_path / name, cache, note_max=20))
        shards.append(
            {path.name: path.read_bytes() for path in cache.glob("stores/note/*/shard-*.h5")}
        )
    assert shards[0] == shards[1]
    assert len(shards[0]) == 1


def test_an_empty_or_absent_table_is_explained(mimic3: Tree, tmp_path: Path, shared: Path) -> None:
    data = written(mimic3, tmp_path / "data")
    with pytest.raises(DataError, match="has no row, as in the open demo"):
        extract(config(data, tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()
    demo = shared / "data" / "mimiciii_demo"
    with pytest.raises(DataError, match="has no row, as in the open demo"):
        extract(config(demo, tmp_path / "cache"))


def test_all_leaves_notes_out_where_there_are_none(mimic3: Tree, tmp_path: Path) -> None:
    data = written(mimic3, tmp_path / "data")
    done = extract(ExtractConfig(data=data, cache=tmp_path / "cache", modality="all"))
    assert [m.name for m in done.modalities] == ["ehr", "static"]
    data = written(mimic3, tmp_path / "other", note(1, 2))
    done = extract(config(data, tmp_path / "other-cache", modality="all"))
    assert [m.name for m in done.modalities] == ["ehr", "note", "static"]


def test_another_data_set_and_an_unreadable_time_are_errors(
    mimic3: Tree, mimic4: Tree, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match="offered for MIMIC-III"):
        extract(config(mimic4.write(tmp_path / "four"), tmp_path / "cache"))
    data = written(mimic3, tmp_path / "three", note(1, 2), note(2, 2, charttime="soon"))
    with pytest.raises(SchemaError, match=r"charttime, data row 2: expected a time") as caught:
        extract(config(data, tmp_path / "cache3"))
    assert "soon" not in str(caught.value)
    data = written(mimic3, tmp_path / "double", note(1, 2), note(1, 3))
    with pytest.raises(DataError, match="a ROW_ID in several rows"):
        extract(config(data, tmp_path / "cache4"))


def test_asking_for_more_notes_than_are_kept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--note-min 6 asks for more"):
        config(tmp_path, tmp_path, note_min=6)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Seen by [**Known\nlastname 12**].", "Seen by ."),
        ("A ____ b\n\n\tc", "A b c"),
        ("Fine.    DR. Who", "Fine."),
        ("Fine. RADLINE 7; x", "Fine."),
        ("Fine, BY ELECTRONICALLY SIGNING THIS REPORT I", "Fine,"),
        ("Fine. Electronically signed by: x", "Fine."),
        ("See dr. Who", "See dr. Who"),
        ("[**Name**]\n Electronically signed on", ""),
    ],
)
def test_placeholders_and_signatures_go(raw: str, text: str) -> None:
    assert clean(raw) == text


def test_a_note_of_a_signature_alone_is_absence_and_a_bad_one_a_reject(
    mimic3: Tree, tmp_path: Path
) -> None:
    signature = note(1, 1, "[**Name**]   DR. [**Name**]")
    broken = note(2, 2, "ed\x07ema")
    data = written(mimic3, tmp_path / "data", signature, broken, note(3, 3))
    cache = tmp_path / "cache"
    done = extract(config(data, cache, max_reject=1.0)).modalities[0]
    assert (done.rejected, done.stays) == (1, 1)
    rejects = Store.open(cache, "note").rejects.to_pylist()
    assert {(r["item_id"], r["error"]) for r in rejects} == {
        ("n1", "EmptyText"),
        ("n2", "ControlCharacters"),
    }


def test_long_notes_are_cut_or_read_in_windows() -> None:
    weights = Weights("note", seed=0)
    item = Work("n1", "0" * 64, "edema " * 900, {"hours_from_intime": 1.0})
    cut = TextShards(TextEncoder("tinybert", weights), read_note)([item])
    whole = TextShards(TextEncoder("tinybert", weights, long="windows"), read_note)([item])
    assert (cut.arrays["length"].tolist(), cut.facts["truncated"]) == ([512], [True])
    assert (whole.arrays["length"].tolist(), whole.facts["truncated"]) == ([902], [False])
    assert whole.arrays["values"].shape == (1, 312)


def test_an_encoder_that_saw_mimic_is_warned_of_and_recorded(
    mimic3: Tree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import json
    import shutil

    from safetensors.torch import load_file, save_file
    from transformers import BertConfig, BertModel, BertTokenizer

    from cm2.extract.encoders.text import VOCABULARY

    folder = tmp_path / "encoder"
    words = VOCABULARY.read_text().splitlines()
    BertTokenizer(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(words), intermediate_size=16, **shape)).save_pretrained(
        folder
    )
    file = folder / "model.safetensors"
    data = written(mimic3, tmp_path / "data", note(1, 2))
    spaces = []
    for pretrained_on, name in (("web pages", "a"), ("MIMIC-III notes", "b")):
        facts = json.dumps({"pretrained_on": pretrained_on})
        save_file(load_file(file), file, metadata={"cm2": facts})
        caplog.clear()
        cache = tmp_path / name
        for _ in range(2):  # told again when nothing had to be done
            done = extract(config(data, cache, weights=(str(folder),))).modalities[0]
            assert bool(done.caution) == ("MIMIC" in pretrained_on)
        warned = [r.message for r in caplog.records if "has seen patients of MIMIC" in r.message]
        assert len(warned) == (2 if "MIMIC" in pretrained_on else 0)
        assert Store.open(cache, "note").provenance["pretrained_on"] == pretrained_on
        spaces.append(done.space)
    shutil.copytree(folder, tmp_path / "another place")
    again = extract(config(data, tmp_path / "c", weights=(str(tmp_path / "another place"),)))
    assert again.modalities[0].space == spaces[1]
