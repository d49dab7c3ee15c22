"""One spool folder: its lock, what lies in it, opening a file safely, and moving it where the verdict sends it.

The agent is alone in sent/, error/ and .envio/ (the lock sees to that); in the spool itself producers come and go at
any moment, so each look is checked again. `race:` marks the lines where that matters.
Called by collector.py, delivery.py and engine.py. Raises SpoolError, LockedError, FileChanged and OSError.
"""

import errno
import itertools
import os
import re
import stat
import time

from agent import compat, folders, leftovers, moves, text
from agent.errors import FileChanged, SpoolError
from agent.folders import DELETED, ERROR, OWN, OWN_NAMES, REASON, SENT
from agent.moves import stamp_of

LINKED = 'links to a file that may not be the producer\'s'  # so ends what look() says of a second name

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | compat.O_CLOEXEC
_IDENTITY = re.compile(br'[0-9a-f]{32}\Z')
_DAY = re.compile(r'\d{4}-\d\d-\d\d\Z')


class OpenFile(object):
    """A file of the spool, open for sending. size: bytes when it was opened."""
    __slots__ = ('fd', 'size')

    def __init__(self, fd, size):
        self.fd = fd
        self.size = size

    def read(self, most):
        """Return the next bytes, at most `most`; b'' at the end. Raises FileChanged when they can't be read."""
        try:
            return compat.retry_interrupted(os.read, self.fd, most)
        except OSError as error:
            raise FileChanged('can\'t be read: %s' % compat.error_text(error), unreadable=True)

    def rewind(self):
        """Begin again with the first byte."""
        os.lseek(self.fd, 0, os.SEEK_SET)

    def close(self):
        """Give the descriptor back."""
        os.close(self.fd)


class Spool(object):
    """The folder `path` (absolute). Nothing is touched before lock()."""

    def __init__(self, path):
        self.path = path
        self.identity = ''   # random, kept in .envio/id: makes Idempotency-Keys of two hosts differ
        self._claims = {}    # targets that a worker is about to move a file to
        self._drafts = itertools.count()
        self._lock = folders.Lock(path)
        self._wary = False   # others put files here, too

    # -- the lock

    def lock(self):
        """Become the one agent of this spool.

        Raises SpoolError when the folder can't be used and LockedError when another agent has it.
        """
        self._take_lock()
        try:
            leftovers.clear(self.path)
        except EnvironmentError as error:
            raise SpoolError('%s: what was left in it can\'t be cleared up: %s' % (
                self.path, compat.error_text(error)))

    def _take_lock(self):
        folders.check(self.path)
        try:
            for name in OWN_NAMES:
                folders.make(self.path + '/' + name)
            self._lock.take()
            self._identify()
            self._wary = folders.shared(self.path)
        except EnvironmentError as error:
            raise SpoolError('%s: can\'t be used as a spool: %s' % (self.path, compat.error_text(error)))

    def hold(self):
        """See to it that no other agent can come in while this one works: somebody may have removed .envio with the
        lock's name. Returns True when it was so, and is mended.

        Raises LockedError when another agent has come in, SpoolError when it can't be mended now.
        """
        try:
            if not self._lock.lost():
                return False
        except OSError as error:
            raise SpoolError('%s: the lock can\'t be looked at: %s' % (self.path, compat.error_text(error)))
        self._take_lock()
        return True

    def unlock(self):
        """Let another agent have the spool."""
        self._lock.release()

    def _identify(self):
        known = known_identity(self.path)
        if known:
            self.identity = known
            return
        self.identity = self.identity or ''.join(['%02x' % byte for byte in bytearray(os.urandom(16))])
        path = _identity_file(self.path)
        moves.write_whole(path + '.new', compat.wire(self.identity + '\n'))
        os.rename(path + '.new', path)

    # -- what lies in it

    def names(self):
        """Yield the names at the top level, in no order; raises OSError."""
        return compat.scan_names(self.path)

    def look(self, name):
        """Return (Stamp, what) of a name as it is now; `what` is '' for a regular file, else what it is in words.
        (None, 'gone') when there is nothing."""
        try:
            status = os.lstat(self.path + '/' + name)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return None, 'gone'
            raise
        return stamp_of(status), _kind(status.st_mode) or self._distrusted(status)

    def _distrusted(self, status):
        """Say why a regular file may not be sent though it can be read, or ''.

        Who may write here may link to a file that he can't read (old kernels have no fs.protected_hardlinks) and have
        it sent: one that belongs to us, or any at all when we are root.
        """
        if status.st_nlink < 2:
            return ''
        me = os.geteuid()
        theirs = not me and status.st_uid != me
        if theirs or self._wary and (not me or status.st_uid == me):
            return 'one of %d %s' % (status.st_nlink, LINKED)
        return ''

    def open(self, file):
        """Return an OpenFile of the very file that was collected (records.SpoolFile).

        Raises FileChanged when it is not that file any more, OSError when it can't be read. Links are not followed,
        and a FIFO does not block.
        """
        try:
            fd = os.open(self.path + '/' + file.name, _OPEN_FLAGS)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                raise FileChanged('was taken away', gone=True)
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise FileChanged('is not a regular file any more')
            raise
        try:
            if stamp_of(os.fstat(fd)) != file.stamp:
                raise FileChanged('changed after it was collected')
        except Exception:
            os.close(fd)
            raise
        return OpenFile(fd, file.stamp.size)

    # -- where the verdict sends it

    def accept(self, file):
        """Move an accepted file to sent/ by the day of today; return its new path.

        Raises FileChanged (then it is still in the spool) and OSError.
        """
        return self._move(file, SENT + '/' + time.strftime('%Y-%m-%d'))

    def delete(self, file):
        """Remove an accepted file. Raises as accept()."""
        _discard(self._move(file, DELETED, leftovers.name_deleted(file)))  # out of the spool it is in any case

    def reject(self, file, reason):
        """Move a rejected file to error/ with its reason file; return its new path.

        reason: function(name in error/) -> the bytes of the reason file: they are on disk before the file moves.
        Raises as accept().
        """
        folder = self.path + '/' + ERROR
        folders.make(folder)
        folders.make(self.path + '/' + OWN)
        target = self._claim(folder, file.name, REASON)
        try:
            self._write_reason(target + REASON, reason(target[len(folder) + 1:]))
            try:
                moves.sync_folder(folder)
                self._rename(file, target)
            except Exception:
                _discard(target + REASON)
                raise
        finally:
            del self._claims[target]
        return target

    def _write_reason(self, path, raw):
        draft = '%s/%s/%s%d' % (self.path, OWN, leftovers.DRAFT, next(self._drafts))
        try:
            moves.write_whole(draft, raw)
            os.rename(draft, path)
        except Exception:
            _discard(draft)
            raise

    def _move(self, file, folder, name=None):
        target = self._claim(self.path + '/' + folder, name or file.name)
        try:
            try:
                self._rename(file, target)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                # race: another worker may have made it meanwhile; the second try tells.
                folders.make(self.path + '/' + folder)
                self._rename(file, target)
        finally:
            del self._claims[target]
        return target

    def _claim(self, folder, name, beside=''):
        # race: rename() overwrites, and another worker may be moving a file to the same target (`a` to `a.1`, `a.1`
        # to `a.1`). setdefault is one step, so a target has one owner from here until its file is there.
        me = object()
        for candidate in moves.numbered(name, len(beside)):
            target = folder + '/' + candidate
            if self._claims.setdefault(target, me) is not me:
                continue
            free = False
            try:
                free = not folders.taken(target) and not (beside and folders.taken(target + beside))
            finally:
                if not free:
                    del self._claims[target]
            if free:
                return target

    def _rename(self, file, target):
        source = self.path + '/' + file.name
        self._check(source, file.stamp)
        os.rename(source, target)
        # race: a producer may have put another file under the name between the check and the rename.
        try:
            moved = stamp_of(os.lstat(target))
        except OSError:
            return  # it has moved, and that is what counts
        if moved[:4] != file.stamp[:4]:  # a rename changes ctime
            back = moves.move_free(target, self.path, file.name)
            raise FileChanged('was replaced while it was moved: back as %s' % text.shown(back))

    def _check(self, source, stamp):
        try:
            status = os.lstat(source)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise FileChanged('was taken away while it was sent', gone=True)
            raise
        if stamp_of(status) != stamp:
            raise FileChanged('changed while it was sent')

    def purge(self, days, today, most=1000):
        """Remove what lies in sent/ for longer than `days` days, at most `most` files; return True when there is more.

        today: seconds since 1970.
        """
        oldest = time.strftime('%Y-%m-%d', time.localtime(today - days * 86400))
        for day in leftovers.names_in(self.path, SENT):
            if not _DAY.match(day) or day >= oldest:
                continue
            folder = self.path + '/' + SENT + '/' + day
            foreign = False
            for name in leftovers.names_in(self.path, SENT + '/' + day):
                if not most:
                    return True
                if os.path.isdir(folder + '/' + name) and not os.path.islink(folder + '/' + name):
                    foreign = True  # not ours, and no reason to keep what is
                else:
                    os.unlink(folder + '/' + name)
                    most -= 1
            if not foreign:
                os.rmdir(folder)
        return False


def known_identity(spool):
    """Return the identity that the folder `spool` has, '' when it has none, or a crash cut it. Raises OSError."""
    try:
        fd = os.open(_identity_file(spool), _OPEN_FLAGS)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return ''
    try:
        found = os.read(fd, 64).strip()
    finally:
        os.close(fd)
    return compat.byte_string(found) if _IDENTITY.match(found) else ''


def _identity_file(spool):
    return spool + '/' + OWN + '/id'


def _discard(path):
    """Remove a file; what can't be removed now is cleared up at the next start."""
    try:
        os.unlink(path)
    except OSError:
        pass


def _kind(mode):
    for is_kind, words in ((stat.S_ISREG, ''), (stat.S_ISDIR, 'a folder, not a file'),
                           (stat.S_ISLNK, 'a link, not a file'), (stat.S_ISFIFO, 'a FIFO, not a file'),
                           (stat.S_ISSOCK, 'a socket, not a file')):
        if is_kind(mode):
            return words
    return 'a device, not a file'
