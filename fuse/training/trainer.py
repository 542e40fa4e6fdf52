"""One run from its configuration to its files: `fuse`, and `plan` for a look ahead.

torch is imported only when there is something to train.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ... import __version__
from ...cache import atomic
from ...cache.layout import RUNS
from ...cache.lease import Lease
from ...errors import ConfigError
from ...progress import Progress, Stop, never, silent
from ..config import FuseConfig
from ..identity import Identity, Inputs, differences, identify
from ..methods import short
from ..methods.own import source
from ..rundir import CONFIG, INFO, TRAINER, RunDir

if TYPE_CHECKING:
    from ..rows import FusionData

_log = logging.getLogger("cm2.fuse")

STREAMED_SAMPLE = {"train": 64, "val": 16}
"""Stays of each split that a look ahead times when films are encoded too."""

_LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "safetensors", "pyarrow")


def fuse(
    config: FuseConfig,
    cache: Path,
    out: Path | None = None,
    *,
    device: str = "auto",
    progress: Progress = silent,
    stop: Stop | None = None,
    inputs: Inputs | None = None,
    until: int | None = None,
    sweep: str | None = None,
    save_steps: int = 0,
    workers: int = 2,
    compiled: bool = False,
) -> RunDir:
    """Train one run and judge it on the validation stays.

    A finished run returns at once, a half-finished one continues after its last whole epoch and
    ends with the bytes of an undisturbed run (on a CPU). One whose weights a sweep has dropped is
    trained again, unless it is a sweep that asks.

    Args:
        config: What to train.
        cache: Where the embeddings are.
        out: Directory of the run; by default one below `CACHE/runs` named by its identity.
        device: `cpu`, `cuda`, or `auto` for what is there; no part of the run's identity.
        progress: Counts epochs.
        stop: Asked after every epoch, and whenever the state is stored.
        inputs: What was read of the cache already.
        until: Pause after so many epochs: the run is left unfinished, and a later call goes on.
        sweep: The sweep that trains the run and may drop its weights; a call without one takes
            the run over for good.
        save_steps: Steps after which an epoch that is under way is stored too; 0 for never.
        workers: Threads that read items ahead in mode stream.
        compiled: Compile the steps, in mode stream the encoders; what they compute is the same to
            rounding.

    Raises:
        ConfigError: The configuration cannot be meant, `out` holds another run, or there is nothing
            to compile or to compile with.
        DataError: There is nothing to train or to choose by.
        BusyError: Another process trains this run.
        Interrupted: A stop was requested; the same call continues.
    """
    inputs = inputs or Inputs(cache)
    identity = inputs.identify(config)
    run = RunDir(_folder(identity, cache, out))
    require_same(run, identity)
    if not serves(run, sweep):
        job = _Job(device, progress, stop or never(), until, sweep, save_steps, workers, compiled)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            _train_together(run, identity, inputs, job)
        else:
            with Lease(run.path) as lease:
                if not serves(run, sweep):
                    _train(run, identity, inputs, lease.check, job)
    if sweep is None and run.info.get("sweep") and run.writes:
        run.update(sweep=None)
    return run


class _Job(NamedTuple):
    """How a run is trained; no part of what it is."""

    device: str
    progress: Progress
    stop: Stop
    until: int | None
    sweep: str | None
    save_steps: int
    workers: int
    compiled: bool


def serves(run: RunDir, sweep: str | None = None) -> bool:
    """Whether nothing is left to train; a sweep needs no weights."""
    return run.finished and (sweep is not None or not run.without_weights)


def _train_together(run: RunDir, identity: Identity, inputs: Inputs, job: _Job) -> None:
    """Train in the processes that `torchrun` started; the first of them writes."""
    if identity.config.mode != "stream":
        raise ConfigError(
            "Several processes train one model in mode = 'stream' only: give --mode stream, or "
            "the command without torchrun (a cached run takes seconds)."
        )
    from ..stream import processes
    from .device import choose

    place = choose(job.device)
    if place.type == "cuda":
        place = choose(f"cuda:{processes.local()}")
    with processes.joined(place):
        job = job._replace(device=str(place), stop=processes.SharedStop(job.stop))
        if processes.rank() == 0:
            with Lease(run.path) as lease:
                _train(run, identity, inputs, lease.check, job)
        else:
            job = job._replace(progress=silent)
            _train(RunDir(run.path, writes=False), identity, inputs, lambda: None, job)
        processes.barrier()


def plan(
    config: FuseConfig, cache: Path, out: Path | None = None, *, timed: bool = False
) -> dict[str, Any]:
    """Say what `fuse` would do, without doing it.

    Args:
        config: What would be trained.
        cache: Where the embeddings are.
        out: As for `fuse`.
        timed: Time a cached run too.

    Returns:
        Directory, status (new, unfinished, finished), resolved configuration, and the rows,
        positives and availability of each split. Of a streamed run that is not finished also the
        seconds of an epoch, measured on a few stays, and the hours that all epochs take at most.

    Raises:
        ConfigError: The model cannot be trained on these rows, or start from the weights it names.
        LeakageError: An encoder would start from one that was trained on stays to be judged.
    """
    from ..data import load
    from ..inference import build
    from .checks import require_trainable
    from .course import require_fit

    identity = identify(config, cache)
    run = RunDir(_folder(identity, cache, out))
    require_same(run, identity)
    begun = (run.path / CONFIG).is_file()
    data = load(cache, identity.config, identity.cohort)
    measured: dict[str, Any] = {}
    stream = identity.config.mode == "stream"
    if not run.finished:
        _refuse_leaks(identity, data)
    if (stream or timed) and not run.finished:
        from .estimate import SAMPLE, seconds_per_epoch

        require_trainable(data.counts(), identity.config.task)
        sample = STREAMED_SAMPLE if stream else SAMPLE
        seconds = seconds_per_epoch(identity, data, sample)
        hours = seconds * identity.config.passes / 3600
        measured = {"seconds_per_epoch": round(seconds, 2), "hours_at_most": round(hours, 3)}
    elif not run.finished:
        model = build(data.specs, identity.config, len(data.targets))
        require_fit(model, data, identity.starts)
    return {
        "run": str(run.path),
        "status": "finished" if run.finished else "unfinished" if begun else "new",
        "config": identity.record["config"],
        "rows": data.counts(),
        **measured,
    }


def _folder(identity: Identity, cache: Path, out: Path | None) -> Path:
    return cache / RUNS / identity.name if out is None else out


def require_empty(path: Path, kind: str) -> None:
    """Raise ConfigError when a directory holds anything but a lease; `kind` is what it is not."""
    held = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
    held = [name for name in held if not name.startswith(".") and name != Lease.NAME]
    if held:
        raise ConfigError(
            f"{path} holds {held[0]!r} and is no {kind}. Choose an empty directory for --out."
        )


def require_same(run: RunDir, identity: Identity) -> None:
    """Raise ConfigError when the directory holds anything but this run."""
    if not (run.path / CONFIG).is_file():
        require_empty(run.path, "run")
        return
    found = differences(identity.record, run.record)
    if found:
        raise ConfigError(
            f"{run.path} holds another run; found -> asked:\n  "
            + "\n  ".join(found)
            + "\nChoose another --out, or leave it out: runs are named by what they are."
        )


def _train(
    run: RunDir, identity: Identity, inputs: Inputs, held: Callable[[], None], job: _Job
) -> None:
    from ..stream import processes
    from .device import choose
    from .finish import finish
    from .history import ended
    from .loop import reproducible, train
    from .state import Commits

    require_same_version(run)
    data = inputs.load(identity).to(choose(job.device)).reading(job.workers)
    if identity.config.trunk_norm == "sync" and data.device.type != "cuda":
        raise ConfigError(
            "trunk_norm = 'sync' averages batch norms over processes on GPUs only. On a CPU take "
            "frozen, or a network with group norm such as resnet34_gn."
        )
    if job.compiled and identity.config.options.candidates():
        name = short(identity.config.model)
        raise ConfigError(f"{name} is fitted as a whole and takes no steps: leave out --compile.")
    said = begin(run, identity, data, job.sweep)
    processes.barrier()  # the others read what the first one wrote
    for line in said if run.writes else ():
        _log.warning(line)
    before, clock = run.info, time.monotonic()
    try:
        with reproducible(identity.config.deterministic):
            journal = Commits(run, identity.digest, held)
            state = train(
                identity.config,
                data,
                journal,
                job.progress,
                job.stop,
                identity.starts,
                job.until,
                job.save_steps,
                job.compiled,
            )
            run.write_history(state.history)
            held()
            if not ended(state.history, identity.config):
                return
            finish(run, data, state, identity)
    finally:
        seconds = float(before["seconds"]) + time.monotonic() - clock
        run.update(seconds=round(seconds, 3), **data.report(before))
    conclude(run)


def require_same_version(run: RunDir) -> None:
    """Raise ConfigError when another version of cm2 began the run."""
    begun = run.info if (run.path / INFO).is_file() else None
    if begun is not None and begun["versions"]["cm2"] != __version__:
        raise ConfigError(
            f"{run.path} was begun by cm2 {begun['versions']['cm2']}, this is {__version__}: the "
            "two halves would not fit. Remove the directory to train anew."
        )


def begin(run: RunDir, identity: Identity, data: FusionData, sweep: str | None = None) -> list[str]:
    """Look at the rows and write what the run is.

    Args:
        run: The run; one that was begun before keeps what it knows.
        identity: Its identity.
        data: Its rows, on the device that will train.
        sweep: The sweep that trains it and may drop its weights; None if it is wanted for itself.

    Returns:
        Warnings that a reader of the result must know.

    Raises:
        DataError: There is nothing to train or to choose by.
        LeakageError: An encoder would start from one that was trained on stays to be judged.
    """
    from . import checks

    _refuse_leaks(identity, data)
    counts = data.counts()
    checks.require_trainable(counts, identity.config.task)
    untrained = [name for name, parts in identity.spaces.items() if parts["untrained"]]
    cautions = [parts["caution"] for parts in identity.spaces.values() if parts["caution"]]
    balanced = identity.config.class_weight == "balanced"
    said = checks.warnings(counts, untrained, balanced, cautions)
    if run.writes:
        atomic.write_json(run.path / CONFIG, identity.record)
    if not (run.path / INFO).is_file():
        run.update(
            status="running",
            device=str(data.device),
            model=identity.config.model,
            source=source(identity.config.model),
            identity=identity.digest,
            versions={"cm2": __version__, "python": platform.python_version()}
            | {name: version(name) for name in _LIBRARIES},
            dataset=data.dataset,
            spaces=identity.spaces,
            fingerprints={k: identity.record[k] for k in ("cohort", "modalities")},
            rows=counts,
            warnings=said,
            looks={},
            started=_now(),
            seconds=0.0,
            sweep=sweep,
        )
    else:
        ours = sweep if run.info.get("sweep") else None  # never take a run from its user
        run.update(status="running", sweep=ours, weights=None)
    return said


def _refuse_leaks(identity: Identity, data: FusionData) -> None:
    for name, weights in identity.starts.items():
        if weights.of_run:
            data.refuse_leak(f"The start of {name} ({weights.note})", weights.trained.subjects)


def conclude(run: RunDir) -> None:
    """Say that the run is finished, and remove what only its continuation needed."""
    if not run.writes:
        return
    run.update(status="finished", finished=_now())
    (run.path / TRAINER).unlink(missing_ok=True)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
