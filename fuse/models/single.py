"""One modality alone: what fusion has to add to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from ...errors import ConfigError
from ..config import FuseConfig
from ..methods.base import NoHead
from .encoders import Encoders
from .interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from .layers import Dropout
from .task import binary


class Single(FusionModel):
    """An encoder and a linear map.

    It is trained on, and judged on, the stays that have its modality: a stay without any of the
    chosen modalities is no row of a run.

    Raises:
        ConfigError: Not exactly one modality was chosen.
    """

    Options: ClassVar[type[NoHead]] = NoHead
    absence: ClassVar[str] = "is trained and judged on the stays that have it"
    models_interaction: ClassVar[bool] = False
    most_modalities: ClassVar[int | None] = 1

    def __init__(self, specs: Sequence[ModalitySpec], config: FuseConfig, targets: int = 1) -> None:
        super().__init__(specs, config, targets)
        if len(self.specs) != 1:
            found = ", ".join(spec.name for spec in self.specs)
            raise ConfigError(
                f"The model `single` reads one modality, found {len(self.specs)}: {found}. "
                f"Choose one, for example --modalities {self.specs[0].name}."
            )
        self.encoders = Encoders(self.specs, config.hidden, config.series_encoder)
        self.dropout = Dropout()
        self.linear = nn.Linear(config.hidden, targets)

    def noise(self, training: bool) -> dict[str, tuple[int, ...]]:
        """Dropout of the embedding."""
        return {"dropout.tokens": (1, self.config.hidden)} if training else {}

    def forward(self, batch: FusionBatch, hyper: Hyper) -> FusionOutput:
        """Predict and judge a batch."""
        z = self.encoders(batch)
        tokens = self.dropout(z, hyper.dropout, batch.noise.get("dropout.tokens"))
        logits: Tensor = self.linear(tokens[:, 0])
        return FusionOutput(logits, z, {"task": binary(logits, batch.y, self.class_weights)}, {})
