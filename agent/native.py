"""The native transport: HTTP/1.1 over connections of our own, kept alive and used again.

request.py makes the head, connection.py sends and reads. One NativeTransport belongs to one worker; cut() and abort()
alone may be called by another thread. Raises TransportError, FileChanged.
"""

from agent import compat, request, streams
from agent.connection import SMALL, Connection, seconds
from agent.errors import FileChanged, TransportError
from agent.lane import ABREAST
from agent.places import check_proxy, place_of, proxy_fields, split

MOST_HEADS = 64  # parts of requests that are kept: a URL may have a file's name in its host

_NOTHING, _AGAIN = object(), object()


class NativeTransport(object):
    """Sends files for one worker. resources: resources.Resources; clock: monotonic, in seconds."""
    ride = False  # each file of send_all() is an exchange of its own

    def __init__(self, resources, clock=compat.monotonic):
        self._resources = resources
        self._clock = clock
        self._kept = resources.kept
        self._heads = {}  # (receiver's name, origin) -> what _make_head() returns
        self._out = {}    # Connection in use -> when cut() is to end it

    def send(self, parcel, fresh=False):
        """Send one file (records.Parcel) and return the Reply. Raises TransportError and FileChanged.

        fresh: by a connection of its own.
        """
        place, first = self._request(parcel.ticket)
        connection = self._connection(place, parcel.ticket.receiver, fresh)
        self._set_out(connection)
        try:
            reply = self._exchange(connection, first + request.file_head(parcel), parcel)
        except TransportError as error:
            raise connection.explained_end(error)
        finally:
            self._take_in(connection)
        check_proxy(place, reply)
        return reply

    def _exchange(self, connection, head, parcel):
        bucket = self._resources.bucket(connection.receiver)
        if connection.reader is not None and connection.stream.idle():
            try:
                return connection.exchange(head, parcel, bucket)
            except TransportError:
                # A receiver may close a kept connection at any moment, this one too: that alone is no failure.
                if not connection.died or connection.ended:
                    raise
                parcel.body.rewind()
        connection.close()
        connection.connect()
        return connection.exchange(head, parcel, bucket)

    def most(self, receiver):
        """Return how many small files of a receiver send_all() can take: one more than there are connections kept to
        it. One that keeps none gets one file a worker."""
        if receiver.rate_limit:
            return 1
        return min(ABREAST, 1 + self._kept.count(receiver))

    def send_all(self, parcels):
        """Send small files of one receiver at once; yield (number, Reply, TransportError or FileChanged) for each, as
        its answer comes.

        All requests are on their way before an answer is read: where the receiver takes its time, the time of several
        is that of one, and no other thread is needed for it. Each has a kept connection of its own; those for which
        there is none are sent one by one afterwards.
        """
        out, rest = [], []
        try:
            for number, parcel in enumerate(parcels):
                if parcel.body.size > SMALL:  # by what was put around a small file
                    rest.append((number, False))
                    continue
                try:
                    connection = self._begin(parcel)
                except (FileChanged, TransportError) as error:
                    yield number, error
                    continue
                if connection is None:
                    rest.append((number, True))
                else:
                    out.append((number, connection, self._clock()))
            while out:
                for entry in self._ready(out):
                    number, connection, since = entry
                    found = self._found(connection, since)
                    if found is _NOTHING:
                        continue
                    out.remove(entry)
                    if found is _AGAIN:
                        rest.append((number, True))
                    else:
                        yield number, found
            for number, fresh in rest:
                parcels[number].body.rewind()
                yield number, self._sent(parcels[number], fresh)
        finally:
            for _, connection, _ in out:
                connection.close()
                self._take_in(connection)

    def _begin(self, parcel):
        """Send a request by a kept connection and return that, or None when there is none."""
        place, first = self._request(parcel.ticket)
        connection = self._connection(place, parcel.ticket.receiver, False)
        if connection.reader is None or not connection.stream.idle():
            connection.close()
            return None
        self._set_out(connection)
        try:
            connection.begin(first + request.file_head(parcel), parcel)
        except (EnvironmentError, TransportError):
            connection.close()
            self._take_in(connection)
            if connection.ended:
                raise TransportError('deadline', connection.ended)
            # A receiver may close a kept connection at any moment; what else it is, another connection shows.
            return None
        except FileChanged:
            connection.reader.reusable = True  # nothing was sent
            self._take_in(connection)
            raise
        return connection

    def _found(self, connection, since):
        """Return the Reply or TransportError of a request that was begun at `since`; _NOTHING when none is there yet,
        _AGAIN when it has to be sent once more, by another connection."""
        try:
            if not connection.arrived():
                if self._clock() - since < connection.receiver.read_timeout:
                    return _NOTHING
                if not connection.reader.started:
                    raise connection.late()
            reply = connection.finish()
            check_proxy(connection.place, reply)
        except TransportError as error:
            reply = connection.explained_end(error)
        if connection.died and not connection.ended:
            # A receiver may close a kept connection at any moment: that alone is no failure.
            reply = _AGAIN
        self._take_in(connection)
        return reply

    def _ready(self, out):
        """Wait until something has come for some of those that are out, or the first of them has waited enough; return
        those that may have ended."""
        until = min([since + connection.receiver.read_timeout for _, connection, since in out])
        ready = streams.wait_for_any([connection.sock for _, connection, _ in out],
                                     max(0, until - self._clock()) + 0.001)
        return [entry for entry in out if entry[1].sock.fileno() in ready] if ready else list(out)

    def _sent(self, parcel, fresh):
        try:
            return self.send(parcel, fresh)
        except (TransportError, FileChanged) as error:
            return error

    def _request(self, ticket):
        """Return (Place, first bytes of the request) for a ticket."""
        receiver = ticket.receiver
        fields = self._resources.fields(receiver)
        origin, target = split(ticket.url)
        known = self._heads.get((receiver.name, origin))
        if known is None or known[0] is not receiver or known[1] is not fields:
            known = self._make_head(ticket, fields, origin, target)
        _, _, place, start, rest = known
        return place, compat.wire(start + target) + rest

    def _make_head(self, ticket, fields, origin, target):
        """Return (receiver, its credentials, Place, what comes before a target, what comes after it), and keep it."""
        receiver = ticket.receiver
        place = place_of(ticket.url, receiver, self._resources)
        extra = fields if place.scheme == 'https' else fields + proxy_fields(place.proxy)
        start = '%s %s' % (receiver.method, place.target[:len(place.target) - len(target)])
        known = receiver, fields, place, start, request.fixed_head(receiver, place.authority, extra)
        if len(self._heads) >= MOST_HEADS:
            self._heads.clear()
        self._heads[receiver.name, origin] = known
        return known

    def _connection(self, place, receiver, fresh):
        """Return a Connection that is free; one that is kept, unless it has to be `fresh`."""
        context = self._resources.context(receiver) if place.scheme == 'https' else None
        kept = None if fresh else self._kept.take(place, receiver, context)
        return kept or Connection(place, receiver, context)

    def _set_out(self, connection):
        connection.ended = None
        self._out[connection] = self._clock() + connection.receiver.deadline

    def _take_in(self, connection):
        """Keep a connection that can be used again, close any other."""
        self._out.pop(connection, None)
        if connection.reader is None or not connection.reader.reusable:
            connection.close()
        else:
            self._kept.give(connection)

    def cut(self, now):
        """End the exchanges whose deadline has passed (`now`: monotonic). Any thread may call this."""
        for connection, deadline in list(self._out.items()):
            if now >= deadline:
                connection.cut('not done within %s' % seconds(connection.receiver.deadline))

    def abort(self):
        """End the present exchanges. Any thread may call this."""
        for connection in list(self._out):
            connection.cut('stopped before it was done')

    def close(self):
        """Close the connections that are kept, also those of other workers, who then make new ones."""
        self._kept.close()
