"""What stands in for an absent modality in the fusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..copula.joint import JointModel
from ..copula.whitening import CopulaSpace

RANDOM = ("marginal", "conditional")
"""Ways that need random numbers; their predictions are averaged over draws."""


class Imputation(nn.Module):
    """Fill the tokens of absent modalities.

    `skip` leaves them out, `zero` and `mean` (over the training rows) are constants, `learned` is
    a parameter, `blank` is the embedding of an empty input, `marginal` draws from the modality's
    own distribution as the paper does, and `conditional` given the modalities that are present,
    through the copula; `-median` and `-mean` are its deterministic forms.

    Args:
        how: One of these names.
        modalities: Number M of modalities.
        size: Width D of the embeddings.
    """

    def __init__(self, how: str, modalities: int, size: int) -> None:
        super().__init__()
        self.how = how
        if how == "learned":
            self.learned = nn.Parameter(0.02 * torch.randn(modalities, size))

    def forward(
        self,
        z: Tensor,
        w: Tensor,
        available: Tensor,
        space: CopulaSpace,
        joint: JointModel,
        started: Tensor,
        uniforms: Tensor | None,
        blank: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Complete the tokens.

        Args:
            z: Embeddings, ``(B, M, D)``, zero where absent.
            w: Copula coordinates, ``(B, M, D_c)``.
            available: ``(B, M)`` bool.
            space: The copula space.
            joint: The joint density of the coordinates.
            started: 1 once the mixtures have started from data, else 0: then nothing is drawn.
            uniforms: Numbers in (0, 1), ``(B, S, M, ·)``, for the random ways.
            blank: Embeddings ``(B, M, D)`` in which empty inputs take the place of absent ones.

        Returns:
            Tokens ``(S, B, M, D)``; which of them are read, ``(B, M)`` bool; and the coordinates
            ``(S, B, M, D_c)``, completed where the way draws in them.
        """
        everything = torch.ones_like(available)
        there = available.unsqueeze(-1)
        if self.how == "skip":
            return z.unsqueeze(0), available, w.unsqueeze(0)
        if self.how == "zero":
            return z.unsqueeze(0), everything, w.unsqueeze(0)
        if self.how == "blank":
            return torch.where(there, z, blank).unsqueeze(0), everything, w.unsqueeze(0)
        if self.how == "learned":
            return torch.where(there, z, self.learned).unsqueeze(0), everything, w.unsqueeze(0)
        if self.how == "mean":
            w, drawn = w.unsqueeze(0), space.whitening.embedding_mean.expand(1, *z.shape)
        else:
            if uniforms is None:
                uniforms = torch.full((len(z), 1, w.shape[1], joint.noise_size), 0.5).to(w)
            w = joint.sample_missing(w, available, uniforms.to(w).transpose(0, 1), self.how)
            drawn = space.decode(w)
        drawn = (drawn * started).to(z.dtype)
        return torch.where(there, z, drawn), everything, w
