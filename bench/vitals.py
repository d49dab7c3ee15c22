"""A process as the kernel sees it: memory, descriptors, threads, children. For measurements that last."""

import os
import re
import time
from collections import namedtuple

Sample = namedtuple('Sample', (
    'minute',     # since the start, by time.monotonic()
    'rss',        # KB
    'sockets', 'files', 'pipes', 'others',  # descriptors
    'threads',
    'switches',   # context switches so far
    'cpu',        # seconds of processor time so far, ended children included
    'children',   # processes
    'zombies',    # set of pids
))


def sample(pid, begin):
    """Return the Sample of a process. begin: of time.monotonic()."""
    kinds = {'socket': 0, 'pipe': 0, '/': 0}
    others = 0
    for number in os.listdir('/proc/%d/fd' % pid):
        try:
            kind = os.readlink('/proc/%d/fd/%s' % (pid, number)).split(':')[0]
        except OSError:
            continue  # closed meanwhile
        kind = '/' if kind.startswith('/') and kind != '/dev/null' else kind
        if kind in kinds:
            kinds[kind] += 1
        else:
            others += 1
    switches = 0
    for thread in os.listdir('/proc/%d/task' % pid):
        found = re.findall(r'ctxt_switches:\s+(\d+)', _page('/proc/%d/task/%s/status' % (pid, thread)))
        switches += sum(map(int, found))
    status = _page('/proc/%d/status' % pid)
    times = [int(field) for field in _page('/proc/%d/stat' % pid).rsplit(')', 1)[1].split()[11:15]]
    children, zombies = _children(pid)
    return Sample((time.monotonic() - begin) / 60, int(re.search(r'VmRSS:\s+(\d+)', status).group(1)), kinds['socket'],
                  kinds['/'], kinds['pipe'], others, int(re.search(r'Threads:\s+(\d+)', status).group(1)), switches,
                  sum(times) / float(os.sysconf('SC_CLK_TCK')), children, zombies)


def _page(path):
    try:
        with open(path) as page:
            return page.read()
    except OSError:
        return ''  # it has ended meanwhile


def _children(pid):
    number, zombies = 0, set()
    for name in filter(str.isdigit, os.listdir('/proc')):
        fields = _page('/proc/%s/stat' % name).rpartition(')')[2].split()
        if fields and int(fields[1]) == pid:
            number += 1
            if fields[0] == 'Z':
                zombies.add(int(name))
    return number, zombies


def slope(samples):
    """Return the KB an hour by which the memory grows, by least squares."""
    middle = sum(one.minute for one in samples) / len(samples)
    level = sum(one.rss for one in samples) / len(samples)
    width = sum((one.minute - middle) ** 2 for one in samples)
    return 60 * sum((one.minute - middle) * (one.rss - level) for one in samples) / width if width else 0.0
