"""The tryout receiver, over real sockets: what it stores, what it answers, what it says, how it goes and comes back."""

import errno
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading

import pytest

from agent import certificates, cli, compat, receiver, receiver_rules, receiver_tls
from agent.errors import AgentError, UsageError
from tests import programs
from tests.conftest import ROOT
from tests.samples import failure

EXAMPLES = os.path.join(ROOT, 'agent', 'examples')


class Client(object):
    """One connection to the receiver that keeps what it is told. ca: the ca_file to verify it by, None: plain HTTP."""

    def __init__(self, port, ca=None):
        self._connection = compat.http_client().HTTPConnection('127.0.0.1', port, timeout=10)
        if ca:
            self._connection.sock = secured(port, ca)

    def send(self, name=None, body=b'', method='POST', path='/in', headers=()):
        """Return (status, reply, body)."""
        every = dict(headers)
        if name is not None:
            every['X-File-Name'] = compat.percent(name)
        self._connection.request(method, path, body, every)
        reply = self._connection.getresponse()
        return reply.status, reply, reply.read()

    def close(self):
        self._connection.close()


def secured(port, ca):
    """Return a connection with TLS: the receiver's certificate is verified by the file `ca`. An end that TLS does not
    announce is an error."""
    peer = socket.create_connection(('127.0.0.1', port), 10)
    context = compat.tls_context(ssl)
    if context is None:
        return ssl.wrap_socket(peer, ca_certs=ca, cert_reqs=ssl.CERT_REQUIRED, suppress_ragged_eofs=False)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca)
    return context.wrap_socket(peer, suppress_ragged_eofs=False)


@pytest.fixture
def start(tmpdir):
    """A function that starts a receiver with these rules and returns (server, client, lines it said)."""
    servers, clients = [], []

    def begin(answers='200', ca=None, **options):
        said = []
        options.setdefault('folder', str(tmpdir.join('in')))
        server = receiver.serve(answers=answers, say=said.append, **options).start()
        servers.append(server)
        clients.append(Client(server.port, ca))
        return server, clients[-1], said
    yield begin
    for client in clients:
        client.close()
    for server in servers:
        server.stop()


def files(server):
    """Return {name: content} of what is stored, all bytes."""
    folder = compat.fs_bytes(server.folder)
    found = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), 'rb') as page:
            found[name] = page.read()
    return found


def raw_exchange(server, raw):
    """Return all that is answered to the bytes `raw`, until the receiver closes."""
    peer = socket.create_connection(('127.0.0.1', server.port), 10)
    try:
        peer.sendall(raw)
        peer.shutdown(socket.SHUT_WR)
        return b''.join(iter(lambda: peer.recv(65536), b''))
    finally:
        peer.close()


# --- what it stores

def test_every_example_arrives_as_it_is_over_one_connection(start):
    server, client, said = start()
    sent = {}
    for name in os.listdir(EXAMPLES):
        with open(os.path.join(EXAMPLES, name), 'rb') as page:
            sent[compat.fs_bytes(name)] = page.read()
    assert len(sent) >= 8
    assert [client.send(name, body)[0] for name, body in sent.items()] == [200] * len(sent)
    assert files(server) == sent
    counts = server.counts()
    assert (counts.connections, counts.requests, counts.stored) == (1, len(sent), len(sent))
    assert counts.size == sum([len(body) for body in sent.values()])
    assert counts.answers == ((200, len(sent)),)
    assert len(said) == len(sent)


@pytest.mark.parametrize('name, kept', [
    (b'caf\xc3\xa9 \xff\n.txt', b'caf\xc3\xa9 \xff\n.txt'), (b'../../etc/passwd', b'_._.._etc_passwd'),
    (b'/etc/passwd', b'_etc_passwd'), (b'.hidden', b'_hidden'), (b'..', b'_.'), (b'a\0b', b'a_b'),
    (b'x' * 300, b'x' * 255),
])
def test_a_file_keeps_its_name_as_far_as_that_is_safe(start, name, kept):
    server, client, _ = start()
    assert client.send(name, b'1')[0] == 200
    assert files(server) == {kept: b'1'}


def test_nothing_is_overwritten(start):
    server, client, said = start()
    for body in (b'1', b'2', b'3'):
        client.send(b'a.json', body)
    assert files(server) == {b'a.json': b'1', b'a.json.1': b'2', b'a.json.2': b'3'}
    assert said[2] == 'POST /in a.json (1 B): 200 OK, stored as a.json.2'


def test_the_longest_name_has_room_for_its_number(start):
    server, client, _ = start()
    assert [client.send(b'x' * 255, body)[0] for body in (b'1', b'2')] == [200, 200]
    assert files(server) == {b'x' * 255: b'1', b'x' * 253 + b'.1': b'2'}


def test_without_a_file_name_header_the_path_names_the_file(start):
    server, client, _ = start()
    client.send(None, b'1', 'PUT', '/in/caf%C3%A9.txt?key=1')
    client.send(None, b'2', 'POST', '/')
    client.send(None, b'', 'GET', '/looking')
    assert files(server) == {b'caf\xc3\xa9.txt': b'1', b'unnamed': b'2'}


def test_a_refused_file_is_not_kept(start):
    server, client, _ = start('bad*=422,worse*=503')
    assert [client.send(name, b'1')[0] for name in (b'bad', b'worse', b'good')] == [422, 503, 200]
    assert files(server) == {b'good': b'1'}


def test_a_body_of_many_pieces_arrives_whole(start):
    server, client, _ = start()
    body = os.urandom(3 * receiver.PIECE + 17)
    assert client.send(b'big', body)[0] == 200
    assert files(server) == {b'big': body}


def test_a_chunked_body_is_stored_without_its_framing(start):
    server, _, _ = start()
    answer = raw_exchange(server, b'POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n'
                                  b'3;x=y\r\nabc\r\n0a\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n')
    assert answer.startswith(b'HTTP/1.1 200 OK\r\n')
    assert files(server) == {b'c': b'abc0123456789'}


@pytest.mark.parametrize('framing', [
    b'Content-Length: x\r\n\r\n', b'Content-Length: -1\r\n\r\n', b'Transfer-Encoding: chunked\r\n\r\nq\r\n',
    b'Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n'])
def test_a_body_that_is_not_framed_is_a_bad_request(start, framing):
    server, _, _ = start()
    answer = raw_exchange(server, b'POST /c HTTP/1.1\r\nHost: x\r\n' + framing)
    assert answer.startswith(b'HTTP/1.1 400 ')
    assert b'Connection: close' in answer
    assert files(server) == {}


@pytest.mark.parametrize('body', [b'Content-Length: 9\r\n\r\nabc', b'Transfer-Encoding: chunked\r\n\r\n9\r\nabc'])
def test_a_file_that_is_cut_leaves_nothing_behind(start, body):
    server, _, said = start()
    assert raw_exchange(server, b'POST /in/a.json HTTP/1.1\r\nHost: x\r\n' + body) == b''
    assert files(server) == {}
    assert said == ['POST /in/a.json: cut off within the body']
    assert server.counts().requests == 0


def test_a_folder_that_is_gone_is_507_and_said(start):
    server, client, said = start()
    os.rmdir(server.folder)
    assert client.send(b'a', b'1')[0] == 507
    assert said == ['POST /in a (0 B): 507 Insufficient Storage, not stored: No such file or directory']


def test_without_a_folder_it_takes_everything_and_keeps_nothing(start):
    server, client, _ = start(folder=None)
    assert client.send(b'a', b'12345')[0] == 200
    assert server.counts()[1:] == (1, 0, 5, ((200, 1),))


# --- what it answers

def test_the_first_rule_that_matches_counts(start):
    _, client, _ = start('*.csv=422,slow-*=201:delay=1ms,bad*=503:retry-after=5,*=202')
    names = (b'a.csv', b'bad.csv', b'slow-1', b'bad-1', b'orders')
    assert [client.send(name)[0] for name in names] == [422, 422, 201, 503, 202]
    assert client.send(b'bad')[1].getheader('Retry-After') == '5'


def test_a_lone_answer_is_for_all_and_no_rule_means_200(start):
    assert start('503:retry-after=1')[1].send(b'a')[0] == 503
    assert start('*.csv=422')[1].send(b'a')[0] == 200


def test_a_pattern_with_a_slash_is_on_the_path_and_one_without_on_the_path_of_what_has_no_name(start):
    _, client, _ = start('/down*=503,*/x.csv=404,*.csv=422')
    assert client.send(b'a', path='/down/1?x')[0] == 503
    assert client.send(b'a', path='/up/x.csv')[0] == 404
    assert client.send(b'a.json', path='/up/a.csv')[0] == 200
    assert client.send(None, path='/up/a.csv')[0] == 422


def test_a_pattern_meets_odd_names_byte_by_byte(start):
    _, client, _ = start('a*.csv=422')
    assert client.send(b'a\n\xff.csv')[0] == 422


def test_times_limits_a_rule_and_then_the_next_one_counts(start):
    _, client, _ = start('a*=503:times=2,a*=429:times=1')
    assert [client.send(name)[0] for name in (b'a', b'b', b'a', b'a', b'a')] == [503, 200, 503, 429, 200]


def test_a_problem_comes_as_problem_json(start):
    _, client, _ = start('422:problem=field "total"%2C a number%3A missing caf\xc3\xa9')
    status, reply, body = client.send(b'a')
    assert (status, reply.reason) == (422, 'Unprocessable Content')
    assert reply.getheader('Content-Type') == 'application/problem+json'
    problem = json.loads(body.decode('ascii'))
    assert (problem['status'], problem['title']) == (422, 'Unprocessable Content')
    assert problem['detail'].startswith('field "total", a number: missing caf')


def test_rules_can_change_while_it_runs(start):
    server, client, _ = start('503')
    assert client.send(b'a')[0] == 503
    server.answer('201')
    assert client.send(b'a')[0] == 201
    with pytest.raises(UsageError):
        server.answer('nonsense')
    assert client.send(b'a')[0] == 201


def test_rules_have_no_more_stars_than_every_python_can_take(start):
    for pattern in ('*a' * 81, '*a' * 50 + '/' + '*a' * 50):
        with pytest.raises(UsageError) as caught:
            start(pattern + '=200')
        assert 'more than 80 stars' in str(caught.value)


def test_an_answer_without_a_body_does_not_disturb_the_next(start):
    _, client, _ = start('/none=204,/same=304')
    wanted = [('POST', '/none', 204), ('POST', '/same', 304), ('HEAD', '/in', 200), ('POST', '/in', 200)]
    for method, path, status in wanted:
        assert client.send(b'a', b'x', method, path)[0] == status


def test_expect_continue_is_answered_before_the_body_comes(start):
    server, _, _ = start()
    peer = socket.create_connection(('127.0.0.1', server.port), 10)
    peer.settimeout(10)
    peer.sendall(b'POST /in/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n')
    assert peer.recv(1000) == b'HTTP/1.1 100 Continue\r\n\r\n'
    peer.sendall(b'abc')
    assert peer.recv(1000).startswith(b'HTTP/1.1 200 OK\r\n')
    peer.close()
    assert files(server) == {b'a': b'abc'}


def test_http_1_0_is_answered_and_closed(start):
    server, _, _ = start()
    answer = raw_exchange(server, b'POST /in HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx')
    assert b'\r\nConnection: close\r\n' in answer


def test_close_reads_the_request_and_ends_the_connection(start):
    server, _, said = start('close')
    assert raw_exchange(server, b'POST /in HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc') == b''
    assert said == ['POST /in (3 B): closed without an answer']
    assert server.counts().answers == (('close', 1),)


def test_hang_never_answers_until_it_is_stopped(start):
    server, _, said = start('hang')
    peer = socket.create_connection(('127.0.0.1', server.port), 10)
    peer.sendall(b'POST /in HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc')
    peer.settimeout(0.05)
    with pytest.raises(socket.timeout):
        peer.recv(1)
    peer.settimeout(10)
    server.stop()
    assert peer.recv(1) == b''
    peer.close()
    assert said == ['POST /in (3 B): no answer']


def test_a_delayed_answer_does_not_delay_the_end(start):
    server, _, _ = start('200:delay=1h')
    peer = socket.create_connection(('127.0.0.1', server.port), 10)
    peer.sendall(b'POST /in HTTP/1.1\r\nContent-Length: 0\r\n\r\n')
    begun = compat.monotonic()
    server.stop()
    assert compat.monotonic() - begun < 5
    peer.close()


@pytest.mark.parametrize('answers, words', [
    ('', 'an empty rule'), ('200,', 'an empty rule'), ('*.csv', 'neither an answer'), ('=200', 'neither an answer'),
    ('*=', 'not a code'), ('*=600', 'not a code'), ('99', 'not a code'), ('*=fine', 'not a code'),
    ('200:delay=5', 'needs a unit'), ('200:delay', 'not a duration'), ('503:retry-after=soon', 'retry-after'),
    ('503:times=-1', 'times=N'), ('422:problem=', 'problem=TEXT'), ('422:problem=a:b', '%3A'),
    ('close:problem=x', 'not for close'), ('[a=200', 'a [ without its ]'),
])
def test_rules_that_make_no_sense_are_refused_with_a_sentence(answers, words):
    with pytest.raises(UsageError) as caught:
        receiver_rules.parse_rules(answers)
    assert str(caught.value).startswith('--answer: ')
    assert words in str(caught.value)


# --- how it goes and comes back

def test_stopped_it_refuses_and_started_again_it_is_back_on_its_port(start):
    server, client, _ = start()
    port = server.port
    assert client.send(b'a')[0] == 200
    for _ in range(3):
        server.stop()
        server.stop()
        assert failure(socket.create_connection, ('127.0.0.1', port), 10) == errno.ECONNREFUSED
        assert server.start().port == port
        again = Client(port)
        assert again.send(b'a')[0] == 200
        again.close()
    assert server.counts().requests == 4


def test_many_connections_at_once_lose_nothing(start):
    server, _, _ = start('200:delay=20ms')
    peers = []
    for number in range(20):
        peer = socket.create_connection(('127.0.0.1', server.port), 10)
        head = b'PUT /in/same HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n'
        peer.sendall(head + ('%02d' % number).encode('ascii'))
        peers.append(peer)
    for peer in peers:
        assert b''.join(iter(lambda: peer.recv(65536), b'')).startswith(b'HTTP/1.1 200 OK')
        peer.close()
    stored = files(server)
    assert len(stored) == 20
    assert sorted(stored.values()) == [('%02d' % number).encode('ascii') for number in range(20)]


def test_a_port_that_is_taken_is_a_sentence(start):
    server, _, _ = start()
    with pytest.raises(AgentError) as caught:
        receiver.serve(server.port)
    assert str(caught.value) == ("receiver: can't listen on 127.0.0.1 port %d: Address already in use: "
                                 'choose another port' % server.port)


@pytest.mark.parametrize('port', [-1, 70000])
def test_a_port_that_is_none_is_a_sentence(port):
    with pytest.raises(UsageError) as caught:
        receiver.serve(port)
    assert 'is not a port' in str(caught.value)


def test_a_folder_that_cannot_be_is_a_sentence(tmpdir):
    tmpdir.join('file').write('x')
    with pytest.raises(AgentError) as caught:
        receiver.serve(folder=str(tmpdir.join('file', 'below')))
    assert "can't make the folder" in str(caught.value)


def test_a_request_that_is_not_http_is_answered_and_said_safely(start):
    server, _, said = start()
    raw_exchange(server, b'\x1b[31m \xff nonsense\r\n\r\n')
    assert len(said) == 1
    assert '\x1b' not in said[0]


# --- https

@pytest.fixture
def start_tls(start, authority):
    """As start, with https; the client verifies the receiver's certificate."""
    def begin(answers='200'):
        pair = authority.certificate('good')
        return start(answers, authority.ca, identity=receiver_tls.Identity(pair.cert, pair.key))
    return begin


def test_files_arrive_over_https_as_they_are(start_tls):
    server, client, said = start_tls('*=201')
    assert server.url == 'https://127.0.0.1:%d' % server.port
    sent = {b'a': b'1', b'b': b'', b'big': os.urandom(3 * receiver.PIECE + 17)}
    assert [client.send(name, body)[0] for name, body in sent.items()] == [201] * len(sent)
    assert files(server) == sent
    assert server.counts().connections == 1
    assert len(said) == len(sent)


def test_a_connection_ends_as_tls_ends_one(start_tls, authority):
    server, _, _ = start_tls()
    peer = secured(server.port, authority.ca)
    peer.sendall(b'GET /in HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    assert b''.join(iter(lambda: peer.recv(65536), b'')).endswith(b'200 OK\n')
    peer.close()


def test_the_systems_curl_verifies_what_it_speaks_to(start_tls, authority):
    curl = programs.find('curl')
    if not curl:
        pytest.skip('there is no curl on this machine')
    server, _, _ = start_tls()

    def put(ca):
        return subprocess.call([curl, '-q', '-s', '--noproxy', '*', '--cacert', ca, '-o', os.devnull, '-T',
                                os.path.join(EXAMPLES, 'orders-1001.json'), server.url + '/in/'], close_fds=True)
    assert put(authority.other_ca) == 60  # can't be verified
    assert put(authority.ca) == 0
    assert list(files(server)) == [b'orders-1001.json']


@pytest.mark.parametrize('raw, words', [
    (b'GET / HTTP/1.1\r\nHost: x\r\n\r\n', 'http request'), (b'\x16\x03\x01nonsense' + b'x' * 100, ''), (b'', ''),
])
def test_a_handshake_that_fails_ends_its_connection_with_one_line(start_tls, raw, words):
    server, client, said = start_tls()
    try:
        assert b'HTTP' not in raw_exchange(server, raw)
    except EnvironmentError:
        pass  # ended before it read everything
    assert len(said) == 1
    assert said[0].startswith('TLS handshake failed: ') and words in said[0]
    assert client.send(b'a')[0] == 200
    assert server.counts().requests == 1


def test_who_is_silent_keeps_nobody_waiting(start_tls, authority):
    server, _, said = start_tls()
    silent = [socket.create_connection(('127.0.0.1', server.port), 10) for _ in range(3)]
    client = Client(server.port, authority.ca)
    assert client.send(b'a')[0] == 200
    begun = compat.monotonic()
    server.stop()
    assert compat.monotonic() - begun < 5
    assert [peer.recv(1) for peer in silent] == [b''] * 3
    for peer in silent + [client]:
        peer.close()
    assert said == ['POST /in a (0 B): 200 OK, stored as a']


@pytest.mark.parametrize('answers', ['200', 'hang', '200:delay=1h'])
def test_stopped_it_cuts_connections_with_tls_too_and_comes_back(start_tls, authority, answers):
    server, _, _ = start_tls(answers)
    peer = secured(server.port, authority.ca)
    if answers != '200':
        heard = threading.Event()
        server.say = lambda line: heard.set()
        peer.sendall(b'POST /in HTTP/1.1\r\nContent-Length: 0\r\n\r\n')
        heard.wait(10)
    begun = compat.monotonic()
    server.stop()
    assert compat.monotonic() - begun < 5
    try:
        while peer.recv(65536):
            pass
    except EnvironmentError:
        pass  # cut, rather than ended
    peer.close()
    server.answer('200')
    server.start()
    again = Client(server.port, authority.ca)
    assert again.send(b'a')[0] == 200
    again.close()


# --- the certificate

@pytest.fixture
def temporary(tmpdir, monkeypatch):
    """The folder in which temporary ones are made."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmpdir.mkdir('temporary')))
    return tempfile.tempdir


@pytest.mark.parametrize('host, more', [
    ('127.0.0.1', ()), ('0.0.0.0', ('0.0.0.0',)), ('::1', ()), ('2001:db8::1', ('2001:db8::1',)), ('localhost', ()),
    ('orders.example.com', ('orders.example.com',)), ('x\ny, z', ()),
])
def test_a_certificate_made_for_the_occasion_is_for_all_its_names(authority, temporary, host, more):
    identity = receiver_tls.self_signed(host)
    (folder,) = os.listdir(temporary)
    assert stat.S_IMODE(os.stat(os.path.join(temporary, folder)).st_mode) == 0o700
    with open(identity.cert) as page:
        certificate = certificates.parse(ssl.PEM_cert_to_DER_cert(page.read()))
    assert set(certificates.names(certificate)) == set(('localhost', '127.0.0.1', '::1', socket.gethostname()) + more)
    assert certificate.not_after - certificate.not_before == 30 * 86400
    identity.close()
    assert os.listdir(temporary) == []


def program(folder, name, script):
    """Make a program in `folder` (py.path)."""
    path = folder.join(name)
    path.write('#!/bin/sh\n' + script)
    path.chmod(0o755)


def test_without_openssl_it_says_what_to_do(temporary, tmpdir, monkeypatch):
    monkeypatch.setenv('PATH', str(tmpdir))
    with pytest.raises(AgentError) as caught:
        receiver_tls.self_signed('127.0.0.1')
    assert str(caught.value) == ('receiver: --tls needs the openssl program to make a certificate: No such file or '
                                 'directory: install it, or give a certificate of your own by --cert')
    assert os.listdir(temporary) == []


def test_what_openssl_says_when_it_fails_is_said(temporary, tmpdir, monkeypatch):
    program(tmpdir, 'openssl', 'echo "no\033[31m"; echo entropy >&2; exit 1')
    monkeypatch.setenv('PATH', str(tmpdir))
    with pytest.raises(AgentError) as caught:
        receiver_tls.self_signed('127.0.0.1')
    assert str(caught.value) == 'receiver: openssl made no certificate: no?[31m entropy'
    assert os.listdir(temporary) == []


def test_a_certificate_that_cant_be_used_is_a_sentence(authority, tmpdir):
    good, other = authority.certificate('good'), authority.certificate('expired')
    tmpdir.join('nonsense').write('nonsense')
    tmpdir.join('encrypted').write('-----BEGIN ENCRYPTED PRIVATE KEY-----\n')
    for cert, key, words in [
            (str(tmpdir.join('missing')), None, "missing can't be read: No such file or directory"),
            (good.cert, str(tmpdir.join('missing')), "missing can't be read: No such file or directory"),
            (str(tmpdir), None, "can't be read: Is a directory"),
            (str(tmpdir.join('nonsense')), None, "nonsense can't be used: "),
            (good.cert, None, "good.crt can't be used: "), (good.cert, other.key, "good.crt can't be used: "),
            (good.cert, str(tmpdir.join('encrypted')), 'encrypted is encrypted: decrypt it')]:
        with pytest.raises(AgentError) as caught:
            receiver_tls.Identity(cert, key)
        assert str(caught.value).startswith('receiver: ')
        assert words in str(caught.value)


def test_a_certificate_may_have_its_key_and_its_issuer_in_the_same_file(authority, tmpdir):
    both = tmpdir.join('both.pem')
    pair = authority.certificate('intermediate')
    for path in (pair.key, pair.cert):
        with open(path) as page:
            both.write(page.read(), 'a')
    receiver_tls.Identity(str(both)).close()
    assert both.check()


def test_a_python_without_ssl_says_so(monkeypatch):
    monkeypatch.setattr(receiver_tls, 'ssl', None)
    with pytest.raises(AgentError) as caught:
        receiver_tls.Identity('cert.pem')
    assert 'has no ssl module' in str(caught.value)


# --- the command

COMMAND = ('import sys; sys.path.insert(0, %r); from agent import receiver; '
           'sys.exit(receiver.run(folder=sys.argv[1], answers=sys.argv[2]))' % ROOT)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_the_command_prints_its_url_and_a_line_for_each_request_and_ends_cleanly(tmpdir, number):
    child = subprocess.Popen([sys.executable, '-B', '-c', COMMAND, str(tmpdir.join('in')), '*=201'],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, close_fds=True, env={'LC_ALL': 'C'})
    try:
        first = child.stdout.readline().decode('ascii')
        assert first.startswith('listening on http://127.0.0.1:')
        client = Client(int(first.rpartition(':')[2]))
        assert client.send(b'caf\xc3\xa9', b'x')[0] == 201
        line = child.stdout.readline()
        assert line.startswith(b'POST /in caf')
        assert b' (1 B): 201 Created, stored as caf' in line
        client.close()
    finally:
        child.send_signal(number)
        rest, errors = child.communicate()
    assert (child.returncode, rest, errors) == (0, b'', b'')


def test_the_command_ends_when_nobody_reads_its_lines(tmpdir):
    child = subprocess.Popen([sys.executable, '-B', '-c', COMMAND, str(tmpdir.join('in')), '200'],
                             stdout=subprocess.PIPE, close_fds=True)
    client = Client(int(child.stdout.readline().decode('ascii').rpartition(':')[2]))
    child.stdout.close()
    try:
        client.send(b'a', b'x')
    except (EnvironmentError, compat.http_client().HTTPException):
        pass  # it may be gone before it answers
    client.close()
    child.wait()


TLS_COMMAND = ('import sys; sys.path.insert(0, %r); from agent import cli; '
               'sys.exit(cli.main(["receiver", "--port", "0"] + sys.argv[1:]))' % ROOT)


def tls_command(tmpdir, *words):
    """Return (the running command, its first line)."""
    child = subprocess.Popen([sys.executable, '-B', '-c', TLS_COMMAND] + list(words), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, close_fds=True, env=dict(os.environ, TMPDIR=str(tmpdir)))
    return child, child.stdout.readline().decode('ascii').rstrip()


def test_the_command_makes_a_certificate_says_where_it_is_and_removes_it(authority, tmpdir):
    child, first = tls_command(tmpdir, '--tls')
    try:
        assert first.startswith('listening on https://127.0.0.1:')
        second = child.stdout.readline().decode('ascii').rstrip()
        before, _, path = second.partition('ca_file = ')
        assert before == 'in the configuration, so that it is verified: '
        client = Client(int(first.rpartition(':')[2]), path)
        assert client.send(b'a', b'x')[0] == 200
        assert child.stdout.readline() == b'POST /in a (1 B): 200 OK\n'
        client.close()
    finally:
        child.send_signal(signal.SIGTERM)
        rest, errors = child.communicate()
    assert (child.returncode, rest, errors) == (0, b'', b'')
    assert tmpdir.listdir() == []


def test_the_command_shows_the_certificate_it_is_given(authority, tmpdir):
    pair = authority.certificate('good')
    child, first = tls_command(tmpdir, '--cert', pair.cert, '--key', pair.key)
    try:
        client = Client(int(first.rpartition(':')[2]), authority.ca)
        assert client.send(b'a', b'x')[0] == 200
        assert child.stdout.readline() == b'POST /in a (1 B): 200 OK\n'
        client.close()
    finally:
        child.send_signal(signal.SIGTERM)
        rest, errors = child.communicate()
    assert (child.returncode, rest, errors) == (0, b'', b'')
    assert os.path.exists(pair.cert)


@pytest.mark.parametrize('words, says', [
    (['--tls', '--cert', 'a'], 'receiver: --tls makes a certificate, --cert names one: give one of them'),
    (['--key', 'a'], 'receiver: --key goes with --cert: give both'),
    (['--tls', '--key', 'a'], 'receiver: --key goes with --cert: give both'),
])
def test_options_that_make_no_sense_together_are_refused(words, says, capsys):
    assert cli.main(['receiver'] + words) == 2
    assert capsys.readouterr()[1] == 'envio: %s\n' % says
