"""The configuration: what is accepted means the same on every Python; what is wrong is said at once, with its line."""

import os

import pytest

from agent import config, records, settings
from agent.errors import ConfigError
from tests import nobody

AGENT = '[agent]\nspool = /var/spool/envio\n'
RECEIVER = '[receiver:a]\nmatch = *.a\nurl = http://h/in\n'


def parse(body):
    raw = body if isinstance(body, bytes) else body.encode('utf-8')
    return config.parse(raw, '/etc/envio.conf')


def problems(body):
    with pytest.raises(ConfigError) as caught:
        parse(body)
    return [problem.replace('/etc/envio.conf:', '') for problem in caught.value.problems]


def problem(body):
    found = problems(body)
    assert len(found) == 1, found
    return found[0]


def with_agent(line):
    return AGENT + line + '\n' + RECEIVER


def with_receiver(line):
    return AGENT + RECEIVER + line + '\n'


def first(body):
    return parse(body).receivers[0]


# --- what is accepted

def test_smallest_configuration_has_all_defaults():
    read = parse(AGENT + RECEIVER)
    assert read.path == '/etc/envio.conf'
    assert read.spool == ('/var/spool/envio',)
    assert (read.workers, read.scan_interval, read.settle, read.stop_grace) == (8, 5.0, 2.0, 30.0)
    assert read.ignore == ('.*', '*.tmp', '*.part', '*.partial', '*.filepart', '*~', '*.reason')
    assert (read.router, read.log_file, read.log_level, read.syslog, read.keep_sent) == ('', '', 'info', False, 0)
    receiver, = read.receivers
    assert (receiver.name, receiver.match, receiver.url) == ('a', ('*.a',), 'http://h/in')
    assert (receiver.method, receiver.content_type, receiver.workers, receiver.headers) == ('POST', 'auto', 4, ())
    assert (receiver.connect_timeout, receiver.read_timeout, receiver.deadline) == (10.0, 60.0, 300.0)
    assert (receiver.breaker_threshold, receiver.breaker_pause, receiver.breaker_max_pause) == (5, 5.0, 600.0)
    assert (receiver.brake, receiver.hold_probe, receiver.ack, receiver.follow_redirects) == (10, 300.0, (), False)
    assert read.defaults == receiver._replace(name='', match=(), url='')


def test_every_field_of_the_records_is_a_setting_and_the_other_way_round():
    assert set(records.AGENT_KEYS) == set([s.name for s in settings.SETTINGS if s.where == settings.AGENT])
    assert set(records.SECTION_KEYS) == set(settings.FOR_RECEIVER)
    for setting in settings.SETTINGS:
        assert setting.help and setting.kind.form


def test_every_default_written_out_is_accepted_and_changes_nothing():
    lines = {settings.AGENT: '[agent]\nspool = /s\n', settings.RECEIVER: '[receiver:a]\nurl = http://h/\nmatch = *\n'}
    short = parse(lines[settings.AGENT] + lines[settings.RECEIVER])
    for setting in settings.SETTINGS:
        if setting.default is not None and setting.name != 'match':
            where = settings.RECEIVER if setting.where == settings.BOTH else setting.where
            lines[where] += '%s = %s\n' % (setting.name, setting.default)
    assert parse(lines[settings.AGENT] + lines[settings.RECEIVER]) == short


def test_a_receivers_key_in_agent_is_the_default_of_all_and_of_urls_of_the_router():
    read = parse(AGENT + 'brake = 3\nheaders = X-A: 1\nhold = 401\n' + RECEIVER + '[receiver:b]\nmatch = *\n'
                 'url = http://h/\nbrake = 0\nheaders =\nhold =\n')
    assert [r.brake for r in read.receivers] == [3, 0]
    assert [r.headers for r in read.receivers] == [(('X-A', '1'),), ()]
    assert [r.hold for r in read.receivers] == [('401',), ()]
    assert (read.defaults.brake, read.defaults.hold) == (3, ('401',))


def test_workers_of_the_agent_are_no_default_for_receivers():
    read = parse(with_agent('workers = 20'))
    assert (read.workers, read.receivers[0].workers, read.defaults.workers) == (20, 4, 4)


def test_receivers_keep_the_order_of_the_file():
    names = ['z', 'a', 'm', 'B', '0.x-y_z']
    body = AGENT + ''.join(['[receiver:%s]\nmatch = *\nurl = http://h/\n' % name for name in names])
    assert [receiver.name for receiver in parse(body).receivers] == names


def test_byte_order_mark_crlf_and_a_missing_last_newline_are_tolerated():
    plain = parse(AGENT + RECEIVER)
    assert parse(b'\xef\xbb\xbf' + (AGENT + RECEIVER).replace('\n', '\r\n').encode('ascii')) == plain
    assert parse((AGENT + RECEIVER).rstrip()) == plain


def test_lists_go_by_comma_and_by_line_with_comments_and_empty_lines_between():
    read = parse('[agent]\nspool = /s\nignore = *.a, *.b\n   *.c\n# at the edge\n   ; indented\n\n\t*.d,\n' + RECEIVER)
    assert read.ignore == ('*.a', '*.b', '*.c', '*.d')


def test_value_may_begin_on_the_line_below_and_hold_equal_signs_hashes_and_colons():
    assert first('[agent]\nspool =\n  /s\n[receiver:a]\nmatch = a=b:#c;d\nurl =\n  http://h/?a=b&c=d\n')[1:5] == (
        ('a=b:#c;d',), '', '', 'http://h/?a=b&c=d')


def test_durations():
    for written, seconds in (('500ms', 0.5), ('5s', 5.0), ('2m', 120.0), ('1h', 3600.0), ('5d', 432000.0), ('0', 0.0)):
        assert parse(with_agent('settle = ' + written)).settle == seconds


def test_truth_in_any_case():
    for word in ('yes', 'TRUE', 'On', '1'):
        assert parse(with_agent('syslog = ' + word)).syslog is True
    for word in ('no', 'False', 'OFF', '0'):
        assert parse(with_agent('syslog = ' + word)).syslog is False


def test_sizes_are_powers_of_1024():
    size = settings.SIZE.parse
    assert [size(text) for text in ('0', '4096', '64K', '10M', '1G')] == [0, 4096, 65536, 10485760, 1073741824]


def test_headers_stay_in_order_with_their_case_and_commas():
    receiver = first(with_receiver('headers = X-Site: 042\n  Accept: a/b, c/d\n  User-Agent: mine\n  X-Empty:'))
    assert receiver.headers == (('X-Site', '042'), ('Accept', 'a/b, c/d'), ('User-Agent', 'mine'), ('X-Empty', ''))


def test_method_is_upper_cased_and_codes_are_lower_cased():
    receiver = first(with_receiver('method = put\nretry = 404, 5XX'))
    assert (receiver.method, receiver.retry) == ('PUT', ('404', '5xx'))


def test_paths_are_normalised():
    read = parse('[agent]\nspool = /s//a/./b/, //t\nlog_file = /var/log/../log/x\n'
                 '[receiver:a]\nmatch = *\nurl = http://h/\nspool = /s/a/b\n')
    assert read.spool == ('/s/a/b', '/t')
    assert read.log_file == '/var/log/x'
    assert read.receivers[0].spool == '/s/a/b'


def test_bytes_that_are_not_utf8_survive_in_patterns_and_paths():
    read = parse(b'[agent]\nspool = /s/\xff\xfe\n[receiver:a]\nmatch = \xe9*, \xc3\xa9*\nurl = http://h/\n')
    assert config.compat.fs_bytes(read.spool[0]) == b'/s/\xff\xfe'
    assert [config.compat.config_bytes(p) for p in read.receivers[0].match] == [b'\xe9*', b'\xc3\xa9*']
    assert type(read.spool[0]) is str


def test_router_alone_needs_no_receiver_and_receivers_need_no_match():
    assert parse(AGENT + 'router = /etc/envio/rules.py:choose\n').receivers == ()
    assert first(AGENT + 'router = /r.py:f\n[receiver:a]\nurl = http://h/\n').match == ()


def test_urls_with_ports_addresses_and_placeholders_everywhere_are_accepted():
    for url in ('http://h', 'http://h:8080/', 'http://127.0.0.1:1/x', 'http://[::1]:80/', 'http://a_b.c-d.e./',
                'HTTP://h/%20?a={name}&b={stem}', 'http://{stem}.example.com/{name}', 'https://h', 'HTTPS://h:443/in',
                'https://[::1]/{name}'):
        assert first(AGENT + '[receiver:a]\nmatch = *\nurl = %s\n' % url).url == url
    assert first(AGENT + '[receiver:a]\nmatch_regex = (?P<x>.)\nurl = http://{x}/{x}\n').match_regex == '(?P<x>.)'


# --- what is refused

def test_ten_faults_are_told_at_once_each_with_its_line_in_order():
    assert problems('''[agent]
spool = relative
workers = many
settel = 5s
match = *
[receiver:a]
url = ftp://h/
method = DELETE
this is junk
timeout: 5s
[reciever:b]
[receiver:c]
match = *
ack = 999
headers = Host: x
  bad name: y
''') == [
        '2: spool = relative: the path must be absolute: begin it with /',
        '3: workers = many: it must be a whole number from 1 to 1000',
        '4: settel: unknown key: did you mean settle',
        '5: match: belongs in [receiver:NAME], not in [agent]',
        '6: [receiver:a]: gets no file: say match = ..., or match = * for all that no section above takes',
        '7: url = ftp://h/: ftp is no scheme the agent speaks: use https or http',
        '8: method = DELETE: it must be POST, PUT, PATCH or GET',
        '9: this is junk: neither section nor key = value',
        '10: timeout: a key is followed by =: write timeout = ...',
        '11: [reciever:b]: unknown section: did you mean [receiver:b]',
        '12: url: is missing in this section: it needs a URL with {name}, {stem} and groups of match_regex',
        '14: ack = 999: it must be a code from 200 to 599 or a class: 2xx, 3xx, 4xx, 5xx',
        '15: headers = Host: Host is set by the agent itself: leave it out',
        '16: headers = bad name: a header is Name: value, one a line, the name without blanks',
    ]


def test_empty_file_is_told_what_it_needs():
    assert problems('') == ['1: no section [agent]: write one that says spool = /the/folder',
                            '1: no receiver: write a section [receiver:NAME] with match and url']
    assert problems('[agent]\n') == [
        '1: spool: is missing in this section: it needs absolute paths, one a line',
        '1: no receiver: write a section [receiver:NAME] with match and url']


@pytest.mark.parametrize('body, expected', [
    ('x = 1\n' + AGENT + RECEIVER, '1: x: a key before the first section: begin with [agent]'),
    (AGENT + '[agent]\n' + RECEIVER, '3: [agent]: the same section as in line 1: make them one'),
    (AGENT + RECEIVER + '[receiver: a ]\n', '6: [receiver: a ]: the same section as in line 3: make them one'),
    (AGENT + 'spool = /t\n' + RECEIVER, '3: spool: stands in line 2 already: keep one of them, or make one list'),
    (AGENT + '[agent] x\n' + RECEIVER, '3: [agent] x: a section is [agent] or [receiver:NAME], alone on its line'),
    (AGENT + RECEIVER + '[receiver:a b]\n',
     '6: [receiver:a b]: a receiver needs a name of letters, digits and ._-: [receiver:NAME]'),
    (AGENT + RECEIVER + '[Agent]\n', '6: [Agent]: unknown section: did you mean [agent]'),
    (AGENT + RECEIVER + '[zzz]\n', '6: [zzz]: unknown section: there are [agent] and [receiver:NAME]'),
    ('[agent]\n  x\nspool = /s\n' + RECEIVER,
     '2: x: an indented line continues a value, and there is none above: begin it at the left edge'),
    (with_agent('ignore = *.a\n  settle = 5s'),
     '4: settle = 5s: an indented line continues the value above: begin a key at the left edge'),
    (with_agent('settle = 5s\n  6s'), '4: 6s: settle has one value, and an indented line continues it'),
    (with_agent('settle = 5s ; note'),
     '3: settle = 5s ; note: a blank and ; inside a value: a comment needs a line of its own'),
    (with_agent('ignore = *.a\n  *.b\t; note'),
     '4: *.b?; note: a blank and ; inside a value: a comment needs a line of its own'),
    (with_agent('log_file = ; none'),
     '3: log_file = ; none: a blank and ; inside a value: a comment needs a line of its own'),
    (with_agent('log_file = /a\x07b'), '3: log_file = /a?b: holds a control character: take it out'),
    (AGENT + '[receiver:a]\nmatch = *\nurl = http://h/\x0b\n',
     '5: url = http://h/?: holds a control character: take it out'),
    (with_agent('settle ='), '3: settle =: needs a value: a duration: 500ms, 5s, 2m, 1h, 5d or 0'),
])
def test_bad_lines(body, expected):
    assert problem(body) == expected


def test_utf16_is_named():
    assert problem((AGENT + RECEIVER).encode('utf-16')) == '1: the file is UTF-16: save it as UTF-8'


@pytest.mark.parametrize('body, expected', [
    (with_agent('worker = 3'), '3: worker: unknown key: did you mean workers'),
    (with_agent('Settle = 3s'), '3: Settle: unknown key: did you mean settle'),
    (with_agent('mach_regex = x'), '3: mach_regex: unknown key: did you mean match_regex, which belongs in '
                                   '[receiver:NAME]'),
    (with_receiver('scan_interval = 3s'), '6: scan_interval: belongs in [agent], not in [receiver:NAME]'),
    (with_receiver('brakes = 3'), '6: brakes: unknown key: did you mean brake'),
])
def test_unknown_key_names_the_nearest_known_one_or_where_it_belongs(body, expected):
    assert problem(body) == expected


def test_a_key_like_no_other_lists_what_there_is():
    assert problem(with_agent('qqqq = 3')).startswith('3: qqqq: unknown key: [agent] knows accepted, ack, body,')


@pytest.mark.parametrize('line, why', [
    ('settle = 5', 'a number needs a unit: did you mean 5s'),
    ('settle = -5s', 'not a duration: write one like 500ms, 5s, 2m, 1h or 5d'),
    ('settle = 1.5s', 'not a duration: write one like 500ms, 5s, 2m, 1h or 5d'),
    ('settle = 5 s', 'not a duration: write one like 500ms, 5s, 2m, 1h or 5d'),
    ('settle = 5S', 'not a duration: write one like 500ms, 5s, 2m, 1h or 5d'),
    ('settle = 999999999d', 'it must be at most 3650d'),
    ('scan_interval = 0', 'it must be longer than 0'),
    ('connect_timeout = 0s', 'it must be longer than 0'),
    ('deadline = 8d', 'it must be at most 7d'),
    ('workers = 0', 'it must be a whole number from 1 to 1000'),
    ('workers = 1001', 'it must be a whole number from 1 to 1000'),
    ('workers = 1e2', 'it must be a whole number from 1 to 1000'),
    ('breaker_threshold = 0', 'it must be a whole number from 1 to 1000000'),
    ('brake = -1', 'it must be a whole number from 0 to 1000000'),
    ('rate_limit = 64KB', 'not a size: write one like 4096, 64K, 10M or 1G'),
    ('syslog = maybe', 'it must be yes or no'),
    ('log_level = loud', 'it must be debug, info, warning or error'),
    ('accepted = copy', 'it must be move or delete'),
    ('log_file = envio.log', 'the path must be absolute: begin it with /'),
    ('content_type = json', 'it must be auto or a media type such as application/json'),
    ('router = rules.py:f', 'it must be FILE.py:FUNCTION with the absolute path of the file'),
    ('router = /rules.py', 'it must be FILE.py:FUNCTION with the absolute path of the file'),
    ('proxy = somewhere', 'it must be none, env or http://host:port'),
    ('ignore = a/b', 'a file name has no slash in it'),
    ('ignore = [z-a]', 'the range z-a runs backwards'),
    ('hold = 100', 'it must be a code from 200 to 599 or a class: 2xx, 3xx, 4xx, 5xx'),
])
def test_values_out_of_form_or_range(line, why):
    assert problem(with_agent(line)) == '3: %s: %s' % (line, why)


@pytest.mark.parametrize('key', sorted(settings.FOR_AGENT) + sorted(settings.FOR_RECEIVER))
def test_each_key_without_a_value_is_none_or_told_what_it_needs(key):
    if key == 'spool':
        return  # with_agent() has one
    agent = key in settings.FOR_AGENT
    kind = (settings.FOR_AGENT if agent else settings.FOR_RECEIVER)[key].kind
    page = with_agent(key + ' =') if agent else '%s[receiver:a]\nrouted =\n%s =\n' % (AGENT, key)
    found = []
    try:
        parse(page)
    except ConfigError as error:
        found = [problem.partition(':')[2] for problem in error.problems if ': %s =: ' % key in problem]
    assert found == ([] if kind.blank else ['%d: %s =: needs a value: %s' % (3 if agent else 5, key, kind.form)])


def test_numbers_too_long_for_this_or_another_python_are_refused_in_few_words():
    for line in ('settle = ' + '9' * 5000, 'settle = %ss' % ('9' * 5000), 'workers = ' + '9' * 5000):
        found = problem(with_agent(line))
        assert found.startswith('3: ' + line[:100] + '...: ') and len(found) < 200


def test_no_number_of_blanks_makes_a_line_slow():
    # an expression that looks for the blanks at both ends takes hours for this
    blanks = ' ' * 100000
    assert problems(AGENT + RECEIVER + '[' + blanks + 'x' + blanks + 'x')[0].startswith('6: [  ')
    assert parse(AGENT + '[' + blanks + 'receiver:' + blanks + 'a' + blanks + ']\nmatch = *\nurl = http://h/').receivers


def test_a_bracket_or_brace_cut_in_two_by_a_comma_is_said():
    found = problems(AGENT + '[receiver:a]\nmatch = [a,b]*\n  *.{x,y}\nurl = http://h/\n')
    assert found[0].startswith('4: match = [a: a [ without its ]')
    assert found[1:] == ['5: match = *.{x: a comma ends a pattern, also between { and }: write each pattern by itself',
                         '5: match = y}: a comma ends a pattern, also between { and }: write each pattern by itself']


@pytest.mark.parametrize('line, value', [
    ('gzip = yes', True), ('digest = yes', True), ('body = multipart', 'multipart'), ('multipart_field = f', 'f'),
    ('secret_headers_file = /f', '/f'), ('token_file = /f', '/f'), ('ca_file = /f', '/f'), ('tls_verify = no', False),
    ('client_cert = /f', '/f'), ('transport = curl', 'curl'), ('transport = native', 'native'),
    ('rate_limit = 1M', 1 << 20), ('follow_redirects = yes', True), ('max_attempts = 3', 3), ('expire = 5d', 432000),
])
def test_what_works_beside_the_default_is_accepted_in_both_places(line, value):
    key = line.partition(' ')[0]
    assert getattr(first(with_receiver(line)), key) == getattr(first(with_agent(line)), key) == value


# --- credentials, certificates and proxies

def test_a_user_a_password_and_a_key_with_its_certificate():
    receiver = first(with_receiver('username = me\npassword_file = /p\nclient_cert = /c\nclient_key = /k'))
    assert (receiver.username, receiver.password_file) == ('me', '/p')
    assert (receiver.client_cert, receiver.client_key) == ('/c', '/k')
    name = b'caf\xc3\xa9 \xff"'
    found = first(AGENT.encode('ascii') + RECEIVER.encode('ascii') + b'password_file = /p\nusername = ' + name)
    assert config.compat.config_bytes(found.username) == name


@pytest.mark.parametrize('lines, expected', [
    ('username = me', '3: username = me: needs password_file: the file that holds its password'),
    ('password_file = /p', '3: password_file = /p: needs username: whose password it is'),
    ('client_key = /k', '3: client_key = /k: needs client_cert: the certificate it belongs to'),
    ('token_file = /t\nusername = me\npassword_file = /p',
     '3: token_file = /t: stands beside username: a request has one Authorization'),
    ('username = a:b\npassword_file = /p', '3: username = a:b: a user name has no colon in it (RFC 7617 2)'),
    ('username = a\nheaders = X: y\npassword_file = p',
     '5: password_file = p: the path must be absolute: begin it with /'),
])
def test_what_goes_together_and_what_does_not(lines, expected):
    assert problem(with_agent(lines)) == expected
    there, _, why = expected.partition(': ')
    assert problem(with_receiver(lines)) == '%d: %s' % (int(there) + 3, why)


def test_what_a_receiver_inherits_may_go_with_what_it_says_or_not():
    assert problem(AGENT + 'username = me\npassword_file = /p\n' + RECEIVER + 'token_file = /t') == (
        '8: token_file = /t: stands beside username: a request has one Authorization')
    assert problem(AGENT + 'token_file = /t\n' + RECEIVER + 'username = me\npassword_file = /p') == (
        '4: token_file = /t: stands beside username: a request has one Authorization')
    own = first(AGENT + 'username = me\npassword_file = /p\n' + RECEIVER +
                'username =\npassword_file =\ntoken_file = /t')
    assert (own.username, own.password_file, own.token_file) == ('', '', '/t')
    assert first(AGENT + 'password_file = /p\nusername = me\n' + RECEIVER + 'username = you').username == 'you'
    assert problem(AGENT + 'password_file = /p\nusername = me\n' + RECEIVER + 'username =') == (
        '5: password_file = /p: needs username: whose password it is')


@pytest.mark.parametrize('lines', ['token_file = /t', 'username = me\npassword_file = /p'])
def test_authorization_comes_from_one_place(lines):
    for name in ('Authorization', 'AUTHORIZATION'):
        found = problem(with_receiver('%s\nheaders = X-A: 1\n  %s: Own Xyzzy' % (lines, name)))
        assert found.endswith('headers = Authorization: is made from username or token_file: leave one of them out')
        assert 'Xyzzy' not in found
    assert first(with_receiver('headers = Authorization: Own x')).headers == (('Authorization', 'Own x'),)
    assert first(with_receiver(lines + '\nheaders = Proxy-Authorization: x')).headers[0][1] == 'x'


@pytest.mark.parametrize('value', [
    'none', 'env', 'http://proxy', 'http://proxy:3128', 'HTTP://proxy:3128/', 'http://me:word@proxy:3128',
    'http://me:%40%3A%2F@10.0.0.1:1', 'http://[::1]:3128', 'http://me@[fd00::1]',
])
def test_proxies(value):
    assert first(with_receiver('proxy = ' + value)).proxy == value


@pytest.mark.parametrize('value, why', [
    ('proxy:3128', 'it must be none, env or http://host:port'),
    ('None', 'it must be none, env or http://host:port'),
    ('me:Xyzzy@proxy:3128', 'it must be none, env or http://host:port'),
    ('https://me:Xyzzy@proxy', 'https:// and socks proxies are not supported: only http:// proxies are'),
    ('socks5h://me:Xyzzy@proxy', 'https:// and socks proxies are not supported: only http:// proxies are'),
    ('http://me:Xyzzy@', 'there is no host'),
    ('http://me:Xyzzy@proxy:0', 'the port must be a number from 1 to 65535'),
    ('http://me:Xyzzy@proxy:99999', 'the port must be a number from 1 to 65535'),
    ('http://me:Xyzzy@[::1', 'there is no host name or address: an IPv6 address stands in square brackets'),
    ('http://me:Xyzzy@pro_xy!', 'that is no host name or address'),
    ('http://me:Xyzzy@proxy/path', 'nothing may follow the host and port of a proxy: write / ? and # in a password as '
                                   '%2F %3F %23'),
    ('http://me:Xy/zzy@proxy', 'nothing may follow the host and port of a proxy: write / ? and # in a password as %2F '
                               '%3F %23'),
    ('http://me:Xyzzy%@proxy', 'a % without two hexadecimal digits behind it: write %25'),
    ('http://me:Xyzzy%0A@proxy', 'user and password can\'t hold control characters'),
    ('http://m%3Ae:Xyzzy@proxy', 'a user\'s name can\'t hold a colon'),
    ('http://me:Xyzzy word@proxy', 'blanks, control characters and letters beyond ASCII are not allowed: '
                                   'percent-encode them'),
    ('http://me:X@Xyzzy@proxy:x', 'the port must be a number from 1 to 65535'),
])
def test_a_proxy_that_is_none_is_refused_without_its_password(value, why):
    for body, number in ((with_agent('proxy = ' + value), 3), (with_receiver('proxy =\n  ' + value), 7)):
        found = problem(body)
        assert found.startswith('%d: proxy = ' % number) and found.endswith(': ' + why)
        assert 'zzy' not in found and 'me:' not in found


@pytest.mark.parametrize('lines', [
    'proxy = http://me:Xyzzy@proxy:3128 ; ours',
    'proxy = http://me:Xyzzy@proxy:3128\t; ours',
    'proxy = http://me:Xyzzy\x07@proxy:3128',
    'proxy = none\n  http://me:Xyzzy@proxy:3128',
    'proxy: http://me:Xyzzy@proxy:3128',
    'proxy http://me:Xyzzy@proxy:3128',
    'settle = 1s\n  proxy = http://me:Xyzzy@proxy:3128',
    '  proxy = http://me:Xyzzy@proxy:3128',
    'http_proxy = http://me:Xyzzy@proxy:3128',
    'proxy = http://me:Xyzzy@proxy\nproxy = http://me:Xyzzy@proxy',
    'url = http://me:Xyzzy@h/',
    'headers = Authorization: Xyzzy ; ours',
    'headers = Authorization: Xyzzy\x07',
    'headers = X-Site: 042\n  Authorization: Xyzzy\t; ours',
    'headers: Authorization: Xyzzy',
])
def test_in_no_message_about_any_line_stands_a_password_or_the_value_of_a_header(lines):
    body = with_agent(lines) if 'settle' in lines else AGENT + '[receiver:b]\n' + lines + '\nmatch = *\n' + RECEIVER
    found = problems(body)
    assert found != [] and 'Xyzzy' not in '\n'.join(found)


# --- URLs


@pytest.mark.parametrize('url, why', [
    ('ftp://h/', 'ftp is no scheme the agent speaks: use https or http'),
    ('h/in', 'it must start with https:// or http://'),
    ('http:/h', 'it must start with https:// or http://'),
    ('/in?u=http://h/', 'it must start with https:// or http://'),
    ('{name}://h/', 'it must start with https:// or http://'),
    ('http://', 'there is no host'),
    ('http:///in', 'there is no host'),
    ('http://:80/', 'there is no host'),
    ('http://h:0/', 'the port must be a number from 1 to 65535'),
    ('http://h:65536/', 'the port must be a number from 1 to 65535'),
    ('http://h:/', 'the port must be a number from 1 to 65535'),
    ('http://h:{name}/', 'the port must be a number from 1 to 65535'),
    ('http://-h/', '-h is no host name'),
    ('http://a..b/', 'a..b is no host name'),
    ('http://h%41/', 'h%41 is no host name'),
    ('http://[::1/', '[::1 is no host name'),
    ('http://h/#x', 'a fragment (#...) is never sent: leave it out, or write %23'),
    ('http://h/%zz', 'a % without two hexadecimal digits behind it: write %25'),
    ('http://h/%{name}', 'a % without two hexadecimal digits behind it: write %25'),
    ('http://h/{name', 'a { or } without the other: a placeholder is {name}; a brace itself is %7B or %7D'),
    ('http://h/}', 'a { or } without the other: a placeholder is {name}; a brace itself is %7B or %7D'),
    ('http://h/{}', '{} is no placeholder: {name}, {stem} and the groups of match_regex are'),
    ('http://h/{region}', 'there is no {region}: there are {name} {stem}'),
])
def test_bad_urls(url, why):
    assert problem(AGENT + '[receiver:a]\nmatch = *\nurl = %s\n' % url) == '5: url = %s: %s' % (url, why)


def test_a_password_in_a_url_is_refused_without_showing_it():
    assert problem(AGENT + '[receiver:a]\nmatch = *\nurl = http://u:p@h/\n') == (
        '5: url = http://...@h/: user and password do not belong in a URL: username and password_file are for them')


def test_blanks_and_letters_beyond_ascii_in_a_url_are_refused():
    for url in (b'http://h/a b', b'http://h/\xc3\xa9', b'http://\xff/', b'http://h/<x>', b'http://h/\\x'):
        body = b'[agent]\nspool = /s\n[receiver:a]\nmatch = *\nurl = ' + url + b'\n'
        assert 'blanks, control characters, letters beyond ASCII' in problem(body)


def test_unknown_placeholder_names_the_groups_there_are():
    body = AGENT + '[receiver:a]\nmatch_regex = (?P<site>.)(?P<day>.)\nurl = http://h/{region}\n'
    assert problem(body).endswith('there is no {region}: there are {name} {stem} {day} {site}')


@pytest.mark.parametrize('regex, why', [
    ('(', 'not a regular expression: '),
    ('(?P<name>x)', '{name} is made by the agent: give the group another name'),
    (r'\pL', '\\p does not mean the same on every Python'),
    ('a(?i)b', '(?i) is not known to every Python: only (?i), (?m), (?s) and (?x), at the very start, are'),
    ('(?i:b)', '(?i: is not known to every Python: only (?i), (?m), (?s) and (?x), at the very start, are'),
    ('(?>b)', '(?> is not known to every Python: only (?i), (?m), (?s) and (?x), at the very start, are'),
    ('a*+', 'a + behind another quantifier is not known to every Python'),
    ('()' * 100, 'more than 99 groups'),
])
def test_regex_that_is_wrong_or_not_the_same_on_every_python(regex, why):
    found = problem(AGENT + '[receiver:a]\nmatch_regex = %s\nurl = http://h/\n' % regex)
    assert found.startswith('4: match_regex = ')
    assert why in found or len(regex) == 200 and 'not a regular expression' in found  # 2.6 can't count so far


def test_regex_with_flags_at_the_start_classes_and_escapes_is_accepted():
    for regex in (r'(?i)^a+\.b$', r'[(?:*+]x', r'\*+', r'(?:a|b)(?=c)(?!d)(?P<x>e)(?P=x)', r'a{2,3}\d\w\Z'):
        assert first(AGENT + '[receiver:a]\nmatch_regex = %s\nurl = http://h/\n' % regex).match_regex == regex


@pytest.mark.parametrize('header, why', [
    ('X-A', 'a header is Name: value, one a line, the name without blanks'),
    ('X A: 1', 'a header is Name: value, one a line, the name without blanks'),
    ('X-A : 1', 'a header is Name: value, one a line, the name without blanks'),
    ('content-length: 1', 'content-length is set by the agent itself: leave it out'),
    ('Content-Type: a/b', 'Content-Type is set by content_type: use that key'),
    ('X-A: a\tb', 'the value of X-A holds a control character or one beyond ASCII'),
    ('X-A: \xe9', 'the value of X-A holds a control character or one beyond ASCII'),
])
def test_bad_headers(header, why):
    body = with_receiver('headers = ' + header)
    raw = body if isinstance(body, bytes) else body.encode('latin-1')
    assert problem(raw) == '6: headers = %s: %s' % (header.partition(':')[0], why)


@pytest.mark.parametrize('name', ['Host', 'Transfer-Encoding', 'Connection', 'Idempotency-Key', 'X-File-Name',
                                  'Expect'])
def test_headers_the_agent_sets_itself_are_refused(name):
    assert problem(with_receiver('headers = %s: x' % name)).endswith('is set by the agent itself: leave it out')


def test_a_headers_value_is_never_shown():
    assert 'secret' not in problem(with_receiver('headers = Host: secret'))


@pytest.mark.parametrize('body, expected', [
    (with_receiver('breaker_pause = 20m'), '6: breaker_pause: is longer than breaker_max_pause (1200s > 600s)'),
    (with_agent('retry_pause = 2s\nretry_max_pause = 1s'), '4: retry_pause: is longer than retry_max_pause (2s > 1s)'),
    (with_receiver('ack = 404\nnack = 410, 404'), '7: nack = 404: stands in ack too: an answer has one meaning'),
    (AGENT + 'hold = 401\n' + RECEIVER + 'retry = 401\n', '7: hold = 401: stands in retry too: an answer has one '
                                                          'meaning'),
    (with_receiver('spool = /elsewhere'), '6: spool = /elsewhere: is none of those in [agent]: /var/spool/envio'),
    (AGENT + '[receiver:a]\nspool = /var/spool/envio\nurl = http://h/\n',
     '3: [receiver:a]: gets no file: say match = ..., or match = * for all that no section above takes'),
    ('[agent]\nspool = /s, /s/\n' + RECEIVER, '2: spool = /s: stands there twice'),
    ('[agent]\nspool = /s/a/b, /s/a\n' + RECEIVER, '2: spool = /s/a: one spool can\'t lie inside another, /s/a/b'),
    (with_agent('log_file = /var/spool/envio/log'),
     '3: log_file = /var/spool/envio/log: would be collected and sent: it lies in a spool'),
    (with_agent('journal = /var/spool/envio/j.json'),
     '3: journal = /var/spool/envio/j.json: would be collected and sent: it lies in a spool'),
    (with_agent('metrics = /var/spool/envio/m.prom'),
     '3: metrics = /var/spool/envio/m.prom: would be collected and sent: it lies in a spool'),
])
def test_values_that_contradict_each_other(body, expected):
    assert problem(body) == expected


def test_neighbouring_spools_with_a_common_beginning_are_fine():
    assert parse('[agent]\nspool = /s/a, /s/ab\n' + RECEIVER).spool == ('/s/a', '/s/ab')


def test_a_key_with_a_bad_line_is_not_called_missing_as_well():
    assert problem(AGENT + '[receiver:a]\nmatch = [\nurl = http://h/\n').startswith('4: match = [: ')
    assert problem('[agent]\nspool = x\n' + RECEIVER).startswith('2: spool = x: ')
    assert problem(AGENT + 'router = x\n').startswith('3: router = x: ')


# --- the file

def test_load_reads_the_file(tmpdir):
    conf = tmpdir.join('envio.conf')
    conf.write_binary((AGENT + RECEIVER).encode('ascii'))
    assert config.load(str(conf)) == parse(AGENT + RECEIVER)._replace(path=str(conf))


def test_missing_file_folder_and_giant_are_a_sentence_each(tmpdir):
    giant = tmpdir.join('giant')
    giant.write('#' * (1 << 20) + '#')
    for path, why in ((tmpdir.join('none'), 'can\'t be read: No such file or directory'),
                      (tmpdir, 'can\'t be read: Is a directory'),
                      (giant, 'is larger than 1 MiB: surely not a configuration file')):
        with pytest.raises(ConfigError) as caught:
            config.load(str(path))
        sentence, = caught.value.problems
        assert sentence.startswith('%s: %s' % (path, why))


def test_unreadable_file_is_a_sentence(tmpdir):
    folder = nobody.make_folder()
    conf = os.path.join(folder, 'envio.conf')
    with open(conf, 'w') as stream:
        stream.write(AGENT)
    os.chmod(conf, 0)

    def refused():
        with pytest.raises(ConfigError) as caught:
            config.load(conf)
        assert 'Permission denied' in str(caught.value)
    try:
        nobody.run(refused)
    finally:
        nobody.remove(folder)
