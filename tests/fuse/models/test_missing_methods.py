"""LSMT, ShaSpec, Flex-MoE and the interleaved attention against what they must and must not do."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from cm2.errors import ConfigError
from cm2.fuse.config import FuseConfig
from cm2.fuse.inference import build
from cm2.fuse.models.attention import Attention, Summary, attend
from cm2.fuse.models.flexmoe import Experts, FlexMoE, balance
from cm2.fuse.models.interface import FusionBatch, FusionModel, Hyper, ModalitySpec, pattern_ids
from cm2.fuse.models.interleaved import Interleaved
from cm2.fuse.models.perceiver import Perceiver, fourier
from cm2.fuse.models.shaspec import ShaSpec, distance, told_apart

SPECS = (
    ModalitySpec("ehr", "series", 4),
    ModalitySpec("cxr", "vector", 6),
    ModalitySpec("report", "vector", 5),
)
MIXED = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)


def make_model(name: str, specs: tuple[ModalitySpec, ...] = SPECS, **own: object) -> FusionModel:
    options = {"model": name, "hidden": 8, "dropout": 0.0, "options": own}
    return build(specs, FuseConfig.of(options))


def make_batch(available: Tensor = MIXED, steps: int = 4) -> FusionBatch:
    generator = torch.Generator().manual_seed(1)
    n = len(available)
    x = {s.name: torch.randn(n, steps, s.width, generator=generator) for s in SPECS}
    mask = {s.name: torch.ones(n, steps, dtype=torch.bool) for s in SPECS}
    y = (torch.rand(n, 1, generator=generator) < 0.5).float()
    return FusionBatch(x, mask, available, pattern_ids(available), y)


def run(model: FusionModel, batch: FusionBatch) -> Tensor:
    logits: Tensor = model(batch, Hyper.of(model.config)).logits
    return logits


def test_attention_equals_torchs_and_is_zero_where_nothing_is_read() -> None:
    torch.manual_seed(0)
    ours = Attention(8, 6, heads=2).double()
    theirs = nn.MultiheadAttention(8, 2, batch_first=True, kdim=6, vdim=6).double()
    key, value = ours.pair.weight.chunk(2)
    with torch.no_grad():
        for mine, other in (
            (theirs.q_proj_weight, ours.query.weight),
            (theirs.k_proj_weight, key),
            (theirs.v_proj_weight, value),
            (theirs.in_proj_bias, torch.cat([ours.query.bias, ours.pair.bias])),
            (theirs.out_proj.weight, ours.out.weight),
            (theirs.out_proj.bias, ours.out.bias),
        ):
            mine.copy_(other)
    x, context = torch.randn(3, 5, 8).double(), torch.randn(3, 7, 6).double()
    mask = torch.rand(3, 7) < 0.6
    mask[:, 0] = True
    expected = theirs(x, context, context, key_padding_mask=~mask)[0]
    torch.testing.assert_close(ours(x, context, mask), expected)
    nothing = attend(*(torch.randn(3, 2, 4, 4) for _ in range(3)), torch.zeros(3, 4) > 0)
    assert (nothing == 0).all()


def test_the_states_of_a_summary_are_those_its_token_gathers_from() -> None:
    torch.manual_seed(0)
    summary, x = Summary(8, 1), torch.randn(2, 3, 8)
    mask = torch.ones(2, 3, dtype=torch.bool)
    both = torch.cat([summary.token.expand(2, 1, 8), x], 1)
    layer = summary.norm(summary.layers[0](both, torch.ones(2, 4, dtype=torch.bool)))
    torch.testing.assert_close(summary.states(x, mask), layer[:, 1:])
    torch.testing.assert_close(summary(x, mask), layer[:, 0])


def test_a_perceiver_has_as_many_latents_whatever_the_length_and_reads_real_steps_only() -> None:
    torch.manual_seed(0)
    perceiver = Perceiver(4, 8, latents=3, depth=2)
    x, time = torch.randn(2, 6, 4), torch.rand(2, 6)
    mask = torch.arange(6) < torch.tensor([[6], [2]])
    latents = perceiver(x, mask, time)
    assert latents.shape == (2, 3, 8)
    torch.testing.assert_close(latents[1:], perceiver(x[1:, :2], mask[1:, :2], time[1:, :2]))
    moved = perceiver(x, mask, time.flip(1))
    assert not torch.allclose(moved, latents)


def test_positions_have_thirteen_features_and_tell_times_apart() -> None:
    features = fourier(torch.linspace(0, 1, 48).double().unsqueeze(0))
    assert features.shape == (1, 48, 13)
    apart = torch.cdist(features, features)[0] + 9 * torch.eye(48)
    assert apart.min() > 0.05


def test_lsmt_reads_every_part_of_a_film_and_not_their_mean_alone() -> None:
    torch.manual_seed(0)
    model, batch = make_model("lsmt"), make_batch()
    pooled = batch.x["cxr"].mean(1, keepdim=True).expand_as(batch.x["cxr"])
    mean = run(model, dataclasses.replace(batch, x={**batch.x, "cxr": pooled}))
    changed = (mean - run(model, batch)).abs().squeeze(1) > 1e-6
    assert torch.equal(changed, batch.available[:, 1])


def test_unread_tokens_are_as_good_as_none() -> None:
    model, batch = make_model("lsmt"), make_batch(torch.tensor([[True, False, False]] * 3))
    alone = make_model("lsmt", SPECS[:1])
    state = model.state_dict()
    own = {name: state[name][:1] if name == "kind" else state[name] for name in alone.state_dict()}
    alone.load_state_dict(own)
    first = dataclasses.replace(batch, available=batch.available[:, :1])
    torch.testing.assert_close(run(model, batch), run(alone, first))


@pytest.mark.parametrize("how", ["mean", "first"])
def test_an_absent_modality_is_given_shared_features_of_the_others(how: str) -> None:
    model = make_model("shaspec", stand_in=how)
    assert isinstance(model, ShaSpec)
    shared = torch.randn(5, 3, 8) * MIXED.unsqueeze(-1)
    found = model.stand_in(shared, MIXED)
    for b in range(5):
        there = shared[b, MIXED[b]]
        torch.testing.assert_close(found[b], there[0] if how == "first" else there.mean(0))


def test_the_losses_of_shaspec_are_over_what_is_there() -> None:
    shared = torch.randn(5, 3, 8)
    loss = distance(shared, MIXED)
    d = [(shared[:, i] - shared[:, j]).abs().mean(-1) for i, j in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(loss.value[0], torch.stack(d)[:, 0].mean())
    torch.testing.assert_close(loss.value[1], d[1][1])
    assert loss.rows.tolist() == [True, True, False, True, False]
    sure = torch.full((5, 3, 3), -50.0) + 100 * torch.eye(3)
    torch.testing.assert_close(told_apart(sure, MIXED).value, torch.zeros(5))
    wrong = told_apart(sure.flip(-1), MIXED)
    assert wrong.value[2] == 0  # the middle one is right either way
    torch.testing.assert_close(wrong.value[3], torch.tensor(50.0))


def test_experts_are_the_weighted_sum_of_the_best_few() -> None:
    torch.manual_seed(0)
    experts = Experts(6, experts=5, top=2).double()
    nn.init.normal_(experts.bias)
    x = torch.randn(2, 3, 6).double()
    said, scores, weights = experts(x)
    best = scores.topk(2, -1)
    expected = torch.zeros_like(x)
    for b in range(2):
        for t in range(3):
            share = best.values[b, t].softmax(-1)
            for w, e in zip(share, best.indices[b, t].tolist(), strict=True):
                rows = slice(6 * e, 6 * e + 6)
                hidden = nn.functional.gelu(
                    experts.wide.weight[rows] @ x[b, t] + experts.wide.bias[rows]
                )
                expected[b, t] += w * (experts.narrow.weight[:, rows] @ hidden + experts.bias[e])
    torch.testing.assert_close(said, expected)
    assert ((weights > 0).sum(-1) == 2).all()


def test_each_combination_has_tokens_and_an_expert_of_its_own() -> None:
    model, batch = make_model("flexmoe"), make_batch()
    assert isinstance(model, FlexMoE)
    before = run(model, batch)
    with torch.no_grad():
        model.bank[int(pattern_ids(MIXED)[1]) - 1] += 1.0  # what stands in when cxr is absent
    changed = (run(model, batch) != before).squeeze(1)
    assert changed.tolist() == [False, True, False, False, False]
    loss = model(batch, Hyper.of(model.config)).losses["route"]
    assert torch.equal(loss.rows, ~MIXED.all(1))
    with pytest.raises(
        ConfigError, match="7 combinations, each with an expert of its own; found 4"
    ):
        make_model("flexmoe", experts=4)


def test_complete_stays_come_first_if_asked_for() -> None:
    model, batch = make_model("flexmoe", complete_first=2), make_batch()
    rows = {
        epoch: model(
            dataclasses.replace(batch, epoch=torch.tensor(float(epoch))), Hyper.of(model.config)
        )
        .losses["task"]
        .rows
        for epoch in (0, 2, 3)
    }
    assert torch.equal(rows[2], MIXED.all(1))
    assert rows[0].all()
    assert rows[3].all()


def test_an_even_use_of_the_experts_costs_nothing() -> None:
    rows = torch.tensor([True, True, False])
    even = torch.full((2, 3, 4), 0.25)
    assert balance(even, rows).mean() == 0
    one = torch.eye(4)[:1].expand(2, 3, 4)
    torch.testing.assert_close(balance(one, rows).mean(), torch.tensor(6.0))  # 3 in both layers


def test_a_stream_reads_the_mean_of_the_others_that_are_there() -> None:
    torch.manual_seed(0)
    alone = torch.cat([MIXED, torch.tensor([[True, False, False]])])
    model, batch = make_model("interleaved", layers=1, grid=3), make_batch(alone)
    assert isinstance(model, Interleaved)
    layer = model.layers[0]
    own, film, report = model.on_grid(batch, Hyper.of(model.config))
    said = layer([own, film, report], alone)[0]
    other = layer([own, torch.randn_like(film), report], alone)[0]
    assert torch.equal((said != other).flatten(1).any(1), alone[:, 1])
    with torch.no_grad():  # all that others say to the first stream becomes a constant
        for m, constant in enumerate((1.0, 3.0)):
            out = layer.cross[m].out  # type: ignore[index,union-attr]
            out.weight.zero_()  # type: ignore[union-attr,operator]
            out.bias.fill_(constant)  # type: ignore[union-attr,operator]
        layer.maps[0].narrow.weight.zero_()  # type: ignore[index,union-attr]
        layer.maps[0].narrow.bias.zero_()  # type: ignore[index,union-attr]
    heard = layer([own, film, report], alone)[0] - layer([own, film, report], alone & False)[0]
    mean = torch.tensor([2.0, 3.0, 1.0, 1.0, 3.0, 0.0]).reshape(-1, 1, 1).expand_as(heard)
    torch.testing.assert_close(heard, mean)


def test_the_time_of_a_note_changes_what_is_said() -> None:
    torch.manual_seed(0)
    model, batch = make_model("interleaved"), make_batch()
    known = dataclasses.replace(batch, time={"report": torch.rand(5, 4)})
    changed = (run(model, batch) != run(model, known)).squeeze(1)
    assert torch.equal(changed, batch.available[:, 2])


@pytest.mark.parametrize("name", ["drfuse", "lsmt", "interleaved", "shaspec", "flexmoe"])
def test_four_modalities_and_a_stay_with_each_alone(name: str) -> None:
    specs = (*SPECS, ModalitySpec("labs", "series", 3))
    model = make_model(name, specs)
    batch = make_batch(torch.ones(4, 3, dtype=torch.bool))
    available = torch.eye(4, dtype=torch.bool)
    batch = dataclasses.replace(
        batch,
        x={**batch.x, "labs": torch.randn(4, 9, 3)},
        mask={**batch.mask, "labs": torch.ones(4, 9, dtype=torch.bool)},
        available=available,
        pattern_id=pattern_ids(available),
    )
    assert run(model, batch).isfinite().all()
    total = model.objectives(Hyper.of(model.config))[0].total(
        model(batch, Hyper.of(model.config)).losses
    )
    total.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
