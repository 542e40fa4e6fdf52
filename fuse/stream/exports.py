"""What a run's checkpoint says of its encoders, so that stage one can use them."""

from __future__ import annotations

from typing import Any

from ..config import FuseConfig
from ..models.encoders import Encoders, SeriesEncoder
from ..models.interface import FusionModel
from ..rows import FusionData
from .data import StreamData
from .items import Films
from .model import Streamed
from .text_trunk import TextTrunk
from .trunks import FilmTrunk


def encoders_of(model: FusionModel, data: FusionData, config: FuseConfig) -> dict[str, Any]:
    """Describe the encoders that `cm2 extract --weights RUN` can take.

    Args:
        model: The trained model.
        data: Its rows.
        config: Its modalities are NAME@SPACE.

    Returns:
        By modality, kind and prefix of its tensors and what the kind needs: of a film's network
        its name and the frame it saw, of the LSTM of a series the space and columns it read, of a
        text encoder its configuration, its vocabulary, and how it pools and cuts.
    """
    found: dict[str, Any] = {}
    parts = getattr(model, "encoders", None)
    if isinstance(parts, Encoders):
        for m, (spec, text) in enumerate(zip(data.specs, config.modalities, strict=True)):
            part = parts.parts[m]
            if isinstance(part, SeriesEncoder):
                found[spec.name] = {
                    "kind": "lstm",
                    "prefix": f"encoders.parts.{m}.",
                    "space": text.partition("@")[2],
                    "width": part.between,
                    "columns": list(spec.columns),
                }
    if isinstance(model, Streamed) and isinstance(data, StreamData):
        for i, m in enumerate(model.trunked):
            name = data.specs[m].name
            trunk, films = model.trunk(name), data.items[name]
            if isinstance(trunk, FilmTrunk) and isinstance(films, Films):
                found[name] = {
                    "kind": "film",
                    "prefix": f"trunks.{i}.network.body.",
                    "network": trunk.name,
                    "side": films.side,
                    "crop": config.crop,
                }
            if isinstance(trunk, TextTrunk):
                found[name] = {
                    "kind": "text",
                    "prefix": f"trunks.{i}.network.",
                    "network": trunk.description.to_json(),
                }
    return found


__all__ = ["encoders_of"]
