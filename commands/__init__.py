"""The commands of `cm2`: each parses, calls and prints; no logic."""
