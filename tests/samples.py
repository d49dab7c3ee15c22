"""What tests share: records, complete with the defaults a configuration gives, and how a call failed."""

from agent import compat, config
from agent.records import Reply, SpoolFile, Stamp, Ticket


def receiver(name='orders', **settings):
    """Return a Receiver with the defaults of a configuration, but these settings."""
    text = '[agent]\nspool = /var/spool/envio\n[receiver:%s]\nmatch = *\nurl = http://127.0.0.1:9/in\n' % name
    return config.parse(text.encode('ascii'), 'sample.conf').receivers[0]._replace(**settings)


def ticket(of=None, name='a.json', mtime=0, **fields):
    """Return a Ticket of a file that need not exist."""
    of = of or receiver()
    file = SpoolFile('/var/spool/envio', name, Stamp(1, 2, 3, mtime, 4))
    return Ticket(file, of, of.url, 0, 0, None)._replace(**fields)


def reply(status, *headers, **fields):
    """Return a Reply; headers are (lower-case name, value) pairs."""
    return Reply(status, 'Reason', headers, b'')._replace(**fields)


def failure(call, *args):
    """Return the number of the error that call(*args) ends with, or None. (On 2.6 pytest.raises loses it.)"""
    try:
        call(*args)
    except EnvironmentError as error:
        return compat.error_number(error)
    return None
