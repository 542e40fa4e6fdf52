"""The state of a sweep in memory while it is worked on: rows, ranks, weights, and who watches."""

from __future__ import annotations

import logging
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from .axis import shown
from .book import SweepDir
from .index import Row, Standing, ranking, read_run, rows, write_index
from .keep import drop, superfluous
from .plan import Plan
from .progress import Leader, Snapshot, Watch
from .work import Outcome

_LEADERS = 5
_log = logging.getLogger("cm2.fuse")


class Ledger:
    """Rows of all runs, kept up to date.

    Args:
        sweep: Where failures and the index are stored.
        plan: Settings and runs.
        keep: Settings whose weights are kept.
        watch: Is told of every change.
    """

    def __init__(self, sweep: SweepDir, plan: Plan, keep: int, watch: Watch) -> None:
        self._sweep, self._plan, self._keep, self._watch = sweep, plan, keep, watch
        self._start, self._seconds, self._worked = time.monotonic(), 0.0, 0
        self._said, self._dropped = set[str](), set[int]()
        self._of_setting: defaultdict[int, set[int]] = defaultdict(set)
        self._known = 0
        self.mine: Sequence[int] = ()
        self.stage = ""
        self.rows: list[Row] = []
        self.reload()

    def reload(self) -> None:
        """Read every run anew."""
        self.rows = rows(self._sweep, self._plan.roll())

    def note(self, outcome: Outcome) -> None:
        """Take in what became of a run, and drop weights that are no longer among the best."""
        i = outcome.index
        member, row = self._plan.members[i], self.rows[i]
        if outcome.kind == "failed":
            self._sweep.fail(member, outcome.reason)
            row |= {"status": "failed", "error": outcome.reason}
        else:
            row |= read_run(member.run)
            row["error"] = None
            self._sweep.forgive([member])
            self._sweep.take_up(member)
            for warning in member.run.info.get("warnings", []):
                if warning not in self._said:
                    self._said.add(warning)
                    _log.warning(warning)
        self._worked += 1
        self.tell()
        if outcome.kind == "finished":
            self.prune(self.mine)

    def pending(self, numbers: Iterable[int], until: int | None = None) -> list[int]:
        """Runs that have not got as far as `until`, or to their end, and did not fail."""
        return [i for i in numbers if not self._there(i, until)]

    def hours(self) -> float:
        """Hours that all runs have trained together."""
        return sum(float(row["seconds"]) for row in self.rows) / 3600

    def standings(self, finished: bool = True) -> list[Standing]:
        """Settings, best first."""
        return ranking(self.rows, finished)

    def prune(self, numbers: Iterable[int]) -> None:
        """Drop the weights of all complete settings but the best of some runs' settings."""
        chosen = [self.rows[i] for i in numbers]
        for setting in superfluous(ranking(chosen), self._keep):
            self._drop_weights(setting)

    def give_up(self, setting: int) -> None:
        """Stop a setting: the trainer's state of its runs is dropped, their history stays.

        A run that somebody wants for itself is left to them as it is.
        """
        for i in self._runs_of(setting):
            member, row = self._plan.members[i], self.rows[i]
            if row["status"] not in ("finished", "failed"):
                self._sweep.give_up(member)
                drop(member.run, self._sweep.identity)
                row["status"] = "stopped"

    def _drop_weights(self, setting: int) -> None:
        for i in self._runs_of(setting) - self._dropped:
            row = self.rows[i]
            if row["status"] == "finished" and not row["weights"]:
                self._dropped.add(i)  # by an earlier call
            elif row["status"] == "finished":
                drop(self._plan.members[i].run, self._sweep.identity)
                self._dropped.add(i)
                self.rows[i] |= read_run(self._plan.members[i].run)

    def _runs_of(self, setting: int) -> set[int]:
        """Numbers of the runs of a setting; a guided search adds settings as it goes."""
        for i in range(self._known, len(self._plan.members)):
            self._of_setting[self._plan.members[i].setting].add(i)
        self._known = len(self._plan.members)
        return self._of_setting[setting]

    def tell(self) -> None:
        """Tell the one who watches."""
        mine = [self.rows[i] for i in self.mine]
        done = sum(row["status"] in ("finished", "failed", "stopped") for row in mine)
        failed = sum(row["status"] == "failed" for row in mine)
        rate = self._worked / (time.monotonic() - self._start) if self._worked else None
        left = (len(mine) - done) / rate if rate else None
        leaders = tuple(self._leader(one) for one in ranking(mine)[:_LEADERS])
        hourly = 3600 * rate if rate else None
        self._watch(Snapshot(done, len(mine), failed, leaders, left, hourly, self.stage))

    def _leader(self, one: Standing) -> Leader:
        values = self._plan.settings[one.setting].values
        spread = statistics.stdev(one.scores) if len(one.scores) > 1 else None
        shown_values = {name: "" if v is None else shown(v) for name, v in values.items()}
        return Leader(shown_values, one.score, spread, len(one.scores))

    def store(self) -> None:
        """Write the index."""
        write_index(self._sweep, self.rows)

    def _there(self, i: int, until: int | None) -> bool:
        row = self.rows[i]
        if row["status"] in ("finished", "failed"):
            return True
        return until is not None and row["epochs"] >= until


__all__ = ["Ledger"]
