"""The agent killed again and again: a receiver that records, a run of kills, and then the promises of SPEC 2 checked.

    crashes = Crashes(folder, python, seed, curl)
    crashes.run(kills)      -> what was broken, in words: [] when every promise was kept
    crashes.figures         -> {what: how often}

Every file's bytes exist once in the world, so a file is known by their digest wherever it lies and under whatever name.
Every start has a number, which each of its requests carries (X-Run), so that a request tells whose it is even when it
is read after its sender was killed.

How many files a kill may send a second time: those whose answer the killed agent had not yet turned into a move. A
worker moves a file before it takes the next one, so with the native transport that is one file a worker; with cURL as
many as ride in one process, for each worker: it outlives the agent and goes on to the end of its list, and what it
sends after the kill, even beside the next agent, is charged to the start that began it. A file that was answered
with 503 or whose connection was cut is sent again on purpose and counts for nothing here.

For tests/test_crashes.py and bench/crash.py.
"""

import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections import namedtuple

from agent import compat, state
from agent.curl import MOST_FILES
from tests.conftest import ROOT
from tests.servers import Conversation, Gone, ok

ENVIO = os.path.join(ROOT, 'bin', 'envio')
WORKERS, CURL_WORKERS = 4, 2
AT_ONCE = {'native': WORKERS, 'curl': CURL_WORKERS * MOST_FILES}  # most files in flight, by transport
LONGEST = 0.6       # seconds that a start is given to get where it is to be killed
PATIENCE = 60       # the same for an end
ENOUGH = 80         # files that wait: then no more are put
PASSES = 40         # of `once`, after the last kill, in which everything has to leave

CONF = '''[agent]
spool = %(spool)s
settle = 0
scan_interval = 50ms
workers = %(workers)d
run_dir = %(spool)s.run
headers = X-Run: %(run)d
retry_pause = 1ms
retry_max_pause = 1ms
breaker_pause = 1ms
breaker_max_pause = 1ms
breaker_threshold = 1000000
brake = 0
'''
RECEIVER = '''[receiver:%s]
match = %s-*
url = %s/in
workers = %d
%s
'''

# Read by every Python at its start: kills the process right after the count-th of these calls that succeeded and has a
# text in its arguments. What lies between two calls that change something is one and the same state on disk.
HOOK = '''import itertools, os
count, names, text = os.environ['CRASH'].split(' ', 2)
calls = itertools.count(1)
def crashing(call):
    def crash(*args, **options):
        result = call(*args, **options)
        if text in str(args) and next(calls) == int(count):
            os.kill(os.getpid(), 9)
        return result
    return crash
for name in names.split(','):
    setattr(os, name, crashing(getattr(os, name)))
'''
CHANGING = 'open,write,fsync,rename,link,unlink,mkdir,rmdir'
WHERE = ('/', '/', '/.envio/', '/error/', '/sent/', '/deleted/')

# When a start is killed. command: 'run' or 'once'; how: 'time', 'head', 'body', 'answer' (the receiver read a head, a
# body, or has answered), 'call' (right after a system call), 'stop' (SIGTERM by time, and SIGKILL unless it has ended);
# count: at which of these; delay: seconds after it, or after the start; after: seconds from SIGTERM to SIGKILL;
# orphans: whether its cURL lives on.
Plan = namedtuple('Plan', 'command how count delay after orphans')


ACCEPTED, REJECTED, LATER, CUT = 200, 422, 503, 0  # what a receiver answers; CUT: nothing
FINAL = (ACCEPTED, REJECTED)
SLOW = {'slow': 0.01, 'crawl': 0.1}  # seconds at most before the answer

Request = namedtuple('Request', (
    'run',     # the number of the start that sent it
    'name',    # X-File-Name
    'key',     # Idempotency-Key
    'digest',  # of its body; None: it was not received whole
    'answer',  # one of those above, decided before a byte of it was sent
))


class Receiver(object):
    """Takes every POST, records it, and only then answers, by the second word of the file's name (`keep-busy-17`):
    accept, slow, crawl, reject, busy (503 twice, then accepted), cut (no answer once, then accepted).

    requests: the Request of each, in order. reached: called with ('head', 'body' or 'answer', number of the
    start).
    """

    def __init__(self):
        self.requests = []
        self.reached = lambda stage, run: None
        self._lock = threading.Lock()
        self._tries = {}   # digest -> whole requests so far
        self._talks = set()
        self._stopped = threading.Event()
        self._listener = socket.socket()
        self._listener.bind(('127.0.0.1', 0))
        self._listener.listen(128)
        self.url = 'http://127.0.0.1:%d' % self._listener.getsockname()[1]
        _thread(self._accept)

    def open(self):
        """Return how many connections there are."""
        return len(self._talks)

    def stop(self):
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except EnvironmentError:
            pass  # stopped before
        self._listener.close()
        for talk in list(self._talks):
            talk.cut()

    def take(self, run, name, key, body):
        """Record a request that came whole; return the answer it gets."""
        sum_ = digest(body)
        with self._lock:
            tries = self._tries[sum_] = self._tries.get(sum_, 0) + 1
        kind = name.split('-')[1]
        answer = REJECTED if kind == 'reject' else ACCEPTED
        if kind == 'busy' and tries <= 2:
            answer = LATER
        elif kind == 'cut' and tries == 1:
            answer = CUT
        elif kind in SLOW:
            time.sleep(SLOW[kind] * int(sum_[:2], 16) / 255)  # as a receiver that works
        self.requests.append(Request(run, name, key, sum_, answer))
        return answer

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except EnvironmentError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            talk = _Talk(connection, (), self._stopped)
            talk.receiver = self
            self._talks.add(talk)
            _thread(self._play, talk)

    def _play(self, talk):
        try:
            talk.run()
        finally:
            self._talks.discard(talk)


class _Talk(Conversation):
    """One kept connection of a Receiver."""

    answers = {ACCEPTED: ok(), REJECTED: ok(b'no order\n', '422 Unprocessable Content'),
               LATER: ok(b'', '503 Service Unavailable')}

    def run(self):
        try:
            while True:
                self._serve()
        except (EnvironmentError, Gone):
            pass  # as the peer's end is what this is about
        finally:
            self._connection.close()

    def _serve(self):
        self._read_head()
        fields = dict([(name.lower(), value) for name, value in self.requests[-1].headers])
        run, name, key = int(fields['x-run']), fields['x-file-name'], fields['idempotency-key']
        self.receiver.reached('head', run)
        try:
            if 'expect' in fields:
                self._send(b'HTTP/1.1 100 Continue\r\n\r\n')
            self._read_body()
        except (EnvironmentError, Gone):
            self.receiver.requests.append(Request(run, name, key, None, CUT))
            raise
        answer = self.receiver.take(run, name, key, self.requests.pop().body)
        self.receiver.reached('body', run)
        if answer == CUT:
            raise Gone('as its name says')
        self._send(self.answers[answer])
        self.receiver.reached('answer', run)


class Agent(object):
    """One start of bin/envio. code: its exit code, negative for a signal, None while it lives."""

    def __init__(self, arguments, environ, said):
        self.code = None
        self._orphans = True
        self._lock = threading.Lock()  # so that no number is signalled that is somebody else's by now
        with open(os.devnull) as nothing:
            self._child = subprocess.Popen([ENVIO] + arguments, cwd='/', env=environ, close_fds=True, stdin=nothing,
                                           stdout=said, stderr=said)

    def ended(self):
        with self._lock:
            self.code = self._child.poll()
            return self.code is not None

    def signal(self, number, orphans=True):
        """Send it a signal; orphans: let its children live on."""
        with self._lock:
            if self._child.poll() is None:
                children = [] if orphans else _children(self._child.pid)
                for pid in [self._child.pid] + children:
                    try:
                        os.kill(pid, number)
                    except EnvironmentError:
                        pass  # a child that has ended meanwhile


class Crashes(object):
    """A spool, its receiver, and starts of the agent that are killed. folder: empty, for everything; python: for the
    agent; seed: of all that is chosen by chance; curl: let cURL send, too."""

    def __init__(self, folder, python, seed, curl=False):
        self.receiver = Receiver()
        self.spool = os.path.join(folder, 'spool')
        self.put = {}        # digest -> name of each file that was put into the spool
        self.killed = set()  # numbers of the starts that ended by SIGKILL
        self.starts = 0
        self.figures = {}
        self._folder, self._python, self._curl = folder, python, curl
        self._rnd = random.Random(seed)
        self._broken = []
        self._plan = self._agent = self._reached = None
        self.receiver.reached = self._at
        os.mkdir(self.spool)
        os.mkdir(os.path.join(folder, 'hook'))
        with open(os.path.join(folder, 'hook', 'sitecustomize.py'), 'w') as page:
            page.write(HOOK)

    def run(self, kills):
        """Start and kill until `kills` starts were killed, then let all that waits leave; return what was broken."""
        try:
            while len(self.killed) < kills:
                self._feed()
                plan = self._choose()
                where = self._rnd.choice(WHERE)
                self.kill(plan, plan.how == 'call' and '%d %s %s' % (plan.count, CHANGING, where))
            self.drain()
        finally:
            self.receiver.stop()
        return self.check()

    def kill(self, plan, crash=None, longest=LONGEST):
        """Start the agent and have it killed as planned, or after `longest` seconds when it does not get there.

        crash: for HOOK: 'count calls text'.
        """
        agent = self.start(plan.command, crash, plan)
        begin, asked = time.time(), None
        while not agent.ended():
            now = time.time()
            if plan.how == 'stop' and asked is None and now >= begin + plan.delay:
                asked = now
                agent.signal(signal.SIGTERM)
            if (plan.how == 'time' and now >= begin + plan.delay or asked is not None and now >= asked + plan.after
                    or now >= begin + longest):
                agent.signal(signal.SIGKILL, plan.orphans)
            if self._rnd.random() < 0.1:
                self._feed(1)
            time.sleep(0.002)  # another process is waited for, and it tells nobody
        self._ended(agent, plan.how)

    def start(self, command, crash=None, plan=None):
        """Start the agent, as the next number."""
        self.starts += 1
        conf = os.path.join(self._folder, 'envio.conf')
        with open(conf, 'w') as page:
            page.write(self._configuration())
        environ = {'PATH': '/usr/bin:/bin', 'ENVIO_PYTHON': self._python, 'PYTHONDONTWRITEBYTECODE': '1'}
        if crash:
            environ.update(CRASH=crash, PYTHONPATH=os.path.join(self._folder, 'hook'))
        with open(os.path.join(self._folder, 'said'), 'wb') as said:
            self._plan, self._reached = plan, 0
            self._agent = Agent(['-c', conf, command], environ, said)
        return self._agent

    def drain(self):
        """Let the agent work in peace until nothing waits and nobody is connected any more."""
        for _ in range(PASSES):
            agent, end = self.start('once'), time.time() + PATIENCE
            while not agent.ended() or self.receiver.open():
                if time.time() > end:
                    self._broken.append('start %d does not end' % self.starts)
                    agent.signal(signal.SIGKILL, False)
                    return
                time.sleep(0.002)  # another process is waited for
            self._ended(agent, 'drain')
            if not self._waiting():
                return
        self._broken.append('after %d passes in peace there wait: %s' % (PASSES, ' '.join(self._waiting())))

    def check(self):
        """Return what was broken, in words."""
        return self._broken + broken_promises(self.spool, self.put, self.receiver.requests, self.killed)

    def _configuration(self):
        page = CONF % {'spool': self.spool, 'run': self.starts, 'workers': WORKERS}
        page += RECEIVER % ('keep', 'keep', self.receiver.url, WORKERS, 'transport = native')
        page += RECEIVER % ('drop', 'drop', self.receiver.url, WORKERS, 'transport = native\naccepted = delete')
        if self._curl:
            page += RECEIVER % ('curl', 'curl', self.receiver.url, CURL_WORKERS, 'transport = curl')
        return page

    def _choose(self):
        rnd = self._rnd
        how = rnd.choice(['time', 'head', 'body', 'answer', 'answer', 'call', 'call', 'stop'])
        if not self.starts:
            how = 'call'  # while it makes its folder
        count, delay = int(2 ** rnd.uniform(0, 5)), 0.0
        if how == 'answer':
            delay = rnd.choice([0, 0, 0.0005, 0.002]) * rnd.random()
        elif how in ('time', 'stop'):
            delay = rnd.uniform(0, 0.4)
        return Plan(rnd.choice(['run', 'run', 'once']), how, count, delay, rnd.uniform(0, 0.05), rnd.random() < 0.5)

    def _feed(self, count=20):
        """Put files into the spool, each there at once and whole, unless enough wait."""
        if len(self._waiting()) < ENOUGH:
            for _ in range(count):
                receiver = self._rnd.choice(['keep', 'drop', 'curl', 'curl'][:4 if self._curl else 2])
                # Several files ride in one cURL as long as all goes well, and longest when it takes its time.
                fine = ['slow'] * 30 + ['crawl'] * 6 if receiver == 'curl' else ['accept'] * 6 + ['slow']
                self.add(receiver, self._rnd.choice(fine + ['reject', 'busy', 'cut']))

    def add(self, receiver, kind):
        """Put a file of its own content into the spool; now and then under a name that was used before."""
        number = len(self.put)
        name = '%s-%s-%d' % (receiver, kind, number)
        if receiver != 'drop' and self._rnd.random() < 0.1:
            # Not of those that are deleted: what a crash left of one may come back to its name.
            name = '%s-%s-%d' % (receiver, kind, self._rnd.randrange(number + 1))
        if os.path.lexists(os.path.join(self.spool, name)):
            return
        size = self._rnd.choice([0, 50, 1000, 1000, 2000, 20000] * 10 + [200000, 1100000])
        content = compat.wire(('%d of %d ' % (number, size)) + 'x' * size)
        draft = os.path.join(self.spool, '.draft')
        with open(draft, 'wb') as stream:
            stream.write(content)
        self.put[digest(content)] = name
        os.rename(draft, os.path.join(self.spool, name))

    def _waiting(self):
        return [name for name in os.listdir(self.spool) if name not in ('sent', 'error', '.envio')]

    def _at(self, stage, run):
        """The receiver has come to a stage of an exchange: in its thread."""
        plan, agent = self._plan, self._agent
        if plan is None or stage != plan.how or run != self.starts:
            return
        self._reached += 1  # race: of two at once one may be lost: then it is one later
        if self._reached == plan.count:
            time.sleep(plan.delay)  # not to wait for anything: chosen by chance
            agent.signal(signal.SIGKILL, plan.orphans)

    def _ended(self, agent, how):
        with open(os.path.join(self._folder, 'said'), 'rb') as stream:
            said = compat.byte_string(stream.read())
        locked = agent.code == 75 and 'another agent has this spool' in said
        if agent.code == -signal.SIGKILL:
            self.killed.add(self.starts)
            self._count('killed: ' + how)
        elif locked and self._curl:
            # A child of the killed agent that was not cURL yet has the lock until it is.
            self._count('the lock was not free')
        else:
            self._count('ended by itself: ' + how)
        fine = (0, 65, 75, -signal.SIGKILL, -signal.SIGTERM)  # SIGTERM: before it was caught, or at the very end
        if agent.code not in fine or locked and not self._curl or 'Traceback' in said:
            self._broken.append('start %d (%s) ended with %d: %s' % (self.starts, how, agent.code, said[-2000:]))
        self._broken.extend(unreadable_state(self.spool))
        self._plan = None

    def _count(self, what):
        self.figures[what] = self.figures.get(what, 0) + 1


def _children(pid):
    """Return the numbers of a process's children, where the kernel tells them."""
    found = []
    try:
        for task in os.listdir('/proc/%d/task' % pid):
            with open('/proc/%d/task/%s/children' % (pid, task)) as page:
                found.extend([int(word) for word in page.read().split()])
    except EnvironmentError:
        pass  # it has ended
    return found


def _thread(target, *args):
    thread = threading.Thread(target=target, args=args)
    thread.daemon = True
    thread.start()


# --- the promises


def digest(content):
    return hashlib.sha256(content).hexdigest()


def broken_promises(spool, put, requests, killed):
    """Return in words what is wrong with a spool in which nobody works any more: [] when every promise was kept.

    put: {digest: name} of every file that was put there; requests: every Request, in any order; killed: the numbers of
    the starts that ended by SIGKILL.
    """
    lying = _lying(spool)
    answers = set([(request.digest, request.answer) for request in requests])
    return (_lost(put, lying, answers) + _not_received(put, lying, answers, requests) + _reasons(spool, requests)
            + _other_keys(put, requests) + repetitions(requests, killed)[1] + _left_over(spool))


def _lying(spool):
    """Return {digest: [path below the spool]} of all regular files but reasons and the agent's own."""
    folders = ['', 'error'] + [os.path.join('sent', day) for day in _names(spool, 'sent')]
    found = {}
    for folder in folders:
        for name in _names(spool, folder):
            path = os.path.join(spool, folder, name)
            if os.path.isfile(path) and not (folder == 'error' and name.endswith('.reason')):
                found.setdefault(digest(_read(path)), []).append(os.path.join(folder, name))
    return found


def _lost(put, lying, answers):
    found = []
    for sum_, name in put.items():
        places = lying.get(sum_, ())
        if len(places) > 1:
            found.append('%s: lies in more than one place: %s' % (name, ' '.join(sorted(places))))
        elif not places and not (name.startswith('drop-') and (sum_, ACCEPTED) in answers):
            found.append('%s: is lost' % name)
    return found


def _not_received(put, lying, answers, requests):
    found = []
    for sum_, places in lying.items():
        for path in places:
            folder = path.split(os.sep)[0]
            if sum_ not in put:
                found.append('%s: bytes that nobody put there' % path)
            elif folder == 'sent' and (sum_, ACCEPTED) not in answers:
                found.append('%s: was never received whole and accepted' % path)
            elif folder == 'error' and (sum_, REJECTED) not in answers:
                found.append('%s: was never received whole and rejected' % path)
    for request in requests:
        # A file that a crash left in .envio/deleted may find its name taken.
        if request.digest and put.get(request.digest) not in (request.name, re.sub(r'\.\d+$', '', request.name)):
            found.append('start %d: sent as %s what is not that file' % (request.run, request.name))
    return found


def _reasons(spool, requests):
    """Rejected files and their reasons; the key in a reason is the one that the receiver saw."""
    found, keys = [], {}
    for request in requests:
        keys.setdefault(request.digest, set()).add(request.key)
    names = _names(spool, 'error')
    for name in names:
        path = os.path.join(spool, 'error', name)
        if name.endswith('.reason'):
            if name[:-len('.reason')] not in names:
                found.append('error/%s: a reason without its file' % name)
            continue
        if name + '.reason' not in names:
            found.append('error/%s: has no reason' % name)
            continue
        reason = compat.byte_string(_read(path + '.reason'))
        key = re.search(r'(?m)^Idempotency-Key: (.*)$', reason)
        if not key or not re.search(r'(?m)^Requeue: .*\n\n', reason):
            found.append('error/%s.reason: is not whole' % name)
        elif key.group(1) not in keys.get(digest(_read(path)), ()):
            found.append('error/%s.reason: another Idempotency-Key than the receiver saw' % name)
    return found


def _other_keys(put, requests):
    keys = {}
    for request in requests:
        keys.setdefault(request.digest, set()).add(request.key)
    return ['%s: was sent with %d different Idempotency-Keys' % (put.get(sum_), len(different))
            for sum_, different in keys.items() if sum_ and len(different) > 1]


def repetitions(requests, killed):
    """Return ({(transport, start): files of it that were answered for good and sent again}, what is wrong there)."""
    finals, found, again = {}, [], {}
    for request in requests:
        if request.digest and request.answer in FINAL:
            finals.setdefault(request.digest, []).append((request.run, request.name))
    for answered in finals.values():
        answered.sort()
        for (run, name), (next_run, _) in zip(answered, answered[1:]):
            if next_run == run:
                found.append('%s: start %d sent it again after it was answered for good' % (name, run))
            elif run not in killed:
                found.append('%s: start %d sent again what start %d, which was not killed, had sent' % (
                    name, next_run, run))
            else:
                place = 'curl' if name.startswith('curl-') else 'native', run
                again[place] = again.get(place, 0) + 1
    for (transport, run), count in again.items():
        if count > AT_ONCE[transport]:
            found.append('start %d: %d files were sent again by %s, and no more than %d were in flight' % (
                run, count, transport, AT_ONCE[transport]))
    return again, found


def _left_over(spool):
    """The agent's own folder: nothing half-written, nothing that was for a while only."""
    found = ['.envio/%s: is left over' % name for name in _names(spool, '.envio')
             if name not in ('lock', 'id', 'state.json', 'deleted')]
    found += ['.envio/deleted/%s: is left over' % name for name in _names(spool, '.envio/deleted')]
    if not re.match(r'[0-9a-f]{32}\n\Z', compat.byte_string(_read(os.path.join(spool, '.envio', 'id')))):
        found.append('.envio/id: is not whole')
    return found + unreadable_state(spool)


def unreadable_state(spool):
    """Return why the state can't be read, in a list: [] when it can, or when there is none."""
    try:
        state.read(spool)
    except ValueError as error:
        return ['.envio/state.json: %s' % error]
    return []


def _names(spool, folder):
    path = os.path.join(spool, folder)
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def _read(path):
    if not os.path.isfile(path):
        return b''
    with open(path, 'rb') as stream:
        return stream.read()
