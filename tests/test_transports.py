"""Both transports: one table of answers and of exchanges that go wrong, and the same verdict from each."""

import threading

import pytest

from agent import classify, connection, tls
from agent.errors import TransportError
from agent.records import ACK, HOLD, NACK, RETRY
from tests.answers import ANSWERS, NO_ANSWERS
from tests.samples import receiver
from tests.senders import Sender, make, no_curl, watched
from tests.servers import ScriptedServer, ok, refusing_port

LARGE = 8000000  # bytes: more than what fits into the buffers on the way
VERDICTS = {2: ACK, 3: HOLD, 4: NACK, 5: RETRY}


class Road(Sender):
    """A Sender by one transport, to servers that speak http or https."""

    def __init__(self, folder, kind, authority):
        Sender.__init__(self, folder, make(kind, folder=str(folder)))
        self.kind = kind
        self._authority = authority  # None: http

    def server(self, *scripts):
        return ScriptedServer(*scripts, **{'tls': self._authority and self._authority.certificate('good')})

    def send(self, port, content=b'content', name='a.json', path='/in', **settings):
        if self._authority is None:
            return Sender.send(self, port, content, name, path, **settings)
        return self.send_to('https://localhost:%d%s' % (port, path), content, name=name, ca_file=self._authority.ca,
                            **settings)


@pytest.fixture(params=['native', 'native-tls', 'curl'])  # cURL's https: test_tls.py
def sender(request, tmpdir):
    kind, secure = request.param.split('-')[0], request.param.endswith('-tls')
    if kind == 'curl' and no_curl():
        pytest.skip(no_curl())
    if secure and tls.ssl is None:
        pytest.skip('this Python has no ssl module')
    sender = Road(tmpdir, kind, request.getfixturevalue('authority') if secure else None)
    yield sender
    sender.close()


@pytest.fixture
def watchdog(sender):
    """Sees to the deadlines of `sender`."""
    over = threading.Event()
    thread = threading.Thread(target=watched, args=(sender.transport, over))
    thread.start()
    yield
    over.set()
    thread.join()


def outcome(sender, *args, **settings):
    """Return the Outcome of sending one file."""
    try:
        return classify.of_reply(sender.send(*args, **settings), receiver(), 0)
    except TransportError as error:
        return classify.of_error(error)


def of_script(sender, *script, **settings):
    with sender.server(list(script)) as server:
        return outcome(sender, server.port, **settings)


# --- the table

@pytest.mark.parametrize('raw, status, body', [row[:3] for row in ANSWERS])
def test_an_answer_leads_to_its_verdict(sender, raw, status, body):
    found = of_script(sender, ('read_request',), ('send', raw))
    assert (found.status, found.verdict) == (status, VERDICTS[status // 100])
    if status >= 400:
        assert found.reply.body == body, 'a refusal is kept for the reason file'


@pytest.mark.parametrize('raw, stage', NO_ANSWERS)
def test_what_is_no_answer_leaves_the_file_where_it_is(sender, raw, stage):
    found = of_script(sender, ('read_request',), ('send', raw))
    assert (found.status, found.verdict, found.blame) == (None, RETRY, 'RECEIVER')


# --- exchanges that go wrong

@pytest.mark.parametrize('script, verdict', [
    ([('reset',)], RETRY),
    ([('close',)], RETRY),
    ([('read', 20), ('reset',)], RETRY),
    ([('read_head',), ('reset',)], RETRY),
    ([('read_request',), ('reset',)], RETRY),
    ([('read_request',), ('send', b'HTTP/1.1 200 OK\r\nContent-Le'), ('reset',)], RETRY),
    ([('read_request',), ('send', b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n'), ('reset',)], ACK),
    ([('read_request',), ('send', b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234'), ('reset',)], ACK),
    ([('read_request',), ('send', b'HTTP/1.1 422 No\r\nContent-Length: 9\r\n\r\n1234'), ('reset',)], NACK),
    ([('read_request',), ('send', b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n12'), ('close',)], ACK),
])
def test_a_connection_that_ends_at_any_point(sender, script, verdict):
    assert of_script(sender, *script).verdict == verdict


@pytest.mark.parametrize('begun', [b'', b'HTTP/1.1 200 OK\r\nX: ', b'HTTP/1.1 200 OK\r\n'])
def test_silence_before_the_head_is_whole_is_ended_by_the_deadline(sender, begun):
    def over():
        sender.transport.cut(float('inf'))
    found = of_script(sender, ('read_request',), ('send', begun), ('call', over), ('hang',))
    assert found.verdict == RETRY


def test_silence_behind_the_head_is_ended_by_the_deadline_and_the_head_counts(sender, watchdog):
    head = b'HTTP/1.1 422 No\r\nContent-Length: 9\r\n\r\n1'
    seconds = 0.4 if sender.kind == 'native' else 1.5  # it has to do for a start of cURL on a busy machine
    found = of_script(sender, ('read_request',), ('send', head), ('hang',), deadline=seconds, read_timeout=30.0)
    assert found.verdict == NACK


def test_a_byte_now_and_then_is_ended_by_the_deadline(sender, watchdog):
    drip = b'HTTP/1.1 200 OK\r\nX: ' + b'x' * 10000
    found = of_script(sender, ('read_request',), ('send_slow', drip, 0.05), deadline=0.3)
    assert found.verdict == RETRY


def test_a_receiver_that_takes_nothing_is_ended_by_the_deadline(sender, watchdog):
    assert of_script(sender, ('hang',), content=b'x' * LARGE, deadline=0.3, expect=False).verdict == RETRY


@pytest.mark.parametrize('head, piece, verdict', [
    (b'HTTP/1.1 200 OK\r\n\r\n', b'x' * 9999, ACK),
    (b'HTTP/1.1 400 No\r\n\r\n', b'x' * 9999, NACK),
    (b'HTTP/1.1 400 No\r\nContent-Length: 999999999999\r\n\r\n', b'x' * 9999, NACK),
    (b'HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n', b'fff\r\n' + b'x' * 4095 + b'\r\n', NACK),
    (b'HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n', b'x' * 9999, NACK),
    (b'', b'x' * 9999, RETRY),
    (b'HTTP/1.1 200 OK\r\nX: ', b'x' * 9999, RETRY),
    (b'HTTP/1.1 200 OK\r\n', b'X: y\r\n', RETRY),
    (b'', b'HTTP/1.1 100 Continue\r\n\r\n', RETRY),
    (b'', b'HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n', RETRY),
])
def test_endless_answers_are_bounded(sender, watchdog, head, piece, verdict):
    found = of_script(sender, ('read_request',), ('send', head), ('send_for_ever', piece), deadline=20.0)
    assert found.verdict == verdict
    if verdict == NACK:
        assert 60000 < len(found.reply.body) <= 65536


def test_refused_and_unresolved_receivers_are_failures_of_the_receiver(sender):
    with refusing_port() as port:
        assert outcome(sender, port)[:2] == (RETRY, 'RECEIVER')
    with pytest.raises(TransportError) as caught:
        sender.send_to('http://there-is-none.invalid/in')
    assert caught.value.stage == 'resolve' and not caught.value.sent_whole


# --- answers that come while the file is on its way

def test_a_refusal_while_the_file_is_on_its_way_is_read(sender):
    refusal = ok(b'too large', '413 Content Too Large', ['Connection: close'])
    found = of_script(sender, ('read_head',), ('send', refusal), ('read_to_end',), content=b'x' * LARGE, expect=False)
    assert (found.verdict, found.status) == (NACK, 413)


@pytest.mark.parametrize('first', [('read_head',), ('read', 1)])
@pytest.mark.parametrize('last', [('close',), ('reset',), ('read', 1000000)])
def test_an_acceptance_before_the_whole_file_was_taken_is_none(sender, first, last):
    found = of_script(sender, first, ('send', ok()), last, content=b'x' * LARGE, expect=False)
    assert (found.verdict, found.status) == (RETRY, None)


def test_an_acceptance_that_comes_early_counts_when_the_whole_file_is_taken_all_the_same(sender):
    with sender.server([('read_head',), ('send', ok()), ('read_body',)]) as server:
        found = outcome(sender, server.port, content=b'x' * LARGE, expect=False)
        assert (found.verdict, found.status) == (ACK, 200)
        assert len(server.wait(1)[0].requests[0].body) == LARGE


def test_an_acceptance_without_a_look_at_the_request_is_none(sender, watchdog):
    found = of_script(sender, ('send', ok()), ('hang',), content=b'x' * LARGE, expect=False, deadline=0.5)
    assert (found.verdict, found.status) == (RETRY, None)


def test_interim_answers_while_the_file_is_on_its_way_do_not_stop_it(sender):
    interim = b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n'
    with sender.server([('read_head',), ('send', interim), ('read_body',), ('send', ok())]) as server:
        assert sender.send(server.port, b'x' * LARGE, expect=False).status == 200
        assert len(server.wait(1)[0].requests[0].body) == LARGE


# --- Expect: 100-continue

def test_a_large_file_is_announced_and_sent_when_it_is_wanted(sender):
    script = [('read_head',), ('send', b'HTTP/1.1 100 Continue\r\n\r\n'), ('read_body',), ('send', ok())]
    with sender.server(script) as server:
        assert sender.send(server.port, b'x' * LARGE).status == 200
        sent, = server.wait(1)[0].requests
    assert ('Expect', '100-continue') in sent.headers and len(sent.body) == LARGE


def test_a_small_file_is_not_announced(sender):
    with sender.server([('read_request',), ('send', ok())]) as server:
        sender.send(server.port)
        assert 'expect' not in [name.lower() for name, _ in server.wait(1)[0].requests[0].headers]


@pytest.mark.parametrize('status', ['403 Forbidden', '503 Busy', '417 Expectation Failed'])
def test_a_final_answer_in_place_of_100_is_obeyed_and_nothing_is_sent(sender, status):
    refusal = ok(b'no', status, ['Connection: close'])
    with sender.server([('read_head',), ('send', refusal), ('read_to_end',)]) as server:
        reply = sender.send(server.port, b'x' * LARGE)
        talk = server.wait(1)[0]
    assert '%d' % reply.status == status[:3] and reply.body == b'no'
    assert talk.raw == b''


def test_a_receiver_that_does_not_say_100_gets_the_file_all_the_same(sender, monkeypatch):
    monkeypatch.setattr(connection, 'CONTINUE_WAIT', 0.05)  # cURL waits its second
    with sender.server([('read_request',), ('send', ok())]) as server:
        assert sender.send(server.port, b'x' * LARGE).status == 200
        assert len(server.wait(1)[0].requests[0].body) == LARGE


# --- the request

def test_both_say_the_same(sender):
    with sender.server([('read_request',), ('send', ok())]) as server:
        sender.send(server.port, b'{}', 'a "b"%.json', headers=(('X-Site', '042'), ('X-Quotes', '"\\')))
        sent, = server.wait(1)[0].requests
    assert sent.line == 'POST /in HTTP/1.1' and sent.body == b'{}'
    assert dict(sent.headers) == {
        'Host': dict(sent.headers)['Host'], 'User-Agent': dict(sent.headers)['User-Agent'], 'X-Site': '042',
        'X-Quotes': '"\\', 'Content-Type': 'application/json', 'Content-Length': '2', 'Idempotency-Key': 'the-key',
        'X-File-Name': 'a%20%22b%22%25.json'}
    assert dict(sent.headers)['User-Agent'].startswith('envio/')


@pytest.mark.parametrize('path', [
    '/in', '/in/', '/', '/in/?a=b', '/in?a=b/', '/in//', '/a%20b/%2E', '/in/?', '/[x]{y}*'])
@pytest.mark.parametrize('method', ['POST', 'PUT'])
def test_the_target_is_the_urls_own(sender, path, method):
    with sender.server([('read_request',), ('send', ok())]) as server:
        sender.send(server.port, path=path, method=method)
        assert server.wait(1)[0].requests[0].line == '%s %s HTTP/1.1' % (method, path)


def test_a_url_without_a_path_has_one_on_the_wire(sender):
    with sender.server([('read_request',), ('send', ok())]) as server:
        sender.send(server.port, path='')
        assert server.wait(1)[0].requests[0].line == 'POST / HTTP/1.1'


@pytest.mark.parametrize('size', [0, 1, 65536, 65537, 3000000])
@pytest.mark.parametrize('settings', [
    {}, {'gzip': True}, {'body': 'multipart'}, {'body': 'multipart', 'gzip': True, 'digest': True}])
def test_bodies_arrive_whole_with_their_exact_length(sender, size, settings):
    content = b'0123456789' * (size // 10) + b'x' * (size % 10)
    with sender.server([('read_request',), ('send', ok())]) as server:
        assert sender.send(server.port, content, expect=False, **settings).status == 200
        sent, = server.wait(1)[0].requests
    parcel = sender.parcel('http://127.0.0.1/', content, **settings)
    assert sent.body == parcel.body.read(10000000)
    headers = dict(sent.headers)
    assert headers['Content-Length'] == '%d' % len(sent.body) and 'Transfer-Encoding' not in headers
    for name, value in parcel.body.fields:
        assert headers[name] == value


# --- abort

def test_abort_ends_an_exchange_from_another_thread(sender):
    with sender.server([('read_request',), ('hang',)]) as server:
        def abort_when_it_came():
            while not server.requests() or not server.requests()[-1].body:
                over.wait(0.01)
            sender.transport.abort()
        over = threading.Event()
        thread = threading.Thread(target=abort_when_it_came)
        thread.start()
        with pytest.raises(TransportError) as caught:
            sender.send(server.port)
        thread.join()
    assert str(caught.value) == 'stopped before it was done'
