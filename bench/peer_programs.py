"""The programs that peers.py compares, and one run of one of them: started, measured, checked, and all put back.

A run is a command from its start to its end. How long it takes, its processor time and its largest memory are told by
wait4() in a starter of 5 MB: a process counts what it was before exec(), too, and peers.py itself is larger.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import common

HERE = os.path.dirname(os.path.abspath(__file__))
LONGEST = 300  # seconds a run may take
CONF = """\
[agent]
spool = %(spool)s
settle = 0
workers = %(workers)d
[receiver:sink]
match = *
url = %(url)s/{name}
method = PUT
workers = %(workers)d
%(keys)s
"""

Peer = namedtuple('Peer', (
    'name',     # for the table
    'command',  # function(Task) -> (arguments, what the environment has beside ours)
    'moves',    # 'each' at once, 'all' at the end, or '' = it moves nothing
    'share',    # it gets one in so many of many small files: files a second are compared, and it takes long
    'absent',   # why it can't be run here, or ''
))
Task = namedtuple('Task', (
    'spool',    # folder with the files
    'scratch',  # folder for what else it needs
    'url',      # where the files are to go, without the slash before the name
    'ca',       # path of what the certificate is to be checked by, or None: plain
    'workers',  # at once
    'count',    # files to send
))
Run = namedtuple('Run', (
    'seconds',    # from start to end
    'user',       # processor time in the program, its children included
    'system',     # and in the kernel for it
    'peak',       # largest resident memory of one of its processes, in bytes
    'problem',    # what went wrong, or ''
))

_STARTER = r'''
import posix, sys, time
begin = time.perf_counter()
child = posix.fork()
if not child:
    try:
        posix.execv(sys.argv[2], sys.argv[2:])
    finally:
        posix._exit(127)
_, status, used = posix.wait4(child, 0)
seconds = time.perf_counter() - begin
with open(sys.argv[1], 'w') as page:
    page.write('%d %r %r %r %d' % (status, seconds, used.ru_utime, used.ru_stime, used.ru_maxrss))
'''


# --- commands

def envio(python):
    """Return the Peer that is Envio on this interpreter."""
    def command(task):
        conf = os.path.join(task.scratch, 'envio.conf')
        with open(conf, 'w') as page:
            page.write(CONF % {'spool': task.spool, 'workers': task.workers, 'url': task.url,
                               'keys': 'ca_file = ' + task.ca if task.ca else ''})
        return [common.ENVIO, '-c', conf, 'once'], {
            'ENVIO_PYTHON': python, 'PYTHONDONTWRITEBYTECODE': '', 'PYTHONPATH': ''}
    return Peer('envio, Python ' + common.version(python), command, 'each', 1, '')


def _shell(line, task):
    """Return the command of a shell's line; $1 is the folder, $2 the URL, $3 the workers."""
    secure = '--cacert %s ' % task.ca if task.ca else ''
    return ['/bin/sh', '-c', line.replace('curl ', 'curl -sSfH Expect: ' + secure), 'sh', task.spool, task.url,
            '%d' % task.workers], {}


def xargs(task):
    return _shell('find "$1" -maxdepth 1 -type f -print0 | '
                  'xargs -0 -P "$3" -I {} curl -o /dev/null -T {} "$2/"', task)


_PARALLEL = (r'find "$1" -maxdepth 1 -type f -printf "upload-file = \"%p\"\nurl = \"$2/%f\"\n" | '
             r'curl --parallel --parallel-max "$3" -K -')


def parallel(task):
    return _shell(_PARALLEL, task)


def parallel_then_move(task):
    return _shell(_PARALLEL + r' && mkdir "$1/sent" && find "$1" -maxdepth 1 -type f -exec mv -t "$1/sent" {} +', task)


def rclone(task):
    address = ['--webdav-url', task.url, '--webdav-vendor', 'other'] + (['--ca-cert', task.ca] if task.ca else [])
    return [shutil.which('rclone'), 'move', task.spool, ':webdav:', '--config', '', '--transfers',
            '%d' % task.workers] + address, {}


def script(python, module):
    """Return the command() of peer_MODULE.py."""
    def command(task):
        path = os.path.join(HERE, 'peer_%s.py' % module)
        return [python, path, task.spool, task.url, '%d' % task.workers] + ([task.ca] if task.ca else []), {}
    return command


# --- which of them there are

def peers(venv, dav):
    """Return the peers, absent ones too. venv: an interpreter with the modules; dav: whether nginx knows PROPFIND."""
    curl = '' if shutil.which('curl') else 'curl is not installed'
    version = common.first_line(['curl', '--version']).split(' ')[1:2]
    old = '' if curl or _numbers(version[0]) >= (7, 66) else 'curl %s: no --parallel before 7.66' % version[0]
    found = [Peer('curl --parallel', parallel, '', 1, curl or old),
             Peer('curl --parallel, then mv', parallel_then_move, 'all', 1, curl or old),
             Peer('find, xargs -P, curl -T', xargs, '', 10, curl)]
    for module, name in (('requests', 'requests, threads'), ('aiohttp', 'aiohttp'), ('pycurl', 'pycurl, multi')):
        said = common.first_line([venv, '-c', 'import %s; print("ok")' % module])
        found.append(Peer(name, script(venv, module), 'each', 1, '' if said == 'ok' else
                          '%s: no module %s: `make bench` installs it' % (venv, module)))
    found.append(Peer('the least in Python: peer_loop.py', script(sys.executable, 'loop'), 'each', 1, ''))
    no_dav = '' if dav else 'nginx without PROPFIND: apt-get install libnginx-mod-http-dav-ext'
    found.append(Peer('rclone move', rclone, 'each', 20, no_dav if shutil.which('rclone') else
                      'rclone is not installed'))
    return found


def _numbers(version):
    return tuple([int(part) for part in version.split('.')[:2] if part.isdigit()])


def versions(venv):
    """Return lines: the versions of the peers."""
    lines = []
    if shutil.which('rclone'):
        lines.append(common.first_line(['rclone', 'version']))
    if not os.path.exists(venv):
        return '\n'.join(lines)
    words = ['Python %s with' % common.version(venv)]
    for module, value in (('requests', '__version__'), ('aiohttp', '__version__'), ('pycurl', 'version')):
        said = common.first_line([venv, '-c', 'import %s as m; print(m.%s)' % (module, value)])
        words.append('no ' + module if 'Error' in said or 'Trace' in said else '%s %s' % (module, said))
    return '\n'.join(lines + [words[0] + ' ' + ', '.join(words[1:])])


# --- a run

def started(arguments, surroundings, scratch):
    """Run a command; return its Run. Of our environment it has only what says nothing of proxies and certificates."""
    told, said = os.path.join(scratch, 'told'), os.path.join(scratch, 'said')
    if os.path.exists(told):
        os.unlink(told)
    own = dict((name, os.environ[name]) for name in ('PATH', 'HOME', 'LANG', 'LC_ALL', 'TMPDIR') if name in os.environ)
    with open(said, 'w') as errors:
        starter = subprocess.Popen([sys.executable, '-I', '-S', '-c', _STARTER, told] + arguments,
                                   env=dict(own, **surroundings), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        try:
            starter.wait(LONGEST)
        except subprocess.TimeoutExpired:
            return Run(LONGEST, 0, 0, 0, 'not done within %d s' % LONGEST)
        finally:
            if starter.poll() is None:
                os.killpg(starter.pid, signal.SIGKILL)
                starter.wait()
    with open(told) as page, open(said, errors='replace') as errors:
        status, seconds, user, system, peak = page.read().split()
        last = (errors.read().splitlines() or [''])[-1]
    code = '%d' % (int(status) >> 8) if int(status) & 127 == 0 else 'signal %d' % (int(status) & 127)
    problem = 'ended with %s: %s' % (code, last) if int(status) else ''
    return Run(float(seconds), float(user), float(system), int(peak) * 1024, problem)


def measured(peer, task, receiver):
    """Have a peer send the files of a task to an empty receiver, and check all of them; return its Run."""
    receiver.empty()
    set_aside(task)
    before = receiver.logged()
    arguments, surroundings = peer.command(task)
    os.sync()  # what was written before is not to be written to the disk during this
    run = started(arguments, surroundings, task.scratch)
    return run if run.problem else run._replace(problem=checked(peer, task, receiver, before))


def checked(peer, task, receiver, before):
    """Return what is wrong with the files after a run, or ''."""
    arrived = dict((entry.name, entry.path) for entry in os.scandir(receiver.stored))
    here = dict((entry.name, entry.path) for entry in os.scandir(task.spool) if entry.is_file())
    moved = dict((entry.name, entry.path) for entry in _moved(task.spool))
    if peer.command is rclone:  # it removes what was taken: nothing to compare with is left
        moved = dict((name, path) for name, path in arrived.items() if name not in here)
    if not task.count == len(arrived) == len(moved if peer.moves else here) == len(moved) + len(here):
        return 'of %d files %d arrived, %d were moved, %d left' % (task.count, len(arrived), len(moved), len(here))
    here.update(moved)
    for name, path in arrived.items():
        if name not in here or not _same(here[name], path):
            return '%s arrived as something else' % name
    for _ in range(100):  # nginx writes a line after its answer
        puts = receiver.puts(before)
        if sum(puts.values()) >= task.count:
            break
        time.sleep(0.05)
    wrong = [(put, times) for put, times in puts.items() if put[1] != '201' or times != 1]
    return 'sent twice, or refused: %s' % wrong[:3] if wrong or len(puts) != task.count else ''


def _moved(spool):
    for entry in os.scandir(os.path.join(spool, 'sent')) if os.path.isdir(os.path.join(spool, 'sent')) else ():
        if entry.is_dir():  # Envio has a folder for each day
            for inner in os.scandir(entry.path):
                yield inner
        else:
            yield entry


def _same(here, there):
    """Compare two files: whole up to 1 MB, else the size, the beginning and the end."""
    with open(here, 'rb') as one, open(there, 'rb') as other:
        size = os.path.getsize(here)
        if size != os.path.getsize(there) or one.read(1 << 20) != other.read(1 << 20):
            return False
        for stream in (one, other):
            stream.seek(max(0, size - (1 << 20)))
        return one.read() == other.read()


def set_aside(task):
    """Leave only as many files in the spool as the task has."""
    rest = os.path.join(task.scratch, 'rest')
    os.makedirs(rest, exist_ok=True)
    for entry in [entry for entry in os.scandir(task.spool) if entry.is_file()][task.count:]:
        os.rename(entry.path, os.path.join(rest, entry.name))


def put_back(task, receiver, count):
    """Have all `count` files in the spool again, and nothing else."""
    rest = list(os.scandir(os.path.join(task.scratch, 'rest')))
    for entry in list(_moved(task.spool)) + rest + list(os.scandir(receiver.stored)):
        path = os.path.join(task.spool, entry.name)
        if not os.path.exists(path):  # what rclone moved is at the receiver alone
            shutil.move(entry.path, path)
    for entry in list(os.scandir(task.spool)):
        if entry.is_dir():
            shutil.rmtree(entry.path)
    receiver.empty()
    if common.files(task.spool) != count:
        sys.exit('%s: %d files in place of %d' % (task.spool, common.files(task.spool), count))
