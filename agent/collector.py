"""Finds the files that may go: scans the spools in slices, lets files settle, asks the router, feeds the lanes.

It never holds more than a bounded number of names; what doesn't fit stays on disk until there is room. Runs in the
main thread alone. Called by engine.py. Raises nothing: a spool that can't be read is said once and tried again.
"""

import logging
import os
import time
from collections import deque

from agent import compat, rules, text
from agent.folders import OWN_NAMES
from agent.lane import MOST_FILES, enough_room
from agent.records import SpoolFile, Ticket
from agent.spool import LINKED

SLICE = 512      # names looked at between two looks at signals and times
MOST_HEARD = 65536    # names that wait to be looked at; more, and all are looked at
SETTLED = 3.0         # seconds after which a folder's time is taken to tell of every later change
TOLD_INTERVAL = 60.0  # seconds between two looks at the folders while the kernel tells what appears
LOOK_ANYWAY = 600.0   # seconds after which all is looked at though no folder has changed
MOST_SAID = 1000  # names remembered as already said

log = logging.getLogger('envio')


class Collector(object):
    """Collects for the lanes of a pool.

    spools: list of spool.Spool; router: router.Router; pool: workers.Pool; clock: monotonic, in seconds;
    once: True for one pass: a file that has not settled after `settle` is left.
    """

    def __init__(self, config, spools, router, pool, clock=compat.monotonic, once=False):
        self._pool = pool
        self._clock = clock
        self._once = once
        self.seen = 0           # files collected so far
        self.bytes = 0          # their bytes
        self.unsettled = set()  # once: (spool's path, name) of files that kept changing
        self.unrouted = 0       # files without a receiver in the newest pass
        self.unreadable = 0     # spools and files that could not be looked at in the newest pass
        self.told = False       # somebody calls hear() for every file that appears
        self.configure(config, spools, router)

    def configure(self, config, spools, router):
        """Work by this configuration from now on; all files are looked at anew."""
        self._config, self._spools, self._router = config, spools, router
        self._walk = None        # iterator of (spool, name): the pass that is under way
        self._scan_due = 0
        self._look_due = 0       # when all is looked at even if no folder says that it changed
        self._cost = 0           # seconds that the present pass has taken so far
        self._folders = None     # spools' marks before the newest pass; None: it has to be done anew
        self._heard = deque()    # (spool's path, name) to look at alone: just appeared, or changed
        self._watched = {}       # (spool's path, name) -> (Stamp, receiver's name): files that settle
        self._checks = deque()   # (when, spool, name) of the watched files, in order of time
        self._watching = {}      # receiver's name -> number of watched files
        self._overflow = set()   # names of receivers that have more on disk than there is room for
        self._linked = set()     # (spool's path, name) of files that had a second name when they were looked at
        self._said = set()       # what was said and is still so
        self._mentioned = set()  # what came up in the present pass
        self._ignored = rules.matcher(config.ignore)  # the index of a pattern, or None

    def due(self):
        """Return when work() has something to do next, inf when it has not."""
        if self._walk is not None or self._heard or self._refillable():
            return 0
        scan = float('inf') if self._once and self._scan_due else self._scan_due
        return min(self._checks[0][0], scan) if self._checks else scan

    def finished(self):
        """Return True when there is nothing left to do, ever (once)."""
        return self.due() == float('inf')

    def found(self):
        """Return (files, bytes) found so far: collected, or settling (their bytes are not known yet)."""
        return self.seen + len(self._watched), self.bytes

    def work(self):
        """Do what is due, a slice of it at most."""
        now = self._clock()
        self._room = self._pool.with_lanes(lambda lanes: lanes.room())
        self._full = set([name for name in self._overflow if self._space(self._room, name) <= 0])
        tickets = []
        while self._checks and self._checks[0][0] <= now and len(tickets) < SLICE:
            self._check(now, tickets)
        full = len(self._overflow)
        self._look_at_heard(now, tickets)
        if self._walk is None and self.due() <= now and not tickets:
            self._begin(now)
        ended = self._walk is not None and self._advance(now, tickets)
        self._cost += self._clock() - now
        if tickets:
            self.seen += len(tickets)
            self.bytes += sum([ticket.file.stamp.size for ticket in tickets])
            self._pool.offer(tickets)
        if ended:
            self._end(now)
        elif self._walk is None and len(self._overflow) > full:
            self._pool.with_lanes(lambda lanes: lanes.mark_overflow(self._overflow))

    def _refillable(self):
        if not self._overflow:
            return False
        room = self._pool.with_lanes(lambda lanes: lanes.room())
        return any([self._space(room, name) >= enough_room() for name in self._overflow])

    def _space(self, room, receiver):
        return room.get(receiver, MOST_FILES) - self._watching.get(receiver, 0)

    def hear(self, found, whole):
        """Look at names that have just appeared. found: [(spool's path, name)]; whole: False when some were lost."""
        self._heard.extend(found)
        if not whole or len(self._heard) > MOST_HEARD:
            self._heard.clear()
            self._folders, self._scan_due = None, 0

    def _look_at_heard(self, now, tickets):
        if not self._heard:
            return  # at nearly every turn
        spools = dict([(spool.path, spool) for spool in self._spools])
        while self._heard and len(tickets) < SLICE:
            path, name = self._heard.popleft()
            if path in spools:
                self._consider_if_new(spools[path], name, now, tickets)

    def _begin(self, now):
        """Begin a pass, unless no folder has changed since the one before."""
        self._scan_due = now + (max(self._config.scan_interval, TOLD_INTERVAL) if self.told else
                                self._config.scan_interval)
        marks = [_mark(spool.path) for spool in self._spools]
        if marks == self._folders and None not in marks and not self._refillable() and now < self._look_due \
                and not self.unreadable:
            return
        self._folders = marks
        self._walk, self._cost = self._names(), 0
        self._overflow.clear()
        self._said &= self._mentioned
        self._mentioned = set()
        self.unrouted = self.unreadable = 0

    def _names(self):
        for spool in self._spools:
            try:
                for name in spool.names():
                    yield spool, name
            except EnvironmentError as error:
                self._say_unreadable(spool.path, 'can\'t be read: %s: trying again', error)

    def _advance(self, now, tickets):
        """Look at a slice of names; return True when the pass has ended."""
        for _ in range(SLICE):
            try:
                spool, name = next(self._walk)
            except StopIteration:
                self._walk = None
                return True
            self._consider_if_new(spool, name, now, tickets)
        return False

    def _end(self, now):
        # A pass over very many names takes its time: never more than a twentieth of all, and next to nothing where the
        # kernel tells of new ones.
        self._scan_due = max(self._scan_due, now + (500 if self.told else 19) * self._cost)
        self._look_due = now + max(LOOK_ANYWAY, 1000 * self._cost)
        self._pool.with_lanes(self._tell_of_pass)

    def _tell_of_pass(self, lanes):
        lanes.mark_overflow(self._overflow)
        if lanes.remembered and not self._overflow and not self.unreadable:
            lanes.keep_remembered(self._watched)

    def _consider_if_new(self, spool, name, now, tickets):
        key = spool.path, name
        # race: `known` comes before the look at the file: one that a worker settles in between is gone by then.
        if not (key in self._pool.lanes.known or key in self._watched or key in self.unsettled
                or name in OWN_NAMES or self._ignored(rules.name_key(name)) is not None):
            self._consider(spool, name, now, tickets)

    def _consider(self, spool, name, now, tickets):
        target = self._router.route(spool.path, name, self._full)
        if target.receiver is not None and self._space(self._room, target.receiver.name) <= 0:
            self._overflow.add(target.receiver.name)
            self._full.add(target.receiver.name)
            return
        stamp, kind = self._look(spool, name)
        if kind:
            self._pass_over(spool, name, kind, now)
        elif target.receiver is None:
            self.unrouted += 1
            self._say(spool.path + '/' + name, 'stays: %s', target.why)
        elif self._config.settle:
            self._watch(spool, name, stamp, target.receiver.name, now)
        else:
            self._collect(spool, name, stamp, target, tickets)

    def _pass_over(self, spool, name, kind, now):
        key = spool.path, name
        if kind.endswith(LINKED) and key not in self._linked:
            # `requeue`, and many a producer, has two names of a file for a moment: said when it is so for longer.
            if len(self._linked) >= MOST_SAID:
                self._linked.clear()
            self._linked.add(key)
            self._folders, self._scan_due = None, min(self._scan_due, now + self._config.scan_interval)
        elif kind != 'gone':
            self._say(spool.path + '/' + name, 'is %s: ignored', kind)

    def _collect(self, spool, name, stamp, target, tickets):
        receiver = target.receiver.name
        self._room[receiver] = self._room.get(receiver, MOST_FILES) - 1
        tickets.append(Ticket(SpoolFile(spool.path, name, stamp), target.receiver, target.url, 0, 0, None))

    def _watch(self, spool, name, stamp, receiver, now):
        self._watched[spool.path, name] = stamp, receiver
        self._watching[receiver] = self._watching.get(receiver, 0) + 1
        self._checks.append((now + self._config.settle, spool, name))

    def _check(self, now, tickets):
        _, spool, name = self._checks.popleft()
        before, receiver = self._watched.pop((spool.path, name))
        self._watching[receiver] -= 1
        stamp, kind = self._look(spool, name)
        if kind:
            self._pass_over(spool, name, kind, now)
            return
        target = self._router.route(spool.path, name)
        if stamp == before and target.receiver is not None:
            self._collect(spool, name, stamp, target, tickets)
        elif self._once:
            self.unsettled.add((spool.path, name))
        else:
            self._watch(spool, name, stamp, receiver, now)

    def _look(self, spool, name):
        try:
            return spool.look(name)
        except EnvironmentError as error:
            self._say_unreadable(spool.path + '/' + name, 'can\'t be looked at: %s', error)
            return None, 'gone'

    def _say(self, path, sentence, *words):
        # Under cron each pass would say it again: there the summary has the number.
        self._say_once(logging.INFO if self._once else logging.WARNING, path, sentence, *words)

    def _say_unreadable(self, path, sentence, error):
        self.unreadable += 1
        self._scan_due = min(self._scan_due, self._clock() + self._config.scan_interval)  # nobody tells when it can be
        self._say_once(logging.WARNING, path, sentence, compat.error_text(error))

    def _say_once(self, level, path, sentence, *words):
        """Log a sentence about a path when it becomes true, not in each pass in which it still is."""
        key = path, sentence
        known = key in self._said
        if known or len(self._said) < MOST_SAID:
            self._said.add(key)
            self._mentioned.add(key)
        if not known and key in self._said:
            log.log(level, '%s ' + sentence, text.shown(path), *words)


def _mark(path):
    """Return what changes when a name is added to a folder or taken away, or None while that can't be told: its times
    are no finer than a tick or two, so that a folder that has just changed may change again unseen."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_mtime) if time.time() - status.st_mtime > SETTLED else None
