#!/usr/bin/env python3
"""10,000 files of 1 KB to a local nginx: `envio once` with 4 workers beside `find | xargs -P4`, one cURL a file.

Both send the same files by POST to the same nginx, which reads each body whole and passes it on before it answers.
What is timed is a command from its start to its end: for Envio that includes the start of Python and the move of every
file to sent/; cURL moves nothing. Each round runs all, one after the other, in an order that alternates; medians are
compared. Every round is checked: nginx has logged each file, and Envio has moved each.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import common

CONF = '[agent]\nspool = %s\nsettle = 0\nworkers = %d\n[receiver:nginx]\nmatch = *\nurl = %s%s\nworkers = %d\n'
PATH = '/sink'  # of tests/servers.py: nginx reads a body whole and proxies it before it answers
CURL = "find '%s' -type f -print0 | xargs -0 -P%d -I{} curl --fail --silent -o /dev/null --data-binary @{} '%s'"


def options():
    default = shutil.which('python3.11') or sys.executable
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--python', action='append', metavar='PATH', help='an interpreter for Envio; may be given '
                        'several times (default: python3.11 where there is one, else this one: %s)' % default)
    parser.add_argument('--files', type=int, default=10000, metavar='N', help='files for Envio (default: %(default)s)')
    parser.add_argument('--curl-files', type=int, metavar='N', help='files for cURL (default: as many as for Envio; '
                        'fewer save time: files a second are compared)')
    parser.add_argument('--size', type=int, default=1024, metavar='BYTES', help='of a file (default: %(default)s)')
    parser.add_argument('--workers', type=int, default=4, metavar='N', help='at once, of both (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=3, metavar='N', help='default: %(default)s')
    chosen = parser.parse_args()
    chosen.python = [common.interpreter(python) for python in chosen.python or [default]]
    chosen.curl_files = chosen.curl_files or chosen.files
    if chosen.size < 1000:
        parser.error('--size: the check needs 1000 bytes at least')
    return chosen


def timed(command):
    begin = time.perf_counter()
    child = command()
    code = child.wait()
    return time.perf_counter() - begin, code


def envio(python, given, nginx, folder):
    """Return files a second of one pass."""
    spool, conf = os.path.join(folder, 'spool'), os.path.join(folder, 'envio.conf')
    common.fill(spool, given.files, given.size)
    with open(conf, 'w') as page:
        page.write(CONF % (spool, given.workers, nginx.url, PATH, given.workers))
    before = len(nginx.log())
    with open(os.path.join(folder, 'stderr'), 'w') as errors:
        seconds, code = timed(lambda: common.start(python, conf, 'once', errors))
    left, moved = common.files(spool), len(common.sent(spool))
    arrived = common.requests(nginx, PATH, given.files, before)
    if (code, left, moved, arrived) != (0, 0, given.files, given.files):
        sys.exit('envio ended with %d: of %d files %d arrived, %d moved, %d left' % (
            code, given.files, arrived, moved, left))
    shutil.rmtree(spool)
    return given.files / seconds


def curl(given, nginx, folder):
    """Return files a second of cURL, one process a file."""
    spool = os.path.join(folder, 'spool')
    common.fill(spool, given.curl_files, given.size)
    before = len(nginx.log())
    line = CURL % (spool, given.workers, nginx.url + PATH)
    seconds, code = timed(lambda: subprocess.Popen(line, shell=True, stdin=subprocess.DEVNULL))
    arrived = common.requests(nginx, PATH, given.curl_files, before)
    if (code, arrived) != (0, given.curl_files):
        sys.exit('find | xargs ended with %d: %d of %d files arrived' % (code, arrived, given.curl_files))
    shutil.rmtree(spool)
    return given.curl_files / seconds


def main():
    given = options()
    common.need('nginx', 'curl', 'xargs', 'find')
    runs = [('xargs -P%d, a cURL each' % given.workers, lambda *args: curl(given, *args))]
    for python in given.python:
        runs.append(('envio, Python ' + common.version(python),
                     lambda nginx, folder, python=python: envio(python, given, nginx, folder)))
    print(common.machine())
    print('%d files of %d bytes (cURL: %d), %d at once, POST to nginx %s, %d rounds\n' % (
        given.files, given.size, given.curl_files, given.workers, PATH, given.rounds), flush=True)
    rates = dict((name, []) for name, _ in runs)
    folder = tempfile.mkdtemp(prefix='envio-bench-')
    try:
        os.mkdir(os.path.join(folder, 'nginx'))
        with common.Nginx(os.path.join(folder, 'nginx')) as nginx:
            for number in range(given.rounds):
                for name, run in runs if number % 2 == 0 else reversed(runs):
                    rates[name].append(run(nginx, folder))
                print('round %d: %s' % (number + 1, '; '.join(
                    '%s %.0f files/s' % (name, rates[name][-1]) for name, _ in runs)), flush=True)
    finally:
        shutil.rmtree(folder)
    base = statistics.median(rates[runs[0][0]])
    print('\n%-26s %-26s %s' % ('', 'files/s, median (range)', 'times cURL'))
    for name, _ in runs:
        print('%-26s %-26s %.1f' % (name, common.spread(rates[name]), statistics.median(rates[name]) / base))
    print('\nEvery file arrived; every file of Envio was moved. Load average at the end: %.1f' % os.getloadavg()[0])


if __name__ == '__main__':
    main()
