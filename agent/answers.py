"""Reading the answer to a request from a socket: bounded, strict about what frames it, patient about the rest.

One parser for all interpreters and all answers: ten versions of httplib read an odd answer in ten ways, and an odd
answer must lead to the same verdict everywhere. Called by native.py. Raises TransportError and what a socket raises.
"""

import re

from agent import compat
from agent.errors import TransportError
from agent.records import Reply

MOST_HEAD = 65536   # bytes of status lines and headers, those of interim answers included
MOST_BODY = 65536   # bytes of a body that are read; a longer one costs the connection
PIECE = 65536       # bytes asked for in one recv
KEPT, LONGEST_LINE = 64, 256  # lines, and the bytes of one, that are kept so as not to take them apart again

_BLANKS = b' \t'

# Blanks at an end are for strip(): an expression would try each of 64 KB of them against all the others.
_STATUS_LINE = re.compile(br'HTTP/1\.([01])[ \t]+([1-5]\d\d)(?:[ \t](.*))?\Z', re.DOTALL)
_HEADER = re.compile(br'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)[ \t]*:(.*)\Z', re.DOTALL)
_LENGTHS = re.compile(br'[0-9]+(?:[ \t]*,[ \t]*[0-9]+)*\Z')  # RFC 9112 6.3: anything else is no length
_SIZE = re.compile(br'[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?\Z', re.DOTALL)


class _Cut(Exception):
    """The answer ended in its body."""


class AnswerReader(object):
    """Reads one answer after the other from the socket `sock`.

    reusable: True when the answer was read to its end and the next request may use the connection.
    started: True once a byte of the present answer has come.
    """

    def __init__(self, sock):
        self._recv = sock.recv
        self._sock = sock
        self._buffer = b''
        self._budget = 0
        self._lines = {}         # line of a head -> what was read from it
        self._known = b'', None  # the newest head that came whole, and what was read from it
        self._length = None      # how long a body its answers have, None: that takes a closer look
        self._keeps = False      # whether the connection stays open after them
        self.reusable = False
        self.started = False

    def buffered(self):
        """Return True when bytes have come that nobody has read yet."""
        return bool(self._buffer)

    def begin(self):
        """Expect the answer to a new request."""
        self.reusable = self.started = False
        self._budget = MOST_HEAD

    def head(self):
        """Return the next (minor version, status, reason, headers): an interim answer (1xx) or the final one.

        Raises TransportError('receive') when it is cut before its headers end, TransportError('protocol') when it is
        not HTTP or its head has no end, and what the socket raises.
        """
        if not self._buffer:
            self._more()
        # A receiver says much the same for each file: most heads need not be taken apart again.
        raw, known = self._known
        if raw and self._buffer.startswith(raw) and len(raw) <= self._budget:
            self._buffer = self._buffer[len(raw):]
            self._budget -= len(raw)
            return known
        before = self._buffer
        head = self._parse_head()
        read = len(before) - len(self._buffer)
        if read >= 4 and before[read - 4:read] == b'\r\n\r\n' and before[read:] == self._buffer:
            self._known = before[:read], head
            self._length, self._keeps = _length_told(head[1], head[3]), _keeps_alive(head[0], head[3])
        return head

    def arrived(self):
        """Take in what has come; return True when read() has no need to wait: the answer is there, or its connection
        has ended. (A body of unknown length may still be on its way.) Raises what the socket raises."""
        piece = self._sock.take(PIECE)
        if piece is None:
            return False
        self._buffer += piece
        if not piece:
            return True
        self.started = True
        raw, known = self._known
        if raw and self._length is not None and self._buffer.startswith(raw):
            return len(self._buffer) >= len(raw) + self._length
        return b'\r\n\r\n' in self._buffer or b'\n\n' in self._buffer or len(self._buffer) > MOST_HEAD

    def final_head(self):
        """Return the next head() that is no interim one."""
        head = self.head()
        while head[1] < 200:
            head = self.head()
        return head

    def _parse_head(self):
        line = self._line()
        found = _STATUS_LINE.match(line)
        if not found or b'\0' in line:
            raise TransportError('protocol', 'the answer is not HTTP/1.x: it begins with %r' % (line[:40],), True)
        minor, status, reason = found.groups()
        if status == b'101':
            raise TransportError('protocol', 'the answer switches protocols, which nobody asked for', True)
        return int(minor), int(status), compat.byte_string((reason or b'').strip(_BLANKS)), self._headers()

    def read(self, head=None):
        """Return the Reply to the request that was sent; interim answers are passed over. Raises as head().

        head: the final answer's, if it was read before. What comes after it can't change the verdict any more: a body
        that is cut, badly framed or too long is kept as far as it was read, and the connection is not used again.
        """
        if head is None:
            head = self.final_head()
        minor, status, reason, headers = head
        known = head is self._known[1]
        try:
            if known and self._length is not None:
                self._partial = b''
                body, framed = self._take(self._length), True
            else:
                body, framed = self._body(status, headers)
        except (_Cut, EnvironmentError, TransportError):
            body, framed = self._partial, False
        # Bytes beyond the answer belong to nothing that was asked: never the start of the next one.
        self.reusable = framed and not self._buffer and (self._keeps if known else _keeps_alive(minor, headers))
        return Reply(status, reason, headers, body)

    def _more(self):
        piece = compat.retry_interrupted(self._recv, PIECE)
        if not piece:
            return False
        self.started = True
        self._buffer += piece
        return True

    def _line(self):
        searched = 0
        while True:
            end = self._buffer.find(b'\n', searched)
            if end >= 0:
                break
            searched = len(self._buffer)
            if searched > self._budget:
                raise TransportError('protocol', 'the answer\'s head is longer than %d bytes' % MOST_HEAD, True)
            if not self._more():
                raise TransportError('receive', 'the connection was closed %s' % (
                    'in the middle of the answer\'s head' if self.started else 'without an answer'), True)
        line, self._buffer = self._buffer[:end], self._buffer[end + 1:]
        self._budget -= end + 1
        if self._budget < 0:
            raise TransportError('protocol', 'the answer\'s head is longer than %d bytes' % MOST_HEAD, True)
        return line[:-1] if line.endswith(b'\r') else line

    def _headers(self):
        headers = []
        while True:
            line = self._line()
            if not line:
                return tuple(headers)
            known = self._lines.get(line)  # most lines are those of the answer before
            if known is not None:
                headers.append(known)
                continue
            if line[:1] in (b' ', b'\t') and headers and b'\0' not in line:
                # folded (RFC 9112 5.2): the line before goes on
                name, value = headers[-1]
                headers[-1] = name, (value + ' ' + compat.byte_string(line.strip(_BLANKS))).strip(' ')
                continue
            found = _HEADER.match(line)
            value = found.group(2).strip(_BLANKS) if found else b''
            if b':' not in line or b'\0' in line or found and found.group(1).lower() == b'content-length' \
                    and not _LENGTHS.match(value):
                # Current cURL gives up on these, too, so that both transports come to the same verdict.
                raise TransportError('protocol', 'the answer\'s head holds %r' % (line[:40],), True)
            if found:  # another name than a header's has no meaning: passed over
                header = compat.byte_string(found.group(1)).lower(), compat.byte_string(value)
                headers.append(header)
                if len(line) <= LONGEST_LINE:
                    if len(self._lines) >= KEPT:
                        self._lines.clear()
                    self._lines[line] = header

    def _body(self, status, headers):
        """Return (body, framed): framed is True when its end was seen and all of it was read."""
        self._partial = b''
        if status in (204, 304):
            return b'', True
        codings = _values(headers, 'transfer-encoding')
        if codings:
            if [coding.lower() for coding in codings] != ['chunked']:
                return self._until_closed(), False
            return self._chunks()
        length = _content_length(headers)
        if length is None:
            return self._until_closed(), False
        if length < 0:
            return b'', False
        wanted = min(length, MOST_BODY)
        return self._take(wanted), wanted == length

    def _take(self, count):
        while len(self._buffer) < count:
            try:
                more = self._more()
            except (EnvironmentError, TransportError):
                more = False
            if not more:
                self._partial = (self._partial + self._buffer)[:MOST_BODY]
                self._buffer = b''
                raise _Cut()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _until_closed(self):
        while len(self._buffer) < MOST_BODY and self._more():
            self._partial = self._buffer
        body, self._buffer = self._buffer[:MOST_BODY], b''
        return body

    def _chunks(self):
        self._budget = MOST_HEAD  # for the lines of the framing and the trailers
        while True:
            try:
                found = _SIZE.match(self._line())
                if not found:
                    return self._partial, False
                size = int(found.group(1), 16)
                if not size:
                    while self._line():
                        pass
                    return self._partial, True
                room = MOST_BODY - len(self._partial)
                self._partial += self._take(min(size, room))
                if size > room or self._line():
                    return self._partial, False
            except TransportError:
                return self._partial, False


def check_early(reply):
    """Raise TransportError for an acceptance that came before the whole file was sent: it can't be meant."""
    if reply.status < 300:
        raise TransportError('protocol', 'answered %d before it had the whole file' % reply.status)


def _values(headers, wanted):
    """Return the members of a list header, all lines of it together (RFC 9110 5.6.1)."""
    members = []
    for name, value in headers:
        if name == wanted:
            # Of these blanks alone: strip() of Python 3 takes more than that of 2.
            members.extend([member for member in [part.strip(' \t') for part in value.split(',')] if member])
    return members


def _content_length(headers):
    """Return the length of a body in bytes; None when it isn't told, -1 when it is told in more than one way or beyond
    any sense."""
    lengths = set(_values(headers, 'content-length'))
    if not lengths:
        return None
    length = lengths.pop()
    # One that was folded was not looked at.
    return -1 if lengths or len(length) > 18 or not _LENGTHS.match(compat.wire(length)) else int(length)


def _length_told(status, headers):
    """Return the length of an answer's body when nothing but its Content-Length tells it, and it is read whole."""
    if status in (204, 304):
        return 0
    length = _content_length(headers)
    if length is None or not 0 <= length <= MOST_BODY or _values(headers, 'transfer-encoding'):
        return None
    return length


def _keeps_alive(minor, headers):
    options = [option.lower() for option in _values(headers, 'connection')]
    return 'close' not in options and (minor == 1 or 'keep-alive' in options)
