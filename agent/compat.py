"""Every difference between Pythons 2.6 to 3.13, in one place; nothing else asks for the version.

Text on this page: a *native* string is `str`: bytes on Python 2, text on Python 3. File names are native
strings as os.listdir gives them. On Python 3 the bytes that are not text are carried as surrogates, so that
every name survives the way from the folder to the wire and back.
Any file may import this one. It raises nothing of its own.
"""

import errno
import fcntl
import os
import select
import sys
import time

PY2 = sys.version_info[0] == 2

if PY2:
    import httplib as http_client
    from urllib import quote as _quote, unquote as _unquote
    from urlparse import urljoin, urlsplit
    text_type = unicode  # noqa: F821 (Python 2 only)
    string_types = (basestring,)  # noqa: F821 (Python 2 only)
else:
    import http.client as http_client
    from urllib.parse import quote as _quote, unquote_to_bytes as _unquote, urljoin, urlsplit
    text_type = str
    string_types = (str,)

__all__ = ['http_client', 'urljoin', 'urlsplit', 'text_type', 'string_types', 'monotonic', 'scan_names']


def _times():
    # os.times()[4] counts from boot on Linux, in hundredths of a second; no 2.x offers a better clock that is
    # never set.
    return os.times()[4]


# Python 2 doesn't name it; the number is Linux's own.
O_CLOEXEC = getattr(os, 'O_CLOEXEC', 0o2000000)

monotonic = getattr(time, 'monotonic', _times)


def fs_bytes(name):
    """Return the bytes of a native string that came from the file system."""
    return name if PY2 else os.fsencode(name)


def fs_native(raw):
    """Return the native string of bytes that name something in the file system."""
    return raw if PY2 else os.fsdecode(raw)


def config_native(raw):
    """Return the native string of bytes of a configuration file: UTF-8, other bytes kept as they are."""
    return raw if PY2 else raw.decode('utf-8', 'surrogateescape')


def config_bytes(text):
    """Return the bytes that stood in the configuration file for the native string `text`."""
    return text if PY2 else text.encode('utf-8', 'surrogateescape')


def byte_string(raw):
    """Return bytes as a native string with one character a byte, so that patterns match alike on 2 and 3."""
    return raw if PY2 else raw.decode('latin-1')


def wire(text):
    """Return a native string of one character a byte as bytes (the reverse of byte_string)."""
    return text if PY2 else text.encode('latin-1')


def decode(raw):
    """Return bytes as text: UTF-8, each byte that is not shown as U+FFFD."""
    return raw.decode('utf-8', 'replace')


def native_text(text):
    """Return text (unicode) as a native string: UTF-8 on Python 2."""
    return text.encode('utf-8') if PY2 else text


def log_bytes(text):
    """Return a native string as the bytes of a line to write: UTF-8, what can't be text escaped."""
    if PY2:
        return text
    try:
        # Where the locale is no UTF-8, names are full of surrogates that are good text all the same.
        text = text.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')
    except UnicodeEncodeError:
        pass  # surrogates of another kind
    return text.encode('utf-8', 'backslashreplace')


def writable(text, stream):
    """Return a native string that can be written to a text stream whatever its encoding."""
    if PY2:
        return text
    encoding = getattr(stream, 'encoding', None) or 'ascii'
    return text.encode(encoding, 'backslashreplace').decode(encoding)


def percent(raw, safe=''):
    """Return bytes percent-encoded as a native string; letters, digits, `_.-~` and `safe` stay (RFC 3986 2.3)."""
    return _quote(raw, safe + '~')


def unpercent(text):
    """Return the bytes that a percent-encoded native string of one character a byte stands for."""
    return _unquote(wire(text))


def http_server():
    """Return the standard library's HTTP server module; loaded only when asked for: just the tryout receiver is."""
    if PY2:
        import BaseHTTPServer
        return BaseHTTPServer
    import http.server
    return http.server


def scan_names(folder):
    """Yield the names in `folder`, as they come; raises OSError. Python 3 reads the folder in pieces."""
    if not hasattr(os, 'scandir'):
        for name in os.listdir(folder):
            yield name
        return
    entries = os.scandir(folder)
    try:
        for entry in entries:
            yield entry.name
    finally:
        if hasattr(entries, 'close'):
            entries.close()


def set_cloexec(fd):
    """Keep the descriptor `fd` from children: Python 2 hands every descriptor on."""
    fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.fcntl(fd, fcntl.F_GETFD) | fcntl.FD_CLOEXEC)


def set_nonblocking(fd):
    """Let reads and writes of the descriptor `fd` return at once."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)


def error_number(error):
    """Return the errno of an OSError, IOError, socket.error or select.error, or None (2.x: select.error is none
    of the others, and keeps its number in args alone)."""
    number = getattr(error, 'errno', None)
    if number is None and error.args and isinstance(error.args[0], int):
        number = error.args[0]
    return number


def error_text(error):
    """Return what an operating system error says, in a few words, without its number and file name."""
    number = error_number(error)
    if isinstance(number, int) and number in errno.errorcode:
        return os.strerror(number)
    return str(error) or error.__class__.__name__


def retry_interrupted(call, *args):
    """Return call(*args), called again when a signal interrupted it (before 3.5 Python passes EINTR on)."""
    while True:
        try:
            return call(*args)
        except (EnvironmentError, select.error) as error:
            if error_number(error) != errno.EINTR:
                raise
