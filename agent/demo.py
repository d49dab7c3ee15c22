"""`envio demo`: the whole thing in a temporary folder: real files, three receivers on loopback, shown as it happens.

Called by cli.py. It checks what it shows: the exit code is 0 only when every file is where it has to be.
"""

import logging
import os
import pkgutil
import shutil
import signal
import tempfile

from agent import compat, config, engine, errors, receiver, router
from agent.wakeup import Wakeup

# By name: in a program that is one file (bin/bundle.py) there is no folder to list.
EXAMPLES = ('invoice-2026-0417.xml', 'invoice-2026-0418.xml', 'label-FLR-25.svg', 'orders-1001.json',
            'orders-1002.json', 'orders-1003.json', 'orders-1004.json', 'stock-2026-11-23.csv')
LONGEST = 60  # seconds, then something is wrong
DOWN_FOR = 2.0  # seconds after its breaker opened until the third receiver comes back

CONFIG = """\
[agent]
spool = %(spool)s
settle = 200ms
scan_interval = 500ms
workers = 4

[receiver:invoices]
match = invoice-*.xml
url = %(invoices)s/invoices/{name}

[receiver:orders]
match = orders-*.json
url = %(orders)s/orders

[receiver:stock]
match = *.csv, *.svg
url = %(stock)s/stock
breaker_threshold = 2
breaker_pause = 1s
retry_pause = 500ms
"""
RULES = {'invoices': '201', 'stock': '200',
         'orders': 'orders-1003.json=422:problem=field "total" is missing,*=200'}


class _Printer(logging.Handler):
    """Prints log lines with the time since the beginning."""

    def __init__(self, stream):
        logging.Handler.__init__(self)
        self._stream = stream
        self._begin = compat.monotonic()

    def say(self, line):
        """Print a line."""
        self._stream.write(compat.writable('%6.2f s  %s\n' % (compat.monotonic() - self._begin, line), self._stream))
        self._stream.flush()

    def emit(self, record):
        """Print a log line (logging.Handler)."""
        self.say('agent     %s' % self.format(record))


def run(stream):
    """Show it on `stream`; return the exit code: 0 when everything went as it has to, else 70."""
    files = dict([(name, pkgutil.get_data('agent', 'examples/' + name)) for name in EXAMPLES])
    folder = tempfile.mkdtemp(prefix='envio-demo-')
    log = logging.getLogger('envio')
    printer = _Printer(stream)
    log.handlers, log.propagate = [printer], False
    log.setLevel(logging.INFO)
    servers = {}
    try:
        for name in sorted(RULES):
            servers[name] = receiver.serve(folder=os.path.join(folder, name), answers=RULES[name],
                                           say=_prefixed(printer.say, name)).start()
        servers['stock'].stop()
        agent = _deliver(folder, files, servers, printer)
        return _table(folder, files, agent, stream)
    finally:
        for server in servers.values():
            server.stop()
        log.handlers = []
        shutil.rmtree(folder)


def _prefixed(say, name):
    return lambda line: say('%-9s received %s' % (name, line))


def _deliver(folder, files, servers, printer):
    spool = os.path.join(folder, 'spool')
    os.mkdir(spool)
    for name in EXAMPLES:
        with open(os.path.join(spool, name), 'wb') as stream:
            stream.write(files[name])
    places = dict([(name, server.url) for name, server in servers.items()], spool=spool)
    parsed = config.parse((CONFIG % places).encode('ascii'), os.path.join(folder, 'envio.conf'))
    printer.say('%d files in %s; receiver stock is down' % (len(EXAMPLES), spool))
    wakeup = Wakeup()
    try:
        return engine.run((parsed, router.Router(parsed)), wakeup, watch=_Director(servers['stock'], wakeup, printer))
    finally:
        wakeup.close()


class _Director(object):
    """Looks at the agent at each turn: brings the third receiver back, and ends the demo when all is done."""

    def __init__(self, server, wakeup, printer):
        self._server, self._wakeup, self._printer = server, wakeup, printer
        self._end = compat.monotonic() + LONGEST
        self._back = None

    def __call__(self, agent):
        now = compat.monotonic()
        if self._back is None and agent.lanes.lanes['stock'].breaker.openings:
            self._back = now + DOWN_FOR
        if self._back is not None and now >= self._back and self._server.down.is_set():
            self._server.start()
            self._printer.say('receiver stock comes back')
        if agent.stats.total('accepted') + agent.stats.total('rejected') >= len(EXAMPLES) or now > self._end:
            self._wakeup.signals.append(signal.SIGTERM)
            return now
        return now + 0.1


def _table(folder, files, agent, stream):
    """Print where each file went, and compare it with where it has to be."""
    spool = os.path.join(folder, 'spool')
    day = os.listdir(os.path.join(spool, 'sent'))[0]
    good = True
    stream.write('\n%-22s %-9s %-9s %s\n' % ('file', 'receiver', 'verdict', 'received'))
    for name in EXAMPLES:
        to = agent.router.route(spool, name).receiver.name
        rejected = name == 'orders-1003.json'
        where = os.path.join(spool, 'error' if rejected else os.path.join('sent', day), name)
        received = _holds(os.path.join(folder, to, name), files[name])
        right = _holds(where, files[name]) and received != rejected
        good = good and right
        stream.write('%-22s %-9s %-9s %s%s\n' % (
            name, to, 'rejected' if rejected else 'accepted',
            'refused, with its reason beside it' if rejected else 'every byte', '' if right else '  NOT AS EXPECTED'))
    with open(os.path.join(spool, 'error', 'orders-1003.json.reason')) as reason:
        stream.write('\norders-1003.json.reason\n%s\n' % ''.join(['  ' + line for line in reason]))
    for line in agent.stats.summary(compat.monotonic()):
        stream.write(line + '\n')
    stream.write('\nas expected\n' if good else '\nNOT as expected\n')
    return errors.EX_OK if good else errors.EX_SOFTWARE


def _holds(path, content):
    if not os.path.isfile(path):
        return False
    with open(path, 'rb') as stream:
        return stream.read() == content
