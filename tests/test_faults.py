"""System calls that fail while the agent works: it goes on, says so, loses nothing, and all is well when the cause has
passed. bench/faults.py tries every call with every error; here is each call with those that it meets most.
"""

import errno
import os
import subprocess

import pytest

from agent import appender, compat
from agent.lanes import Lanes
from agent.state import Keeper
from agent.stats import Stats
from tests import faults, senders
from tests.programs import find
from tests.samples import receiver
from tests.test_collector import Bench
from tests.test_end_to_end import contents, read

EVERYTHING = ','.join(sorted(set(faults.CALLS.values())))
# Several calls share an agent: one may fail right after the other.
MATRIX = {
    'files': (('open', 'EMFILE'), ('open', 'EACCES'), ('read', 'EIO'), ('fstat', 'EIO'), ('folder', 'EIO')),
    'moves': (('rename', 'EROFS'), ('rename', 'EDQUOT'), ('unlink', 'EROFS'), ('mkdir', 'ENOSPC'), ('fsync', 'EIO'),
              ('write', 'ENOSPC')),
    'network': (('socket', 'ENFILE'), ('setsockopt', 'ENOMEM'), ('connect', 'EACCES'), ('send', 'ENOMEM'),
                ('send', 'EIO'), ('recv', 'ENOMEM')),
    'waiting': (('wait', 'ENOMEM'), ('wait', 'EINTR'), ('open', 'EINTR'), ('read', 'EINTR'), ('write', 'EINTR'),
                (EVERYTHING, 'EINTR')),
    'cURL': (('fork', 'ENOMEM'), ('write', 'ENOMEM'), ('pipe', 'EMFILE'), ('open', 'ENFILE'), ('pipe', 'EINTR'),
             (EVERYTHING, 'EINTR')),
}


@pytest.fixture(scope='module', autouse=True)
def strace():
    why = faults.absent()
    if why:
        pytest.skip(why)


@pytest.fixture
def scenes(tmpdir):
    """A function that makes a Scene; its arguments are the lines of [agent] and of the receiver's section."""
    made = []

    def make(options='', keys=''):
        made.append(faults.Scene(tmpdir.mkdir('scene%d' % len(made)), options, keys))
        return made[-1]
    yield make
    for scene in made:
        scene.close()


def records(scene):
    """Return lines of [agent] for all that the agent writes beside the spool's own."""
    return 'journal = %s/journal\nmetrics = %s/envio.prom\n' % (scene, scene)


def told(scene, error):
    return faults.words(error) in scene.agent.said()


@pytest.mark.parametrize('group', sorted(MATRIX))
def test_when_calls_fail_nothing_is_lost_and_all_goes_on_when_they_do_not(scenes, tmpdir, group):
    if group == 'cURL' and senders.no_curl():
        pytest.skip(senders.no_curl())
    scene = scenes(records(tmpdir), 'transport = curl\n' if group == 'cURL' else '')
    scene.begin()
    scene.more(1)
    scene.through()
    before = scene.descriptors()
    for call, error in MATRIX[group]:
        with scene.fault(call, error) as fault:
            scene.more(1)
            scene.agent.until(fault.count, '%s fails with %s' % (call, error))
            scene.agent.until(lambda: fault.count() > 3 or not scene.left() or told(scene, error), 'it goes on')
        scene.through()
    scene.calm(before)


@pytest.mark.parametrize('call, error', [('rename', 'EROFS'), ('mkdir', 'ENOSPC')])
def test_an_accepted_file_that_cannot_be_moved_is_not_sent_again(scenes, call, error):
    scene = scenes()
    scene.begin()
    with scene.fault(call, error) as fault:
        fresh = scene.more(2)
        scene.agent.hears("can't be moved: " + faults.words(error))
        scene.agent.until(lambda: fault.count() > 20, 'the moves are tried again')
        assert sorted(scene.left()) == sorted(fresh)
    scene.agent.hears('answered files can be moved again')
    scene.through()
    for name in fresh:
        assert scene.answered(name, 422 if name.endswith('.no') else 200) == 1


def test_a_move_that_fails_shows_in_the_status(scenes):
    scene = scenes()
    scene.begin()
    with scene.fault('fsync', 'EIO'):
        scene.more(1)
        scene.agent.hears("can't be moved")
        scene.agent.until(lambda: len(scene.left()) == 1, 'accepted files go')
        scene.agent.heeds()
        code, page = scene.status()
    scene.through()
    assert code in (1, 2) and ('moved' in page or 'Input/output error' in page), page


@pytest.mark.parametrize('call, error', [('socket', 'EMFILE'), ('connect', 'ENOMEM'), ('fork', 'ENOMEM')])
def test_what_this_host_lacks_is_said_and_not_once_a_file(scenes, call, error):
    if call == 'fork' and senders.no_curl():
        pytest.skip(senders.no_curl())
    scene = scenes(keys='transport = curl\n' if call == 'fork' else '')
    scene.begin()
    with scene.fault(call, error) as fault:
        scene.more(3)
        scene.agent.until(lambda: fault.count() > 20, 'tries')
        tries = told(scene, error)
    scene.through()
    assert tries, scene.agent.said()
    assert scene.agent.said().count(faults.words(error)) < 5


def test_state_journal_and_metrics_on_a_full_disk_are_said_and_written_again(scenes, tmpdir):
    scene = scenes(records(tmpdir))
    places = [str(tmpdir.join('journal')), str(tmpdir.join('.envio.prom.new')),
              os.path.join(scene.spool, '.envio', 'state.json.new')]
    scene.begin()
    with scene.fault('write', 'ENOSPC', places):
        scene.more(2)
        for what in ('journal', 'metrics', 'state'):
            scene.agent.hears("the %s can't be written: No space left on device" % what)
        scene.through()  # none of them is in the way of the files
        scene.agent.heeds()  # and all verdicts were told
    scene.agent.hears('the state can be written again')  # by itself, though nothing new has happened
    scene.agent.hears('the metrics can be written again')
    scene.more(1)
    scene.agent.hears('the journal can be written again: 6 verdicts missing')
    scene.through()


def test_a_log_file_on_a_full_disk_stops_nothing(scenes, tmpdir):
    log = str(tmpdir.join('log'))
    scene = scenes('log_file = %s\n' % log)
    scene.agent = scene.start('run', **scene.surroundings)
    scene.agent.until(lambda: os.path.exists(log) and b'started' in read(log), 'it starts')
    with scene.fault('write', 'ENOSPC', [log]) as fault:
        scene.more(2)
        scene.agent.until(fault.count, 'it writes')
        scene.through()
    before = len(read(log))
    scene.more(1)
    scene.through()
    scene.agent.until(lambda: b'rejected by orders' in read(log)[before:], 'the log goes on')


def test_a_reason_that_cannot_be_made_safe_keeps_its_file_in_the_spool(scenes):
    scene = scenes()
    scene.begin()
    with scene.fault('fsync', 'EIO', [os.path.join(scene.spool, 'error')]):
        scene.more(2)
        scene.agent.hears("can't be moved: Input/output error")
        scene.agent.until(lambda: len(scene.left()) == 2, 'the others go')
        assert not [name for name in scene.rejected() if not name.endswith('.reason')]
    scene.through()


def test_a_file_that_cannot_be_read_has_its_pause_and_is_in_nobodys_way(scenes):
    scene = scenes(keys='retry_pause = 1h\nretry_max_pause = 1h\n')
    scene.begin()
    bad = os.path.join(scene.spool, 'bad')
    with scene.fault('read', 'EIO', [bad]) as fault:
        scene.files.update(scene.put({'bad': b'x' * 100}))
        scene.agent.until(fault.count, 'it is read')
        for number in range(3):
            name = 'good%d.ok' % number
            scene.files.update(scene.put({name: b'good'}))
            scene.agent.until(lambda: name not in scene.left(), '%s goes' % name)
        assert fault.count() == 1
    assert scene.left() == ['bad']


def test_what_could_not_be_looked_at_is_looked_at_again_soon_also_when_the_kernel_tells_of_new_files(tmpdir):
    bench = Bench(tmpdir)
    bench.start().told = True
    bench.after(0)
    spool = bench.spools[0]
    look = spool.look

    def refused(name):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    bench.put('a.json')
    spool.look = refused
    bench.collector.hear([(spool.path, 'a.json')], True)
    bench.work()
    spool.look = look
    assert bench.collector.due() <= bench.now + bench.config.scan_interval


def test_an_old_journal_that_cannot_be_closed_is_not_written_to_any_more(tmpdir, monkeypatch):
    path, close = str(tmpdir.join('journal')), os.close
    journal = appender.Appender(path)
    os.rename(path, path + '.1')

    def close_and_fail(fd):
        close(fd)  # as the kernel has it: by then the number may be another file's
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    monkeypatch.setattr(appender, 'LOOK', 0)
    monkeypatch.setattr(os, 'close', close_and_fail)
    journal._reopen()
    monkeypatch.undo()
    journal.write(b'{}\n')
    journal.close()
    assert (read(path), read(path + '.1')) == (b'{}\n', b'')


def test_a_state_that_could_not_be_written_is_written_when_it_can_be(tmpdir, said):
    lanes = Lanes([receiver()])
    keeper = Keeper([str(tmpdir)], 'run')
    keeper.restore(lanes)
    keeper.save(lambda action: action(lanes), Stats(0))
    assert 'No such file' in said[0][1]
    assert keeper.due() < float('inf')  # though nothing has changed since


# --- a disk that is full

@pytest.fixture
def small(tmpdir):
    """A function that lets a folder lie on a disk of its own, of 256 KB."""
    mounted = []

    def mount(folder):
        if os.getuid() != 0:
            pytest.skip('only root may mount a small disk')
        child = subprocess.Popen([find('mount'), '-t', 'tmpfs', '-o', 'size=256k,mode=755', 'envio-test', folder],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        words = child.communicate()[0]
        if child.returncode:
            pytest.skip('no disk can be mounted here: %s' % compat.byte_string(words))
        mounted.append(folder)
    yield mount
    for folder in mounted:
        subprocess.call([find('umount'), '-l', folder])


def fill(folder):
    """Write until there is no room; return the file to remove for some."""
    path = os.path.join(folder, '.filler')
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (4096, 1):
            try:
                while True:
                    os.write(fd, b'x' * size)
            except OSError:
                pass  # full
    finally:
        os.close(fd)
    return path


def drafts(scene):
    return [name for name in os.listdir(os.path.join(scene.spool, '.envio')) if name.startswith('reason.')]


def rejecting_on_a_full_disk(scenes, small):
    """Return a Scene whose agent cannot reject four files because the disk is full, and the file that fills it."""
    scene = scenes()
    small(scene.spool)
    scene.begin()
    scene.server.stop()
    scene.files.update(scene.put(dict([('%d.no' % number, os.urandom(900)) for number in range(4)])))
    filler = fill(scene.spool)
    scene.server.answer('*.no=422')
    scene.server.start()
    scene.agent.hears("can't be moved: No space left on device")
    return scene, filler


def test_on_a_full_disk_no_rejected_file_moves_without_its_reason(scenes, small):
    scene, filler = rejecting_on_a_full_disk(scenes, small)
    scene.agent.until(lambda: len([name for name in scene.files if scene.answered(name, 422)]) == 4, 'all are rejected')
    scene.agent.heeds()
    assert len(scene.left()) == 4 and contents(os.path.join(scene.spool, 'error')) == {}
    os.unlink(filler)
    scene.through()
    assert [scene.answered(name, 422) for name in scene.files] == [1] * 4


def test_tries_to_reject_on_a_full_disk_leave_nothing_behind(scenes, small):
    scene, filler = rejecting_on_a_full_disk(scenes, small)
    scene.agent.heeds()
    os.unlink(filler)
    scene.through()
    assert drafts(scene) == []


def test_accepted_files_move_on_a_full_disk(scenes, small):
    scene = scenes()
    small(scene.spool)
    scene.begin()
    scene.more(2)
    scene.through()
    scene.server.stop()
    scene.files.update(scene.put(dict([('%d.ok' % number, os.urandom(900)) for number in range(4)])))
    filler = fill(scene.spool)
    scene.server.start()
    scene.agent.until(lambda: not scene.left(), 'they go, though the disk is full')
    os.unlink(filler)
    scene.through()
