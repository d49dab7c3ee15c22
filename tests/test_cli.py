"""The command line, as users and their scripts meet it: exit codes, sentences, and where these go."""

import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest

from agent import abilities, cli, compat, engine, progress, receiver as tryout, router, text, tls
from agent.spool import Spool
from tests import nobody
from tests.conftest import ROOT
from tests.senders import no_curl
from tests.servers import ScriptedServer, ok, refusing_port
from tests.test_curl_program import DEBIAN_12, RHEL_7, fake
from tests.tls_servers import NameProxy

LAZY = engine, progress, router, tls  # what cli imports when it needs it: nobody may not be able to read it
BIN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'bin', 'envio')
LONGEST = 30  # seconds until a test gives up to wait

FAULTS = """\
[agent]
spool = relative/path
setle = 5s
workers = 0
scan_interval = 5
log_level = loud
[receiver:a]
match = *.json ; all
url = ftp://x/
[receiver:a]
url = http://x/{nam}
[reciever:c]
[receiver:d]
match = [
url = http://x/
expire = 5
"""


class Host(object):
    """A spool, a configuration, and ways to run a command: call() in this process, shell() and start() as users do."""

    def __init__(self, folder, capsys):
        self.folder = str(folder)
        self.spool = os.path.join(self.folder, 'spool')
        os.mkdir(self.spool)
        self.config = os.path.join(self.folder, 'envio.conf')
        self.servers, self.processes = [], []
        self._capsys = capsys
        self.configure('http://127.0.0.1:9/in')

    def configure(self, url, agent='', receiver=''):
        self.write('[agent]\nspool = %s\nsettle = 0\nscan_interval = 100ms\n%s\n[receiver:orders]\nmatch = *.json\n'
                   'url = %s\n%s\n' % (self.spool, agent, url, receiver))

    def write(self, text):
        with open(self.config, 'w') as stream:
            stream.write(text)

    def serve(self, answers='200', **keys):
        server = tryout.serve(answers=answers).start()
        self.servers.append(server)
        self.configure(server.url + '/in', **keys)
        return server

    def put(self, *names):
        for name in names:
            with open(os.path.join(self.spool, name), 'wb') as stream:
                stream.write(b'content')

    def waiting(self):
        return sorted([name for name in os.listdir(self.spool) if name not in ('.envio', 'sent', 'error')])

    def sent(self):
        days = os.path.join(self.spool, 'sent')
        return sorted([name for day in os.listdir(days) for name in os.listdir(os.path.join(days, day))])

    def call(self, *words):
        """Return (exit code, stdout, stderr) of a command run in this process."""
        self._capsys.readouterr()
        code = cli.main(list(words))
        return (code,) + tuple(self._capsys.readouterr())

    def shell(self, script, **environ):
        """Return (exit code, stdout, stderr as lists of lines) of a shell script in which $0 is bin/envio."""
        process = self._popen(['sh', '-c', script, BIN], environ)
        out, err = process.communicate()
        return process.returncode, lines(out), lines(err)

    def start(self, *words):
        """Start bin/envio and return its Popen, when it has the spool."""
        process = self._popen([BIN] + list(words), {})
        wait_until(lambda: process.poll() is not None or self.holder().startswith('pid %d ' % process.pid))
        return process

    def _popen(self, command, environ):
        known = dict(os.environ)  # without what the fixture took out
        known.update(ENVIO_PYTHON=sys.executable, PYTHONDONTWRITEBYTECODE='1', ENVIO_CONF=self.config, **environ)
        with open(os.devnull) as stdin:
            process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=known,
                                       cwd=self.folder, close_fds=True)
        self.processes.append(process)
        return process

    def holder(self):
        """Return what stands in the spool's lock file: who has it, or had it last."""
        try:
            with open(os.path.join(self.spool, '.envio', 'lock')) as stream:
                return stream.read()
        except EnvironmentError:
            return ''


def lines(raw):
    return compat.byte_string(raw).splitlines()


def wait_until(condition):
    end = time.time() + LONGEST
    while not condition():
        assert time.time() < end, 'waited for %d s in vain' % LONGEST
        time.sleep(0.01)  # another process has to get there


def end(process, number):
    """Send a signal; return (exit code, stderr's lines) once the process is over."""
    process.send_signal(number)
    err = process.communicate()[1]
    return process.returncode, lines(err)


@pytest.fixture
def host(tmpdir, capsys, monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith('_proxy') or name == 'ENVIO_CURL':
            monkeypatch.delenv(name)
    log = logging.getLogger('envio')
    before, umask = (log.handlers, log.level, log.propagate, logging.raiseExceptions), os.umask(0o022)
    host = Host(tmpdir, capsys)
    yield host
    for process in host.processes:
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            stream.close()
    for server in host.servers:
        server.stop()
    for handler in log.handlers:
        handler.close()
    log.handlers, log.level, log.propagate, logging.raiseExceptions = before
    os.umask(umask)


# -- words that make no sense

@pytest.mark.parametrize('words, sentence', [
    (['frob'], 'frob: no such command: see envio --help'),
    (['once', '--frob'], 'once: no such option: --frob: see envio --help'),
    (['once', 'x'], "once: takes no 'x': see envio --help"),
    (['version', 'x'], "version: takes no 'x': see envio --help"),
    (['once', '--max-time', '5'], 'once: --max-time: a number needs a unit: did you mean 5s'),
    (['once', '--max-time', ''], 'once: --max-time: not a duration: write one like 500ms, 5s, 2m, 1h or 5d'),
    (['once', '--max-time', '-1s'], 'once: --max-time: not a duration: write one like 500ms, 5s, 2m, 1h or 5d'),
    (['once', '--max-time', '4000d'], 'once: --max-time: it must be at most 3650d'),
    (['route'], 'route: which NAME? see envio --help'),
    (['receiver', '--port', '99999'], '--port: 99999 is not a port: they go from 1 to 65535, 0 takes any that is free'),
])
def test_wrong_usage_is_one_sentence_and_2(host, words, sentence):
    assert host.call(*words) == (2, '', 'envio: %s\n' % sentence)


@pytest.mark.parametrize('words, part', [
    (['-c'], '-c option requires '), (['once', '-c'], 'once: -c option requires '),
    (['once', '--max-time'], 'once: --max-time option requires '), (['--frob', 'once'], 'no such option: --frob'),
    (['receiver', '--port', 'x'], 'receiver: option --port: invalid integer value: '),
    (['receiver', '--answer', 'foo'], '--answer: '),
])
def test_wrong_options_are_one_sentence_and_2(host, words, part):
    code, out, err = host.call(*words)
    assert (code, out, err.count('\n')) == (2, '', 1)
    assert err.startswith('envio: ') and part in err


def test_no_control_character_of_a_command_line_reaches_the_terminal(host):
    for words in (['fr\x1b[2Job\nenvio: forged'], ['once', '--\x1b[2J'], ['once', '\x1b[2J'],
                  ['-c', 'a\x1b\nb', 'check']):
        code, _, err = host.call(*words)
        assert code in (2, 78) and '\x1b' not in err and err.count('\n') == 1, err


def test_no_command_shows_the_usage_and_is_2_and_help_is_0(host):
    assert host.call() == (2, cli.HELP, '')
    assert host.call('--help') == host.call('-h') == (0, cli.HELP, '')


def test_every_command_of_the_usage_is_there(host):
    named = re.findall(r'^  ([a-z]+) ', cli.HELP, re.MULTILINE)
    assert sorted(named) == sorted(cli.COMMANDS)


# -- the configuration

def test_c_and_q_may_stand_before_or_after_the_command_and_the_later_wins(host):
    ok = (0, '%s: ok: 1 spool, 1 receiver\n%s\n' % (host.config, abilities.https(os.environ)), '')
    assert host.call('-c', host.config, 'check') == ok
    assert host.call('check', '-c', host.config) == ok
    assert host.call('-c', '/nonexistent', 'check', '-c', host.config) == ok
    assert host.call('-q', 'check', '-c', host.config, '-v') == ok
    assert host.call('-q', '-c', host.config, 'check') == host.call('check', '-qc', host.config) == (0, '', '')


@pytest.mark.parametrize('command', [['check'], ['once'], ['run'], ['route', 'a.json'], ['list'], ['flush'],
                                     ['requeue', '--all']])
def test_every_fault_of_a_configuration_is_said_at_once_with_its_line(host, command):
    host.write(FAULTS)
    code, out, err = host.call('-c', host.config, *command)
    assert (code, out) == (78, '')
    begin = re.compile(re.escape('envio: %s:' % host.config) + r'([0-9]+): ')
    told = [int(begin.match(line).group(1)) for line in err.splitlines()]
    assert told == [2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 14, 16]
    assert 'setle: unknown key: did you mean settle' in err


@pytest.mark.parametrize('path, part', [
    ('/nonexistent/envio.conf', ': can\'t be read: No such file or directory: '),
    ('/', ': can\'t be read: Is a directory: '),
    ('/dev/null', ':1: no section [agent]: '), ('/dev/zero', ': is larger than 1 MiB: '),
    ('/proc/self/exe', None)])
def test_what_is_no_configuration_is_said_and_78(host, path, part):
    code, out, err = host.call('-c', path, 'once')
    assert (code, out) == (78, '') and err.startswith('envio: ' + path)
    assert part is None or part in err


def test_a_binary_file_is_called_one_and_not_listed_line_by_line(host):
    with open(host.config, 'wb') as stream:
        stream.write(b'\x7fELF\x02\x01\x01\0\0\0\0\n' * 50)
    code, _, err = host.call('-c', host.config, 'check')
    assert code == 78 and err.count('\n') == 1


@pytest.fixture
def closed(capsys):
    folder = nobody.make_folder()
    host = Host(folder, capsys)
    nobody.give(host.spool, host.config)
    yield host
    for server in host.servers:
        server.stop()
    nobody.remove(folder)


def test_what_may_not_be_read_is_said_and_78(closed):
    closed.put('a.json')

    def refused():
        os.chmod(closed.spool, 0o500)
        for command in ('once', 'check'):
            code, _, err = closed.call('-c', closed.config, command)
            assert code == 78 and closed.spool + ': can\'t be read and written' in err
        os.chmod(closed.config, 0)
        code, _, err = closed.call('-c', closed.config, 'once')
        assert code == 78 and 'can\'t be read: Permission denied' in err
    nobody.run(refused)


@pytest.mark.parametrize('folder', ['sent', 'error', '.envio'])
def test_nothing_is_sent_when_it_could_not_be_moved_afterwards(closed, folder):
    server = closed.serve()
    closed.put('a.json')

    def refused():
        os.mkdir(os.path.join(closed.spool, folder), 0o500)
        for command in ('check', 'once'):
            code, _, err = closed.call('-c', closed.config, command)
            assert code == 78 and os.path.join(closed.spool, folder) in err
    nobody.run(refused)
    assert server.counts().requests == 0


@pytest.mark.parametrize('command', ['check', 'once', 'run'])
def test_a_spool_that_is_missing_or_no_folder_is_said_and_78(host, command):
    os.rmdir(host.spool)
    code, out, err = host.call('-c', host.config, command)
    assert (code, out, err.count('\n')) == (78, '', 1) and host.spool + ': ' in err
    open(host.spool, 'w').close()
    code, out, err = host.call('-c', host.config, command)
    assert (code, out, err.count('\n')) == (78, '', 1) and host.spool + ': ' in err


def test_a_log_file_that_cant_be_opened_is_said_and_78(host):
    host.configure('http://127.0.0.1:9/in', agent='log_file = %s/no/such.log' % host.folder)
    code, _, err = host.call('-c', host.config, 'once')
    assert code == 78 and 'log_file: can\'t be opened: ' in err


# -- check

def test_check_says_how_https_is_done_here(host, monkeypatch):
    able, old, none = fake(host.folder, DEBIAN_12, name='able'), fake(host.folder, RHEL_7, name='old'), '/none'
    for lack, curl, said in (
            ('', none, 'https: by this Python'), ('no SNI', able, 'https: by %s: no SNI' % able),
            ('no SNI', old, 'https: not possible: no SNI, and %s (7.29.0) can\'t insist on TLS 1.2' % old),
            ('no SNI', none, 'https: not possible: no SNI, and there is no cURL (/none)')):
        monkeypatch.setattr(tls, 'lack', lambda: lack)
        monkeypatch.setenv('ENVIO_CURL', curl)
        code, out, err = host.call('-c', host.config, 'check')
        assert (code, out.splitlines()[-1], err) == (0, said, '')
        assert host.call('version')[1].splitlines()[-1] == said


@pytest.mark.parametrize('command', ['check', 'once', 'run', 'route'])
def test_where_https_cant_be_had_as_it_has_to_be_the_configuration_is_refused(host, monkeypatch, command):
    monkeypatch.setattr(tls, 'lack', lambda: 'no SNI')
    monkeypatch.setenv('ENVIO_CURL', '/none')
    host.configure('https://127.0.0.1:9/in')
    code, out, err = host.call('-c', host.config, command, *['a.json'][:command == 'route'])
    assert (code, out, err.count('\n')) == (78, '', 1)
    assert err.startswith('envio: %s: [receiver:orders]: https: no SNI, and there is no cURL (/none): ' % host.config)


@pytest.mark.parametrize('command', ['check', 'once', 'run'])
def test_a_token_that_others_can_read_is_said_and_78_and_never_shown(host, command):
    token = os.path.join(host.folder, 'token')
    with open(token, 'w') as stream:
        stream.write('Xyzzy-Plugh')
    os.chmod(token, 0o640)
    host.configure('http://127.0.0.1:9/in', receiver='token_file = ' + token)
    assert host.call('-c', host.config, command) == (
        78, '', 'envio: %s: [receiver:orders]: %s: others may read or write it: chmod 600 it\n' % (host.config, token))


def found_by_check(host, url, *lines):
    """Return (exit code, lines about receivers on stdout, those on stderr without `envio: `) of check --connect."""
    host.configure(url, receiver='\n'.join(lines))
    code, out, err = host.call('-c', host.config, 'check', '--connect')
    return code, out.splitlines()[:-2] if code == 0 else out.splitlines(), [
        line[len('envio: '):] for line in err.splitlines()]


def test_check_connect_reaches_a_receiver_and_sends_nothing(host):
    server = host.serve()
    assert found_by_check(host, server.url + '/in/{name}') == (
        0, ['orders: http://127.0.0.1:%d: ok: connected to 127.0.0.1' % server.port], [])
    assert server.counts().requests == 0
    assert host.call('-q', '-c', host.config, 'check', '--connect') == (0, '', '')


def test_check_connect_names_every_receiver_that_cant_be_reached(host):
    server = host.serve()
    with refusing_port() as port:
        host.configure('http://127.0.0.1:%d/in' % port, receiver='[receiver:good]\nmatch = *\nurl = %s\n'
                       '[receiver:third]\nmatch = *\nurl = http://localhost:%d/' % (server.url, port))
        code, out, err = host.call('-c', host.config, 'check', '--connect')
    assert (code, out) == (78, 'good: %s: ok: connected to 127.0.0.1\n' % server.url)
    assert err == ('envio: orders: http://127.0.0.1:%d: 127.0.0.1:%d: can\'t connect: Connection refused\n'
                   'envio: third: http://localhost:%d: localhost:%d: can\'t connect: Connection refused\n'
                   % (port, port, port, port))


def test_check_connect_cant_try_a_host_that_depends_on_the_name(host):
    assert found_by_check(host, 'http://{stem}.envio.test/') == (
        0, ['orders: not tried: the host depends on the file\'s name'], [])


needs_ssl = pytest.mark.skipif(tls.ssl is None, reason='this Python has no ssl module')


@needs_ssl
def test_check_connect_shows_the_names_in_a_certificate_and_how_long_it_is_valid(host, authority, nginx_tls):
    url = 'https://localhost:%d' % nginx_tls.port('good')
    most = (2524607999 - time.time()) // 86400  # 2049-12-31 23:59:59
    code, out, err = found_by_check(host, url + '/in', 'ca_file = ' + authority.ca, 'connect_timeout = 1s')
    least = (2524607999 - time.time()) // 86400
    line, = out
    assert (code, err) == (0, [])
    assert re.match('orders: %s: ok: .*connected to 127.0.0.1, TLS' % url, line)
    assert ', certificate for localhost good.envio.test 127.0.0.1, valid for ' in line
    assert line.partition(', valid for ')[2] in ['%d days, until 2049-12-31' % days for days in (least, most)]


@needs_ssl
@pytest.mark.parametrize('label, words', [
    ('expired', 'certificate not valid: expired on 2020-01-01'), ('not_yet', 'certificate not valid: '),
    ('other_name', 'other.envio.test'), ('self_signed', 'certificate not valid: self-signed'),
    ('http', 'the TLS handshake failed'),
])
def test_check_connect_says_what_is_wrong_with_a_certificate(host, authority, nginx_tls, label, words):
    url = 'https://localhost:%d' % nginx_tls.port(label)
    code, out, err = found_by_check(host, url, 'transport = native', 'ca_file = ' + authority.ca)
    assert (code, out) == (78, [])
    assert err[-1].startswith('orders: %s: ' % url) and words in err[-1]
    assert err[:-1] == (['[receiver:orders]: transport = native: ' + tls.lack()] if tls.lack() else [])


@needs_ssl
def test_check_connect_without_verification_says_so_twice(host, nginx_tls):
    url = 'https://localhost:%d' % nginx_tls.port('expired')
    code, out, err = found_by_check(host, url, 'tls_verify = no', 'connect_timeout = 1s')
    assert code == 0 and out[0].endswith(', until 2020-01-01, not verified')
    assert err == ['[receiver:orders]: tls_verify = no: anybody on the way can read the files and answer in the '
                   'receiver\'s place']


@needs_ssl
def test_check_connect_by_curl_tells_good_from_bad_and_sends_nothing(host, authority, nginx_tls):
    if no_curl():
        pytest.skip(no_curl())
    trusted, before = 'ca_file = ' + authority.ca, len(nginx_tls.log())
    for label, code, words in (('good', 0, 'ok: cURL accepts the certificate'), ('sni', 0, 'ok: cURL accepts the cert'),
                               ('expired', 78, 'certificate has expired'), ('other_name', 78, 'localhost'),
                               ('http', 78, 'cURL: 35')):
        found = found_by_check(host, 'https://localhost:%d' % nginx_tls.port(label), trusted, 'transport = curl',
                               'connect_timeout = 1s')
        assert found[0] == code and words in (found[1] + found[2])[0], found
    with refusing_port() as port:
        assert found_by_check(host, 'https://localhost:%d' % port, trusted, 'transport = curl')[0] == 78
    assert [line for line in nginx_tls.log()[before:] if ' POST ' in line] == []


def test_check_connect_goes_through_the_proxy(host):
    server = host.serve()
    with NameProxy() as proxy:
        code, out, _ = found_by_check(host, server.url, 'proxy = ' + proxy.url)
        assert (code, out) == (0, ['orders: %s: ok: through the proxy 127.0.0.1' % server.url])
        assert proxy.requests == [], 'that asks for no more than a connection to it'
    with refusing_port() as port:
        code, out, err = found_by_check(host, server.url, 'proxy = http://127.0.0.1:%d' % port)
    assert (code, out, err) == (78, [], ['orders: %s: proxy 127.0.0.1:%d: can\'t connect: Connection refused' % (
        server.url, port)])


@needs_ssl
def test_check_connect_asks_the_proxy_for_a_connection_and_no_more(host, authority, nginx_tls):
    place = 'good.envio.test:%d' % nginx_tls.port('good')
    keys = 'ca_file = %s\nconnect_timeout = 1s' % authority.ca
    with NameProxy(credentials='me:right') as proxy:
        where = 'proxy = http://%%s@127.0.0.1:%d' % proxy.port
        code, out, err = found_by_check(host, 'https://' + place, where % 'me:right', keys)
        assert (code, err) == (0, [])
        assert re.match('orders: https://%s: ok: .*through the proxy 127.0.0.1, TLS' % place, out[0])
        code, out, err = found_by_check(host, 'https://' + place, where % 'me:wrong', keys)
        assert (code, out, len(err)) == (78, [], 1)
        assert err[0].startswith('orders: https://%s: ' % place) and '407' in err[0] and 'wrong' not in err[0]
        assert set([line for line, _ in proxy.requests]) == set(['CONNECT %s HTTP/1.1' % place])


def test_check_connect_names_the_proxy_of_the_environment(host, monkeypatch):
    with refusing_port() as port:
        monkeypatch.setenv('http_proxy', 'me:wrong@127.0.0.1:%d' % port)
        code, _, err = found_by_check(host, 'http://h.envio.test/')
        assert code == 78 and 'proxy 127.0.0.1:%d: can\'t connect' % port in err[0] and 'wrong' not in err[0]
    monkeypatch.setenv('http_proxy', 'socks5://me:wrong@127.0.0.1')
    code, _, err = found_by_check(host, 'http://h.envio.test/')
    assert code == 78 and 'only http:// proxies are' in err[0] and 'wrong' not in err[0]


# -- what is warned of

UNVERIFIED = ('envio: [receiver:orders]: tls_verify = no: anybody on the way can read the files and answer in the '
              'receiver\'s place')


@needs_ssl
def test_once_warns_of_what_is_not_verified_at_every_start(host, nginx_tls):
    host.configure('https://localhost:%d/in' % nginx_tls.port('expired'), receiver='tls_verify = no')
    host.put('a.json')
    for _ in range(2):
        assert host.call('-c', host.config, 'once') == (0, '', UNVERIFIED + '\n')
    assert host.call('-q', '-c', host.config, 'once') == (0, '', '')
    assert host.sent() == ['a.json']


@needs_ssl
def test_run_warns_of_what_is_not_verified_at_its_start_and_at_each_reload(host):
    log = os.path.join(host.folder, 'envio.log')
    host.configure('https://127.0.0.1:9/in', receiver='tls_verify = no')
    process = host.start('-c', host.config, 'run')
    assert end(process, signal.SIGTERM) == (0, [
        UNVERIFIED, 'envio: started: %s: 1 receiver' % host.config, 'envio: stopped'])
    host.configure('http://127.0.0.1:9/in', agent='log_file = ' + log)
    process = host.start('-c', host.config, 'run')
    host.configure('https://127.0.0.1:9/in', 'log_file = ' + log, 'tls_verify = no')
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: os.path.exists(log) and 'is in force' in open(log).read())
    assert end(process, signal.SIGTERM) == (0, [])
    assert open(log).read().count(UNVERIFIED[len('envio: '):]) == 1


def test_secrets_over_http_are_spoken_of_where_there_is_somebody_to_read_it(host):
    token = os.path.join(host.folder, 'token')
    with open(token, 'w') as stream:
        stream.write('Xyzzy-Plugh')
    os.chmod(token, 0o600)
    host.configure('http://127.0.0.1:9/in', receiver='token_file = ' + token)
    said = 'envio: [receiver:orders]: its password, token or headers go over http, for all on the way to read\n'
    assert host.call('-c', host.config, 'check')[::2] == (0, said)
    assert host.call('-c', host.config, 'once') == (0, '', ''), 'cron has heard it'
    assert host.call('-v', '-c', host.config, 'once') == (0, '', said)


# -- all of it together

@needs_ssl
def test_a_file_goes_over_https_as_a_form_compressed_with_digest_and_token(host, authority):
    token = os.path.join(host.folder, 'token')
    with open(token, 'w') as stream:
        stream.write('Xyzzy-Plugh')
    os.chmod(token, 0o600)
    with ScriptedServer([('read_request',), ('send', ok())], tls=authority.certificate('good')) as server:
        host.configure('https://localhost:%d/in' % server.port, receiver='\n'.join([
            'ca_file = ' + authority.ca, 'token_file = ' + token, 'body = multipart', 'gzip = yes', 'digest = yes',
            'rate_limit = 100K']))
        host.put('a.json')
        assert host.call('-c', host.config, 'once') == (0, '', '')
        request, = server.requests()
    headers = dict(request.headers)
    assert headers['Authorization'] == 'Bearer Xyzzy-Plugh'
    assert headers['Content-Type'].startswith('multipart/form-data; boundary=envio-' + headers['Idempotency-Key'])
    assert (headers['Content-Encoding'], headers['Content-Length']) == ('gzip', str(len(request.body)))
    assert headers['Content-Digest'].startswith('sha-256=:')
    assert host.sent() == ['a.json']


# -- once

def test_once_is_silent_and_0_when_all_was_accepted_or_there_is_nothing(host):
    host.serve()
    assert host.call('-c', host.config, 'once') == (0, '', '')
    host.put('a.json', 'b.json')
    assert host.call('-c', host.config, 'once') == (0, '', '')
    assert host.sent() == ['a.json', 'b.json']


@pytest.mark.parametrize('answers, names, code, parts', [
    ('bad*=422', ['a.json', 'bad.json'], 65, ['orders: 1 file rejected, last: 422']),
    ('503', ['a.json'], 75, ['503 Service Unavailable', '1 file waiting']),
    ('408', ['a.json', 'b.json'], 75, ['408 Request Timeout', '2 files waiting']),
    ('bad*=422,408', ['a.json', 'bad.json'], 65, ['422', '408', '1 file waiting']),
    ('200', ['a.txt'], 75, ['1 file without a receiver', 'envio route']),
])
def test_the_exit_code_of_once_and_what_it_says(host, answers, names, code, parts):
    host.serve(answers + (',*=200' if '=' in answers and ',' not in answers else ''))
    host.put(*names)
    found, out, err = host.call('-c', host.config, 'once')
    assert (found, out) == (code, '')
    for part in parts:
        assert part in err
    for line in err.splitlines():
        assert line.startswith('envio: ')


def test_a_hold_is_shown(host):
    host.serve('301')
    host.put('a.json')
    code, _, err = host.call('-c', host.config, 'once')
    assert code == 75 and 'HOLD' in err and '301' in err
    assert host.waiting() == ['a.json']


def test_a_receiver_that_is_down_is_said_and_75(host):
    with refusing_port() as port:
        host.configure('http://127.0.0.1:%d/in' % port)
        host.put('a.json')
        code, _, err = host.call('-c', host.config, 'once')
    assert code == 75 and 'Connection refused' in err and host.waiting() == ['a.json']


def test_q_says_only_errors_and_v_says_more(host):
    host.serve('bad*=422,*=200')
    host.put('bad.json')
    assert host.call('-q', '-c', host.config, 'once') == (65, '', '')
    host.put('a.json')
    code, out, err = host.call('once', '-v', '-c', host.config)
    assert (code, out) == (0, '') and err.startswith('envio: orders: 1 accepted (7 B, ')


def test_another_agent_has_the_spool_and_75(host):
    spool = Spool(host.spool)
    spool.lock()
    try:
        for command in ('once', 'run'):
            code, out, err = host.call('-c', host.config, command)
            assert (code, out) == (75, '')
            assert err.startswith('envio: %s: another agent has this spool: pid %d since ' % (host.spool, os.getpid()))
    finally:
        spool.unlock()


@pytest.mark.parametrize('word', ['0', '1ms', '1h'])
def test_when_nothing_is_left_max_time_does_not_make_it_look_so(host, word):
    host.serve()
    host.put('a.json')
    code, _, err = host.call('-c', host.config, 'once', '--max-time', word)
    if host.waiting():
        assert code == 75 and 'stopped before everything was tried' in err
    else:
        assert (code, err) == (0, '')


def test_a_relative_configuration_is_named_so_that_it_is_found_from_everywhere(host, monkeypatch):
    host.serve('422')
    host.put('a.json')
    monkeypatch.chdir(host.folder)
    assert host.call('-c', 'envio.conf', 'once')[0] == 65
    with open(os.path.join(host.spool, 'error', 'a.json.reason')) as stream:
        assert 'Requeue: envio -c %s requeue a.json\n' % text.shell_word(host.config) in stream.read()


def test_odd_names_in_a_poor_locale_are_named_and_delivered(host):
    host.serve('*five*=503,*bad*=422,*=200')
    names = [b'caf\xc3\xa9.json', b'five\xff\n.json', b'bad\xc3\xa9\xff.json', b'a b.json']
    host.put(*[compat.fs_native(name) for name in names])
    code, out, err = host.shell('"$0" -v -c "$ENVIO_CONF" once', LANG='C', LC_ALL='C', PYTHONIOENCODING='ascii')
    assert (code, out) == (65, [])
    text = '\n'.join(err)
    assert 'five%FF%0A.json: RETRY by orders: 503 ' in text and 'bad%C3%A9%FF.json: rejected by orders: 422 ' in text
    assert not [line for line in err if not line.startswith('envio: ')]
    assert sorted(map(compat.fs_bytes, host.sent())) == [b'a b.json', b'caf\xc3\xa9.json']


# -- other commands

def test_route_says_which_receiver_and_url_and_why(host):
    host.configure('http://127.0.0.1:9/in/{name}')
    code, out, err = host.call('-c', host.config, 'route', 'a b.json')
    assert (code, out, err) == (0, 'a b.json: orders http://127.0.0.1:9/in/a%20b.json '
                                   '(first match: [receiver:orders] match = *.json)\n', '')
    code, out, _ = host.call('-c', host.config, 'route', 'a.json', 'a.txt', host.spool + '/c.json')
    assert code == 1
    assert [line.split(' ')[:2] for line in out.splitlines()] == [
        ['a.json:', 'orders'], ['a.txt:', 'no'], ['c.json:', 'orders']]


def test_route_keeps_odd_names_on_their_line(host):
    code, out, _ = host.call('-c', host.config, 'route', compat.fs_native(b'a\n\x1b\xff.json'))
    assert code == 0 and out.startswith('a%0A%1B%FF.json: orders http://') and out.count('\n') == 1


def test_a_router_function_that_others_can_change_or_that_is_not_there_is_refused(host):
    path = os.path.join(host.folder, 'rules.py')
    with open(path, 'w') as stream:
        stream.write('def route(name):\n    return "orders" if name == "mine" else None\n')
    os.chmod(path, 0o666)
    host.configure('http://127.0.0.1:9/in', agent='router = %s:route' % path)
    code, _, err = host.call('-c', host.config, 'route', 'mine')
    assert code == 78 and 'others can write' in err
    host.configure('http://127.0.0.1:9/in', agent='router = %s:absent' % path)
    assert host.call('-c', host.config, 'check')[0] == 78


def test_version_says_what_this_python_can(host):
    code, out, err = host.call('version')
    assert (code, err) == (0, '') and out == host.call('--version')[1]
    assert [line.split(' ')[0] for line in out.splitlines()] == ['envio', 'Python', 'TLS:', 'cURL:', 'https:']


def test_a_port_that_is_taken_is_said_without_a_traceback(host):
    server = host.serve()
    code, _, err = host.call('receiver', '--port', str(server.port))
    assert code not in (0, 1) and err.count('\n') == 1 and 'Address already in use' in err


def test_an_internal_error_is_70_and_names_itself(host, monkeypatch):
    def broken(*_):
        raise KeyError('a fault')
    monkeypatch.setitem(cli.COMMANDS, 'version', broken)
    code, _, err = host.call('version')
    assert code == 70 and 'Traceback' in err and err.splitlines()[-1].startswith('envio: internal error: KeyError')


def test_ctrl_c_is_130_without_a_traceback(host, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt
    monkeypatch.setitem(cli.COMMANDS, 'version', interrupted)
    assert host.call('version') == (130, '', '')


# -- odd streams

def test_a_reader_that_goes_early_sees_no_noise(host):
    code, out, err = host.shell('"$0" -c "$ENVIO_CONF" route $(seq 20000) | head -n 1; :')
    assert (code, err) == (0, []) and len(out) == 1
    assert host.shell('{ "$0" --help; echo $? >&2; } | true')[2] == ['0']


@pytest.mark.parametrize('closed', ['>&-', '2>&-', '<&-', '<&- >&- 2>&-'])
def test_with_a_standard_stream_closed_the_work_is_done_and_nothing_written_elsewhere(host, closed):
    host.serve('bad*=422:problem=no,five*=503,*=200')
    host.put('a.json', 'bad.json', 'five.json')
    code, _, _ = host.shell('exec "$0" -v -c "$ENVIO_CONF" once ' + closed)
    assert code == 65
    assert (host.sent(), host.waiting()) == (['a.json'], ['five.json'])
    assert re.match(r'pid [0-9]+ since [-0-9: ]+\n\Z', host.holder())


@pytest.mark.parametrize('words, redirect, code', [
    ('check', '>&-', 0), ('--help', '>&-', 0), ('once', '2>&-', 78), ('once', '2>/dev/full', 78),
    ('frob', '2>/dev/full', 2)])
def test_the_exit_code_is_the_same_when_nobody_listens(host, words, redirect, code):
    if code == 78:
        host.write('')
    assert host.shell('exec "$0" -c "$ENVIO_CONF" %s %s' % (words, redirect))[0] == code


def test_an_output_that_cant_be_written_is_a_sentence(host):
    code, _, err = host.shell('exec "$0" version >/dev/full')
    assert code not in (0, 1, 120) and len(err) == 1 and 'No space left on device' in err[0]


def test_on_a_terminal_once_shows_its_progress_and_sums_up(host):
    host.serve('200:delay=300ms')
    host.put('a.json')
    master, slave = pty.openpty()
    process = subprocess.Popen([BIN, '-c', host.config, 'once'], stdin=slave, stdout=slave, stderr=slave,
                               close_fds=True, env=dict(os.environ, ENVIO_PYTHON=sys.executable,
                                                        PYTHONDONTWRITEBYTECODE='1'))
    os.close(slave)
    shown = b''
    try:
        while True:
            piece = os.read(master, 4096)
            if not piece:
                break
            shown += piece
    except EnvironmentError:  # EIO: the other side is closed
        pass
    os.close(master)
    assert process.wait() == 0
    assert b'0/1 files' in shown and b'envio: orders: 1 accepted (7 B, ' in shown


# -- run

def test_run_ends_with_0_on_term_and_int_and_gives_the_spool_back(host):
    for number in (signal.SIGTERM, signal.SIGINT):
        process = host.start('-c', host.config, 'run')
        assert end(process, number) == (0, ['envio: started: %s: 1 receiver' % host.config, 'envio: stopped'])
        assert host.call('-c', host.config, 'once') == (0, '', '')


def test_run_finishes_what_is_out_before_it_ends(host):
    server = host.serve('200:delay=500ms')
    host.put('a.json')
    process = host.start('-c', host.config, 'run')
    wait_until(lambda: server.counts().connections)
    assert end(process, signal.SIGTERM)[0] == 0
    assert host.sent() == ['a.json'] and server.counts().requests == 1


def test_run_gives_up_what_is_out_after_its_grace(host):
    server = host.serve('hang', agent='stop_grace = 200ms')
    host.put('a.json')
    process = host.start('-c', host.config, 'run')
    wait_until(lambda: server.counts().requests)
    code, err = end(process, signal.SIGTERM)
    assert code == 0 and host.waiting() == ['a.json']
    assert [line for line in err if 'stopped after 0.2 s: 1 file still being sent' in line]


def test_the_second_signal_ends_everything_at_once_and_nothing_new_is_begun(host):
    server = host.serve('hang', agent='stop_grace = 1h\nworkers = 1', receiver='read_timeout = 1h')
    host.put('a.json', 'b.json', 'c.json')
    process = host.start('-c', host.config, 'run')
    wait_until(lambda: server.counts().requests)
    process.send_signal(signal.SIGTERM)
    assert end(process, signal.SIGINT)[0] == 0
    assert host.waiting() == ['a.json', 'b.json', 'c.json'] and server.counts().requests == 1


def test_run_tells_its_state_and_reloads_keeping_the_old_configuration_when_the_new_is_wrong(host):
    host.serve()
    log = os.path.join(host.folder, 'envio.log')
    host.configure(host.servers[0].url, agent='log_file = ' + log)
    good = open(host.config).read()
    process = host.start('-c', host.config, 'run')
    host.write(good + 'bogus = 1\n')

    def logged(words):
        return os.path.exists(log) and words in open(log).read()
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: logged('the configuration in force stays'))
    assert logged('bogus: unknown key')
    host.put('a.json')
    wait_until(lambda: os.path.isdir(host.spool + '/sent') and host.sent() == ['a.json'])
    host.write(good.replace('*.json', '*.txt'))
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: logged('%s is in force' % host.config))
    host.put('b.txt')
    wait_until(lambda: host.sent() == ['a.json', 'b.txt'])
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: logged('state: receiver orders: CLOSED'))
    assert end(process, signal.SIGTERM) == (0, [])


def test_an_idle_agent_does_not_spin(host):
    host.configure('http://127.0.0.1:9/in', agent='workers = 16')
    host.write(open(host.config).read().replace('scan_interval = 100ms', 'scan_interval = 1h'))
    process = host.start('-c', host.config, 'run')

    def switches():
        tasks = '/proc/%d/task/' % process.pid
        states = [open(tasks + task + '/status').read() for task in os.listdir(tasks)]
        return sum([int(re.search(r'\nvoluntary_ctxt_switches:\s*([0-9]+)', state).group(1)) for state in states])
    wait_until(lambda: len(os.listdir('/proc/%d/task' % process.pid)) == 17)
    settled = []

    def quiet():
        settled.append(switches())
        return settled[-20:] == [settled[-1]] * 20  # for 0.2 s: nothing moved
    wait_until(quiet)
    assert end(process, signal.SIGTERM)[0] == 0


# --- what is loaded

SLOW = ('agent.delivery', 'agent.native', 'agent.tls', 'agent.curl', 'agent.curl_program', 'agent.certificates',
        'base64', 'difflib', 'hashlib', 'http.client', 'httplib', 'random', 'socket', 'ssl', 'subprocess', 'tempfile',
        'urllib', 'urllib.parse')
LOADED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
before = set(sys.modules)  # what this host's Python loads by itself
from agent.cli import main
code = main(sys.argv[2:])
sys.stdout.write(' '.join(sorted(set(sys.argv[1].split()) & set(sys.modules) - before)))
sys.exit(code)
"""


def test_a_pass_that_finds_nothing_loads_nothing_that_sends(host):
    host.configure('http://127.0.0.1:9/in/{name}')
    child = subprocess.Popen([sys.executable, '-c', LOADED, ROOT, ' '.join(SLOW), '-c', host.config, 'once'],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert child.communicate() == ('', '') and child.returncode == 0
