"""A connected socket as the exchange uses it: waits are bounded, and what can be read is seen while something is sent.

PlainStream here and tls.TlsStream have the same methods. Called by native.py, from one thread. Raises what sockets
raise; socket.timeout when nothing moved for the time a read may take.
"""

import errno
import select
import socket
import struct

from agent import compat


class PlainStream(object):
    """An open TCP connection. seconds: how long the peer may be silent.

    The limit is the kernel's own, not settimeout(): with that Python asks poll() before each call, and hands its
    interpreter lock to another thread once more.
    """
    PIECE = 262144  # bytes that are sent at once

    def __init__(self, sock, seconds):
        self.sock = sock
        sock.settimeout(None)
        limit = struct.pack('ll', int(seconds), int(seconds % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self.recv = sock.recv
        self._seconds = seconds
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN | select.POLLOUT)

    def take(self, most):
        """Return what there is to read now, at most `most`: bytes, b'' at the end, or None: nothing yet."""
        try:
            return compat.retry_interrupted(self.sock.recv, most, socket.MSG_DONTWAIT)
        except EnvironmentError as error:
            if compat.error_number(error) != errno.EAGAIN:
                raise
            return None

    def sendall(self, raw):
        """As of a socket, whose own does not say on 2.6 how far it came when it was interrupted."""
        while raw:
            raw = raw[compat.retry_interrupted(self.sock.send, raw):]

    def readable(self, seconds):
        """Wait so many seconds at most for something to read, the peer's end included; return whether it came."""
        return poll(self.sock, select.POLLIN, seconds) != 0

    def ready(self):
        """Wait until there is something to read (True), or room to send (False)."""
        events = _wait(self._poll, self._seconds)
        if not events:
            raise socket.timeout('timed out')
        return bool(events[0][1] & ~select.POLLOUT)

    def send(self, raw):
        """Send what there is room for; return how many bytes that was."""
        try:
            return compat.retry_interrupted(self.sock.send, raw, socket.MSG_DONTWAIT)
        except EnvironmentError as error:
            if compat.error_number(error) != errno.EAGAIN:
                raise
            return 0

    def idle(self):
        """Return True when the connection can take a request: nothing came on it since the last answer, neither its
        end nor bytes that nobody asked for."""
        try:
            return _wait(self._poll, 0) == [(self.sock.fileno(), select.POLLOUT)]
        except EnvironmentError:
            return False  # it can't be told: a fresh connection is no loss


def poll(sock, events, seconds):
    """Wait at most so many seconds for one of `events` (select.POLL...); return those that came, 0 for none."""
    poller = select.poll()
    poller.register(sock.fileno(), events)
    found = _wait(poller, seconds)
    return found[0][1] if found else 0


def wait_for_any(socks, seconds):
    """Wait at most so many seconds until there is something to read from some of the sockets, an end included; return
    the descriptors of these."""
    poller = select.poll()
    for sock in socks:
        poller.register(sock.fileno(), select.POLLIN)
    return [fd for fd, _ in _wait(poller, seconds)]


def _wait(poller, seconds):
    """Return poller.poll(); raises socket.error (2.x: poll() raises one that is no EnvironmentError)."""
    try:
        return compat.retry_interrupted(poller.poll, int(seconds * 1000))
    except (EnvironmentError, select.error) as error:
        raise socket.error(compat.error_number(error), compat.error_text(error))


def timed_out(error):
    """Return True when a socket's error says that nothing moved for as long as it may take."""
    return isinstance(error, socket.timeout) or compat.error_number(error) == errno.EAGAIN


def words(error):
    """Return what a socket's error says, in a few words."""
    return 'timed out' if isinstance(error, socket.timeout) else compat.error_text(error)
