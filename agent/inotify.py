"""Names that appear in a folder, told by the kernel (inotify(7)), so that a new file leaves at once and an idle agent
need not look. Optional: where it can't be had, folders are looked at every scan_interval.

Called by engine.py. Raises EnvironmentError when the kernel or ctypes has none to give.
"""

import errno
import logging
import os
import re
import struct

from agent import compat
from agent.wakeup import pace

# A file is whole when its writer closes it or renames it to here; a link is created and never closed.
_EVENTS = 0x008 | 0x080 | 0x100  # IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE
_ONLY_FOLDERS = 0x01000000       # IN_ONLYDIR
_Q_OVERFLOW, _IGNORED = 0x4000, 0x8000  # events were lost; the folder is watched no more
_FLAGS = os.O_NONBLOCK | compat.O_CLOEXEC
_HEADER = struct.Struct('iIII')
_MOST = 65536  # bytes of one read

log = logging.getLogger('envio')

_REMOTE = ('nfs', 'cifs', 'smb', 'fuse', '9p', 'afs', 'ceph', 'gluster', 'gfs', 'ocfs', 'lustre', 'ncp', 'coda')


def file_system(path, mounts='/proc/mounts'):
    """Return the type of the file system that `path` lies on, as proc(5) calls it, or '' when it isn't told."""
    found, longest = '', -1
    try:
        with open(mounts, 'rb') as page:
            rows = [line.split() for line in page.read().splitlines()]
    except EnvironmentError:
        return ''
    raw = compat.fs_bytes(os.path.realpath(path)) + b'/'
    for row in rows:
        place = re.sub(br'\\([0-7]{3})', _octal, row[1]).rstrip(b'/') + b'/'
        if raw.startswith(place) and len(place) >= longest:
            found, longest = compat.byte_string(row[2]), len(place)
    return found


def _octal(found):
    return bytes(bytearray([int(found.group(1), 8)]))


class Inotify(object):
    """Watches folders. fd: to poll for POLLIN."""

    def __init__(self):
        try:
            import ctypes  # here: slow to load, and not every Python has it
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._errno = ctypes.get_errno
            self.fd = self._checked(self._libc.inotify_init1(_FLAGS))
        except (ImportError, AttributeError) as error:
            raise EnvironmentError(errno.ENOSYS, str(error))
        self._folders = {}  # watch descriptor -> path
        self._failing = False

    def _checked(self, result):
        if result < 0:
            number = self._errno()
            raise EnvironmentError(number, os.strerror(number))
        return result

    def watch(self, path):
        """Tell of what appears in this folder from now on. Raises EnvironmentError, also for a folder on another host:
        what is done there is not told here."""
        kind = file_system(path)
        if kind.startswith(_REMOTE):
            raise EnvironmentError(errno.EOPNOTSUPP, 'not on %s' % kind)
        watch = self._checked(self._libc.inotify_add_watch(self.fd, compat.fs_bytes(path), _EVENTS | _ONLY_FOLDERS))
        self._folders[watch] = path

    def read(self):
        """Return ([(folder, name)], whole): what has appeared since; whole is False when something was lost, so that
        all has to be looked at."""
        found, whole = [], True
        while True:
            try:
                raw = os.read(self.fd, _MOST)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EINTR):
                    self._failing = False
                    return found, whole
                self._refused(error)
                return found, False
            place = 0
            while place < len(raw):
                watch, mask, _, length = _HEADER.unpack(raw[place:place + _HEADER.size])
                place += _HEADER.size
                name, place = raw[place:place + length].rstrip(b'\0'), place + length
                if mask & (_Q_OVERFLOW | _IGNORED):
                    whole = False
                elif name and watch in self._folders:
                    found.append((self._folders[watch], compat.fs_native(name)))

    def _refused(self, error):
        # What is not read makes the next wait end at once.
        if not self._failing:
            self._failing = True
            log.error('inotify can\'t be read: %s: all is looked at until it can', compat.error_text(error))
        pace()

    def close(self):
        """Give the descriptor back."""
        os.close(self.fd)
