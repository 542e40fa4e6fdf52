"""Image networks by name, without their classifiers, and how they are made faster."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .weights import seeded

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Known:
    """One network that torchvision can build.

    Args:
        width: Length of its features.
        head: Name of its classifier.
        tokens: Whether it is a transformer, with a class token before those of the places.
        blocked: Whether oneDNN has all its operations, so that images can stay in the layout of
            its products from layer to layer.
    """

    width: int
    head: str
    tokens: bool = False
    blocked: bool = False


NETWORKS: Mapping[str, Known] = {
    "resnet34": Known(512, "fc", blocked=True),
    "resnet18": Known(512, "fc", blocked=True),
    "resnet50": Known(2048, "fc", blocked=True),
    "densenet121": Known(1024, "classifier"),
    "resnet8": Known(64, "fc", blocked=True),
    "resnet8_gn": Known(64, "fc"),
    "resnet18_gn": Known(512, "fc"),
    "resnet34_gn": Known(512, "fc"),
    "vit_s_16": Known(384, "heads", tokens=True),
    "vit_b_16": Known(768, "heads", tokens=True),
}
"""Offered networks; vit_s_16 is torchvision's VisionTransformer in the size of DeiT-S.

resnet8 is the smallest residual network of the CIFAR experiments of He et al. (2016), 78,000
parameters, for small films. Endings in _gn have group norm (Wu and He, 2018) in place of batch
norm: no statistic of theirs depends on which other films are in a batch.
"""

_GROUP = 16  # channels that a group norm averages over

_VIT_SMALL = {"hidden_dim": 384, "num_layers": 12, "num_heads": 6, "mlp_dim": 1536}


def build(name: str, seed: int) -> nn.Module:
    """Return a network of `NETWORKS` in evaluation mode, its classifier replaced by nothing.

    Args:
        name: The network.
        seed: Of its random weights.
    """
    from torch import nn
    from torchvision import models

    with seeded(seed):
        plain = name.removesuffix("_gn")
        kind: Any = nn.BatchNorm2d if plain == name else _group_norm
        if name == "vit_s_16":
            network: nn.Module = models.VisionTransformer(
                image_size=224, patch_size=16, **_VIT_SMALL
            )
        elif plain == "resnet8":
            network = _resnet8(kind)
        elif plain != name:
            network = getattr(models, plain)(weights=None, norm_layer=kind)
        else:
            network = getattr(models, name)(weights=None)
    setattr(network, NETWORKS[name].head, nn.Identity())
    return network.eval()


def body(name: str, network: Any, *, folded: bool = True) -> nn.Module:
    """Return the part of a network that gives its features place by place.

    It maps [B, 3, H, W] to [B, D, h, w], or to [B, 1 + h w, D] with the class token first.

    Args:
        name: The network.
        network: What `build` returns.
        folded: Make batch norms that follow a convolution a part of it, for a network that is
            trained no more.
    """
    from torch import nn

    if NETWORKS[name].tokens:
        return _tokens(network)
    if name.startswith("densenet"):
        places: nn.Module = nn.Sequential(network.features, nn.ReLU())
    else:
        places = nn.Sequential(*list(network.children())[:-2])
    return fold(places) if folded else places


def _group_norm(channels: int) -> nn.Module:
    from torch import nn

    return nn.GroupNorm(max(1, channels // _GROUP), channels)


def _resnet8(norm: Any) -> nn.Module:
    """One basic block at each of 16, 32 and 64 channels."""
    from torch import nn
    from torchvision.models.resnet import BasicBlock

    def block(width: int, out: int, stride: int) -> Any:
        shortcut = None
        if stride > 1:
            shortcut = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), norm(out))
        return BasicBlock(width, out, stride, shortcut, norm_layer=norm)

    parts = {
        "conv1": nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        "bn1": norm(16),
        "relu": nn.ReLU(inplace=True),
        "layer1": block(16, 16, 1),
        "layer2": block(16, 32, 2),
        "layer3": block(32, 64, 2),
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "fc": nn.Identity(),
    }
    network = nn.Sequential()
    for name, part in parts.items():
        network.add_module(name, part)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def headless(body: nn.Module, *, tokens: bool) -> nn.Module:
    """Return a network that gives pooled features [B, D] and features by place [B, S, D].

    Args:
        body: What `body` returns.
        tokens: Whether its first token is that of the class.
    """
    from torch import nn
    from torch.nn.functional import adaptive_avg_pool2d

    class Headless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            out: torch.Tensor = self.body(images)
            if tokens:
                return out[:, 0], out[:, 1:]
            return adaptive_avg_pool2d(out, 1).flatten(1), out.flatten(2).transpose(1, 2)

    return Headless().eval()


def can_block(name: str, kind: torch.dtype) -> bool:
    """Whether this processor can run a network of `NETWORKS` as `blocked` does."""
    import torch

    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if there and kind == torch.bfloat16:
        there = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return there and NETWORKS[name].blocked


def blocked(body: nn.Module, kind: torch.dtype) -> nn.Module:
    """Return the network with its images in the layout of oneDNN from layer to layer.

    As fast as channels last in float32, and its sums are those of the network as it comes; faster
    and closer to float32 than autocast in bfloat16.

    Args:
        body: What `body` returns, of a network that `can_block` names; its weights are replaced.
        kind: float32 or bfloat16.
    """
    import torch
    from torch import nn

    for layer in body.modules():
        for name, weight in list(layer.named_parameters(recurse=False)):
            packed = nn.Parameter(weight.detach().to_mkldnn(kind), requires_grad=False)
            setattr(layer, name, packed)

    class Blocked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.body(images.to_mkldnn(kind))
            return out.to_dense(torch.float32)

    return Blocked()


def _tokens(network: Any) -> nn.Module:
    import torch
    from torch import nn

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            patches = self.network._process_input(images)  # [B, h w, D]
            first = self.network.class_token.expand(len(images), -1, -1)
            tokens: torch.Tensor = self.network.encoder(torch.cat([first, patches], dim=1))
            return tokens

    return Tokens()


def fold(network: nn.Module) -> nn.Module:
    """Return a copy in which every batch norm that alone follows a convolution is part of it."""
    import torch.fx
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    traced = torch.fx.symbolic_trace(copy.deepcopy(network).eval())
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        before = node.args[0]
        conv = modules.get(str(before.target)) if before.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d) or len(before.users) > 1:
            continue
        traced.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))
        modules = dict(traced.named_modules())
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.recompile()
    traced.delete_all_unused_submodules()
    return traced


__all__ = ["NETWORKS", "Known", "blocked", "body", "build", "can_block", "fold", "headless"]
