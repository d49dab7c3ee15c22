"""TLS on the native transport: contexts, the handshake, and the stream on top of it.

Certificates are verified by OpenSSL; the name is compared by certificates.py on every Python, so that all hold to the
same rules. Where there is no SSLContext (2.6, 2.7 before 2.7.9) neither SNI nor a lowest version can be had: lack()
says so, and transports.py decides what follows. Called by native.py, resources.py, abilities.py and probe.py, which
import it when they need it: the ssl module is slow to load.
Raises TransportError; Refused for files that can't be used.
"""

import os
import re
import select
import socket
import time

from agent import certificates, compat, credentials, ip, streams, text
from agent.errors import TransportError
from agent.moves import stamp_of
from agent.rules import Refused

try:
    import ssl
except ImportError:
    ssl = None

# Where systems keep the certificates that they trust, in one file.
BUNDLES = (
    '/etc/pki/tls/certs/ca-bundle.crt',    # Red Hat, from 5 on
    '/etc/ssl/certs/ca-certificates.crt',  # Debian, Alpine
    '/etc/ssl/ca-bundle.pem',              # SUSE
    '/var/lib/ca-certificates/ca-bundle.pem',
    '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
    '/etc/ssl/cert.pem',                   # Alpine without its ca-certificates
)

# OpenSSL's verify codes that mean: no way from this certificate to one that is trusted.
_NO_WAY = (2, 18, 19, 20, 21)
_PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN, which only 3.10 names: ca_file may hold any, as for cURL
_NOISE = re.compile(r'\[[A-Za-z0-9]+(?:: \w+)?( \d+)?\] |_ssl\.c:\d+: | ?\(_ssl\.c:\d+\)|'
                    r'error:[0-9A-Fa-f]+:[^:]*:[^:]*:')


def lack():
    """Return why https can't be had from this Python as it has to be (SPEC 4: verified, SNI, TLS 1.2), or ''."""
    if ssl is None:
        return 'this Python has no ssl module'
    if not hasattr(ssl, 'SSLContext'):
        return 'this Python can neither name the host in the handshake (SNI) nor insist on TLS 1.2'
    if not getattr(ssl, 'HAS_SNI', False):
        return 'this Python\'s OpenSSL can\'t name the host in the handshake (SNI)'
    if not getattr(ssl, 'HAS_TLSv1_2', hasattr(ssl, 'PROTOCOL_TLSv1_2')):
        return 'this Python\'s OpenSSL has no TLS 1.2'
    return ''


def described():
    """Return what this Python can do, in words."""
    if ssl is None:
        return 'none'
    able = [words for name, words in (('SSLContext', 'SSLContext'), ('HAS_SNI', 'SNI'), ('PROTOCOL_TLSv1_2', 'TLS 1.2'),
                                      ('HAS_TLSv1_3', 'TLS 1.3')) if getattr(ssl, name, False)]
    return '%s (%s)' % (getattr(ssl, 'OPENSSL_VERSION', 'OpenSSL'), ', '.join(able) or 'verifies, no SNI')


def bundle(paths=BUNDLES):
    """Return the system's file of trusted certificates; raises Refused when there is none."""
    for path in paths:
        if os.path.isfile(path) and os.access(path, os.R_OK):
            return path
    raise Refused('no file of trusted certificates was found (%s): set ca_file' % ', '.join(paths))


def files_of(receiver):
    """Return (trusted certificates, our certificate, its key) of a receiver: paths, '' for none.

    Raises Refused when one of them can't be read, or others can read the key.
    """
    files = receiver.tls_verify and (receiver.ca_file or bundle()) or '', receiver.client_cert, receiver.client_key
    for path in files:
        if path and not os.access(path, os.R_OK):
            raise Refused('%s: can\'t be read' % text.shown(path))
    if receiver.client_cert:
        _, raw = credentials.read_private(receiver.client_key or receiver.client_cert)
        if b'ENCRYPTED' in raw:
            raise Refused('%s: the key is encrypted, and nobody is there to type its passphrase: decrypt it' %
                          text.shown(receiver.client_key or receiver.client_cert))
    return files


class Contexts(object):
    """The TLS contexts of all receivers, each made once and again when one of its files changed.

    Used by several threads at once: what two of them do twice does no harm.
    """

    def __init__(self):
        self._known = {}  # the receiver's settings -> Context

    def get(self, receiver):
        """Return the Context of `receiver` (records.Receiver); raises Refused when its files can't be used."""
        key = receiver.ca_file, receiver.tls_verify, receiver.client_cert, receiver.client_key
        known = self._known.get(key)
        if known is None or known.stamps != _stamps(known.files):
            files = files_of(receiver)
            stamps = _stamps(files)
            known = self._known[key] = Context(*files)
            known.stamps = stamps
        return known


def _stamps(paths):
    stamps = []
    for path in paths:
        try:
            stamps.append(path and stamp_of(os.stat(path)))
        except EnvironmentError:
            stamps.append(None)  # files_of() says why
    return stamps


class Context(object):
    """How to begin TLS with a receiver. trusted: file of certificates, '' = verify nothing; certificate, key: files of
    what we show of ourselves, or ''. Raises Refused when they can't be used."""

    def __init__(self, trusted, certificate, key):
        self.trusted, self._certificate, self._key = self.files = trusted, certificate, key
        self.stamps = []  # of the files, when they were read
        self._context = compat.tls_context(ssl)
        try:
            if self._context is not None:
                self._load()
            else:
                self._try()
        except EnvironmentError as error:  # an SSLError is one
            raise Refused('%s: can\'t be used: %s' % (
                ', '.join([text.shown(path) for path in (trusted, certificate, key) if path]), words(error)))

    def _load(self):
        if self.trusted:
            self._context.verify_mode = ssl.CERT_REQUIRED  # the name is for certificates.py to compare
            self._context.verify_flags |= _PARTIAL_CHAIN
            self._context.load_verify_locations(self.trusted)
        if self._certificate:
            self._context.load_cert_chain(self._certificate, self._key or None)

    def _try(self):
        # These Pythons read the files with each handshake; whether they can be is to be known before.
        one, other = compat.socket_pair()
        self.wrap(one, '').close()
        if self._certificate:
            check_pair(self._certificate, self._key or None)
        other.close()

    def wrap(self, sock, host):
        """Return an SSL socket on `sock`, which is not blocking from now on, its handshake still to be done."""
        sock.setblocking(False)
        if self._context is not None:
            named = getattr(ssl, 'HAS_SNI', False) and not ip.packed(host)  # RFC 6066 3: no addresses
            return self._context.wrap_socket(sock, do_handshake_on_connect=False,
                                             server_hostname=host.rstrip('.') if named else None)
        sock.getpeername()  # else 2.6 takes a connection that was lost for one that is to come
        return ssl.wrap_socket(sock, self._key or None, self._certificate or None, ssl_version=ssl.PROTOCOL_SSLv23,
                               cert_reqs=ssl.CERT_REQUIRED if self.trusted else ssl.CERT_NONE,
                               ca_certs=self.trusted or None, do_handshake_on_connect=False)

    def blind(self):
        """Return the same Context without verification: to look at a certificate, never to send anything."""
        return Context('', self._certificate, self._key)


def check_pair(certificate, key):
    """Raise SSLError unless the key fits the certificate: without SSLContext only a handshake shows it, here with
    ourselves. certificate, key: paths; key None: it is in the first."""
    one, other = compat.socket_pair()
    waiting = [ssl.wrap_socket(one, key, certificate, server_side=True, do_handshake_on_connect=False),
               ssl.wrap_socket(other, do_handshake_on_connect=False)]
    while waiting:
        end = waiting.pop(0)
        end.setblocking(False)
        try:
            end.do_handshake()
        except ssl.SSLError as error:
            if not _wanted(error):
                raise
            waiting.append(end)


class TlsStream(object):
    """As streams.PlainStream. sock: what Context.wrap() returned; never blocking: each wait is a poll() of our own, so
    that all Pythons wait alike (2.x has no time-out of its own for each, 2.6 spins in sendall())."""
    PIECE = 16384  # bytes of one record

    def __init__(self, sock, seconds):
        self.sock = sock
        self._seconds = seconds
        self._ahead = b''  # read before anybody asked for it
        self._ended = False
        self._wants = select.POLLOUT  # what the next send waits for
        self._again = None  # what the send before could not get rid of

    def handshake(self, seconds):
        """Do the handshake within so many seconds. Raises TransportError('tls'), with hold = True when the certificate
        is not valid, and what the socket raises."""
        until = compat.monotonic() + seconds
        while True:
            try:
                self.sock.do_handshake()
                return
            except ssl.SSLError as error:
                events = _wanted(error)
                if not events:
                    raise _failure('the TLS handshake failed', error)
            left = until - compat.monotonic()
            if left <= 0 or not streams.poll(self.sock, events, left):
                raise socket.timeout('timed out')

    def certificate(self):
        """Return the peer's Certificate; raises TransportError when it has none that can be read."""
        try:
            return certificates.parse(self.sock.getpeercert(True) or b'')
        except ValueError as error:
            raise TransportError('tls', 'the certificate can\'t be read: %s' % error, hold=True)

    def _read(self, most):
        """Return what there is now: bytes, b'' at the end, or None: nothing yet."""
        try:
            return self.sock.read(most)
        except ssl.SSLError as error:
            # OpenSSL 3 has an error of its own for an end without TLS's own, which older Pythons do not know.
            unknown_end = 'unexpected eof' in str(error).lower()
            if error.args[0] in (ssl.SSL_ERROR_EOF, ssl.SSL_ERROR_ZERO_RETURN) or unknown_end:
                return b''
            if not _wanted(error):
                raise _failure('TLS failed', error)
            return None

    def take(self, most):
        """As of PlainStream."""
        if self._ahead or self._ended:
            taken, self._ahead = self._ahead[:most], self._ahead[most:]
            return taken
        return self._read(most)

    def recv(self, most):
        """Return the next bytes, at most `most`, b'' at the end."""
        while True:
            raw = self.take(most)
            if raw is not None:
                return raw
            if not streams.poll(self.sock, select.POLLIN, self._seconds):
                raise socket.timeout('timed out')

    def sendall(self, raw):
        """Send all of it."""
        while raw:
            sent = self.send(raw)
            raw = raw[sent:]
            if not sent and not streams.poll(self.sock, self._wants, self._seconds):
                raise socket.timeout('timed out')

    def send(self, raw):
        """Send what there is room for, one record at most; return how many bytes that was. What was not taken has to
        come again."""
        piece, self._again = self._again or raw[:self.PIECE], None
        try:
            sent = self.sock.write(piece)
        except ssl.SSLError as error:
            self._wants = _wanted(error)
            if not self._wants:
                raise _failure('TLS failed', error)
            self._again = piece  # 2.6 does not tell OpenSSL that the bytes may come from another place
            return 0
        self._wants = select.POLLOUT
        return sent

    def readable(self, seconds):
        """As PlainStream. What came may be TLS's own, such as a ticket: that is not something to read."""
        until = compat.monotonic() + seconds
        while not self._look():
            left = until - compat.monotonic()
            if left <= 0 or not streams.poll(self.sock, select.POLLIN, left):
                return False
        return True

    def _look(self):
        if not self._ahead and not self._ended:
            raw = self._read(streams.PlainStream.PIECE)
            self._ahead, self._ended = raw or b'', raw == b''
        return bool(self._ahead) or self._ended

    def ready(self):
        """As PlainStream."""
        while True:
            events = streams.poll(self.sock, select.POLLIN | self._wants, self._seconds)
            if not events:
                raise socket.timeout('timed out')
            if events & ~select.POLLOUT and self._look():
                return True
            if events & self._wants:
                return False

    def idle(self):
        """As PlainStream."""
        try:
            return not self._look()
        except (EnvironmentError, TransportError):
            return False


def check_name(certificate, host):
    """Raise TransportError, hold = True, unless `certificate` is for `host`."""
    if not certificates.matches(certificate, host):
        raise TransportError('tls', 'certificate not valid: %s' % (
            certificates.problem(certificate, host, time.time()) or 'issued for other names'), hold=True)


def explain(error, certificate, host, trusted):
    """Return the TransportError to raise instead of `error`: says what is wrong with `certificate`.

    error: what the handshake raised, hold = True; host: the name it should be for; trusted: file of certificates.
    """
    why = certificates.problem(certificate, host, time.time())
    if not why:
        code, message = getattr(error, 'verify', (None, ''))
        if code is not None and code not in _NO_WAY:
            why = message
        elif certificate.self_issued:
            why = 'self-signed, and not among those in %s' % text.shown(trusted)
        else:
            why = 'unknown issuer: %s: not in %s, or the receiver leaves out a certificate in between' % (
                certificate.issuer, text.shown(trusted))
    return TransportError('tls', 'certificate not valid: %s' % why, hold=True)


def words(error):
    """Return what an error of the ssl module says, without its numbers."""
    if ssl is not None and isinstance(error, ssl.SSLError):
        return _NOISE.sub('', str(error)).strip() or 'TLS error'
    return streams.words(error)


def _wanted(error):
    """Return the events that a call waits for which ended with `error`; 0 when it failed."""
    return {ssl.SSL_ERROR_WANT_READ: select.POLLIN, ssl.SSL_ERROR_WANT_WRITE: select.POLLOUT}.get(error.args[0], 0)


def _failure(what, error):
    """Return the TransportError for an SSLError."""
    says = words(error)
    invalid = 'certificate verify failed' in says.lower().replace('_', ' ')
    failure = TransportError('tls', '%s: %s' % (what, says), hold=invalid)
    failure.verify = getattr(error, 'verify_code', None), getattr(error, 'verify_message', '')
    return failure
