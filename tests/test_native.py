"""The native transport against a server scripted byte by byte."""

import os
import threading

import pytest

from agent import compat, request
from agent.errors import FileChanged, TransportError
from agent.native import MOST_CONNECTIONS, NativeTransport
from agent.resources import Resources
from tests.senders import KEY, Sender, make
from tests.servers import ScriptedServer, ok, refusing_port, tarpit


@pytest.fixture
def sender(tmpdir):
    sender = Sender(tmpdir, make('native'))
    yield sender
    sender.close()


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
        assert sender.send(server.port, content, expect=False).status == 200
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


# --- while the file is on its way

@pytest.mark.parametrize('last', [('close',), ('reset',)])
def test_a_refusal_is_read_even_when_the_connection_breaks_behind_it(sender, last):
    # cURL may be in the middle of a send when that happens, and then looks no further.
    script = [('read_head',), ('send', ok(b'too large', '413 Content Too Large')), last]
    with ScriptedServer(script) as server:
        assert sender.send(server.port, b'x' * 8000000, expect=False).status == 413


def test_a_receiver_that_takes_nothing_is_given_up(sender):
    with ScriptedServer([('hang',)]) as server:
        error = failure(sender, server.port, b'x' * 8000000, read_timeout=0.2, expect=False)
        assert (error.stage, error.sent_whole) == ('send', False)


# --- files that change

@pytest.mark.parametrize('length, size', [(10, 11), (11, 10), (100000, 100001), (0, 1)])
def test_a_file_that_is_not_as_long_as_it_was_is_not_passed_off_as_whole(sender, length, size):
    with ScriptedServer(ONE, ONE) as server:
        with pytest.raises(FileChanged):
            sender.send(server.port, b'x' * length, size=size)
        assert sender.send(server.port).status == 200, 'the next file has a connection of its own'


# --- rate_limit

def test_a_limited_receiver_gets_no_more_a_second_over_all_threads(tmpdir):
    resources = Resources({})
    senders = [Sender(tmpdir.mkdir(name), NativeTransport(resources)) for name in ('one', 'other')]
    settings = {'rate_limit': 100000}
    with ScriptedServer(ONE) as server:
        begin = compat.monotonic()
        threads = [threading.Thread(target=sender.send, args=(server.port, b'x' * 90000), kwargs=settings)
                   for sender in senders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = compat.monotonic() - begin
        assert sorted([len(request.body) for request in server.requests()]) == [90000, 90000]
    for sender in senders:
        sender.close()
    assert took >= 0.7, 'a second\'s worth at once, the other 80,000 bytes at their pace'


def test_an_answer_ends_the_wait_for_a_share(sender):
    refusal = ok(b'', '413 Content Too Large', ['Connection: close'])
    with ScriptedServer([('read_head',), ('send', refusal), ('read_to_end',)]) as server:
        reply = sender.send(server.port, b'x' * 100000, rate_limit=1000, deadline=20.0)  # 100 s at that pace
    assert reply.status == 413
