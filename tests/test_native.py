"""The native transport against a server scripted byte by byte."""

import errno
import os
import threading

import pytest

from agent import compat, kept, request
from agent.errors import FileChanged, TransportError
from agent.native import NativeTransport
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


def test_connections_are_kept_to_a_bounded_number_of_places(sender, monkeypatch):
    monkeypatch.setattr(kept, 'MOST_PLACES', 3)
    servers = [ScriptedServer(KEPT) for _ in range(5)]
    try:
        for server in servers:
            sender.send(server.port)
        assert len([server for server in servers if not ended(server)]) == 3
        sender.send(servers[-1].port)
        assert len(servers[-1].conversations) == 1, 'the newest is among them'
    finally:
        for server in servers:
            server.stop()


def ended(server):
    """Return whether the client has closed the first connection, which the server may hear of a moment later."""
    try:
        server.wait(1, 0.3)
    except AssertionError:
        return False
    return True


def test_workers_share_what_is_kept_and_a_receiver_sees_no_more_connections_than_files_at_once(sender):
    with ScriptedServer(KEPT) as server:
        first = sender.transport
        sender.send(server.port)
        sender.transport = NativeTransport(first._resources)
        sender.send(server.port)
        assert len(server.wait(0)) == 1
        assert first.most(sender.parcel(server.url + '/in').ticket.receiver) == 2


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


# --- several files at once

def parcels(sender, server, count, **settings):
    return [sender.parcel(server.url + '/in', ('content of %d' % number).encode('ascii'),
                          'f%d.json' % number, **settings) for number in range(count)]


def warm(sender, server, count):
    """Let the transport keep `count` connections to a server."""
    for number in range(count):
        sender.transport.send(sender.parcel(server.url + '/in'), fresh=True)
    assert sender.transport.most(sender.parcel(server.url + '/in').ticket.receiver) == min(4, count + 1)


def test_one_that_keeps_no_connection_gets_one_file_a_worker_and_a_limited_one_too(sender):
    with ScriptedServer(ONE, KEPT) as server:
        receiver = sender.parcel(server.url + '/in').ticket.receiver
        assert sender.transport.most(receiver) == 1
        sender.send(server.port)
        assert sender.transport.most(receiver) == 2, 'it may keep this one'
        assert sender.transport.most(receiver._replace(rate_limit=1000)) == 1


def test_all_requests_are_out_before_an_answer_is_read_and_each_answer_is_its_own(sender):
    turns = [threading.Event() for _ in range(4)]
    scripts = [[('read_request',), ('send', ok()), ('read_request',), ('call', turns[number].wait),
                ('send', ok(str(number).encode('ascii')))] for number in range(4)]
    with ScriptedServer(*scripts) as server:
        warm(sender, server, 4)
        results = sender.transport.send_all(parcels(sender, server, 4))
        got = []
        # The last connection that was kept is taken first: its answer comes last.
        for number in range(4):
            watcher = threading.Thread(target=lambda: until_all_have_come(server, 8) or turns[number].set())
            watcher.start()
            got.append(next(results))
            watcher.join()
        assert list(results) == []
    assert [reply.body for _, reply in got] == [b'0', b'1', b'2', b'3']
    assert [number for number, _ in got] == [3, 2, 1, 0]


def until_all_have_come(server, count):
    end = compat.monotonic() + 20
    while len([request for request in server.requests() if request.body]) < count:
        assert compat.monotonic() < end, 'in vain'


def test_where_no_connection_is_kept_they_go_one_by_one(sender):
    with ScriptedServer(KEPT) as server:
        results = list(sender.transport.send_all(parcels(sender, server, 3)))
        assert [(number, reply.status) for number, reply in results] == [(0, 200), (1, 200), (2, 200)]
        assert sorted([request.body for request in server.requests()]) == [
            b'content of 0', b'content of 1', b'content of 2']


def test_a_kept_connection_that_ends_without_a_word_costs_no_file(sender):
    with ScriptedServer(KEPT[:2] + [('read_head',)], KEPT) as server:
        warm(sender, server, 2)
        results = dict(sender.transport.send_all(parcels(sender, server, 2)))
        assert [results[number].status for number in (0, 1)] == [200, 200]
        bodies = [request.body for request in server.requests() if request.body.startswith(b'content of')]
        assert sorted(bodies) == [b'content of 0', b'content of 1']


@pytest.mark.parametrize('answer, stage', [
    (b'HTTP/1.1 200 OK\r\nContent-', 'receive'), (b'SSH-2.0-x\r\n\r\n', 'protocol'),
    (b'HTTP/1.1 101 S\r\n\r\n', 'protocol'),
])
def test_an_answer_that_is_none_fails_its_own_file_alone(sender, answer, stage):
    with ScriptedServer(KEPT[:2] + [('read_request',), ('send', answer)], KEPT) as server:
        warm(sender, server, 2)
        results = dict(sender.transport.send_all(parcels(sender, server, 2)))
    good = [result for result in results.values() if not isinstance(result, TransportError)]
    bad = [result for result in results.values() if isinstance(result, TransportError)]
    assert [reply.status for reply in good] == [200]
    assert [(error.stage, error.sent_whole) for error in bad] == [(stage, True)]


def test_one_that_says_nothing_fails_after_read_timeout_and_the_others_do_not_wait(sender):
    with ScriptedServer(KEPT[:2] + [('hang',)], KEPT) as server:
        settings = {'read_timeout': 0.3}
        for number in range(2):
            sender.transport.send(sender.parcel(server.url + '/in', **settings), fresh=True)
        results = list(sender.transport.send_all(parcels(sender, server, 2, **settings)))
    assert results[0][1].status == 200
    assert (results[1][1].stage, str(results[1][1])) == ('receive', 'no answer for 0.3 s')


def test_the_deadline_ends_each_by_itself_and_abort_all(sender):
    for end, words in ((lambda: sender.transport.cut(compat.monotonic() + 1000), 'not done within'),
                       (sender.transport.abort, 'stopped before it was done')):
        with ScriptedServer(KEPT[:2] + [('read_head',), ('call', end), ('hang',)]) as server:
            warm(sender, server, 2)
            results = list(sender.transport.send_all(parcels(sender, server, 2)))
        assert len(results) == 2
        for _, error in results:
            assert error.stage == 'deadline' and words in str(error)


def test_a_file_that_changed_is_told_and_its_connection_kept(sender):
    with ScriptedServer(KEPT) as server:
        warm(sender, server, 2)
        files = parcels(sender, server, 2)
        files[0] = sender.parcel(server.url + '/in', b'content', size=100)
        results = dict(sender.transport.send_all(files))
        assert isinstance(results[0], FileChanged) and results[1].status == 200
        assert sender.transport.most(files[1].ticket.receiver) == 3


def test_who_stops_listening_leaves_no_connection_in_the_middle_of_an_answer(sender):
    with ScriptedServer(KEPT) as server:
        warm(sender, server, 3)
        results = sender.transport.send_all(parcels(sender, server, 3))
        next(results)
        results.close()
        assert sender.transport._out == {}
        sender.send(server.port, b'after')
        assert [request for request in server.requests() if request.body == b'after']


def test_a_small_file_in_a_large_body_arrives_whole(sender):
    with ScriptedServer(KEPT) as server:
        for _ in range(2):
            sender.transport.send(sender.parcel(server.url + '/in', body='multipart'), fresh=True)
        files = [sender.parcel(server.url + '/in', b'x' * 65536, 'f%d.json' % number, body='multipart')
                 for number in range(2)]
        results = list(sender.transport.send_all(files))
        assert [(number, reply.status) for number, reply in results] == [(0, 200), (1, 200)]
        whole = [request.body for request in server.requests() if b'x' * 65536 in request.body]
        assert len(whole) == 2 and len(server.wait(0)) == 2


def test_one_that_drips_is_not_silent(sender):
    drip = b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'
    settings = {'read_timeout': 0.3}
    with ScriptedServer(KEPT[:2] + [('read_request',), ('send_slow', drip, 0.02)], KEPT) as server:  # 0.8 s in all
        for _ in range(2):
            sender.transport.send(sender.parcel(server.url + '/in', **settings), fresh=True)
        results = list(sender.transport.send_all(parcels(sender, server, 2, **settings)))
    assert [reply.status for _, reply in results] == [200, 200]


@pytest.mark.parametrize('count', [1, 2])
def test_a_connection_that_this_host_can_not_set_up_is_its_own_fault(sender, monkeypatch, count):
    def fail(*_):
        raise EnvironmentError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
    with ScriptedServer(KEPT) as server:
        if count == 2:
            sender.send(server.port)
        monkeypatch.setattr('agent.streams.PlainStream.__init__', fail)
        results = dict(sender.transport.send_all(parcels(sender, server, count)))
    error = results[count - 1]
    assert (error.stage, error.sent_whole) == ('local', False) and os.strerror(errno.ENOBUFS) in str(error)
