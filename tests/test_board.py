from __future__ import annotations

import logging
import re
import sys

import pytest
from rich.console import Console

from cm2.commands.board import Board, duration, summary
from cm2.console import set_up_logging
from cm2.fuse.sweep.progress import Leader, Snapshot

LEADERS = (
    Leader({"copula": "frank", "K": "3"}, 0.8731, 0.0104, 5),
    Leader({"copula": "gumbel", "K": "2"}, 0.8619, None, 1),
)
HALF = Snapshot(24, 48, 2, LEADERS, 130.0, 620.0, "16 settings to epoch 9")


def drawn(board: Board) -> str:
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(board.table())
    return capture.get()


def test_the_live_table_shows_runs_time_and_the_best_settings_with_their_values() -> None:
    board = Board()
    board.show(HALF)
    count, times, titles, *best = drawn(board).splitlines()
    assert count.split(", ") == ["sweep: 24/48 runs", "16 settings to epoch 9", "2 failed"]
    assert "620 runs/h, 2.2 min left" in times
    assert titles.split() == ["validation", "sd", "runs", "copula", "K"]
    assert [line.split() for line in best] == [
        ["1", "0.873", "0.010", "5", "frank", "3"],
        ["2", "0.862", "1", "gumbel", "2"],
    ]


def test_a_table_can_be_drawn_before_the_first_run_has_ended() -> None:
    board = Board()
    assert "grid" in drawn(board)
    board.show(Snapshot(0, 48, 0))
    assert "0/48 runs" in drawn(board)


def test_without_a_terminal_it_is_a_line_and_not_one_for_every_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Board() as board:
        for done in range(20):
            board.show(Snapshot(done, 20, 0))
        board.show(Snapshot(20, 20, 0))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["sweep: 0/20 runs", "sweep: 20/20 runs"]


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Board(quiet=True) as board:
        board.show(HALF)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_messages_of_the_log_stand_above_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    set_up_logging(0)
    with Board() as board:
        board.show(HALF)
        logging.getLogger("cm2.fuse").warning("a warning")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "a warning\n" in shown
    assert shown.rindex("24/48 runs") > shown.index("a warning")


def test_one_line_names_the_best_setting_and_the_time_left() -> None:
    assert summary(HALF) == (
        "sweep: 24/48 runs, 16 settings to epoch 9, 2 failed, 2.2 min left, "
        "best 0.873 copula=frank K=3"
    )


def test_durations_read_as_people_say_them() -> None:
    assert [duration(s) for s in (12, 125, 7200)] == ["12 s", "2.1 min", "2.0 h"]
