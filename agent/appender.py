"""Files to which lines are appended for weeks, through rotation and full disks. Called by logs.py and journal.py."""

import errno
import os
import stat

from agent import compat
from agent.folders import FILE_MODE

LOOK = 1.0  # seconds between two looks whether the file was rotated

_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | compat.O_CLOEXEC  # no links; a FIFO that nobody reads must not hang us


class Appender(object):
    """Appends lines to a file, and opens it anew when it was renamed or removed. Raises EnvironmentError at first.

    stale: None, or the EnvironmentError that keeps the file from being opened anew: lines go on into the old one.
    """

    def __init__(self, path):
        self._path = path
        self._looked = compat.monotonic()
        self.stale = None
        self._fd = self._open()

    def _open(self):
        # O_APPEND: after copytruncate the next line is the first again.
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _SAFELY, FILE_MODE)
        try:
            self._file = os.fstat(fd)[1:3]
        except Exception:
            os.close(fd)
            raise
        self._doubtful = True  # the last line may have no end
        return fd

    def _rotated(self):
        try:
            return os.stat(self._path)[1:3] != self._file
        except OSError:
            return True

    def _reopen(self):
        try:
            fresh = self._open()
        except EnvironmentError as error:
            self.stale = error
            return  # the old file is better than none
        old, self._fd, self.stale = self._fd, fresh, None
        try:
            os.close(old)
        except EnvironmentError:
            pass  # it is closed all the same, and its number may be another's already

    def _cut(self):
        """Return True when the last line has no end: a full disk cut it, perhaps for an earlier process."""
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode) or not found.st_size:
            return False
        try:
            fd = os.open(self._path, os.O_RDONLY | _SAFELY)
        except OSError:
            return False  # written, but not to be read by us
        try:
            os.lseek(fd, found.st_size - 1, os.SEEK_SET)
            return os.read(fd, 1) not in (b'\n', b'')
        finally:
            os.close(fd)

    def write(self, line):
        """Append a line in one write(), so that lines of several processes don't mix. Raises EnvironmentError.

        line: bytes, ends in a newline.
        """
        if self._fd is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        now = compat.monotonic()
        if now - self._looked >= LOOK:
            self._looked = now
            if self._rotated():
                self._reopen()
            else:
                self.stale = None
        if self._doubtful and self._cut():
            line = b'\n' + line
        self._doubtful = True
        if compat.retry_interrupted(os.write, self._fd, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._doubtful = False

    def close(self):
        """Give the descriptor back; a second time is harmless, and write() raises from then on."""
        # By then another file, or a receiver's connection, may have the number.
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
