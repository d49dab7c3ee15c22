"""The circuit breaker of one receiver: whether it may be asked now. Pure: time and chance are arguments.

      CLOSED --- `threshold` failures in a row ---> OPEN --- its pause is over ---> HALF_OPEN (one probe out)
        ^                                            ^                                |            |
        |                                            +------ the probe failed --------+            |
        +----------------------------------- the probe succeeded ----------------------------------+

There is no way from OPEN to CLOSED but through a probe: time alone proves nothing.
Called by lanes.py alone, under its lock. Raises nothing.
"""

from agent import backoff

CLOSED, OPEN, HALF_OPEN = 'CLOSED', 'OPEN', 'HALF_OPEN'


class CircuitBreaker(object):
    """Ask with allow(), tell with record().

    threshold: failures in a row that open it; first_pause, most_pause: seconds it stays open.
    Each change of state begins a new generation; what is told of an older one is ignored, since it was asked of
    another receiver, so to say.
    """

    def __init__(self, threshold, first_pause, most_pause):
        self.configure(threshold, first_pause, most_pause)
        self.state = CLOSED
        self.generation = 0
        self.failures = 0      # in a row, while CLOSED
        self.openings = 0      # in a row, without a success between them
        self.until = 0         # OPEN: when the pause is over
        self._probing = False  # HALF_OPEN: the one probe is out

    def configure(self, threshold, first_pause, most_pause):
        """Take new limits; the state stays."""
        self.threshold, self.first_pause, self.most_pause = threshold, first_pause, most_pause

    def restore(self, state, failures, openings, until):
        """Go on where another process stopped. until: when the pause is over (OPEN). A probe that was out counts as not
        sent."""
        self.state = CLOSED if state == CLOSED else OPEN
        self.failures, self.openings, self.until = failures, openings, until
        self.generation += 1

    def due(self, now):
        """Return when allow() would say yes: `now`, a later time, or None while the one probe is out."""
        if self.state == OPEN:
            return max(now, self.until)
        return None if self._probing else now

    def allow(self, now):
        """Return the generation to tell record() with, or None: not now."""
        if self.due(now) != now:
            return None
        if self.state == OPEN:
            self._enter(HALF_OPEN)
        self._probing = self.state == HALF_OPEN
        return self.generation

    def record(self, generation, ok, now, rnd, at_least=0):
        """Tell how an allowed exchange ended; return True when the state changed.

        ok: the receiver is alive; rnd: a random number in [0, 1); at_least: seconds the receiver asked for.
        """
        if generation != self.generation:
            return False
        if ok:
            self.failures = self.openings = 0
            return self.state == HALF_OPEN and self._enter(CLOSED)
        self.failures += 1
        if self.state == CLOSED and self.failures < self.threshold:
            return False
        self.openings += 1
        own = backoff.pause(self.first_pause, self.most_pause, self.openings, rnd)
        self.until = now + max(backoff.asked(at_least, rnd), own)
        return self._enter(OPEN)

    def cancel(self, generation):
        """Take back an allowed exchange that never reached the receiver: the probe may go out again."""
        if generation == self.generation:
            self._probing = False

    def _enter(self, state):
        self.state = state
        self.generation += 1
        self._probing = False
        return True
