"""The pool: who works when, how it ends, and that one bad file takes no worker with it. No sockets, no files."""

import threading
import time

import pytest

from agent import classify, lane as lane_module
from agent.lanes import Lanes
from agent.records import ACK, FILE, HOST, RETRY, Outcome
from agent.workers import Pool
from tests import samples

LONGEST = 20  # seconds until a test gives up to wait


def accepted(job=None, transport=None):
    return Outcome(ACK, FILE, 200, '200 OK', None, False, None, True, False)


def failed(job=None, transport=None):
    return Outcome(RETRY, FILE, 408, '408 Request Timeout', None, False, None, False, False)


def wait_until(condition):
    """Return when condition() holds: what other threads do takes its time, but not for ever."""
    end = time.time() + LONGEST
    while not condition():
        assert time.time() < end, 'waited for %d s in vain' % LONGEST
        time.sleep(0.001)  # lets the others run


class Delivery(object):
    """Delivers one job at a time, by a function."""

    def __init__(self, deliver):
        self.deliver = deliver

    def deliver_all(self, jobs, transport):
        for job in jobs:
            yield job, self.deliver(job, transport)


class Transport(object):
    """Notes what the pool does with it. most: files in one exchange."""

    def __init__(self, most=1):
        self.cuts, self.aborts, self.closed = [], 0, 0
        self._most = most

    def most(self, receiver):
        return self._most, True

    def cut(self, now):
        self.cuts.append(now)

    def abort(self):
        self.aborts += 1

    def close(self):
        self.closed += 1


class Gate(object):
    """Delivers: each file goes in, waits until it is let out, and gets the outcome then."""

    def __init__(self):
        self._changed = threading.Condition()
        self._leave = 0
        self._endless = False
        self.inside = []     # names that are with a worker
        self.begun = []      # names in the order they went in
        self.most = 0        # the most that were inside at once
        self.answer = accepted

    def deliver(self, job, transport):
        with self._changed:
            self.begun.append(job.ticket.file.name)
            self.inside.append(job.ticket.file.name)
            self.most = max(self.most, len(self.inside))
            while not self._leave and not self._endless:
                self._changed.wait()
            self._leave -= 1
            self.inside.remove(job.ticket.file.name)
        return self.answer(job, transport)

    def let(self, count):
        with self._changed:
            self._leave += count
            self._changed.notify_all() if hasattr(self._changed, 'notify_all') else self._changed.notifyAll()

    def open(self):
        self._endless = True
        self.let(0)


class Bench(object):
    """A pool with what it needs, ended at the end of the test."""

    def __init__(self):
        self.gate = Gate()
        self.notified = 0
        self.now = 1000.0
        self.transports = []
        self.pool = None

    def make_transport(self):
        self.transports.append(Transport(self.most))
        return self.transports[-1]

    def notify(self):
        self.notified += 1

    def start(self, size, *receivers, **options):
        self.lanes = Lanes(receivers, options.get('retrying', True))
        self.most = options.get('most', 1)
        delivery = options.get('delivery') or Delivery(options.get('deliver') or self.gate.deliver)
        self.pool = Pool(self.lanes, size, lambda: (delivery, self.make_transport), self.notify, clock=lambda: self.now)
        if options.get('begin', True):
            self.pool.begin()
        return self.pool

    def offer(self, receiver, count, first=0):
        names = ['%s-%03d' % (receiver.name, number) for number in range(first, first + count)]
        left = self.pool.offer([samples.ticket(receiver, name, mtime) for mtime, name in enumerate(names)])
        assert left == []
        return names

    def idle(self):
        return self.pool._idle

    def out(self):
        return len(self.gate.inside)

    def done(self):
        return [result.file.name for result in list(self.pool.results)]


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    if bench.pool is not None:
        bench.gate.open()
        bench.pool.stop()
        wait_until(bench.pool.ended)


def test_the_workers_begin_with_the_first_file(bench):
    orders = samples.receiver(workers=4)
    bench.start(2, orders, begin=False)
    bench.pool.resize(3)
    assert bench.pool.offer([]) == [] and bench.pool.ended() and bench.pool.quiet() and not bench.transports
    bench.gate.open()
    bench.offer(orders, 5)
    wait_until(lambda: len(bench.pool.results) == 5)
    assert len(bench.transports) == 3


def test_every_file_goes_out_once_and_its_result_is_queued(bench):
    orders = samples.receiver(workers=4)
    bench.start(4, orders)
    bench.gate.open()
    names = bench.offer(orders, 200)
    wait_until(lambda: len(bench.pool.results) == 200)
    assert sorted(bench.done()) == sorted(bench.gate.begun) == names
    wait_until(lambda: bench.pool.quiet() and bench.idle() == 4)
    assert bench.lanes.waiting() == 0 and bench.lanes.busy == 0
    result = bench.pool.results[0]
    assert result.receiver is orders and result.outcome.verdict == ACK and result.attempts == 1 and result.took == 0


def test_a_receiver_gets_no_more_workers_than_its_share(bench):
    orders = samples.receiver(workers=2)
    bench.start(6, orders)
    names = bench.offer(orders, 30)
    wait_until(lambda: bench.out() == 2 and bench.idle() == 4)
    for _ in names:
        bench.gate.let(1)
    wait_until(lambda: len(bench.pool.results) == len(names))
    assert bench.gate.most == 2


def test_no_more_files_are_out_than_there_are_workers(bench):
    orders = samples.receiver(workers=50)
    bench.start(3, orders)
    bench.offer(orders, 30)
    wait_until(lambda: bench.out() == 3)
    bench.gate.open()
    wait_until(lambda: len(bench.pool.results) == 30)
    assert bench.gate.most == 3


def test_a_receiver_that_hangs_leaves_the_others_their_workers(bench):
    slow, quick = samples.receiver('slow', workers=2), samples.receiver('quick', workers=2)

    def deliver(job, transport):
        return bench.gate.deliver(job, transport) if job.ticket.receiver is slow else accepted()
    bench.start(4, slow, quick, deliver=deliver)
    bench.offer(slow, 20)
    wait_until(lambda: bench.out() == 2)
    names = bench.offer(quick, 100)
    wait_until(lambda: sorted(bench.done()) == names)
    assert bench.out() == 2


def test_stop_lets_what_is_out_come_back_and_starts_nothing_new(bench):
    orders = samples.receiver(workers=2)
    pool = bench.start(4, orders)
    bench.offer(orders, 10)
    wait_until(lambda: bench.out() == 2 and bench.idle() == 2)
    pool.stop()
    wait_until(lambda: len([transport for transport in bench.transports if transport.closed]) == 2)
    assert not pool.ended() and bench.out() == 2
    bench.offer(orders, 1, first=90)
    bench.gate.open()
    wait_until(pool.ended)
    assert sorted(bench.done()) == ['orders-000', 'orders-001'] == sorted(bench.gate.begun)
    assert bench.lanes.waiting() == 9 and bench.lanes.busy == 0
    assert [transport.closed for transport in bench.transports] == [1, 1, 1, 1]
    assert pool.rouse() is None


def test_the_main_thread_is_woken_when_the_last_worker_has_ended(bench):
    pool = bench.start(2)
    wait_until(lambda: bench.idle() == 2)
    before = bench.notified
    pool.stop()
    wait_until(pool.ended)
    assert bench.notified >= before + 2


def test_cut_and_abort_reach_every_worker(bench):
    pool = bench.start(3)
    pool.cut()
    pool.abort()
    assert [transport.cuts for transport in bench.transports] == [[1000.0]] * 3
    assert [transport.aborts for transport in bench.transports] == [1, 1, 1]


def test_more_workers_take_up_what_waits(bench):
    orders = samples.receiver(workers=9)
    pool = bench.start(1, orders)
    bench.offer(orders, 9)
    wait_until(lambda: bench.out() == 1)
    pool.resize(5)
    wait_until(lambda: bench.out() == 5)
    assert len(bench.transports) == 5


def test_fewer_workers_end_when_their_file_is_done_and_can_come_back(bench):
    orders = samples.receiver(workers=9)
    pool = bench.start(4, orders)
    bench.offer(orders, 12)
    wait_until(lambda: bench.out() == 4)
    pool.resize(1)
    assert bench.out() == 4, 'nobody is interrupted'
    bench.gate.let(4)
    wait_until(lambda: [transport.closed for transport in bench.transports].count(1) == 3)
    wait_until(lambda: len(bench.done()) == 4 and bench.out() == 1)
    pool.resize(3)
    wait_until(lambda: bench.out() == 3)
    bench.gate.open()
    wait_until(lambda: len(bench.done()) == 12)


def test_fewer_idle_workers_end_at_once(bench):
    pool = bench.start(5)
    wait_until(lambda: bench.idle() == 5)
    pool.resize(2)
    wait_until(lambda: [transport.closed for transport in bench.transports].count(1) == 3)
    wait_until(lambda: bench.idle() == 2)


def test_a_host_that_gives_fewer_threads_gets_its_work_done_by_those(bench, monkeypatch):
    orders, start = samples.receiver(workers=9), threading.Thread.start

    def start_two(thread):
        if len([one for one in bench.transports if not one.closed]) > 2:
            raise threading.ThreadError('can\'t start new thread')
        start(thread)
    monkeypatch.setattr(threading.Thread, 'start', start_two)
    pool = bench.start(5, orders)
    bench.gate.open()
    names = bench.offer(orders, 9)
    wait_until(lambda: sorted(bench.done()) == names)
    pool.stop()
    wait_until(pool.ended)


def test_a_fault_of_the_program_leaves_the_file_and_the_worker(bench):
    orders = samples.receiver(workers=1)

    def deliver(job, transport):
        if job.ticket.file.name == 'orders-000':
            raise KeyError('a fault')
        return accepted()
    bench.start(1, orders, deliver=deliver)
    bench.offer(orders, 3)
    wait_until(lambda: len(bench.pool.results) == 3)
    outcomes = dict([(result.file.name, result.outcome) for result in bench.pool.results])
    fault = outcomes.pop('orders-000')
    assert (fault.verdict, fault.blame, fault.moved) == (RETRY, HOST, False) and 'KeyError' in fault.reason
    assert [outcome.verdict for outcome in outcomes.values()] == [ACK, ACK]
    wait_until(lambda: bench.idle() == 1)
    assert bench.lanes.known == set([('/var/spool/envio', 'orders-000')]), 'it stays, and is tried again'
    assert bench.transports[0].closed == 1, 'what it may have left half sent is not used again'


def test_the_main_thread_is_woken_for_an_idle_worker_a_first_file_and_a_file_that_stays(bench):
    orders = samples.receiver(workers=1)
    pool = bench.start(1, orders)
    wait_until(lambda: bench.notified == 1)
    pool.rouse()
    bench.gate.answer = failed
    bench.offer(orders, 2)
    wait_until(lambda: bench.out() == 1)
    assert bench.notified == 2, 'there is a deadline to watch'
    pool.rouse()
    bench.gate.let(1)
    wait_until(lambda: bench.notified == 3)


def test_a_main_thread_that_has_not_looked_yet_is_not_woken_again(bench):
    orders = samples.receiver(workers=4)
    bench.start(4, orders)
    wait_until(lambda: bench.idle() == 4)
    bench.gate.open()
    bench.offer(orders, 50)
    wait_until(lambda: len(bench.pool.results) == 50 and bench.idle() == 4)
    assert bench.notified == 1


def test_many_results_wake_the_main_thread_before_they_pile_up(bench, monkeypatch):
    monkeypatch.setattr('agent.workers.MANY_RESULTS', 5)
    orders = samples.receiver(workers=1)
    pool = bench.start(1, orders)
    bench.offer(orders, 9)
    wait_until(lambda: bench.out() == 1)
    pool.rouse()
    before = bench.notified
    for count in range(1, 5):
        bench.gate.let(1)
        wait_until(lambda: len(bench.gate.begun) == count + 1)
        assert bench.notified == before
    bench.gate.let(1)
    wait_until(lambda: bench.notified == before + 1)


def test_a_file_whose_pause_is_over_goes_when_the_main_thread_rouses(bench):
    orders = samples.receiver(workers=1)
    pool = bench.start(1, orders)
    bench.gate.open()
    bench.gate.answer = failed
    bench.offer(orders, 1)
    wait_until(lambda: len(bench.pool.results) == 1 and bench.idle() == 1)
    due = pool.rouse()
    assert 1000.0 < due <= 1000.0 + orders.retry_pause * 1.5
    bench.now = due
    assert pool.rouse() is None
    wait_until(lambda: len(bench.pool.results) == 2)
    assert pool.results[1].attempts == 2


def test_when_all_are_busy_rousing_does_nothing(bench):
    orders = samples.receiver(workers=2)
    pool = bench.start(2, orders)
    bench.offer(orders, 5)
    wait_until(lambda: bench.out() == 2)
    assert pool.rouse() is None and not pool.quiet()


def test_what_finds_no_room_is_handed_back(bench, monkeypatch):
    monkeypatch.setattr(lane_module, 'MOST_FILES', 3)
    orders = samples.receiver(workers=1)
    pool = bench.start(1, orders)
    tickets = [samples.ticket(orders, 'file-%d' % number, number) for number in range(5)]
    assert pool.offer(tickets) == tickets[3:]


def test_in_one_pass_what_failed_is_not_tried_again(bench):
    orders = samples.receiver(workers=2)
    pool = bench.start(2, orders, retrying=False)
    bench.gate.open()
    bench.gate.answer = failed
    bench.offer(orders, 4)
    wait_until(lambda: len(bench.pool.results) == 4 and bench.idle() == 2)
    bench.now += 100000
    assert pool.rouse() is None and pool.quiet()
    assert bench.lanes.waiting() == 4


def test_a_failure_of_this_host_is_none_of_the_receiver(bench):
    orders = samples.receiver(workers=1, breaker_threshold=1)
    bench.start(1, orders)
    bench.gate.open()
    bench.gate.answer = lambda *_: classify.of_host('can\'t be read: Permission denied')
    bench.offer(orders, 3)
    wait_until(lambda: len(bench.pool.results) == 3 and bench.idle() == 1)
    assert bench.lanes.lanes['orders'].breaker.state == 'CLOSED'


# --- several files in one exchange

class Together(Delivery):
    """Delivers several jobs together; notes their names. begins: how many of them it comes to, None: all."""

    def __init__(self, begins=None, breaks=False):
        Delivery.__init__(self, accepted)
        self.runs = []
        self._begins, self._breaks = begins, breaks

    def deliver_all(self, jobs, transport):
        self.runs.append([job.ticket.file.name for job in jobs])
        for number, job in enumerate(jobs):
            if self._breaks and number == 1:
                raise KeyError('a fault')
            yield job, None if self._begins is not None and number >= self._begins else accepted()


def test_files_of_a_receiver_that_accepts_go_together_and_each_has_its_result(bench):
    orders, delivery = samples.receiver(workers=1), Together()
    bench.start(1, orders, delivery=delivery, most=4)
    names = bench.offer(orders, 100)
    wait_until(lambda: len(bench.pool.results) == 100)
    assert sorted(bench.done()) == names
    assert max([len(run) for run in delivery.runs]) == 4
    wait_until(lambda: bench.idle() == 1)
    assert bench.lanes.busy == 0 and not bench.lanes.known


def test_what_was_not_begun_goes_again_and_counts_as_nothing(bench):
    orders, delivery = samples.receiver(workers=1), Together(begins=2)
    bench.start(1, orders, delivery=delivery, most=8)
    names = bench.offer(orders, 60)
    wait_until(lambda: len(bench.pool.results) == 60)
    assert sorted(bench.done()) == names, 'each once'
    assert set([result.attempts for result in bench.pool.results]) == set([1])
    wait_until(lambda: bench.idle() == 1)
    assert bench.lanes.busy == 0 and bench.lanes.lanes['orders'].riding == 0


def test_a_fault_of_the_program_in_the_middle_leaves_the_rest_of_the_files(bench):
    orders, delivery = samples.receiver(workers=1), Together(breaks=True)
    bench.start(1, orders, delivery=delivery, most=4)
    bench.offer(orders, 20)
    wait_until(lambda: delivery.runs and bench.idle() == 1)
    assert bench.lanes.busy == 0 and bench.lanes.lanes['orders'].riding == 0
    assert len([result for result in bench.pool.results if result.outcome.moved]) + len(bench.lanes.known) == 20
