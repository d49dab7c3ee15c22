"""The head of a request for one file, and the Idempotency-Key. The same for every transport (SPEC 7).

Called by the transports, bodies.py and delivery.py. Raises nothing.
"""

import hashlib
import os
import re

from agent import __version__, compat

# By extension, in lower case. A table of our own: what /etc/mime.types or the mimetypes module say differs from host
# to host and from Python to Python (2.6 knows no JSON).
CONTENT_TYPES = {
    'avi': 'video/x-msvideo', 'bmp': 'image/bmp', 'bz2': 'application/x-bzip2', 'css': 'text/css', 'csv': 'text/csv',
    'doc': 'application/msword', 'edi': 'application/edifact', 'eml': 'message/rfc822', 'gif': 'image/gif',
    'gz': 'application/gzip', 'htm': 'text/html', 'html': 'text/html', 'ics': 'text/calendar', 'jpeg': 'image/jpeg',
    'jpg': 'image/jpeg', 'js': 'text/javascript', 'json': 'application/json', 'jsonl': 'application/x-ndjson',
    'log': 'text/plain', 'md': 'text/markdown', 'mp3': 'audio/mpeg', 'mp4': 'video/mp4',
    'ndjson': 'application/x-ndjson', 'pdf': 'application/pdf', 'pgp': 'application/pgp-encrypted', 'png': 'image/png',
    'ps': 'application/postscript', 'rtf': 'application/rtf', 'svg': 'image/svg+xml', 'tar': 'application/x-tar',
    'tgz': 'application/gzip', 'tif': 'image/tiff', 'tiff': 'image/tiff', 'tsv': 'text/tab-separated-values',
    'txt': 'text/plain', 'wav': 'audio/x-wav', 'webp': 'image/webp', 'xls': 'application/vnd.ms-excel',
    'xlsx': 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet', 'xml': 'application/xml',
    'xsl': 'application/xslt+xml', 'xz': 'application/x-xz', 'yaml': 'application/yaml', 'yml': 'application/yaml',
    'zip': 'application/zip', 'zst': 'application/zstd',
}
OTHER_TYPE = 'application/octet-stream'

USER_AGENT = 'envio/' + __version__


def content_type(name):
    """Return the media type of a file name by its extension."""
    return CONTENT_TYPES.get(name.rpartition('.')[2].lower(), OTHER_TYPE) if '.' in name else OTHER_TYPE


def idempotency_key(identity, file):
    """Return the key that every attempt of this file carries: in the form of a UUID (version 8, RFC 9562 5.8).

    identity: the spool's own random name; file: records.SpoolFile. It is made from what the file is (where, which
    inode, how large, when changed), so that it needs no memory: the same after a restart, another once the file
    changed. (draft-ietf-httpapi-idempotency-key-header)
    """
    raw = '%s\0%s\0%d\0%d\0%d\0%d\0%d\0' % ((identity, _NODE) + file.stamp)
    digits = hashlib.sha256(compat.config_bytes(raw) + compat.fs_bytes(file.name)).hexdigest()
    return '-'.join((digits[:8], digits[8:12], '8' + digits[13:16], _VARIANT[digits[16]] + digits[17:20],
                     digits[20:32]))


_NODE = os.uname()[1]
_VARIANT = dict([('%x' % number, '89ab'[number & 3]) for number in range(16)])
_TARGET = re.compile(r'[!-~]+\Z')


def usable_target(url):
    """Return True when `url`, sent by others, can stand in a request line: printable ASCII without blanks."""
    return bool(_TARGET.match(url))


def fixed_fields(receiver, credentials):
    """Return the headers that are the same for all files of a receiver, but Host: [(name, value), ...], native.

    credentials: what proves who we are, as resources.fields() returns it.
    """
    fields = list(receiver.headers)
    if 'user-agent' not in [name.lower() for name, _ in fields]:
        fields.insert(0, ('User-Agent', USER_AGENT))
    return fields + list(credentials)


def fixed_head(receiver, host, credentials=()):
    """Return the part of a request's head that is the same for all files of a receiver at this host, as bytes: what
    follows the request target. host: the value of Host; credentials: as for fixed_fields().
    """
    lines = [' HTTP/1.1', 'Host: ' + host]
    lines.extend(['%s: %s' % field for field in fixed_fields(receiver, credentials)])
    return compat.config_bytes('\r\n'.join(lines) + '\r\n')


def file_fields(parcel):
    """Return the headers that belong to one file: ((name, value), ...). parcel: records.Parcel."""
    body = parcel.body
    fields = body.fields + (
        ('Content-Length', '%d' % body.size), ('Idempotency-Key', parcel.key),
        ('X-File-Name', compat.percent(compat.fs_bytes(parcel.ticket.file.name))))
    return fields + (('Expect', '100-continue'),) if parcel.expect else fields


def file_head(parcel):
    """Return the rest of the head for one file, with the empty line that ends it, as bytes."""
    return compat.config_bytes(''.join(['%s: %s\r\n' % field for field in file_fields(parcel)]) + '\r\n')
