"""Joint models that several tests of the copula space look at."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cm2.fuse.copula import get_copula
from cm2.fuse.copula.family import Copula
from cm2.fuse.copula.joint import JointModel
from cm2.fuse.copula.mixture import Mixture
from cm2.fuse.copula.student_t import Student


def family_of(entry: dict[str, Any]) -> tuple[Copula, dict[str, Tensor]]:
    """The family of a vector entry with its parameters."""
    names = {"R": "correlation", "theta": "theta", "nu": "nu"}
    params = {names[k]: torch.tensor(v, dtype=torch.float64) for k, v in entry["params"].items()}
    if entry["family"] == "student_t":
        return Student(nu=entry["params"]["nu"]), params
    return get_copula(entry["family"]), params


def joint_of(entry: dict[str, Any], M: int, **options: Any) -> JointModel:
    """The joint model of a vector entry."""
    copula, params = family_of(entry)
    joint = JointModel(M, entry["D"], entry["K"], copula, floor=1e-6, **options).double()
    for marginal, parts in zip(joint.marginals, entry["mixtures"], strict=True):
        tensors = {k: torch.tensor(v, dtype=torch.float64) for k, v in parts.items()}
        log_weights = torch.log(tensors["weights"] / tensors["weights"].sum())
        marginal.assign(Mixture(log_weights, tensors["means"], tensors["stds"]))  # type: ignore[operator]
    if joint.raw.numel():
        joint.raw.data.copy_(copula.unconstrained(params, M))
    return joint


def some_joint(
    M: int, D: int, K: int, family: str, tau: float = 0.4, seed: int = 0, **options: Any
) -> JointModel:
    torch.manual_seed(seed)
    joint = JointModel(M, D, K, family, **options).double()
    for marginal in joint.marginals:
        marginal.start(torch.rand(K) + 0.3, 1.5 * torch.randn(K, D), 0.4 + torch.rand(K, D))  # type: ignore[operator]
    if joint.raw.numel():
        joint.raw.data.copy_(joint.copula.initial(M, tau).expand_as(joint.raw))
    return joint
