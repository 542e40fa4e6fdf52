"""Compute shards in this process: decoders, encoder and writer at the same time, in bounded memory.

The caller writes a shard while the next ones are computed. At most as many shards are under way as
there are workers and one more, so a slow disc or a slow encoder holds the others back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ..cache.store import EncodedShard
from ..errors import Interrupted
from .work import Plan, Staged, Work

Chunk = Sequence[Work]
Handle = TypeVar("Handle")
_AHEAD = 2


def compute(
    plan: Plan, chunks: Sequence[Chunk], may_begin: Callable[[], None], workers: int
) -> Iterator[tuple[Chunk, EncodedShard]]:
    """Yield every chunk with its shard, in order.

    An encoder that several threads may use (on CPUs) computes whole shards side by side, each in
    one thread. One that only one thread may use (a GPU) is fed by a pool of threads that read and
    decode. Any other `encode` runs as it is.

    Args:
        plan: Who encodes.
        chunks: The items of each shard.
        may_begin: Asked before a shard is begun; raises Interrupted when none may be.
        workers: Threads.
    """
    encode: object = plan.encode
    if not isinstance(encode, Staged):
        for chunk in chunks:
            may_begin()
            yield chunk, plan.encode(chunk)
        return
    from .encoders.device import one_thread

    encoders = workers if encode.parallel else 1
    readers = 1 if encode.parallel else workers
    with (
        one_thread(),
        ThreadPoolExecutor(readers, "read") as reading,
        ThreadPoolExecutor(encoders, "encode") as encoding,
    ):

        def begin(chunk: Chunk) -> Future[EncodedShard]:
            if encode.parallel:
                return encoding.submit(plan.encode, chunk)
            prepared = [reading.submit(encode.prepare, item) for item in chunk]
            return encoding.submit(_encode, encode, chunk, prepared)

        try:
            yield from window(chunks, begin, Future.result, encoders + _AHEAD - 1, may_begin)
        finally:
            reading.shutdown(wait=False, cancel_futures=True)
            encoding.shutdown(wait=False, cancel_futures=True)


def _encode(encode: Staged, chunk: Chunk, prepared: Sequence[Future[object]]) -> EncodedShard:
    return encode.finish(chunk, [future.result() for future in prepared])


def window(
    chunks: Sequence[Chunk],
    begin: Callable[[Chunk], Handle],
    result: Callable[[Handle], EncodedShard],
    size: int,
    may_begin: Callable[[], None],
) -> Iterator[tuple[Chunk, EncodedShard]]:
    """Keep at most `size` shards under way and yield them in order.

    Once `may_begin` refuses, what is under way is still yielded, then it is asked again, so that
    its message tells what is stored by then.
    """
    under_way: deque[tuple[Chunk, Handle]] = deque()
    refusal: Interrupted | None = None
    for chunk in chunks:
        try:
            may_begin()
        except Interrupted as error:
            refusal = error
            break
        under_way.append((chunk, begin(chunk)))
        if len(under_way) >= size:
            first, handle = under_way.popleft()
            yield first, result(handle)
    while under_way:
        first, handle = under_way.popleft()
        yield first, result(handle)
    if refusal is not None:
        may_begin()
        raise refusal


__all__ = ["compute", "window"]
