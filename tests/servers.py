"""The other side of the wire, for tests: servers that misbehave to the byte, and the system's nginx.

Everything listens on loopback and ends with stop() or with its `with` block. What a script can't do because the
peer has gone is noted in Conversation.error, not raised: the test knows whether that matters.
"""

import contextlib
import grp
import os
import pwd
import signal
import socket
import struct
import subprocess
import threading
import time
from collections import namedtuple

from agent import compat

Request = namedtuple('Request', (
    'line',     # the request line, native, a character a byte
    'headers',  # list of (name, value) as they came, native
    'body',     # bytes; b'' until it is read
))


def ok(body=b'ok\n', status='200 OK', headers=()):
    """Return an answer as bytes: `status` is code and phrase, `headers` are whole lines (native)."""
    head = ['HTTP/1.1 ' + status, 'Content-Length: %d' % len(body)] + list(headers) + ['', '']
    return compat.wire('\r\n'.join(head)) + body


class Gone(Exception):
    """The peer closed the connection, or stop() did."""


class Conversation(object):
    """One connection and its script. Steps, each a tuple of a word and its arguments:

    read_request        read head and body; the request is appended to `requests`
    read_head           read the head alone; `read_body` reads the rest, by Content-Length or chunked
    read N              read exactly N bytes into `raw`
    read_to_end         read into `raw` until the peer closes
    send BYTES          send them at once
    send_slow BYTES S   send them one by one, S seconds after each
    send_for_ever BYTES send them again and again, until the peer has gone
    close               close; what is still unread makes the kernel send a reset
    reset               end with a reset (RST)
    hang                do nothing until stop()
    call FUNCTION       call it, without arguments

    A script that ends closes. `error` says why a script ended early, or is None.
    """

    def __init__(self, connection, script, stopped, secure=None):
        self.requests = []
        self.raw = b''
        self.error = None
        self.ended = False
        self._connection, self._script, self._stopped, self._secure = connection, script, stopped, secure
        self._buffer = b''

    def run(self):
        """Play the script to its end."""
        step = ('TLS handshake',)
        try:
            if self._secure:
                plain, self._connection = self._connection, self._secure(self._connection)
                plain.close()  # 2.x: else it stays open as long as somebody has this one
            for step in self._script:
                getattr(self, '_' + step[0])(*step[1:])
        except (EnvironmentError, Gone) as error:
            self.error = '%s: %s' % (step[0], error or 'the peer has gone')
        finally:
            self._connection.close()

    def cut(self):
        """End it from another thread."""
        try:
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)  # SSLSocket's own takes its TLS away first
        except EnvironmentError:
            pass  # it has ended by itself

    def _more(self):
        received = self._connection.recv(65536)
        if not received:
            raise Gone('the peer has closed')
        self._buffer += received

    def _exactly(self, size):
        while len(self._buffer) < size:
            self._more()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _until(self, mark):
        while mark not in self._buffer:
            self._more()
        taken, _, self._buffer = self._buffer.partition(mark)
        return taken

    def _read_head(self):
        lines = compat.byte_string(self._until(b'\r\n\r\n')).split('\r\n')
        headers = [tuple([part.strip() for part in line.split(':', 1)]) for line in lines[1:]]
        self.requests.append(Request(lines[0], headers, b''))

    def _read_body(self):
        request = self.requests[-1]
        headers = dict([(name.lower(), value) for name, value in request.headers])
        if headers.get('transfer-encoding') == 'chunked':
            body = b''.join(iter(self._chunk, b''))
        else:
            body = self._exactly(int(headers.get('content-length', '0')))
        self.requests[-1] = request._replace(body=body)

    def _chunk(self):
        piece = self._exactly(int(self._until(b'\r\n'), 16))
        self._until(b'\r\n')
        return piece

    def _read_request(self):
        self._read_head()
        self._read_body()

    def _read(self, size):
        self.raw += self._exactly(size)

    def _read_to_end(self):
        try:
            while True:
                self._more()
        except Gone:
            self.raw, self._buffer = self.raw + self._buffer, b''

    def _send(self, raw):
        self._connection.sendall(raw)

    def _send_slow(self, raw, seconds):
        for place in range(len(raw)):
            self._connection.sendall(raw[place:place + 1])
            self._stopped.wait(seconds)
            if self._stopped.is_set():
                raise Gone('stopped')

    def _send_for_ever(self, raw):
        while True:
            self._connection.sendall(raw)

    def _close(self):
        self._connection.close()

    def _reset(self):
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self._connection.close()

    def _hang(self):
        self._stopped.wait()

    @staticmethod
    def _call(function):
        function()


class ScriptedServer(object):
    """A server that plays scripts (see Conversation): the first connection the first one, and so on; the last repeats.

    port, url: where it listens; conversations: those begun, in the order of their connections.
    tls: the authority.Pair of a server that speaks TLS.
    """

    def __init__(self, *scripts, **options):
        pair = options.get('tls')
        self.conversations = []
        self._secure = pair and _server_side(pair)
        self._scripts = scripts
        self._threads = []
        self._stopped = threading.Event()
        self._changed = threading.Condition()  # around conversations, their `ended` and _threads
        self._listener = socket.socket()
        self._listener.bind(('127.0.0.1', 0))
        self._listener.listen(128)
        self.port = self._listener.getsockname()[1]
        self.url = '%s://127.0.0.1:%d' % ('https' if pair else 'http', self.port)
        self._acceptor = self._thread(self._accept)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def wait(self, count, seconds=10):
        """Wait until `count` conversations have ended; returns all. AssertionError after `seconds`."""
        give_up = compat.monotonic() + seconds
        with self._changed:
            while len([talk for talk in self.conversations if talk.ended]) < count:
                left = give_up - compat.monotonic()
                assert left > 0, 'not %d conversations ended in %g s' % (count, seconds)
                self._changed.wait(left)
            return list(self.conversations)

    def requests(self):
        """Return the requests of all conversations."""
        with self._changed:
            return [request for talk in self.conversations for request in talk.requests]

    def stop(self):
        """Cut every connection, listen no more, wait for the threads."""
        with self._changed:
            self._stopped.set()
            conversations, threads = list(self.conversations), list(self._threads)
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(); close() would not
        except EnvironmentError:
            pass  # stopped before
        for talk in conversations:
            talk.cut()
        for thread in [self._acceptor] + threads:
            thread.join(10)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except EnvironmentError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                if self._stopped.is_set():
                    connection.close()
                    return
                script = self._scripts[min(len(self.conversations), len(self._scripts) - 1)]
                talk = Conversation(connection, script, self._stopped, self._secure)
                self.conversations.append(talk)
                self._threads.append(self._thread(self._play, talk))

    def _play(self, talk):
        try:
            talk.run()
        finally:
            with self._changed:
                talk.ended = True
                self._changed.notify_all()

    @staticmethod
    def _thread(target, *args):
        thread = threading.Thread(target=target, args=args)
        thread.daemon = True
        thread.start()
        return thread


def _server_side(pair):
    """Return a function(connection) -> the same with TLS, for a server that shows this authority.Pair."""
    import ssl  # some Pythons have none
    context = compat.tls_context(ssl, server_side=True)
    if context is not None:
        context.load_cert_chain(pair.cert, pair.key)
        return lambda connection: context.wrap_socket(connection, server_side=True)
    return lambda connection: ssl.wrap_socket(connection, pair.key, pair.cert, server_side=True,
                                              ssl_version=ssl.PROTOCOL_SSLv23)


def tarpit():
    """Return a server that accepts connections and never reads nor answers."""
    return ScriptedServer([('hang',)])


@contextlib.contextmanager
def refusing_port():
    """Give a port that refuses connections: it is bound, so nobody else gets it, and nobody listens."""
    holder = socket.socket()
    try:
        holder.bind(('127.0.0.1', 0))
        yield holder.getsockname()[1]
    finally:
        holder.close()


# --- nginx

_NGINX_CONF = r'''
daemon off;
%(user)s
worker_processes 2;
pid "%(folder)s/nginx.pid";
error_log "%(folder)s/error.log";
events { worker_connections 256; }
http {
    client_body_temp_path "%(folder)s/tmp-body";
    proxy_temp_path "%(folder)s/tmp-proxy";
    fastcgi_temp_path "%(folder)s/tmp-fastcgi";
    uwsgi_temp_path "%(folder)s/tmp-uwsgi";
    scgi_temp_path "%(folder)s/tmp-scgi";
    map $http_x_inner $from_outside { default 1; yes 0; }
    log_format plain '$connection $request_method $request_uri $status $request_length';
    access_log "%(folder)s/access.log" plain if=$from_outside;
    default_type text/plain;
    client_max_body_size 0;
    upstream self { server 127.0.0.1:%(port)d; keepalive 8; }
    server {
        listen 127.0.0.1:%(port)d;
        root "%(folder)s";
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header X-Inner yes;
        location /stored/ { dav_methods PUT; create_full_put_path on; }
        location /in/ { proxy_method PUT; proxy_pass http://self/stored/; }
        location = /in { proxy_method PUT; proxy_pass http://self/stored/$http_x_file_name; }
        location /small { client_max_body_size 1k; proxy_pass http://self/ok; }
        location /sink { proxy_pass http://self/ok; }
        location /ok { return 200 "ok\n"; }
        location /rejects {
            default_type application/problem+json;
            return 422 '{"title": "Not an order", "detail": "field \\"total\\" is missing"}';
        }
        location /denied { return 401; }
        location /missing { return 404; }
        location /busy { add_header Retry-After 1 always; return 503; }
        location /moved { return 301 /stored/; }
    }
}
'''


class Nginx(object):
    """The system's nginx on a free port of loopback, all its files in `folder`.

    PUT /stored/NAME, any method on /in/NAME or on /in with X-File-Name: the body is stored (201 new, 204 again)
    as `stored`/NAME. /sink reads the body whole and answers 200, /ok answers before it. /small the same as /sink,
    413 over 1 KiB. /rejects 422 with problem+json, /denied 401, /missing 404, /busy 503 with Retry-After: 1,
    /moved 301.
    absent: why there is no nginx to start, or ''; port, url: valid from start() on, the same after a stop().
    """

    def __init__(self, folder):
        self.folder = folder
        self.stored = os.path.join(folder, 'stored')
        self.program = _find_nginx()
        self.absent = '' if self.program else 'there is no nginx on this machine'
        self.port = self.url = self._process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Start it and wait until it accepts connections; returns itself. RuntimeError with its log if it doesn't."""
        if not os.path.isdir(self.stored):
            os.makedirs(self.stored)
        for _ in range(1 if self.port else 5):  # between finding a free port and using it, another may take it
            with refusing_port() as free:
                port = self.port or free
            if self._try(port):
                self.port, self.url = port, 'http://127.0.0.1:%d' % port
                return self
        raise RuntimeError('nginx did not start: ' + self._read('stderr') + self._read('error.log'))

    def stop(self):
        """Stop it at once."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
        self._process = None

    def log(self):
        """Return the requests so far as lines `connection method URI status bytes`, in the order of their ends.

        A line may come a moment after its answer; after stop() all are there.
        """
        return self._read('access.log').splitlines()

    def _try(self, port):
        user = ''
        if os.geteuid() == 0:  # its workers would become another user, who can't reach the folder
            user = 'user %s %s;' % (pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name)
        conf = os.path.join(self.folder, 'nginx.conf')
        with open(conf, 'w') as page:
            page.write(_NGINX_CONF % {'folder': self.folder, 'port': port, 'user': user})
        with open(os.path.join(self.folder, 'stderr'), 'w') as errors:
            self._process = subprocess.Popen([self.program, '-p', self.folder, '-c', conf], close_fds=True,
                                             stdin=subprocess.PIPE, stdout=errors, stderr=errors)
        self._process.stdin.close()
        for _ in range(200):
            if self._process.poll() is not None:
                return False
            if _accepts(port):
                return True
            time.sleep(0.05)  # nginx doesn't tell when it is ready
        self.stop()
        return False

    def _read(self, name):
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            return ''
        with open(path) as page:
            return page.read()


def _find_nginx():
    for folder in os.environ.get('PATH', '').split(os.pathsep) + ['/usr/sbin', '/usr/local/sbin']:
        path = os.path.join(folder, 'nginx')
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def _accepts(port):
    probe = socket.socket()
    try:
        return probe.connect_ex(('127.0.0.1', port)) == 0
    finally:
        probe.close()
