"""Metrics with intervals, evaluation of runs, the report."""
