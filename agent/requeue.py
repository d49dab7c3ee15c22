"""What people do about files that wait or were rejected: requeue() puts error/ back, flush() forgets pauses.

Both work beside a running agent and without one. Called by cli.py, rejected() by status.py.
Raises UsageError, SpoolError, LockedError, NotPutBack and, where it says so, OSError.
"""

import errno
import os
import re
import signal
import stat
import time

from agent import compat, folders, moves, state, text
from agent.errors import AgentError, LockedError, SpoolError, UsageError
from agent.folders import ERROR, FILE_MODE, OWN, REASON
from agent.spool import Spool

ALL = '*'  # in what the agent reads at SIGUSR2, for all receivers

_TRIES = 5           # to find out who has a spool
_BETWEEN = 0.05      # seconds
_MOST_HEAD = 65536   # bytes of a reason file that are read
_NO_FILE = (errno.ENOENT, errno.ENOTDIR)
_NO_REASON = _NO_FILE + (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENAMETOOLONG)

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | compat.O_CLOEXEC


class NotPutBack(AgentError):
    """Some files could not be put back; `problems` holds a sentence for each."""
    exit_code = 1


# --- requeue

def requeue(load, names, everything, receiver, tell):
    """Put rejected files back into their spools; their reason files go.

    load: () -> records.Config; names: of files in error/, with or without a path; everything: all files instead;
    receiver: instead all that this receiver (its name) rejected, or None; tell: called with a line of what was done.
    Raises UsageError, SpoolError, and at the end NotPutBack.
    """
    if bool(names) == bool(everything or receiver is not None):
        raise UsageError('requeue: which files? give names, or --all, or --receiver: see envio --help')
    spools = load().spool
    for path in spools:
        folders.check(path)  # also that error/ is ours to change: else a file could be linked, and not taken away
    problems, moved = [], 0
    for path, name in _named(spools, names, problems) if names else _all(spools, receiver, problems):
        try:
            there = put_back(path, name)
        except EnvironmentError as error:
            problems.append('%s: can\'t be put back: %s' % (text.shown(name), compat.error_text(error)))
            continue
        moved += 1
        if there != name:
            tell('%s: back as %s' % (text.shown(name), text.shown(there)))
    if moved:
        tell('%s back in the spool' % text.count(moved, 'file'))
    if problems:
        raise NotPutBack('\n'.join(problems), problems)


def put_back(spool, name):
    """Move the rejected file `name` to the top level of the spool (a path); return its name there.

    Its name is the one it was collected under, numbered where that is taken: nothing is overwritten. Raises OSError.
    """
    # No lock is needed. The agent only adds to error/, under names that neither a file nor a reason file has; of two
    # that take one away the second finds nothing. The file goes before its reason: as long as that is there, the
    # agent gives the name to no other file, and one left by a crash it removes when it starts.
    source = '%s/%s/%s' % (spool, ERROR, name)
    first = _collected_as(name, reason_fields(source + REASON))
    there = moves.move_free(source, spool, first)
    try:
        os.unlink(source + REASON)
    except OSError as error:
        if error.errno not in _NO_REASON:
            raise
    return there


def _collected_as(name, head):
    """Return the name the rejected file `name` had in the spool: in error/ it may have got a number."""
    raw = compat.unpercent(compat.byte_string(head.get(b'File', b'')))  # undoes text.shown
    number = compat.fs_bytes(name)[len(raw):]
    if raw and compat.fs_bytes(name).startswith(raw) and re.match(br'\.[0-9]+\Z', number):
        return compat.fs_native(raw)
    return name


def rejected(spool):
    """Yield the names of the rejected files of a spool (a path): regular files, no reason files. Raises OSError."""
    try:
        for name in compat.scan_names(spool + '/' + ERROR):
            if is_rejected(spool, name):
                yield name
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise


def is_rejected(spool, name):
    """Return True when `name` is a rejected file in error/ of a spool (a path). Raises OSError."""
    path = '%s/%s/%s' % (spool, ERROR, name)
    try:
        status = os.lstat(path)
    except OSError as error:
        if error.errno in _NO_FILE:
            return False
        raise
    # What is called like a reason file is one, but when it has one itself (`ignore` may let such names in).
    return stat.S_ISREG(status.st_mode) and (not name.endswith(REASON) or os.path.lexists(path + REASON))


def _all(spools, receiver, problems):
    """Yield (spool, name) of all rejected files, or those that `receiver` rejected."""
    for path in spools:
        try:
            names = sorted(rejected(path))
        except EnvironmentError as error:
            problems.append('%s/%s: can\'t be read: %s' % (text.shown(path), ERROR, compat.error_text(error)))
            continue
        for name in names:
            if receiver is None or _rejected_by(path, name, problems) == compat.fs_bytes(receiver):
                yield path, name


def _rejected_by(spool, name, problems):
    try:
        return reason_fields('%s/%s/%s%s' % (spool, ERROR, name, REASON)).get(b'Receiver')
    except EnvironmentError as error:
        problems.append('%s: its reason file can\'t be read: %s' % (text.shown(name), compat.error_text(error)))


def _named(spools, words, problems):
    """Return [(spool, name)] of the rejected files that the words mean; a sentence for each that means none or two."""
    found = []
    for word in words:
        folder, name = os.path.split(word)
        places = [path for path in spools if folder in ('', ERROR) or _same_folder(folder, path + '/' + ERROR)]
        try:
            owners = [path for path in places if name and is_rejected(path, name)]
        except EnvironmentError as error:
            problems.append('%s: can\'t be looked at: %s' % (text.shown(word), compat.error_text(error)))
            continue
        if not places:
            problems.append('%s: is not in error/ of a spool: `requeue NAME` finds it there' % text.shown(word))
        elif not owners:
            problems.append('%s: no such file in error/ of %s' % (
                text.shown(word), ', '.join([text.shown(path) for path in places])))
        elif len(owners) > 1:
            problems.append('%s: is in error/ of several spools: give its path: %s' % (text.shown(word), ' or '.join(
                [text.shown('%s/%s/%s' % (path, ERROR, name)) for path in owners])))
        elif (owners[0], name) not in found:
            found.append((owners[0], name))
    return found


def _same_folder(one, other):
    return os.path.realpath(one) == os.path.realpath(other)


def reason_fields(path):
    """Return {name: value}, bytes, of a reason file's fields, those it has first; {} when there is none. Raises
    OSError."""
    try:
        fd = os.open(path, _READ_FLAGS)
        try:
            raw = os.read(fd, _MOST_HEAD)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _NO_REASON:
            return {}
        raise
    fields = {}
    for line in raw.split(b'\n\n')[0].split(b'\n'):
        name, _, value = line.partition(b': ')
        fields.setdefault(name, value)
    return fields


# --- flush

def flush(load, names, tell):
    """Forget the pauses of a receiver: of files, breakers and holds.

    load: () -> records.Config; names: its name, () = of all; tell: called with a line of what was done.
    Raises UsageError, also when there is no such receiver, SpoolError, LockedError.
    """
    if names[1:]:
        raise UsageError('flush: takes one RECEIVER, or none for all: see envio --help')
    config, receiver = load(), names[0] if names else None
    for path in config.spool:
        folders.check(path)
    if receiver is not None:
        _check_known(config, receiver)
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # while we have a spool, another flush takes us for an agent
    try:
        pids = set([_flush(path, receiver, tell) for path in config.spool])
    finally:
        signal.signal(signal.SIGUSR2, before or signal.SIG_DFL)
    whose = receiver or 'all receivers'
    for pid in sorted(pids - set([None])):
        tell('%s: the agent (pid %d) is told to forget pauses' % (whose, pid))
    if None in pids:
        tell('%s: pauses are forgotten: the next agent tries at once' % whose)


def _check_known(config, receiver):
    known = [one.name for one in config.receivers]
    for path in config.spool:
        try:
            kept = state.read(path)
        except (ValueError, EnvironmentError):
            kept = None  # _flush() says so
        # Those of the router plug-in: files that wait for them are remembered.
        known += sorted(set(kept.lanes if kept else ()) - set(known))
    if receiver not in known:
        raise UsageError('flush: %s: no such receiver: there are %s' % (text.shown(receiver), ', '.join(known)))


def _flush(path, receiver, tell):
    """Flush one spool; return the pid of the agent that was told, None when none has it."""
    for _ in range(_TRIES):
        spool = Spool(path)
        try:
            if not os.path.lexists(path + '/' + state.NAME):
                return None  # nothing to forget, and no folders made in another's name
            spool.lock()
        except LockedError as error:
            pid = _tell(path, receiver)
            if pid:
                return pid
            locked = error
            time.sleep(_BETWEEN)  # it is just ending, beginning, or `envio status` looked: the next look tells
            continue
        try:
            _forget(path, receiver, tell)
        finally:
            spool.unlock()
        return None
    raise locked


def _forget(path, receiver, tell):
    """Forget pauses in the state of a spool whose lock we have."""
    try:
        kept = state.read(path)
        if kept is None:
            return
        for name, lane in kept.lanes.items():
            if receiver in (None, name):
                kept.lanes[name] = lane._replace(until=0, hold_due=0, paused=0)
        for name, tried in kept.tried.items():
            if receiver in (None, tried.receiver):
                kept.tried[name] = tried._replace(due=0)
        state.write(path, kept)
        if os.path.lexists(path + '/' + state.FLUSH):
            os.unlink(path + '/' + state.FLUSH)  # left for an agent that is no more
    except ValueError:
        tell('%s/%s: can\'t be understood: the next agent sets it aside and begins afresh' % (
            text.shown(path), state.NAME))
    except EnvironmentError as error:
        raise SpoolError('%s: pauses can\'t be forgotten: %s: run as its owner' % (
            text.shown(path), compat.error_text(error)))


def _tell(path, receiver):
    """Leave word for the agent that has the spool, and rouse it; return its pid, None when it is not to be found."""
    try:
        pid = _holder(path)
        if pid is None:
            return None
        draft = '%s/%s.%d' % (path, state.FLUSH, os.getpid())
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | compat.O_CLOEXEC, FILE_MODE)
        try:
            os.write(fd, compat.config_bytes((receiver or ALL) + '\n'))
        finally:
            os.close(fd)
        os.rename(draft, path + '/' + state.FLUSH)
        os.kill(pid, signal.SIGUSR2)
        return pid
    except EnvironmentError as error:
        if error.errno in (errno.ESRCH, errno.ENOENT):
            return None
        raise SpoolError('%s: the agent can\'t be told: %s: run as its owner' % (
            text.shown(path), compat.error_text(error)))


def _holder(path):
    """Return the pid of the process that has the lock of a spool, None when that can't be told. Raises OSError.

    The number alone is not to be trusted: it may be of another process by now, or of another container's.
    """
    lock = '%s/%s/lock' % (path, OWN)
    with open(lock, 'rb') as stream:
        said = re.match(br'pid ([1-9][0-9]{0,9}) since ', stream.read(100))
    if said is None:
        return None
    # Who took the lock, and of which file; an agent that was root's does not let others see what it has open.
    inode = compat.wire('%d' % os.stat(lock).st_ino)
    known = re.compile(br'FLOCK .* %s [0-9a-f]+:[0-9a-f]+:%s ' % (said.group(1), inode))
    with open('/proc/locks', 'rb') as stream:
        return int(said.group(1)) if known.search(stream.read()) else None
