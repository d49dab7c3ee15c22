"""The TLS side of the tryout receiver: the certificate it shows, and how a connection begins and ends with it.

Called by receiver.py, and only when it is to speak https: the ssl module is slow to load. Raises AgentError for a
certificate that can't be made or used, and what sockets raise, for a handshake that fails too.
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile

from agent import compat, ip, text
from agent.errors import AgentError
from agent.tls import check_pair, ssl, words

DAYS = 30  # that a certificate made for the occasion is valid

# What OpenSSL 0.9.8 to 3 can do, all of it. Without keyUsage every client takes it for its own issuer.
_COMMAND = ['openssl', 'req', '-config', 'openssl.cnf', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '%d' % DAYS,
            '-keyout', 'key.pem', '-out', 'cert.pem']
_CONFIG = """\
[req]
prompt = no
default_md = sha256
distinguished_name = subject
x509_extensions = extensions
[subject]
CN = envio receiver
[extensions]
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = @names
[names]
%s
"""


class Identity(object):
    """What a server shows of itself.

    cert, key: paths of PEM files, key None: it is in the first; folder: what close() removes, None: nothing.
    Raises AgentError when they can't be used.
    """

    def __init__(self, cert, key=None, folder=None):
        self.cert = cert
        self._key = key
        self._folder = folder
        if ssl is None:
            raise AgentError('receiver: this Python has no ssl module: take another one, or plain http')
        _check(cert, key)
        self._context = compat.tls_context(ssl, server_side=True)
        try:
            if self._context is not None:
                self._context.load_cert_chain(cert, key)
            else:
                check_pair(cert, key)
        except EnvironmentError as error:
            raise AgentError('receiver: the certificate %s can\'t be used: %s: it must be PEM, with its key behind it '
                             'or in the file of --key' % (text.shown(cert), words(error)))

    def wrap(self, sock):
        """Return a TLS socket in place of `sock`, its handshake still to be done. Raises EnvironmentError."""
        sock.getpeername()  # else 2.6 takes a connection that was lost for one that is to come
        if self._context:
            return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return ssl.wrap_socket(sock, self._key, self.cert, server_side=True, do_handshake_on_connect=False)

    def begin(self, sock, replace):
        """Return a TLS socket in place of `sock`, which is closed, its handshake done.

        replace: function(TLS socket), called before the handshake, which may take for ever; what it raises goes on.
        Raises AgentError when the handshake fails.
        """
        try:
            secured = self.wrap(sock)
        except EnvironmentError as error:
            raise _failure(error)
        sock.close()  # Python 3 emptied it, on Python 2 it would keep the connection open
        replace(secured)
        try:
            secured.do_handshake()
        except EnvironmentError as error:
            raise _failure(error)
        return secured

    def end(self, sock):
        """Tell the peer that no more will come (RFC 8446 6.1), without waiting for its answer."""
        try:
            sock.settimeout(0)
            sock.unwrap()
        except (EnvironmentError, ValueError):
            pass  # its answer is not there yet, or nobody is there

    def close(self):
        """Remove what was made for the occasion."""
        if self._folder:
            shutil.rmtree(self._folder, True)


def _failure(error):
    return AgentError('TLS handshake failed: %s' % words(error))


def _check(cert, key):
    """Raise AgentError when a file can't be read, or OpenSSL would ask for a passphrase."""
    for path in (cert, key or cert):
        try:
            with open(path, 'rb') as page:
                encrypted = b'ENCRYPTED' in page.read()
        except EnvironmentError as error:
            raise AgentError('receiver: %s can\'t be read: %s' % (text.shown(path), compat.error_text(error)))
        if encrypted:
            raise AgentError('receiver: the key in %s is encrypted: decrypt it, nobody is asked for a passphrase'
                             % text.shown(path))


def self_signed(host):
    """Return an Identity made for the occasion: for localhost, `host` and the name of this host, for DAYS.

    The openssl program makes it, in a new folder that nobody else can look into. Raises AgentError.
    """
    identity = folder = None
    try:
        folder = tempfile.mkdtemp('', 'envio-receiver-')
        with open(os.path.join(folder, 'openssl.cnf'), 'w') as page:
            page.write(_CONFIG % '\n'.join(_names(host)))
        _run_openssl(folder)
        identity = Identity(os.path.join(folder, 'cert.pem'), os.path.join(folder, 'key.pem'), folder)
    except EnvironmentError as error:
        raise AgentError('receiver: can\'t make a certificate: %s' % compat.error_text(error))
    finally:
        if folder and not identity:
            shutil.rmtree(folder, True)
    return identity


def _names(host):
    """Return the lines that list the names of a certificate."""
    lines, known = [], set()
    for name in ('localhost', '127.0.0.1', '::1', host, socket.gethostname()):
        kind = 'IP' if ip.packed(name) else 'DNS'
        if name not in known and (kind == 'IP' or re.match(r'[A-Za-z0-9._-]+\Z', name)):
            known.add(name)
            lines.append('%s.%d = %s' % (kind, len(known), name))
    return lines


def _run_openssl(folder):
    """Make key and certificate in `folder` as openssl.cnf there says; raises AgentError."""
    try:
        process = subprocess.Popen(_COMMAND, close_fds=True, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)
    except OSError as error:
        raise AgentError('receiver: --tls needs the openssl program to make a certificate: %s: install it, or give a '
                         'certificate of your own by --cert' % compat.error_text(error))
    said = process.communicate()[0]
    if process.returncode:
        raise AgentError('receiver: openssl made no certificate: %s' % text.printable(b' '.join(said.split()), 1000))
