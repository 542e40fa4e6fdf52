"""The commands below `cm2 weights`: convert, fetch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import quoted
from .shared import JsonOption, print_json, suggest

weights_app = typer.Typer(help="Prepare weights of encoders.", no_args_is_help=True)


@weights_app.command("convert")
def weights_convert(
    file: Annotated[Path, typer.Argument(help="Pickled weights: .pt, .pth, .bin.", metavar="FILE")],
    sha256: Annotated[str, typer.Option(help="SHA-256 as the publisher of FILE states it.")],
    out: Annotated[
        Path | None,
        typer.Option(help="A .safetensors file, or a folder that also takes config and tokenizer."),
    ] = None,
    pretrained_on: Annotated[
        str | None, typer.Option(help="What the weights have learnt from; recorded with them.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Turn pickled weights into .safetensors once; nothing but tensors is let through."""
    from ..extract.encoders.convert import convert

    done = convert(file, sha256, out, pretrained_on)
    if as_json:
        print_json(asdict(done))
        return
    print(f"{done.path}: {done.tensors} tensors, {done.bytes:,} bytes, sha256 {done.sha256}")
    print(f"pre-trained on: {done.pretrained_on}")
    folder = done.path.parent if done.path.name == "model.safetensors" else done.path
    suggest(f"cm2 extract … --weights MODALITY={quoted(folder)}")


@weights_app.command("fetch")
def weights_fetch(
    model: Annotated[
        str, typer.Argument(help="A model of the Hugging Face hub.", metavar="ID@REVISION")
    ],
) -> None:
    """Download a model into the offline cache; the only command that uses the network."""
    from ..extract.encoders.hub import HubReference, fetch

    folder = fetch(model)
    print(folder)
    pickled = folder / "pytorch_model.bin"
    if pickled.is_file() and not (folder / "model.safetensors").is_file():
        suggest(f"cm2 weights convert {quoted(pickled)} --sha256 … --out FOLDER")
    else:
        suggest(f"cm2 extract … --weights MODALITY={HubReference.parse(model)}")


__all__ = ["weights_app"]
