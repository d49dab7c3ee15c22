"""One receiver's lane: its waiting files, and whether one may go now. Pure: no thread, no clock.

The receiver's share of workers, its breaker, its hold, its pause, and each file's own pause have their say here.
Called by lanes.py, under the pool's lock. Raises nothing.
"""

import heapq

from agent import backoff, breaker, text
from agent.records import ACK, HOLD, HOST, NACK, RECEIVER, Job, LaneState

MOST_FILES = 10240  # known files of a lane, 900 bytes each; the others stay on disk until it drains
SMALL = 65536  # bytes: larger files go alone
ABREAST = 4    # files that one worker sends at once, each an exchange
QUICK = 0.005  # seconds an exchange takes where workers are held up by each other rather than by the receiver
LONGEST_PAUSE = 3600  # seconds that a receiver may ask for (Retry-After)


class Lane(object):
    """One receiver's files and its state."""

    def __init__(self, receiver):
        self.fresh = []       # heap of (mtime, order, Ticket): not tried yet, the oldest first
        self.deferred = []    # heap of (due, order, Ticket): failed, each with its own pause
        self.busy = 0         # files out with workers
        self.riding = 0       # those of them that go along with another one
        self._together = 1    # how many files may go along by now
        self._turns = set()   # of the files out that workers took, see records.Job
        self._abreast = False  # a worker sends several at once here
        self.took = 0.0       # seconds that the newest exchange took
        self.nacks = 0        # rejected in a row
        self.accepts = False  # it has accepted a file since the start or the last hold
        self.moving = False   # its newest answer came from a receiver that works
        self.held = None      # why the receiver is on HOLD, or None
        self.hold_due = 0     # when the next file may probe it
        self.paused_until = 0   # the receiver asked to be left alone until then
        self.overflow = False   # there is more on disk than fits: somebody wants to know when most of it is free
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

    def state(self, now):
        """Return the LaneState: what is to outlive this process."""
        breaker_ = self.breaker
        return LaneState(breaker_.state, breaker_.failures, breaker_.openings, max(0, breaker_.until - now),
                         self.held or '', max(0, self.hold_due - now), max(0, self.paused_until - now), self.nacks,
                         self.accepts, self.window)

    def restore(self, state, now):
        """Go on from a LaneState, with no pause longer than one may be."""
        receiver = self.receiver
        longest = max(receiver.breaker_max_pause, LONGEST_PAUSE)
        self.breaker.restore(state.breaker, state.failures, state.openings, now + min(state.until, longest))
        self.held = state.held or None
        self.hold_due = now + min(state.hold_due, receiver.hold_probe)
        self.paused_until = now + min(state.paused, max(receiver.retry_max_pause, LONGEST_PAUSE))
        self.nacks, self.accepts = state.nacks, state.accepts
        self.window = max(1, min(state.window, receiver.workers))

    def waiting(self):
        """Return how many known files wait here, those out with workers not counted."""
        return len(self.fresh) + len(self.deferred)

    def room(self):
        """Return how many more files may be offered."""
        return MOST_FILES - self.waiting() - self.busy

    def forget_pauses(self):
        """Let everything go now: a probe, where the breaker is open or the receiver held."""
        self.breaker.until = self.hold_due = self.paused_until = 0
        self.deferred = [(0, order, ticket._replace(due=0)) for _, order, ticket in self.deferred]
        heapq.heapify(self.deferred)

    def needs_more(self):
        """Return True when those that stayed on disk are to be looked for again."""
        return self.room() >= enough_room()

    def due(self, now):
        """Return when the next file of this lane may go: `now`, a later time, or None: not before a worker is back
        or a file is offered."""
        if self._free() <= 0 or self.held and self.busy:
            return None
        if not self.fresh and not self.deferred:
            return None
        allowed = self.breaker.due(now)
        if allowed is None:
            return None
        file_due = now if self.fresh else self.deferred[0][0]
        return max(allowed, file_due, self.paused_until, self.hold_due if self.held else now)

    def _free(self):
        """Return how many more exchanges may be under way."""
        return min(self.window, self._until_brake()) - (self.busy - self.riding)

    def _until_brake(self):
        # Files that are out may all come back rejected. Until the receiver has accepted one, and from its first
        # rejection on, never more of them than the brake leaves.
        brake = self.receiver.brake
        if not brake or self.held or self.accepts and not self.nacks:
            return self.window
        return brake - self.nacks

    def take(self, now, turn=0, mine=0):
        """Return a Job, or None when nothing may go now.

        turn: its number; mine: that of the file which the worker that asks had before, 0: it comes from a rest. Where
        workers send several at once, one that took its last file before others did leaves the next ones to them, if
        they can have all: so files end up with few workers, that do not wait for each other.
        """
        if self.due(now) != now or mine and self._abreast and self._small() \
                and len([other for other in self._turns if other > mine]) * ABREAST >= self.window:
            return None
        probing = self.held is not None or self.breaker.state != breaker.CLOSED
        generation = self.breaker.allow(now)
        self.busy += 1
        self._turns.add(turn)
        return Job(self._next(now, probing), generation, self.held is not None, False, turn)

    def _small(self):
        return bool(self.fresh) and self.fresh[0][2].file.stamp.size <= SMALL

    def take_along(self, job, most, ride, now):
        """Return further small files, jobs too, that may go with `job`; `most` with it. ride: as of Lanes.take_along.

        None while anything is doubtful, so that a receiver that fails or rejects is tried with no more files than
        workers; of those that ride one more after each accepted file, as the window's slow start.
        """
        if job.generation != self.breaker.generation or self.breaker.state != breaker.CLOSED or self.held \
                or self.nacks or not self.accepts or job.ticket.file.stamp.size > SMALL:
            return []
        self._abreast = not ride and self.took < QUICK
        if not ride and not self._abreast:
            return []  # a worker for each is quicker: none waits for the others of its file
        if ride:
            share = len(self.fresh) // self.window  # the other workers have theirs
            most = min(most, self._together + 1, share + 1)
        elif self.due(now) != now:
            return []
        else:
            most = min(most, 1 + self._free())
        jobs = []
        # Of the same settings: after a reload those that wait have others.
        while len(jobs) < most - 1 and self._small() and self.fresh[0][2].receiver is job.ticket.receiver:
            jobs.append(Job(heapq.heappop(self.fresh)[2], self.breaker.allow(now), False, ride))
            self.busy += 1
            self.riding += ride
        return jobs

    def back(self, job):
        """Note that a job's file is no longer out."""
        self.busy -= 1
        self._turns.discard(job.turn)
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
        self.moving = outcome.blame != RECEIVER
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
            receiver = self.receiver
            pause = backoff.asked(asked, rnd) or backoff.pause(receiver.retry_pause, receiver.retry_max_pause, 1, rnd)
            self.paused_until = max(self.paused_until, now + pause)
            self.window = 1  # slow start, as after an outage
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


def enough_room():
    """Return the room that a look for more files is worth: each goes over all that are there."""
    return MOST_FILES * 3 // 4
