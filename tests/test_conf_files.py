"""conf/ and the headers of init.d/envio, with what reads them: cron's shell, logrotate, systemd, insserv."""

import glob
import gzip
import os
import re
import signal
import stat
import sys

import pytest

from agent import cli, errors, settings
from tests import nobody
from tests.conftest import ROOT
from tests.programs import find
from tests.servers import ScriptedServer, ok
from tests.test_end_to_end import ENVIO, host, read, until  # noqa: F401 (host is a fixture)
from tests.test_daemon import NOWHERE
from tests.test_init import INIT, SysvHost
from tests.test_launcher import CRON, run, which, write

PROGRAM = '/opt/envio/bin/envio'


def conf(name):
    return read(os.path.join(ROOT, 'conf', name)).decode('ascii')


@pytest.fixture
def sysv(tmpdir):
    return SysvHost(tmpdir.mkdir('host'))


def answers(status):
    return [('read_request',), ('send', ok(status=status))]


def default(key):
    return settings.FOR_AGENT[key].default


# --- cron

class Crontab(object):
    """The lines of conf/envio.cron, their program replaced; in the environment of no cron at all."""

    def __init__(self, folder, page):
        self._program = write(folder.join('envio'), page, 0o755)
        self._lines = re.findall(r'(?m)^((?!#)(?:\S+ ){5})(\S+) (.*)$', conf('envio.cron'))

    def does(self, line):
        """Return (exit code, standard output, standard error) of the line of that number."""
        command = self._lines[line][2]
        assert PROGRAM in command
        return run(['/bin/sh', '-c', command.replace(PROGRAM, self._program)])[1:]

    def pass_(self):
        return self.does(0)

    def look(self):
        return self.does(1)


@pytest.fixture
def crontab(host, tmpdir):  # noqa: F811
    return Crontab(tmpdir, '#!/bin/sh\nENVIO_PYTHON="%s" PYTHONDONTWRITEBYTECODE=1 exec "%s" -c "%s" "$@"\n' % (
        sys.executable, ENVIO, host.conf))


SILENCE = ('', '')


def test_the_crontab_is_one_that_cron_takes():
    page = conf('envio.cron')
    assert page.endswith('\n')
    lines = [line for line in page.splitlines() if line and not line.startswith('#')]
    assert lines[0] == 'SHELL=/bin/sh'
    assert len(lines) == 3
    for line in lines[1:]:
        assert re.match(r'(\*|\d+) \* \* \* \* envio [a-z]+=', line) and '%' not in line, 'cron makes % a new line'
        assert len(line) < 1000
    assert ' once --max-time 50s' in lines[1]


def test_cron_mails_nothing_while_all_is_well_or_waits_for_its_next_try(host, crontab):  # noqa: F811
    with ScriptedServer(answers('200 OK'), answers('503 Busy')) as server:
        host.configure((server.url, ''))
        host.put({'a': b''})
        assert crontab.pass_() == SILENCE and list(host.sent()) == ['a']
        assert crontab.pass_() == crontab.look() == SILENCE
        host.put({'b': b''})
        assert crontab.pass_() == SILENCE and len(server.requests()) == 2
        assert crontab.pass_() == crontab.look() == SILENCE and list(host.waiting()) == ['b']


def test_cron_mails_nothing_when_a_pass_finds_another_at_work(host, crontab):  # noqa: F811
    with ScriptedServer([('read_request',), ('hang',)]) as server:
        host.configure((server.url, ''))
        host.put({'a': b''})
        first = host.start('once')
        first.until(server.requests, 'the first one sends')
        assert crontab.pass_() == crontab.look() == SILENCE
        first.kill()


def test_cron_mails_a_sentence_when_a_file_is_rejected(host, crontab):  # noqa: F811
    with ScriptedServer(answers('422 No')) as server:
        host.configure((server.url, ''))
        host.put({'a': b''})
        out, err = crontab.pass_()
    assert (err, out.count('\n')) == ('', 1)
    assert out.startswith('envio: orders: 1 file rejected, last: 422')
    assert crontab.pass_() == crontab.look() == SILENCE, 'once is enough'


def test_cron_mails_a_sentence_an_hour_when_a_receiver_is_on_hold_or_down(host, crontab):  # noqa: F811
    with ScriptedServer(answers('401 Who')) as server:
        host.configure((server.url, 'hold = 401', 'held', 'h*'), (NOWHERE, 'breaker_threshold = 1', 'down', 'd*'))
        host.put({'h': b'', 'd': b''})
        assert crontab.pass_() == SILENCE
    out, err = crontab.look()
    assert (err, out.count('\n')) == ('', 1)
    assert out.startswith('CRITICAL: held is on HOLD: 401') and 'down is OPEN with 1 file waiting' in out


def test_cron_mails_a_sentence_when_the_configuration_is_wrong(host, crontab):  # noqa: F811
    host.configure((NOWHERE, 'frob = 1'))
    for out, err in crontab.pass_(), crontab.look():
        assert (err, out.count('\n')) == ('', 1) and 'frob' in out


@pytest.mark.parametrize('code, says, mailed', [
    (0, 'a warning', False), (75, '2 files waiting in the spool', False), (65, '1 file rejected', True),
    (75, '1 file answered but not moved: make room', True), (70, 'internal error', True), (7, 'odd', True)])
def test_what_cron_mails_of_a_pass(tmpdir, code, says, mailed):
    crontab = Crontab(tmpdir, '#!/bin/sh\necho "envio: %s" >&2\nexit %d\n' % (says, code))
    assert crontab.pass_() == (mailed and 'envio: %s\n' % says or '', '')


# --- logrotate

def rotated(path):
    """Return all that was written to a log, the oldest first."""
    pages = []
    for name in sorted(glob.glob(path + '.*'), key=lambda name: -int(name[len(path) + 1:].split('.')[0])) + [path]:
        stream = gzip.open(name) if name.endswith('.gz') else open(name, 'rb')
        pages.append(stream.read())
        stream.close()
    return b''.join(pages).decode('ascii')


def test_logrotate_loses_no_line_of_a_working_agent_and_keeps_owner_and_mode(host, tmpdir):  # noqa: F811
    logrotate = find('logrotate')
    if logrotate is None:
        pytest.skip('logrotate is not installed')
    folder = os.path.join(host.folder, 'logs')
    os.mkdir(folder, 0o750)
    log, journal = [os.path.join(folder, name) for name in ('envio.log', 'journal')]
    for path in log, journal:
        write(path, '', 0o600)
        nobody.give(path)
    page = conf('envio.logrotate').replace('/var/log/envio/', folder + '/')
    error = os.path.join(host.spool, 'error')

    def rejected():
        return [name for name in os.path.isdir(error) and os.listdir(error) or () if not name.endswith('.reason')]
    command = [logrotate, '-f', '-s', str(tmpdir.join('state')), write(tmpdir.join('rotation'), page)]
    with ScriptedServer(answers('422 No')) as server:
        host.configure((server.url, 'brake = 0'), agent='log_file = %s\njournal = %s\n' % (log, journal))
        agent, count = host.start('run'), 0
        for part in range(3):
            while not (os.path.getsize(log) and os.path.getsize(journal)):
                host.put({'f%d' % count: b''})
                count += 1
                agent.until(lambda: len(rejected()) == count, 'it works')
            if part < 2:
                host.put(dict([('g%d-%d' % (part, number), b'') for number in range(20)]))
                count += 20
                assert run(command, PATH=CRON) == (0, '', '')
                agent.until(lambda: len(rejected()) == count, 'it goes on')
        agent.signal(signal.SIGTERM)
        assert agent.end()[0] == 0
    assert sorted(os.path.basename(path) for path in glob.glob(log + '*')) == [
        'envio.log', 'envio.log.1', 'envio.log.2.gz']
    assert stat.S_IMODE(os.stat(log).st_mode) == 0o600 and os.stat(log)[4:6] == os.stat(log + '.1')[4:6]
    told, noted = rotated(log), rotated(journal)
    assert told.endswith('stopped\n')
    for name in rejected():
        assert len(re.findall(' %s: rejected by orders' % name, told)) == 1
        assert noted.count('"%s"' % name) == 1


def test_logrotate_knows_the_files_that_the_example_names():
    rotated_, example = conf('envio.logrotate'), conf('envio.conf')
    for key in ('log_file', 'journal'):
        assert '\n%s\n' % re.search(r'(?m)^# %s = (\S+)$' % key, example).group(1) in rotated_


# --- systemd

def test_systemd_takes_the_unit(tmpdir):
    program = find('systemd-analyze')
    if program is None:
        pytest.skip('systemd-analyze is not installed')
    unit = write(tmpdir.join('envio.service'), conf('envio.service').replace(PROGRAM, ENVIO))
    assert run([program, 'verify', unit], PATH=CRON) == (0, '', '')


def test_the_unit_agrees_with_the_agent():
    unit = dict(re.findall(r'(?m)^(\w+)=(.*)$', conf('envio.service')))
    assert unit['ExecStart'] == '%s -c %s run' % (PROGRAM, cli.DEFAULT_CONFIG)
    assert settings.duration(unit['TimeoutStopSec']) > settings.duration(default('stop_grace')) + 5
    assert int(unit['RestartPreventExitStatus']) == errors.EX_CONFIG
    assert '/var/run/' + unit['RuntimeDirectory'] == default('run_dir')


# --- what reads the headers of init.d/envio

def header():
    text = read(INIT).decode('ascii')
    block = re.search('(?s)### BEGIN INIT INFO\n(.*?)### END INIT INFO\n', text).group(1)
    return text, dict(re.findall(r'# ([A-Z][A-Za-z-]+):\s+(.*)', block))


def test_chkconfig_and_lsb_say_the_same():
    text, fields = header()
    levels, start, stop = re.search(r'(?m)^# chkconfig: (\d+) (\d\d) (\d\d)\n# description: \S', text).groups()
    assert fields['Provides'] == 'envio'
    assert list(levels) == fields['Default-Start'].split()
    assert sorted(levels + ''.join(fields['Default-Stop'].split())) == list('0123456')
    assert int(start) + int(stop) == 100


OTHERS = ('mountnfs', 'rsyslog', 'networking', 'bind9', 'hwclock')
OTHER = """\
#!/bin/sh
### BEGIN INIT INFO
# Provides: %s
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
# Short-Description: a service
### END INIT INFO
"""


def test_insserv_starts_it_after_what_it_needs_and_stops_it_before(sysv, tmpdir):
    insserv = find('insserv')
    if insserv is None:
        pytest.skip('insserv is not installed')
    folder = os.path.dirname(sysv.script)
    for name in OTHERS:
        write(os.path.join(folder, name), OTHER % name, 0o755)
    facilities = '$remote_fs +mountnfs\n$syslog +rsyslog\n$network +networking\n$named +bind9\n$time +hwclock\n'
    code, out, err = run([insserv, '-n', '-s', '-p', folder, '-o', sysv.folder + '/etc/overrides', '-i', sysv.folder,
                          '-c', write(tmpdir.join('insserv.conf'), facilities), sysv.script], PATH=CRON)
    assert code == 0, err
    assert 'warning' not in err, err
    order = re.findall(r'(?m)^([KS]):(\d+):([\d ]+):(\S+)$', out)
    numbers = dict([((kind, name), int(number)) for kind, number, _, name in order])
    assert ('S', '2 3 4 5') in [(kind, levels) for kind, _, levels, name in order if name == 'envio']
    for name in OTHERS:
        assert numbers['S', 'envio'] > numbers['S', name]
        if name != 'hwclock':
            assert numbers['K', 'envio'] < numbers['K', name]


def test_update_rc_d_makes_its_links(sysv, tmpdir):
    program = find('update-rc.d')
    if program is None or which('perl') is None:
        pytest.skip('update-rc.d is not installed')
    text = read(program).decode('utf-8')
    for path in ('/usr/lib/insserv/insserv', '/sbin/insserv'):  # it has its own test, and minds only the real root
        text = text.replace('"%s"' % path, '"/nonexistent"')
    code, out, err = run(['perl', write(tmpdir.join('update-rc.d'), text), 'envio', 'defaults'], PATH=CRON,
                         DPKG_ROOT=sysv.folder)
    assert (code, err) == (0, ''), out
    links = [path[len(sysv.folder):] for path in glob.glob(sysv.folder + '/etc/rc?.d/*') if os.path.islink(path)]
    assert sorted(links) == ['/etc/rc%d.d/%s01envio' % (level, 'S' if level in (2, 3, 4, 5) else 'K')
                             for level in range(7)]


def test_it_is_clean_under_checkbashisms():
    if which('checkbashisms') is None:
        pytest.skip('checkbashisms is not installed')
    assert run([which('checkbashisms'), INIT], PATH=CRON) == (0, '', '')


# --- settings of init.d/envio

def test_every_setting_of_the_init_script_is_in_its_example():
    page, script = conf('envio.default'), read(INIT).decode('ascii')
    known = re.findall(r'(?m)^([A-Z]+)=(\S*) +#', script)
    assert re.findall(r'(?m)^# ([A-Z]+)=', page) == [name for name, _ in known] == ['ENVIO', 'CONFIG', 'PYTHON']
    assert '\n# CONFIG=%s\n' % dict(known)['CONFIG'] in page and dict(known)['CONFIG'] == cli.DEFAULT_CONFIG


def test_the_example_as_it_is_and_uncommented_is_understood_by_a_shell(tmpdir):
    page = conf('envio.default')
    assert run(['/bin/sh', '-c', page]) == (0, '', '')
    uncommented = re.sub(r'(?m)^# (?=[A-Z]+=|export )', '', page)
    told = run(['/bin/sh', '-c', uncommented + 'echo "$ENVIO $CONFIG $PYTHON"; export -p'])
    assert told[0] == 0 and told[1].startswith('/opt/envio/bin/envio /etc/envio/envio.conf /usr/bin/python2.6\n')
    assert 'https_proxy' in told[1] and 'no_proxy' in told[1]
