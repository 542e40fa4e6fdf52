"""Building blocks that also run under `torch.func.vmap`.

`nn.LSTM` and `F.dropout` do not (and drawing inside a layer would tie numbers to the batch), so
both are written out here. Nothing branches on a tensor's value where it must not be read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ..readable import mapped, readable

_log = logging.getLogger("cm2.fuse")
_ONEDNN = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]

LONG = 8
"""Steps of a series from which on the LSTM of oneDNN is faster than the steps written out."""


class Dropout(nn.Module):
    """Inverted dropout whose probability is a tensor and whose noise is handed in."""

    def forward(self, x: Tensor, p: Tensor, noise: Tensor | None) -> Tensor:
        """Zero the units whose noise lies below p and rescale the others.

        Args:
            x: Any shape.
            p: Probability in [0, 1), scalar.
            noise: Uniform numbers, shape of `x`; None leaves `x` as it is.
        """
        if noise is None:
            return x
        p = p.to(x.dtype)
        return x * (noise >= p).to(x.dtype) / (1 - p)


class LSTM(nn.Module):
    """Stacked LSTM over masked steps (Hochreiter and Schmidhuber, 1997).

    A masked step leaves the state as it is, so skipping tokens needs no packing and no sorting.
    Equal to `nn.LSTM` with one bias on the steps that are kept.

    Args:
        width: Length of an input.
        hidden: Length of the state.
        layers: Number of stacked layers.
    """

    def __init__(self, width: int, hidden: int, layers: int = 2) -> None:
        super().__init__()
        self.layers = layers
        for layer in range(layers):
            into = nn.Parameter(torch.empty(4 * hidden, width if layer == 0 else hidden))
            back = nn.Parameter(torch.empty(4 * hidden, hidden))
            nn.init.xavier_uniform_(into)
            nn.init.orthogonal_(back)
            self.register_parameter(f"weight_ih_l{layer}", into)
            self.register_parameter(f"weight_hh_l{layer}", back)
            self.register_parameter(f"bias_l{layer}", nn.Parameter(torch.zeros(4 * hidden)))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Read a series.

        Args:
            x: ``(B, L, width)``.
            mask: Steps that count, ``(B, L)`` bool.

        Returns:
            States of the last layer after each step, ``(B, L, hidden)``, and after the last step,
            ``(B, hidden)``; zero before the first step that counts.
        """
        for layer in range(self.layers):
            x = self.read(layer, x, mask)
        return x, x[:, -1]

    def read(self, layer: int, x: Tensor, mask: Tensor) -> Tensor:
        """Read a series by one layer alone.

        Args:
            layer: Number of the layer, from 0.
            x: What the layer reads, ``(B, L, ·)``.
            mask: Steps that count, ``(B, L)`` bool.

        Returns:
            States after each step, ``(B, L, hidden)``.
        """
        into, back, bias = (
            getattr(self, f"{w}_l{layer}") for w in ("weight_ih", "weight_hh", "bias")
        )
        if _suits_onednn(x, mask, into):
            return read_with_onednn(x, mask, into, back, bias)
        # Steps first, so that each is one block of memory; states stay in their own precision.
        # Cast step by step, so that their gradients are put together in the shorter one.
        steps = nn.functional.linear(x.transpose(0, 1), into, bias).unbind(0)
        inputs = [step.to(bias.dtype) for step in steps]
        kept = _keeping(mask)
        # The state before the first step is zero: no recurrent product, no forget gate.
        i, _, g, o = inputs[0].chunk(4, -1)
        none = torch.zeros_like(i)
        cell = kept(0, i.sigmoid() * g.tanh(), none)
        state = kept(0, o.sigmoid() * cell.tanh(), none)
        states = [state]
        for t in range(1, len(inputs)):
            # Not `@` of a transposed view, whose gradient has not the layout of the weights.
            i, f, g, o = (inputs[t] + nn.functional.linear(state, back)).chunk(4, -1)
            cell_next = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            state = kept(t, o.sigmoid() * cell_next.tanh(), state)
            cell = kept(t, cell_next, cell)
            states.append(state)
        return torch.stack(states).transpose(0, 1)


def _keeping(mask: Tensor) -> Callable[[int, Tensor, Tensor], Tensor]:
    """Choose the new value of step t where it counts, else the old one; ``(B, L)`` bool."""
    if mask.device.type == "cpu" and readable(mask) and bool(mask.all()):
        return lambda t, new, old: new
    steps = mask.unsqueeze(-1).unbind(1)
    return lambda t, new, old: torch.where(steps[t], new, old)


def _suits_onednn(x: Tensor, mask: Tensor, weights: Tensor) -> bool:
    """Whether oneDNN's LSTM is the faster one: on the processor, for long series in float32.

    It does not run under `torch.func`.
    """
    return (
        mask.shape[1] >= LONG
        and weights.device.type == "cpu"
        and weights.dtype == torch.float32
        and _ONEDNN
        and not any(mapped(part) for part in (x, mask, weights))
    )


def read_with_onednn(x: Tensor, mask: Tensor, into: Tensor, back: Tensor, bias: Tensor) -> Tensor:
    """States after each step, ``(B, L, hidden)``; equal to skipping the masked ones.

    oneDNN knows no masks. Rows without a step that counts are left out; steps of the others that
    count are moved to the front, and what is read behind them is not looked at.
    """
    B, L = mask.shape
    everything = bool(mask.all())
    if not everything:
        read = mask.cumsum(1)  # steps so far
        rows = read[:, -1].nonzero().squeeze(1)
        if not len(rows):  # parameters have a gradient all the same
            rows = torch.arange(B)
        read, longest = read[rows], max(1, int(read[:, -1].max()))
        skipped = mask[rows].logical_not().to(torch.uint8)
        order = L * rows.unsqueeze(1) + skipped.argsort(dim=1, stable=True)[:, :longest]
        x = x.flatten(0, 1).index_select(0, order.flatten()).view(len(rows), longest, -1)
    start = x.new_zeros(1, len(x), back.shape[-1], dtype=bias.dtype)
    weights, train = (into, back, bias, torch.zeros_like(bias)), torch.is_grad_enabled()
    states = torch.lstm(x, (start, start), weights, True, 1, 0.0, train, False, True)[0]
    states = states.to(bias.dtype)
    if not everything:
        last = longest * torch.arange(len(rows)).unsqueeze(1) + (read - 1).clamp_min(0)
        states = states.flatten(0, 1).index_select(0, last.flatten()).view(len(rows), L, -1)
        states = torch.where(read.unsqueeze(-1) > 0, states, 0.0)
        if len(rows) < B:
            states = states.new_zeros(B, L, states.shape[-1]).index_copy(0, rows, states)
    return states


class Normaliser(nn.Module):
    """Standardise columns by statistics of the training rows, kept in buffers.

    Columns of zeros and ones stay as they are; a column that is constant in training tells
    nothing and becomes zero everywhere. Where `known:NAME` is 0, the column NAME is unknown: it
    enters no statistic and becomes zero, which is its mean.

    Args:
        width: Number of columns.
        columns: Their names, if they mean something.
    """

    mean: Tensor
    rate: Tensor
    known: Tensor

    def __init__(self, width: int, columns: Sequence[str] = ()) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("rate", torch.ones(width))
        place = {name: i for i, name in enumerate(columns)}
        known = [place.get(f"known:{name}", -1) for name in columns] or [-1] * width
        self.partly = any(i >= 0 for i in known)
        self.register_buffer("known", torch.tensor(known), persistent=False)

    def start(self, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit to training rows in one pass (Chan, Golub and LeVeque, 1979).

        Args:
            parts: Pairs of values ``(B, L, width)`` and mask ``(B, L)``.
        """
        mean = torch.zeros_like(self.mean, dtype=torch.float64)
        count = torch.zeros_like(mean)
        square = torch.zeros_like(mean)
        binary = torch.ones_like(mean, dtype=torch.bool)
        for values, mask in parts:
            rows = values[mask].double()
            if len(rows):
                there = self._there(rows)
                new = there.sum(0).double()
                some = new.clamp(min=1)
                middle = torch.where(there, rows, 0.0).sum(0) / some
                n = (count + new).clamp(min=1)
                shift = middle - mean
                square += torch.where(there, rows - middle, 0.0).square().sum(0)
                square += shift.square() * count * new / n
                mean += shift * new / n
                binary &= ((rows == 0) | (rows == 1) | ~there).all(0)
                count += new
        std = (square / count.clamp(min=1)).sqrt()
        constant = std <= 1e-6 * mean.abs().clamp(min=1)
        lost = int((constant & ~binary & (std > 1e-6 * mean.abs())).sum())
        if lost:
            _log.warning(
                "%d columns vary by less than 1e-6 over the training rows and are read as "
                "constant: if they mean something, extract them in other units.",
                lost,
            )
        rate = torch.where(binary, 1.0, 1 / std.clamp(min=1e-30))
        self.mean.copy_(torch.where(binary, 0.0, mean))
        self.rate.copy_(torch.where(constant, 0.0, rate))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Standardise real steps and zero the others, whatever they hold.

        Args:
            x: ``(B, L, width)``.
            mask: ``(B, L)`` bool.
        """
        real = mask.unsqueeze(-1)
        if self.partly:
            real = real & self._there(x)
        return torch.where(real, (x - self.mean) * self.rate, 0.0)

    def _there(self, x: Tensor) -> Tensor:
        """Which cells of the last axis are known."""
        return (self.known < 0) | (x.index_select(-1, self.known.clamp(min=0)) != 0)


class PartNormaliser(Normaliser):
    """Normalise every part by itself (Ba, Kiros and Hinton, 2016), for features that are learned.

    Statistics of the training rows would be out of date after one step.
    """

    def start(self, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Need nothing from data."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise real parts and zero the others; see `Normaliser.forward`."""
        normal = nn.functional.layer_norm(x, x.shape[-1:])
        return torch.where(mask.unsqueeze(-1), normal, 0.0)


def keep_some(available: Tensor, p: float, noise: Tensor | None) -> Tensor:
    """Withhold modalities at random, never all of a stay (modality dropout).

    Args:
        available: ``(B, M)`` bool.
        p: Chance that a modality is withheld.
        noise: Uniform numbers, ``(B, M)``; None withholds nothing.

    Returns:
        What is left, ``(B, M)`` bool; where all would go, the one with the largest number stays.
    """
    if noise is None:
        return available
    ranked = torch.where(available, noise, -1.0)
    luckiest = ranked == ranked.amax(-1, keepdim=True)
    return available & ((noise >= p) | luckiest)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Average over the parts that are there.

    Args:
        x: ``(B, L, width)``, zero where masked.
        mask: ``(B, L)`` bool.

    Returns:
        ``(B, width)``; zero for a row without parts.
    """
    count = mask.sum(1, keepdim=True).clamp(min=1)
    return x.sum(1) / count


def unit_scale(z: Tensor) -> Tensor:
    """Scale embeddings to root mean square 1 along the last axis; zero stays zero.

    This is the paper's L2 normalisation times sqrt(D). It keeps the pace at which embeddings
    drift small beside their spread, on which the statistics of the copula space rely.
    """
    return z * (z.square().mean(-1, keepdim=True) + 1e-8).rsqrt()
