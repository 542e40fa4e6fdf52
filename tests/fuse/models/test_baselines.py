"""What each baseline computes, held against closed forms and against what it must not do."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import build
from cm2.fuse.methods import METHODS
from cm2.fuse.models import MODELS
from cm2.fuse.models.concat import Concat
from cm2.fuse.models.daft import DAFT
from cm2.fuse.models.interface import (
    FusionBatch,
    FusionModel,
    Hyper,
    ModalitySpec,
    pattern_ids,
)
from cm2.fuse.models.late import Late
from cm2.fuse.models.medfuse import MedFuse
from cm2.fuse.models.unified import UnifiedDynamic

SPECS = (
    ModalitySpec("ehr", "series", 4),
    ModalitySpec("cxr", "vector", 6),
    ModalitySpec("report", "vector", 5),
)
SMALL: dict[str, object] = {"hidden": 16, "fusion_hidden": 16, "dropout": 0.0}


READ_PARTS = ("lsmt",)
"""Methods that read every part of a film's map; all others read its mean alone."""


def small(name: str) -> dict[str, object]:
    """Small widths, as far as a method reads them."""
    options = METHODS[name].options
    widths = {k: v for k, v in SMALL.items() if k not in options.unread}
    return {**widths, "options": dict(options.small)}


def make_model(name: str, specs: tuple[ModalitySpec, ...] = SPECS) -> FusionModel:
    torch.manual_seed(0)
    return build(specs, FuseConfig.of({**small(name), "model": name}))


def make_batch(n: int, parts: int = 3, specs: tuple[ModalitySpec, ...] = SPECS) -> FusionBatch:
    generator = torch.Generator().manual_seed(1)
    x = {s.name: torch.randn(n, parts, s.width, generator=generator) for s in specs}
    mask = {s.name: torch.ones(n, parts, dtype=torch.bool) for s in specs}
    available = torch.rand(n, len(specs), generator=generator) < 0.6
    available[torch.arange(n), torch.arange(n) % len(specs)] = True
    y = (torch.rand(n, 1, generator=generator) < 0.5).float()
    return FusionBatch(x, mask, available, pattern_ids(available), y)


def run(model: FusionModel, batch: FusionBatch) -> Tensor:
    logits: Tensor = model(batch, Hyper.of(model.config)).logits
    return logits


@pytest.mark.parametrize(
    "name", [name for name in MODELS if name not in ("single", "cm2", *READ_PARTS)]
)
def test_a_map_of_parts_is_worth_its_mean(name: str) -> None:
    model, batch = make_model(name), make_batch(8)
    pooled = {
        spec.name: batch.x[spec.name].mean(1, keepdim=True).expand(-1, 3, -1)
        if spec.view == "vector"
        else batch.x[spec.name]
        for spec in SPECS
    }
    torch.testing.assert_close(
        run(model, dataclasses.replace(batch, x=pooled)), run(model, batch), rtol=1e-5, atol=1e-6
    )


def test_medfuse_equals_torchs_lstm_over_packed_tokens() -> None:
    model, batch = make_model("medfuse"), make_batch(12)
    assert isinstance(model, MedFuse)
    reference = nn.LSTM(16, 16, batch_first=True)
    ours = model.lstm
    with torch.no_grad():
        reference.weight_ih_l0.copy_(ours.weight_ih_l0)  # type: ignore[arg-type]
        reference.weight_hh_l0.copy_(ours.weight_hh_l0)  # type: ignore[arg-type]
        reference.bias_ih_l0.copy_(ours.bias_l0)  # type: ignore[arg-type]
        reference.bias_hh_l0.zero_()
    z, lengths = model.encoders(batch), batch.available.sum(1)
    first = torch.argsort((~batch.available).int(), dim=1, stable=True)  # available tokens first
    tokens = z.gather(1, first.unsqueeze(-1).expand_as(z))
    packed = nn.utils.rnn.pack_padded_sequence(
        tokens, lengths, batch_first=True, enforce_sorted=False
    )
    expected = model.linear(reference(packed)[1][0][0])
    assert len(lengths.unique()) == 3
    torch.testing.assert_close(run(model, batch), expected)


def test_late_fusion_is_the_mean_probability_of_what_is_there() -> None:
    model, batch = make_model("late"), make_batch(12)
    assert isinstance(model, Late)
    each = model.branches(model.encoders(batch)).sigmoid()[..., 0].T  # (B, M)
    mean = torch.where(batch.available, each, 0.0).sum(1) / batch.available.sum(1)
    torch.testing.assert_close(run(model, batch).sigmoid()[:, 0], mean)


def test_a_stay_with_one_modality_is_answered_by_its_own_classifier() -> None:
    model, batch = make_model("unified_dynamic"), make_batch(12)
    assert isinstance(model, UnifiedDynamic)
    z = model.encoders(batch)
    alone, joint = model.branches(z), model.linear(z.flatten(1))
    only = batch.available.sum(1) == 1
    assert 0 < only.sum() < 12
    for b, logit in enumerate(run(model, batch)):
        m = int(batch.available[b].int().argmax())
        torch.testing.assert_close(logit, alone[m, b] if only[b] else joint[b])


def test_availability_reads_no_value() -> None:
    model, batch = make_model("availability"), make_batch(12)
    other = dataclasses.replace(batch, x={k: v + 1 for k, v in batch.x.items()})
    model.fit([batch])
    assert torch.equal(run(model, batch), run(model, other))


def test_availability_predicts_the_share_of_events_by_pattern_shrunk_to_that_of_all() -> None:
    model, batch = make_model("availability"), make_batch(60)
    batch.y[:3] = torch.nan
    model.fit([batch])
    known = ~batch.y[:, 0].isnan()
    for pattern in range(8):
        rows = known & (batch.pattern_id == pattern)
        events, n = float(batch.y[rows, 0].sum()), int(rows.sum())
        expected = (events + float(batch.y[known].mean())) / (n + 1)
        assert float(model.odds[pattern, 0].detach().sigmoid()) == pytest.approx(expected, rel=1e-5)


def test_each_step_of_mmtm_moves_its_own_branch_and_the_block() -> None:
    """The published code gave the series' step the image's parameters."""
    model = make_model("mmtm")
    names = [name for name, _ in model.named_parameters()]
    objectives = model.objectives(Hyper.of(model.config))
    assert [list(o.weights) for o in objectives] == [
        *([f"task.{spec.name}"] for spec in SPECS),
        ["task"],
    ]
    moved = []
    for objective in objectives:
        assert objective.parameters is not None
        moved.append({n for n in names if n.startswith(objective.parameters)})
    for m, own in enumerate(moved[:-1]):
        rest = own - {n for n in names if n.startswith("block.")}
        assert rest == {
            n for n in names if n.startswith((f"encoders.parts.{m}.", f"branches.parts.{m}."))
        }
    assert moved[-1] == {n for n in names if not n.startswith("branches.")}
    assert set.union(*moved) == set(names)


def test_mmtm_gates_lie_between_zero_and_one_and_see_every_modality() -> None:
    model, batch = make_model("mmtm"), make_batch(6)
    states, real = model.encoders.states(batch)  # type: ignore[operator,union-attr]
    gated = model.gated(states, real)  # type: ignore[operator]
    for values, scaled in zip(states, gated, strict=True):
        ratio = (scaled / values)[values.abs() > 1e-3]
        assert ((ratio > 0) & (ratio < 1)).all()


def test_daft_starts_near_the_anchors_own_states() -> None:
    """Counted from 0 the scale would silence them."""
    model, batch = make_model("daft"), make_batch(6)
    assert isinstance(model, DAFT)
    batch = dataclasses.replace(batch, available=torch.ones(6, 3, dtype=torch.bool))
    with torch.no_grad():
        for block in model.blocks:
            block.expand.weight.zero_()  # type: ignore[union-attr]
    states, real = model.encoders.states(batch)
    z = model.encoders.gather(states, real, batch.available)
    values, mask = model.modulated(states, real, z, batch.available)
    assert torch.equal(values, states[0])
    assert torch.equal(mask, real[0])


@pytest.mark.parametrize("missing", ["zero", "mean", "learned"])
def test_what_stands_in_for_an_absent_embedding(missing: str) -> None:
    config = FuseConfig.of({**SMALL, "model": "concat", "options": {"missing": missing}})
    model, batch = build(SPECS, config), make_batch(40)
    assert isinstance(model, Concat)
    model.start([batch])
    model.refresh(1, [batch])
    z = model.encoders(batch)
    for m in range(3):
        has = batch.available[:, m]
        expected = {
            "zero": lambda m=m: torch.zeros(16),
            "mean": lambda m=m, has=has: z[has, m].mean(0),
            "learned": lambda m=m: model.learned[m],
        }[missing]()
        found = model.completed(batch)[1][:, m]
        torch.testing.assert_close(found[~has], expected.expand((~has).sum(), -1))
        assert torch.equal(found[has], z[has, m])


def published_daft(parts: int = 4) -> tuple[DAFT, FusionBatch]:
    torch.manual_seed(0)
    config = FuseConfig.of({"model": "daft", "preset": "original", "hidden": 16, "dropout": 0.0})
    model, batch = build(SPECS, config), make_batch(8, parts)
    assert isinstance(model, DAFT)
    return model, batch


def test_daft_as_published_reads_where_on_the_map_something_is() -> None:
    model, batch = published_daft()
    assert SPECS[model.anchor].name == "cxr"
    pooled = batch.x["cxr"].mean(1, keepdim=True).expand_as(batch.x["cxr"])
    flat = dataclasses.replace(batch, x={**batch.x, "cxr": pooled})
    moved = (run(model, flat) - run(model, batch)).abs()[:, 0]
    there = batch.available[:, 1]
    assert (moved[there] > 1e-4).all()
    assert (moved[~there] == 0).all()
    turned = dataclasses.replace(batch, x={**batch.x, "cxr": batch.x["cxr"].flip(1)})
    torch.testing.assert_close(run(model, turned), run(model, batch))  # a mean over cells


def test_daft_as_published_scales_and_shifts_each_cell_before_the_nonlinearity() -> None:
    model, batch = published_daft()
    assert model.residual is not None
    batch = dataclasses.replace(batch, available=torch.ones_like(batch.available))
    states, real = model.encoders.states(batch)
    z = model.encoders.gather(states, real, batch.available)
    found, _ = model.modulated(states, real, z, batch.available)
    cells = states[1]
    inner = cells @ model.residual.before.weight.T
    for block, m in zip(model.blocks, (0, 2), strict=True):
        both = torch.cat([z[:, m], inner.mean(1)], -1) @ block.squeeze.weight.T  # type: ignore[union-attr, operator]
        scale, shift = (both.relu() @ block.expand.weight.T).chunk(2, -1)  # type: ignore[union-attr, operator]
        inner = scale.unsqueeze(1) * inner + shift.unsqueeze(1)
    expected = (cells + inner.relu() @ model.residual.after.weight.T).relu()
    torch.testing.assert_close(found, expected)


def test_daft_as_published_asks_for_a_map_where_there_is_one_vector() -> None:
    model, _ = published_daft()
    assert model.lacks({"ehr": 24, "cxr": 49, "report": 4}) is None
    assert "extract --modality cxr --level grid" in str(model.lacks({"ehr": 24, "cxr": 1}))
