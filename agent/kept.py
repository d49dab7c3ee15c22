"""Connections that are open and free, of all workers: so there are never more than files were out at once.

Called by native.py, from any thread: each step is one call of a dictionary or a list. Raises nothing.
"""

MOST_PLACES = 64  # to which connections are kept; one more, and those to the first are closed


class Kept(object):
    """Free connections by where they lead and for whom."""

    def __init__(self):
        self._places = {}  # key of a connection -> [connection.Connection, ...], the one used last at the end

    def take(self, place, receiver, context):
        """Return a connection that was kept, or None. Those of an earlier configuration are closed."""
        free = self._places.get(_key(place, receiver))
        while free:
            try:
                connection = free.pop()
            except IndexError:  # race: another worker had the last one
                break
            if connection.receiver is receiver and connection.context is context:
                return connection
            connection.close()
        return None

    def give(self, connection):
        """Keep a connection."""
        key = _key(connection.place, connection.receiver)
        if key not in self._places and len(self._places) >= MOST_PLACES:
            _close(self._places.pop(list(self._places)[0], []))
        self._places.setdefault(key, []).append(connection)

    def count(self, receiver):
        """Return how many connections of a receiver (records.Receiver) are free."""
        return sum([len(free) for key, free in list(self._places.items()) if key[-1] == receiver.name])

    def close(self):
        """Close all."""
        for key in list(self._places):
            _close(self._places.pop(key, []))


def _key(place, receiver):
    return place[:4] + (receiver.name,)


def _close(connections):
    while connections:
        try:
            connections.pop().close()
        except IndexError:  # race: another worker had the last one
            break
