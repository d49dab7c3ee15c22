"""`envio report --html FILE`: one page that needs nothing else: how the receivers are, what was sent in the last two
days, what was rejected and why, what waits longest. From the state, the journal and error/; reads alone.

Called by cli.py. Raises AgentError when the page can't be written.
"""

import calendar
import errno
import heapq
import itertools
import os
import re
import time

from agent import compat, moves, requeue, text
from agent.breaker import OPEN
from agent.errors import AgentError
from agent.folders import ERROR, REASON
from agent.health import LEVELS, judge
from agent.records import HOLD
from agent.status import gather, waiting_files, waits_since

HOURS = 48
MOST_REJECTED = 50    # shown
MOST_OLDEST = 20      # shown
MOST_JOURNAL = 64 << 20  # bytes that are read, the newest
WIDTH, HEIGHT = 960, 180  # of the picture

_LINE = re.compile(br'"time":"(\d{4}-\d\d-\d\dT\d\d):[^"]*","verdict":"([A-Z]+)"\}\Z')
_STYLE = """
:root{--paper:#fff;--ink:#1d2733;--soft:#5d6b7a;--line:#d8dee6;--good:#2f7d4f;--bad:#b3362c;--warn:#a86a00}
@media (prefers-color-scheme:dark){:root{--paper:#12181f;--ink:#e4e9ef;--soft:#93a1b0;--line:#2c3743;--good:#58b57f;
--bad:#e8766b;--warn:#e0a53c}}
body{background:var(--paper);color:var(--ink);font:15px/1.45 sans-serif;max-width:60rem;margin:1.5rem auto;
padding:0 1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}p{margin:.3rem 0}.soft{color:var(--soft)}
table{border-collapse:collapse;width:100%}th{text-align:left;font-weight:600;color:var(--soft)}
th,td{padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.OK,.CLOSED{color:var(--good)}
.CRITICAL,.HOLD,.OPEN{color:var(--bad)}.WARNING,.HALF_OPEN,.paused,.UNKNOWN{color:var(--warn)}
svg{width:100%;height:auto}svg text{fill:var(--soft);font:11px sans-serif}.bar{fill:var(--good)}.rej{fill:var(--bad)}
.axis{stroke:var(--line)}
"""


def write(setup, path, now):
    """Write the page. setup: (records.Config, router.Router); path: of the file, '-' = return it as text instead; now:
    seconds since 1970. Raises AgentError."""
    page = compat.log_bytes(draw(setup, now))
    if path == '-':
        return compat.config_native(page)
    try:
        moves.publish(path, '%s.%d.new' % (path, os.getpid()), page)
    except EnvironmentError as error:
        raise AgentError('report: %s: can\'t be written: %s' % (text.shown(path), compat.error_text(error)))
    return ''


def draw(setup, now):
    """Return the page as native text."""
    config = setup[0]
    overview = gather(setup, now)
    level, summary = judge(overview)
    title = 'Envio on %s' % _escaped(os.uname()[1])
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><title>%s: %s</title><style>%s</style></head><body>' % (
            title, LEVELS[level], _STYLE),
        '<h1>%s</h1><p><strong class="%s">%s</strong></p><p class="soft">%s; %s</p>' % (
            title, LEVELS[level], _escaped(summary), _when(now), _agent(overview)),
        '<h2>Receivers</h2>' + _receivers(overview),
        '<h2>The last %d hours</h2>' % HOURS + _throughput(config.journal, now),
        '<h2>Rejected</h2>' + _rejected(config.spool),
        '<h2>Waiting longest</h2>' + _oldest(setup, now),
        '</body></html>\n']
    return '\n'.join(parts)


def _escaped(native):
    raw = compat.log_bytes(native)
    safe = text.printable(raw, len(raw))
    for character, name in (('&', 'amp'), ('<', 'lt'), ('>', 'gt'), ('"', 'quot')):
        safe = safe.replace(character, '&%s;' % name)
    return safe


def _when(seconds):
    return time.strftime('%Y-%m-%d %H:%M', time.localtime(seconds))


def _agent(overview):
    words = 'agent running (pid %d, %s)' % (overview.pid, overview.mode) if overview.pid else 'agent not running'
    if overview.since:
        words += '; counted since ' + _when(overview.since)
    return words


def _table(heads, rows):
    """heads: names of columns, those of numbers begin with #; rows: lists of cells, escaped."""
    kinds = [' class="n"' if head.startswith('#') else '' for head in heads]
    line = lambda tag, cells: '<tr>%s</tr>' % ''.join(  # noqa: E731
        ['<%s%s>%s</%s>' % (tag, kind, cell, tag) for kind, cell in zip(kinds, cells)])
    return '<table>%s\n%s</table>' % (line('th', [head.lstrip('#') for head in heads]),
                                      '\n'.join([line('td', row) for row in rows]))


def _receivers(overview):
    rows = []
    for one in overview.receivers:
        state = '<span class="%s">%s</span>' % (one.state, one.state)
        if one.until is not None and one.state in (HOLD, OPEN):
            state += ' <span class="soft">tries again in %s</span>' % text.duration(one.until - overview.now)
        if one.held:
            state += '<br>' + _escaped(one.held)
        oldest = '' if one.waiting.oldest is None else text.duration(max(0, overview.now - one.waiting.oldest))
        answer = _escaped(one.answer)
        if one.answered is not None:
            answer += ' <span class="soft">%s ago</span>' % text.duration(max(0, overview.now - one.answered))
        rows.append([_escaped(one.name), state, '%d' % one.waiting.count, oldest, '%d' % one.counts['accepted'],
                     '%d' % one.counts['rejected'], '%d' % one.counts['failed'], answer])
    if overview.unrouted.count:
        rows.append(['<span class="WARNING">no receiver</span>', 'see <code>envio route</code>',
                     '%d' % overview.unrouted.count, text.duration(overview.now - overview.unrouted.oldest),
                     '', '', '', ''])
    return _table(['Receiver', 'State', '#Waiting', '#Oldest', '#Accepted', '#Rejected', '#Failed', 'Newest answer'],
                  rows)


# --- what was sent, by the journal

def _throughput(path, now):
    if not path:
        return '<p class="soft">There is no journal: set <code>journal</code> to see what was sent, by the hour.</p>'
    try:
        counts = _counted(path, now)
    except EnvironmentError as error:
        return '<p class="WARNING">%s: can\'t be read: %s</p>' % (_escaped(path), _escaped(compat.error_text(error)))
    good, bad = sum([accepted for accepted, _ in counts]), sum([rejected for _, rejected in counts])
    return '<p>%s accepted, %d rejected or given up</p>%s' % (text.count(good, 'file'), bad, _picture(counts, now))


def _counted(path, now):
    """Return [(accepted, rejected)] of each of the last HOURS hours, the present one last. Raises EnvironmentError."""
    last = int(now) // 3600
    counts = [[0, 0] for _ in range(HOURS)]
    hours = {}
    with open(path, 'rb') as stream:
        stream.seek(0, os.SEEK_END)
        if stream.tell() > MOST_JOURNAL:
            stream.seek(-MOST_JOURNAL, os.SEEK_END)
            stream.readline()  # the rest of one
        else:
            stream.seek(0)
        for line in stream:
            found = _LINE.search(line.rstrip(b'\n')[-80:])
            if not found:
                continue
            hour, verdict = found.groups()
            if hour not in hours:
                try:
                    hours[hour] = calendar.timegm(time.strptime(compat.byte_string(hour), '%Y-%m-%dT%H')) // 3600
                except ValueError:
                    hours[hour] = 0  # looks like a time, and is none
            place = HOURS - 1 - (last - hours[hour])
            if 0 <= place < HOURS:
                counts[place][verdict != b'ACK'] += 1
    return counts


def _picture(counts, now):
    most = max([good + bad for good, bad in counts] + [2])
    top = most + most % 2  # half of it is a number of files, too
    step, room = float(WIDTH) / HOURS, HEIGHT - 40.0
    drawn = ['<svg viewBox="0 0 %d %d" role="img" aria-label="Files by the hour">' % (WIDTH, HEIGHT)]
    for share in (0.5, 1):
        level = 15 + room * (1 - share)
        drawn.append('<line class="axis" x1="0" x2="%d" y1="%.1f" y2="%.1f"/><text x="0" y="%.1f">%d</text>' % (
            WIDTH, level, level, level - 3, top * share))
    drawn.append('<line class="axis" x1="0" x2="%d" y1="%.1f" y2="%.1f"/>' % (WIDTH, 15 + room, 15 + room))
    for place, (good, bad) in enumerate(counts):
        hour = (int(now) // 3600 - (HOURS - 1 - place)) * 3600
        low, high = room * good / top, room * bad / top
        if good or bad:
            drawn.append('<g><title>%s: %d accepted, %d rejected</title>' % (_when(hour), good, bad))
            for kind, size, above in (('bar', low, 0), ('rej', high, low)):
                drawn.append('<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>' % (
                    kind, place * step + 1, 15 + room - above - size, step - 2, size))
            drawn.append('</g>')
        moment = time.localtime(hour)
        if moment.tm_hour % 6 == 0:
            drawn.append('<text x="%.1f" y="%d">%s</text>' % (
                place * step + 1, HEIGHT - 8, time.strftime('%a %H:%M', moment)))
    return '\n'.join(drawn) + '</svg>'


# --- files

def _rejected(spools):
    """Return the newest rejected files, with what their reason files say."""
    found, count = [], 0
    for spool in spools:
        try:
            for name in requeue.rejected(spool):
                count += 1
                entry = os.lstat('%s/%s/%s' % (spool, ERROR, name)).st_ctime, name, spool
                (heapq.heappush if len(found) < MOST_REJECTED else heapq.heappushpop)(found, entry)
        except EnvironmentError as error:
            if error.errno != errno.ENOENT:
                return '<p class="WARNING">%s: can\'t be read: %s</p>' % (
                    _escaped(text.shown(spool)), _escaped(compat.error_text(error)))
    if not count:
        return '<p class="soft">None.</p>'
    rows = [_reason(when, name, spool) for when, name, spool in sorted(found, reverse=True)]
    more = '<p class="soft">%s, the newest %d shown.</p>' % (text.count(count, 'file'), len(rows)) \
        if count > len(rows) else ''
    return more + _table(['File', 'Receiver', 'Status', 'Reason', 'When'], rows)


def _reason(when, name, spool):
    try:
        fields = requeue.reason_fields('%s/%s/%s%s' % (spool, ERROR, name, REASON))
    except EnvironmentError:
        fields = {}
    said = [_escaped(compat.config_native(fields.get(key, b''))) for key in (b'Receiver', b'Status', b'Reason')]
    return [_escaped(text.shown(name))] + said + [_when(when)]


def _oldest(setup, now):
    config, router = setup
    entries = []
    for spool in config.spool:
        try:
            waiting = ((waits_since(status), name, spool) for name, status in waiting_files(spool, config.ignore))
            entries = heapq.nsmallest(MOST_OLDEST, itertools.chain(entries, waiting))
        except EnvironmentError as error:
            return '<p class="WARNING">%s: can\'t be read: %s</p>' % (
                _escaped(text.shown(spool)), _escaped(compat.error_text(error)))
    if not entries:
        return '<p class="soft">No file waits.</p>'
    rows = []
    for since, name, spool in entries:
        receiver = router.route(spool, name).receiver
        rows.append([_escaped(text.shown(name)), _escaped(receiver.name) if receiver else '-',
                     text.duration(max(0, now - since))])
    return _table(['File', 'Receiver', '#For'], rows)
