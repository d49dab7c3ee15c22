"""What the kernel tells of new names, and an agent that needs not look."""

import errno
import os

import pytest

from agent import collector, compat, inotify as inotify_module
from agent.inotify import Inotify, file_system
from tests.samples import failure
from tests.test_collector import Bench
from tests.test_engine import Host


@pytest.fixture
def inotify():
    try:
        one = Inotify()
    except EnvironmentError as error:
        pytest.skip('no inotify here: %s' % error)
    yield one
    one.close()


def names(inotify):
    found, whole = inotify.read()
    assert whole
    return [name for _, name in found]


def test_it_tells_of_files_that_are_written_renamed_or_linked_to_here_and_of_nothing_else(inotify, tmpdir):
    folder, other = tmpdir.mkdir('spool'), tmpdir.mkdir('other')
    inotify.watch(str(folder))
    assert inotify.read() == ([], True)
    other.join('a').write('a')
    os.rename(str(other.join('a')), str(folder.join('moved')))
    assert names(inotify) == ['moved']
    os.link(str(folder.join('moved')), str(folder.join('linked')))
    assert names(inotify) == ['linked']
    with open(str(folder.join('written')), 'w') as stream:
        assert names(inotify) == ['written'], 'it is there'
        stream.write('x')
    assert names(inotify) == ['written'], 'it is whole'
    os.unlink(str(folder.join('written')))
    os.rename(str(folder.join('moved')), str(other.join('away')))
    assert names(inotify) == []


@pytest.mark.parametrize('raw', [b'new\nline', b'\xff\xfe', b'x' * 255, b'-rf', b' '])
def test_names_are_those_of_the_folder(inotify, tmpdir, raw):
    inotify.watch(str(tmpdir))
    name = compat.fs_native(raw)
    open(os.path.join(str(tmpdir), name), 'w').close()
    assert inotify.read()[0][0] == (str(tmpdir), name)
    assert list(compat.scan_names(str(tmpdir))) == [name]


def test_what_is_lost_is_said(inotify, tmpdir):
    with open('/proc/sys/fs/inotify/max_queued_events') as page:
        most = int(page.read())
    if most > 50000:
        pytest.skip('this host keeps more events than can be made in a moment')
    inotify.watch(str(tmpdir))
    places = [str(tmpdir.join(name)) for name in 'ab']
    for number in range(most + 10):  # in turns: two events alike in a row are one
        os.close(os.open(places[number % 2], os.O_CREAT | os.O_WRONLY))
    assert inotify.read()[1] is False
    assert inotify.read() == ([], True)


def test_a_folder_that_is_taken_away_is_said_and_one_that_is_none_refused(inotify, tmpdir):
    folder = tmpdir.mkdir('spool')
    inotify.watch(str(folder))
    folder.remove()
    assert inotify.read()[1] is False
    assert failure(inotify.watch, str(folder)) is not None
    assert failure(inotify.watch, str(tmpdir.join('file').ensure())) is not None


# --- the collector: what it need not look at

@pytest.fixture
def bench(tmpdir):
    bench = Bench(tmpdir)
    os.utime(bench.spool, (1, 1))  # it has not changed for long
    return bench


def passes(bench, monkeypatch):
    """Count how often the folder is read."""
    counted = []
    spool, names = bench.spools[0], bench.spools[0].names
    monkeypatch.setattr(spool, 'names', lambda: counted.append(1) or names())
    return counted


def test_a_folder_that_did_not_change_is_not_read_again_for_a_while(bench, monkeypatch):
    counted = passes(bench, monkeypatch)
    bench.start()
    bench.work()
    for _ in range(20):
        bench.after(5)
    assert len(counted) == 1
    bench.put('a.json')
    os.utime(bench.spool, (2, 2))
    bench.after(5)
    assert len(counted) == 2 and bench.known() == ['a.json']
    bench.after(collector.LOOK_ANYWAY)
    bench.after(5)
    assert len(counted) == 3, 'now and then it is, all the same'


def test_a_folder_that_has_just_changed_may_change_again_unseen(bench, monkeypatch):
    counted = passes(bench, monkeypatch)
    bench.start()
    os.utime(bench.spool, None)
    for _ in range(3):
        bench.after(5)
    assert len(counted) == 3
    monkeypatch.setattr(collector, 'SETTLED', -1.0)
    bench.after(5)
    bench.after(5)
    assert len(counted) == 4


def test_a_pass_that_takes_long_is_repeated_the_more_seldom(bench, monkeypatch):
    os.utime(bench.spool, None)  # each look finds it changed
    counted = passes(bench, monkeypatch)
    slow = bench.spools[0].names

    def names():
        for name in slow():
            bench.now += 1.0  # as a folder of very many names
            yield name
    monkeypatch.setattr(bench.spools[0], 'names', names)
    bench.put(*['f%d.json' % number for number in range(4)])
    bench.start()
    bench.work()
    began = bench.now
    while len(counted) < 3:
        bench.after(1)
    assert bench.now - began >= 2 * 19 * 4


def test_a_file_that_was_changed_while_it_was_sent_is_looked_at_alone(bench, monkeypatch):
    counted = passes(bench, monkeypatch)
    bench.put('a.json')
    os.utime(bench.spool, (1, 1))
    bench.start()
    bench.work()
    del bench.lanes.lanes['orders'].fresh[:]
    bench.lanes.known.clear()  # as after FileChanged
    bench.after(5)
    assert bench.known() == [] and len(counted) == 1
    bench.collector.hear([(bench.spool, 'a.json'), (bench.spool, 'gone.json'), ('/another', 'a.json')], True)
    bench.work()
    assert bench.known() == ['a.json'] and len(counted) == 1


def test_when_something_was_lost_all_is_looked_at(bench, monkeypatch):
    counted = passes(bench, monkeypatch)
    bench.start()
    bench.work()
    bench.collector.told = True
    bench.collector.hear([], False)
    bench.work()
    assert len(counted) == 2
    bench.after(collector.TOLD_INTERVAL - 1)
    assert len(counted) == 2


# --- the agent

def test_a_new_file_leaves_at_once_though_nobody_looks(tmpdir, inotify):
    host = Host(tmpdir)
    host.agent_keys = 'scan_interval = 1h'
    host.receiver(host.serve())
    put = []

    def until(agent):
        if agent.collector.told and not put:
            put.append(1)
            host.put('.draft')
            os.rename(os.path.join(host.spool, '.draft'), os.path.join(host.spool, 'new'))
        return agent.stats.total('accepted') == 1
    try:
        host.run(until)
    finally:
        for server in host.servers:
            server.stop()
    assert host.waiting() == []


@pytest.mark.parametrize('path, kind', [
    ('/', 'ext4'), ('/srv/in', 'nfs4'), ('/srv/in/deep', 'nfs4'), ('/srv/inn', 'ext4'),
    ('/with blank/x', 'fuse.sshfs')])
def test_the_kind_of_a_folder_s_file_system_is_that_of_its_longest_mount(tmpdir, path, kind):
    mounts = tmpdir.join('mounts')
    mounts.write('rootfs / rootfs rw 0 0\n/dev/vda / ext4 rw 0 0\nh:/in /srv/in nfs4 rw 0 0\n'
                 's /with\\040blank fuse.sshfs rw 0 0\n')
    assert file_system(path, str(mounts)) == kind
    assert file_system(path, '/no/such/page') == ''


def test_a_folder_on_another_host_is_not_watched(inotify, tmpdir, monkeypatch):
    monkeypatch.setattr(inotify_module, 'file_system', lambda path: 'nfs4')
    assert failure(inotify.watch, str(tmpdir)) == errno.EOPNOTSUPP
