"""Members of an ensemble: mapped over stacked parameters, each is as it is by itself."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from ..models.interface import FusionBatch, Hyper
from ..synthetic import make_batch, noisy
from .subject import Subject, Violation, close


def vmaps(subject: Subject) -> None:
    """Two members mapped over stacked parameters equal each by itself, or `vmappable` is False."""
    if not subject.kind.vmappable:
        return
    members = [subject.model(seed=seed).double() for seed in (0, 1)]
    base = members[0]
    batches = [
        _double(noisy(make_batch(6, base.specs, seed=e), members[e], True, seed=e)) for e in (0, 1)
    ]
    hypers = [
        Hyper(*torch.tensor([1e-3, p, c, 0.2, 1.5]).double()) for p, c in ((0.1, 1e-2), (0.4, 1e-1))
    ]

    def member_loss(
        params: dict[str, Tensor], buffers: dict[str, Tensor], batch: FusionBatch, hyper: Hyper
    ) -> Tensor:
        output = functional_call(base, (params, buffers), (batch, hyper))
        return base.objectives(hyper)[0].total(output.losses)

    params, buffers = stack_module_state(members)
    stacked = torch.utils._pytree.tree_map(lambda *parts: torch.stack(parts), *batches)
    hyper = Hyper(*(torch.stack(parts) for parts in zip(*hypers, strict=True)))
    try:
        gradient, losses = vmap(torch.func.grad_and_value(member_loss))(
            params, buffers, stacked, hyper
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise Violation(f"it does not run under torch.func.vmap: {reason}") from error
    for e, model in enumerate(members):
        loss = model.objectives(hypers[e])[0].total(model(batches[e], hypers[e]).losses)
        loss.backward()  # type: ignore[no-untyped-call]
        close(losses[e], loss.detach(), "the mapped loss differs from the member's own", True)
        for name, parameter in model.named_parameters():
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            text = f"the mapped gradient of {name} differs from the member's own"
            close(gradient[name][e], expected, text, True)


def _double(batch: FusionBatch) -> FusionBatch:
    return dataclasses.replace(batch, x={k: v.double() for k, v in batch.x.items()})
