"""`envio check --connect`: whether each receiver can be reached: its name, TCP, the proxy, TLS and the certificate.

Nothing is sent but what asks a proxy for a connection. Called by cli.py.
"""

import time

from agent import certificates, curl, curl_program, native, places, rules, tls, transports
from agent.errors import TransportError

DAY = 86400


def probe(receiver, resources):
    """Return (good, what was found) for one records.Receiver; resources: resources.Resources."""
    if '{' in rules.parse_url(receiver.url).origin:
        return True, 'not tried: the host depends on the file\'s name'
    try:
        place = places.place_of(receiver.url, receiver, resources)
    except TransportError as error:
        return False, str(error)
    where = '%s://%s: ' % (place.scheme, places.host_port(place))
    try:
        if place.scheme == 'https' and transports.choose(receiver, resources.environ) == transports.CURL:
            return True, where + 'ok: ' + ', '.join(_by_curl(receiver, place, resources))
        return True, where + 'ok: ' + ', '.join(_by_ourselves(receiver, place, resources))
    except TransportError as error:
        return False, where + str(error)


def _by_curl(receiver, place, resources):
    curl.shake_hands(curl_program.find(resources.environ), receiver, place)
    found = ['cURL accepts the certificate' if receiver.tls_verify else 'cURL connects, not verified']
    try:
        # What it says can only be seen by a Python that can look.
        return found + _by_ourselves(receiver, place, resources) if tls.ssl is not None else found
    except TransportError:
        return found


def _by_ourselves(receiver, place, resources):
    connection = native.Connection(place, receiver, resources.context(receiver) if place.scheme == 'https' else None)
    connection.connect()
    try:
        return _found(connection)
    finally:
        connection.close()


def _found(connection):
    """Return what is known of an open connection, in words."""
    place, certificate = connection.place, connection.certificate
    found = ['%s %s' % ('through the proxy' if place.proxy else 'connected to', connection.sock.getpeername()[0])]
    if certificate is None:
        return found
    version = getattr(connection.sock, 'version', None)
    found.append(version() if version is not None else 'TLS')
    found.append('certificate for %s' % ' '.join(certificates.names(certificate)[:5]))
    found.append('valid for %d days, until %s' % ((certificate.not_after - time.time()) // DAY, time.strftime(
        '%Y-%m-%d', time.gmtime(certificate.not_after))))
    if not connection.receiver.tls_verify:
        found.append('not verified')
    return found
