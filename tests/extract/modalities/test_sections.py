"""Splitting reports: headers, spellings, paragraphs, and the shapes that real ones have."""

from __future__ import annotations

import random

import pytest

from cm2.extract.modalities.sections import SECTIONS, encoded_parts, section_name, split_sections

FULL = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)
 
 INDICATION:  Cough.
 
 COMPARISON:  None.
 
 FINDINGS: 
 
 The lungs are clear.
 Note: a word with a colon is no header.
 
 IMPRESSION: 
 
 No acute process.
"""  # noqa: W291, W293  # the blanks are the layout


def parts(text: str) -> dict[str, str]:
    return dict(zip(SECTIONS, encoded_parts(text), strict=True))


def test_a_full_report_falls_into_its_sections_in_order() -> None:
    names = [name for name, _ in split_sections(FULL)]
    assert names == [
        "preamble",
        "examination",
        "indication",
        "comparison",
        "findings",
        "impression",
    ]
    assert parts(FULL) == {
        "impression": "No acute process.",
        "findings": "The lungs are clear.\n Note: a word with a colon is no header.",
        "last_paragraph": "",
        "comparison": "None.",
    }


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("IMPRESSION", "impression"),
        ("CONCLUSION", "impression"),
        ("FINDINGS AND IMPRESSION", "impression"),
        ("FINDINGS", "findings"),
        ("CHEST, TWO VIEWS", "findings"),
        ("UPRIGHT PORTABLE CHEST", "findings"),
        ("SUPINE AP VIEW, ONE IMAGE", "findings"),
        ("REASON FOR EXAM", "indication"),
        ("CLINICAL  HISTORY", "history"),
        ("PAST HISTORY (BRIEF)", "history"),
        ("COMPARISON FILMS", "comparison"),
        ("ADDENDUM BY DR", "addendum"),
        ("WET READ", "notification"),
        ("PAPERWORK", "paperwork"),
    ],
)
def test_headers_are_known_by_spelling_then_by_a_word_then_by_a_view(
    header: str, name: str
) -> None:
    assert section_name(header) == name


@pytest.mark.parametrize(
    "line",
    [
        "IMPRESSION: at the margin",
        "  IMPRESSION: behind two blanks",
        " Impression: not in capitals",
        " IMPRESSION:nothing between",
        " IMPRESSION 2: a digit",
    ],
)
def test_what_only_looks_like_a_header_is_none(line: str) -> None:
    text = f"\n COMPARISON: None.\n{line}\n"
    assert [name for name, _ in split_sections(text)] == ["preamble", "comparison"]


def test_a_header_may_follow_on_the_very_next_line() -> None:
    text = "\n FINDINGS: Clear.\n IMPRESSION: Fine.\n"
    assert parts(text)["findings"] == "Clear."
    assert parts(text)["impression"] == "Fine."
    assert [name for name, _ in split_sections("\n FINDINGS: \n IMPRESSION: Fine.\n")] == [
        "preamble",
        "impression",
    ]


def test_without_impression_and_findings_the_text_after_a_blank_line_counts() -> None:
    text = "     FINAL REPORT\n Portable film.\n \n Lungs are clear.\n \n Heart is normal.\n"
    assert [name for name, _ in split_sections(text)] == ["full report", "last_paragraph"]
    assert parts(text)["last_paragraph"] == "Lungs are clear.\n \n Heart is normal."
    text = "\n COMPARISON: Yesterday.\n \n Lungs are clear.\n"
    assert parts(text)["comparison"] == "Yesterday."
    assert parts(text)["last_paragraph"] == "Lungs are clear."


def test_with_an_impression_there_is_no_last_paragraph() -> None:
    text = "\n IMPRESSION: Fine.\n \n Lungs are clear.\n"
    assert parts(text)["last_paragraph"] == ""
    assert "Lungs are clear." in parts(text)["impression"]


def test_an_empty_impression_counts_as_none() -> None:
    text = "\n IMPRESSION: \n \n COMPARISON: None.\n \n Lungs are clear.\n"
    assert parts(text) == {
        "impression": "",
        "findings": "",
        "last_paragraph": "Lungs are clear.",
        "comparison": "None.",
    }


def test_of_two_sections_of_a_name_the_last_counts() -> None:
    text = "\n IMPRESSION: First.\n \n ADDENDUM: x\n \n IMPRESSION: Second.\n"
    assert parts(text)["impression"] == "Second."


@pytest.mark.parametrize("text", ["", " ", "\n", "no header at all", "\n INDICATION: Cough.\n"])
def test_a_text_without_the_four_sections_has_none(text: str) -> None:
    assert encoded_parts(text) == ("", "", "", "")


def test_line_ends_of_other_systems_are_the_same() -> None:
    assert encoded_parts(FULL.replace("\n", "\r\n")) == encoded_parts(FULL)


def test_a_header_at_the_very_end_opens_an_empty_section() -> None:
    assert split_sections("\n FINDINGS: Clear.\n COMPARISON:")[-1] == ("comparison", "")


WORDS = ["lungs", "are", "clear", "no", "seen:", "stable,", "5", "days", "AND", "NORMAL:", "heart"]
SPELLINGS = {
    "impression": ["IMPRESSION", "CONCLUSION", "FINDINGS AND IMPRESSION", "FINAL IMPRESSION (AM)"],
    "findings": ["FINDINGS", "CHEST, TWO VIEWS", "PORTABLE AP CHEST", "REPORT"],
    "comparison": ["COMPARISON", "COMPARISONS", "COMPARISON CHEST FILM"],
    "other": ["INDICATION", "TECHNIQUE", "HISTORY", "WET READ", "EXAM", "ADDENDUM"],
}


def body(rng: random.Random) -> list[str]:
    """Some paragraphs of lines as they stand in a report, each behind one blank."""
    paragraphs = []
    for _ in range(rng.randint(1, 3)):
        lines = [" ".join(["the", *rng.choices(WORDS, k=rng.randint(3, 9))]) for _ in range(2)]
        paragraphs.append("\n ".join(lines))
    return paragraphs


@pytest.mark.parametrize("seed", range(60))
def test_any_sequence_of_sections_is_found_again(seed: int) -> None:
    rng = random.Random(seed)
    text, expected = " " * 33 + "FINAL REPORT", dict.fromkeys(SECTIONS, "")
    names = [rng.choice(list(SPELLINGS)) for _ in range(rng.randint(0, 6))]
    for name in [*names, rng.choice(["impression", "findings"])]:
        filled = rng.random() < 0.85 or not {"impression", "findings"}.isdisjoint([name])
        content = "\n \n ".join(body(rng)) if filled else ""
        gap = rng.choice([" ", "  ", "\n ", " \n \n "])
        text += "\n" * rng.randint(0, 1) + f"\n {rng.choice(SPELLINGS[name])}:{gap}{content}"
        text += rng.choice(["", "\n ", "\n \n "])
        if name != "other":
            expected[name] = content
    assert parts(text + "\n") == expected
