"""Attention, positions and the heads that read tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cm2.errors import ConfigError
from cm2.fuse.config import FuseConfig
from cm2.fuse.models.attention import SelfAttention, Summary, positions
from cm2.fuse.models.encoders import SeriesTransformer
from cm2.fuse.models.heads import make_head


def test_a_layer_equals_the_encoder_layer_of_torch() -> None:
    torch.manual_seed(0)
    ours = SelfAttention(8).double()
    theirs = nn.TransformerEncoderLayer(
        8, 4, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    pairs = {
        "self_attn.in_proj_weight": ours.into.weight,
        "self_attn.in_proj_bias": ours.into.bias,
        "self_attn.out_proj.weight": ours.out.weight,
        "self_attn.out_proj.bias": ours.out.bias,
        "linear1.weight": ours.wide.weight,
        "linear1.bias": ours.wide.bias,
        "linear2.weight": ours.narrow.weight,
        "linear2.bias": ours.narrow.bias,
        "norm1.weight": ours.before.weight,
        "norm1.bias": ours.before.bias,
        "norm2.weight": ours.between.weight,
        "norm2.bias": ours.between.bias,
    }
    theirs.load_state_dict({name: value.detach() for name, value in pairs.items()})
    x, mask = torch.randn(5, 7, 8).double(), torch.rand(5, 7) < 0.7
    mask[:, 0] = True
    expected = theirs(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, mask)[mask], expected[mask])


@pytest.mark.parametrize("length", [1, 5, 48])
def test_masked_steps_change_nothing_however_long_the_series(length: int) -> None:
    torch.manual_seed(0)
    encoder = SeriesTransformer(3, 6)
    x, mask = torch.randn(4, length, 3), torch.rand(4, length) < 0.5
    other = torch.where(mask.unsqueeze(-1), x, 1e6)
    torch.testing.assert_close(encoder(x, mask), encoder(other, mask), rtol=0, atol=0)
    shorter = encoder(x, mask & (torch.arange(length) < length - 1))
    longer = torch.cat([x, torch.randn(4, 3, 3)], 1)
    padded = torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], 1)
    torch.testing.assert_close(encoder(longer, padded), encoder(x, mask))
    assert shorter.isfinite().all()


def test_the_order_of_steps_matters_to_the_series_encoder_and_not_to_a_summary() -> None:
    torch.manual_seed(0)
    x, mask = torch.randn(2, 6, 4), torch.ones(2, 6, dtype=torch.bool)
    summary, encoder = Summary(4, 2), SeriesTransformer(4, 4)
    torch.testing.assert_close(summary(x, mask), summary(x.flip(1), mask))
    assert not torch.allclose(encoder(x, mask), encoder(x.flip(1), mask))


def test_positions_are_distinct_and_do_not_depend_on_the_length() -> None:
    long = positions(torch.arange(200.0), 7)
    assert long.shape == (200, 7)
    torch.testing.assert_close(positions(torch.arange(9.0), 7), long[:9])
    assert torch.pdist(long).min() > 1e-3


@pytest.mark.parametrize("fusion", ["lstm", "concat", "transformer"])
def test_a_head_ignores_what_it_does_not_read(fusion: str) -> None:
    torch.manual_seed(0)
    widths = {"hidden": 6, "fusion_hidden": 8, "copula_dim": 4}
    head = make_head(FuseConfig.of({**widths, "fusion": fusion}), 3, 2)
    tokens, read = torch.randn(5, 3, 6), torch.rand(5, 3) < 0.5
    other = torch.where(read.unsqueeze(-1), tokens, 50.0)
    zero = torch.zeros(())
    torch.testing.assert_close(
        head(tokens, read, read, zero, None), head(other, read, read, zero, None)
    )
    assert head(tokens, read, read, zero, None).shape == (5, 2)


def test_what_a_head_cannot_use_is_refused() -> None:
    with pytest.raises(ConfigError, match="Leave out fusion_layers"):
        FuseConfig.of({"fusion": "concat", "fusion_layers": 3})
    with pytest.raises(ConfigError, match="fusion does nothing with model"):
        FuseConfig.of({"model": "concat", "fusion": "transformer"})
