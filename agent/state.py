"""What outlives the process: SPOOL/.envio/state.json, written whole and renamed, at most once a second and at the end.

Breakers, holds, pauses, attempts and counters, so that cron and daemon act alike. It may be deleted at any time at the
cost of those alone; what can't be read is set aside as state.json.bad, said once, and the agent starts afresh. Times in
it are seconds from `written` on, so that a clock that is set stretches no pause.
Called by engine.py and the commands that show or change what waits.
"""

import errno
import json
import logging
import os
import time

from agent import compat, text
from agent.breaker import CLOSED, HALF_OPEN, OPEN
from agent.folders import FILE_MODE, OWN
from agent.records import LaneState, Stamp, Tried

NAME = OWN + '/state.json'
FLUSH = OWN + '/flush'  # what `envio flush` leaves for a running agent
VERSION = 1
EVERY = 1.0  # seconds between two writes at least
COUNTS = ('accepted', 'rejected', 'failed', 'held', 'gone', 'bytes')

_MOST = 64 << 20  # bytes that are read
_FOR_EVER = 10.0 ** 9  # seconds: more than any pause
_LAST = 10.0 ** 11  # seconds since 1970

log = logging.getLogger('envio')


class State(object):
    """The content of one state.json.

    written, since: seconds since 1970: of the writing, and since when is counted; pid, mode: the agent at work ('run',
    'once'; '': it has ended); lanes: {receiver: LaneState}; counts: {receiver: {one of COUNTS: int}}; answers:
    {receiver: (words, seconds since 1970)}: the newest; waiting, busy: {receiver: files known, files being sent};
    tried: {file name: Tried}, due in seconds from `written` on; unmoved: files answered that could not be moved.
    """

    def __init__(self, written=0.0, since=0.0, pid=0, mode=''):
        self.written, self.since, self.pid, self.mode = written, since, pid, mode
        self.lanes, self.counts, self.answers = {}, {}, {}
        self.waiting, self.busy, self.tried, self.unmoved = {}, {}, {}, 0


def read(spool):
    """Return the State in a spool's folder, or None when there is none yet.

    Raises ValueError when it is none, EnvironmentError when it can't be read.
    """
    try:
        fd = os.open(spool + '/' + NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | compat.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    with os.fdopen(fd, 'rb') as stream:
        raw = stream.read(_MOST)
    try:
        return _understood(json.loads(raw.decode('ascii')))
    except (AttributeError, KeyError, IndexError, TypeError, OverflowError, RuntimeError) as error:
        raise ValueError('%s: %s' % (error.__class__.__name__, error))


def write(spool, state):
    """Replace the state in a spool's folder. Raises EnvironmentError."""
    document = {'version': VERSION, 'written': state.written, 'since': state.since, 'pid': state.pid,
                'mode': state.mode, 'unmoved': state.unmoved, 'receivers': {}, 'files': {}}
    for name, lane in state.lanes.items():
        answer, when = state.answers.get(name, ('', 0))
        fields = dict(lane._asdict(), held=compat.unicode_text(lane.held), counts=state.counts.get(name, {}))
        fields.update(answer=compat.unicode_text(answer), answered=when, waiting=state.waiting.get(name, 0),
                      busy=state.busy.get(name, 0))
        document['receivers'][name] = fields
    for name, tried in state.tried.items():
        document['files'][compat.percent(compat.fs_bytes(name))] = [
            list(tried.stamp), tried.attempts, tried.due, compat.unicode_text(tried.last), tried.maybe, tried.receiver]
    draft = '%s/%s.new' % (spool, NAME)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | compat.O_CLOEXEC, FILE_MODE)
    with os.fdopen(fd, 'wb') as stream:
        stream.write(json.dumps(document, sort_keys=True, separators=(',', ':')).encode('ascii'))
    os.rename(draft, spool + '/' + NAME)


def _understood(document):
    """Return the State of a document; raises ValueError and what odd types raise."""
    if document['version'] != VERSION:
        raise ValueError('version %r' % document['version'])
    state = State(_time(document['written']), _time(document['since']), int(_number(document['pid'])),
                  _native(document['mode']))
    state.unmoved = int(_number(document.get('unmoved', 0)))
    for key, fields in document['receivers'].items():
        name = _native(key)
        state.lanes[name] = _lane(fields)
        state.counts[name] = dict([(count, int(_number(fields['counts'].get(count, 0)))) for count in COUNTS])
        state.answers[name] = _native(fields['answer']), _time(fields['answered'])
        state.waiting[name], state.busy[name] = int(_number(fields['waiting'])), int(_number(fields['busy']))
    for key, (stamp, attempts, due, last, maybe, receiver) in document['files'].items():
        name = compat.fs_native(compat.unpercent(_native(key)))
        state.tried[name] = Tried(Stamp(*[int(part) for part in stamp]), int(_number(attempts)), _time(due),
                                  _native(last), bool(maybe), _native(receiver))
    return state


def _lane(fields):
    if fields['breaker'] not in (CLOSED, OPEN, HALF_OPEN):
        raise ValueError('breaker %r' % fields['breaker'])
    numbers = dict([(key, _time(fields[key])) for key in ('until', 'hold_due', 'paused')])
    counts = dict([(key, int(_number(fields[key]))) for key in ('failures', 'openings', 'nacks', 'window')])
    return LaneState(breaker=_native(fields['breaker']), held=_native(fields['held']), accepts=bool(fields['accepts']),
                     **dict(numbers, **counts))


def _number(value):
    """Return a number that is none below 0 and not beyond any use; raises TypeError, ValueError."""
    if isinstance(value, bool) or not 0 <= value < 1e18:
        raise ValueError('%r' % (value,))
    return value


def _time(value):
    """Return a number of seconds that a calendar still has a date for; raises TypeError, ValueError."""
    if _number(value) > _LAST:
        raise ValueError('%r' % (value,))
    return value


def _native(value):
    if not isinstance(value, compat.text_type):
        raise TypeError('%r' % (value,))
    return compat.native_text(value)


class Keeper(object):
    """Restores the state of the spools when an agent begins, and keeps it.

    spools: paths, whose locks the agent holds; mode: 'run' or 'once'; clock: monotonic; wall: since 1970.
    """

    def __init__(self, spools, mode, clock=compat.monotonic, wall=time.time):
        self._spools = []
        self._fresh = list(spools)  # whose state was not read yet
        self._mode = mode
        self._clock, self._wall = clock, wall
        self._before = State(since=wall())  # what was counted before this process
        self._answers = {}
        self._written = -EVERY   # when it was written last
        self.changed = True      # there is something new to write
        self._failing = False

    def spools_changed(self, spools):
        """Keep the state of these spools from now on; restore() reads those that are new."""
        self._fresh = [spool for spool in spools if spool not in self._spools]

    def restore(self, lanes):
        """Read the states and give them to `lanes` (lanes.Lanes): what was paused goes on being so."""
        newest = None
        now, wall = self._clock(), self._wall()
        first, fresh = not self._spools, self._fresh
        self._spools, self._fresh = self._spools + fresh, []
        for spool in fresh:
            state = self._read(spool)
            if state is None:
                continue
            gone_by = max(0, wall - state.written)
            for name, tried in state.tried.items():
                due = now + min(max(0, tried.due - gone_by), _FOR_EVER)
                lanes.remembered[spool, name] = tried._replace(due=due)
            if newest is None or state.written > newest.written:
                newest = state
        if newest is None or not first:
            return
        self._before, self._answers = newest, newest.answers
        gone_by = max(0, wall - newest.written)
        for name, lane in newest.lanes.items():
            if name in lanes.lanes:
                lanes.lanes[name].restore(lane._replace(
                    until=max(0, lane.until - gone_by), hold_due=max(0, lane.hold_due - gone_by),
                    paused=max(0, lane.paused - gone_by)), now)

    def _read(self, spool):
        try:
            return read(spool)
        except (ValueError, EnvironmentError) as error:
            path = spool + '/' + NAME
            why = compat.error_text(error) if isinstance(error, EnvironmentError) else str(error)
            log.warning('%s: can\'t be read: %s: set aside as state.json.bad, pauses and counters begin afresh',
                        text.shown(path), text.printable(compat.config_bytes(why), 100))
            try:
                os.rename(path, path + '.bad')
            except OSError:
                pass  # it is written over
            return None

    def flush(self, lanes):
        """Forget the pauses that `envio flush` asks to forget, by SPOOL/.envio/flush: a receiver's name, or `*`.

        Returns the names of the receivers that were asked for, '*' for all.
        """
        wanted = []
        for spool in self._spools:
            path = spool + '/' + FLUSH
            try:
                with open(path, 'rb') as stream:
                    name = compat.config_native(stream.read(1000).strip())
                os.unlink(path)
            except EnvironmentError:
                continue  # nobody asks
            wanted.append(name)
            lanes.forget_pauses(None if name == '*' else name)
            self.changed = True
        return wanted

    def due(self):
        """Return when save() has something to do, inf when it has not."""
        return self._written + EVERY if self.changed else float('inf')

    def heard(self, receiver, words):
        """Note the newest answer of a receiver."""
        self._answers[receiver] = words, self._wall()
        self.changed = True

    def save(self, with_lanes, stats, ended=False):
        """Write the states; return the newest State.

        with_lanes: calls a function with the lanes.Lanes under their lock; stats: stats.Stats; ended: the agent stops.
        """
        self._written, self.changed = self._clock(), False
        state = State(self._wall(), self._before.since, 0 if ended else os.getpid(), '' if ended else self._mode)
        state.answers = self._answers
        tried = with_lanes(lambda lanes: self._look(lanes, state))
        for name in state.lanes:
            state.counts[name] = self._counts(name, stats)
        for spool in self._spools:
            state.tried = dict([(name, one._replace(due=max(0, one.due - self._written)))
                                for (folder, name), one in tried.items() if folder == spool])
            state.unmoved = with_lanes(lambda lanes: lanes.unmoved(spool))
            self._write(spool, state)
        return state

    def _look(self, lanes, state):
        for name, lane in lanes.lanes.items():
            state.lanes[name] = lane.state(self._written)
            state.waiting[name], state.busy[name] = lane.waiting(), lane.busy
        for name in lanes.parked():
            state.waiting[name] = state.waiting.get(name, 0) + 1
        return lanes.tried()

    def _counts(self, name, stats):
        before, present = self._before.counts.get(name, {}), stats.receivers.get(name)
        return dict([(count, before.get(count, 0) + getattr(present, count, 0)) for count in COUNTS])

    def _write(self, spool, state):
        try:
            write(spool, state)
        except EnvironmentError as error:
            if not self._failing:
                log.error('%s: the state can\'t be written: %s: pauses and counters would be lost at a restart',
                          text.shown(spool), compat.error_text(error))
            self._failing = self.changed = True
            return
        if self._failing:
            self._failing = False
            log.warning('%s: the state can be written again', text.shown(spool))
