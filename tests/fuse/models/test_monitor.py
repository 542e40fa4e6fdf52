from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import build
from cm2.fuse.models.cm2 import CM2
from cm2.fuse.models.interface import FusionBatch, ModalitySpec
from cm2.fuse.models.monitor import Monitor
from cm2.fuse.precision import precision


def watch(*epochs: tuple[list[float], list[float]], **options: object) -> None:
    monitor = Monitor(FuseConfig.of(options), ["ehr", "cxr"])
    highest = torch.zeros(2, 2)
    for spread, rank in epochs:
        now = torch.tensor([spread, rank])
        highest = torch.maximum(highest, now)
        monitor.collapse(*now, highest)


def test_healthy_embeddings_are_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    watch(([0.7, 0.8], [3.5, 9.0]), ([0.6, 0.8], [2.6, 7.0]), ([0.5, 0.7], [2.0, 5.0]))
    assert not caplog.records


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({}, "Lower --lambda-cop or --lr."),
        ({"align": "cosine"}, "Lower --lambda-align or --lr."),
        ({"align": "none"}, "Lower --lr."),
        ({"objective": "paper"}, "Leave --objective out"),
    ],
)
def test_a_falling_spread_is_said_before_nothing_is_left(
    caplog: pytest.LogCaptureFixture, options: dict[str, object], remedy: str
) -> None:
    watch(([0.7, 0.8], [5.0, 5.0]), ([0.7, 0.38], [5.0, 5.0]), **options)
    (record,) = caplog.records
    assert "'cxr' are collapsing to a point" in record.message
    assert "0.38, at most 0.8 before" in record.message
    assert remedy in record.message


def test_a_falling_rank_is_said(caplog: pytest.LogCaptureFixture) -> None:
    watch(([0.7, 0.8], [9.0, 5.0]), ([0.7, 0.8], [4.0, 5.0]))
    (record,) = caplog.records
    assert "'ehr' are collapsing to few directions: effective rank 4" in record.message


def test_a_remedy_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    watch(*[([0.01, 0.01], [1.0, 1.0])] * 3)
    assert len(caplog.records) == 1


def test_what_is_narrow_from_the_start_has_not_fallen(caplog: pytest.LogCaptureFixture) -> None:
    watch(([0.05, 0.8], [5.0, 5.0]))
    (record,) = caplog.records
    assert "spread 0.05. Lower" in record.message


def test_a_model_that_collapses_says_so(caplog: pytest.LogCaptureFixture) -> None:
    specs = tuple(ModalitySpec(name, "vector", 4) for name in ("a", "b"))
    model = build(specs, FuseConfig.of({"hidden": 6, "copula_dim": 2}))
    assert isinstance(model, CM2)
    batch = make_batch(torch.randn(50, 2, 4, generator=torch.Generator().manual_seed(0)))
    model.start([batch])
    with caplog.at_level(logging.WARNING):
        model.refresh(1, [batch])
        assert "collapsing" not in caplog.text
        with torch.no_grad():
            for part in model.encoders.parts:
                part.projection.bias.add_(30.0)  # every stay looks the same
        model.refresh(2, [batch])
    assert "collapsing to a point" in caplog.text


@pytest.mark.parametrize(("width", "warned"), [(5, False), (8, True)])
def test_a_modality_with_fewer_directions_than_the_copula_space_is_named_once(
    caplog: pytest.LogCaptureFixture, width: int, warned: bool
) -> None:
    specs = tuple(ModalitySpec(name, "vector", 4) for name in ("a", "b"))
    model = build(specs, FuseConfig.of({"hidden": 16, "copula_dim": width}))
    batch = make_batch(torch.randn(50, 2, 4, generator=torch.Generator().manual_seed(0)))
    model.start([batch])
    for epoch in (1, 2):
        model.refresh(epoch, [batch])
    said = [r.message for r in caplog.records if "directions of the copula space" in r.message]
    # both lack the same, and a remedy is named once: four columns, and one for their length
    assert len(said) == warned
    assert not said or ("'a' fill 5 of the 8" in said[0] and "--copula-dim 5" in said[0])


@pytest.mark.parametrize("used", ["fp32", "bf16"])
def test_statistics_are_those_of_the_embeddings_that_training_sees(
    used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = tuple(ModalitySpec(name, "vector", 4) for name in ("a", "b"))
    model = build(specs, FuseConfig.of({"hidden": 6, "copula_dim": 2, "precision": used}))
    assert isinstance(model, CM2)
    batch = make_batch(torch.randn(50, 2, 4, generator=torch.Generator().manual_seed(0)))
    model.start([batch])
    seen: list[Tensor] = []
    monkeypatch.setattr(model, "renew", lambda epoch, z, available: seen.append(z) or {})
    model.refresh(1, [batch])
    model.eval()
    with torch.no_grad(), precision(model.config, torch.device("cpu")):
        torch.testing.assert_close(seen[0], model.embed(batch), rtol=0, atol=0)
    with torch.no_grad():
        exact = bool((seen[0].double() == model.embed(batch).double()).all())
    assert exact == (used == "fp32")


def make_batch(x: Tensor) -> FusionBatch:
    n = len(x)
    return FusionBatch(
        x={name: x[:, m : m + 1] for m, name in enumerate("ab")},
        mask=dict.fromkeys("ab", torch.ones(n, 1, dtype=torch.bool)),
        available=torch.ones(n, 2, dtype=torch.bool),
        pattern_id=torch.full((n,), 3),
        y=torch.zeros(n, 1),
    )
