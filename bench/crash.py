#!/usr/bin/env python3
"""The agent killed by SIGKILL thousands of times and started again, and every promise of SPEC 2 checked: figures, and 1
as the exit code when one was broken.

    python3 bench/crash.py [--kills N] [--seed S] [--python PATH]...

The kills are shared out among the interpreters, in rounds of 50 on one spool each, every other round with cURL beside
the native transport; a round ends with passes in peace and the checks (tests/crashes.py says which, and how many files
a kill may send twice). A seed brings the same choice of kills, not the same moments to the microsecond.
"""

import argparse
import collections
import concurrent.futures
import os
import shutil
import sys
import tempfile
import time

import common
from tests import crashes, interpreters
from tests.programs import find

ROUND = 50  # kills
KILLED = 'killed: '  # how figures of crashes.Crashes begin that count kills


def one_round(python, seed, kills, curl):
    """Return (figures, what was broken) of one round; its folder stays when something was."""
    folder = tempfile.mkdtemp(prefix='envio-crash-')
    run = crashes.Crashes(folder, python, seed, curl)
    broken = run.run(kills)
    if not broken:
        shutil.rmtree(folder)
    figures = collections.Counter(run.figures)
    figures.update(starts=run.starts, kills=len(run.killed), files=len(run.put), requests=len(run.receiver.requests))
    finals = set((request.digest, request.answer) for request in run.receiver.requests if request.digest)
    for word, answer in (('accepted', crashes.ACCEPTED), ('rejected', crashes.REJECTED)):
        figures[word] = len([digest for digest, answered in finals if answered == answer])
    again = crashes.repetitions(run.receiver.requests, run.killed)[0]
    for (transport, _), count in again.items():
        figures['again by ' + transport] += count
        figures['most by ' + transport] = max(count, figures['most by ' + transport])
    figures['bound'] = len(run.killed) * (crashes.AT_ONCE['native'] + (crashes.AT_ONCE['curl'] if curl else 0))
    newest = 0
    for request in run.receiver.requests:
        figures['late'] += request.run < newest
        newest = max(newest, request.run)
    return figures, ['%s, seed %d, %s: %s' % (common.version(python), seed, folder, line) for line in broken]


def show(python, figures, seconds):
    ways = ['%d %s' % (count, what[len(KILLED):]) for what, count in sorted(figures.items()) if what.startswith(KILLED)]
    print('\nPython %s' % common.version(python))
    print('%6d kills in %d starts, %.0f s: %s' % (figures['kills'], figures['starts'], seconds, ', '.join(ways)))
    print('%6d files: %d accepted, %d rejected' % (figures['files'], figures['accepted'], figures['rejected']))
    print('%6d requests, %d of them by a killed start after the next one had begun to send' % (
        figures['requests'], figures['late']))
    print('%6d sent again after a final answer (at most %d in flight at the kills): native %d, at most %d a kill (of '
          '%d); cURL %d, at most %d a kill (of %d)' % (
              figures['again by native'] + figures['again by curl'], figures['bound'], figures['again by native'],
              figures['most by native'], crashes.AT_ONCE['native'], figures['again by curl'],
              figures['most by curl'], crashes.AT_ONCE['curl']))
    if figures['the lock was not free']:
        print('%6d starts found the lock still held by a child of the killed one' % figures['the lock was not free'])


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=2000, metavar='N', help='in all (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=int(time.time()), metavar='S', help='default: the time')
    parser.add_argument('--python', action='append', metavar='PATH', help='an interpreter for the agent; several times '
                        'if wanted (default: 2.6, 2.7 and 3.11, those that are here, or else this one)')
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), metavar='N', help='rounds at once (default: a '
                        'processor each)')
    return parser.parse_args()


def usual():
    found = [interpreters.find(name, interpreters.folders())[0] for name in ('python26', 'py27', 'py311')]
    return [python for python in found if python] or [sys.executable]


def main():
    given = options()
    print('%s\nseed %d' % (common.machine(), given.seed), flush=True)
    pythons = [common.interpreter(name) for name in given.python or usual()]
    rounds = -(-given.kills // (ROUND * len(pythons)))
    kills = -(-given.kills // (rounds * len(pythons)))
    curl = bool(find('curl'))
    wrong = []
    with concurrent.futures.ProcessPoolExecutor(given.jobs) as pool:
        for place, python in enumerate(pythons):
            begin = time.time()
            seeds = [given.seed + 1000 * place + number for number in range(rounds)]
            total = collections.Counter()
            done = [pool.submit(one_round, python, seed, kills, curl and seed % 2 == 1) for seed in seeds]
            for figures, broken in (future.result() for future in done):
                most = [(key, max(total[key], figures[key])) for key in ('most by native', 'most by curl')]
                total.update(figures)
                total.update(dict((key, value - total[key]) for key, value in most))
                wrong += broken
                for line in broken:
                    print('BROKEN: ' + line, flush=True)
            show(python, total, time.time() - begin)
    print('\n%d kills, %s' % (rounds * kills * len(pythons), '%d promises BROKEN' % len(wrong) if wrong
                              else 'no promise broken'))
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
