"""What every method has to do: the checks of `fuse.conformance`, over the registry.

A new method is tested by being registered: every preset, and every choice of every option of its
own. What it declares to violate must fail.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cm2.fuse.config import MODELS as NAMES
from cm2.fuse.conformance import CHECKS, Subject, Violation, run, subjects
from cm2.fuse.methods import METHODS
from cm2.fuse.models import MODELS
from cm2.fuse.published import Published
from cm2.fuse.synthetic import make_batch, noisy, with_x

# `conditional-mean` is slow and has a test of its own
IMPUTE = (
    "skip",
    "zero",
    "mean",
    "learned",
    "blank",
    "marginal",
    "conditional",
    "conditional-median",
)
PRESETS = [subject for name in NAMES for subject in subjects(name)]
SWITCHES = [
    pytest.param(
        {"model": "concat", "options": {"modality_dropout": 0.5}}, id="concat-modality-dropout"
    ),
    *(
        pytest.param({"model": name, "series_encoder": "transformer"}, id=f"{name}-transformer")
        for name in ("concat", "mmtm", "daft")
    ),
    *(pytest.param({"model": "cm2", "impute": how}, id=f"cm2-{how}") for how in IMPUTE),
    pytest.param({"model": "cm2", "impute": "conditional", "copula": "gaussian"}, id="gaussian"),
    pytest.param(
        {"model": "cm2", "copula": "student", "copula_params": "per-dim"}, id="student-per-dim"
    ),
    pytest.param({"model": "cm2", "copula": "clayton", "align": "none"}, id="cm2-unaligned"),
    pytest.param({"model": "cm2", "copula": "gumbel", "copula_dim": 0}, id="cm2-full-space"),
    pytest.param({"model": "cm2", "coupling": "coordinate"}, id="cm2-coordinate"),
    pytest.param(
        {"model": "cm2", "coupling": "component", "impute": "conditional"}, id="cm2-component"
    ),
    pytest.param({"model": "cm2", "coupling": "joint", "impute": "marginal"}, id="cm2-joint"),
    pytest.param({"model": "cm2", "coupling": "kendall", "K": 1}, id="cm2-kendall"),
    pytest.param({"model": "cm2", "mixture_weights": "mlp"}, id="cm2-mlp-weights"),
    *(
        pytest.param(
            {"model": "cm2", "align": how, "align_pairs": over, "impute": "conditional"},
            id=f"cm2-{how}-{over}",
        )
        for how in ("cosine", "kl", "infonce")
        for over in ("pairs", "all")
    ),
    pytest.param({"model": "cm2", "align_pairs": "pairs"}, id="cm2-copula-pairs"),
    pytest.param({"model": "cm2", "objective": "paper"}, id="cm2-paper-objective"),
    pytest.param({"model": "cm2", "objective": "elbo"}, id="cm2-elbo"),
    pytest.param(
        {"model": "cm2", "objective": "elbo", "impute": "conditional", "copula_dim": 0},
        id="cm2-elbo-conditional",
    ),
    pytest.param({"model": "cm2", "availability_bits": False}, id="cm2-no-bits"),
    pytest.param({"model": "cm2", "fusion": "concat", "impute": "skip"}, id="cm2-concat-head"),
    pytest.param({"model": "cm2", "fusion": "transformer"}, id="cm2-transformer-head"),
    pytest.param(
        {"model": "cm2", "fusion": "transformer", "fusion_layers": 1, "impute": "skip"},
        id="cm2-transformer-head-skip",
    ),
    pytest.param({"model": "cm2", "fusion_layers": 1}, id="cm2-one-layer"),
    pytest.param({"model": "cm2", "series_encoder": "transformer"}, id="cm2-series-transformer"),
    pytest.param({"model": "concat", "series_encoder": "transformer"}, id="concat-transformer"),
    pytest.param(
        {
            "model": "cm2",
            "copula": "gumbel",
            "coupling": "joint",
            "copula_dim": 0,
            "impute": "marginal",
            "objective": "paper",
            "availability_bits": False,
            "published": {
                name: name not in ("imputed_unread", "two_tokens")
                for name in Published.model_fields
            },
        },
        id="cm2-published",
    ),
]

VARIANTS = [
    *PRESETS,
    *(Subject(str(switch.id), dict(switch.values[0])) for switch in SWITCHES),  # type: ignore[call-overload]
]
TRAINS = ("overfits", "interaction")
"""Checks that train; they run for presets only."""


def cases() -> Iterator[Any]:
    for subject in VARIANTS:
        for name in CHECKS:
            if name in TRAINS and "preset" not in subject.options:
                continue  # presets only
            why = subject.violates.get(name)
            marks = [pytest.mark.xfail(raises=Violation, strict=True, reason=why)] if why else []
            if name in TRAINS and subject.options.get("preset") != "corrected":
                marks.append(pytest.mark.slow)
            yield pytest.param(subject, name, id=f"{subject.name}-{name}", marks=marks)


@pytest.mark.parametrize(("subject", "name"), list(cases()))
def test_a_method_conforms(subject: Subject, name: str) -> None:
    CHECKS[name](subject)


def test_the_registry_has_the_names_of_the_configuration() -> None:
    assert tuple(MODELS) == NAMES


def test_a_method_declares_the_options_of_its_entry() -> None:
    assert {n: m.Options for n, m in MODELS.items()} == {n: m.options for n, m in METHODS.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_known_violation_names_a_check_and_what_violates_it(name: str) -> None:
    declared = METHODS[name].options.violates
    seen = {key for subject in subjects(name) for key in subject.violates}
    assert {check for checks in declared.values() for check in checks} == seen <= CHECKS.keys()


def make_model(options: dict[str, Any]) -> Any:
    return Subject("", options).model()


def test_the_conditional_mean_reads_what_is_present() -> None:
    model = make_model({"model": "cm2", "impute": "conditional-mean"})
    batch = make_batch(4)
    batch = dataclasses.replace(batch, available=torch.tensor([[True, False, True]] * 4))
    before = run(model, batch).logits
    after = run(model, with_x(batch, "report", lambda x: x + 0.5)).logits
    assert (before != after).all()


def test_each_term_moves_only_what_it_may() -> None:
    moved: dict[str, set[str]] = {}
    for term in ("copula", "marginal"):
        model = make_model({"model": "cm2"})
        output = run(model, noisy(make_batch(30), model, training=True))
        output.losses[term].mean().backward()
        moved[term] = {
            name.split(".")[0] + "." + name.split(".")[1]
            for name, p in model.named_parameters()
            if p.grad is not None and (p.grad != 0).any()
        }
    assert moved["marginal"] == {"joint.marginals"}
    assert moved["copula"] == {"encoders.parts", "space.projection", "joint.raw"}


def test_without_alignment_the_copula_leaves_the_embeddings_alone() -> None:
    model = make_model({"model": "cm2", "align": "none"})
    output = run(model, noisy(make_batch(30), model, training=True))
    output.losses["copula"].mean().backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and (p.grad != 0).any()}
    assert moved == {"joint.raw"}
