"""The journal: one line of JSON for each final verdict, for scripts and for those who ask where a file has gone.

Called by engine.py, by the main thread alone. A full disk is said once and stops nothing. No URL and no header gets in,
and so no secret.
"""

import json
import logging
import time

from agent import compat, text
from agent.appender import Appender
from agent.errors import ConfigError
from agent.records import RETRY

EXPIRED = 'EXPIRED'  # beside ACK and NACK: given up (max_attempts, expire)

log = logging.getLogger('envio')


class Journal(object):
    """Appends to the file `path`, '' = there is no journal. Raises ConfigError when it can't be opened."""

    def __init__(self, path):
        self._path = path
        self._missing = 0     # verdicts that could not be written, in a row
        self._stale = False   # it was said that they go into the old file
        try:
            self._file = Appender(path) if path else None
        except EnvironmentError as error:
            raise ConfigError(['journal: can\'t be opened: %s: %s' % (text.shown(path), compat.error_text(error))])

    def note(self, result, wall):
        """Append the line of a records.Result, if its file has moved. wall: seconds since 1970."""
        if self._file is None or not result.outcome.moved:
            return
        try:
            self._file.write(line(result, wall))
        except EnvironmentError as error:
            if not self._missing:
                log.error('%s: the journal can\'t be written: %s: verdicts will be missing from it',
                          text.shown(self._path), compat.error_text(error))
            self._missing += 1
            return
        if self._missing:
            log.warning('%s: the journal can be written again: %s missing', text.shown(self._path),
                        text.count(self._missing, 'verdict'))
            self._missing = 0
        self._say_stale(self._file.stale)

    def _say_stale(self, error):
        if error is not None and not self._stale:
            log.error('%s: the journal was rotated and can\'t be opened anew: %s: lines go on into the old file',
                      text.shown(self._path), compat.error_text(error))
        elif error is None and self._stale:
            log.warning('%s: the journal is open anew', text.shown(self._path))
        self._stale = error is not None

    def close(self):
        """Give the file back."""
        if self._file is not None:
            self._file.close()


def line(result, wall):
    """Return the line of a records.Result whose file has moved, as bytes. wall: seconds since 1970.

    file and spool are percent-encoded where they are no plain text, see text.shown: decoding gives the name back.
    """
    file, outcome = result.file, result.outcome
    fields = {
        'time': '"%s"' % _time(wall),
        'file': _string(text.shown(file.name)),
        'spool': _string(text.shown(file.spool)),
        'receiver': _string(result.receiver.name),
        'verdict': _string(EXPIRED if outcome.verdict == RETRY else outcome.verdict),
        'status': 'null' if outcome.status is None else '%d' % outcome.status,
        'reason': _string(outcome.reason),
        'attempts': '%d' % result.attempts,
        'bytes': '%d' % file.stamp.size,
        'seconds': '%.3f' % result.took,  # not by json: 2.6 writes 0.1 as 0.10000000000000001
        'possibly_delivered': 'true' if outcome.maybe else 'false',
    }
    return compat.wire('{%s}\n' % ','.join(['"%s":%s' % field for field in sorted(fields.items())]))


def _string(native):
    return json.dumps(compat.unicode_text(native))


def _time(wall):
    """Return ISO 8601, UTC, with milliseconds."""
    seconds, milliseconds = divmod(int(round(wall * 1000)), 1000)
    return '%s.%03dZ' % (time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds)), milliseconds)
