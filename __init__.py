"""Multimodal clinical prediction with missing modalities.

`cm2 extract` encodes every item once into a cache; `cm2 fuse` trains a copula-aligned model
from it.
"""

from __future__ import annotations

__version__ = "0.1.0"
