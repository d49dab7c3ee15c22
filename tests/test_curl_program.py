"""The system's cURL: which one is taken, what each version is told, and that no secret is outside of that."""

import os
import re
import subprocess

import pytest

from agent import compat, curl_program
from agent.curl import CurlTransport
from agent.errors import TransportError
from agent.resources import Resources
from agent.rules import Refused
from tests.senders import Sender, make, no_curl
from tests.servers import ScriptedServer, ok
from tests.tls_servers import NameProxy

SECRET = 'Xyzzy-Plugh'
LARGE = b'x' * 2000000  # so that it is asked for

# What `curl -V` says of its TLS.
OPENSSL, NSS = 'OpenSSL/1.0.1e zlib/1.2.3', 'NSS/3.27.1 zlib/1.2.3'

# What older ones with OpenSSL do beside.
WILDCARDS = ' and lets a wildcard in a certificate stand for several labels'

RHEL_6, RHEL_7, DEBIAN_12, UBUNTU_24 = (7, 19, 7), (7, 29, 0), (7, 88, 1), (8, 5, 0)
VERSIONS = [RHEL_6, RHEL_7, DEBIAN_12, UBUNTU_24]

# The version that an option came with; these were there before 7.19.
SINCE = dict([(name, (0,)) for name in (
    'url request header globoff silent show-error connect-timeout max-time speed-limit speed-time limit-rate proxy '
    'proxy-user cacert insecure cert key upload-file dump-header output write-out').split()])
SINCE.update({'http1.1': (7, 33), 'tlsv1.2': (7, 34), 'next': (7, 36), 'path-as-is': (7, 42), 'fail-early': (7, 52),
              'request-target': (7, 55), 'fail-with-body': (7, 76)})
# The same for what stands in write-out.
VARIABLES = {'size_upload': (0,), 'time_connect': (0,), 'stderr': (7, 63), 'exitcode': (7, 75), 'errormsg': (7, 75)}

FAKE = '''#!/bin/sh
PATH=/usr/bin:/bin
echo "$@" >>"$0.asked"
case "$2" in
-V) printf '%%s\\n' '%s' 'Protocols: %s' 'Features: IPv6 Largefile ' ;;
--help) printf '%%s\\n' 'Usage: curl [options...] <url>' '%s' ;;
-K)
    cat >"$0.config"
    tr '\\0' '\\n' <"/proc/$$/cmdline" >"$0.words"
    tr '\\0' '\\n' <"/proc/$$/environ" >>"$0.words"
    exit 7 ;;
esac
'''


def write(path, content, mode=0o755):
    with open(path, 'w') as stream:
        stream.write(content)
    os.chmod(path, mode)
    return path


def fake(folder, version=DEBIAN_12, tls=OPENSSL, protocols='ftp http https scp ', more_help='', name='curl'):
    """Return the path of a program that says it is a cURL, fails to connect, and notes what it was told."""
    number = '.'.join(['%d' % part for part in version])
    words = 'curl %s (x86_64-redhat-linux-gnu) libcurl/%s %s libidn/1.18' % (number, number, tls)
    return write(os.path.join(str(folder), name), FAKE % (words, protocols, more_help))


def find(path):
    return curl_program.find({'ENVIO_CURL': path})


def refused(environ):
    with pytest.raises(Refused) as caught:
        curl_program.find(environ)
    return str(caught.value)


def asked(path):
    with open(path + '.asked') as stream:
        return stream.read().splitlines()


# --- which one

def test_a_program_is_known_by_what_it_says_of_itself(tmpdir):
    path = fake(tmpdir, RHEL_6, NSS)
    found = find(path)
    assert (found.path, found.version, found.https, found.tls12) == (path, (7, 19, 7), True, False)
    assert found.words == 'curl 7.19.7 (x86_64-redhat-linux-gnu) libcurl/7.19.7 NSS/3.27.1 zlib/1.2.3 libidn/1.18'
    assert asked(path) == ['-q -V', '-q --help']


def test_a_version_longer_than_any_is_none(tmpdir):
    path = fake(tmpdir, RHEL_6, OPENSSL)
    with open(path) as stream:
        source = stream.read()
    with open(path, 'w') as stream:
        stream.write(source.replace('curl 7.', 'curl %s.' % ('7' * 5000)))
    assert refused({'ENVIO_CURL': path}) == '%s does not say its version' % path


def test_a_program_is_asked_once(tmpdir):
    path = fake(tmpdir)
    assert find(path) is find(path)
    assert asked(path) == ['-q -V']


def test_without_a_word_the_first_that_can_run_is_taken(tmpdir, monkeypatch):
    folders = [str(tmpdir.mkdir(name)) for name in ('none', 'folder', 'closed', 'first', 'second')]
    monkeypatch.setattr(curl_program, 'FOLDERS', tuple(folders))
    os.mkdir(folders[1] + '/curl')
    os.chmod(fake(folders[2]), 0o644)
    first, _ = fake(folders[3]), fake(folders[4])
    assert curl_program.find({}).path == curl_program.find({'ENVIO_CURL': ''}).path == first
    assert curl_program.find({'PATH': folders[4]}).path == first, 'PATH has no say: a daemon\'s is not that of a shell'


def test_where_there_is_none_that_is_said(tmpdir, monkeypatch):
    monkeypatch.setattr(curl_program, 'FOLDERS', (str(tmpdir), '/none'))
    assert refused({}) == 'there is no cURL (%s, /none)' % tmpdir


@pytest.mark.parametrize('value', ['curl', './curl', 'bin/curl', '~/curl'])
def test_a_relative_path_is_refused_whatever_lies_there(tmpdir, monkeypatch, value):
    monkeypatch.chdir(tmpdir)
    tmpdir.mkdir('bin')
    fake(tmpdir)
    fake(tmpdir.join('bin'))
    assert refused({'ENVIO_CURL': value}) == 'ENVIO_CURL=%s: it must be an absolute path' % value


def test_where_the_one_that_is_named_cant_run_no_other_is_taken(tmpdir, monkeypatch):
    folder = str(tmpdir.mkdir('bin'))
    fake(folder)
    monkeypatch.setattr(curl_program, 'FOLDERS', (folder,))
    closed = fake(tmpdir, name='closed')
    os.chmod(closed, 0o644)
    for path in (closed, str(tmpdir), str(tmpdir.join('none')), '/dev/null'):
        assert refused({'ENVIO_CURL': path}) == 'there is no cURL (%s)' % path


@pytest.mark.parametrize('content, words', [
    ('#!/nonexistent/interpreter\n', 'can\'t be run: No such file or directory'),
    ('\0\0\0\0', 'can\'t be run: Exec format error'),
    ('#!/bin/sh\nexit 1\n', 'does not say its version'),
    ('#!/bin/sh\necho wget 1.21 7.88.1\n', 'does not say its version'),
    ('#!/bin/sh\necho curl: error while loading shared libraries >&2\nexit 127\n', 'does not say its version'),
    ('#!/bin/sh\nkill -9 $$\n', 'does not say its version'),
])
def test_what_is_no_curl_is_refused(tmpdir, content, words):
    path = write(str(tmpdir.join('curl')), content)
    assert refused({'ENVIO_CURL': path}) == '%s %s' % (path, words)


def test_a_program_that_was_mended_is_taken(tmpdir):
    path = write(str(tmpdir.join('curl')), '#!/bin/sh\nexit 1\n')
    refused({'ENVIO_CURL': path})
    assert find(fake(tmpdir)).version == DEBIAN_12


@pytest.mark.parametrize('said, version', [
    ('curl 7.88.1 (x86_64-pc-linux-gnu)', (7, 88, 1)), ('curl 8.10', (8, 10, 0)), ('curl 7.86.0-DEV (x)', (7, 86, 0)),
    ('curl 10.0.12 (x)', (10, 0, 12)), ('curl 7.19.7.1 (x)', (7, 19, 7)),
])
def test_versions_are_numbers(tmpdir, said, version):
    assert find(write(str(tmpdir.join('curl')), '#!/bin/sh\necho "%s"\n' % said)).version == version


# --- what it lacks

@pytest.mark.parametrize('version, tls, protocols, more_help, words', [
    (RHEL_6, OPENSSL, 'http https ', '', '(7.19.7) can\'t insist on TLS 1.2' + WILDCARDS),
    ((7, 27, 0), OPENSSL, 'http https ', '', '(7.27.0) can\'t insist on TLS 1.2' + WILDCARDS),
    ((7, 28, 0), OPENSSL, 'http https ', '', '(7.28.0) can\'t insist on TLS 1.2'),
    (RHEL_6, NSS, 'http https ', '', '(7.19.7) can\'t insist on TLS 1.2'),
    (RHEL_6, NSS, 'http https ', '    --tlsv1           Use TLSv1 (SSL)', '(7.19.7) can\'t insist on TLS 1.2'),
    (RHEL_6, NSS, 'http https ', '    --tlsv1.2         Use TLSv1.2 (SSL)', ''),
    (RHEL_7, NSS, 'http https ', '    --tlsv1.2       Use TLSv1.2 (SSL)', ''),
    (RHEL_7, OPENSSL, 'http https ', '    --tlsv1.2       Use TLSv1.2 (SSL)', '(7.29.0) can\'t insist on TLS 1.2'),
    ((7, 33, 0), OPENSSL, 'http https ', '', '(7.33.0) can\'t insist on TLS 1.2'),
    ((7, 34, 0), OPENSSL, 'http https ', '', ''),
    (DEBIAN_12, OPENSSL, 'dict file ftp http https ', '', ''),
    (UBUNTU_24, OPENSSL, 'https', '', ''),
    (UBUNTU_24, OPENSSL, 'dict ftps http httpsx ldaps ', '', 'does not speak https'),
    (RHEL_6, OPENSSL, 'http ', '', 'does not speak https'),
])
def test_what_a_version_lacks_for_https_is_said(tmpdir, version, tls, protocols, more_help, words):
    path = fake(tmpdir, version, tls, protocols, more_help)
    assert curl_program.lack(find(path)) == (words and '%s %s' % (path, words))


# --- what it is told

def unquoted(value):
    """Return a value as cURL reads it from a configuration (curl(1), -K)."""
    assert value[0] == value[-1] == '"'
    known = {'t': '\t', 'n': '\n', 'r': '\r', 'v': '\v'}
    inside = value[1:-1]
    assert re.match(r'(?:[^"\\]|\\.)*\Z', inside), 'a quote ends the value'
    return re.sub(r'\\(.)', lambda found: known.get(found.group(1), found.group(1)), inside)


def options(raw):
    """Return [(option, value or None)] of a configuration for cURL (bytes)."""
    found = []
    for line in compat.config_native(raw).splitlines():
        name, equals, value = line.partition(' = ')
        found.append((name, unquoted(value) if equals else None))
    return found


class Told(object):
    """What a cURL was told when it was to send files."""

    def __init__(self, folder, program):
        self.program = program
        self._sender = Sender(folder, CurlTransport(Resources({}, str(folder)), program))

    def send(self, *urls, **settings):
        """Return the options for one file to each URL."""
        parcels = [self._sender.parcel(url, name='%d.json' % number, **settings) for number, url in enumerate(urls)]
        results = [result for _, result in self._sender.transport.send_all(parcels)]
        assert [str(result) for result in results if not isinstance(result, TransportError)] == []
        return options(self.noted('config'))

    def noted(self, what):
        with open(self.program.path + '.' + what, 'rb') as stream:
            return stream.read()

    def close(self):
        self._sender.close()


@pytest.fixture
def told(request, tmpdir):
    def of(version, **more):
        found = Told(tmpdir, find(fake(tmpdir.mkdir('curl-%d' % len(tmpdir.listdir())), version, **more)))
        request.addfinalizer(found.close)
        return found
    return of


def secret_files(folder):
    """Return settings for a receiver with all kinds of secrets and TLS files."""
    paths = {}
    for name in ('token_file', 'secret_headers_file', 'client_cert', 'client_key', 'ca_file'):
        content = 'X-Key: %s' % SECRET if name == 'secret_headers_file' else SECRET
        paths[name] = write(os.path.join(str(folder), name), content, 0o600)
    return paths


# Everything that a receiver can say about a request.
FULL = dict(method='PUT', headers=(('X-Site', '042'), ('X-Empty', '')), rate_limit=4000000, workers=4,
            proxy='http://me:%s@proxy.example:3128' % SECRET, connect_timeout=0.25, read_timeout=1.5, deadline=61.0)


@pytest.mark.parametrize('version', VERSIONS + [(7, 32, 0), (7, 33, 0), (7, 34, 0), (7, 41, 0), (7, 42, 0),
                                                (7, 54, 1), (7, 55, 0), (7, 75, 0), (7, 76, 0)])
@pytest.mark.parametrize('url', ['http://h/in', 'https://h/in'])
@pytest.mark.parametrize('more', [dict(), dict(tls_verify=False), dict(proxy='none', content=LARGE)])
def test_no_version_is_told_what_it_does_not_know(tmpdir, told, version, url, more):
    at = told(version)
    count = min(at._sender.transport.most(None), 2 if 'content' in more else 16)
    found = at.send(*[url] * count, **dict(secret_files(tmpdir), **dict(FULL, **more)))
    for name, value in found:
        assert SINCE[name] <= version, name
        for variable in re.findall(r'%\{(\w+)\}', value or '') if name == 'write-out' else ():
            assert VARIABLES[variable] <= version, variable
    if version < (7, 32):
        assert [value for name, value in found if name.endswith(('time', 'timeout')) and not value.isdigit()] == []
    assert len([name for name, _ in found if name == 'url']) == count == (
        1 if version < (7, 76) else 2 if 'content' in more else 16)


def test_an_option_that_was_given_to_an_older_version_later_is_used(told):
    found = told(RHEL_7, tls=NSS, more_help='    --tlsv1.2       Use TLSv1.2 (SSL)').send('https://h/')
    assert ('tlsv1.2', None) in found
    assert [name for name, _ in told(RHEL_7).send('https://h/') if name.startswith('tls')] == []


def test_what_an_old_one_is_told(tmpdir, told):
    paths = secret_files(tmpdir)
    found = told(RHEL_6).send('https://h/in', **dict(paths, **FULL))
    assert [option for option in found if option[0] not in ('upload-file', 'dump-header', 'output', 'write-out')] == [
        ('silent', None), ('show-error', None), ('url', 'https://h/in'), ('request', 'PUT'), ('globoff', None),
        ('header', found[5][1]), ('header', 'X-Site: 042'),
        ('header', 'Authorization: Bearer ' + SECRET), ('header', 'X-Key: ' + SECRET),
        ('header', 'Content-Type: application/json'), ('header', 'Idempotency-Key: the-key'),
        ('header', 'X-File-Name: 0.json'), ('header', 'Accept:'), ('header', 'Expect:'),
        ('connect-timeout', '1'), ('max-time', '61'), ('speed-limit', '1'), ('speed-time', '2'),
        ('limit-rate', '1000000'), ('proxy', 'http://proxy.example:3128'), ('proxy-user', 'me:' + SECRET),
        ('cacert', paths['ca_file']), ('cert', paths['client_cert']), ('key', paths['client_key'])]
    assert found[5][1].startswith('User-Agent: envio/')


def test_what_a_new_one_is_told_beside(told):
    found = told(UBUNTU_24).send('http://h/in?a=b', headers=(('X-Empty', ''),), connect_timeout=0.25, deadline=61.5)
    for option in (('http1.1', None), ('path-as-is', None), ('request-target', '/in?a=b'), ('header', 'X-Empty;'),
                   ('connect-timeout', '0.250'), ('max-time', '61.500')):
        assert option in found
    assert [name for name, _ in found if name in ('proxy', 'cacert', 'insecure', 'cert', 'limit-rate', 'next')] == []


def test_without_verification_it_is_told_so_and_else_never(told, tmpdir):
    ca_file = secret_files(tmpdir)['ca_file']
    at = told(UBUNTU_24)
    assert ('insecure', None) in at.send('https://h/', tls_verify=False)
    for url, settings in (('https://h/', dict(ca_file=ca_file)), ('http://h/', dict(tls_verify=False))):
        assert ('insecure', None) not in at.send(url, **settings)


def test_a_large_body_may_be_asked_for_and_a_small_one_not(told):
    at = told(DEBIAN_12)
    assert ('header', 'Expect:') in at.send('http://h/')
    names = [value.partition(':')[0] for name, value in at.send('http://h/', content=LARGE) if name == 'header']
    assert 'Expect' not in names and 'Content-Length' not in names, 'it does both by itself'


def test_the_receivers_own_accept_stays(told):
    found = told(DEBIAN_12).send('http://h/', headers=(('accept', 'a/b'),))
    assert [value for _, value in found if (value or '').lower().startswith('accept')] == ['accept: a/b']


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('url, target', [('http://[::1]:81/in', 'http://[::1]:81/in'), ('https://h:81/in/', '/in/')])
def test_through_a_proxy_the_url_stays_what_it_is(told, version, url, target):
    found = dict(told(version).send(url, proxy='http://[fd00::1]', tls_verify=False))
    assert (found['url'], found['proxy']) == (url, 'http://[fd00::1]:1080')
    assert found.get('request-target', target) == target


def test_several_files_go_in_one_run_that_the_first_failure_ends(told):
    found = told(UBUNTU_24).send('http://h/1', 'http://h/2', 'http://h/3')
    names = [name for name, _ in found]
    assert names[:3] == ['silent', 'show-error', 'fail-early']
    assert (names.count('next'), names.count('url'), names.count('fail-with-body')) == (2, 3, 3)
    assert [value for name, value in found if name == 'url'] == ['http://h/1', 'http://h/2', 'http://h/3']


# --- quoting

ODD = ['plain', ' blank ', 'a"b', '\\', '\\\\"', 'a\\n', 'line\nline', '\r\n', 'tab\t', '"', '', '#', '= x', "'", '-K',
       '\x01\x7f', compat.config_native(b'caf\xc3\xa9'), compat.config_native(b'\xff\xfe')]


@pytest.mark.parametrize('value', ODD)
def test_a_value_is_read_as_it_was_written(value):
    raw = curl_program.configuration([[('header', value), ('url', 'x')]])
    assert options(raw) == [('silent', None), ('show-error', None), ('header', value), ('url', 'x')]
    assert raw.endswith(b'\n') and raw.count(b'\n') == 4, 'one line each'


def test_bytes_beyond_ascii_stay_the_same_bytes():
    raw = curl_program.configuration([[('cacert', compat.config_native(b'/caf\xc3\xa9/\xff'))]])
    assert b'\ncacert = "/caf\xc3\xa9/\xff"\n' in raw


def run(raw):
    """Return (exit code, output) of the system's cURL."""
    process = subprocess.Popen([curl_program.find(os.environ).path, '-q', '-K', '-'], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, close_fds=True)
    said = process.communicate(raw)[0]
    return process.returncode, said


@pytest.mark.skipif(no_curl() != '', reason='there is no cURL on this machine')
def test_the_systems_curl_reads_it_so(tmpdir):
    values = ['a"b', '\\', '\\"\\\\', 'a\\nb', "'", '# no comment', 'a = b', '--next', '"quoted"']
    with ScriptedServer([('read_request',), ('send', ok(b'answer'))]) as server:
        for name in ('a"b', '\\', '\\"', 'line\nline', '\r', '\t', '\\n', ' ', '#1', '-'):
            place = str(tmpdir.join(name))
            page = [('url', server.url + '/in'), ('globoff', None), ('output', place), ('max-time', '20')]
            page += [('header', 'X-%d: %s' % pair) for pair in enumerate(values)]
            assert run(curl_program.configuration([page])) == (0, b'')
            with open(place) as stream:
                assert stream.read() == 'answer'
        for request in server.requests():
            assert [value for name, value in request.headers if name.startswith('X-')] == values


# --- secrets

@pytest.mark.parametrize('version', VERSIONS)
def test_no_secret_and_nothing_of_our_environment_is_outside_of_its_standard_input(tmpdir, told, monkeypatch, version):
    monkeypatch.setenv('ENVIO_TEST', SECRET)
    monkeypatch.setenv('http_proxy', 'http://me:%s@proxy.example' % SECRET)
    at = told(version)
    at.send('https://h/in', **dict(secret_files(tmpdir), **FULL))
    assert at.noted('config').count(SECRET.encode('ascii')) == 3, 'token, header, proxy'
    assert SECRET.encode('ascii') not in at.noted('words')
    assert at.noted('words').splitlines()[-4:-1] != [], 'there is something to look at'
    assert b'\nLC_ALL=C\n' in at.noted('words') and b'HOME=' not in at.noted('words')
    assert asked(at.program.path)[-1] == '-q -K -'


@pytest.mark.parametrize('written, raw', [
    ('me:a%20b', b'me:a b'), ('me:50%2541', b'me:50%41'), ('me:%25', b'me:%'), ('m%25e:%2520', b'm%e:%20'),
    ('me:%22%5C', b'me:"\\'), ('me:a:b@', b'me:a:b'), ('me:a+b', b'me:a+b'), ('caf%C3%A9:%FF', b'caf\xc3\xa9:\xff'),
    ('me', b'me:'),
])
@pytest.mark.parametrize('kind', ['native', 'curl'])
def test_a_proxy_is_shown_the_same_credentials_by_both_transports(tmpdir, kind, written, raw):
    if kind == 'curl' and no_curl():
        pytest.skip(no_curl())
    sender = Sender(tmpdir, make(kind, folder=str(tmpdir)))
    with ScriptedServer([('read_request',), ('send', ok())]) as server:
        with NameProxy(credentials=compat.byte_string(raw)) as proxy:
            where = 'http://%s@127.0.0.1:%d' % (written.rstrip('@'), proxy.port)
            try:
                assert sender.send(server.port, proxy=where).status == 200
            finally:
                sender.close()


@pytest.mark.parametrize('name', ['plain', 'a:b', 'a\\b', '\\:', 'a"b', 'a b'])
def test_a_certificate_of_any_name_is_shown(tmpdir, authority, nginx_tls, name):
    if no_curl():
        pytest.skip(no_curl())
    pair = authority.certificate('client')
    cert, key = str(tmpdir.join(name + '.crt')), str(tmpdir.join(name + '.key'))
    for source, target in ((pair.cert, cert), (pair.key, key)):
        with open(source) as stream:
            write(target, stream.read(), 0o600)
    sender = Sender(tmpdir, make('curl', folder=str(tmpdir)))
    try:
        assert sender.send_to('https://localhost:%d/in' % nginx_tls.port('client_required'), ca_file=authority.ca,
                              client_cert=cert, client_key=key).status == 200
    finally:
        sender.close()
