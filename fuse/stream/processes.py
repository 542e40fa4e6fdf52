"""Several processes that train one model, as `torchrun` starts them.

The items of a step are divided evenly among the processes, each encodes its share, and the
vectors are gathered with their gradient. Everything behind the trunks then sees the whole step in
every process: a loss over the batch, such as InfoNCE or a whitening, is the one that a single
process computes, whatever the method. Gradients of the trunks are added up; those behind are
equal already. A process without a share joins every exchange all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ...errors import Interrupted
from ...progress import Stop

_TIMES = count()


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wanted() -> int:
    """Number of processes that `torchrun` started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local() -> int:
    """Number of this process among those of its machine: the GPU that it takes."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the processes that `torchrun` started; alone nothing is done.

    Args:
        device: Where the model computes; decides how tensors are exchanged.
    """
    if wanted() == 1 or distributed.is_initialized():
        yield
        return
    store, number, processes = _meeting()
    # By a name of its own: what an earlier run left in the store would lead to closed ports.
    own = PrefixStore(f"run {next(_TIMES)}", store)
    kind = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(kind, store=own, rank=number, world_size=processes)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@cache
def _meeting() -> tuple[Store, int, int]:
    """The store of `torchrun`, the number of this process, and how many there are."""
    store, number, processes = next(rendezvous("env://"))
    return store, number, processes


def barrier() -> None:
    """Wait for the others."""
    if world() > 1:
        distributed.barrier()


def share(n: int) -> slice:
    """Part of n items that this process encodes; parts differ by at most one item."""
    return slice(n * rank() // world(), n * (rank() + 1) // world())


def gather(mine: Tensor, n: int) -> Tensor:
    """Put the shares of all processes together.

    Args:
        mine: Vectors of this process's share, ``(len, D)``.
        n: Number of items of all processes.

    Returns:
        ``(n, D)``; gradient reaches the own share.
    """
    if world() == 1:
        return mine
    gathered: Tensor = _Gather.apply(mine, n)
    return gathered


class _Gather(torch.autograd.Function):
    """Every process computes the same loss of what is gathered, so no gradient is added up."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, n: int) -> Tensor:
        ctx.part = share(n)
        lengths = [n * (r + 1) // world() - n * r // world() for r in range(world())]
        padded = mine.new_zeros(max(lengths), *mine.shape[1:])
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in lengths]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.part], None


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes; one that has none adds zero.

    Where no process has a gradient there is none afterwards, as in a single process.
    """
    if world() == 1:
        return
    own = [p for p in parameters if p.requires_grad]
    if not own:
        return
    some = torch.tensor([float(p.grad is not None) for p in own], device=own[0].device)
    distributed.all_reduce(some)
    moved = [p for p, count in zip(own, some.tolist(), strict=True) if count]
    for kind in sorted({p.dtype for p in moved}, key=str):
        same = [p for p in moved if p.dtype == kind]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in same]
        flat = torch.cat([part.flatten() for part in parts])
        distributed.all_reduce(flat)
        for p, part in zip(same, torch.split(flat, [p.numel() for p in same]), strict=True):
            p.grad = part.view_as(p).clone()


def same_everywhere(tensors: Iterable[Tensor]) -> None:
    """Give every process the values of the first one."""
    if world() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


class SharedStop(Stop):
    """A request to stop that all processes follow when one of them has got it.

    Args:
        stop: What this process listens to.
    """

    def __init__(self, stop: Stop) -> None:
        super().__init__()
        self._inner = stop

    def check(self, finished: str) -> None:
        """Ask every process; see `Stop.check`."""
        found: Interrupted | None = None
        try:
            self._inner.check(finished)
        except Interrupted as error:
            found = error
        asked = torch.tensor([float(found is not None)])
        if distributed.get_backend() == "nccl":
            asked = asked.cuda()
        distributed.all_reduce(asked)
        if asked.item():
            raise found or Interrupted(
                f"Another process was asked to stop: {finished}. The same command continues."
            )


__all__ = [
    "SharedStop",
    "add_gradients",
    "barrier",
    "gather",
    "joined",
    "local",
    "rank",
    "same_everywhere",
    "share",
    "wanted",
    "world",
]
