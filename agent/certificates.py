"""What a certificate says: reads X.509 in DER itself, and tells whether it is meant for a host.

Every Python is handed the same bytes by its ssl module, but none takes them apart like another (2.6 loses
subjectAltName where it is the first extension). Who signed it is OpenSSL's to check, not ours.
Pure: the wall time is an argument. parse() raises ValueError, nothing else raises anything.
"""

import datetime
import re
from collections import namedtuple

from agent import ip, text

Certificate = namedtuple('Certificate', (
    'subject',       # whom it is for, as people read it: 'CN=localhost, O=Example'; may be ''
    'issuer',        # who signed it, in the same way
    'common_names',  # tuple of the subject's CNs, native
    'dns_names',     # tuple of the DNS names in subjectAltName, native, lower case; wildcards as they are
    'addresses',     # tuple of the IP addresses in subjectAltName, packed: 4 or 16 bytes
    'has_names',     # whether there is a subjectAltName at all
    'not_before',    # seconds since 1970, int: valid from then
    'not_after',     # seconds since 1970, int: valid until then
    'self_issued',   # whether issuer and subject are the same, byte for byte
))

MOST_SHOWN = 5  # names that problem() lists
_LONGEST = 255  # characters of a value that are looked at: a host name has 253 at the most

# Tags (X.690 8.1.2), those in square brackets as RFC 5280 4.1 and 4.2.1.6 number them.
_INTEGER, _BITS, _OCTETS, _OID, _SEQUENCE, _SET = 0x02, 0x03, 0x04, 0x06, 0x30, 0x31
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _EXTENSIONS = 0xa0, 0xa3
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87

_SUBJECT_ALT_NAME = b'\x55\x1d\x11'
_COMMON_NAME = b'\x55\x04\x03'
_ATTRIBUTES = {_COMMON_NAME: 'CN', b'\x55\x04\x06': 'C', b'\x55\x04\x07': 'L', b'\x55\x04\x08': 'ST',
               b'\x55\x04\x0a': 'O', b'\x55\x04\x0b': 'OU', b'\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19': 'DC',
               b'\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01': 'emailAddress'}
_CODECS = {0x14: 'latin-1', 0x1e: 'utf-16-be'}  # T61String, BMPString; all others are ASCII or UTF-8

_TIMES = {_UTC_TIME: re.compile(br'([0-9]{2})' * 6 + br'Z\Z'),
          _GENERALIZED_TIME: re.compile(br'([0-9]{4})' + br'([0-9]{2})' * 5 + br'Z\Z')}
_EPOCH = datetime.date(1970, 1, 1).toordinal()

_NAME = re.compile(r'(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\Z')
_NUMBER = re.compile(r'(?:[0-9]+|0[xX][0-9A-Fa-f]*)\Z')


# --- reading

def parse(der):
    """Return the Certificate in the bytes `der` (RFC 5280 4.1). Raises ValueError for anything else.

    The readable names leave out attributes that few people know: serialNumber, businessCategory and the like.
    """
    (whole,) = _contents(der, _SEQUENCE)
    fields = _elements(_contents(whole, _SEQUENCE, _SEQUENCE, _BITS)[0])
    if fields[:1] and fields[0][0] == _VERSION:
        del fields[0]
    if [tag for tag, _ in fields[:6]] != [_INTEGER] + [_SEQUENCE] * 5:
        raise ValueError('it is not built as a certificate is')
    issuer, validity, subject = [content for _, content in fields[2:5]]
    times = [_time(tag, content) for tag, content in _elements(validity)]
    if len(times) != 2:
        raise ValueError('its validity is not two times')
    has_names, dns_names, addresses = _alternative_names([content for tag, content in fields[6:] if tag == _EXTENSIONS])
    rdns = _rdns(subject)
    common_names = [value for rdn in rdns for kind, value in rdn if kind == 'CN']
    return Certificate(_readable_name(rdns), _readable_name(_rdns(issuer)), tuple(common_names), dns_names, addresses,
                       has_names, times[0], times[1], issuer == subject)


def _elements(raw):
    """Return [(tag, content)] of the elements that `raw` is made of (X.690 8.1); raises ValueError."""
    octets, found, at = bytearray(raw), [], 0
    while at < len(octets):
        if len(octets) - at < 2 or octets[at] & 0x1f == 0x1f:
            raise ValueError('it is cut, or no DER')
        tag, length = octets[at], octets[at + 1]
        at += 2
        if length & 0x80:
            size, length = length & 0x7f, 0
            if not 1 <= size <= min(4, len(octets) - at):
                raise ValueError('a length in it is cut, or none')
            for octet in octets[at:at + size]:
                length = length << 8 | octet
            at += size
        if length > len(octets) - at:
            raise ValueError('an element is longer than what it is in')
        found.append((tag, raw[at:at + length]))
        at += length
    return found


def _contents(raw, *tags):
    """Return the contents of the elements of `raw`, whose tags must be these; raises ValueError."""
    found = _elements(raw)
    if tuple([tag for tag, _ in found]) != tags:
        raise ValueError('it is not built as a certificate is')
    return [content for _, content in found]


def _time(tag, content):
    """Return a time as seconds since 1970 (RFC 5280 4.1.2.5); raises ValueError."""
    found = _TIMES[tag].match(content) if tag in _TIMES else None
    if not found:
        raise ValueError('a time in it is none')
    year, month, day, hour, minute, second = [int(digits) for digits in found.groups()]
    if tag == _UTC_TIME:
        year += 1900 if year >= 50 else 2000
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError('a time in it is none')
    return (datetime.date(year, month, day).toordinal() - _EPOCH) * 86400 + hour * 3600 + minute * 60 + second


def _rdns(name):
    """Return the parts of a name, each a list of (attribute, value), the most particular first; raises ValueError."""
    parts = []
    for tag, rdn in _elements(name):
        if tag != _SET:
            raise ValueError('a name in it is not built as one')
        part = []
        for attribute_tag, attribute in _elements(rdn):
            found = _elements(attribute)
            if attribute_tag != _SEQUENCE or len(found) != 2 or found[0][0] != _OID:
                raise ValueError('a name in it is not built as one')
            kind, (value_tag, value) = found[0][1], found[1]
            if kind in _ATTRIBUTES:
                part.append((_ATTRIBUTES[kind], _string(value_tag, value)))
        if part:
            parts.append(part)
    return parts[::-1]


def _string(tag, raw):
    """Return the native text of a string of the type `tag`; what must not be shown, NUL too, becomes '?'."""
    return text.printable(raw.decode(_CODECS.get(tag, 'utf-8'), 'replace').encode('utf-8'), _LONGEST)


def _readable_name(rdns):
    """Return a name as RFC 4514 2 writes it, with a blank behind each comma."""
    return ', '.join(['+'.join(['%s=%s' % (kind, re.sub(r'([,+"\\<>;])', r'\\\1', value)) for kind, value in rdn])
                      for rdn in rdns])


def _alternative_names(wrapped):
    """Return (whether there is a subjectAltName, its DNS names, its addresses); raises ValueError.

    wrapped: the contents of all [3] fields. Two of anything are refused: which one counts, nobody knows (RFC 5280 4.2).
    """
    found = []
    for content in wrapped:
        for tag, extension in _elements(_contents(content, _SEQUENCE)[0]):
            parts = _elements(extension)
            if tag != _SEQUENCE or len(parts) not in (2, 3) or (parts[0][0], parts[-1][0]) != (_OID, _OCTETS):
                raise ValueError('an extension in it is not built as one')
            if parts[0][1] == _SUBJECT_ALT_NAME:
                found.append(parts[-1][1])
    if len(wrapped) > 1 or len(found) > 1:
        raise ValueError('it has two lists of names')
    dns_names, addresses = [], []
    for tag, content in _elements(_contents(found[0], _SEQUENCE)[0]) if found else ():
        if tag == _DNS_NAME:
            dns_names.append(text.printable(content.lower(), _LONGEST))
        elif tag == _IP_ADDRESS and len(content) in (4, 16):
            addresses.append(content)
    return bool(found), tuple(dns_names), tuple(addresses)


# --- comparing

def matches(certificate, host):
    """Return whether `certificate` is meant for `host`: a DNS name in ASCII, or an IP address.

    As RFC 9525 6.3 and 6.4 say: an address is looked for among addresses alone, a name among DNS names. `*` stands for
    one whole label, the first of at least three. As RFC 6125 6.4.4 still allows, CNs count when the certificate has no
    subjectAltName whatsoever.
    """
    address = ip.packed(host)
    if address is not None:
        return address in certificate.addresses
    host = host[:-1] if host.endswith('.') else host
    labels = _labels(host)
    if labels is None or labels[0] == '*':
        return False
    for name in certificate.dns_names if certificate.has_names else certificate.common_names:
        presented = _labels(name)
        if presented == labels:
            return True
        if presented and presented[0] == '*' and len(labels) >= 3 and presented[1:] == labels[1:]:
            return True
    return False


def _labels(name):
    """Return the lower-case labels of a DNS name, the first may be '*'; None for what is none: resolvers take a name
    that ends in a number for an address."""
    if not _NAME.match(name):
        return None
    labels = name.lower().split('.')
    return None if _NUMBER.match(labels[-1]) else labels


def names(certificate):
    """Return whom the certificate is meant for, as people read it: DNS names and addresses, or else the CNs."""
    if not certificate.has_names:
        return certificate.common_names
    return certificate.dns_names + tuple([ip.shown(address) for address in certificate.addresses])


def problem(certificate, host, now):
    """Return in a few words why a certificate is of no use for `host` at the time `now`, '' when nothing is wrong.

    host: as for matches(); now: seconds since 1970.
    """
    if now > certificate.not_after:
        return 'expired on %s' % _day(certificate.not_after)
    if now < certificate.not_before:
        return 'not valid before %s' % _day(certificate.not_before)
    if matches(certificate, host):
        return ''
    known = names(certificate)
    if not known:
        return 'issued for no name'
    more = ' and %d more' % (len(known) - MOST_SHOWN) if len(known) > MOST_SHOWN else ''
    return 'issued for %s%s, not for %s' % (', '.join(known[:MOST_SHOWN]), more, host)


def _day(seconds):
    return datetime.date.fromordinal(_EPOCH + seconds // 86400).isoformat()
