"""Where raw data come from, one adapter each."""
