"""The body of a request: the file as it is, or a form, compressed, with a digest; in pieces, never whole in memory.

A body that is more than the file is made twice: once to learn its exact length (SPEC 7: never chunked) and digest,
once to send it. Called by delivery.py; the transports read it. Raises errors.FileChanged.
"""

import base64
import hashlib
import re
import zlib

from agent import compat, request
from agent.errors import FileChanged

PIECE = 262144   # bytes of the file that are read at once
KEPT = 65536     # an encoded body up to this many bytes is made once, and kept
_GZIP = 31       # zlib's window bits for the gzip format, with no name and no time in it: the same bytes each time


class RawBody(object):
    """The file as it is.

    opened: spool.OpenFile, at its first byte; size: bytes; fields: ((name, value), ...): the headers that describe it.
    """
    __slots__ = ('opened', 'size', 'fields', 'read', 'rewind')

    def __init__(self, opened, fields):
        self.opened = opened
        self.size = opened.size
        self.fields = fields
        self.read = opened.read
        self.rewind = opened.rewind


class EncodedBody(object):
    """Bytes made from the file; opened, size and fields as of RawBody.

    before, after: bytes around the file; compressed: with gzip.
    """

    def __init__(self, opened, fields, before=b'', after=b'', compressed=False, digest=False):
        self.opened = opened
        self._frame = before, after
        self._compressed = compressed
        self.size, hashed, self._kept = self._measure()
        if digest:
            fields += (('Content-Digest', 'sha-256=:%s:' % compat.byte_string(base64.b64encode(hashed))),)  # RFC 9530 2
        self.fields = fields
        self.rewind()

    def _measure(self):
        size, hashed, kept = 0, hashlib.sha256(), []
        for piece in self._pieces():
            size += len(piece)
            hashed.update(piece)
            if size <= KEPT:
                kept.append(piece)
        return size, hashed.digest(), kept if size <= KEPT else None

    def rewind(self):
        """Begin again with the first byte."""
        self._coming = iter(self._kept) if self._kept is not None else self._pieces()
        self._ready = b''

    def read(self, most):
        """Return the next `most` bytes, fewer only at the end. Raises FileChanged."""
        ready, size = [self._ready], len(self._ready)
        while size < most:
            piece = next(self._coming, None)
            if piece is None:
                break
            ready.append(piece)
            size += len(piece)
        whole = b''.join(ready)
        self._ready = whole[most:]
        return whole[:most]

    def _pieces(self):
        if not self._compressed:
            return self._plain()
        return self._deflated()

    def _plain(self):
        before, after = self._frame
        yield before
        self.opened.rewind()
        left = self.opened.size
        while left:
            piece = self.opened.read(min(PIECE, left))
            if not piece:
                raise FileChanged('became shorter while it was sent')
            left -= len(piece)
            yield piece
        if self.opened.read(1):
            raise FileChanged('grew while it was sent')
        yield after

    def _deflated(self):
        packer = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, _GZIP)
        for piece in self._plain():
            yield packer.compress(piece)
        yield packer.flush()


def make(receiver, name, opened, key):
    """Return the body that `receiver` (records.Receiver) wants of a file.

    name: the file's; opened: spool.OpenFile; key: the Idempotency-Key, of which the form's boundary is made.
    """
    kind = request.content_type(name) if receiver.content_type == 'auto' else receiver.content_type
    multipart = receiver.body == 'multipart'
    if not (multipart or receiver.gzip or receiver.digest):
        return RawBody(opened, (('Content-Type', kind),))
    before = after = b''
    if multipart:
        boundary = 'envio-' + key  # made of the spool's own random name: no producer can foresee it
        before, after = _form(receiver.multipart_field, name, kind, boundary)
        kind = 'multipart/form-data; boundary=' + boundary
    fields = (('Content-Type', kind),)
    if receiver.gzip:
        fields += (('Content-Encoding', 'gzip'),)
    return EncodedBody(opened, fields, before, after, receiver.gzip, receiver.digest)


def _form(field, name, kind, boundary):
    """Return the bytes before and after the file in a form of one part (RFC 7578; the name escaped as browsers do:
    WHATWG HTML, multipart/form-data encoding algorithm, and the other control characters likewise)."""
    raw = re.sub(br'[\x00-\x1f\x7f"]', lambda found: compat.wire('%%%02X' % ord(found.group())), compat.fs_bytes(name))
    head = '--%s\r\nContent-Disposition: form-data; name="%s"; filename="' % (boundary, field)
    rest = '"\r\nContent-Type: %s\r\n\r\n' % kind
    return compat.wire(head) + raw + compat.config_bytes(rest), compat.wire('\r\n--%s--\r\n' % boundary)
