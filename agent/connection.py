"""One connection of the native transport: HTTP/1.1 over a socket of our own; by proxy and TLS if wanted.

answers.py reads the answer; the body goes out in our own loop, so that an answer that comes early is still read. Called
by native.py, from one thread; cut() alone may be called by another. Raises TransportError, FileChanged.
"""

import errno
import socket

from agent import compat, request, streams
from agent.answers import AnswerReader, check_early
from agent.errors import FileChanged, TransportError
from agent.places import host_port, proxy_fields, refused_by_proxy
from agent.streams import timed_out, words

SMALL = 65536         # a body up to this many bytes leaves in one send with the headers
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
        self.ended = None        # why cut() ended the present exchange

    def connect(self):
        """Connect, through the proxy and with TLS if wanted, each step within connect_timeout. Raises TransportError.

        Nothing but the proxy's own request is sent before the certificate and its name are known to be valid.
        """
        self._reach()
        try:
            if self.context is None:
                self.stream = streams.PlainStream(self.sock, self.receiver.read_timeout)
            else:
                self._secure()
        except EnvironmentError as error:
            self.close()
            raise TransportError('local', '%s:%d: the connection can\'t be set up: %s' % (
                self.place.host, self.place.port, words(error)))
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

    def begin(self, head, parcel):
        """Send a request with a small body and come back at once: finish() reads the answer. Raises FileChanged, and
        what the socket raises."""
        self._expect()
        self.stream.sendall(head + _small(parcel.body))

    def _expect(self):
        self.died, self.accepted = False, None
        self.reader.begin()

    def arrived(self):
        """As of answers.AnswerReader, after begin(). Raises TransportError."""
        try:
            return self.reader.arrived()
        except EnvironmentError as error:
            raise self._failed(error, True)

    def finish(self):
        """Return the Reply to what begin() sent. Raises TransportError."""
        return self._answer(None, True)

    def exchange(self, head, parcel, bucket):
        """Send the request's head and the body, and return the Reply. Raises TransportError, FileChanged.

        bucket: ratelimit.TokenBucket or None.
        """
        self._expect()
        try:
            early = self._send(head, parcel, bucket)
        except EnvironmentError as error:
            if timed_out(error):
                raise TransportError('send', 'nothing was taken for %s' % seconds(self.receiver.read_timeout))
            # The receiver has had enough, and may have said why before it closed.
            return self._early(self.accepted, error)
        if early:
            return self._early(early, None)
        return self._answer(self.accepted, True)

    def _send(self, head, parcel, bucket):
        """Return None when all of it was sent, or the head of a final answer that came before that."""
        body = parcel.body
        if body.size <= SMALL and bucket is None:
            self.stream.sendall(head + _small(body))
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
                raise self.late(sent_whole)
            raise self._failed(error, sent_whole)
        except TransportError as error:
            self.died = not self.reader.started
            error.sent_whole = sent_whole
            raise

    def _failed(self, error, sent_whole):
        self.died = not self.reader.started
        return TransportError('receive', 'the answer failed: %s' % words(error), sent_whole)

    def late(self, sent_whole=True):
        """Return the TransportError for an answer that was waited for in vain."""
        return TransportError('receive', 'no answer for %s' % seconds(self.receiver.read_timeout), sent_whole)

    def cut(self, why):
        """End the present exchange. Any thread may call this."""
        self.ended = why
        sock = self.sock
        try:
            if sock is not None:
                # race: the exchange may be over meanwhile; then this ends an idle connection, which idle() sees.
                # Of the base class: an SSL socket's own would take its TLS from under the thread that waits on it.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except EnvironmentError:
            pass  # closed or not connected: over as well

    def explained_end(self, error):
        """Return the TransportError of an exchange, which cut() may have ended."""
        return TransportError('deadline', self.ended, error.sent_whole) if self.ended else error


def _small(body):
    raw = body.read(SMALL + 1)
    if len(raw) != body.size:
        raise FileChanged('changed while it was sent')
    return raw


def seconds(number):
    """Return seconds in words."""
    return '%g s' % number
