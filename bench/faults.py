#!/usr/bin/env python3
"""Every kind of system call fails with every error while an agent works, then several at random: nothing may be lost.

    python3 bench/faults.py [--python PATH]... [--call CALL]... [--mixes N] [--seed N]

strace (as root, or where it may attach) fails the calls of a running `envio run` while files come that a receiver
accepts, rejects or answers with 503 at first; then it lets go. After each fault: the agent runs, every file is where
its answer sends it, whole, once, and was received; rejected ones have their reason; the log has no traceback, no
descriptor is lost and `envio status` answers. Ends with 0 if all is so. See tests/faults.py.
"""

import argparse
import collections
import os
import random
import shutil
import signal
import sys
import tempfile
import time

import common

from tests import faults, test_end_to_end  # noqa: E402 (common has put the tree on the path)

TRANSPORTS = ('native', 'curl')
FORKING = ('fork', 'pipe')  # what the native transport never does
LOOK = 0.5  # seconds that a fault lasts, if nothing ends it before


class Run(object):
    """One interpreter and one transport: a Scene, made anew after a failure."""

    def __init__(self, transport, folder):
        self.transport, self._folder = transport, folder
        self._scene = None
        self.faults = self.calls = self.silent = self.files = 0
        self.failed = []

    def scene(self):
        if self._scene is None:
            folder = tempfile.mkdtemp(dir=self._folder)
            options = 'journal = %s/journal\nmetrics = %s/envio.prom\n' % (folder, folder)
            self._scene = faults.Scene(folder, options, 'transport = %s\n' % self.transport)
            self._scene.begin()
            self._scene.more(1)
            self._scene.through()
            self._scene.most = self._scene.descriptors()
        return self._scene

    def fail(self, which):
        """Let calls fail, as Scene.mix() has them, and check what comes of it."""
        scene = self.scene()
        before = len(scene.agent.said())
        words = [faults.words(error) for _, error, _ in which]

        def enough():
            return fault.count() > 3 and any(word in scene.agent.said()[before:] for word in words)
        try:
            with scene.mix(which) as fault:
                scene.more(1)
                faults.wait_for(enough, LOOK)
            scene.through()
            scene.calm(scene.most)
            self.faults += fault.count() > 0
            self.silent += fault.count() > 0 and not any(word in scene.agent.said()[before:] for word in words)
        except (AssertionError, EnvironmentError) as error:
            self.failed.append((which, ('%s' % error)[-1500:]))
            print('FAILED: %s %s\n%s' % (self.transport, described(which), self.failed[-1][1]), flush=True)
            self.close()
        self.calls += fault.count()
        self.files += 3

    def close(self):
        if self._scene is not None:
            self._scene.close()
            self._scene = None


def described(which):
    return ' + '.join(' '.join([call, error] + ([when] if when else [])) for call, error, when in which)


def mixes(count, seed):
    """Yield what is to fail together: two to four calls, each now and then."""
    chance = random.Random(seed)
    for _ in range(count):
        calls = chance.sample(sorted(faults.CALLS), chance.randrange(2, 5))
        yield [(call, chance.choice(faults.ERRORS), '%d+%d' % (chance.randrange(1, 5), chance.randrange(2, 6)))
               for call in calls]


def measure(python, options, folder):
    """Try all with one interpreter; return the runs, those that a signal ended with what they have."""
    test_end_to_end.sys = collections.namedtuple('Sys', 'executable')(common.interpreter(python))
    runs = []
    for transport in TRANSPORTS:
        runs.append(Run(transport, folder))
        try:
            for which in plan(transport, options):
                runs[-1].fail(which)
        except KeyboardInterrupt:
            print('stopped before the end', flush=True)
            return runs
        finally:
            runs[-1].close()
    return runs


def plan(transport, options):
    """Yield what is to fail, one after the other."""
    for call in options.call or sorted(faults.CALLS):
        for error in faults.ERRORS if transport == 'curl' or call not in FORKING else ():
            yield [(call, error, None)]
    for which in mixes(options.mixes, options.seed):
        yield which


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--python', action='append', help='an interpreter for the agent; several times')
    parser.add_argument('--mixes', type=int, default=100, help='faults at random for each transport (100)')
    parser.add_argument('--call', action='append', choices=sorted(faults.CALLS), help='only these; several times')
    parser.add_argument('--seed', type=int, default=None, help='of the random ones; printed')
    options = parser.parse_args()
    common.need('strace', 'curl')
    if faults.absent():
        sys.exit(faults.absent())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    test_end_to_end.PATIENCE = 20
    options.seed = int(time.time()) if options.seed is None else options.seed
    print('%s\n%s, seed %d' % (common.machine(), common.first_line(['strace', '--version']), options.seed))
    folder, bad = tempfile.mkdtemp(prefix='envio-faults-'), 0
    rows = []
    try:
        for python in options.python or [sys.executable]:
            for run in measure(python, options, folder):
                rows.append((common.version(python), run.transport, run.faults, run.calls, run.files, run.silent,
                             len(run.failed)))
                bad += len(run.failed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print('\n| Python | transport | faults | calls that failed | files | faults not in the log | faults with damage |')
    print('|---|---|---|---|---|---|---|')
    for row in rows:
        print('| %s | %s | %d | %d | %d | %d | %d |' % row)
    sys.exit(1 if bad else 0)


if __name__ == '__main__':
    os.umask(0o022)
    main()
