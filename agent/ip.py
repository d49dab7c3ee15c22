"""IP addresses: from the way people write them to bytes, and back. Pure. Raises nothing."""

import re

_IP4 = r'\.'.join([r'(0|[1-9][0-9]{0,2})'] * 4) + r'\Z'
_GROUP = r'[0-9A-Fa-f]{1,4}\Z'
_ZEROS = r'(?:\b0(?::|\Z)){2,}'


def packed(host):
    """Return the bytes of an IP address (native text): 4, or 16 with or without square brackets; None for all else.

    Strict as RFC 3986 3.2.2: four decimal numbers without leading zeros; IPv6 as RFC 4291 2.2, without a zone.
    """
    found = re.match(_IP4, host)
    if found:
        numbers = [int(number) for number in found.groups()]
        return bytes(bytearray(numbers)) if max(numbers) < 256 else None
    return _packed6(host[1:-1] if host.startswith('[') and host.endswith(']') else host)


def _packed6(host):
    front, colon, last = host.rpartition(':')
    if not colon:
        return None
    if '.' in last:
        four = packed(last)
        if four is None:
            return None
        host = '%s:%02x%02x:%02x%02x' % ((front,) + tuple(bytearray(four)))
    head, gap, tail = host.partition('::')
    before, after = [side.split(':') if side else [] for side in (head, tail)]
    missing = 8 - len(before) - len(after)
    if (missing < 1 if gap else missing) or not all([re.match(_GROUP, group) for group in before + after]):
        return None
    numbers = [int(group, 16) for group in before + ['0'] * missing + after]
    return bytes(bytearray([part for number in numbers for part in (number >> 8, number & 0xff)]))


def shown(address):
    """Return packed bytes as people write them: 10.0.0.1, 2001:db8::1 (RFC 5952 4)."""
    octets = bytearray(address)
    if len(octets) == 4:
        return '.'.join(['%d' % octet for octet in octets])
    groups = ':'.join(['%x' % (octets[at] << 8 | octets[at + 1]) for at in range(0, 16, 2)])
    runs = sorted(re.finditer(_ZEROS, groups), key=lambda run: run.start() - run.end())  # the first of the longest
    if not runs:
        return groups
    return (groups[:runs[0].start()] or ':') + ':' + groups[runs[0].end():]
