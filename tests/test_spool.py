"""One spool on a real file system: the lock, opening, moving."""

import errno
import fcntl
import os
import stat
import time

import pytest

from agent import compat, moves, spool as module
from agent.errors import FileChanged, LockedError, SpoolError
from agent.records import SpoolFile
from agent.spool import Spool, stamp_of
from tests.samples import failure

ODD_NAMES = ['plain.json', 'new\nline', '-rf', "quo'te\"", '100%', ' blank ', '\\x', 'a' * 255, 'a' * 250]


@pytest.fixture
def spool(tmpdir):
    spool = Spool(str(tmpdir))
    spool.lock()
    yield spool
    spool.unlock()


def put(spool, name, content=b'content'):
    path = spool.path + '/' + name
    with open(path, 'wb') as stream:
        stream.write(content)
    return SpoolFile(spool.path, name, stamp_of(os.stat(path)))


def content(*parts):
    with open(os.path.join(*parts), 'rb') as stream:
        return stream.read()


def sent(spool):
    return os.path.join(spool.path, 'sent', time.strftime('%Y-%m-%d'))


def fails_with(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))
    return fail


# --- the lock

def test_a_second_agent_is_told_who_has_the_spool(spool):
    with pytest.raises(LockedError) as caught:
        Spool(spool.path).lock()
    assert 'pid %d since' % os.getpid() in str(caught.value)


def test_the_lock_is_gone_with_its_holder(spool):
    spool.unlock()
    second = Spool(spool.path)
    second.lock()
    second.unlock()


def test_a_lock_file_left_by_a_crash_is_no_lock(tmpdir):
    tmpdir.mkdir('.envio').join('lock').write('pid 1 since ever')
    spool = Spool(str(tmpdir))
    spool.lock()
    spool.unlock()


def test_the_lock_is_not_inherited(spool):
    assert fcntl.fcntl(spool._lock._fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


@pytest.mark.parametrize('prepare, words', [
    (lambda path: os.rmdir(path), 'No such file'),
    (lambda path: (os.rmdir(path), open(path, 'w').close()), 'not a folder'),
    (lambda path: open(path + '/sent', 'w').close(), 'sent: is not a folder'),
    (lambda path: os.symlink('/tmp', path + '/error'), 'error: is not a folder'),
    (lambda path: os.symlink('/tmp', path + '/.envio'), '.envio: is not a folder'),
])
def test_what_cant_be_a_spool_is_refused_with_a_sentence(tmpdir, prepare, words):
    path = str(tmpdir.mkdir('spool'))
    prepare(path)
    with pytest.raises(SpoolError) as caught:
        Spool(path).lock()
    assert words in str(caught.value) and str(caught.value).startswith(path)


def test_the_identity_of_a_spool_survives_a_restart_and_differs_between_spools(tmpdir):
    found = []
    for name in ('one', 'one', 'two'):
        tmpdir.ensure(name, dir=True)
        spool = Spool(str(tmpdir.join(name)))
        spool.lock()
        found.append(spool.identity)
        spool.unlock()
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 32


# --- opening

def test_a_file_is_opened_as_it_was_collected(spool):
    opened = spool.open(put(spool, 'a', b'0123456789'))
    assert (opened.size, opened.read(4), opened.read(99), opened.read(1)) == (10, b'0123', b'456789', b'')
    opened.rewind()
    assert opened.read(2) == b'01'
    opened.close()


def test_a_file_that_is_another_than_collected_is_not_opened(spool):
    for name, change in (('grown', lambda path: open(path, 'ab').write(b'x')),
                         ('replaced', lambda path: (os.rename(path, path + '.old'), open(path, 'wb').write(b'new'))),
                         ('touched', lambda path: os.utime(path, (1, 1))),
                         ('gone', os.unlink),
                         ('link', lambda path: (os.unlink(path), os.symlink('/etc/passwd', path))),
                         ('fifo', lambda path: (os.unlink(path), os.mkfifo(path))),
                         ('folder', lambda path: (os.unlink(path), os.mkdir(path)))):
        file = put(spool, name)
        change(spool.path + '/' + name)
        with pytest.raises(FileChanged) as caught:
            spool.open(file)
        assert caught.value.gone == (name == 'gone'), name


def test_looking_tells_a_file_from_everything_else(spool):
    put(spool, 'file', b'')
    os.mkdir(spool.path + '/dir')
    os.symlink('file', spool.path + '/link')
    os.mkfifo(spool.path + '/fifo')
    kinds = [spool.look(name)[1] for name in ('file', 'dir', 'link', 'fifo', 'none')]
    assert kinds == ['', 'a folder, not a file', 'a link, not a file', 'a FIFO, not a file', 'gone']
    assert spool.look('file')[0].size == 0


# --- accepted

@pytest.mark.parametrize('name', ODD_NAMES)
def test_an_accepted_file_is_in_sent_under_its_name_and_day(spool, name):
    spool.accept(put(spool, name))
    assert os.listdir(sent(spool)) == [name]
    assert content(sent(spool), name) == b'content'
    assert not os.path.lexists(os.path.join(spool.path, name))


def test_a_folder_of_the_day_that_another_worker_makes_meanwhile_is_no_failure(spool, monkeypatch):
    real = os.rename

    def rename(source, target):
        monkeypatch.undo()
        try:
            real(source, target)
        finally:
            os.mkdir(sent(spool))
    monkeypatch.setattr(module.os, 'rename', rename)
    spool.accept(put(spool, 'a'))
    assert os.listdir(sent(spool)) == ['a']


def test_nothing_in_sent_is_ever_overwritten(spool):
    for number in range(3):
        spool.accept(put(spool, 'a', str(number).encode('ascii')))
    assert sorted(os.listdir(sent(spool))) == ['a', 'a.1', 'a.2']
    assert [content(sent(spool), name) for name in ('a', 'a.1', 'a.2')] == [b'0', b'1', b'2']


def test_a_name_of_full_length_that_is_taken_is_shortened_and_told_apart(spool):
    for _ in range(3):
        spool.accept(put(spool, 'a' * 255))
    assert len(os.listdir(sent(spool))) == 3


def test_a_deleted_file_is_gone_and_nothing_else(spool):
    spool.delete(put(spool, 'a'))
    put(spool, 'b')
    assert sorted(os.listdir(spool.path)) == ['.envio', 'b', 'error', 'sent']
    assert os.listdir(spool.path + '/.envio/deleted') == []


def test_folders_made_are_closed_to_others(spool):
    spool.accept(put(spool, 'a'))
    spool.reject(put(spool, 'b'), lambda name: b'why')
    for folder in ('.envio', 'sent', 'error', sent(spool)):
        assert not os.stat(os.path.join(spool.path, folder)).st_mode & (stat.S_IRWXO | stat.S_IWGRP), folder
    assert not os.stat(spool.path + '/error/b.reason').st_mode & stat.S_IRWXO


# --- rejected

@pytest.mark.parametrize('name', ODD_NAMES)
def test_a_rejected_file_has_its_reason_beside_it(spool, name):
    target = spool.reject(put(spool, name), lambda name: b'why')
    assert content(target) == b'content' and content(target + '.reason') == b'why'
    assert os.path.dirname(target) == spool.path + '/error'
    if len(name) < 248:
        assert os.path.basename(target) == name


def test_neither_a_rejected_file_nor_its_reason_is_ever_overwritten(spool):
    spool.reject(put(spool, 'a', b'one'), lambda name: b'why one')
    os.unlink(spool.path + '/error/a')  # somebody took the file and left the reason
    spool.reject(put(spool, 'a', b'two'), lambda name: b'why two')
    spool.reject(put(spool, 'a', b'three'), lambda name: b'why three')
    error = spool.path + '/error'
    assert sorted(os.listdir(error)) == ['a.1', 'a.1.reason', 'a.2', 'a.2.reason', 'a.reason']
    assert content(error, 'a.reason') == b'why one' and content(error, 'a.2.reason') == b'why three'


def test_the_reason_is_on_disk_before_the_file_moves(spool, monkeypatch):
    steps = []
    real_fsync, real_rename = os.fsync, os.rename
    monkeypatch.setattr(module.os, 'fsync', lambda fd: (steps.append('fsync'), real_fsync(fd)))
    monkeypatch.setattr(module.os, 'rename', lambda a, b: (steps.append(os.path.basename(b)), real_rename(a, b)))
    spool.reject(put(spool, 'a'), lambda name: b'why')
    assert steps == ['fsync', 'a.reason', 'fsync', 'a']


@pytest.mark.parametrize('call', ['fsync', 'rename', 'mkdir'])
def test_a_full_disk_while_rejecting_leaves_the_file_in_the_spool_and_no_reason_alone(spool, monkeypatch, call):
    file = put(spool, 'a')
    monkeypatch.setattr(module.os, call, fails_with(errno.ENOSPC))
    with pytest.raises(EnvironmentError):
        spool.reject(file, lambda name: b'why')
    monkeypatch.undo()
    assert content(spool.path, 'a') == b'content'
    assert not os.path.exists(spool.path + '/error/a.reason')
    spool.reject(file, lambda name: b'why')
    assert content(spool.path, 'error', 'a') == b'content'


# --- what changes meanwhile

@pytest.mark.parametrize('settle', [lambda spool, file: spool.accept(file), lambda spool, file: spool.delete(file),
                                    lambda spool, file: spool.reject(file, lambda name: b'why')])
@pytest.mark.parametrize('change', ['replace', 'append', 'touch'])
def test_a_file_that_changed_while_it_was_sent_stays(spool, settle, change):
    file = put(spool, 'a')
    path = spool.path + '/a'
    if change == 'replace':
        os.rename(path, path + '.away')
        put(spool, 'a', b'another')
    elif change == 'append':
        with open(path, 'ab') as stream:
            stream.write(b' and more')
    else:
        os.utime(path, (1, 1))
    before = content(path)
    with pytest.raises(FileChanged) as caught:
        settle(spool, file)
    assert not caught.value.gone
    assert content(path) == before
    assert not os.path.exists(spool.path + '/error/a.reason')


def test_a_file_that_replaces_the_sent_one_in_the_last_moment_comes_back(spool, monkeypatch):
    file = put(spool, 'a', b'sent')
    real = os.rename

    def rename(source, target):
        monkeypatch.undo()
        put(spool, 'b', b'a new one, not sent')
        real(spool.path + '/b', spool.path + '/a')  # a producer, just before us
        real(source, target)
    monkeypatch.setattr(module.os, 'rename', rename)
    with pytest.raises(FileChanged):
        spool.accept(file)
    assert content(spool.path, 'a') == b'a new one, not sent'
    assert os.listdir(sent(spool)) == []


def test_a_file_that_was_taken_away_is_said_to_be_gone(spool):
    file = put(spool, 'a')
    os.unlink(spool.path + '/a')
    with pytest.raises(FileChanged) as caught:
        spool.accept(file)
    assert caught.value.gone


# --- after a crash

def test_what_a_crash_left_is_mended_at_the_start(spool):
    spool.unlock()
    for name, left in (('error/a.reason', b'its file is still in the spool'), ('error/b', b''), ('error/b.reason', b''),
                       ('.envio/reason.3', b'half'), ('.envio/deleted/c', b'of another version'),
                       ('.envio/id', b'')):
        folder = os.path.dirname(os.path.join(spool.path, name))
        if not os.path.isdir(folder):
            os.makedirs(folder)
        with open(os.path.join(spool.path, name), 'wb') as stream:
            stream.write(left)
    put(spool, 'c', b'a new file of that name')
    spool.lock()
    assert sorted(os.listdir(spool.path + '/error')) == ['b', 'b.reason']
    assert content(spool.path, 'c') == b'a new file of that name'
    assert content(spool.path, 'c.1') == b'of another version'
    assert sorted(os.listdir(spool.path + '/.envio')) == ['deleted', 'id', 'lock']
    assert len(content(spool.path, '.envio', 'id')) == 33, 'one that a crash cut is made anew'


@pytest.mark.parametrize('name', ['a', 'a.b', '1-2-3-4.x', 'y' * 255])
def test_an_accepted_file_that_a_crash_left_undeleted_is_deleted_at_the_start(spool, monkeypatch, name):
    monkeypatch.setattr(os, 'unlink', fails_with(errno.EIO))
    spool.delete(put(spool, name))
    monkeypatch.undo()
    assert len(os.listdir(spool.path + '/.envio/deleted')) == 1 and not os.path.exists(spool.path + '/' + name)
    spool.unlock()
    spool.lock()
    assert os.listdir(spool.path + '/.envio/deleted') == [] and not os.path.exists(spool.path + '/' + name)


@pytest.mark.parametrize('name', ['a', 'a.b', '1-2-3-4.x'])
def test_a_file_that_came_in_its_place_in_that_very_instant_is_given_back_at_the_start(spool, monkeypatch, name):
    monkeypatch.setattr(os, 'unlink', fails_with(errno.EIO))
    spool.delete(put(spool, name))
    monkeypatch.undo()
    left, = os.listdir(spool.path + '/.envio/deleted')
    put(spool, '.envio/deleted/new', b'another')
    os.rename(spool.path + '/.envio/deleted/new', spool.path + '/.envio/deleted/' + left)
    spool.unlock()
    spool.lock()
    assert os.listdir(spool.path + '/.envio/deleted') == [] and content(spool.path, name) == b'another'


def test_a_move_that_a_crash_cut_in_two_is_ended(spool):
    put(spool, 'a')
    os.link(spool.path + '/a', spool.path + '/error/a')
    assert moves.move_free(spool.path + '/error/a', spool.path, 'a') == 'a'
    assert os.listdir(spool.path + '/error') == [] and content(spool.path, 'a') == b'content'


def test_old_days_of_sent_are_removed_piece_by_piece_and_others_kept(spool):
    now = time.mktime((2026, 11, 23, 12, 0, 0, 0, 0, -1))
    for day, files in (('2026-11-01', 3), ('2026-11-20', 1), ('2026-11-21', 1), ('2026-11-23', 1), ('notes', 1)):
        folder = os.path.join(spool.path, 'sent', day)
        os.makedirs(folder)
        for number in range(files):
            open(os.path.join(folder, 'f%d' % number), 'w').close()
    assert spool.purge(2, now, most=2), 'there is more'
    assert not spool.purge(2, now, most=100)
    assert sorted(os.listdir(spool.path + '/sent')) == ['2026-11-21', '2026-11-23', 'notes']


def test_a_rejected_file_that_is_called_like_a_reason_outlives_a_start(spool):
    spool.reject(put(spool, 'x.reason'), lambda name: b'why ' + compat.fs_bytes(name))
    spool.unlock()
    again = Spool(spool.path)
    again.lock()
    try:
        assert sorted(os.listdir(os.path.join(spool.path, 'error'))) == ['x.reason', 'x.reason.reason']
        assert content(spool.path, 'error', 'x.reason.reason') == b'why x.reason'
    finally:
        again.unlock()


def test_the_reason_is_told_the_name_under_which_the_file_lies(spool):
    told = []
    for content_ in (b'one', b'two'):
        spool.reject(put(spool, 'a', content_), lambda name: told.append(name) or b'why')
    assert told == ['a', 'a.1']


def test_a_file_that_can_be_linked_but_not_taken_away_is_linked_once(spool, monkeypatch):
    put(spool, 'a')

    def refuse(path):
        raise OSError(errno.EPERM, 'no')
    monkeypatch.setattr(os, 'unlink', refuse)
    assert failure(moves.move_free, spool.path + '/a', spool.path, 'b') == errno.EPERM
    monkeypatch.undo()
    assert sorted([name for name in os.listdir(spool.path) if name[:1] in 'ab']) == ['a', 'b']
