"""Split a radiology report into its sections, by the layout that MIMIC-CXR reports have.

A header is a line of capitals after exactly one blank, ended by a colon. The rules are those
that the published pipelines rely on; the table of header spellings is this project's own.
"""

from __future__ import annotations

import re

SECTIONS = ("impression", "findings", "last_paragraph", "comparison")
"""The parts of a report that are encoded, in this order."""

_HEADER = re.compile(r"\n ([A-Z][A-Z ()/,\-]*):(?=\s|\Z)")
_PARAGRAPH = "\n \n"
_PREAMBLE, _WHOLE = "preamble", "full report"

_SPELLINGS = {
    "impression": (
        "impression",
        "impressions",
        "impresson",
        "imp",
        "conclusion",
        "conclusions",
        "opinion",
        "summary",
        "final impression",
        "findings and impression",
        "findings/impression",
        "impression and findings",
    ),
    "findings": (
        "findings",
        "finding",
        "report",
        "radiographic findings",
        "chest, two views",
        "chest two views",
        "chest, single view",
        "chest, single ap view",
        "portable ap chest radiograph",
        "pa and lateral views of the chest",
        "ap view of the chest",
        "upright ap view of the chest",
    ),
    "comparison": (
        "comparison",
        "comparisons",
        "comparison study",
        "comparison studies",
        "comparison exam",
        "compared to",
        "prior studies",
        "prior study",
    ),
    "indication": (
        "indication",
        "indications",
        "clinical indication",
        "reason for exam",
        "reason for examination",
        "reason for the exam",
        "reason for study",
        "study indication",
    ),
    "history": (
        "history",
        "clinical history",
        "patient history",
        "clinical information",
        "medical history",
    ),
    "technique": ("technique", "technical factors"),
    "examination": ("examination", "exam", "type of examination", "study", "procedure"),
    "addendum": ("addendum", "addenda"),
    "notification": ("notification", "wet read", "recommendation", "recommendations"),
}
_NAMES = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
_CONTAINED = ("impression", "findings", "history", "comparison", "addendum")
_VIEWS = re.compile(r"\b(chest|portable|pa|ap|lateral|views?|radiographs?|upright|supine)\b")


def split_sections(text: str) -> list[tuple[str, str]]:
    """Return (name, text) of every section in the order of the report.

    What stands before the first header is `preamble`; a report without any header is one
    `full report`. Empty impressions and findings are left out. When neither is left, what follows
    the first blank line of the last section becomes `last_paragraph`.

    Args:
        text: The report as it lies on disk.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    sections: list[tuple[str, str]] = []
    name, start, header = _PREAMBLE, 0, _HEADER.search(text)
    if header is None:
        name = _WHOLE
    while header is not None:
        sections.append((name, text[start : header.start()]))
        name, start = section_name(header.group(1)), header.end()
        header = _HEADER.search(text, start)
    sections.append((name, text[start:]))
    named = [
        (name, body)
        for name, body in sections
        if body.strip() or name not in ("impression", "findings")
    ]
    if not {"impression", "findings"} & {name for name, _ in named} and named:
        last, body = named[-1]
        before, found, after = body.partition(_PARAGRAPH)
        if found:
            named[-1:] = [(last, before), ("last_paragraph", after)]
    return named


def section_name(header: str) -> str:
    """Return the section that a header opens, by its spelling, a word in it, or a view in it."""
    words = " ".join(header.lower().split())
    if words in _NAMES:
        return _NAMES[words]
    for name in _CONTAINED:
        if name in words:
            return name
    return "findings" if _VIEWS.search(words) else words


def encoded_parts(text: str) -> tuple[str, ...]:
    """Return the four texts of `SECTIONS`, stripped; of a repeated section the last, else ""."""
    last = dict(split_sections(text))
    return tuple(last.get(name, "").strip() for name in SECTIONS)


__all__ = ["SECTIONS", "encoded_parts", "section_name", "split_sections"]
