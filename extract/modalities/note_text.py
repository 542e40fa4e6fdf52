"""Clean the text of a clinical note: no placeholders of de-identification, no signatures."""

from __future__ import annotations

import re

VERSION = 1
"""Raised whenever the same note would give another text."""

_PLACEHOLDER = re.compile(r"\[\*\*.*?\*\*\]|_+", re.DOTALL)
_SIGNATURE = re.compile(
    r"by electronically signing this report|electronically signed (?:on|by)|\s{3,}dr\.| radline ",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    """Cut a note at its signature, blank what de-identification left, and close up white space.

    Args:
        text: The note as it stands in its table.
    """
    signature = _SIGNATURE.search(text)
    body = text if signature is None else text[: signature.start()]
    return " ".join(_PLACEHOLDER.sub(" ", body).split())


__all__ = ["VERSION", "clean"]
