"""What this interpreter and this host can do, for `envio version`. Called by cli.py. Raises nothing."""

import os
import subprocess
import sys

from agent import __version__, compat

CURL_FOLDERS = ('/usr/bin', '/bin', '/usr/local/bin', '/opt/csw/bin')


def lines():
    """Return what there is to say, a line each."""
    return ['envio %s' % __version__,
            'Python %s (%s)' % (sys.version.split()[0], sys.executable),
            'TLS: %s' % tls(),
            'cURL: %s' % curl()]


def tls():
    """Return what the interpreter's ssl module can do, in words."""
    try:
        import ssl
    except ImportError:
        return 'none: this Python has no ssl module'
    able = [words for name, words in (('SSLContext', 'verifies'), ('HAS_SNI', 'SNI'), ('PROTOCOL_TLSv1_2', 'TLS 1.2'),
                                      ('HAS_TLSv1_3', 'TLS 1.3')) if getattr(ssl, name, False)]
    return '%s, %s (https is not yet supported)' % (
        getattr(ssl, 'OPENSSL_VERSION', 'OpenSSL, version unknown'), ', '.join(able) or 'no verification, no SNI')


def curl():
    """Return the path and version of the system's cURL, in words."""
    for folder in CURL_FOLDERS:
        path = folder + '/curl'
        if os.access(path, os.X_OK):
            try:
                process = subprocess.Popen([path, '-q', '-V'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                           close_fds=True)
                answer = process.communicate()[0]
            except OSError as error:
                return '%s can\'t be run: %s' % (path, compat.error_text(error))
            return '%s (%s)' % (path, compat.native_text(compat.decode(answer.split(b'\n')[0])))
    return 'none found'
