"""A root of its own for a test: in namespaces of mounts, processes and network, with what the test puts there alone.

For tests/test_bundle.py and tests/test_install.py. Nothing that happens in it reaches this machine, and all that runs
in it ends with its first process.
"""

import os
import re
import shutil
import subprocess
import sys

from tests.programs import find

BASE = getattr(sys, 'real_prefix', None) or getattr(sys, 'base_prefix', sys.prefix)  # of the Python, not of its venv
NAME = 'python%d.%d' % sys.version_info[:2]
ISOLATED = ['unshare', '--mount', '--pid', '--net', '--fork', 'sh', '-ec']
# The arguments: the root, then pairs of what is mounted and where, read-only.
SETUP = r'''
mount --make-rprivate /
root=$1; shift
while [ $# -gt 0 ]; do
    mount --rbind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2"
    shift 2
done
for site in "$root"/usr/lib/python*/site-packages; do [ ! -d "$site" ] || mount -t tmpfs none "$site"; done
for device in null zero urandom; do : >"$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
mount -t proc none "$root/proc"
[ ! -f "$root/read-only" ] || { mount --rbind "$root/usr" "$root/usr"; mount -o remount,bind,ro "$root/usr"; }
exec chroot "$root" /bin/sh -e /script
'''


def absent():
    """Return why no root can be made here, or ''."""
    if os.getuid() != 0:
        return 'a root of its own takes root'
    if not find('busybox') or not find('unshare'):
        return 'there is no busybox, or no unshare, on this machine'
    if not os.path.isdir(os.path.join(BASE, 'lib', NAME)) or not os.path.isfile(os.path.join(BASE, 'bin', NAME)):
        return 'this Python does not lie below %s as usual' % BASE
    child = subprocess.Popen(ISOLATED + ['mount --make-rprivate /; mount -t tmpfs none /tmp'], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT)
    said = child.communicate()[0]
    return child.returncode and 'namespaces are not allowed here: %r' % said or ''


class Root(object):
    """A root folder: files are put there through path(), scripts run in it as root."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.mounts = []
        for name in 'dev etc proc root tmp usr/bin usr/lib var/log var/spool srv'.split():
            os.makedirs(self.path(name))
        os.symlink('usr/bin', self.path('bin'))
        os.chmod(self.path('tmp'), 0o1777)
        self.write('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n')
        self.write('etc/group', 'root:x:0:\n')

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), 'w') as page:
            page.write(text)

    def copy(self, files):
        """Put files of this machine where they are outside."""
        for path in files:
            if not os.path.isdir(self.path(os.path.dirname(path)[1:])):
                os.makedirs(self.path(os.path.dirname(path)[1:]))
            shutil.copy(path, self.path(path[1:]))

    def mount(self, source, target):
        """Let a file or folder of this machine appear at `target`, read-only, in all scripts from now on."""
        if not os.path.isdir(source):
            open(self.path(target), 'w').close()
        elif not os.path.isdir(self.path(target)):
            os.makedirs(self.path(target))
        self.mounts += [source, '/' + target]

    def run(self, script):
        """Run a script in it; return (exit code, all that was said)."""
        self.write('script', 'export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n' + script)
        child = subprocess.Popen(ISOLATED + [SETUP, 'setup', self.folder] + self.mounts, stdin=open(os.devnull),
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, close_fds=True, cwd='/',
                                 env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'HOME': '/root'})
        said = child.communicate()[0].decode('utf-8', 'replace')
        return child.returncode, said


def empty(folder):
    """Return a Root with a shell (busybox) and this Python in a read-only /usr, their libraries, and nothing else: no
    pip, no other program, no account but root, no network but a loopback that is down."""
    root = Root(folder)
    python, library, busybox = os.path.join(BASE, 'bin', NAME), os.path.join(BASE, 'lib', NAME), find('busybox')
    shutil.copy(busybox, root.path('usr/bin/busybox'))
    modules = [os.path.join(library, 'lib-dynload', name) for name in os.listdir(os.path.join(library, 'lib-dynload'))]
    libraries = _libraries([busybox, python] + [path for path in modules if path.endswith('.so')])
    folder = [os.path.dirname(path) for path in libraries if os.path.basename(path).startswith('libc.so')][0]
    late = os.path.join(folder, 'libgcc_s.so.1')  # looked for only when a thread ends
    root.copy(libraries + [late] * os.path.isfile(late))
    child = subprocess.Popen([busybox, '--list'], stdout=subprocess.PIPE, universal_newlines=True)
    for name in child.communicate()[0].split():
        if name != 'busybox':
            os.symlink('busybox', root.path('usr/bin/' + name))
    root.mount(python, 'usr/bin/' + NAME)
    root.mount(library, 'usr/lib/' + NAME)
    root.write('read-only', '')
    return root


def host(folder):
    """Return a Root with the programs of this machine, and folders of its own for all else: those that a package or a
    program puts files into are not this machine's. This Python is in /python, where every account can read it."""
    root = Root(folder)
    for name in ('lib', 'lib64', 'sbin'):
        if os.path.isdir('/usr/' + name):
            root.mount('/usr/' + name, 'usr/' + name)
        if os.path.islink('/' + name):
            os.symlink(os.readlink('/' + name), root.path(name))
        elif os.path.isdir('/' + name):
            root.mount('/' + name, name)
    for name in ('ld.so.cache', 'login.defs', 'nsswitch.conf'):
        if os.path.isfile('/etc/' + name):
            shutil.copy('/etc/' + name, root.path('etc'))
    root.mount('/usr/bin', 'programs')
    for name in os.listdir('/usr/bin'):
        os.symlink('/programs/' + name, root.path('usr/bin/' + name))
    root.mount(BASE, 'python')
    root.copy([path for path in _libraries([os.path.join(BASE, 'bin', NAME)]) if not path.startswith(('/lib', '/usr'))])
    return root


def _libraries(programs):
    """Return the paths of all shared libraries of these files, and of what loads them."""
    child = subprocess.Popen(['ldd'] + programs, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             universal_newlines=True)
    return sorted(set(re.findall(r'(?:=> |\t)(/\S+) \(0x', child.communicate()[0])))
