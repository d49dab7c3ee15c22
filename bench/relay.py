"""A relay that is far away: `relay.py PORT SECONDS` passes on to 127.0.0.1:PORT what comes, and what comes back, each
half of SECONDS later.

It prints its own port and serves until it is ended. Each piece has its own time, so that connections don't wait for
each other; a new connection is deaf for SECONDS, which its handshake would take. For bodies of a few KB: nothing holds
back a side that sends faster than the other reads. peers.py uses it where the kernel has no netem.
"""

import heapq
import itertools
import select
import socket
import sys
import time


class Relay(object):
    """Sockets, and what is to be done at which time."""

    def __init__(self, port, seconds):
        self.target = '127.0.0.1', port
        self.seconds = seconds
        self.listener = socket.socket()
        self.listener.bind(('127.0.0.1', 0))
        self.listener.listen(512)
        self.poll = select.epoll()
        self.poll.register(self.listener, select.EPOLLIN)
        self.peers = {}  # fd -> (socket, socket of the other side)
        self.coming = []  # heap of (time, number, function, arguments)
        self.numbers = itertools.count()

    def later(self, seconds, function, *arguments):
        heapq.heappush(self.coming, (time.monotonic() + seconds, next(self.numbers), function, arguments))

    def serve(self):
        while True:
            wait = max(0, self.coming[0][0] - time.monotonic()) if self.coming else None
            select.select([self.poll], [], [], wait)  # epoll's own wait knows only whole milliseconds
            for fd, _ in self.poll.poll(0):
                if fd == self.listener.fileno():
                    self.accept()
                elif fd in self.peers:
                    self.read(fd)
            while self.coming and self.coming[0][0] <= time.monotonic():
                _, _, function, arguments = heapq.heappop(self.coming)
                function(*arguments)

    def accept(self):
        client = self.listener.accept()[0]
        server = socket.create_connection(self.target)
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.later(self.seconds, self.open, client, server)

    def open(self, client, server):
        for sock, other in ((client, server), (server, client)):
            self.peers[sock.fileno()] = sock, other
            self.poll.register(sock, select.EPOLLIN)

    def read(self, fd):
        sock, other = self.peers[fd]
        try:
            piece = sock.recv(1 << 18)
        except OSError:
            piece = b''
        if piece:
            self.later(self.seconds / 2, self.send, other, piece)
        else:
            self.poll.unregister(sock)
            self.later(self.seconds / 2, self.close, sock, other)

    @staticmethod
    def send(sock, piece):
        try:
            sock.sendall(piece)
        except OSError:
            pass  # closed meanwhile: its end is read, too

    def close(self, *pair):
        for sock in pair:
            self.peers.pop(sock.fileno(), None)
            sock.close()


def main():
    relay = Relay(int(sys.argv[1]), float(sys.argv[2]))
    print(relay.listener.getsockname()[1], flush=True)
    relay.serve()


if __name__ == '__main__':
    main()
