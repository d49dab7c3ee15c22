"""The native transport against a server scripted byte by byte."""

import os
import threading

import pytest

from agent import request
from agent.answers import MOST_BODY, MOST_HEAD, AnswerReader
from agent.errors import FileChanged, TransportError
from agent.native import MOST_CONNECTIONS, NativeTransport
from agent.spool import OpenFile, stamp_of
from tests.samples import receiver, ticket
from tests.servers import ScriptedServer, ok, refusing_port, tarpit

KEY = 'the-key'


class Sender(object):
    """A transport, a file and a receiver, ready to send."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.transport = NativeTransport()
        self.opened = []

    def send(self, port, content=b'content', name='a.json', path='/in', **settings):
        url = 'http://127.0.0.1:%d%s' % (port, path)
        place = os.path.join(self.folder, name)
        with open(place, 'wb') as stream:
            stream.write(content)
        opened = OpenFile(os.open(place, os.O_RDONLY), settings.pop('size', len(content)))
        self.opened.append(opened)
        one = self.ticket(url, place, name, settings)
        return self.transport.send(one, opened, KEY)

    def ticket(self, url, place, name, settings):
        known = (url, tuple(sorted(settings.items())))
        if getattr(self, '_known', None) != known:
            self._known, self._receiver = known, receiver(url=url, **settings)
        one = ticket(self._receiver, name)
        return one._replace(file=one.file._replace(stamp=stamp_of(os.stat(place))))


@pytest.fixture
def sender(tmpdir):
    sender = Sender(tmpdir)
    yield sender
    sender.transport.close()
    for opened in sender.opened:
        opened.close()


def failure(sender, *args, **settings):
    with pytest.raises(TransportError) as caught:
        sender.send(*args, **settings)
    return caught.value


ONE = [('read_request',), ('send', ok())]
KEPT = [('read_request',), ('send', ok())] * 20


# --- the request

def test_the_request_says_all_that_the_wire_promises(sender):
    with ScriptedServer(ONE) as server:
        sender.send(server.port, b'{}', 'a b.json', headers=(('X-Site', '042'),))
        sent, = server.wait(1)[0].requests
    assert sent.line == 'POST /in HTTP/1.1'
    assert sent.body == b'{}'
    assert sent.headers == [
        ('Host', '127.0.0.1:%d' % server.port), ('User-Agent', request.USER_AGENT), ('X-Site', '042'),
        ('Content-Type', 'application/json'), ('Content-Length', '2'), ('Idempotency-Key', KEY),
        ('X-File-Name', 'a%20b.json')]


@pytest.mark.parametrize('size', [0, 1, 65535, 65536, 65537, 3000000])
def test_bodies_of_all_sizes_arrive_whole_with_their_length(sender, size):
    content = os.urandom(size)
    with ScriptedServer(ONE) as server:
        assert sender.send(server.port, content).status == 200
        sent, = server.wait(1)[0].requests
    assert sent.body == content
    assert ('Content-Length', str(size)) in sent.headers
    assert 'Transfer-Encoding' not in dict(sent.headers)


def test_method_type_and_query_are_the_configurations(sender):
    with ScriptedServer(ONE) as server:
        sender.send(server.port, method='PUT', content_type='text/x-own', path='/in?a=b&c')
        sent, = server.wait(1)[0].requests
    assert sent.line == 'PUT /in?a=b&c HTTP/1.1'
    assert ('Content-Type', 'text/x-own') in sent.headers


# --- connections

def test_a_connection_is_kept_and_used_again(sender):
    with ScriptedServer(KEPT) as server:
        for _ in range(5):
            assert sender.send(server.port).status == 200
        sender.transport.close()
        assert len(server.wait(1)[0].requests) == 5


@pytest.mark.parametrize('last', [ok(headers=['Connection: close']), b'HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n',
                                  b'HTTP/1.1 200 OK\r\n\r\nto the end'])
def test_a_connection_that_is_not_to_be_kept_is_not(sender, last):
    with ScriptedServer([('read_request',), ('send', last)]) as server:
        for _ in range(2):
            assert sender.send(server.port).status == 200
        assert [len(talk.requests) for talk in server.wait(2)] == [1, 1]


def test_a_kept_connection_that_the_receiver_closed_costs_nothing(sender):
    with ScriptedServer(ONE, ONE) as server:
        sender.send(server.port)
        server.wait(1)  # it is closed now
        assert sender.send(server.port).status == 200
        assert [len(talk.requests) for talk in server.wait(2)] == [1, 1]


def test_a_kept_connection_that_dies_under_the_request_is_replaced_once(sender):
    dies = [('read_request',), ('send', ok()), ('read_request',), ('reset',)]
    with ScriptedServer(dies, ONE) as server:
        sender.send(server.port)
        assert sender.send(server.port, b'second').status == 200
        assert server.wait(2)[1].requests[0].body == b'second'


def test_a_fresh_connection_that_dies_is_a_failure_and_the_file_is_not_sent_again(sender):
    with ScriptedServer([('read_request',), ('close',)]) as server:
        error = failure(sender, server.port)
        assert (error.stage, error.sent_whole) == ('receive', True)
        assert len(server.wait(1)) == 1


def test_a_kept_connection_that_dies_after_the_answer_began_is_a_failure(sender):
    dies = [('read_request',), ('send', ok()), ('read_request',), ('send', b'HTTP/1.1 2'), ('close',)]
    with ScriptedServer(dies, ONE) as server:
        sender.send(server.port)
        assert failure(sender, server.port).stage == 'receive'


def test_bytes_that_nobody_asked_for_are_never_the_next_answer(sender):
    stray = [('read_request',), ('send', ok() + ok(b'stray\n', '500 Stray'))]
    with ScriptedServer(stray, ONE) as server:
        assert sender.send(server.port).status == 200
        assert sender.send(server.port).status == 200
        assert len(server.wait(2)) == 2


def test_a_worker_keeps_a_bounded_number_of_connections(sender):
    servers = [ScriptedServer(KEPT) for _ in range(MOST_CONNECTIONS + 3)]
    try:
        for server in servers:
            sender.send(server.port)
        assert len(sender.transport._connections) == MOST_CONNECTIONS
    finally:
        for server in servers:
            server.stop()


# --- no answer

def test_refused_unresolved_and_silent_receivers_are_told_apart(sender):
    with refusing_port() as port:
        assert failure(sender, port).stage == 'connect'
    with tarpit() as pit:
        error = failure(sender, pit.port, read_timeout=0.1)
        assert (error.stage, error.sent_whole) == ('receive', True)
        assert str(error) == 'no answer for 0.1 s'


def test_the_deadline_ends_what_a_time_out_never_would(sender):
    with ScriptedServer([('read_request',), ('send_slow', b'HTTP/1.1 200 OK\r\nX: ' + b'x' * 10000, 0.05)]) as server:
        over = threading.Event()

        def watch():
            while not over.is_set():
                over.wait(0.05)
                sender.transport.cut(sender.transport._clock())
        watchdog = threading.Thread(target=watch)
        watchdog.start()
        try:
            error = failure(sender, server.port, read_timeout=5, deadline=0.2)
        finally:
            over.set()
            watchdog.join()
        assert error.stage == 'deadline' and str(error) == 'not done within 0.2 s'


def test_abort_ends_an_exchange_and_does_not_begin_another(sender):
    with ScriptedServer([('read_request',), ('send', ok()), ('read_request',), ('hang',)]) as server:
        sender.send(server.port)
        threading.Timer(0.2, sender.transport.abort).start()
        assert str(failure(sender, server.port)) == 'stopped before it was done'
        assert len(server.requests()) == 2, 'the one before it and the one that was ended'


# --- answers that come early

def test_a_refusal_that_comes_while_the_body_is_sent_is_obeyed(sender):
    script = [('read_head',), ('send', ok(b'too large', '413 Content Too Large')), ('read_to_end',)]
    with ScriptedServer(script) as server:
        assert sender.send(server.port, b'x' * 8000000).status == 413
        server.wait(1)


def test_an_acceptance_that_comes_before_the_whole_file_is_none(sender):
    with ScriptedServer([('read_head',), ('send', ok()), ('read_to_end',)]) as server:
        error = failure(sender, server.port, b'x' * 8000000)
        assert (error.stage, error.sent_whole) == ('protocol', False)


def test_an_interim_answer_while_the_body_is_sent_does_not_stop_it(sender):
    script = [('read_head',), ('send', b'HTTP/1.1 100 Continue\r\n\r\n'), ('read_body',), ('send', ok())]
    with ScriptedServer(script) as server:
        assert sender.send(server.port, b'x' * 8000000).status == 200
        assert len(server.wait(1)[0].requests[0].body) == 8000000


def test_a_receiver_that_takes_nothing_is_given_up(sender):
    with ScriptedServer([('hang',)]) as server:
        error = failure(sender, server.port, b'x' * 50000000, read_timeout=0.2)
        assert (error.stage, error.sent_whole) == ('send', False)


# --- files that change

@pytest.mark.parametrize('length, size', [(10, 11), (11, 10), (100000, 100001), (0, 1)])
def test_a_file_that_is_not_as_long_as_it_was_is_not_passed_off_as_whole(sender, length, size):
    with ScriptedServer(ONE, ONE) as server:
        with pytest.raises(FileChanged):
            sender.send(server.port, b'x' * length, size=size)
        assert sender.send(server.port).status == 200, 'the next file has a connection of its own'


# --- the table of answers, as it comes and split at every byte

ANSWERS = [
    (b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', 200, b'ok', True),
    (b'HTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\nok', 200, b'ok', True),
    (b'HTTP/1.1 200 OK\nContent-Length: 2\n\nok', 200, b'ok', True),
    (b'HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n', 200, b'', True),
    (b'HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n', 200, b'', True),
    (b'HTTP/1.1 204 No Content\r\n\r\n', 204, b'', True),
    (b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\nHTTP/1.1 201 Created\r\n'
     b'Content-Length: 0\r\n\r\n', 201, b'', True),
    (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n', 200,
     b'abcde', True),
    (b'HTTP/1.1 200 OK\r\nX-Folded: a\r\n  b\r\nContent-Length: 1\r\n\r\nx', 200, b'x', True),
    (b'HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nx', 200, b'x', True),
    (b'HTTP/1.1 422 Unprocessable Content\r\nContent-Length: 3\r\n\r\nwhy', 422, b'why', True),
    (b'HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n', 503, b'', False),
    # from here on the connection can't be used again, but the status stands
    (b'HTTP/1.0 200 OK\r\n\r\nto the end', 200, b'to the end', False),
    (b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut', 200, b'cut', False),
    (b'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx', 200, b'', False),
    (b'HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n', 200, b'', False),
    (b'HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n', 200, b'', False),
    (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nwhat', 200, b'what', False),
    (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n', 200, b'abc', False),
    (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX', 200, b'abc', False),
    (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc', 200, b'abc', False),
    (b'HTTP/1.1 200 OK\r\nno header at all\r\nContent-Length: 1\r\n\r\nx', 200, b'x', True),
]

NO_ANSWERS = [
    (b'', 'receive'),
    (b'HTTP/1.1 200 OK', 'receive'),
    (b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n', 'receive'),
    (b'garbage\r\n\r\n', 'protocol'),
    (b'<html>an answer of HTTP/0.9</html>\n', 'protocol'),
    (b'HTTP/2.0 200 OK\r\n\r\n', 'protocol'),
    (b'HTTP/1.1 20 OK\r\n\r\n', 'protocol'),
    (b'HTTP/1.1 2000 OK\r\n\r\n', 'protocol'),
    (b'HTTP/1.1 999 OK\r\n\r\n', 'protocol'),
    (b'HTTP/1.1 000 OK\r\n\r\n', 'protocol'),
    (b'HTTP/1.1200 OK\r\n\r\n', 'protocol'),
    (b'HTTP/1.1 200 OK\r\nX: ' + b'x' * MOST_HEAD + b'\r\n\r\n', 'protocol'),
    (b'HTTP/1.1 200 OK\r\n' + b'X: y\r\n' * (MOST_HEAD // 6) + b'\r\n', 'protocol'),
    (b'HTTP/1.1 100 Continue\r\n\r\n' * (MOST_HEAD // 25 + 1), 'protocol'),
]


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


@pytest.mark.parametrize('raw, status', [(raw, status) for raw, status, _, _ in ANSWERS])
def test_each_answer_leads_to_its_status_over_a_real_socket(sender, raw, status):
    with ScriptedServer([('read_request',), ('send', raw)]) as server:
        assert sender.send(server.port).status == status


def test_of_an_endless_body_a_bounded_part_is_read():
    head = b'HTTP/1.1 400 No\r\n'
    for framing in (b'\r\n', b'Content-Length: 999999999999\r\n\r\n', b'Transfer-Encoding: chunked\r\n\r\nfffffff\r\n'):
        reply, reusable = read(head + framing, *[b'x' * 1000] * 200)
        assert reply.body == b'x' * MOST_BODY and not reusable


def test_headers_are_told_in_lower_case_in_order_and_folded_lines_joined():
    reply, _ = read(b'HTTP/1.1 200 Fine \r\nA: 1\r\nB:\t2 \r\n\t3\r\na: 4\r\nContent-Length: 0\r\n\r\n')
    assert reply.headers == (('a', '1'), ('b', '2 3'), ('a', '4'), ('content-length', '0'))
    assert reply.reason == 'Fine'


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
