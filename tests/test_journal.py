"""The journal tells of every file that left the spool, through rotation and full disks, and stops nothing."""

import json
import os
import resource
import shutil
import stat
import subprocess

import pytest

from agent import appender, compat
from agent.errors import ConfigError
from agent.journal import Journal
from agent.records import ACK, FILE, GONE, HOLD, NACK, RECEIVER, RETRY, Outcome, Result
from tests import nobody, programs
from tests.samples import receiver, ticket

WALL = 1795458611.0415  # 2026-11-23T18:30:11Z and 41.5 ms
ACCEPTED = Outcome(ACK, FILE, 200, '200 OK', None, False, None, True, False)
LOGROTATE = programs.find('logrotate')


@pytest.fixture(autouse=True)
def look_at_every_line(monkeypatch):
    monkeypatch.setattr(appender, 'LOOK', 0)


@pytest.fixture
def path(tmpdir):
    return str(tmpdir.mkdir('journals').join('journal.json'))


@pytest.fixture
def journal(path):
    journal = Journal(path)
    yield journal
    journal.close()


def result(name='a.json', outcome=ACCEPTED, took=0.1, **fields):
    one = ticket(receiver(), name)
    return Result(one.file, one.receiver, outcome._replace(**fields), 1, took)


def entries(path):
    with open(path) as stream:
        return [json.loads(line) for line in stream.read().splitlines()]


def names(path):
    return [entry['file'] for entry in entries(path)]


# --- what it tells

def test_a_line_is_compact_sorted_json(journal, path):
    journal.note(result(), WALL)
    assert open(path).read() == (
        '{"attempts":1,"bytes":3,"file":"a.json","possibly_delivered":false,"reason":"200 OK","receiver":"orders",'
        '"seconds":0.100,"spool":"/var/spool/envio","status":200,"time":"2026-11-23T18:30:11.042Z","verdict":"ACK"}\n')


@pytest.mark.parametrize('outcome, verdict', [
    (ACCEPTED, 'ACK'), (ACCEPTED._replace(verdict=NACK, status=422), 'NACK'),
    (ACCEPTED._replace(verdict=RETRY, blame=RECEIVER, status=None, maybe=True), 'EXPIRED')])
def test_every_file_that_moved_has_its_verdict(journal, path, outcome, verdict):
    journal.note(result(outcome=outcome), WALL)
    (entry,) = entries(path)
    assert (entry['verdict'], entry['status'], entry['possibly_delivered']) == (verdict, outcome.status, outcome.maybe)


@pytest.mark.parametrize('verdict', [ACK, NACK, RETRY, HOLD, GONE])
def test_a_file_that_did_not_move_has_no_line(journal, path, verdict):
    journal.note(result(verdict=verdict, moved=False), WALL)
    assert entries(path) == []


@pytest.mark.parametrize('raw', [
    b'plain.json', b'caf\xc3\xa9', b'inv\xff\xfealid', b'new\nline', b'"quoted\\"', b'50%41', b'\xe2\x80\xae', b' '])
def test_a_name_can_be_had_back_from_its_line(journal, path, raw):
    journal.note(result(compat.fs_native(raw)), WALL)
    shown = entries(path)[0]['file']
    assert compat.unpercent(compat.byte_string(shown.encode('utf-8'))) == raw
    with open(path, 'rb') as stream:
        assert max(bytearray(stream.read())) < 0x7f, 'ASCII, whoever reads it'


def test_odd_reasons_keep_to_their_line(journal, path):
    for raw in (b'caf\xc3\xa9', b'inv\xff', b'a "b" \\ c'):
        journal.note(result(reason=compat.fs_native(raw)), WALL)
    assert len(entries(path)) == 3 and entries(path)[2]['reason'] == 'a "b" \\ c'


@pytest.mark.parametrize('wall, time', [
    (0.9996, '1970-01-01T00:00:01.000Z'), (1.001, '1970-01-01T00:00:01.001Z'), (86399, '1970-01-01T23:59:59.000Z')])
def test_the_time_is_utc_to_the_millisecond(journal, path, wall, time):
    journal.note(result(), wall)
    assert entries(path)[0]['time'] == time


def test_without_a_path_there_is_no_journal():
    journal = Journal('')
    journal.note(result(), WALL)
    journal.close()


def test_what_stood_in_it_stays_and_only_owner_and_group_may_read_it(journal, path):
    journal.note(result('one'), WALL)
    again = Journal(path)
    again.note(result('two'), WALL)
    again.close()
    os.umask(0)
    os.rename(path, path + '.1')
    journal.note(result('three'), WALL)
    assert names(path + '.1') == ['one', 'two'] and names(path) == ['three']
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


# --- what is refused

def test_a_journal_that_can_t_be_opened_is_a_fault_of_the_configuration(tmpdir):
    link, fifo = str(tmpdir.join('link')), str(tmpdir.join('fifo'))
    os.symlink(str(tmpdir.join('else')), link)
    os.mkfifo(fifo)
    for path in (str(tmpdir), str(tmpdir.join('no', 'such')), link, fifo):
        with pytest.raises(ConfigError) as caught:
            Journal(path)
        assert str(caught.value).startswith('journal: can\'t be opened: %s: ' % path)
    assert not os.path.exists(str(tmpdir.join('else')))


def test_a_closed_journal_writes_to_nobody_else_s_file(path, tmpdir, said):
    journal = Journal(path)
    journal.close()
    with open(str(tmpdir.join('other')), 'w') as other:  # gets the number of the descriptor that was closed
        journal.note(result(), WALL)
        journal.close()
        other.write('its own')
    assert tmpdir.join('other').read() == 'its own' and len(said) == 1


# --- rotation

def test_after_a_rotation_by_rename_lines_go_to_the_new_file(journal, path):
    journal.note(result('one'), WALL)
    os.rename(path, path + '.1')
    journal.note(result('two'), WALL)
    assert names(path + '.1') == ['one'] and names(path) == ['two']


def test_after_a_rotation_by_copytruncate_no_hole_is_left(journal, path):
    journal.note(result('one'), WALL)
    shutil.copy(path, path + '.1')
    open(path, 'w').close()
    journal.note(result('two'), WALL)
    assert names(path + '.1') == ['one'] and names(path) == ['two']


def test_a_renamed_file_is_left_within_a_second(path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(appender, 'LOOK', 1.0)
    monkeypatch.setattr(compat, 'monotonic', lambda: now[0])
    journal = Journal(path)
    journal.note(result('one'), WALL)
    os.rename(path, path + '.1')
    journal.note(result('two'), WALL)
    now[0] += 1.0
    journal.note(result('three'), WALL)
    journal.close()
    assert names(path + '.1') == ['one', 'two'] and names(path) == ['three']


@pytest.mark.skipif(not LOGROTATE, reason='there is no logrotate on this machine')
@pytest.mark.parametrize('way', ['nocreate', 'create 0640', 'copytruncate'])
def test_logrotate_itself_loses_no_line(journal, path, tmpdir, way):
    rules = tmpdir.join('rules')
    rules.write('%s {\n    rotate 9\n    %s\n}\n' % (path, way))
    os.chmod(str(rules), 0o600)
    for number in range(3):
        journal.note(result('%d' % number), WALL)
        assert subprocess.call([LOGROTATE, '-f', '-s', str(tmpdir.join('status')), str(rules)]) == 0
    journal.note(result('last'), WALL)
    assert [names(path + end) for end in ('.3', '.2', '.1', '')] == [['0'], ['1'], ['2'], ['last']]


def test_a_rotation_that_leaves_nothing_to_open_is_said_once_and_goes_on_in_the_old_file(journal, path, said):
    os.rename(path, path + '.1')
    os.mkdir(path)  # what nobody can open for writing, not even root
    for name in ('one', 'two'):
        journal.note(result(name), WALL)
    os.rmdir(path)
    for name in ('three', 'four'):
        journal.note(result(name), WALL)
    assert names(path + '.1') == ['one', 'two'] and names(path) == ['three', 'four']
    assert said == [
        ('ERROR', '%s: the journal was rotated and can\'t be opened anew: Is a directory: lines go on into the old file'
         % path), ('WARNING', '%s: the journal is open anew' % path)]


# --- full disks

def cut(journal, path, room):
    """Note a verdict where there is room for so many bytes more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path) + room, before[1]))
    try:
        journal.note(result('cut'), WALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='there is no /dev/full on this machine')
def test_a_full_disk_is_said_once_and_stops_nothing(said):
    journal = Journal('/dev/full')
    for _ in range(3):
        journal.note(result(), WALL)
    journal.close()
    assert said == [('ERROR', '/dev/full: the journal can\'t be written: No space left on device: verdicts will be '
                     'missing from it')]


def test_when_there_is_room_again_that_is_said_with_what_is_missing(journal, path, said):
    for _ in range(2):
        cut(journal, path, 0)
    for name in ('one', 'two'):
        journal.note(result(name), WALL)
    assert names(path) == ['one', 'two']
    assert [level for level, _ in said] == ['ERROR', 'WARNING']
    assert said[1][1] == '%s: the journal can be written again: 2 verdicts missing' % path


@pytest.mark.parametrize('restarted', [False, True])
def test_a_line_that_was_cut_spoils_no_other(path, restarted, said):
    journal = Journal(path)
    journal.note(result('one'), WALL)
    for _ in range(2):
        cut(journal, path, 10)
    if restarted:
        journal.close()
        journal = Journal(path)
    journal.note(result('two'), WALL)
    journal.close()
    with open(path) as stream:
        lines = stream.read().splitlines()
    assert len(lines) == 4 and len(lines[1]) < 11 and len(lines[2]) < 11
    assert json.loads(lines[0])['file'] == 'one' and json.loads(lines[-1])['file'] == 'two'


def test_after_a_cut_line_an_emptied_file_begins_with_a_line(journal, path, said):
    cut(journal, path, 10)
    open(path, 'w').close()
    journal.note(result('one'), WALL)
    assert names(path) == ['one']


def test_a_folder_that_became_unwritable_stops_nothing():
    folder = nobody.make_folder()
    path = os.path.join(folder, 'journal.json')

    def rotate():
        journal = Journal(path)
        os.rename(path, path + '.1')
        os.chmod(folder, 0o500)
        journal.note(result('one'), WALL)
        os.chmod(folder, 0o700)
        journal.note(result('two'), WALL)
        assert names(path + '.1') == ['one'] and names(path) == ['two']
        journal.close()
        os.chmod(folder, 0o500)
        os.chmod(path, 0o400)
        with pytest.raises(ConfigError):
            Journal(path)
    try:
        nobody.run(rotate)
    finally:
        nobody.remove(folder)
