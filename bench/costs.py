#!/usr/bin/env python3
"""What each thing that Envio does for a file costs: `envio once` with it beside the same without it, in turns.

Files of 1 KB go by POST to a local nginx that reads each body whole. Timed is the whole command; the processor's time
is that of the agent. Every run is checked: nginx logged each file, and each lies where its answer sends it. `two
agents`: two spools with half of the files each, at the same time. What can't be switched off (claim, checks, key) is a
stage in peers.py --stages.
"""

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections import namedtuple

import common

CONF = '[agent]\nspool = %s\nworkers = %d\n%s\n[receiver:nginx]\nmatch = *\nurl = %s%s\nworkers = %d\nbrake = 0\n%s\n'
# agents: how many; agent, receiver: keys; rejected: nginx refuses each file
Way = namedtuple('Way', 'name agents agent receiver rejected')
PLAIN = Way('plain (`settle = 0`)', 1, 'settle = 0', '', False)
WAYS = (
    PLAIN,
    PLAIN._replace(name='`settle = 1s`: looked at twice, a second apart', agent='settle = 1s'),
    PLAIN._replace(name='`journal`', agent='settle = 0\njournal = %(folder)s/journal'),
    PLAIN._replace(name='`metrics`', agent='settle = 0\nmetrics = %(folder)s/metrics'),
    PLAIN._replace(name='`token_file`', receiver='token_file = %(folder)s/token'),
    PLAIN._replace(name='`accepted = delete`', receiver='accepted = delete'),
    PLAIN._replace(name='`digest`', receiver='digest = yes'),
    PLAIN._replace(name='`gzip`', receiver='gzip = yes'),
    PLAIN._replace(name='`body = multipart`', receiver='body = multipart'),
    PLAIN._replace(name='rejected: a reason file each, synced', rejected=True),
    PLAIN._replace(name='two agents, two spools', agents=2),
)


def options():
    default = shutil.which('python3.11') or sys.executable
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--python', default=default, metavar='PATH', help='an interpreter (default: %(default)s)')
    parser.add_argument('--files', type=int, default=5000, metavar='N', help='default: %(default)s')
    parser.add_argument('--workers', type=int, default=4, metavar='N', help='default: %(default)s')
    parser.add_argument('--rounds', type=int, default=5, metavar='N', help='default: %(default)s')
    chosen = parser.parse_args()
    chosen.python = common.interpreter(chosen.python)
    return chosen


def measured(way, given, nginx, folder):
    """Return (seconds, processor's microseconds a file) of one run."""
    share = given.files // way.agents
    path = '/rejects' if way.rejected else '/sink'
    spools = [os.path.join(folder, 'spool%d' % number) for number in range(way.agents)]
    for spool in spools:
        common.fill(spool, share, 1024)
        with open(spool + '.conf', 'w') as page:
            page.write(CONF % (spool, given.workers, way.agent % {'folder': folder}, nginx.url, path, given.workers,
                               way.receiver % {'folder': folder}))
    os.sync()
    before, used = len(nginx.log()), processor()
    begin = time.perf_counter()
    with open(os.path.join(folder, 'stderr'), 'w') as errors:
        agents = [common.start(given.python, spool + '.conf', 'once', errors) for spool in spools]
        codes = [agent.wait() for agent in agents]
    seconds, spent = time.perf_counter() - begin, processor() - used
    check(way, share, spools, codes, nginx, before)
    for spool in spools:
        shutil.rmtree(spool)
    return seconds, spent / (share * way.agents) * 1e6


def processor():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def check(way, share, spools, codes, nginx, before):
    """End with a sentence unless each file arrived and lies where it belongs."""
    for spool, code in zip(spools, codes):
        error = os.path.join(spool, 'error')
        found = (code, common.files(spool), len(common.sent(spool)), common.files(error))
        gone = 'delete' in way.receiver
        wanted = (65, 0, 0, 2 * share) if way.rejected else (0, 0, 0 if gone else share, 0)
        if found != wanted:
            sys.exit('%s: exit code, files left, sent and rejected are %s, not %s' % (way.name, found, wanted))
    for _ in range(100):  # nginx writes a line after its answer
        lines = len(nginx.log()) - before
        if lines >= share * len(spools):
            return
        time.sleep(0.1)
    sys.exit('%s: nginx has logged %d requests for %d files' % (way.name, lines, share * len(spools)))


def main():
    given = options()
    common.need('nginx')
    print(common.machine())
    print('Python %s, %d files of 1 KB, %d workers, %d rounds\n' % (
        common.version(given.python), given.files, given.workers, given.rounds), flush=True)
    runs = dict((way, []) for way in WAYS)
    folder = tempfile.mkdtemp(prefix='envio-bench-')
    try:
        os.mkdir(os.path.join(folder, 'nginx'))
        with open(os.open(os.path.join(folder, 'token'), os.O_WRONLY | os.O_CREAT, 0o600), 'w') as stream:
            stream.write('a-token\n')
        with common.Nginx(os.path.join(folder, 'nginx')) as nginx:
            for number in range(given.rounds):
                for way in WAYS if number % 2 == 0 else reversed(WAYS):
                    runs[way].append(measured(way, given, nginx, folder))
    finally:
        shutil.rmtree(folder)
    rates = dict((way, [given.files / seconds for seconds, _ in runs[way]]) for way in WAYS)
    spent = dict((way, [each for _, each in runs[way]]) for way in WAYS)
    base = statistics.median(rates[PLAIN]), statistics.median(spent[PLAIN])
    print('| | files/s, median (range) | to plain | processor, us a file | more than plain |\n|---|---|---|---|---|')
    for way in WAYS:
        used = statistics.median(spent[way])
        print('| %s | %s | %.2f | %.0f | %+.0f |' % (
            way.name, common.spread(rates[way]), statistics.median(rates[way]) / base[0], used, used - base[1]))
    print('\nEvery file arrived and lies where its answer sends it. Load average at the end: %.1f' % os.getloadavg()[0])


if __name__ == '__main__':
    main()
