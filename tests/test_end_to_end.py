"""The whole agent as its users have it: bin/envio as a process, real files, real signals, the system's nginx.

nginx stores what it is sent, so that every byte can be compared. Where an answer has to wait for the test, a server of
tests/servers.py waits for it: no test here relies on being quick.
"""

import calendar
import email
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

from agent import compat, receiver as tryout
from tests.conftest import ROOT
from tests.servers import Nginx, ScriptedServer, ok

ENVIO = os.path.join(ROOT, 'bin', 'envio')
PATIENCE = 60  # seconds that anything may take on a busy machine
OWN = ('.envio', 'sent', 'error')
AGENT = '[agent]\nspool = %s\nsettle = 0\nscan_interval = 200ms\n%s\n'
SECTION = '[receiver:%s]\nmatch = %s\nurl = %s\nworkers = 4\n%s\n'
QUICK = 'breaker_pause = 1ms\nretry_pause = 1ms\n'  # pauses outlive a pass
ODD_NAMES = (b'new\nline', b' blank at both ends ', b'a  b', b'"double" \'single\'', b'50% off %41', b'-rf', b'--',
             b'caf\xc3\xa9', b'\xff\xfe not UTF-8', b'back\\slash', b'semi;colon', b'a?b#c&d=e', b'*', b'$HOME `id`',
             b'tab\there', b'\x01\x1b[31m', b'+VERSION', b'x' * 255)


def until(condition, what):
    """Wait until condition() is true; AssertionError with `what`, a text or a function, after PATIENCE."""
    end = compat.monotonic() + PATIENCE
    while not condition():
        assert compat.monotonic() < end, 'in vain for %d s: %s' % (PATIENCE, what() if callable(what) else what)
        time.sleep(0.01)  # another process is waited for, and it tells nobody


def read(path):
    with open(path, 'rb') as stream:
        return stream.read()


def contents(folder):
    """Return {name: bytes} of the regular files in a folder that may not be there."""
    if not os.path.isdir(folder):
        return {}
    paths = [(name, os.path.join(folder, name)) for name in os.listdir(folder)]
    return dict([(name, read(path)) for name, path in paths if stat.S_ISREG(os.lstat(path).st_mode)])


class Process(object):
    """bin/envio with these arguments, started from the root folder, in the environment that cron gives."""

    def __init__(self, folder, arguments, environ):
        self._paths = [os.path.join(folder, name) for name in ('stdout', 'stderr')]
        surroundings = {'PATH': '/usr/bin:/bin', 'ENVIO_PYTHON': sys.executable, 'PYTHONDONTWRITEBYTECODE': '1'}
        surroundings.update(environ)
        files = [open(os.devnull)] + [open(path, 'wb') for path in self._paths]
        self._child = subprocess.Popen([ENVIO] + list(arguments), cwd='/', env=surroundings, close_fds=True,
                                       stdin=files[0], stdout=files[1], stderr=files[2])
        for stream in files:
            stream.close()
        self.pid = self._child.pid  # the launcher becomes the agent
        self.signal = self._child.send_signal

    def said(self):
        """Return its standard error so far."""
        return compat.config_native(read(self._paths[1]))

    def until(self, condition, what):
        """Wait until condition() is true while the agent works."""
        def done():
            ended = self._child.poll() is not None
            assert condition() or not ended, 'it ended before: %s: %s' % (what, self.said())
            return condition()
        until(done, lambda: '%s: %s' % (what, self.said()))

    def hears(self, sentence):
        """Wait until it says something with `sentence` in it."""
        self.until(lambda: sentence in self.said(), sentence)

    def state(self):
        """Ask for its state by SIGUSR1, and return it when it is there."""
        before = len(self.said())
        self.signal(signal.SIGUSR1)
        self.until(lambda: re.search(r'state: receiver .* out\n', self.said()[before:]), 'it tells its state')
        return self.said()[before:]

    def heeds(self):
        """Wait until it has acted on the signal it got: it tells its state in the same loop, turn after turn."""
        for _ in range(3):
            self.state()

    def end(self):
        """Wait for it; return (exit code, standard output, standard error)."""
        until(lambda: self._child.poll() is not None, lambda: 'it ends: ' + self.said())
        return (self._child.returncode,) + tuple([compat.config_native(read(path)) for path in self._paths])

    def kill(self):
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()


class Host(object):
    """A spool, a configuration, and the agents that were started on them."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.name = os.path.basename(self.folder)
        self.spool = os.path.join(self.folder, 'the spool')
        self.conf = os.path.join(self.folder, 'envio.conf')
        self.agents = []
        os.mkdir(self.spool)

    def configure(self, *receivers, **options):
        """Write the configuration; receivers: (URL, keys) or (URL, keys, name, match)."""
        page = AGENT % (self.spool, options.get('agent', ''))
        for receiver in receivers:
            url, keys, name, match = receiver + ('orders', '*')[len(receiver) - 2:]
            page += SECTION % (name, match, url, keys)
        with open(self.conf, 'w') as stream:
            stream.write(page)

    def put(self, files):
        """Put files ({name: bytes}) into the spool, each there at once and whole; return them."""
        for number, (name, content) in enumerate(sorted(files.items())):
            draft = os.path.join(self.spool, '.draft%d' % number)
            with open(draft, 'wb') as stream:
                stream.write(content)
            os.rename(draft, os.path.join(self.spool, name))
        return files

    def start(self, *arguments, **environ):
        folder = os.path.join(self.folder, 'agent%d' % len(self.agents))
        os.mkdir(folder)
        self.agents.append(Process(folder, ['-c', self.conf] + list(arguments), environ))
        return self.agents[-1]

    def once(self, *arguments):
        """Return (exit code, standard output, standard error) of `envio once`."""
        return self.start('once', *arguments).end()

    def waiting(self):
        return contents(self.spool)

    def sent(self):
        found = {}
        folder = os.path.join(self.spool, 'sent')
        for day in os.path.isdir(folder) and os.listdir(folder) or ():
            assert re.match(r'\d{4}-\d\d-\d\d\Z', day)
            found.update(contents(os.path.join(folder, day)))
        return found

    def rejected(self):
        return contents(os.path.join(self.spool, 'error'))

    def places(self):
        """Return the names of all files, as often as they are somewhere."""
        rejected = [name for name in self.rejected() if not name.endswith('.reason')]
        return sorted(list(self.waiting()) + list(self.sent()) + rejected)


@pytest.fixture
def host(tmpdir):
    host = Host(tmpdir)
    yield host
    for agent in host.agents:
        agent.kill()


def own_nginx(folder):
    server = Nginx(str(folder.mkdir('nginx')))
    if server.absent:
        pytest.skip(server.absent)
    return server


@pytest.fixture(scope='module')
def nginx(tmpdir_factory):
    with own_nginx(tmpdir_factory.mktemp('shared')) as server:
        yield server


def store(nginx, host):
    """Return the URL under which nginx stores the files of this test, and the folder they come to lie in."""
    return '%s/in/%s/{name}' % (nginx.url, host.name), os.path.join(nginx.stored, host.name)


def some(count, prefix='f'):
    """Return files with different contents."""
    return dict([('%s%04d' % (prefix, number), os.urandom(20) * (number % 50)) for number in range(count)])


def real_files(wanted):
    """Return {name: path} of files of this machine, named for a flat folder."""
    found = {}
    for root in ('/usr/share/zoneinfo', '/usr/share/doc', sys.prefix):
        most = wanted // 2 if root.endswith('zoneinfo') else wanted
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                flat = path[1:].replace('/', '+')
                if len(found) >= most:
                    break
                if (os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK)
                        and os.path.getsize(path) < 100000 and len(flat) < 200
                        and not re.search(r'(\.tmp|\.part|\.partial|\.filepart|~|\.reason)\Z', flat)):
                    found[flat] = path
    return found


def put_what_is_no_file(host, source):
    """Leave links, folders, FIFOs and a socket in the spool; return their names with their kinds."""
    in_spool = lambda name: os.path.join(host.spool, name)  # noqa: E731
    os.symlink(source, in_spool('link to a file'))
    os.symlink('/usr/share', in_spool('link to a folder'))
    os.symlink('nowhere', in_spool('broken link'))
    os.link(in_spool('link to a file'), in_spool('second name of a link'))
    os.mkdir(in_spool('folder'))
    with open(in_spool('folder/file'), 'w') as stream:
        stream.write('stays')
    os.mkfifo(in_spool('fifo'))
    listener = socket.socket(socket.AF_UNIX)
    before = os.getcwd()
    os.chdir(host.spool)  # a socket's path may have 107 bytes
    try:
        listener.bind('socket')
    finally:
        os.chdir(before)
        listener.close()
    return no_files(host)


def no_files(host):
    kinds = [(name, os.lstat(os.path.join(host.spool, name)).st_mode) for name in os.listdir(host.spool)]
    return dict([(name, stat.S_IFMT(mode)) for name, mode in kinds if name not in OWN and not stat.S_ISREG(mode)])


def test_hundreds_of_real_files_arrive_byte_for_byte_and_what_is_no_file_stays(host, nginx):
    url, stored = store(nginx, host)
    host.configure((url, ''))
    sources = real_files(350)
    files = dict([(name, read(path)) for name, path in sources.items()])
    assert len(files) >= 300
    files.update([(compat.fs_native(raw), b'odd: ' + raw) for raw in ODD_NAMES])
    files['empty'] = b''
    files['large'] = os.urandom(1 << 20) * 5 + b'end'
    host.put(files)
    others = put_what_is_no_file(host, sorted(sources.values())[0])
    assert len(others) == 7
    assert host.once() == (0, '', '')
    assert contents(stored) == files
    assert host.sent() == files
    assert host.waiting() == host.rejected() == {}
    assert no_files(host) == others
    assert read(os.path.join(host.spool, 'folder', 'file')) == b'stays'
    for name, path in sources.items():
        assert read(path) == files[name], 'the source was touched'

    def requests():
        return [line for line in nginx.log() if ' /in/%s/' % host.name in line]
    until(lambda: len(requests()) >= len(files), 'nginx logs every request')
    assert len(requests()) == len(files), 'each was sent once'
    assert host.once() == (0, '', ''), 'nothing to do'


def test_the_name_in_the_header_leads_to_the_same_file(host, nginx):
    host.configure((nginx.url + '/in', ''))
    files = host.put(dict([(compat.fs_native(b'header ' + raw[:200]), raw) for raw in ODD_NAMES]))
    assert host.once()[0] == 0
    found = contents(nginx.stored)
    assert dict([(name, found.get(name)) for name in files]) == files


def fields(raw):
    """Read a reason file as RFC 822 has it; return its fields in order, and the rest."""
    message = email.message_from_string(compat.byte_string(raw))
    assert not getattr(message, 'defects', None)
    return message.items(), message.get_payload()


def test_a_rejected_file_goes_to_error_with_every_field_of_its_reason(host, nginx):
    host.configure((nginx.url + '/rejects', 'brake = 0'))
    files = host.put({'order 17.json': b'{}', 'empty': b'', compat.fs_native(b'new\nline \xff'): b'odd',
                      'large': b'not read by nginx before it answers' * 100000})
    begin = int(time.time())
    code, out, err = host.once()
    assert (code, out) == (65, '')
    assert err.startswith('envio: orders: 4 files rejected, last: 422') and err.count('\n') == 1
    assert host.sent() == host.waiting() == {}
    rejected = host.rejected()
    reasons = dict([(name, rejected.pop(name + '.reason')) for name in files])
    assert rejected == files
    keys = set()
    for name, shown in ((n, 'new%0Aline %FF' if '\n' in n else n) for n in files):
        pairs, body = fields(reasons[name])
        assert [field for field, _ in pairs] == ['File', 'Receiver', 'URL', 'Status', 'Reason', 'Time', 'Attempts',
                                                 'Idempotency-Key', 'Requeue']
        reason = dict(pairs)
        assert (reason['File'], reason['Receiver']) == (shown, 'orders')
        assert reason['URL'] == nginx.url + '/rejects'
        assert reason['Status'].split()[0] == '422'
        assert reason['Reason'] == 'Not an order: field "total" is missing'
        at = time.strptime(reason['Time'] + ' UTC', '%Y-%m-%dT%H:%M:%SZ %Z')
        assert begin <= calendar.timegm(at) <= time.time()
        assert reason['Attempts'] == '1'
        assert re.match(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z', reason['Idempotency-Key'])
        keys.add(reason['Idempotency-Key'])
        assert shlex.split(reason['Requeue'])[:4] == ['envio', '-c', host.conf, 'requeue']
        if name == shown:
            assert shlex.split(reason['Requeue'])[4:] == [name]
        assert body == '{"title": "Not an order", "detail": "field \\"total\\" is missing"}\n'
    assert len(keys) == len(files)


def test_404_rejects_and_the_status_line_is_the_reason(host, nginx):
    host.configure((nginx.url + '/missing', ''))
    files = host.put(some(3))
    assert host.once()[0] == 65
    rejected = host.rejected()
    reasons = [dict(fields(rejected.pop(name + '.reason'))[0]) for name in files]
    assert rejected == files and host.sent() == host.waiting() == {}
    for reason in reasons:
        assert reason['Status'] == reason['Reason'] == '404 Not Found'


def test_a_file_too_large_for_the_server_is_rejected_and_the_others_are_not(host, nginx):
    host.configure((nginx.url + '/small', ''))
    files = host.put({'large': os.urandom(1 << 20) * 3, 'small': b'x'})
    assert host.once()[0] == 65
    assert sorted(host.rejected()) == ['large', 'large.reason'] and list(host.sent()) == ['small']
    assert host.rejected()['large'] == files['large']


def test_503_and_301_leave_every_file_where_it_is(host, nginx):
    host.configure((nginx.url + '/busy', '', 'busy', 'b*'), (nginx.url + '/moved', '', 'moved', 'm*'))
    files = host.put(dict(some(20, 'b'), **some(20, 'm')))
    code, out, err = host.once()
    assert (code, out) == (75, '')
    assert host.waiting() == files and host.sent() == host.rejected() == {}
    assert 'envio: busy: ' in err and ', last: 503 Service' in err
    assert 'envio: moved: ' in err and 'HOLD: 301 Moved Permanently' in err
    assert 'envio: 40 files waiting in the spool\n' in err


def test_401_empties_no_spool_into_error(host, nginx):
    host.configure((nginx.url + '/denied', 'hold = 401, 403, 407', 'held', 'h*'),
                   (nginx.url + '/denied', '', 'braked', 'b*'))
    files = host.put(dict(some(30, 'h'), **some(30, 'b')))
    code, _, err = host.once()
    assert code == 65, 'some were rejected'
    assert ', last: 401' in err
    rejected = sorted([name for name in host.rejected() if not name.endswith('.reason')])
    assert len(rejected) == 10 and not [name for name in rejected if not name.startswith('b')]
    assert host.places() == sorted(files)
    assert len(host.waiting()) == 50


def test_rejected_waiting_and_accepted_files_at_once_end_in_65_and_the_waiting_alone_in_75(host, nginx):
    url, stored = store(nginx, host)
    host.configure((url, '', 'good', 'g*'), (nginx.url + '/missing', '', 'bad', 'b*'),
                   (nginx.url + '/busy', '', 'busy', 'w*'))
    files = host.put({'good': b'1', 'bad': b'2', 'wait': b'3', 'nobody wants it': b'4'})
    assert host.once()[0] == 65
    assert host.sent() == contents(stored) == {'good': b'1'}
    assert sorted(host.rejected()) == ['bad', 'bad.reason']
    assert sorted(host.waiting()) == ['nobody wants it', 'wait']
    os.unlink(os.path.join(host.spool, 'wait'))
    code, _, err = host.once()
    assert (code, sorted(host.waiting())) == (75, ['nobody wants it'])
    assert 'envio: 1 file without a receiver' in err
    assert host.places() == sorted(set(files) - set(['wait']))


def test_files_for_a_stopped_server_wait_until_it_is_back(host, tmpdir):
    server = own_nginx(tmpdir)
    with server:
        url, stored = store(server, host)
    host.configure((url, QUICK))
    files = host.put(some(30))
    code, out, err = host.once()
    assert (code, out) == (75, '')
    assert 'last: 127.0.0.1:%d: can\'t connect: Connection refused' % server.port in err
    assert host.waiting() == files and host.sent() == host.rejected() == {}
    with server:
        assert host.once() == (0, '', '')
    assert host.sent() == contents(stored) == files


def gate(answer=None):
    """Return (script, gate): a script for ScriptedServer that answers one request, once the gate is set."""
    opened = threading.Event()

    def script():
        yield ('read_request',)
        opened.wait(PATIENCE)
        yield ('send', ok() if answer is None else answer)
        yield ('read_to_end',)
    return script(), opened


def test_a_second_agent_says_who_has_the_spool_and_touches_nothing(host):
    script, answer = gate()
    with ScriptedServer(script) as server:
        host.configure((server.url, ''))
        files = host.put({'a': b'1'})
        first = host.start('once')
        first.until(server.requests, 'the first agent sends')
        for command in ('once', 'run'):
            code, out, err = host.start(command).end()
            assert (code, out) == (75, '')
            assert err.startswith('envio: %s: another agent has this spool: pid %d since ' % (host.spool, first.pid))
            assert err.count('\n') == 1
        assert host.waiting() == files
        answer.set()
        assert first.end() == (0, '', '')
        assert len(server.requests()) == 1 and host.sent() == files


@pytest.mark.parametrize('number, command, code', [(signal.SIGTERM, 'once', 75), (signal.SIGTERM, 'run', 0),
                                                   (signal.SIGINT, 'once', 75), (signal.SIGKILL, 'run', -9)])
def test_stopped_amid_its_files_and_started_again_it_has_each_in_one_place(host, number, command, code):
    kept = os.path.join(host.folder, 'kept')
    server = tryout.serve(folder=kept, answers='200:delay=30ms').start()
    try:
        host.configure((server.url + '/{name}', ''))
        files = host.put(some(400))
        agent = host.start(command)
        agent.until(lambda: len(host.sent()) >= 10, 'some files are sent')
        agent.signal(number)
        assert agent.end()[0] == code
        sent = host.sent()
        assert 10 <= len(sent) < 400
        assert host.places() == sorted(files)
        assert dict(host.waiting(), **sent) == files
        received = contents(kept)
        for name in sent:
            assert received[name] == files[name], 'sent, but not received'
        server.answer('200')
        assert host.once()[0] == 0
        assert host.sent() == files and host.waiting() == host.rejected() == {}
        received = contents(kept)
        again = dict([(name, received.pop(name)) for name in list(received) if name.endswith('.1')])
        assert received == files
        # After a crash what was out is sent a second time, but no more than that.
        assert len(again) <= (4 if number == signal.SIGKILL else 0), agent.said()
        for name in again:
            assert again[name] == files[name[:-2]]
    finally:
        server.stop()


def test_after_a_crash_the_file_carries_the_same_idempotency_key(host):
    with ScriptedServer([('read_request',), ('hang',)], [('read_request',), ('send', ok())]) as server:
        host.configure((server.url, ''))
        host.put({'a': b'content'})
        agent = host.start('run')
        agent.until(server.requests, 'the file is sent')
        agent.signal(signal.SIGKILL)
        assert agent.end()[0] == -9
        assert list(host.waiting()) == ['a']
        assert host.once()[0] == 0
        requests = server.requests()
        assert [request.body for request in requests] == [b'content', b'content']
        keys = [dict(request.headers)['Idempotency-Key'] for request in requests]
        assert keys[0] == keys[1]


def test_sigterm_lets_the_file_that_is_out_finish_and_starts_no_other(host):
    script, answer = gate()
    with ScriptedServer(script) as server:
        host.configure((server.url, ''), agent='workers = 1\nstop_grace = 60s')
        files = host.put({'a': b'1', 'b': b'2', 'c': b'3'})
        agent = host.start('run')
        agent.until(server.requests, 'the first file is out')
        agent.signal(signal.SIGTERM)
        agent.heeds()
        answer.set()
        assert agent.end()[0] == 0
        assert len(server.requests()) == 1
        assert len(host.sent()) == 1 and len(host.waiting()) == 2
        assert dict(host.waiting(), **host.sent()) == files


@pytest.mark.parametrize('grace, signals', [('300ms', 1), ('60s', 2)])
def test_what_is_still_out_after_stop_grace_or_a_second_sigterm_stays(host, grace, signals):
    with ScriptedServer([('read_request',), ('hang',)]) as server:
        host.configure((server.url, ''), agent='stop_grace = %s' % grace)
        files = host.put({'a': b'1'})
        agent = host.start('run')
        agent.until(server.requests, 'the file is out')
        agent.signal(signal.SIGTERM)
        if signals == 2:
            agent.heeds()
            agent.signal(signal.SIGTERM)
        code, _, err = agent.end()
        assert code == 0
        if signals == 1:
            assert 'stopped after 0.3 s: 1 file still being sent' in err
        assert host.waiting() == files and host.sent() == host.rejected() == {}


def test_run_delivers_what_comes_reloads_tells_its_state_and_stops(host, nginx):
    url, stored = store(nginx, host)
    host.configure((url, ''))
    agent = host.start('run')
    first = host.put(some(20, 'first'))
    agent.until(lambda: len(host.sent()) == 20, '20 files are sent')
    second = host.put(some(20, 'second'))
    agent.until(lambda: len(host.sent()) == 40, '40 files are sent')
    assert contents(stored) == dict(first, **second)

    host.configure((url.replace('{name}', 'new/{name}'), ''), agent='workers = 3')
    agent.signal(signal.SIGHUP)
    agent.hears('reload: %s is in force' % host.conf)
    third = host.put(some(20, 'third'))
    agent.until(lambda: len(host.sent()) == 60, '60 files are sent')
    assert contents(os.path.join(stored, 'new')) == third

    host.configure((url.replace('{name}', 'wrong/{name}'), 'colour = blue\nworkers = many'))
    agent.signal(signal.SIGHUP)
    agent.hears('reload: the configuration in force stays')
    assert '%s:%d: ' % (host.conf, read(host.conf).split(b'\n').index(b'colour = blue') + 1) in agent.said()
    fourth = host.put(some(20, 'fourth'))
    agent.until(lambda: len(host.sent()) == 80, '80 files are sent')
    assert contents(os.path.join(stored, 'new')) == dict(third, **fourth)
    assert not os.path.exists(os.path.join(stored, 'wrong'))

    state = agent.state()
    assert 'state: orders: 80 accepted' in state and 'receiver orders: CLOSED, 0 waiting, 0 out' in state
    agent.signal(signal.SIGTERM)
    code, out, err = agent.end()
    assert (code, out) == (0, '')
    assert 'Traceback' not in err
    host.configure((url, ''))
    assert host.once() == (0, '', ''), 'the spool was given back'


def test_run_sends_again_what_failed_once_its_server_is_back(host, tmpdir):
    server = own_nginx(tmpdir)
    with server:
        url, stored = store(server, host)
    pauses = ('breaker_pause', 'breaker_max_pause', 'retry_pause', 'retry_max_pause')
    host.configure((url, '\n'.join(['%s = 100ms' % pause for pause in pauses])))
    files = host.put(some(20))
    agent = host.start('run')
    agent.hears('receiver orders: OPEN for ')
    assert host.waiting() == files
    with server:
        agent.until(lambda: len(host.sent()) == 20, '20 files are sent')
        agent.hears('receiver orders: CLOSED')
        agent.signal(signal.SIGTERM)
        assert agent.end()[0] == 0
    assert host.sent() == contents(stored) == files
