"""Log lines get where the configuration says, through rotation, and nothing that happens to them stops the agent."""

import errno
import logging
import os
import stat
import sys
import syslog

import pytest

from agent import appender, compat, config, logs
from agent.errors import ConfigError

log = logging.getLogger('envio')


@pytest.fixture(autouse=True)
def own_logging(monkeypatch):
    before = log.handlers, log.level, log.propagate, logging.raiseExceptions
    umask = os.umask(0)
    monkeypatch.setattr(appender, 'LOOK', 0)
    yield
    os.umask(umask)
    for handler in log.handlers:
        handler.close()
    log.handlers, log.level, log.propagate, logging.raiseExceptions = before


def configuration(**keys):
    """Return a Config whose [agent] has these keys."""
    lines = ['[agent]', 'spool = /var/spool/envio'] + ['%s = %s' % pair for pair in sorted(keys.items())]
    lines += ['[receiver:orders]', 'match = *', 'url = http://127.0.0.1:9/in']
    return config.parse('\n'.join(lines).encode('ascii'), 'sample.conf')


class Configured(object):
    """A log file in a folder of its own, and the agent's log led there."""

    def __init__(self, folder):
        self.folder = str(folder.mkdir('logs'))
        self.path = os.path.join(self.folder, 'envio.log')

    def setup(self, loudness=0, quiet=False, **keys):
        logs.setup(configuration(log_file=keys.pop('log_file', self.path), **keys), loudness, quiet)

    def lines(self, path=None):
        """The messages in the file: what stands behind time and level."""
        with open(path or self.path, 'rb') as stream:
            return [compat.byte_string(line.split(b' ', 3)[3]) for line in stream.read().splitlines()]


@pytest.fixture
def file(tmpdir):
    return Configured(tmpdir)


def open_descriptors():
    return len(os.listdir('/proc/self/fd'))


def test_a_line_has_its_time_and_level(file):
    file.setup()
    log.warning('receiver %s: %s', 'orders', 'OPEN')
    with open(file.path) as stream:
        words = stream.read().split(' ', 3)
    assert words[2:] == ['WARNING', 'receiver orders: OPEN\n']
    assert len(words[0]) == 10 and len(words[1]) == 12


def test_only_the_owner_and_the_group_may_read_the_file(file):
    file.setup()
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o640


def test_what_stood_in_the_file_stays(file):
    with open(file.path, 'w') as stream:
        stream.write('d t L before\n')
    file.setup()
    log.info('after')
    assert file.lines() == ['before', 'after']


def test_after_a_rotation_by_rename_lines_go_to_the_new_file(file):
    file.setup()
    log.info('one')
    os.rename(file.path, file.path + '.1')
    log.info('two')
    assert file.lines(file.path + '.1') == ['one'] and file.lines() == ['two']
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o640


def test_after_a_rotation_by_copytruncate_no_hole_is_left(file):
    file.setup()
    log.info('one')
    open(file.path, 'w').close()
    log.info('two')
    assert file.lines() == ['two']


def test_a_removed_file_comes_back(file):
    file.setup()
    os.unlink(file.path)
    log.info('one')
    assert file.lines() == ['one']


def test_while_the_new_file_cant_be_opened_lines_go_on_into_the_old_one(file):
    file.setup()
    log.info('one')
    os.rename(file.path, file.path + '.1')
    os.mkdir(file.path)  # what nobody can open for writing, not even root
    log.info('two')
    log.info('three')
    assert file.lines(file.path + '.1') == ['one', 'two', 'three']
    os.rmdir(file.path)
    log.info('four')
    assert file.lines() == ['four']


def test_a_removed_folder_stops_nothing_and_may_come_back(file):
    file.setup()
    os.unlink(file.path)
    os.rmdir(file.folder)
    log.info('lost')
    os.mkdir(file.folder)
    log.info('one')
    assert file.lines() == ['one']


def test_rotations_and_reloads_leave_no_descriptor_behind(file):
    file.setup()
    before = open_descriptors()
    for number in range(5):
        os.rename(file.path, '%s.%d' % (file.path, number))
        log.info('line')
        file.setup()
    assert open_descriptors() == before


def test_a_handler_that_a_reload_closed_touches_no_other_file(file):
    file.setup()
    old = log.handlers[0]
    file.setup()
    other = os.path.join(file.folder, 'other')
    with open(other, 'w') as stream:  # gets the number of the descriptor that was closed
        old.handle(logging.LogRecord('envio', logging.ERROR, 'x', 1, 'a worker held on to it', (), None))
        old.close()
        stream.write('its own')
    assert open(other).read() == 'its own'


def test_a_full_disk_stops_nothing(file):
    file.setup(log_file='/dev/full')
    for _ in range(3):
        log.error('nowhere to go')


def test_a_file_that_cant_be_opened_is_a_fault_of_the_configuration(file):
    for path in (file.folder, file.folder + '/no/such/folder.log'):
        with pytest.raises(ConfigError) as caught:
            file.setup(log_file=path)
        assert str(caught.value).startswith('sample.conf: log_file: can\'t be opened: %s: ' % path)


def test_a_link_is_not_followed(file):
    os.symlink(file.path + '.else', file.path)
    with pytest.raises(ConfigError):
        file.setup()
    assert not os.path.exists(file.path + '.else')


def test_a_fifo_that_nobody_reads_does_not_hang_the_agent(file):
    os.mkfifo(file.path)
    with pytest.raises(ConfigError):
        file.setup()


def test_a_wrong_new_configuration_leaves_the_log_where_it_was(file):
    file.setup()
    with pytest.raises(ConfigError):
        file.setup(log_file=file.folder)
    log.info('still here')
    assert file.lines() == ['still here']


def test_odd_names_are_logged_and_lose_no_line(file):
    file.setup()
    for raw in (b'inv\xff\xfealid', b'caf\xc3\xa9'):
        log.warning('%s: stays', compat.fs_native(raw))
    assert len(file.lines()) == 2
    assert file.lines()[1] == compat.byte_string(b'caf\xc3\xa9: stays')


@pytest.mark.parametrize('level, count', [('debug', 4), ('info', 3), ('warning', 2), ('error', 1)])
def test_the_level_is_the_least_weight_that_is_written(file, level, count):
    file.setup(log_level=level)
    for say in (log.debug, log.info, log.warning, log.error):
        say('line')
    assert len(file.lines()) == count


@pytest.mark.parametrize('loudness, quiet, said', [
    (0, False, ['info', 'warning', 'error']), (1, False, ['debug', 'info', 'warning', 'error']), (-1, False, ['error']),
    (0, True, ['warning', 'error']), (1, True, ['debug', 'info', 'warning', 'error']), (-1, True, ['error'])])
def test_what_stderr_hears(capsys, loudness, quiet, said):
    logs.setup(None, loudness, quiet)
    for word in ('debug', 'info', 'warning', 'error'):
        getattr(log, word)(word)
    assert capsys.readouterr()[1].splitlines() == ['envio: ' + word for word in said]


def test_with_a_log_file_stderr_is_silent_but_for_quiet_commands(file, capsys):
    file.setup()
    log.error('to the file alone')
    assert capsys.readouterr()[1] == ''
    file.setup(quiet=True)
    log.error('to both')
    assert capsys.readouterr()[1] == 'envio: to both\n'
    assert file.lines() == ['to the file alone', 'to both']


class Broken(object):
    """A stderr that fails as a pipe whose reader has gone."""
    encoding = 'ascii'

    def isatty(self):
        return False

    def write(self, _):
        raise IOError(errno.EPIPE, 'Broken pipe')
    flush = write


def test_a_stderr_that_nobody_reads_stops_nothing(monkeypatch):
    monkeypatch.setattr(sys, 'stderr', Broken())
    logs.setup()
    log.error('nobody hears')


def test_syslog_gets_the_line_with_its_weight(monkeypatch):
    heard = []
    monkeypatch.setattr(syslog, 'syslog', lambda *words: heard.append(words))
    logs.setup(configuration(syslog='yes', log_level='debug'))
    for say in (log.debug, log.info, log.warning, log.error, log.critical):
        say('line')
    assert heard == [(weight, 'line') for weight in (
        syslog.LOG_DEBUG, syslog.LOG_INFO, syslog.LOG_WARNING, syslog.LOG_ERR, syslog.LOG_ERR)]


def test_a_host_without_a_syslog_daemon_stops_nothing():
    logs.setup(configuration(syslog='yes'))
    log.error('%s: said to nobody', compat.fs_native(b'inv\xff'))
