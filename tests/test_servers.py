"""The test servers themselves: what the other tests rely on when they say a peer did this or that."""

import errno
import json
import os
import socket

import pytest

from agent import compat
from tests import servers
from tests.samples import failure

POST = b'POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc'


def connected(port):
    peer = socket.create_connection(('127.0.0.1', port), 10)
    peer.settimeout(10)
    return peer


def everything(peer):
    """Return all that comes until the other side closes."""
    pieces = []
    while True:
        piece = peer.recv(65536)
        if not piece:
            return b''.join(pieces)
        pieces.append(piece)


def ask(port, raw):
    """Return everything that is answered to `raw`."""
    peer = connected(port)
    try:
        peer.sendall(raw)
        return everything(peer)
    finally:
        peer.close()


def request(port, method, path, body=b'', headers=None):
    """Return (status, headers, body) of one exchange over httplib."""
    connection = compat.http_client().HTTPConnection('127.0.0.1', port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, reply, reply.read()
    finally:
        connection.close()


def test_a_request_is_recorded_with_line_headers_and_body_and_answered_as_scripted():
    with servers.ScriptedServer([('read_request',), ('send', servers.ok(b'yes'))]) as server:
        assert ask(server.port, POST) == b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes'
        assert server.requests() == [('POST /in HTTP/1.1', [('Host', 'x'), ('Content-Length', '3')], b'abc')]


def test_each_connection_plays_its_own_script_and_the_last_repeats():
    first, rest = [('read_request',), ('send', b'1')], [('read_request',), ('send', b'2')]
    with servers.ScriptedServer(first, rest) as server:
        assert [ask(server.port, POST) for _ in range(4)] == [b'1', b'2', b'2', b'2']
        assert [len(talk.requests) for talk in server.wait(4)] == [1, 1, 1, 1]


def test_one_connection_can_carry_several_requests():
    with servers.ScriptedServer([('read_request',), ('send', b'1')] * 3) as server:
        assert ask(server.port, POST * 3) == b'111'
        assert len(server.requests()) == 3


def test_a_chunked_body_is_recorded_without_its_framing():
    chunked = b'PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n'
    with servers.ScriptedServer([('read_request',), ('send', b'1')]) as server:
        assert ask(server.port, chunked) == b'1'
        assert server.requests()[0].body == b'abcde'


def test_an_answer_can_come_before_the_body():
    script = [('read_head',), ('send', b'early'), ('read_body',), ('send', b'late')]
    with servers.ScriptedServer(script) as server:
        peer = connected(server.port)
        peer.sendall(POST[:-3])
        assert peer.recv(100) == b'early'
        peer.sendall(b'abc')
        assert everything(peer) == b'late'
        peer.close()
        assert server.requests()[0].body == b'abc'


def test_bytes_that_are_read_without_looking_are_kept_raw():
    with servers.ScriptedServer([('read', 4), ('send', b'.'), ('read_to_end',)]) as server:
        peer = connected(server.port)
        peer.sendall(b'POST /in')
        assert peer.recv(1) == b'.'
        peer.close()
        assert server.wait(1)[0].raw == b'POST /in'


def test_a_slow_answer_comes_whole_and_byte_by_byte():
    with servers.ScriptedServer([('read_request',), ('send_slow', b'abc', 0.001)]) as server:
        assert ask(server.port, POST) == b'abc'


def test_a_slow_answer_ends_when_the_server_stops():
    server = servers.ScriptedServer([('read_request',), ('send_slow', b'abc', 3600)])
    peer = connected(server.port)
    peer.sendall(POST)
    assert peer.recv(10) == b'a'
    server.stop()
    assert server.conversations[0].error is not None
    peer.close()


def test_close_ends_the_connection_without_an_answer():
    with servers.ScriptedServer([('read_request',), ('close',)]) as server:
        assert ask(server.port, POST) == b''


def test_reset_is_a_reset():
    with servers.ScriptedServer([('read_request',), ('reset',)]) as server:
        assert failure(ask, server.port, POST) == errno.ECONNRESET


def test_a_peer_that_leaves_early_is_noted_and_hurts_nobody():
    with servers.ScriptedServer([('read_request',)]) as server:
        peer = connected(server.port)
        peer.sendall(POST[:-1])
        peer.close()
        assert server.wait(1)[0].error == 'read_request: the peer has closed'
        assert server.requests()[0].body == b''


def test_a_script_with_nothing_wrong_has_no_error():
    with servers.ScriptedServer([('read_request',), ('send', servers.ok())]) as server:
        ask(server.port, POST)
        assert server.wait(1)[0].error is None


def test_waiting_for_what_does_not_happen_fails():
    with servers.ScriptedServer([('read_request',)]) as server:
        with pytest.raises(AssertionError):
            server.wait(1, 0.01)


def test_a_tarpit_accepts_and_never_answers():
    with servers.tarpit() as server:
        peer = connected(server.port)
        peer.sendall(POST)
        peer.settimeout(0.05)
        with pytest.raises(socket.timeout):
            peer.recv(1)
        peer.close()


def test_a_stopped_server_refuses_connections():
    server = servers.tarpit()
    server.stop()
    assert failure(connected, server.port) == errno.ECONNREFUSED


def test_a_refusing_port_refuses():
    with servers.refusing_port() as port:
        assert failure(connected, port) == errno.ECONNREFUSED


# --- nginx

@pytest.fixture
def nginx(tmpdir):
    server = servers.Nginx(str(tmpdir))
    if server.absent:
        pytest.skip(server.absent)
    server.start()
    yield server
    server.stop()


def stored(server, raw):
    """Return the bytes nginx stored under the name `raw` (bytes)."""
    with open(os.path.join(compat.fs_bytes(server.stored), raw), 'rb') as page:
        return page.read()


@pytest.mark.parametrize('method, path', [('PUT', '/stored/a%20b.json'), ('PUT', '/in/a%20b.json'),
                                          ('POST', '/in/a%20b.json'), ('PATCH', '/in/a%20b.json')])
def test_nginx_stores_a_body_under_the_name_in_the_url(nginx, method, path):
    body = os.urandom(300000)
    assert request(nginx.port, method, path, body)[0] == 201
    assert stored(nginx, b'a b.json') == body


def test_nginx_stores_a_post_under_its_file_name_header(nginx):
    odd = b'caf\xc3\xa9 \xff\n%2e#?.bin'
    headers = {'X-File-Name': compat.percent(odd), 'Content-Length': '0'}
    assert request(nginx.port, 'POST', '/in', b'', headers)[0] == 201
    assert stored(nginx, odd) == b''


def test_nginx_says_204_when_a_name_comes_again(nginx):
    assert [request(nginx.port, 'POST', '/in/a', body)[0] for body in (b'1', b'2')] == [201, 204]
    assert stored(nginx, b'a') == b'2'


@pytest.mark.parametrize('path, status', [('/sink', 200), ('/ok', 200), ('/small', 413), ('/rejects', 422),
                                          ('/denied', 401), ('/missing', 404), ('/busy', 503), ('/moved', 301)])
def test_nginx_answers_as_each_location_says(nginx, path, status):
    assert request(nginx.port, 'POST', path, b'x' * 2000)[0] == status


def test_nginx_sends_what_goes_with_its_refusals(nginx):
    _, reply, body = request(nginx.port, 'POST', '/rejects', b'x')
    assert reply.getheader('Content-Type') == 'application/problem+json'
    assert json.loads(body.decode('ascii')) == {'title': 'Not an order', 'detail': 'field "total" is missing'}
    assert request(nginx.port, 'POST', '/busy', b'x')[1].getheader('Retry-After') == '1'
    assert request(nginx.port, 'POST', '/moved', b'x')[1].getheader('Location') == nginx.url + '/stored/'


def test_nginx_comes_back_on_its_port_and_its_log_knows_each_request_once(nginx):
    port = nginx.port
    assert request(port, 'POST', '/in/a', b'1')[0] == 201
    nginx.stop()
    assert failure(connected, port) == errno.ECONNREFUSED
    assert [line.split()[1:4] for line in nginx.log()] == [['POST', '/in/a', '201']]
    nginx.start()
    assert nginx.port == port
    assert request(port, 'POST', '/in/b', b'2')[0] == 201


def test_a_machine_without_nginx_is_told_apart(tmpdir, monkeypatch):
    monkeypatch.setattr(servers, '_find_nginx', lambda: None)
    assert 'no nginx' in servers.Nginx(str(tmpdir)).absent
