"""The pool: threads that take jobs from the lanes, and the agent's only lock.

The lock guards the Lanes; everything slow (files, sockets, logs) happens outside of it. Workers wait without a
time-out on one Condition: only the main thread waits for a time, in wakeup.py, and rouses them when it has come.
Called by engine.py. What a worker could not expect is logged, and its file stays.
"""

import logging
import threading
from collections import deque

from agent import classify, compat, text
from agent.errors import AgentError
from agent.records import Result

MANY_RESULTS = 256  # finished jobs that wait for the main thread before it is woken for them

log = logging.getLogger('envio')


class Pool(object):
    """`size` worker threads over `lanes` (lanes.Lanes), from begin() on.

    equip: () -> what they send with: (as delivery.Delivery, () -> as transports.Transports, for one worker), called
    once; notify: wakes the main thread; clock: monotonic, in seconds.
    `results` is the queue of finished jobs (records.Result): the main thread takes them out on the left.
    """

    def __init__(self, lanes, size, equip, notify, clock=compat.monotonic):
        self.lanes = lanes
        self.results = deque()
        self._equip = equip
        self._delivery = self._make_transport = self._random = None  # before begin()
        self._notify = notify
        self._clock = clock
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._size = 0          # workers wanted
        self._living = 0        # workers that have not ended
        self._idle = 0          # workers that wait and are not roused yet
        self._transports = {}   # of the workers that live
        self._stopping = False
        self._told = False      # the main thread was woken and has not looked yet
        self.resize(size)

    def begin(self):
        """Start the workers; offer() does so with the first ticket. Raises AgentError where this host lets none."""
        if self._delivery is None:
            from random import random  # here: a pass that finds nothing to send loads none of this
            self._random = random
            compat.hand_over_less()
            self._delivery, self._make_transport = self._equip()
            self._start_missing()

    def resize(self, size):
        """Have `size` workers; those too many end when they are done with their file."""
        with self._lock:
            self._size = self.lanes.workers = size
        if self._delivery is not None:
            self._start_missing()

    def _start_missing(self):
        with self._lock:
            size = self._size
            missing = max(0, size - self._living)
            self._living += missing
            self._rouse(self._idle)
        for started in range(missing):
            worker = threading.Thread(target=self._run)
            worker.daemon = True
            self._transports[worker] = self._make_transport()
            try:
                worker.start()
            except threading.ThreadError as error:
                del self._transports[worker]
                self._do_without(missing - started, error)
                return

    def _do_without(self, count, error):
        with self._lock:
            self._living -= count
            living = self._living
        if not living:
            raise AgentError('workers: this host lets no thread start: %s: raise its limit (ulimit -u, -v)' % error)
        log.warning('workers: only %d of %d threads can be started: %s: lower `workers`', living, self._size, error)

    def offer(self, tickets):
        """Give tickets to the lanes, and return those that found no room. Raises as begin()."""
        if tickets:
            self.begin()
        with self._lock:
            left = [ticket for ticket in tickets if not self.lanes.offer(ticket)]
            self._rouse(1)  # who takes something rouses the next one, if there is more
        return left

    def rouse(self):
        """Let idle workers look for what has become due; return when the next thing will, or None.

        None also means: there is no idle worker; each looks for itself when it is done.
        """
        with self._lock:
            self._told = False
            if not self._idle or self._stopping:
                return None
            now = self._clock()
            due = self.lanes.next_due(now)
            if due is not None and due <= now:
                self._rouse(1)
                return None
            return due

    def quiet(self):
        """Return True when nothing is out with a worker and nothing is ready to go."""
        with self._lock:
            now = self._clock()
            due = self.lanes.next_due(now)
            return not self.lanes.busy and (due is None or due > now)

    def with_lanes(self, action):
        """Return action(lanes), called under the lock."""
        with self._lock:
            return action(self.lanes)

    def cut(self):
        """End the exchanges whose deadline has passed."""
        now = self._clock()
        for transport in list(self._transports.values()):
            transport.cut(now)

    def stop(self):
        """Let every worker end after the file it has; nothing new starts."""
        with self._lock:
            self._stopping = True
            self._rouse(self._idle)

    def abort(self):
        """End all exchanges now: their files stay."""
        for transport in list(self._transports.values()):
            transport.abort()

    def ended(self):
        """Return True when no worker is left."""
        with self._lock:
            return not self._transports

    def _rouse(self, count):
        count = min(count, self._idle)
        if count > 0:
            self._idle -= count
            self._work.notify(count)

    def _tell(self):
        if not self._told:
            self._told = True
            self._notify()

    def _run(self):
        me = threading.current_thread()
        transport = self._transports[me]
        try:
            job = self._next(None, None, None)
            while job is not None:
                turn = job.turn
                along = self._take_along(job, *transport.most(job.ticket.receiver))
                begin = self._clock()
                if along:
                    job = self._next(*self._deliver_all([job] + along, transport, begin), turn=turn)
                else:
                    job = self._next(job, self._outcome(job, transport), begin, turn=turn)
        except Exception:
            log.exception('a worker ended: this is a fault of the program')
        finally:
            transport.close()
            with self._lock:
                # In one step: once nobody is left, nobody may touch what the main thread then takes down.
                del self._transports[me]
                self._notify()

    def _outcome(self, job, transport):
        try:
            return self._delivery.deliver(job, transport)
        except Exception as error:
            log.exception('%s: a fault of the program: the file stays', text.shown(job.ticket.file.name))
            transport.close()
            return classify.of_host('a fault of the program: %s' % error.__class__.__name__)

    def _take_along(self, job, most, ride):
        """Return the jobs that this worker does together with `job`; let another worker have what is left."""
        with self._lock:
            now = self._clock()
            along = self.lanes.take_along(job, most, ride, now) if most > 1 else []
            if self._idle and self.lanes.next_due(now) == now:
                self._rouse(1)
            return along

    def _deliver_all(self, jobs, transport, begin):
        """Deliver several jobs in one exchange; return the last one, its Outcome (None: not begun) and its beginning;
        the others are settled."""
        left, last = list(jobs), None
        try:
            for job, outcome in self._delivery.deliver_all(jobs, transport):
                left.remove(job)
                if last is not None:
                    begin = self._settle(*last)
                last = job, outcome, begin
        except Exception:
            log.exception('%s: a fault of the program: the files stay', text.count(len(left), 'file'))
            transport.close()
        for job in left:  # after a fault alone
            if last is not None:
                self._settle(*last)
            last = job, classify.of_host('a fault of the program'), begin
        return last

    def _settle(self, job, outcome, begin):
        with self._lock:
            return self._take_back(job, outcome, begin)

    def _take_back(self, job, outcome, begin):
        """Settle a job that began at `begin`; return what time it is."""
        now = self._clock()
        if outcome is None:
            self.lanes.give_back(job)
            return now
        ticket = job.ticket
        self.lanes.settle(job, outcome, now, self._random(), now - begin)
        # Not before: who hears that a file changed looks at it anew, and must not find it known.
        self.results.append(Result(ticket.file, ticket.receiver, outcome, ticket.attempts + 1, now - begin))
        if not outcome.moved or len(self.results) >= MANY_RESULTS or self.lanes.hungry():
            self._tell()
        return now

    def _next(self, job, outcome, begin, turn=0):
        """Settle the job that is done, if any, and return the next one, or None when this worker is to end.

        turn: of the file that this worker took last.
        """
        with self._lock:
            if job is not None:
                self._take_back(job, outcome, begin)
            waited = False
            while True:
                if self._stopping or self._living > self._size:
                    self._living -= 1
                    return None
                now = self._clock()
                job = self.lanes.take(now, turn)
                if job is not None:
                    if waited and self.lanes.busy == 1:
                        self._tell()  # there is a deadline to watch again
                    return job
                self._idle += 1
                self._tell()
                self._work.wait()
                waited, turn = True, 0


def equipment(spools, config_path, resources):
    """Return what a Pool's workers send with. spools, config_path: as for delivery.Delivery; resources:
    resources.Resources."""
    from agent.delivery import Delivery
    from agent.transports import Transports
    return Delivery(spools, config_path), lambda: Transports(resources)
