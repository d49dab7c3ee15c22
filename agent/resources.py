"""What the transports of all workers share: TLS contexts, credentials, rate limits, proxies, and open connections.

Made once for a running agent. Called by native.py, curl.py and probe.py. What can't be used (a token that others can
read, a key that is gone) is a TransportError with hold = True: nothing of the receiver moves until it is mended.
"""

from agent import compat, credentials, kept, proxies, ratelimit
from agent.errors import TransportError
from agent.rules import Refused


class Resources(object):
    """environ: the environment, for `proxy = env`; folder: where cURL's answers may lie for a moment, None = the
    system's own for such; clock: monotonic, in seconds."""

    def __init__(self, environ, folder=None, clock=compat.monotonic):
        self.environ = dict(environ)
        self.folder = folder
        self._clock = clock
        self._credentials = credentials.Credentials()
        self._contexts = None  # made with the first https request: the ssl module is slow to load
        self._buckets = {}
        self.kept = kept.Kept()

    def fields(self, receiver):
        """Return the headers that prove who we are: ((name, value), ...); the same tuple until a file changes."""
        return usable(self._credentials.fields, receiver)

    def context(self, receiver):
        """Return the tls.Context of a receiver; the same one until a file changes."""
        if self._contexts is None:
            from agent import tls
            self._contexts = tls.Contexts()
        return usable(self._contexts.get, receiver)

    def proxy(self, receiver, scheme, host, port):
        """Return the proxies.Proxy that a request goes through, or None."""
        if receiver.proxy == 'none':
            return None
        if receiver.proxy == 'env':
            return usable(proxies.from_environment, self.environ, scheme, host, port)
        return proxies.parse(receiver.proxy)

    def bucket(self, receiver):
        """Return the ratelimit.TokenBucket of a receiver with rate_limit, or None."""
        if not receiver.rate_limit:
            return None
        bucket = self._buckets.get(receiver.name)
        if bucket is None or bucket.rate != receiver.rate_limit:
            # setdefault: two workers that come first at once get the same one.
            fresh = ratelimit.TokenBucket(receiver.rate_limit, self._clock())
            if bucket is None:
                return self._buckets.setdefault(receiver.name, fresh)
            self._buckets[receiver.name] = bucket = fresh
        return bucket


def usable(get, *args):
    """Return get(*args); what it refuses (rules.Refused) becomes the TransportError that holds the receiver."""
    try:
        return get(*args)
    except Refused as refused:
        raise TransportError('credentials', str(refused), hold=True)
