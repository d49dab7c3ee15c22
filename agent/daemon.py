"""The process of `envio run`: leaving the terminal (--detach), and the pid file.

The pid file is for people and init scripts; what keeps a second agent out is the spool's lock. Called by cli.py.
Raises ConfigError.
"""

import errno
import fcntl
import logging
import os
import sys

from agent import compat, privileges, text
from agent.errors import ConfigError

PID_FILE = 'envio.pid'
FOLDER_MODE, FILE_MODE = 0o755, 0o644  # `status` of an init script is for every account

_READY = b'+'

log = logging.getLogger('envio')


class Process(object):
    """This process, from its start to its end. detach: go on in a process of its own, without a terminal.

    With `detach` this returns in the new process alone. The one before waits for ready(), and exits with 0; or until
    the new one ends without it, which has said why on stderr, and exits as that does.
    """

    def __init__(self, detach):
        self._waiting = _detach() if detach else None  # descriptor: who started us waits at its other end
        self.detached = detach
        self._pid_file = None

    def prepare(self, config):
        """Make run_dir for the account that `user` names, while this is still root; only --detach needs it."""
        if not self.detached:
            return
        umask = os.umask(0o022)  # also for /var/run, should it not be there
        try:
            os.makedirs(config.run_dir, FOLDER_MODE)
            if os.geteuid() == 0:
                user, group, _ = privileges.check(config)
                os.chown(config.run_dir, -1 if user is None else user, -1 if group is None else group)
        except EnvironmentError:
            pass  # it is there; or ready() will say what is wrong
        finally:
            os.umask(umask)

    def ready(self, config):
        """Write the pid file, and let the one who started us go. Raises ConfigError when --detach can't write it: a
        daemon that its init script does not find could not be stopped."""
        path = config.run_dir + '/' + PID_FILE
        try:
            self._pid_file = _PidFile(path)
        except EnvironmentError as error:
            if compat.error_number(error) == errno.EAGAIN:
                why = 'another agent has its pid file there: give each a run_dir of its own'
            else:
                why = '%s: make this folder, owned by the agent\'s account, or set run_dir' % compat.error_text(error)
            sentence = '%s: run_dir: %s can\'t be written: %s' % (config.path, text.shown(path), why)
            if self.detached:
                raise ConfigError([sentence])
            log.debug('%s', sentence)
        if self._waiting is not None:
            self._let_go()

    def _let_go(self):
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(nothing, fd)
        if nothing > 2:
            os.close(nothing)
        waiting, self._waiting = self._waiting, None
        try:
            os.write(waiting, _READY)
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            raise ConfigError(['run: --detach: nobody waits any more for this start: given up'])
        finally:
            os.close(waiting)

    def end(self):
        """Take the pid file away."""
        if self._pid_file is not None:
            self._pid_file.remove()


class _PidFile(object):
    def __init__(self, path):
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | compat.O_CLOEXEC, FILE_MODE)
        compat.set_cloexec(self._fd)
        try:
            self._write()
        except Exception:
            os.close(self._fd)
            raise

    def _write(self):
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(self._fd, FILE_MODE)  # whatever the umask
        os.ftruncate(self._fd, 0)
        os.write(self._fd, compat.wire('%d\n' % os.getpid()))

    def remove(self):
        try:
            if os.path.samestat(os.lstat(self._path), os.fstat(self._fd)):
                os.unlink(self._path)
        except EnvironmentError as error:
            log.info('%s: can\'t be removed: %s', text.shown(self._path), compat.error_text(error))
        os.close(self._fd)


def _detach():
    """Go on in a grandchild, in a session of its own, which can never get a terminal; return the descriptor at whose
    other end the processes before wait."""
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = compat.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        os._exit(_code_of(child))
    os.setsid()
    grandchild = os.fork()
    if grandchild:
        os.close(writing)
        os._exit(0 if compat.retry_interrupted(os.read, reading, 1) else _code_of(grandchild))
    os.close(reading)
    # Whoever started us and reads a pipe to its end would wait as long as the agent lives.
    compat.close_others((writing,))
    os.chdir('/')
    return writing


def _code_of(child):
    """Wait for a child; return the exit code that stands for its end."""
    status = compat.retry_interrupted(os.waitpid, child, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
