"""What it brings that several files go through one cURL: files a second by each transport.

    python3 bench/by_curl.py [--files 2000] [--rounds 3] [--curl PATH]...

`envio once` with 4 workers sends files of 1 KB to nginx over http: natively, by the system's cURL with up to 16 files
in one process, and by the same with one process a file, as it is with a cURL before 7.76. --curl names other programs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import common

# What the program says of its version decides: this one says it is an old one, and does what it is.
OLD = '#!/bin/sh\n' + """\
if [ "$*" = '-q -V' ]; then
    %(curl)s -V | sed '1s/curl [0-9.]*/curl 7.75.0/'
else
    exec %(curl)s "$@"
fi
"""


def rate(nginx, folder, count, transport, curl):
    """Return the files a second of one run."""
    spool, conf = os.path.join(folder, 'spool'), os.path.join(folder, 'envio.conf')
    common.fill(spool, count, 1024)
    with open(conf, 'w') as stream:
        stream.write(common.CONFIG % {'spool': spool, 'url': nginx.url + '/sink', 'transport': transport, 'keys': ''})
    surroundings = dict(os.environ, ENVIO_PYTHON=sys.executable, PYTHONDONTWRITEBYTECODE='1', PYTHONPATH='')
    if curl:
        surroundings['ENVIO_CURL'] = curl
    begin = time.time()
    code = subprocess.call([common.ENVIO, '-c', conf, 'once'], env=surroundings)
    took = time.time() - begin
    if code or common.files(spool) or len(common.sent(spool)) != count:
        sys.exit('not every file was sent: envio once ended with %d' % code)
    subprocess.call(['rm', '-r', spool])
    return count / took


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--files', type=int, default=2000)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--curl', action='append', default=[], help='a further cURL, by its absolute path')
    arguments = parser.parse_args()
    common.need('curl', 'nginx')
    print(common.machine())
    with tempfile.TemporaryDirectory() as folder:
        old = os.path.join(folder, 'curl')
        with open(old, 'w') as stream:
            stream.write(OLD % {'curl': '/usr/bin/curl'})
        os.chmod(old, 0o755)
        ways = [('native', 'native', None), ('cURL, up to 16 files a process', 'curl', None),
                ('cURL, a process a file', 'curl', old)]
        ways += [(path, 'curl', path) for path in arguments.curl]
        rates = dict([(name, []) for name, _, _ in ways])
        os.mkdir(os.path.join(folder, 'nginx'))
        with common.Nginx(os.path.join(folder, 'nginx')) as nginx:
            for _ in range(arguments.rounds):
                for name, transport, curl in ways:
                    rates[name].append(rate(nginx, folder, arguments.files, transport, curl))
    print('%-34s %s' % ('', 'files/s, median (range)'))
    for name, _, _ in ways:
        print('%-34s %s' % (name, common.spread(rates[name])))


if __name__ == '__main__':
    main()
