"""A receiver's share of the line: a token bucket over all its threads. Called by native.py. Raises nothing."""

import threading


class TokenBucket(object):
    """Lets `rate` bytes a second pass, and at most `rate` at once after a silence.

    A taker may go below zero and then waits: so a piece larger than the bucket passes too, and whoever comes later
    waits behind it. The lock is held for this arithmetic alone; nothing is called under it.
    """

    def __init__(self, rate, now):
        self.rate = float(rate)
        self._tokens = self.rate
        self._since = now
        self._lock = threading.Lock()

    def take(self, count, now):
        """Take `count` bytes; return the seconds to wait before they may be sent. now: monotonic seconds."""
        with self._lock:
            if now > self._since:
                self._tokens = min(self.rate, self._tokens + (now - self._since) * self.rate)
                self._since = now
            self._tokens -= count
            return max(0.0, -self._tokens / self.rate)
