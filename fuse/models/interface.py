"""What the trainer and every method agree on.

A batch carries its own random numbers, a model returns losses per row, and whatever a sweep
varies without changing shapes is a tensor in `Hyper`. So one plain module serves a single run,
`torch.func.vmap` over many configurations, and several processes.

Tensor letters: B stays, M modalities, L steps, parts or tokens, D latent width, C targets.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...extract.encoders.trained import FUSION
from ...extract.encoders.weights import Weights
from ..config import FuseConfig
from ..methods.base import Options as MethodOptions
from ..precision import precision

LEARNED = "learned"
"""View of a modality whose vectors come from a trunk that is trained with the model."""

SMALLEST_DIVISOR = 1e-3
"""The paper's schedule multiplies the task's loss by at most its inverse."""


@dataclass(frozen=True)
class ModalitySpec:
    """One modality as a model sees it.

    Attributes:
        name: Name, such as `ehr`.
        view: `series` (values in time order), `vector` (parts whose order says nothing), or
            `learned` (such parts, encoded by a trunk that is trained with the model).
        width: Length of the last axis.
        columns: Names of the last axis; empty if they mean nothing.
        null: The encoder's output on an empty input, ``(P, width)``, where a configuration asks for
            it and the store has it. A model keeps its own.
    """

    name: str
    view: str
    width: int
    columns: tuple[str, ...] = ()
    null: Tensor | None = field(default=None, compare=False, repr=False)

    def record(self) -> dict[str, Any]:
        """Describe the modality as JSON: of `null` only how many parts it has."""
        content = asdict(self)
        del content["null"]
        return content if self.null is None else {**content, "null": len(self.null)}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> ModalitySpec:
        """Make a spec from its record; a model's checkpoint holds the values of `null`."""
        parts, width = record.get("null"), record["width"]
        null = None if parts is None else torch.zeros(parts, width)
        return cls(record["name"], record["view"], width, tuple(record["columns"]), null)


@dataclass(frozen=True)
class FusionBatch:
    """Some stays; every tensor has the stays first, modalities are in the order of the specs.

    Attributes:
        x: Values by modality, ``(B, L, width)``; whatever absent rows hold is ignored.
        mask: Real steps or parts by modality, ``(B, L)`` bool.
        available: ``(B, M)`` bool; at least one per row.
        pattern_id: ``(B,)``, the bits of `available` with the first modality lowest.
        y: Targets in {0, 1}, ``(B, C)``; NaN where unknown.
        noise: Uniform numbers in (0, 1) by purpose, ``(B, ...)``: what `FusionModel.noise` asks
            for. Dropout acts if and only if its numbers are there.
        epoch: Epoch from 1, scalar; 0 outside training.
        time: How much of the window before the prediction had passed at each step or part, by
            modality, ``(B, L)`` in [0, 1].
    """

    x: dict[str, Tensor]
    mask: dict[str, Tensor]
    available: Tensor
    pattern_id: Tensor
    y: Tensor
    noise: dict[str, Tensor] = field(default_factory=dict)
    epoch: Tensor = field(default_factory=lambda: torch.zeros(()))
    time: dict[str, Tensor] = field(default_factory=dict)

    def times(self, spec: ModalitySpec) -> Tensor:
        """Times of the steps or parts of a modality, ``(B, L)`` in [0, 1].

        Where the batch does not tell, steps are evenly spaced and parts stand at the prediction.
        """
        mask = self.mask[spec.name]
        if spec.name in self.time:
            return self.time[spec.name]
        if spec.view == "series":
            length = mask.shape[-1]
            return torch.arange(1, length + 1, device=mask.device).expand(mask.shape) / length
        return torch.ones(mask.shape, device=mask.device)


torch.export.register_dataclass(FusionBatch)


def pattern_ids(available: Tensor) -> Tensor:
    """Number the patterns of availability ``(B, M)``; the first modality is the lowest bit."""
    return (available * (1 << torch.arange(available.shape[1], device=available.device))).sum(1)


class RowLoss(NamedTuple):
    """A loss by row.

    Attributes:
        value: Nats, ``(B,)``.
        rows: Rows that contribute to the mean, ``(B,)`` bool.
    """

    value: Tensor
    rows: Tensor

    def mean(self) -> Tensor:
        """Average over the rows that contribute; 0 if none does."""
        total = torch.where(self.rows, self.value, 0.0).sum()
        return total / self.rows.sum().clamp(min=1)


class FusionOutput(NamedTuple):
    """What a model says about a batch.

    Attributes:
        logits: ``(B, C)``; where draws are averaged, the logit of the mean probability.
        z: Embeddings of the modalities, ``(B, M, D)``; zero where absent.
        losses: By name; `task` always.
        extras: Anything worth looking at.
    """

    logits: Tensor
    z: Tensor
    losses: dict[str, RowLoss]
    extras: dict[str, Tensor]


class Hyper(NamedTuple):
    """What members of an ensemble may differ in without differing in shape; scalars.

    Attributes:
        lr: Learning rate.
        dropout: Probability that a unit is dropped.
        lambda_cop: Weight of the copula term.
        lambda_align: Weight of an alignment by similarity.
        task: Weight of the task's loss: 1, or what the paper's schedule makes of it.
    """

    lr: Tensor
    dropout: Tensor
    lambda_cop: Tensor
    lambda_align: Tensor
    task: Tensor

    @classmethod
    def of(cls, config: FuseConfig, epoch: int = 0) -> Hyper:
        """Take the values of a configuration.

        Args:
            config: The configuration.
            epoch: Epoch from 1, for the schedule; 0 outside training.
        """
        task = 1 / max(math.exp(-config.temperature * epoch), SMALLEST_DIVISOR)
        return cls(
            torch.tensor(config.lr),
            torch.tensor(config.dropout),
            torch.tensor(config.lambda_cop),
            torch.tensor(config.lambda_align),
            torch.tensor(task),
        )


class Objective(NamedTuple):
    """One weighted sum of losses and the parameters that it moves.

    Attributes:
        weights: Scalar weights by name of the loss.
        parameters: Prefixes of the parameters that are moved; None moves all.
    """

    weights: Mapping[str, Tensor]
    parameters: tuple[str, ...] | None = None

    def total(self, losses: Mapping[str, RowLoss]) -> Tensor:
        """Average every loss over its rows and add them up, weighted."""
        terms = [weight * losses[name].mean() for name, weight in self.weights.items()]
        return torch.stack([term.double() for term in terms]).sum()


class FusionModel(nn.Module, ABC):
    """Base of every method; one file and one registry entry each.

    Subclasses take the specs, a configuration and the number C of targets, and nothing that
    depends on data: statistics are started by `start` and live in buffers, so that a checkpoint
    is complete.

    Attributes:
        Options: What the method declares: its own options, presets and their known failures.
        reference: Where the method was published; `plain` where it needs no publication.
        absence: What it does about an absent modality, in a few words.
        needs: What it reads from the cache, in a few words.
        vmappable: Forward runs under `torch.func.vmap` over stacked parameters.
        uses_all_modalities: Every available modality can change the prediction.
        models_interaction: Modalities meet before the last linear map.
        most_modalities: Largest number of modalities; None for any.
        batch_dependent: A prediction depends on the other stays of its batch.
        draws_for_all: Random numbers outside training change stays that lack nothing too.
        compares_stays: Names of losses that compare the stays of a batch with each other.
        idle: Patterns of names of parameters that nothing moves under the given options.
        learns_alone: Prefixes of parameters that have a loss of their own; each group's gradient
            is clipped by itself, so that it does not slow down the others.
        surveyed: Statistics that `renew` keeps need `survey` of all training rows after an epoch.
        padding: Endings of the parameters that are K long, each with the value by which a mixture
            is filled up to more components without any weight.
        dependence: Prefixes of parameters on the copula's own scale: they learn at `lr_copula`,
            without weight decay.
    """

    Options: ClassVar[type[MethodOptions]] = MethodOptions
    reference: ClassVar[str] = "plain"
    absence: ClassVar[str]
    needs: ClassVar[str] = "a series or vectors of each modality"
    vmappable: ClassVar[bool] = True
    uses_all_modalities: ClassVar[bool] = True
    models_interaction: ClassVar[bool] = True
    most_modalities: ClassVar[int | None] = None
    batch_dependent: ClassVar[bool] = False
    draws_for_all: bool = False
    compares_stays: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    learns_alone: ClassVar[tuple[str, ...]] = ()
    dependence: ClassVar[tuple[str, ...]] = ()
    surveyed: ClassVar[bool] = False
    padding: ClassVar[Mapping[str, float]] = {}

    class_weights: Tensor

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__()
        self.specs = tuple(specs)
        self.config = config
        self.targets = targets
        self.register_buffer("class_weights", torch.ones(2, targets))

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Name the random numbers a forward pass needs, with the shape for one stay.

        Args:
            training: Whether dropout acts.
        """
        return {}

    @abstractmethod
    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""

    def start(self, batches: Iterable[FusionBatch]) -> None:
        """Fit what must be known before the first step: the normalisers of all readers.

        Args:
            batches: The training rows, without noise.
        """
        from .encoders import Readers  # which knows this file

        batches = list(batches)
        for part in self.modules():
            if isinstance(part, Readers):
                part.start(batches)

    def lacks(self, parts: Mapping[str, int]) -> str | None:
        """Say what the stored values lack for this model; None if nothing.

        Args:
            parts: Most steps or parts of a stay, by modality.
        """
        return None

    def fit(self, batches: Iterable[FusionBatch]) -> None:
        """Find all solutions, of a method whose `Options.candidates` says how many there are.

        Args:
            batches: The training rows, without noise.
        """
        raise NotImplementedError

    def choose(self, candidate: int) -> dict[str, float]:
        """Take one of the solutions that `fit` has found.

        Args:
            candidate: Its number, from 1.

        Returns:
            Figures for the history, by name.
        """
        raise NotImplementedError

    def begin(self, starts: Mapping[str, Weights]) -> None:
        """Start from other runs, before anything is fitted.

        Args:
            starts: Weights of runs, by the series that they encode; under `FUSION` of all but the
                trunks.

        Raises:
            ConfigError: The model has no part that could start from them.
        """
        from .starts import load, load_fusion  # which look for encoders, and these know this file

        if FUSION in starts:
            load_fusion(self, starts[FUSION])
        for name in starts.keys() - {FUSION}:
            load(self, name, starts[name])

    @torch.no_grad()
    def weigh(self, y: Tensor) -> None:
        """Let both classes weigh the same in the task's loss.

        Args:
            y: Targets of the training rows, ``(N, C)``; NaN where unknown.
        """
        counts = torch.stack([(y == 0).sum(0), (y == 1).sum(0)])  # (2, C)
        self.class_weights.copy_(counts.sum(0) / (2 * counts.clamp(min=1)))

    def track(self, batch: FusionBatch, output: FusionOutput) -> None:
        """Let statistics follow the embeddings after one step of training.

        Args:
            batch: The rows of the step.
            output: What the model said about them.
        """

    def rates(self) -> dict[str, float]:
        """Learning rates of their own, by prefix of parameters."""
        return dict.fromkeys(self.dependence, self.config.lr_copula)

    def combine_gradients(self) -> None:
        """Add up what several processes computed apart; alone there is nothing to do."""

    @torch.no_grad()
    def refresh(self, epoch: int, batches: Iterable[FusionBatch]) -> dict[str, float]:
        """Renew statistics that follow the embeddings, after an epoch and before validation.

        Args:
            epoch: The epoch just trained, from 1.
            batches: One exact pass over the training rows, without noise.

        Returns:
            Figures for the history, by name.
        """
        if not self.surveyed:
            return {}
        with precision(self.config, next(self.parameters()).device):
            seen = [(self.survey(batch), batch.available) for batch in batches]
        return self.renew(epoch, *(torch.cat(parts) for parts in zip(*seen, strict=True)))

    def survey(self, batch: FusionBatch) -> Tensor:
        """What `renew` needs of each row; runs under `torch.func.vmap` as `forward` does."""
        raise NotImplementedError

    def renew(self, epoch: int, survey: Tensor, available: Tensor) -> dict[str, float]:
        """The part of `refresh` after the pass over the rows.

        Args:
            epoch: The epoch just trained, from 1.
            survey: Of all training rows, ``(N, ...)``.
            available: ``(N, M)`` bool.
        """
        return {}

    def fit_to_validation(
        self,
        outputs: Sequence[FusionOutput],
        available: Tensor,
        y: Tensor,
        patients: np.ndarray,
    ) -> Tensor | None:
        """Fit what is fitted to the validation stays, once the best epoch is chosen.

        Args:
            outputs: What the model says of these stays, N in all.
            available: ``(N, M)`` bool.
            y: Targets ``(N, C)``; NaN where unknown.
            patients: A number for each patient, ``(N,)``.

        Returns:
            Logits ``(N, C)``, each by a fit without its patient: what the validation metrics are
            made of. None if nothing is fitted to validation.
        """
        return None

    def objectives(self, hyper: Hyper) -> tuple[Objective, ...]:
        """Say what is minimised; one optimiser step for each."""
        return (Objective({"task": hyper.task}),)

    def describe(
        self, batches: Iterable[FusionBatch], training: Iterable[FusionBatch] = ()
    ) -> dict[str, Any] | None:
        """Report what was learned beyond weights, as JSON; None if there is nothing to tell.

        Args:
            batches: The validation rows, without noise.
            training: The training rows, without noise.
        """
        return None
