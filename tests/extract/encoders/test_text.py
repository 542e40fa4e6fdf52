"""Text encoder: transformers' own [CLS] vectors in any batch; folders complete or refused."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from cm2.errors import ConfigError, UnsupportedError
from cm2.extract.encoders.text import MOST_WINDOWS, VOCABULARY, Pooling, TextEncoder, buckets
from cm2.extract.encoders.weights import INDEX, Weights

TEXTS = [
    "The lungs are clear.",
    "",
    "Severe diffuse opacities in both lungs. " * 90,
    "Heart size is normal; no pleural effusion or pneumothorax.",
    "xyzzy",
    "Small.",
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder("tinybert", Weights("report", seed=0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of another width as transformers saves it, with a head."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    out = tmp_path_factory.mktemp("bert")
    words = VOCABULARY.read_text().splitlines()
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    tokenizer.save_pretrained(out)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        BertForSequenceClassification(config).eval().save_pretrained(out)
    return out


def test_vectors_equal_one_text_at_a_time_through_transformers(folder: Path) -> None:
    from transformers import AutoTokenizer, BertModel

    encoder = TextEncoder("tinybert", Weights("report", path=folder), batch_tokens=64)
    found = encoder.encode(encoder.tokenise(TEXTS))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    assert found.shape == (len(TEXTS), 32)
    for text, vector in zip(TEXTS, found, strict=True):
        tokens = tokenizer(
            text, return_tensors="pt", truncation=True, max_length=128, padding="max_length"
        )
        with torch.inference_mode():
            expected = network(**tokens).last_hidden_state[0, 0].numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-5)


@pytest.fixture(scope="module")
def parts(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same BERT with its weights in several files."""
    from transformers import BertForSequenceClassification

    out = tmp_path_factory.mktemp("parts")
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, out)
    network = BertForSequenceClassification.from_pretrained(folder)
    network.save_pretrained(out, max_shard_size="20KB")
    assert not (out / "model.safetensors").exists()
    assert len(list(out.glob("*.safetensors"))) > 2
    return out


def test_weights_in_parts_give_the_vectors_of_one_file(folder: Path, parts: Path) -> None:
    one, many = (TextEncoder("tinybert", Weights("report", path=p)) for p in (folder, parts))
    vectors = [encoder.encode(encoder.tokenise(TEXTS)) for encoder in (one, many)]
    np.testing.assert_array_equal(*vectors)
    assert one.sha256 != many.sha256


def test_parts_that_are_missing_doubled_or_elsewhere_are_refused(
    parts: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(parts, tmp_path / "copy")
    names = sorted(file.name for file in copy.glob("*.safetensors"))
    shutil.copy(copy / names[0], copy / names[1])
    with pytest.raises(ConfigError, match="stands in another part too"):
        Weights("report", path=copy).state()
    (copy / names[1]).unlink()
    with pytest.raises(ConfigError, match=rf"1 of the {len(names)} .* first {names[1]}"):
        Weights("report", path=copy).parts()
    (copy / INDEX).write_text('{"weight_map": {"a": "../model.safetensors"}}')
    with pytest.raises(ConfigError, match=r"weight_map from tensors to \.safetensors files of its"):
        Weights("report", path=copy).parts()


def test_order_and_batch_size_do_not_change_a_vector(encoder: TextEncoder) -> None:
    ids = encoder.tokenise(TEXTS)
    vectors = encoder.encode(ids)
    assert vectors.shape == (len(TEXTS), 312)
    backwards = encoder.encode(ids[::-1])[::-1]
    np.testing.assert_array_equal(vectors, backwards)
    small = TextEncoder("tinybert", Weights("report", seed=0), batch_tokens=16)
    np.testing.assert_allclose(small.encode(ids), vectors, atol=1e-5)


def test_texts_are_cut_at_the_longest_length(encoder: TextEncoder, folder: Path) -> None:
    lengths = [len(ids) for ids in encoder.tokenise(TEXTS)]
    assert max(lengths) == 512
    assert lengths[1] == 2  # the two special tokens of an empty text
    other = TextEncoder("tinybert", Weights("report", path=folder))
    assert max(len(ids) for ids in other.tokenise(TEXTS)) == 128


def test_the_vocabulary_knows_the_words_of_the_demo_and_tells_silence(encoder: TextEncoder) -> None:
    import numpy

    from cm2.extract.sources.demo_reports import write_report

    rng = numpy.random.default_rng(0)
    texts = [write_report(z, rng) for z in (-2.0, -1.0, 0.0, 1.0, 2.0) for _ in range(5)]
    unknown = [token for ids in encoder.tokenise(texts) for token in ids if token == 1]
    assert not unknown
    silent, spoken, empty = encoder.tokenise(["日本語 العربية", "clear", ""])
    assert not encoder.says_something(silent)
    assert not encoder.says_something(empty)
    assert encoder.says_something(spoken)


def test_a_seed_names_its_vectors(encoder: TextEncoder) -> None:
    again = TextEncoder("tinybert", Weights("report", seed=0))
    other = TextEncoder("tinybert", Weights("report", seed=1))
    assert encoder.sha256 == again.sha256 != other.sha256
    ids = encoder.tokenise(TEXTS[:1])
    np.testing.assert_array_equal(encoder.encode(ids), again.encode(ids))
    assert np.abs(encoder.encode(ids) - other.encode(ids)).max() > 0.01


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    broken = copied(folder, tmp_path)
    (broken / name).unlink()
    with pytest.raises(ConfigError, match=f"lacks {name}"):
        TextEncoder("tinybert", Weights("report", path=broken))


def test_a_folder_without_a_tokenizer_or_a_single_file_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    broken = copied(folder, tmp_path)
    for name in ("tokenizer.json", "vocab.txt"):
        (broken / name).unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"tokenizer\.json or vocab\.txt"):
        TextEncoder("tinybert", Weights("report", path=broken))
    with pytest.raises(ConfigError, match="single file"):
        TextEncoder("tinybert", Weights("report", path=folder / "model.safetensors"))


def test_another_kind_of_network_is_refused(folder: Path, tmp_path: Path) -> None:
    broken = copied(folder, tmp_path)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(UnsupportedError, match="found gpt2"):
        TextEncoder("tinybert", Weights("report", path=broken))
    (broken / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="expected the configuration of a text encoder"):
        TextEncoder("tinybert", Weights("report", path=broken))


def test_weights_of_another_shape_are_refused(folder: Path, tmp_path: Path) -> None:
    broken = copied(folder, tmp_path)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    encoder = TextEncoder("tinybert", Weights("report", path=broken))
    with pytest.raises(ConfigError, match="missing"):
        encoder.encode([[2, 3]])


def test_the_tokenizer_is_part_of_what_makes_vectors_comparable(
    folder: Path, tmp_path: Path
) -> None:
    other = copied(folder, tmp_path)
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"lowercase": true', '"lowercase": false'))
    assert (other / "tokenizer.json").read_text() != text
    encoders = [TextEncoder("tinybert", Weights("report", path=path)) for path in (folder, other)]
    assert encoders[0].sha256 == encoders[1].sha256
    assert encoders[0].tokenizer_sha256 != encoders[1].tokenizer_sha256


KINDS = ["BertModel", "RobertaForMaskedLM", "DistilBertForMaskedLM", "ElectraForPreTraining"]
KINDS += ["MPNetModel", "DebertaV2Model"]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_encoder_of_transformers_gives_its_own_vectors(
    kind: str, pooling: Pooling, folder: Path, tmp_path: Path
) -> None:
    import transformers

    made = getattr(transformers, kind)
    config = made.config_class(
        vocab_size=400,
        hidden_size=32,
        dim=32,  # of distilbert
        embedding_size=16,  # of electra
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_dim=64,
        max_position_embeddings=66,
        pad_token_id=0,
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path / name)
    size = len(VOCABULARY.read_text().splitlines())
    config.vocab_size = size + 3
    with torch.random.fork_rng():
        torch.manual_seed(3)
        whole = made(config).eval()
    whole.save_pretrained(tmp_path)
    weights = Weights("report", path=tmp_path)
    encoder = TextEncoder("tinybert", weights, batch_tokens=64, pooling=pooling)
    assert encoder.max_tokens == (64 if kind in ("RobertaForMaskedLM", "MPNetModel") else 66)
    ids = encoder.tokenise(TEXTS)
    base = getattr(whole, whole.base_model_prefix, whole)
    for row, vector in zip(ids, encoder.encode(ids), strict=True):
        with torch.inference_mode():
            hidden = base(torch.tensor([row])).last_hidden_state[0]
        expected = hidden[0] if pooling == "cls" else hidden.mean(0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_windows_hold_the_whole_of_a_long_text_and_are_averaged_by_length(folder: Path) -> None:
    weights = Weights("report", path=folder)
    cut = TextEncoder("tinybert", weights, max_tokens=32)
    encoder = TextEncoder("tinybert", weights, max_tokens=32, long="windows")
    text = " ".join(["lungs clear severe edema small pleural effusion"] * 11)
    (ids,) = encoder.tokenise([text])
    body = ids[1:-1]
    assert len(body) > 60
    assert len(cut.tokenise([text])[0]) == 32
    count = -(-len(body) // 30)
    bounds = [len(body) * place // count for place in range(count + 1)]
    windows = [body[start:end] for start, end in pairwise(bounds)]
    assert [token for window in windows for token in window] == body
    assert max(map(len, windows)) <= 30
    assert max(map(len, windows)) - min(map(len, windows)) <= 1
    single = cut.encode([[ids[0], *window, ids[-1]] for window in windows])
    expected = np.average(single, axis=0, weights=[len(window) for window in windows])
    short = encoder.tokenise(["Small."])[0]
    found = encoder.encode([short, ids, short])
    np.testing.assert_allclose(found[1], expected, atol=1e-5)
    np.testing.assert_allclose(found[[0, 2]], cut.encode([short, short]), atol=1e-5)
    assert encoder.parts["long"] == "windows" != cut.parts["long"]


def test_a_text_beyond_the_most_windows_is_cut(folder: Path) -> None:
    weights = Weights("report", path=folder)
    encoder = TextEncoder("tinybert", weights, max_tokens=16, long="windows")
    (ids,) = encoder.tokenise(["edema " * 5000])
    assert len(ids) == encoder.most_tokens == MOST_WINDOWS * 14 + 2
    assert np.isfinite(encoder.encode([ids])).all()


def test_a_copy_of_an_encoder_has_its_space_although_other_words_stand_in_it(
    folder: Path, tmp_path: Path
) -> None:
    other = copied(folder, tmp_path)
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((other / name).read_text())
        content |= {"_name_or_path": "/elsewhere", "transformers_version": "9"}
        content |= {"name_or_path": "/elsewhere"}
        (other / name).write_text(json.dumps(content))
    encoders = [TextEncoder("tinybert", Weights("report", path=path)) for path in (folder, other)]
    assert encoders[0].parts == encoders[1].parts
    content = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**content, "layer_norm_eps": 0.5}))
    assert TextEncoder("tinybert", Weights("report", path=other)).parts != encoders[0].parts


def test_buckets_hold_every_row_once_and_stay_within_their_budget() -> None:
    lengths = [7, 300, 2, 2, 40, 41, 512, 9]
    found = list(buckets(lengths, 128))
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    for rows in found:
        assert len(rows) == 1 or max(lengths[row] for row in rows) * len(rows) <= 128
    assert found == list(buckets(lengths, 128))
