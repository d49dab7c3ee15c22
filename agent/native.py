"""The native transport: HTTP/1.1 over a socket of our own, kept alive and used again; by proxy and TLS if wanted.

request.py makes the head, answers.py reads the answer; the body goes out in our own loop, so that an answer that comes
early is still read. One NativeTransport belongs to one worker; cut() and abort() alone may be called by another thread.
Raises TransportError, FileChanged.
"""

import errno
import socket

from agent import compat, request, streams
from agent.answers import AnswerReader, check_early
from agent.errors import FileChanged, TransportError
from agent.places import check_proxy, host_port, place_of, proxy_fields, refused_by_proxy
from agent.streams import timed_out, words

SMALL = 65536         # a body up to this many bytes leaves in one send with the headers
MOST_CONNECTIONS = 8  # kept open by one worker, each to another receiver
CONTINUE_WAIT = 1.0   # seconds that `100 Continue` is waited for (SPEC 7)

_OUR_LACK = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # what this host ran out of


class Connection(object):
    """A connection to where one receiver's URL leads."""

    def __init__(self, place, receiver, context):
        self.place = place
        self.receiver = receiver
        self.context = context   # tls.Context, or None
        self.sock = None         # cut() ends it
        self.stream = None       # while connected
        self.reader = None       # the same
        self.certificate = None  # the peer's, of TLS
        self.died = False        # the present exchange ended without a byte of an answer
        self.accepted = None     # the head of a 2xx that came while the body was on its way

    def connect(self):
        """Connect, through the proxy and with TLS if wanted, each step within connect_timeout. Raises TransportError.

        Nothing but the proxy's own request is sent before the certificate and its name are known to be valid.
        """
        self._reach()
        if self.context is None:
            self.stream = streams.PlainStream(self.sock, self.receiver.read_timeout)
        else:
            self._secure()
        self.reader = AnswerReader(self.stream)

    def _reach(self):
        proxy = self.place.proxy
        if proxy is None:
            self._dial(self.place.host, self.place.port, '')
            return
        self._dial(proxy.host, proxy.port, 'proxy ')
        if self.place.scheme == 'https':
            self._tunnel(proxy)

    def _dial(self, host, port, what):
        try:
            addresses = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise TransportError('resolve', '%s%s: the host name can\'t be resolved: %s' % (
                what, host, getattr(error, 'strerror', None) or error))
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
                return
            except EnvironmentError as error:
                problem = error
                self.sock = None
                if sock is not None:
                    sock.close()
        stage = 'local' if compat.error_number(problem) in _OUR_LACK else 'connect'
        raise TransportError(stage, '%s%s:%d: can\'t connect: %s' % (what, host, port, words(problem)))

    def _tunnel(self, proxy):
        """Have the proxy connect us (RFC 9110 9.3.6)."""
        place = host_port(self.place)
        lines = ['CONNECT %s HTTP/1.1' % place, 'Host: ' + place, 'User-Agent: ' + request.USER_AGENT]
        lines += ['%s: %s' % field for field in proxy_fields(proxy)] + ['', '']
        reader = AnswerReader(self.sock)
        reader.begin()
        try:
            self.sock.sendall(compat.wire('\r\n'.join(lines)))
            head = reader.final_head()
        except (EnvironmentError, TransportError) as error:
            self.close()
            raise TransportError('proxy', 'the proxy %s:%d gave no answer: %s' % (
                proxy.host, proxy.port, error if isinstance(error, TransportError) else words(error)))
        if head[1] >= 300 or reader.buffered():
            self.close()
            raise refused_by_proxy(proxy, head[1], head[2])

    def _secure(self):
        from agent import tls
        try:
            self._shake_hands(self.context)
        except TransportError as error:
            self.close()
            if not error.hold or not self.context.trusted:
                raise
            raise self.explained(error)
        self.certificate = self.stream.certificate()
        if self.context.trusted:
            try:
                tls.check_name(self.certificate, self.place.host)
            except TransportError:
                self.close()
                raise

    def _shake_hands(self, context):
        from agent import tls
        try:
            self.stream = tls.TlsStream(context.wrap(self.sock, self.place.host), self.receiver.read_timeout)
            self.sock = self.stream.sock
            self.stream.handshake(self.receiver.connect_timeout)
        except EnvironmentError as error:
            self.close()
            raise TransportError('tls', 'the TLS handshake failed: %s' % tls.words(error))

    def explained(self, error):
        """Return `error` with what is wrong with the certificate in words: what was not accepted is not shown to us, so
        it is looked at on a second connection, on which nothing is sent."""
        from agent import tls
        try:
            self._reach()
            self._shake_hands(self.context.blind())
            return tls.explain(error, self.stream.certificate(), self.place.host, self.context.trusted)
        except TransportError:
            return error
        finally:
            self.close()

    def close(self):
        """Close the connection; it may be connected again."""
        self.stream = self.reader = None
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def exchange(self, head, parcel, bucket):
        """Send the request's head and the body, and return the Reply. Raises TransportError, FileChanged.

        bucket: ratelimit.TokenBucket or None.
        """
        self.died = False
        self.accepted = None
        self.reader.begin()
        try:
            early = self._send(head, parcel, bucket)
        except EnvironmentError as error:
            if timed_out(error):
                raise TransportError('send', 'nothing was taken for %s' % _seconds(self.receiver.read_timeout))
            # The receiver has had enough, and may have said why before it closed.
            return self._early(self.accepted, error)
        if early:
            return self._early(early, None)
        return self._answer(self.accepted, True)

    def _send(self, head, parcel, bucket):
        """Return None when all of it was sent, or the head of a final answer that came before that."""
        body = parcel.body
        if body.size <= SMALL and bucket is None:
            raw = body.read(SMALL + 1)
            if len(raw) != body.size:
                raise FileChanged('changed while it was sent')
            self.stream.sendall(head + raw)
            return None
        if parcel.expect:
            self.stream.sendall(head)
            head = b''
            early = self._wait_for_leave()
            if early:
                return early
        return self._send_pieces(head, body, bucket)

    def _wait_for_leave(self):
        """Wait for 100 Continue, a while; return the head of a final answer that came in its place, or None."""
        until = compat.monotonic() + CONTINUE_WAIT
        while self.reader.buffered() or self.stream.readable(max(0, until - compat.monotonic())):
            head = self.reader.head()
            if head[1] >= 200:
                return head
            if head[1] == 100:
                return None
        return None

    def _send_pieces(self, pending, body, bucket):
        stream, left = self.stream, body.size
        piece = stream.PIECE if bucket is None else max(1024, min(stream.PIECE, int(bucket.rate / 8)))
        while pending or left:
            if not pending:
                pending = body.read(min(piece, left))
                if not pending:
                    raise FileChanged('became shorter while it was sent')
                left -= len(pending)
                if bucket is not None:
                    # An answer that comes while we wait for our share ends the wait.
                    stream.readable(bucket.take(len(pending), compat.monotonic()))
            if self.accepted:
                stream.sendall(pending)
                pending = b''
            elif self.reader.buffered() or stream.ready():
                head = self.reader.head()
                if head[1] >= 300:
                    return head
                if head[1] >= 200:
                    self.accepted = head  # if it means that, it takes the rest as well: so does cURL
            else:
                pending = pending[stream.send(pending):]
        return None

    def _early(self, head, error):
        try:
            if error is not None and not head and not self._speaks():
                raise TransportError('send', 'nothing came')
            reply = self._answer(head, False)
        except TransportError:
            if error is None:
                raise
            stage = 'local' if compat.error_number(error) in _OUR_LACK else 'send'
            raise TransportError(stage, 'sending failed: %s' % words(error))
        self.reader.reusable = False
        check_early(reply)
        return reply

    def _speaks(self):
        # Where this host had no memory, the receiver waits for the request: no answer will come. Its end can be read.
        try:
            return self.reader.buffered() or self.stream.readable(0)
        except EnvironmentError:
            return False

    def _answer(self, head, sent_whole):
        try:
            return self.reader.read(head)
        except EnvironmentError as error:
            if timed_out(error):
                raise TransportError('receive', 'no answer for %s' % _seconds(self.receiver.read_timeout), sent_whole)
            self.died = not self.reader.started
            raise TransportError('receive', 'the answer failed: %s' % words(error), sent_whole)
        except TransportError as error:
            self.died = not self.reader.started
            error.sent_whole = sent_whole
            raise


class NativeTransport(object):
    """Sends files for one worker, one at a time. resources: resources.Resources; clock: monotonic, in seconds."""
    most = 1

    def __init__(self, resources, clock=compat.monotonic):
        self._resources = resources
        self._clock = clock
        self._connections = {}  # (Place but its target, receiver's name) -> Connection
        self._heads = {}        # url -> (receiver, its credentials, Place, first bytes of the request)
        self._current = None    # the Connection in use
        self._deadline = None   # when cut() is to end it
        self._ended = None      # why cut() or abort() ended it

    def send(self, parcel):
        """Send one file (records.Parcel) and return the Reply. Raises TransportError and FileChanged."""
        receiver = parcel.ticket.receiver
        place, first = self._request(parcel.ticket)
        connection = self._connection(place, receiver)
        self._current = connection
        self._ended = None
        self._deadline = self._clock() + receiver.deadline
        try:
            reply = self._exchange(connection, first + request.file_head(parcel), parcel)
        except TransportError as error:
            if self._ended:
                raise TransportError('deadline', self._ended, error.sent_whole)
            raise
        finally:
            self._deadline = self._current = None
            if connection.reader is None or not connection.reader.reusable:
                connection.close()
        check_proxy(place, reply)
        return reply

    def _exchange(self, connection, head, parcel):
        bucket = self._resources.bucket(connection.receiver)
        if connection.reader is not None and connection.stream.idle():
            try:
                return connection.exchange(head, parcel, bucket)
            except TransportError:
                # A receiver may close a kept connection at any moment, this one too: that alone is no failure.
                if not connection.died or self._ended:
                    raise
                parcel.body.rewind()
        connection.close()
        connection.connect()
        return connection.exchange(head, parcel, bucket)

    def _request(self, ticket):
        """Return (Place, first bytes of the request) for a ticket."""
        receiver = ticket.receiver
        fields = self._resources.fields(receiver)
        known = self._heads.get(ticket.url)
        if known is not None and known[0] is receiver and known[1] is fields:
            return known[2:]
        place = place_of(ticket.url, receiver, self._resources)
        extra = fields if place.scheme == 'https' else fields + proxy_fields(place.proxy)
        first = request.fixed_head(receiver, place.target, place.authority, extra)
        if ticket.url == receiver.url:  # a URL without places for the file's name: it serves all files
            self._heads[ticket.url] = receiver, fields, place, first
        return place, first

    def _connection(self, place, receiver):
        context = self._resources.context(receiver) if place.scheme == 'https' else None
        key = place[:4] + (receiver.name,)
        connection = self._connections.pop(key, None)
        if connection is not None and (connection.receiver is not receiver or connection.context is not context):
            connection.close()
            connection = None
        if connection is None:
            connection = Connection(place, receiver, context)
            if len(self._connections) >= MOST_CONNECTIONS:
                self._connections.pop(next(iter(self._connections))).close()
        self._connections[key] = connection
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
                # Of the base class: an SSL socket's own would take its TLS from under the thread that waits on it.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except EnvironmentError:
            pass  # closed or not connected: over as well

    def close(self):
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


def _seconds(seconds):
    return '%g s' % seconds
