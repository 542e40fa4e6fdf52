"""DrFuse against closed forms: pool, divergence, order of the attention."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import build
from cm2.fuse.models.drfuse import DrFuse, divergence, half_divergence, pool, rank
from cm2.fuse.models.interface import FusionBatch, Hyper, ModalitySpec, pattern_ids

SPECS = (ModalitySpec("ehr", "series", 3), ModalitySpec("cxr", "vector", 4))


def every(h: Tensor) -> Tensor:
    return torch.ones(h.shape[:2], dtype=torch.bool)


def test_the_pool_of_two_is_the_published_formula() -> None:
    h = 3 * torch.randn(7, 2, 5, dtype=torch.float64)
    a, b = h.unbind(1)
    above = torch.log(2 * (a + b).exp() + a.exp() + b.exp())
    below = torch.log(2 + a.exp() + b.exp())
    torch.testing.assert_close(pool(h, every(h)), above - below)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_the_pool_of_equal_features_is_the_feature(m: int) -> None:
    """The published three-modal code gives 6.93 for three times 4."""
    h = torch.full((2, m, 3), 4.0, dtype=torch.float64)
    torch.testing.assert_close(pool(h, every(h)), h[:, 0])


def test_the_pool_reads_what_is_there_and_is_finite_far_out() -> None:
    h = torch.tensor([[[900.0], [-900.0], [3.0]]], dtype=torch.float64, requires_grad=True)
    only = torch.tensor([[False, False, True]])
    torch.testing.assert_close(pool(h, only), h[:, 2])
    pooled = pool(h, ~only)  # one certain, one impossible: a half
    torch.testing.assert_close(pooled, torch.zeros_like(pooled))
    pooled.sum().backward()  # type: ignore[no-untyped-call]
    assert h.grad is not None
    assert h.grad.isfinite().all()


def entropy(p: Tensor) -> Tensor:
    return -(p * p.log() + (1 - p) * (1 - p).log())


def test_the_divergence_is_that_of_bernoulli_variables_over_the_pairs_that_are_there() -> None:
    h = torch.randn(4, 3, 5, dtype=torch.float64)
    available = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    loss, p = divergence(h, available), h.sigmoid()

    def pair(b: int, i: int, j: int) -> Tensor:
        middle = entropy((p[b, i] + p[b, j]) / 2)
        return (middle - (entropy(p[b, i]) + entropy(p[b, j])) / 2).sum()

    expected = [
        (pair(0, 0, 1) + pair(0, 0, 2) + pair(0, 1, 2)) / 3,
        pair(1, 0, 1),
        torch.tensor(0.0, dtype=torch.float64),
        pair(3, 0, 2),
    ]
    torch.testing.assert_close(loss.value, torch.stack(expected))
    assert loss.rows.tolist() == [True, True, False, True]


def test_the_published_divergence_is_pulled_by_stays_that_have_no_pair() -> None:
    """Eight stays, two of them with both: every stay counts, divided by two."""
    h = torch.randn(8, 2, 6, dtype=torch.float64)
    available = torch.ones(8, 2, dtype=torch.bool)
    available[2:, 1] = False
    p = h.sigmoid()
    middle = p.mean(1, keepdim=True)
    each = 0.5 * (p * (p / middle).log()).sum((1, 2))
    torch.testing.assert_close(half_divergence(h, available).mean(), each.sum() / 2)
    other = torch.where(available.unsqueeze(-1), h, 5.0)
    assert not torch.allclose(
        half_divergence(h, available).mean(), half_divergence(other, available).mean()
    )
    torch.testing.assert_close(divergence(h, available).mean(), divergence(other, available).mean())


def test_attention_is_ranked_by_the_error_of_each_part() -> None:
    """Part 0 predicts best, part 2 worst; the last stay has no part 1."""
    weights = torch.tensor([[[0.5, 0.3, 0.2]], [[0.2, 0.3, 0.5]], [[0.2, 0.3, 0.5]]])
    weights = weights.double().requires_grad_()
    logits = torch.tensor([3.0, 0.0, -3.0], dtype=torch.float64).expand(3, 1, 3)
    present = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 1]], dtype=torch.bool)
    loss = rank(weights, logits.clone().requires_grad_(), present, torch.ones(3, 1))
    assert loss.rows.tolist() == [False, True, True]
    torch.testing.assert_close(
        loss.value.detach(), torch.tensor([0.0, (0.1 + 0.3 + 0.2) / 3, 0.3], dtype=torch.float64)
    )
    loss.mean().backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    assert weights.grad[2, 0, 1] == 0
    unknown = rank(weights, logits, present, torch.full((3, 1), math.nan))
    assert not unknown.rows.any()


def test_the_query_is_the_mean_of_what_is_there_and_each_target_has_its_own_keys() -> None:
    torch.manual_seed(0)
    config = FuseConfig.of({"model": "drfuse", "hidden": 6, "dropout": 0.0})
    model = build(SPECS, config, targets=2)
    assert isinstance(model, DrFuse)
    tokens = torch.randn(3, 3, 6)
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1]], dtype=torch.bool)
    weights, values = model.attended(tokens, present)
    mapped = model.attention(tokens).unflatten(-1, (4, 6))
    for b in range(3):
        there = present[b].nonzero()[:, 0]
        q = mapped[b, there, 0].mean(0)
        for c in range(2):
            expected = (mapped[b, there, 2 + c] @ q / 6**0.5).softmax(0)
            torch.testing.assert_close(weights[b, c, there], expected)
        assert (weights[b][:, ~present[b]] == 0).all()
    torch.testing.assert_close(values, mapped[:, :, 1])


def test_no_loss_of_the_shared_features_moves_the_reader_of_a_modality_nobody_has() -> None:
    config = FuseConfig.of({"model": "drfuse", "hidden": 6, "dropout": 0.0})
    model = build(SPECS, config)
    generator = torch.Generator().manual_seed(0)
    x = {s.name: torch.randn(5, 4, s.width, generator=generator) for s in SPECS}
    available = torch.tensor([[True, False]]).expand(5, 2)
    mask = {s.name: torch.ones(5, 4, dtype=torch.bool) for s in SPECS}
    batch = FusionBatch(x, mask, available, pattern_ids(available), torch.ones(5, 1))
    batch = dataclasses.replace(batch)
    hyper = Hyper.of(config)
    model.objectives(hyper)[0].total(model(batch, hyper).losses).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if name.startswith("readers.parts.1."):
            assert parameter.grad is None or (parameter.grad == 0).all(), name
