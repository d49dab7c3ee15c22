"""The collector: what it takes, when, and never more than there is room for: a real folder, real lanes, no threads."""

import gc
import os
import resource
import shutil

import pytest

from agent import collector as collector_module, compat, config, lane as lane_module, rules
from agent.collector import Collector
from agent.lanes import Lanes
from agent.records import ACK, FILE, RETRY, Outcome
from agent.router import Router
from agent.spool import Spool

ACCEPTED = Outcome(ACK, FILE, 200, '200 OK', None, False, None, True, False)
FAILED = Outcome(RETRY, FILE, 408, '408 Request Timeout', None, False, None, False, False)


class FakePool(object):
    """Lanes without threads: the test itself is the worker."""

    def __init__(self, lanes):
        self.lanes = lanes

    def with_lanes(self, action):
        return action(self.lanes)

    def offer(self, tickets):
        return [ticket for ticket in tickets if not self.lanes.offer(ticket)]


class Bench(object):
    """Spools, a configuration, and the collector over them."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.now = 5000.0
        self.spools = []
        self.add_spool('spool')
        self.spool = self.spools[0].path

    def add_spool(self, name):
        path = os.path.join(self.folder, name)
        os.mkdir(path)
        self.spools.append(Spool(path))
        return path

    def start(self, agent='', once=False, sections='[receiver:orders]\nmatch = *.json\nurl = http://127.0.0.1:9/in\n'):
        raw = '[agent]\nspool = %s\nsettle = 0\nscan_interval = 5s\n' % '\n  '.join(
            [spool.path for spool in self.spools])
        if 'settle' in agent:
            raw = raw.replace('settle = 0\n', '')
        self.config = config.parse((raw + agent + '\n' + sections).encode('ascii'), 'test.conf')
        self.lanes = Lanes(self.config.receivers, retrying=not once)
        self.collector = Collector(self.config, self.spools, Router(self.config), FakePool(self.lanes),
                                   clock=lambda: self.now, once=once)
        return self.collector

    def put(self, *names, **options):
        for name in names:
            with open(os.path.join(options.get('spool', self.spool), name), 'ab') as stream:
                stream.write(options.get('content', b'x'))

    def work(self):
        """Let the collector do all that is due now."""
        for _ in range(1000):
            if self.collector.due() > self.now:
                return
            self.collector.work()
        raise AssertionError('it is always due: this would be a busy loop')

    def after(self, seconds):
        self.now += seconds
        self.work()

    def known(self):
        return sorted([name for _, name in self.lanes.known])

    def deliver(self, most=1000000, outcome=ACCEPTED):
        """Be the worker: take files, remove them where they are accepted; return their names."""
        names = []
        while len(names) < most:
            job = self.lanes.take(self.now)
            if job is None:
                break
            names.append(job.ticket.file.name)
            if outcome.moved:
                os.unlink(job.ticket.file.spool + '/' + job.ticket.file.name)
            self.lanes.settle(job, outcome, self.now, 0.5)
        return names


@pytest.fixture
def bench(tmpdir):
    return Bench(tmpdir)


def few(monkeypatch, most):
    monkeypatch.setattr(lane_module, 'MOST_FILES', most)
    monkeypatch.setattr(collector_module, 'MOST_FILES', most)


def test_with_settle_0_a_file_is_collected_at_once(bench):
    bench.start()
    bench.put('a.json', 'b.json')
    bench.work()
    assert bench.known() == ['a.json', 'b.json']
    assert bench.collector.seen == 2 and bench.collector.bytes == 2
    assert bench.collector.due() == bench.now + 5


def test_new_files_are_found_at_the_next_scan_and_known_ones_not_offered_again(bench):
    bench.start()
    bench.put('a.json')
    bench.work()
    bench.put('b.json')
    bench.after(4.9)
    assert bench.known() == ['a.json']
    bench.after(0.1)
    assert bench.known() == ['a.json', 'b.json'] and bench.collector.seen == 2


def test_a_file_is_collected_once_it_was_seen_unchanged_for_settle(bench):
    bench.start('settle = 2s')
    bench.put('a.json')
    bench.work()
    assert bench.known() == [] and bench.collector.due() == bench.now + 2
    bench.after(1.9)
    assert bench.known() == []
    bench.after(0.1)
    assert bench.known() == ['a.json']


def test_an_old_mtime_proves_nothing(bench):
    bench.start('settle = 2s')
    bench.put('a.json')
    os.utime(os.path.join(bench.spool, 'a.json'), (1000, 1000))
    bench.work()
    assert bench.known() == []


def test_a_file_that_grows_is_left_until_it_stops(bench):
    bench.start('settle = 2s')
    bench.put('a.json')
    bench.work()
    for _ in range(3):
        bench.put('a.json')
        bench.after(2)
        assert bench.known() == []
    bench.after(2)
    assert bench.known() == ['a.json']
    assert bench.lanes.take(bench.now).ticket.file.stamp.size == 4


def test_in_one_pass_a_file_that_grows_is_left_and_counted(bench):
    bench.start('settle = 2s', once=True)
    bench.put('a.json', 'b.json')
    bench.work()
    bench.put('a.json')
    assert not bench.collector.finished()
    bench.after(2)
    assert bench.known() == ['b.json'] and bench.collector.finished()
    assert bench.collector.unsettled == set([(bench.spool, 'a.json')])


def test_a_file_that_goes_while_it_settles_is_forgotten(bench, said):
    bench.start('settle = 2s')
    bench.put('a.json')
    bench.work()
    os.unlink(os.path.join(bench.spool, 'a.json'))
    bench.after(2)
    assert bench.known() == [] and bench.collector.found() == (0, 0) and said == []


def test_a_file_replaced_while_it_settles_begins_anew(bench):
    bench.start('settle = 2s')
    bench.put('a.json')
    bench.work()
    bench.put('.new', content=b'y')
    os.rename(os.path.join(bench.spool, '.new'), os.path.join(bench.spool, 'a.json'))
    bench.after(2)
    assert bench.known() == []
    bench.after(2)
    assert bench.known() == ['a.json']


def test_what_is_ignored_is_neither_collected_nor_spoken_of(bench, said):
    bench.start(sections='[receiver:all]\nmatch = *\nurl = http://127.0.0.1:9/in\n')
    for name in ('sent', 'error', '.envio'):
        os.mkdir(os.path.join(bench.spool, name))
    bench.put('.hidden', 'a.tmp', 'a.part', 'a.partial', 'a.filepart', 'a~', 'a.reason')
    bench.put('a', 'tmp', 'a.tmp.json', 'reason')
    bench.work()
    assert bench.known() == ['a', 'a.tmp.json', 'reason', 'tmp'] and said == []


def test_ignore_changes_that_list(bench):
    bench.start('ignore = *.json', sections='[receiver:all]\nmatch = *\nurl = http://127.0.0.1:9/in\n')
    bench.put('a.json', 'a.tmp')
    bench.work()
    assert bench.known() == ['a.tmp']


def test_what_is_no_file_is_ignored_and_said_once(bench, said):
    bench.start()
    os.mkdir(os.path.join(bench.spool, 'folder.json'))
    os.mkfifo(os.path.join(bench.spool, 'fifo.json'))
    os.symlink('/etc/passwd', os.path.join(bench.spool, 'link.json'))
    bench.work()
    bench.after(5)
    assert bench.known() == []
    assert sorted([line for _, line in said]) == [bench.spool + end for end in (
        '/fifo.json is a FIFO, not a file: ignored', '/folder.json is a folder, not a file: ignored',
        '/link.json is a link, not a file: ignored')]


def test_a_file_without_a_receiver_stays_is_said_once_and_counted_in_each_pass(bench, said):
    bench.start()
    bench.put('a.txt', 'b.txt')
    bench.work()
    assert bench.collector.unrouted == 2
    os.unlink(os.path.join(bench.spool, 'b.txt'))
    bench.after(5)
    bench.after(5)
    assert bench.collector.unrouted == 1
    assert sorted(said) == [('WARNING', '%s/%s.txt stays: no [receiver:...] section matches' % (bench.spool, name))
                            for name in 'ab']


def test_under_cron_the_number_is_enough(bench, said):
    bench.start(once=True)
    bench.put('a.txt')
    bench.work()
    assert bench.collector.unrouted == 1 and [level for level, _ in said] == ['INFO']


def test_many_files_without_a_receiver_do_not_flood_the_log(bench, said, monkeypatch):
    monkeypatch.setattr(collector_module, 'MOST_SAID', 10)
    bench.start()
    bench.put(*['%02d.txt' % number for number in range(30)])
    bench.work()
    first = len(said)
    assert first >= 10
    for _ in range(5):
        bench.after(5)
    assert len(said) == first, 'once is enough'
    assert bench.collector.unrouted == 30


@pytest.mark.parametrize('settle', ['settle = 0', 'settle = 2s'])
@pytest.mark.parametrize('once', [False, True])
def test_a_spool_larger_than_the_bound_is_delivered_to_its_last_file(bench, monkeypatch, settle, once):
    few(monkeypatch, 8)
    bench.start(settle, once=once)
    names = ['%03d.json' % number for number in range(100)]
    bench.put(*names)
    delivered = []
    for _ in range(200):
        bench.after(1)
        assert len(bench.lanes.known) + len(bench.collector._watched) <= 8
        delivered += bench.deliver(3)
    assert sorted(delivered) == names
    assert os.listdir(bench.spool) == []
    assert bench.collector.finished() == once


def test_in_one_pass_files_that_failed_leave_room_for_the_rest(bench, monkeypatch):
    few(monkeypatch, 8)
    bench.start(once=True)
    names = ['%03d.json' % number for number in range(40)]
    bench.put(*names)
    tried = []
    for _ in range(40):
        bench.work()
        tried += bench.deliver(3, FAILED)
    assert sorted(tried) == names, 'each once'
    assert bench.collector.finished() and len(bench.lanes.known) == 40


def test_a_full_lane_takes_no_room_from_the_others(bench, monkeypatch):
    few(monkeypatch, 8)
    bench.start(sections='[receiver:big]\nmatch = big*\nurl = http://127.0.0.1:9/\n'
                         '[receiver:small]\nmatch = small*\nurl = http://127.0.0.1:9/\n')
    bench.put(*['big%d' % number for number in range(50)])
    bench.put('small1', 'small2')
    bench.work()
    assert [name for name in bench.known() if name.startswith('small')] == ['small1', 'small2']
    assert len(bench.known()) == 10


@pytest.mark.parametrize('match', ['match = big*', 'match_regex = big.*'])
def test_for_a_lane_that_is_full_no_url_is_made_and_no_other_receiver_gets_its_files(bench, monkeypatch, match):
    few(monkeypatch, 8)
    made, fill = [], rules.fill
    monkeypatch.setattr(rules, 'fill', lambda *args: made.append(args) or fill(*args))
    bench.start(sections='[receiver:big]\n%s\nurl = http://127.0.0.1:9/{name}\n'
                         '[receiver:rest]\nmatch = *\nurl = http://127.0.0.1:9/{name}\n' % match)
    bench.put(*['big%02d' % number for number in range(30)])
    bench.work()
    assert len(bench.known()) == 8 and len(made) == 9, 'one more shows that the lane is full'
    for rest in (22, 14, 6, 0):
        bench.deliver(8)
        bench.work()
        assert len(bench.known()) == min(8, rest)
    assert bench.lanes.lanes['big'].accepts and not bench.lanes.lanes['rest'].accepts, 'it had none'


def test_a_full_lane_is_no_busy_loop_and_is_filled_when_most_of_it_is_free(bench, monkeypatch):
    few(monkeypatch, 8)
    bench.start()
    bench.put(*['%02d.json' % number for number in range(30)])
    bench.work()
    assert len(bench.known()) == 8 and bench.collector.due() == bench.now + 5
    bench.deliver(5)
    assert bench.collector.due() == bench.now + 5 and not bench.lanes.hungry()
    bench.deliver(1)
    assert bench.lanes.hungry() and bench.collector.due() == 0
    bench.work()
    assert len(bench.known()) == 8


def test_a_large_spool_is_looked_at_in_slices(bench, monkeypatch):
    monkeypatch.setattr(collector_module, 'SLICE', 10)
    bench.start()
    bench.put(*['%02d.json' % number for number in range(35)])
    bench.collector.work()
    assert bench.collector.seen == 10 and bench.collector.due() == 0
    bench.work()
    assert bench.collector.seen == 35


def test_a_spool_that_cant_be_read_is_said_once_and_keeps_no_other_waiting(bench, said):
    gone = bench.spool
    other = bench.add_spool('other')
    bench.start()
    shutil.rmtree(gone)
    bench.put('a.json', spool=other)
    bench.work()
    bench.after(5)
    assert bench.known() == ['a.json']
    assert said == [('WARNING', '%s can\'t be read: No such file or directory: trying again' % gone)]
    os.mkdir(gone)
    bench.put('b.json')
    bench.after(5)
    assert bench.known() == ['a.json', 'b.json']


def test_in_one_pass_a_spool_that_cant_be_read_is_said_aloud(bench, said):
    bench.start(once=True)
    shutil.rmtree(bench.spool)
    bench.work()
    assert bench.collector.finished()
    assert [level for level, _ in said] == ['WARNING'], 'silence would mean that all is well'


def test_the_same_name_in_two_spools_is_two_files(bench):
    other = bench.add_spool('other')
    bench.start()
    bench.put('a.json')
    bench.put('a.json', spool=other)
    bench.work()
    assert bench.lanes.known == set([(bench.spool, 'a.json'), (other, 'a.json')])


def test_after_a_new_configuration_all_files_are_looked_at_anew(bench):
    bench.start('settle = 2s')
    bench.put('a.json', 'a.txt')
    bench.work()
    old = bench.config.receivers[0]
    fresh = bench.config._replace(settle=0, receivers=(old._replace(match=('*.txt',)),))
    bench.collector.configure(fresh, bench.spools, Router(fresh))
    bench.work()
    assert bench.known() == ['a.txt'] and bench.collector.unrouted == 1


def test_odd_names_are_collected_as_they_are(bench):
    names = [compat.fs_native(raw) for raw in (b'new\nline.json', b'inv\xff.json', b'caf\xc3\xa9.json', b'*.json')]
    bench.start()
    bench.put(*names)
    bench.work()
    assert bench.known() == sorted(names)


def test_looking_at_a_folder_a_thousand_times_takes_no_memory(tmpdir):
    def looked(times):
        for _ in range(times):
            assert list(compat.scan_names(str(tmpdir))) == ['a']
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes
    open(str(tmpdir.join('a')), 'w').close()
    before = looked(200)
    assert looked(1000) - before < 2048
