"""A cohort: its stays and links, and each modality as arrays in the order of the stays."""

from __future__ import annotations

from .label import write_labels
from .stays import Cohort, Links, linked_elsewhere, write_cohort, write_links
from .view import ModalityView, view

__all__ = [
    "Cohort",
    "Links",
    "ModalityView",
    "linked_elsewhere",
    "view",
    "write_cohort",
    "write_labels",
    "write_links",
]
