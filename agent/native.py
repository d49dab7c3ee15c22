"""The native transport: plain HTTP over httplib's connection, kept alive and used again.

httplib connects (and is the seam where tunnels and TLS come in); the request's bytes are made by request.py and go out
in our own loop, so that an answer that comes early is still read; answers.py reads it.
One NativeTransport belongs to one worker; cut() alone may be called by another thread. Raises TransportError.
"""

import errno
import select
import socket
import struct

from agent import compat, request
from agent.answers import AnswerReader
from agent.errors import FileChanged, TransportError

SMALL = 65536         # a body up to this many bytes leaves in one send with the headers
PIECE = 262144        # a larger one goes out in pieces of so many
MOST_CONNECTIONS = 8  # kept open by one worker, each to another receiver

_OUR_LACK = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # what this host ran out of


class Connection(compat.http_client.HTTPConnection):
    """A connection to one receiver's host and port."""
    auto_open = 0  # never connect behind our back, never send a request a second time (2.6 does, on EPIPE)

    def __init__(self, host, port, receiver):
        compat.http_client.HTTPConnection.__init__(self, host, port)
        self.receiver = receiver
        self.reader = None       # while connected
        self.died = False        # the present exchange ended without a byte of an answer
        self._poll = select.poll()

    def connect(self):
        """Connect within connect_timeout; each address of the name is tried. Raises TransportError."""
        try:
            addresses = socket.getaddrinfo(self.host, self.port, 0, socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise TransportError('resolve', '%s: the host name can\'t be resolved: %s' % (
                self.host, getattr(error, 'strerror', None) or error))
        problem = None
        for family, kind, protocol, _, address in addresses:
            sock = None
            try:
                sock = socket.socket(family, kind, protocol)
                compat.set_cloexec(sock.fileno())
                sock.settimeout(self.receiver.connect_timeout)
                self.sock = sock  # from here on cut() can end it
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _limit_waits(sock, self.receiver.read_timeout)
                self._poll.register(sock.fileno(), select.POLLIN | select.POLLOUT)
                self.reader = AnswerReader(sock)
                return
            except (socket.error, socket.timeout) as error:
                problem = error
                self.sock = None
                if sock is not None:
                    sock.close()
        stage = 'local' if compat.error_number(problem) in _OUR_LACK else 'connect'
        raise TransportError(stage, '%s:%d: can\'t connect: %s' % (self.host, self.port, _words(problem)))

    def close(self):
        """Close the connection; it may be connected again."""
        if self.sock is not None and self.reader is not None:
            self._poll.unregister(self.sock.fileno())
        self.reader = None
        compat.http_client.HTTPConnection.close(self)

    def idle(self):
        """Return True when the open connection can take a request: nothing came on it since the last answer, neither
        its end nor bytes that nobody asked for."""
        return self.reader is not None and self._poll.poll(0) == [(self.sock.fileno(), select.POLLOUT)]

    def exchange(self, head, opened):
        """Send the request's head and the file, and return the Reply. Raises TransportError, FileChanged."""
        self.died = False
        self.reader.begin()
        try:
            early = self._send(head, opened)
        except EnvironmentError as error:
            if _timed_out(error):
                raise TransportError('send', 'nothing was taken for %s' % _seconds(self.receiver.read_timeout))
            # The receiver has had enough, and may have said why before it closed.
            return self._early(None, error)
        if early:
            return self._early(early, None)
        return self._answer(None, True)

    def _send(self, head, opened):
        """Return None when all of it was sent, or the head of a final answer that came before that."""
        if opened.size <= SMALL:
            body = opened.read(SMALL + 1)
            if len(body) != opened.size:
                raise FileChanged('changed while it was sent')
            self.sock.sendall(head + body)
            return None
        left, pending = opened.size, head
        while pending or left:
            if not pending:
                pending = opened.read(min(PIECE, left))
                if not pending:
                    raise FileChanged('became shorter while it was sent')
                left -= len(pending)
            events = compat.retry_interrupted(self._poll.poll, int(self.receiver.read_timeout * 1000))
            if not events:
                raise socket.timeout('timed out')
            if events[0][1] & ~select.POLLOUT:
                early = self.reader.head()
                if early[1] >= 200:
                    return early
            else:
                pending = pending[self.sock.send(pending, socket.MSG_DONTWAIT):]
        return None

    def _early(self, head, error):
        try:
            reply = self._answer(head, False)
        except TransportError:
            if error is None:
                raise
            raise TransportError('send', 'sending failed: %s' % _words(error))
        self.reader.reusable = False
        if reply.status < 300:
            raise TransportError('protocol', 'answered %d before it had the whole file' % reply.status)
        return reply

    def _answer(self, head, sent_whole):
        try:
            return self.reader.read(head)
        except EnvironmentError as error:
            if _timed_out(error):
                raise TransportError('receive', 'no answer for %s' % _seconds(self.receiver.read_timeout), sent_whole)
            self.died = not self.reader.started
            raise TransportError('receive', 'the answer failed: %s' % _words(error), sent_whole)
        except TransportError as error:
            self.died = not self.reader.started
            error.sent_whole = sent_whole
            raise


class NativeTransport(object):
    """Sends files for one worker. clock: a monotonic clock in seconds."""

    def __init__(self, clock=compat.monotonic):
        self._clock = clock
        self._connections = {}  # (scheme and authority, receiver) -> Connection
        self._heads = {}        # url -> (origin, host, port, first bytes of the request)
        self._current = None    # the Connection in use
        self._deadline = None   # when cut() is to end it
        self._ended = None      # why cut() or abort() ended it

    def send(self, ticket, opened, key):
        """Send one file and return the Reply.

        ticket: records.Ticket; opened: spool.OpenFile, at its first byte; key: the Idempotency-Key.
        Raises TransportError and FileChanged.
        """
        receiver = ticket.receiver
        host, port, first = self._request(ticket)
        head = first + request.file_head(receiver, ticket.file, opened.size, key)
        connection = self._connection(host, port, receiver)
        self._current = connection
        self._ended = None
        self._deadline = self._clock() + receiver.deadline
        try:
            return self._exchange(connection, head, opened)
        except TransportError as error:
            if self._ended:
                raise TransportError('deadline', self._ended, error.sent_whole)
            raise
        finally:
            self._deadline = self._current = None
            if connection.reader is None or not connection.reader.reusable:
                connection.close()

    def _exchange(self, connection, head, opened):
        if connection.idle():
            try:
                return connection.exchange(head, opened)
            except TransportError:
                # A receiver may close a kept connection at any moment, this one too: that alone is no failure.
                if not connection.died or self._ended:
                    raise
                opened.rewind()
        connection.close()
        connection.connect()
        return connection.exchange(head, opened)

    def _request(self, ticket):
        known = self._heads.get(ticket.url)
        if known is not None and known[3] is ticket.receiver:
            return known[:3]
        parts = compat.urlsplit(ticket.url)
        target = (parts.path or '/') + ('?' + parts.query if parts.query else '')
        first = request.fixed_head(ticket.receiver, target, parts.netloc)
        known = parts.hostname, parts.port or 80, first, ticket.receiver
        if ticket.url == ticket.receiver.url:  # a URL without places for the file's name: it serves all files
            self._heads[ticket.url] = known
        return known[:3]

    def _connection(self, host, port, receiver):
        place = host, port, receiver.name
        connection = self._connections.pop(place, None)
        if connection is not None and connection.receiver is not receiver:
            connection.close()
            connection = None
        if connection is None:
            connection = Connection(host, port, receiver)
            if len(self._connections) >= MOST_CONNECTIONS:
                self._connections.pop(next(iter(self._connections))).close()
        self._connections[place] = connection
        return connection

    def cut(self, now):
        """End the present exchange if its deadline has passed (`now`: monotonic). Any thread may call this."""
        connection, deadline = self._current, self._deadline
        if connection is not None and deadline is not None and now >= deadline:
            self._end(connection, 'not done within %s' % _seconds(connection.receiver.deadline))

    def abort(self):
        """End the present exchange. Any thread may call this."""
        connection = self._current
        if connection is not None:
            self._end(connection, 'stopped before it was done')

    def _end(self, connection, why):
        self._ended = why
        sock = connection.sock
        try:
            if sock is not None:
                # race: the exchange may be over meanwhile; then this ends an idle connection, which idle() sees.
                sock.shutdown(socket.SHUT_RDWR)
        except EnvironmentError:
            pass  # closed or not connected: over as well

    def close(self):
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


def _limit_waits(sock, seconds):
    """Let no send or recv wait longer than so many seconds.

    The kernel's own limit, not settimeout(): with that Python asks poll() before each call, and hands its interpreter
    lock to another thread once more.
    """
    sock.settimeout(None)
    limit = struct.pack('ll', int(seconds), int(seconds % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _timed_out(error):
    return isinstance(error, socket.timeout) or compat.error_number(error) == errno.EAGAIN


def _words(error):
    if isinstance(error, socket.timeout):
        return 'timed out'
    return compat.error_text(error)


def _seconds(seconds):
    return '%g s' % seconds
