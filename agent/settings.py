"""Every key of the configuration, described once (SPEC 4): where it may stand, what its value looks like, its default.

config reads and validates with this table, and documentation can be made from it; a key is added here and in
records. A kind's parse raises rules.Refused, with the reason as a clause.
"""

import os
import re
from collections import namedtuple

from agent import compat, proxies, rules
from agent.rules import Refused

# where a key may stand
AGENT = '[agent]'
RECEIVER = '[receiver:NAME]'
BOTH = 'both'  # in a receiver's section, and in [agent] as the default of all

ONE, LINES, ITEMS = 'one', 'lines', 'items'  # a single value; a list by line; a list by comma or line

Kind = namedtuple('Kind', (
    'form',   # what a value looks like, for people
    'parse',  # function(native text of one value) -> value; raises Refused
    'split',  # ONE, LINES or ITEMS; the value of a list is a tuple
    'blank',  # True: the empty value is allowed; it means none: '' or ()
))

Setting = namedtuple('Setting', (
    'name',
    'where',    # AGENT, RECEIVER or BOTH
    'kind',     # Kind
    'default',  # as it would stand in the file; None: the key has to be given
    'help',     # one line, for people
))

_UNITS = {'ms': 0.001, 's': 1.0, 'm': 60.0, 'h': 3600.0, 'd': 86400.0}
_SIZES = {'': 1, 'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}
_TRUTH = {'yes': True, 'true': True, 'on': True, '1': True, 'no': False, 'false': False, 'off': False, '0': False}
_DAY = 86400
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 5.6.2
_HEADER = re.compile(r'(%s):[ \t]*(.*)\Z' % _TOKEN)
_MEDIA_TYPE = re.compile(r'%s/%s(?:;[ ]*%s=(?:%s|"[^"\\]*"))*\Z' % (_TOKEN, _TOKEN, _TOKEN, _TOKEN))
_OWN_HEADERS = ('host', 'content-length', 'transfer-encoding', 'connection', 'idempotency-key', 'x-file-name', 'expect',
                'keep-alive', 'proxy-connection', 'te', 'trailer', 'upgrade')


# --- how one value is read

def _duration(least, most):
    """Return a Kind: seconds as a float, from `least` to `most` (seconds)."""
    def parse(text):
        found = re.match(r'([0-9]{1,12})(ms|s|m|h|d)\Z', text)
        if text == '0':
            seconds = 0.0
        elif found:
            seconds = int(found.group(1)) * _UNITS[found.group(2)]
        elif re.match(r'[0-9]+\Z', text):
            raise Refused('a number needs a unit: did you mean %ss' % text[:12])
        else:
            raise Refused('not a duration: write one like 500ms, 5s, 2m, 1h or 5d')
        if seconds < least or seconds == 0 and least > 0:
            raise Refused('it must be longer than 0')
        if seconds > most:
            raise Refused('it must be at most %dd' % (most // _DAY))
        return seconds
    return Kind('a duration: 500ms, 5s, 2m, 1h, 5d' + (' or 0' if least == 0 else ''), parse, ONE, False)


def _number(least, most):
    """Return a Kind: a whole number from `least` to `most`."""
    def parse(text):
        if not re.match(r'[0-9]{1,12}\Z', text) or not least <= int(text) <= most:
            raise Refused('it must be a whole number from %d to %d' % (least, most))
        return int(text)
    return Kind('a whole number from %d to %d' % (least, most), parse, ONE, False)


def _size(text):
    found = re.match(r'([0-9]{1,12})([KMG]?)\Z', text)
    if not found:
        raise Refused('not a size: write one like 4096, 64K, 10M or 1G')
    return int(found.group(1)) * _SIZES[found.group(2)]


def _truth(text):
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise Refused('it must be yes or no')


def _choice(*words):
    """Return a Kind: one of `words`."""
    def parse(text):
        if text not in words:
            raise Refused('it must be %s or %s' % (', '.join(words[:-1]), words[-1]))
        return text
    return Kind('%s or %s' % (', '.join(words[:-1]), words[-1]), parse, ONE, False)


def _method(text):
    if text.upper() not in ('POST', 'PUT', 'PATCH', 'GET') or not re.match(r'[A-Za-z]+\Z', text):
        raise Refused('it must be POST, PUT, PATCH or GET')
    return text.upper()


def _path(text):
    if not text.startswith('/'):
        raise Refused('the path must be absolute: begin it with /')
    return '/' + os.path.normpath(compat.fs_native(compat.config_bytes(text))).lstrip('/')


def _pattern(text):
    rules.pattern_source(text)
    return text


def _regex(text):
    rules.compile_regex(text)
    return text


def _url(text):
    rules.parse_url(text)
    return text


def _plugin(text):
    if not re.match(r'/.+:[A-Za-z_][A-Za-z0-9_]*\Z', text):
        raise Refused('it must be FILE.py:FUNCTION with the absolute path of the file')
    return compat.fs_native(compat.config_bytes(text))


def _account(text):
    if not re.match(r'[A-Za-z0-9_][A-Za-z0-9_.-]*\$?\Z', text):
        raise Refused('not the name of an account')
    return text


def _token(text):
    if not re.match(_TOKEN + r'\Z', text):
        raise Refused('letters, digits and -_. only')
    return text


def _media_type(text):
    if text != 'auto' and not _MEDIA_TYPE.match(text):
        raise Refused('it must be auto or a media type such as application/json')
    return text


def parse_header(text):
    """Return (name, value) of a header written `Name: value`; raises rules.Refused, without showing the value."""
    found = _HEADER.match(text)
    if not found:
        raise Refused('a header is Name: value, one a line, the name without blanks')
    name, value = found.groups()
    if name.lower() == 'content-type':
        raise Refused('%s is set by content_type: use that key' % name)
    if name.lower() in _OWN_HEADERS:
        raise Refused('%s is set by the agent itself: leave it out' % name)
    if not re.match(r'[ -~]*\Z', value):
        raise Refused('the value of %s holds a control character or one beyond ASCII' % name)
    return name, value


def _code(text):
    if not re.match(r'[2345](?:[0-9][0-9]|[xX][xX])\Z', text):
        raise Refused('it must be a code from 200 to 599 or a class: 2xx, 3xx, 4xx, 5xx')
    return text.lower()


def _proxy(text):
    if text not in ('none', 'env'):
        if '://' not in text:
            raise Refused('it must be none, env or http://host:port')
        proxies.parse(text)
    return text


def _user_name(text):
    if ':' in text:
        raise Refused('a user name has no colon in it (RFC 7617 2)')
    return text


LONG = _duration(0, 3650 * _DAY)
PAUSE = _duration(0.001, 3650 * _DAY)
TIMEOUT = _duration(0.001, 7 * _DAY)
COUNT = _number(0, 1000000)
THREADS = _number(1, 1000)
SIZE = Kind('a size in bytes: 4096, 64K, 10M, 1G', _size, ONE, False)
YES_NO = Kind('yes or no', _truth, ONE, False)
PATH = Kind('an absolute path', _path, ONE, True)
PATHS = Kind('absolute paths, one a line', _path, ITEMS, False)
PATTERNS = Kind('shell patterns: * ? [abc] [!abc]', _pattern, ITEMS, True)
REGEX = Kind('a regular expression', _regex, ONE, True)
URL = Kind('a URL with {name}, {stem} and groups of match_regex', _url, ONE, False)
PLUGIN = Kind('FILE.py:FUNCTION', _plugin, ONE, True)
METHOD = Kind('POST, PUT, PATCH or GET', _method, ONE, False)
MEDIA_TYPE = Kind('auto or a media type', _media_type, ONE, False)
HEADERS = Kind('Name: value, one a line', parse_header, LINES, True)
CODES = Kind('codes and classes: 404, 5xx', _code, ITEMS, True)
ACCOUNT = Kind('the name of an account', _account, ONE, True)
USER_NAME = Kind('a user name', _user_name, ONE, True)
TOKEN = Kind('a word', _token, ONE, False)
PROXY = Kind('none, env or http://host:port', _proxy, ONE, False)

SETTINGS = tuple([Setting(*row) for row in (
    # the agent
    ('spool', AGENT, PATHS, None, 'folders whose files are sent'),
    ('workers', AGENT, THREADS, '8', 'threads that send, in all'),
    ('scan_interval', AGENT, _duration(0.001, _DAY), '5s', 'pause between two looks into the spools'),
    ('settle', AGENT, LONG, '2s', 'how long a file must be unchanged before it is collected; 0: at once'),
    ('ignore', AGENT, PATTERNS, '.*, *.tmp, *.part, *.partial, *.filepart, *~, *.reason',
     'names that are never collected'),
    ('keep_sent', AGENT, _number(0, 36500), '0', 'days that sent/ is kept; 0: for ever'),
    ('router', AGENT, PLUGIN, '', 'function asked first where a file goes: a receiver, a URL or None'),
    ('run_dir', AGENT, PATH, '/var/run/envio', 'folder of the pid file'),
    ('log_file', AGENT, PATH, '', 'file the log is appended to; empty: stderr'),
    ('log_level', AGENT, _choice('debug', 'info', 'warning', 'error'), 'info', 'least weight of a log line'),
    ('syslog', AGENT, YES_NO, 'no', 'log to syslog'),
    ('journal', AGENT, PATH, '', 'file that gets one JSON line for each final verdict'),
    ('metrics', AGENT, PATH, '', 'file of metrics in Prometheus\' text format'),
    ('stop_grace', AGENT, LONG, '30s', 'how long a stopping agent waits for what is being sent'),
    ('splay', AGENT, LONG, '0', 'most that a start waits, by chance, so that a fleet does not come at once'),
    ('user', AGENT, ACCOUNT, '', 'account to change to when started as root'),
    ('group', AGENT, ACCOUNT, '', 'group to change to when started as root'),
    # which files, and where they go
    ('match', RECEIVER, PATTERNS, '', 'patterns of the file names this receiver gets'),
    ('match_regex', RECEIVER, REGEX, '', 'the same as a regular expression, whose named groups url may use'),
    ('spool', RECEIVER, PATH, '', 'only files of this spool; empty: of all'),
    ('url', RECEIVER, URL, None, 'where the file is sent'),
    ('workers', RECEIVER, THREADS, '4', 'most exchanges with this receiver at once'),
    # the request
    ('method', BOTH, METHOD, 'POST', 'request method'),
    ('content_type', BOTH, MEDIA_TYPE, 'auto', 'media type; auto: by the name\'s extension'),
    ('body', BOTH, _choice('raw', 'multipart'), 'raw', 'the file as it is, or as the part of a form'),
    ('multipart_field', BOTH, TOKEN, 'file', 'name of the part when body = multipart'),
    ('gzip', BOTH, YES_NO, 'no', 'compress the body (Content-Encoding: gzip)'),
    ('digest', BOTH, YES_NO, 'no', 'send the body\'s SHA-256 (Content-Digest)'),
    ('headers', BOTH, HEADERS, '', 'further headers'),
    ('secret_headers_file', BOTH, PATH, '', 'further headers, from a file only its owner can read'),
    ('username', BOTH, USER_NAME, '', 'user name for Basic authentication'),
    ('password_file', BOTH, PATH, '', 'file that holds the password'),
    ('token_file', BOTH, PATH, '', 'file that holds a bearer token'),
    ('ca_file', BOTH, PATH, '', 'certificates to trust; empty: the system\'s'),
    ('tls_verify', BOTH, YES_NO, 'yes', 'verify the receiver\'s certificate and name'),
    ('client_cert', BOTH, PATH, '', 'certificate to show the receiver'),
    ('client_key', BOTH, PATH, '', 'private key of client_cert'),
    ('proxy', BOTH, PROXY, 'env', 'none, env (as the environment says) or http://user:password@host:port'),
    ('transport', BOTH, _choice('native', 'curl', 'auto'), 'auto', 'what does the talking'),
    ('connect_timeout', BOTH, TIMEOUT, '10s', 'how long connecting may take'),
    ('read_timeout', BOTH, TIMEOUT, '60s', 'how long the receiver may be silent'),
    ('deadline', BOTH, TIMEOUT, '5m', 'how long a whole exchange may take'),
    ('rate_limit', BOTH, SIZE, '0', 'bytes a second; 0: no limit'),
    # what an answer means
    ('accepted', BOTH, _choice('move', 'delete'), 'move', 'what becomes of an accepted file'),
    ('ack', BOTH, CODES, '', 'answers that accept the file'),
    ('nack', BOTH, CODES, '', 'answers that reject the file'),
    ('retry', BOTH, CODES, '', 'answers after which the file is tried again'),
    ('hold', BOTH, CODES, '', 'answers after which the receiver is paused'),
    ('breaker_threshold', BOTH, _number(1, 1000000), '5', 'failures in a row that open the breaker'),
    ('breaker_pause', BOTH, PAUSE, '5s', 'first pause of an open breaker; each further one doubles'),
    ('breaker_max_pause', BOTH, PAUSE, '10m', 'longest pause of an open breaker'),
    ('retry_pause', BOTH, PAUSE, '5s', 'first pause of a failed file; each further one doubles'),
    ('retry_max_pause', BOTH, PAUSE, '10m', 'longest pause of a failed file'),
    ('brake', BOTH, COUNT, '10', 'rejections in a row that pause the receiver; 0: never'),
    ('hold_probe', BOTH, PAUSE, '5m', 'how often a paused receiver is tried'),
    ('max_attempts', BOTH, COUNT, '0', 'attempts after which a file is given up; 0: never'),
    ('expire', BOTH, LONG, '0', 'age at which a file is given up; 0: never'),
    ('follow_redirects', BOTH, YES_NO, 'no', 'follow 307 and 308 on the same origin'),
)])

FOR_AGENT = dict([(s.name, s) for s in SETTINGS if s.where != RECEIVER])
FOR_RECEIVER = dict([(s.name, s) for s in SETTINGS if s.where != AGENT])


def duration(text):
    """Return the seconds (float) of a duration as people write it, `5m` or 0; raises rules.Refused."""
    return LONG.parse(text)


def shown(kind, text):
    """Return what of a value may be shown in a message: headers and proxies may hold secrets."""
    if kind is HEADERS:
        return text.partition(':')[0]
    return re.sub(r'(?s)^((?:.*://)?).*@', r'\1...@', text) if kind is PROXY else text
