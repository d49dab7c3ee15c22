"""The reason file of a rejected file (SPEC 6), as bytes. Pure. Called by delivery.py. Raises nothing."""

import json
import time

from agent import classify, compat, text

MOST_SHOWN = 4096  # bytes of the answer's body


def compose(ticket, outcome, key, config_path, wall, given_up='', lies_as=None):
    """Return the reason file of a rejected file.

    ticket: records.Ticket; outcome: its Outcome, with the Reply; key: the Idempotency-Key; config_path: the
    configuration's file, for the line that says how to send it again; wall: seconds since 1970; given_up: why the
    agent itself gave it up, '' when the receiver rejected it; lies_as: its name in error/, None: its own.
    """
    name = ticket.file.name
    reply = outcome.reply
    body = reply.body[:MOST_SHOWN] if reply is not None else b''
    lines = [
        ('File', text.shown(name)),
        ('Receiver', ticket.receiver.name),
        ('URL', ticket.url),
        ('Status', outcome.reason),
        ('Reason', given_up or problem(reply) or outcome.reason),
        ('Time', time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(wall))),
        ('Attempts', '%d' % (ticket.attempts + 1)),
        ('Idempotency-Key', key),
    ]
    if ticket.maybe or outcome.maybe:
        lines.append(('Possibly-Delivered', 'yes: it was sent whole, and no answer came'))
    lines += [
        ('Requeue', 'envio -c %s requeue %s' % (
            text.shell_word(config_path) or text.shell_word(text.shown(config_path)), _operand(lies_as or name))),
    ]
    head = ''.join(['%s: %s\n' % line for line in lines])
    shown = text.printable(body.replace(b'\r\n', b'\n'), MOST_SHOWN, '\n\t')
    return compat.config_bytes(head + '\n' + shown + ('\n' if shown and not shown.endswith('\n') else ''))


def _operand(name):
    word = text.shell_word(name)
    if word is None:
        return '--all'
    return '-- ' + word if name.startswith('-') else word


def problem(reply):
    """Return what a problem document (RFC 9457) says, `title: detail`, or '' when the body isn't one.

    A title that only repeats the status line's words, as RFC 9457 4.2.1 wants it for `about:blank`, is left out.
    """
    if reply is None:
        return ''
    kind = classify.header(reply.headers, 'content-type').split(';')[0].strip().lower()
    if kind != 'application/problem+json':
        return ''
    try:
        document = json.loads(reply.body.decode('utf-8'))
    except (ValueError, RuntimeError):  # RuntimeError: nested deeper than this Python goes
        return ''
    if not isinstance(document, dict):
        return ''
    parts = [document.get(member) for member in ('title', 'detail')]
    said = [part.encode('utf-8', 'replace') for part in parts if isinstance(part, compat.text_type) and part.strip()]
    if len(said) == 2 and said[0] == compat.wire(reply.reason):
        del said[0]
    return text.printable(b': '.join(said), 500)
