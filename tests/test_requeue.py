"""`envio requeue` and `envio flush`, as users meet them: what moves, what stays, what is said."""

import os
import signal
import subprocess
import sys

import pytest

from agent import compat, reasons, state
from agent.records import FILE, NACK, LaneState, Outcome, Stamp, Tried
from agent.spool import Spool
from agent.state import State
from tests import nobody
from tests.conftest import ROOT
from tests.samples import receiver, ticket
from tests.test_cli import Host
from tests.test_spool import ODD_NAMES

CALM = LaneState('CLOSED', 0, 0, 0, '', 0, 0, 0, True, 4)
STAMP = Stamp(1, 2, 3, 4, 5)
REJECTED = Outcome(NACK, FILE, 422, '422 Unprocessable Content', None, False, None, True, False)
NOT_UTF_8 = compat.fs_native(b'\xff\xfe.json')


class Desk(Host):
    """A host with a second spool, on which files are rejected by hand."""

    def __init__(self, folder, capsys):
        Host.__init__(self, folder, capsys)
        self.other = os.path.join(self.folder, 'other')
        os.mkdir(self.other)

    def two_spools(self):
        self.write('[agent]\nspool = %s\n %s\n[receiver:orders]\nmatch = *.json\nurl = http://127.0.0.1:9/\n' % (
            self.spool, self.other))

    def reject(self, name, by='orders', spool=None, collected_as=None):
        folder = os.path.join(spool or self.spool, 'error')
        if not os.path.isdir(folder):
            os.mkdir(folder)
        path = os.path.join(folder, name)
        with open(path, 'wb') as stream:
            stream.write(compat.fs_bytes(name))
        one = ticket(receiver(by), collected_as or name)
        if len(compat.fs_bytes(name)) < 245:
            with open(path + '.reason', 'wb') as stream:
                stream.write(reasons.compose(one, REJECTED, 'key', self.config, 0))
        return path

    def rejected(self, spool=None):
        return sorted(os.listdir(os.path.join(spool or self.spool, 'error')))

    def keep(self, spool=None, **fields):
        """Write a state of two receivers on hold, open and paused, and a file of each."""
        kept = State(written=1000.0, since=500.0)
        worst = CALM._replace(breaker='OPEN', until=100, held='because', hold_due=200, paused=300)
        kept.lanes = {'orders': worst, 'http://plugged.in': worst}
        kept.tried = {'a.json': Tried(STAMP, 3, 60.0, '503', True, 'orders'),
                      'b': Tried(STAMP, 2, 60.0, '503', False, 'http://plugged.in')}
        spool = spool or self.spool
        if not os.path.isdir(spool + '/.envio'):
            os.mkdir(spool + '/.envio')
        state.write(spool, kept)

    def pauses(self, name):
        """Return whether the state still has pauses of a receiver."""
        kept = state.read(self.spool)
        lane = kept.lanes[name]
        dues = [tried.due for tried in kept.tried.values() if tried.receiver == name]
        return [bool(number) for number in [lane.until, lane.hold_due, lane.paused] + dues]

    def run(self, *words):
        return self.call('-c', self.config, *words)


@pytest.fixture
def host(tmpdir, capsys):
    host = Desk(tmpdir, capsys)
    yield host
    for process in host.processes:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


# --- requeue

def content(path):
    with open(path, 'rb') as stream:
        return stream.read()


def test_a_rejected_file_goes_back_and_its_reason_goes(host):
    host.reject('a.json')
    host.reject('b.json')
    assert host.run('requeue', 'a.json') == (0, '1 file back in the spool\n', '')
    assert host.waiting() == ['a.json'] and host.rejected() == ['b.json', 'b.json.reason']
    assert content(host.spool + '/a.json') == b'a.json'


@pytest.mark.parametrize('word', ['a.json', 'error/a.json', '%s/error/a.json', '%s/error/../error/a.json'])
def test_a_name_is_understood_with_and_without_its_path(host, word):
    host.reject('a.json')
    assert host.run('requeue', word % host.spool if '%' in word else word)[0] == 0
    assert host.waiting() == ['a.json']


@pytest.mark.parametrize('name', ODD_NAMES + [NOT_UTF_8, 'a.json.reason'])
def test_odd_names_go_back_as_they_are(host, name):
    host.reject(name)
    if len(name) > 245:
        assert host.run('requeue', '--all') == (0, '1 file back in the spool\n', '')
    else:
        assert host.run('requeue', '--', name) == (0, '1 file back in the spool\n', '')
    assert host.waiting() == [name] and host.rejected() == []


def test_nothing_is_overwritten(host):
    host.put('a.json', 'a.json.1')
    host.reject('a.json')
    assert host.run('requeue', '--all') == (0, 'a.json: back as a.json.2\n1 file back in the spool\n', '')
    assert content(host.spool + '/a.json.2') == b'a.json' and content(host.spool + '/a.json') == b'content'


@pytest.mark.parametrize('before', ['a.json', 'new\nline', NOT_UTF_8, '100%'])
def test_the_number_a_name_got_in_error_does_not_follow_it_back(host, before):
    host.reject(before + '.1', collected_as=before)
    host.reject('x.2', collected_as='y')
    assert host.run('requeue', '--all')[0] == 0
    assert host.waiting() == sorted([before, 'x.2'])


def test_all_and_receiver_choose(host):
    for name, by in (('a', 'orders'), ('b', 'other'), ('c', 'orders'), ('d', 'order')):
        host.reject(name, by)
    open(host.spool + '/error/without', 'w').close()
    assert host.run('requeue', '--receiver', 'orders') == (0, '2 files back in the spool\n', '')
    assert host.waiting() == ['a', 'c']
    assert host.run('requeue', '--receiver', 'nobody') == (0, '', '')
    assert host.run('-q', 'requeue', '--all') == (0, '', '')
    assert host.waiting() == ['a', 'b', 'c', 'd', 'without'] and host.rejected() == []
    assert host.run('requeue', '--all') == (0, '', '')


def test_a_body_of_an_answer_does_not_choose(host):
    path = host.reject('a', 'other')
    with open(path + '.reason', 'ab') as stream:
        stream.write(b'\nReceiver: orders\n')
    assert host.run('requeue', '--receiver', 'orders') == (0, '', '')


def test_what_is_not_there_is_said_and_1_and_the_rest_goes(host):
    host.reject('a.json')
    code, out, err = host.run('requeue', 'no\n1', 'a.json', '/tmp/a.json', 'a.json.reason', 'error/')
    assert (code, out) == (1, '1 file back in the spool\n') and host.waiting() == ['a.json']
    assert err.splitlines() == [
        'envio: no%%0A1: no such file in error/ of %s' % host.spool,
        'envio: /tmp/a.json: is not in error/ of a spool: `requeue NAME` finds it there',
        'envio: a.json.reason: no such file in error/ of %s' % host.spool,
        'envio: error/: no such file in error/ of %s' % host.spool]


def test_links_folders_and_lone_reason_files_stay(host):
    host.reject('a.json')
    os.symlink(host.config, host.spool + '/error/link')
    os.mkdir(host.spool + '/error/folder')
    os.mkfifo(host.spool + '/error/fifo')
    open(host.spool + '/error/lone.reason', 'w').close()
    for name in ('link', 'folder', 'fifo', 'lone.reason'):
        assert host.run('requeue', name)[0] == 1
    assert host.run('requeue', '--all') == (0, '1 file back in the spool\n', '')
    assert host.waiting() == ['a.json'] and host.rejected() == ['fifo', 'folder', 'link', 'lone.reason']


def test_a_reason_that_is_a_link_or_fifo_is_not_read(host):
    for name in ('a', 'b'):
        os.unlink(host.reject(name) + '.reason')
    os.symlink(host.config, host.spool + '/error/a.reason')
    os.mkfifo(host.spool + '/error/b.reason')
    assert host.run('requeue', '--receiver', 'orders') == (0, '', '')
    assert host.run('requeue', '--all')[0] == 0 and host.rejected() == [] and os.path.exists(host.config)


def test_each_spool_is_searched_and_a_name_in_two_needs_its_path(host):
    host.two_spools()
    for spool in (host.spool, host.other):
        host.reject('both', spool=spool)
    host.reject('one', spool=host.other)
    code, out, err = host.run('requeue', 'both', 'one')
    assert (code, out) == (1, '1 file back in the spool\n')
    assert err == 'envio: both: is in error/ of several spools: give its path: %s/error/both or %s/error/both\n' % (
        host.spool, host.other)
    assert host.run('requeue', host.other + '/error/both')[0] == 0
    assert sorted(os.listdir(host.other)) == ['both', 'error', 'one'] and host.waiting() == []
    assert host.run('requeue', '--all')[0] == 0 and host.waiting() == ['both']


def test_it_works_beside_a_running_agent_and_where_links_are_refused(host, monkeypatch):
    def refused(*_):
        raise OSError(1, 'Operation not permitted')
    agent = Spool(host.spool)
    agent.lock()
    monkeypatch.setattr(os, 'link', refused)
    host.put('a.json')
    host.reject('a.json')
    assert host.run('requeue', 'a.json')[0] == 0
    assert host.waiting() == ['a.json', 'a.json.1'] and host.rejected() == []
    agent.unlock()


@pytest.mark.parametrize('words', [[], ['a', '--all'], ['a', '--receiver', 'x']])
def test_requeue_wants_to_know_what(host, words):
    assert host.run('requeue', *words) == (
        2, '', 'envio: requeue: which files? give names, or --all, or --receiver: see envio --help\n')


def test_who_may_not_change_error_leaves_nothing_behind(capsys):
    host = Desk(nobody.make_folder(), capsys)
    try:
        host.reject('a.json')
        nobody.give(host.spool, host.config, host.spool + '/error')
        os.chmod(host.spool + '/error', 0o500)

        def refused():
            code, _, err = host.run('requeue', '--all')
            assert code == 78 and '/error: can\'t be read and written' in err
        nobody.run(refused)
        assert host.waiting() == [] and host.rejected() == ['a.json', 'a.json.reason']
    finally:
        nobody.remove(host.folder)


# --- flush

def test_flush_forgets_all_pauses_and_nothing_else(host):
    host.keep()
    before = state.read(host.spool)
    assert host.run('flush') == (0, 'all receivers: pauses are forgotten: the next agent tries at once\n', '')
    assert host.pauses('orders') == host.pauses('http://plugged.in') == [False] * 4
    after = state.read(host.spool)
    assert (after.written, after.since) == (before.written, before.since)
    assert after.lanes['orders'] == before.lanes['orders']._replace(until=0, hold_due=0, paused=0)
    assert after.tried['a.json'] == before.tried['a.json']._replace(due=0)
    Spool(host.spool).lock()


@pytest.mark.parametrize('name, other', [('orders', 'http://plugged.in'), ('http://plugged.in', 'orders')])
def test_flush_of_one_receiver_leaves_the_others(host, name, other):
    host.keep()
    assert host.run('flush', name) == (0, name + ': pauses are forgotten: the next agent tries at once\n', '')
    assert (host.pauses(name), host.pauses(other)) == ([False] * 4, [True] * 4)


def test_flush_says_which_receivers_there_are(host):
    host.keep()
    assert host.run('flush', 'frob') == (
        2, '', 'envio: flush: frob: no such receiver: there are orders, http://plugged.in\n')
    assert host.run('flush', 'a', 'b')[0] == 2
    assert host.pauses('orders') == [True] * 4


def test_flush_of_a_spool_without_state_makes_nothing(host):
    assert host.run('flush')[0] == 0
    assert os.listdir(host.spool) == []


def test_flush_leaves_a_torn_state_to_the_next_agent(host):
    host.keep()
    path = host.spool + '/.envio/state.json'
    with open(path, 'r+') as stream:
        stream.truncate(50)
    code, out, err = host.run('flush', 'orders')
    assert (code, err) == (0, '') and out.startswith(path + ': can\'t be understood: ')
    assert os.path.getsize(path) == 50


def test_flush_removes_what_was_left_for_an_agent_that_is_no_more(host):
    host.keep()
    open(host.spool + '/.envio/flush', 'w').close()
    assert host.run('flush')[0] == 0 and not os.path.exists(host.spool + '/.envio/flush')


AGENT = '''
import signal, sys, time
sys.path.insert(0, sys.argv[2])
from agent.spool import Spool
def heard(*_):
    print(repr(open(sys.argv[1] + '/.envio/flush').read()))
    sys.exit(0)
signal.signal(signal.SIGUSR2, heard)
spool = Spool(sys.argv[1])
spool.lock()
print('ready')
sys.stdout.flush()
while True:
    time.sleep(60)
'''


def start_agent(host):
    process = subprocess.Popen([sys.executable, '-c', AGENT, host.spool, ROOT], stdout=subprocess.PIPE)
    host.processes.append(process)
    assert process.stdout.readline() == b'ready\n'
    return process


@pytest.mark.parametrize('words, left', [([], '*\n'), (['orders'], 'orders\n')])
def test_flush_tells_a_running_agent(host, words, left):
    host.keep()
    process = start_agent(host)
    assert host.run('flush', *words) == (0, '%s: the agent (pid %d) is told to forget pauses\n' % (
        words[0] if words else 'all receivers', process.pid), '')
    assert process.communicate()[0] == compat.wire(repr(left) + '\n')
    assert host.pauses('orders') == [True] * 4, 'the state is the agent\'s'


def test_flush_never_signals_a_process_that_has_not_the_lock(host, monkeypatch):
    host.keep()
    monkeypatch.setattr('agent.requeue._BETWEEN', 0)
    bystander = subprocess.Popen([sys.executable, '-c', 'import time; print(1); time.sleep(60)'])
    host.processes.append(bystander)
    agent = Spool(host.spool)
    agent.lock()
    for said in ('pid %d since yesterday\n' % bystander.pid, 'pid 0 since\n', 'pid 4000000000 since ', ''):
        with open(host.spool + '/.envio/lock', 'w') as stream:
            stream.write(said)
        code, out, err = host.run('flush')
        assert (code, out) == (75, '') and 'another agent has this spool' in err
    assert bystander.poll() is None and not os.path.exists(host.spool + '/.envio/flush')
    agent.unlock()


def test_flush_survives_the_flush_that_takes_it_for_an_agent(host, monkeypatch):
    host.keep()
    before, read = signal.getsignal(signal.SIGUSR2), state.read

    def read_signalled(path):
        os.kill(os.getpid(), signal.SIGUSR2)
        return read(path)
    monkeypatch.setattr(state, 'read', read_signalled)
    assert host.run('flush')[0] == 0
    assert signal.getsignal(signal.SIGUSR2) == before
