"""One file from its opening to its move: open, send, classify, settle.

deliver() is what a worker does with a job. Whatever goes wrong on the way becomes an Outcome; only faults of the
program itself get out. Called by workers.py.
"""

import logging
import time

from agent import classify, compat, reasons, request, text
from agent.errors import FileChanged, TransportError
from agent.records import ACK, GONE, HOLD, NACK, RETRY

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
        outcome = ticket.settled
        if outcome is None:
            outcome = self._send(ticket, spool, transport, key)
            if job.holding and outcome.verdict == NACK:
                # While a receiver is on HOLD nothing of it moves: the probe's file doesn't either.
                outcome = outcome._replace(verdict=HOLD)
        if outcome.verdict not in (ACK, NACK):
            return outcome
        return self._settle(ticket, spool, outcome, key)

    @staticmethod
    def _send(ticket, spool, transport, key):
        try:
            opened = spool.open(ticket.file)
        except FileChanged as error:
            return _changed(error)
        except EnvironmentError as error:
            return classify.of_host('can\'t be read: %s' % compat.error_text(error))
        try:
            reply = _exchange(ticket, opened, transport, key)
        except TransportError as error:
            return classify.of_error(error)
        except FileChanged as error:
            return _changed(error)
        finally:
            opened.close()
        return classify.of_reply(reply, ticket.receiver, time.time())

    def _settle(self, ticket, spool, outcome, key):
        file = ticket.file
        try:
            if outcome.verdict == NACK:
                spool.reject(file, reasons.compose(ticket, outcome, key, self._config_path, time.time()))
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
        return outcome._replace(moved=True)

    def _say_unmoved(self, file, why):
        if self._unmoved.get(file.spool) != why:
            self._unmoved[file.spool] = why
            log.error('%s: %s was answered but can\'t be moved: %s: nor may others: none is sent again, the moves are '
                      'tried again', text.shown(file.spool), text.shown(file.name), why)


def _exchange(ticket, opened, transport, key):
    reply = transport.send(ticket, opened, key)
    if not ticket.receiver.follow_redirects:
        return reply
    for _ in range(MOST_REDIRECTS):
        url = _redirect(ticket.url, reply)
        if url is None:
            break
        ticket = ticket._replace(url=url)
        opened.rewind()
        reply = transport.send(ticket, opened, key)
    return reply


def _redirect(url, reply):
    """Return where a redirect of the same origin leads, or None: the reply stands as it is."""
    place = classify.header(reply.headers, 'location')
    if reply.status not in REDIRECTS or not place:
        return None
    target = compat.urljoin(url, place).split('#')[0]
    here, there = compat.urlsplit(url), compat.urlsplit(target)
    if (here.scheme, here.netloc) != (there.scheme, there.netloc) or not request.usable_target(target):
        return None
    return target


def _changed(error):
    return classify.of_host(str(error), GONE if error.gone else RETRY, gone=True)
