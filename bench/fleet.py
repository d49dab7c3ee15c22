"""What a fleet of agents does to its one receiver during an outage and after it: a simulation in virtual time.

    python3 bench/fleet.py [--agents 10000] [--share 0.1] [--spread 60] [--seed 1] [--only WORD]... [--svg FILE]

Each agent gets a file a minute. The receiver answers for 2 minutes, refuses connections for 30, and is then back with
room for a tenth of the fleet: agents / 10 requests a second; what comes beyond them gets a 503. Envio's own Lanes,
breaker and pauses meet it beside two kinds of shell loop and a backoff for each file. No socket, no clock, no thread;
the same seed gives the same figures. Prints a table in Markdown; --svg draws the picture of docs/overload.md.
"""

import argparse
import heapq
import itertools
import math
import random
import statistics
import sys
import time
from collections import deque

import common  # noqa: F401 (the packages below are found by it)

from agent import classify, errors, lanes
from tests import samples

# Seconds of virtual time.
EVERY = 60          # between two files of an agent
DOWN = 120          # when the outage begins
UP = DOWN + 1800    # when it ends
FIRST = 300         # what `the first minutes` after it are
SHOWN = UP + 1200   # how far the picture goes
LAST = UP + 3600    # when a run is given up
TAKES = 0.02        # an exchange, without its wait at the receiver
REFUSED_TAKES = 0.001
QUEUE = 0.1         # requests wait so long at the receiver; those that would wait longer get a 503

WORKERS = 4         # exchanges at once, of every kind of agent
PAUSE = 5           # of the shell loops, and the first one for each file
LONGEST_PAUSE = 600

ACCEPTED, BUSY, REFUSED = 200, 503, None
RECEIVER = samples.receiver(workers=WORKERS)
# Of no agent in particular: every agent has a Lanes of its own, and nobody changes a Ticket.
TICKETS = [samples.ticket(RECEIVER, '%d' % number) for number in range(LAST // EVERY + 1)]
MOVED = classify.of_reply(samples.reply(ACCEPTED), RECEIVER, 0)._replace(moved=True)
NO_ANSWER = classify.of_error(errors.TransportError('connect', 'connection refused', sent_whole=False))
TOO_BUSY = classify.of_reply(samples.reply(BUSY), RECEIVER, 0)
COME_LATER = classify.of_reply(samples.reply(BUSY, ('retry-after', '30')), RECEIVER, 0)


class Sink(object):
    """The receiver; what it was asked and what it took, by the second."""

    def __init__(self, capacity):
        self.each = 1.0 / capacity
        self.free = 0  # when it will have done all it accepted so far
        self.asked = [0] * (LAST + 1)
        self.took = [0] * (LAST + 1)

    def ask(self, now):
        """Return (answer, when the agent has it)."""
        second = int(now)
        self.asked[second] += 1
        begin = now
        if now >= DOWN:
            if now < UP:
                return REFUSED, now + REFUSED_TAKES
            begin = max(now, self.free)
            if begin - now > QUEUE:
                return BUSY, now + TAKES
            self.free = begin + self.each
        self.took[second] += 1
        return ACCEPTED, begin + TAKES


def is_old(agent, number):
    """Whether the agent's file of that number appeared before the end of the outage."""
    return agent.first + number * EVERY < UP


class Run(object):
    """One fleet of one kind: the heap of what will happen, and what became of the files.

    count: agents; capacity: requests a second that the receiver takes after the outage; spread: seconds of the minute
    in which files appear; kind: a class of agents, made with (run, the agent's options).
    """

    def __init__(self, count, capacity, seed, spread, kind, *options):
        self.chance = random.Random(seed)
        self.sink = Sink(capacity)
        self.heap = []
        self.order = itertools.count()
        self.waiting = 0
        self.backlog = []    # files not accepted, at the end of each second
        self.noticed = []    # seconds after the outage, for each agent: its first file accepted
        self.old_done = []   # the same for each file that appeared before its end
        self.old = 0         # how many those are
        for _ in range(count):
            agent = kind(self, *options)
            agent.first = self.chance.random() * spread
            agent.knows = False
            self.at(agent.first, self.appear, (agent, 0))
        self.at(1, self.note, None)

    def at(self, when, call, what):
        """Have call(when, what) called at that time."""
        heapq.heappush(self.heap, (when, next(self.order), call, what))

    def appear(self, now, what):
        agent, number = what
        self.waiting += 1
        self.old += is_old(agent, number)
        if now + EVERY < LAST:
            self.at(now + EVERY, self.appear, (agent, number + 1))
        agent.appear(now, number)

    def accepted(self, agent, number, now):
        """Note that the agent's file of that number has arrived."""
        self.waiting -= 1
        if is_old(agent, number):
            self.old_done.append(now - UP)
        if now >= UP and not agent.knows:
            agent.knows = True
            self.noticed.append(now - UP)

    def note(self, now, _):
        """Write down the backlog, each second."""
        self.backlog.append(self.waiting)
        self.at(now + 1, self.note, None)

    def go(self):
        """Let it happen until every file from before the end of the outage has arrived, and the picture is full."""
        heap, now = self.heap, 0
        while now < LAST and (now < SHOWN or len(self.old_done) < self.old):
            now, _, call, what = heapq.heappop(heap)
            call(now, what)
        return self

    def drained(self, share):
        """Return the seconds after the outage until this share of the files from before its end was there, or None."""
        need = int(round(self.old * share))
        return self.old_done[need - 1] if len(self.old_done) >= need else None


class Envio(object):
    """Lanes, breaker and pauses as they are in agent/. busy: the Outcome of a 503."""

    def __init__(self, run, busy):
        self.run = run
        self.outcomes = {ACCEPTED: MOVED, REFUSED: NO_ANSWER, BUSY: busy}
        self.lanes = lanes.Lanes([RECEIVER])
        self.wakes = LAST + 1

    def appear(self, now, number):
        self.lanes.offer(TICKETS[number])
        self.send(now)

    def send(self, now):
        job = self.lanes.take(now)
        while job is not None:
            answer, when = self.run.sink.ask(now)
            self.run.at(when, self.answered, (job, answer))
            job = self.lanes.take(now)
        due = self.lanes.next_due(now)
        if due is not None and due < self.wakes:
            self.wakes = due
            self.run.at(due, self.wake, None)

    def answered(self, now, what):
        job, answer = what
        self.lanes.settle(job, self.outcomes[answer], now, self.run.chance.random())
        self.lanes.events.clear()
        if answer == ACCEPTED:
            self.run.accepted(self, int(job.ticket.file.name), now)
        self.send(now)

    def wake(self, now, _):
        if now == self.wakes:  # else it was woken earlier, or by something else
            self.wakes = LAST + 1
            self.send(now)


class Loop(object):
    """A shell loop: one file is tried first; when the receiver answers, the others; then a pause of 5 s.

    whole: True: any answer is one, and every file is tried; False: the first failure of any kind ends the round.
    """

    def __init__(self, run, whole):
        self.run = run
        self.whole = whole
        self.waiting = deque()
        self.failed = []
        self.out = 0
        self.width = 1  # how many may be out; 0: the round is over
        self.pausing = False

    def appear(self, now, number):
        self.waiting.append(number)
        if not self.pausing:
            self.send(now)

    def send(self, now):
        while self.waiting and self.out < self.width:
            self.out += 1
            answer, when = self.run.sink.ask(now)
            self.run.at(when, self.answered, (self.waiting.popleft(), answer))

    def answered(self, now, what):
        number, answer = what
        self.out -= 1
        if answer == ACCEPTED:
            self.run.accepted(self, number, now)
        else:
            self.failed.append(number)
        if answer == REFUSED or answer == BUSY and not self.whole:
            self.width = 0
        elif self.width:
            self.width = WORKERS
        self.send(now)
        if not self.out:
            self.pause(now)

    def pause(self, now):
        self.waiting.extendleft(reversed(self.failed))
        self.failed = []
        self.width = 1
        if self.waiting:
            self.pausing = True
            self.run.at(now + PAUSE, self.resume, None)

    def resume(self, now, _):
        self.pausing = False
        self.send(now)


class EachFile(object):
    """A backoff for each file: 5 s, doubling to 10 minutes; no jitter, and no file knows of another."""

    def __init__(self, run):
        self.run = run
        self.ready = deque()
        self.out = 0

    def appear(self, now, number):
        self.due(now, (number, 1))

    def due(self, now, what):
        self.ready.append(what)
        self.send(now)

    def send(self, now):
        while self.ready and self.out < WORKERS:
            self.out += 1
            answer, when = self.run.sink.ask(now)
            self.run.at(when, self.answered, (self.ready.popleft(), answer))

    def answered(self, now, what):
        (number, tries), answer = what
        self.out -= 1
        if answer == ACCEPTED:
            self.run.accepted(self, number, now)
        else:
            self.run.at(now + min(LONGEST_PAUSE, PAUSE * 2 ** (tries - 1)), self.due, (number, tries + 1))
        self.send(now)


# Name, class of the line in the picture, agents.
KINDS = (
    ('Envio, 503', 'a', Envio, TOO_BUSY),
    ('Envio, 503 with Retry-After: 30', 'b', Envio, COME_LATER),
    ('5 s loop, sends all once answered', 'c', Loop, True),
    ('5 s loop, ends at a failure', 'd', Loop, False),
    ('backoff for each file, no jitter', 'e', EachFile),
)

HEAD = ('', 'requests during the outage', 'the same, a second', 'most requests/s, first 5 min after it',
        'most requests/s, later', 'not accepted, after it', 'not accepted, in all', 'noticed by half of the agents',
        'noticed by all', '99 % of the backlog delivered', 'all of it delivered', 'files waiting when the run ends')


def span(seconds):
    return 'not in %d min' % ((LAST - UP) // 60) if seconds is None else '%d:%02d' % divmod(round(seconds), 60)


def number(value):
    return format(int(round(value)), ',')


def wasted(asked, took):
    return '%.1f %%' % (100 - 100.0 * sum(took) / sum(asked))


def figures(run):
    """Return the cells of a row of the table."""
    asked, took, end = run.sink.asked, run.sink.took, run.drained(1)
    stop = LAST if end is None else int(UP + end) + 1
    refused = sum(asked[DOWN:UP])
    return (number(refused), number(refused / float(UP - DOWN)), number(max(asked[UP:UP + FIRST])),
            number(max(asked[UP + FIRST:LAST])), wasted(asked[UP:stop], took[UP:stop]),
            wasted(asked[DOWN:stop], took[DOWN:stop]), span(statistics.median(run.noticed)), span(max(run.noticed)),
            span(run.drained(0.99)), span(end), number(run.waiting))


# The picture: two plots above each other, minutes after the outage to the right.

WIDTH, LEFT, RIGHT = 900, 78, 886
STEP = 10  # seconds a point
RATES, FILES = (96, 370), (420, 640)  # top and bottom
MOST_RATE = 5  # a power of ten
DASHED = 'bd'
STYLE = """\
<style>
svg { background: #ffffff; font: 13px system-ui, "DejaVu Sans", Arial, sans-serif; fill: #1f2328 }
.paper { fill: #ffffff } .out { fill: #d1242f; opacity: 0.08 } .grid { stroke: #d0d7de } .axis { stroke: #59636e }
.line { fill: none; stroke-width: 1.7; stroke-linejoin: round } .limit { stroke: #59636e; stroke-dasharray: 6 4 }
.b, .d { stroke-dasharray: 5 5 }
.a { stroke: #0550ae } .b { stroke: #1a7f37 } .c { stroke: #cf222e } .d { stroke: #bc4c00 } .e { stroke: #8250df }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117; fill: #e6edf3 }
.paper { fill: #0d1117 } .out { fill: #ff7b72; opacity: 0.13 } .grid { stroke: #30363d } .axis { stroke: #9198a1 }
.limit { stroke: #9198a1 }
.a { stroke: #58a6ff } .b { stroke: #3fb950 } .c { stroke: #ff7b72 } .d { stroke: #e3a13b } .e { stroke: #bc8cff }
}
</style>"""


def across(second):
    return LEFT + (RIGHT - LEFT) * second / float(SHOWN)


def rate_height(rate):
    """Return the y of a rate, on a logarithmic scale that begins at 1."""
    top, bottom = RATES
    return bottom - (bottom - top) * math.log10(max(1, rate)) / MOST_RATE


def text(x, y, words, anchor='start'):
    return '<text x="%.0f" y="%.0f" text-anchor="%s">%s</text>' % (x, y, anchor, words)


def rule(kind, x1, y1, x2, y2):
    return '<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>' % (kind, x1, y1, x2, y2)


def curve(kind, points):
    return '<polyline class="line %s" points="%s"/>' % (kind, ' '.join('%.1f,%.1f' % point for point in points))


def frame(top, bottom, title, marks):
    """Return the parts of an empty plot; marks: (y, words) of the vertical axis."""
    parts = ['<rect class="out" x="%.1f" y="%d" width="%.1f" height="%d"/>' % (
        across(DOWN), top, across(UP) - across(DOWN), bottom - top), text(LEFT, top - 9, title)]
    for y, words in marks:
        parts += [rule('grid', LEFT, y, RIGHT, y), text(LEFT - 7, y + 4, words, 'end')]
    for second in range(DOWN, SHOWN + 1, 300):
        parts.append(rule('axis', across(second), bottom, across(second), bottom + 5))
        parts.append(text(across(second), bottom + 19, '%d' % ((second - UP) // 60), 'middle'))
    return parts + [rule('axis', LEFT, bottom, RIGHT, bottom), rule('axis', LEFT, top, LEFT, bottom)]


def picture(runs, capacity):
    """Return the SVG. runs: (name, class of its line, Run); capacity: requests a second."""
    top, bottom = FILES
    most = max(max(run.backlog[:SHOWN]) for _, _, run in runs)
    step = 10 ** (len('%d' % most) - 1)
    most = -(-most // step) * step
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="690" viewBox="0 0 %d 690" role="img" '
             'aria-label="Requests a second and files waiting, during an outage and after it">' % (WIDTH, WIDTH),
             STYLE, '<rect class="paper" width="%d" height="690"/>' % WIDTH]
    for place, (name, kind, _) in enumerate(runs):
        x, y = LEFT + place % 3 * 275, 26 + place // 3 * 22
        parts += [rule('line ' + kind, x, y - 4, x + 24, y - 4), text(x + 30, y, name)]
    parts += [rule('limit', LEFT + 550, 44, LEFT + 574, 44), text(LEFT + 580, 48, 'what the receiver can take')]
    parts += frame(RATES[0], RATES[1], 'requests/s, the highest second of each %d s (logarithmic)' % STEP,
                   [(rate_height(10 ** power), number(10 ** power)) for power in range(MOST_RATE + 1)])
    parts += frame(top, bottom, 'files waiting in the fleet',
                   [(bottom - (bottom - top) * files / float(most), number(files))
                    for files in range(0, most + 1, step)])
    parts.append(rule('limit', across(UP), rate_height(capacity), RIGHT, rate_height(capacity)))
    parts.append(text((across(DOWN) + across(UP)) / 2, RATES[0] + 17, 'connection refused', 'middle'))
    parts.append(text((LEFT + RIGHT) / 2, bottom + 42, 'minutes after the end of the outage', 'middle'))
    for _, kind, run in sorted(runs, key=lambda entry: entry[1] in DASHED):  # on top of what they may coincide with
        seconds = range(0, SHOWN, STEP)
        parts.append(curve(kind, [(across(second + STEP / 2.0), rate_height(max(run.sink.asked[second:second + STEP])))
                                  for second in seconds]))
        parts.append(curve(kind, [(across(second + 1), bottom - (bottom - top) * run.backlog[second] / float(most))
                                  for second in seconds]))
    return '\n'.join(parts + ['</svg>', ''])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--agents', type=int, default=10000)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--share', type=float, default=0.1,
                        help='of the agents that the receiver can serve in a second after the outage, instead of 0.1')
    parser.add_argument('--spread', type=float, default=EVERY,
                        help='files appear in so many seconds of each minute, instead of 60')
    parser.add_argument('--only', action='append', metavar='WORD',
                        help='only the kinds whose name has this word in it; several times if wanted')
    parser.add_argument('--svg', metavar='FILE', help='draw the picture')
    arguments = parser.parse_args()
    capacity = arguments.agents * arguments.share
    runs = []
    for name, line, kind, *options in KINDS:
        if arguments.only and not any(word in name for word in arguments.only):
            continue
        begin = time.time()
        run = Run(arguments.agents, capacity, arguments.seed, arguments.spread, kind, *options).go()
        print('%s: %.0f s' % (name, time.time() - begin), file=sys.stderr)
        runs.append((name, line, run))
    for cells in zip(HEAD, *[(name,) + figures(run) for name, _, run in runs]):
        print('| ' + ' | '.join(cells) + ' |')
        if cells[0] == HEAD[0]:
            print('|---' * len(cells) + '|')
    if arguments.svg:
        with open(arguments.svg, 'w') as stream:
            stream.write(picture(runs, capacity))


if __name__ == '__main__':
    main()
