"""How the tryout receiver is told to answer: the text of `--answer`, read into rules, and answers put into bytes.

Pure: no I/O, no clock; only a rule's own `left` changes. Called by receiver.py. Raises UsageError for a text
that can't be understood.
"""

import json
import re
from collections import namedtuple

from agent import compat, rules, settings
from agent.errors import UsageError

REPLY, CLOSE, HANG = 'reply', 'close', 'hang'

Answer = namedtuple('Answer', (
    'kind',         # REPLY, CLOSE (the connection, without an answer) or HANG (no answer until stopped)
    'status',       # int; None but for REPLY
    'problem',      # problem+json's detail as text (unicode), or None
    'retry_after',  # seconds as a native string, or None
    'delay',        # seconds before it
    'times',        # how many requests get it, or None: all
))

ACCEPT = Answer(REPLY, 200, None, None, 0.0, None)

_ALONE = re.compile(r'(?:[0-9]+|close|hang)(?::|$)')  # an answer without a pattern: for all
# Codes that Pythons name differently or not at all (RFC 9110 15.5, RFC 6585 4, RFC 8470 5.2, RFC 4918 11.5).
_PHRASES = {413: 'Content Too Large', 422: 'Unprocessable Content', 425: 'Too Early', 429: 'Too Many Requests',
            507: 'Insufficient Storage'}


class Rule(object):
    """One PATTERN=ANSWER, with how many more requests get it."""

    def __init__(self, pattern, answer):
        """pattern: a shell pattern on the file name, or with a / in it on the path. Raises rules.Refused."""
        if pattern.count('*') > rules.MOST_STARS:
            raise rules.Refused('more than %d stars' % rules.MOST_STARS)
        parts = [rules.pattern_source(part, 'p%d' % number) for number, part in enumerate(pattern.split('/'))]
        self._matches = re.compile('(?:%s)\\Z' % '/'.join(parts), re.DOTALL).match
        self._on_path = '/' in pattern
        self.answer = answer
        self.left = answer.times

    def fits(self, name, path):
        """Whether the rule is for this request. name: '' when it names no file; both one character a byte."""
        return self.left != 0 and self._matches(path if self._on_path else name or path) is not None


def parse_rules(source):
    """Return the rules of `source`: `PATTERN=ANSWER,PATTERN=ANSWER` or an answer alone. Raises UsageError.

    ANSWER is a code from 200 to 599, `close` or `hang`, then options: `:problem=TEXT` (percent-encoding stands for
    a comma or a colon in it), `:retry-after=SECONDS`, `:delay=DURATION`, `:times=N`.
    """
    found = []
    for item in [item.strip() for item in source.split(',')]:
        pattern, equals, words = ('*', '=', item) if _ALONE.match(item) else item.partition('=')
        if not (pattern and equals):
            raise UsageError('--answer: %s is neither an answer nor PATTERN=ANSWER: write 503, or for some files '
                             "'*.csv=422'" % (repr(item) if item else 'an empty rule'))
        try:
            found.append(Rule(pattern, _parse_answer(words)))
        except rules.Refused as error:
            raise UsageError('--answer: %r: %s' % (item, error))
    return found


def _parse_answer(words):
    """Return the Answer written as `words`; raises rules.Refused."""
    parts = words.split(':')
    if parts[0] in (CLOSE, HANG):
        answer = ACCEPT._replace(kind=parts[0], status=None)
    elif re.match(r'[2-5][0-9][0-9]\Z', parts[0]):
        answer = ACCEPT._replace(status=int(parts[0]))
    else:
        raise rules.Refused('the answer %r is not a code from 200 to 599, close or hang' % parts[0])
    for part in parts[1:]:
        answer = _with_option(answer, *part.partition('='))
    return answer


def _with_option(answer, option, _, value):
    """Return `answer` with one option read; raises rules.Refused."""
    if option in ('problem', 'retry-after') and answer.kind != REPLY:
        raise rules.Refused('%s is for an answer with a code, not for %s' % (option, answer.kind))
    if option == 'problem' and value:
        return answer._replace(problem=compat.decode(compat.unpercent(compat.byte_string(compat.config_bytes(value)))))
    if option == 'retry-after' and re.match(r'[0-9]{1,9}\Z', value):
        return answer._replace(retry_after=value)
    if option == 'times' and re.match(r'[0-9]{1,9}\Z', value):
        return answer._replace(times=int(value))
    if option == 'delay':
        return answer._replace(delay=settings.duration(value))
    raise rules.Refused('the option %r is none of problem=TEXT, retry-after=SECONDS, delay=DURATION (such as 500ms or '
                        '2s) and times=N; in TEXT write %%2C for a comma and %%3A for a colon' % (option + _ + value))


def choose(found, name, path):
    """Return the Answer of the first rule that fits, and count it; ACCEPT when none does."""
    for rule in found:
        if rule.fits(name, path):
            if rule.left is not None:
                rule.left -= 1
            return rule.answer
    return ACCEPT


def phrase(status):
    """Return the words that belong to a status code, '' when it has none."""
    return _PHRASES.get(status) or compat.http_client().responses.get(status, '')


def compose(answer, date, closes):
    """Return an Answer with a status as (head, body), both bytes.

    date: the Date header's value, native; closes: whether the connection ends with it.
    """
    line = '%d %s' % (answer.status, phrase(answer.status))
    kind, body = 'text/plain', line + '\n'
    if answer.problem is not None:
        kind = 'application/problem+json'
        body = json.dumps({'title': phrase(answer.status), 'status': answer.status, 'detail': answer.problem}) + '\n'
    head = ['HTTP/1.1 ' + line, 'Date: ' + date]
    if answer.retry_after is not None:
        head.append('Retry-After: ' + answer.retry_after)
    if closes:
        head.append('Connection: close')
    if answer.status in (204, 304):
        body = ''
    else:
        head += ['Content-Type: ' + kind, 'Content-Length: %d' % len(body)]
    return compat.wire('\r\n'.join(head + ['', ''])), compat.wire(body)


def described(answer):
    """Return what a person reads of an Answer: `422 Unprocessable Content`, `closed without an answer`."""
    if answer.kind == REPLY:
        return ('%d %s' % (answer.status, phrase(answer.status))).rstrip()
    return 'closed without an answer' if answer.kind == CLOSE else 'no answer'
