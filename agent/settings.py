"""Every key of the configuration, described once (SPEC 4): where it may stand, what its value looks like, its default.

config reads and validates with this table, and reference makes documentation from it; a key is added here and in
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
    'help',     # a sentence for people, without its full stop
    'group',    # the heading it stands under, for people
))

_UNITS = {'ms': 0.001, 's': 1.0, 'm': 60.0, 'h': 3600.0, 'd': 86400.0}
_SIZES = {'': 1, 'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}
_TRUTH = {'yes': True, 'true': True, 'on': True, '1': True, 'no': False, 'false': False, 'off': False, '0': False}
_DAY = 86400
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 5.6.2
_HEADER = r'(%s):[ \t]*(.*)\Z' % _TOKEN
_MEDIA_TYPE = r'%s/%s(?:;[ ]*%s=(?:%s|"[^"\\]*"))*\Z' % (_TOKEN, _TOKEN, _TOKEN, _TOKEN)
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
    if text != 'auto' and not re.match(_MEDIA_TYPE, text):
        raise Refused('it must be auto or a media type such as application/json')
    return text


def parse_header(text):
    """Return (name, value) of a header written `Name: value`; raises rules.Refused, without showing the value."""
    found = re.match(_HEADER, text)
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

# group, where its keys may stand, and of each key: name, kind, default, help
SETTINGS = tuple([Setting(name, where, kind, default, words, group) for group, where, rows in (
    ('The agent', AGENT, (
        ('spool', PATHS, None, 'Folders whose files are sent; the agent makes sent/, error/ and .envio/ in each'),
        ('workers', THREADS, '8', 'Threads that send, in all: the most files that are under way at once'),
        ('scan_interval', _duration(0.001, _DAY), '5s',
         'Pause between two looks into the spools, where the kernel does not tell of new files (inotify)'),
        ('settle', LONG, '2s',
         'How long a file must be unchanged before it is sent; 0: at once, for producers that rename finished files '
         'into the spool'),
        ('ignore', PATTERNS, '.*, *.tmp, *.part, *.partial, *.filepart, *~, *.reason',
         'Names that are never sent; a list of your own takes the place of this one'),
        ('keep_sent', _number(0, 36500), '0', 'Days that accepted files are kept in sent/; 0: for ever'),
        ('router', PLUGIN, '',
         'Function that is asked first, with the file name: it returns the name of a receiver, a URL, or None to let '
         'the sections decide'),
        ('run_dir', PATH, '/var/run/envio', 'Folder of the pid file, envio.pid; run --detach makes it'),
        ('log_file', PATH, '',
         'File that gets the log, opened anew once it is rotated; without this and syslog, lines go to stderr, those '
         'of run --detach to syslog'),
        ('log_level', _choice('debug', 'info', 'warning', 'error'), 'info',
         'Least weight of the lines that are logged; debug: all of them'),
        ('syslog', YES_NO, 'no', 'Log to syslog (facility daemon), beside log_file where there is one'),
        ('journal', PATH, '', 'File that gets a line of JSON for each file that was accepted, rejected or given up'),
        ('metrics', PATH, '',
         'File that is kept up to date with metrics for Prometheus: a NAME.prom in the folder of node_exporter\'s '
         'textfile collector'),
        ('stop_grace', LONG, '30s',
         'How long a stopping agent waits for what is being sent; what is not answered by then stays in the spool'),
        ('splay', LONG, '0',
         'Longest wait at the start, chosen by chance between 0 and this, so that a fleet does not come all at once'),
        ('user', ACCOUNT, '', 'Account to become when started as root'),
        ('group', ACCOUNT, '', 'Group to become when started as root; empty: that of user'),
    )),
    ('Which files, and where they go', RECEIVER, (
        ('match', PATTERNS, '',
         'Patterns of the file names that go to this receiver; the first receiver in the configuration that matches '
         'gets the file'),
        ('match_regex', REGEX, '',
         'The same by a regular expression, matched from the start of the name; its named groups may stand in url'),
        ('spool', PATH, '', 'Only files of this spool; empty: of all'),
        ('url', URL, None, 'Where the file is sent, by http or https; {stem} is the name without its extension'),
        ('workers', THREADS, '4', 'Most files that are under way to this receiver at once'),
    )),
    ('The request', BOTH, (
        ('method', METHOD, 'POST', 'Method of the request; the file is the body with any of them'),
        ('content_type', MEDIA_TYPE, 'auto',
         'Media type of the file; auto: by the extension of its name, else application/octet-stream'),
        ('body', _choice('raw', 'multipart'), 'raw',
         'The file as it is, or as the one part of a form (multipart/form-data)'),
        ('multipart_field', TOKEN, 'file', 'Name of the field that holds the file when body = multipart'),
        ('gzip', YES_NO, 'no', 'Compress the body (Content-Encoding: gzip)'),
        ('digest', YES_NO, 'no', 'Send the SHA-256 of the body along (Content-Digest)'),
        ('headers', HEADERS, '', 'Further headers of the request'),
    )),
    ('Who the agent is, and whom it trusts', BOTH, (
        ('username', USER_NAME, '', 'User name for Basic authentication; it needs password_file'),
        ('password_file', PATH, '', 'File that holds the password; only its owner may be able to read it'),
        ('token_file', PATH, '', 'File that holds a bearer token; only its owner may be able to read it'),
        ('secret_headers_file', PATH, '', 'File of further headers, one a line; only its owner may be able to read it'),
        ('ca_file', PATH, '', 'Certificates (PEM) of the authorities to trust; empty: those of the system'),
        ('tls_verify', YES_NO, 'yes',
         'Verify the receiver\'s certificate and its name; no is warned of at every start'),
        ('client_cert', PATH, '', 'Certificate (PEM) that the agent shows the receiver'),
        ('client_key', PATH, '',
         'Private key (PEM, not encrypted) of client_cert, for its owner alone to read; empty: it is in the same '
         'file'),
    )),
    ('The connection', BOTH, (
        ('proxy', PROXY, 'env',
         'Proxy on the way; env: as http_proxy, https_proxy, all_proxy and no_proxy say; user:password@ may stand '
         'before the host'),
        ('transport', _choice('native', 'curl', 'auto'), 'auto',
         'What does the talking: Python itself or the system\'s cURL; auto: cURL where this Python can\'t do https '
         'well'),
        ('connect_timeout', TIMEOUT, '10s', 'How long connecting may take, each of its steps: TCP, proxy, TLS'),
        ('read_timeout', TIMEOUT, '60s', 'How long the receiver may be silent'),
        ('deadline', TIMEOUT, '5m', 'How long a whole exchange may take, from connecting to the end of the answer'),
        ('rate_limit', SIZE, '0', 'Bytes a second for all files of the receiver together; 0: no limit'),
    )),
    ('What an answer means', BOTH, (
        ('accepted', _choice('move', 'delete'), 'move',
         'What becomes of an accepted file: it goes to sent/, or is removed'),
        ('ack', CODES, '', 'Answers that accept the file, whatever they mean otherwise'),
        ('nack', CODES, '', 'Answers that reject the file'),
        ('retry', CODES, '', 'Answers after which the file stays and is tried again'),
        ('hold', CODES, '', 'Answers after which nothing of the receiver moves, and one file tries again now and then'),
        ('follow_redirects', YES_NO, 'no',
         'Follow 307 and 308 on the same origin, at most 3; other redirects are HOLD'),
    )),
    ('Failures and pauses', BOTH, (
        ('breaker_threshold', _number(1, 1000000), '5',
         'Failures in a row that open the circuit breaker: nothing is sent for a while'),
        ('breaker_pause', PAUSE, '5s', 'First pause of an open breaker; it doubles each time the probe after it fails'),
        ('breaker_max_pause', PAUSE, '10m', 'Longest pause of an open breaker'),
        ('retry_pause', PAUSE, '5s', 'First pause of a file that failed; it doubles each time the file fails again'),
        ('retry_max_pause', PAUSE, '10m', 'Longest pause of a file that failed'),
        ('brake', COUNT, '10',
         'Rejections in a row, no file accepted between them, that put the receiver on HOLD; 0: never'),
        ('hold_probe', PAUSE, '5m', 'How often one file tries a receiver that is on HOLD'),
        ('max_attempts', COUNT, '0', 'Attempts after which a file that failed is given up: to error/; 0: never'),
        ('expire', LONG, '0', 'Age, in the spool, at which a file that failed is given up: to error/; 0: never'),
    )),
) for name, kind, default, words in rows])

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
