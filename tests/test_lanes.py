"""The lanes alone: no thread, no socket, virtual time."""

import random

from agent import lane as lane_module
from agent.breaker import CLOSED, HALF_OPEN, OPEN
from agent.lanes import Lanes
from agent.records import ACK, FILE, GONE, HOLD, HOST, NACK, RECEIVER, RETRY, Outcome
from tests.samples import receiver, ticket

DONE = Outcome(ACK, FILE, 200, '200 OK', None, False, None, True, False)
REJECTED = DONE._replace(verdict=NACK, status=422)
FAILED = DONE._replace(verdict=RETRY, blame=RECEIVER, status=500, moved=False)
POISON = FAILED._replace(blame=FILE, status=408)
HELD = FAILED._replace(verdict=HOLD, status=301)
BUSY = FAILED._replace(status=429, throttle=True, retry_after=30)
CHANGED = FAILED._replace(blame=HOST, status=None, gone=True)


def filled(receivers, files=1, **settings):
    lanes = Lanes(receivers, **settings)
    for of in receivers:
        for number in range(files):
            assert lanes.offer(ticket(of, '%s-%d' % (of.name, number), mtime=number))
    return lanes


def take_all(lanes, now=0.0):
    jobs = []
    while True:
        job = lanes.take(now)
        if job is None:
            return jobs
        jobs.append(job)


def names(jobs):
    return [job.ticket.file.name for job in jobs]


def fail_until_open(lanes, name, now=0.0):
    while lanes.lanes[name].breaker.state != OPEN:
        lanes.settle(lanes.take(now), FAILED, now, 1.0)


def test_a_receiver_has_at_most_its_share_of_workers():
    lanes = filled([receiver(workers=3)], files=10)
    assert len(take_all(lanes)) == 3


def test_the_oldest_file_goes_first():
    of = receiver(workers=9)
    lanes = Lanes([of])
    for mtime in (5, 1, 3):
        lanes.offer(ticket(of, 'f%d' % mtime, mtime=mtime))
    assert names(take_all(lanes)) == ['f1', 'f3', 'f5']


def test_lanes_take_turns():
    lanes = filled([receiver('a', workers=9), receiver('b', workers=9)], files=3)
    order = ''.join([name[0] for name in names(take_all(lanes))])
    assert order in ('ababab', 'bababa')


def test_a_file_is_known_until_it_is_moved():
    of = receiver()
    lanes = filled([of])
    lanes.offer(ticket(of, 'orders-0'))
    job, = take_all(lanes)
    lanes.settle(job, FAILED, 0, 1.0)
    lanes.offer(ticket(of, 'orders-0'))
    assert lanes.lanes['orders'].waiting() == 1
    lanes.settle(lanes.take(100), DONE, 100, 1.0)
    assert not lanes.known and lanes.next_due(100) is None


def test_a_lane_takes_a_bounded_number_of_files(monkeypatch):
    monkeypatch.setattr(lane_module, 'MOST_FILES', 4)
    of = receiver()
    lanes = filled([of], files=4)
    assert not lanes.offer(ticket(of, 'one more'))
    lanes.mark_overflow(set(['orders']))
    for _ in range(2):
        lanes.settle(lanes.take(0), DONE, 0, 0)
        assert not lanes.hungry()
    lanes.settle(lanes.take(0), DONE, 0, 0)
    assert lanes.hungry() and not lanes.hungry(), 'three quarters of it are free: said once'


def test_a_failed_file_waits_its_own_doubling_pause():
    lanes, now = filled([receiver(breaker_threshold=99)]), 0.0
    for pause in (5, 10, 20, 40):
        lanes.settle(lanes.take(now), POISON, now, 1.0)
        assert lanes.next_due(now) == now + pause
        assert lanes.take(now + pause - 0.1) is None
        now += pause


def test_a_file_waits_at_least_as_long_as_the_receiver_asked():
    lanes = filled([receiver()])
    lanes.settle(lanes.take(0), POISON._replace(retry_after=77), 0, 0.0)
    assert lanes.next_due(0) == 77


def test_a_poison_file_does_not_block_its_receiver():
    lanes, now, sent = filled([receiver(workers=1)], files=30), 0.0, []
    for _ in range(200):
        job = lanes.take(now)
        if job is None:
            now = lanes.next_due(now)
            continue
        poison = job.ticket.file.name == 'orders-0'
        lanes.settle(job, FAILED if poison else DONE, now, random.random())
        if not poison:
            sent.append(job.ticket.file.name)
    assert len(sent) == 29
    assert lanes.lanes['orders'].breaker.state in (CLOSED, OPEN, HALF_OPEN)


def test_fresh_and_deferred_files_take_turns():
    lanes = filled([receiver(workers=99, breaker_threshold=99, brake=0)], files=8)
    for job in take_all(lanes)[:4]:
        lanes.settle(job, POISON, 0, 1.0)
    of = lanes.lanes['orders'].receiver
    for number in range(4):
        lanes.offer(ticket(of, 'new-%d' % number, mtime=100))
    kinds = ''.join([name[0] for name in names(take_all(lanes, now=100))])
    assert kinds in ('nononono', 'onononon'), kinds


def test_an_open_breaker_costs_no_worker_and_delays_no_other_receiver():
    lanes = filled([receiver('dead'), receiver('well', workers=2)], files=20)
    dead = lanes.lanes['dead']
    while dead.breaker.state != OPEN:
        job = lanes.take(0)
        lanes.settle(job, FAILED if job.ticket.receiver.name == 'dead' else DONE, 0, 1.0)
    jobs = take_all(lanes)
    assert [job.ticket.receiver.name for job in jobs] == ['well', 'well']
    assert dead.due(0) == 5


def test_after_the_pause_one_probe_goes_out_then_the_window_opens_by_one_for_each_success():
    lanes = filled([receiver(workers=4, breaker_threshold=2)], files=20)
    fail_until_open(lanes, 'orders')
    assert take_all(lanes, 4.9) == []
    widths, jobs = [], take_all(lanes, 5)
    for _ in range(5):
        widths.append(len(jobs))
        lanes.settle(jobs.pop(0), DONE, 5, 1.0)
        jobs.extend(take_all(lanes, 5))
    assert widths == [1, 1, 2, 3, 4]


def test_the_probe_is_the_file_that_failed_least():
    of = receiver(workers=1, breaker_threshold=3)
    lanes = Lanes([of])
    for number, attempts in enumerate((7, 2, 5)):
        lanes.offer(ticket(of, 'tried-%d' % attempts, attempts=attempts))
    fail_until_open(lanes, 'orders')
    assert lanes.take(10000).ticket.file.name == 'tried-2'


def test_a_rejected_file_proves_the_receiver_alive():
    lanes = filled([receiver(workers=1, breaker_threshold=3)], files=9)
    for outcome in (FAILED, FAILED, REJECTED, FAILED, FAILED):
        lanes.settle(lanes.take(0), outcome, 0, 1.0)
    assert lanes.lanes['orders'].breaker.state == CLOSED


def test_a_busy_receiver_is_left_alone_without_counting_as_failed():
    lanes = filled([receiver(breaker_threshold=1)], files=5)
    lanes.settle(lanes.take(0), BUSY, 0, 0.0)
    lane = lanes.lanes['orders']
    assert lane.breaker.state == CLOSED
    assert lanes.take(29.9) is None and lane.due(0) == 30
    assert lanes.take(30) is not None and lanes.take(30) is None, 'one by one, as after an outage'


def test_those_that_were_told_the_same_do_not_come_back_together():
    dues = []
    for rnd in (0.0, 0.5, 0.99):
        lanes = filled([receiver(breaker_threshold=1)], files=5)
        lanes.settle(lanes.take(0), BUSY, 0, rnd)
        dues.append(lanes.lanes['orders'].paused_until)
    assert dues == [30, 37.5, 30 * 1.495]


def test_a_busy_receiver_is_probed_no_sooner_than_it_asked():
    lanes = filled([receiver(breaker_threshold=1)], files=5)
    fail_until_open(lanes, 'orders')
    lanes.settle(lanes.take(5), BUSY._replace(status=503, retry_after=300), 5, 0.0)
    assert lanes.lanes['orders'].breaker.until == 305


def test_hold_stops_everything_of_the_receiver_but_one_probe_every_hold_probe():
    lanes = filled([receiver(workers=4, hold_probe=300)], files=9)
    jobs = take_all(lanes)
    lanes.settle(jobs.pop(), HELD, 0, 1.0)
    assert take_all(lanes) == [], 'on hold'
    for job in jobs:
        lanes.settle(job, FAILED._replace(blame=FILE), 0, 1.0)
    assert take_all(lanes, 299.9) == []
    probe, = take_all(lanes, 300)
    assert probe.holding
    lanes.settle(probe, HELD, 300, 1.0)
    assert take_all(lanes, 599.9) == []
    probe, = take_all(lanes, 600)
    lanes.settle(probe, DONE, 600, 1.0)
    assert len(take_all(lanes, 600)) == 4, 'an ACK ends it'


def test_only_an_ack_ends_a_hold():
    lanes = filled([receiver(hold_probe=300)], files=9)
    lanes.settle(lanes.take(0), HELD, 0, 1.0)
    for now, outcome in ((300, POISON), (600, HELD), (900, FAILED)):
        lanes.settle(lanes.take(now), outcome, now, 1.0)
        assert lanes.take(now + 299) is None


def test_the_brake_holds_after_exactly_that_many_rejections_in_a_row():
    lanes = filled([receiver(workers=50, brake=10)], files=100)
    rejected, waiting = 0, take_all(lanes)
    while waiting:
        lanes.settle(waiting.pop(0), REJECTED, 0, 1.0)
        rejected += 1
        waiting.extend(take_all(lanes))
    assert rejected == 10
    assert lanes.lanes['orders'].held


def test_the_brake_does_not_narrow_a_receiver_that_accepts():
    lanes = filled([receiver(workers=50, brake=10)], files=100)
    lanes.settle(take_all(lanes)[0], DONE, 0, 1.0)
    take_all(lanes)
    assert lanes.busy == 50


def test_an_ack_between_rejections_releases_the_brake_and_zero_turns_it_off():
    for settings, rounds in ((dict(brake=3), (REJECTED, REJECTED, DONE) * 4), (dict(brake=0), (REJECTED,) * 30)):
        lanes = filled([receiver(workers=1, **settings)], files=40)
        for outcome in rounds:
            lanes.settle(lanes.take(0), outcome, 0, 1.0)
        assert not lanes.lanes['orders'].held


def test_an_answered_file_that_could_not_be_moved_is_moved_later_and_not_sent_again():
    lanes = filled([receiver()])
    lanes.settle(lanes.take(0), DONE._replace(moved=False), 0, 1.0)
    assert lanes.unmoved() == 1 and len(lanes.known) == 1
    assert lanes.take(4.9) is None
    job = lanes.take(5)
    assert job.ticket.settled.verdict == ACK and job.generation is None
    lanes.settle(job, DONE, 5, 1.0)
    assert not lanes.known


def test_an_unmoved_file_is_tried_even_while_its_receiver_is_open():
    lanes = filled([receiver(workers=1, breaker_threshold=1)], files=3)
    lanes.settle(lanes.take(0), DONE._replace(moved=False), 0, 1.0)
    fail_until_open(lanes, 'orders')
    assert lanes.take(5).ticket.settled


def test_a_probe_that_never_reached_the_receiver_decides_nothing():
    lanes = filled([receiver(breaker_threshold=1)], files=3)
    fail_until_open(lanes, 'orders')
    lanes.settle(lanes.take(5), CHANGED, 5, 1.0)
    assert lanes.lanes['orders'].breaker.state == HALF_OPEN
    assert lanes.take(5) is not None


def test_a_changed_file_is_forgotten_so_that_it_is_collected_anew():
    lanes = filled([receiver()])
    lanes.settle(lanes.take(0), CHANGED, 0, 1.0)
    assert not lanes.known


def test_one_pass_tries_each_file_once_and_keeps_it_known():
    lanes = filled([receiver(workers=1, breaker_threshold=99)], files=4, retrying=False)
    for outcome in (POISON, CHANGED, CHANGED._replace(verdict=GONE), DONE):
        lanes.settle(lanes.take(0), outcome, 0, 1.0)
    assert take_all(lanes, 10 ** 6) == []
    assert len(lanes.known) == 2, 'the failed and the changed one wait for the next pass'


def test_every_change_of_state_is_one_event_that_says_why():
    lanes = filled([receiver(breaker_threshold=1, workers=1)], files=9)
    for now, outcome in ((0, FAILED), (5, DONE), (6, HELD), (306, DONE), (307, BUSY)):
        lanes.settle(lanes.take(now), outcome, now, 1.0)
    sentences = [sentence for _, sentence in lanes.events]
    assert len(sentences) == 5
    for sentence, begin in zip(sentences, ('OPEN for 5.0 s after 1 failure, last: 200 OK', 'CLOSED', 'HOLD: 200 OK',
                                           'HOLD is over', 'paused for 45 s')):
        assert sentence.startswith(begin), sentence


def test_withdrawn_files_keep_their_pauses_when_they_are_offered_again():
    lanes = filled([receiver(workers=1, breaker_threshold=99)], files=2)
    lanes.settle(lanes.take(0), POISON, 0, 1.0)
    out = lanes.take(0)
    tickets = lanes.withdraw()
    assert [one.due for one in tickets] == [5] and len(lanes.known) == 1
    lanes.receivers_changed([receiver(workers=7)])
    for one in tickets:
        lanes.offer(one)
    assert lanes.take(4.9) is None
    assert lanes.take(5).ticket.attempts == 1
    lanes.settle(out, DONE, 5, 1.0)


def test_a_random_walk_keeps_every_promise():
    for seed in range(15):
        _walk(random.Random(seed))


def _walk(rnd):
    """Receivers that fail, reject, hold and recover at random, under a clock that only moves on."""
    receivers = [receiver('r%d' % number, workers=rnd.randint(1, 5), breaker_threshold=rnd.randint(1, 4),
                          brake=rnd.choice((0, 3, 10)), hold_probe=rnd.choice((1, 60, 300)))
                 for number in range(4)]
    lanes = filled(receivers, files=25)
    now, out, ended, well = 0.0, [], set(), False
    for step in range(30000):
        well = well or step > 3000  # in the end everybody recovers
        job = lanes.take(now) if len(out) < 8 and rnd.random() < 0.7 else None
        if job is not None:
            out.append(job)
            _check_limits(lanes, out)
        elif out and rnd.random() < 0.8:
            job = out.pop(rnd.randrange(len(out)))
            outcome = DONE if well else rnd.choice((DONE, REJECTED, FAILED, FAILED, POISON, HELD, BUSY, CHANGED))
            if job.holding and outcome is REJECTED:
                outcome = HELD  # as delivery does
            lanes.settle(job, outcome, now, rnd.random())
            if outcome.moved or outcome.gone:
                ended.add(job.ticket.file.name)
        else:
            due = lanes.next_due(now)
            if due is None and not out:
                break
            now = max(now + 0.001, due or 0)
    assert len(ended) == 100, 'every file ends: %d' % len(ended)
    assert not lanes.known and not lanes.busy


def _check_limits(lanes, out):
    for name, lane in lanes.lanes.items():
        mine = [job for job in out if job.ticket.receiver.name == name]
        assert lane.busy == len(mine) <= lane.receiver.workers
        probes = [job for job in mine if job.generation == lane.breaker.generation]
        if lane.breaker.state == HALF_OPEN:
            assert len(probes) <= 1, 'exactly one probe'
        if lane.breaker.state == OPEN:
            assert not probes
        assert len([job for job in mine if job.holding]) <= 1


# --- fewer workers than the lanes' limits add up to

def test_receivers_that_never_answer_do_not_get_all_the_workers():
    lanes = filled([receiver('pit-%d' % n, workers=4) for n in range(2)] + [receiver('well', workers=4)], files=20)
    lanes.workers = 6
    out, served = [], 0
    for turn in range(30):  # as workers do: whoever is free takes the next
        while len(out) < lanes.workers:
            job = lanes.take(turn)
            if job is None:
                break
            out.append(job)
        well = [job for job in out if job.ticket.receiver.name == 'well']
        for job in well:
            out.remove(job)
            lanes.settle(job, DONE, turn, 1.0)
            served += 1
    assert served == 20
    assert [lanes.lanes['pit-%d' % n].busy for n in range(2)] == [1, 1]


def test_a_lane_that_answers_gets_what_the_others_leave_and_one_that_fails_no_longer():
    lanes = filled([receiver('a', workers=9), receiver('b', workers=9)], files=30)
    lanes.workers = 8
    jobs = {'a': [], 'b': []}
    for job in take_all(lanes):
        jobs[job.ticket.receiver.name].append(job)
    assert (len(jobs['a']), len(jobs['b'])) == (2, 2), 'half of four each'
    assert lanes.next_due(0) is None, 'and nothing is said to be due'
    lanes.settle(jobs['a'].pop(), DONE, 0, 1.0)
    for job in take_all(lanes):
        jobs[job.ticket.receiver.name].append(job)
    assert (len(jobs['a']), len(jobs['b'])) == (6, 2), 'all eight'
    lanes.settle(jobs['a'].pop(), FAILED, 0, 1.0)
    assert lanes.take(0) is None and lanes.next_due(0) is None


# --- several files in one exchange

def riding(lanes, job, most=16, now=0):
    return lanes.take_along(job, most, True, now)


def accepting(files=100, **settings):
    """Return lanes of a receiver that has accepted ten files."""
    lanes = filled([receiver(**settings)], files=files)
    for _ in range(10):
        lanes.settle(lanes.take(0), DONE, 0, 1.0)
    return lanes


def test_small_files_go_along_and_take_no_share_of_the_workers():
    lanes = accepting(workers=2)
    job = lanes.take(0)
    along = riding(lanes, job, 6)
    assert len(along) == 5 and all([each.riding for each in along]) and not job.riding
    assert lanes.busy == 6
    assert lanes.take(0) is not None, 'the second worker is free'
    assert lanes.take(0) is None
    for each in along:
        lanes.settle(each, DONE, 0, 1.0)
    assert lanes.take(0) is None, 'both exchanges are still out'
    lanes.settle(job, DONE, 0, 1.0)
    assert lanes.take(0) is not None


def test_more_go_along_with_each_acceptance_and_none_after_a_failure_or_rejection():
    lanes = filled([receiver(workers=1, brake=0)], files=200)
    counts = []
    for outcome in (DONE, DONE, DONE, FAILED, DONE, DONE, REJECTED, DONE):
        job = lanes.take(0)
        along = riding(lanes, job)
        counts.append(len(along))
        for each in along:
            lanes.give_back(each)
        lanes.settle(job, outcome, 0, 1.0)
    assert counts == [0, 2, 3, 4, 1, 2, 3, 0]


def test_the_other_workers_keep_their_part_of_few_files():
    lanes = accepting(files=22, workers=4)
    job = lanes.take(0)
    assert len(riding(lanes, job)) == 2, 'of 11 that are left a quarter'


def test_nobody_goes_along_with_a_probe_a_large_file_or_a_mere_move():
    lanes = accepting(workers=1, breaker_threshold=1)
    lanes.settle(lanes.take(0), FAILED, 0, 1.0)
    assert riding(lanes, lanes.take(5)) == [], 'a probe'

    lanes = accepting(workers=1)
    job = lanes.take(0)
    large = job._replace(ticket=job.ticket._replace(file=job.ticket.file._replace(
        stamp=job.ticket.file.stamp._replace(size=10 ** 9))))
    assert riding(lanes, large) == []

    lanes = accepting(workers=1)
    lanes.settle(lanes.take(0), DONE._replace(moved=False), 0, 1.0)
    assert riding(lanes, lanes.take(5)) == [], 'a move'


def test_a_large_file_does_not_go_along():
    lanes = accepting(workers=1)
    of = lanes.lanes['orders'].receiver
    large = ticket(of, 'large', mtime=-1)
    lanes.offer(large._replace(file=large.file._replace(stamp=large.file.stamp._replace(size=10 ** 9))))
    first = ticket(of, 'first', mtime=-2)
    lanes.offer(first)
    assert riding(lanes, lanes.take(0)) == [], 'the large one is next'


def test_a_job_that_was_not_begun_comes_back_as_it_was():
    lanes = accepting(workers=1, files=100)
    job = lanes.take(0)
    along = riding(lanes, job)
    for each in along:
        lanes.give_back(each)
    lanes.settle(job, DONE, 0, 1.0)
    lane = lanes.lanes['orders']
    assert (lane.busy, lane.riding, lanes.busy) == (0, 0, 0)
    assert lane.waiting() == 89 and len(lanes.known) == 89
    again = lanes.take(0)
    assert (again.ticket.file.name, again.ticket.attempts) == (along[0].ticket.file.name, 0)


# --- several files of one worker, each an exchange

def beside(lanes, job, most=4, now=0):
    return lanes.take_along(job, most, False, now)


def test_a_worker_takes_several_files_within_the_receivers_limit_and_that_of_all_workers():
    for limit, workers, count in ((4, 8, 3), (2, 8, 1), (8, 8, 3), (8, 2, 1), (8, 1, 0), (1, 8, 0)):
        lanes = accepting(workers=limit)
        lanes.workers = workers
        job = lanes.take(0)
        along = beside(lanes, job)
        assert len(along) == count, (limit, workers)
        assert lanes.busy == count + 1 and not [each for each in along if each.riding]
        if limit == count + 1:
            assert lanes.take(0) is None, 'they have all of its share'


def test_after_a_reload_none_goes_along_with_one_of_other_settings():
    lanes = accepting(workers=4)
    lanes.workers = 4
    job = lanes.take(0)
    tickets = lanes.withdraw()
    fresh = job.ticket.receiver._replace(gzip=True)
    lanes.receivers_changed([fresh])
    for waiting in tickets:
        lanes.offer(waiting._replace(receiver=fresh))
    assert beside(lanes, job) == [] and riding(lanes, job) == []
    other = lanes.take(0)
    assert other.ticket.receiver is fresh and len(beside(lanes, other)) == 2


def test_where_several_receivers_have_work_a_worker_leaves_the_others_their_part():
    receivers = [receiver(name) for name in 'ab']
    lanes = filled(receivers, files=60)
    lanes.workers = 4
    for _ in range(20):
        lanes.settle(lanes.take(0), DONE, 0, 1.0)
    assert len(beside(lanes, lanes.take(0))) == 1, 'two of four'
    assert len(beside(lanes, lanes.take(0))) == 1


def test_none_go_beside_one_while_anything_is_doubtful():
    lanes = filled([receiver(workers=4, brake=0)], files=100)
    lanes.workers = 8
    job = lanes.take(0)
    assert beside(lanes, job) == [], 'it has accepted nothing yet'
    lanes.settle(job, DONE, 0, 1.0)
    job = lanes.take(0)
    assert len(beside(lanes, job)) == 3
    lanes.settle(job, REJECTED, 0, 1.0)
    assert beside(lanes, lanes.take(0)) == []


def test_a_worker_whose_turn_is_older_leaves_the_files_to_those_that_can_have_all():
    lanes = accepting(workers=4)
    lanes.workers = 4
    old, young = lanes.take(0), lanes.take(0)
    assert 0 < old.turn < young.turn
    assert len(beside(lanes, young, 2)) == 1
    lanes.settle(old, DONE, 0, 1.0)
    assert lanes.take(0, old.turn) is None, 'the other one takes them along'
    assert lanes.next_due(0) == 0, 'but there is something to do'
    assert lanes.take(0) is not None, 'for one that comes from a rest'


def test_a_worker_does_not_leave_files_to_one_that_may_hang():
    lanes = accepting(workers=4)
    lanes.workers = 4
    hanging, job = lanes.take(0), lanes.take(0)
    beside(lanes, job, 2)
    for _ in range(5):
        lanes.settle(job, DONE, 0, 1.0)
        turn = job.turn
        job = lanes.take(0, turn)
        assert job is not None and job.turn > turn > hanging.turn


def test_it_takes_all_that_are_needed_where_more_may_be_out_than_one_can_have():
    lanes = accepting(workers=8)
    lanes.workers = 8
    old, young = lanes.take(0), lanes.take(0)
    beside(lanes, young)
    lanes.settle(old, DONE, 0, 1.0)
    assert lanes.take(0, old.turn) is not None, 'eight are more than four'


def test_large_files_and_those_of_other_transports_are_left_to_nobody():
    for prepare in (lambda lanes, job: None, lambda lanes, job: riding(lanes, job, 2)):
        lanes = accepting(workers=4)
        lanes.workers = 4
        old, young = lanes.take(0), lanes.take(0)
        prepare(lanes, young)
        lanes.settle(old, DONE, 0, 1.0)
        assert lanes.take(0, old.turn) is not None


def test_where_the_receiver_takes_its_time_each_file_has_a_worker():
    lanes = accepting(workers=4)
    lanes.workers = 4
    lanes.settle(lanes.take(0), DONE, 0, 1.0, took=0.02)
    old, young = lanes.take(0), lanes.take(0)
    assert beside(lanes, young) == []
    lanes.settle(old, DONE, 0, 1.0, took=0.02)
    job = lanes.take(0, old.turn)
    assert job is not None, 'and no worker rests'
    lanes.settle(job, DONE, 0, 1.0, took=0.001)
    assert len(beside(lanes, lanes.take(0))) == 2, 'it has become quick'


def test_no_more_exchanges_are_under_way_than_there_are_workers_whoever_has_them():
    lanes = filled([receiver(name) for name in 'ab'], files=60)
    lanes.workers = 4
    for _ in range(20):
        lanes.settle(lanes.take(0), DONE, 0, 1.0)
    job = lanes.take(0)
    for other in [name for name in 'ab' if name != job.ticket.receiver.name]:
        lanes.lanes[other].paused_until = 5
    along = beside(lanes, job)
    assert len(along) == 3
    lanes.forget_pauses()
    assert lanes.take(0) is None and lanes.next_due(0) is None, 'the other receiver has work, and nobody is free'
    lanes.settle(along[0], DONE, 0, 1.0)
    assert lanes.next_due(0) == 0 and lanes.take(0) is not None
    assert lanes.take(0) is None
