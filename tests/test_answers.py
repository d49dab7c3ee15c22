"""Reading answers: the table of tests/answers.py as it comes and split at every byte, bounds, heads that come again."""

import pytest

from agent.answers import KEPT, MOST_BODY, AnswerReader
from agent.errors import TransportError
from tests.answers import ANSWERS, NO_ANSWERS


class Pieces(object):
    """A socket that gives bytes in pieces, then its end."""

    def __init__(self, *pieces):
        self._pieces = [piece for piece in pieces if piece]

    def recv(self, most):
        if not self._pieces:
            return b''
        piece, self._pieces[0] = self._pieces[0][:most], self._pieces[0][most:]
        if not self._pieces[0]:
            del self._pieces[0]
        return piece


def read(*pieces):
    reader = AnswerReader(Pieces(*pieces))
    reader.begin()
    return reader.read(), reader.reusable


@pytest.mark.parametrize('raw, status, body, reusable', ANSWERS)
def test_each_answer_is_read_alike_however_it_is_split(raw, status, body, reusable):
    whole = read(raw)
    assert (whole[0].status, whole[0].body, whole[1]) == (status, body, reusable)
    for place in range(1, len(raw)):
        assert read(raw[:place], raw[place:]) == whole, place
    assert read(*[raw[place:place + 1] for place in range(len(raw))]) == whole


@pytest.mark.parametrize('raw, stage', NO_ANSWERS)
def test_what_is_no_answer_is_told_as_such(raw, stage):
    with pytest.raises(TransportError) as caught:
        read(raw)
    assert caught.value.stage == stage and caught.value.sent_whole


def test_of_an_endless_body_a_bounded_part_is_read():
    head = b'HTTP/1.1 400 No\r\n'
    for framing in (b'\r\n', b'Content-Length: 999999999999\r\n\r\n', b'Transfer-Encoding: chunked\r\n\r\nfffffff\r\n'):
        reply, reusable = read(head + framing, *[b'x' * 1000] * 200)
        assert reply.body == b'x' * MOST_BODY and not reusable


def test_no_number_of_blanks_makes_reading_slow():
    # where an expression looks for the blanks at an end, this takes half a minute in which no other thread runs
    for name in (b'X:', b'HTTP/1.1 200', b'Content-Length:'):
        for fill in (b' ' * 65000 + b'b', b' b' * 32000 + b' ' * 1000):
            head = b'HTTP/1.1 200 OK\r\n' + name + fill + b'\r\n\r\n'
            for raw in (head, head[17:] if name.startswith(b'HTTP') else head):
                try:
                    assert read(raw)[0].status == 200
                except TransportError as error:
                    assert error.stage == 'protocol'


def test_blanks_are_those_of_http_alone_on_every_python():
    reply, reusable = read(b'HTTP/1.1 200 \xa0a\xa0 \r\nA: \xa0\r\n \x0bb\x85 \r\n'
                           b'Transfer-Encoding: chunked\xa0\r\n\r\nx')
    assert reply.reason == '\xa0a\xa0' and reply.headers[0] == ('a', '\xa0 \x0bb\x85')
    assert (reply.body, reusable) == (b'x', False)


@pytest.mark.parametrize('fold', [b' 2', b'\t1', b' x', b' \xb2', b' -1'])
def test_a_length_that_goes_on_in_a_folded_line_is_none_and_the_status_stands(fold):
    reply, reusable = read(b'HTTP/1.1 422 No\r\nContent-Length: 1\r\n' + fold + b'\r\n\r\nxx')
    assert (reply.status, reply.body, reusable) == (422, b'', False)


def test_a_nul_is_no_more_part_of_a_folded_line_than_of_another():
    with pytest.raises(TransportError) as caught:
        read(b'HTTP/1.1 200 OK\r\nX: a\r\n b\0c\r\nContent-Length: 1\r\n\r\nx')
    assert caught.value.stage == 'protocol'


def test_headers_are_told_in_lower_case_in_order_and_folded_lines_joined():
    reply, _ = read(b'HTTP/1.1 200 Fine \r\nA: 1\r\nB:\t2 \r\n\t3\r\na: 4\r\nContent-Length: 0\r\n\r\n')
    assert reply.headers == (('a', '1'), ('b', '2 3'), ('a', '4'), ('content-length', '0'))
    assert reply.reason == 'Fine'


def test_a_reader_that_has_read_many_heads_reads_the_next_one_as_a_new_one_does():
    framings = ('Content-Length: 2', 'Content-Length: 2\r\nConnection: close', 'CONTENT-LENGTH:2',
                'Content-Length: 2\r\nConnection: keep-alive', 'Transfer-Encoding: chunked',
                'Content-Length: 2\r\nTransfer-Encoding: chunked', 'Content-Length: 2\r\nContent-Length: 2',
                'Content-Length: 2\r\nConnection: ' + 'x' * 300, 'X-Folded: a\r\n b\r\nContent-Length: 2')
    answers = []
    for number in range(3 * KEPT):
        framing = framings[number % len(framings)]
        head = 'HTTP/1.%d %d OK\r\nLocation: /in/%d\r\nServer: %s\r\n%s\r\n\r\n' % (
            number % 2, (200, 201, 422)[number % 3], number, 'y' * (number % 7 * 50), framing)
        answers.append((head + ('2\r\nab\r\n0\r\n\r\n' if 'chunked' in framing else 'ab')).encode('ascii'))
    answers += answers[:20]
    old = AnswerReader(Pieces(*answers))
    for raw in answers:
        old.begin()
        reply = old.read()
        assert (reply, old.reusable) == read(raw) and reply.body == b'ab'


def test_a_head_that_comes_again_is_read_as_the_first_time_and_no_other_is_taken_for_it():
    head = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n'
    others = (b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n', b'HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n',
              b'HTTP/1.1 200 OK\nContent-Length: 2\n\n', b'HTTP/1.1 100 Continue\r\n\r\n' + head)
    answers = [(head, 200), (head, 200)]
    for other, status in zip(others, (200, 503, 200, 200)):
        answers.extend([(other, status), (head, 200), (other, status)])
    for split in (0, 1, 20, len(head) - 1):
        reader = AnswerReader(Pieces(*[piece for raw, _ in answers for piece in (
            raw[:split], raw[split:] + (b'abc' if b': 3' in raw else b'ab'))]))
        for _, status in answers:
            reader.begin()
            reply = reader.read()
            assert (reply.status, reader.reusable) == (status, True)
            assert reply.body == (b'abc' if ('content-length', '3') in reply.headers else b'ab')
