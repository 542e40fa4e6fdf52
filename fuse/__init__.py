"""Stage two: from a cache to a judged model."""

import sys

from ..api import Stage

sys.modules[__name__].__class__ = Stage
