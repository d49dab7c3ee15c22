"""The folders of a spool: their names, whether they may be used, and the lock that makes one agent their owner.

Called by spool.py, which moves files between them, and by what shows a spool. Raises SpoolError, LockedError, OSError.
"""

import errno
import fcntl
import os
import pwd
import stat
import time

from agent import compat, text
from agent.errors import LockedError, SpoolError

OWN = '.envio'
SENT, ERROR, DELETED = 'sent', 'error', OWN + '/deleted'
OWN_NAMES = (OWN, SENT, ERROR)  # of the spool's top level: never collected, nor spoken of
REASON = '.reason'
ANSWERS = 'curl.'  # how folders in which cURL leaves answers begin
FOLDER_MODE, FILE_MODE = 0o750, 0o640

_ROOT = 0  # its number, as an account
_TRIES = 3        # to take a lock
_BETWEEN = 0.005  # seconds


def taken(path):
    """Return True when there is something under this name, be it a link to nothing. Raises OSError."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def make(path):
    """Make a folder of our own, and those above it. Raises OSError."""
    try:
        os.makedirs(path, FOLDER_MODE)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise


def check(spool):
    """Raise SpoolError when the folder `spool`, or one of the agent's own in it, can't be used; changes nothing."""
    try:
        if not stat.S_ISDIR(os.stat(spool).st_mode):
            raise SpoolError('%s: is not a folder: set `spool` to one' % spool)
    except OSError as error:
        raise SpoolError('%s: %s: make this folder, or set `spool` to another' % (spool, compat.error_text(error)))
    _check_access(spool)
    for name in OWN_NAMES:
        path = spool + '/' + name
        if taken(path):
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode):
                raise SpoolError('%s: is not a folder: move it away, the agent keeps its own things there' % path)
            # Who owns a folder can put links into it: what is written or removed there would be so elsewhere.
            if status.st_uid not in (os.geteuid(), _ROOT):
                raise SpoolError('%s: belongs to %s, not to %s: run as its owner (`user` lets root do so), or chown it'
                                 % (path, _account(status.st_uid), _account(os.geteuid())))
            _check_access(path)


def _check_access(path):
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        # Found out only after the answers, all files would be sent again with each start.
        raise SpoolError('%s: can\'t be read and written: run as its owner, or chown it' % path)


def _account(number):
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return 'user %d' % number


def warnings(spool):
    """Return a sentence for each way in which others can do more to the folder `spool` than they should; none for one
    that check() refuses."""
    try:
        mode, root = os.stat(spool).st_mode, os.geteuid() == _ROOT and shared(spool)
        loose = [path for path in [spool + '/' + name for name in OWN_NAMES]
                 if taken(path) and os.lstat(path).st_mode & (stat.S_IWGRP | stat.S_IWOTH)]
    except EnvironmentError:
        return []
    found = []
    if mode & stat.S_IWOTH:
        found.append('%s: every account of this host can write to it: what any of them puts there is sent as if it '
                     'were yours: chmod o-w, and let producers in by a group' % spool)
        if not mode & stat.S_ISVTX:
            found.append('%s: every account of this host can take files away before they are sent, and sent/ and '
                         'error/ with them: chmod o-w, or at least chmod +t' % spool)
    for path in loose:
        found.append('%s: others can change what the agent keeps there: chmod go-w' % path)
    if root:
        found.append('%s: others can write to it, and root sends from it: set `user` to an account that may do less'
                     % spool)
    return found


def shared(spool):
    """Return True when somebody else than this process's account, or root, can put files into the folder `spool`."""
    status = os.stat(spool)
    return status.st_uid not in (os.geteuid(), _ROOT) or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _flock(fd):
    """Take the lock, or raise what flock() raised the last time: `envio status` has it for a moment to see whether an
    agent does."""
    for _ in range(_TRIES - 1):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except EnvironmentError:
            time.sleep(_BETWEEN)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock(object):
    """The lock of the folder `spool`, held by an open descriptor (flock): gone with the process, however it ends."""

    def __init__(self, spool):
        self._path = spool + '/' + OWN + '/lock'
        self._spool = spool
        self._fd = None

    def take(self):
        """Take the lock; its folder has to be there. Raises LockedError when another agent has it, and OSError."""
        fd = self._opened()
        while not self._is_named(fd):  # race: somebody removed it between its opening and its locking
            os.close(fd)
            fd = self._opened()
        self.release()
        self._fd = fd
        os.ftruncate(fd, 0)
        os.write(fd, compat.wire('pid %d since %s\n' % (os.getpid(), time.strftime('%Y-%m-%d %H:%M:%S'))))

    def _opened(self):
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | compat.O_CLOEXEC, FILE_MODE)
        try:
            compat.set_cloexec(fd)
            _flock(fd)
        except EnvironmentError as error:
            holder = text.printable(os.read(fd, 200).strip()) or 'unknown'
            os.close(fd)
            if compat.error_number(error) not in (errno.EAGAIN, errno.EACCES):
                raise
            raise LockedError('%s: another agent has this spool: %s: wait for it or stop it' % (self._spool, holder))
        return fd

    def _is_named(self, fd):
        try:
            there = os.lstat(self._path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return False
            raise
        return os.path.samestat(there, os.fstat(fd))

    def lost(self):
        """Return True when the lock is not held, or no longer under its name, so that another agent could have one,
        too. Raises OSError."""
        return self._fd is None or not self._is_named(self._fd)

    def release(self):
        """Let another agent have it; a second time is harmless."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
