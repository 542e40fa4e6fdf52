"""Stage one from end to end: cohort, then per modality plan, encode, commit, link."""

from __future__ import annotations

from .work import Plan, Work

__all__ = ["Plan", "Work"]
