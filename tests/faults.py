"""System calls that fail in a running agent: strace attaches to it, fails what it is told to, and lets go again.

Attached only once the agent has started: how Python itself begins is not what is tried here. What is shared by
test_faults.py and bench/faults.py.
"""

import errno
import os
import re
import signal
import subprocess
import time

from agent import compat, receiver as tryout
from tests.programs import find
from tests.test_end_to_end import Host, read, until

# What is asked of the kernel, by all the names that Pythons and libcs have for it (`?`: not everywhere).
CALLS = {
    'open': '?open,openat', 'read': 'read,?pread64', 'fstat': '?stat,?fstat,?lstat,?newfstatat,?statx',
    'folder': '?getdents,getdents64', 'rename': '?rename,?renameat,?renameat2,?link,?linkat',
    'unlink': '?unlink,unlinkat,?rmdir', 'mkdir': '?mkdir,mkdirat', 'fsync': 'fsync,fdatasync',
    'write': 'write,?writev,?pwrite64', 'socket': 'socket', 'setsockopt': 'setsockopt', 'connect': 'connect',
    'send': '?send,sendto,sendmsg', 'recv': '?recv,recvfrom,recvmsg', 'fork': '?fork,?vfork,clone,?clone3',
    'pipe': '?pipe,pipe2', 'wait': '?poll,ppoll,?select,?pselect6',
}
ERRORS = ('ENOSPC', 'EIO', 'EROFS', 'EDQUOT', 'EACCES', 'EMFILE', 'ENFILE', 'ENOMEM', 'EINTR')
# A call that is interrupted succeeds the next time: Python may try it again for ever.
_WHEN = {'EINTR': '1+2'}

# Loaded by the agent's Python as it starts: what is waited for in seconds there takes tenths of one here.
_HURRY = """\
from agent import collector, lanes, metrics, state
collector.TOLD_INTERVAL = lanes.MOVE_PAUSE = metrics.EVERY = 0.2
state.EVERY = 0.1
"""
# What only a fault of the program says.
CALM = ('Traceback', 'fault of the program', 'internal error')
_FILES = ('ok', 'no', 'later')  # endings: accepted, rejected, accepted the second time
_PAUSES = 'brake = 0\nbreaker_pause = 50ms\nbreaker_max_pause = 100ms\nretry_pause = 50ms\nretry_max_pause = 100ms\n'


def absent():
    """Return why no call can be made to fail here, or ''."""
    program = find('strace')
    if not program:
        return 'there is no strace on this machine'
    trial = subprocess.Popen([program, '-qq', '-e', 'trace=none', '-e', 'inject=fsync:error=EIO', '/bin/true'],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = trial.communicate()[0]
    return 'strace can\'t do it here: %s' % compat.byte_string(said) if trial.returncode else ''


class Fault(object):
    """Calls of the process `pid`, and of what it starts, fail from the beginning of a `with` to its end.

    which: list of (call, error, when): one of CALLS or names of system calls, the name of an errno, and `first+step`
    as strace has it, None = always; paths: only calls that have to do with one of these; log: a file for what strace
    sees.
    """

    def __init__(self, pid, which, log, paths=()):
        self.pid, self._log = pid, log
        self._command = [find('strace'), '-f', '-qq', '-o', log, '-p', '%d' % pid, '-e',
                         'trace=' + ','.join([CALLS.get(call, call) for call, _, _ in which])]
        for call, error, when in which:
            self._command += ['-e', 'inject=%s:error=%s:when=%s' % (
                CALLS.get(call, call), error, when or _WHEN.get(error, '1+'))]
        for path in paths:
            self._command += ['-P', path]

    def __enter__(self):
        nothing = open(os.devnull, 'r+')
        try:
            self._strace = subprocess.Popen(self._command, stdin=nothing, stdout=nothing, stderr=nothing)
        finally:
            nothing.close()
        until(self._attached, lambda: 'strace attaches: %s' % self._command)
        return self

    def _attached(self):
        assert self._strace.poll() is None, 'strace ended: %s' % self._command
        for thread in os.listdir('/proc/%d/task' % self.pid):
            status = '/proc/%d/task/%s/status' % (self.pid, thread)
            if os.path.exists(status) and b'TracerPid:\t0\n' in read(status):
                return False
        return True

    def __exit__(self, *_):
        if self._strace.poll() is None:
            self._strace.send_signal(signal.SIGINT)
        if not wait_for(lambda: self._strace.poll() is not None, 2):
            self._strace.kill()  # it waits for a child that vfork() made and that waits for it; the kernel frees both
        self._strace.wait()

    def count(self):
        """Return how many calls have failed so far."""
        return len(re.findall(br'\(INJECTED\)', read(self._log)))


class Scene(Host):
    """A receiver that accepts, rejects and is busy at first, and an agent whose calls may fail.

    options: lines for [agent]; keys: lines for the receiver's section.
    """

    def __init__(self, folder, options='', keys=''):
        Host.__init__(self, folder)
        self.answers, self.files = [], {}
        self.stored = os.path.join(self.folder, 'stored')
        self.server = tryout.serve(folder=self.stored, say=self.answers.append).start()
        keys = keys if 'pause' in keys else _PAUSES + keys
        self.configure((self.server.url + '/in', keys), agent='workers = 3\n' + options)
        hurry = os.path.join(self.folder, 'hurry')
        os.mkdir(hurry)
        with open(os.path.join(hurry, 'sitecustomize.py'), 'w') as page:
            page.write(_HURRY)
        self.surroundings = {'PYTHONPATH': hurry + ':' + os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}
        self._faults = 0

    def begin(self):
        """Start the agent, and wait until it works."""
        self.agent = self.start('run', **self.surroundings)
        self.agent.hears('started')
        return self.agent

    def fault(self, call, error, paths=()):
        """Return a Fault of the agent: calls that always fail."""
        return self.mix([(call, error, None)], paths)

    def mix(self, which, paths=()):
        """Return a Fault of the agent of several calls."""
        self._faults += 1
        return Fault(self.agent.pid, which, os.path.join(self.folder, 'strace%d' % self._faults), paths)

    def more(self, count=2):
        """Put `count` files of each kind into the spool; kept connections are cut, so that others are made."""
        self.server.stop()
        number = len(self.files)
        fresh = dict([('%d-%d.%s' % (number, one, kind), os.urandom(500)) for one in range(count) for kind in _FILES])
        busy = ['%s=503:times=1' % name for name in sorted(fresh) if name.endswith('.later')]
        self.server.answer(','.join(busy + ['*.no=422']))
        self.server.start()
        self.files.update(self.put(fresh))
        return fresh

    def through(self):
        """Wait until all files have gone where they belong, and check that they are there, whole, once and answered."""
        self.agent.until(lambda: not self.left(), 'all files go')
        places = self.places()
        odd = [name for name in set(places).union(self.files) if places.count(name) != (name in self.files)]
        assert not odd, [(name, places.count(name)) for name in odd]
        sent, rejected, stored = self.sent(), self.rejected(), self.received()
        accepted = dict([item for item in self.files.items() if not item[0].endswith('.no')])
        assert sent == accepted, sorted(sent)
        for name, content in accepted.items():
            assert stored.get(name) == content, '%s was not received as it was' % name
        for name in set(self.files) - set(accepted):
            assert rejected.get(name) == self.files[name], name
            assert is_reason(rejected.get(name + '.reason', b''), name), (name, rejected.get(name + '.reason'))
            assert self.answered(name, 422), '%s was never rejected' % name
        assert len(rejected) == 2 * (len(self.files) - len(accepted)), sorted(rejected)

    def left(self):
        """Return the names of the files that wait."""
        return [name for name in os.listdir(self.spool) if name in self.files]

    def received(self):
        """Return {name: bytes} of what the receiver accepted."""
        return dict([(name, read(os.path.join(self.stored, name))) for name in os.listdir(self.stored)
                     if not name.startswith('.')])

    def answered(self, name, status):
        """Return how often the receiver has answered a file with this status."""
        return len([line for line in list(self.answers) if ' %s (' % name in line and ': %d ' % status in line])

    def calm(self, descriptors):
        """Check that the agent is as it was before: it has said nothing of a fault of its own, it has no more than
        `descriptors` and one for each worker, and its status can be asked for."""
        everything = self.agent.said()
        assert not [word for word in CALM if word in everything], everything
        assert self.descriptors() <= descriptors + 3, 'descriptors are lost'
        assert self.status()[0] in (0, 1, 2)

    def status(self):
        """Return the exit code and the output of `envio status`."""
        return self.start('status').end()[:2]

    def descriptors(self):
        """Return how many descriptors the agent has open."""
        return len(os.listdir('/proc/%d/fd' % self.agent.pid))

    def close(self):
        """End everything."""
        for agent in self.agents:
            agent.kill()
        self.server.stop()


def is_reason(raw, name):
    """Return True for a complete reason file of this name."""
    lines = compat.config_native(raw).split('\n')
    fields = dict([line.split(': ', 1) for line in lines if ': ' in line])
    return fields.get('File') == name and 'Reason' in fields and 'Requeue' in fields and raw.endswith(b'\n')


def words(error):
    """Return what the agent calls this error (the name of an errno)."""
    return os.strerror(getattr(errno, error))


def wait_for(condition, seconds):
    """Wait until condition() is true, so many seconds at most; return whether it is."""
    end = compat.monotonic() + seconds
    while not condition() and compat.monotonic() < end:
        time.sleep(0.01)  # another process is waited for, and it tells nobody
    return condition()
