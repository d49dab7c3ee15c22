#!/usr/bin/env python3
"""Four healthy receivers alone, and beside four sick ones: one refuses connections, one is a tarpit (accepts, never
answers), one answers 503, one drips a byte a second.

In pairs, one run after the other in an order that alternates: `envio run` with 32 workers (--workers) and eight
receivers with 4 workers each. Alone: files for the healthy receivers, on a local nginx, none for the others. Beside:
1,000 files for each of the sick ones lie in the same spool. Measured is files a second of the healthy ones,
from the start of the program until the last of their files was moved, as the file system dates that move; and again
from the first move to the last, without the start and the first look at the spool. SIGTERM ends each run.
"""

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time

import common
from agent import receiver
from tests.servers import ScriptedServer, refusing_port, tarpit

AGENT = '[agent]\nspool = %s\nsettle = 0\nworkers = %d\nstop_grace = 1s\n'
SECTION = '[receiver:%s]\nmatch = %s-*\nurl = %s\nworkers = 4\n'
PATH = '/sink'
HEALTHY, SICK = ('east', 'west', 'north', 'south'), ('dead', 'tarpit', 'failing', 'drip')
DRIP = b'HTTP/1.1 200 OK\r\nX: ' + b'x' * 10000
LONGEST = 300  # seconds a run may take


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--python', default=shutil.which('python3.11') or sys.executable, metavar='PATH',
                        help='the interpreter for Envio (default: %(default)s)')
    parser.add_argument('--files', type=int, default=3000, metavar='N', help='of each healthy receiver '
                        '(default: %(default)s)')
    parser.add_argument('--waiting', type=int, default=1000, metavar='N', help='for each sick one '
                        '(default: %(default)s)')
    parser.add_argument('--workers', type=int, default=32, metavar='N', help='in all (default: %(default)s, the sum '
                        'of the receivers\' shares)')
    parser.add_argument('--size', type=int, default=1024, metavar='BYTES', help='of a file (default: %(default)s)')
    parser.add_argument('--ballast', action='store_true', help='let as many files without a receiver lie in the '
                        'spool of the run alone: what differs then is the sick receivers, not the size of the spool')
    parser.add_argument('--delay', metavar='D', help='the healthy receivers are the tryout receiver, which answers '
                        'after D (such as 20ms), so that not the processor is what limits them')
    parser.add_argument('--pairs', type=int, default=15, metavar='N', help='default: %(default)s')
    chosen = parser.parse_args()
    chosen.python = common.interpreter(chosen.python)
    return chosen


@contextlib.contextmanager
def healthy(given, folder):
    """Run what takes files for both healthy receivers; gives its URL."""
    if not given.delay:
        with common.Nginx(folder) as nginx:
            yield nginx.url
        return
    server = receiver.serve(answers='200:delay=' + given.delay).start()
    try:
        yield server.url
    finally:
        server.stop()


def moves(spool):
    """Return when each accepted file was moved, in order: a rename sets ctime."""
    return sorted(entry.stat(follow_symlinks=False).st_ctime for entry in common.sent(spool))


def wait_until_moved(agent, spool, count):
    """Look seldom: to look costs time that the agent would have, too."""
    give_up = time.monotonic() + LONGEST
    while len(common.sent(spool)) < count:
        if agent.poll() is not None or time.monotonic() > give_up:
            sys.exit('the agent moved %d of %d files' % (len(common.sent(spool)), count))
        time.sleep(0.2)


def measure(given, urls, folder, beside):
    """Return files a second of the healthy receivers: (from the start, from the first move)."""
    spool, conf = os.path.join(folder, 'spool'), os.path.join(folder, 'envio.conf')
    for name in HEALTHY:
        common.fill(spool, given.files, given.size, name + '-')
    receivers = HEALTHY if given.ballast and not beside else HEALTHY + SICK
    waiting = SICK if given.ballast or beside else ()
    for name in waiting:
        common.fill(spool, given.waiting, given.size, name + '-')
    with open(conf, 'w') as page:
        page.write(AGENT % (spool, given.workers) + ''.join(SECTION % (name, name, urls[name]) for name in receivers))
    count = given.files * len(HEALTHY)
    with open(os.path.join(folder, 'stderr'), 'w') as errors:
        begin = time.time()
        agent = common.start(given.python, conf, 'run', errors)
        wait_until_moved(agent, spool, count)
        agent.send_signal(signal.SIGTERM)
        code = agent.wait()
    times, left = moves(spool), common.files(spool)
    if (code, len(times), left) != (0, count, given.waiting * len(waiting)):
        sys.exit('the agent ended with %d, moved %d of %d, left %d' % (code, len(times), count, left))
    shutil.rmtree(spool)
    return count / (times[-1] - begin), (count - 1) / (times[-1] - times[0])


def run_pairs(given, urls, folder):
    """Return the pairs: [(of the run alone, of the run beside)], each as measure() returns it."""
    pairs = []
    for number in range(given.pairs):
        found = {}
        for beside in (False, True) if number % 2 == 0 else (True, False):
            found[beside] = measure(given, urls, folder, beside)
        pairs.append((found[False], found[True]))
        print('pair %d: alone %.0f files/s, beside %.0f: %.3f' % (
            number + 1, found[False][0], found[True][0], found[True][0] / found[False][0]), flush=True)
    return pairs


def main():
    given = options()
    common.need('nginx')
    print(common.machine())
    print('Python %s, %d workers, 4 a receiver, %d files of %d bytes for each healthy one, %d for each sick one\n' % (
        common.version(given.python), given.workers, given.files, given.size, given.waiting), flush=True)
    folder = tempfile.mkdtemp(prefix='envio-bench-')
    try:
        os.mkdir(os.path.join(folder, 'nginx'))
        failing = receiver.serve(answers='503').start()
        dripping = ScriptedServer([('read_request',), ('send_slow', DRIP, 1.0)])
        with healthy(given, os.path.join(folder, 'nginx')) as url, tarpit() as stuck, refusing_port() as dead:
            urls = dict((name, '%s%s/%s' % (url, PATH, name)) for name in HEALTHY)
            urls.update(dead='http://127.0.0.1:%d/' % dead, tarpit=stuck.url + '/', failing=failing.url + '/',
                        drip=dripping.url + '/')
            pairs = run_pairs(given, urls, folder)
        failing.stop()
        dripping.stop()
    finally:
        shutil.rmtree(folder)
    print('\n%-30s %-22s %-22s %s' % ('files/s, median (range)', 'alone', 'beside', 'ratio of a pair'))
    for place, name in enumerate(('from the start', 'from the first move')):
        alone, beside = [[run[place] for run in runs] for runs in zip(*pairs)]
        ratios = [after / before for before, after in zip(alone, beside)]
        print('%-30s %-22s %-22s %s' % (name, common.spread(alone), common.spread(beside),
                                        common.spread(ratios, '%.3f')))
    print('\nratio of the medians: %.3f; load average at the end: %.1f' % (
        statistics.median(run[1][0] for run in pairs) / statistics.median(run[0][0] for run in pairs),
        os.getloadavg()[0]))


if __name__ == '__main__':
    main()
