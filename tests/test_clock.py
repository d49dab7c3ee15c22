"""A clock that is set by a day, back or ahead, while the agent runs and between two passes: no stop, no storm, no pause
that stretches.

libfaketime changes what the agent takes for the time of day, from one call to the next. CLOCK_MONOTONIC and the
times of files stay as they are: so it is when somebody sets the clock of a real host.
"""

import glob
import json
import os
import signal
import time

import pytest

from agent import compat
from tests import senders
from tests.servers import ScriptedServer, ok
from tests.test_end_to_end import host, read  # noqa: F401 (host is a fixture)

LIBRARIES = glob.glob('/usr/lib*/faketime/libfaketime.so.1') + glob.glob('/usr/lib*/*/faketime/libfaketime.so.1')
TICKS = float(os.sysconf('SC_CLK_TCK'))
AGAIN = [('read_request',), ('send', ok())] * 40
BUSY = [('read_request',), ('send', ok(status='503 Down'))] * 200
JUMPS = {'+0': 0, '+1d': 86400, '-1d': -86400}

pytestmark = pytest.mark.skipif(not LIBRARIES, reason='there is no libfaketime on this machine')


class Clock(object):
    """What the time is for the programs that get `environ`. set() takes hold at once."""

    def __init__(self, folder):
        self._path = os.path.join(folder, 'clock')
        self.environ = {'LD_PRELOAD': LIBRARIES[0], 'FAKETIME_TIMESTAMP_FILE': self._path, 'FAKETIME_NO_CACHE': '1',
                        'FAKETIME_DONT_FAKE_MONOTONIC': '1', 'NO_FAKE_STAT': '1',
                        'FAKETIME_FORCE_MONOTONIC_FIX': '0'}  # else it measures at each start whether it needs to
        self.set('+0')

    def set(self, offset):
        """Let the clock be wrong by `offset` (such as -1d) from now on."""
        with open(self._path + '.new', 'w') as page:
            page.write(offset + '\n')
        os.rename(self._path + '.new', self._path)


@pytest.fixture
def clock(host):  # noqa: F811
    yield Clock(host.folder)
    for agent in host.agents:
        # The library leaves these of each shell that became the agent.
        for path in glob.glob('/dev/shm/*faketime_*_%d' % agent.pid):
            os.unlink(path)


def days_of(host):  # noqa: F811
    """Return {name of a sent file: its day}."""
    top = os.path.join(host.spool, 'sent')
    return dict([(name, day) for day in os.listdir(top) for name in os.listdir(os.path.join(top, day))])


def day(offset):
    return time.strftime('%Y-%m-%d', time.localtime(time.time() + JUMPS[offset]))


def processor_seconds(pid):
    fields = read('/proc/%d/stat' % pid).rpartition(b') ')[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def end(agent):
    """End an agent; return what it said."""
    agent.signal(signal.SIGTERM)
    code, _, said = agent.end()
    assert code == 0 and 'Traceback' not in said and 'fault' not in said
    return said


# --- while it runs

def test_files_go_on_leaving_and_the_folders_of_sent_follow_the_clock(host, clock):  # noqa: F811
    with ScriptedServer(AGAIN) as server:
        host.configure((server.url, ''))
        page = read(host.conf).replace(b'settle = 0', b'settle = 50ms')
        with open(host.conf, 'wb') as stream:
            stream.write(page)
        agent = host.start('run', **clock.environ)
        for number, jump in enumerate(('+0', '+1d', '-1d', '+1d', '+0')):
            name = 'f%d' % number
            clock.set(jump)
            before = day(jump)
            host.put({name: b'content'})
            agent.until(lambda: name in host.sent(), 'it is sent at %s' % jump)
            assert days_of(host)[name] in (before, day(jump))
        end(agent)
        assert len(server.requests()) == 5


def test_a_receiver_that_is_down_gets_what_its_pauses_allow_and_no_more(host, clock):  # noqa: F811
    least = 0.1  # seconds between two probes: half of the pause
    with ScriptedServer(BUSY) as server:
        host.configure((server.url, 'breaker_threshold = 3\nbreaker_pause = 200ms\nbreaker_max_pause = 200ms\n'
                        'retry_pause = 200ms\nretry_max_pause = 200ms'), agent='workers = 1')
        files = host.put(dict([('f%d' % number, b'content') for number in range(10)]))
        begin = compat.monotonic()
        agent = host.start('run', **clock.environ)
        agent.until(lambda: len(server.requests()) >= 3, 'it is tried')
        begin_processor, begin_jumps = processor_seconds(agent.pid), compat.monotonic()
        for jump in ('-1d', '+1d', '-1d', '+0', '+1d'):
            before = len(server.requests())
            clock.set(jump)
            agent.until(lambda: len(server.requests()) >= before + 2, 'two probes after %s' % jump)
        took = compat.monotonic() - begin_jumps
        assert processor_seconds(agent.pid) - begin_processor < took / 2, 'it waits, it does not spin'
        assert len(server.requests()) <= 3 + (compat.monotonic() - begin) / least + 1
        end(agent)
        assert host.waiting() == files


@pytest.mark.parametrize('transport', ['native', 'curl'])
def test_the_deadline_comes_though_the_clock_is_set_back_meanwhile(host, clock, transport):  # noqa: F811
    if transport == 'curl' and senders.no_curl():
        pytest.skip(senders.no_curl())
    hangs = [('read_request',), ('call', lambda: clock.set('-1d')), ('hang',)]
    with ScriptedServer(hangs, AGAIN) as server:
        host.configure((server.url, 'transport = %s\ndeadline = 400ms\nretry_pause = 1ms' % transport))
        files = host.put({'a': b'content'})
        agent = host.start('run', '-v', **clock.environ)
        agent.until(lambda: host.sent() == files, 'it is sent the second time')
        assert len(server.requests()) == 2
        assert ': RETRY by orders: ' in end(agent)


def test_no_time_is_over_because_the_clock_is_set_ahead(host, clock):  # noqa: F811
    agents = []

    def jump():
        clock.set('+1d')
        agents[0].heeds()  # its main thread has had several turns since
    script = [('read_request',), ('call', jump), ('send', ok())] + AGAIN
    with ScriptedServer(script) as server:
        host.configure((server.url, 'read_timeout = 1h\ndeadline = 1h'), agent='workers = 1')
        files = host.put(dict([('f%d' % number, b'content') for number in range(5)]))
        clock.set('-1d')
        agents.append(host.start('once', '--max-time', '1h', **clock.environ))
        assert agents[0].end()[0] == 0
        assert host.sent() == files and len(server.requests()) == 5


# --- between two passes

def passes(host, clock, offset, *arguments):  # noqa: F811
    """Run a command with the clock wrong by `offset`; return (exit code, stdout)."""
    clock.set(offset)
    code, out, err = host.start(*arguments, **clock.environ).end()
    assert 'Traceback' not in err and '": -' not in out, 'no number is below 0: ' + err + out
    return code, out


def waits(host, clock, offset):  # noqa: F811
    """Return {name: seconds until its next try}, as `envio list` says it then."""
    return dict([(row['name'], row['next'])
                 for row in json.loads(passes(host, clock, offset, 'list', '--json')[1])['files']])


def test_a_pause_of_an_earlier_pass_is_no_longer_and_no_shorter_for_a_clock_set_back(host, clock):  # noqa: F811
    with ScriptedServer(BUSY) as server:
        host.configure((server.url, 'breaker_threshold = 1\nbreaker_pause = 1h\nbreaker_max_pause = 1h\n'
                        'retry_pause = 1h\nretry_max_pause = 1h'), agent='workers = 1')
        host.put(dict([('f%d' % number, b'content') for number in range(10)]))
        assert passes(host, clock, '+1d', 'once')[0] == 75
        assert len(server.requests()) == 1
        longest = max(waits(host, clock, '+1d').values())
        assert 1800 - 60 < longest <= 3600

        # The clock is set back: the state was written tomorrow.
        found = waits(host, clock, '+0')
        assert len(found) == 10 and 0 < max(found.values()) <= 3600
        code, out = passes(host, clock, '+0', 'status', '--json')
        shown, = json.loads(out)['receivers']
        assert (code, shown['state']) == (2, 'OPEN')
        assert 0 < shown['until'] - json.loads(out)['now'] <= 3600
        for _ in range(2):
            assert passes(host, clock, '+0', 'once')[0] == 75
        assert len(server.requests()) == 1, 'the pause holds'
        assert 0 < max(waits(host, clock, '+10m').values()) <= longest - 600 + 1, 'and runs down from the next pass on'

        # Set ahead, over its end: one probe, not ten.
        assert passes(host, clock, '+1d', 'once')[0] == 75
        assert len(server.requests()) == 2


def test_status_does_not_take_a_pass_of_tomorrow_for_one_within_the_hour(host, clock):  # noqa: F811
    with ScriptedServer(AGAIN) as server:
        host.configure((server.url, ''))
        host.put({'a': b'content'})
        assert passes(host, clock, '+1d', 'once')[0] == 0
        host.put({'b': b'waits for an agent that does not come'})
        assert passes(host, clock, '+0', 'status', '--json')[0] == 0
        code, out = passes(host, clock, '+2h', 'status', '--json')
    assert code == 2 and 'no agent, and 1 file waiting, the oldest for 2 h' in json.loads(out)['summary']
