"""What an encoder was pre-trained on, as far as its files say, and whether it saw MIMIC before."""

from __future__ import annotations

import json
import re
from pathlib import Path

HEADER, PRETRAINED_ON = "cm2", "pretrained_on"
"""Key that `cm2 weights convert` puts into the header of a file, and one of the facts there."""
NOT_STATED = "not stated"

# Of encoders that people use for films and notes: published name -> what their authors trained on.
_KNOWN = (
    (r"bio_?clinical_?bert|bio_discharge_summary", "MIMIC-III notes"),
    (r"bluebert.*mimic", "PubMed and MIMIC-III notes"),
    (r"clinical-(longformer|bigbird)", "MIMIC-III notes"),
    (r"gatortron", "clinical notes, MIMIC-III among them"),
    (r"biomedvlp|cxr-bert|biovil", "PubMed, MIMIC-III notes and MIMIC-CXR reports"),
    (r"rad-?dino", "chest films, MIMIC-CXR among them"),
    (r"chexagent|xraysiglip|medclip|convirt", "films and reports, MIMIC-CXR among them"),
    (r"gloria", "films and reports of CheXpert"),
    (r"densenet121-res\d+-all|resnet50-res\d+-all", "chest films, MIMIC-CXR among them"),
    (r"^(resnet\d+|densenet\d+|vit_[bl]_\d+|convnext_\w+|swin_\w+)-[0-9a-f]{8}$", "ImageNet-1k"),
    (r"tinybert_general|bert-(tiny|mini|small|medium|base|large)", "Wikipedia and books"),
    (r"all-minilm-l6", "sentence pairs from the web"),
)
_MIMIC = re.compile(r"mimic", re.IGNORECASE)
_CHEXPERT = re.compile(r"chex(pert|bert|net)|\bchex\b", re.IGNORECASE)


def pretraining(path: Path, name: str) -> str:
    """Say what weights were pre-trained on.

    The header of the file stands first, then what is publicly known of the name.

    Args:
        path: The .safetensors file, or the folder that holds one with its config.json.
        name: How the user or the hub calls it.
    """
    stated = _header(path if path.is_file() else path / "model.safetensors")
    if stated:
        return stated
    for word in (name, *_own_names(path)):
        for pattern, data in _KNOWN:
            if re.search(pattern, Path(word).name.removesuffix(".safetensors"), re.IGNORECASE):
                return data
        for data, seen in (("MIMIC", _MIMIC), ("CheXpert", _CHEXPERT)):
            if seen.search(Path(word).name):
                return f"{data}, by its name ({Path(word).name})"
    return NOT_STATED


def caution(what: str, pretrained_on: str) -> str:
    """Warn of an encoder that may have seen the very stays it is to be tested on; "" if not.

    Args:
        what: Modality and weights, for the message.
        pretrained_on: As `pretraining` tells it.
    """
    if _MIMIC.search(pretrained_on):
        seen = "has"
    elif _CHEXPERT.search(pretrained_on):
        seen = "may have (encoders of CheXpert often learnt from MIMIC-CXR as well)"
    else:
        return ""
    return (
        f"{what}: the encoder was pre-trained on {pretrained_on}; it {seen} seen patients of "
        "MIMIC, so results on its test stays can look better than on new patients"
    )


def _header(file: Path) -> str:
    """The statement in the header of a .safetensors file; "" without one."""
    if file.suffix != ".safetensors" or not file.is_file():
        return ""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            facts = json.loads((opened.metadata() or {}).get(HEADER, "{}"))
        return str(facts.get(PRETRAINED_ON, ""))
    except (SafetensorError, OSError, ValueError, AttributeError):
        # what is wrong with the file, reading the weights themselves says better
        return ""


def _own_names(path: Path) -> tuple[str, ...]:
    """Where config.json says that the weights come from."""
    try:
        content = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return (str(content["_name_or_path"]),)
    except (OSError, ValueError, KeyError, TypeError):
        return ()


__all__ = ["HEADER", "NOT_STATED", "PRETRAINED_ON", "caution", "pretraining"]
