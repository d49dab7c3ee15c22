"""The table of answers (SPEC 3), each row of it."""

import pytest

from agent import classify, errors
from agent.records import ACK, FILE, GONE, HOLD, HOST, NACK, RECEIVER, RETRY
from tests.samples import receiver, reply

WALL = 1764000000.0


def outcome(status, *headers, **settings):
    return classify.of_reply(reply(status, *headers), receiver(**settings), WALL)


@pytest.mark.parametrize('status, verdict, blame', [
    (200, ACK, FILE), (201, ACK, FILE), (204, ACK, FILE), (299, ACK, FILE),
    (300, HOLD, RECEIVER), (301, HOLD, RECEIVER), (307, HOLD, RECEIVER), (399, HOLD, RECEIVER),
    (400, NACK, FILE), (401, NACK, FILE), (404, NACK, FILE), (413, NACK, FILE), (422, NACK, FILE), (499, NACK, FILE),
    (408, RETRY, FILE), (425, RETRY, FILE), (429, RETRY, RECEIVER),
    (500, RETRY, RECEIVER), (502, RETRY, RECEIVER), (503, RETRY, RECEIVER), (599, RETRY, RECEIVER),
])
def test_each_status_has_its_verdict(status, verdict, blame):
    assert outcome(status)[:3] == (verdict, blame, status)


def test_413_with_retry_after_stays():
    assert outcome(413, ('retry-after', '7'))[:2] == (RETRY, FILE)
    assert outcome(413, ('retry-after', '7')).retry_after == 7


def test_overrides_by_code_beat_those_by_class_and_both_beat_the_table():
    settings = dict(hold=('401', '4xx'), retry=('404',), nack=('500',), ack=('409', '3xx'))
    verdicts = [outcome(status, **settings).verdict for status in (401, 404, 500, 409, 302, 418, 503, 200)]
    assert verdicts == [HOLD, RETRY, NACK, ACK, ACK, HOLD, RETRY, ACK]


def test_a_retry_by_override_blames_the_file_not_the_receiver():
    assert outcome(404, retry=('404',)).blame == FILE


@pytest.mark.parametrize('value, seconds', [
    ('0', 0), ('120', 120), ('999999', 3600), ('', None), ('-5', None), ('soon', None), ('1.5', None),
    ('Mon, 24 Nov 2025 16:01:00 GMT', 60), ('Monday, 24-Nov-25 16:01:00 GMT', 60), ('Mon Nov 24 16:01:00 2025', 60),
    ('Mon, 24 Nov 2025 15:00:00 GMT', 0), ('Fri, 24 Nov 2034 15:00:00 GMT', 3600), ('Mon, 99 Foo 2025', None),
    ('\xb2', None), ('9' * 5000, 3600), ('0' * 5000, 0),
])
def test_retry_after_in_both_forms(value, seconds):
    assert classify.retry_after((('retry-after', value),), WALL) == seconds


def test_a_retry_after_date_is_measured_against_the_answers_own_clock():
    headers = (('date', 'Mon, 24 Nov 2025 12:00:00 GMT'), ('retry-after', 'Mon, 24 Nov 2025 12:00:30 GMT'))
    assert classify.retry_after(headers, WALL) == 30
    assert classify.retry_after(headers, WALL + 10 ** 8) == 30


def test_503_with_retry_after_and_429_are_a_wish_not_a_failure():
    assert outcome(503, ('retry-after', '9')).throttle
    assert outcome(429).throttle
    assert not outcome(503).throttle
    assert not outcome(500, ('retry-after', '9')).throttle


def test_no_answer_is_a_retry_and_never_the_files_fault():
    error = errors.TransportError('connect', 'refused')
    assert classify.of_error(error)[:4] == (RETRY, RECEIVER, None, 'refused')


def test_what_happens_on_this_host_blames_nobody_else():
    assert classify.of_host('changed')[:2] == (RETRY, HOST)
    assert classify.of_host('was taken away', GONE, gone=True)[:2] == (GONE, HOST)


def test_the_reason_is_the_status_line_made_safe():
    answer = reply(422, reason='no \x1b[31mway\x07')
    assert classify.of_reply(answer, receiver(), WALL).reason == '422 no ?[31mway?'
    assert classify.of_reply(reply(422, reason=''), receiver(), WALL).reason == '422'
