"""Fuzz: the configuration, and what is made of its values: rules, routes, proxies, answers of the tryout receiver."""

import os
import re
import shlex
import unicodedata

from hypothesis import assume
from hypothesis import strategies as st

from agent import compat, config, places, proxies, receiver_rules, router, rules, settings, text
from agent.errors import ConfigError, UsageError
from agent.resources import Resources
from agent.rules import Refused
from tests.conftest import ROOT
from tests.fuzz_common import file_names, fuzz, mutated, phrases, pieces

PATH = '/etc/envio.conf'
HEAD = '[agent]\nspool = /s\n[receiver:r]\n'
BARE = HEAD.encode() + b'match = *\nurl = http://h/\n'
KEYS = sorted(set(settings.FOR_AGENT) | set(settings.FOR_RECEIVER))
BITS = ['0', '1', 'yes', 'no', '5s', '10m', '1G', '*', '*.x', '[a-z]', '[', '(?P<g>a)', '(?i)', '{name}', '{g}', '{',
        '}', 'http://', 'https://h', 'h:80', '/', '/s', '%41', '%', ':', 'X: y', '2xx', '404', 'none', 'env', 'a/b',
        ';', '#', ',', '@', '"', "'", '=', ' ', '\\', '\t', '..', '-', 'auto', 'POST']
WORDS = [bit.encode() for bit in BITS + KEYS] + [b'\n', b'\r\n', b'\n ', b' = ', b'[agent]\n', b'[receiver:', b']\n',
                                                 b'\xef\xbb\xbf', b'\xff', b'\xc2\x85', b' ;']
native = st.one_of(st.text(max_size=30), phrases(*BITS))


def example_configurations():
    found = [BARE]
    for name in sorted(os.listdir(os.path.join(ROOT, 'conf'))):
        with open(os.path.join(ROOT, 'conf', name), 'rb') as page:
            found.append(page.read())
    return found


def parse(raw):
    """Return the Config, or None where it is refused as it has to be: each problem with its line, in their order."""
    try:
        found = config.parse(raw, PATH)
    except ConfigError as error:
        lines = []
        for problem in error.problems:
            place = re.match(re.escape(PATH) + r':([1-9][0-9]*): .', problem)
            assert place, problem
            assert printed(problem), problem
            lines.append(int(place.group(1)))
        assert lines and lines == sorted(lines) and lines[-1] <= raw.count(b'\n') + 1
        return None
    router.Router(found)
    return found


def printed(words):
    """Return whether nothing in text controls a terminal, ends a line, is out of sight or turns the direction."""
    return not [c for c in words if unicodedata.category(c) in ('Cc', 'Cs', 'Zl', 'Zp')
                or unicodedata.bidirectional(c) in ('LRE', 'RLE', 'PDF', 'LRO', 'RLO', 'LRI', 'RLI', 'FSI', 'PDI')
                or c in u'\xad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufffb'
                or u'\U000e0000' < c < u'\U000e0080']


# --- the reader

@fuzz(st.one_of(st.binary(max_size=400), pieces(*WORDS), mutated(st.sampled_from(example_configurations()), 12)))
def test_any_bytes_are_a_configuration_or_refused_line_by_line(raw):
    assert parse(raw) == parse(raw)


@fuzz(st.sampled_from(KEYS), native, st.sampled_from(KEYS), native)
def test_any_value_of_any_key_is_read_or_refused(key, value, other, second):
    page = '%smatch = *\nurl = http://h/\n' % HEAD
    lines = ['%s = %s' % (key, value), '%s = %s' % (other, second)]
    for place in ('[agent]\n', '[receiver:r]\n'):
        parse(page.replace(place, place + '\n'.join(lines) + '\n').encode('utf-8', 'surrogatepass'))


@fuzz(st.lists(st.sampled_from(BARE.splitlines() + [b'workers = 2', b'[receiver:q]', b'[nobody]', b' x', b'x',
                                                    b'headers =', b' A: b']), max_size=14),
      st.sampled_from((b'\n', b'\r\n')))
def test_comments_and_empty_lines_change_nothing_but_the_numbers_of_lines(lines, end):
    """Of a refused one the same is said; a BOM and the ends of lines don't count either."""
    def judged(lines, step):
        try:
            return config.parse(b'\xef\xbb\xbf' * (step - 1) + end.join(lines), PATH)
        except ConfigError as error:
            return sorted([re.sub(r'(:|in line )(\d+)', lambda found: '%s%d' % (
                found.group(1), int(found.group(2)) // step or 1), problem) for problem in error.problems])
    spread = [line for one in lines for line in (b'# ' + one, one)]
    assert judged(spread, 2) == judged(lines, 1)


durations = st.tuples(st.integers(1, 4000), st.sampled_from((('ms', 0.001), ('s', 1), ('m', 60))))
VALUES = {
    'workers': st.integers(1, 1000).map(lambda n: (str(n), n)),
    'read_timeout': durations.map(lambda d: ('%d%s' % (d[0], d[1][0]), d[0] * d[1][1])),
    'rate_limit': st.tuples(st.integers(0, 10 ** 9), st.sampled_from((('', 1), ('K', 1024), ('M', 1 << 20)))).map(
        lambda s: ('%d%s' % (s[0], s[1][0]), s[0] * s[1][1])),
    'gzip': st.sampled_from((('yes', True), ('off', False), ('On', True), ('0', False))),
    'method': st.sampled_from((('post', 'POST'), ('PATCH', 'PATCH'))),
    'hold': st.lists(st.integers(400, 599).map(str), min_size=1, max_size=5).map(lambda c: (', '.join(c), tuple(c))),
    'headers': st.lists(st.tuples(st.from_regex(r'\AX-[A-Za-z0-9]{1,9}\Z'), st.from_regex(r'\A[!-:<-~]{0,20}\Z')),
                        min_size=1, max_size=4).map(lambda h: ('\n  '.join(['%s: %s' % one for one in h]), tuple(h))),
    'match': st.lists(st.text('abc.*?-', min_size=1, max_size=9), min_size=1, max_size=4).map(
        lambda p: ('\n\t'.join(p), tuple(p))),
    'username': st.text(st.characters(blacklist_categories=('Cc', 'Cs', 'Z'), blacklist_characters=':;'), min_size=1,
                        max_size=9).map(lambda u: (u, u)),
}


@fuzz(st.fixed_dictionaries({'match': VALUES.pop('match')}, optional=VALUES),
      st.sampled_from(('\n', '\r\n')))
def test_a_sound_configuration_gives_the_values_that_were_meant(values, end):
    lines = ['[agent]', 'spool = /s', '[receiver:r]', 'url=http://h/{name}']
    lines += ['%s =%s' % (key, written) for key, (written, _) in sorted(values.items())]
    if 'username' in values:
        lines.append('password_file = /p')
    found = config.parse('\n'.join(lines).replace('\n', end).encode('utf-8'), PATH).receivers[0]
    for key, (_, meant) in values.items():
        assert getattr(found, key) == meant, key


# --- rules and routes

@fuzz(st.lists(st.text('ab*?[]!-.{}\\^$|()+', min_size=1, max_size=10), min_size=1, max_size=6),
      st.text('ab.-]![\\^\n', max_size=8))
def test_patterns_match_as_a_shell_says(patterns, name):
    """Against a matcher that tries everything."""
    try:
        find = rules.matcher(patterns)
    except Refused:
        return
    found = find(rules.name_key(name))
    assert found == ([index for index, pattern in enumerate(patterns) if matches(pattern, name)] or [None])[0]


def matches(pattern, name):
    if not pattern:
        return not name
    if pattern[0] == '*':
        return matches(pattern[1:], name) or bool(name) and matches(pattern, name[1:])
    if not name:
        return False
    if pattern[0] == '?':
        return matches(pattern[1:], name[1:])
    if pattern[0] != '[':
        return pattern[0] == name[0] and matches(pattern[1:], name[1:])
    end = pattern.index(']', 3 if pattern[1] == '!' else 2)
    inside, hit, at = pattern[2 if pattern[1] == '!' else 1:end], False, 0
    while at < len(inside):
        high = inside[at + 2] if inside[at + 1:at + 2] == '-' and at + 2 < len(inside) else inside[at]
        hit = hit or inside[at] <= name[0] <= high
        at += 3 if inside[at + 1:at + 2] == '-' and at + 2 < len(inside) else 1
    return hit != (pattern[1] == '!') and matches(pattern[end + 1:], name[1:])


GROUPS = ('(?P<a>[^_]*)_(?P<b>.*)', '(?P<a>.)(?P<b>.*)', '(?P<a>[a-z]+)?(?P<b>-)?.*', '(?s)(?P<a>.*)(?P<b>.)')
TEMPLATES = st.lists(st.sampled_from(('{name}', '{stem}', '{a}', '{b}', '/', '.', '..', '-', 'x', '?', '=', '&', '%2e',
                                      '%2F', ':8080', ':', '@', '[::1]', '%', '//')), max_size=9).map(''.join)


@fuzz(st.sampled_from(('http://', 'https://h.example', 'https://{a}.example.com', 'http://x{b}:81/', 'HTTP://[::1]')),
      TEMPLATES, st.sampled_from(GROUPS), st.lists(file_names, min_size=1, max_size=6))
def test_no_name_makes_a_url_that_leads_elsewhere(start, rest, expression, names):
    page = '%smatch_regex = %s\nurl = %s%s\n' % (HEAD, expression, start, rest)
    found = parse(page.encode())
    assume(found is not None)
    check_routes(found, start + rest, names)


def check_routes(found, template, names):
    plain = re.sub(r'\{[^{}]*\}', 'x', template)
    slashes = plain.partition('?')[0].count('/')
    fixed = '.' in [part.replace('%2e', '.')[-1:] for part in re.split('[/?]', template)]  # dot folders of its own
    for name in names:
        target = router.Router(found).route('/s', name)
        if target.url is None:
            assert target.receiver is None and target.why and printed(target.why)
            continue
        assert re.match('[!-~]+$', target.url) and not re.search(r'["<>\\^`{|}#]|%(?![0-9A-Fa-f]{2})', target.url)
        assert target.url.partition('?')[0].count('/') == slashes, 'no name adds a folder'
        place = places.place_of(target.url, target.receiver, Resources({}))
        origin = re.sub(r'\.(:\d+)\Z', r'\1', rules.parse_url(template).origin)  # a dot ends a name that is complete
        origin = re.escape(origin).replace(r'\{\}', '[A-Za-z0-9-]{1,63}')
        assert re.match(origin + r'\Z', '%s://%s' % (place.scheme, places.host_port(place)))
        assert place.target.startswith('/')
        if not fixed:
            folders = place.target.partition('?')[0].replace('%2e', '.').replace('%2E', '.').split('/')
            assert not set(('.', '..')).intersection(folders), target.url


@fuzz(st.one_of(st.text(max_size=20), st.text('()[]{}?P<>=!a1*+|\\^$.,:-#ismxLu&\'"', max_size=25)), file_names)
def test_any_expression_compiles_or_is_refused(source, name):
    try:
        compiled = rules.compile_regex(source)
    except Refused as refused:
        assert str(refused)
        return
    if len(re.findall('[*+{]', source)) < 3:  # how long one takes is its author's to see to
        compiled.match(rules.name_key(name))


@fuzz(native, st.one_of(st.none(), st.integers(), st.binary(max_size=9)), file_names)
def test_whatever_a_router_function_returns_is_a_target_or_none_with_a_reason(words, other, name):
    for answer in (words, 'http://' + words, 'r', other):
        target = router.Router(config.parse(BARE, PATH), lambda _: answer).route('/s', name)
        assert target.why and printed(target.why)
        if target.receiver is not None:
            places.place_of(target.url, target.receiver, Resources({}))


# --- proxies, the tryout receiver's rules, text

@fuzz(native, st.sampled_from(('http', 'https')), native,
      st.sampled_from(('h.example', '10.1.2.3', '[::1]', '::1', '')))
def test_any_proxy_is_read_or_refused_without_a_word_of_it(value, scheme, exceptions, host):
    environ = {scheme + '_proxy': value, 'no_proxy': exceptions}
    try:
        proxy = proxies.from_environment(environ, scheme, host, 80)
    except Refused as refused:
        assert len(value) < 8 or value.strip() not in str(refused)
        return
    if proxy is not None:
        assert 1 <= proxy.port <= 65535 and re.match(r'[a-z0-9_.:-]+\Z', proxy.host)
        assert not re.search('[\x00-\x1f\x7f]', proxy.credentials)
        compat.wire(proxy.credentials)


@fuzz(phrases(*BITS + ['=', ':', ',', '503', 'close', 'hang', ':times=1', ':delay=5ms', ':problem=', ':retry-after=9']),
      file_names, st.text('/ab.', max_size=6))
def test_any_rules_of_the_tryout_receiver_are_read_or_refused(source, name, path):
    try:
        found = receiver_rules.parse_rules(source)
    except UsageError as error:
        assert '--answer' in str(error)
        return
    answer = receiver_rules.choose(found, rules.name_key(name), path)
    assert receiver_rules.described(answer)
    if answer.kind == receiver_rules.REPLY:
        head, body = receiver_rules.compose(answer, 'now', True)
        assert head.endswith(b'\r\n\r\n') and head.count(b'\r\n') == head.count(b'\n') == head.count(b'\r')


@fuzz(st.one_of(st.binary(max_size=60), st.text(max_size=30).map(lambda t: t.encode('utf-8', 'surrogatepass'))),
      st.integers(0, 40), file_names)
def test_what_is_shown_controls_nothing_and_names_stay_apart(raw, most, name):
    assert printed(text.printable(raw)) and len(text.printable(raw, most)) <= most + 3
    assert printed(text.shown(name))
    assert compat.unpercent(compat.byte_string(text.shown(name).encode('utf-8'))) == compat.fs_bytes(name)
    word = text.shell_word(name)
    if word is not None:
        assert printed(word) and shlex.split(word, posix=True) == [name]
