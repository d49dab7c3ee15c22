"""Memory while a large file is sent: one line for each transport, over http and https.

    python3 bench/large_file.py [--size 2G] [--python PATH]...

`envio once` sends one file (sparse: zeros) to `envio receiver`, which reads and throws it away. Shown is the largest
resident memory of any process of the agent, cURL included, as the kernel counts it (getrusage, ru_maxrss).
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time

import common

SIZES = {'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}
MOST = 40.0  # MB


def size(text):
    found = re.match(r'(\d+)([KMG]?)\Z', text)
    if not found:
        raise argparse.ArgumentTypeError('write a size like 500M or 2G')
    return int(found.group(1)) * SIZES.get(found.group(2), 1)


def receiver(folder, secure):
    """Start `envio receiver`; return (process, URL, its certificate's path or '')."""
    command = [common.ENVIO, 'receiver', '--port', '0'] + (['--tls'] if secure else [])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, universal_newlines=True, cwd=folder)
    url = process.stdout.readline().split()[-1]
    trusted = process.stdout.readline().split()[-1] if secure else ''
    return process, url.replace('127.0.0.1', 'localhost'), trusted


def measured(python, conf):
    """Run `envio once` in a child that then tells its largest memory; return (seconds, MB)."""
    reading, writing = os.pipe()
    begin = time.time()
    child = os.fork()
    if child == 0:
        code = common.start(python, conf, 'once', None).wait()
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        os.write(writing, ('%d %d' % (code, used)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    code, used = os.read(reading, 100).split()
    os.close(reading)
    os.close(writing)
    if int(code):
        sys.exit('envio once ended with %d' % int(code))
    return time.time() - begin, int(used) * 1024 / 1e6


def run(python, transport, secure, keys, amount, folder):
    spool = os.path.join(folder, 'spool')
    os.makedirs(spool)
    with open(os.path.join(spool, 'large'), 'wb') as stream:
        stream.truncate(amount)
    process, url, trusted = receiver(folder, secure)
    try:
        conf = os.path.join(folder, 'envio.conf')
        with open(conf, 'w') as stream:
            keys += '\ndeadline = 1h' + ('\nca_file = ' + trusted if trusted else '')
            stream.write(common.CONFIG % {'spool': spool, 'url': url + '/in', 'transport': transport, 'keys': keys})
        seconds, used = measured(python, conf)
    finally:
        process.terminate()
        told = process.communicate()[0]
    if '200 OK' not in told:
        sys.exit('the receiver did not get it: ' + told)
    if [entry.stat().st_size for entry in common.sent(spool)] != [amount]:
        sys.exit('the file was not moved')
    return seconds, used


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--size', type=size, default=2 << 30, help='bytes of the file, default 2G')
    parser.add_argument('--python', action='append', help='interpreter to measure, several times if wanted')
    arguments = parser.parse_args()
    common.need('curl', 'openssl')
    print(common.machine())
    print('%-14s %-16s %9s %9s %8s' % ('Python', 'way', 'seconds', 'MB/s', 'MB'))
    worst = 0
    for python in [common.interpreter(name) for name in arguments.python or [sys.executable]]:
        for transport in ('native', 'curl'):
            for secure, keys in ((False, ''), (True, ''), (False, 'gzip = yes')):
                with tempfile.TemporaryDirectory() as folder:
                    seconds, used = run(python, transport, secure, keys, arguments.size, folder)
                worst = max(worst, used)
                way = '%s http%s%s' % (transport, 's' if secure else '', ' gzip' if keys else '')
                print('%-14s %-16s %9.1f %9.0f %8.1f' % (common.version(python), way, seconds,
                                                         arguments.size / seconds / 1e6, used))
    print('the most: %.1f MB, %s %.0f MB' % (worst, 'under' if worst < MOST else 'NOT under', MOST))
    return 0 if worst < MOST else 1


if __name__ == '__main__':
    sys.exit(main())
