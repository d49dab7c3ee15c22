"""https with every kind of certificate, against nginx, Apache and proxies: both transports come to the same verdict."""

import os
import threading

import pytest

from agent import classify, compat, tls
from agent.errors import TransportError
from agent.records import ACK, HOLD, NACK, RETRY
from agent.rules import Refused
from tests.samples import receiver
from tests.senders import Sender, make, no_curl
from tests.servers import ScriptedServer, ok
from tests.tls_servers import Apache, NameProxy, Tinyproxy

pytestmark = pytest.mark.skipif(tls.ssl is None, reason='this Python has no ssl module')


@pytest.fixture(params=['native', 'curl'])
def kind(request):
    if request.param == 'curl' and no_curl():
        pytest.skip(no_curl())
    return request.param


@pytest.fixture
def sender(kind, tmpdir, authority):
    sender = Sender(tmpdir, make(kind, folder=str(tmpdir)))
    sender.ca = authority.ca
    yield sender
    sender.close()


def outcome(sender, port, host='localhost', path='/in', scheme='https', **settings):
    """Return the Outcome of sending one file."""
    settings.setdefault('ca_file', sender.ca)
    try:
        reply = sender.send_to('%s://%s:%d%s' % (scheme, host, port, path), **settings)
        return classify.of_reply(reply, receiver(), 0)
    except TransportError as error:
        return classify.of_error(error)


# --- certificates

@pytest.mark.parametrize('label', ['good', 'cn_only', 'intermediate', 'many_names', 'san_first', 'tls13'])
def test_a_valid_certificate_is_accepted(sender, nginx_tls, label):
    assert outcome(sender, nginx_tls.port(label)).verdict == ACK


@pytest.mark.parametrize('label, words', [
    ('expired', 'expired on 2020-01-01'),
    ('not_yet', 'not valid before 2099-01-01'),
    ('other_name', 'issued for other.envio.test, not for localhost'),
    ('cn_beside_san', 'issued for other.envio.test, not for localhost'),
    ('ip', 'issued for 127.0.0.1, not for localhost'),
    ('wildcard', 'issued for *.envio.test, not for localhost'),
    ('unknown', 'unknown issuer: CN=envio unknown_ca'),
    ('self_signed', 'self-signed'),
    ('missing_intermediate', 'unknown issuer: CN=envio intermediate_ca'),
])
def test_one_that_is_not_valid_holds_the_receiver_and_says_why(sender, kind, nginx_tls, label, words):
    before = len(nginx_tls.log())
    found = outcome(sender, nginx_tls.port(label))
    assert (found.verdict, found.blame, found.status) == (HOLD, 'RECEIVER', None)
    assert found.reason.startswith('certificate not valid: ')
    if kind == 'native' or not tls.lack():  # else the words are cURL's
        assert words in found.reason
    assert len(nginx_tls.log()) == before, 'nothing was sent'


@pytest.mark.parametrize('label, host, verdict', [
    ('good', '127.0.0.1', ACK), ('ip', '127.0.0.1', ACK), ('cn_only', '127.0.0.1', HOLD),
    ('wildcard', '127.0.0.1', HOLD)])
def test_an_address_needs_an_address_in_the_certificate(sender, nginx_tls, label, host, verdict):
    assert outcome(sender, nginx_tls.port(label), host).verdict == verdict


@pytest.mark.parametrize('host, verdict', [
    ('a.envio.test', ACK), ('A.Envio.Test', ACK), ('a.b.envio.test', HOLD), ('envio.test', HOLD),
    ('a.envio.test.example', HOLD)])
def test_a_wildcard_stands_for_one_label(sender, nginx_tls, host, verdict):
    with NameProxy() as proxy:
        assert outcome(sender, nginx_tls.port('wildcard'), host, proxy=proxy.url).verdict == verdict


def test_the_host_is_named_in_the_handshake_where_this_python_can(sender, kind, nginx_tls):
    able = kind == 'curl' or not tls.lack()
    assert outcome(sender, nginx_tls.port('sni')).verdict == (ACK if able else HOLD)


def test_tls_1_0_is_not_enough(sender, nginx_tls):
    found = outcome(sender, nginx_tls.port('tls10'))
    assert (found.verdict, found.blame) == (RETRY, 'RECEIVER')


def test_without_verification_any_certificate_will_do_if_that_is_what_was_asked_for(sender, nginx_tls):
    for label in ('expired', 'other_name', 'self_signed'):
        assert outcome(sender, nginx_tls.port(label), tls_verify=False).verdict == ACK


def test_a_ca_file_that_is_another_one_is_not_enough(sender, authority, nginx_tls):
    assert outcome(sender, nginx_tls.port('good'), ca_file=authority.other_ca).verdict == HOLD


def test_the_certificate_of_the_receiver_itself_may_stand_in_ca_file(sender, authority, nginx_tls):
    pair = authority.certificate('self_signed')
    assert outcome(sender, nginx_tls.port('self_signed'), ca_file=pair.cert).verdict == ACK


def test_plain_http_where_tls_is_expected_and_the_other_way_round(sender, nginx_tls):
    assert outcome(sender, nginx_tls.port('http')).verdict == RETRY
    assert outcome(sender, nginx_tls.port('good'), scheme='http').verdict == NACK, 'nginx answers 400'


def test_a_receiver_that_never_shakes_hands_is_given_up(sender):
    with ScriptedServer([('hang',)]) as server:
        found = outcome(sender, server.port, connect_timeout=0.2)
        assert (found.verdict, found.blame) == (RETRY, 'RECEIVER')


# --- client certificates

def test_a_client_certificate_is_shown_where_it_is_wanted(sender, authority, nginx_tls):
    pair = authority.certificate('client')
    port = nginx_tls.port('client_required')
    assert outcome(sender, port, client_cert=pair.cert, client_key=pair.key).verdict == ACK
    assert outcome(sender, port).status == 400


def test_key_and_certificate_may_share_a_file(sender, authority, nginx_tls, tmpdir):
    pair = authority.certificate('client')
    both = tmpdir.join('both.pem')
    both.write(open(pair.cert).read() + open(pair.key).read())
    both.chmod(0o600)
    assert outcome(sender, nginx_tls.port('client_required'), client_cert=str(both)).verdict == ACK


@pytest.mark.parametrize('spoil, words', [
    (lambda key: key.chmod(0o644), 'others may read'),
    (lambda key: key.write('-----BEGIN ENCRYPTED PRIVATE KEY-----\n'), 'encrypted'),
    (lambda key: key.remove(), 'can\'t be read'),
])
def test_a_key_that_can_t_be_used_holds_the_receiver(sender, authority, nginx_tls, tmpdir, spoil, words):
    pair = authority.certificate('client')
    key = tmpdir.join('client.key')
    key.write(open(pair.key).read())
    key.chmod(0o600)
    spoil(key)
    found = outcome(sender, nginx_tls.port('client_required'), client_cert=pair.cert, client_key=str(key))
    assert found.verdict == HOLD and words in found.reason


def test_a_key_that_does_not_fit_holds_the_receiver(sender, authority, nginx_tls):
    found = outcome(sender, nginx_tls.port('client_required'), client_cert=authority.certificate('client').cert,
                    client_key=authority.certificate('good').key)
    assert found.verdict == HOLD


def test_a_ca_file_that_changed_is_read_again(sender, authority, nginx_tls, tmpdir):
    trusted = tmpdir.join('ca.pem')
    trusted.write(open(authority.other_ca).read())
    assert outcome(sender, nginx_tls.port('good'), ca_file=str(trusted)).verdict == HOLD
    trusted.write(open(authority.ca).read())
    assert outcome(sender, nginx_tls.port('good'), ca_file=str(trusted)).verdict == ACK


def test_the_systems_bundle_is_found_or_said_to_be_missing(tmpdir):
    place = tmpdir.join('bundle.pem')
    with pytest.raises(Refused) as caught:
        tls.bundle((str(place),))
    assert 'set ca_file' in str(caught.value)
    place.write('x')
    assert tls.bundle(('/no/such', str(place))) == str(place)


# --- credentials

def test_a_rotated_token_needs_no_restart(sender, tmpdir):
    token = tmpdir.join('token')
    token.write('first\n')
    token.chmod(0o600)
    with ScriptedServer([('read_request',), ('send', ok()), ('read_request',), ('send', ok())]) as server:
        for secret in ('first', 'second'):
            token.write(secret + '\n')
            assert sender.send(server.port, token_file=str(token)).status == 200
            assert ('Authorization', 'Bearer ' + secret) in server.requests()[-1].headers
        token.chmod(0o640)
        with pytest.raises(TransportError) as caught:
            sender.send(server.port, token_file=str(token))
    assert caught.value.hold and 'second' not in str(caught.value) and 'chmod 600' in str(caught.value)


def test_no_secret_shows_in_the_processes_while_a_file_is_sent(sender, tmpdir):
    secrets = {'password': 'pass-MARK-word', 'headers': 'X-Secret: head-MARK-er', 'proxy': 'proxy-MARK-pass'}
    for name in ('password', 'headers'):
        tmpdir.join(name).write(secrets[name] + '\n')
        tmpdir.join(name).chmod(0o600)
    seen = []

    def look():
        for process in os.listdir('/proc'):
            for page in ('cmdline', 'environ'):
                try:
                    with open('/proc/%s/%s' % (process, page), 'rb') as stream:
                        seen.append(stream.read())
                except EnvironmentError:
                    pass  # no process, or gone
    with ScriptedServer([('read_request',), ('call', look), ('send', ok())]) as server:
        reply = sender.send(server.port, username='me', password_file=str(tmpdir.join('password')),
                            secret_headers_file=str(tmpdir.join('headers')),
                            proxy='http://me:%s@127.0.0.1:%d' % (secrets['proxy'], server.port))
        headers = dict(server.requests()[0].headers)
    assert reply.status == 200
    assert headers['X-Secret'] == 'head-MARK-er' and headers['Authorization'].startswith('Basic ')
    assert headers['Proxy-Authorization'].startswith('Basic ')
    assert len(seen) > 10
    coded = [headers[name].split()[1].encode('ascii') for name in ('Authorization', 'Proxy-Authorization')]
    assert [page for page in seen for secret in [b'-MARK-'] + coded if secret in page] == []


# --- proxies

def test_a_proxy_is_asked_to_connect_for_https_and_given_the_whole_url_for_http(sender, nginx_tls):
    with NameProxy(credentials='me:it\'s "secret"') as proxy:
        with_password = 'http://me:it%%27s%%20%%22secret%%22@127.0.0.1:%d' % proxy.port
        assert outcome(sender, nginx_tls.port('good'), 'good.envio.test', proxy=with_password).verdict == ACK
        assert outcome(sender, nginx_tls.port('http'), 'any.envio.test', scheme='http', proxy=with_password,
                       path='/in/x').verdict == ACK
        lines = [line for line, _ in proxy.requests]
    assert lines == ['CONNECT good.envio.test:%d HTTP/1.1' % nginx_tls.port('good'),
                     'POST http://any.envio.test:%d/in/x HTTP/1.1' % nginx_tls.port('http')]


@pytest.mark.parametrize('scheme, label', [('https', 'good'), ('http', 'http')])
def test_a_proxy_that_refuses_us_holds_the_receiver_and_blames_no_file(sender, nginx_tls, scheme, label):
    with NameProxy(credentials='me:secret') as proxy:
        for wrong in ('', 'me:other@'):
            found = outcome(sender, nginx_tls.port(label), scheme=scheme,
                            proxy='http://%s127.0.0.1:%d' % (wrong, proxy.port))
            assert (found.verdict, found.blame) == (HOLD, 'RECEIVER')
            assert '407' in found.reason and 'other' not in found.reason


@pytest.mark.parametrize('scheme, label', [('https', 'good'), ('http', 'http')])
@pytest.mark.parametrize('answer', [
    b'HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n', b'garbage\r\n\r\n', b''])
def test_a_proxy_that_fails_is_a_failure_of_the_receiver(sender, nginx_tls, scheme, label, answer):
    with NameProxy(answer=answer) as proxy:
        found = outcome(sender, nginx_tls.port(label), scheme=scheme, proxy=proxy.url)
        assert (found.verdict, found.blame) == (RETRY, 'RECEIVER')


@pytest.mark.parametrize('scheme', ['https', 'http'])
def test_a_proxy_that_is_not_there_is_a_failure_of_the_receiver(sender, scheme):
    from tests.servers import refusing_port
    with refusing_port() as port:
        found = outcome(sender, 9, scheme=scheme, proxy='http://127.0.0.1:%d' % port)
        assert (found.verdict, found.blame) == (RETRY, 'RECEIVER')


def test_bytes_of_the_proxy_behind_its_answer_are_no_answer_of_the_receiver(sender, nginx_tls):
    smuggled = b'HTTP/1.1 200 Connected\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'
    with NameProxy(answer=smuggled) as proxy:
        assert outcome(sender, nginx_tls.port('good'), proxy=proxy.url).verdict == RETRY


def test_the_environment_names_the_proxy_where_the_configuration_says_env(kind, tmpdir, authority, nginx_tls):
    with NameProxy() as proxy:
        sender = Sender(tmpdir, make(kind, {'https_proxy': proxy.url, 'no_proxy': 'localhost,10.0.0.0/8'}, str(tmpdir)))
        sender.ca = authority.ca
        try:
            assert outcome(sender, nginx_tls.port('good'), 'good.envio.test', proxy='env').verdict == ACK
            assert outcome(sender, nginx_tls.port('good'), 'localhost', proxy='env').verdict == ACK
            assert len(proxy.requests) == 1
        finally:
            sender.close()


@pytest.mark.parametrize('scheme, label', [('https', 'good'), ('http', 'http')])
def test_a_real_proxy_with_a_password(sender, nginx_tls, tmpdir, scheme, label):
    proxy = Tinyproxy(str(tmpdir.mkdir('proxy')), 'me', 'secret')
    if proxy.absent:
        pytest.skip(proxy.absent)
    with proxy:
        place = '127.0.0.1:%d' % proxy.port
        port = nginx_tls.port(label)
        assert outcome(sender, port, scheme=scheme, proxy='http://me:secret@' + place).verdict == ACK
        for wrong in ('', 'me:wrong@'):
            found = outcome(sender, port, scheme=scheme, proxy='http://%s%s' % (wrong, place))
            assert (found.verdict, found.blame) == (HOLD, 'RECEIVER')


# --- real servers

def test_nginx_refuses_a_large_file_early_and_keeps_connections_as_long_as_it_wants(sender, nginx_tls):
    assert outcome(sender, nginx_tls.port('small'), content=b'x' * 100000).status == 413
    for _ in range(8):
        assert outcome(sender, nginx_tls.port('few')).verdict == ACK


def test_apache_over_https_and_with_client_certificates(sender, authority, tmpdir):
    apache = Apache(str(tmpdir.mkdir('apache')), authority)
    if apache.absent:
        pytest.skip(apache.absent)
    pair = authority.certificate('client')
    with apache:
        assert outcome(sender, apache.port('https'), path='/stored/a', method='PUT').verdict == ACK
        assert outcome(sender, apache.port('https'), path='/small', content=b'x' * 2000).status == 413
        for _ in range(6):
            assert outcome(sender, apache.port('few')).verdict == ACK
        port = apache.port('client_required')
        assert outcome(sender, port, client_cert=pair.cert, client_key=pair.key).verdict == ACK
        found = outcome(sender, port)
        assert (found.verdict, found.blame) == (RETRY, 'RECEIVER')
        assert apache.stored('a') == b'content'


# --- the connection (native)

@pytest.fixture
def native(tmpdir, authority):
    sender = Sender(tmpdir, make('native'))
    sender.ca = authority.ca
    yield sender
    sender.close()


def test_a_tls_connection_is_kept_and_used_again(native, nginx_tls):
    before = len(nginx_tls.log())
    for _ in range(4):
        assert outcome(native, nginx_tls.port('good')).verdict == ACK
    native.transport.close()
    connections = [line.split()[0] for line in nginx_tls.log()[before:]]
    assert len(set(connections)) == 1 and 3 <= len(connections) <= 4  # the newest line may still be on its way


def test_what_nobody_asked_for_on_a_tls_connection_is_never_the_next_answer(native, authority):
    stray = [('read_request',), ('send', ok() + ok(b'stray\n', '500 Stray'))]
    with ScriptedServer(stray, [('read_request',), ('send', ok())], tls=authority.certificate('good')) as server:
        for _ in range(2):
            assert outcome(native, server.port).verdict == ACK
        assert len(server.wait(2)) == 2


def test_cut_ends_a_handshake_that_hangs(native):
    with ScriptedServer([('hang',)]) as server:
        over = threading.Event()

        def cut():
            while not over.is_set():
                over.wait(0.05)
                native.transport.cut(compat.monotonic())
        thread = threading.Thread(target=cut)
        thread.start()
        found = outcome(native, server.port, connect_timeout=60.0, deadline=0.2)
        over.set()
        thread.join()
    assert found.verdict == RETRY and found.reason == 'not done within 0.2 s'
