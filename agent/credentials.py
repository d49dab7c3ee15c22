"""What proves to a receiver who we are: passwords, tokens and headers from files that only their owner can read.

A file is looked at for each request and read again when it changed, so that a rotated token needs no restart. Nothing
that is raised or logged here holds a secret. Called by resources.py. Raises rules.Refused.
"""

import os
import re
import stat

from agent import compat, settings, text
from agent.moves import stamp_of
from agent.rules import Refused

MOST = 65536  # bytes of such a file

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | compat.O_CLOEXEC
_TOKEN = re.compile(b'[!-~]+\\Z')
_PASSWORD = re.compile(b'[^\x00-\x1f\x7f]+\\Z')  # RFC 7617 2: no control characters


class Credentials(object):
    """The secrets of all receivers. Used by several threads at once: what two of them do twice does no harm."""

    def __init__(self):
        self._known = {}  # path -> (Stamp, bytes)
        self._fields = {}  # receiver's name and files -> (their bytes, the headers made of them)

    def fields(self, receiver):
        """Return the headers that prove who we are to `receiver`: ((name, value), ...), a byte a character.

        The very same tuple as long as no file changed. Raises Refused when a file can't be used.
        """
        paths = receiver.password_file, receiver.token_file, receiver.secret_headers_file
        if not any(paths):
            return ()
        raws = [path and self._read(path) for path in paths]
        key = (receiver.name, receiver.username) + paths
        known = self._fields.get(key)
        if known is None or known[0] != raws:
            known = self._fields[key] = raws, _compose(receiver, *raws)
        return known[1]

    def _read(self, path):
        known = self._known.get(path)
        if known is not None:
            try:
                if stamp_of(os.stat(path)) == known[0]:
                    return known[1]
            except EnvironmentError:
                pass  # said below
        stamp, raw = read_private(path)
        if not raw.strip():
            if known is None:
                raise Refused('%s: is empty' % text.shown(path))
            return known[1]  # somebody is about to write it: what was in it holds until then
        self._known[path] = stamp, raw
        return raw


def read_private(path):
    """Return (Stamp, bytes) of a file that its owner alone can read. Raises Refused with the reason."""
    try:
        fd = os.open(path, _FLAGS)
    except EnvironmentError as error:
        raise Refused('%s: can\'t be read: %s' % (text.shown(path), compat.error_text(error)))
    try:
        status = os.fstat(fd)
        check_private(path, status)
        if status.st_size > MOST:
            raise Refused('%s: is larger than 64 KiB: surely not that file' % text.shown(path))
        return stamp_of(status), os.read(fd, MOST)
    except EnvironmentError as error:
        raise Refused('%s: can\'t be read: %s' % (text.shown(path), compat.error_text(error)))
    finally:
        os.close(fd)


def check_private(path, status):
    """Raise Refused unless a stat result is that of a regular file, ours or root's, that nobody else can read."""
    if not stat.S_ISREG(status.st_mode):
        raise Refused('%s: is not a regular file' % text.shown(path))
    if status.st_uid not in (0, os.geteuid()):
        raise Refused('%s: belongs to another account (%d): chown it' % (text.shown(path), status.st_uid))
    if status.st_mode & 0o077:
        raise Refused('%s: others may read or write it: chmod 600 it' % text.shown(path))


def basic(pair):
    """Return the value of a header that proves who we are by `user:password`, bytes (RFC 7617 2)."""
    import base64  # here: slow to load, and few need it
    return 'Basic ' + compat.byte_string(base64.b64encode(pair))


def _compose(receiver, password, token, headers):
    fields = []
    if password:
        word = _single_line(receiver.password_file, password, _PASSWORD, 'one line: a password')
        pair = compat.config_bytes(receiver.username) + b':' + word
        fields.append(('Authorization', basic(pair)))
    if token:
        word = _single_line(receiver.token_file, token, _TOKEN, 'one line: a token without blanks')
        fields.append(('Authorization', 'Bearer ' + compat.byte_string(word)))  # RFC 6750 2.1
    return tuple(fields) + (_headers(receiver, headers, fields) if headers else ())


def _single_line(path, raw, form, wanted):
    line = raw[:-1] if raw.endswith(b'\n') else raw
    line = line[:-1] if line.endswith(b'\r') else line
    if not form.match(line):
        raise Refused('%s: does not hold %s' % (text.shown(path), wanted))
    return line


def _headers(receiver, raw, others):
    path, fields = receiver.secret_headers_file, []
    authorized = 'authorization' in [name.lower() for name, _ in others + list(receiver.headers)]
    for number, line in enumerate(raw.split(b'\n')):
        line = line.strip()
        if not line or line.startswith(b'#'):
            continue
        try:
            name, value = settings.parse_header(compat.config_native(line))
            if name.lower() == 'authorization':
                if authorized:
                    raise Refused('a second Authorization: it comes from username, token_file, headers or this file')
                authorized = True
        except Refused as refused:
            raise Refused('%s:%d: %s' % (text.shown(path), number + 1, refused))
        fields.append((name, value))
    return tuple(fields)
