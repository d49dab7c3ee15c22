"""The self-pipe: what lets the one waiting thread wake for a signal, a worker or a time, whichever is first.

A signal handler records its signal; Python's own C handler writes the byte (signal.set_wakeup_fd), whichever
thread the kernel chose for it. Called by engine.py and workers.py. Raises OSError when there are no descriptors at the
start; a kernel that refuses to wait later (no memory) is said once, and asked again.
"""

import errno
import logging
import os
import select
import signal
import time

from agent import compat

LONGEST = 86400  # seconds of one wait; who waits longer looks around in between
PACE = 0.1       # seconds between two tries while the kernel refuses: its callers go on, and not in a hurry

log = logging.getLogger('envio')


def pace(seconds=PACE):
    """Let some time pass, `seconds` at the most, where the kernel refuses what would let it pass."""
    try:
        time.sleep(min(PACE, max(0, seconds)))
    except EnvironmentError:
        pass  # 2.x: select(), which may be what is refused


class Wakeup(object):
    """A pipe to oneself. One thread calls wait(), any thread may call notify()."""

    def __init__(self):
        self._read, self._write = os.pipe()
        for fd in (self._read, self._write):
            compat.set_nonblocking(fd)
            compat.set_cloexec(fd)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)
        self.signals = []  # numbers of the signals that came and were not looked at yet, in order
        self._before = {}
        self._failing = False

    def watch(self, fd):
        """Let a wait end when there is something to read from the descriptor `fd`, which somebody else reads."""
        self._poll.register(fd, select.POLLIN)

    def catch(self, numbers):
        """Record these signals from now on; call it in the main thread."""
        for number in numbers:
            self._before[number] = signal.signal(number, self._record)
        signal.set_wakeup_fd(self._write)

    def _record(self, number, frame):
        self.signals.append(number)

    def notify(self):
        """End the present wait(), or the next one at once."""
        try:
            compat.retry_interrupted(os.write, self._write, b'w')
        except OSError as error:
            if error.errno != errno.EAGAIN:  # a full pipe wakes as well
                self._say(error)  # no reason for a worker to end: the waiting thread looks around now and then

    def wait(self, seconds):
        """Wait for a notify(), a signal, or until `seconds` are over (inf: without end)."""
        # A little longer than asked rather than shorter: too early would be a turn for nothing.
        milliseconds = int(min(max(0, seconds), LONGEST) * 1000) + (seconds > 0)
        try:
            if self._poll.poll(milliseconds):
                while len(os.read(self._read, 4096)) == 4096:
                    pass
        except (EnvironmentError, select.error) as error:
            if compat.error_number(error) not in (errno.EAGAIN, errno.EINTR):
                self._say(error)
                pace(seconds)
            return
        if self._failing:
            self._failing = False
            log.warning('waiting for events works again')

    def _say(self, error):
        if not self._failing:
            self._failing = True
            log.error('waiting for events fails: %s: looking around every %g s', compat.error_text(error), PACE)

    def close(self):
        """Give the signals and the descriptors back."""
        if self._before:
            signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        os.close(self._read)
        os.close(self._write)
