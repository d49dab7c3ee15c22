"""What of an overview (status.Overview) calls for somebody: a level and a line, as Nagios has them. Pure.

Called by status.py and report.py. Raises nothing.
"""

from agent import compat, text
from agent.breaker import HALF_OPEN, OPEN
from agent.records import HOLD

OK, WARNING, CRITICAL, UNKNOWN = range(4)  # exit codes, after the Nagios plug-in guidelines
LEVELS = ('OK', 'WARNING', 'CRITICAL', 'UNKNOWN')
LONGEST_WAIT = 3600  # seconds a file may wait without an agent
LONGEST_LINE = 1000  # characters of the summary
_WEIGHT = (CRITICAL, UNKNOWN, WARNING, OK)  # which of several counts: what is known to be bad hides behind nothing
PAUSED = 'paused'


def judge(overview):
    """Return (level, summary): an exit code, and one line that begins with its name."""
    found = [(UNKNOWN, view.problem) for view in overview.spools if view.problem]
    found += [_judged(receiver) for receiver in overview.receivers]
    found += [judge_(overview, view) for view in overview.spools if not view.problem
              for judge_ in (_unattended, _full, _unmoved)]
    found.append(_stranded(overview))
    rejected = sum([view.rejected for view in overview.spools])
    if rejected:
        found.append((WARNING, '%s in error/' % text.count(rejected, 'rejected file')))
    found = sorted([fact for fact in found if fact[0] != OK], key=lambda fact: _WEIGHT.index(fact[0]))
    level = found[0][0] if found else OK
    facts = [fact for _, fact in found] or [_all_well(overview)]
    line = text.printable(compat.log_bytes('; '.join(facts)), LONGEST_LINE)
    return level, '%s: %s' % (LEVELS[level], line.replace('|', '/'))  # Nagios takes what follows a bar for figures


def _judged(receiver):
    files = '%s waiting' % text.count(receiver.waiting.count, 'file')
    if receiver.state == HOLD:
        return CRITICAL, '%s is on HOLD: %s' % (receiver.name, receiver.held)
    if receiver.state == OPEN and receiver.waiting.count:
        return CRITICAL, '%s is OPEN with %s' % (receiver.name, files)
    if receiver.state in (HALF_OPEN, PAUSED):
        return WARNING, '%s is %s with %s' % (receiver.name, receiver.state, files)
    return OK, ''


def _unattended(overview, view):
    """Judge whether files of a spool wait for an agent that doesn't come. Under cron there is none between two passes:
    one that ended well within the hour will come back."""
    waits = overview.now - view.waiting.oldest if view.waiting.count else 0
    if view.working or waits <= LONGEST_WAIT:
        return OK, ''
    if view.kept is not None and not view.kept.pid and abs(overview.now - view.kept.written) <= LONGEST_WAIT:
        return OK, ''
    return CRITICAL, '%s: no agent, and %s waiting, the oldest for %s' % (
        text.shown(view.path), text.count(view.waiting.count, 'file'), text.duration(waits))


def _stranded(overview):
    """Judge files without a receiver: they never go by themselves."""
    if not overview.unrouted.count:
        return OK, ''
    waits = overview.now - overview.unrouted.oldest
    return CRITICAL if waits > LONGEST_WAIT else WARNING, '%s without a receiver, the oldest for %s' % (
        text.count(overview.unrouted.count, 'file'), text.duration(max(0, waits)))


def _full(_, view):
    """Judge whether there is room: without it no file can be rejected, and no state be written that tells of it."""
    if view.full:
        return CRITICAL, '%s: the disk is full' % text.shown(view.path)
    return OK, ''


def _unmoved(_, view):
    count = view.kept.unmoved if view.kept is not None else 0
    if count:
        return CRITICAL, '%s: %s answered and can\'t be moved: see the log' % (
            text.shown(view.path), text.count(count, 'file'))
    return OK, ''


def _all_well(overview):
    heaps = [view.waiting for view in overview.spools if view.waiting.count]
    if not heaps:
        return '%s, no file waiting' % text.count(len(overview.receivers), 'receiver')
    return '%s, %s waiting, the oldest for %s' % (
        text.count(len(overview.receivers), 'receiver'), text.count(sum([heap.count for heap in heaps]), 'file'),
        text.duration(max(0, overview.now - min([heap.oldest for heap in heaps]))))
