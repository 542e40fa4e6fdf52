from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import vmap

from cm2.fuse.copula.joint import JointModel
from cm2.fuse.models.alignment import copula_losses
from cm2.fuse.models.similarity import similarity

HOW = ("cosine", "kl", "infonce")


def embeddings(n: int, m: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, m, 5)))


def unit(z: Tensor) -> Tensor:
    return z / z.norm(dim=-1, keepdim=True)


def everywhere(z: Tensor) -> Tensor:
    return torch.ones(z.shape[:2], dtype=torch.bool)


def test_cosine_is_zero_for_parallel_and_two_for_opposite_embeddings() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    y = torch.tensor([[3.0, 0.0], [-2.0, 0.0], [0.0, 5.0]])
    z = torch.stack([x, y], 1)
    values = similarity("cosine", z, everywhere(z), 1.0).value
    torch.testing.assert_close(values, torch.tensor([0.0, 2.0, 1.0]), rtol=0, atol=1e-6)


def test_kl_is_the_divergence_from_the_first_modality_at_its_temperature() -> None:
    z = embeddings(4, 2)
    p, r = (torch.softmax(unit(z)[:, m] / 0.2, -1) for m in range(2))
    expected = (p * (p / r).log()).sum(-1)
    torch.testing.assert_close(similarity("kl", z, everywhere(z), 0.2).value, expected)


def test_the_teacher_of_kl_receives_no_gradient() -> None:
    z = embeddings(4, 2).requires_grad_()
    similarity("kl", z, everywhere(z), 0.2).mean().backward()
    assert z.grad is not None
    assert (z.grad[:, 0] == 0).all()
    assert (z.grad[:, 1] != 0).any()


def test_infonce_is_the_symmetric_cross_entropy_of_finding_the_own_partner() -> None:
    z = embeddings(6, 2)
    scores = unit(z)[:, 0] @ unit(z)[:, 1].T / 0.1
    target = torch.arange(6)
    both = [
        torch.nn.functional.cross_entropy(s, target, reduction="none") for s in (scores, scores.T)
    ]
    expected = (both[0] + both[1]) / 2
    torch.testing.assert_close(similarity("infonce", z, everywhere(z), 0.1).value, expected)


def test_the_negatives_of_infonce_have_both_modalities() -> None:
    z = embeddings(6, 2)
    available = everywhere(z)
    available[4:, 1] = False
    few = similarity("infonce", z[:4], available[:4], 0.1)
    many = similarity("infonce", z, available, 0.1)
    torch.testing.assert_close(many.value[:4], few.value)
    assert many.rows.tolist() == [True] * 4 + [False] * 2


@pytest.mark.parametrize("how", HOW)
def test_two_modalities_have_one_pair(how: str) -> None:
    z = embeddings(7, 2)
    available = torch.rand(7, 2, generator=torch.Generator().manual_seed(0)) < 0.8
    pairs = similarity(how, z, available, 0.3, "pairs")
    together = similarity(how, z, available, 0.3, "all")
    torch.testing.assert_close(pairs.value, together.value)


@pytest.mark.parametrize("how", HOW)
def test_pairs_are_the_mean_over_the_pairs_that_a_stay_has(how: str) -> None:
    z = embeddings(5, 3)
    available = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1]]).bool()
    found = similarity(how, z, available, 0.3, "pairs")
    total, count = torch.zeros(5).double(), torch.zeros(5)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        there = available[:, a] & available[:, b]
        value = similarity(how, z[:, [a, b]], available[:, [a, b]], 0.3).value
        total += torch.where(there, value, 0.0)
        count += there
    torch.testing.assert_close(found.value, total / count.clamp(min=1))
    assert found.rows.tolist() == [True, True, True, True, False]


def test_all_at_once_compares_each_with_the_sum_of_the_others() -> None:
    z = embeddings(3, 3)
    e = unit(z)
    expected = torch.stack(
        [1 - (e[:, m] * unit(e.sum(1) - e[:, m])).sum(-1) for m in range(3)]
    ).mean(0)
    torch.testing.assert_close(similarity("cosine", z, everywhere(z), 1.0).value, expected)


def test_all_at_once_the_first_available_modality_teaches_the_others() -> None:
    z = embeddings(2, 3)
    available = torch.tensor([[True, True, True], [False, True, True]])
    found = similarity("kl", z, available, 0.2).value
    pair = [similarity("kl", z[:, [0, m]], everywhere(z)[:, :2], 0.2).value[0] for m in (1, 2)]
    torch.testing.assert_close(found[0], (pair[0] + pair[1]) / 2)
    torch.testing.assert_close(
        found[1], similarity("kl", z[:, 1:], everywhere(z)[:, :2], 0.2).value[1]
    )


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("over", ["pairs", "all"])
def test_absent_embeddings_are_not_read(how: str, over: str) -> None:
    z = embeddings(6, 3)
    available = torch.rand(6, 3, generator=torch.Generator().manual_seed(1)) < 0.6
    spoiled = torch.where(available.unsqueeze(-1), z, torch.nan).requires_grad_()
    clean = similarity(how, z, available, 0.2, over)
    garbage = similarity(how, spoiled, available, 0.2, over)
    assert torch.equal(clean.value, garbage.value)
    garbage.mean().backward()
    assert spoiled.grad is not None
    assert (spoiled.grad[~available] == 0).all()
    assert spoiled.grad.isfinite().all()


@pytest.mark.parametrize("how", HOW)
def test_one_modality_has_nothing_to_align(how: str) -> None:
    z = embeddings(3, 1)
    for over in ("pairs", "all"):
        loss = similarity(how, z, everywhere(z), 0.2, over)
        assert not loss.rows.any()
        assert loss.mean() == 0


@pytest.mark.parametrize("how", HOW)
def test_it_maps_over_members(how: str) -> None:
    z = torch.stack([embeddings(4, 3, seed) for seed in (0, 1)])
    available = everywhere(z[0])
    mapped = vmap(lambda one: similarity(how, one, available, 0.2).value)(z)
    alone = torch.stack([similarity(how, one, available, 0.2).value for one in z])
    torch.testing.assert_close(mapped, alone)


def test_pairs_of_the_copula_are_its_bivariate_margins() -> None:
    joint = JointModel(3, 2, 2, "gaussian").double()
    with torch.no_grad():
        joint.raw.copy_(torch.tensor([0.9, -0.2, 0.4]))
    w = embeddings(4, 3)[..., :2]
    available = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0]]).bool()
    one = torch.ones(())
    pairs = copula_losses(joint, w, available, one, align=True, over="pairs").losses["copula"]
    whole = copula_losses(joint, w, available, one, align=True).losses["copula"]
    parts = []
    for keep in ([0, 1], [0, 2], [1, 2]):
        mask = torch.zeros(3, dtype=torch.bool)
        mask[keep] = True
        parts.append(joint.log_terms(w, available & mask).copula)
    torch.testing.assert_close(-pairs.value[0], torch.stack(parts)[:, 0].mean())
    torch.testing.assert_close(pairs.value[1:], whole.value[1:])
    assert not torch.isclose(pairs.value[0], whole.value[0])
    assert torch.equal(pairs.rows, whole.rows)
