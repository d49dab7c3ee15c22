"""What this Python and this host can do, for `envio version` and `envio check`. Called by cli.py. Raises nothing."""

import sys

from agent import __version__, curl_program, tls
from agent.rules import Refused


def lines(environ):
    """Return what there is to say, a line each; environ: the environment."""
    return ['envio %s' % __version__,
            'Python %s (%s)' % (sys.version.split()[0], sys.executable),
            'TLS: %s' % tls.described(),
            'cURL: %s' % curl(environ),
            https(environ)]


def curl(environ):
    """Return the path and version of the system's cURL, in words."""
    try:
        program = curl_program.find(environ)
    except Refused as refused:
        return str(refused)
    return '%s (%s)' % (program.path, program.words)


def https(environ):
    """Return how https is done where the configuration says transport = auto, and why so."""
    lack = tls.lack()
    if not lack:
        return 'https: by this Python'
    try:
        program = curl_program.find(environ)
        other = curl_program.lack(program)
    except Refused as refused:
        other = str(refused)
    if other:
        return 'https: not possible: %s, and %s' % (lack, other)
    return 'https: by %s: %s' % (program.path, lack)
