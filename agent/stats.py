"""What was done so far, by receiver: counted by the main thread alone, from the results that workers queue.

Called by engine.py. Raises nothing.
"""

from agent import text
from agent.records import ACK, GONE, HOLD, NACK, RETRY


class ReceiverStats(object):
    """The counts of one receiver since the start.

    unmoved: tries to move an answered file, in vain; bytes: of accepted files; last: the newest answer in words.
    """
    __slots__ = ('accepted', 'rejected', 'failed', 'held', 'gone', 'unmoved', 'bytes', 'last', 'last_rejection',
                 'last_failure')

    def __init__(self):
        self.accepted = self.rejected = self.failed = self.held = self.gone = self.unmoved = self.bytes = 0
        self.last = self.last_rejection = self.last_failure = ''

    def add(self, result):
        """Count a Result."""
        outcome = result.outcome
        if outcome.verdict == ACK and outcome.moved:
            self.accepted += 1
            self.bytes += result.file.stamp.size
        elif outcome.moved and outcome.verdict in (NACK, RETRY):  # RETRY: given up
            self.rejected += 1
            self.last_rejection = outcome.reason
        elif outcome.verdict in (ACK, NACK):
            self.unmoved += 1
        elif outcome.verdict == HOLD:
            self.held += 1
            self.last_failure = outcome.reason
        elif outcome.verdict == GONE:
            self.gone += 1
        else:
            self.failed += 1
            self.last_failure = outcome.reason
        self.last = outcome.reason


class Stats(object):
    """All receivers' counts. since: when counting began, monotonic seconds."""

    def __init__(self, since):
        self.since = since
        self.receivers = {}

    def add(self, result):
        """Count a Result."""
        stats = self.receivers.get(result.receiver.name)
        if stats is None:
            stats = self.receivers[result.receiver.name] = ReceiverStats()
        stats.add(result)

    def total(self, count):
        """Return the sum over all receivers of one count, such as 'accepted'."""
        return sum([getattr(stats, count) for stats in self.receivers.values()])

    def tried(self):
        """Return how many tries there were, whatever came of them."""
        return sum([self.total(count) for count in ('accepted', 'rejected', 'failed', 'held', 'gone')])

    def summary(self, now):
        """Return lines for people: one for each receiver."""
        seconds = max(now - self.since, 0.001)
        lines = []
        for name, stats in sorted(self.receivers.items()):
            lines.append('%s: %d accepted (%s, %s/s, %.0f files/s), %d rejected, %d tries failed, %d held; last: %s' % (
                name, stats.accepted, text.size(stats.bytes), text.size(stats.bytes / seconds),
                stats.accepted / seconds, stats.rejected, stats.failed, stats.held, stats.last))
        return lines
