"""An hour of mixed load with faults: what does the agent hold at the end that it did not hold at the start?

    python3 bench/soak.py [--minutes 60] [--python PATH]... [--seed 1]

Each interpreter's `envio run` gets about 15 files a second, 0 bytes to 5 MB and now and then 5,000 at once, for eleven
receivers: healthy, rejecting, busy for a while, cutting, refusing at times, silent at times, https, by cURL, forms with
gzip and digest, accepted = delete, rate-limited. Files are replaced, touched and deleted while they are sent, logs
rotated, configurations reloaded (one of them broken), signals sent, commands run, state.json deleted. After a warm-up,
in between and at the end the load stops, all is drained, and one worker sends one file to each receiver: what the agent
then holds has to be the same each time. Ends with 1 when it is not, when a file is lost, and for any fault in the log.
"""

import argparse
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import common
from soak_files import Files
from soak_receivers import Receiver
from vitals import sample, slope

from tests.authority import Authority

RATE = 15            # files a second for each agent
SAMPLED = 10         # seconds between two looks at the agent
WORKERS = 16
FLOOD = 5000         # files at once
IDLE = 5             # seconds that a quiet agent is looked at
SLACK = 2048, 0.05   # KB and share by which the memory may have grown from one quiet state to another
DRAINED = 300        # seconds a spool may take to drain
KINDS = (
    ('ok', ''), ('rejects', ''), ('busy', ''), ('cuts', ''), ('shut', ''),
    ('tarpit', 'deadline = 3s\nread_timeout = 2s'), ('tls', 'ca_file = %(ca)s'), ('curl', 'transport = curl'),
    ('made', 'body = multipart\ngzip = yes\ndigest = yes'), ('delete', 'accepted = delete'),
    ('slow', 'rate_limit = 256K'),
)
ALL = tuple(kind for kind, _ in KINDS)
FLOODED = ('ok', 'busy', 'made', 'delete')
CONFIG = """\
[agent]
spool = %(folder)s/spool
workers = %(workers)d
settle = %(settle)s
scan_interval = 2s
keep_sent = 1
log_file = %(folder)s/log
journal = %(folder)s/journal
%(metrics)s
proxy = none
deadline = 1m
breaker_pause = 1s
breaker_max_pause = 20s
retry_pause = 1s
retry_max_pause = 20s
hold_probe = 10s
"""
SECTION = '[receiver:%s]\nmatch = %s-*\nurl = %s/in/{name}\n%s\n'
ROW = '%-8s %-8s %7s %8s %8s %6s %6s %7s %8s %9s %11s %8s'
HEAD = ('Python', 'state', 'minute', 'KB', 'sockets', 'files', 'pipes', 'others', 'threads', 'children', 'idle sw/s',
        'CPU, %')
FAULTS = ('Traceback', 'fault of the program')


class Trial(object):
    """One agent, its receivers, and all that is done to it; run() is a thread's body, `faults` what came of it."""

    def __init__(self, python, folder, minutes, rnd, authority):
        self.python, self.version = python, common.version(python)
        self.folder, self.spool = folder, folder + '/spool'
        self._minutes, self._rnd = minutes, rnd
        self._scale = max(0.1, min(1, minutes / 30.0))
        self.faults, self.quiets, self.samples = [], [], []
        self._reloads = self._rotations = 0
        taken = set()
        self._files = Files(self.spool, rnd, taken, folder + '/journal*', self.faults)
        os.makedirs(self.spool)
        pair = authority.certificate('good')
        self.receivers = dict((kind, Receiver(kind, taken, self.faults, pair if kind == 'tls' else None))
                              for kind, _ in KINDS)
        self._ca = authority.ca
        self.agent = None

    def run(self):
        """Load it, for so long as it was told; then see that nothing is lost."""
        try:
            self._begin = time.monotonic()
            self._configure()
            shutil.copy(self.folder + '/envio.conf', self.folder + '/commands.conf')  # the other may be broken
            with open(self.folder + '/said', 'w') as errors:
                self.agent = common.start(self.python, self.folder + '/envio.conf', 'run', errors)
            warm = 60 * max(0.75, min(5, self._minutes / 6.0))
            self._plan(warm)
            parts = 4 if self._minutes >= 20 else 1
            for seconds in [warm] + [(60 * self._minutes - warm) / parts] * parts:
                self._load(seconds)
                self._quiet()
            self.agent.send_signal(signal.SIGTERM)
            if self.agent.wait(60):
                self.faults.append('envio run ended with %d' % self.agent.returncode)
            self._files.account()
            self._judge()
        except Exception as error:  # the other agents go on
            self.faults.append('the run broke off: %s: %s' % (error.__class__.__name__, error))
            raise
        finally:
            if self.agent is not None and self.agent.poll() is None:
                self.agent.kill()
                self.agent.wait()

    # what is done to it

    def _plan(self, warm):
        """Set when what happens first, all within the warm-up, and then how often (seconds)."""
        scale = self._scale
        events = [(60, self._reload), (90, lambda: self._signal(signal.SIGUSR1)), (180, self._rotate),
                  (120, lambda: self._command('flush')), (45, lambda: self._command('status', '--json')),
                  (75, lambda: self._command('list', '--json')), (200, lambda: self._command('requeue', '--all')),
                  (240, self._forget), (max(150, 600 * scale) / scale, lambda: self._files.put(FLOOD, FLOODED, 200))]
        events += [(every, lambda kind=kind, lasts=lasts: self._fall_ill(kind, lasts * scale))
                   for kind, every, lasts in (('busy', 240, 60), ('tarpit', 200, 40), ('shut', 180, 30))]
        now = time.monotonic()
        self._events = [[now + warm * self._rnd.uniform(0.05, 0.6), every * scale, act] for every, act in events]
        self._events += [[now + SAMPLED, SAMPLED, self._sample], [now + SAMPLED, SAMPLED, self._files.harvest]]
        self._recoveries = []  # (when, kind)

    def _load(self, seconds):
        for receiver in self.receivers.values():
            receiver.calm = False
        due = time.monotonic()
        end = due + seconds
        while time.monotonic() < end:
            if self.agent.poll() is not None:
                raise RuntimeError('envio run ended with %d' % self.agent.returncode)
            now = time.monotonic()
            if now >= due:
                due = max(due + 1, now)
                self._files.put(self._rnd.randint(RATE // 2, RATE + RATE // 2), ALL)
                self._files.meddle()
            for event in self._events:
                if event[0] <= now:
                    event[0] = now + event[1]
                    event[2]()
            for recovery in [one for one in self._recoveries if one[0] <= now]:
                self._recoveries.remove(recovery)
                self._recover(recovery[1])
            time.sleep(0.1)

    def _configure(self, workers=WORKERS, settle='0', without='', more=''):
        page = CONFIG % {'folder': self.folder, 'workers': workers, 'settle': settle,
                         'metrics': '' if without else 'metrics = %s/envio.prom' % self.folder}
        for kind, keys in KINDS:
            if kind != without:
                page += SECTION % (kind, kind, self.receivers[kind].url, keys % {'ca': self._ca})
        with open(self.folder + '/envio.conf.new', 'w') as stream:
            stream.write(page + more)
        os.rename(self.folder + '/envio.conf.new', self.folder + '/envio.conf')

    def _signal(self, number):
        self.agent.send_signal(number)

    def _reload(self):
        """The other configuration, where one receiver is not and files have to settle; now and then a broken one."""
        self._reloads += 1
        if self._reloads % 5 == 2:
            self._configure(more='nonsense = 1\n')
        elif self._reloads % 2:
            self._configure(workers=10, settle='300ms', without='slow')
        else:
            self._configure()
        self._signal(signal.SIGHUP)

    def _rotate(self):
        self._rotations += 1
        for name in ('log', 'journal'):
            if os.path.exists('%s/%s' % (self.folder, name)):
                os.rename('%s/%s' % (self.folder, name), '%s/%s.%d' % (self.folder, name, self._rotations))

    def _forget(self):
        try:
            os.unlink(self.spool + '/.envio/state.json')
        except FileNotFoundError:
            pass  # it was not written yet

    def _fall_ill(self, kind, seconds):
        self.receivers[kind].sick = True
        if kind == 'shut':
            self.receivers[kind].shut()
        self._recoveries.append((time.monotonic() + seconds, kind))

    def _recover(self, kind):
        self.receivers[kind].sick = False
        self.receivers[kind].open()

    def _command(self, *words):
        surroundings = dict(os.environ, ENVIO_PYTHON=self.python, PYTHONDONTWRITEBYTECODE='1', PYTHONPATH='')
        done = subprocess.run([common.ENVIO, '-c', self.folder + '/commands.conf'] + list(words), env=surroundings,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
        if done.returncode > 2 or b'Traceback' in done.stderr or '--json' in words and not json.loads(done.stdout):
            self.faults.append('envio %s ended with %d: %s' % (' '.join(words), done.returncode, done.stderr[-300:]))

    # what is measured

    def _sample(self):
        now = sample(self.agent.pid, self._begin)
        stale = now.zombies & self.samples[-1].zombies if self.samples else ()
        if stale:
            self.faults.append('minute %.1f: ended children nobody waited for: %s' % (now.minute, sorted(stale)))
        self.samples.append(now)

    def _quiet(self):
        """Stop the load, let all be sent, and note what the agent then holds."""
        for kind, receiver in self.receivers.items():
            receiver.calm = True
            self._recover(kind)
        self._recoveries = []
        self._configure()
        self._signal(signal.SIGHUP)
        self._until(lambda: not self._files.waiting(), 'the spool drains', lambda: self._command('flush'))
        # One worker, which then has a connection to as many receivers as it keeps; the others come anew.
        self._configure(workers=1)
        self._signal(signal.SIGHUP)
        self._until(lambda: sample(self.agent.pid, 0).threads == 2, 'the other workers end')
        for kind, _ in KINDS:
            self._files.put(1, (kind,))
        self._until(lambda: not self._files.waiting(), 'the last files are sent', lambda: self._command('flush'))
        self._configure()
        self._signal(signal.SIGHUP)
        self._until(lambda: sample(self.agent.pid, 0).threads == 1 + WORKERS, 'all workers are there')
        time.sleep(1)
        before = sample(self.agent.pid, self._begin)
        time.sleep(IDLE)
        now = sample(self.agent.pid, self._begin)
        # Of threads that live: those of the ones that ended are not to be had.
        self.quiets.append(now._replace(switches=now.switches - before.switches))
        self._files.harvest()

    def _until(self, condition, what, meanwhile=lambda: None):
        end, again = time.monotonic() + DRAINED, 0
        while not condition():
            if time.monotonic() > end:
                raise RuntimeError('in vain for %d s: %s' % (DRAINED, what))
            if self.agent.poll() is not None:
                raise RuntimeError('envio run ended with %d' % self.agent.returncode)
            if time.monotonic() > again:
                meanwhile()
                again = time.monotonic() + 3
            time.sleep(0.2)

    # what is judged

    def _judge(self):
        first, last = self.quiets[0], self.quiets[-1]
        for field in ('sockets', 'files', 'pipes', 'others', 'threads', 'children'):
            before, after = getattr(first, field), getattr(last, field)
            if before != after:
                self.faults.append('%s: %d after the warm-up, %d at the end' % (field, before, after))
        if last.rss > first.rss * (1 + SLACK[1]) + SLACK[0]:
            self.faults.append('memory: %d KB after the warm-up, %d at the end' % (first.rss, last.rss))
        if last.zombies:
            self.faults.append('children nobody waited for: %s' % sorted(last.zombies))
        for path in sorted(glob.glob(self.folder + '/log*')) + [self.folder + '/said']:
            with open(path, errors='replace') as stream:
                self.faults += ['%s: %s' % (path, line.strip()) for line in stream if any(map(line.count, FAULTS))]
        counts = self._files.counts()
        # Some that we replaced may have been accepted and deleted before.
        if not 0 <= counts['acked'] - counts['sent'] - counts['deleted'] <= counts['removed']:
            self.faults.append('the journal has %d files accepted, %d are sent and %d deleted' % (
                counts['acked'], counts['sent'], counts['deleted']))

    def table(self):
        """Return the lines of the table of figures."""
        lines, begin, used = [], 0, 0
        for number, one in enumerate(self.quiets):
            lines.append(ROW % (
                self.version, 'quiet %d' % number, '%.1f' % one.minute, one.rss, one.sockets, one.files, one.pipes,
                one.others, one.threads, one.children, '%.1f' % (one.switches / IDLE),
                '%.1f' % (100 * (one.cpu - used) / (60 * (one.minute - begin)))))
            begin, used = one.minute, one.cpu
        if self.samples:
            most = [max(getattr(one, field) for one in self.samples) for field in (
                'rss', 'sockets', 'files', 'pipes', 'others', 'threads', 'children')]
            lines.append(ROW % tuple([self.version, 'most', ''] + most + ['', '']))
        if self._minutes >= 10 and len(self.quiets) > 1:  # before that it is noise
            half = [one for one in self.samples if one.minute > self.quiets[-1].minute / 2]
            lines.append('%s: memory under load in the second half: %+.0f KB/hour, of quiet states: %+.0f' % (
                self.version, slope(half), slope(self.quiets)))
        lines.append('%s: %d files: %s' % (self.version, len(self._files.state), ', '.join(
            '%d %s' % (number, state) for state, number in sorted(self._files.counts().items()))))
        return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--minutes', type=float, default=60, help='of load, at most 240; draining comes on top')
    parser.add_argument('--python', action='append', help='interpreter to try, several times if wanted')
    parser.add_argument('--seed', type=int, default=1)
    arguments = parser.parse_args()
    if not 0 < arguments.minutes <= 240:
        parser.error('--minutes: more than 0 and at most 240')
    common.need('curl', 'openssl')
    print(common.machine())
    folder = tempfile.mkdtemp(prefix='envio-soak-')
    os.mkdir(folder + '/certificates')
    authority = Authority(folder + '/certificates')
    trials = []
    for number, name in enumerate(arguments.python or ['python3']):
        trials.append(Trial(common.interpreter(name), '%s/%d' % (folder, number), arguments.minutes,
                            random.Random(arguments.seed + number), authority))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the agents end, too
    threads = [threading.Thread(target=trial.run, daemon=True) for trial in trials]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        for trial in trials:
            if trial.agent is not None and trial.agent.poll() is None:
                trial.agent.terminate()
    print(ROW % HEAD)
    for trial in trials:
        print('\n'.join(trial.table()))
    faults = ['%s: %s' % (trial.version, fault) for trial in trials for fault in trial.faults]
    for fault in faults[:50]:
        print(fault)
    if faults:
        print('%d faults; everything is kept in %s' % (len(faults), folder))
        return 1
    print('nothing is lost, and nothing is held that was not held after the warm-up')
    shutil.rmtree(folder)
    return 0


if __name__ == '__main__':
    sys.exit(main())
