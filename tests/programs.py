"""The system's own programs as children of a test: found, started in the foreground, ended for sure.

For tests/authority.py and tests/tls_servers.py. RuntimeError, with what the program said, when one doesn't start.
"""

import os
import signal
import socket
import subprocess
import time

from tests.servers import _accepts

SBIN = ['/usr/sbin', '/usr/local/sbin', '/sbin']  # not in the PATH of everybody


def find(*names):
    """Return the path of the first of these programs that is on this machine, or None."""
    for name in names:
        for folder in os.environ.get('PATH', '').split(os.pathsep) + SBIN:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
    return None


def free_ports(count):
    """Return `count` different ports of 127.0.0.1 that nobody uses at this moment."""
    holders = []
    try:
        for _ in range(count):
            holders.append(socket.socket())
            holders[-1].bind(('127.0.0.1', 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


class Daemon(object):
    """One program that listens on ports of 127.0.0.1, all its files in `folder`. A subclass says which and how:

    names, labels: the names the program may have, a label for each port.
    _configure(): write its configuration; the ports to use are in self.ports, a dictionary by label.
    _command(): the command. It has to stay in the foreground, and to write its number to the file `pid` as soon as it
        listens.

    absent: why it can't be started here, or ''. ports: valid from start() on, the same after a stop().
    """

    names = labels = ()

    def __init__(self, folder):
        self.folder = folder
        self.program = find(*self.names)
        self.absent = '' if self.program else 'there is no %s on this machine' % self.names[0]
        self.ports = {}
        self._process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Start it and wait until it listens on every port; returns itself. RuntimeError, with its logs, if not."""
        known = self.ports
        for _ in range(1 if known else 5):  # between finding a free port and using it, another may take it
            self.ports = known or dict(zip(self.labels, free_ports(len(self.labels))))
            self._configure()
            self._run()
            if self._ready():
                return self
            self.stop()
        self.ports = known
        raise RuntimeError('%s did not start: %s%s' % (self.program, self._read('output'), self._read('error.log')))

    def stop(self, patience=10):
        """End it and its children: at once by SIGTERM, and what is still there after `patience` seconds by SIGKILL."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        for _ in range(int(patience * 100)):
            if process.poll() is not None:
                break
            time.sleep(0.01)  # no wait() of 2.x has a limit
        if not _kill_group(process.pid):
            return
        process.wait()
        for _ in range(100):
            if not [port for port in self.ports.values() if _accepts(port)]:
                return
            time.sleep(0.01)  # its children end a moment later, and are not ours to wait for

    def _run(self):
        nothing = open(os.devnull)
        output = open(os.path.join(self.folder, 'output'), 'w')
        try:
            # A session of its own: no signal of the terminal reaches it (SIGWINCH ends an Apache), and killpg() its
            # children too.
            self._process = subprocess.Popen(self._command(), close_fds=True, cwd=self.folder, stdin=nothing,
                                             stdout=output, stderr=output, preexec_fn=os.setsid)
        finally:
            nothing.close()
            output.close()

    def _ready(self):
        # That the ports accept proves nothing: another program may have taken one, and nginx tries for 2.5 s more
        # before it gives up. Its pid a program writes only when it listens on all of them.
        expected = str(self._process.pid)
        for _ in range(1000):
            if self._read('pid').strip() == expected:
                return True
            if self._process.poll() is not None:
                return False
            time.sleep(0.01)  # none of them tells when it is ready
        return False

    def _write(self, name, text):
        with open(os.path.join(self.folder, name), 'w') as page:
            page.write(text)

    def _read(self, name):
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            return ''
        with open(path) as page:
            return page.read()


def _kill_group(number):
    """Send SIGKILL to all processes of a group; False if there are none."""
    try:
        os.killpg(number, signal.SIGKILL)
    except OSError:
        return False
    return True
