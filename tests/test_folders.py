"""The folders of a spool: whose they are, who else may write to them, links, and the lock when its name goes away."""

import os
import shutil
import stat

import pytest

from agent import folders
from agent.errors import LockedError, SpoolError
from agent.spool import Spool
from tests import nobody, test_end_to_end
from tests.servers import ScriptedServer, ok

OTHER = 4321  # the number of no account
host = test_end_to_end.host


@pytest.fixture
def path(tmpdir):
    return str(tmpdir.mkdir('spool'))


def locked(path):
    spool = Spool(path)
    spool.lock()
    return spool


# --- whose they are

@pytest.mark.skipif(os.getuid() != 0, reason='only root can give folders away')
@pytest.mark.parametrize('name', folders.OWN_NAMES)
def test_a_folder_of_ours_that_belongs_to_another_is_refused(path, name):
    locked(path).unlock()
    os.chown(path + '/' + name, OTHER, -1)
    with pytest.raises(SpoolError) as caught:
        Spool(path).lock()
    assert str(caught.value) == '%s/%s: belongs to user %d, not to root: run as its owner (`user` lets root do so), ' \
        'or chown it' % (path, name, OTHER)
    os.chown(path + '/' + name, 0, -1)
    locked(path).unlock()


@pytest.mark.skipif(os.getuid() != 0, reason='only root can give folders away')
def test_folders_of_root_that_let_us_in_are_good_and_the_spool_itself_may_be_anybodys():
    path = nobody.make_folder()
    try:
        for name in folders.OWN_NAMES:
            os.mkdir(path + '/' + name)
            os.chmod(path + '/' + name, 0o777)
        os.chown(path, OTHER, nobody.NOBODY)
        os.chmod(path, 0o770)
        nobody.run(lambda: locked(path).unlock())
    finally:
        nobody.remove(path)


def test_what_the_agent_makes_is_for_its_account_and_group_alone(path):
    os.umask(0)
    spool = locked(path)
    made = [path + '/' + name for name in folders.OWN_NAMES] + [path + '/.envio/' + name for name in ('lock', 'id')]
    assert [stat.S_IMODE(os.stat(one).st_mode) for one in made] == [0o750] * 3 + [0o640] * 2
    spool.unlock()


# --- who else may write to them

@pytest.mark.parametrize('mode, said', [
    (0o755, []), (0o2770, []), (0o1775, []),
    (0o1777, ['any of them puts there is sent']),
    (0o777, ['any of them puts there is sent', 'at least chmod +t']),
])
def test_a_spool_that_every_account_can_write_is_said_with_what_follows(path, mode, said, monkeypatch):
    monkeypatch.setattr(os, 'geteuid', lambda: os.stat(path).st_uid or 1)  # root has a sentence more, see below
    os.chmod(path, mode)
    found = folders.warnings(path)
    assert len(found) == len(said) and [words for words, one in zip(said, found) if words in one] == said


def test_a_folder_of_ours_that_others_can_write_is_said(path):
    locked(path).unlock()
    os.chmod(path + '/error', 0o770)
    assert folders.warnings(path) == ['%s/error: others can change what the agent keeps there: chmod go-w' % path]


@pytest.mark.skipif(os.getuid() != 0, reason='this is not root')
def test_root_is_told_to_be_somebody_else_where_others_can_write(path):
    assert folders.warnings(path) == []
    os.chmod(path, 0o775)
    assert folders.warnings(path) == ['%s: others can write to it, and root sends from it: set `user` to an account '
                                      'that may do less' % path]
    os.chmod(path, 0o755)
    os.chown(path, OTHER, -1)
    assert len(folders.warnings(path)) == 1


def test_there_is_nothing_to_say_about_a_spool_that_is_not_there(path):
    assert folders.warnings(path + '/none') == []


# --- links to the files of others

def seen(path, name, **me):
    """Return what the spool says a file is, to an agent that runs as `uid`."""
    spool, real = Spool(path), os.geteuid
    os.geteuid = lambda: me.get('uid', real())
    try:
        spool.lock()
        return spool.look(name)[1]
    finally:
        spool.unlock()
        os.geteuid = real


def make_link(path, owner=None):
    with open(path + '.secret', 'w') as page:
        page.write('secret')
    if owner is not None:
        os.chown(path + '.secret', owner, -1)
    os.link(path + '.secret', path + '/link')


LINK = 'one of 2 links to a file that may not be the producer\'s'


@pytest.mark.skipif(os.getuid() != 0, reason='this is not root')
@pytest.mark.parametrize('owner, mode, kind', [
    (OTHER, 0o755, LINK),  # of others: never
    (0, 0o755, ''),        # root's own, in a folder that root alone can write: root made it
    (0, 0o775, LINK),      # anybody may have made it: it may be /etc/shadow
])
def test_root_sends_no_file_of_another_that_somebody_linked_into_the_spool(path, owner, mode, kind):
    os.chmod(path, mode)
    make_link(path, owner)
    assert seen(path, 'link') == kind
    os.unlink(path + '.secret')
    assert seen(path, 'link') == '', 'now it is the only name'


def test_others_can_not_link_what_only_this_account_can_read_into_a_spool_that_they_can_write(path):
    make_link(path)
    for mode, kind in ((0o755, ''), (0o775, LINK)):
        os.chmod(path, mode)
        assert seen(path, 'link') == kind


@pytest.mark.skipif(os.getuid() != 0, reason='only root can give files away')
def test_a_link_of_a_producers_own_file_is_sent_by_who_is_not_root():
    path = nobody.make_folder()
    try:
        os.mkdir(path + '/spool')
        nobody.give(path + '/spool')
        os.chmod(path + '/spool', 0o777)
        make_link(path + '/spool', OTHER)

        def check():
            spool = locked(path + '/spool')
            assert spool.look('link')[1] == ''
            spool.unlock()
        nobody.run(check)
    finally:
        nobody.remove(path)


def test_a_link_that_is_not_sent_is_said_and_stays(host):
    with open(host.folder + '/secret', 'w') as page:
        page.write('secret')
    os.link(host.folder + '/secret', host.spool + '/a.json')
    os.chmod(host.spool, 0o777)
    host.configure(('http://127.0.0.1:9/in', ''))
    agent = host.start('run')
    agent.hears('/a.json is one of 2 links to a file that may not be the producer\'s: ignored')
    assert os.path.exists(host.spool + '/a.json') and host.sent() == {}


def test_a_second_name_for_a_moment_is_neither_said_nor_does_it_make_the_file_wait(host):
    with ScriptedServer([('read_request',), ('send', ok())]) as server:
        host.configure((server.url, ''))
        os.chmod(host.spool, 0o777)
        agent = host.start('run')
        agent.hears('started')
        with open(host.folder + '/draft', 'w') as page:
            page.write('content')
        os.link(host.folder + '/draft', host.spool + '/a.json')
        os.unlink(host.folder + '/draft')
        agent.until(lambda: list(host.sent()) == ['a.json'], 'it is sent')
        assert 'links to a file' not in agent.said()


# --- the lock

def test_a_lock_that_lost_its_name_is_taken_anew_and_the_identity_stays(path):
    spool = locked(path)
    identity = spool.identity
    assert spool.hold() is False
    shutil.rmtree(path + '/.envio')
    assert spool.hold() is True and spool.hold() is False
    with pytest.raises(LockedError):
        Spool(path).lock()
    spool.unlock()
    again = locked(path)
    assert again.identity == identity
    again.unlock()


def test_a_lock_that_another_agent_has_by_now_is_not_taken_from_it(path):
    spool = locked(path)
    shutil.rmtree(path + '/.envio')
    other = locked(path)
    with pytest.raises(LockedError):
        spool.hold()
    with pytest.raises(LockedError):
        spool.hold()
    assert other.hold() is False
    other.unlock()
    assert spool.hold() is True
    spool.unlock()


def test_a_lock_whose_folder_went_away_between_its_opening_and_its_locking_is_not_taken_for_one(path, monkeypatch):
    folders.make(path + '/.envio')
    real, opened = os.open, []

    def open_and_remove(name, *args):
        fd = real(name, *args)
        if name.endswith('/lock') and not opened:
            os.unlink(name)
        opened.append(name)
        return fd
    monkeypatch.setattr(os, 'open', open_and_remove)
    lock = folders.Lock(path)
    lock.take()
    assert len(opened) == 2 and not lock.lost()
    lock.release()


def test_an_agent_ends_when_another_one_came_in_through_a_lock_that_was_taken_away(host):
    host.configure(('http://127.0.0.1:9/in', ''))
    agent = host.start('run')
    agent.hears('started')
    # In one step: the agent would make a folder or a lock that is missing anew, at any moment.
    os.mkdir(host.folder + '/elsewhere')
    other = locked(host.folder + '/elsewhere')
    os.rename(host.folder + '/elsewhere/.envio/lock', host.spool + '/.envio/lock')
    code, _, err = agent.end()
    assert code == 75 and 'this one stops' in err and 'another agent has this spool: pid %d' % os.getpid() in err
    other.unlock()
