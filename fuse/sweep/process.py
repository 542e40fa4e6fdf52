"""A worker process: a line of JSON on its input is one or more tasks, each answered by outcomes.

`python -m cm2.fuse.sweep.process` is started by `engine_local`. It ends when its input does, at
once if it is in the middle of a run: its starter is gone, and no orphan may hold the run.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading

from ...progress import Stop
from ..training.allocator import keep_freed_memory
from .work import Context, Worker


def main() -> None:
    """Work until the input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # nothing that a library prints may get between the outcomes
    logging.getLogger("cm2").addHandler(logging.NullHandler())  # warnings are kept in run.json
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starter decides
    keep_freed_memory()
    stop = Stop()
    signal.signal(signal.SIGTERM, stop.request)
    lines: queue.Queue[str] = queue.Queue()
    idle = threading.Event()
    threading.Thread(target=_listen, args=(lines, idle), daemon=True).start()
    worker = Worker(Context(**json.loads(lines.get())))
    idle.set()
    while line := lines.get():
        outcomes = worker.take(json.loads(line), stop)
        idle.set()
        try:
            out.write(json.dumps([outcome.to_json() for outcome in outcomes]) + "\n")
        except BrokenPipeError:  # the starter is gone; the run is stored
            os._exit(1)


def _listen(lines: queue.Queue[str], idle: threading.Event) -> None:
    for line in sys.stdin:
        idle.clear()
        lines.put(line)
    if not idle.is_set():
        os._exit(1)
    lines.put("")


if __name__ == "__main__":
    main()
