"""Stage two: from a cache to a judged model."""
