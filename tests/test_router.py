"""Where a file goes: first match, bytes alike on every Python, URLs no name can break out of, the router function."""

import os
import re
import shutil
import stat
import tempfile

import pytest

from agent import compat, config, router, rules
from agent.errors import ConfigError

SPOOL = '/s'


def a_router(body, plugin=None):
    raw = body if isinstance(body, bytes) else body.encode('utf-8')
    return router.Router(config.parse(b'[agent]\nspool = /s, /t\nrouter = /r.py:f\n' + raw, 'x'), plugin)


def one(match='match = *', url='http://h/in/{name}', more=''):
    return '[receiver:a]\n%s\nurl = %s\n%s' % (match, url, more)


def native(raw):
    return compat.fs_native(raw)


def matcher(pattern):
    find = rules.matcher([pattern])
    return lambda name: find(rules.name_key(name)) is not None


def chosen(target):
    return target.receiver and target.receiver.name


# --- which receiver

def test_first_section_in_file_order_that_matches_gets_the_file_and_says_why():
    routes = a_router('[receiver:z]\nmatch = orders-*.json, *.ord\nurl = http://z/\n'
                      '[receiver:a]\nmatch_regex = ^orders\nurl = http://a/\n'
                      '[receiver:rest]\nmatch = *\nurl = http://rest/\n')
    found = routes.route(SPOOL, 'orders-1.json')
    assert (chosen(found), found.url) == ('z', 'http://z/')
    assert found.why == 'first match: [receiver:z] match = orders-*.json'
    assert routes.route(SPOOL, 'x.ord').why == 'first match: [receiver:z] match = *.ord'
    assert routes.route(SPOOL, 'orders.txt').why == 'first match: [receiver:a] match_regex = ^orders'
    assert chosen(routes.route(SPOOL, 'other')) == 'rest'


def test_name_without_receiver_is_told_so():
    assert a_router(one('match = *.a')).route(SPOOL, 'x.b') == (None, None, 'no [receiver:...] section matches')


def test_a_receiver_with_a_spool_gets_files_of_that_one_alone():
    routes = a_router(one(more='spool = /t\n'))
    assert chosen(routes.route('/t', 'x')) == 'a'
    assert chosen(routes.route('/s', 'x')) is None


def test_a_receiver_without_match_is_for_the_router_function_alone():
    assert chosen(a_router('[receiver:a]\nurl = http://h/\n').route(SPOOL, 'x')) is None


@pytest.mark.parametrize('pattern, fits, fails', [
    ('*', [b'a', b'\xff', b'a\nb', b' '], []),
    ('a*', [b'a', b'a\n', b'ab'], [b'A', b'ba']),
    ('*.x', [b'.x', b'a.x', b'a\n.x'], [b'a.x\n', b'a.X', b'ax']),
    ('a?c', [b'abc', b'a.c', b'a\nc'], [b'ac', b'abbc', b'a\xc3\xa9c']),
    ('a??c', [b'a\xc3\xa9c'], []),
    ('[ab]x', [b'ax', b'bx'], [b'cx', b'x']),
    ('[!ab]x', [b'cx', b'\xffx'], [b'ax', b'x']),
    ('[a-c0-9]', [b'b', b'5'], [b'd', b'-']),
    ('[]x]', [b']', b'x'], [b'a']),
    ('[!]x]', [b'a'], [b']', b'x']),
    ('[a-]', [b'a', b'-'], [b'b']),
    ('[^a]', [b'^', b'a'], [b'b']),
    ('[[]', [b'['], [b'x']),
    ('[&&~~||]', [b'&', b'~', b'|'], [b'a']),
    ('[\\]', [b'\\'], [b'a']),
    ('a.b+(c)$^|{}', [b'a.b+(c)$^|{}'], [b'aXb+(c)$^|{}']),
    ('*a*b*', [b'ab', b'xaxbx', b'aabb'], [b'ba', b'a']),
    ('**a', [b'a', b'ba'], [b'ab']),
    ('*aab*ab', [b'aaabab', b'aabaab'], [b'aaab', b'aab']),
])
def test_shell_patterns_match_whole_names_byte_by_byte(pattern, fits, fails):
    matches = matcher(pattern)
    assert [raw for raw in fits if not matches(native(raw))] == []
    assert [raw for raw in fails if matches(native(raw))] == []


def test_patterns_beyond_ascii_match_the_bytes_that_stand_in_the_file():
    routes = a_router(b'[receiver:a]\nmatch = \xc3\xa9*, \xff?\nurl = http://h/\n')
    assert chosen(routes.route(SPOOL, native(b'\xc3\xa9t\xc3\xa9'))) == 'a'
    assert chosen(routes.route(SPOOL, native(b'\xff\xfe'))) == 'a'
    assert chosen(routes.route(SPOOL, native(b'\xe9t'))) is None


def test_more_patterns_than_one_expression_can_hold():
    find = rules.matcher(['%d-*-x-*-y' % number for number in range(300)])
    assert [find('%d-a-x-b-y' % number) for number in (0, 89, 90, 299)] == [0, 89, 90, 299]
    assert find('300-a-x-b-y') is None
    assert rules.matcher([])('x') is None


def test_a_pattern_has_no_more_stars_than_every_python_can_take():
    assert matcher('*a' * 80)('a' * 100)
    with pytest.raises(rules.Refused) as caught:
        matcher('*a' * 81)
    assert str(caught.value) == 'more than 80 stars'


def test_no_name_makes_a_pattern_slow():
    # without keeping the leftmost place this takes longer than anybody waits
    assert not matcher('*a*a*a*a*a*a*a*a*a*b')('a' * 255)


def test_regex_is_case_sensitive_ascii_and_matched_from_the_start():
    for regex, raw, fits in ((r'ab', b'abc', True), (r'ab', b'xab', False), (r'AB', b'ab', False),
                             (r'(?i)AB', b'ab', True), (r'\w+$', b'\xc3\xa9', False), (r'..$', b'\xc3\xa9', True),
                             (r'\d$', b'\xd9\xa3', False), (r'a.b', b'a\nb', False)):
        found = a_router(one('match_regex = ' + regex)).route(SPOOL, native(raw))
        assert (chosen(found) == 'a') is fits, (regex, raw)


# --- which URL

@pytest.mark.parametrize('raw, encoded', [
    (b'plain-1_2.3~x', 'plain-1_2.3~x'),
    (b'a b', 'a%20b'),
    (b'a"b\'c', 'a%22b%27c'),
    (b'a\r\nHost: x', 'a%0D%0AHost%3A%20x'),
    (b'100%', '100%25'),
    (b'%2e%2e', '%252e%252e'),
    (b'{name}', '%7Bname%7D'),
    (b'?a=b&c#d;+', '%3Fa%3Db%26c%23d%3B%2B'),
    (b'\xc3\xa9', '%C3%A9'),
    (b'\xff\xfe', '%FF%FE'),
    (b'..\\x', '..%5Cx'),
])
def test_names_are_percent_encoded_byte_by_byte(raw, encoded):
    found = a_router(one(url='http://h/in/{name}?f={name}')).route(SPOOL, native(raw))
    assert found.url == 'http://h/in/%s?f=%s' % (encoded, encoded)
    assert type(found.url) is str


def test_stem_is_the_name_without_its_last_extension():
    routes = a_router(one(url='http://h/{stem}'))
    for name, stem in (('a.tar.gz', 'a.tar'), ('a', 'a'), ('a.', 'a'), ('.a', '.a'), ('..a', '..a'), ('.a.b', '.a')):
        assert routes.route(SPOOL, name).url == 'http://h/' + stem
        assert rules.stem(name) == os.path.splitext(name)[0]


def test_groups_of_the_regex_stand_in_host_path_and_query():
    routes = a_router(one(r'match_regex = ^(?P<region>[a-z]+)-(?P<rest>.*)\.xml$',
                          'http://{region}.example.com:8080/{region}/{name}?r={rest}'))
    assert routes.route(SPOOL, 'north-a b.xml').url == (
        'http://north.example.com:8080/north/north-a%20b.xml?r=a%20b')


@pytest.mark.parametrize('raw', [b'evil.com', b'a/b', b'a:80', b'u@h', b'', b'a\n', b'\xc3\xa9', b'a' * 64, b'a_b'])
def test_a_value_in_the_host_is_one_label_or_there_is_no_url(raw):
    routes = a_router(one(r'match_regex = (?s)x(?P<h>.*)', 'http://{h}/in'))
    found = routes.route(SPOOL, native(b'x' + raw))
    assert (found.receiver, found.url) == (None, None)
    assert found.why.endswith('but it gets no URL: {h} in the host must be one label of letters, digits and -')


@pytest.mark.parametrize('value', ['-a', 'a-', 'a' * 60])
def test_a_label_that_a_value_makes_with_what_is_beside_it_is_one_too(value):
    found = a_router(one('match_regex = x(?P<v>.*)', 'http://{v}.example.com/')).route(SPOOL, 'x' + value)
    assert (found.receiver is None, found.url is None) == (len(value) < 60,) * 2
    found = a_router(one('match_regex = x(?P<v>.*)', 'http://west-{v}-1.example.com/')).route(SPOOL, 'x' + value)
    assert (found.url is None) == (len(value) == 60)
    assert found.url or found.receiver is None and found.why.endswith('-1.example.com is no host name')


@pytest.mark.parametrize('value', ['', '.', '..'])
def test_a_value_that_would_change_the_folder_gets_no_url(value):
    found = a_router(one('match_regex = x(?P<v>.*)', 'http://h/in/{v}/x')).route(SPOOL, 'x' + value)
    assert (found.receiver, found.url) == (None, None)
    assert '{v} in the path is empty or a dot folder' in found.why
    assert a_router(one('match_regex = x(?P<v>.*)', 'http://h/in?{v}')).route(SPOOL, 'x..').url == 'http://h/in?..'


def test_a_group_that_took_no_part_has_no_value():
    found = a_router(one('match_regex = (?P<a>x)|y', 'http://h/{a}')).route(SPOOL, 'y')
    assert found.receiver is None and '{a} has no value' in found.why


def test_a_file_that_fits_match_alone_has_no_groups_for_its_url():
    routes = a_router(one('match = *.a\nmatch_regex = (?P<g>x)', 'http://h/{g}'))
    assert routes.route(SPOOL, 'y.a').why == ('first match: [receiver:a] match = *.a, but it gets no URL: {g} has no '
                                              'value')
    assert routes.route(SPOOL, 'x.a').url == 'http://h/x'
    assert routes.route(SPOOL, 'x.b').url == 'http://h/x'


def test_without_placeholders_no_work_is_done_for_a_file():
    routes = a_router(one(url='http://h/in'))
    assert routes.route(SPOOL, 'x') is routes.route(SPOOL, 'y')


# --- the router function

def asked(answer, body=None):
    return a_router(body or one('match = *.sect', 'http://h/{name}'), lambda name: answer).route(SPOOL, 'x y')


def test_router_function_gets_the_native_name_alone_and_is_asked_first():
    names = []
    a_router(one(), names.append).route(SPOOL, native(b'\xffx'))
    assert names == [native(b'\xffx')] and type(names[0]) is str
    routes = a_router('[receiver:z]\nmatch = *\nurl = http://z/\n' + one(), lambda name: 'a')
    assert chosen(routes.route(SPOOL, 'x')) == 'a'


def test_router_function_without_opinion_leaves_it_to_the_sections():
    assert chosen(a_router(one(), lambda name: None).route(SPOOL, 'x')) == 'a'


def test_router_function_names_a_receiver():
    found = asked('a')
    assert (chosen(found), found.url, found.why) == ('a', 'http://h/x%20y', 'router function: [receiver:a]')
    assert chosen(asked(b'a'.decode('ascii'))) == 'a'


def test_router_function_names_a_receiver_whose_url_needs_its_regex():
    body = one('match_regex = (?P<g>.) ', 'http://h/{g}')
    assert asked('a', body).url == 'http://h/x'
    assert '{g} has no value' in asked('a', one('match_regex = (?P<g>z)', 'http://h/{g}')).why


def test_router_function_returns_a_url_that_is_sent_with_the_defaults():
    found = asked('http://Other.Example/in?x=%20')
    assert found.url == 'http://Other.Example/in?x=%20'
    assert found.receiver.name == 'http://other.example:80'
    assert found.receiver.deadline == 300.0
    assert found.why == 'router function: http://Other.Example/in?x=%20'


def test_router_function_returns_an_https_url():
    found = asked('https://Other.Example/in')
    assert (found.url, found.receiver.name) == ('https://Other.Example/in', 'https://other.example:443')
    assert asked('HTTPS://h:80/').receiver.name == 'https://h:80'


def test_a_receiver_that_files_cant_be_sent_to_gets_none():
    looked_at, mended = [], []

    def vet(receiver):
        looked_at.append(receiver.url)
        if not mended:
            raise rules.Refused('https: this Python has no ssl module')
    routes = router.Router(config.parse(b'[agent]\nspool = /s\nrouter = /r.py:f\n', 'x'),
                           lambda name: 'https://h/' + name, vet)
    assert routes.route(SPOOL, 'a') == (
        None, None, 'the router function returned https://h/a: https: this Python has no ssl module')
    mended.append(True)
    assert chosen(routes.route(SPOOL, 'b')) == chosen(routes.route(SPOOL, 'c')) == 'https://h:443'
    assert looked_at == ['https://h:443'] * 2, 'once it is good it is not looked at again'


def test_urls_of_one_origin_share_a_receiver():
    routes = a_router(one(), lambda name: 'http://h:81/' + name)
    assert routes.route(SPOOL, 'a').receiver is routes.route(SPOOL, 'b').receiver


def test_origins_of_the_router_function_are_bounded():
    routes = a_router(one(), lambda name: 'http://%s/' % name)
    for number in range(router.MOST_ORIGINS):
        assert routes.route(SPOOL, 'h%d' % number).receiver
    found = routes.route(SPOOL, 'one-more')
    assert found.receiver is None and 'it named 256 other origins already' in found.why
    assert routes.route(SPOOL, 'h0').receiver


@pytest.mark.parametrize('answer, why', [
    ('nobody', 'the router function returned nobody: there is no such receiver'),
    ('', 'the router function returned : there is no such receiver'),
    (7, 'the router function returned int, not a receiver\'s name, a URL or None'),
    (['a'], 'the router function returned list, not a receiver\'s name, a URL or None'),
    ('ftp://h/', 'the router function returned ftp://h/: ftp is no scheme the agent speaks: use https or http'),
    ('http://u@h/', 'the router function returned http://u@h/: user and password do not belong in a URL: username '
                    'and password_file are for them'),
    ('http://h/{name}', 'the router function returned http://h/{name}: it holds braces'),
    ('http://h/\r\nX: y', 'the router function returned http://h/??X: y: blanks, control characters, letters beyond '
                          'ASCII and "<>\\^`| are not allowed: percent-encode them'),
])
def test_an_unusable_answer_of_the_router_function_gets_no_receiver(answer, why):
    assert asked(answer) == (None, None, why)


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize('error, why', [
    (ValueError('bad\nname'), 'ValueError: bad?name'), (KeyError(), 'KeyError'), (SystemExit(3), 'SystemExit: 3'),
    (Unspeakable(), 'Unspeakable: (its text can\'t be shown)'),
])
def test_an_exception_of_the_router_function_never_gets_out(error, why):
    def raises(name):
        raise error
    assert a_router(one(), raises).route(SPOOL, 'x') == (None, None, 'the router function failed: ' + why)


# --- loading it

@pytest.fixture
def folder():
    # not tmpdir: the folders above that one may be open to a group, depending on who runs the tests, and where
    path = os.path.realpath(tempfile.mkdtemp(dir='/tmp'))
    yield path
    shutil.rmtree(path)


def write(folder, source, mode=stat.S_IRUSR | stat.S_IWUSR):
    path = os.path.join(folder, 'rules.py')
    with open(path, 'wb') as out:
        out.write(source)
    os.chmod(path, mode)
    return path


def refused(spec):
    with pytest.raises(ConfigError) as caught:
        router.load_plugin(spec)
    sentence, = caught.value.problems
    return sentence


SOUND = b'import re\nPATTERN = re.compile("x")\ndef choose(name):\n    return "a" if PATTERN.match(name) else None\n'


def test_router_function_is_loaded_with_its_globals_and_leaves_no_compiled_file(folder):
    choose = router.load_plugin(write(folder, SOUND) + ':choose')
    assert (choose('x1'), choose('y')) == ('a', None)
    assert os.listdir(folder) == ['rules.py']


def test_router_file_with_crlf_without_last_newline_and_with_a_coding_line(folder):
    source = b'# -*- coding: utf-8 -*-\r\ndef choose(name):\r\n    return "\xc3\xa9"'
    assert router.load_plugin(write(folder, source) + ':choose')('x') == compat.config_native(b'\xc3\xa9')


def test_router_file_through_a_link_is_loaded(folder):
    write(folder, SOUND)
    os.symlink('rules.py', os.path.join(folder, 'link.py'))
    assert router.load_plugin(os.path.join(folder, 'link.py') + ':choose')('x') == 'a'


def test_router_file_that_others_can_write_is_refused(folder):
    for mode in (0o620, 0o602):
        sentence = refused(write(folder, SOUND, mode) + ':choose')
        assert 'is not safe: others can write here: chmod go-w' in sentence


def test_router_file_below_a_folder_that_others_can_write_is_refused_unless_sticky(folder):
    inner = os.path.join(folder, 'open', 'inner')
    os.makedirs(inner)
    spec = write(inner, SOUND) + ':choose'
    for mode in (0o770, 0o707):
        os.chmod(os.path.join(folder, 'open'), mode)
        assert refused(spec).startswith(os.path.join(folder, 'open') + ': ')
    os.chmod(os.path.join(folder, 'open'), 0o1777)
    assert router.load_plugin(spec)('x') == 'a'


def test_link_through_a_folder_that_others_can_write_is_refused(folder):
    write(folder, SOUND)
    others = os.path.join(folder, 'open')
    os.mkdir(others)
    os.symlink('../rules.py', os.path.join(others, 'second'))
    os.symlink('open/second', os.path.join(folder, 'first'))
    assert router.load_plugin(os.path.join(folder, 'first') + ':choose')
    os.chmod(others, 0o777)
    assert refused(os.path.join(folder, 'first') + ':choose').startswith(others + ': ')


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give files away')
def test_router_file_folder_or_link_of_another_account_is_refused(folder):
    path = write(folder, SOUND)
    os.symlink(path, os.path.join(folder, 'link'))
    os.lchown(os.path.join(folder, 'link'), 12345, -1)
    assert 'belongs to another account (12345)' in refused(os.path.join(folder, 'link') + ':choose')
    os.chown(path, 12345, -1)
    assert refused(path + ':choose').startswith(path + ': the router function is not safe: this belongs to another')
    os.chown(path, 0, -1)
    os.chown(folder, 12345, -1)
    assert refused(path + ':choose').startswith(folder + ': ')


@pytest.mark.parametrize('source, why', [
    (b'x = 1\ndef choose(:\n', r'rules\.py:2: the router function can\'t be loaded: SyntaxError: '),
    (b'x = 1\n\nraise KeyError("k")\n', r'rules\.py:3: the router function can\'t be loaded: KeyError: \'k\'$'),
    (b'def f():\n    return 1 // 0\n\nf()\n', r'rules\.py:2: the router function can\'t be loaded: ZeroDivisionError'),
    (b'import sys\nsys.exit(4)\n', r'rules\.py:2: the router function can\'t be loaded: SystemExit: 4$'),
    (b'x = "\0"\n', r'rules\.py(:1)?: the router function can\'t be loaded: '),
    (b'x = 1\n', r'rules\.py: the router function has no function choose$'),
    (b'choose = 1\n', r'rules\.py: the router function choose is no function$'),
])
def test_faults_of_the_router_file_name_file_and_line(folder, source, why):
    assert re.search(why, refused(write(folder, source) + ':choose'))


def test_router_file_that_is_missing_a_folder_a_giant_a_pipe_or_a_loop_is_refused(folder):
    assert 'can\'t be read: No such file or directory' in refused(folder + '/none.py:choose')
    assert 'is not in a regular file' in refused(folder + ':choose')
    assert 'is in a file larger than 1 MiB' in refused(write(folder, b'#' * (1 << 20) + b'\n') + ':choose')
    os.mkfifo(os.path.join(folder, 'pipe'), stat.S_IRUSR)
    assert 'is not in a regular file' in refused(folder + '/pipe:choose')
    os.symlink('loop', os.path.join(folder, 'loop'))
    assert 'can\'t be read: Too many levels of symbolic links' in refused(folder + '/loop:choose')
