"""Synthetic radiology reports: sentences put together from phrases, none from a real report."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from numpy.random import Generator

# From the mildest to the gravest; a report picks the level that its severity says.
_IMPRESSIONS = (
    "No acute cardiopulmonary process.",
    "Clear lungs. No evidence of pneumonia.",
    "Low lung volumes with mild bibasilar atelectasis.",
    "Mild pulmonary vascular congestion, possibly early edema.",
    "Moderate interstitial edema with small bilateral effusions.",
    "Worsening bilateral opacities, concerning for multifocal pneumonia.",
    "Severe diffuse opacities in both lungs, consistent with acute respiratory distress.",
)
_LUNGS = (
    "The lungs are clear and well expanded.",
    "The lungs are clear without focal consolidation.",
    "There is mild atelectasis at the left base.",
    "There are patchy opacities at both bases.",
    "There is moderate opacity in the right lower lobe.",
    "There is extensive consolidation in both lower lobes.",
    "Dense opacities now involve nearly all of both lungs.",
)
_PLEURA = (
    "No pleural effusion or pneumothorax is seen.",
    "There is no pleural effusion.",
    "A trace effusion on the left cannot be excluded.",
    "There is a small left pleural effusion.",
    "There are small bilateral pleural effusions.",
    "There are moderate bilateral pleural effusions.",
    "There are large bilateral pleural effusions, increased since the prior study.",
)
_HEART = (
    "The heart is normal in size.",
    "The cardiac silhouette is within normal limits.",
    "Heart size is at the upper limit of normal.",
    "The heart is mildly enlarged.",
    "Moderate cardiomegaly is unchanged.",
    "The heart is enlarged with a wide vascular pedicle.",
    "Severe cardiomegaly with marked vascular engorgement.",
)
_DEVICES = (
    "",
    "",
    "",
    "A central line ends in the superior vena cava.",
    "An endotracheal tube ends above the carina.",
    "An endotracheal tube and a nasogastric tube are in standard position.",
    "Support devices are unchanged in position.",
)
_REASONS = ("shortness of breath", "fever", "line placement", "hypoxia", "follow up")


def _level(z: float, rng: Generator) -> int:
    """A level from 0 to 6 that follows the severity with the sloppiness of prose."""
    return int(min(6, max(0, round(3 + 1.7 * z + rng.normal(scale=0.6)))))


def _pick(phrases: Sequence[str], z: float, rng: Generator) -> str:
    return phrases[_level(z, rng)]


def write_report(z: float, rng: Generator) -> str:
    """One report in the shape of MIMIC-CXR: a line starts with a blank, headers are capitals.

    Shapes vary as real ones do: with and without findings, comparison or impression, joined
    sections, and texts without any header.

    Args:
        z: Severity as a normal score.
        rng: Source of randomness.
    """
    findings = [_pick(phrases, z, rng) for phrases in (_LUNGS, _PLEURA, _HEART, _DEVICES)]
    order = rng.permutation(3)
    body = " ".join([findings[i] for i in order] + [findings[3]]).strip()
    verdict = _pick(_IMPRESSIONS, z, rng)
    reason = _REASONS[int(rng.integers(len(_REASONS)))]
    comparison = "None." if rng.random() < 0.5 else "Chest radiograph of the previous day."
    shape = rng.choice(["full", "no findings", "joined", "paragraphs"], p=[0.6, 0.2, 0.1, 0.1])
    if shape == "paragraphs":
        return _layout([("", f"Portable chest film for {reason}."), ("", f"{body} {verdict}")])
    sections = [("EXAMINATION", "Chest, portable AP."), ("INDICATION", f"Patient with {reason}.")]
    if rng.random() < 0.8:
        sections.append(("COMPARISON", comparison))
    if shape == "full":
        sections += [("FINDINGS", body), ("IMPRESSION", verdict)]
    elif shape == "joined":
        sections.append(("FINDINGS AND IMPRESSION", f"{body} {verdict}"))
    else:
        sections.append(("IMPRESSION", f"{verdict} {findings[0]}"))
    return _layout(sections)


def _layout(sections: list[tuple[str, str]]) -> str:
    lines = [" " * 33 + "FINAL REPORT"]
    for header, text in sections:
        words = f"{header}:  {text}" if header else text
        lines += [f" {line}" for line in wrap(words, 76)] + [" "]
    return "\n".join(lines) + "\n"
