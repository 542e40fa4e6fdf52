"""What a method can learn: wrong targets by heart, and what needs two modalities at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..inference import build
from ..methods import find
from ..models.interface import FusionBatch, Hyper, ModalitySpec
from ..synthetic import make_batch
from .subject import Subject, Violation, fit_whole, require, run, total


def overfits(subject: Subject) -> None:
    """Sixty-four stays, some with the wrong target, are learned by heart."""
    if not subject.kind.uses_all_modalities:
        return
    wide: dict[str, Any] = {"hidden": 24, "fusion_hidden": 24}
    unread = find(str(subject.options.get("model", "cm2"))).options.unread
    model = subject.fresh(**{k: v for k, v in wide.items() if k not in unread})
    batch = make_batch(64, model.specs)
    flipped = torch.from_numpy(np.random.default_rng(1).random((64, 1)) < 0.3)
    batch = dataclasses.replace(batch, y=torch.where(flipped, 1 - batch.y, batch.y))
    model.start([batch])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    model.refresh(1, [batch])
    fit_whole(model, batch)
    for step in range(401):
        if step % 20 == 0:
            with torch.no_grad():
                right = ((run(model, batch).logits > 0) == (batch.y > 0.5)).float().mean().item()
            if right > 0.97:
                return
        optimizer.zero_grad()
        output = run(model, batch)
        total(model, output).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        model.track(batch, output)
    raise Violation(f"only {100 * right:.0f} % of 64 stays are learned by heart")


def interaction(subject: Subject) -> None:
    """A label that needs two modalities at once is learned, if it is declared that they meet."""
    if subject.kind.most_modalities == 1:
        return
    specs = (
        ModalitySpec("ehr", "series", 3),
        ModalitySpec("cxr", "vector", 3, null=torch.zeros(1, 3)),
    )
    widths = {"hidden": 16, "fusion_hidden": 16, "dropout": 0.0}
    options = find(str(subject.options.get("model", "cm2"))).options
    config = subject.config(**{k: v for k, v in widths.items() if k not in options.unread})
    model = build(specs, config)
    train, test = _product(400, 1), _product(400, 2)
    model.start([train])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    hyper = Hyper.of(config)
    whole = fit_whole(model, train)
    for step in range(151):
        if step % 25 == 0:
            with torch.no_grad():
                found = _auroc(model(test, hyper).logits[:, 0], test.y[:, 0])
            if found > 0.9 or whole:
                break
        for objective in model.objectives(hyper):
            optimizer.zero_grad()
            objective.total(model(train, hyper).losses).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    if model.models_interaction:
        require(found > 0.9, f"AUROC {found:.2f} where two modalities are needed at once")
    else:
        require(found < 0.65, f"AUROC {found:.2f} where both are needed: they do meet, declare it")


def _product(n: int, seed: int) -> FusionBatch:
    """A label that is the sign of a product: neither factor says anything alone."""
    random = np.random.default_rng(seed)
    a, b = random.choice([-1.0, 1.0], (2, n))
    x = {
        name: torch.from_numpy(
            np.repeat(sign[:, None, None], 3, 2) + 0.3 * random.normal(size=(n, steps, 3))
        ).float()
        for name, sign, steps in (("ehr", a, 4), ("cxr", b, 1))
    }
    mask = {name: torch.ones(values.shape[:2], dtype=torch.bool) for name, values in x.items()}
    y = torch.from_numpy((a * b > 0).astype(np.float32)).unsqueeze(1)
    return FusionBatch(x, mask, torch.ones(n, 2, dtype=torch.bool), torch.full((n,), 3), y)


def _auroc(score: Tensor, y: Tensor) -> float:
    positive, negative = score[y == 1], score[y == 0]
    return float((positive.unsqueeze(1) > negative).double().mean())
