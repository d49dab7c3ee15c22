#!/usr/bin/env python3
"""Envio beside what else could send the files: cURL, requests, aiohttp, pycurl and rclone, in turns, in one run.

Each PUTs the files of a folder to http(s)://RECEIVER/NAME of a nginx on this machine, which stores them (in memory
where there is room), and moves each that was taken (cURL moves nothing). Timed is a command from its start to its end.
Every run is checked: each file arrived once and whole, and was moved. A table for each load:

small 10,000 x 1 KB; medium 2,000 x 64 KB; large 8 x 128 MB; huge 1 x 1 GB; tls the first and third over TLS; delay 1 KB
with 20 ms there and back and 4, 16 and 64 workers; many 1,000 and 100,000 x 1 KB by Envio alone; start what starting
alone costs; idle (not by default: some minutes an interpreter) `envio run` beside files that wait for a dead receiver.
"""

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import sys
import tempfile

import common
import peer_idle
import peer_programs
import peer_receiver
import peer_stages
from peer_programs import Task

LOADS = ('small', 'medium', 'large', 'huge', 'tls', 'delay', 'many', 'start', 'idle')
KB, MB = 1 << 10, 1 << 20
FILES = {'small': (10000, KB), 'medium': (2000, 64 * KB), 'large': (8, 128 * MB), 'huge': (1, 1 << 30)}
FAR = (4, 16, 64)   # workers
MANY = (1000, 100000)
A_WORKER = 100      # files that each of them has to send


def options():
    python = shutil.which('python3.11') or sys.executable
    venv = os.path.join(common.ROOT, '.tox', 'peers', 'bin', 'python')
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--loads', default=','.join(LOADS[:-1]), metavar='L,L', help='default: %(default)s')
    parser.add_argument('--python', action='append', metavar='PATH', help='an interpreter for Envio, several times if '
                        'wanted (default: %s)' % python)
    parser.add_argument('--venv-python', default=venv, metavar='PATH', help='an interpreter with requests, aiohttp and '
                        'pycurl (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=3, metavar='N', help='default: %(default)s')
    parser.add_argument('--files', type=int, metavar='N', help='at most so many files, and 64 MB in all, to try it out')
    parser.add_argument('--workers', type=int, metavar='N', help='at once (default: 4; delay: %s)' % (FAR,))
    parser.add_argument('--only', default='', metavar='W,W', help='only peers with one of these words in their names')
    parser.add_argument('--idle', type=int, default=60, metavar='S', help='seconds of idling (default: %(default)s)')
    parser.add_argument('--stages', action='store_true', help='instead: where the time of a file goes in Envio')
    parser.add_argument('--far', action='store_true', help=argparse.SUPPRESS)  # the network delays: run_far()
    given = parser.parse_args()
    given.python = [common.interpreter(name) for name in given.python or [python]]
    given.loads = given.loads.split(',')
    if set(given.loads) - set(LOADS):
        parser.error('--loads: choose from %s' % ', '.join(LOADS))
    return given


class Bench(object):
    """What all loads share. failed: True when a check failed."""

    def __init__(self, given, folder, receiver):
        self.given, self.folder, self.receiver = given, folder, receiver
        self.failed = False
        everyone = [peer_programs.envio(python) for python in given.python]
        everyone += peer_programs.peers(given.venv_python, peer_receiver.dav_ext() is not None)
        words = [word for word in given.only.split(',') if word]
        self.all = [peer for peer in everyone if not words or any(word in peer.name for word in words)]
        self.peers = [peer for peer in self.all if not peer.absent]
        for python in given.python:  # as after the first start; 2.6 and 2.7 write the same files: one of them a run
            common.first_line([python, '-m', 'compileall', '-q', os.path.join(common.ROOT, 'agent')])

    def load(self, name, title, secure=False, far=None, workers=4, files=None):
        """Run one load and print its table. name: of FILES; far: the URL to use instead; files: how many."""
        count, size = FILES[name]
        count = files or count
        if self.given.files:
            count, size = min(count, self.given.files), min(size, 64 * MB // min(count, self.given.files))
        spool = os.path.join(self.folder, 'spool')
        common.fill(spool, count, size)
        task = Task(spool, self.folder, far or self.receiver.url(secure), self.receiver.ca if secure else None,
                    workers, count)
        runs = dict((peer.name, []) for peer in self.peers)
        load = os.getloadavg()
        for number in range(self.given.rounds):
            for peer in self.peers if number % 2 == 0 else reversed(self.peers):
                mine = task._replace(count=max(10, count // peer.share)) if count >= 100 else task
                runs[peer.name].append((peer_programs.measured(peer, mine, self.receiver), mine.count))
                peer_programs.put_back(task, self.receiver, count)
        shutil.rmtree(spool)
        print('\n## %s: %s files of %s, %d at once, %d rounds, load average %.1f before\n' % (
            title, format(count, ','), shown(size), workers, self.given.rounds, load[0]))
        self.table(runs, size, size >= MB)

    def table(self, runs, size, large):
        print('| | files | moves | %s, median (range) | envio : it | processor, %s (system) | peak, MB |' % (
            'MB/s' if large else 'files/s', 's a GB' if large else 'us a file'))
        print('|---|---|---|---|---|---|---|')
        base = None
        for peer in self.peers:
            problem = next((run.problem for run, _ in runs[peer.name] if run.problem), '')
            if problem:
                self.failed = True
                print('| %s | | | FAILED: %s | | | |' % (peer.name, problem.replace('|', '/')))
                continue
            unit = size / 1e6 if large else 1
            rates = [count * unit / run.seconds for run, count in runs[peer.name]]
            base = statistics.median(rates) if base is None else base
            per = 1e9 / size if large else 1e6
            used = statistics.median([(run.user + run.system) * per / count for run, count in runs[peer.name]])
            system = statistics.median([run.system * per / count for run, count in runs[peer.name]])
            form = '%.2f (%.2f)' if large else '%.0f (%.0f)'
            print('| %s | %d | %s | %s | %.2f | %s | %.1f |' % (
                peer.name, runs[peer.name][0][1], peer.moves or 'no', common.spread(rates),
                base / statistics.median(rates), form % (used, system),
                max(run.peak for run, _ in runs[peer.name]) / 1e6))
        sys.stdout.flush()

    def tls(self):
        self.load('small', 'small, TLS', secure=True)
        self.load('large', 'large, TLS', secure=True)

    def many(self):
        """A short queue and a long one, by Envio alone."""
        everyone, self.peers = self.peers, [peer for peer in self.peers if peer.name.startswith('envio')]
        for count in MANY:
            self.load('small', 'many', files=count)
        self.peers = everyone

    def delay(self):
        """With the delay of the network, or that of a relay."""
        how = 'netem' if self.given.far else 'relay.py (no netem here)'
        with contextlib.ExitStack() as stack:
            url = self.receiver.url() if self.given.far else stack.enter_context(peer_receiver.relayed(self.receiver))
            print('\nDelay by %s; a request on an open connection takes %.1f ms' % (
                how, peer_receiver.round_trip(url) * 1000))
            for workers in [self.given.workers] if self.given.workers else FAR:
                self.load('small', 'delay, at most %d files/s' % (workers / peer_receiver.DELAY), far=url,
                          workers=workers, files=workers * A_WORKER)

    def start(self):
        """What a program costs that has nothing to do."""
        programs = [('python %s -c pass' % common.version(python),
                     lambda _, python=python: ([python, '-c', 'pass'], {})) for python in self.given.python]
        programs += [(peer.name, peer.command) for peer in self.peers if 'curl ' not in peer.name]
        times = 5 * self.given.rounds
        runs = dict((name, []) for name, _ in programs)
        for number in range(times):
            for name, command in programs if number % 2 == 0 else reversed(programs):
                # Its own folder: in the second run what is Envio's lies in Envio's, as it does on any host.
                spool = os.path.join(self.folder, 'empty%d' % programs.index((name, command)))
                os.makedirs(spool, exist_ok=True)
                task = Task(spool, self.folder, self.receiver.url(), None, 4, 0)
                runs[name].append(peer_programs.started(*(command(task) + (self.folder,))))
        print('\n## start: nothing to send, %d times\n\n| | ms, median (range) | processor, ms | peak, MB |' % times)
        print('|---|---|---|---|')
        for name, _ in programs:
            problem = next((run.problem for run in runs[name] if run.problem), '')
            self.failed = self.failed or bool(problem)
            print('| %s | %s | %.0f | %.1f |' % (
                name, problem or common.spread([run.seconds * 1000 for run in runs[name]]),
                statistics.median([(run.user + run.system) * 1000 for run in runs[name]]),
                max(run.peak for run in runs[name]) / 1e6), flush=True)

    def run(self):
        workers = self.given.workers or 4
        for name in self.given.loads:
            if name in FILES:
                self.load(name, name, workers=workers)
            elif name == 'idle':
                peer_idle.table(self.given, self.folder)
            elif name == 'delay' and not self.given.far and peer_receiver.netem():
                self.failed = self.far() or self.failed
            else:
                getattr(self, name)()

    def far(self):
        """Run the load `delay` in a network that delays; return True when it failed."""
        command = [sys.executable, os.path.abspath(__file__), '--far', '--loads', 'delay', '--only', self.given.only,
                   '--venv-python', self.given.venv_python, '--rounds', '%d' % self.given.rounds]
        for python in self.given.python:
            command += ['--python', python]
        for name in ('files', 'workers'):
            if getattr(self.given, name):
                command += ['--' + name, '%d' % getattr(self.given, name)]
        return peer_receiver.run_far(command) != 0


def shown(size):
    for unit, name in ((1 << 30, 'GB'), (MB, 'MB'), (KB, 'KB')):
        if size >= unit:
            return '%.4g %s' % (size / unit, name)
    return '%d bytes' % size


def main():
    given = options()
    common.need('nginx', 'openssl')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended by a signal'))  # what was started ends, too
    folder = tempfile.mkdtemp(prefix='envio-peers-')
    far_side = tempfile.mkdtemp(prefix='envio-peers-', dir=peer_receiver.place(folder))
    try:
        with peer_receiver.Receiver(far_side) as receiver:
            if not given.far:
                print(common.machine())
                print(peer_programs.versions(given.venv_python))
                print('The receiver stores in %s' % os.path.dirname(far_side))
            if given.stages:
                return peer_stages.tables(given, folder, receiver)
            bench = Bench(given, folder, receiver)
            for peer in bench.all if not given.far else ():
                if peer.absent:
                    print('missing: %s: %s' % (peer.name, peer.absent))
            sys.stdout.flush()
            bench.run()
    finally:
        shutil.rmtree(far_side)
        shutil.rmtree(folder)
    if not given.far:
        print('\n%s Load average at the end: %.1f' % (
            'A CHECK FAILED: see above.' if bench.failed else 'In every run each file arrived once and whole, and was '
            'moved where the table says so.', os.getloadavg()[0]))
    return 1 if bench.failed else 0


if __name__ == '__main__':
    sys.exit(main())
