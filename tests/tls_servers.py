"""What stands between an agent and its receivers where it isn't plain HTTP: TLS servers and proxies, for tests.

The system's nginx with every kind of certificate, its Apache and its tinyproxy (see tests/programs.py), and a proxy of
our own that knows every name. All of them listen on 127.0.0.1 and end with stop() or with their `with` block.
"""

import base64
import grp
import os
import pwd
import re
import shutil
import socket
import threading

from agent import compat
from tests import nobody
from tests.authority import SERVER_LABELS
from tests.programs import Daemon

# --- nginx

_NGINX_CONF = r'''
daemon off;
%(user)s
worker_processes 2;
pid "%(folder)s/pid";
error_log "%(folder)s/error.log" info;
events { worker_connections 256; }
http {
    client_body_temp_path "%(folder)s/tmp-body";
    proxy_temp_path "%(folder)s/tmp-proxy";
    fastcgi_temp_path "%(folder)s/tmp-fastcgi";
    uwsgi_temp_path "%(folder)s/tmp-uwsgi";
    scgi_temp_path "%(folder)s/tmp-scgi";
    map $http_x_inner $from_outside { default 1; yes 0; }
    map $server_port $label { %(labels)s }
    map "$ssl_protocol" $protocol { "" -; default $ssl_protocol; }
    map "$ssl_session_reused" $resumed { default -; r resumed; }
    log_format plain '$connection $request_method $request_uri $status $request_length $label $protocol $resumed';
    access_log "%(folder)s/access.log" plain if=$from_outside;
    default_type text/plain;
    client_max_body_size 0;
    ssl_protocols TLSv1.2 TLSv1.3;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header X-Inner yes;
    upstream self { server 127.0.0.1:%(http)d; keepalive 8; }
    server {
        listen 127.0.0.1:%(http)d;
        location /in { proxy_pass http://self/ok; }
        location /ok { return 200 "ok\n"; }
    }
%(servers)s
}
'''

# The body is read whole before it is passed on, so /in answers after it.
_NGINX_SERVER = r'''
    server {
        listen 127.0.0.1:%(port)d ssl %(default)s;
        server_name %(names)s;
        ssl_certificate "%(cert)s";
        ssl_certificate_key "%(key)s";
        %(settings)s
        location /in { proxy_pass http://self/ok; }
    }
'''

# What a server has beside the good certificate, by label.
_NGINX_SETTINGS = {
    'client_required': 'ssl_client_certificate "%(ca)s"; ssl_verify_client on;',
    'tls10': 'ssl_protocols TLSv1; ssl_ciphers DEFAULT:@SECLEVEL=0;',
    'tls13': 'ssl_protocols TLSv1.3;',
    'small': 'client_max_body_size 1k; lingering_close off;',
    'few': 'keepalive_requests 3;',
}


class NginxTls(Daemon):
    """One nginx with a port for every server certificate of an Authority, and for other things a server can be.

    Any method on /in and what begins so: the body is read whole and thrown away, 200. See port() for the labels.
    """

    names = ('nginx',)
    labels = SERVER_LABELS + tuple(sorted(_NGINX_SETTINGS)) + ('sni', 'http')

    def __init__(self, folder, authority):
        Daemon.__init__(self, folder)
        self.absent = self.absent or authority.absent
        self._authority = authority

    def port(self, label):
        """Return the port of the server `label`, valid from the first start() on.

        A label of Authority.certificate(): the server with that certificate. With the good certificate:
        client_required (without a client certificate: 400), tls10 and tls13 (nothing else), small (413 over 1 KiB, the
        connection closed at once), few (3 requests a connection).
        sni: good for the names localhost and good.envio.test, other_name for any other and for who says none.
        http: no TLS.
        """
        return self.ports[label]

    def log(self):
        """Return the requests so far as lines, in the order of their ends:
        `connection method URI status bytes label protocol resumed`, the last two `-` if there is none.

        A line may come a moment after its answer; after stop() all are there.
        """
        return self._read('access.log').splitlines()

    def _configure(self):
        servers = [self._server(label, label) for label in SERVER_LABELS]
        servers += [self._server(label, 'good', settings) for label, settings in sorted(_NGINX_SETTINGS.items())]
        servers += [self._server('sni', 'other_name', default='default_server'),
                    self._server('sni', 'good', names='localhost good.envio.test')]
        user = ''
        if os.geteuid() == 0:  # its workers would become another user, who can't reach the folder
            user = 'user %s %s;' % (pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name)
        labels = ' '.join(['%d %s;' % (port, label) for label, port in self.ports.items()])
        self._write('nginx.conf', _NGINX_CONF % {
            'folder': self.folder, 'user': user, 'labels': labels, 'http': self.ports['http'],
            'servers': ''.join(servers)})

    def _server(self, label, certificate, settings='', default='', names='_'):
        pair = self._authority.certificate(certificate)
        return _NGINX_SERVER % {
            'port': self.ports[label], 'default': default, 'names': names, 'cert': pair.cert, 'key': pair.key,
            'settings': settings.replace('%(ca)s', self._authority.ca)}

    def _command(self):
        return [self.program, '-p', self.folder, '-c', os.path.join(self.folder, 'nginx.conf')]


# --- Apache

_APACHE_CONF = r'''
ServerRoot "%(folder)s"
ServerName localhost
%(modules)s
%(user)s
PidFile "%(folder)s/pid"
DefaultRuntimeDir "%(folder)s"
ErrorLog "%(folder)s/error.log"
StartServers 1
ServerLimit 2
ThreadsPerChild 32
MaxRequestWorkers 64
MinSpareThreads 1
MaxSpareThreads 64
SSLSessionCache none
DavLockDB "%(open)s/locks"
DocumentRoot "%(open)s/stored"
Alias /stored/ "%(open)s/stored/"
AliasMatch ^/(in|small) "%(open)s/ok.txt"
<Location /stored>
    Dav on
</Location>
<Location /small>
    LimitRequestBody 1024
</Location>
'''

_APACHE_SERVER = r'''
Listen 127.0.0.1:%(port)d
<VirtualHost 127.0.0.1:%(port)d>
    CustomLog "%(folder)s/access.log" "%%{remote}p %%m %%U %%>s %(label)s"
    %(settings)s
</VirtualHost>
'''

_APACHE_TLS = 'SSLEngine on\n    SSLCertificateFile "%s"\n    SSLCertificateKeyFile "%s"\n    '

_APACHE_BASE = ('mpm_event', 'unixd', 'log_config', 'authz_core')  # some builds have them inside
_APACHE_NEEDED = ('alias', 'dav', 'dav_fs', 'ssl')
_APACHE_FOLDERS = ('/usr/lib/apache2/modules', '/usr/lib64/httpd/modules', '/usr/lib/httpd/modules', '/usr/lib/apache2')


class Apache(Daemon):
    """The system's Apache, with and without TLS.

    PUT /stored/NAME: stored (201 new, 204 again), see stored(). POST on /in and what begins so: the body is read whole
    and thrown away, 200. /small the same, but 413 over 1 KiB.
    """

    names = ('apache2', 'httpd')
    labels = ('http', 'https', 'client_required', 'few')

    def __init__(self, folder, authority):
        Daemon.__init__(self, folder)
        self._authority = authority
        self._modules = _apache_modules()
        lacking = ['mod_' + name for name in _APACHE_NEEDED if name not in self._modules]
        if lacking and not self.absent:
            self.absent = 'the Apache of this machine has no ' + ', '.join(lacking)
        self.absent = self.absent or authority.absent
        self._open = None

    def port(self, label):
        """Return the port of the server `label`, valid from the first start() on: http; with the good certificate
        https, client_required (refuses the handshake without a client certificate) and few (4 requests a connection:
        Apache counts those behind the first).
        """
        return self.ports[label]

    def stored(self, name):
        """Return the bytes that were PUT to /stored/NAME."""
        with open(os.path.join(self._open or self.folder, 'stored', name), 'rb') as page:
            return page.read()

    def log(self):
        """Return the requests so far as lines `peer's-port method path status label`, in the order of their ends."""
        return self._read('access.log').splitlines()

    def stop(self, patience=10):
        """End it, as Daemon.stop()."""
        Daemon.stop(self, patience)
        if self._open:
            shutil.move(os.path.join(self._open, 'stored'), self.folder)
            nobody.remove(self._open)
            self._open = None

    def _configure(self):
        settings = self._settings()
        self._open_up()
        user = 'User #%d\nGroup #%d' % (nobody.NOBODY, nobody.NOBODY) if os.geteuid() == 0 else ''
        modules = ['LoadModule %s_module "%s"' % (name, self._modules[name])
                   for name in _APACHE_BASE + _APACHE_NEEDED if name in self._modules]
        page = _APACHE_CONF % {'folder': self.folder, 'open': self._open, 'user': user, 'modules': '\n'.join(modules)}
        for label in self.labels:
            page += _APACHE_SERVER % {'port': self.ports[label], 'folder': self.folder, 'label': label,
                                      'settings': settings[label]}
        self._write('apache.conf', page)

    def _settings(self):
        """Return what each server has of its own, by label."""
        tls = _APACHE_TLS % self._authority.certificate('good')
        return {
            'http': '',
            'https': tls,
            'client_required': tls + 'SSLVerifyClient require\n    SSLCACertificateFile "%s"' % self._authority.ca,
            'few': tls + 'MaxKeepAliveRequests 3',
        }

    def _open_up(self):
        """Make the folder for what its processes touch: none of them stays root, and `folder` is closed to others."""
        self._open = nobody.make_folder()
        with open(os.path.join(self._open, 'ok.txt'), 'w') as page:
            page.write('ok\n')
        stored = os.path.join(self._open, 'stored')
        if os.path.isdir(os.path.join(self.folder, 'stored')):  # from before a stop()
            shutil.move(os.path.join(self.folder, 'stored'), stored)
        else:
            os.mkdir(stored)
        nobody.give(stored)

    def _command(self):
        return [self.program, '-d', self.folder, '-f', os.path.join(self.folder, 'apache.conf'), '-DFOREGROUND']


def _apache_modules():
    """Return the paths of the modules that are there, by name."""
    for folder in _APACHE_FOLDERS:
        paths = [(name, os.path.join(folder, 'mod_%s.so' % name)) for name in _APACHE_BASE + _APACHE_NEEDED]
        found = dict([(name, path) for name, path in paths if os.path.exists(path)])
        if found:
            return found
    return {}


# --- tinyproxy

class Tinyproxy(Daemon):
    """The system's tinyproxy: any host, any port; with a user, for him alone. It resolves names as the system does.

    Without credentials: 407; with wrong ones: 401 (so does 1.11). Connections to it are not kept.
    port: where it listens, valid from the first start() on.
    """

    names = ('tinyproxy',)
    labels = ('proxy',)

    def __init__(self, folder, user=None, password=None):
        Daemon.__init__(self, folder)
        self._user, self._password = user, password

    @property
    def port(self):
        """Where it listens."""
        return self.ports['proxy']

    def log(self):
        """Return the request lines so far, also those that were refused."""
        return re.findall(r'(?m)^CONNECT .* Request .*?: (\S+ \S+ HTTP/\S+)$', self._read('output'))

    def _configure(self):
        page = 'Listen 127.0.0.1\nPort %d\nPidFile "%s"\nTimeout 600\nMaxClients 100\nLogLevel Connect\n' % (
            self.port, os.path.join(self.folder, 'pid'))
        if self._user is not None:
            page += 'BasicAuth %s %s\n' % (self._user, self._password)
        self._write('tinyproxy.conf', page)

    def _command(self):
        return [self.program, '-d', '-c', os.path.join(self.folder, 'tinyproxy.conf')]


# --- a proxy of our own

class _Bad(Exception):
    """The proxy can't do what was asked; its argument is the status to say so with."""


class NameProxy(object):
    """An HTTP proxy in threads of this process to whom every host name means 127.0.0.1.

    It tunnels (CONNECT) and passes on requests for http:// URLs, one a connection: it says Connection: close both ways.
    Everything after a request's head is passed on byte by byte, and each end of a stream as such.

    port: where to listen, None: anywhere free.
    names: the port to go to for each host name, whatever port is asked for; any other name is answered with 502.
        None: every name, and the port that is asked for.
    credentials: 'user:password'; who doesn't show them is answered with 407.
    answer: bytes that are sent instead of doing anything.
    requests: (request line, dictionary of headers by lower-case name) of each request so far, native, a character a
        byte; those that were refused are among them.
    """

    def __init__(self, port=None, names=None, credentials=None, answer=None):
        self.requests = []
        self._names, self._answer, self._expected = names, answer, None
        if credentials is not None:
            self._expected = 'Basic ' + compat.byte_string(base64.b64encode(compat.wire(credentials)))
        self._changed = threading.Lock()  # around the next three
        self._stopped = False
        self._sockets = []
        self._threads = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(('127.0.0.1', port or 0))
        self._listener.listen(128)
        self.port = self._listener.getsockname()[1]
        self.url = 'http://127.0.0.1:%d' % self.port
        self._acceptor = self._thread(self._accept)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Cut every connection, listen no more, wait for the threads."""
        with self._changed:
            self._stopped = True
            sockets = self._sockets + [self._listener]  # shutdown() wakes accept(); close() would not
        for each in sockets:
            _end(each, socket.SHUT_RDWR)
        self._acceptor.join(10)
        for thread in self._threads:  # no more are begun once that one has ended
            thread.join(10)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except EnvironmentError:
                return
            if not self._keep(client):
                return
            self._threads.append(self._thread(self._serve, client))

    def _keep(self, connection):
        """Let stop() cut it; False if stop() came before."""
        with self._changed:
            if self._stopped:
                connection.close()
                return False
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(connection)
            return True

    def _forget(self, connection):
        with self._changed:
            self._sockets.remove(connection)
        connection.close()

    def _serve(self, client):
        try:
            head, rest = _read_head(client)
            if head is not None:
                self._answer_to(client, head.split('\r\n'), rest)
        except EnvironmentError:
            pass  # one of the two has gone, or stop() came: no more to be done for the other
        finally:
            self._forget(client)

    def _answer_to(self, client, lines, rest):
        headers = [line.partition(':') for line in lines[1:]]
        headers = dict([(name.lower(), value.strip()) for name, _, value in headers])
        self.requests.append((lines[0], headers))
        if self._expected is not None and headers.get('proxy-authorization') != self._expected:
            _refuse(client, _refusal('407 Proxy Authentication Required', 'Proxy-Authenticate: Basic realm="envio"'))
        elif self._answer is not None:
            _refuse(client, self._answer)
        else:
            try:
                self._pass_on(client, lines, rest)
            except _Bad as bad:
                _refuse(client, _refusal(str(bad)))

    def _pass_on(self, client, lines, rest):
        method, url = _target(lines[0])
        server = self._connect(url.hostname, url.port or 80)
        try:
            if method == 'CONNECT':
                client.sendall(b'HTTP/1.1 200 Connection established\r\n\r\n')
            else:
                rest = _direct(lines, url) + rest
            back = self._thread(_pump, server, client)
            _pump(client, server, rest)
            back.join()
        finally:
            self._forget(server)

    def _connect(self, name, port):
        if self._names is not None:
            port = self._names.get(name)
        if port is None:
            raise _Bad('502 Unknown host')
        try:
            server = socket.create_connection(('127.0.0.1', port))
        except EnvironmentError as error:
            raise _Bad('502 ' + compat.error_text(error))
        if not self._keep(server):
            raise _Bad('502 Stopped')
        return server

    @staticmethod
    def _thread(target, *args):
        thread = threading.Thread(target=target, args=args)
        thread.daemon = True
        thread.start()
        return thread


def _read_head(client):
    """Return (head, native and without its empty line; the bytes that came behind it), or (None, b'') at an end."""
    received = b''
    while b'\r\n\r\n' not in received:
        piece = client.recv(65536)
        if not piece:
            return None, b''
        received += piece
    head, _, rest = received.partition(b'\r\n\r\n')
    return compat.byte_string(head), rest


def _target(line):
    """Return (method, URL taken apart) of a request line to a proxy; raises _Bad if it is none."""
    try:
        method, target, _ = line.split(' ')
        url = compat.url_parser().urlsplit('//' + target if method == 'CONNECT' else target)
        fits = url.netloc == target and url.port if method == 'CONNECT' else url.scheme == 'http' and url.port != 0
        if fits and url.hostname:
            return method, url
    except ValueError:
        pass  # not three words, or a port that is no number
    raise _Bad('400 Not a request for a proxy')


def _direct(lines, url):
    """Return the head (bytes) of a request to a proxy as the server behind it gets it."""
    method, _, version = lines[0].split(' ')
    path = (url.path or '/') + ('?' + url.query if url.query else '')
    kept = [line for line in lines[1:] if not line.lower().startswith(('proxy-', 'connection:'))]
    return compat.wire('\r\n'.join([' '.join([method, path, version])] + kept + ['Connection: close', '', '']))


def _refusal(status, *headers):
    lines = ['HTTP/1.1 ' + status] + list(headers) + ['Content-Length: 0', 'Connection: close', '', '']
    return compat.wire('\r\n'.join(lines))


def _refuse(client, raw):
    """Answer, and read until the client closes: closing on unread bytes is a reset, and that can cost it the answer."""
    client.sendall(raw)
    _end(client, socket.SHUT_WR)
    while client.recv(65536):
        pass


def _pump(source, target, first=b''):
    """Pass bytes on, those of `first` before any, until the source ends; then the target sees that end. What a target
    that has gone won't take is read all the same, so that the source isn't reset before it has seen the answer that
    came the other way."""
    there = _sent(target, first)
    try:
        for piece in iter(lambda: source.recv(65536), b''):
            there = there and _sent(target, piece)
    except EnvironmentError:
        pass  # for the target an end like any other
    _end(target, socket.SHUT_WR)


def _sent(target, piece):
    try:
        target.sendall(piece)
    except EnvironmentError:
        return False
    return True


def _end(connection, how):
    try:
        connection.shutdown(how)
    except EnvironmentError:
        pass  # it has ended by itself
