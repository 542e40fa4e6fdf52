"""A thousand bad texts of a dozen kinds among good ones: each its class, the good ones encoded."""

from __future__ import annotations

import gzip
import resource
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from cm2.cache.store import Space, Store
from cm2.errors import RejectsError
from cm2.extract import engine
from cm2.extract.config import ExtractConfig
from cm2.extract.encoders.text import VOCABULARY, TextEncoder
from cm2.extract.encoders.weights import Weights
from cm2.extract.modalities.reports import ReportEncoder
from cm2.extract.modalities.texts import LARGEST_BYTES
from cm2.extract.runner import extract
from cm2.extract.sources.report_texts import open_texts
from cm2.extract.work import Plan, Work
from cm2.progress import never, silent

from ..conftest import Tree
from .test_notes import config, note, written

SECRET = "Xanthippe"
GOOD = f"\n FINDINGS: {SECRET} lungs are clear.\n \n IMPRESSION: No edema.\n"
KINDS: dict[str, tuple[bytes | None, str, str]] = {
    "nothing": (b"", "read", "EmptyFile"),
    "blank": (b" \n\t\n ", "decode", "EmptyText"),
    "latin-1": (f"\n IMPRESSION: {SECRET} \xe9".encode("latin-1"), "decode", "NotText"),
    "utf-16": (f"\n IMPRESSION: {SECRET}".encode("utf-16"), "decode", "NotText"),
    "cut": ("\n IMPRESSION: 日本".encode()[:-1], "decode", "NotText"),
    "picture": (b"\xff\xd8\xff\xe0" + bytes(range(256)) * 9, "decode", "NotText"),
    "packed": (gzip.compress(GOOD.encode(), mtime=0), "decode", "NotText"),
    "nul": (f"\n IMPRESSION: {SECRET}\0\n".encode(), "decode", "ControlCharacters"),
    "escape": (f"\n IMPRESSION: \x1b[31m{SECRET}\n".encode(), "decode", "ControlCharacters"),
    "endless": (f"\n IMPRESSION: {SECRET}".encode() + b" x" * LARGEST_BYTES, "read", "TooLong"),
    "unknown": ("\n IMPRESSION: 日本語 العربية 🫁\n".encode(), "tokenise", "UnknownTokens"),
    "headers": (f"\n INDICATION: {SECRET}.\n".encode(), "tokenise", "NoSection"),
    "folder": (None, "read", "IsADirectoryError"),
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    """A BERT of 16 numbers, so that a thousand texts take a second."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("small")
    words = VOCABULARY.read_text().splitlines()
    BertTokenizer(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = BertModel(BertConfig(vocab_size=len(words), intermediate_size=16, **shape))
    made.save_pretrained(folder)
    return TextEncoder("tinybert", Weights("report", path=folder), "cpu")


def plan(root: Path, count: int, encoder: TextEncoder) -> tuple[Plan, dict[str, str]]:
    """`count` texts in a tree, two of three bad, and the kind of each."""
    names, kinds = list(KINDS), {}
    for place in range(count):
        study = 50_000_000 + place
        path = root / f"files/p10/p10000001/s{study}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "good" if place % 3 == 0 else names[place % len(names)]
        content = GOOD.encode() if kind == "good" else KINDS[kind][0]
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
        kinds[f"s{study}"] = kind
    studies = pl.DataFrame({"study_id": [int(item[1:]) for item in kinds]})
    found = open_texts(root).of(studies.with_columns(subject_id=pl.lit(10_000_001)))
    work = [Work(f"s{study}", *found[study], {}) for study in sorted(found)]
    links = pa.table({"stay_id": [0], "items": [[]], "has": [False], "why_no": ["none"]})
    space = Space("report", "vector", dict(encoder.parts))
    return Plan(space, work, links, {}, {}, ReportEncoder(encoder), 64), kinds


def test_every_bad_text_has_its_class_and_stage_and_every_good_one_its_vector(
    tmp_path: Path, encoder: TextEncoder
) -> None:
    planned, kinds = plan(tmp_path / "data", 1500, encoder)
    settings = ExtractConfig(data=tmp_path, cache=tmp_path / "cache")
    engine.encode(settings, replace(planned, work=planned.work[:200]), silent, never())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store, _, complete = engine.encode(settings, planned, silent, never())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert complete
    assert grown < 50_000  # kB
    good = {item for item, kind in kinds.items() if kind == "good"}
    assert set(store.items["item_id"].to_pylist()) == good
    rejects = store.rejects.to_pylist()
    assert len(rejects) == 1000
    for row in rejects:
        assert (row["stage"], row["error"]) == KINDS[kinds[row["item_id"]]][1:], row
        assert SECRET not in row["message"]
    assert set(Counter(kinds.values())) == {*KINDS, "good"}
    vectors = store.read(sorted(good))["values"]
    np.testing.assert_allclose(vectors, np.broadcast_to(vectors[:1], vectors.shape), atol=1e-6)
    assert np.abs(vectors[0, :2]).max() > 0.01


def test_too_many_bad_notes_end_with_exit_code_4_and_the_good_ones_are_stored(
    mimic3: Tree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = ["a\x01b", "日本語", "x " * LARGEST_BYTES, "\x1b[0m"]
    notes = [note(row, 1 + row % 40, f"{SECRET} lungs are clear.") for row in range(100)]
    notes += [note(100 + row, 2, SECRET + text if row else text) for row, text in enumerate(bad)]
    data, cache = written(mimic3, tmp_path / "data", *notes), tmp_path / "cache"
    options: dict[str, Any] = {"note_max": 1000, "weights": ("random:0",)}
    with pytest.raises(RejectsError, match=r"note: \d of 104 items") as caught:
        extract(config(data, cache, **options))
    assert caught.value.exit_code == 4
    assert SECRET not in str(caught.value) + caplog.text
    store = Store.open(cache, "note")
    assert store.items.num_rows + store.rejects.num_rows == 104
    assert store.items.num_rows >= 100
    done = extract(config(data, cache, max_reject="10%", **options)).modalities[0]
    assert (done.complete, done.encoded) == (True, 0)
