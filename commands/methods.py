"""`cm2 models`: the methods there are to compare."""

from __future__ import annotations

from ..console import records
from .shared import JsonOption, print_json


def list_models(as_json: JsonOption = False) -> None:
    """List the methods: what each is, where it comes from, and what absence means to it."""
    from ..fuse.models import MODELS

    rows = [
        {
            "model": name,
            "what": (model.__doc__ or "").splitlines()[0].removesuffix("."),
            "absent modality": model.absence,
            "reference": model.reference,
        }
        for name, model in MODELS.items()
    ]
    if as_json:
        print_json(rows)
    else:
        print(records(rows))


__all__ = ["list_models"]
