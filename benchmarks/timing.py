"""Take works in turns within one process, so that what disturbs one disturbs its neighbours too."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

Work = Callable[[], object]
Times = dict[str, list[tuple[float, float]]]  # processor and wall seconds by round


def in_turns(
    works: Mapping[str, Work], rounds: int, repeats: int = 1, *, warm: bool = True
) -> Times:
    """Seconds per call of every work.

    Args:
        works: By name.
        rounds: How often each has its turn.
        repeats: Calls in a turn.
        warm: Call each once before the first round.
    """
    if warm:
        for work in works.values():
            work()
    times: Times = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                work()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            times[name].append((cpu / repeats, wall / repeats))
    return times


def load_average() -> float:
    """The load of the last minute; says so where other work disturbed what was timed."""
    load = os.getloadavg()[0]
    if load > (os.cpu_count() or 1):
        print(f"load {load:.1f} is above the number of cores: timings are disturbed")
    return load
