"""`envio send FILE...`: files are sent now, wherever they are, and stay where they are.

The same lanes, workers and delivery as the agent's, over folders that keep their files. No lock is taken, no pause of
an agent heeded, and nothing is written down. Called by cli.py. Raises UsageError before anything is sent.
"""

import os
import stat

from agent import compat, errors, text
from agent.errors import FileChanged, UsageError
from agent.lanes import Lanes
from agent.moves import stamp_of
from agent.records import ACK, NACK, SpoolFile, Ticket
from agent.resources import Resources
from agent.spool import OpenFile, known_identity
from agent.workers import Pool, equipment

LONGEST_TICK = 1.0  # seconds between two looks at deadlines


class _Folder(object):
    """Files that stay, in the place of a spool. identity: as of spool.Spool."""

    def __init__(self, path, identity):
        self._path = path
        self.identity = identity

    def open(self, file):
        """Return an OpenFile; links are followed: a person named them. Raises FileChanged, OSError."""
        fd = os.open(self._path + '/' + file.name, os.O_RDONLY | os.O_NONBLOCK | compat.O_CLOEXEC)
        opened = OpenFile(fd, file.stamp.size)
        if stamp_of(os.fstat(fd)) != file.stamp:
            opened.close()
            raise FileChanged('changed before it was sent')
        return opened

    def accept(self, file):
        """Leave the file where it is. Raises FileChanged when it is not what was sent."""
        try:
            unchanged = stamp_of(os.stat(self._path + '/' + file.name)) == file.stamp
        except OSError:
            unchanged = False
        if not unchanged:
            raise FileChanged('changed while it was sent')

    delete = accept

    def reject(self, file, reason):
        """Leave the file where it is."""


def send(setup, words, to, wakeup, tell, complain):
    """Send files; return the exit code, as of a pass (SPEC 5).

    setup: (records.Config, router.Router); words: paths; to: a receiver's name, None: as the names are routed; wakeup:
    wakeup.Wakeup that catches the signals which stop it; tell, complain: called with a line each about what was
    accepted, and what was not. Raises UsageError.
    """
    config, router = setup
    tickets = [_ticket(config, router, word, to) for word in words]
    identities = dict([(path, _identity(path)) for path in config.spool])
    places = dict([(ticket.file.spool, _Folder(ticket.file.spool, identities.get(
        ticket.file.spool, identities[config.spool[0]]))) for ticket in tickets])
    lanes = Lanes([ticket.receiver for ticket in tickets], retrying=False)
    resources = Resources(os.environ)
    pool = Pool(lanes, min(config.workers, len(tickets)), lambda: equipment(places, config.path, resources),
                wakeup.notify)
    try:
        return _wait(pool, tickets, wakeup, tell, complain)
    finally:
        pool.stop()
        while not pool.ended():
            pool.abort()
            wakeup.wait(0.1)


def _ticket(config, router, word, to):
    path = os.path.abspath(word)
    folder, name = os.path.split(path)
    try:
        status = os.stat(path)
    except OSError as error:
        raise UsageError('send: %s: %s: nothing was sent' % (text.shown(word), compat.error_text(error)))
    if not stat.S_ISREG(status.st_mode):
        raise UsageError('send: %s: is no regular file: nothing was sent' % text.shown(word))
    if not os.access(path, os.R_OK):
        raise UsageError('send: %s: can\'t be read by this account: nothing was sent' % text.shown(word))
    target = router.route_path(config.spool, folder, name) if to is None else router.to(to, name)
    if target.receiver is None:
        raise UsageError('send: %s: no receiver: %s: name one by --to: nothing was sent' % (
            text.shown(word), target.why))
    return Ticket(SpoolFile(folder, name, stamp_of(status)), target.receiver, target.url, 0, 0, None)


def _identity(spool):
    """Return the random name of a spool, so that a file in it has the Idempotency-Key that an agent gives it."""
    try:
        return known_identity(spool)
    except EnvironmentError:
        return ''


def _wait(pool, tickets, wakeup, tell, complain):
    """Tell of each file as its result comes; return the exit code."""
    left = dict([((ticket.file.spool, ticket.file.name), ticket) for ticket in tickets])
    code, stuck = errors.EX_OK, False
    while left and not wakeup.signals and not stuck:
        before, tickets = tickets, pool.offer(tickets)
        wakeup.wait(0 if len(tickets) < len(before) else LONGEST_TICK)
        pool.cut()
        pool.rouse()
        stuck = pool.quiet() and not pool.results and len(tickets) == len(before)
        while pool.results:
            result = pool.results.popleft()
            del left[result.file.spool, result.file.name]
            outcome, name = result.outcome, text.shown(result.file.name)
            if outcome.verdict == ACK and not outcome.gone:
                tell('%s: accepted by %s: %s' % (name, result.receiver.name, outcome.reason))
            else:
                rejected = outcome.verdict == NACK
                complain('%s: %s by %s: %s' % (name, 'rejected' if rejected else 'not taken', result.receiver.name,
                                               outcome.reason))
                code = errors.EX_REJECTED if rejected or code == errors.EX_REJECTED else errors.EX_WAITING
    for _, name in sorted(left):
        complain('%s: not tried: %s' % (text.shown(name), 'stopped' if wakeup.signals else
                                        'its receiver did not take the ones before'))
    return errors.EX_WAITING if left and code == errors.EX_OK else code
