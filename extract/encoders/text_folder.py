"""A text encoder as transformers saves it: its configuration, its tokenizer, its network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cache.atomic import sha256_file
from ...cache.fingerprint import fingerprint
from ...errors import ConfigError, UnsupportedError
from .text_network import build
from .weights import INDEX, SINGLE, Weights, assign

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
# Of a configuration, what is history and changes no vector: another copy has other words there.
_HISTORY = {"_name_or_path", "name_or_path", "transformers_version", "architectures"}
_HISTORY |= {"special_tokens_map_file", "tokenizer_file", "_commit_hash", "torch_dtype", "dtype"}
_HEADS: tuple[str, ...] = ("pooler.", "cls.", "classifier.", "lm_head.", "qa_outputs.", "vocab_")
_HEADS += (
    "fit_dense",
    "discriminator_predictions.",
    "generator_predictions.",
    "predictions.",
    "head.",
)
# Their first position is the one behind the padding token, so two places are never used.
_SHIFTED = {"roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "data2vec-text"}


class TextFolder:
    """A folder with config.json, model.safetensors and a tokenizer.

    Args:
        weights: Of the modality; its path is the folder.

    Raises:
        ConfigError: Something is missing or damaged.
        UnsupportedError: It is no encoder of text.
    """

    def __init__(self, weights: Weights) -> None:
        assert weights.path is not None
        self._weights, self.path = weights, weights.path
        if not self.path.is_dir():
            raise ConfigError(
                f"{weights.modality}: a text encoder is a folder with config.json, "
                "model.safetensors and tokenizer.json or vocab.txt; found the single file "
                f"{self.path}"
            )
        missing = [] if self._has("config.json") else ["config.json"]
        if not (self._has(SINGLE) or self._has(INDEX)):
            missing.append(SINGLE)
        pair = self._has("vocab.json") and self._has("merges.txt")
        if not pair and not any(self._has(name) for name in _VOCABULARIES):
            missing.append("tokenizer.json or vocab.txt")
        if missing:
            raise ConfigError(f"{self.path}: the text encoder lacks {', '.join(missing)}")
        self.config = self._read_config()
        self.kind = str(self.config.model_type)
        self.width = int(self.config.hidden_size)

    def _has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def _read_config(self) -> Any:
        from transformers import AutoConfig
        from transformers.models.auto import modeling_auto

        file = self.path / "config.json"
        try:
            config = AutoConfig.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
            assert int(config.hidden_size) > 0
        except Exception as error:  # the library has no common class for damaged files
            raise ConfigError(
                f"{file}: expected the configuration of a text encoder that transformers knows, "
                "found something else"
            ) from error
        encoders = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        if config.model_type not in encoders or getattr(config, "is_encoder_decoder", False):
            raise UnsupportedError(
                f"{file}: expected an encoder of text such as bert, roberta, distilbert or "
                f"electra, found {config.model_type}"
            )
        return config

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, of this folder alone."""
        from transformers import AutoTokenizer

        try:
            found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            raise ConfigError(
                f"{self.path}: its tokenizer cannot be read ({type(error).__name__}); expected "
                "tokenizer.json or the files of a tokenizer that transformers knows"
            ) from error
        return found

    @property
    def longest(self) -> int:
        """Tokens that the encoder can take at once, special ones included."""
        limits = [int(self.tokenizer.model_max_length)]
        positions = getattr(self.config, "max_position_embeddings", None)
        if positions:
            limits.append(int(positions) - (2 if self.kind in _SHIFTED else 0))
        return min(limits)

    @cached_property
    def config_sha256(self) -> str:
        """Hash of the configuration, without what is only history."""
        return fingerprint(_without_history(self.path / "config.json"))

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Hash of everything that turns text into token ids, without what is only history."""
        files = [self.path / name for name in TOKENIZER_FILES if self._has(name)]
        settings = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
        return fingerprint(
            {
                file.name: _without_history(file) if file.name in settings else sha256_file(file)
                for file in files
            }
        )

    @property
    def plain_config(self) -> dict[str, Any]:
        """The configuration as plain values, without what is only history."""
        content: Any = _without_history(self.path / "config.json")
        return {**content, "model_type": self.kind}

    def network(self) -> PreTrainedModel:
        """The network without its head, on the CPU, in single precision.

        Raises:
            ConfigError: The weights do not fit the configuration, or the tokenizer does not.
        """
        rows = int(self.config.vocab_size)
        if len(self.tokenizer) > rows:
            raise ConfigError(
                f"{self.path}: the tokenizer knows {len(self.tokenizer)} tokens, the encoder "
                f"{rows}; they do not belong together"
            )
        network = build(self.config)
        state = _renamed(self._weights.state(), network.base_model_prefix + ".")
        wanted = network.state_dict()
        buffers = ("position_ids", "token_type_ids")  # of older files; counted off since then
        state = {n: t for n, t in state.items() if n in wanted or not n.endswith(buffers)}
        assign(network, state, _HEADS, f"{self.path} as {self.kind}")
        return network


def _renamed(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Names as the bare encoder has them: without the prefix of a model with a head."""
    if any(name.startswith(prefix) for name in state):
        state = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    renamed = {}
    for name, tensor in state.items():
        ending = next((word for word in old if name.endswith(word)), None)
        renamed[name if ending is None else name.removesuffix(ending) + old[ending]] = tensor
    return renamed


def _without_history(file: Path) -> object:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: expected JSON, found something else") from error
    if isinstance(content, dict):
        return {name: value for name, value in content.items() if name not in _HISTORY}
    return content


__all__ = ["TextFolder"]
