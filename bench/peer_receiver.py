"""The receiver of peers.py: nginx, which reads each body whole, stores it and answers 201; plain, by TLS, far away.

PUT /NAME stores a file of that name, at once and without another hop. A configuration of its own: rclone asks with
PROPFIND, too, and what comes by TLS is to be stored as well. keepalive_requests stays as nginx has it (1000).
"""

import contextlib
import grp
import http.client
import os
import pwd
import shutil
import subprocess
import sys
import time

import common  # noqa: F401 (finds tests/)
from tests.authority import Authority
from tests.programs import Daemon

HERE = os.path.dirname(os.path.abspath(__file__))
MEMORY = '/dev/shm'  # of every Linux, a file system in memory
ROOM = 3 << 30  # bytes
DELAY = 0.02  # seconds that a request and its answer are on their way
_CONF = r'''
daemon off;
%(modules)s
%(user)s
worker_processes 2;
pid "%(folder)s/pid";
error_log "%(folder)s/error.log";
events { worker_connections 512; }
http {
    client_body_temp_path "%(folder)s/tmp-body";
    proxy_temp_path "%(folder)s/tmp-proxy";
    fastcgi_temp_path "%(folder)s/tmp-fastcgi";
    uwsgi_temp_path "%(folder)s/tmp-uwsgi";
    scgi_temp_path "%(folder)s/tmp-scgi";
    log_format plain '$request_method $request_uri $status';
    access_log "%(folder)s/access.log" plain;
    client_max_body_size 0;
    ssl_certificate "%(cert)s";
    ssl_certificate_key "%(key)s";
    ssl_session_cache shared:all:1m;
    server {
        listen 127.0.0.1:%(plain)d;
        listen 127.0.0.1:%(tls)d ssl;
        root "%(folder)s/stored";
        location / { dav_methods PUT; %(ext)s }
    }
}
'''
_MODULES = ('/usr/lib/nginx/modules', '/usr/lib64/nginx/modules', '/usr/share/nginx/modules')


def place(folder):
    """Return where the receiver's files are to lie: in memory where that has room for all loads, else in `folder`. On a
    disk two processes of nginx that store into one folder are the limit, and not always the same one."""
    try:
        if os.path.ismount(MEMORY) and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM:
            return MEMORY
    except OSError:
        pass
    return folder


def dav_ext():
    """Return the path of nginx's module that knows PROPFIND (libnginx-mod-http-dav-ext), or None."""
    paths = [os.path.join(folder, 'ngx_http_dav_ext_module.so') for folder in _MODULES]
    return next((path for path in paths if os.path.exists(path)), None)


class Receiver(Daemon):
    """nginx with the ports `plain` and `tls`, all its files in `folder`. ca: what its certificate is checked by."""
    names, labels = ('nginx',), ('plain', 'tls')

    def __init__(self, folder):
        for name in ('authority', 'stored'):
            os.makedirs(os.path.join(folder, name))
        Daemon.__init__(self, folder)
        authority = Authority(os.path.join(folder, 'authority'))
        self.absent = self.absent or authority.absent
        self.ca = None if self.absent else authority.ca
        self._pair = None if self.absent else authority.certificate('good')
        self.stored = os.path.join(folder, 'stored')

    def url(self, secure=False):
        return 'https://127.0.0.1:%d' % self.ports['tls'] if secure else 'http://127.0.0.1:%d' % self.ports['plain']

    def puts(self, since):
        """Return what nginx answered to each PUT, in the log from byte `since` on: {(URI, status): how often}."""
        with open(os.path.join(self.folder, 'access.log')) as page:
            page.seek(since)
            lines = page.read().splitlines()
        found = {}
        for line in lines:
            method, uri, status = line.split(' ')
            if method == 'PUT':
                found[uri, status] = found.get((uri, status), 0) + 1
        return found

    def logged(self):
        """Return how many bytes the log has."""
        return os.path.getsize(os.path.join(self.folder, 'access.log'))

    def empty(self):
        shutil.rmtree(self.stored)
        os.mkdir(self.stored)

    def _configure(self):
        user, module = '', dav_ext()
        if os.geteuid() == 0:  # its workers would become another user, who can't reach the folder
            user = 'user %s %s;' % (pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name)
        self._write('nginx.conf', _CONF % {
            'folder': self.folder, 'user': user, 'cert': self._pair.cert, 'key': self._pair.key,
            'modules': 'load_module "%s";' % module if module else '', 'plain': self.ports['plain'],
            'ext': 'dav_ext_methods PROPFIND OPTIONS;' if module else '', 'tls': self.ports['tls']})

    def _command(self):
        return [self.program, '-p', self.folder, '-c', os.path.join(self.folder, 'nginx.conf')]


@contextlib.contextmanager
def relayed(receiver, delay=DELAY):
    """Give the URL of relay.py before the receiver's plain port."""
    command = [sys.executable, os.path.join(HERE, 'relay.py'), str(receiver.ports['plain']), str(delay)]
    relay = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, universal_newlines=True)
    try:
        yield 'http://127.0.0.1:%d' % int(relay.stdout.readline())
    finally:
        relay.terminate()
        relay.communicate()


def round_trip(url, count=20):
    """Return the median time of a request on an open connection, in seconds."""
    connection, times = http.client.HTTPConnection(url.split('//')[1]), []
    for _ in range(count):
        begin = time.perf_counter()
        connection.request('GET', '/nothing')
        connection.getresponse().read()
        times.append(time.perf_counter() - begin)
    connection.close()
    return sorted(times)[count // 2]


# --- where the kernel can delay: everything in a network of its own, whose loopback takes half of DELAY each way

_NETEM = 'ip link set lo up && tc qdisc add dev lo root netem delay %dms limit 100000' % (DELAY * 500)
_SBIN = dict(os.environ, PATH=os.environ.get('PATH', '') + ':/usr/sbin:/sbin')


def netem():
    """Return True when this kernel delays packets, and lets us have a network of our own."""
    try:
        return subprocess.call(['unshare', '-n', 'sh', '-c', _NETEM], env=_SBIN, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def run_far(command):
    """Run a command in a network of its own with that delay; return its exit code."""
    return subprocess.call(['unshare', '-n', 'sh', '-c', _NETEM + ' && exec "$@"', 'sh'] + command, env=_SBIN)
