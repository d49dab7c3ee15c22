"""Which file goes next: round robin over the lanes that are ready; and every file that is known. Pure: no clock.

Called by workers.py under its lock. Raises nothing.
"""

import heapq
from collections import deque

from agent import backoff
from agent.lane import Lane
from agent.records import ACK, GONE, NACK, RETRY, Job, Tried

MOVE_PAUSE = 5  # seconds between tries to move a file that was answered, before jitter


class Lanes(object):
    """All lanes, and every file that is known.

    retrying: False for one pass (`once`): a file that was tried stays known, and is not tried again.
    workers: how many there are in all, None = enough for every lane.
    `events` collects (receiver's name, sentence) for each change of state, until somebody takes them.
    """

    def __init__(self, receivers, retrying=True):
        self.retrying = retrying
        self.workers = None
        self.lanes = {}
        self.known = set()    # (spool, name) of every file in a lane or out with a worker
        self.events = deque()
        self.busy = 0
        self._exchanges = 0   # of the files out, those that take a part of the workers
        self.receivers_changed(receivers)
        self.remembered = {}  # (spool, name) -> Tried: of an earlier process, not offered yet
        self._parked = {}     # one pass: (spool, name) -> the Ticket that failed
        self._unmoved = []    # heap of (due, order, Ticket): answered, the move is left
        self._answered = set()  # (spool, name) of these, and of those whose move is being tried
        self._order_of_offers = 0
        self._turn = 0        # of the file that a worker took last, see records.Job

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
        tried = self.remembered.pop(key, None)
        if tried is not None and tried.stamp == ticket.file.stamp:
            ticket = ticket._replace(attempts=tried.attempts, due=tried.due, last=tried.last, maybe=tried.maybe)
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

    def take(self, now, mine=0):
        """Return a Job for a worker, or None when nothing may go now. mine: as of Lane.take."""
        if self._unmoved and self._unmoved[0][0] <= now:
            self.busy += 1
            self._exchanges += 1
            return Job(heapq.heappop(self._unmoved)[2], None, False, False)
        if self._full():
            return None
        share = self._share(now)
        for _ in range(len(self._rotation)):
            lane = self._rotation[0]
            self._rotation.rotate(-1)
            job = lane.take(now, self._turn + 1, mine) if _within(lane, share) else None
            if job is not None:
                self._turn += 1
                self.busy += 1
                self._exchanges += 1
                return job
        return None

    def take_along(self, job, most, ride, now):
        """Return further jobs of the same receiver that may go with `job`; `most` with it.

        ride: True: through one exchange with it; False: each is an exchange, and so takes a part of the workers.
        """
        if job.generation is None:
            return []
        if not ride:
            most = min(most, self._part(now))
        jobs = self.lane(job.ticket.receiver).take_along(job, most, ride, now)
        self.busy += len(jobs)
        self._exchanges += 0 if ride else len(jobs)
        return jobs

    def _full(self):
        """Return whether as many exchanges are under way as there are workers: one of them may have several."""
        return self.workers is not None and self._exchanges >= self.workers

    def _part(self, now):
        """Return how many files a worker may have out at once: as many as there are workers for each lane that has
        something to send, and none beyond the number of all workers."""
        if self.workers is None:
            return 1
        waiting = len([lane for lane in self.lanes.values() if lane.due(now) == now])
        return min(self.workers // max(1, waiting), self.workers - self._exchanges + 1)

    def give_back(self, job):
        """Take a job back that was not begun."""
        self.busy -= 1
        self._exchanges -= not job.riding
        lane = self.lane(job.ticket.receiver)
        lane.back(job)
        lane.breaker.cancel(job.generation)
        self._put(lane, job.ticket)

    def _share(self, now):
        """Return how many workers a lane may have that has not shown that it moves, None = all it wants.

        Where there are fewer workers than the lanes' own limits add up to, a few receivers that take files and never
        answer would soon have them all. So a lane gets no more than half of its part before it has answered.
        """
        lanes = self.lanes.values()
        if self.workers is None or len(lanes) < 2 or sum([lane.receiver.workers for lane in lanes]) <= self.workers:
            return None
        active = [lane for lane in lanes if lane.busy or lane.due(now) == now]
        return max(1, self.workers // max(1, len(active)) // 2)

    def next_due(self, now):
        """Return when take() may next have something: `now`, a later time, or None: not by time alone."""
        share = self._share(now)
        times = [lane.due(now) for lane in self.lanes.values() if _within(lane, share)] if not self._full() else []
        if self._unmoved:
            times.append(max(now, self._unmoved[0][0]))
        times = [time for time in times if time is not None]
        return min(times) if times else None

    def settle(self, job, outcome, now, rnd, took=0.0):
        """Take a job back with its Outcome; rnd: a random number in [0, 1); took: seconds since it was taken."""
        self.busy -= 1
        self._exchanges -= not job.riding
        ticket = job.ticket
        lane = self.lane(ticket.receiver)
        if job.generation is not None:
            lane.back(job)
            lane.took = took
            for event in lane.hear(job, outcome, now, rnd):
                self.events.append((ticket.receiver.name, event))
        if outcome.moved or outcome.gone and (self.retrying or outcome.verdict == GONE):
            self._forget(ticket)
        elif outcome.verdict in (ACK, NACK):
            self._keep_for_move(ticket, outcome, now, rnd)
        else:
            failed = self._failed(ticket, outcome, now, rnd)
            if self.retrying:
                self._defer(lane, failed)
            else:
                self._parked[ticket.file.spool, ticket.file.name] = failed

    def _failed(self, ticket, outcome, now, rnd):
        attempts, receiver = ticket.attempts + (not outcome.throttle), ticket.receiver
        due = now
        # HOLD and a busy receiver say nothing about the file: it waits for its receiver alone.
        if outcome.verdict == RETRY and not outcome.throttle:
            pause = backoff.pause(receiver.retry_pause, receiver.retry_max_pause, attempts, rnd)
            due = now + max(pause, backoff.asked(outcome.retry_after or 0, rnd))
        return ticket._replace(attempts=attempts, due=due, last=outcome.reason, maybe=ticket.maybe or outcome.maybe)

    def _keep_for_move(self, ticket, outcome, now, rnd):
        self._answered.add((ticket.file.spool, ticket.file.name))
        due = now + backoff.pause(MOVE_PAUSE, MOVE_PAUSE, 1, rnd)
        heapq.heappush(self._unmoved, (due, self._next_order(), ticket._replace(settled=outcome)))

    def _defer(self, lane, ticket):
        heapq.heappush(lane.deferred, (ticket.due, self._next_order(), ticket))

    def _forget(self, ticket):
        key = ticket.file.spool, ticket.file.name
        self.known.discard(key)
        self._answered.discard(key)

    def _next_order(self):
        self._order_of_offers += 1
        return self._order_of_offers

    def tried(self):
        """Return {(spool, name): Tried} of all files that were tried and stay."""
        found = dict(self.remembered)
        tickets = [entry[2] for lane in self.lanes.values() for entry in lane.deferred] + list(self._parked.values())
        for ticket in tickets:
            file = ticket.file
            found[file.spool, file.name] = Tried(file.stamp, ticket.attempts, ticket.due, ticket.last, ticket.maybe,
                                                 ticket.receiver.name)
        return found

    def parked(self):
        """Return the receiver's name of each file that failed in a pass that tries none again."""
        return [ticket.receiver.name for ticket in self._parked.values()]

    def forget_pauses(self, receiver=None):
        """Let everything of a receiver (its name; None: of all) go now: pauses, holds, open breakers."""
        for name, lane in self.lanes.items():
            if receiver in (None, name):
                lane.forget_pauses()
        for key, tried in list(self.remembered.items()):
            if receiver in (None, tried.receiver):
                self.remembered[key] = tried._replace(due=0)

    def keep_remembered(self, keys):
        """Forget what is remembered of files but these: a whole pass has not seen them."""
        self.remembered = dict([(key, tried) for key, tried in self.remembered.items() if key in keys])

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
        """Let hungry() speak when the lanes of these receivers are nearly empty."""
        for name, lane in self.lanes.items():
            lane.overflow = name in names

    def hungry(self):
        """Return True, once, when a lane that left files on disk is nearly empty."""
        for lane in self.lanes.values():
            if lane.overflow and lane.needs_more():
                lane.overflow = False
                return True
        return False

    def unmoved(self, spool=None):
        """Return how many files were answered and could not be moved so far: of a spool (its path), or of all."""
        return len([key for key in self._answered if spool in (None, key[0])])


def _within(lane, share):
    return share is None or lane.moving or lane.busy - lane.riding < share
