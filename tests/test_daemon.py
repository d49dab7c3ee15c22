"""`run --detach`, the pid file, `user` and `group`: the agent as a process that outlives who started it."""

import ast
import errno
import grp
import os
import pwd
import signal
import shutil
import stat
import subprocess
import sys

import pytest

from agent import compat, config as reader, privileges
from agent.daemon import PID_FILE
from agent.errors import ConfigError
from tests import nobody
from tests.conftest import ROOT
from tests.servers import ScriptedServer, ok
from tests.test_end_to_end import ENVIO, Host, read, until

NOWHERE = 'http://127.0.0.1:9/in'
as_root = pytest.mark.skipif(os.getuid() != 0, reason='only root can become another account')


class DetachingHost(Host):
    """A Host whose agents leave; those that its pid file names are ended with it."""

    def __init__(self, folder):
        Host.__init__(self, folder)
        self.run_dir = os.path.join(self.folder, 'run')
        self.log = os.path.join(self.folder, 'log')
        self.keys = 'run_dir = %s\nlog_file = %s\n' % (self.run_dir, self.log)

    def detach(self, *words, **environ):
        """Return (exit code, standard output, standard error) of `envio run --detach`."""
        return self.start('run', '--detach', *words, **environ).end()

    def pid(self):
        return int(read(os.path.join(self.run_dir, PID_FILE)))

    def logged(self):
        return compat.config_native(read(self.log))

    def end(self):
        for agent in self.agents:
            agent.kill()
        if os.path.exists(os.path.join(self.run_dir, PID_FILE)):
            os.kill(self.pid(), signal.SIGKILL)


@pytest.fixture
def host(tmpdir):
    host = DetachingHost(tmpdir)
    yield host
    host.end()


@pytest.fixture
def open_host():
    """A host whose folder every account gets to."""
    folder = nobody.make_folder()
    os.chmod(folder, 0o755)
    host = DetachingHost(folder)
    nobody.give(host.spool)
    yield host
    host.end()
    nobody.remove(folder)


def status(pid):
    """Return {field: value} of a process, {} when there is none."""
    try:
        lines = read('/proc/%d/status' % pid).decode('ascii', 'replace').splitlines()
    except EnvironmentError as error:
        assert error.errno in (errno.ENOENT, errno.ESRCH)
        return {}
    return dict([line.split(':\t', 1) for line in lines if ':\t' in line])


def ended(pid):
    return status(pid).get('State', 'Z')[0] == 'Z'


# --- leaving

def test_the_command_returns_when_the_agent_works_and_the_agent_goes_on(host):
    with ScriptedServer([('read_request',), ('send', ok())]) as server:
        host.configure((server.url, ''), agent=host.keys)
        assert host.detach() == (0, '', '')
        assert 'started' in host.logged(), 'before the command returned'
        pid = host.pid()
        assert stat.S_IMODE(os.stat(os.path.join(host.run_dir, PID_FILE)).st_mode) == 0o644
        host.put({'a': b'content'})
        until(lambda: host.sent() == {'a': b'content'}, host.logged)
        os.kill(pid, signal.SIGTERM)
        until(lambda: ended(pid), host.logged)
    assert host.logged().endswith('INFO stopped\n')
    assert os.listdir(host.run_dir) == []


def test_the_agent_has_no_terminal_and_nothing_open_of_who_started_it(host):
    host.configure((NOWHERE, ''), agent=host.keys)
    assert host.detach()[0] == 0
    proc = '/proc/%d' % host.pid()
    assert [os.readlink('%s/fd/%d' % (proc, fd)) for fd in range(3)] == ['/dev/null'] * 3
    assert os.readlink(proc + '/cwd') == '/'
    fields = read(proc + '/stat').decode('ascii').rpartition(') ')[2].split()
    parent, group, session, terminal = [int(field) for field in fields[1:5]]
    assert parent not in (os.getpid(), host.agents[0].pid)
    assert terminal == 0 and host.pid() not in (group, session), 'no leader of a session: it can\'t get a terminal'


@pytest.mark.parametrize('damage, code, words', [
    (lambda host: os.rmdir(host.spool), 78, 'No such file or directory'),
    (lambda host: host.configure((NOWHERE, 'frob = 1'), agent=host.keys), 78, 'frob'),
    (lambda host: host.configure((NOWHERE, ''), agent=host.keys + 'journal = /nowhere/j\n'), 78, 'journal'),
    (lambda host: open(host.run_dir, 'w').close(), 78, 'run_dir: '),
])
def test_the_command_says_why_the_agent_does_not_work_and_leaves_none(host, damage, code, words):
    host.configure((NOWHERE, ''), agent=host.keys)
    damage(host)
    found = host.detach()
    assert (found[0], found[1]) == (code, '') and words in found[2], found
    assert found[2].startswith('envio: ') and found[2].count('\n') == 1
    assert not os.path.isdir(host.run_dir) or os.listdir(host.run_dir) == []


def test_a_second_one_is_told_who_works(host):
    host.configure((NOWHERE, ''), agent=host.keys)
    assert host.detach()[0] == 0
    code, _, err = host.detach()
    assert code == 75 and 'another agent has this spool: pid %d since' % host.pid() in err
    assert not ended(host.pid())


def test_two_configurations_need_a_run_dir_each(host, tmpdir):
    host.configure((NOWHERE, ''), agent=host.keys)
    assert host.detach()[0] == 0
    pid = host.pid()
    host.spool = str(tmpdir.mkdir('other spool'))
    host.configure((NOWHERE, ''), agent=host.keys)
    code, _, err = host.detach()
    assert code == 78 and 'another agent has its pid file there: give each a run_dir of its own' in err
    assert host.pid() == pid and not ended(pid)


def test_a_pid_file_that_a_crash_left_is_no_obstacle(host):
    os.mkdir(host.run_dir)
    with open(os.path.join(host.run_dir, PID_FILE), 'w') as page:
        page.write('%d\n' % os.getpid())
    host.configure((NOWHERE, ''), agent=host.keys)
    assert host.detach()[0] == 0
    assert host.pid() != os.getpid()


def test_the_pid_file_is_no_way_to_another_file(host):
    os.mkdir(host.run_dir)
    with open(os.path.join(host.folder, 'precious'), 'w') as page:
        page.write('precious')
    os.symlink('../precious', os.path.join(host.run_dir, PID_FILE))
    host.configure((NOWHERE, ''), agent=host.keys)
    assert host.detach()[0] == 78
    assert read(os.path.join(host.folder, 'precious')) == b'precious'
    os.unlink(os.path.join(host.run_dir, PID_FILE))


def test_without_a_pid_file_in_the_foreground_it_works_all_the_same(host):
    open(host.run_dir, 'w').close()
    host.configure((NOWHERE, ''), agent='run_dir = %s\n' % host.run_dir)
    agent = host.start('run', '-v')
    agent.hears('run_dir: %s/%s can\'t be written' % (host.run_dir, PID_FILE))
    agent.signal(signal.SIGTERM)
    assert agent.end()[0] == 0


def test_a_relative_configuration_is_found_again_at_a_reload(host):
    host.configure((NOWHERE, ''), agent=host.keys)
    devnull = open(os.devnull, 'r+')
    assert subprocess.call([ENVIO, '-c', 'envio.conf', 'run', '--detach'], cwd=host.folder, close_fds=True,
                           env={'PATH': '/usr/bin:/bin', 'ENVIO_PYTHON': sys.executable},
                           stdin=devnull, stdout=devnull, stderr=devnull) == 0
    devnull.close()
    os.kill(host.pid(), signal.SIGHUP)
    until(lambda: 'reload: %s is in force' % host.conf in host.logged(), host.logged)


def test_what_ends_a_detached_agent_is_in_its_log(host):
    script = os.path.join(host.folder, 'faulty.py')
    with open(script, 'w') as page:
        page.write('import sys\nsys.path.insert(0, %r)\nfrom agent import cli, engine\n'
                   'def next_due(self):\n    raise ValueError("a fault")\n'
                   'engine.Agent.next_due = next_due\nsys.exit(cli.main())\n' % ROOT)
    host.configure((NOWHERE, ''), agent=host.keys)
    assert subprocess.call([sys.executable, script, '-c', host.conf, 'run', '--detach']) == 0
    until(lambda: 'ValueError: a fault' in host.logged(), host.logged)
    assert 'CRITICAL internal error: please report this' in host.logged()
    until(lambda: os.listdir(host.run_dir) == [], 'its pid file goes')


def test_a_second_signal_stops_it_at_once(host):
    with ScriptedServer([('hang',)]) as server:
        host.configure((server.url, ''), agent=host.keys + 'stop_grace = 10m\n')
        host.put({'a': b''})
        assert host.detach()[0] == 0
        pid = host.pid()
        until(lambda: server.conversations, host.logged)
        os.kill(pid, signal.SIGTERM)
        until(lambda: ended(pid) or os.kill(pid, signal.SIGTERM), host.logged)  # two at once may count as one
    assert 'stopped by a second signal: 1 file still being sent' in host.logged()


# --- user and group

def config(spool='/', **keys):
    page = '[agent]\nspool = %s\n%s[receiver:a]\nmatch = *\nurl = http://h/\n' % (
        spool, ''.join(['%s = %s\n' % key for key in keys.items()]))
    return reader.parse(compat.config_bytes(page), '/envio.conf')


def account():
    return pwd.getpwuid(nobody.NOBODY).pw_name


# nobody may not be able to read this Python, nor these folders: all is loaded before, as the account needs it.
PRELOADED = """\
import glob, os, sys
root, sys.argv[:] = sys.argv[1], sys.argv[1:]
sys.path.insert(0, root)
for name in sorted(glob.glob(root + '/agent/[a-z]*.py')):
    __import__('agent.' + os.path.basename(name)[:-3])
import encodings.ascii, encodings.idna, encodings.latin_1, encodings.utf_8, json, hashlib
from agent import cli, privileges
if privileges.closed.__module__ == 'agent.privileges':
    privileges.closed = lambda: []
sys.exit(cli.main(sys.argv[1:]))
"""


def preloaded(*words):
    """Return (exit code, standard error) of a command as root begins it."""
    child = subprocess.Popen([sys.executable, '-c', PRELOADED, ROOT] + list(words), stderr=subprocess.PIPE,
                             universal_newlines=True)
    said = child.communicate()[1]
    return child.returncode, said


def owners(folder, but):
    """Return the accounts and groups to which everything in a folder belongs, but for one name."""
    made = [os.path.join(where, name) for where, folders, files in os.walk(folder) for name in folders + files]
    return set([os.lstat(path)[4:6] for path in made if os.path.basename(path) != but])


@as_root
def test_root_becomes_the_account_before_it_touches_what_others_have(open_host):
    host = open_host
    with ScriptedServer([('read_request',), ('send', ok())]) as server:
        host.configure((server.url, ''), agent='user = %s\n' % account())
        host.put({'a': b'content'})
        assert preloaded('-c', host.conf, 'once') == (0, '')
    assert list(host.sent()) == ['a']
    assert owners(host.spool, 'a') == set([(nobody.NOBODY, nobody.NOBODY)])


@as_root
def test_a_detached_agent_of_root_is_the_accounts_with_its_log_and_its_pid_file(open_host):
    host = open_host
    logs = os.path.join(host.folder, 'logs')
    os.mkdir(logs, 0o755)
    nobody.give(logs)
    host.log = os.path.join(logs, 'log')
    with ScriptedServer([('read_request',), ('send', ok())]) as server:
        host.configure((server.url, ''), agent='user = %s\nrun_dir = %s\nlog_file = %s\n' % (
            account(), host.run_dir, host.log))
        assert preloaded('-c', host.conf, 'run', '--detach') == (0, '')
        host.put({'a': b'content'})
        until(lambda: host.sent(), host.logged)
    found = status(host.pid())
    assert found['Uid'].split() == found['Gid'].split() == [str(nobody.NOBODY)] * 4
    assert '0' not in found['Groups'].split()
    assert owners(host.spool, 'a') == owners(logs, '') == owners(host.run_dir, '') == set([(nobody.NOBODY,) * 2])
    os.kill(host.pid(), signal.SIGTERM)
    until(lambda: not os.listdir(host.run_dir), host.logged)


@as_root
def test_an_account_that_can_not_read_the_program_is_refused(open_host, tmpdir):
    open_host.configure((NOWHERE, ''), agent='user = %s\n' % account())
    tree = str(tmpdir.mkdir('tree'))
    os.chmod(tree, 0o700)
    shutil.copytree(os.path.join(ROOT, 'agent'), tree + '/agent', ignore=shutil.ignore_patterns('*.pyc', '__pycache__'))
    child = subprocess.Popen([sys.executable, '-c', PRELOADED.replace("'agent.privileges'", "''"), tree, '-c',
                              open_host.conf, 'once'], stderr=subprocess.PIPE, universal_newlines=True)
    said = child.communicate()[1]
    assert child.returncode == 78
    assert 'user: %s can\'t read %s/agent: put it where every account can' % (account(), tree) in said


@as_root
def test_the_group_may_be_another_and_the_supplementary_ones_are_the_accounts_own(monkeypatch):
    monkeypatch.setattr(privileges, 'closed', lambda: [])
    one = [entry for entry in grp.getgrall() if entry.gr_gid not in (0, nobody.NOBODY)][0]
    seen = accounts_after(lambda: privileges.drop(config(user=account(), group=one.gr_name)))
    assert seen == (nobody.NOBODY, one.gr_gid, [one.gr_gid])
    seen = accounts_after(lambda: privileges.drop(config(group=one.gr_name)))
    assert seen == (0, one.gr_gid, [one.gr_gid])


def accounts_after(action):
    """Return (user, group, supplementary groups) after action() in a child process."""
    def child():
        action()
        return repr((os.geteuid(), os.getegid(), sorted(os.getgroups())))
    return ast.literal_eval(nobody.in_child(child))


@as_root
def test_an_account_that_is_not_there_is_a_fault_of_the_configuration():
    for keys, words in (({'user': 'nobody-has-this'}, 'user: this host has no account \'nobody-has-this\''),
                        ({'group': 'nobody-has-this'}, 'group: this host has no group \'nobody-has-this\'')):
        with pytest.raises(ConfigError) as caught:
            privileges.drop(config(**keys))
        assert words in str(caught.value)


def test_who_is_not_root_stays_who_he_is():
    def check():
        before = os.getuid(), os.getgid()
        privileges.drop(config(user='root', group='nobody-has-this'))
        privileges.become_owner(config(spool='/'))
        assert (os.getuid(), os.getgid()) == before
    nobody.run(check)


@as_root
def test_a_configuration_that_the_account_can_not_read_again_is_said(open_host):
    host = open_host
    host.configure((NOWHERE, ''), agent='user = %s\n' % account())
    os.chmod(host.conf, 0o600)
    code, err = preloaded('-c', host.conf, 'check')
    assert code == 0 and 'can\'t be read by %s: a reload will be refused: chgrp and chmod g+r it' % account() in err


@as_root
@pytest.mark.parametrize('words', [['flush'], ['requeue', '--all']])
def test_root_acts_as_the_account_whose_agent_works_on_the_spool(open_host, words):
    host = open_host
    with ScriptedServer([('read_request',), ('send', ok(status='422 No'))]) as server:
        host.configure((server.url, ''), agent='user = %s\n' % account())
        host.put({'a': b'content'})
        nobody.give(os.path.join(host.spool, 'a'))
        code, said = preloaded('-c', host.conf, '-q', 'once')
        assert code == 65, said
        host.configure((server.url, ''))
    code, _, said = host.start(*words).end()
    assert code == 0, said
    assert list(host.waiting()) == (['a'] if words[0] == 'requeue' else [])
    assert owners(host.spool, '') == set([(nobody.NOBODY, nobody.NOBODY)])


def test_secrets_are_in_no_core_dump(host):
    with open(os.path.join(host.folder, 'token'), 'w') as page:
        page.write('secret\n')
    os.chmod(os.path.join(host.folder, 'token'), 0o600)
    for keys, limit in (('', None), ('token_file = %s/token\n' % host.folder, '0')):
        host.configure((NOWHERE, keys), agent=host.keys)
        assert host.detach()[0] == 0
        found = [line for line in read('/proc/%d/limits' % host.pid()).decode('ascii').splitlines() if 'core' in line]
        assert limit is None or found[0].split()[4] == limit
        os.kill(host.pid(), signal.SIGTERM)
        until(lambda: not os.listdir(host.run_dir), host.logged)


def test_who_reads_what_the_start_says_to_its_end_does_not_wait_for_the_agent(host):
    host.configure((NOWHERE, ''), agent=host.keys)
    child = subprocess.Popen(['sh', '-c', 'exec 3>&1 4>&2; "$0" -c "$1" run --detach', ENVIO, host.conf],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env={'PATH': '/usr/bin:/bin', 'ENVIO_PYTHON': sys.executable})
    assert child.communicate() == (b'', b'') and not ended(host.pid())
