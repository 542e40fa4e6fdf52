"""Many configurations over one loaded cache."""
