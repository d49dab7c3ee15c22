"""The spine of the agent. Read run() first, then delivery.deliver: the rest is detail.

The main thread alone collects, counts and keeps the time; workers send. Called by cli.py and demo.py.
Raises SpoolError and LockedError when it can't begin.
"""

import logging
import os
import signal
import time

from agent import compat, text
from agent.collector import Collector
from agent.errors import AgentError, LockedError, SpoolError
from agent.folders import OWN
from agent.journal import Journal
from agent.lanes import Lanes
from agent.metrics import Metrics
from agent.records import ACK, GONE, HOST, NACK
from agent.resources import Resources
from agent.spool import Spool
from agent.state import Keeper
from agent.stats import Stats
from agent.workers import Pool, equipment

LONGEST_TICK = 1.0   # seconds between two looks at deadlines while something is out
PURGE_EVERY = 3600   # seconds between two looks at the age of sent/
HOLD_EVERY = 2.0     # seconds between two looks whether the spools' locks are still what they were
STOP = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger('envio')


def run(setup, wakeup, once=False, max_time=None, reload=None, watch=None, ready=None):
    """Collect and send: until a signal says stop, or with `once` until everything there is was tried once.

    setup: (records.Config, router.Router); wakeup: wakeup.Wakeup that catches the signals; max_time: seconds after
    which nothing new is started, or None; reload: () -> setup, called for SIGHUP, raises AgentError; watch: called
    with the Agent at each turn, for a progress line; it returns when it wants to be called again; ready: called once
    the spools are locked and the workers wait; what it raises ends the agent.
    Returns the Agent as it was at the end, its spools given back.
    """
    agent = Agent(setup, wakeup, once)
    if not once:
        log.info('started: %s: %s', agent.config.path, text.count(len(agent.config.receivers), 'receiver'))
    end = float('inf') if max_time is None else compat.monotonic() + max_time
    try:
        if ready is not None:
            ready()
        agent.wait_for_turn(reload)
        while not agent.interrupted:
            agent.collector.work()
            agent.count_results()
            due = agent.next_due()
            if once and agent.finished():
                break
            agent.interrupted = agent.interrupted or compat.monotonic() >= end
            wakeup.wait(max(0, min(due, end, watch(agent) if watch else due) - compat.monotonic()))
            agent.heed_signals(reload)
            agent.pool.cut()
        agent.stop_workers(watch)
        agent.interrupted = agent.interrupted and not agent.finished()
    finally:
        agent.finish()
    if agent.refused is not None:
        raise agent.refused
    if not once:
        log.info('stopped')
    return agent


def lock_spools(paths):
    """Return {path: Spool}, all locked, or none: raises SpoolError, LockedError."""
    spools = {}
    try:
        for path in paths:
            spools[path] = Spool(path)
            spools[path].lock()
    except Exception:
        for spool in spools.values():
            spool.unlock()
        raise
    return spools


class Agent(object):
    """The parts of a running agent and what the main thread does with them."""

    def __init__(self, setup, wakeup, once):
        self.config, self.router = setup
        self._journal, self._metrics = Journal(self.config.journal), Metrics(self.config.metrics)
        self.spools = lock_spools(self.config.spool)
        self.interrupted = False    # a signal or max_time said stop
        self._hurried = False       # a second signal said stop
        self._wakeup = wakeup
        self._once = once
        self._purge_due = 0
        self._lacks = {}            # receiver's name -> why its files can't be sent from here, as it was said
        self._hold_due = 0
        self._unsure = {}           # spool's path -> why its lock could not be looked at, as it was said
        self.refused = None         # the LockedError that ends this agent
        self.stats = Stats(compat.monotonic())
        self.lanes = Lanes(self.config.receivers, retrying=not once)
        self._keeper = Keeper(self.config.spool, 'once' if once else 'run')
        self._keeper.restore(self.lanes)
        self._keeper.flush(self.lanes)
        resources = Resources(os.environ, self.config.spool[0] + '/' + OWN)
        self.pool = Pool(self.lanes, self.config.workers,
                         lambda: equipment(self.spools, self.config.path, resources), wakeup.notify)
        self.collector = Collector(self.config, self._active_spools(), self.router, self.pool, once=once)
        self._inotify = None
        if not once:
            self.pool.begin()
            self._watch_spools()

    def _watch_spools(self):
        """Let the kernel tell what appears in the spools, where it does; else they are looked at now and then."""
        try:
            if self._inotify is None:
                from agent.inotify import Inotify  # here: a pass needs it not
                self._inotify = Inotify()
                self._wakeup.watch(self._inotify.fd)
            for path in self.config.spool:
                self._inotify.watch(path)
            self.collector.told = True
        except EnvironmentError as error:
            self.collector.told = False
            log.info('new files are looked for every %s: inotify: %s', text.duration(self.config.scan_interval),
                     compat.error_text(error))

    def _active_spools(self):
        return [self.spools[path] for path in self.config.spool]

    def wait_for_turn(self, reload):
        """Wait a while, by chance: a fleet whose clocks agree does not come all at once."""
        if not self.config.splay:
            return
        import random  # here: slow to load
        until = compat.monotonic() + self.config.splay * random.random()
        while compat.monotonic() < until and not self.interrupted:
            self._wakeup.wait(until - compat.monotonic())
            self.heed_signals(reload)

    def count_results(self):
        """Take what workers have finished into the statistics, and log what changed."""
        results, events = self.pool.results, self.lanes.events
        while results:
            result = results.popleft()
            self.stats.add(result)
            outcome = result.outcome
            self._keeper.heard(result.receiver.name, outcome.reason)
            self._journal.note(result, time.time())
            if outcome.gone and outcome.verdict != GONE:
                self.collector.hear([(result.file.spool, result.file.name)], True)  # changed: another file by now
            if outcome.blame == HOST or self._lacks:
                self._note_lack(result)
            if outcome.moved and outcome.verdict != ACK:
                log.info('%s: %s by %s: %s', text.shown(result.file.name), 'rejected' if outcome.verdict == NACK
                         else 'not taken', result.receiver.name, outcome.reason)
            elif not outcome.moved:
                log.debug('%s: %s by %s: %s', text.shown(result.file.name), outcome.verdict, result.receiver.name,
                          outcome.reason)
        while events:
            self._keeper.changed = True
            log.log(logging.INFO if self._once else logging.WARNING, 'receiver %s: %s', *events.popleft())

    def _note_lack(self, result):
        """Say once what this host lacks to send a receiver's files, and when it has it again."""
        name, outcome = result.receiver.name, result.outcome
        if outcome.blame == HOST and not outcome.gone:
            if self._lacks.get(name) != outcome.reason:
                log.error('receiver %s: %s can\'t be sent from here: %s: trying again', name,
                          text.shown(result.file.name), outcome.reason)
            self._lacks[name] = outcome.reason
        elif outcome.blame != HOST and self._lacks.pop(name, None):
            log.warning('receiver %s: files can be sent again', name)

    def next_due(self):
        """Rouse workers for what is due; return when the main thread has something to do next."""
        now = compat.monotonic()
        due = self.pool.rouse()
        times = [self.collector.due(), self._hold_spools(now)]
        deadlines = self.pool.with_lanes(lambda lanes: lanes.busy and lanes.deadlines())
        if deadlines:
            times.append(now + min([LONGEST_TICK] + [deadline / 4.0 for deadline in deadlines]))
        if due is not None and not self._once:
            times.append(due)
        if self.config.keep_sent:
            times.append(self._purge(now))
        if min(self._keeper.due(), self._metrics.due()) <= now:
            self._keep()
        times.extend([self._keeper.due(), self._metrics.due()])
        return min(times)

    def _keep(self, ended=False):
        self._metrics.write(self._keeper.save(self.pool.with_lanes, self.stats, ended))

    def _hold_spools(self, now):
        """Look whether the spools are still ours alone; return when to look again."""
        if now < self._hold_due:
            return self._hold_due
        self._hold_due = now + HOLD_EVERY
        for spool in self.spools.values():
            try:
                if spool.hold():
                    log.warning('%s: .envio with the lock was taken away: it is made anew', text.shown(spool.path))
                if self._unsure.pop(spool.path, None):
                    log.warning('%s: the lock is held again', text.shown(spool.path))
            except LockedError as error:
                log.error('%s: .envio with the lock was taken away, and %s: this one stops', text.shown(spool.path),
                          error)
                self.refused, self.interrupted, self._hurried = error, True, True
            except SpoolError as error:
                if self._unsure.get(spool.path) != str(error):
                    log.error('%s', error)
                self._unsure[spool.path] = str(error)
        return self._hold_due

    def _purge(self, now):
        if self._purge_due <= now:
            self._purge_due = now + PURGE_EVERY
            for spool in self._active_spools():
                try:
                    if spool.purge(self.config.keep_sent, time.time()):
                        self._purge_due = now
                except EnvironmentError as error:
                    log.warning('%s: old files can\'t be removed from sent/: %s', spool.path, compat.error_text(error))
        return self._purge_due

    def finished(self):
        """Once: return True when everything there was has been tried, or has to wait."""
        return self.collector.finished() and self.pool.quiet()

    def waiting(self):
        """Return how many files are known to stay in the spools."""
        collector = self.collector
        return self.lanes.waiting() + collector.unrouted + len(collector.unsettled) + collector.unreadable

    def heed_signals(self, reload):
        """Do what the signals that came ask for, and hear of new files."""
        if self._inotify is not None:
            found, whole = self._inotify.read()
            self.collector.hear(found, whole)
            if not whole:
                self._watch_spools()  # one may have been taken away, and be there again
        while self._wakeup.signals:
            number = self._wakeup.signals.pop(0)
            if number in STOP:
                self._hurried = self.interrupted
                self.interrupted = True
            elif number == signal.SIGHUP and reload is not None:
                self._reload(reload)
            elif number == signal.SIGUSR2:
                self._flush()
            elif number == signal.SIGUSR1:
                self._log_state()

    def _reload(self, reload):
        try:
            config, router = reload()
            journal = Journal(config.journal)
            try:
                fresh = lock_spools([path for path in config.spool if path not in self.spools])
            except AgentError:
                journal.close()
                raise
        except AgentError as error:
            for line in error.problems:
                log.error('%s', line)
            log.error('reload: the configuration in force stays')
            return
        self._keeper.spools_changed(config.spool)
        self._journal.close()
        self._journal, self._metrics = journal, Metrics(config.metrics)
        self.spools.update(fresh)  # those that left the configuration stay ours: files of them may be out
        self.config, self.router = config, router
        self.pool.resize(config.workers)
        tickets = self.pool.with_lanes(lambda lanes: lanes.withdraw())
        self.pool.with_lanes(lambda lanes: lanes.receivers_changed(config.receivers))
        self.pool.with_lanes(self._keeper.restore)
        self.collector.configure(config, self._active_spools(), router)
        self._watch_spools()
        self.pool.offer([ticket for ticket in map(self._rerouted, tickets) if ticket is not None])
        log.info('reload: %s is in force', config.path)

    def _rerouted(self, ticket):
        file = ticket.file
        target = self.router.route(file.spool, file.name)
        if target.receiver is None or file.spool not in self.config.spool:
            return None
        return ticket._replace(receiver=target.receiver, url=target.url)

    def _flush(self):
        for name in self.pool.with_lanes(self._keeper.flush):
            log.info('flush: pauses of %s are forgotten', 'all receivers' if name == '*' else text.shown(name))

    def _log_state(self):
        self.count_results()
        for line in self.stats.summary(compat.monotonic()):
            log.warning('state: %s', line)
        log.warning('state: %d files known, %d out, %d answered but not moved, %d without a receiver',
                    self.lanes.waiting(), self.lanes.busy, self.lanes.unmoved(), self.collector.unrouted)
        for name, lane in sorted(self.pool.with_lanes(lambda lanes: list(lanes.lanes.items()))):
            log.warning('state: receiver %s: %s%s, %d waiting, %d out', name, lane.breaker.state,
                        ', HOLD: %s' % lane.held if lane.held else '', lane.waiting(), lane.busy)

    def stop_workers(self, watch):
        """Let files that are out come back within stop_grace; then end their exchanges: they stay in the spool."""
        self.pool.stop()
        grace = compat.monotonic() + self.config.stop_grace
        while not self.pool.ended() and not self._hurried and compat.monotonic() < grace:
            self._wakeup.wait(min(LONGEST_TICK, grace - compat.monotonic()))
            self.heed_signals(None)
            self.pool.cut()
            if watch:
                watch(self)
        if not self.pool.ended():
            log.warning('stopped %s: %s still being sent: they stay and are sent again',
                        'by a second signal' if self._hurried else 'after %s' % text.duration(self.config.stop_grace),
                        text.count(self.lanes.busy, 'file'))
            last = compat.monotonic() + LONGEST_TICK
            while not self.pool.ended() and compat.monotonic() < last:
                self.pool.abort()
                self._wakeup.wait(min(0.1, last - compat.monotonic()))
        self.count_results()

    def finish(self):
        """Write down what is to be known the next time, and give the spools back."""
        self._keep(ended=True)
        self._journal.close()
        if self._inotify is not None:
            self._inotify.close()
        for spool in self.spools.values():
            spool.unlock()
