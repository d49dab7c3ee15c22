"""What a routing rule is made of: shell patterns and regular expressions on file names, and URL templates.

Names are matched byte by byte, case-sensitively and with ASCII classes, so that one configuration means the same
on every Python; fnmatch and re alone differ between them. config checks with this file, router and the collector
match with it. What can't be used raises Refused, with the reason as a clause.
"""

import re
import warnings
from collections import namedtuple

from agent import compat, text

SCHEMES = {'http': 80, 'https': 443}

HOST, PATH, QUERY = 'host', 'path', 'query'

# A URL taken apart at its placeholders.
Template = namedtuple('Template', (
    'origin',    # scheme://host:port, the host in lower case; with placeholders still in it
    'literals',  # tuple of the texts around the placeholders: one more than those
    'names',     # tuple of the placeholders' names, in order
    'places',    # tuple: HOST, PATH or QUERY for each
))

# compiled groups are few: 100 in one expression are the most before Python 3.5
MOST_STARS = 80  # in one pattern; each takes a group
_MOST_GROUPS = 90
_ESCAPES = 'aAbBdDfnrsStvwWxZ'
_GROUP_NAME = r'[A-Za-z_][A-Za-z0-9_]*\Z'
_LABEL = r'[A-Za-z0-9-]{1,63}\Z'
_HOST = re.compile(r'[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?'
                   r'(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?\Z')
_IP6 = r'\[[0-9A-Fa-f:.]{2,45}\]\Z'
_MARK = '\n'  # stands for a placeholder while a URL is looked at


class Refused(ValueError):
    """A value can't be used; the text says why, without naming the value's key or line."""


def name_key(name):
    """Return the file name `name` (native) as patterns see it: one character a byte."""
    return compat.byte_string(compat.fs_bytes(name))


# --- shell patterns

def pattern_source(pattern, group=''):
    """Return the source of a regular expression for the shell pattern `pattern` (native): * ? [seq] [!seq].

    group: a prefix for the names of its groups, to keep those of several patterns in one expression apart.
    Between two stars the leftmost place is taken and kept, so that no name makes a match slow.
    Raises Refused for what can't match, or would mean something else in a shell.
    """
    rest = compat.byte_string(compat.config_bytes(pattern))
    if '/' in rest:
        raise Refused('a file name has no slash in it')
    if rest.count('*') > MOST_STARS:
        raise Refused('more than %d stars' % MOST_STARS)
    if rest.count('{') != rest.count('}'):
        raise Refused('a comma ends a pattern, also between { and }: write each pattern by itself')
    pieces = ['']
    while rest:
        first, rest = rest[0], rest[1:]
        if first == '*':
            pieces.append('')
        elif first == '?':
            pieces[-1] += '.'
        elif first == '[':
            chosen, rest = _character_set(rest)
            pieces[-1] += chosen
        else:
            pieces[-1] += re.escape(first)
    return _join_pieces(pieces, group)


def _join_pieces(pieces, group):
    """Return one expression for the pieces of a pattern between its stars."""
    if len(pieces) == 1:
        return pieces[0]
    source = pieces[0]
    for number, piece in enumerate(pieces[1:-1]):
        if piece:
            source += '(?=(?P<%s_%d>.*?%s))(?P=%s_%d)' % (group, number, piece, group, number)
    return source + '.*' + pieces[-1]


def _character_set(rest):
    """Return (expression, what is left) for the text behind a `[`; raises Refused."""
    negated = rest[:1] == '!'
    start = 1 if negated else 0
    end = rest.find(']', start + 1)  # a ] that comes first stands for itself
    if end < 0:
        raise Refused('a [ without its ]: write [[] for the character itself (and note that a comma ends a pattern)')
    inside, chosen = rest[start:end], ''
    while inside:
        low = high = inside[0]
        if inside[1:2] == '-' and len(inside) > 2:
            high, inside = inside[2], inside[3:]
        else:
            inside = inside[1:]
        if low > high:
            raise Refused('the range %s-%s runs backwards' % (low, high))
        chosen += '\\x%02x-\\x%02x' % (ord(low), ord(high))
    return '[%s%s]' % ('^' if negated else '', chosen), rest[end + 1:]


def matcher(patterns):
    """Return a function(key) -> index of a pattern that matches the whole of the name `key` (see name_key), or None.

    patterns: native shell patterns; the first that matches counts. Raises Refused.
    """
    chunks, sources, groups, members = [], [], 0, []
    for index, pattern in enumerate(patterns):
        source = '(%s)' % pattern_source(pattern, 'p%d' % index)
        size = re.compile(source).groups
        if sources and groups + size > _MOST_GROUPS:
            chunks.append(_chunk(sources, members))
            sources, groups, members = [], 0, []
        members.append((groups + 1, index))
        sources.append(source)
        groups += size
    if sources:
        chunks.append(_chunk(sources, members))
    if len(chunks) == 1:
        return chunks[0]

    def find(key):
        for chunk in chunks:
            index = chunk(key)
            if index is not None:
                return index
    return find


def _chunk(sources, members):
    """Return a function(key) -> index or None for patterns that fit into one expression."""
    match = re.compile('(?:%s)\\Z' % '|'.join(sources), re.DOTALL).match
    index_of = dict(members)

    def find(key):
        found = match(key)
        return None if found is None else index_of[found.lastindex]
    return find


# --- regular expressions

def compile_regex(source):
    """Return `source` (native) compiled for names as name_key gives them; used with its match(): from the start on.

    Raises Refused when it does not compile, or would not mean the same on every Python.
    """
    expression = compat.byte_string(compat.config_bytes(source))
    _refuse_dialects(expression)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            compiled = re.compile(expression, getattr(re, 'ASCII', 0))
    except (re.error, AssertionError, OverflowError, RuntimeError, ValueError) as error:
        raise Refused('not a regular expression: %s' % error)
    if compiled.groups > 99:
        raise Refused('more than 99 groups')
    for name in compiled.groupindex:
        if not re.match(_GROUP_NAME, name):
            raise Refused('a group\'s name is made of letters, digits and _')
        if name in ('name', 'stem'):
            raise Refused('{%s} is made by the agent: give the group another name' % name)
    return compiled


def _refuse_dialects(expression):
    """Raise Refused for constructs that only some Pythons know, or that changed their meaning."""
    for escaped in re.findall(r'\\(.)', expression, re.DOTALL):
        if re.match('[A-Za-z]', escaped) and escaped not in _ESCAPES:
            raise Refused('\\%s does not mean the same on every Python' % escaped)
    bare = re.sub(r'\[\^?\]?[^\]]*\]', 'x', re.sub(r'\\.', 'x', expression))
    flags = re.match(r'\(\?[imsx]+\)', bare)
    for found in re.finditer(r'\(\?([a-zA-Z-]+[:)]|>)', bare):
        if flags is None or found.start() > 0:
            raise Refused('%s is not known to every Python: only (?i), (?m), (?s) and (?x), at the very start, are'
                          % found.group())
    if re.search(r'(?:[*+?]|\{[0-9]*,?[0-9]*\})\+', bare):
        raise Refused('a + behind another quantifier is not known to every Python')


# --- URL templates

def split_template(url):
    """Return (literals, names) of a URL template; raises Refused for a lone brace or an odd name."""
    pieces = re.split(r'\{([^{}]*)\}', url)
    literals, names = pieces[::2], pieces[1::2]
    for literal in literals:
        if '{' in literal or '}' in literal:
            raise Refused('a { or } without the other: a placeholder is {name}; a brace itself is %7B or %7D')
    for name in names:
        if not re.match(_GROUP_NAME, name):
            raise Refused('{%s} is no placeholder: {name}, {stem} and the groups of match_regex are'
                          % text.printable(compat.config_bytes(name), 40))
    return tuple(literals), tuple(names)


def parse_url(url):
    """Return the Template of a native string; raises Refused. Which names there are is the caller's to check."""
    literals, names = split_template(url)
    for literal in literals:
        _check_characters(literal)
    marked = _MARK.join(literals)
    scheme, found, rest = marked.partition('://')
    if not found or not re.match(r'[A-Za-z][A-Za-z0-9+.-]*\Z', scheme):
        raise Refused('it must start with https:// or http://')
    if scheme.lower() not in SCHEMES:
        raise Refused('%s is no scheme the agent speaks: use https or http' % scheme)
    authority, rest = re.match(r'([^/?]*)(.*)\Z', rest, re.DOTALL).groups()
    host, port = split_authority(authority, SCHEMES[scheme.lower()])
    path = rest.partition('?')[0]
    in_host, in_path = host.count(_MARK), path.count(_MARK)
    places = [HOST] * in_host + [PATH] * in_path + [QUERY] * (len(names) - in_host - in_path)
    origin = '%s://%s:%d' % (scheme.lower(), host.lower().replace(_MARK, '{}'), port)
    return Template(origin, literals, names, tuple(places))


def _check_characters(literal):
    """Raise Refused for what may not stand in a URL (RFC 3986 2)."""
    odd = re.search(r'[^!#-;=?-\[\]_a-z~]', literal)
    if odd:
        raise Refused('blanks, control characters, letters beyond ASCII and "<>\\^`| are not allowed: '
                      'percent-encode them')
    if '#' in literal:
        raise Refused('a fragment (#...) is never sent: leave it out, or write %23')
    if re.search(r'%(?![0-9A-Fa-f]{2})', literal):
        raise Refused('a % without two hexadecimal digits behind it: write %25')


def split_authority(authority, default_port):
    """Return (host, port) of the part between :// and the path, an IPv6 address in square brackets; raises Refused.

    urlsplit() of 2.6 knows no such address.
    """
    if '@' in authority:
        raise Refused('user and password do not belong in a URL: username and password_file are for them')
    host, port = authority, ''
    found = re.match(r'(\[[^\]]*\]|[^:\[]*):(.*)\Z', authority, re.DOTALL)
    if found:
        host, port = found.groups()
        if not re.match(r'[0-9]{1,5}\Z', port) or not 1 <= int(port) <= 65535:
            raise Refused('the port must be a number from 1 to 65535')
    if not host:
        raise Refused('there is no host')
    if not re.match(_IP6, host) and not _HOST.match(host.replace(_MARK, 'x')) or len(host) > 253:
        raise Refused('%s is no host name' % host.replace(_MARK, '{...}'))
    return host, int(port or default_port)


def stem(name):
    """Return a file name without its last extension; a dot at the start begins none."""
    dot = name.rfind('.')
    return name[:dot] if name[:dot].strip('.') else name


def fill(template, values):
    """Return the URL of a template; values: a function(placeholder) -> one character a byte, or None.

    Raises Refused when a value can't stand in its place, so that no file name chooses another host or folder.
    """
    url = [template.literals[0]]
    for name, place, literal in zip(template.names, template.places, template.literals[1:]):
        value = values(name)
        if value is None:
            raise Refused('{%s} has no value' % name)
        if place == HOST and not re.match(_LABEL, value):
            raise Refused('{%s} in the host must be one label of letters, digits and -' % name)
        if place == PATH and value in ('', '.', '..'):
            raise Refused('{%s} in the path is empty or a dot folder' % name)
        url.append(compat.percent(compat.wire(value)))
        url.append(literal)
    url = ''.join(url)
    if HOST in template.places:
        # What may stand in a label need not make one with what is beside it: too long, or - at its end.
        split_authority(re.match('[^/]*//([^/?]*)', url).group(1), 0)
    return url
