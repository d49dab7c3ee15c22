"""The receivers of soak.py: healthy and sick ones, that take a note of every file that came whole and was accepted."""

import base64
import gzip
import hashlib
import http.client
import random
import re
import socket
import ssl
import struct
import threading
import time
import urllib.parse


def whose(name):
    """Return the name under which a file was put: the agent numbers those whose name is taken."""
    return re.match(r'(.*?\.dat)(?:\.[0-9]+)*\Z', name).group(1)


class Receiver(object):
    """One receiver of one agent, on a port of its own; a thread for each connection.

    taken: set to which (name, digest) of every file goes that came whole and was accepted; faults: list of sentences.
    sick: it does what its kind says only while this is True (busy, tarpit); calm: it accepts everything.
    """

    def __init__(self, kind, taken, faults, pair=None):
        self.kind, self._taken, self._faults = kind, taken, faults
        self.sick = self.calm = False
        self._connections = set()
        self._context = None
        if pair:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(pair.cert, pair.key)
        self._listener = self._bound(0)
        self._port = self._listener.getsockname()[1]
        self.url = '%s://127.0.0.1:%d' % ('https' if pair else 'http', self._port)
        self._listening = False
        self.open()

    @staticmethod
    def _bound(port):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(('127.0.0.1', port))
        return listener

    def open(self):
        """Listen, if it does not."""
        if not self._listening:
            self._listening = True
            self._listener.listen(128)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self):
        """Refuse connections and cut those that are; the port stays ours."""
        if not self._listening:
            return
        self._listening = False
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._listener = self._bound(self._port)
        for connection in list(self._connections):
            try:
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        self._connections.add(connection)
        plain, stream = connection, None
        try:
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
            stream = connection.makefile('rb')
            while self._exchange(connection, stream):
                pass
        except (OSError, ValueError):
            pass  # the agent, or shut(), has ended it
        finally:
            self._connections.discard(plain)
            if stream is not None:
                stream.close()
            connection.close()

    def _exchange(self, connection, stream):
        """Take one request; return True when another may come."""
        if not stream.readline(65536):
            return False
        headers = http.client.parse_headers(stream)
        while self.sick and self.kind == 'tarpit':
            time.sleep(0.5)
        size, name = int(headers['Content-Length']), whose(urllib.parse.unquote(headers['X-File-Name']))
        if headers['Expect'] and random.random() < 0.7:
            connection.sendall(b'HTTP/1.1 100 Continue\r\n\r\n')
        cuts = not self.calm and self.kind == 'cuts' and random.random() < 0.2
        if cuts and random.random() < 0.25:
            stream.read(size // 2)
            return self._reset(connection)
        body = stream.read(size)
        if len(body) < size:
            return False
        accepts, answer = self._answer(cuts)
        if accepts:
            self._taken.add((name, hashlib.sha1(self._content(name, headers, body)).digest()))
        connection.sendall(answer)
        if cuts and random.random() < 0.5:
            return self._reset(connection)
        return not cuts and b'Connection: close' not in answer

    @staticmethod
    def _reset(connection):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        return False

    def _answer(self, cuts):
        """Return (whether the agent is told that it is accepted, the answer's bytes)."""
        good = b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n'
        if cuts:
            place = random.choice((0, 12, len(good) - 2))
            return place > 12, good[:place]
        chance = 1 if self.calm else random.random()
        if self.kind == 'rejects' and chance < 0.25:
            body = b'{"title": "Not an order", "detail": "field \\"total\\" is missing"}'
            return False, (b'HTTP/1.1 422 No\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%s'
                           % (len(body), body))
        if self.kind == 'busy' and self.sick:
            return False, (b'HTTP/1.1 503 Busy\r\n%sContent-Length: 0\r\n\r\n'
                           % (b'Retry-After: 3\r\n' if chance < 0.3 else b''))
        if self.kind == 'ok' and chance < 0.1:
            return True, (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok\n\r\n0\r\n\r\n'
                          if chance < 0.08 else b'HTTP/1.1 201 Made\r\nConnection: close\r\n\r\nread me to the end')
        return True, good

    def _content(self, name, headers, body):
        """Return the file that a body brings."""
        told = re.match('sha-256=:(.*):', headers['Content-Digest'] or '')
        if self.kind == 'made' and not (told and base64.b64decode(told.group(1)) == hashlib.sha256(body).digest()):
            self._faults.append('%s: no Content-Digest that fits' % name)
        if headers['Content-Encoding'] == 'gzip':
            body = gzip.decompress(body)
        if headers['Content-Type'].startswith('multipart/form-data'):
            end = b'\r\n--%s--\r\n' % headers['Content-Type'].partition('boundary=')[2].encode()
            head, _, body = body.partition(b'\r\n\r\n')
            if not body.endswith(end) or name.encode() not in head:
                self._faults.append('%s: its form is not whole' % name)
            body = body[:-len(end)]
        return body
