"""Which HTTP proxy a URL goes through: the value of `proxy`, or the variables of the environment.

The variables are read as cURL reads them, so that both transports take the same way.
Pure: the environment is an argument. Raises rules.Refused for a proxy that can't be used; its text never holds any
part of the value, as that may hold a password.
"""

import binascii
import re
from collections import namedtuple

from agent import compat, ip
from agent.rules import Refused

DEFAULT_PORT = 1080  # where the value names none: cURL's choice, not the 80 of other http:// URLs

Proxy = namedtuple('Proxy', (
    'host',         # name or IP address, lower case, without square brackets
    'port',         # int
    'credentials',  # 'user:password', native, one character a byte; '': none
))

_SCHEME = r'([A-Za-z][A-Za-z0-9+.-]*)://(.*)\Z'
_PLACE = r'(\[[^\[\]]*\]|[^:\[\]]*)(?::(.*))?\Z'
_NAME = r'[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?\Z'
_WITH_PORT = r'(\[[^\[\]]*\]|[^:\[\]]*):([0-9]{1,5})\Z'


def parse(value):
    """Return the Proxy of `[http://][user[:password]@]host[:port][/]` (native text).

    User and password are percent-encoded where they hold more than letters, digits and marks. An IPv6 address stands in
    square brackets. Without a port it is DEFAULT_PORT. Raises Refused.
    """
    if not re.match(r'[!-~]*\Z', value):
        raise Refused('blanks, control characters and letters beyond ASCII are not allowed: percent-encode them')
    found = re.match(_SCHEME, value)
    scheme, rest = found.groups() if found else ('http', value)
    if scheme.lower() != 'http':
        raise Refused('https:// and socks proxies are not supported: only http:// proxies are')
    authority, path = re.match(r'([^/?#]*)(.*)\Z', rest).groups()
    if path not in ('', '/'):
        raise Refused('nothing may follow the host and port of a proxy: write / ? and # in a password as %2F %3F %23')
    userinfo, _, place = authority.rpartition('@')
    host, port = _split_place(place)
    return Proxy(host, port, _credentials(userinfo))


def _split_place(place):
    """Return (host, port) of `host[:port]`; raises Refused."""
    found = re.match(_PLACE, place)
    if not found:
        raise Refused('there is no host name or address: an IPv6 address stands in square brackets')
    host, port = found.groups()
    if not host:
        raise Refused('there is no host')
    if host.startswith('['):
        usable, host = len(ip.packed(host) or b'') == 16, host[1:-1]
    else:
        usable = re.match(_NAME, host) and len(host) <= 253
    if not usable:
        raise Refused('that is no host name or address')
    if port is not None and not (re.match(r'[0-9]{1,5}\Z', port) and 1 <= int(port) <= 65535):
        raise Refused('the port must be a number from 1 to 65535')
    return host.lower(), int(port or DEFAULT_PORT)


def _credentials(userinfo):
    """Return `user:password` of what stands before the @ (RFC 7617 2), '' for nothing; raises Refused."""
    if not userinfo:
        return ''
    if re.search(r'%(?![0-9A-Fa-f]{2})', userinfo):
        raise Refused('a % without two hexadecimal digits behind it: write %25')
    user, password = [compat.byte_string(compat.unpercent(part)) for part in userinfo.partition(':')[::2]]
    if ':' in user:
        raise Refused('a user\'s name can\'t hold a colon')
    if re.search(r'[\x00-\x1f\x7f]', user + password):
        raise Refused('user and password can\'t hold control characters')
    return '%s:%s' % (user, password)


def from_environment(environ, scheme, host, port):
    """Return the Proxy that the environment wants for a URL, None for none.

    environ: a mapping such as os.environ; scheme: 'http' or 'https'; host: name or address, with or without square
    brackets; port: int. Looks at http_proxy or https_proxy, in capitals, then all_proxy; an empty variable counts
    as not set. Under CGI a client sets HTTP_PROXY by a header (CVE-2016-5385), so there it does not count.
    Raises Refused.
    """
    wanted = [scheme + '_proxy', scheme.upper() + '_PROXY', 'all_proxy', 'ALL_PROXY']
    if 'REQUEST_METHOD' in environ:
        wanted = [name for name in wanted if name != 'HTTP_PROXY']
    value = _first(environ, wanted)
    if not value or goes_direct(_first(environ, ['no_proxy', 'NO_PROXY']), host, port):
        return None
    return parse(value)


def _first(environ, wanted):
    """Return the first value that is not empty, without blanks around it, or ''."""
    return ([value for value in [environ.get(name, '').strip() for name in wanted] if value] or [''])[0]


def goes_direct(no_proxy, host, port):
    """Return whether a list like that in the variable no_proxy holds a place.

    no_proxy: items with commas or blanks between: `*`; a name, which stands for all below it too, with or without a
    `.` or `*.` before it; an address; a network as 10.0.0.0/8 or fd00::/8; each may end in `:port`, IPv6 then in square
    brackets. What is none of these holds nothing. No name is resolved. host, port: as for from_environment().
    """
    host = host.lower().rstrip('.')
    address = ip.packed(host)
    return any([_holds(item, host, address, port) for item in no_proxy.lower().replace(',', ' ').split()])


def _holds(item, host, address, port):
    found = re.match(_WITH_PORT, item)
    if found:
        item = found.group(1)
        if int(found.group(2)) != port:
            return False
    if item == '*':
        return True
    network, slash, bits = item.partition('/')
    base = ip.packed(network.rstrip('.'))
    if base is not None:
        return address is not None and _in_network(address, base, bits if slash else '%d' % (8 * len(base)))
    name = (item[1:] if item.startswith('*.') else item).strip('.')
    return address is None and name != '' and ('.' + host).endswith('.' + name)


def _in_network(address, base, bits):
    width = 8 * len(base)
    if len(address) != len(base) or not re.match(r'[0-9]{1,3}\Z', bits) or int(bits) > width:
        return False
    first, second = [int(binascii.hexlify(each), 16) >> (width - int(bits)) for each in (address, base)]
    return first == second
