"""When to ask again, and how long to wait before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from time import time

RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
FIRST_DELAY = 0.1
LONGEST_DELAY = 20.0
LONGEST_RETRY_AFTER = 120.0


def delays(retries: int) -> Iterator[float]:
    """Seconds to wait before each retry: doubling, with jitter, so that many clients do not return at once."""
    for attempt in range(retries):
        yield random.uniform(0.5, 1.0) * min(LONGEST_DELAY, FIRST_DELAY * 2**attempt)  # noqa: S311  # no secret


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
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
