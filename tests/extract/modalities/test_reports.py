"""Reports as items: one vector per section that is there, token ids kept, bad texts rejected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cm2.cache.store import EncodedShard
from cm2.extract.encoders.text import TextEncoder
from cm2.extract.encoders.weights import Weights
from cm2.extract.modalities.reports import ReportEncoder
from cm2.extract.modalities.texts import LARGEST_BYTES, blank
from cm2.extract.work import Work

WHOLE = "\n COMPARISON: None.\n \n FINDINGS: The lungs are clear.\n \n IMPRESSION: No edema.\n"


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return TextEncoder("tinybert", Weights("report", seed=0))


def encode(text: TextEncoder, folder: Path, **reports: str | bytes) -> EncodedShard:
    work = []
    for name, content in reports.items():
        path = folder / f"{name}.txt"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        work.append(Work(name, "", path, {"hours_from_intime": 1.5}))
    return ReportEncoder(text)(work)


def test_every_section_has_its_vector_and_empty_ones_are_masked(
    text: TextEncoder, tmp_path: Path
) -> None:
    shard = encode(text, tmp_path, a=WHOLE, b="\n IMPRESSION: No edema.\n")
    assert shard.item_ids == ["a", "b"]
    assert shard.arrays["values"].shape == (2, 4, 312)
    # impression, findings, last paragraph, comparison
    assert shard.arrays["mask"].tolist() == [
        [True, True, False, True],
        [True, False, False, False],
    ]
    tokens = text.tokenise(["No edema.", "The lungs are clear.", "None."])
    expected = text.encode(tokens)
    for section, vector in zip((0, 1, 3), expected, strict=True):
        np.testing.assert_allclose(shard.arrays["values"][0, section], vector, atol=1e-5)
    np.testing.assert_allclose(shard.arrays["values"][1, 0], expected[0], atol=1e-5)
    assert not shard.arrays["values"][~shard.arrays["mask"]].any()


def test_token_ids_are_kept_up_to_their_length(text: TextEncoder, tmp_path: Path) -> None:
    shard = encode(text, tmp_path, a=WHOLE)
    lengths = shard.arrays["length"][0]
    kept = [shard.arrays["ids"][0, part, :length].tolist() for part, length in enumerate(lengths)]
    assert kept == [
        *text.tokenise(["No edema.", "The lungs are clear."]),
        [],
        *text.tokenise(["None."]),
    ]
    assert shard.facts["tokens"] == [int(lengths.sum())]
    assert shard.facts["truncated"] == [False]
    assert shard.facts["hours_from_intime"] == [1.5]


def test_a_text_beyond_the_longest_length_is_cut_and_says_so(
    text: TextEncoder, tmp_path: Path
) -> None:
    shard = encode(text, tmp_path, long="\n IMPRESSION: " + "edema " * 900)
    assert shard.facts["truncated"] == [True]
    assert shard.arrays["length"].tolist() == [[512, 0, 0, 0]]


BAD: dict[str, tuple[str | bytes, str, str]] = {
    "empty": (b"", "read", "EmptyFile"),
    "blank": (" \n \n", "decode", "EmptyText"),
    "latin": (b"\n IMPRESSION: \xe9 edema", "decode", "NotText"),
    "nul": ("\n IMPRESSION: ed\x00ema", "decode", "ControlCharacters"),
    "escape": ("\n IMPRESSION: \x1b[31m edema", "decode", "ControlCharacters"),
    "long": ("\n IMPRESSION: " + "x" * LARGEST_BYTES, "read", "TooLong"),
    "unknown": ("\n IMPRESSION: 日本語 العربية\n", "tokenise", "UnknownTokens"),
    "sections": ("\n INDICATION: Cough.\n", "tokenise", "NoSection"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_text_is_a_reject_of_its_class_among_good_ones(
    name: str, text: TextEncoder, tmp_path: Path
) -> None:
    content, stage, kind = BAD[name]
    shard = encode(text, tmp_path, good=WHOLE, bad=content, fine=WHOLE)
    assert shard.item_ids == ["good", "fine"]
    assert [(r.item_id, r.stage, r.error) for r in shard.rejects] == [("bad", stage, kind)]
    assert "edema" not in shard.rejects[0].message
    assert "Cough" not in shard.rejects[0].message


def test_right_to_left_text_beside_known_words_is_encoded(
    text: TextEncoder, tmp_path: Path
) -> None:
    assert encode(text, tmp_path, a="\n IMPRESSION: العربية edema\n").item_ids == ["a"]


def test_a_report_that_the_encoder_cannot_bear_is_a_reject_alone(
    text: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = text.encode

    def broken(ids: list[list[int]]) -> np.ndarray:
        vectors = real(ids)
        vectors[4] = np.nan  # the second section of the second report
        return vectors

    monkeypatch.setattr(text, "encode", broken)
    shard = encode(text, tmp_path, a=WHOLE, b=WHOLE, c=WHOLE)
    assert shard.item_ids == ["a", "c"]
    assert [(r.item_id, r.stage) for r in shard.rejects] == [("b", "nonfinite")]
    assert np.isfinite(shard.arrays["values"]).all()


def test_the_blank_has_the_shape_of_an_item(text: TextEncoder) -> None:
    found = blank(text, 4)
    assert found.shape == (4, 312)
    np.testing.assert_array_equal(found[0], found[3])


def test_a_shard_without_any_good_report_is_a_shard(text: TextEncoder, tmp_path: Path) -> None:
    shard = encode(text, tmp_path, a=b"", b="  ")
    assert shard.item_ids == []
    assert len(shard.rejects) == 2
