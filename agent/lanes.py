"""Which file goes next: a lane for each receiver, round robin over those that are ready. Pure: no thread, no clock.

A lane holds what is known of its receiver's files and says whether one may go now: the receiver's share of
workers, its breaker, its hold, its pause, and each file's own pause. Called by workers.py under its lock.
Raises nothing.
"""

import heapq
from collections import deque

from agent import backoff, breaker, text
from agent.records import ACK, GONE, HOLD, HOST, NACK, RECEIVER, RETRY, Job

MOST_FILES = 16384  # known files of a lane; the others stay on disk until it drains
SMALL = 65536  # bytes: larger files go alone
MOVE_PAUSE = 5  # seconds between tries to move a file that was answered, before jitter


class Lane(object):
    """One receiver's files and its state."""

    def __init__(self, receiver):
        self.fresh = []       # heap of (mtime, order, Ticket): not tried yet, the oldest first
        self.deferred = []    # heap of (due, order, Ticket): failed, each with its own pause
        self.busy = 0         # files out with workers
        self.riding = 0       # those of them that go along with another one
        self._together = 1    # how many files may go along by now
        self.nacks = 0        # rejected in a row
        self.accepts = False  # it has accepted a file since the start or the last hold
        self.held = None      # why the receiver is on HOLD, or None
        self.hold_due = 0     # when the next file may probe it
        self.paused_until = 0   # the receiver asked to be left alone until then
        self.overflow = False   # there is more on disk than fits: somebody wants to know when half is free
        self._deferred_turn = False
        self.window = receiver.workers
        self.breaker = breaker.CircuitBreaker(receiver.breaker_threshold, receiver.breaker_pause,
                                              receiver.breaker_max_pause)
        self.receiver = receiver

    def configure(self, receiver):
        """Go on with new settings: the state stays, the waiting files have to be offered again."""
        self.receiver = receiver
        self.window = receiver.workers
        self.breaker.configure(receiver.breaker_threshold, receiver.breaker_pause, receiver.breaker_max_pause)

    def waiting(self):
        """Return how many known files wait here, those out with workers not counted."""
        return len(self.fresh) + len(self.deferred)

    def room(self):
        """Return how many more files may be offered."""
        return MOST_FILES - self.waiting() - self.busy

    def due(self, now):
        """Return when the next file of this lane may go: `now`, a later time, or None: not before a worker is back
        or a file is offered."""
        if self.busy - self.riding >= min(self.window, self._until_brake()) or self.held and self.busy:
            return None
        if not self.fresh and not self.deferred:
            return None
        allowed = self.breaker.due(now)
        if allowed is None:
            return None
        file_due = now if self.fresh else self.deferred[0][0]
        return max(allowed, file_due, self.paused_until, self.hold_due if self.held else now)

    def _until_brake(self):
        # Files that are out may all come back rejected. Until the receiver has accepted one, and from its first
        # rejection on, never more of them than the brake leaves.
        brake = self.receiver.brake
        if not brake or self.held or self.accepts and not self.nacks:
            return self.window
        return brake - self.nacks

    def take(self, now):
        """Return a Job, or None when nothing may go now."""
        if self.due(now) != now:
            return None
        probing = self.held is not None or self.breaker.state != breaker.CLOSED
        generation = self.breaker.allow(now)
        self.busy += 1
        return Job(self._next(now, probing), generation, self.held is not None, False)

    def take_along(self, job, most, now):
        """Return further small files, jobs too, that may go with `job` through one exchange; `most` with it.

        One more after each accepted file, as the window's slow start, and none while anything is doubtful, so that a
        receiver that fails or rejects is tried with no more files than workers.
        """
        if job.generation != self.breaker.generation or self.breaker.state != breaker.CLOSED or self.held \
                or self.nacks or not self.accepts or job.ticket.file.stamp.size > SMALL:
            return []
        share = len(self.fresh) // self.window  # the other workers have theirs
        jobs = []
        while len(jobs) < min(most - 1, self._together, share) and self.fresh[0][2].file.stamp.size <= SMALL:
            jobs.append(Job(heapq.heappop(self.fresh)[2], self.breaker.allow(now), False, True))
        self.busy += len(jobs)
        self.riding += len(jobs)
        return jobs

    def back(self, job):
        """Note that a job's file is no longer out."""
        self.busy -= 1
        if job.riding:
            self.riding -= 1

    def _next(self, now, probing):
        ripe = self.deferred and self.deferred[0][0] <= now
        if self.fresh and not (ripe and self._deferred_turn and not probing):
            self._deferred_turn = True
            return heapq.heappop(self.fresh)[2]
        self._deferred_turn = False
        if not probing:
            return heapq.heappop(self.deferred)[2]
        # A probe speaks for all the others: send the one that failed least.
        entry = min([entry for entry in self.deferred if entry[0] <= now], key=lambda entry: entry[2].attempts)
        self.deferred.remove(entry)
        heapq.heapify(self.deferred)
        return entry[2]

    def hear(self, job, outcome, now, rnd):
        """Learn from an outcome about the receiver; return a sentence for each change of its state."""
        if outcome.blame == HOST:
            self.breaker.cancel(job.generation)
            if job.holding:
                self.hold_due = now
            return []
        self._together = self._together + 1 if outcome.verdict == ACK else 1
        if outcome.verdict == ACK:
            self.nacks = 0
            self.accepts = True
        elif outcome.verdict == NACK:
            self.nacks += 1
        heard = [self._hear_hold(job, outcome, now), self._hear_breaker(job, outcome, now, rnd)]
        return [event for event in heard if event]

    def _hear_hold(self, job, outcome, now):
        if self.held and outcome.verdict == ACK:
            self.held = None
            return 'HOLD is over: a file was accepted'
        brake = self.receiver.brake
        if outcome.verdict == HOLD:
            why = outcome.reason
        elif outcome.verdict == NACK and brake and self.nacks >= brake:
            why = '%d files rejected in a row, last: %s' % (self.nacks, outcome.reason)
        elif job.holding:
            why = self.held
        else:
            return None
        began = not self.held
        self.accepts = False
        self.held = why
        self.hold_due = now + self.receiver.hold_probe
        if not began:
            return None
        return 'HOLD: %s: nothing of it moves, one file tries again every %s' % (
            why, text.duration(self.receiver.hold_probe))

    def _hear_breaker(self, job, outcome, now, rnd):
        ok = outcome.verdict == HOLD or outcome.blame != RECEIVER
        asked = outcome.retry_after or 0
        if outcome.throttle and self.breaker.state == breaker.CLOSED:
            pause = asked or backoff.pause(self.receiver.retry_pause, self.receiver.retry_max_pause, 1, rnd)
            self.paused_until = max(self.paused_until, now + pause)
            return 'paused for %s: %s' % (text.duration(pause), outcome.reason)
        changed = self.breaker.record(job.generation, ok, now, rnd, asked)
        if not changed:
            if ok and self.window < self.receiver.workers:
                self.window += 1  # slow start: one more for each success
            return None
        if ok:
            self.window = 1
            return 'CLOSED: it answers again'
        return 'OPEN for %s after %s, last: %s' % (
            text.duration(self.breaker.until - now), text.count(self.breaker.failures, 'failure'), outcome.reason)


class Lanes(object):
    """All lanes, and every file that is known.

    retrying: False for one pass (`once`): a file that was tried stays known, and is not tried again.
    `events` collects (receiver's name, sentence) for each change of state, until somebody takes them.
    """

    def __init__(self, receivers, retrying=True):
        self.retrying = retrying
        self.lanes = {}
        self.known = set()    # (spool, name) of every file in a lane or out with a worker
        self.events = deque()
        self.busy = 0
        self.receivers_changed(receivers)
        self._unmoved = []    # heap of (due, order, Ticket): answered, the move is left
        self._order_of_offers = 0

    def receivers_changed(self, receivers):
        """Make a lane for each of `receivers`; a lane that exists keeps its state. Withdraw the files first."""
        names = set([receiver.name for receiver in receivers])
        for name in [name for name, lane in self.lanes.items() if name not in names and not lane.busy]:
            del self.lanes[name]
        for receiver in receivers:
            self.lane(receiver).configure(receiver)
        self._rotation = deque(self.lanes.values())

    def lane(self, receiver):
        """Return the lane of `receiver`, made when it is the first time (receivers named by the router plug-in)."""
        lane = self.lanes.get(receiver.name)
        if lane is None:
            lane = self.lanes[receiver.name] = Lane(receiver)
            self._rotation = deque(self.lanes.values())
        return lane

    def offer(self, ticket):
        """Take a ticket in; return False when its lane is full."""
        key = ticket.file.spool, ticket.file.name
        if key in self.known:
            return True
        lane = self.lane(ticket.receiver)
        if lane.room() <= 0:
            return False
        self.known.add(key)
        self._put(lane, ticket)
        return True

    def _put(self, lane, ticket):
        if ticket.attempts:
            self._defer(lane, ticket)
        else:
            heapq.heappush(lane.fresh, (ticket.file.stamp.mtime, self._next_order(), ticket))

    def withdraw(self):
        """Return all waiting tickets and forget them (those out with workers stay): they can be routed anew."""
        tickets = []
        for lane in self.lanes.values():
            tickets.extend([entry[2] for entry in lane.fresh + lane.deferred])
            del lane.fresh[:], lane.deferred[:]
        for ticket in tickets:
            self._forget(ticket)
        return tickets

    def take(self, now):
        """Return a Job for a worker, or None when nothing may go now."""
        if self._unmoved and self._unmoved[0][0] <= now:
            self.busy += 1
            return Job(heapq.heappop(self._unmoved)[2], None, False, False)
        for _ in range(len(self._rotation)):
            lane = self._rotation[0]
            self._rotation.rotate(-1)
            job = lane.take(now)
            if job is not None:
                self.busy += 1
                return job
        return None

    def take_along(self, job, most, now):
        """Return further jobs of the same receiver that may go with `job` through one exchange; `most` with it."""
        jobs = [] if job.generation is None else self.lane(job.ticket.receiver).take_along(job, most, now)
        self.busy += len(jobs)
        return jobs

    def give_back(self, job):
        """Take a job back that was not begun."""
        self.busy -= 1
        lane = self.lane(job.ticket.receiver)
        lane.back(job)
        lane.breaker.cancel(job.generation)
        self._put(lane, job.ticket)

    def next_due(self, now):
        """Return when take() may next have something: `now`, a later time, or None: not by time alone."""
        times = [lane.due(now) for lane in self.lanes.values()]
        if self._unmoved:
            times.append(max(now, self._unmoved[0][0]))
        times = [time for time in times if time is not None]
        return min(times) if times else None

    def settle(self, job, outcome, now, rnd):
        """Take a job back with its Outcome; rnd: a random number in [0, 1)."""
        self.busy -= 1
        ticket = job.ticket
        lane = self.lane(ticket.receiver)
        if job.generation is not None:
            lane.back(job)
            for event in lane.hear(job, outcome, now, rnd):
                self.events.append((ticket.receiver.name, event))
        if outcome.moved or outcome.gone and (self.retrying or outcome.verdict == GONE):
            self._forget(ticket)
        elif outcome.verdict in (ACK, NACK):
            self._keep_for_move(ticket, outcome, now, rnd)
        elif self.retrying:
            self._defer(lane, self._failed(ticket, outcome, now, rnd))

    def _failed(self, ticket, outcome, now, rnd):
        if outcome.verdict != RETRY or outcome.throttle:
            # HOLD and a busy receiver say nothing about the file: it waits for its receiver alone.
            return ticket._replace(attempts=ticket.attempts + 1, due=now)
        receiver = ticket.receiver
        attempts = ticket.attempts + 1
        pause = backoff.pause(receiver.retry_pause, receiver.retry_max_pause, attempts, rnd)
        return ticket._replace(attempts=attempts, due=now + max(pause, outcome.retry_after or 0))

    def _keep_for_move(self, ticket, outcome, now, rnd):
        due = now + backoff.pause(MOVE_PAUSE, MOVE_PAUSE, 1, rnd)
        heapq.heappush(self._unmoved, (due, self._next_order(), ticket._replace(settled=outcome)))

    def _defer(self, lane, ticket):
        heapq.heappush(lane.deferred, (ticket.due, self._next_order(), ticket))

    def _forget(self, ticket):
        self.known.discard((ticket.file.spool, ticket.file.name))

    def _next_order(self):
        self._order_of_offers += 1
        return self._order_of_offers

    def waiting(self):
        """Return how many known files are not settled: in lanes, answered but not moved, or out with workers."""
        return len(self.known)

    def room(self):
        """Return {receiver's name: how many more files its lane takes}."""
        return dict([(name, lane.room()) for name, lane in self.lanes.items()])

    def deadlines(self):
        """Return how long an exchange may take, in seconds, of each receiver."""
        return [lane.receiver.deadline for lane in self.lanes.values()]

    def mark_overflow(self, names):
        """Let hungry() speak when the lanes of these receivers are half empty."""
        for name, lane in self.lanes.items():
            lane.overflow = name in names

    def hungry(self):
        """Return True, once, when a lane that left files on disk is half empty."""
        for lane in self.lanes.values():
            if lane.overflow and lane.room() >= MOST_FILES // 2:
                lane.overflow = False
                return True
        return False

    def unmoved(self):
        """Return how many files were answered and could not be moved so far."""
        return len(self._unmoved)
