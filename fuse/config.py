"""Every option of `cm2 fuse`: its default, its range, its meaning.

The command line makes its options from this model (`lambda_cop` becomes `--lambda-cop`), a run
stores it, and its values are a part of the run's identity. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..errors import ConfigError
from .combinations import FROM_COPULA, complaints
from .drop import Drop
from .methods import METHODS, Options, canonical, find
from .methods import unknown as unknown
from .mistakes import about_options, check_names, sentences
from .published import Published

MODELS = tuple(METHODS)
"""Names of the built-in methods, see `methods`."""

COPULAS = ("independence", "clayton", "frank", "gumbel", "gaussian", "student")
"""Names of the copula families; `fuse.copula` maps them to classes."""


class FuseConfig(BaseModel):
    """What is trained, on which rows, and how. Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    task: str = Field("ihm", description="Task of the cohort: `ihm`, `readm`, or one of your own.")
    cohort: str = Field("default", description="Cohort of the cache.")
    modalities: tuple[str, ...] = Field(
        (), description="Modalities in order, NAME or NAME@SPACE; empty means all of the cohort."
    )
    rows: Literal["partial", "matched"] = Field(
        "partial",
        description="Stays used: with at least one modality, or only those with all of them.",
    )
    require: tuple[str, ...] = Field(
        (),
        description="Modalities that a stay must have to be a row without being read, NAME or "
        "NAME@SPACE: the rows of a richer run for a single modality.",
    )
    beside: tuple[str, ...] = Field(
        (),
        description="Modalities that are not read but that a stay may have left when `drop` or "
        "`drop_train` withholds one, NAME or NAME@SPACE: what a richer run withholds, for a "
        "single modality.",
    )
    model: str = Field(
        "cm2",
        description=f"Method: {', '.join(MODELS)}, or FILE.py:CLASS. `cm2 models NAME` shows its "
        "own options, which are given as --set model.OPTION=VALUE.",
    )
    options: SerializeAsAny[Options] = Field(
        default=Options(),
        description="Options of the method itself: --set model.OPTION=VALUE.",
    )
    copula: Literal["independence", "clayton", "frank", "gumbel", "gaussian", "student"] = Field(
        "frank", description="Copula family that couples the modalities."
    )
    coupling: Literal["rosenblatt", "coordinate", "component", "kendall", "joint"] = Field(
        "rosenblatt",
        description="How embeddings become arguments of the copula: rosenblatt, component and "
        "kendall give a joint density; coordinate (for K > 1) and joint (the paper's) do not.",
    )
    K: int = Field(3, ge=1, le=64, description="Mixture components of each modality's marginal.")
    mixture_weights: Literal["logits", "mlp"] = Field(
        "logits", description="Mixture weights as free numbers, or from a perceptron (the paper)."
    )
    lambda_cop: float = Field(
        1e-2,
        ge=0,
        description="Weight of the copula term: a mean over coordinates and over the stays with "
        "two or more modalities.",
    )
    copula_dim: int = Field(
        16, ge=0, description="Width of the whitened copula space; 0 is the whole embedding."
    )
    projection: Literal["random", "cca"] = Field(
        "random",
        description="Start of the map to the copula space: random orthogonal, or the canonical "
        "correlations of the embeddings after the warm-up.",
    )
    copula_params: Literal["shared", "per-dim"] = Field(
        "shared", description="One dependence for all coordinates, or one for each."
    )
    align: Literal["copula", "cosine", "kl", "infonce", "none"] = Field(
        "copula", description="What draws the modalities' embeddings together."
    )
    align_pairs: Literal["pairs", "all"] = Field(
        "all",
        description="Align all modalities of a stay at once, or each pair on its own; the same "
        "for two modalities.",
    )
    lambda_align: float = Field(
        0.1, ge=0, description="Weight of the alignment by cosine, kl or infonce."
    )
    align_temperature: float = Field(
        0.2, gt=0, description="Temperature of the softmax in kl and infonce."
    )
    objective: Literal["penalised", "elbo", "paper"] = Field(
        "penalised",
        description="penalised: margins learn from their own likelihood, encoders from task and "
        "copula; elbo: a bound with noisy embeddings; paper: everything moves everything.",
    )
    temperature: float = Field(
        0.0,
        ge=0,
        description="The paper's schedule: the task's loss is divided by "
        "max(exp(-temperature x epoch), 0.001); 0 is off.",
    )
    impute: Literal[
        "skip",
        "zero",
        "mean",
        "learned",
        "blank",
        "marginal",
        "conditional",
        "conditional-median",
        "conditional-mean",
    ] = Field("zero", description="What stands in for an absent modality in the fusion.")
    draws: int = Field(
        8,
        ge=1,
        le=1024,
        description="Seeded draws whose predictions are averaged when an imputation is random.",
    )
    fusion: Literal["lstm", "concat", "transformer"] = Field(
        "lstm",
        description="Head that reads the modality tokens; concat is one linear map of them all.",
    )
    fusion_layers: int = Field(2, ge=1, le=12, description="Layers of an lstm or transformer head.")
    series_encoder: Literal["lstm", "transformer"] = Field(
        "lstm", description="Encoder of time series: a 2-layer LSTM, or a 2-layer Transformer."
    )
    availability_bits: bool = Field(
        True, description="Tell the fusion which modalities were measured."
    )
    hidden: int = Field(
        256, ge=1, description="Width of the series encoder and of every modality's embedding."
    )
    fusion_hidden: int = Field(512, ge=1, description="Width of the fusion head.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout after encoders and fusion.")
    warmup: int = Field(
        1,
        ge=1,
        description="Epochs of the task alone, before mixtures start from the data and the copula "
        "term acts.",
    )
    epochs: int = Field(100, ge=1, description="Largest number of epochs.")
    patience: int = Field(
        15, ge=1, description="Epochs without a better validation AUROC before training ends."
    )
    batch_size: int = Field(64, ge=1, description="Stays per step.")
    optimizer: Literal["adamw", "adam"] = Field("adamw", description="Optimiser.")
    lr: float = Field(3e-4, gt=0, description="Learning rate.")
    lr_copula: float = Field(
        1e-2,
        gt=0,
        description="Learning rate of the copula's dependence, a few numbers on a scale of their "
        "own: at the rate of the networks they would stay where they start.",
    )
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay.")
    scheduler: Literal["none", "plateau", "cosine"] = Field(
        "none",
        description="`plateau` halves the rate after 10 epochs without a lower loss; `cosine` lets "
        "it fall to 0 by the last epoch.",
    )
    clip: float = Field(1.0, ge=0, description="Largest gradient norm; 0 switches clipping off.")
    seed: int = Field(0, ge=0, description="Seed of every random stream.")
    deterministic: bool = Field(
        False, description="Refuse operations without a deterministic algorithm."
    )
    beta2: float = Field(
        0.999, gt=0, lt=1, description="Decay of the optimiser's squared gradients."
    )
    class_weight: Literal["none", "balanced"] = Field(
        "none",
        description="balanced: both classes weigh the same in the loss; probabilities then are "
        "too high for a rare event.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="bf16: encoders and heads multiply in bfloat16; densities stay in float64.",
    )
    drop: tuple[str, ...] = Field(
        (),
        description="Withhold a modality from a share of the stays of every split, NAME=SHARE; "
        "NAME=SHARE:severity withholds it rather from those at little risk.",
    )
    drop_train: tuple[str, ...] = Field(
        (), description="The same for training and validation stays only."
    )
    folds: int = Field(
        0, ge=0, le=50, description="Cross-validation by patient: number of folds, 0 for none."
    )
    fold: int = Field(0, ge=0, description="The fold that is the test split.")

    mode: Literal["cached", "stream"] = Field(
        "cached",
        description="cached: read stored vectors; stream: train the encoders too, of films from "
        "stored pixels, of texts with a trunk from stored token ids.",
    )
    trunk: tuple[str, ...] = Field(
        (),
        description="Stream: network that encodes a modality, MODALITY=NETWORK; resnet34 for films "
        "unless named; of texts store (as the vectors were made), bert2x128, tinybert, minilm, "
        "FOLDER or hub:ID@REVISION.",
    )
    init: tuple[str, ...] = Field(
        (),
        description="Where an encoder starts: MODALITY=RUN, of a series in both modes, or "
        "fusion=RUN for all that is behind the trunks; streamed also MODALITY=PATH of weights or "
        "MODALITY=random:SEED; by default from the seed.",
    )
    crop: int = Field(
        0,
        ge=0,
        description="Stream: side of the centre of a film that is seen; 0 is 7/8 of the stored.",
    )
    augment: bool = Field(
        True,
        description="Stream: flip, turn, shift and scale the films of training, as published.",
    )
    trunk_norm: Literal["own", "frozen", "sync"] = Field(
        "own",
        description="Stream: batch norms of a film's network as they are, with frozen statistics, "
        "or over all processes (GPUs only).",
    )
    lr_trunk: float = Field(1e-4, gt=0, description="Stream: learning rate of film encoders.")
    freeze_trunk_epochs: int = Field(
        0, ge=0, description="Stream: first epochs in which the encoders stand still."
    )
    lr_text: float = Field(2e-5, gt=0, description="Stream: learning rate of text encoders.")
    freeze_text_epochs: int = Field(
        0, ge=0, description="Stream: first epochs in which the text encoders stand still."
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="Stream: parts in which the items of a step are encoded and computed again on "
        "the way back: the memory of one part, the loss of the whole step.",
    )

    published: Published = Field(
        default=Published(),
        description="Defects of the published code, each a switch: --set published.NAME=true.",
    )

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str) -> str:
        try:
            return canonical(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @field_validator("options", mode="wrap")
    @classmethod
    def _of_the_method(cls, value: Any, _: object, info: ValidationInfo) -> Options:
        model = info.data.get("model")
        if model is None:  # refused already
            return Options()
        kind = find(model).options
        given = value.model_dump() if isinstance(value, Options) else value
        try:
            return kind.model_validate(given)
        except ValidationError as error:
            text = " ".join(about_options(model, kind, error))
            # braces would be read as placeholders
            raise PydanticCustomError("method_options", "{text}", {"text": text}) from None

    @field_validator(
        *("modalities", "require", "beside", "drop", "drop_train", "trunk", "init"), mode="before"
    )
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """A text is a list as on the command line, where NAME=VALUE keeps its commas."""
        if not isinstance(value, str):
            return value
        parts = [value] if "=" in value else value.split(",")
        return tuple(part.strip() for part in parts if part.strip())

    @field_validator("modalities")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [text.partition("@")[0] for text in value]
        if not all(names) or len(set(names)) < len(names):
            raise ValueError(f"modalities must be distinct names, found {', '.join(value)!r}")
        return value

    @model_validator(mode="after")
    def _required_beside(self) -> FuseConfig:
        read = {text.partition("@")[0] for text in self.modalities}
        for option in ("require", "beside"):
            texts: tuple[str, ...] = getattr(self, option)
            names = [text.partition("@")[0] for text in texts]
            if not all(names) or len(set(names)) < len(names):
                raise ValueError(f"{option} must hold distinct names, found {', '.join(texts)!r}")
            if names and (not read or read & set(names)):
                raise ValueError(
                    f"{option} names modalities beside those that are read: give modalities too, "
                    "none of them in both. rows = 'matched' asks for all that are read"
                )
        return self

    @field_validator("trunk", "init")
    @classmethod
    def _pairs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [text.partition("=")[0] for text in value]
        if not all(all(text.partition("=")) for text in value) or len(set(names)) < len(names):
            raise ValueError(f"expected MODALITY=VALUE once each, found {', '.join(value)!r}")
        return value

    @field_validator("drop", "drop_train")
    @classmethod
    def _drops(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            Drop.parse(text)
        return value

    @model_validator(mode="after")
    def _fold_exists(self) -> FuseConfig:
        if self.folds == 1:
            raise ValueError("folds = 1 leaves nothing to train on: give 3 or more, or 0 for none")
        if self.folds == 2:
            raise ValueError("folds = 2 leaves nothing to train on beside test and validation")
        if self.fold >= max(self.folds, 1):
            raise ValueError(f"fold = {self.fold} must be below folds = {self.folds}")
        return self

    @model_validator(mode="after")
    def _warmup_ends(self) -> FuseConfig:
        if self.warmup > self.epochs:
            raise ValueError(
                f"warmup = {self.warmup} must not exceed epochs = {self.epochs}: the copula term "
                "would never act"
            )
        return self

    @model_validator(mode="after")
    def _coupling_fits(self) -> FuseConfig:
        if self.coupling == "kendall" and self.K > 1:
            raise ValueError(
                f"coupling = 'kendall' needs K = 1, found K = {self.K}: the Kendall function of a "
                "mixture has no closed form. Use rosenblatt, which is exact for any K"
            )
        if self.coupling in ("kendall", "joint") and self.copula_params == "per-dim":
            raise ValueError(
                f"coupling = {self.coupling!r} has one copula value for the whole vector: "
                "copula_params must be shared"
            )
        offered = {
            "kendall": ("marginal",),
            "joint": ("marginal",),
            "component": ("marginal", "conditional"),
        }
        if self.impute in FROM_COPULA and self.impute not in offered.get(
            self.coupling, FROM_COPULA
        ):
            raise ValueError(
                f"impute = {self.impute!r} cannot be drawn under coupling = {self.coupling!r}, "
                f"which offers {' and '.join(offered[self.coupling])}. Use rosenblatt"
            )
        return self

    @model_validator(mode="after")
    def _every_option_acts(self) -> FuseConfig:
        if found := list(complaints(self)):
            raise ValueError("; ".join(found))
        return self

    @property
    def passes(self) -> int:
        """Epochs at most; of a method that is fitted as a whole, its solutions."""
        return self.options.candidates() or self.epochs

    @property
    def reads_blank(self) -> bool:
        """Whether an empty input stands in for what is absent; the stores hold its vectors."""
        return "blank" in (self.impute, getattr(self.options, "missing", ""))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> FuseConfig:
        """Build a configuration from names and values.

        Args:
            options: Values by field name; `preset` names a set of options that lies under them,
                and what neither has takes its default.

        Raises:
            ConfigError: An unknown name (the nearest one is named) or an impossible value.
        """
        from .presets import resolve

        options = resolve(options)
        check_names(cls, options)
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            raise ConfigError("\n".join(sentences(cls, error))) from None
