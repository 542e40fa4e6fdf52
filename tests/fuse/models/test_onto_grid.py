"""Values at any times on a grid of times, held against loops that say it plainly."""

from __future__ import annotations

import torch
from torch import Tensor

from cm2.fuse.methods.interleaved import InterleavedOptions
from cm2.fuse.models.interface import ModalitySpec
from cm2.fuse.models.onto_grid import UTDE, Parts, TimeAttention, TimeEmbedding, latest

OPTIONS = InterleavedOptions(heads=2, time_width=6)
GRID = torch.tensor([0.25, 0.5, 0.75, 1.0])


def irregular(n: int = 3, length: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Values, which steps are there, and ascending times."""
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(n, length, generator=generator).sort(1).values
    read = torch.arange(length) < torch.tensor([length, 3, 1])[:n, None]
    return torch.randn(n, length, 4, generator=generator), read, times


def test_attention_averages_what_was_measured_and_nothing_else() -> None:
    torch.manual_seed(0)
    values, read, times = irregular()
    measured = torch.rand(values.shape) < 0.5
    measured[2] = False  # a stay of which nothing was measured
    embed, attention = TimeEmbedding(6), TimeAttention(4, 8, OPTIONS)
    found = attention(embed(GRID), embed(times), values, read, measured)
    q, k = attention.query(embed(GRID)), attention.key(embed(times))
    for b in range(3):
        for g in range(4):
            heads = []
            for h in range(2):
                part = slice(3 * h, 3 * h + 3)
                scores = k[b, :, part] @ q[g, part] / 3**0.5
                for c in range(4):
                    there = read[b] & measured[b, :, c]
                    weights = scores[there].softmax(0)
                    heads.append((weights * values[b, there, c]).sum())
            torch.testing.assert_close(found[b, g], attention.out(torch.stack(heads)))


def test_the_last_value_before_each_time_of_the_grid_is_carried() -> None:
    values, read, times = irregular()
    read[0, 1] = False
    found = latest(values, read, times, GRID)
    for b in range(3):
        for g, now in enumerate(GRID):
            before = [i for i in range(5) if read[b, i] and times[b, i] <= now]
            expected = values[b, before[-1]] if before else torch.zeros(4)
            assert torch.equal(found[b, g], expected)


def test_steps_that_stand_on_the_grid_are_taken_as_they_are() -> None:
    values = torch.randn(2, 24, 3)
    times = (torch.arange(1, 25) / 24).expand(2, 24)
    read = torch.ones(2, 24, dtype=torch.bool)
    grid = torch.arange(1, 25) / 24
    assert torch.equal(latest(values, read, times, grid), values)


def test_a_single_film_says_the_same_at_every_time() -> None:
    torch.manual_seed(0)
    reader = Parts(ModalitySpec("cxr", "vector", 4), 6, OPTIONS)
    states = reader(
        torch.randn(2, 1, 4),
        torch.ones(2, 1, dtype=torch.bool),
        torch.full((2, 1), 0.4),
        GRID,
        TimeEmbedding(6),
    )
    torch.testing.assert_close(states, states[:, :1].expand_as(states))


def test_notes_at_other_times_say_something_else() -> None:
    torch.manual_seed(0)
    reader, embed = Parts(ModalitySpec("note", "vector", 4), 6, OPTIONS), TimeEmbedding(6)
    x, mask = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    early, late = torch.tensor([[0.1, 0.2, 0.3]] * 2), torch.tensor([[0.1, 0.2, 0.9]] * 2)
    assert not torch.allclose(
        reader(x, mask, early, GRID, embed), reader(x, mask, late, GRID, embed)
    )


def test_a_gate_of_one_leaves_the_attention_and_a_gate_of_zero_the_last_value() -> None:
    torch.manual_seed(0)
    reader, embed = UTDE(ModalitySpec("ehr", "series", 4), 6, OPTIONS), TimeEmbedding(6)
    values, read, times = irregular()
    gate = reader.gate[2]
    assert isinstance(gate, torch.nn.Linear)
    found = []
    for bias in (60.0, -60.0):
        torch.nn.init.zeros_(gate.weight)
        torch.nn.init.constant_(gate.bias, bias)
        found.append(reader(values, read, times, GRID, embed))
    x = reader.normaliser(values, read)
    measured = read.unsqueeze(-1)
    attended = reader.attention(embed(GRID), embed(times), x, read, measured)
    torch.testing.assert_close(found[0], attended)
    torch.testing.assert_close(found[1], reader.fill(latest(x, read, times, GRID)))


def test_a_value_carried_forward_is_not_a_measurement() -> None:
    """Where a column tells what was measured, the attention does not read the filled cells."""
    torch.manual_seed(0)
    spec = ModalitySpec("ehr", "series", 2, ("pulse", "mask->pulse"))
    reader, embed = UTDE(spec, 6, OPTIONS), TimeEmbedding(6)
    assert reader.marked
    x = torch.tensor([[[1.0, 1.0], [7.0, 0.0], [2.0, 1.0]]])
    read, times = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[0.2, 0.4, 0.6]])
    torch.nn.init.zeros_(reader.fill.weight)
    before = reader(x, read, times, GRID, embed)
    x[0, 1, 0] = 9.0
    torch.testing.assert_close(reader(x, read, times, GRID, embed), before)
    x[0, 0, 0] = 9.0
    assert not torch.allclose(reader(x, read, times, GRID, embed), before)
