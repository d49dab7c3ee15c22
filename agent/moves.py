"""Files of a spool as the file system sees them: which one it is, a free name for it, and writing one for certain.

Called by spool.py, leftovers.py and what shows or puts back files. Raises OSError.
"""

import errno
import os

from agent import compat, folders
from agent.records import Stamp

_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | compat.O_CLOEXEC
PUBLIC_MODE = 0o644  # of what monitoring and web servers read, as other accounts
_LONGEST_NAME = 255  # bytes, on every file system of Linux


def stamp_of(status):
    """Return the Stamp of a stat result. The microseconds come from the float, which every Python makes alike."""
    return Stamp(status.st_dev, status.st_ino, status.st_size, int(status.st_mtime * 1e6), int(status.st_ctime * 1e6))


def mark_of(stamp):
    """Return what stays the same of a stamp when a file is moved, in a word."""
    return '-'.join(['%d' % part for part in stamp[:4]])


def move_free(source, folder, name):
    """Move the file `source` (a path) into `folder` under `name`, numbered where that is taken; return the name it
    has there. Nothing is overwritten. Raises OSError."""
    for candidate in numbered(name):
        target = folder + '/' + candidate
        try:
            os.link(source, target)
        except OSError as error:
            # link() refuses a taken name in one step; where it can't be had (others' files, odd file systems), a
            # check has to do. race: a producer may take the name between the two.
            if error.errno == errno.EEXIST or folders.taken(target):
                if not _same(source, target):
                    continue
                os.unlink(source)  # a crash left both names of it
            else:
                os.rename(source, target)
        else:
            os.unlink(source)
        return candidate


def _same(path, other):
    """Return True when both names lead to the same file. Raises OSError."""
    return os.path.samestat(os.lstat(path), os.lstat(other))


def numbered(name, room=0):
    """Yield `name`, then `name.1`, `name.2`, ... each short enough that `room` more bytes can be put behind it."""
    number = 0
    while True:
        suffix = '.%d' % number if number else ''
        yield _short(name, len(suffix) + room) + suffix
        number += 1


def _short(name, room):
    if 4 * len(name) + room <= _LONGEST_NAME:
        return name  # a character has four bytes at most
    raw = compat.fs_bytes(name)
    if len(raw) + room <= _LONGEST_NAME:
        return name
    import hashlib  # here: such names are rare
    mark = '~' + hashlib.sha256(raw).hexdigest()[:8]
    return compat.fs_native(raw[:_LONGEST_NAME - room - len(mark)]) + mark


def sync_folder(path):
    """Have on disk what names a folder holds."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish(path, draft, raw):
    """Replace a file that other accounts read, whole or not at all. draft: a path in the same folder; raw: bytes."""
    # A folder that others write to may hold a link of the draft's name: never open what is there already.
    _remove(draft)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | compat.O_CLOEXEC, PUBLIC_MODE)
    try:
        try:
            os.fchmod(fd, PUBLIC_MODE)  # whatever the umask
            while raw:
                raw = raw[os.write(fd, raw):]
        finally:
            os.close(fd)
        os.rename(draft, path)
    except EnvironmentError:
        _remove(draft)
        raise


def _remove(path):
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def write_whole(path, raw):
    """Write a file of our own, bytes, and have it on disk."""
    fd = os.open(path, _WRITE_FLAGS | os.O_TRUNC, folders.FILE_MODE)
    try:
        while raw:
            raw = raw[os.write(fd, raw):]
        os.fsync(fd)
    finally:
        os.close(fd)
