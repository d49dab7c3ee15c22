"""The tryout receiver: a small HTTP(S) server that takes files, answers by rules and says what came.

`envio receiver` runs it (run), `envio demo` and tests have it in their own process (serve). It is for trying
things out: one thread a connection, nobody is asked who he is. Raises UsageError for rules that can't be
understood and AgentError where the port, the folder or the certificate can't be used.
"""

import errno
import os
import re
import signal
import socket
import sys
import tempfile
import threading
from collections import namedtuple

from agent import compat, text
from agent.errors import AgentError, UsageError
from agent.receiver_rules import ACCEPT, HANG, REPLY, choose, compose, described, parse_rules
from agent.wakeup import LONGEST, Wakeup

# What a server has done so far.
# connections, requests (read whole), stored (files), size (bytes of bodies): ints;
# answers: tuple of (status or kind, how often), in order.
Counts = namedtuple('Counts', 'connections requests stored size answers')

PIECE = 65536  # bytes of a body in memory
LONGEST_NAME = 255  # bytes, as most file systems have it
BACKLOG = 128  # connections the kernel keeps waiting

_CHUNK_SIZE = re.compile(br'([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\r?\n\Z')


# --- what comes in

class _Malformed(Exception):
    """The body is not framed as HTTP frames it."""


class _Cut(Exception):
    """The connection ended within the body."""


def _body(stream, headers):
    """Yield the body of a request in pieces of PIECE bytes at most (RFC 9112 6.3). Raises _Malformed and _Cut."""
    if 'chunked' in headers.get('Transfer-Encoding', '').lower():
        return _chunks(stream)
    length = headers.get('Content-Length', '0').strip()
    if not re.match(r'[0-9]{1,15}\Z', length):
        raise _Malformed
    return _exactly(stream, int(length))


def _exactly(stream, left):
    while left:
        piece = _take(stream.read, min(left, PIECE))
        left -= len(piece)
        yield piece


def _chunks(stream):
    left = None
    while left != 0:
        found = _CHUNK_SIZE.match(_line(stream))
        if not found:
            raise _Malformed
        left = int(found.group(1), 16)
        for piece in _exactly(stream, left):
            yield piece
        if left and _line(stream) not in (b'\r\n', b'\n'):
            raise _Malformed
    while _line(stream) not in (b'\r\n', b'\n'):
        pass  # trailers


def _line(stream):
    return _take(stream.readline, PIECE)


def _take(read, most):
    """Return read(most), which ends early only with the connection; raises _Cut for its end and its failure."""
    try:
        piece = read(most)
    except EnvironmentError:
        piece = b''
    if not piece:
        raise _Cut
    return piece


def safe_name(raw):
    """Return a file name (native) for the bytes `raw` a sender calls it: one that stays in its folder and shows."""
    raw = raw.replace(b'/', b'_').replace(b'\0', b'_')[:LONGEST_NAME] or b'unnamed'
    return compat.fs_native(b'_' + raw[1:] if raw.startswith(b'.') else raw)


class _Arrival(object):
    """A file that is coming in: under a hidden name until it is whole. Raises EnvironmentError."""

    def __init__(self, folder):
        self._folder = folder
        fd, self._path = tempfile.mkstemp('', '.arriving-', folder)
        self._file = os.fdopen(fd, 'wb')
        self.write = self._file.write

    def keep(self, raw):
        """Give it the first free name for `raw`: itself, .1, .2 and so on; returns the name."""
        self._file.close()
        wanted, number = compat.fs_bytes(safe_name(raw)), 0
        while True:
            suffix = compat.wire('.%d' % number if number else '')
            name = compat.fs_native(wanted[:LONGEST_NAME - len(suffix)] + suffix)
            try:
                os.close(os.open(os.path.join(self._folder, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
                number += 1
                continue
            os.rename(self._path, os.path.join(self._folder, name))  # over the empty file that claims the name
            return name

    def drop(self):
        """Forget it."""
        os.unlink(self._path)
        self._file.close()


# --- one connection

class _Exchange(compat.http_server().BaseHTTPRequestHandler):
    """Reads requests and answers them, one after the other, until the connection ends."""

    protocol_version = 'HTTP/1.1'

    def handle_expect_100(self):
        return True  # 2.6 doesn't call it: do_POST says it, on every Python

    def log_request(self, code='-', size='-'):
        pass  # do_POST says more

    def log_message(self, form, *args):
        self.server.say(text.printable(compat.wire(form % args)))

    def do_POST(self):
        """Read one request whole, keep its file when the rules accept it, say so, answer."""
        path = compat.byte_string(compat.unpercent(self.path.partition('?')[0]))
        name = compat.unpercent(self.headers.get('X-File-Name', ''))
        answer = self.server.choose(compat.byte_string(name), path)
        if self.request_version != 'HTTP/1.1':
            self.close_connection = True
        elif self.headers.get('Expect', '').lower() == '100-continue':
            self.connection.sendall(b'HTTP/1.1 100 Continue\r\n\r\n')
        what = '%s %s' % (self.command, text.printable(compat.wire(path)))
        if name:
            what += ' ' + text.shown(compat.fs_native(name))
        names_file = name or self.command not in ('GET', 'HEAD')
        keeps = self.server.folder and answer.kind == REPLY and answer.status < 300 and names_file
        size, kept, trouble = 0, None, ''
        try:
            size, kept = self._receive(keeps, name or compat.wire(path.rpartition('/')[2]))
        except _Cut:
            self.server.say(what + ': cut off within the body')
            self.close_connection = True
            return
        except _Malformed:
            answer = ACCEPT._replace(status=400)
            self.close_connection = True  # where the next request begins, nobody knows
        except EnvironmentError as error:
            answer, trouble = ACCEPT._replace(status=507), ', not stored: ' + compat.error_text(error)
            self.close_connection = True
        self.server.count(answer, size, kept is not None)
        self.server.say('%s (%s): %s%s%s' % (what, text.size(size), described(answer), trouble,
                                             kept and ', stored as ' + text.shown(kept) or ''))
        self._answer(answer)

    do_PUT = do_PATCH = do_GET = do_HEAD = do_POST

    def _receive(self, keeps, name):
        """Read the body; returns (bytes, the name it is stored under or None). Raises as _body and _Arrival."""
        size, arrival = 0, _Arrival(self.server.folder) if keeps else None
        try:
            for piece in _body(self.rfile, self.headers):
                size += len(piece)
                if arrival:
                    arrival.write(piece)
            if not arrival:
                return size, None
            kept, arrival = arrival.keep(name), None
            return size, kept
        finally:
            if arrival:
                arrival.drop()

    def _answer(self, answer):
        """Send the answer in one write, or what stands for it."""
        if answer.delay:
            self.server.down.wait(answer.delay)
        if answer.kind == HANG:
            self.server.down.wait()
        if answer.kind != REPLY:
            self.close_connection = True
            return
        head, body = compose(answer, self.date_time_string(), self.close_connection)
        self.connection.sendall(head if self.command == 'HEAD' else head + body)


# --- the server

class TryoutServer(object):
    """A receiver on one port. start() and stop() may follow each other: it comes back on the same port.

    host, port: where it listens; url: the same as `http://HOST:PORT` or https; folder: where accepted files go, or
    None; down: an Event, set while it is stopped; say: a function(line) for people, called by all threads.
    """

    def __init__(self, host, port, folder, answers, say, identity):
        self.host, self.port, self.folder = host, port, folder
        self.say = say or (lambda line: None)
        self._identity = identity
        self._lock = threading.Lock()  # around all below
        self._rules = parse_rules(answers)
        self._open = {}  # a connection's thread: its socket
        self._connections = self._requests = self._stored = self._size = 0
        self._answers = {}  # status or kind: how often
        self._accepting = None
        self.down = threading.Event()
        self._listen()
        self.url = '%s://%s:%d' % ('https' if identity else 'http', '[%s]' % host if ':' in host else host, self.port)

    def _listen(self):
        try:
            listener = socket.socket(socket.AF_INET6 if ':' in self.host else socket.AF_INET)
            compat.set_cloexec(listener.fileno())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            listener.listen(BACKLOG)
        except EnvironmentError as error:
            raise AgentError('receiver: can\'t listen on %s port %s: %s: choose another port'
                             % (self.host, self.port, compat.error_text(error)))
        self._listener, self.port = listener, listener.getsockname()[1]

    def start(self):
        """Accept connections, in a thread of its own; returns itself. Raises AgentError: the port was taken."""
        if self._listener is None:
            self._listen()
            self.down = threading.Event()
        self._accepting = _thread(self._accept, self._listener, self.down)
        return self

    def stop(self):
        """Refuse connections, cut those that are open, and wait until nothing runs any more."""
        if self._listener is None:
            return
        with self._lock:
            self.down.set()
            attending = list(self._open.items())
        for waited_for in [self._listener] + [connection for _, connection in attending]:
            try:
                # Wakes the thread that waits for it: close() would not, a TLS socket's own shutdown() drops its TLS.
                socket.socket.shutdown(waited_for, socket.SHUT_RDWR)
            except EnvironmentError:
                pass  # never connected, or gone already
        for thread in [self._accepting] + [thread for thread, _ in attending]:
            if thread:
                thread.join(10)
        self._listener.close()
        self._listener = self._accepting = None

    def _accept(self, listener, down):
        while True:
            try:
                connection, address = listener.accept()
            except EnvironmentError:  # stopped; or out of descriptors, or the peer has gone: try again
                down.wait(0.05)
                if down.is_set():
                    return
                continue
            compat.set_cloexec(connection.fileno())
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if down.is_set():
                    connection.close()
                    return
                self._connections += 1
                self._open[_thread(self._attend, connection, address)] = connection

    def _attend(self, connection, address):
        try:
            if self._identity:
                connection = self._identity.begin(connection, self._replace)
            _Exchange(connection, address, self)
            if self._identity:
                self._identity.end(connection)
        except EnvironmentError:
            pass  # the peer went away, or stop() cut the connection
        except AgentError as error:
            if not self.down.is_set():
                self.say(str(error))
        finally:
            with self._lock:
                connection = self._open.pop(threading.current_thread())
            connection.close()

    def _replace(self, connection):
        """Keep `connection` for stop() in place of what this thread had; raises EnvironmentError: it is too late."""
        with self._lock:
            self._open[threading.current_thread()] = connection
            if self.down.is_set():
                raise socket.error('stopped')

    def answer(self, answers):
        """Answer by these rules from now on. Raises UsageError."""
        found = parse_rules(answers)
        with self._lock:
            self._rules = found

    def choose(self, name, path):
        """Return the Answer for a request; both names are native, one character a byte."""
        with self._lock:
            return choose(self._rules, name, path)

    def count(self, answer, size, stored):
        """Note a request that was read: its Answer, the bytes of its body, whether its file was stored."""
        with self._lock:
            self._requests += 1
            self._size += size
            self._stored += bool(stored)
            key = answer.status or answer.kind
            self._answers[key] = self._answers.get(key, 0) + 1

    def counts(self):
        """Return the Counts so far."""
        with self._lock:
            return Counts(self._connections, self._requests, self._stored, self._size,
                          tuple(sorted(self._answers.items(), key=str)))


def _thread(target, *args):
    thread = threading.Thread(target=target, args=args)
    thread.daemon = True
    thread.start()
    return thread


def serve(port=0, host='127.0.0.1', folder=None, answers='200', say=None, identity=None):
    """Return a TryoutServer that has its port and waits for start().

    port: 0 = any free one; folder: where accepted files go, made when it is missing, None = keep nothing;
    answers: rules as parse_rules reads them; say: function(line), called in threads, or None; identity: None = http,
    a receiver_tls.Identity = https.
    Raises UsageError for rules and numbers that make no sense, AgentError for a port or folder that can't be used.
    """
    if not 0 <= port <= 65535:
        raise UsageError('--port: %d is not a port: they go from 1 to 65535, 0 takes any that is free' % port)
    if folder is not None and not os.path.isdir(folder):
        try:
            os.makedirs(folder)
        except EnvironmentError as error:
            raise AgentError('receiver: can\'t make the folder %s: %s: choose another'
                             % (text.shown(folder), compat.error_text(error)))
    return TryoutServer(host, port, folder, answers, say, identity)


def run(port=0, host='127.0.0.1', folder=None, answers='200', tls=False, cert=None, key=None):
    """The command: print the URL, then a line for each request, until SIGINT or SIGTERM; returns 0.

    tls: https with a certificate made for the occasion; cert, key: https with those of receiver_tls.Identity, whose
    errors it raises too. All else is as for serve().
    """
    wakeup = Wakeup()
    identity = None

    def say(line):
        try:
            sys.stdout.write(compat.writable(line + '\n', sys.stdout))
            sys.stdout.flush()
        except EnvironmentError:  # nobody reads any more
            wakeup.signals.append(signal.SIGPIPE)
            wakeup.notify()

    try:
        wakeup.catch([signal.SIGINT, signal.SIGTERM])
        if tls or cert:
            from agent import receiver_tls
            identity = receiver_tls.self_signed(host) if tls else receiver_tls.Identity(cert, key)
        server = serve(port, host, folder, answers, say, identity)
        say('listening on %s' % server.url)
        if tls:
            say('in the configuration, so that it is verified: ca_file = %s' % identity.cert)
        server.start()
        while not wakeup.signals:
            wakeup.wait(LONGEST)
        server.stop()
    finally:
        if identity:
            identity.close()
        wakeup.close()
    return 0
