"""A day of virtual time, at random: no file is stuck, nothing turns in circles, no receiver is stormed with probes; not
when the agent is started anew now and then, nor when the clock is set back and ahead."""

import heapq
import random

import pytest

from agent.breaker import CLOSED
from agent.lanes import Lanes
from agent.records import ACK, FILE, HOLD, HOST, NACK, RECEIVER, RETRY, Outcome
from agent.state import Keeper
from agent.stats import Stats
from tests.samples import receiver, ticket

DAY = 86400.0
WORKERS = 6
DONE = Outcome(ACK, FILE, 200, '200 OK', None, False, None, True, False)
REFUSED = Outcome(NACK, FILE, 422, '422 No', None, False, None, True, False)
BROKEN = Outcome(RETRY, RECEIVER, 500, '500 Broken', None, False, None, False, False)
BUSY = Outcome(RETRY, RECEIVER, 429, '429 Slow', 30, True, None, False, False)
POISON = Outcome(RETRY, FILE, 408, '408 Late', None, False, None, False, False)
MOVED = Outcome(HOLD, RECEIVER, 301, '301 Moved', None, False, None, False, False)
UNREADABLE = Outcome(RETRY, HOST, None, 'can\'t be read', None, False, None, False, False)
MOODS = {'well': [DONE] * 40 + [REFUSED, POISON, UNREADABLE], 'down': [BROKEN], 'odd': [DONE, BROKEN, POISON, BUSY],
         'moved': [MOVED], 'busy': [BUSY, BUSY, DONE]}


class Walk(object):
    """Receivers whose moods change, workers that take their time, files that come; spool: a folder with .envio/ for the
    state."""

    def __init__(self, seed, spool):
        self.spool = spool
        self.files = {}    # name -> Ticket: what lies in the spool
        self.set_by = 0.0  # seconds that the wall clock is off
        self.chance = random.Random(seed)
        self.receivers = [receiver(name, workers=3, hold_probe=300.0) for name in ('a', 'b', 'c')]
        self.lanes = Lanes(self.receivers)
        self.now = 0.0
        self.out = []      # heap of (when it is back, order, job, outcome)
        self.moods = dict([(one.name, 'well') for one in self.receivers])
        self.offered = self.settled = self.turns = 0
        self.requests = dict([(one.name, []) for one in self.receivers])

    def mood(self):
        name = self.chance.choice('abc')
        self.moods[name] = self.chance.choice(sorted(MOODS))

    def offer(self):
        for _ in range(self.chance.randrange(8)):
            name = 'f%d' % self.offered
            one = ticket(self.chance.choice(self.receivers), name, mtime=self.offered)
            self.files[name] = one._replace(file=one.file._replace(spool=self.spool))
            self.offered += self.lanes.offer(self.files[name])

    def set_clock(self):
        self.set_by += self.chance.choice((-DAY, -3600.0, -1.0, 1.0, 3600.0, DAY))

    def keeper(self):
        return Keeper([self.spool], 'run', lambda: self.now, lambda: 1.8e9 + self.now + self.set_by)

    def start_anew(self):
        """Stop, with what is out cut off, and begin again with what lies in the spool and in the state."""
        keep = self.keeper()
        keep.restore(Lanes([]))
        for _, _, job, _ in self.out:
            self.lanes.settle(job, UNREADABLE, self.now, 0.5)  # as after stop_grace
        self.out = []
        keep.save(lambda call: call(self.lanes), Stats(0), ended=True)
        if self.chance.random() < 0.5:
            self.set_clock()
        self.lanes = Lanes(self.receivers)
        self.keeper().restore(self.lanes)
        for name in sorted(self.files):
            assert self.lanes.offer(self.files[name])

    def take(self):
        while len(self.out) < WORKERS:
            before = dict([(name, lane.breaker.state) for name, lane in self.lanes.lanes.items()])
            job = self.lanes.take(self.now)
            if job is None:
                return
            name = job.ticket.receiver.name
            if before[name] != CLOSED or job.holding:
                self.requests[name].append(self.now)
            outcome = self.chance.choice(MOODS[self.moods[name]])
            back = self.now + self.chance.choice((0.01, 0.1, 1.0, 20.0))
            heapq.heappush(self.out, (back, self.turns, job, outcome))
            self.turns += 1

    def settle(self):
        while self.out and self.out[0][0] <= self.now:
            _, _, job, outcome = heapq.heappop(self.out)
            if outcome.verdict == NACK and job.holding:
                outcome = MOVED
            self.lanes.settle(job, outcome, self.now, self.chance.random())
            self.settled += outcome.moved
            if outcome.moved:
                del self.files[job.ticket.file.name]

    def advance(self, end):
        """Let time pass until something can happen, as the main thread does."""
        due = self.lanes.next_due(self.now) if len(self.out) < WORKERS else None
        assert due is None or due > self.now, 'it is due and can\'t be taken: the main thread would turn in circles'
        times = [end] + ([due] if due is not None else []) + ([self.out[0][0]] if self.out else [])
        self.now = min(times)

    def until(self, end):
        while self.now < end:
            self.take()
            self.advance(end)
            self.settle()


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('restarts', [False, True])
def test_a_day_at_random(seed, restarts, tmpdir):
    tmpdir.mkdir('.envio')
    walk = Walk(seed, str(tmpdir))
    while walk.now < DAY:
        walk.mood()
        walk.offer()
        if restarts and walk.chance.random() < 0.1:
            walk.start_anew()
        walk.until(walk.now + walk.chance.choice((1.0, 30.0, 600.0)))
    for name, times in walk.requests.items():
        # A probe every 2.5 s is the most the shortest pause allows; as pauses double they are far fewer.
        assert len(times) < DAY / 25, (name, len(times))
    for name in walk.moods:
        walk.moods[name] = 'well'
    walk.until(DAY + 7200)
    assert walk.settled == walk.offered > 500, 'every file was settled in the end'
    assert not walk.lanes.known and not walk.out and walk.lanes.busy == 0
    assert [lane.busy for lane in walk.lanes.lanes.values()] == [0, 0, 0]
