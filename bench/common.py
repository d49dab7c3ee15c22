"""What the measurements share: a nginx of their own, spools with files, the agent as a process, what the machine is."""

import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENVIO = os.path.join(ROOT, 'bin', 'envio')
CONFIG = """\
[agent]
spool = %(spool)s
settle = 0
[receiver:sink]
match = *
url = %(url)s
transport = %(transport)s
%(keys)s
"""
sys.path.insert(0, ROOT)

from tests.servers import Nginx  # noqa: E402 (found by the line above)

__all__ = ['Nginx']


def need(*programs):
    """End with a sentence when one of the programs is missing."""
    for program in programs:
        if shutil.which(program, path=os.environ.get('PATH', '') + ':/usr/sbin') is None:
            sys.exit('%s is not installed' % program)


def machine():
    """Return lines: the processor, what else runs, the programs' versions."""
    with open('/proc/cpuinfo') as page:
        model = re.search(r'model name\s*: (.*)', page.read())
    words = ['%s, %d cores' % (model.group(1) if model else platform.machine(), os.cpu_count()),
             'Linux ' + platform.release(), 'load average %.1f %.1f %.1f' % os.getloadavg()]
    return '\n'.join([', '.join(words), first_line(['nginx', '-v']), first_line(['curl', '--version'])])


def first_line(command):
    """Return the first line that a command prints, on either stream."""
    path = os.environ.get('PATH', '') + ':/usr/sbin'
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
                              env=dict(os.environ, PATH=path))
    except OSError as error:
        return str(error)
    return (done.stdout.splitlines() or ['%s: no answer' % command[0]])[0]


def interpreter(python):
    """Return the interpreter itself for a name or a stand-in of pyenv, whose start takes as long as the agent's."""
    found = first_line([python, '-c', 'import sys; print(sys.executable)'])
    if not os.path.isfile(found):
        sys.exit('%s: no interpreter: %s' % (python, found))
    return found


def version(python):
    return first_line([python, '-c', 'import sys; print(sys.version.split()[0])'])


def fill(spool, count, size, prefix=''):
    """Put `count` files of `size` bytes into the folder `spool`, made when it is missing."""
    os.makedirs(spool, exist_ok=True)
    for number in range(count):
        with open('%s/%s%06d' % (spool, prefix, number), 'wb') as stream:
            stream.write(os.urandom(size))


def files(folder):
    """Return how many files a folder holds; those of folders in it are not counted."""
    with os.scandir(folder) as entries:
        return sum(entry.is_file(follow_symlinks=False) for entry in entries)


def sent(spool):
    """Return the os.DirEntry of every accepted file."""
    top = os.path.join(spool, 'sent')
    return [entry for day in (os.listdir(top) if os.path.isdir(top) else ()) for entry in os.scandir(top + '/' + day)]


def start(python, conf, command, errors):
    """Start the agent on the configuration; returns the Popen. errors: an open file for what it says."""
    surroundings = dict(os.environ, ENVIO_PYTHON=python, PYTHONDONTWRITEBYTECODE='1', PYTHONPATH='')
    return subprocess.Popen([ENVIO, '-c', conf, command], env=surroundings, stdin=subprocess.DEVNULL, stderr=errors)


def requests(nginx, path, count, since=0):
    """Return how many requests of nginx's log, from line `since` on, were POSTs to `path` answered with 200 and with
    a body; nginx writes a line after its answer, so `count` of them are waited for, up to 10 s."""
    wanted = re.compile(r'\d+ POST %s 200 (\d+)\Z' % re.escape(path))
    for _ in range(100):
        found = [match for match in map(wanted.match, nginx.log()[since:]) if match and int(match.group(1)) > 1000]
        if len(found) >= count:
            break
        time.sleep(0.1)
    return len(found)


def spread(values, form='%.0f'):
    """Return `median (lowest-highest)`."""
    return '%s (%s-%s)' % tuple(form % value for value in (statistics.median(values), min(values), max(values)))
