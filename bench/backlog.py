"""A million waiting files for a dead receiver: what they cost a healthy one, the memory and the processor.

    python3 bench/backlog.py [--files 1000000] [--python PATH]...

`envio run` on a spool with so many empty files for a port that refuses connections and ten for a healthy receiver.
Shown are the time from the start of Python to the first and to the tenth file at the healthy receiver, how long a file
that comes then takes, the resident memory, and the processor's share over a minute that begins after the first scan.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import common

CONFIG = """\
[agent]
spool = %(spool)s
settle = 0
[receiver:healthy]
match = ok-*
url = %(url)s/in
[receiver:dead]
match = dead-*
url = http://127.0.0.1:9/in
"""
TEN = ['ok-%d' % number for number in range(10)]


def fill(spool, count):
    """Put `count` empty files into the folder `spool`."""
    os.mkdir(spool)
    for number in range(count):
        os.close(os.open('%s/dead-%07d' % (spool, number), os.O_CREAT | os.O_WRONLY))


def waited(condition, what, seconds=120):
    """Return how long it took until condition() was true."""
    begin = time.time()
    while not condition():
        if time.time() - begin > seconds:
            sys.exit('waited in vain for ' + what)
        time.sleep(0.005)
    return time.time() - begin


def processor(pid):
    """Return the seconds of processor time that a process has used."""
    with open('/proc/%d/stat' % pid) as page:
        fields = page.read().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf('SC_CLK_TCK'))


def memory(pid):
    """Return the largest resident memory of a process so far, in MB."""
    with open('/proc/%d/status' % pid) as page:
        return int(re.search(r'VmHWM:\s+(\d+)', page.read()).group(1)) * 1024 / 1e6


def measured(python, folder, stored, conf, idle):
    """Run the agent; return the words of one row."""
    spool = os.path.join(folder, 'spool')
    for name in TEN:
        with open(os.path.join(spool, name), 'w') as stream:
            stream.write(name)
    begin = time.time()
    with open(os.path.join(folder, 'said'), 'w') as errors:
        agent = common.start(python, conf, 'run', errors)
    waited(lambda: os.listdir(stored), 'the first file')
    first = time.time() - begin
    waited(lambda: len(os.listdir(stored)) == 10, 'the tenth file')
    tenth = time.time() - begin
    used = -1
    while processor(agent.pid) != used:  # the first scan is over when it rests
        used = processor(agent.pid)
        time.sleep(2)
    with open(os.path.join(spool, '.new'), 'w') as stream:
        stream.write('new')
    os.rename(os.path.join(spool, '.new'), os.path.join(spool, 'ok-new'))
    late = waited(lambda: 'ok-new' in os.listdir(stored), 'the new file')
    before, since = processor(agent.pid), time.time()
    time.sleep(idle)
    share = 100 * (processor(agent.pid) - before) / (time.time() - since)
    row = (first, tenth, late, memory(agent.pid), share)
    agent.send_signal(signal.SIGTERM)
    if agent.wait() != 0:
        sys.exit('envio run ended with %d' % agent.returncode)
    shutil.rmtree(os.path.join(spool, '.envio'))
    shutil.rmtree(os.path.join(spool, 'sent'))
    for name in os.listdir(stored):
        os.unlink(os.path.join(stored, name))
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--files', type=int, default=1000000)
    parser.add_argument('--idle', type=int, default=60, help='seconds of idling that are measured')
    parser.add_argument('--python', action='append', help='interpreter to measure, several times if wanted')
    arguments = parser.parse_args()
    print(common.machine())
    folder = tempfile.mkdtemp()
    stored = os.path.join(folder, 'stored')
    receiver = subprocess.Popen([common.ENVIO, 'receiver', '--port', '0', '--dir', stored], stdout=subprocess.PIPE,
                                universal_newlines=True)
    try:
        url = receiver.stdout.readline().split()[-1]
        conf = os.path.join(folder, 'envio.conf')
        with open(conf, 'w') as stream:
            stream.write(CONFIG % {'spool': os.path.join(folder, 'spool'), 'url': url})
        fill(os.path.join(folder, 'spool'), arguments.files)
        print('%-10s %12s %12s %14s %8s %10s' % ('Python', 'first, s', 'tenth, s', 'a new one, s', 'MB', 'idle, %'))
        for name in arguments.python or [sys.executable]:
            python = common.interpreter(name)
            row = measured(python, folder, stored, conf, arguments.idle)
            print('%-10s %12.2f %12.2f %14.3f %8.1f %10.2f' % ((common.version(python),) + row))
            sys.stdout.flush()
    finally:
        receiver.terminate()
        shutil.rmtree(folder)


if __name__ == '__main__':
    sys.exit(main())
