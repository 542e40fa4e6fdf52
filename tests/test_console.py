from __future__ import annotations

import logging

import pytest

from cm2.console import Bars, interval, metric_table, set_up_logging, table


def test_a_table_aligns_numbers_right_and_text_left() -> None:
    lines = table(["model", "n"], [["cm2", 5], ["concat", 12345]]).splitlines()
    assert lines[0] == "model        n"
    assert lines[2] == "cm2          5"
    assert lines[3] == "concat  12,345"


def test_an_undefined_metric_is_a_dash_and_never_a_number() -> None:
    assert interval({"value": None, "low": None, "high": None}) == "–"
    assert interval({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.500 [0.250, 0.750]"


def test_without_a_terminal_progress_is_plain_lines_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Bars()("films", 3, "films") as advance:
        advance(3)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("films: 3 films in ")


def test_warnings_are_shown_even_to_those_who_want_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = logging.getLogger("cm2")
    before = log.level, log.propagate, list(log.handlers)
    try:
        set_up_logging(-1)
        log.getChild("fuse").warning("only 3 events")
        log.getChild("fuse").info("epoch 1")
        assert capsys.readouterr().err == "WARNING: only 3 events\n"
    finally:
        log.level, log.propagate, log.handlers[:] = before


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars(quiet=True)("films", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


def test_an_interval_above_the_value_of_ece_is_explained() -> None:
    usual = {"ece": {"value": 0.05, "low": 0.03, "high": 0.09}}
    odd = {"ece": {"value": 0.02, "low": 0.03, "high": 0.09}}
    assert "ECE: resamples" not in metric_table([("run", "test", usual)])
    assert "ECE: resamples repeat stays" in metric_table([("run", "test", odd)])
