"""Held-out likelihood by family: the true one wins, independence is no worse than nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cm2.fuse.copula import COPULAS, get_copula
from cm2.fuse.copula.goodness import ROWS, fit, held_out, spread

Rows = tuple[Tensor, Tensor, Tensor]


def drawn(family: str, tau: float, n: int, seed: int, M: int = 2, D: int = 4) -> Rows:
    """Arguments from a family with a known dependence, everything available."""
    copula = get_copula(family)
    params = copula.from_kendall_tau(torch.tensor(tau, dtype=torch.float64), M)
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand((n, D, M), generator=generator, dtype=torch.float64)
    log_u, log_sf = copula.sample(uniforms.clamp(1e-12, 1 - 1e-12), params)
    return log_u.mT, log_sf.mT, torch.ones(n, M, dtype=torch.bool)


@pytest.mark.parametrize("family", ["clayton", "gumbel", "gaussian"])
def test_the_family_that_made_the_data_has_the_largest_held_out_likelihood(family: str) -> None:
    found = held_out(drawn(family, 0.5, 500, 0), drawn(family, 0.5, 800, 1))
    values = {name: value for name, value in found.items() if value is not None}
    assert set(values) == set(COPULAS)
    best = max(values, key=lambda name: values[name])
    assert best == family or (family == "gaussian" and values["student"] - values[family] < 2e-3)
    assert values[family] > 0.2 > values["independence"] == 0.0


def test_training_rows_sorted_by_their_dependence_are_all_fitted_to() -> None:
    parts = zip(drawn("gaussian", 0.0, 900, 0), drawn("gaussian", 0.7, 900, 1), strict=True)
    seen = [torch.cat(part) for part in parts]
    order = torch.randperm(1800, generator=torch.Generator().manual_seed(2))
    unseen = drawn("gaussian", 0.4, 800, 3)
    found = [held_out((a, b, c), unseen) for a, b, c in (seen, [part[order] for part in seen])]
    assert found[0]["gaussian"] == pytest.approx(found[1]["gaussian"], abs=0.02)


@pytest.mark.parametrize("rows", [0, 1, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 7, 1_000_003])
def test_the_rows_used_are_different_ones_over_the_whole_table(rows: int) -> None:
    chosen = spread(rows, ROWS)
    assert len(chosen) == min(rows, ROWS) == len(chosen.unique())
    if rows:
        assert chosen[0] == 0
        assert rows - rows / len(chosen) - 1 <= chosen[-1] < rows


def test_under_independence_no_family_tells_more() -> None:
    found = held_out(drawn("independence", 0.0, 500, 0), drawn("independence", 0.0, 800, 1))
    assert all(value is not None and value < 5e-3 for value in found.values())


@pytest.mark.parametrize(("family", "M"), [("frank", 2), ("clayton", 3), ("gaussian", 3)])
def test_the_fit_finds_the_dependence(family: str, M: int) -> None:
    copula = get_copula(family)
    raw = fit(copula, copula.initial(M), *drawn(family, 0.4, 1500, 2, M))
    tau = copula.kendall_tau(copula.natural(raw, M))
    if tau.ndim == 2:
        tau = tau[~torch.eye(M, dtype=torch.bool)]
    assert torch.allclose(tau, torch.full_like(tau, 0.4), atol=0.03)


def test_without_a_row_of_two_modalities_there_is_no_figure() -> None:
    log_u, log_sf, available = drawn("frank", 0.3, 20, 0)
    available = available & torch.tensor([True, False])
    found = held_out((log_u, log_sf, available), (log_u, log_sf, available))
    assert set(found.values()) == {None}
