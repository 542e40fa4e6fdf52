"""Which runs of a sweep keep their weights: those of its best settings."""

from __future__ import annotations

from ...cache.lease import Lease
from ...errors import BusyError
from ..rundir import INFO, TRAINER, RunDir
from .index import Standing


def superfluous(standings: list[Standing], keep: int) -> list[int]:
    """Number the complete settings that are not among the best.

    More settings can only push one further down, so what is dropped is never wanted again.

    Args:
        standings: Settings, best first.
        keep: How many are kept.
    """
    return [one.setting for one in standings if one.complete][keep:]


def drop(run: RunDir, sweep: str) -> bool:
    """Drop the weights of a finished run, and the trainer's state of one that was given up.

    Only a run that this sweep trained, and that nobody has asked `cm2 fuse` for since.

    Args:
        run: The run.
        sweep: Identity of the sweep.

    Returns:
        Whether anything was dropped.
    """
    if not _ours(run, sweep):
        return False
    try:
        with Lease(run.path):
            if not _ours(run, sweep):
                return False
            if run.finished:
                run.drop_weights()
            else:
                run.update(status="stopped")
                (run.path / TRAINER).unlink(missing_ok=True)
    except BusyError:
        return False
    return True


def _ours(run: RunDir, sweep: str) -> bool:
    if not (run.path / INFO).is_file() or run.without_weights:
        return False
    info = run.info
    return info.get("sweep") == sweep and info["status"] != "stopped"


__all__ = ["drop", "superfluous"]
