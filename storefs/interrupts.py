"""Interrupts: what ends a call ends the jobs that it began, on whatever thread or event loop they run.

Zarr hands what a call asks for to its event loop, in a copy of the caller's context; by that the jobs are known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from storefs.workers import Job


class Stopper:
    """The jobs begun while a call runs, which whatever interrupts the call stops."""

    def __init__(self) -> None:
        self._jobs: set[Job] = set()
        self._stopped = False

    def stop(self) -> None:
        """Stop them; when this returns, nothing is being written."""
        self._stopped = True
        for job in list(self._jobs):
            job.stop()

    @contextlib.contextmanager
    def watch(self, job: Job) -> Iterator[None]:
        """Stop `job` if the call is interrupted while the block runs."""
        self._jobs.add(job)
        try:
            if self._stopped:
                job.stop()
            yield
        finally:
            self._jobs.discard(job)


_STOPPER: ContextVar[Stopper | None] = ContextVar("storefs_stopper", default=None)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """What interrupts the block stops the reads that it began, on whatever thread or event loop they run."""
    stopper = Stopper()
    token = _STOPPER.set(stopper)
    try:
        yield
    except BaseException:
        stopper.stop()
        raise
    finally:
        _STOPPER.reset(token)


@contextlib.contextmanager
def stoppable(job: Job) -> Iterator[None]:
    """Lets the `interruptible` call that the block is part of, if any, stop `job`."""
    stopper = _STOPPER.get()
    if stopper is None:
        yield
        return
    with stopper.watch(job):
        yield
