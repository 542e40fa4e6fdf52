"""A guided search: settings are asked of Optuna's tree-structured Parzen estimator in rounds.

What was tried stands in a journal in the sweep's directory. A round is trained whole before the
next one is asked for, and the sampler of a trial is seeded by the trial's number, so a killed
search goes on as if nothing had happened, whatever the number of processes. A proposal that was
made before tells the sampler its result again; it costs no budget and trains nothing.
(Bergstra et al., NeurIPS 2011.)
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..random import key
from .axis import Axis, Value, shown
from .book import SweepDir
from .grid import held, ordered, require_values, setting
from .ledger import Ledger
from .plan import Plan
from .spec import SweepSpec

_log = logging.getLogger("cm2.fuse")

JOURNAL = "journal.log"
ROUND = 8
"""Settings that are asked for together."""

_MOST_IDLE = 200
"""Proposals one after another that bring no new setting, until the search ends."""

_CREATED, _ENDED = 4, 6  # a trial, in Optuna's journal


def guide(
    sweep: SweepDir,
    spec: SweepSpec,
    plan: Plan,
    ledger: Ledger,
    train: Callable[..., None],
    retry: bool = False,
) -> None:
    """Ask for settings and train them until the budget is used up, or nothing new is proposed.

    Args:
        sweep: Where the journal lies; this process holds its lease.
        spec: Grid, seeds and budget.
        plan: Takes in the settings.
        ledger: Rows of the runs.
        train: Brings runs, by number, to their end.
        retry: Train the runs first that failed; the search itself has taken them for failed.

    Raises:
        ConfigError: Optuna is not installed, or nothing that it proposes can be meant.
    """
    search = _Search(sweep, spec, plan)
    limit = (spec.runs or 0) // spec.replicates
    if retry:
        sweep.forgive(plan.members)
        ledger.reload()
        ledger.mine = range(len(plan.members))
        train(ledger.mine)
    while True:
        search.fill(limit)
        sweep.write_roll(plan.roll())
        ledger.reload()
        ledger.mine = range(len(plan.members))
        open_trials = search.open()
        ledger.stage = f"setting {search.live()} of {limit}"
        if not open_trials:
            break
        wanted = {search.place[number] for number in open_trials}
        train([i for i, member in enumerate(plan.members) if member.setting in wanted])
        if ledger.pending(i for i, m in enumerate(plan.members) if m.setting in wanted):
            return  # the budget of hours is used up
        scores = {one.setting: one.score for one in ledger.standings()}
        search.tell(scores)
    if search.live() < limit:
        _log.warning(
            "The budget has room for %d settings, %d were tried: the last %d proposals were tried "
            "before or cannot be meant.",
            *(limit, search.live(), _MOST_IDLE),
        )
    ledger.prune(ledger.mine)


class _Search:
    """Optuna's study and where its trials stand in the plan."""

    def __init__(self, sweep: SweepDir, spec: SweepSpec, plan: Plan) -> None:
        require_values(spec.base, spec.axes)
        self._spec, self._plan = spec, plan
        self._lines = ordered(spec.axes)
        self._optuna = _optuna()
        self._study = _study(self._optuna, sweep.path / JOURNAL)
        self.place: dict[int, int] = {}
        self._idle = 0
        for trial in self._trials():  # those that could not be meant too: they are counted
            self._admit(trial.number, self._chosen(self._optuna.trial.FixedTrial(trial.params)))

    def live(self) -> int:
        """Settings that were proposed and can be meant."""
        return len(self._plan.settings)

    def open(self) -> list[int]:
        """Trials whose result is not known yet."""
        return [t.number for t in self._trials() if t.state == self._state.RUNNING]

    def fill(self, limit: int) -> None:
        """Ask for settings until a round is full; one that was full before is left as it is."""
        while self._idle < _MOST_IDLE and self.live() < limit and not self._full():
            number = len(self._trials())
            seed = key("guided", self._spec.draw_seed, number) % 2**32
            self._study.sampler = self._sampler(seed, limit)
            trial = self._study.ask()
            if not self._admit(trial.number, self._chosen(trial)):
                self._study.tell(trial, state=self._state.PRUNED)
        if not self.live():
            raise ConfigError(
                f"{self._idle} proposals one after another cannot be meant, such as: "
                f"{next(iter(self._plan.expansion.refused))}. Narrow the grid by conditions."
            )

    def _full(self) -> bool:
        """Whether the new settings of a round stand ready to be trained."""
        ended = {self.place.get(t.number) for t in self._trials() if t.state.is_finished()}
        waiting = {self.place[number] for number in self.open()} - ended
        return bool(waiting) and self.live() % ROUND == 0

    def tell(self, scores: dict[int, float]) -> None:
        """Tell the results of a round; a setting without one has failed."""
        for number in self.open():
            score = scores.get(self.place[number])
            if score is None:
                self._study.tell(number, state=self._state.FAIL)
            else:
                self._study.tell(number, score)

    def _admit(self, number: int, chosen: dict[str, Value]) -> bool:
        expansion = self._plan.expansion
        made = setting(self._spec.base, self._spec.axes, chosen)
        self._idle += 1
        if isinstance(made, str):
            expansion.refused[made] += 1
            return False
        if (place := expansion.place(made)) is None:
            place, self._idle = expansion.take(made), 0
            self._plan.add([made])
        else:
            expansion.repeated += 1
        self.place[number] = place
        return True

    def _chosen(self, trial: Any) -> dict[str, Value]:
        chosen: dict[str, Value] = {}
        for j, one in enumerate(self._lines):
            if one.name not in chosen and one.holds(held(self._spec.base, one, chosen)):
                name = one.name if not one.when else f"{one.name}#{j}"
                chosen[one.name] = _suggest(trial, name, one)
        return chosen

    def _sampler(self, seed: int, limit: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental in some versions
            return self._optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=min(10, max(2, limit // 3)), constant_liar=True
            )

    def _trials(self) -> list[Any]:
        trials: list[Any] = self._study.get_trials(deepcopy=False)
        return trials

    @property
    def _state(self) -> Any:
        return self._optuna.trial.TrialState


def _suggest(trial: Any, name: str, one: Axis) -> Value:
    """Ask for a value; numbers in a list by their rank, so that neighbours are neighbours."""
    if one.span is not None:
        return one.rounded(float(trial.suggest_float(name, *one.span, log=one.log)))
    if all(isinstance(value, int | float) for value in one.values):
        return one.values[int(trial.suggest_int(name, 0, len(one.values) - 1))]
    texts = [shown(value) for value in one.values]
    return one.values[texts.index(trial.suggest_categorical(name, texts))]


def _study(optuna: Any, journal: Path) -> Any:
    # Whoever held the journal's own lock is dead, as this process holds the sweep's lease.
    for lock in journal.parent.glob(f"{journal.name}.lock*"):
        lock.unlink(missing_ok=True)
    if journal.is_file():
        data = journal.read_bytes()
        whole = _settled(data)
        if whole != data:
            journal.write_bytes(whole)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="sweep",
        direction="maximize",
        load_if_exists=True,
    )


def _settled(journal: bytes) -> bytes:
    """Leave out what may be half: the last line, and the last trial while it was asked for.

    Its parameters have a line each. Asked for again, it is the same trial.
    """
    lines = journal[: journal.rfind(b"\n") + 1].splitlines(keepends=True)
    kinds = [json.loads(line)["op_code"] for line in lines]
    if _CREATED in kinds:
        last = len(kinds) - 1 - kinds[::-1].index(_CREATED)
        if _ENDED not in kinds[last:]:
            lines = lines[:last]
    return b"".join(lines)


def _optuna() -> Any:
    try:
        import optuna
        import optuna.storages.journal
    except ImportError as error:
        raise ConfigError(
            "--search tpe needs Optuna, which is not installed: pip install 'cm2[optuna]', or use "
            "--search random"
        ) from error
    return optuna


__all__ = ["JOURNAL", "ROUND", "guide"]
