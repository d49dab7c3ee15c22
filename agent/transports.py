"""Which transport a receiver gets, decided when the configuration is read (SPEC 4), and the worker's way to both.

problems() and warnings() are for the start; vet() is for receivers that a router plug-in brings up later. A third
transport would be one more file and a line in Transports. Called by cli.py and engine.py. Raises rules.Refused.
"""

import logging

from agent import places
from agent.errors import TransportError
from agent.resources import Resources, usable
from agent.rules import Refused

NATIVE, CURL, AUTO = 'native', 'curl', 'auto'


def scheme_of(receiver):
    """Return 'http' or 'https'."""
    return receiver.url.partition('://')[0].lower()


def choose(receiver, environ):
    """Return NATIVE or CURL for a receiver; raises Refused where it can't be had as it has to be.

    receiver: records.Receiver with its url; environ: the environment.
    """
    secure = scheme_of(receiver) == 'https'
    if receiver.transport == NATIVE or receiver.transport == AUTO and not secure:
        if secure and _no_ssl():
            raise Refused('https: %s: set transport = curl' % _native_lack())
        return NATIVE
    if receiver.transport == CURL:
        program, lack = _curl(environ)
        if secure and not program.https:
            raise Refused('https: %s' % lack)
        return CURL
    lack = _native_lack()
    if not lack:
        return NATIVE
    try:
        other = _curl(environ)[1]
    except Refused as refused:
        other = str(refused)
    if other:
        raise Refused('https: %s, and %s: run it with another Python or cURL, or say transport = native or curl to do '
                      'with what that has' % (lack, other))
    return CURL


def _curl(environ):
    """Return cURL's curl_program.Program and what it lacks for https, '' for nothing; raises Refused."""
    from agent import curl_program  # here, as tls below: slow to load, and few starts need it
    program = curl_program.find(environ)
    return program, curl_program.lack(program)


def _native_lack():
    from agent import tls
    return tls.lack()


def _no_ssl():
    from agent import tls
    return tls.ssl is None


def vet(receiver, resources):
    """Raise Refused unless files can be sent to `receiver` from here; resources: resources.Resources."""
    chosen = choose(receiver, resources.environ)
    secure = scheme_of(receiver) == 'https'
    try:
        fields = resources.fields(receiver)
        # A host that depends on the file's name is one that no_proxy names by none but its end.
        proxy = places.place_of(receiver.url.replace('{', 'x').replace('}', 'x'), receiver, resources).proxy
        if secure and chosen == NATIVE:
            resources.context(receiver)
        elif secure:
            from agent import tls
            tls.files_of(receiver)
    except TransportError as error:
        raise Refused(str(error))
    if chosen == CURL:
        from agent import curl_program
        program = curl_program.find(resources.environ)
        if secure and proxy and fields and program.version < curl_program.KEEPS_HEADERS_FROM_PROXY:
            raise Refused('%s would show the password or token to the proxy, too (before 7.42.1): use no proxy, or '
                          'transport = native' % program.path)


def vetting(environ):
    """Return a function(receiver) that is vet() with one set of Resources."""
    resources = Resources(environ)
    return lambda receiver: vet(receiver, resources)


def problems(config, environ):
    """Return a sentence for each receiver of a records.Config that can't be sent to from here."""
    resources = Resources(environ)
    found = []
    for receiver in config.receivers:
        try:
            vet(receiver, resources)
        except Refused as refused:
            found.append('%s: [receiver:%s]: %s' % (config.path, receiver.name, refused))
    return found


def warnings(config, environ):
    """Return [(level, sentence)] of what holds but should be known; the level is one of logging's."""
    found = []
    receivers = config.receivers
    if config.router:
        receivers += (config.defaults._replace(name='named by the router function', url='https://'),)
    for receiver in receivers:
        where, secure = '[receiver:%s]: ' % receiver.name, scheme_of(receiver) == 'https'
        if secure and not receiver.tls_verify:
            found.append((logging.WARNING, where + 'tls_verify = no: anybody on the way can read the files and answer '
                                                   'in the receiver\'s place'))
        if secure and receiver.transport == NATIVE and _native_lack():
            found.append((logging.WARNING, where + 'transport = native: %s' % _native_lack()))
        lack = _curl(environ)[1] if secure and receiver.transport == CURL else ''
        if lack:
            found.append((logging.WARNING, where + 'transport = curl: %s' % lack))
        if not secure and (receiver.password_file or receiver.token_file or receiver.secret_headers_file):
            found.append((logging.INFO, where + 'its password, token or headers go over http, for all on the way to '
                                                'read'))
    return found


class Transports(object):
    """Both transports of one worker. resources: resources.Resources."""

    def __init__(self, resources):
        from agent.native import NativeTransport  # here: a pass that finds nothing to send loads none of it
        self._resources = resources
        self._native = NativeTransport(resources)
        self._curl = None    # made with the first file that needs it
        self._chosen = {}    # receiver's name -> (Receiver, its transport)

    def of(self, receiver):
        """Return the transport for files of `receiver`. Raises TransportError where it can't be had any more."""
        known = self._chosen.get(receiver.name)
        if known is None or known[0] is not receiver:
            known = self._chosen[receiver.name] = receiver, usable(self._choose, receiver)
        return known[1]

    def _choose(self, receiver):
        if choose(receiver, self._resources.environ) == NATIVE:
            return self._native
        if self._curl is None:
            from agent import curl  # here: few need it, and it loads much
            self._curl = curl.CurlTransport(self._resources, _curl(self._resources.environ)[0])
        return self._curl

    def send(self, parcel):
        """Send one file (records.Parcel) and return the Reply. Raises TransportError and FileChanged."""
        return self.of(parcel.ticket.receiver).send(parcel)

    def most(self, receiver):
        """Return (how many files of `receiver` (records.Receiver) send_all() can take, whether they ride in one
        exchange or have one each)."""
        try:
            transport = self.of(receiver)
            return 1 if receiver.follow_redirects else transport.most(receiver), transport.ride
        except TransportError:
            return 1, False  # send() says why

    def send_all(self, parcels):
        """Send small files of one receiver, as many as most() says: see native.NativeTransport.send_all."""
        return self.of(parcels[0].ticket.receiver).send_all(parcels)

    def _all(self):
        return [self._native] + ([self._curl] if self._curl else [])

    def cut(self, now):
        """End the present exchange if its deadline has passed (`now`: monotonic). Any thread may call this."""
        for transport in self._all():
            transport.cut(now)

    def abort(self):
        """End the present exchange. Any thread may call this."""
        for transport in self._all():
            transport.abort()

    def close(self):
        """Close what is open."""
        for transport in self._all():
            transport.close()
