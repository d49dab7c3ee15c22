"""The token bucket: however many take from it, no more passes than its rate, and a burst."""

import random
import threading

import pytest

from agent.ratelimit import TokenBucket
from agent.resources import Resources
from tests.samples import receiver

RATE = 1000
ROUNDING = 1e-6


def test_what_is_in_the_bucket_passes_at_once_and_what_comes_after_waits():
    bucket = TokenBucket(RATE, 50)
    assert [bucket.take(400, 50) for _ in range(4)] == [0, 0, 0.2, 0.6]
    assert bucket.take(400, 51) == 0, 'it has waited for its turn'
    assert bucket.take(400, 51) == 0.4


def test_a_silence_saves_up_one_second_and_no_more():
    bucket = TokenBucket(RATE, 0)
    bucket.take(RATE, 0)
    assert bucket.take(RATE, 3600) == 0
    assert bucket.take(500, 3600) == 0.5


def test_a_piece_larger_than_the_bucket_passes_too_and_whoever_comes_later_waits_behind_it():
    bucket = TokenBucket(RATE, 0)
    assert bucket.take(5 * RATE, 0) == 4
    assert bucket.take(1, 0) == 4.001
    assert bucket.take(1, 4) == pytest.approx(0.002)


def test_nothing_costs_nothing():
    bucket = TokenBucket(RATE, 0)
    assert bucket.take(0, 0) == 0
    assert bucket.take(RATE, 0) == 0


def test_a_clock_that_two_threads_read_in_another_order_than_they_come_gives_nothing_away():
    bucket = TokenBucket(RATE, 10)
    assert bucket.take(2 * RATE, 11) == 1
    assert bucket.take(0, 10.5) == 1
    assert bucket.take(0, 11) == 1


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('takers', [1, 2, 7])
def test_never_more_than_the_rate_and_one_burst_passes_however_many_take(seed, takers):
    chance = random.Random(seed)
    start, bucket = 100.0, TokenBucket(RATE, 100.0)
    free = [start] * takers  # when each of them takes its next piece
    passed = []              # (when, bytes)
    for _ in range(300):
        taker = free.index(min(free))
        now = free[taker] + chance.choice([0, 0, 0.01, chance.random() * 3])
        free[taker] = now
        if now > min(free):
            continue  # another one comes before
        count = chance.choice([1, 50, 125, 1500])
        free[taker] = now + bucket.take(count, now)
        passed.append((free[taker], count))
    passed.sort()
    for first in range(0, len(passed), 10):
        # in no stretch of time, wherever it begins
        total = 0
        for when, count in passed[first:]:
            total += count
            assert total <= RATE * (when - passed[first][0]) + RATE + passed[first][1] + ROUNDING
    total = 0
    for when, count in passed:
        total += count
        assert total <= RATE * (when - start) + RATE + ROUNDING, 'nor from the start on'


@pytest.mark.parametrize('takers', [1, 3])
def test_who_is_always_hungry_gets_all_of_the_rate(takers):
    bucket, free, sent = TokenBucket(RATE, 0), [0.0] * takers, 0
    while min(free) < 100:
        taker = free.index(min(free))
        free[taker] += bucket.take(125, free[taker])
        sent += 125
    assert sent >= RATE * 100


def test_threads_share_one_bucket_and_no_byte_is_lost():
    bucket = TokenBucket(RATE, 0)
    threads = [threading.Thread(target=lambda: [bucket.take(1, 0) for _ in range(2000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bucket.take(0, 0) == 15


# --- whose it is

def test_all_workers_of_a_receiver_have_one_bucket_and_other_receivers_their_own():
    now = [7.0]
    resources = Resources({}, clock=lambda: now[0])
    orders, others = receiver(rate_limit=RATE), receiver('others', rate_limit=RATE)
    bucket = resources.bucket(orders)
    assert resources.bucket(orders) is bucket
    assert resources.bucket(orders._replace(deadline=1)) is bucket
    assert resources.bucket(others) is not bucket
    assert (bucket.take(2 * RATE, 7), resources.bucket(others).take(0, 7)) == (1, 0)


def test_a_receiver_without_limit_has_none():
    assert Resources({}).bucket(receiver()) is None


def test_another_rate_holds_from_the_reload_on():
    resources = Resources({})
    slow = resources.bucket(receiver(rate_limit=RATE))
    fast = resources.bucket(receiver(rate_limit=2 * RATE))
    assert (slow.rate, fast.rate) == (RATE, 2 * RATE)
    assert resources.bucket(receiver(rate_limit=2 * RATE)) is fast
