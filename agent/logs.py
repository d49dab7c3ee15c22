"""Where log lines go: a file that survives rotation, the system's log, or stderr.

Called by cli.py. Writing a line never raises: a full disk must not stop the agent.
"""

import logging
import os
import sys
import syslog

from agent import compat
from agent.errors import ConfigError
from agent.spool import FILE_MODE

LEVELS = {'debug': logging.DEBUG, 'info': logging.INFO, 'warning': logging.WARNING, 'error': logging.ERROR}
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | compat.O_CLOEXEC  # no links; a FIFO that nobody reads must not hang us
LOOK = 1.0  # seconds between two looks whether the file was rotated


class LogFile(logging.Handler):
    """Appends lines to a file, and opens it anew when it was renamed or removed. Raises EnvironmentError at first."""

    def __init__(self, path):
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(message)s'))
        self._path = path
        self._looked = compat.monotonic()
        self._fd = self._open()

    def _open(self):
        # O_APPEND: after copytruncate the next line is the first again.
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _SAFELY, FILE_MODE)
        self._file = os.fstat(fd)[1:3]
        return fd

    def _rotated(self):
        try:
            return os.stat(self._path)[1:3] != self._file
        except OSError:
            return True

    def _reopen(self):
        try:
            fresh = self._open()
        except EnvironmentError:
            return  # the old file is better than none
        os.close(self._fd)
        self._fd = fresh

    def close(self):
        """Give the descriptor back (logging.Handler)."""
        logging.Handler.close(self)
        self.acquire()
        try:
            # A worker may hold on to this handler, and logging itself closes it once more at the end: by then another
            # file, or a receiver's connection, may have the number.
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
        finally:
            self.release()

    def emit(self, record):
        """Write a line (logging.Handler)."""
        if self._fd is None:
            return
        try:
            now = compat.monotonic()
            if now - self._looked >= LOOK:
                self._looked = now
                if self._rotated():
                    self._reopen()
            os.write(self._fd, compat.log_bytes(self.format(record) + '\n'))
        except EnvironmentError:
            pass  # nowhere to say it


class Stderr(logging.Handler):
    """Writes `envio: message` lines, over a progress line where there is one."""

    def __init__(self):
        logging.Handler.__init__(self)
        self._begin = '\r\033[K' if sys.stderr.isatty() else ''

    def emit(self, record):
        """Write a line (logging.Handler)."""
        try:
            sys.stderr.write(self._begin + compat.writable('envio: %s\n' % self.format(record), sys.stderr))
            sys.stderr.flush()
        except EnvironmentError:
            pass  # a pipe that nobody reads any more


class Syslog(logging.Handler):
    """Writes to the system's log, facility daemon."""
    PRIORITIES = ((logging.ERROR, syslog.LOG_ERR), (logging.WARNING, syslog.LOG_WARNING),
                  (logging.INFO, syslog.LOG_INFO))

    def __init__(self):
        logging.Handler.__init__(self)
        syslog.openlog('envio', syslog.LOG_PID, syslog.LOG_DAEMON)

    def emit(self, record):
        """Write a line (logging.Handler)."""
        for level, priority in self.PRIORITIES:
            if record.levelno >= level:
                break
        else:
            priority = syslog.LOG_DEBUG
        syslog.syslog(priority, compat.writable(self.format(record), sys.stderr))


def setup(config=None, loudness=0, quiet=False):
    """Send the agent's log lines where the configuration says; call it again after a reload.

    config: records.Config, or None before there is one; loudness: -1 for -q, 0, 1 for -v; quiet: True for commands
    that are silent unless something is wrong. Raises ConfigError when log_file can't be opened.
    """
    logging.raiseExceptions = False
    handlers = []
    if config is not None and config.log_file:
        try:
            handlers.append(LogFile(config.log_file))
        except EnvironmentError as error:
            raise ConfigError(['%s: log_file: can\'t be opened: %s: %s' % (
                config.path, config.log_file, compat.error_text(error))])
    if config is not None and config.syslog:
        handlers.append(Syslog())
    wanted = LEVELS[config.log_level] if config is not None else logging.INFO
    for handler in handlers:
        handler.setLevel(wanted)
    if not handlers or quiet:
        stderr = Stderr()
        stderr.setLevel(_stderr_level(wanted, loudness, quiet))
        handlers.append(stderr)
    log = logging.getLogger('envio')  # returned, so that who sets it up need not know its name
    log.propagate = False
    log.setLevel(min([handler.level for handler in handlers]))
    old, log.handlers = log.handlers, handlers
    for handler in old:
        handler.close()
    return log


def _stderr_level(wanted, loudness, quiet):
    if loudness:
        return logging.DEBUG if loudness > 0 else logging.ERROR
    return logging.WARNING if quiet else wanted
