"""What each objective weighs, and whom each loss moves."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import build
from cm2.fuse.models.cm2 import CM2
from cm2.fuse.models.interface import FusionBatch, Hyper, ModalitySpec
from cm2.fuse.training.trainer import fuse

NAMES = ("a", "b", "c")


def make_batch(n: int = 40) -> FusionBatch:
    random = np.random.default_rng(0)
    available = torch.from_numpy(random.random((n, 3)) < 0.7)
    available[:, 0] = True
    return FusionBatch(
        x={name: torch.from_numpy(random.normal(size=(n, 1, 5))).float() for name in NAMES},
        mask=dict.fromkeys(NAMES, torch.ones(n, 1, dtype=torch.bool)),
        available=available,
        pattern_id=(available * torch.tensor([1, 2, 4])).sum(1),
        y=torch.from_numpy((random.random((n, 1)) < 0.5).astype(np.float32)),
    )


def make_model(**options: object) -> CM2:
    small = {"hidden": 8, "fusion_hidden": 6, "copula_dim": 3, "K": 2, "draws": 2}
    specs = tuple(ModalitySpec(name, "vector", 5) for name in NAMES)
    model = build(specs, FuseConfig.of({**small, **options}))
    assert isinstance(model, CM2)
    model.start([make_batch()])
    model.refresh(1, [make_batch()])
    return model


def moved(model: CM2, loss: str) -> set[str]:
    random, batch = np.random.default_rng(1), make_batch()
    shapes = model.noise(training=True)
    noise = {k: torch.from_numpy(random.random((40, *shape))) for k, shape in shapes.items()}
    output = model(dataclasses.replace(batch, noise=noise), Hyper.of(model.config))
    output.losses[loss].mean().backward()
    return {
        "joint.marginals"
        if name.startswith("joint.marginals")
        else name.partition(".")[0]
        if not name.startswith("joint")
        else name
        for name, p in model.named_parameters()
        if p.grad is not None and (p.grad != 0).any()
    }


@pytest.mark.parametrize(
    ("options", "loss", "expected"),
    [
        ({}, "task", {"encoders", "head"}),
        ({}, "copula", {"encoders", "space", "joint.raw"}),
        ({}, "marginal", {"joint.marginals"}),
        ({"align_pairs": "pairs"}, "copula", {"encoders", "space", "joint.raw"}),
        ({"align": "cosine"}, "copula", {"joint.raw"}),
        ({"align": "cosine"}, "align", {"encoders"}),
        ({"align": "kl"}, "align", {"encoders"}),
        ({"align": "infonce"}, "align", {"encoders"}),
        ({"align": "none"}, "copula", {"joint.raw"}),
        (
            {"objective": "paper"},
            "likelihood",
            {"encoders", "space", "joint.raw", "joint.marginals"},
        ),
        (
            {"objective": "elbo"},
            "kl",
            {"encoders", "space", "joint.raw", "joint.marginals", "posterior"},
        ),
        ({"objective": "elbo"}, "task", {"encoders", "space", "posterior", "head"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_a_loss_moves_whom_it_is_said_to_move(
    options: dict[str, object], loss: str, expected: set[str]
) -> None:
    assert moved(make_model(**options), loss) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"task": 1, "copula": 0.05, "marginal": 1}),
        ({"align": "none"}, {"task": 1, "copula": 0.05, "marginal": 1}),
        (
            {"align": "kl", "lambda_align": 0.7},
            {"task": 1, "copula": 0.05, "marginal": 1, "align": 0.7},
        ),
        ({"objective": "elbo"}, {"task": 1, "kl": 0.05}),
        ({"objective": "paper"}, {"task": 1, "likelihood": 0.05}),
    ],
    ids=str,
)
def test_an_objective_weighs_its_losses(
    options: dict[str, object], expected: dict[str, float]
) -> None:
    model = make_model(lambda_cop=0.05, **options)
    (objective,) = model.objectives(Hyper.of(model.config))
    weights = {name: float(weight) for name, weight in objective.weights.items()}
    assert weights == pytest.approx(expected)


def test_the_schedule_of_the_paper_lets_the_task_grow_to_a_thousandfold() -> None:
    config = FuseConfig.of({"temperature": 0.08})
    for epoch, weight in ((0, 1.0), (1, math.exp(0.08)), (50, math.exp(4)), (87, 1000), (99, 1000)):
        assert float(Hyper.of(config, epoch).task) == pytest.approx(weight)
    assert float(Hyper.of(FuseConfig(), 99).task) == 1


def test_the_schedule_weighs_training_and_not_validation(small_cache: Path, tmp_path: Path) -> None:
    rows = {}
    base = {"model": "single", "modalities": ("ehr",), "hidden": 4, "epochs": 1, "dropout": 0.0}
    for temperature in (0.0, 2.0):
        config = FuseConfig.of({**base, "temperature": temperature, "clip": 0.0})
        run = fuse(config, small_cache, tmp_path / str(temperature))
        rows[temperature] = json.loads((run.path / "metrics.jsonl").read_text())
    plain, scheduled = rows[0.0], rows[2.0]
    assert plain["train_loss"] == pytest.approx(plain["train_task"])
    assert scheduled["train_loss"] == pytest.approx(math.exp(2) * scheduled["train_task"], rel=1e-5)
    assert scheduled["val_loss"] == pytest.approx(plain["val_loss"], rel=0.05)


def test_the_objective_of_the_paper_says_its_danger(caplog: pytest.LogCaptureFixture) -> None:
    make_model(objective="paper")
    assert "has no lower bound" in caplog.text
    caplog.clear()
    make_model(objective="elbo")
    assert "no lower bound" not in caplog.text
