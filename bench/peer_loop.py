"""The peer that is no program to use but a measure: the least that Python has to do to send files and move them.

    peer_loop.py FOLDER URL WORKERS [CA]: PUT each file of FOLDER to URL/NAME, then move it to FOLDER/sent.

One thread; as many connections as workers, each with a request before an answer is read. It looks at no answer but for
its status, and gives up at anything that is not as it should be: a lost connection, another status, a shorter file.
"""

import os
import socket
import ssl
import sys

PIECE = 262144


class Connection(object):
    def __init__(self, address, ca):
        self._address, self._ca = address, ca
        self.sock = None

    def send(self, path, name):
        if self.sock is None:
            self.sock = socket.create_connection(self._address)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._ca:
                self.sock = ssl.create_default_context(cafile=self._ca).wrap_socket(
                    self.sock, server_hostname=self._address[0])
        fd = os.open(path, os.O_RDONLY)
        left = os.fstat(fd).st_size
        pending = b'PUT /%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n' % (
            name.encode('ascii'), self._address[0].encode('ascii'), left)
        while left:
            piece = os.read(fd, PIECE)
            if not piece:
                sys.exit('%s: shorter than it was' % name)
            left -= len(piece)
            self.sock.sendall(pending + piece)
            pending = b''
        os.close(fd)

    def finish(self, name):
        head = self.sock.recv(65536)
        while b'\r\n\r\n' not in head:
            more = self.sock.recv(65536)
            if not more:
                sys.exit('%s: the connection was closed' % name)
            head += more
        if not head.startswith(b'HTTP/1.1 201') or b'Content-Length: 0' not in head:
            sys.exit('%s: %r' % (name, head))
        if b'Connection: close' in head:
            self.sock.close()
            self.sock = None


def main():
    folder, url, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    os.makedirs(os.path.join(folder, 'sent'), exist_ok=True)
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file()]
    host, port = url.split('//')[1].split(':')
    connections = [Connection((host, int(port)), sys.argv[4] if sys.argv[4:] else None) for _ in range(workers)]
    for first in range(0, len(names), workers):
        out = list(zip(connections, names[first:first + workers]))
        for connection, name in out:
            connection.send(folder + '/' + name, name)
        for connection, name in out:
            connection.finish(name)
            os.rename(folder + '/' + name, folder + '/sent/' + name)


if __name__ == '__main__':
    main()
