"""A transport, a file and a receiver, ready to send: what the tests of both transports share."""

import os

from agent import bodies, compat, curl_program
from agent.curl import CurlTransport
from agent.native import NativeTransport
from agent.records import Parcel
from agent.resources import Resources
from agent.rules import Refused
from agent.spool import OpenFile, stamp_of
from tests.samples import receiver, ticket

KEY = 'the-key'
ASKED = 1 << 20  # bytes: larger bodies ask first


def no_curl():
    """Return why there is no cURL to test with, or ''."""
    try:
        curl_program.find(os.environ)
    except Refused as refused:
        return str(refused)
    return ''


def make(kind, environ=None, folder=None):
    """Return a transport: 'native' or 'curl'."""
    resources = Resources(environ or {}, folder)
    if kind == 'native':
        return NativeTransport(resources)
    return CurlTransport(resources, curl_program.find(os.environ))


class Sender(object):
    """Sends files that lie in `folder`."""

    def __init__(self, folder, transport):
        self.folder = str(folder)
        self.transport = transport
        self._opened = []
        self._receivers = {}

    def send(self, port, content=b'content', name='a.json', path='/in', **settings):
        """Send to a port of this host over http; settings: see parcel()."""
        url = 'http://127.0.0.1:%d%s' % (port, path)
        return self.transport.send(self.parcel(url, content, name, **settings))

    def send_to(self, url, content=b'content', **settings):
        """Send to a URL."""
        return self.transport.send(self.parcel(url, content, **settings))

    def parcel(self, url, content=b'content', name='a.json', size=None, expect=None, **settings):
        """Return the Parcel of a new file. size: what the file is taken for, None = its own; settings: the
        receiver's, which is the same one when they are the same."""
        place = os.path.join(self.folder, name)
        with open(place, 'wb') as stream:
            stream.write(content)
        opened = OpenFile(os.open(place, os.O_RDONLY), len(content) if size is None else size)
        self._opened.append(opened)
        known = url, tuple(sorted(settings.items()))
        of = self._receivers.setdefault(known, receiver(url=url, **settings))
        one = ticket(of, name)
        one = one._replace(file=one.file._replace(stamp=stamp_of(os.stat(place))))
        body = bodies.make(of, name, opened, KEY)
        return Parcel(one, body, KEY, body.size > ASKED if expect is None else expect)

    def close(self):
        """Close all."""
        self.transport.close()
        for opened in self._opened:
            opened.close()


def watched(transport, over):
    """Let cut() be called until the Event `over` is set, as the main thread of an agent does."""
    while not over.is_set():
        over.wait(0.05)
        transport.cut(compat.monotonic())
