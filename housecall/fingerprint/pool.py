"""The hashing threads: they take a batch at a time, the calling thread gathers their digests."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from housecall.fingerprint.hashing import WHOLE, Unit, batches_of, hash_unit
from housecall.fingerprint.tally import Tally

TICK_S = 0.5
_MAX_THREADS = 16


def hash_all(tally: Tally, threads: int) -> None:
    """Hash what is left to do; the first error of a thread, or of the progress, ends it all."""
    batches = deque(batches_of(tally.todo))
    results: deque[tuple[Unit, bytes]] = deque()
    workers = min(threads, len(batches))
    if workers:
        with ThreadPoolExecutor(workers, "fingerprint") as pool:
            pending = {pool.submit(_work, batches, results) for _ in range(workers)}
            try:
                while pending:
                    done, pending = wait(pending, TICK_S, FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    if pending:
                        tally.take(results)
            finally:
                batches.clear()
    tally.take(results)


def _work(batches: deque[list[Unit]], results: deque[tuple[Unit, bytes]]) -> None:
    """A hashing thread: a batch after the other until none is left."""
    buffer = memoryview(bytearray(WHOLE))
    while True:
        try:
            batch = batches.popleft()
        except IndexError:
            return
        for unit in batch:
            results.append((unit, hash_unit(unit, buffer)))


def usable_cores() -> int:
    return min(len(os.sched_getaffinity(0)), _MAX_THREADS)
