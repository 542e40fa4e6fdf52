"""What an imputed modality says: how the prediction varies over draws for stays that lack it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..inference import Prepared, probabilities
from ..models.interface import Hyper
from ..precision import precision

DRAWS, BINS = 16, 20


@torch.no_grad()
def imputed(loaded: Prepared) -> list[dict[str, Any]]:
    """Predict with one draw at a time.

    Args:
        loaded: Model and stays.

    Returns:
        For each modality that some stays lack: modality, n (those stays), draws, within (median and
        90 % quantile over stays of the standard deviation over draws), between (standard deviation
        over stays of the mean over draws), and histograms of the probability over `BINS` equal
        bins: every draw of every stay, and the mean of each stay. Empty for a model without draws.
    """
    model, data, config = loaded.model, loaded.data, loaded.model.config
    shapes = {
        name: (1, *shape[1:]) if name in ("draw", "latent") else shape
        for name, shape in model.noise(training=False).items()
    }
    if "draw" not in shapes:
        return []
    found = []
    for draw in range(1, DRAWS + 1):  # the number of the draw names its stream
        batches = data.batches(loaded.rows, noise=shapes, seed=config.seed, epoch=draw)
        with precision(config, data.device):
            found.append(probabilities([model(batch, Hyper.of(config)) for batch in batches]))
    p = np.stack(found)  # (S, n, C)
    available = data.whole.available.cpu().numpy()[loaded.rows]
    result = []
    for m, spec in enumerate(model.specs):
        own = p[:, ~available[:, m]]
        n = own.shape[1]
        if not n:
            continue
        within = own.std(0).ravel()
        result.append(
            {
                "modality": spec.name,
                "n": n,
                "draws": DRAWS,
                "within": {
                    "median": float(np.median(within)),
                    "q90": float(np.quantile(within, 0.9)),
                },
                "between": float(own.mean(0).std()),
                "every_draw": np.histogram(own, BINS, (0, 1))[0].tolist(),
                "means": np.histogram(own.mean(0), BINS, (0, 1))[0].tolist(),
            }
        )
    return result


__all__ = ["BINS", "DRAWS", "imputed"]
