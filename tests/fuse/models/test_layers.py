from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn

from cm2.fuse.models import layers
from cm2.fuse.models.layers import LSTM, Dropout, Normaliser, keep_some, masked_mean, unit_scale


def both(width: int, hidden: int) -> tuple[LSTM, nn.LSTM]:
    ours = LSTM(width, hidden).double()
    theirs = nn.LSTM(width, hidden, 2, batch_first=True).double()
    state = {}
    for layer in range(2):
        state[f"weight_ih_l{layer}"] = getattr(ours, f"weight_ih_l{layer}").data
        state[f"weight_hh_l{layer}"] = getattr(ours, f"weight_hh_l{layer}").data
        bias = torch.randn(4 * hidden, dtype=torch.float64)
        getattr(ours, f"bias_l{layer}").data.copy_(bias)
        state[f"bias_ih_l{layer}"], state[f"bias_hh_l{layer}"] = 0.3 * bias, 0.7 * bias
    theirs.load_state_dict(state)
    return ours, theirs


def test_the_lstm_equals_the_one_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = both(3, 5)
    x = torch.randn(4, 7, 3, dtype=torch.float64)
    states, last = ours(x, torch.ones(4, 7, dtype=torch.bool))
    expected, (hidden, _) = theirs(x)
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(last, hidden[-1], rtol=0, atol=1e-14)


def test_skipping_masked_steps_equals_packing_the_others() -> None:
    torch.manual_seed(0)
    ours, theirs = both(3, 5)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
    for row, kept in enumerate(mask.bool()):
        _, last = ours(x[row : row + 1], kept.unsqueeze(0))
        _, (hidden, _) = theirs(x[row : row + 1, kept])
        torch.testing.assert_close(last, hidden[-1], rtol=0, atol=1e-14)
    _, nothing = ours(x[:1], torch.zeros(1, 4, dtype=torch.bool))
    assert (nothing == 0).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("counting", "rows", "steps"),
    [
        ("all", 8, layers.LONG),
        ("some", 7, layers.LONG - 1),
        ("first", 7, 3),
        ("none", 8, 1),
    ],
)
def test_a_long_series_read_by_onednn_equals_its_steps_written_out(
    precision: str, counting: str, rows: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    lstm, x = LSTM(3, 5), torch.randn(8, layers.LONG, 3)
    mask = torch.ones(8, layers.LONG, dtype=torch.bool)
    if counting == "some":
        mask = torch.rand(8, layers.LONG) > 0.4
        mask[:, 1] = False
        mask[0] = torch.arange(layers.LONG) != 1
    elif counting == "first":
        mask[:, 3:] = False
    elif counting == "none":
        mask[:] = False
    if counting != "all":
        mask[2] = False
    found = []
    read = Mock(wraps=torch.lstm)
    monkeypatch.setattr(torch, "lstm", read)
    for long in (layers.LONG, layers.LONG + 1):
        monkeypatch.setattr(layers, "LONG", long)
        values = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            states, last = lstm(values, mask)
        loss = states.square().sum() + last.sum()
        gradients = torch.autograd.grad(loss, [values, *lstm.parameters()])
        found.append([states, last, *gradients])
    assert read.call_count == 2  # one for each layer, none of them by the steps written out
    for call in read.call_args_list:  # what does not count is not read
        assert call.args[0].shape[:2] == (rows, steps)
    for one, other in zip(*found, strict=True):
        scale = float(other.detach().abs().max())
        torch.testing.assert_close(
            one, other, rtol=0, atol=scale * (1e-6 if precision == "fp32" else 2e-2)
        )


def test_members_of_an_ensemble_and_double_precision_are_not_read_by_onednn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "lstm", Mock(side_effect=AssertionError))
    lstm, x = LSTM(3, 5), torch.randn(4, layers.LONG, 3)
    mask = torch.ones(4, layers.LONG, dtype=torch.bool)
    stacked = {name: torch.stack([p, p]) for name, p in lstm.named_parameters()}
    states, _ = torch.func.vmap(lambda p: torch.func.functional_call(lstm, p, (x, mask)))(stacked)
    assert states.shape == (2, 4, layers.LONG, 5)
    lstm.double()(x.double(), mask)


def test_dropout_follows_its_noise_and_keeps_the_mean() -> None:
    x = torch.ones(2000, 10)
    noise = torch.rand(2000, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dropped = Dropout()(x, torch.tensor(0.3), noise)
    assert ((dropped == 0) == (noise < torch.tensor(0.3))).all()
    assert abs(dropped.mean() - 1) < 0.02
    assert Dropout()(x, torch.tensor(0.3), None) is x


def test_the_normaliser_equals_one_pass_over_all_rows() -> None:
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.normal(50, 3, (40, 6, 4))).float()
    x[..., 2] = 7.0
    x[..., 3] = (x[..., 3] > 50).float()
    mask = torch.from_numpy(random.random((40, 6)) < 0.6)
    normaliser = Normaliser(4)
    normaliser.start((x[a : a + 7], mask[a : a + 7]) for a in range(0, 40, 7))
    rows = x[mask].double()
    out = normaliser(x, mask)
    expected = (rows - rows.mean(0)) / rows.std(0, correction=0)
    torch.testing.assert_close(out[mask][:, :2].double(), expected[:, :2], rtol=1e-5, atol=1e-5)
    assert (out[..., 2] == 0).all(), "a constant column tells nothing"
    torch.testing.assert_close(out[mask][:, 3], x[mask][:, 3])
    assert (out[~mask] == 0).all()


def test_columns_in_units_too_small_to_be_read_are_said(caplog: pytest.LogCaptureFixture) -> None:
    x = torch.randn(50, 1, 3)
    x[..., 1] *= 1e-9
    x[..., 2] = 0.0  # constant, and rightly so
    mask = torch.ones(50, 1, dtype=torch.bool)
    normaliser = Normaliser(3)
    normaliser.start([(x, mask)])
    assert (normaliser(x, mask)[..., 1] == 0).all()
    assert "1 columns vary by less than 1e-6" in caplog.text


def test_masked_rows_may_hold_anything() -> None:
    x, mask = torch.full((2, 3, 4), float("nan")), torch.zeros(2, 3, dtype=torch.bool)
    out = Normaliser(4)(x, mask)
    assert (masked_mean(out, mask) == 0).all()


def test_unit_scale_keeps_direction_and_zero() -> None:
    z = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    out = unit_scale(z)
    torch.testing.assert_close(out[0], torch.tensor([3.0, 4.0]) / 12.5**0.5)
    out.sum().backward()
    assert torch.isfinite(z.grad).all()


def test_unknown_cells_enter_no_statistic_and_become_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 1, 2, generator=generator) * 3 + 5
    known = torch.rand(40, 1, 2, generator=generator) < 0.6
    columns = ("heart rate", "lactate", "known:heart rate", "known:lactate")
    normaliser = Normaliser(4, columns)
    table = torch.cat([torch.where(known, x, 0.0), known.float()], -1)
    everything = torch.ones(40, 1, dtype=torch.bool)
    normaliser.start([(table[:15], everything[:15]), (table[15:], everything[15:])])
    out = normaliser(table, everything)
    for column in range(2):
        there = known[..., column]
        rows = x[..., column][there]
        expected = (rows - rows.mean()) / rows.std(correction=0)
        assert torch.allclose(out[..., column][there], expected, atol=1e-5)
        assert (out[..., column][~there] == 0).all()
    assert torch.equal(out[..., 2:], known.float())


def test_modality_dropout_withholds_its_share_and_never_all() -> None:
    generator = torch.Generator().manual_seed(0)
    available = torch.rand(4000, 3, generator=generator) < 0.7
    available[:, 0] |= ~available.any(1)
    noise = torch.rand(4000, 3, generator=generator)
    kept = keep_some(available, 0.4, noise)
    assert not (kept & ~available).any()
    assert kept.any(1).all()
    full = available.all(1)
    # 0.4 are withheld, but for one in three of the stays that would lose everything
    expected = 1 - 0.4 + 0.4**3 / 3
    assert kept[full].float().mean().item() == pytest.approx(expected, abs=0.02)
    assert torch.equal(keep_some(available, 0.4, None), available)
