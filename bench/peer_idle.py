"""What `envio run` costs while it waits: processor time and memory, beside files for a receiver that is dead.

Called by peers.py; no peer waits for files. The files are empty, the receiver's port refuses connections.
"""

import glob
import os
import shutil
import signal
import sys
import time

import backlog
import common
from tests.servers import refusing_port

COUNTS = (0, 100000, 1000000)


def table(given, folder):
    """Print the table. given: options, with python, files (at most so many) and idle (seconds)."""
    spool = os.path.join(folder, 'spool')
    print('\n## idle: envio run for %d s\n' % given.idle)
    print('| Python | waiting files | processor, ms a minute | % of a core | peak, MB |\n|---|---|---|---|---|')
    os.mkdir(spool)
    made = 0
    with refusing_port() as dead:
        for count in COUNTS if not given.files else (0, given.files):
            for number in range(made, count):
                os.close(os.open('%s/%07d' % (spool, number), os.O_CREAT | os.O_WRONLY))
            made = count
            for python in given.python:
                used, peak = measured(python, folder, spool, dead, given.idle)
                print('| %s | %s | %.0f | %.3f | %.1f |' % (
                    common.version(python), format(count, ','), used * 60000, used * 100, peak), flush=True)
                if common.files(spool) != count:
                    sys.exit('%d files of %d are left' % (common.files(spool), count))
    shutil.rmtree(spool)


def measured(python, folder, spool, port, seconds):
    """Return (the share of a core, the peak in MB), from when the first look at the spool is over."""
    conf = os.path.join(folder, 'envio.conf')
    with open(conf, 'w') as page:
        page.write(common.CONFIG % {'spool': spool, 'url': 'http://127.0.0.1:%d/in' % port, 'transport': 'native',
                                    'keys': ''})
    with open(os.path.join(folder, 'said'), 'w') as errors:
        agent = common.start(python, conf, 'run', errors)
    used = -1
    while backlog.processor(agent.pid) != used:
        used = backlog.processor(agent.pid)
        time.sleep(2)
    before, since = used_by(agent.pid), time.time()
    time.sleep(seconds)
    share = (used_by(agent.pid) - before) / (time.time() - since)
    peak = backlog.memory(agent.pid)
    agent.send_signal(signal.SIGTERM)
    if agent.wait() != 0:
        sys.exit('envio run ended with %d' % agent.returncode)
    shutil.rmtree(os.path.join(spool, '.envio'))
    return share, peak


def used_by(pid):
    """Return the seconds of processor time of a process, whose threads all live on; finer than its ticks of 10 ms."""
    pages = glob.glob('/proc/%d/task/*/schedstat' % pid)
    if not pages:
        return backlog.processor(pid)
    total = 0
    for path in pages:
        with open(path) as page:
            total += int(page.read().split()[0])
    return total / 1e9
