"""Every difference between Pythons 2.6 to 3.13, in one place; nothing else asks for the version.

Text on this page: a *native* string is `str`: bytes on Python 2, text on Python 3. File names are native
strings as os.listdir gives them. On Python 3 the bytes that are not text are carried as surrogates, so that
every name survives the way from the folder to the wire and back.
Any file may import this one. It raises nothing of its own.
"""

import binascii
import errno
import fcntl
import os
import re
import select
import sys
import time

PY2 = sys.version_info[0] == 2

if PY2:
    text_type = unicode  # noqa: F821 (Python 2 only)
    string_types = (basestring,)  # noqa: F821 (Python 2 only)
else:
    text_type = str
    string_types = (str,)

_FILE_SYSTEM = sys.getfilesystemencoding()
_UNRESERVED = re.compile(br'[A-Za-z0-9_.~-]*\Z')


def _times():
    # os.times()[4] counts from boot on Linux, in hundredths of a second; no 2.x offers a better clock that is
    # never set.
    return os.times()[4]


# Python 2 doesn't name it; the number is Linux's own.
O_CLOEXEC = getattr(os, 'O_CLOEXEC', 0o2000000)

monotonic = getattr(time, 'monotonic', _times)


def fs_bytes(name):
    """Return the bytes of a native string that came from the file system."""
    return name if PY2 else name.encode(_FILE_SYSTEM, 'surrogateescape')  # os.fsencode() takes its time


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


def unicode_text(native):
    """Return a native string as text (the reverse of native_text): what can't be text escaped."""
    return decode(log_bytes(native))


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
    if _UNRESERVED.match(raw):
        return byte_string(raw)
    if PY2:
        from urllib import quote  # here: slow to load (2.7 brings ssl along), and most names need none of it
    else:
        from urllib.parse import quote
    return quote(raw, safe + '~')


def unpercent(text):
    """Return the bytes that a percent-encoded native string of one character a byte stands for."""
    return re.sub(b'%([0-9A-Fa-f]{2})', lambda found: binascii.unhexlify(found.group(1)), wire(text))


def url_parser():
    """Return the standard library's module that takes URLs apart; loaded only when asked for: just a redirect is."""
    if PY2:
        import urlparse
        return urlparse
    import urllib.parse
    return urllib.parse


def http_client():
    """Return the standard library's HTTP client module; loaded only when asked for: just the tryout receiver is."""
    if PY2:
        import httplib
        return httplib
    import http.client
    return http.client


def http_server():
    """Return the standard library's HTTP server module; loaded only when asked for: just the tryout receiver is."""
    if PY2:
        import BaseHTTPServer
        return BaseHTTPServer
    import http.server
    return http.server


def scan_names(folder):
    """Yield the names in `folder`, as they come; raises OSError. The folder is read in pieces where that can be had:
    a million names at once take 80 MB."""
    if not hasattr(os, 'scandir'):
        try:
            names = _read_folder(folder)
        except (ImportError, AttributeError):  # no ctypes, or another libc
            names = os.listdir(folder)
        for name in names:
            yield name
        return
    entries = os.scandir(folder)
    try:
        for entry in entries:
            yield entry.name
    finally:
        if hasattr(entries, 'close'):
            entries.close()


_LIBC = []  # for Python 2, loaded once: what ctypes makes of a structure stays for ever


def _libc():
    import ctypes  # here: slow to load
    if not _LIBC:
        class Entry(ctypes.Structure):  # struct dirent64 of Linux, alike on 32 and 64 bits
            _fields_ = [('ino', ctypes.c_uint64), ('off', ctypes.c_int64), ('length', ctypes.c_ushort),
                        ('type', ctypes.c_ubyte), ('name', ctypes.c_char * 256)]
        libc = ctypes.CDLL(None, use_errno=True)
        libc.opendir.restype = ctypes.c_void_p
        libc.readdir64.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
        libc.readdir64.restype = ctypes.POINTER(Entry)
        _LIBC.append(libc)
    return ctypes, _LIBC[0]


def _read_folder(folder):
    """Return a generator of the names in `folder` for Python 2, which can't read one in pieces. Raises OSError."""
    ctypes, libc = _libc()
    stream = libc.opendir(folder)
    if not stream:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), folder)

    def names():
        try:
            while True:
                ctypes.set_errno(0)
                entry = libc.readdir64(stream)
                if not entry:
                    number = ctypes.get_errno()
                    if number:
                        raise OSError(number, os.strerror(number), folder)
                    return
                name = entry.contents.name
                if name not in ('.', '..'):
                    yield name
        finally:
            libc.closedir(stream)
    return names()


def init_groups(user, group):
    """Take the supplementary groups of an account. user: its name; group: a number. Raises OSError."""
    if hasattr(os, 'initgroups'):
        os.initgroups(user, group)
        return
    import grp  # 2.6 alone
    os.setgroups([group] + [entry.gr_gid for entry in grp.getgrall() if user in entry.gr_mem])


def set_cloexec(fd):
    """Keep the descriptor `fd` from children: Python 2 hands every descriptor on."""
    fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.fcntl(fd, fcntl.F_GETFD) | fcntl.FD_CLOEXEC)


def set_nonblocking(fd):
    """Let reads and writes of the descriptor `fd` return at once."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)


def tls_context(ssl, server_side=False):
    """Return an SSLContext that takes TLS 1.2 or better (RFC 8996), verifies nothing and compares no names yet; None
    where Python has none (2.6, and 2.7 before 2.7.9). ssl: the module, which not every Python has."""
    if not hasattr(ssl, 'SSLContext'):
        return None
    protocol = getattr(ssl, 'PROTOCOL_TLS_SERVER' if server_side else 'PROTOCOL_TLS_CLIENT', None)
    context = ssl.SSLContext(ssl.PROTOCOL_SSLv23 if protocol is None else protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if hasattr(context, 'minimum_version'):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    else:
        context.options |= ssl.OP_NO_SSLv2 | ssl.OP_NO_SSLv3 | ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
    return context


def socket_pair():
    """Return two connected sockets (2.x: socketpair() gives the bare ones, which its ssl module can't wrap)."""
    import socket  # here: slow to load
    pair = socket.socketpair()
    return [socket.socket(_sock=bare) for bare in pair] if PY2 else pair


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


def pipe():
    """Return (reading, writing), two descriptors that no other child gets."""
    pair = os.pipe()
    for fd in pair:
        set_cloexec(fd)
    return pair


def start(command, stdin, output, environ, keep=()):
    """Start a program and return its subprocess.Popen, in a session of its own: the terminal's signals don't reach it.

    command: its words; stdin: a descriptor, None = /dev/null; output: a descriptor for its stdout and stderr, None = a
    pipe to communicate() with; environ: its whole environment; keep: further descriptors it gets, under the same
    numbers; no others. SIGXFSZ stays ignored, as Python has it: a file over its limit is a failed write, not the end.
    Raises OSError.
    """
    import subprocess  # here: slow to load, and only cURL needs it
    devnull = os.open(os.devnull, os.O_RDWR) if stdin is None else None
    try:
        options = dict(stdin=devnull if stdin is None else stdin, stdout=subprocess.PIPE if output is None else output,
                       stderr=subprocess.STDOUT, env=environ, close_fds=True)
        if not PY2:
            return subprocess.Popen(command, pass_fds=keep, restore_signals=False, start_new_session=True, **options)
        return _popen_class(subprocess.Popen, keep)(command, preexec_fn=_preparation(keep), **options)
    finally:
        if devnull is not None:
            os.close(devnull)


def close_others(keep):
    """Close all descriptors but the standard streams and those in `keep`."""
    # Not up to the limit of numbers: a container may allow a billion.
    for fd in [int(name) for name in os.listdir('/proc/self/fd')]:
        if fd > 2 and fd not in keep:
            try:
                os.close(fd)
            except OSError:
                pass  # the one that listed them


def _popen_class(popen, keep):
    class Popen(popen):
        # 2.6 and 2.7 have no pass_fds. This is how both call what closes the others, and neither changes any more.
        def _close_fds(self, but):
            close_others(tuple(keep) + (but,))
    return Popen


def _preparation(keep):
    def prepare():
        os.setsid()
        for fd in keep:
            fcntl.fcntl(fd, fcntl.F_SETFD, 0)
    return prepare


def hand_over_less():
    """Let a thread that computes keep Python's interpreter lock a while. Python 2 hands it on after every 100 steps,
    and both threads then stand in each other's way (5 to 10 % of small files); system calls hand it on in any case."""
    if PY2:
        sys.setcheckinterval(10000)


def retry_interrupted(call, *args):
    """Return call(*args), called again when a signal interrupted it (before 3.5 Python passes EINTR on)."""
    if not PY2:
        return call(*args)
    while True:
        try:
            return call(*args)
        except (EnvironmentError, select.error) as error:
            if error_number(error) != errno.EINTR:
                raise
