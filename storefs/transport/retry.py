"""When to ask again, and how long to wait before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from time import time

from storefs.errors import TimedOut
from storefs.transport.faults import Again

FIRST_DELAY = 0.1
LONGEST_DELAY = 20.0
_MOST_DOUBLINGS = 16
LONGEST_RETRY_AFTER = 120.0
# each of these has already cost the whole timeout
MOST_TIMEOUTS = 2


def delays(retries: int) -> Iterator[float]:
    """Seconds to wait before each retry: doubling, with jitter, so that many clients do not return at once."""
    for attempt in range(retries):
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempt, _MOST_DOUBLINGS))
        # of its own: the common generator belongs to the user
        yield random.SystemRandom().uniform(0.5, 1.0) * delay


class Patience:
    """Counts the tries of one request: `left` more at most."""

    def __init__(self, retries: int) -> None:
        self.left = retries
        self._delays = delays(retries)
        self._timeouts = 0

    def wait(self, again: Again, at_least: float = 0.0) -> float:
        """Seconds to wait before the next try. Raises the fault where it is not worth one."""
        self._timeouts += isinstance(again.fault, TimedOut)
        delay = next(self._delays, None)
        self.left -= 1
        if delay is None or self._timeouts > MOST_TIMEOUTS:
            raise again.fault from again.__cause__
        return max(delay, at_least, again.wait)


def retry_after(header: str | None) -> float:
    """Seconds that a Retry-After header asks for; 0 where it says nothing readable."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time()
        except ValueError:
            return 0.0
    return min(seconds, LONGEST_RETRY_AFTER) if seconds > 0 else 0.0
