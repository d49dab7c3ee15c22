"""What an answer means: Reply or TransportError to Outcome. One table (SPEC 3), the same for every transport.

Pure: the wall time is an argument. Called by delivery.py. Raises nothing.
"""

import re

from agent import text
from agent.records import ACK, FILE, HOLD, HOST, NACK, RECEIVER, RETRY, Outcome

LONGEST_RETRY_AFTER = 3600  # seconds (SPEC 3)

CLASSES = {2: ACK, 3: HOLD, 4: NACK, 5: RETRY}
CODES = {408: RETRY, 425: RETRY, 429: RETRY}


def of_reply(reply, receiver, wall):
    """Return the Outcome of a whole answer.

    reply: records.Reply; receiver: records.Receiver; wall: seconds since 1970, for a Retry-After that is a date.
    """
    status = reply.status
    wait = None if status < 400 else retry_after(reply.headers, wall)
    verdict = _verdict(status, receiver, wait)
    # 429 and 503 with Retry-After speak for all files of the receiver; a 429 means "slow down" even without one.
    throttle = verdict == RETRY and (status == 429 or status == 503 and wait is not None)
    blame = RECEIVER if verdict == HOLD or throttle or verdict == RETRY and status >= 500 else FILE
    return Outcome(verdict, blame, status, text.status(status, reply.reason), wait, throttle, reply, False, False)


def of_error(error):
    """Return the Outcome of an exchange without an answer: a TransportError is never the file's fault."""
    if error.stage == 'local':
        return of_host(str(error))
    return Outcome(HOLD if error.hold else RETRY, RECEIVER, None, str(error), None, False, None, False, False,
                   error.sent_whole)


def of_host(reason, verdict=RETRY, gone=False):
    """Return the Outcome of a file that could not be sent from here: the receiver was not heard.

    reason: a few words; verdict: RETRY or GONE; gone: True when the file is no more as it was collected.
    """
    return Outcome(verdict, HOST, None, reason, None, False, None, False, gone)


def _verdict(status, receiver, wait):
    if receiver.ack or receiver.nack or receiver.retry or receiver.hold:
        for entry in ('%d' % status, '%dxx' % (status // 100)):
            for verdict, entries in ((ACK, receiver.ack), (NACK, receiver.nack), (RETRY, receiver.retry),
                                     (HOLD, receiver.hold)):
                if entry in entries:
                    return verdict
    if status == 413 and wait is not None:
        return RETRY
    return CODES.get(status) or CLASSES[status // 100]


def header(headers, name):
    """Return the value of the first header of this lower-case name, '' when there is none; headers: as in Reply."""
    for known, value in headers:
        if known == name:
            return value
    return ''


def retry_after(headers, wall):
    """Return the seconds that Retry-After asks for, at most LONGEST_RETRY_AFTER; None without a usable one.

    headers: as in records.Reply; wall: seconds since 1970. Both forms of RFC 9110 10.2.3; a date is measured
    against the answer's own Date where it has one, so that a wrong clock on either side does no harm.
    """
    value = header(headers, 'retry-after').strip(' \t')
    if re.match(r'[0-9]+\Z', value):  # isdigit() is true of others, and int() refuses thousands of them
        return min(int(value.lstrip('0')[:9] or 0), LONGEST_RETRY_AFTER)
    until = _date(value)
    if until is None:
        return None
    begin = _date(header(headers, 'date'))
    return min(max(0, until - (wall if begin is None else begin)), LONGEST_RETRY_AFTER)


def _date(value):
    if not value:
        return None
    import calendar  # here: slow to import, and few answers need them
    from email.utils import parsedate_tz
    try:
        parsed = parsedate_tz(value)
        if parsed is None:
            return None
        year = parsed[0] + (1900 if 68 < parsed[0] < 100 else 2000 if parsed[0] < 100 else 0)  # 2.6 leaves `25`
        return calendar.timegm((year,) + parsed[1:6] + (0, 1, 0)) - (parsed[9] or 0)
    except (TypeError, ValueError, IndexError, OverflowError):  # what versions of it raise on odd dates
        return None
