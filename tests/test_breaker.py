"""The circuit breaker alone, in virtual time."""

from agent.breaker import CLOSED, HALF_OPEN, OPEN, CircuitBreaker


def opened(threshold=3, now=100.0):
    breaker = CircuitBreaker(threshold, 5, 600)
    for _ in range(threshold):
        breaker.record(breaker.allow(now), False, now, 1.0)
    assert breaker.state == OPEN
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not():
    breaker = CircuitBreaker(3, 5, 600)
    for ok in (False, False, True, False, False):
        assert not breaker.record(breaker.allow(0), ok, 0, 1.0)
    assert breaker.state == CLOSED
    assert breaker.record(breaker.allow(0), False, 0, 1.0)
    assert breaker.state == OPEN


def test_open_allows_nothing_before_its_pause_is_over():
    breaker = opened(now=100.0)
    assert breaker.due(101) == 105
    assert breaker.allow(104.9) is None
    assert breaker.allow(105) is not None


def test_half_open_lets_exactly_one_probe_out():
    breaker = opened()
    assert breaker.allow(105) is not None
    assert breaker.state == HALF_OPEN
    assert breaker.allow(105) is None
    assert breaker.allow(10 ** 6) is None
    assert breaker.due(10 ** 6) is None


def test_a_probe_that_succeeds_closes_it():
    breaker = opened()
    assert breaker.record(breaker.allow(105), True, 106, 1.0)
    assert breaker.state == CLOSED
    assert breaker.allow(106) is not None and breaker.allow(106) is not None


def test_each_probe_that_fails_doubles_the_pause_up_to_the_cap():
    breaker, now, pauses = opened(), 105.0, []
    for _ in range(9):
        breaker.record(breaker.allow(now), False, now, 1.0)
        pauses.append(breaker.until - now)
        now = breaker.until
    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600, 600]


def test_a_success_brings_the_first_pause_back():
    breaker = opened()
    breaker.record(breaker.allow(105), False, 105, 1.0)
    breaker.record(breaker.allow(115), True, 115, 1.0)
    for _ in range(3):
        breaker.record(breaker.allow(200), False, 200, 1.0)
    assert breaker.until - 200 == 5


def test_the_pause_is_never_shorter_than_the_receiver_asked_for():
    breaker = CircuitBreaker(1, 5, 600)
    breaker.record(breaker.allow(0), False, 0, 0.0, at_least=120)
    assert breaker.until == 120


def test_results_of_an_older_generation_do_not_count():
    breaker = CircuitBreaker(1, 5, 600)
    early, late = breaker.allow(0), breaker.allow(0)
    breaker.record(early, False, 0, 1.0)
    assert breaker.state == OPEN
    assert not breaker.record(late, True, 1, 1.0), 'a success from before must not close it'
    probe = breaker.allow(5)
    assert not breaker.record(late, False, 6, 1.0), 'nor a failure from before judge the probe'
    assert breaker.state == HALF_OPEN
    assert breaker.record(probe, True, 7, 1.0)


def test_a_probe_that_never_went_out_may_go_again():
    breaker = opened()
    breaker.cancel(breaker.allow(105))
    assert breaker.state == HALF_OPEN
    assert breaker.allow(105) is not None
