"""What every method has to do, whatever it is (each point would have caught a published bug)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from cm2.fuse.config import MODELS as NAMES
from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import build
from cm2.fuse.models import MODELS
from cm2.fuse.models.imputation import RANDOM
from cm2.fuse.models.interface import FusionBatch, FusionModel, FusionOutput, Hyper, ModalitySpec
from cm2.fuse.published import Published

SPECS = (
    ModalitySpec("ehr", "series", 4),
    ModalitySpec("cxr", "vector", 6),
    ModalitySpec("report", "vector", 5),
)
LENGTHS = {"ehr": 5, "cxr": 1, "report": 3}
# `conditional-mean` is slow and has a test of its own
IMPUTE = ("skip", "zero", "mean", "learned", "marginal", "conditional", "conditional-median")
SMALL = {"hidden": 10, "fusion_hidden": 12, "copula_dim": 4, "K": 2, "draws": 2}

Options = dict[str, object]
VARIANTS = [
    pytest.param({"model": "single"}, id="single"),
    *(pytest.param({"model": name}, id=name) for name in NAMES if name not in ("single", "cm2")),
    pytest.param({"model": "mmtm", "series_encoder": "transformer"}, id="mmtm-transformer"),
    pytest.param({"model": "daft", "series_encoder": "transformer"}, id="daft-transformer"),
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
BATCH_DEPENDENT = ("infonce",)
"""Alignments whose loss, but not whose prediction, depends on the other stays of a batch."""


def make_batch(n: int, m: int, seed: int = 0) -> FusionBatch:
    random = np.random.default_rng(seed)
    specs = SPECS[:m]
    severity = random.normal(size=n)
    x, mask = {}, {}
    for spec in specs:
        shape = (n, LENGTHS[spec.name], spec.width)
        values = severity[:, None, None] + random.normal(size=shape)
        x[spec.name] = torch.from_numpy(values).float()
        mask[spec.name] = torch.ones(shape[:2], dtype=torch.bool)
    available = torch.from_numpy(random.random((n, m)) < 0.6)
    available[torch.arange(n), torch.arange(n) % m] = True
    y = torch.from_numpy((severity > 0).astype(np.float32)).unsqueeze(1)
    bits = (available * (1 << torch.arange(m))).sum(1)
    return FusionBatch(x, mask, available, bits, y)


def noisy(batch: FusionBatch, model: FusionModel, training: bool, seed: int = 0) -> FusionBatch:
    random = np.random.default_rng(seed)
    n = len(batch.y)
    shapes = model.noise(training)
    noise = {k: torch.from_numpy(random.random((n, *shape))) for k, shape in shapes.items()}
    return dataclasses.replace(batch, noise=noise)


def modalities_of(options: Options, m: int) -> int:
    return 1 if options["model"] == "single" else m


def make_model(options: Options, m: int = 3, seed: int = 0) -> FusionModel:
    """A model as it is after warm-up: statistics and mixtures have started."""
    m = modalities_of(options, m)
    config = FuseConfig.of({**SMALL, "seed": seed, **options})
    model = build(SPECS[:m], config)
    batch = make_batch(60, m, seed=7)
    model.start([batch])
    model.refresh(1, [batch])
    return model


def run(model: FusionModel, batch: FusionBatch) -> FusionOutput:
    return model(batch, Hyper.of(model.config))


def take(batch: FusionBatch, index: Tensor) -> FusionBatch:
    return FusionBatch(
        {k: v[index] for k, v in batch.x.items()},
        {k: v[index] for k, v in batch.mask.items()},
        batch.available[index],
        batch.pattern_id[index],
        batch.y[index],
        {k: v[index] for k, v in batch.noise.items()},
        batch.epoch,
    )


def with_x(batch: FusionBatch, name: str, change: Callable[[Tensor], Tensor]) -> FusionBatch:
    return dataclasses.replace(batch, x={**batch.x, name: change(batch.x[name])})


def total(model: FusionModel, output: FusionOutput) -> Tensor:
    objectives = model.objectives(Hyper.of(model.config))
    return torch.stack([objective.total(output.losses) for objective in objectives]).sum()


def test_the_registry_has_the_names_of_the_configuration() -> None:
    assert tuple(MODELS) == NAMES


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 5])
def test_any_number_of_modalities_and_stays(options: Options, m: int, n: int) -> None:
    model = make_model(options, m)
    batch = noisy(make_batch(n, modalities_of(options, m)), model, training=True)
    output = run(model, batch)
    assert output.logits.shape == (n, 1)
    assert output.z.shape[:2] == (n, modalities_of(options, m))
    for name, loss in output.losses.items():
        assert loss.value.shape == loss.rows.shape == (n,), name
        assert torch.isfinite(loss.value).all(), name


@pytest.mark.parametrize("options", VARIANTS)
def test_every_available_modality_changes_the_prediction(options: Options) -> None:
    model = make_model(options)
    batch = noisy(make_batch(12, modalities_of(options, 3)), model, training=False)
    before = run(model, batch).logits
    for m, spec in enumerate(model.specs):
        after = run(model, with_x(batch, spec.name, lambda x: x * 1.5 + 0.3)).logits
        changed = (after != before).squeeze(1)
        read = batch.available[:, m] & model.uses_all_modalities
        assert (changed == read).all(), spec.name


@pytest.mark.parametrize("options", VARIANTS)
def test_what_absent_rows_hold_changes_nothing(options: Options) -> None:
    model = make_model(options)
    batch = noisy(make_batch(12, modalities_of(options, 3)), model, training=True)
    spoiled = batch
    for m, spec in enumerate(model.specs):
        absent = ~batch.available[:, m].reshape(-1, 1, 1)
        spoiled = with_x(spoiled, spec.name, lambda x, a=absent: torch.where(a, torch.nan, x))
    clean, garbage = run(model, batch), run(model, spoiled)
    assert torch.equal(clean.logits, garbage.logits)
    assert (clean.z[~batch.available] == 0).all()
    for name in clean.losses:
        assert torch.equal(clean.losses[name].value, garbage.losses[name].value), name


@pytest.mark.parametrize("how", RANDOM)
def test_a_new_draw_changes_the_stays_that_lack_a_modality_and_no_other(how: str) -> None:
    model = make_model({"model": "cm2", "impute": how})
    batch = make_batch(30, 3)
    complete = batch.available.all(1)
    assert 0 < complete.sum() < 30
    first = run(model, noisy(batch, model, training=False, seed=1)).logits
    second = run(model, noisy(batch, model, training=False, seed=2)).logits
    assert ((first != second).squeeze(1) == ~complete).all()


def test_the_conditional_mean_reads_what_is_present() -> None:
    model = make_model({"model": "cm2", "impute": "conditional-mean"})
    batch = make_batch(4, 3)
    batch = dataclasses.replace(batch, available=torch.tensor([[True, False, True]] * 4))
    before = run(model, batch).logits
    after = run(model, with_x(batch, "report", lambda x: x + 0.5)).logits
    assert (before != after).all()


@pytest.mark.parametrize("options", VARIANTS)
def test_a_stay_is_judged_alone(options: Options) -> None:
    model = make_model(options)
    batch = noisy(make_batch(9, modalities_of(options, 3)), model, training=True)
    whole = run(model, batch)
    order = torch.tensor([4, 0, 8])
    part = run(model, take(batch, order))
    torch.testing.assert_close(part.logits, whole.logits[order], rtol=1e-5, atol=1e-6)
    for name, loss in part.losses.items():
        if name == "align" and options["align"] in BATCH_DEPENDENT:
            continue
        expected = whole.losses[name].value[order]
        torch.testing.assert_close(loss.value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("m", [2, 3])
def test_every_parameter_receives_gradient(options: Options, m: int) -> None:
    model = make_model(options, m)
    batch = noisy(make_batch(30, modalities_of(options, m)), model, training=True)
    total(model, run(model, batch)).backward()
    for name, parameter in model.named_parameters():
        unused = options.get("align") == "none" and name == "space.projection"
        unused |= options.get("K") == 1 and name.endswith("logits")  # one weight is always 1
        # Components that start equal stay equal: no weight matters (a published defect).
        unused |= "published" in options and name.endswith("logits")
        if parameter.numel() and not unused:
            assert parameter.grad is not None, name
            assert (parameter.grad != 0).any(), name


def test_each_term_moves_only_what_it_may() -> None:
    moved: dict[str, set[str]] = {}
    for term in ("copula", "marginal"):
        model = make_model({"model": "cm2"})
        output = run(model, noisy(make_batch(30, 3), model, training=True))
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
    output = run(model, noisy(make_batch(30, 3), model, training=True))
    output.losses["copula"].mean().backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and (p.grad != 0).any()}
    assert moved == {"joint.raw"}


@pytest.mark.parametrize("options", VARIANTS)
def test_large_values_stay_finite(options: Options) -> None:
    model = make_model(options)
    batch = noisy(make_batch(12, modalities_of(options, 3)), model, training=True)
    for spec in model.specs:
        batch = with_x(batch, spec.name, lambda x: x * 1e3)
    output = run(model, batch)
    loss = total(model, output)
    loss.backward()
    assert torch.isfinite(output.logits).all()
    assert torch.isfinite(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("options", VARIANTS)
def test_a_batch_without_pairs_or_targets_is_finite(options: Options) -> None:
    model = make_model(options)
    m = modalities_of(options, 3)
    batch = make_batch(6, m)
    available = torch.zeros_like(batch.available)
    available[:, 0] = True
    batch = dataclasses.replace(batch, available=available, y=torch.full((6, 1), torch.nan))
    output = run(model, noisy(batch, model, training=True))
    assert output.losses["task"].mean().item() == 0
    assert torch.isfinite(total(model, output))


@pytest.mark.parametrize(
    "options",
    [{"model": name} for name in NAMES if MODELS[name].uses_all_modalities],
    ids=str,
)
def test_sixty_four_stays_can_be_learned_by_heart(options: Options) -> None:
    m = modalities_of(options, 3)
    config = FuseConfig.of({**SMALL, "hidden": 24, "fusion_hidden": 24, **options})
    model = build(SPECS[:m], config)
    batch = make_batch(64, m)
    flipped = torch.from_numpy(np.random.default_rng(1).random((64, 1)) < 0.3)
    batch = dataclasses.replace(batch, y=torch.where(flipped, 1 - batch.y, batch.y))
    model.start([batch])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model.refresh(1, [batch])
    for _ in range(400):
        optimizer.zero_grad()
        output = run(model, batch)
        total(model, output).backward()
        optimizer.step()
        model.track(batch, output)
    right = (run(model, batch).logits > 0) == (batch.y > 0.5)
    assert right.float().mean() > 0.97


@pytest.mark.parametrize("options", VARIANTS)
def test_vmap_over_two_members_equals_the_loop(options: Options) -> None:
    members = [make_model(options, seed=seed).double() for seed in (0, 1)]
    m = modalities_of(options, 3)
    batches = [noisy(make_batch(6, m, seed=e), members[e], True, seed=e) for e in (0, 1)]
    batches = [
        dataclasses.replace(batch, x={k: v.double() for k, v in batch.x.items()})
        for batch in batches
    ]
    hypers = [
        Hyper(*torch.tensor([1e-3, p, c, 0.2, 1.5]).double()) for p, c in ((0.1, 1e-2), (0.4, 1e-1))
    ]
    base = members[0]

    def member_loss(
        params: dict[str, Tensor], buffers: dict[str, Tensor], batch: FusionBatch, hyper: Hyper
    ) -> Tensor:
        output = functional_call(base, (params, buffers), (batch, hyper))
        return base.objectives(hyper)[0].total(output.losses)

    params, buffers = stack_module_state(members)  # type: ignore[arg-type]
    stacked = torch.utils._pytree.tree_map(lambda *parts: torch.stack(parts), *batches)
    hyper = Hyper(*(torch.stack(parts) for parts in zip(*hypers, strict=True)))
    gradient = vmap(torch.func.grad_and_value(member_loss))(params, buffers, stacked, hyper)
    for e, model in enumerate(members):
        objective = model.objectives(hypers[e])[0]
        loss = objective.total(model(batches[e], hypers[e]).losses)
        loss.backward()
        torch.testing.assert_close(gradient[1][e], loss.detach(), rtol=1e-9, atol=1e-12)
        for name, parameter in model.named_parameters():
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(
                gradient[0][name][e], expected, rtol=1e-6, atol=1e-9, msg=lambda m, n=name: n + m
            )
