"""One agent a spool: of two that start at once one works, whatever a crash or a surviving cURL left behind.

bench/double_start.py does the same a thousand times with whole programs.
"""

import os
import signal

import pytest

from agent import compat, engine
from agent.errors import LockedError
from tests import senders
from tests.servers import ScriptedServer, ok
from tests.test_end_to_end import host, read, until  # noqa: F401 (host is a fixture)

ROUNDS = 20
HANGS = [('read_request',), ('hang',)]
ANSWERS = [('read_request',), ('send', ok())]


class Rival(object):
    """A child that takes the spools as soon as the barrier, a pipe, is closed, and keeps them until it is killed."""

    def __init__(self, path, barrier):
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writing)
            return
        try:
            os.close(barrier[1])
            os.read(barrier[0], 1)
            try:
                spools = engine.lock_spools([path])
                os.write(writing, b'works')
                while spools:
                    signal.pause()
            except LockedError as error:
                os.write(writing, compat.config_bytes(str(error)))
        finally:
            os._exit(0)

    def says(self):
        """Wait for what it says."""
        return compat.retry_interrupted(os.read, self._reading, 1000)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._reading)


def test_of_two_that_start_at_once_one_works_and_its_crash_leaves_no_lock(tmpdir):
    path = str(tmpdir)
    for _ in range(ROUNDS):
        barrier = os.pipe()
        rivals = [Rival(path, barrier) for _ in range(2)]
        try:
            os.close(barrier[0])
            os.close(barrier[1])
            words = [rival.says() for rival in rivals]
        finally:
            for rival in rivals:
                rival.kill()  # the holder has no time to give anything back
        assert words.count(b'works') == 1, words
        winner = words.index(b'works')
        refused = compat.config_native(words[1 - winner])
        assert refused.startswith('%s: another agent has this spool: ' % path)
    # What it says of the holder is what the lock held at that moment: an earlier one, or none while it is written.
    assert read(os.path.join(path, '.envio', 'lock')).startswith(
        compat.wire('pid %d since ' % rivals[winner].pid))


def test_whole_programs_that_start_at_once_send_a_file_once(host):  # noqa: F811
    refused, held = os.pipe()
    with ScriptedServer([('read_request',), ('call', lambda: os.read(refused, 1)), ('send', ok())]) as server:
        host.configure((server.url, ''))
        files = {}
        for number in range(2):
            files.update(host.put({'f%d' % number: b'content'}))
            agents = [host.start('once') for _ in range(3)]
            ends = []
            while len(ends) < 2:
                until(lambda: [one for one in agents if not alive(one.pid)], 'two of three end')
                ended = [one for one in agents if not alive(one.pid)][0]
                agents.remove(ended)
                ends.append(ended.end()[0])
            assert ends == [75, 75]
            os.write(held, b'x')
            assert agents[0].end() == (0, '', '')
            assert len(server.requests()) == number + 1
        assert host.sent() == files
    os.close(refused)
    os.close(held)


@pytest.mark.parametrize('transport', ['native', 'curl'])
def test_after_sigkill_the_next_agent_starts_at_once_though_the_first_ones_curl_lives_on(host, transport):  # noqa: F811
    if transport == 'curl' and senders.no_curl():
        pytest.skip(senders.no_curl())
    with ScriptedServer(HANGS, ANSWERS) as server:
        host.configure((server.url, 'transport = %s' % transport))
        files = host.put({'a': b'content'})
        first = host.start('run')
        first.until(server.requests, 'the file is out')
        children = [pid for pid in processes() if parent(pid) == first.pid]
        first.signal(signal.SIGKILL)
        assert first.end()[0] == -9
        assert len(children) == (1 if transport == 'curl' else 0)
        for pid in children:
            assert alive(pid), 'it has a session of its own, and its receiver is silent'
            assert lock_of(host) not in descriptors(pid)
        assert host.once() == (0, '', '')
        assert host.sent() == files and len(server.requests()) == 2
        for pid in children:
            assert alive(pid), 'it lived all the time'
        assert not server.conversations[0].ended


def test_several_curls_at_once_have_the_file_and_nothing_else_of_the_spool(host):  # noqa: F811
    if senders.no_curl():
        pytest.skip(senders.no_curl())
    with ScriptedServer(HANGS) as server:
        host.configure((server.url, 'transport = curl\nbrake = 0'))
        host.put(dict([('f%d' % number, b'content') for number in range(4)]))
        agent = host.start('run')
        agent.until(lambda: len(server.requests()) == 4, 'four files are out')
        children = [pid for pid in processes() if parent(pid) == agent.pid]
        assert len(children) == 4
        assert lock_of(host) in descriptors(agent.pid), 'it can be told here'
        for pid in children:
            assert lock_of(host) not in descriptors(pid)
            paths = [path for path in descriptors(pid) if path.startswith(host.spool)]
            assert len([path for path in paths if '/.envio/' not in path]) >= 1, 'the file'
            assert [path for path in paths if '/.envio/' in path and '/.envio/curl.' not in path] == []


# --- what the kernel says

def lock_of(host):  # noqa: F811
    return os.path.join(host.spool, '.envio', 'lock')


def processes():
    return [int(name) for name in os.listdir('/proc') if name.isdigit()]


def status_of(pid):
    """Return the fields of /proc/PID/stat after the name, or None when there is no such process."""
    try:
        return read('/proc/%d/stat' % pid).rpartition(b') ')[2].split()
    except EnvironmentError:
        return None


def parent(pid):
    found = status_of(pid)
    return found and int(found[1])


def alive(pid):
    found = status_of(pid)
    return bool(found) and found[0] != b'Z'


def descriptors(pid):
    """Return the paths of what a process has open."""
    folder, found = '/proc/%d/fd' % pid, []
    for name in os.listdir(folder):
        try:
            found.append(os.readlink(os.path.join(folder, name)))
        except EnvironmentError:
            pass  # closed meanwhile
    return found
