"""One file from its opening to its move: open, send, classify, settle.

deliver() is what a worker does with a job. Whatever goes wrong on the way becomes an Outcome; only faults of the
program itself get out. Called by workers.py.
"""

import logging
import time

from agent import bodies, classify, compat, reasons, request, text
from agent.errors import FileChanged, TransportError
from agent.records import ACK, GONE, HOLD, HOST, NACK, RETRY, Parcel, Reply

ASKED = 1 << 20  # bytes: a longer body is not sent before the receiver was asked (SPEC 7)
MOST_REDIRECTS = 3
REDIRECTS = (307, 308)  # the only ones that keep method and body (RFC 9110 15.4)

log = logging.getLogger('envio')


class Delivery(object):
    """Delivers the files of these spools.

    spools: {path: spool.Spool}; config_path: for the reason files.
    """

    def __init__(self, spools, config_path):
        self._spools = spools
        self._config_path = config_path
        self._unmoved = {}  # spool -> why files could not be moved there, as it was said last

    def deliver(self, job, transport):
        """Send the job's file and move it as the answer says; return the Outcome.

        job: records.Job; transport: as native.NativeTransport. A file that was answered before and could not be
        moved is moved only.
        """
        ticket = job.ticket
        spool = self._spools[ticket.file.spool]
        key = request.idempotency_key(spool.identity, ticket.file)
        if ticket.settled is not None:
            return self._settle(ticket, spool, ticket.settled, key)
        return self._conclude(job, spool, self._send(ticket, spool, transport, key), key)

    def deliver_all(self, jobs, transport):
        """Deliver files of one receiver by a transport that takes several (transports.Transports.most).

        Yields (job, Outcome) for each as it is settled, and (job, None) for those that were not begun.
        """
        going, parcels, done = [], [], set()
        try:
            for job in jobs:
                spool = self._spools[job.ticket.file.spool]
                key = request.idempotency_key(spool.identity, job.ticket.file)
                try:
                    parcels.append(_parcel(job.ticket, spool, key))
                    going.append(job)
                except (FileChanged, EnvironmentError) as error:
                    yield job, _without_answer(error)
            for number, result in transport.send_all(parcels) if parcels else ():
                job, parcel = going[number], parcels[number]
                done.add(number)
                if isinstance(result, Reply):
                    outcome = classify.of_reply(result, job.ticket.receiver, time.time())
                else:
                    outcome = _without_answer(result)
                yield job, self._conclude(job, self._spools[job.ticket.file.spool], outcome, parcel.key)
        finally:
            for parcel in parcels:
                parcel.body.opened.close()
        for number, job in enumerate(going):
            if number not in done:
                yield job, None

    @staticmethod
    def _send(ticket, spool, transport, key):
        parcel = None
        try:
            parcel = _parcel(ticket, spool, key)
            return classify.of_reply(_exchange(parcel, transport), ticket.receiver, time.time())
        except (TransportError, FileChanged, EnvironmentError) as error:
            return _without_answer(error)
        finally:
            if parcel is not None:
                parcel.body.opened.close()

    def _conclude(self, job, spool, outcome, key):
        """Do with the file what the outcome of an attempt says; return the Outcome as it then is."""
        if job.holding and outcome.verdict == NACK:
            # While a receiver is on HOLD nothing of it moves: the probe's file doesn't either.
            return outcome._replace(verdict=HOLD)
        given_up = _given_up(job.ticket, outcome, time.time())
        if outcome.verdict in (ACK, NACK) or given_up:
            return self._settle(job.ticket, spool, outcome, key, given_up)
        return outcome

    def _settle(self, ticket, spool, outcome, key, given_up=''):
        file = ticket.file
        try:
            if outcome.verdict == NACK or given_up:
                spool.reject(file, lambda name: reasons.compose(
                    ticket, outcome, key, self._config_path, time.time(), given_up, name))
            elif ticket.receiver.accepted == 'delete':
                spool.delete(file)
            else:
                spool.accept(file)
        except FileChanged as error:
            # What was answered is not what lies there now: that is another file, sent in its turn.
            return outcome._replace(verdict=GONE if error.gone else RETRY, gone=True,
                                    reason='%s, but the file %s' % (outcome.reason, error))
        except EnvironmentError as error:
            self._say_unmoved(file, compat.error_text(error))
            return outcome
        if self._unmoved.pop(file.spool, None):
            log.warning('%s: answered files can be moved again', text.shown(file.spool))
        reason = '%s, last: %s' % (given_up, outcome.reason) if given_up else outcome.reason
        return outcome._replace(moved=True, reason=reason, maybe=ticket.maybe or outcome.maybe)

    def _say_unmoved(self, file, why):
        if self._unmoved.get(file.spool) != why:
            self._unmoved[file.spool] = why
            log.error('%s: %s was answered but can\'t be moved: %s: nor may others: none is sent again, the moves are '
                      'tried again', text.shown(file.spool), text.shown(file.name), why)


def _given_up(ticket, outcome, wall):
    """Return why a file that failed is given up (SPEC 3, max_attempts and expire), or ''. wall: seconds since 1970."""
    receiver, attempts = ticket.receiver, ticket.attempts + 1
    if outcome.verdict != RETRY or outcome.blame == HOST or outcome.throttle:
        return ''
    if receiver.max_attempts and attempts >= receiver.max_attempts:
        return 'given up after %s (max_attempts)' % text.count(attempts, 'attempt')
    age = wall - ticket.file.stamp.ctime / 1e6  # since it came to lie there: mtime may be that of its origin
    if receiver.expire and age > receiver.expire:
        return 'given up at an age of %s (expire)' % text.duration(age)
    return ''


def _parcel(ticket, spool, key):
    """Open the file and return its records.Parcel. Raises FileChanged, EnvironmentError."""
    opened = spool.open(ticket.file)
    try:
        body = bodies.make(ticket.receiver, ticket.file.name, opened, key)
    except Exception:
        opened.close()
        raise
    return Parcel(ticket, body, key, body.size > ASKED)


def _exchange(parcel, transport):
    redirects = 0
    while True:
        reply = transport.send(parcel)
        if reply.status == 417 and parcel.expect:
            # RFC 9110 10.1.1: it, or what is in between, does not know Expect; the file is not to blame.
            parcel = parcel._replace(expect=False)
        else:
            ticket = parcel.ticket
            url = _redirect(ticket.url, reply) if ticket.receiver.follow_redirects else None
            if url is None or redirects == MOST_REDIRECTS:
                return reply
            redirects += 1
            parcel = parcel._replace(ticket=ticket._replace(url=url))
        parcel.body.rewind()


def _redirect(url, reply):
    """Return where a redirect of the same origin leads, or None: the reply stands as it is."""
    place = classify.header(reply.headers, 'location')
    if reply.status not in REDIRECTS or not place:
        return None
    urls = compat.url_parser()
    try:
        target = urls.urljoin(url, place).split('#')[0]
        here, there = urls.urlsplit(url), urls.urlsplit(target)
    except ValueError:  # no URL
        return None
    if (here.scheme, here.netloc) != (there.scheme, there.netloc) or not request.usable_target(target):
        return None
    return target


def _without_answer(error):
    """Return the Outcome of a file for which there is an error instead of an answer."""
    if isinstance(error, TransportError):
        return classify.of_error(error)
    if isinstance(error, FileChanged):
        return classify.of_host(str(error), GONE if error.gone else RETRY, gone=not error.unreadable)
    return classify.of_host('can\'t be read: %s' % compat.error_text(error))
