"""Options that do nothing, or contradict each other, in a combination: said, never ignored."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import FuseConfig

SIMILARITIES = ("cosine", "kl", "infonce")
"""Alignments that compare the embeddings themselves."""

FROM_COPULA = ("marginal", "conditional", "conditional-median", "conditional-mean")
"""Imputations that come from the joint density of the modalities."""


STREAM_ONLY = (
    "trunk",
    "crop",
    "augment",
    "trunk_norm",
    "lr_trunk",
    "freeze_trunk_epochs",
    "lr_text",
    "freeze_text_epochs",
    "accumulate",
)
"""Options that act in mode = 'stream' alone."""


OF_CM2 = (
    "copula",
    "coupling",
    "K",
    "mixture_weights",
    "lambda_cop",
    "copula_dim",
    "projection",
    "copula_params",
    "align",
    "align_pairs",
    "lambda_align",
    "align_temperature",
    "objective",
    "impute",
    "draws",
    "fusion",
    "fusion_layers",
    "availability_bits",
    "warmup",
    "lr_copula",
)
"""Options that only CM2 reads."""

OF_EVERY_METHOD = ("validate_first", "validation_in_normaliser")
"""Published defects of the training loop; the others are defects of CM2."""


def complaints(config: FuseConfig) -> Iterator[str]:
    """Say what cannot be meant, one sentence each with its remedy."""
    yield from _unread(config)
    yield from _stream(config)
    if config.model == "cm2":
        yield from _alignment(config)
        yield from _objective(config)
        yield from _published(config)
        yield from _fusion(config)


def _changed(config: FuseConfig, name: str) -> bool:
    return bool(getattr(config, name) != _defaults(type(config))[name])


@cache
def _defaults(kind: type[FuseConfig]) -> dict[str, Any]:
    return {name: field.default for name, field in kind.model_fields.items()}


def _unread(config: FuseConfig) -> Iterator[str]:
    """Options that the chosen method does not read."""
    own = () if config.model == "cm2" else OF_CM2
    found = [name for name in (*own, *config.options.unread) if _changed(config, name)]
    switches = dict(config.published)
    found += [
        f"published.{name}"
        for name in switches
        if switches[name]
        and config.model != "cm2"
        and (name not in OF_EVERY_METHOD or config.options.candidates())
    ]
    if found:
        one = len(found) == 1
        yield (
            f"{' and '.join(found)} {'does' if one else 'do'} nothing with model = "
            f"{config.model!r}: leave {'it' if one else 'them'} out"
        )


def _alignment(config: FuseConfig) -> Iterator[str]:
    align = config.align
    if _changed(config, "lambda_align") and align not in SIMILARITIES:
        yield (
            f"lambda_align weighs the alignments {', '.join(SIMILARITIES)} and does nothing with "
            f"align = {align!r}: leave it out, or weigh the copula by lambda_cop"
        )
    if _changed(config, "align_temperature") and align not in ("kl", "infonce"):
        yield f"align_temperature does nothing with align = {align!r}: leave it out"
    if _changed(config, "align_pairs") and align == "none":
        yield "align_pairs does nothing with align = 'none': leave it out"
    if config.copula_dim > config.hidden:
        yield (
            f"copula_dim = {config.copula_dim} is wider than the embedding, hidden = "
            f"{config.hidden}, of which it is a projection: lower it, or give 0 for all of it"
        )
    if config.projection == "cca" and config.copula_dim == 0:
        yield "projection = 'cca' needs a copula space: copula_dim = 0 has no projection"


def _objective(config: FuseConfig) -> Iterator[str]:
    objective = config.objective
    if objective == "penalised":
        return
    if config.align != "copula":
        yield (
            f"objective = {objective!r} moves the encoders by the joint density: align must be "
            f"copula, found {config.align!r}"
        )
    if config.align_pairs == "pairs":
        yield f"objective = {objective!r} is the density of all modalities: align_pairs must be all"
    if objective == "elbo" and config.coupling in ("joint", "coordinate"):
        yield (
            f"objective = 'elbo' is a bound only under a density, which coupling = "
            f"{config.coupling!r} is not: use rosenblatt"
        )


def _fusion(config: FuseConfig) -> Iterator[str]:
    if config.fusion == "concat" and _changed(config, "fusion_layers"):
        yield "fusion = 'concat' is one linear map: it has no layers. Leave out fusion_layers"


def _stream(config: FuseConfig) -> Iterator[str]:
    if config.mode == "cached":
        for name in STREAM_ONLY:
            if _changed(config, name):
                yield f"{name} is an option of mode = 'stream': leave it out, or stream"
        return
    if config.options.candidates():
        yield f"model = {config.model!r} is fitted as a whole and trains no encoder: do not stream"
    if any(":severity" in word for word in (*config.drop, *config.drop_train)):
        yield "mode = 'stream' has no vectors that tell severity beforehand: drop at random"
    for name in ("freeze_trunk_epochs", "freeze_text_epochs"):
        if getattr(config, name) >= config.epochs:
            yield (
                f"{name} = {getattr(config, name)} leaves none of {config.epochs} epochs to train "
                "the encoders in: lower it, or use the cache"
            )


def _published(config: FuseConfig) -> Iterator[str]:
    switches = config.published
    off = "give --set published.{}=false"
    if switches.formulas and config.copula not in ("gumbel", "frank", "gaussian"):
        yield (
            f"the published code ends with an error for copula = {config.copula!r}: it computes "
            "gumbel, frank and gaussian. Choose one, or " + off.format("formulas")
        )
    if switches.raw_space and config.copula_dim:
        yield "published.raw_space needs copula_dim = 0: the copula reads the whole embedding"
    if switches.raw_space and config.impute == "mean":
        yield "impute = 'mean' is a statistic that published.raw_space does not keep: use zero"
    if switches.averaged_draws and config.impute != "marginal":
        yield (
            f"published.averaged_draws is about draws from a mixture, impute is {config.impute!r}: "
            + off.format("averaged_draws")
        )
    for name in ("detached_draws", "imputed_likelihood"):
        if getattr(switches, name) and config.impute not in FROM_COPULA:
            yield (
                f"published.{name} is about draws, impute is {config.impute!r}: " + off.format(name)
            )


__all__ = ["FROM_COPULA", "OF_CM2", "OF_EVERY_METHOD", "SIMILARITIES", "complaints"]
