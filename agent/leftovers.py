"""What a crash left in a spool: reason files without their file, accepted files not yet deleted, cURL's answers.

Called by spool.py when it has the lock. Raises OSError.
"""

import errno
import os
import re

from agent import folders, moves
from agent.folders import ANSWERS, DELETED, ERROR, OWN, REASON

DRAFT = 'reason.'  # how reason files begin that are being written

_MARKED = r'(-?[0-9]+(?:--?[0-9]+){3})\.(.*)\Z'


def name_deleted(file):
    """Return the name of an accepted file (records.SpoolFile) that is about to be deleted.

    It tells after a crash whether this is the file that was accepted: given back to the spool, it would have another
    ctime, and so another Idempotency-Key.
    """
    return '%s.%s' % (moves.mark_of(file.stamp), file.name)


def clear(spool):
    """Clear up the folder `spool`."""
    for name in names_in(spool, ERROR):
        path = spool + '/' + ERROR + '/' + name
        # A rejected file may be called so, too: then it has a reason of its own.
        if name.endswith(REASON) and not folders.taken(path[:-len(REASON)]) and not folders.taken(path + REASON):
            os.unlink(path)
    for name in names_in(spool, OWN):
        if name.startswith(DRAFT):
            os.unlink(spool + '/' + OWN + '/' + name)
        elif name.startswith(ANSWERS):
            _remove_answers(spool, OWN + '/' + name)
    for name in names_in(spool, DELETED):
        _finish_deleting(spool, name)


def _remove_answers(spool, folder):
    try:
        for name in names_in(spool, folder):
            os.unlink(spool + '/' + folder + '/' + name)
        os.rmdir(spool + '/' + folder)
    except OSError:
        pass  # race: a cURL that outlived its agent still writes there; then the next start removes it


def _finish_deleting(spool, name):
    path = spool + '/' + DELETED + '/' + name
    found = re.match(_MARKED, name, re.DOTALL)
    if found and found.group(1) == moves.mark_of(moves.stamp_of(os.lstat(path))):
        os.unlink(path)
    else:  # not what was accepted: it was put there in the very instant of the move
        moves.move_free(path, spool, found.group(2) if found else name)


def names_in(spool, folder):
    """Return the names in a folder of the spool, sorted; none where it is not there."""
    try:
        return sorted(os.listdir(spool + '/' + folder))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return []
        raise
