"""Encoders of series, or all that is behind the trunks, that start from another run."""

from __future__ import annotations

from ...errors import ConfigError
from ...extract.encoders.weights import Weights
from .encoders import Encoders, SeriesEncoder
from .interface import FusionModel


def encoder_of(model: FusionModel, modality: str) -> SeriesEncoder:
    """Find the encoder of a series in a model.

    Raises:
        ConfigError: The method has none that another run could have trained.
    """
    encoders = getattr(model, "encoders", None)
    names = [spec.name for spec in model.specs]
    part = encoders.parts[names.index(modality)] if isinstance(encoders, Encoders) else None
    if not isinstance(part, SeriesEncoder):
        raise ConfigError(
            f"model = {model.config.model!r} has no encoder of {modality} that could start from "
            "another run: it needs the LSTM that cm2, concat and single share (series_encoder = "
            "'lstm'). Leave its --init or --pretrain out."
        )
    return part


def load_fusion(model: FusionModel, weights: Weights) -> None:
    """Start all but the trunks from the model of a run; normalisers follow the own stays.

    Args:
        model: The model.
        weights: Of a run of the same method.

    Raises:
        ConfigError: It has other parts, or parts of other widths.
    """
    given = weights.trained.tensors
    own = {n: t for n, t in model.state_dict().items() if not n.startswith("trunks.")}
    shapes, found = (
        {n: tuple(t.shape) for n, t in state.items() if "normaliser" not in n}
        for state in (own, given)
    )
    apart = sorted(n for n in shapes.keys() | found.keys() if shapes.get(n) != found.get(n))
    if apart:
        raise ConfigError(
            f"{weights.trained.path}: its model differs from this run's in {', '.join(apart[:4])}"
            f"{' and more' if len(apart) > 4 else ''}. --init fusion=RUN needs the method, "
            "modalities, widths and options of that run, and trunks as wide as its vectors."
        )
    model.load_state_dict({n: given[n] for n in shapes}, strict=False)


def load(model: FusionModel, modality: str, weights: Weights) -> None:
    """Start the encoder of a series from the one that a run has trained.

    Args:
        model: The model; statistics of its own training stays take the place of the run's.
        modality: The series.
        weights: Of a run.

    Raises:
        ConfigError: It is of another width, or read other columns.
    """
    weights.trained.require("lstm")
    part, facts = encoder_of(model, modality), weights.trained.facts
    spec = next(spec for spec in model.specs if spec.name == modality)
    if facts["width"] != part.between or facts["columns"] != list(spec.columns):
        raise ConfigError(
            f"{weights.trained.path}: its encoder of {modality} is {facts['width']} wide and reads "
            f"{len(facts['columns'])} columns; this run has hidden = {part.between} and "
            f"{len(spec.columns)} columns, which must be the same. Train it with this --hidden and "
            "on this store."
        )
    part.load_state_dict(weights.trained.tensors)


__all__ = ["encoder_of", "load", "load_fusion"]
