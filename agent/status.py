"""How the receivers are and what waits for them: gathered from the spools and their state, judged, drawn.

Reads alone, so that it works beside a running agent, after one, and for who may not write. Called by cli, listing.
What can't be read makes it say UNKNOWN; raises UsageError alone.
"""

import errno
import fcntl
import json
import os
import stat
import sys
import time
from collections import namedtuple

from agent import compat, requeue, rules, state, text
from agent.breaker import CLOSED, HALF_OPEN, OPEN
from agent.errors import ConfigError, UsageError
from agent.folders import OWN, OWN_NAMES
from agent.health import LONGEST_LINE, OK, PAUSED, UNKNOWN, judge
from agent.records import HOLD

EVERY = 2.0          # seconds between two drawings
WIDTH = 80           # columns

_COLOURS = {'OK': 32, 'WARNING': 33, 'CRITICAL': 31, 'UNKNOWN': 35, HOLD: 31, OPEN: 31, HALF_OPEN: 33, PAUSED: 33}
_CLEAR = '\033[H\033[J'

Heap = namedtuple('Heap', (
    'count',   # files
    'oldest',  # since when the oldest of them waits, seconds since 1970; None: there is none
))
NOTHING = Heap(0, None)

SpoolView = namedtuple('SpoolView', (
    'path',
    'kept',      # state.State, None: there is none, or it can't be read
    'working',   # True: an agent has the spool
    'waiting',   # Heap
    'rejected',  # number of files in error/
    'full',      # True: its disk has no room left
    'problem',   # what of it can't be read, a sentence, or ''
))

ReceiverView = namedtuple('ReceiverView', (
    'name',
    'state',     # HOLD, OPEN, HALF_OPEN, PAUSED or CLOSED: the one that counts
    'until',     # when the next file may go, seconds since 1970; None: now
    'held',      # why it is on HOLD, or ''
    'waiting',   # Heap
    'busy',      # files being sent
    'counts',    # {one of state.COUNTS: number}, since Overview.since
    'answer',    # the newest answer in words, or ''
    'answered',  # when, seconds since 1970, or None
))

Overview = namedtuple('Overview', (
    'now',        # seconds since 1970
    'written',    # when the newest state was, None: there is none
    'since',      # since when is counted, or None
    'pid',        # of the agent at work, None: there is none
    'mode',       # 'run', 'once' or ''
    'spools',     # tuple of SpoolView
    'receivers',  # tuple of ReceiverView
    'unrouted',   # Heap: files without a receiver
))


# --- gathering

def gather(setup, now):
    """Return the Overview. setup: (records.Config, router.Router); now: seconds since 1970."""
    config, router = setup
    heaps = {}
    spools = tuple([_look_at(path, config, router, heaps) for path in config.spool])
    kept, working = state.State(), False
    for view in spools:
        if view.kept is not None and view.kept.written > kept.written:
            kept = view.kept
            working = view.working and bool(kept.pid)
    unrouted = heaps.pop(None, NOTHING)
    names = [receiver.name for receiver in config.receivers]
    # Those that the router plug-in brought up: an agent at work has a lane for them, else they matter when files wait.
    names += sorted(set(heaps).union(working and kept.lanes or ()) - set(names))
    receivers = [_receiver(name, kept, heaps.get(name, NOTHING), now, working) for name in names]
    return Overview(now, kept.written or None, kept.since or None, kept.pid if working else None,
                    kept.mode if working else '', spools, tuple(receivers), unrouted)


def _look_at(path, config, router, heaps):
    """Return the SpoolView, and add its files to heaps: {receiver's name, None = no receiver: Heap}."""
    kept, working, waiting, rejected, full, problem = None, False, NOTHING, 0, False, ''
    try:
        for name, status in waiting_files(path, config.ignore):
            receiver = router.route(path, name).receiver
            key = receiver and receiver.name
            heaps[key] = _add(heaps.get(key, NOTHING), status)
            waiting = _add(waiting, status)
        rejected = sum([1 for _ in requeue.rejected(path)])
        working = is_locked(path)
        kept, full = state.read(path), _is_full(path)
    except (ValueError, EnvironmentError) as error:
        problem = unread(path, error)
    return SpoolView(path, kept, working, waiting, rejected, full, problem)


def _is_full(path):
    room = os.statvfs(path)
    return not room.f_bavail or bool(room.f_files) and not room.f_favail


def unread(path, error):
    """Return the sentence for what reading a spool (a path) or its state raised."""
    if not isinstance(error, EnvironmentError):
        return '%s/%s: can\'t be understood: %s: the next agent sets it aside and begins afresh' % (
            text.shown(path), state.NAME, text.printable(compat.config_bytes(str(error)), 60))
    name = getattr(error, 'filename', None) or path
    return '%s: can\'t be read: %s' % (text.shown(name), compat.error_text(error))


def _add(heap, status):
    since = waits_since(status)
    return Heap(heap.count + 1, since if heap.oldest is None else min(since, heap.oldest))


def waits_since(status):
    """Return since when a file of this stat result waits, seconds since 1970: mtime alone may be older than it."""
    return max(status.st_mtime, status.st_ctime)


def waiting_files(spool, ignore):
    """Yield (name, stat result) of each file that waits in a spool (a path), in no order. Raises OSError.

    ignore: shell patterns of the configuration.
    """
    ignored = rules.matcher(ignore)
    for name in compat.scan_names(spool):
        if name in OWN_NAMES or ignored(rules.name_key(name)) is not None:
            continue
        try:
            status = os.lstat(spool + '/' + name)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                continue  # race: it was sent meanwhile
            raise
        if stat.S_ISREG(status.st_mode):
            yield name, status


def is_locked(spool):
    """Return True when an agent has the spool (a path). Raises EnvironmentError."""
    try:
        fd = os.open('%s/%s/lock' % (spool, OWN), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | compat.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    try:
        # race: an agent that starts in the microseconds until the lock is closed again is told that another one has
        # the spool. Shared, so that of two that look neither takes the other for an agent.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except EnvironmentError as error:
        if compat.error_number(error) in (errno.EAGAIN, errno.EACCES):
            return True
        raise
    finally:
        os.close(fd)
    return False


def standing(lane, gone_by):
    """Return (state, seconds until the next file may go) of a records.LaneState that is `gone_by` seconds old."""
    until = max(lane.paused, lane.until if lane.breaker == OPEN else 0, lane.hold_due if lane.held else 0)
    left = max(0, until - gone_by)
    if lane.held:
        return HOLD, left
    if lane.breaker != CLOSED:
        return lane.breaker, left
    return PAUSED if left else CLOSED, left


def _receiver(name, kept, heap, now, working):
    word, left = CLOSED, 0
    if name in kept.lanes:
        word, left = standing(kept.lanes[name], max(0, now - kept.written))
    answer, answered = kept.answers.get(name, ('', 0))
    counts = kept.counts.get(name) or dict.fromkeys(state.COUNTS, 0)
    held = kept.lanes[name].held if word == HOLD else ''
    return ReceiverView(name, word, now + left if left else None, held, heap,
                        kept.busy.get(name, 0) if working else 0, counts, answer, answered or None)


# --- drawing

def status(load, as_json, watching, write):
    """Show how things are: a table, its first line the summary, or one JSON document; return the exit code.

    load: () -> (records.Config, router.Router); watching: draw over and over until Ctrl-C; write: called with what is
    to be shown. Raises UsageError when there is no terminal to watch on.

    The document, all times in seconds since 1970, null where there is none:
    level (0 ok, 1 warning, 2 critical, 3 unknown), summary: of a wrong configuration these two alone; now, written,
    since (of the counts),
    agent: {working, pid, mode},
    spools: [{path, working, waiting, oldest, rejected, problem}],
    receivers: [{name, state (HOLD, OPEN, HALF_OPEN, paused, CLOSED), until, held (why), waiting, oldest, busy,
    accepted, rejected, failed, held_attempts, gone, bytes, answer, answered}],
    unrouted: {waiting, oldest}.
    """
    terminal = sys.stdout.isatty()
    if watching and (as_json or not terminal):
        raise UsageError('status: --watch draws a table on a terminal: leave it out')
    colours = terminal and not os.environ.get('NO_COLOR')
    try:
        setup = load()
    except ConfigError as error:
        # For monitoring: it understands these codes alone, and reads the first line of standard output.
        return _unknown(error.problems, as_json, write)
    if watching:
        watch(setup, write, colours)
        return OK
    overview = gather(setup, time.time())
    level, summary = judge(overview)
    if as_json:
        write(json.dumps(_document(overview, level, summary), sort_keys=True) + '\n')
    else:
        write(draw(overview, {}, colours))
    return level


def _unknown(problems, as_json, write):
    """Show that nothing can be told, for the configuration is wrong; return the exit code."""
    more = ', and %d more: see envio check' % (len(problems) - 1) if len(problems) > 1 else ''
    summary = 'UNKNOWN: ' + text.printable(compat.log_bytes(problems[0] + more), LONGEST_LINE).replace('|', '/')
    write(json.dumps({'level': UNKNOWN, 'summary': summary}, sort_keys=True) + '\n' if as_json else summary + '\n')
    return UNKNOWN


def watch(setup, write, colours, sleep=time.sleep):
    """Draw the table over and over, with rates, until Ctrl-C. write: called with what is to be shown."""
    before = None
    try:
        while True:
            overview = gather(setup, time.time())
            write(_CLEAR + draw(overview, rates(before, overview) if before else {}, colours))
            before = overview
            sleep(EVERY)
    except KeyboardInterrupt:
        write('\n')


def rates(before, after):
    """Return {receiver's name: files accepted a second} between two Overviews."""
    seconds = float((after.written or 0) - (before.written or 0))
    counts = dict([(receiver.name, receiver.counts['accepted']) for receiver in before.receivers])
    return dict([(receiver.name, max(0, receiver.counts['accepted'] - counts.get(receiver.name, 0)) / seconds
                  if seconds > 0 else 0.0) for receiver in after.receivers])


def draw(overview, rates_, colours):
    """Return the table, its first line the summary. rates_: as rates() gives them, or empty."""
    _, summary = judge(overview)
    word, _, facts = summary.partition(':')
    lines = [_paint(word, colours) + ':' + facts, _agent_line(overview), '']
    lines.append('%-28s %-9s %-22s %7s %6s %3s' % ('RECEIVER', 'STATE', 'NEXT FILE', 'WAITING', 'OLDEST', 'OUT'))
    for receiver in overview.receivers:
        lines += _receiver_lines(receiver, overview.now, rates_.get(receiver.name), colours)
    if overview.unrouted.count:
        lines.append('%-28s %-9s %-22s %7d %6s' % ('-', '-', 'never: see envio route', overview.unrouted.count,
                                                   _age(overview.unrouted.oldest, overview.now)))
    return '\n'.join(lines) + '\n'


def _agent_line(overview):
    line = 'agent: not running'
    if overview.pid:
        line = 'agent: running (pid %d, %s)' % (overview.pid, overview.mode)
    if overview.written is None:
        return line + ', no state yet'
    return line + ', state of %s, counted since %s' % (
        _clock(overview.written), time.strftime('%Y-%m-%d', time.localtime(overview.since)))


def _receiver_lines(receiver, now, rate, colours):
    until = '-'
    if receiver.until is not None:
        until = '%s, in %s' % (_clock(receiver.until), text.duration(receiver.until - now))
    name, lines = receiver.name, []
    if len(name) > 28:
        name, lines = '', [name]  # a line of its own, so that the columns stay in 80
    lines.append('%-28s %s %-22s %7d %6s %3d' % (
        name, _paint('%-9s' % receiver.state, colours), until, receiver.waiting.count,
        _age(receiver.waiting.oldest, now), receiver.busy))
    if receiver.held:
        lines.append(_cut('    HOLD: ' + receiver.held))
    counts = '    %(accepted)d accepted, %(rejected)d rejected, %(failed)d failed' % receiver.counts
    if rate is not None:
        counts += ', %.1f files/s' % rate
    if receiver.answered is not None:
        counts += ', %s ago: %s' % (text.duration(max(0, now - receiver.answered)), receiver.answer)
    return lines + [_cut(counts)]


def _cut(line):
    raw = compat.log_bytes(line)
    return text.printable(raw, WIDTH - 3 if len(compat.decode(raw)) > WIDTH else WIDTH)


def _paint(word, colours):
    colour = _COLOURS.get(word.strip())
    return '\033[%dm%s\033[0m' % (colour, word) if colours and colour else word


def _clock(seconds):
    return time.strftime('%H:%M:%S', time.localtime(seconds))


def _age(since, now):
    return '-' if since is None else text.duration(max(0, now - since))


def _document(overview, level, summary):
    receivers = []
    for view in overview.receivers:
        counts = dict(view.counts, held_attempts=view.counts['held'])
        receivers.append(dict(counts, name=view.name, state=view.state, until=view.until, held=view.held,
                              waiting=view.waiting.count, oldest=view.waiting.oldest, busy=view.busy,
                              answer=view.answer, answered=view.answered))
    spools = [{'path': text.shown(view.path), 'working': view.working, 'waiting': view.waiting.count,
               'oldest': view.waiting.oldest, 'rejected': view.rejected, 'problem': view.problem}
              for view in overview.spools]
    return {'level': level, 'summary': summary, 'now': overview.now, 'written': overview.written,
            'since': overview.since, 'spools': spools, 'receivers': receivers,
            'agent': {'working': overview.pid is not None, 'pid': overview.pid, 'mode': overview.mode},
            'unrouted': {'waiting': overview.unrouted.count, 'oldest': overview.unrouted.oldest}}
