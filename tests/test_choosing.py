"""Which transport a receiver gets: never one that lowers the bar for https unless it was asked for by name."""

import logging
import os

import pytest

from agent import abilities, config, tls, transports
from agent.errors import TransportError
from agent.resources import Resources
from agent.rules import Refused
from agent.transports import CURL, NATIVE, Transports
from tests.samples import receiver
from tests.test_curl_program import DEBIAN_12, NSS, RHEL_6, RHEL_7, WILDCARDS, fake, write

HTTP, HTTPS = 'http://h/in', 'https://h/in'
ABLE, UNABLE = '', 'this Python can\'t'
SECRET = 'Xyzzy-Plugh'


class Host(object):
    """What a host has: a cURL in its environment, or none, and a Python that can do https, or can't."""

    def __init__(self, folder, monkeypatch):
        self.folder = str(folder)
        self._monkeypatch = monkeypatch
        self.curl(None)

    def curl(self, version, **more):
        """Return an environment with a cURL of this version, or none."""
        self.path = '/none/curl'
        if version:
            self.path = fake(self.folder, version, name='curl-%d.%d.%d' % version, **more)
        self.environ = {'ENVIO_CURL': self.path}
        return self.environ

    def python(self, lack):
        """Let this Python lack something for https, or nothing ('')."""
        self._monkeypatch.setattr(tls, 'lack', lambda: lack)

    def file(self, name, content='x', mode=0o600):
        """Return the path of a new file."""
        return write(os.path.join(self.folder, name), content, mode)

    def choose(self, transport, url):
        """Return the transport chosen, or why none can be had."""
        try:
            return transports.choose(receiver(url=url, transport=transport), self.environ)
        except Refused as refused:
            return str(refused)

    def vet(self, **settings):
        """Return why a receiver is refused, or None."""
        settings.setdefault('ca_file', self.file('ca'))
        settings.setdefault('transport', CURL)
        try:
            transports.vet(receiver(**settings), Resources(self.environ))
        except Refused as refused:
            assert SECRET not in str(refused)
            return str(refused)


@pytest.fixture
def host(tmpdir, monkeypatch):
    host = Host(tmpdir, monkeypatch)
    host.python(ABLE)
    if tls.ssl is None:
        monkeypatch.setattr(tls, 'ssl', logging)  # any module will do
    return host


# --- http

@pytest.mark.parametrize('lack', [ABLE, UNABLE])
@pytest.mark.parametrize('version', [None, RHEL_6, DEBIAN_12])
@pytest.mark.parametrize('transport', ['auto', 'native'])
def test_http_is_spoken_by_this_python_whatever_there_is(host, transport, version, lack):
    host.python(lack)
    host.curl(version)
    assert host.choose(transport, HTTP) == NATIVE


def test_http_is_spoken_by_curl_where_that_is_wanted_and_any_will_do(host):
    assert host.choose('curl', HTTP) == 'there is no cURL (/none/curl)'
    for version in (RHEL_6, DEBIAN_12):
        host.curl(version, protocols='http ')
        assert host.choose('curl', HTTP) == CURL


def test_for_http_nobody_asks_what_tls_there_is(host, monkeypatch):
    monkeypatch.setattr(tls, 'lack', None)
    assert host.choose('auto', HTTP) == host.choose('native', 'HTTP://h/') == NATIVE


# --- https, whoever can do it

def test_a_python_that_can_speaks_https_itself(host):
    for version in (None, RHEL_6, DEBIAN_12):
        host.curl(version)
        assert host.choose('auto', HTTPS) == host.choose('native', HTTPS) == NATIVE
        assert host.choose('auto', 'HTTPS://H/{name}') == NATIVE


def test_for_a_python_that_cant_a_curl_that_can_does(host):
    host.python(UNABLE)
    host.curl(DEBIAN_12)
    assert host.choose('auto', HTTPS) == host.choose('auto', 'HTTPS://h/') == CURL
    host.curl(RHEL_6, tls='NSS/3.27.1', more_help='    --tlsv1.2        Use TLSv1.2 (SSL)')
    assert host.choose('auto', HTTPS) == CURL, 'it was given what it lacked'


@pytest.mark.parametrize('version, more, words', [
    (None, {}, 'there is no cURL (/none/curl)'),
    (RHEL_6, {'tls': NSS}, '%s (7.19.7) can\'t insist on TLS 1.2'),
    (RHEL_6, {}, '%s (7.19.7) can\'t insist on TLS 1.2' + WILDCARDS),
    (RHEL_7, {'tls': 'NSS/3.53.1'}, '%s (7.29.0) can\'t insist on TLS 1.2'),
    (DEBIAN_12, {'protocols': 'ftp http '}, '%s does not speak https'),
])
def test_where_neither_can_the_configuration_is_refused_with_what_each_lacks(host, version, more, words):
    host.python(UNABLE)
    host.curl(version, **more)
    assert host.choose('auto', HTTPS) == (
        'https: this Python can\'t, and %s: run it with another Python or cURL, or say transport = native or curl to '
        'do with what that has' % (words % host.path if '%s' in words else words))


def test_a_curl_with_a_relative_path_is_none(host):
    host.python(UNABLE)
    host.environ = {'ENVIO_CURL': 'curl'}
    assert 'this Python can\'t, and ENVIO_CURL=curl: it must be an absolute path: ' in host.choose('auto', HTTPS)


# --- https by name

def test_who_asks_for_this_python_gets_it_with_what_it_lacks(host):
    host.python(UNABLE)
    assert host.choose('native', HTTPS) == NATIVE


def test_a_python_without_any_tls_is_refused_even_so(host, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(tls, 'ssl', None)
    assert host.choose('native', HTTPS) == 'https: this Python has no ssl module: set transport = curl'
    host.curl(DEBIAN_12)
    assert host.choose('auto', HTTPS) == CURL
    assert host.choose('native', HTTP) == NATIVE


@pytest.mark.parametrize('lack', [ABLE, UNABLE])
def test_who_asks_for_curl_gets_it_with_what_it_lacks_if_it_speaks_https_at_all(host, lack):
    host.python(lack)
    assert host.choose('curl', HTTPS) == 'there is no cURL (/none/curl)'
    for version in (RHEL_6, RHEL_7, DEBIAN_12):
        host.curl(version)
        assert host.choose('curl', HTTPS) == CURL
    host.curl((7, 70, 0), protocols='http ftp ')
    assert host.choose('curl', HTTPS) == 'https: %s does not speak https' % host.path


# --- what else has to be there

def test_an_old_curl_is_not_given_a_token_that_it_would_show_to_a_proxy(host):
    token, headers = host.file('token', SECRET), host.file('headers', 'X-Key: ' + SECRET)
    password = dict(username='me', password_file=host.file('password', SECRET))
    host.curl(RHEL_7)
    shown = ('%s would show the password or token to the proxy, too (before 7.42.1): use no proxy, or transport = '
             'native' % host.path)
    for secret in (dict(token_file=token), dict(secret_headers_file=headers), password):
        found = [host.vet(url=url, proxy=proxy, **more) for url, proxy, more in (
            (HTTPS, 'http://proxy:3128', secret), (HTTPS, 'none', secret), (HTTP, 'http://proxy:3128', secret),
            (HTTPS, 'http://me:word@proxy:3128', {}), (HTTPS, 'env', secret))]
        assert found == [shown, None, None, None, None]


@pytest.mark.parametrize('version, refused', [((7, 42, 0), True), ((7, 42, 1), False), (DEBIAN_12, False)])
def test_a_curl_that_keeps_headers_from_a_proxy_is_given_a_token(host, version, refused):
    host.curl(version)
    assert bool(host.vet(url=HTTPS, proxy='http://proxy', token_file=host.file('token'))) == refused


def test_the_same_holds_for_a_proxy_of_the_environment(host):
    for environ, refused in (({'https_proxy': 'proxy:3128'}, True), ({'all_proxy': 'proxy:3128'}, True),
                             ({'http_proxy': 'proxy:3128'}, False), ({'https_proxy': 'x', 'no_proxy': '*'}, False)):
        host.curl(RHEL_7).update(environ)
        assert bool(host.vet(url=HTTPS, token_file=host.file('token'))) == refused, environ


def test_a_receiver_that_is_reached_directly_is_not_refused_for_a_proxy_of_others(host):
    host.curl(RHEL_7).update(https_proxy='proxy:3128', no_proxy='h')
    assert host.vet(url=HTTPS, token_file=host.file('token')) is None
    host.environ['https_proxy'] = 'socks5://proxy'
    assert host.vet(url=HTTPS) is None
    assert host.vet(url='https://other/') is not None
    host.curl(RHEL_7).update(https_proxy='proxy:3128', no_proxy='invalid')
    assert host.vet(url=HTTPS, token_file=host.file('token')) is not None


def test_a_native_transport_shows_a_token_to_no_proxy(host):
    assert host.vet(url=HTTP, transport=NATIVE, proxy='http://proxy', token_file=host.file('token')) is None


@pytest.mark.parametrize('transport', ['native', 'curl'])
@pytest.mark.parametrize('url', [HTTP, HTTPS])
def test_secrets_and_proxies_that_cant_be_used_are_refused_at_the_start(host, authority, transport, url):
    host.curl(DEBIAN_12)
    common = dict(url=url, transport=transport, ca_file=authority.ca)
    token = host.file('token', SECRET, 0o644)
    assert host.vet(token_file=token, **common) == token + ': others may read or write it: chmod 600 it'
    assert host.vet(token_file='/none', **common) == '/none: can\'t be read: No such file or directory'
    host.environ['http_proxy'] = host.environ['https_proxy'] = 'socks5://me:%s@proxy' % SECRET
    assert 'only http:// proxies are' in host.vet(**common)
    assert host.vet(proxy='none', **common) is None


@pytest.mark.skipif(tls.ssl is None, reason='this Python has no ssl module')
@pytest.mark.parametrize('transport', ['native', 'curl'])
def test_tls_files_that_cant_be_used_are_refused_at_the_start(host, authority, transport):
    host.curl(DEBIAN_12)
    pair = authority.certificate('client')

    def vet(**settings):
        return host.vet(url=HTTPS, transport=transport, **dict(dict(ca_file=authority.ca), **settings))
    assert vet() is None
    assert vet(ca_file='/none') == '/none: can\'t be read'
    assert vet(ca_file='/none', tls_verify=False) is None, 'nobody needs it'
    assert vet(client_cert=pair.cert, client_key=pair.key) is None
    assert vet(client_cert='/none', client_key=pair.key) == '/none: can\'t be read'
    assert vet(client_cert=pair.cert, client_key='/none') == '/none: can\'t be read'
    with open(pair.key) as stream:
        key = stream.read()
    open_to_all = host.file('open.key', key, 0o640)
    assert vet(client_cert=pair.cert, client_key=open_to_all) == (
        open_to_all + ': others may read or write it: chmod 600 it')
    locked = host.file('locked.key', key.replace('PRIVATE', 'ENCRYPTED PRIVATE'))
    assert vet(client_cert=pair.cert, client_key=locked).startswith(locked + ': the key is encrypted')


def test_for_http_no_tls_file_is_looked_at(host):
    assert host.vet(url=HTTP, transport='auto', ca_file='/none', client_cert='/none', client_key='/none') is None


# --- a whole configuration

def configured(body):
    return config.parse(('[agent]\nspool = /s\n' + body).encode('ascii'), '/etc/envio.conf')


def of(name, url, *lines):
    return '[receiver:%s]\nmatch = *\nurl = %s\n%s\n' % (name, url, '\n'.join(lines))


def test_every_receiver_that_cant_be_sent_to_is_named(host):
    host.python(UNABLE)
    host.curl(RHEL_6)
    read = configured(of('a', HTTPS) + of('b', HTTP) + of('c', HTTP, 'token_file = /none') +
                      of('d', HTTPS, 'transport = curl', 'ca_file = /none'))
    found = transports.problems(read, host.environ)
    assert [line.split(': ')[:3] for line in found] == [
        ['/etc/envio.conf', '[receiver:a]', 'https'], ['/etc/envio.conf', '[receiver:c]', '/none'],
        ['/etc/envio.conf', '[receiver:d]', '/none']]
    assert transports.problems(configured(of('a', HTTP)), host.environ) == []


def test_receivers_of_a_router_function_are_looked_at_in_the_same_way(host):
    host.python(UNABLE)
    vet = transports.vetting(host.environ)
    vet(receiver(url=HTTP))
    with pytest.raises(Refused):
        vet(receiver(url=HTTPS))


def warned(host, body):
    return transports.warnings(configured(body), host.environ)


def test_nothing_is_warned_of_where_all_is_as_it_should_be(host):
    token = 'token_file = ' + host.file('token')
    assert warned(host, of('a', HTTP) + of('b', HTTPS) + of('c', HTTPS, token) + of('d', HTTP, 'tls_verify = no') +
                  of('e', HTTP, 'transport = native')) == []
    host.curl(DEBIAN_12)
    assert warned(host, of('a', HTTPS, 'transport = curl')) == []
    host.python(UNABLE)
    assert warned(host, of('a', HTTPS)) == [], 'a good cURL does it'


def test_what_lowers_the_bar_is_warned_of_by_name(host):
    host.python(UNABLE)
    host.curl(RHEL_6)
    found = warned(host, of('a', HTTPS, 'tls_verify = no', 'transport = native') + of('b', HTTPS, 'transport = curl'))
    assert found == [
        (logging.WARNING, '[receiver:a]: tls_verify = no: anybody on the way can read the files and answer in the '
                          'receiver\'s place'),
        (logging.WARNING, '[receiver:a]: transport = native: this Python can\'t'),
        (logging.WARNING, '[receiver:b]: transport = curl: %s (7.19.7) can\'t insist on TLS 1.2%s' % (
            host.path, WILDCARDS))]
    assert warned(host, of('a', HTTP, 'transport = native') + of('b', HTTP, 'transport = curl')) == []


@pytest.mark.parametrize('lines', [['token_file = /f'], ['secret_headers_file = /f'],
                                   ['username = me', 'password_file = /f']])
def test_secrets_in_the_clear_are_spoken_of(host, lines):
    assert warned(host, of('a', HTTP, *lines) + of('b', HTTPS, *lines)) == [
        (logging.INFO, '[receiver:a]: its password, token or headers go over http, for all on the way to read')]


def test_what_holds_for_urls_of_a_router_function_is_warned_of_too(host):
    found = warned(host, 'router = /r.py:f\ntls_verify = no\n')
    assert [level for level, sentence in found if 'tls_verify = no' in sentence] == [logging.WARNING]


# --- the worker's way to both

def test_each_receiver_has_its_transport_and_keeps_it_until_the_configuration_changes(host):
    host.curl(DEBIAN_12)
    both = Transports(Resources(host.environ, host.folder))
    http, https = receiver('a', url=HTTP), receiver('b', url=HTTPS, transport='curl')
    assert (both.most(http), both.most(https)) == ((1, False), (16, True))
    assert both.of(http) is both.of(http) is not both.of(https)
    assert both.of(http._replace(transport='curl')) is both.of(https)
    both.close()


@pytest.mark.parametrize('version, more, most', [(DEBIAN_12, {}, 16), (DEBIAN_12, {'follow_redirects': True}, 1),
                                                 ((7, 75, 0), {}, 1), (RHEL_6, {}, 1)])
def test_only_a_curl_that_tells_each_end_takes_several_files(host, version, more, most):
    host.curl(version)
    assert Transports(Resources(host.environ)).most(receiver(url=HTTP, transport='curl', **more)) == (most, True)


def test_a_curl_that_has_gone_holds_the_receiver(host):
    host.curl(DEBIAN_12)
    both = Transports(Resources(host.environ))
    os.unlink(host.path)
    gone = receiver(url=HTTP, transport='curl')
    assert both.most(gone) == (1, False)
    with pytest.raises(TransportError) as caught:
        both.of(gone)
    assert (caught.value.stage, caught.value.hold) == ('credentials', True)
    assert str(caught.value) == 'there is no cURL (%s)' % host.path
    host.curl(DEBIAN_12)
    assert both.most(gone) == (16, True), 'it is back'


# --- in words

@pytest.mark.parametrize('lack, version, words', [
    (ABLE, None, 'https: by this Python'), (ABLE, RHEL_6, 'https: by this Python'),
    (UNABLE, DEBIAN_12, 'https: by %s: this Python can\'t'),
    (UNABLE, RHEL_6, 'https: not possible: this Python can\'t, and %s (7.19.7) can\'t insist on TLS 1.2' + WILDCARDS),
    (UNABLE, None, 'https: not possible: this Python can\'t, and there is no cURL (%s)'),
])
def test_how_https_is_done_is_said_in_words(host, lack, version, words):
    host.python(lack)
    host.curl(version)
    said = words % host.path if '%s' in words else words
    assert abilities.https(host.environ) == said
    assert abilities.lines(host.environ)[-1] == said


def test_what_curl_there_is_is_said_in_words(host):
    assert abilities.curl(host.environ) == 'there is no cURL (/none/curl)'
    host.curl(RHEL_6)
    assert abilities.curl(host.environ) == (
        host.path + ' (curl 7.19.7 (x86_64-redhat-linux-gnu) libcurl/7.19.7 OpenSSL/1.0.1e zlib/1.2.3 libidn/1.18)')


def test_what_this_python_lacks_is_told_by_what_it_has(monkeypatch):
    class Module(object):
        SSLContext, HAS_SNI, HAS_TLSv1_2, PROTOCOL_TLSv1_2 = object, True, True, 5
    steps = [('HAS_TLSv1_2', False, 'this Python\'s OpenSSL has no TLS 1.2'),
             ('HAS_SNI', False, 'this Python\'s OpenSSL can\'t name the host in the handshake (SNI)')]
    monkeypatch.setattr(tls, 'ssl', Module)
    assert tls.lack() == ''
    for name, value, words in steps:
        monkeypatch.setattr(Module, name, value)
        assert tls.lack() == words
    monkeypatch.delattr(Module, 'SSLContext')
    assert tls.lack() == 'this Python can neither name the host in the handshake (SNI) nor insist on TLS 1.2'
    monkeypatch.setattr(tls, 'ssl', None)
    assert (tls.lack(), tls.described()) == ('this Python has no ssl module', 'none')
