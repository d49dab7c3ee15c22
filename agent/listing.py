"""The waiting files one by one, the oldest first: whose they are, how often they were tried, when they are next.

Reads alone, as status.py. Called by cli.py. Raises SpoolError.
"""

import json
import time

from agent import compat, state, text
from agent.errors import SpoolError
from agent.moves import stamp_of
from agent.status import standing, unread, waiting_files, waits_since

_CHUNK = 1000  # files drawn at once

_ROW = '%-30s %-14s %6s %5s %6s  %s\n'


def list_files(setup, as_json, write, say):
    """Write the list of waiting files: nothing when there is none, or one JSON document.

    setup: (records.Config, router.Router); write: called with some of the words at a time; say: called with a sentence
    for each state that can't be read. Raises SpoolError.

    The document: {files: [{spool, name (percent-decoded it is the file's), receiver (null: none), age (seconds),
    attempts, next (seconds from now; null: no receiver), last, maybe (possibly delivered)}]}.
    """
    config, router = setup
    states = {}
    for path in config.spool:
        try:
            states[path] = state.read(path) or state.State()
        except (ValueError, EnvironmentError) as error:
            states[path] = state.State()
            say(unread(path, error))
    now = time.time()
    found = _found(config, states)
    rows = (_row(router, path, name, since, states[path], now) for since, name, path in found)
    for words in _joined(_as_json(rows) if as_json else _as_table(rows)):
        write(words)


def _found(config, states):
    """Return [(since when it waits, name, spool's path)] of all waiting files, the oldest first. What the states
    remember of files that are other ones by now is forgotten."""
    found = []
    for path in config.spool:
        tried = states[path].tried
        try:
            for name, status in waiting_files(path, config.ignore):
                if name in tried and tried[name].stamp != stamp_of(status):
                    del tried[name]
                found.append((waits_since(status), name, path))
        except EnvironmentError as error:
            raise SpoolError(unread(path, error))
    found.sort()
    return found


def _row(router, path, name, since, kept, now):
    """Return a file's fields, as in the JSON document."""
    receiver = router.route(path, name).receiver
    tried = kept.tried.get(name)
    gone_by = max(0, now - kept.written)
    wait = None
    if receiver is not None:
        lane = kept.lanes.get(receiver.name)
        wait = max(standing(lane, gone_by)[1] if lane else 0, tried.due - gone_by if tried else 0)
    return {'spool': text.shown(path), 'name': text.shown(name), 'receiver': receiver and receiver.name,
            'age': max(0, now - since), 'attempts': tried.attempts if tried else 0, 'next': wait,
            'last': text.printable(compat.log_bytes(tried.last)) if tried else '',
            'maybe': bool(tried and tried.maybe)}


def _as_json(rows):
    between = '{"files": [\n'
    for row in rows:
        yield between + json.dumps(row, sort_keys=True)
        between = ',\n'
    yield '\n]}\n' if between == ',\n' else '{"files": []}\n'


def _as_table(rows):
    first = _ROW % ('NAME', 'RECEIVER', 'AGE', 'TRIES', 'NEXT', 'LAST ANSWER')
    for row in rows:
        wait, last = row['next'], row['last']
        if row['maybe']:
            last += ' (possibly delivered)'
        yield first + (_ROW % (row['name'], row['receiver'] or '-', text.duration(row['age']), row['attempts'],
                               '-' if wait is None else text.duration(wait) if wait else 'now', last)).rstrip() + '\n'
        first = ''


def _joined(pieces):
    """Yield the pieces, many at a time."""
    chunk = []
    for piece in pieces:
        chunk.append(piece)
        if len(chunk) == _CHUNK:
            yield ''.join(chunk)
            chunk = []
    yield ''.join(chunk)
