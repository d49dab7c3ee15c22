"""What outlives the process: written and read, torn and unwritable, and an agent that goes on where another stopped."""

import os
import time

import pytest

from agent import compat, config, engine, router, state as module
from agent.breaker import CLOSED, HALF_OPEN, OPEN
from agent.lanes import Lanes
from agent.records import ACK, FILE, RECEIVER, RETRY, LaneState, Outcome, Stamp, Tried
from agent.state import Keeper, State
from agent.stats import Stats
from agent.wakeup import Wakeup
from tests import nobody
from tests.samples import receiver, ticket
from tests.servers import ScriptedServer, ok, refusing_port

FAILED = Outcome(RETRY, RECEIVER, 500, '500 Broken', None, False, None, False, False)
DAY = 86400


class Clock(object):
    """Both clocks, set by hand."""

    def __init__(self):
        self.now, self.wall = 1000.0, 1.8e9

    def pass_(self, seconds):
        self.now += seconds
        self.wall += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def spool(tmpdir):
    tmpdir.mkdir('.envio')
    return str(tmpdir)


def keeper(spool, clock, mode='run'):
    return Keeper([spool], mode, lambda: clock.now, lambda: clock.wall)


def save(spool, clock, lanes, ended=True):
    keep = keeper(spool, clock)
    keep.restore(Lanes([]))
    keep.save(lambda call: call(lanes), Stats(0), ended)


def restored(spool, clock, *receivers):
    lanes = Lanes(receivers)
    keeper(spool, clock).restore(lanes)
    return lanes


def in_spool(spool, of, name):
    one = ticket(of, name)
    return one._replace(file=one.file._replace(spool=spool))


# --- the file

def test_what_is_written_is_read_whatever_the_names(spool):
    state = State(1.5, 0.5, 17, 'run')
    state.lanes['orders'] = LaneState(OPEN, 5, 2, 7.25, 'why "it" \\ is held', 3.0, 0, 1, True, 2)
    state.counts['orders'] = dict([(count, 3) for count in module.COUNTS])
    state.answers['orders'] = '503 caf\xc3\xa9' if str is bytes else '503 caf\xe9', 9.0
    state.waiting['orders'], state.busy['orders'] = 4, 1
    for raw in (b'plain', b'new\nline', b'\xff\xfe', b'caf\xc3\xa9', b'50%41', b'"quoted"'):
        state.tried[compat.fs_native(raw)] = Tried(Stamp(1, 2, 3, 4, 5), 2, 60.5, 'last', True, 'orders')
    module.write(spool, state)
    assert module.read(spool).__dict__ == state.__dict__
    assert os.listdir(os.path.join(spool, '.envio')) == ['state.json']


def test_there_may_be_none_yet(spool):
    assert module.read(spool) is None


@pytest.mark.parametrize('raw', [
    b'', b'{', b'[]', b'null', b'{}', b'{"version": 2}', b'\xff', b'{"version": 1}', b'[' * 100000,
    b'{"version":1,"written":-1,"since":0,"pid":0,"mode":"","receivers":{},"files":{}}',
    b'{"version":1,"written":true,"since":0,"pid":0,"mode":"","receivers":{},"files":{}}',
    b'{"version":1,"written":1,"since":0,"pid":0,"mode":"","receivers":{"a":{}},"files":{}}',
    b'{"version":1,"written":1,"since":0,"pid":0,"mode":"","receivers":{},"files":{"a":[]}}',
    b'{"version":1,"written":1,"since":0,"pid":0,"mode":"","receivers":{},"files":{"a":[[1],1,1,"",0,"r"]}}',
    b'{"version":1,"written":1,"since":0,"pid":0,"mode":"","receivers":{},"files":{"a":[[1e400,1,1,1,1],1,1,"",0,""]}}',
    b'{"version":1,"written":1e17,"since":0,"pid":0,"mode":"","receivers":{},"files":{}}',  # no year of a calendar
    b'{"version":1,"written":1,"since":1e17,"pid":0,"mode":"","receivers":{},"files":{}}',
    b'{"version":1,"written":1e400,"since":0,"pid":0,"mode":"","receivers":{},"files":{}}',
])
def test_what_can_t_be_read_is_set_aside_and_said_once(spool, clock, raw):
    path = os.path.join(spool, module.NAME)
    with open(path, 'wb') as stream:
        stream.write(raw)
    said = []
    module.log.warning, before = lambda *words: said.append(words), module.log.warning
    try:
        lanes = restored(spool, clock, receiver())
    finally:
        module.log.warning = before
    assert len(said) == 1 and 'set aside' in said[0][0]
    assert not os.path.exists(path) and open(path + '.bad', 'rb').read() == raw
    assert lanes.remembered == {} and lanes.lanes['orders'].breaker.state == CLOSED


def test_every_cut_of_a_state_is_set_aside_or_read(spool, clock):
    lanes = Lanes([receiver()])
    lanes.offer(ticket(receiver(), 'a', attempts=3))
    save(spool, clock, lanes)
    path = os.path.join(spool, module.NAME)
    with open(path, 'rb') as stream:
        whole = stream.read()
    for length in range(len(whole)):
        with open(path, 'wb') as stream:
            stream.write(whole[:length])
        with pytest.raises(ValueError):
            module.read(spool)


def test_it_is_written_at_most_once_a_second_and_not_without_need(spool, clock):
    keep, lanes, stats = keeper(spool, clock), Lanes([]), Stats(0)
    keep.restore(lanes)
    assert keep.due() <= clock.now
    keep.save(lambda call: call(lanes), stats)
    assert keep.due() == float('inf')
    keep.heard('orders', '200 OK')
    assert keep.due() == clock.now + module.EVERY


def test_a_state_that_can_t_be_written_is_said_once_and_stops_nothing(clock):
    folder = nobody.make_folder()

    def fail():
        os.mkdir(os.path.join(folder, '.envio'))
        os.chmod(os.path.join(folder, '.envio'), 0o500)
        said, keep, lanes = [], keeper(folder, clock), Lanes([])
        keep.restore(lanes)
        module.log.error = lambda *words: said.append(words)
        for _ in range(3):
            keep.save(lambda call: call(lanes), Stats(0))
        assert len(said) == 1
        os.chmod(os.path.join(folder, '.envio'), 0o700)
        keep.save(lambda call: call(lanes), Stats(0))
        assert module.read(folder) is not None
    before = module.log.error
    try:
        nobody.run(fail)
    finally:
        module.log.error = before
        nobody.remove(folder)


# --- what goes on

def opened(clock, **settings):
    """Return lanes of a receiver that failed until its breaker opened, and it."""
    of = receiver(breaker_threshold=2, workers=1, **settings)
    lanes = Lanes([of])
    for number in range(4):
        lanes.offer(ticket(of, 'f%d' % number, mtime=number))
    for _ in range(2):
        lanes.settle(lanes.take(clock.now), FAILED, clock.now, 1.0)
    return lanes, of


def test_an_open_breaker_stays_open_for_the_rest_of_its_pause(spool, clock):
    lanes, of = opened(clock)
    assert lanes.lanes['orders'].breaker.state == OPEN and lanes.lanes['orders'].breaker.until == clock.now + 5
    save(spool, clock, lanes)
    clock.pass_(2)
    again = restored(spool, clock, of)
    again.offer(ticket(of, 'f3'))
    assert again.take(clock.now) is None and again.next_due(clock.now) == clock.now + 3
    assert again.take(clock.now + 3) is not None, 'one probe'


def test_a_probe_that_was_out_counts_as_not_sent(spool, clock):
    lanes, of = opened(clock)
    clock.pass_(5)
    assert lanes.take(clock.now) is not None and lanes.lanes['orders'].breaker.state == HALF_OPEN
    save(spool, clock, lanes)
    again = restored(spool, clock, of)
    again.offer(ticket(of, 'f3'))
    again.offer(ticket(of, 'f2'))
    assert again.take(clock.now) is not None and again.take(clock.now) is None


@pytest.mark.parametrize('set_by', [-DAY, -1, DAY])
def test_a_clock_that_is_set_stretches_no_pause(spool, clock, set_by):
    lanes, of = opened(clock)
    save(spool, clock, lanes)
    clock.wall += set_by
    due = restored(spool, clock, of).lanes['orders'].breaker.until - clock.now
    assert due == (0 if set_by > 0 else 5)


def test_a_pause_on_disk_is_no_longer_than_one_may_be(spool, clock):
    state = State(clock.wall, clock.wall)
    state.lanes['orders'] = LaneState(OPEN, 5, 9, 1e9, 'held', 1e9, 1e9, 3, False, 99)
    state.counts['orders'], state.answers['orders'] = {}, ('', 0)
    module.write(spool, state)
    lane = restored(spool, clock, receiver(workers=4, hold_probe=300)).lanes['orders']
    assert lane.breaker.until == lane.paused_until == clock.now + 3600 and lane.hold_due == clock.now + 300
    assert lane.window == 4 and lane.held == 'held' and lane.nacks == 3


def test_a_file_s_own_pause_and_attempts_go_on_if_it_is_the_same_file(spool, clock):
    of = receiver()
    lanes = Lanes([of])
    for name in ('same', 'other'):
        lanes.offer(in_spool(spool, of, name))
        lanes.settle(lanes.take(clock.now), FAILED._replace(blame=FILE, status=408, maybe=True), clock.now, 1.0)
    save(spool, clock, lanes)
    clock.pass_(1)
    again = restored(spool, clock, of)
    again.offer(in_spool(spool, of, 'same'))
    changed = in_spool(spool, of, 'other')
    again.offer(changed._replace(file=changed.file._replace(stamp=changed.file.stamp._replace(size=99))))
    first = again.take(clock.now)
    assert (first.ticket.file.name, first.ticket.attempts) == ('other', 0)
    assert again.take(clock.now) is None
    job = again.take(clock.now + 4)
    assert (job.ticket.file.name, job.ticket.attempts, job.ticket.maybe) == ('same', 1, True)
    assert job.ticket.last == '500 Broken'


def test_what_was_not_seen_again_yet_is_written_again(spool, clock):
    of = receiver()
    lanes = Lanes([of])
    lanes.offer(ticket(of, 'a'))
    lanes.settle(lanes.take(clock.now), FAILED._replace(blame=FILE), clock.now, 1.0)
    lanes = Lanes([of])
    lanes.remembered[spool, 'a'] = Tried(Stamp(1, 2, 3, 4, 5), 2, clock.now + 9, 'last', False, 'orders')
    save(spool, clock, lanes)
    save(spool, clock, restored(spool, clock, of))
    assert module.read(spool).tried['a'].attempts == 2


def test_counters_go_on_from_process_to_process(spool, clock):
    of = receiver()
    for expected in (1, 2, 3):
        keep, lanes, stats = keeper(spool, clock), Lanes([of]), Stats(0)
        keep.restore(lanes)

        class Result(object):
            receiver = of
            outcome = Outcome(ACK, FILE, 200, '200 OK', None, False, None, True, False)
            file = ticket(of).file
        stats.add(Result)
        keep.save(lambda call: call(lanes), stats)
        clock.pass_(DAY)
        assert module.read(spool).counts['orders']['accepted'] == expected
    assert module.read(spool).since == 1.8e9


def test_flush_lets_everything_go_of_one_or_all(spool, clock):
    for content, other in (('orders\n', False), ('*\n', True)):
        lanes, of = opened(clock)
        second = receiver('stock')
        lanes.lane(second).paused_until = clock.now + 100
        lanes.offer(ticket(second, 's'))
        keep = keeper(spool, clock)
        keep.restore(lanes)
        assert keep.flush(lanes) == []
        with open(os.path.join(spool, module.FLUSH), 'w') as stream:
            stream.write(content)
        assert keep.flush(lanes) == [content.strip()]
        assert not os.path.exists(os.path.join(spool, module.FLUSH))
        names = [job.ticket.receiver.name for job in iter(lambda: lanes.take(clock.now), None)]
        assert names.count('orders') == 1, 'the probe'
        assert ('stock' in names) == other


# --- the whole agent

class Passes(object):
    """An agent's passes over one spool."""

    def __init__(self, folder, url, keys):
        self.spool = os.path.join(str(folder), 'spool')
        os.mkdir(self.spool)
        raw = '[agent]\nspool = %s\nsettle = 0\n[receiver:orders]\nmatch = *\nurl = %s\n%s\n' % (self.spool, url, keys)
        self._config = config.parse(raw.encode('ascii'), 'test.conf')

    def put(self, *names):
        for name in names:
            with open(os.path.join(self.spool, name), 'w') as stream:
                stream.write(name)

    def once(self):
        """Return how many tries a pass made, when pauses of a millisecond are over."""
        time.sleep(0.02)
        wakeup = Wakeup()
        try:
            agent = engine.run((self._config, router.Router(self._config)), wakeup, once=True)
        finally:
            wakeup.close()
        return agent.stats.tried()


def test_a_cron_job_against_a_dead_receiver_spends_one_probe_when_it_is_due(tmpdir):
    with refusing_port() as port:
        keys = 'workers = 1\nbreaker_threshold = 3\nbreaker_pause = 1h\nbreaker_max_pause = 1h\nretry_pause = 1ms'
        passes = Passes(tmpdir, 'http://127.0.0.1:%d/' % port, keys)
        passes.put(*['f%02d' % number for number in range(20)])
        assert passes.once() == 3
        assert passes.once() == 0
        state = module.read(passes.spool)
        state.lanes['orders'] = state.lanes['orders']._replace(until=0)  # as when the pause is over
        module.write(passes.spool, state)
        assert passes.once() == 1
        assert passes.once() == 0
    assert module.read(passes.spool).counts['orders']['failed'] == 4


def test_a_hold_outlives_the_pass(tmpdir):
    with ScriptedServer([('read_request',), ('send', ok(status='301 Moved'))]) as server:
        passes = Passes(tmpdir, server.url, 'workers = 1')
        passes.put('a', 'b', 'c')
        assert passes.once() == 1
        assert passes.once() == 0
        assert module.read(passes.spool).lanes['orders'].held == '301 Moved'
        assert module.read(passes.spool).mode == ''


def test_a_file_s_own_pause_outlives_the_pass_and_delays_no_other(tmpdir):
    with ScriptedServer([('read_request',), ('send', ok(status='408 Late'))],
                        [('read_request',), ('send', ok())]) as server:
        passes = Passes(tmpdir, server.url, 'workers = 1\nretry_pause = 1m')
        passes.put('late')
        assert passes.once() == 1
        passes.put('new')
        assert passes.once() == 1
        assert sorted(os.listdir(passes.spool)) == ['.envio', 'error', 'late', 'sent']


def test_a_file_that_was_sent_whole_without_an_answer_is_marked(tmpdir):
    with ScriptedServer([('read_request',), ('close',)], [('read_request',), ('send', ok(status='422 No'))]) as server:
        passes = Passes(tmpdir, server.url, 'retry_pause = 1ms')
        passes.put('a')
        passes.once()
        assert module.read(passes.spool).tried['a'].maybe
        passes.once()
    with open(os.path.join(passes.spool, 'error', 'a.reason')) as page:
        reason = page.read()
    assert 'Possibly-Delivered: yes' in reason and 'Attempts: 2' in reason
    assert module.read(passes.spool).tried == {}


@pytest.mark.parametrize('keys, passes_needed, words', [
    ('max_attempts = 3', 3, 'Reason: given up after 3 attempts (max_attempts)'),
    ('expire = 1ms', 1, 'Reason: given up at an age of '),
])
def test_a_file_is_given_up_after_so_many_attempts_or_at_such_an_age(tmpdir, keys, passes_needed, words):
    with ScriptedServer([('read_request',), ('send', ok(b'why', '500 Broken'))]) as server:
        passes = Passes(tmpdir, server.url, 'retry_pause = 1ms\nbreaker_threshold = 99\n' + keys)
        passes.put('a')
        time.sleep(0.01)  # its age
        for _ in range(passes_needed):
            assert os.path.exists(os.path.join(passes.spool, 'a'))
            assert passes.once() == 1
    assert sorted(os.listdir(os.path.join(passes.spool, 'error'))) == ['a', 'a.reason']
    with open(os.path.join(passes.spool, 'error', 'a.reason')) as page:
        reason = page.read()
    assert words in reason and 'Status: 500 Broken' in reason and reason.endswith('\nwhy\n')
    counts = module.read(passes.spool).counts['orders']
    assert counts['rejected'] == 1 and counts['failed'] == passes_needed - 1


def test_a_receiver_that_asks_for_time_and_a_hold_cost_a_file_no_attempt_it_could_be_given_up_for(tmpdir):
    busy = ok(b'', '429 Slow', ['Retry-After: 0'])
    with ScriptedServer([('read_request',), ('send', busy)]) as server:
        passes = Passes(tmpdir, server.url, 'retry_pause = 1ms\nmax_attempts = 2')
        passes.put('a')
        for _ in range(4):
            passes.once()
        assert os.path.exists(os.path.join(passes.spool, 'a'))
