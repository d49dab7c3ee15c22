"""The TLS servers and proxies themselves: what the other tests rely on when they say a peer did this or that.

The other side is the system's curl and openssl, or a bare socket: never the agent.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from collections import namedtuple

import pytest

from tests import programs, servers, tls_servers
from tests.authority import SERVER_LABELS, Authority
from tests.samples import failure
from tests.test_servers import ask, connected, everything

Answer = namedtuple('Answer', (
    'error',    # curl's exit code, 0: there was an answer
    'status',   # 0: there was none
    'tunnel',   # the proxy's status for CONNECT, or 0
    'connects',  # new connections
))
BAD_CERTIFICATE = 60
NO_HANDSHAKE = 35


def output(*command, **more):
    """Return (exit code, standard output as text) of a program that is given more['sent'] (bytes)."""
    if not command[0]:
        pytest.skip('there is no curl or openssl on this machine')
    clean = dict([(name, value) for name, value in os.environ.items() if not name.lower().endswith('_proxy')])
    process = subprocess.Popen(command, env=clean, close_fds=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    said = process.communicate(more.get('sent', b''))[0].decode('utf-8')
    return process.returncode, said


def curl(*arguments):
    """Return the Answers of a curl, one for each URL, with the exit code of the last."""
    wanted = '%{http_code} %{http_connect} %{num_connects}\\n'
    command = [programs.find('curl'), '-q', '-s', '--max-time', '30', '-H', 'Expect:', '-w', wanted]
    error, said = output(*(command + list(arguments)))
    numbers = re.findall(r'(?m)^(\d+) (\d+) (\d+)$', said)
    return [Answer(error, *[int(number) for number in line]) for line in numbers]


def post(authority, url, *arguments, **more):
    """Return the Answer to a POST of more['size'] bytes, verified with the authority's root."""
    size = more.get('size', 2000)
    return curl('--cacert', authority.ca, '--data-binary', 'x' * size, url, *arguments)[0]


def available(server):
    if server.absent:
        pytest.skip(server.absent)
    return server


@pytest.fixture(scope='module')
def nginx(tmpdir_factory, authority):
    server = available(tls_servers.NginxTls(str(tmpdir_factory.mktemp('nginx')), authority))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope='module')
def apache(tmpdir_factory, authority):
    server = available(tls_servers.Apache(str(tmpdir_factory.mktemp('apache')), authority))
    server.start()
    yield server
    server.stop()


# --- programs

STUBBORN = '''
import os, signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('127.0.0.1', int(sys.argv[1])))
listener.listen(5)
number = os.getpid()
if os.fork():
    with open('pid', 'w') as page:
        page.write(str(number))
signal.pause()
'''


class Python(programs.Daemon):
    """A program that does what its source says."""
    names = ('true',)
    labels = ('only',)
    source = ''

    def _configure(self):
        pass

    def _command(self):
        return [sys.executable, '-c', self.source, str(self.ports['only'])]


def test_a_program_that_ends_at_once_is_an_error_with_what_it_said(tmpdir):
    daemon = Python(str(tmpdir))
    daemon.source = 'print("no " + "luck")'
    with pytest.raises(RuntimeError) as caught:
        daemon.start()
    assert 'no luck' in str(caught.value)


def test_a_port_that_another_program_has_taken_is_not_mistaken_for_its_own(tmpdir, authority, monkeypatch):
    server = available(tls_servers.NginxTls(str(tmpdir), authority))
    choose, chosen = programs.free_ports, []
    with servers.tarpit() as other:
        def first_the_one_that_is_taken(count):
            chosen.append(choose(count))
            return chosen[-1] if chosen[1:] else [other.port] + chosen[-1][1:]
        monkeypatch.setattr(programs, 'free_ports', first_the_one_that_is_taken)
        with server:
            assert len(chosen) > 1
            assert other.port not in server.ports.values()
            assert post(authority, 'https://localhost:%d/in' % server.port('good')).status == 200


def test_a_program_that_does_not_want_to_end_is_killed_with_its_children(tmpdir):
    daemon = Python(str(tmpdir))
    daemon.source = STUBBORN
    daemon.start()
    assert failure(connected, daemon.ports['only']) is None
    daemon.stop(0.05)
    assert failure(connected, daemon.ports['only']) is not None


def test_what_a_killed_program_leaves_ends_too_and_it_can_come_back(tmpdir):
    daemon = Python(str(tmpdir))
    daemon.source = STUBBORN
    daemon.start()
    ports = daemon.ports
    os.kill(daemon._process.pid, signal.SIGKILL)
    daemon._process.wait()
    assert failure(connected, ports['only']) is None
    daemon.stop()
    assert failure(connected, ports['only']) is not None
    daemon.start()
    assert daemon.ports == ports
    daemon.stop(0)


def test_free_ports_differ():
    assert len(set(programs.free_ports(50))) == 50


@pytest.mark.parametrize('kind', [tls_servers.NginxTls, tls_servers.Apache])
def test_a_machine_without_a_program_or_certificates_is_told_apart(tmpdir, monkeypatch, kind):
    made = Authority(str(tmpdir))
    made.absent = 'no openssl here'
    assert kind(str(tmpdir), made).absent
    made.absent = ''
    monkeypatch.setattr(programs, 'find', lambda *_: None)
    assert kind(str(tmpdir), made).absent == 'there is no %s on this machine' % kind.names[0]


def test_an_apache_without_tls_is_told_apart(tmpdir, authority, monkeypatch):
    monkeypatch.setattr(tls_servers, '_apache_modules', lambda: {'alias': '/a', 'dav': '/d', 'dav_fs': '/f'})
    monkeypatch.setattr(programs, 'find', lambda *_: '/usr/sbin/apache2')
    assert tls_servers.Apache(str(tmpdir), authority).absent == 'the Apache of this machine has no mod_ssl'


def test_a_machine_without_tinyproxy_is_told_apart(tmpdir, monkeypatch):
    monkeypatch.setattr(programs, 'find', lambda *_: None)
    assert tls_servers.Tinyproxy(str(tmpdir)).absent == 'there is no tinyproxy on this machine'


# --- nginx

def shown(port, *arguments):
    """Return the certificates that a server shows, PEM."""
    said = output(programs.find('openssl'), 's_client', '-connect', '127.0.0.1:%d' % port, '-showcerts', *arguments)[1]
    return re.findall(r'(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n', said)


def in_file(path):
    with open(path) as page:
        return re.findall(r'(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n', page.read())


@pytest.mark.parametrize('label', SERVER_LABELS)
def test_nginx_shows_the_certificate_of_each_label_with_its_chain(nginx, authority, label):
    assert shown(nginx.port(label)) == in_file(authority.certificate(label).cert)


@pytest.mark.parametrize('label, error', [
    ('good', 0), ('intermediate', 0), ('san_first', 0), ('many_names', 0), ('tls13', 0), ('sni', 0), ('few', 0),
    ('expired', BAD_CERTIFICATE), ('not_yet', BAD_CERTIFICATE), ('other_name', BAD_CERTIFICATE),
    ('unknown', BAD_CERTIFICATE), ('self_signed', BAD_CERTIFICATE), ('ip', BAD_CERTIFICATE),
    ('wildcard', BAD_CERTIFICATE), ('cn_beside_san', BAD_CERTIFICATE), ('missing_intermediate', BAD_CERTIFICATE)])
def test_nginx_gets_a_request_where_the_certificate_is_good(nginx, authority, label, error):
    answer = post(authority, 'https://localhost:%d/in' % nginx.port(label))
    assert (answer.error, answer.status) == (error, 0 if error else 200)


def test_nginx_is_known_by_address_and_by_wildcard(nginx, authority):
    assert post(authority, 'https://127.0.0.1:%d/in' % nginx.port('ip')).status == 200
    port = nginx.port('wildcard')
    url, where = 'https://a.envio.test:%d/in' % port, 'a.envio.test:%d:127.0.0.1' % port
    assert post(authority, url, '--resolve', where).status == 200


def test_nginx_is_not_trusted_by_another_root(nginx, authority):
    url = 'https://localhost:%d/in' % nginx.port('good')
    assert curl('--cacert', authority.other_ca, url)[0].error == BAD_CERTIFICATE


@pytest.mark.parametrize('method', ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'])
def test_nginx_takes_any_method_and_a_long_body(nginx, authority, tmpdir, method):
    body = tmpdir.join('body')
    body.write('x' * 1000000)
    url = 'https://localhost:%d/in/a.json?b=c' % nginx.port('good')
    answer = curl('--cacert', authority.ca, '-X', method, '--data-binary', '@' + str(body), url)[0]
    assert answer.status == 200


def test_nginx_answers_after_the_body(nginx):
    peer = connected(nginx.port('http'))
    peer.sendall(b'POST /in HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nab')
    peer.settimeout(0.05)
    with pytest.raises(socket.timeout):
        peer.recv(1)
    peer.settimeout(10)
    peer.sendall(b'c')
    assert everything(peer).startswith(b'HTTP/1.1 200 ')
    peer.close()


def test_nginx_asks_for_a_client_certificate(nginx, authority):
    url, pair = 'https://localhost:%d/in' % nginx.port('client_required'), authority.certificate('client')
    assert post(authority, url).status == 400
    assert post(authority, url, '--cert', pair.cert, '--key', pair.key).status == 200
    other = authority.certificate('self_signed')
    assert post(authority, url, '--cert', other.cert, '--key', other.key).status == 400


def test_nginx_speaks_tls_1_0_where_it_may_speak_nothing_else(nginx, authority):
    url = 'https://localhost:%d/in' % nginx.port('tls10')
    assert post(authority, url).error == NO_HANDSHAKE
    assert post(authority, url, '--tlsv1.0', '--tls-max', '1.0', '--ciphers', 'DEFAULT:@SECLEVEL=0').status == 200


def test_nginx_speaks_tls_1_3_where_it_may_speak_nothing_else(nginx, authority):
    url = 'https://localhost:%d/in' % nginx.port('tls13')
    assert post(authority, url, '--tls-max', '1.2').error == NO_HANDSHAKE
    assert post(authority, url).status == 200


def test_nginx_chooses_the_certificate_by_the_name_it_is_told(nginx, authority):
    good, other = [in_file(authority.certificate(label).cert) for label in ('good', 'other_name')]
    port = nginx.port('sni')
    assert shown(port, '-servername', 'localhost') == shown(port, '-servername', 'good.envio.test') == good
    assert shown(port) == shown(port, '-servername', 'third.envio.test') == other


@pytest.mark.parametrize('size, status', [(1024, 200), (1025, 413)])
def test_nginx_takes_small_bodies_where_only_they_are_wanted(nginx, authority, size, status):
    assert post(authority, 'https://localhost:%d/in' % nginx.port('small'), size=size).status == status


@pytest.mark.parametrize('label, connects', [('few', 2), ('good', 1)])
def test_nginx_keeps_a_connection_for_as_many_requests_as_it_should(nginx, authority, label, connects):
    answers = curl('--cacert', authority.ca, *(['https://localhost:%d/in' % nginx.port(label)] * 6))
    assert [answer.status for answer in answers] == [200] * 6
    assert sum([answer.connects for answer in answers]) == connects


def test_nginx_resumes_a_session_and_its_log_says_so(tmpdir, authority):
    server = available(tls_servers.NginxTls(str(tmpdir), authority))
    request, session = b'GET /in HTTP/1.0\r\n\r\n', str(tmpdir.join('session'))
    with server:
        client = [programs.find('openssl'), 's_client', '-quiet', '-tls1_2', '-connect',
                  '127.0.0.1:%d' % server.port('good')]
        output(*(client + ['-sess_out', session]), sent=request)
        output(*(client + ['-sess_in', session]), sent=request)
    assert [line.split()[5:] for line in server.log()] == [['good', 'TLSv1.2', '-'], ['good', 'TLSv1.2', 'resumed']]


def test_nginx_comes_back_on_its_ports_and_its_log_knows_each_request_once(tmpdir, authority):
    server = available(tls_servers.NginxTls(str(tmpdir), authority))
    with server:
        ports = dict(server.ports)
        assert post(authority, 'https://localhost:%d/in' % server.port('good')).status == 200
        assert post(authority, 'https://localhost:%d/in' % server.port('expired')).status == 0
        assert post(authority, 'http://localhost:%d/in' % server.port('http')).status == 200
    assert [line.split()[1:4] + line.split()[5:6] for line in server.log()] == [
        ['POST', '/in', '200', 'good'], ['POST', '/in', '200', 'http']]
    assert failure(connected, ports['good']) is not None
    with server:
        assert server.ports == ports


# --- Apache

@pytest.mark.parametrize('label', ['http', 'https', 'few'])
def test_apache_stores_what_is_put(apache, authority, tmpdir, label):
    body = tmpdir.join('body')
    url = '%s://localhost:%d/stored/%s' % (label.replace('few', 'https'), apache.port(label), label)
    for size, status in (300000, 201), (7, 204):
        body.write('x' * size)
        assert curl('--cacert', authority.ca, '-T', str(body), url)[0].status == status
        assert apache.stored(label) == b'x' * size


@pytest.mark.parametrize('path, status', [('in', 200), ('in/a.json?b=c', 200), ('small', 413), ('missing', 404)])
@pytest.mark.parametrize('label', ['http', 'https'])
def test_apache_answers_a_post_as_each_location_says(apache, authority, label, path, status):
    assert post(authority, '%s://localhost:%d/%s' % (label, apache.port(label), path)).status == status


def test_apache_shows_the_good_certificate(apache, authority):
    assert shown(apache.port('https')) == in_file(authority.certificate('good').cert)


def test_apache_refuses_who_has_no_client_certificate(apache, authority):
    url, pair = 'https://localhost:%d/in' % apache.port('client_required'), authority.certificate('client')
    assert post(authority, url).status == 0
    assert post(authority, url, '--cert', pair.cert, '--key', pair.key).status == 200


def test_apache_keeps_a_connection_for_as_many_requests_as_it_should(apache, authority):
    answers = curl('--cacert', authority.ca, *(['https://localhost:%d/in' % apache.port('few')] * 8))
    assert [answer.connects for answer in answers] == [1, 0, 0, 0, 1, 0, 0, 0]


def test_apache_comes_back_with_what_it_stored_and_leaves_nothing_outside_its_folder(tmpdir, authority):
    server = available(tls_servers.Apache(str(tmpdir), authority))
    body = tmpdir.join('body')
    body.write('abc')
    url = 'http://localhost:%d/stored/%s'
    with server:
        ports, outside = server.ports, server._open
        assert curl('-T', str(body), url % (server.port('http'), 'a'))[0].status == 201
    assert server.stored('a') == b'abc'
    assert not os.path.exists(outside)
    assert [line.split()[1:] for line in server.log()] == [['PUT', '/stored/a', '201', 'http']]
    with server:
        assert server.ports == ports
        assert [curl('-T', str(body), url % (server.port('http'), name))[0].status for name in 'ab'] == [204, 201]
    assert server.stored('b') == b'abc'


# --- tinyproxy

def both_ways(nginx):
    """Return two URLs: to the first a proxy tunnels, for the second it passes requests on."""
    return ['https://localhost:%d/in' % nginx.port('good'), 'http://localhost:%d/in' % nginx.port('http')]


def test_tinyproxy_tunnels_and_passes_on(tmpdir, nginx, authority):
    with available(tls_servers.Tinyproxy(str(tmpdir))) as proxy:
        urls = both_ways(nginx)
        answers = [post(authority, url, '-x', 'http://127.0.0.1:%d' % proxy.port) for url in urls]
        assert [(answer.status, answer.tunnel) for answer in answers] == [(200, 200), (200, 0)]
        assert proxy.log() == ['CONNECT localhost:%d HTTP/1.1' % nginx.port('good'), 'POST %s HTTP/1.1' % urls[1]]


def test_tinyproxy_wants_to_know_who_asks(tmpdir, nginx, authority):
    with available(tls_servers.Tinyproxy(str(tmpdir), 'me', 'secret')) as proxy:
        tunnelled, passed = both_ways(nginx)
        where = ['-x', 'http://127.0.0.1:%d' % proxy.port]
        for user, refusal in ([], 407), (['-U', 'me:wrong'], 401):
            assert post(authority, tunnelled, *(where + user)).tunnel == refusal
            assert post(authority, passed, *(where + user)).status == refusal
        for url in tunnelled, passed:
            assert post(authority, url, *(where + ['-U', 'me:secret'])).status == 200
        assert len(proxy.log()) == 6


# --- a proxy of our own

def through(proxy, authority, url, *arguments):
    return post(authority, url, '-x', proxy.url, *arguments)


def test_every_name_leads_here(nginx, authority):
    with tls_servers.NameProxy() as proxy:
        assert through(proxy, authority, 'https://good.envio.test:%d/in' % nginx.port('good')).status == 200
        assert through(proxy, authority, 'https://a.envio.test:%d/in' % nginx.port('wildcard')).status == 200
        assert through(proxy, authority, 'https://a.envio.test:%d/in' % nginx.port('good')).error == BAD_CERTIFICATE
        assert through(proxy, authority, 'http://any.envio.test:%d/in' % nginx.port('http')).status == 200
        assert [line for line, _ in proxy.requests] == [
            'CONNECT good.envio.test:%d HTTP/1.1' % nginx.port('good'),
            'CONNECT a.envio.test:%d HTTP/1.1' % nginx.port('wildcard'),
            'CONNECT a.envio.test:%d HTTP/1.1' % nginx.port('good'),
            'POST http://any.envio.test:%d/in HTTP/1.1' % nginx.port('http')]
        assert proxy.requests[0][1]['host'] == 'good.envio.test:%d' % nginx.port('good')


def test_names_can_lead_to_ports_and_others_nowhere(nginx, authority):
    with tls_servers.NameProxy(names={'good.envio.test': nginx.port('good')}) as proxy:
        assert through(proxy, authority, 'https://good.envio.test/in').status == 200
        assert through(proxy, authority, 'https://other.envio.test/in').tunnel == 502
        assert through(proxy, authority, 'http://other.envio.test/in').status == 502


def test_a_refused_connection_is_a_bad_gateway():
    with servers.refusing_port() as port:
        with tls_servers.NameProxy() as proxy:
            answer = ask(proxy.port, ('CONNECT a.envio.test:%d HTTP/1.1\r\n\r\n' % port).encode('ascii'))
            assert answer.startswith(b'HTTP/1.1 502 Connection refused\r\n')


def test_who_does_not_show_the_credentials_is_refused(nginx, authority):
    with tls_servers.NameProxy(credentials='me:se:cret') as proxy:
        tunnelled, passed = both_ways(nginx)
        for user in [], ['-U', 'me:wrong']:
            assert through(proxy, authority, tunnelled, *user).tunnel == 407
            assert through(proxy, authority, passed, *user).status == 407
        for url in tunnelled, passed:
            assert through(proxy, authority, url, '-U', 'me:se:cret').status == 200
        assert len(proxy.requests) == 6
        assert b'\r\nProxy-Authenticate: Basic ' in ask(proxy.port, b'CONNECT x:1 HTTP/1.1\r\n\r\n')


@pytest.mark.parametrize('request_line', [b'CONNECT x:1 HTTP/1.1', b'POST http://x/ HTTP/1.1', b'nonsense'])
def test_a_given_answer_is_sent_to_the_byte(request_line):
    with tls_servers.NameProxy(answer=b'HTTP/1.1 200 OK\r\n\r\n\x00junk') as proxy:
        assert ask(proxy.port, request_line + b'\r\n\r\n' + b'x' * 100000) == b'HTTP/1.1 200 OK\r\n\r\n\x00junk'


@pytest.mark.parametrize('request_line', [b'nonsense', b'GET / HTTP/1.1', b'CONNECT x:y HTTP/1.1', b'CONNECT  HTTP/1.1',
                                          b'CONNECT http://x:1/ HTTP/1.1', b'GET https://x/ HTTP/1.1'])
def test_what_is_not_for_a_proxy_is_refused(request_line):
    with tls_servers.NameProxy() as proxy:
        assert ask(proxy.port, request_line + b'\r\n\r\n').startswith(b'HTTP/1.1 400 ')


def test_the_server_gets_the_request_as_if_there_were_no_proxy():
    with servers.ScriptedServer([('read_request',), ('send', servers.ok()), ('read_to_end',)]) as server:
        with tls_servers.NameProxy() as proxy:
            head = ('POST http://a.envio.test:%d/in?x=1 HTTP/1.1\r\nHost: a.envio.test\r\n'
                    'Proxy-Authorization: secret\r\n'
                    'Connection: keep-alive\r\nContent-Length: 3\r\n\r\n' % server.port)
            peer = connected(proxy.port)
            peer.sendall(head.encode('ascii') + b'abc')
            assert peer.recv(100).startswith(b'HTTP/1.1 200 OK')
            peer.close()
            talk = server.wait(1)[0]
            assert talk.requests == [('POST /in?x=1 HTTP/1.1', [
                ('Host', 'a.envio.test'), ('Content-Length', '3'), ('Connection', 'close')], b'abc')]
            assert proxy.requests[0][1]['proxy-authorization'] == 'secret'


def tunnel(proxy, port):
    """Return a socket that is connected to `port` through the proxy."""
    peer = connected(proxy.port)
    peer.sendall(('CONNECT x:%d HTTP/1.1\r\n\r\n' % port).encode('ascii'))
    expected = b'HTTP/1.1 200 Connection established\r\n\r\n'
    received = b''
    while len(received) < len(expected):
        received += peer.recv(len(expected) - len(received))
    assert received == expected
    return peer


def test_a_tunnel_passes_bytes_both_ways_and_the_ends_too():
    body = os.urandom(500000)
    with servers.ScriptedServer([('send', body), ('read', len(body)), ('read_to_end',)]) as server:
        with tls_servers.NameProxy() as proxy:
            peer = tunnel(proxy, server.port)
            peer.sendall(body)
            received = b''
            while len(received) < len(body):
                received += peer.recv(65536)
            peer.close()
            talk = server.wait(1)[0]
            assert received == talk.raw == body
            assert talk.error is None
    with servers.ScriptedServer([('send', b'bye')]) as server:
        with tls_servers.NameProxy() as proxy:
            peer = tunnel(proxy, server.port)
            assert everything(peer) == b'bye'
            peer.close()


def test_bytes_that_come_with_the_request_for_a_tunnel_go_through_it():
    with servers.ScriptedServer([('read', 5), ('send', b'ok')]) as server:
        with tls_servers.NameProxy() as proxy:
            head = ('CONNECT x:%d HTTP/1.1\r\n\r\n' % server.port).encode('ascii')
            assert ask(proxy.port, head + b'hello').endswith(b'\r\n\r\nok')


def test_an_answer_before_the_end_of_a_body_arrives_though_the_server_resets():
    with servers.ScriptedServer([('read_head',), ('send', servers.ok(b'early')), ('close',)]) as server:
        with tls_servers.NameProxy() as proxy:
            head = 'POST http://x:%d/ HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n' % server.port
            assert ask(proxy.port, head.encode('ascii') + b'x' * 3000000).endswith(b'early')


def test_a_stopped_proxy_has_cut_its_tunnels_and_refuses():
    with servers.tarpit() as server:
        proxy = tls_servers.NameProxy()
        peer = tunnel(proxy, server.port)
        proxy.stop()
        assert everything(peer) == b''
        assert failure(connected, proxy.port) is not None
        peer.close()
        proxy.stop()


def test_a_proxy_can_come_back_on_its_port():
    with tls_servers.NameProxy() as proxy:
        port = proxy.port
        ask(port, b'nonsense\r\n\r\n')
    with tls_servers.NameProxy(port) as proxy:
        assert ask(port, b'nonsense\r\n\r\n').startswith(b'HTTP/1.1 400 ')
