"""Which configurations can be trained at once."""

from __future__ import annotations

from ...cache.fingerprint import fingerprint
from ..config import FuseConfig
from ..methods import short
from ..published import Published

FREE = frozenset(
    {
        "seed",
        "lr",
        "lr_copula",
        "optimizer",
        "beta2",
        "weight_decay",
        "scheduler",
        "clip",
        "dropout",
        "lambda_cop",
        "lambda_align",
        "temperature",
        "warmup",
        "epochs",
        "patience",
        "class_weight",
    }
)
"""Options in which members of an ensemble may differ: values of tensors, or rules that act on
each member by itself. K is one more where components can be padded."""


def shape_key(config: FuseConfig) -> str:
    """Name the shape of a configuration: those with equal names can be trained at once.

    Args:
        config: Any configuration that `unmappable` does not refuse.
    """
    kept = {k: v for k, v in config.model_dump(mode="json").items() if k not in FREE}
    if _pads(config):
        del kept["K"]
    return fingerprint(kept)


def unmappable(config: FuseConfig) -> str | None:
    """Say in a few words why a configuration cannot be a member of an ensemble; None if it can."""
    if config.mode == "stream":
        return "mode = stream trains encoders of films and texts"
    if config.projection == "cca":
        return "projection = cca starts from eigenvectors whose signs rounding decides"
    from ..models import model_class

    if not model_class(config.model).vmappable:
        return f"model = {short(config.model)} cannot be mapped over members"
    return None


def _pads(config: FuseConfig) -> bool:
    """Whether a mixture can be filled up by components of no weight."""
    return (
        config.model == "cm2"
        and config.coupling != "kendall"
        and config.published == Published()
        and config.mixture_weights == "logits"
    )


__all__ = ["FREE", "shape_key", "unmappable"]
