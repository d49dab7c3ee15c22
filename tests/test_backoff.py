"""Pauses: doubling, cap, jitter."""

from agent import backoff


def test_pauses_double_until_the_cap():
    assert [backoff.pause(5, 600, failures, 1.0) for failures in range(1, 10)] == [
        5, 10, 20, 40, 80, 160, 320, 600, 600]


def test_jitter_comes_after_the_cap_and_takes_up_to_a_half():
    assert backoff.pause(5, 600, 30, 0.0) == 300
    assert backoff.pause(5, 600, 30, 0.5) == 450


def test_any_number_of_failures_has_a_pause():
    assert backoff.pause(0.5, 600, 10 ** 9, 0.0) == 300
    assert backoff.pause(0, 0, 10 ** 9, 0.5) == 0
