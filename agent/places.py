"""Where a URL leads, with the proxy on the way, and what is the proxy's own word. The same for both transports.

Called by native.py, curl.py and probe.py. Raises TransportError.
"""

import re
from collections import namedtuple

from agent import compat, credentials, rules, text
from agent.errors import TransportError

# proxy: proxies.Proxy or None; target: the request target; authority: the value of Host.
Place = namedtuple('Place', 'scheme host port proxy target authority')

_URL = re.compile(r'([^:]+://[^/?]*)(.*)\Z', re.DOTALL)


def place_of(url, receiver, resources):
    """Return the Place of a URL that rules.parse_url accepted. Raises TransportError for a proxy that can't be used."""
    origin, target = split(url)
    scheme, _, authority = origin.partition('://')
    scheme = scheme.lower()
    host, port = rules.split_authority(authority, rules.SCHEMES[scheme])
    host = host.strip('[]').lower().rstrip('.')
    proxy = resources.proxy(receiver, scheme, host, port)
    if proxy is not None and scheme == 'http':
        target = 'http://' + authority + target  # RFC 9112 3.2.2
    return Place(scheme, host, port, proxy, target, authority)


def split(url):
    """Return (`scheme://authority`, what follows it, at least a slash) of a URL that rules.parse_url accepted."""
    origin, target = _URL.match(url).groups()
    return origin, target if target.startswith('/') else '/' + target


def host_port(place):
    """Return `host:port`, an IPv6 address in square brackets."""
    return '%s:%d' % ('[%s]' % place.host if ':' in place.host else place.host, place.port)


def proxy_fields(proxy):
    """Return the headers for the proxy itself: ((name, value), ...)."""
    if proxy is None or not proxy.credentials:
        return ()
    return (('Proxy-Authorization', credentials.basic(compat.wire(proxy.credentials))),)


def check_proxy(place, reply):
    """Raise TransportError when the answer to a plain request came from the proxy itself: it says nothing of the file.

    Told by its status (RFC 9110 15.5.8), by the proxy status field (RFC 9209 2.1.1) and by what squid and tinyproxy
    say of themselves.
    """
    if place.proxy is None or place.scheme == 'https' or reply.status < 400:
        return
    fields = dict(reply.headers)
    if reply.status == 407 or 'x-squid-error' in fields or 'error=' in fields.get('proxy-status', '') \
            or fields.get('server', '').startswith('tinyproxy/'):
        raise refused_by_proxy(place.proxy, reply.status, reply.reason)


def refused_by_proxy(proxy, status, reason):
    """Return the TransportError for a proxy that does not do what it is asked for."""
    words = 'the proxy %s:%d refused: %s' % (proxy.host, proxy.port, text.status(status, reason))
    return TransportError('proxy', words, hold=status in (401, 407))  # 401: tinyproxy, for a wrong password
