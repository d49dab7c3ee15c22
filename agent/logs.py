"""Where log lines go: a file that survives rotation, the system's log, or stderr.

Called by cli.py. Writing a line never raises: a full disk must not stop the agent.
"""

import logging
import sys
import syslog

from agent import compat
from agent.appender import Appender
from agent.errors import AgentError, ConfigError

LEVELS = {'debug': logging.DEBUG, 'info': logging.INFO, 'warning': logging.WARNING, 'error': logging.ERROR}


class LogFile(logging.Handler):
    """Appends lines to a file, see appender.Appender. Raises EnvironmentError at first."""

    def __init__(self, path):
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(message)s'))
        self._file = Appender(path)

    def close(self):
        """Give the descriptor back (logging.Handler)."""
        logging.Handler.close(self)
        self.acquire()
        try:
            self._file.close()  # again and again: logging closes what it knows once more at the end
        finally:
            self.release()

    def emit(self, record):
        """Write a line (logging.Handler)."""
        try:
            self._file.write(compat.log_bytes(self.format(record) + '\n'))
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


def setup(config=None, loudness=0, quiet=False, detached=False):
    """Send the agent's log lines where the configuration says; call it again after a reload.

    config: records.Config, or None before there is one; loudness: -1 for -q, 0, 1 for -v; quiet: True for commands
    that are silent unless something is wrong; detached: True where stderr leads nowhere: what the configuration sends
    nowhere else goes to the system's log. Raises ConfigError when log_file can't be opened.
    """
    logging.raiseExceptions = False
    handlers = []
    if config is not None and config.log_file:
        try:
            handlers.append(LogFile(config.log_file))
        except EnvironmentError as error:
            raise ConfigError(['%s: log_file: can\'t be opened: %s: %s' % (
                config.path, config.log_file, compat.error_text(error))])
    if config is not None and config.syslog or detached and not handlers:
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


def say_end(error):
    """Log what ends the agent where nobody reads stderr."""
    log = logging.getLogger('envio')
    if isinstance(error, AgentError):
        log.error('%s', error)
    else:
        log.critical('internal error: please report this', exc_info=True)


def _stderr_level(wanted, loudness, quiet):
    if loudness:
        return logging.DEBUG if loudness > 0 else logging.ERROR
    return logging.WARNING if quiet else wanted
