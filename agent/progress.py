"""The progress line of `envio once` on a terminal: done/total, files/s, bytes/s, time left.

Called by cli.py, which hands it to engine.run. Raises nothing but what the terminal's end raises.
"""

from agent import compat, text

EVERY = 0.2  # seconds


class Progress(object):
    """Draws over one line of `stream`, a terminal."""

    def __init__(self, stream, clock=compat.monotonic):
        self._stream = stream
        self._clock = clock
        self._due = 0
        self._drawn = False

    def __call__(self, agent):
        """Draw the line when it is time; return when it wants to be called again (monotonic seconds)."""
        now = self._clock()
        if now >= self._due:
            self._due = now + EVERY
            self._stream.write('\r\033[K' + line(agent.stats, agent.collector.found(), now))
            self._stream.flush()
            self._drawn = True
        return self._due

    def clear(self):
        """Take the line away."""
        if self._drawn:
            self._stream.write('\r\033[K')
            self._stream.flush()


def line(stats, found, now):
    """Return the line. stats: stats.Stats; found: (files, bytes) that are to be sent, as far as known; now: seconds."""
    files, size = found
    done = stats.tried()
    seconds = max(now - stats.since, 0.001)
    rate = done / seconds
    left = text.duration((files - done) / rate) if rate and files > done else '-'
    return '%d/%d files  %.0f files/s  %s/s  %s left' % (
        done, files, rate, text.size(stats.total('bytes') / seconds), left)
