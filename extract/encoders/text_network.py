"""What a text encoder is beside its weights: enough to make it again, and to read token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from .weights import seeded

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Pooling = Literal["cls", "mean"]
Long = Literal["truncate", "windows"]


@dataclass(frozen=True)
class Vocabulary:
    """Token ids as a tokenizer gives them.

    Attributes:
        tokenizer: SHA-256 of everything that turns text into token ids.
        size: Number of tokens.
        pad: The token behind a text in a batch.
        before: Special tokens before a text.
        behind: Special tokens behind it.
    """

    tokenizer: str
    size: int
    pad: int
    before: tuple[int, ...]
    behind: tuple[int, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Vocabulary:
        """Read what `asdict` gave."""
        ends = {name: tuple(content[name]) for name in ("before", "behind")}
        return cls(**{**content, **ends})


@dataclass(frozen=True)
class TextNetwork:
    """A text encoder without its weights.

    Attributes:
        config: Configuration of transformers, `model_type` included.
        vocabulary: Of the token ids that it reads.
        max_tokens: Tokens of one pass, the special ones included.
        pooling: `cls` or `mean`; see `TextEncoder`.
        long: `truncate` or `windows`; see `TextEncoder`.
    """

    config: Mapping[str, Any]
    vocabulary: Vocabulary
    max_tokens: int
    pooling: Pooling
    long: Long

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TextNetwork:
        """Read what `to_json` gave."""
        return cls(**{**content, "vocabulary": Vocabulary.from_json(content["vocabulary"])})

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @property
    def kind(self) -> str:
        """Its kind, as transformers calls it."""
        return str(self.config["model_type"])

    @property
    def width(self) -> int:
        """Length D of a vector."""
        from transformers import AutoConfig

        return int(AutoConfig.for_model(**self.config).hidden_size)

    def windows(self, length: int) -> list[tuple[int, int]]:
        """Cut a text into the fewest windows that hold it, as equal in length as can be.

        Args:
            length: Its tokens, the special ones included.

        Returns:
            Start and end of every window among the tokens between the special ones; none for a
            text that fits as it is.
        """
        if length <= self.max_tokens:
            return []
        ends = len(self.vocabulary.before) + len(self.vocabulary.behind)
        count = -(-(length - ends) // (self.max_tokens - ends))
        return list(pairwise((length - ends) * place // count for place in range(count + 1)))

    def pooled(self, hidden: Tensor, real: Tensor) -> Tensor:
        """One vector for each text.

        Args:
            hidden: Last hidden states, ``(n, L, D)``.
            real: Tokens that are no padding, ``(n, L)``.

        Returns:
            ``(n, D)``.
        """
        if self.pooling == "cls":
            return hidden[:, 0]
        mask = real.unsqueeze(-1)
        return (hidden * mask).sum(1) / mask.sum(1)

    def build(self, seed: int) -> PreTrainedModel:
        """Make the network with random weights, on the CPU, in evaluation mode."""
        from transformers import AutoConfig

        return build(AutoConfig.for_model(**self.config), seed)


def build(config: Any, seed: int = 0) -> PreTrainedModel:
    """Make a network without its head of pre-training, in single precision.

    Args:
        config: Its configuration, of transformers.
        seed: Of its random weights.
    """
    import torch
    from transformers import AutoModel, BertModel

    make: Any = AutoModel.from_config
    with seeded(seed):
        if config.model_type == "bert":
            config._attn_implementation = "sdpa"
            network: Any = BertModel(config, add_pooling_layer=False)
        else:
            network = make(config, dtype=torch.float32)
    if hasattr(network, "pooler"):
        network.pooler = None  # saved encoders often lack it
    network.train(mode=False)
    found: PreTrainedModel = network
    return found


__all__ = ["Long", "Pooling", "TextNetwork", "Vocabulary", "build"]
