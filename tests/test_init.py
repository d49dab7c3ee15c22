"""init.d/envio: starts and really stops the agent in every shell of this machine, with LSB's exit codes.

Each test works on a copy of the script that looks into folders of the test instead of the system's.
"""

import os
import signal
import subprocess
import sys

import pytest

from agent import config, settings
from tests import nobody
from tests.conftest import ROOT
from tests.servers import ScriptedServer
from tests.test_daemon import NOWHERE, DetachingHost, ended
from tests.test_end_to_end import ENVIO, gate, read, until
from tests.test_launcher import run, which, write

INIT = os.path.join(ROOT, 'init.d', 'envio')
PLACES = ('/etc/default/envio', '/etc/sysconfig/envio', '/var/lock/subsys/', '/lib/lsb/init-functions',
          '/etc/rc.d/init.d/functions', '/opt/envio')
LONG_LIFE = (('dash',), ('busybox', 'sh'))
SHORT_LIFE = (('bash', '--posix'), ('mksh',), ('ksh',), ('posh',), ('yash',))
ASTRAY = dict.fromkeys(['ENVIO', 'ENVIO_PYTHON', 'PYTHONHOME', 'PATH', 'CONFIG'], '/nonexistent')


class SysvHost(DetachingHost):
    """A host with the script in its init.d, an agent that sends nowhere, and a settings file for both."""

    def __init__(self, folder):
        DetachingHost.__init__(self, folder)
        os.chmod(self.folder, 0o755)
        self.conf = os.path.join(self.folder, 'my envio.conf')
        self.run_dir = os.path.join(self.folder, 'run dir')
        self.pid_file = self.run_dir + '/envio.pid'
        self.keys = 'run_dir = %s\nlog_file = %s\n' % (self.run_dir, self.log)
        for place in PLACES:
            if not os.path.isdir(os.path.dirname(self.folder + place)):
                os.makedirs(os.path.dirname(self.folder + place))
        self.subsys = self.folder + '/var/lock/subsys/envio'
        self.script = self.folder + '/etc/init.d/envio'
        os.mkdir(os.path.dirname(self.script))
        write(self.script, read(INIT).decode('ascii'), 0o755)
        self.edit(('"$(id -u)" -eq 0', '"$(id -u)" -eq %d' % os.getuid()), *[(at, self.folder + at) for at in PLACES])
        self.settings = 'ENVIO="%s"\nPYTHON="%s"\nexport PYTHONDONTWRITEBYTECODE=1\n' % (ENVIO, sys.executable)
        self.set(self.settings + 'CONFIG="%s"\n' % self.conf)
        self.configure((NOWHERE, ''), agent=self.keys)

    def edit(self, *changes):
        """Change the copy of the script: (text, its replacement), ..."""
        text = read(self.script).decode('ascii')
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        write(self.script, text, 0o755)

    def set(self, page):
        write(self.folder + '/etc/default/envio', page)

    def do(self, *words, **how):
        """Return (exit code, standard output, standard error) of the script, by how['shell'] or its own."""
        return run(list(how.get('shell', ())) + [self.script] + list(words), **ASTRAY)

    def does(self, action, code, shell=()):
        """Let the script do it; return all it said. AssertionError when it ends with another code."""
        found = self.do(action, shell=shell)
        assert found[0] == code, found
        return found[1] + found[2]


@pytest.fixture
def host(tmpdir):
    host = SysvHost(tmpdir.mkdir('host'))
    yield host
    host.end()


@pytest.fixture
def open_host():
    """A host whose folder every account gets to."""
    folder = nobody.make_folder()
    host = SysvHost(folder)
    yield host
    host.end()
    nobody.remove(folder)


def shell_of(words):
    path = which(words[0])
    if path is None:
        pytest.skip('%s is not installed' % words[0])
    return [path] + list(words[1:])


# --- a life

@pytest.mark.parametrize('words', LONG_LIFE, ids=' '.join)
def test_a_life_with_everything_in_it(host, words):
    shell = shell_of(words)
    assert host.does('status', 3, shell) == 'envio is not running\n'
    assert host.do('start', shell=shell) == (0, 'Starting envio: done\n', '')
    first = host.pid()
    assert os.path.exists(host.subsys)
    assert host.does('status', 0, shell) == 'envio is running (pid %d)\n' % first
    assert host.does('start', 0, shell) == 'envio is already running (pid %d)\n' % first
    host.does('reload', 0, shell)
    until(lambda: 'reload: %s is in force' % host.conf in host.logged(), host.logged)
    host.does('restart', 0, shell)
    assert host.pid() != first and ended(first) and not ended(host.pid())
    second = host.pid()
    host.does('condrestart', 0, shell)
    assert ended(second)
    second = host.pid()
    assert host.do('stop', shell=shell) == (0, 'Stopping envio: done\n', '')
    assert ended(second) and not os.listdir(host.run_dir) and not os.path.exists(host.subsys)
    assert host.does('status', 3, shell) == host.does('stop', 0, shell) == 'envio is not running\n'


@pytest.mark.parametrize('words', SHORT_LIFE, ids=' '.join)
def test_every_shell_starts_and_stops(host, words):
    shell = shell_of(words)
    host.does('start', 0, shell)
    pid = host.pid()
    assert host.does('status', 0, shell) == 'envio is running (pid %d)\n' % pid
    host.does('start', 0, shell)
    host.does('stop', 0, shell)
    assert ended(pid)
    host.does('status', 3, shell)


def test_what_needs_a_running_agent_without_one(host):
    assert 'it is not running' in host.does('reload', 7)
    host.does('force-reload', 7)
    for action in ('try-restart', 'condrestart', 'stop'):
        assert host.does(action, 0) == 'envio is not running\n'
    assert not os.path.exists(host.run_dir), 'nothing was started'


def test_restart_starts_what_does_not_run(host):
    host.does('restart', 0)
    host.does('status', 0)


@pytest.mark.parametrize('words, code', [((), 2), (('frob',), 2), (('start', 'now'), 2), (('status', 'now'), 4)])
def test_other_words_are_refused(host, words, code):
    found = host.do(*words)
    assert found[0] == code and found[1] == '' and 'usage: ' in found[2]


# --- what a pid says

def test_a_crash_leaves_a_pid_file_that_deceives_nobody(host):
    host.does('start', 0)
    os.kill(host.pid(), signal.SIGKILL)
    until(lambda: ended(host.pid()), 'it ends')
    assert host.pid_file in host.does('status', 1)
    host.does('reload', 7)
    host.does('stop', 0)
    host.does('status', 3)
    write(host.subsys, '')
    assert host.subsys in host.does('status', 2)
    write(host.pid_file, '')
    host.does('status', 1)
    host.does('start', 0)
    host.does('status', 0)


def test_a_pid_that_another_has_by_now_is_left_alone(host, tmpdir):
    other = DetachingHost(tmpdir.mkdir('other'))
    other.configure((NOWHERE, ''), agent=other.keys)
    sleeper = subprocess.Popen(['sleep', '1000'])
    try:
        assert other.detach()[0] == 0
        os.mkdir(host.run_dir)
        for pid in (sleeper.pid, other.pid(), 0, -1, 1, ''):
            write(host.pid_file, '%s\n' % pid)
            host.does('status', 1)
            host.does('stop', 0)
            assert not os.path.exists(host.pid_file)
        assert sleeper.poll() is None and not ended(other.pid())
    finally:
        sleeper.kill()
        sleeper.wait()
        other.end()


def test_an_agent_is_found_when_its_run_dir_was_cleared_away(host):
    host.does('start', 0)
    pid = host.pid()
    os.unlink(host.pid_file)
    os.rmdir(host.run_dir)
    assert 'pid %d' % pid in host.does('status', 0)
    host.does('stop', 0)
    assert ended(pid)
    host.does('status', 3)


def test_another_agent_on_the_spool_is_not_taken_for_the_service(host):
    with ScriptedServer([('read_request',), ('hang',)]) as server:
        host.configure((server.url, ''), agent=host.keys)
        host.put({'a': b''})
        other = host.start('once')
        other.until(server.requests, 'it sends')
        host.does('status', 3)
        code, out, err = host.do('start')
        assert (code, out) == (1, 'Starting envio: failed\n')
        assert 'another agent has this spool: pid %d since' % other.pid in err
        host.does('stop', 0)
        other.kill()


# --- stopping

def test_stop_waits_for_what_is_being_sent(host):
    script, answer = gate()
    with ScriptedServer(script) as server:
        host.configure((server.url, ''), agent=host.keys + 'stop_grace = 1m\n')
        host.does('start', 0)
        host.put({'a': b'content'})
        until(server.requests, host.logged)
        stopping = subprocess.Popen([host.script, 'stop'], stdout=subprocess.PIPE)
        assert os.read(stopping.stdout.fileno(), 100) == b'Stopping envio: '
        assert stopping.poll() is None and not ended(host.pid())
        answer.set()
        assert stopping.communicate()[0] == b'done\n' and stopping.returncode == 0
    assert host.sent() == {'a': b'content'}


def test_stop_says_so_when_the_agent_still_runs(host):
    host.edit(('gone $((limit + 5))', 'gone 0'), ('gone 5', 'gone 1'))
    host.does('start', 0)
    pid = host.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        said = host.does('stop', 1)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert 'Stopping envio: failed\n' in said and 'pid %d still runs' % pid in said
    until(lambda: ended(pid), host.logged)


# --- what is not as it should be

def test_a_program_or_a_configuration_that_is_missing_or_wrong(host):
    host.set('ENVIO=/nonexistent/envio\n')
    assert 'envio: /nonexistent/envio: no such program' in host.does('start', 5)
    host.set(host.settings + 'CONFIG=/nonexistent/envio.conf\n')
    for action in ('start', 'restart', 'reload'):
        assert 'envio: /nonexistent/envio.conf: no such file' in host.does(action, 6)
    host.does('stop', 0)
    host.set('if\n')
    assert 'mend it' in host.does('start', 6)
    host.does('status', 4)
    host.set(host.settings + 'CONFIG="%s"\n' % host.conf)
    host.configure((NOWHERE, 'frob = 1'), agent=host.keys)
    code, out, err = host.do('start')
    assert (code, out) == (6, 'Starting envio: failed\n') and 'frob' in err and err.count('\n') == 1
    host.does('status', 3)


def test_a_wrong_configuration_stops_no_running_agent(host):
    host.does('start', 0)
    pid = host.pid()
    host.configure((NOWHERE, 'frob = 1'), agent=host.keys)
    for action in ('restart', 'try-restart', 'reload', 'force-reload'):
        said = host.does(action, 6)
        assert 'frob' in said and 'goes on with the configuration it has' in said
    assert host.pid() == pid and not ended(pid)
    assert 'reload' not in host.logged()


@pytest.mark.skipif(os.getuid() != 0, reason='only root can become another account')
def test_other_accounts_may_ask_and_do_nothing_else(open_host):
    host = open_host
    nobody.give(host.spool)
    host.does('start', 0)

    def denied():
        for action in ('start', 'stop', 'restart', 'try-restart', 'reload', 'force-reload'):
            assert 'only root may do this' in host.does(action, 4)
        assert host.does('status', 0) == 'envio is running (pid %d)\n' % host.pid()
    nobody.run(denied)
    for path, mode in ((host.pid_file, 0o600), (host.run_dir, 0o700), (host.conf, 0o600)):
        before = os.stat(path).st_mode
        os.chmod(path, mode)
        nobody.run(lambda: host.does('status', 4))
        os.chmod(path, before)
        host.does('status', 0)


# --- what it reads

def asked(host, *calls):
    """Return what functions of the script print, a line each."""
    with open(host.script) as page:
        text = page.read().partition('[ $# -eq 1 ]')[0]
    code, out, err = run(['/bin/sh', write(host.script + '-asked', text + '\n'.join(calls) + '\n')])
    assert (code, err) == (0, ''), err
    return out.splitlines()


@pytest.mark.parametrize('value', ['0', '500ms', '30s', '008s', '2m', '1h', '09d'])
def test_stop_grace_is_read_as_the_agent_reads_it(host, value):
    host.configure((NOWHERE, ''), agent='stop_grace = %s\n' % value)
    seconds = int(asked(host, 'grace')[0])
    assert settings.duration(value) <= seconds <= settings.duration(value) + 1


BARE = '[agent]\nspool = /s\n'


@pytest.mark.parametrize('page', [
    BARE, '[agent]\nspool=/s\nrun_dir=/a b\n', '[agent]\r\nspool = /s\r\nrun_dir  =\t/a b \r\n',
    b'\xef\xbb\xbf'.decode('utf-8') + BARE + 'run_dir = /a\n',
    '[agent]\nspool =\n  /s\n  /t\nrun_dir =\n\t/a\n', '# [agent]\n# run_dir = /no\n\n' + BARE + 'run_dir = /a\n',
    '[receiver:b]\nmatch = *\nurl = http://h/\nheaders = X: 1\n  run_dir: /no\n[ agent ]\nspool = /s\nrun_dir = /a\n',
    BARE + '; run_dir = /no\nrun_dir = /back\\n/caf' + b'\xc3\xa9'.decode('utf-8') + '\n'])
def test_settings_are_read_as_the_agent_reads_them(host, page):
    page += '[receiver:a]\nmatch = *\nurl = http://h/\n'
    with open(host.conf, 'wb') as stream:
        stream.write(page.encode('utf-8'))
    as_the_agent = config.load(host.conf)
    answers = asked(host, 'setting run_dir /var/run/envio', 'setting spool none', 'setting stop_grace none')
    assert answers == [as_the_agent.run_dir, as_the_agent.spool[0], 'none']


def test_its_tree_is_found_through_links(host, tmpdir):
    tree = tmpdir.mkdir('a tree')
    write(tree.mkdir('bin').join('envio'), '#!/bin/sh\necho "$0 $*" >&2\nexit 78\n', 0o755)
    tree.mkdir('init.d').join('envio').write(read(host.script))
    tree.join('init.d', 'envio').chmod(0o755)
    os.unlink(host.script)
    os.symlink(str(tree.join('init.d', 'envio')), host.script)
    os.mkdir(host.folder + '/etc/rc3.d')
    os.symlink('../init.d/envio', host.folder + '/etc/rc3.d/S85envio')
    host.set('CONFIG="%s"\n' % host.conf)
    expected = '%s -c %s run --detach\n' % (tree.join('bin', 'envio'), host.conf)
    for script in (host.script, host.folder + '/etc/rc3.d/S85envio'):
        assert run([script, 'start'], **ASTRAY) == (6, 'Starting envio: failed\n', expected)


def test_who_started_it_waits_for_nothing_that_the_agent_keeps_open(host):
    code, out, err = run(['/bin/sh', '-c', 'exec 3>&1 4>&1 9>&1 >/dev/null; exec "$@"', 'sh', host.script, 'start'])
    assert (code, out, err) == (0, '', '')
    host.does('status', 0)


# --- display

DISPLAYS = {
    'lib/lsb/init-functions': [
        ('log_daemon_msg() { echo "[$1: $2"; }\nlog_end_msg() { echo "$1]"; return $1; }\n',
         '[Starting the sender of spooled files: envio\n%d]\n'),
        ('log_success_msg() { echo "0: $1"; }\nlog_failure_msg() { echo "6: $1"; }\n', '%d: Starting envio\n')],
    'etc/rc.d/init.d/functions': [
        ('PATH=/sbin:/bin\nsuccess() { printf "[0 $1]"; }\nfailure() { printf "[6 $1]"; return 1; }\n',
         'Starting envio: [%d Starting envio]\n')],
}


@pytest.mark.parametrize('path, functions, shown', [
    (path, functions, shown) for path in sorted(DISPLAYS) for functions, shown in DISPLAYS[path]])
def test_the_distributions_own_messages_are_used_where_they_are(host, path, functions, shown):
    write(os.path.join(host.folder, path), functions)
    host.set('CONFIG="%s"\nENVIO="%s/stub"\n' % (host.conf, host.folder))
    for code, ends in ((6, 78), (0, 0)):
        write(host.folder + '/stub', '#!/bin/sh\nexit %d\n' % ends, 0o755)
        assert host.do('start') == (code, shown % code, '')


def test_the_real_functions_of_this_machine_do(host):
    functions = [path for path in PLACES[3:5] if os.path.exists(path)]
    if not functions:
        pytest.skip('there are neither LSB\'s nor Red Hat\'s functions on this machine')
    os.symlink(functions[0], host.folder + functions[0])
    assert 'envio' in host.does('start', 0)
    assert 'envio' in host.does('stop', 0)
