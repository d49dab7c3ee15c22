"""The tryout receiver: a small HTTP server that takes files, answers by rules and says what came.

`envio receiver` runs it (run), `envio demo` and tests have it in their own process (serve). It is for trying
things out: one thread a connection, no TLS, nobody is asked who he is. Raises UsageError for rules that can't
be understood and AgentError where the port or the folder can't be used.
"""

import errno
import json
import os
import re
import signal
import socket
import sys
import tempfile
import threading
from collections import namedtuple

from agent import compat, rules, text
from agent.errors import AgentError, UsageError
from agent.wakeup import Wakeup

REPLY, CLOSE, HANG = 'reply', 'close', 'hang'

Answer = namedtuple('Answer', (
    'kind',         # REPLY, CLOSE (the connection, without an answer) or HANG (no answer until stopped)
    'status',       # int; None but for REPLY
    'problem',      # problem+json's detail as text (unicode), or None
    'retry_after',  # seconds as a native string, or None
    'delay',        # seconds before it
    'times',        # how many requests get it, or None: all
))

# What a server has done so far.
# connections, requests (read whole), stored (files), size (bytes of bodies): ints;
# answers: tuple of (status or kind, how often), in order.
Counts = namedtuple('Counts', 'connections requests stored size answers')

PIECE = 65536  # bytes of a body in memory
LONGEST_NAME = 255  # bytes, as most file systems have it

_ACCEPT = Answer(REPLY, 200, None, None, 0.0, None)
_ALONE = re.compile(r'(?:[0-9]+|close|hang)(?::|$)')  # an answer without a pattern: for all
_DELAY = re.compile(r'([0-9]{1,9})(ms|s|m|h|d)\Z')
_UNITS = {'ms': 0.001, 's': 1.0, 'm': 60.0, 'h': 3600.0, 'd': 86400.0}
_CHUNK_SIZE = re.compile(br'([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\r?\n\Z')
# Codes that Pythons name differently or not at all (RFC 9110 15.5, RFC 6585 4, RFC 8470 5.2).
_PHRASES = {413: 'Content Too Large', 422: 'Unprocessable Content', 425: 'Too Early', 429: 'Too Many Requests'}


# --- rules

class _Rule(object):
    """One PATTERN=ANSWER, with how many more requests get it."""

    def __init__(self, pattern, answer):
        """pattern: a shell pattern on the file name, or with a / in it on the path. Raises rules.Refused."""
        parts = [rules.pattern_source(part, 'p%d' % number) for number, part in enumerate(pattern.split('/'))]
        self._matches = re.compile('(?:%s)\\Z' % '/'.join(parts), re.DOTALL).match
        self._on_path = '/' in pattern
        self.answer = answer
        self.left = answer.times

    def fits(self, name, path):
        """Whether the rule is for this request. name: '' when it names no file; both one character a byte."""
        return self.left != 0 and self._matches(path if self._on_path else name or path) is not None


def parse_rules(source):
    """Return the rules of `source`: `PATTERN=ANSWER, …` or an answer alone. Raises UsageError.

    ANSWER is a code from 200 to 599, `close` or `hang`, then options: `:problem=TEXT` (percent-encoding stands for
    a comma or a colon in it), `:retry-after=SECONDS`, `:delay=DURATION`, `:times=N`.
    """
    found = []
    for item in [item.strip() for item in source.split(',')]:
        pattern, equals, words = ('*', '=', item) if _ALONE.match(item) else item.partition('=')
        if not (pattern and equals):
            raise UsageError('--answer: %s is neither an answer nor PATTERN=ANSWER: write 503, or for some files '
                             "'*.csv=422'" % (repr(item) if item else 'an empty rule'))
        try:
            found.append(_Rule(pattern, _parse_answer(words)))
        except rules.Refused as error:
            raise UsageError('--answer: %r: %s' % (item, error))
    return found


def _parse_answer(words):
    """Return the Answer written as `words`; raises rules.Refused."""
    parts = words.split(':')
    if parts[0] in (CLOSE, HANG):
        answer = _ACCEPT._replace(kind=parts[0], status=None)
    elif re.match(r'[2-5][0-9][0-9]\Z', parts[0]):
        answer = _ACCEPT._replace(status=int(parts[0]))
    else:
        raise rules.Refused('the answer %r is not a code from 200 to 599, close or hang' % parts[0])
    for part in parts[1:]:
        answer = _with_option(answer, *part.partition('='))
    return answer


def _with_option(answer, option, _, value):
    """Return `answer` with one option read; raises rules.Refused."""
    if option in ('problem', 'retry-after') and answer.kind != REPLY:
        raise rules.Refused('%s is for an answer with a code, not for %s' % (option, answer.kind))
    if option == 'problem' and value:
        return answer._replace(problem=compat.decode(compat.unpercent(compat.byte_string(compat.config_bytes(value)))))
    if option == 'retry-after' and re.match(r'[0-9]{1,9}\Z', value):
        return answer._replace(retry_after=value)
    if option == 'times' and re.match(r'[0-9]{1,9}\Z', value):
        return answer._replace(times=int(value))
    duration = _DELAY.match(value)
    if option == 'delay' and duration:
        return answer._replace(delay=int(duration.group(1)) * _UNITS[duration.group(2)])
    raise rules.Refused('the option %r is none of problem=TEXT, retry-after=SECONDS, delay=DURATION (such as 500ms or '
                        '2s) and times=N; in TEXT write %%2C for a comma and %%3A for a colon' % (option + _ + value))


# --- what comes in

class _Malformed(Exception):
    """The body is not framed as HTTP frames it."""


class _Cut(Exception):
    """The connection ended within the body."""


def _body(stream, headers):
    """Yield the body of a request in pieces of PIECE bytes at most (RFC 9112 6.3). Raises _Malformed and _Cut."""
    if 'chunked' in headers.get('Transfer-Encoding', '').lower():
        return _chunks(stream)
    length = headers.get('Content-Length', '0').strip()
    if not re.match(r'[0-9]{1,15}\Z', length):
        raise _Malformed
    return _exactly(stream, int(length))


def _exactly(stream, left):
    while left:
        piece = stream.read(min(left, PIECE))
        if not piece:
            raise _Cut
        left -= len(piece)
        yield piece


def _chunks(stream):
    left = None
    while left != 0:
        found = _CHUNK_SIZE.match(_line(stream))
        if not found:
            raise _Malformed
        left = int(found.group(1), 16)
        for piece in _exactly(stream, left):
            yield piece
        if left and _line(stream) not in (b'\r\n', b'\n'):
            raise _Malformed
    while _line(stream) not in (b'\r\n', b'\n'):
        pass  # trailers


def _line(stream):
    line = stream.readline(PIECE)
    if not line:
        raise _Cut
    return line


def safe_name(raw):
    """Return a file name (native) for the bytes `raw` a sender calls it: one that stays in its folder and shows."""
    raw = raw.replace(b'/', b'_').replace(b'\0', b'_')[:LONGEST_NAME] or b'unnamed'
    return compat.fs_native(b'_' + raw[1:] if raw.startswith(b'.') else raw)


class _Arrival(object):
    """A file that is coming in: under a hidden name until it is whole. Raises EnvironmentError."""

    def __init__(self, folder):
        self._folder = folder
        fd, self._path = tempfile.mkstemp('', '.arriving-', folder)
        self._file = os.fdopen(fd, 'wb')
        self.write = self._file.write

    def keep(self, raw):
        """Give it the first free name for `raw`: itself, .1, .2, …; returns the name."""
        self._file.close()
        wanted, number = compat.fs_bytes(safe_name(raw)), 0
        while True:
            suffix = compat.wire('.%d' % number if number else '')
            name = compat.fs_native(wanted[:LONGEST_NAME - len(suffix)] + suffix)
            try:
                os.close(os.open(os.path.join(self._folder, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
                number += 1
                continue
            os.rename(self._path, os.path.join(self._folder, name))  # over the empty file that claims the name
            return name

    def drop(self):
        """Forget it."""
        try:
            self._file.close()
        finally:
            os.unlink(self._path)


# --- one connection

class _Exchange(compat.http_server().BaseHTTPRequestHandler):
    """Reads requests and answers them, one after the other, until the connection ends."""

    protocol_version = 'HTTP/1.1'

    def handle_expect_100(self):
        return True  # 2.6 doesn't call it: do_POST says it, on every Python

    def log_message(self, form, *args):
        self.server.say(text.printable(compat.wire(form % args)))

    def do_POST(self):
        path = compat.byte_string(compat.unpercent(self.path.partition('?')[0]))
        name = compat.unpercent(self.headers.get('X-File-Name', ''))
        answer = self.server.choose(compat.byte_string(name), path)
        if self.request_version != 'HTTP/1.1':
            self.close_connection = True
        elif self.headers.get('Expect', '').lower() == '100-continue':
            self.connection.sendall(b'HTTP/1.1 100 Continue\r\n\r\n')
        what = '%s %s%s' % (self.command, text.printable(compat.wire(path)),
                            name and ' ' + text.shown(compat.fs_native(name)))
        keeps = self.server.folder and answer.kind == REPLY and answer.status < 300 and (name or self.command == 'PUT')
        try:
            size, note = self._receive(keeps, name or compat.wire(path.rpartition('/')[2]))
        except _Cut:
            self.server.say(what + ': cut off within the body')
            self.close_connection = True
            return
        except _Malformed:
            size, note, answer = 0, '', _ACCEPT._replace(status=400)
            self.close_connection = True  # where the next request begins, nobody knows
        except EnvironmentError as error:
            size, note, answer = 0, ', not stored: ' + compat.error_text(error), _ACCEPT._replace(status=507)
            self.close_connection = True
        self.server.count(answer, size, note)
        self.server.say('%s (%s): %s%s' % (what, text.size(size), _described(answer), note))
        self._answer(answer)

    do_PUT = do_PATCH = do_GET = do_HEAD = do_POST

    def _receive(self, keeps, name):
        """Read the body; returns (bytes, what to say about the file). Raises as _body and _Arrival."""
        size, arrival = 0, _Arrival(self.server.folder) if keeps else None
        try:
            for piece in _body(self.rfile, self.headers):
                size += len(piece)
                if arrival:
                    arrival.write(piece)
            if not arrival:
                return size, ''
            kept, arrival = arrival.keep(name), None
            return size, ', stored as ' + text.shown(kept)
        finally:
            if arrival:
                arrival.drop()

    def _answer(self, answer):
        """Send the answer in one write, or what stands for it."""
        if answer.delay:
            self.server.down.wait(answer.delay)
        if answer.kind == HANG:
            self.server.down.wait()
        if answer.kind != REPLY:
            self.close_connection = True
            return
        head = ['HTTP/1.1 %d %s' % (answer.status, _phrase(answer.status)), 'Date: ' + self.date_time_string()]
        body = ('%d %s\n' % (answer.status, _phrase(answer.status))).encode('ascii')
        kind = 'text/plain'
        if answer.problem is not None:
            kind = 'application/problem+json'
            body = json.dumps({'title': _phrase(answer.status), 'status': answer.status,
                               'detail': answer.problem}).encode('ascii') + b'\n'
        if answer.retry_after is not None:
            head.append('Retry-After: ' + answer.retry_after)
        if self.close_connection:
            head.append('Connection: close')
        if answer.status in (204, 304):
            body = b''
        else:
            head += ['Content-Type: ' + kind, 'Content-Length: %d' % len(body)]
        raw = '\r\n'.join(head + ['', '']).encode('ascii')
        self.connection.sendall(raw if self.command == 'HEAD' else raw + body)


def _phrase(status):
    return _PHRASES.get(status) or compat.http_client.responses.get(status, '')


def _described(answer):
    if answer.kind == REPLY:
        return ('%d %s' % (answer.status, _phrase(answer.status))).rstrip()
    return 'closed without an answer' if answer.kind == CLOSE else 'no answer'
