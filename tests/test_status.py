"""`envio status` and `envio list`, as users and monitoring meet them."""

import json
import os
import pty
import re
import signal
import sys
import time

import pytest

from agent import cli, compat, state, status, text
from agent.records import Tried
from agent.spool import Spool, stamp_of
from agent.state import State
from tests import nobody
from tests.test_cli import BIN
from tests.test_requeue import CALM, NOT_UTF_8, STAMP, Desk, content

OPEN = CALM._replace(breaker='OPEN', failures=5, openings=1, until=600.0)
HALF_OPEN = OPEN._replace(breaker='HALF_OPEN', until=0)
HELD = CALM._replace(held='10 files rejected | in a row', hold_due=300.0)
PAUSED = CALM._replace(paused=120.0)


class Watched(Desk):
    """A host whose state is written by hand."""

    def keep(self, lane=CALM, ago=10.0, pid=0, spool=None, **fields):
        """Write a state in which `orders` has this LaneState, written `ago` seconds ago by the agent `pid`."""
        spool = spool or self.spool
        kept = State(time.time() - ago, time.time() - 5000, pid, 'run' if pid else '')
        kept.lanes = {'orders': lane}
        kept.counts = {'orders': {'accepted': 12, 'rejected': 3, 'failed': 4}}
        kept.answers = {'orders': ('503 Service Unavailable', kept.written - 5)}
        kept.busy = {'orders': 2}
        for name, value in fields.items():
            setattr(kept, name, value)
        if not os.path.isdir(spool + '/.envio'):
            os.mkdir(spool + '/.envio')
        state.write(spool, kept)

    def tear(self):
        with open(self.spool + '/.envio/state.json', 'r+') as stream:
            stream.truncate(100)

    def status(self, *words):
        """Return (exit code, lines of the table)."""
        code, out, err = self.run('status', *words)
        assert err == ''
        return code, out.splitlines()

    def document(self, *words):
        code, out, err = self.run(*(words + ('--json',)))
        assert err == '' and max([ord(character) for character in out]) < 127
        return code, json.loads(out)


def as_text(words):
    return words.decode('utf-8') if isinstance(words, bytes) else words


@pytest.fixture
def host(tmpdir, capsys):
    return Watched(tmpdir, capsys)


# --- status: what is wrong

@pytest.mark.parametrize('lane, waiting, rejected, expected', [
    (CALM, 0, 0, (0, 'OK: 1 receiver, no file waiting')),
    (CALM, 2, 0, (0, 'OK: 1 receiver, 2 files waiting, the oldest for ')),
    (OPEN, 0, 0, (0, 'OK: ')),
    (OPEN, 2, 0, (2, 'CRITICAL: orders is OPEN with 2 files waiting')),
    (HALF_OPEN, 0, 0, (1, 'WARNING: orders is HALF_OPEN with 0 files waiting')),
    (PAUSED, 1, 0, (1, 'WARNING: orders is paused with 1 file waiting')),
    (HELD, 0, 0, (2, 'CRITICAL: orders is on HOLD: 10 files rejected / in a row')),
    (CALM, 0, 2, (1, 'WARNING: 2 rejected files in error/')),
    (HELD, 0, 1, (2, 'CRITICAL: orders is on HOLD: 10 files rejected / in a row; 1 rejected file in error/')),
])
def test_the_exit_code_and_the_first_line_are_for_nagios(host, lane, waiting, rejected, expected):
    host.keep(lane)
    host.put(*['%d.json' % number for number in range(waiting)])
    for number in range(rejected):
        host.reject('%d.json' % number)
    code, lines = host.status()
    assert code == expected[0] and lines[0].startswith(expected[1])
    found, document = host.document('status')
    assert found == document['level'] == code and document['summary'].startswith(expected[1])


def test_pauses_run_out_by_themselves(host):
    host.put('a.json')
    host.keep(PAUSED, ago=130)
    assert host.status()[0] == 0
    host.keep(OPEN, ago=700)
    code, document = host.document('status')
    assert (code, document['receivers'][0]['state'], document['receivers'][0]['until']) == (2, 'OPEN', None)


def test_a_spool_without_state_is_one_that_nothing_is_known_of(host):
    assert host.status()[0] == 0
    assert host.status()[1][1] == 'agent: not running, no state yet'


def test_a_torn_state_is_unknown_and_said(host):
    host.keep()
    host.tear()
    host.put('a.json')
    host.reject('b.json')
    code, lines = host.status()
    assert code == 3 and lines[0].startswith('UNKNOWN: %s/.envio/state.json: can\'t be understood: ' % host.spool)
    assert lines[0].endswith('; 1 rejected file in error/')
    assert re.match('orders +CLOSED +- +1 ', lines[4]), 'what can be seen is shown'


def test_a_spool_that_is_not_there_is_unknown_and_said_and_the_other_is_shown(host):
    host.two_spools()
    host.keep(PAUSED, spool=host.other)
    os.rename(host.spool, host.spool + '.away')
    code, lines = host.status()
    assert code == 3
    assert lines[0] == ('UNKNOWN: %s: can\'t be read: No such file or directory; '
                        'orders is paused with 0 files waiting' % host.spool)


def test_what_is_bad_does_not_hide_behind_what_is_unknown(host):
    host.two_spools()
    host.keep(HELD, spool=host.other)
    os.rename(host.spool, host.spool + '.away')
    assert host.status()[0] == 2


def test_who_may_not_read_the_state_is_told(capsys):
    host = Watched(nobody.make_folder(), capsys)
    try:
        host.keep()
        nobody.give(host.spool, host.config)
        os.chmod(host.spool + '/.envio/state.json', 0)
        nobody.give(host.spool + '/.envio/state.json')

        def refused():
            code, lines = host.status()
            assert code == 3 and lines[0] == 'UNKNOWN: %s/.envio/state.json: can\'t be read: Permission denied' % (
                host.spool)
        nobody.run(refused)
    finally:
        nobody.remove(host.folder)


@pytest.mark.parametrize('pid, ago, waits, code', [
    (None, 0, 3500, 0), (None, 0, 3700, 2),        # there never was an agent
    (0, 10, 3700, 0), (0, 3700, 3700, 2),          # the last one ended: cron, and cron that is dead
    (4000000, 10, 3500, 0), (4000000, 10, 3700, 2)])  # it died
def test_files_that_wait_for_an_agent_that_is_not_there_are_critical(host, monkeypatch, pid, ago, waits, code):
    host.put('a.json')
    now = time.time() + waits
    monkeypatch.setattr(time, 'time', lambda: now)
    if pid is not None:
        host.keep(pid=pid, ago=ago)
    found, lines = host.status()
    assert found == code
    if code:
        assert lines[0] == 'CRITICAL: %s: no agent, and 1 file waiting, the oldest for 61 m' % host.spool


def test_with_an_agent_at_work_old_files_are_no_alarm(host, monkeypatch):
    host.put('a.json')
    agent = Spool(host.spool)
    agent.lock()
    now = time.time() + 4000
    monkeypatch.setattr(time, 'time', lambda: now)
    host.keep(pid=os.getpid())
    code, lines = host.status()
    assert code == 0 and lines[1].startswith('agent: running (pid %d, run), state of ' % os.getpid())
    document = host.document('status')[1]
    assert document['agent'] == {'working': True, 'pid': os.getpid(), 'mode': 'run'}
    assert document['receivers'][0]['busy'] == 2
    agent.unlock()
    code, document = host.document('status')
    assert code == 2 and document['agent'] == {'working': False, 'pid': None, 'mode': ''}
    assert document['receivers'][0]['busy'] == 0


def test_to_look_changes_nothing_and_keeps_no_agent_out(host):
    assert host.status()[0] == 0 and host.run('list')[0] == 0
    assert os.listdir(host.spool) == []
    for _ in range(3):
        agent = Spool(host.spool)
        agent.lock()
        before = content(host.spool + '/.envio/lock')
        host.status()
        assert content(host.spool + '/.envio/lock') == before
        agent.unlock()
        host.status()


# --- status: what is shown

def test_the_table_fits_80_columns(host):
    host.keep(HELD._replace(breaker='OPEN', until=30.0, held='why ' * 50),
              answers={'orders': (compat.config_native(b'\xc3\xa9\xe4\xb8\x80' * 80), time.time())})
    host.put('a.json')
    for line in host.status()[1][1:]:
        assert len(as_text(line)) <= 80


def test_the_table_says_what_there_is_to_say(host):
    host.keep(OPEN, answers={'orders': ('503 \x1b[2J', time.time() - 30)})
    host.put('a.json', 'b.json', 'nobody.txt')
    lines = host.status()[1]
    assert re.match('agent: not running, state of [0-9:]{8}, counted since [0-9-]{10}$', lines[1])
    assert re.match(r'orders +OPEN +[0-9:]{8}, in 9 m +2 +[0-9.]+ s +0$', lines[4])
    assert re.match(r'    12 accepted, 3 rejected, 4 failed, 3\d s ago: 503 \?\[2J$', lines[5])
    assert re.match(r'- +- +never: see envio route +1 +[0-9.]+ s$', lines[6])


def test_what_is_ignored_or_no_file_does_not_wait(host):
    host.put('.a.json', 'b.tmp', 'c.json')
    os.mkdir(host.spool + '/d.json')
    os.symlink(host.config, host.spool + '/e.json')
    assert host.document('status')[1]['spools'][0]['waiting'] == 1
    assert [one['name'] for one in host.document('list')[1]['files']] == ['c.json']


def test_the_document_has_all_of_it(host):
    host.keep(HELD)
    host.put('a.json', 'b.txt')
    document = host.document('status')[1]
    assert sorted(document) == ['agent', 'level', 'now', 'receivers', 'since', 'spools', 'summary', 'unrouted',
                                'written']
    one, = document['receivers']
    assert sorted(one) == sorted('name state until held waiting oldest busy answer answered accepted rejected failed '
                                 'held_attempts gone bytes'.split())
    assert (one['state'], one['accepted'], one['answer']) == ('HOLD', 12, '503 Service Unavailable')
    assert abs(one['until'] - document['written'] - 300) < 1
    assert document['unrouted']['waiting'] == 1
    assert sorted(document['spools'][0]) == ['oldest', 'path', 'problem', 'rejected', 'waiting', 'working']


def test_receivers_that_are_no_more_are_left_out_but_for_those_an_agent_works_for(host):
    host.keep(lanes={'orders': CALM, 'former': HELD}, pid=7)
    assert host.status()[0] == 0
    agent = Spool(host.spool)
    agent.lock()
    assert host.status()[0] == 2
    agent.unlock()


def test_of_several_spools_the_newest_state_counts(host):
    host.two_spools()
    host.keep(HELD, ago=20)
    host.keep(CALM, ago=10, spool=host.other)
    assert host.status()[0] == 0
    host.keep(HELD, ago=5)
    assert host.status()[0] == 2


def test_colours_are_for_terminals_whose_owner_wants_them(host, monkeypatch):
    host.keep(HELD)
    monkeypatch.delenv('NO_COLOR', raising=False)
    assert '\x1b' not in host.run('status')[1]
    monkeypatch.setattr('sys.stdout.isatty', lambda: True, raising=False)
    assert '\x1b[31mCRITICAL\x1b[0m: orders' in host.run('status')[1]
    assert '\x1b' not in host.run('status', '--json')[1]
    monkeypatch.setenv('NO_COLOR', '1')
    assert '\x1b' not in host.run('status')[1]


# --- status --watch

def test_watch_wants_a_terminal_and_a_table(host):
    for words in (['--watch'], ['--watch', '--json']):
        assert host.run('status', *words) == (
            2, '', 'envio: status: --watch draws a table on a terminal: leave it out\n')


def test_watch_draws_with_rates_until_ctrl_c(host, monkeypatch):
    def sleep(_):
        turns.append(0)
        if len(turns) == 3:
            raise KeyboardInterrupt
        host.keep(ago=10 - 2 * len(turns), counts={'orders': {'accepted': 12 + 9 * len(turns)}})
    turns, drawn, now = [], [], time.time()
    monkeypatch.setattr(time, 'time', lambda: now)
    host.keep()
    status.watch(cli._setup(host.config), drawn.append, False, sleep)
    assert len(drawn) == 4 and drawn[3] == '\n' and drawn[0].startswith('\033[H\033[JOK: ')
    assert 'files/s' not in drawn[0] and ', 4.5 files/s, ' in drawn[1] and ', 4.5 files/s, ' in drawn[2]


def test_no_new_state_no_rate_and_counters_that_began_anew_give_none(host):
    host.keep()
    before = status.gather(cli._setup(host.config), time.time())
    assert status.rates(before, before) == {'orders': 0.0}
    host.keep(ago=8, counts={})
    assert status.rates(before, status.gather(cli._setup(host.config), time.time())) == {'orders': 0.0}


def test_ctrl_c_on_a_terminal_ends_it_with_0(host):
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it
        os.execve(BIN, [BIN, '-c', host.config, 'status', '--watch'],
                  dict(os.environ, ENVIO_PYTHON=sys.executable, NO_COLOR='1'))
    seen = b''
    while b'orders' not in seen:
        seen += os.read(terminal, 1000)
    os.write(terminal, b'\x03')
    assert os.waitpid(pid, 0)[1] == 0
    os.close(terminal)


# --- list

def tried(host, name, **fields):
    """Return the Tried of a file as it is now."""
    stamp = stamp_of(os.lstat(os.path.join(host.spool, name)))
    return Tried(stamp, 3, 60.0, '503 \x1b[2J', False, 'orders')._replace(**fields)


def test_an_empty_list_is_empty(host):
    assert host.run('list') == (0, '', '')
    assert host.document('list') == (0, {'files': []})


def test_list_shows_the_oldest_first_with_what_is_known(host):
    for name in ('c.json', 'a.json', 'b.json', 'nobody.txt'):
        host.put(name)
        time.sleep(0.02)  # ctime can't be set, and some kernels keep it in steps of 10 ms
    host.keep(tried={'a.json': tried(host, 'a.json'), 'b.json': tried(host, 'b.json', maybe=True, due=0.0)})
    code, out, err = host.run('list')
    lines = out.splitlines()
    assert (code, err) == (0, '')
    assert re.match(r'c\.json +orders +0\.\d s +0 +now$', lines[1])
    assert re.match(r'a\.json +orders +0\.\d s +3 +\d\d s  503 \?\[2J$', lines[2])
    assert re.match(r'b\.json +orders +0\.\d s +3 +now  503 \?\[2J \(possibly delivered\)$', lines[3])
    assert re.match(r'nobody\.txt +- +0\.\d s +0 +-$', lines[4])
    files = host.document('list')[1]['files']
    assert [one['name'] for one in files] == ['c.json', 'a.json', 'b.json', 'nobody.txt']
    assert [one['attempts'] for one in files] == [0, 3, 3, 0]
    assert [one['maybe'] for one in files] == [False, False, True, False]
    assert [one['receiver'] for one in files] == ['orders', 'orders', 'orders', None]
    assert 49 < files[1]['next'] <= 50 and files[2]['next'] == 0 and files[3]['next'] is None
    assert sorted(files[0]) == ['age', 'attempts', 'last', 'maybe', 'name', 'next', 'receiver', 'spool']


def test_what_is_remembered_of_another_file_of_that_name_is_not_shown(host):
    host.put('a.json')
    host.keep(tried={'a.json': tried(host, 'a.json')._replace(stamp=STAMP)})
    assert host.document('list')[1]['files'][0]['attempts'] == 0


@pytest.mark.parametrize('lane, least', [(OPEN, 590), (HELD, 290), (PAUSED, 110), (HALF_OPEN, 0), (CALM, 0)])
def test_a_file_waits_for_its_receiver_too(host, lane, least):
    host.put('a.json')
    host.keep(lane)
    wait = host.document('list')[1]['files'][0]['next']
    assert least - 1 < wait <= least


@pytest.mark.parametrize('name', ['new\nline.json', NOT_UTF_8, '100%.json', compat.fs_native(b'\xc3\xa9.json')])
def test_odd_names_keep_their_line_and_can_be_told(host, name):
    host.put(name)
    host.keep(tried={name: tried(host, name)})
    code, out, _ = host.run('list')
    assert code == 0 and out.count('\n') == 2 and as_text(out).splitlines()[1].startswith(as_text(text.shown(name)))
    one, = host.document('list')[1]['files']
    assert one['attempts'] == 3
    assert compat.unpercent(compat.byte_string(one['name'].encode('utf-8'))) == compat.fs_bytes(name)
    assert host.status()[0] == 0


def test_a_torn_state_costs_the_list_what_was_in_it_alone(host):
    host.keep()
    host.tear()
    host.put('a.json')
    code, out, err = host.run('list')
    assert code == 0 and out.splitlines()[1].startswith('a.json ')
    assert err.startswith('envio: %s/.envio/state.json: can\'t be understood: ' % host.spool) and err.count('\n') == 1


def test_a_list_of_a_spool_that_is_not_there_is_an_error(host):
    os.rmdir(host.spool)
    assert host.run('list') == (78, '', 'envio: %s: can\'t be read: No such file or directory\n' % host.spool)


def test_a_long_list_is_whole(host):
    names = ['%04d.json' % number for number in range(2001)]
    host.put(*names)
    assert sorted([one['name'] for one in host.document('list')[1]['files']]) == names
    assert len(host.run('list')[1].splitlines()) == 2002


# --- what is wrong with the spool itself

@pytest.mark.parametrize('age, level, word', [(10, 1, 'WARNING'), (7200, 2, 'CRITICAL')])
def test_files_without_a_receiver_never_go_by_themselves_and_are_said(host, monkeypatch, age, level, word):
    host.keep()
    host.put('nobodys.txt')
    real = time.time
    monkeypatch.setattr(time, 'time', lambda: real() + age)
    host.keep(ago=1.0)  # a pass has just ended
    code, lines = host.status()
    assert code == level and lines[0].startswith('%s: 1 file without a receiver, the oldest for ' % word)


def test_answered_files_that_can_not_be_moved_are_said(host):
    host.keep(unmoved=2)
    code, lines = host.status()
    assert (code, lines[0]) == (2, 'CRITICAL: %s: 2 files answered and can\'t be moved: see the log' % host.spool)


def test_a_full_disk_is_said(host, monkeypatch):
    host.keep()

    class Room(object):
        f_bavail, f_files, f_favail = 0, 10, 10
    monkeypatch.setattr(os, 'statvfs', lambda path: Room)
    code, lines = host.status()
    assert (code, lines[0]) == (2, 'CRITICAL: %s: the disk is full' % host.spool)
    Room.f_bavail, Room.f_favail = 10, 0
    assert host.status()[0] == 2
    Room.f_files = 0  # a file system that does not count
    assert host.status()[0] == 0


# --- where nothing can be told

def test_a_wrong_configuration_is_unknown_to_monitoring_which_reads_one_line(host):
    host.write('[agent]\nspool = relative\nsetle = 5s | x\n')
    code, out, err = host.run('status')
    assert (code, err, out.count('\n')) == (3, '', 1)
    assert out.startswith('UNKNOWN: %s:1: ' % host.config) and ', and 2 more: see envio check' in out and '|' not in out
    code, document = host.document('status')
    assert code == 3 and document == {'level': 3, 'summary': out.strip()}


def test_who_may_not_read_the_secrets_may_look_all_the_same(host):
    host.configure('http://127.0.0.1:9/in', receiver='token_file = /none/of/ours')
    host.put('a.json')
    assert host.run('check')[0] == 78
    assert host.status()[0] == 0
    assert host.run('list')[0] == 0


def test_a_long_name_leaves_the_columns_where_they_are(host):
    host.write('[agent]\nspool = %s\n[receiver:%s]\nmatch = *\nurl = http://127.0.0.1:9/\n' % (host.spool, 'n' * 40))
    lines = host.status()[1]
    place = lines.index('n' * 40)
    assert lines[place + 1].startswith(' ' * 29 + 'CLOSED') and max([len(line) for line in lines]) <= 80
