"""Files that move under us, and names that mean harm: what was opened is what is sent, and only what was sent is moved.

The receiver holds its answers until the test has changed the files, so that the moment is known and nothing sleeps.
"""

import json
import os
import re
import stat
import threading

import pytest

from agent import compat
from tests import nobody, test_engine
from tests.senders import no_curl
from tests.servers import ScriptedServer, ok
from tests.test_end_to_end import PATIENCE, contents, fields, read
from tests.test_end_to_end import Process as Program

TRANSPORTS = ['native', pytest.param('curl', marks=pytest.mark.skipif(
    bool(no_curl()), reason='there is no cURL on this machine'))]
QUICK = '\nbrake = 0\nretry_pause = 1ms\nbreaker_threshold = 99\n'
AGAIN = 40  # requests that a connection answers after its first
host = test_engine.host
ANSWERS = {'accepted': ok(), 'deleted': ok(), 'rejected': ok(status='422 No')}


# --- the ways in which a file moves: function(path, what comes to lie there)

def replaced(path, content):
    draft = os.path.join(os.path.dirname(path), '.new')
    with open(draft, 'wb') as stream:
        stream.write(content)
    os.rename(draft, path)


def rewritten(path, content):
    """In place, and its mtime is what it was."""
    before = os.stat(path)
    with open(path, 'r+b') as stream:
        stream.write(content)
        stream.truncate()
    os.utime(path, (before.st_atime, before.st_mtime))


def instead(make):
    def put(path, _):
        os.rename(path, os.path.dirname(path) + '/.away-' + os.path.basename(path))
        make(path)
    return put


def device(path):
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: without end


def no_devices(folder):
    """Return why devices can't be made here, or ''."""
    try:
        device(os.path.join(folder, 'probe'))
    except EnvironmentError as error:
        return compat.error_text(error)
    os.unlink(os.path.join(folder, 'probe'))
    return ''


SENT = b'as it was, '
CONTENTS = {  # name: (change, what it holds then)
    'emptied': (rewritten, b''),
    'truncated': (rewritten, SENT),
    'grown': (rewritten, SENT * 1000 + b'and more'),
    'overwritten': (rewritten, SENT.upper() * 1000),
    'replaced': (replaced, b'another'),
    'replaced by the same': (replaced, SENT * 1000),
}
NOTHING = {  # name: change, after which no file lies there
    'deleted': lambda path, _: os.unlink(path),
    'renamed': instead(lambda path: None),
    'link to shadow': instead(lambda path: os.symlink('/etc/shadow', path)),
    'link to itself': instead(lambda path: os.symlink('.away-' + os.path.basename(path), path)),
    'link to nothing': instead(lambda path: os.symlink('nowhere', path)),
    'folder': instead(os.mkdir),
    'fifo': instead(os.mkfifo),
    'device': instead(device),
}
STAYS = 'left alone'


def fill(host, content=SENT * 1000):
    """Put a file for every change, and one that is left alone; return their names."""
    nothing = dict(NOTHING)
    if no_devices(host.spool):
        del nothing['device']
    names = sorted(list(CONTENTS) + list(nothing) + [STAYS])
    host.put(*names, content=content)
    return names


def change(host, names):
    for name in names:
        if name in CONTENTS:
            act, content = CONTENTS[name]
        else:
            act, content = NOTHING.get(name), b''
        if act:
            act(os.path.join(host.spool, name), content)


def work(host, done):
    """Let the agent run until done(agent)."""
    ended = []
    host.run(lambda agent: done(agent) and not ended.append(True))
    assert ended, 'in vain: there waits %s' % host.waiting()


class Barrier(object):
    """What the last of `count` connections does before any of them goes on."""

    def __init__(self, count, action):
        self._left, self._action = count, action
        self._lock, self._open = threading.Lock(), threading.Event()

    def arrive(self):
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._action()
            self._open.set()
        self._open.wait(PATIENCE)


def by_name(server):
    """Return {file name: [Request, ...]} of those that were received."""
    found = {}
    for request in server.requests():
        name = compat.fs_native(compat.unpercent(dict(request.headers)['X-File-Name']))
        found.setdefault(name, []).append(request)
    return found


def bodies(requests):
    """Return the bodies, in no order: a worker's second request may stand before another one's first."""
    return sorted([request.body for request in requests])


def keys(requests):
    return [dict(request.headers)['Idempotency-Key'] for request in requests]


def no_file_left(host, names):
    """No file of these waits any more, and what was put in the place of others lies there untouched."""
    for name in names:
        path = os.path.join(host.spool, name)
        if name in NOTHING and name not in ('deleted', 'renamed'):
            assert not stat.S_ISREG(os.lstat(path).st_mode), name
        else:
            assert not os.path.lexists(path), name


def settled_contents(host, verdict):
    if verdict == 'rejected':
        return dict([(name, raw) for name, raw in contents(os.path.join(host.spool, 'error')).items()
                     if not name.endswith('.reason')])
    found = {}
    for day in os.listdir(os.path.join(host.spool, 'sent')):
        found.update(contents(os.path.join(host.spool, 'sent', day)))
    return found


@pytest.mark.parametrize('verdict', sorted(ANSWERS))
@pytest.mark.parametrize('transport', TRANSPORTS)
def test_what_changes_while_it_is_sent_does_not_move_on_that_answer(host, transport, verdict):
    names = fill(host)
    barrier = Barrier(len(names), lambda: change(host, names))
    again = [('read_request',), ('send', ANSWERS[verdict])] * AGAIN
    first = [('read_request',), ('call', barrier.arrive), ('send', ANSWERS[verdict])] + again
    with ScriptedServer(*([first] * len(names) + [again])) as server:
        host.agent_keys += '\nworkers = %d' % len(names)
        host.receiver(server.url, keys='transport = %s\nworkers = %d%s%s' % (
            transport, len(names), QUICK, 'accepted = delete\n' if verdict == 'deleted' else ''))
        settled = {}

        def done(agent):
            count = agent.stats.total('rejected' if verdict == 'rejected' else 'accepted')
            return count > len(CONTENTS) and not agent.lanes.waiting()
        work(host, done)
        host.once()
        requests = by_name(server)
        settled = settled_contents(host, verdict)
    after = dict([(name, content) for name, (_, content) in CONTENTS.items()])
    for name in names:
        wanted = [SENT * 1000] + [after[key] for key in after if key == name]
        assert bodies(requests[name]) == sorted(wanted), name
        assert len(set(keys(requests[name]))) == len(requests[name]), name
    assert settled == ({} if verdict == 'deleted' else dict(after, **{STAYS: SENT * 1000}))
    left = [name for name in host.rejected() if not name.endswith('.reason') or name[:-7] not in settled]
    assert left == (sorted(settled) if verdict == 'rejected' else []), 'reasons without their file'
    no_file_left(host, names)


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_what_changes_after_it_was_collected_is_sent_as_it_is_when_it_is_opened_or_not_at_all(host, transport, said):
    names = fill(host)
    host.put('before', content=b'holds the one worker')
    os.utime(os.path.join(host.spool, 'before'), (1, 1))
    changed = threading.Event()
    again = [('read_request',), ('send', ok())] * AGAIN
    hold = [('read_request',), ('call', lambda: changed.wait(PATIENCE)), ('send', ok())]
    with ScriptedServer(hold + again, again) as server:
        host.receiver(server.url, keys='transport = %s\nworkers = 1%s' % (transport, QUICK))

        def done(agent):
            if not changed.is_set() and server.requests() and agent.lanes.waiting() == len(names) + 1:
                change(host, names)
                changed.set()
            return agent.stats.total('accepted') == len(CONTENTS) + 2 and not agent.lanes.waiting()
        work(host, done)
        host.once()
        requests = by_name(server)
    after = dict([(name, content) for name, (_, content) in CONTENTS.items()])
    after[STAYS] = SENT * 1000
    del requests['before']
    assert dict([(name, bodies(found)) for name, found in requests.items()]) == dict(
        [(name, [content]) for name, content in after.items()])
    no_file_left(host, names)
    lines = ' '.join([line for _, line in said])
    for name, kind in (('link to shadow', 'a link'), ('folder', 'a folder'), ('fifo', 'a FIFO')):
        assert '%s is %s' % (name, kind) in lines


LARGE = SENT * 200000  # asks first (Expect), so that no byte has left when it changes
GO = ('send', b'HTTP/1.1 100 Continue\r\n\r\n')
AFTER = [('read_head',), GO, ('read_body',), ('send', ok())] * AGAIN


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_a_large_file_that_changes_while_its_body_is_on_the_way_is_sent_again_whole(host, transport):
    new = {'grown': LARGE + b'more', 'overwritten': LARGE.upper(), 'deleted': None}
    host.put(*new, content=LARGE)

    def change_all():
        for name, content in new.items():
            path = os.path.join(host.spool, name)
            if content is None:
                os.unlink(path)
            else:
                rewritten(path, content)
    barrier = Barrier(len(new), change_all)
    first = [('read_head',), ('call', barrier.arrive), GO, ('read_body',), ('send', ok())] + AFTER
    with ScriptedServer(*([first] * len(new) + [AFTER])) as server:
        host.receiver(server.url, keys='transport = %s\nworkers = 3%s' % (transport, QUICK))
        work(host, lambda agent: agent.stats.total('accepted') == 2 and not agent.lanes.waiting())
        requests = by_name(server)
    assert settled_contents(host, 'accepted') == dict([(name, raw) for name, raw in new.items() if raw is not None])
    assert bodies(requests['grown']) == [LARGE, new['grown']]
    assert new['overwritten'] in bodies(requests['overwritten']) and len(requests['overwritten']) == 2
    assert bodies(requests['deleted']) == [LARGE]


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_a_file_that_is_cut_short_while_it_is_sent_is_never_passed_off_as_whole(host, transport):
    host.put('a', content=LARGE)
    half = len(LARGE) // 2
    # The receiver closes by itself in the end: cURL would wait for an answer until read_timeout.
    first = [('read_head',), ('call', lambda: rewritten(os.path.join(host.spool, 'a'), LARGE[:half])), GO,
             ('read', half), ('reset',)]
    with ScriptedServer(first, AFTER) as server:
        host.receiver(server.url, keys='transport = %s%s' % (transport, QUICK))
        work(host, lambda agent: agent.stats.total('accepted') == 1)
        talks = server.conversations
        assert talks[0].raw == LARGE[:half]
        assert dict(talks[0].requests[0].headers)['Content-Length'] == '%d' % len(LARGE)
        assert bodies(talks[-1].requests) == [LARGE[:half]]
        assert len(set(keys(server.requests()))) == 2
    assert settled_contents(host, 'accepted') == {'a': LARGE[:half]}


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_files_that_ride_in_one_run_and_are_replaced_meanwhile_are_sent_again(host, transport):
    names = ['f%02d' % number for number in range(30)]
    host.put(*names, content=b'old')

    def replace_rest():
        asked = by_name(server)
        for name in names:
            if name not in asked:
                replaced(os.path.join(host.spool, name), b'new')

    def eighth_time():
        if len(server.requests()) == 8:  # by then cURL takes several files along, all of them open
            replace_rest()
    with ScriptedServer([('read_request',), ('call', eighth_time), ('send', ok())] * AGAIN * 2) as server:
        host.receiver(server.url, keys='transport = %s\nworkers = 1%s' % (transport, QUICK))
        work(host, lambda agent: agent.stats.total('accepted') == len(names))
        requests = by_name(server)
    settled = settled_contents(host, 'accepted')
    assert sorted(settled) == names
    for name in names:
        assert settled[name] in bodies(requests[name])
    assert list(settled.values()).count(b'new') == 22


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_a_file_made_unreadable_while_it_is_sent_stays_until_it_is_readable_again(transport):
    folder = nobody.make_folder()
    host = test_engine.Host(folder)
    path = os.path.join(host.spool, 'a')
    again = [('read_request',), ('send', ok())]
    script = [('read_request',), ('call', lambda: os.chmod(path, 0)), ('send', ok())] + again

    def passes():
        with ScriptedServer(script, again) as server:
            host.receiver(server.url, keys='transport = %s%s' % (transport, QUICK))
            assert host.once().waiting() == 1, 'it is another file by then'
            assert host.once().waiting() == 1, 'it can\'t be opened'
            assert bodies(server.requests()) == [b'content']
            os.chmod(path, 0o600)
            assert host.once().waiting() == 0
            assert bodies(server.requests()) == [b'content'] * 2
            assert len(set(keys(server.requests()))) == 2
        assert settled_contents(host, 'accepted') == {'a': b'content'}
    try:
        host.put('a', content=b'content')
        nobody.give(host.spool, path)
        nobody.run(passes)
    finally:
        nobody.remove(folder)


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_devices_and_links_that_lie_there_from_the_start_are_left_alone(host, transport, said):
    host.put('file')
    os.symlink('/etc/shadow', os.path.join(host.spool, 'shadow.json'))
    os.symlink(host.spool, os.path.join(host.spool, 'spool.json'))
    os.mkdir(os.path.join(host.spool, 'folder.json'))
    left = ['folder.json', 'shadow.json', 'spool.json']
    if not no_devices(host.spool):
        device(os.path.join(host.spool, 'zero.json'))
        left.append('zero.json')
    with ScriptedServer([('read_request',), ('send', ok())] * AGAIN) as server:
        host.receiver(server.url, keys='transport = ' + transport)
        assert host.once().waiting() == 0
        assert list(by_name(server)) == ['file']
    assert host.sent() == ['file'] and host.waiting() == left
    for name, kind in zip(left, ('a folder', 'a link', 'a link', 'a device')):
        assert '/%s is %s' % (name, kind) in ' '.join([line for _, line in said])


# --- names

FORGED = b'2001-01-01 00:00:00,000 ERROR forged'
NAMES = [b'\n' + FORGED, b'a\r\n' + FORGED, b'\renvio: forged', b'a\nX-Forged: yes', b'a\r\nX-Forged: yes\r\n\r\n',
         b'a HTTP%1.1\r\nHost: forged', b'a"\nurl = "http:forged', b'a"\nheader = "X-Forged: yes', b'a\\', b'a\\"',
         b'\\n', b'a\nStatus: 200 forged', b'a\n\nforged body', b'","verdict":"forged', b'\\u000aforged',
         b'a"}\n{"forged": 1}', b'\x1b[2J\x1b]0;forged\x07', b'\xc2\x9b31m', b'\xe2\x80\xae', b'\xe2\x80\xa8' + FORGED,
         b'\xef\xbb\xbf', b'\x7f', b'%00', b'%0A' + FORGED, b'\\0', b'\\x00', b'%', b'%%', b'%s%n%(name)s',
         b'%2e%2e%2f', b'..%2fa', b'{name}', b'{0}', b'-', b'--', b'-K', b'--help', b'-o', b'@file', b'@', b'<file',
         b'[1-9]', b'[a-z:2]', b'{a,b}', b'[', b'{', b'}]', b'...', b'.. ', b'..a', b'. ', b' ', b'  trailing  ',
         b'\ttab\t', b'sent.1', b'error.1', b'lock', b'state.json', b"'", b'"', b"'; touch forged; '",
         b'$(touch forged)', b'`id`', b'|forged', b'&a=b;c', b'a?b#c', b'~', b'*', b'#', b';', b'=', b'\xff' * 255,
         b'\n' * 255, b'\x80', b'\xc3', b'\xed\xa0\x80', b'%' * 255, b'x' * 255, b'null', b'True']
UNSAFE = re.compile(u'[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]')
STAND_IN = """#!/bin/sh
[ "$*" = "-q -K -" ] || exec /usr/bin/curl "$@"
cat >"%s/$$" || exit 99
exec /usr/bin/curl "$@" <"%s/$$"
"""
ANSWER_OF = {'sent': '200 OK', 'error': '422 No', 'stays': '500 Down'}
PAGE = """[agent]
spool = %(spools)s
settle = 0
ignore = *.reason
brake = 0
breaker_threshold = 1000
retry_pause = 1h
retry_max_pause = 1h
workers = 3
transport = %(transport)s
log_file = %(folder)s/log
log_level = debug
journal = %(folder)s/journal
metrics = %(folder)s/metrics.prom
"""


class Names(object):
    """A spool with all NAMES for each kind of answer, and what is said of them."""

    def __init__(self, folder, transport, kinds):
        self.folder, self.conf = folder, os.path.join(folder, 'conf')
        self._count = 0
        page = PAGE % {'folder': folder, 'transport': transport,
                       'spools': '\n    '.join([os.path.join(folder, kind) for kind in kinds])}
        self.servers = dict([(kind, ScriptedServer([('read_request',), ('send', ok(status=answer))] * len(NAMES)))
                             for kind, answer in ANSWER_OF.items() if kind in kinds])
        for kind, server in self.servers.items():
            page += '[receiver:%s]\nspool = %s/%s\nmatch = *\nurl = %s/in/{name}?stem={stem}\n' % (
                kind, folder, kind, server.url)
            os.mkdir(os.path.join(folder, kind))
            for raw in NAMES:
                with open(os.path.join(compat.fs_bytes(folder), kind.encode('ascii'), raw), 'wb') as stream:
                    stream.write(raw)
        with open(self.conf, 'w') as stream:
            stream.write(page)
        os.mkdir(os.path.join(folder, 'configurations'))
        with open(os.path.join(folder, 'curl'), 'w') as stream:
            stream.write(STAND_IN % ((os.path.join(folder, 'configurations'),) * 2))
        os.chmod(os.path.join(folder, 'curl'), 0o755)

    def say(self, *arguments):
        """Run a command; return (exit code, stdout, stderr), as bytes."""
        self._count += 1
        folder = os.path.join(self.folder, 'run%d' % self._count)
        os.mkdir(folder)
        stand_in = os.path.join(self.folder, 'curl')
        program = Program(folder, ['-c', self.conf] + list(arguments), {'ENVIO_CURL': stand_in})
        try:
            code = program.end()[0]
        finally:
            program.kill()
        return (code,) + tuple([read(os.path.join(folder, name)) for name in ('stdout', 'stderr')])

    def page(self, *parts):
        return read(os.path.join(self.folder, *parts))

    def stop(self):
        for server in self.servers.values():
            server.stop()


def lines_of(raw, beginning):
    """Return the lines of what was said; each is safe to show and begins as it should."""
    assert not UNSAFE.search(raw.decode('utf-8')), raw
    lines = raw.splitlines()
    assert raw.count(b'\n') == len(lines)
    for line in lines:
        assert re.match(beginning, line), line
        assert not line.startswith(FORGED[:19])
    return lines


def name_of(shown):
    """Return the bytes of a name from how it is shown (text.shown; native or text)."""
    raw = shown.encode('utf-8') if isinstance(shown, compat.text_type) else shown
    return compat.unpercent(compat.byte_string(raw)) if b'%' in raw else raw


def check_requests(server):
    requests = server.requests()
    assert sorted([compat.unpercent(dict(request.headers)['X-File-Name']) for request in requests]) == sorted(NAMES)
    for request in requests:
        name = dict(request.headers)['X-File-Name']
        assert re.match(r'POST /in/%s\?stem=[\w.~%%-]* HTTP/1\.1\Z' % re.escape(name), request.line)
        assert set([field[0] for field in request.headers]) <= set(
            ['Host', 'User-Agent', 'Connection', 'Content-Type', 'Content-Length', 'Idempotency-Key', 'X-File-Name'])
        assert len(request.headers) == len(dict(request.headers))
        assert request.body == compat.unpercent(name), 'what the file held'


def check_reasons(names):
    folder = os.path.join(names.folder, 'error', 'error')
    rejected = contents(compat.fs_bytes(folder))
    reasons = [rejected.pop(name) for name in list(rejected) if name.endswith(b'.reason')]
    assert sorted(rejected.values()) == sorted(NAMES)
    assert len([name for name in rejected if name in NAMES and rejected[name] == name]) == len(NAMES) - 4, 'too long'
    assert len(reasons) == len(NAMES)
    found = []
    for reason in reasons:
        lines_of(reason, b'[A-Z][A-Za-z-]+: |ok|$')
        pairs, _ = fields(reason)
        shown, = re.findall(b'(?m)^File: (.*)$', reason)  # as it stands: a reader of RFC 822 drops leading blanks
        assert [field for field, _ in pairs] == ['File', 'Receiver', 'URL', 'Status', 'Reason', 'Time', 'Attempts',
                                                 'Idempotency-Key', 'Requeue']
        assert dict(pairs)['Status'] == '422 No'
        found.append(name_of(shown))
    assert sorted(found) == sorted(NAMES)


def check_state(names):
    document = json.loads(names.page('stays', '.envio', 'state.json').decode('ascii'))
    assert sorted([name_of(name) for name in document['files']]) == sorted(NAMES)
    code, out, err = names.say('list')
    assert (code, err) == (0, b'')
    lines = lines_of(out, b'')
    assert len(lines) == 1 + len(NAMES) and len([line for line in lines if b' stays ' in line]) == len(NAMES)
    code, out, err = names.say('list', '--json')
    assert (code, err) == (0, b'')
    lines_of(out, b'')
    assert sorted([name_of(row['name']) for row in json.loads(out.decode('utf-8'))['files']]) == sorted(NAMES)
    for arguments in (['status'], ['status', '--json']):
        code, out, err = names.say(*arguments)
        assert (code, err) == (1, b'') and b'forged' not in out
        lines_of(out, b'')


def check_configurations(names):
    """Nothing of a name is an option of its own, and what cURL reads as its URL is one."""
    folder = os.path.join(names.folder, 'configurations')
    urls = []
    for page in contents(folder).values():
        for line in lines_of(page, br'[a-z0-9.-]+( = "([^"\\]|\\[\\"nrt])*")?\Z'):
            option, _, value = line.partition(b' = ')
            assert option in (b'silent', b'show-error', b'fail-early', b'fail-with-body', b'next', b'url', b'request',
                              b'globoff', b'request-target', b'header', b'connect-timeout', b'max-time', b'output',
                              b'speed-limit', b'speed-time', b'http1.1', b'path-as-is', b'upload-file', b'dump-header',
                              b'write-out')
            if option == b'url':
                assert re.match(br'"http://127\.0\.0\.1:\d+/in/[\w.~%-]+\?stem=[\w.~%-]*"\Z', value)
                urls.append(value)
            assert option != b'header' or not value.startswith(b'"X-Forged')
    assert len(urls) == len(NAMES)


@pytest.fixture
def names(tmpdir):
    made = []

    def make(*arguments):
        made.append(Names(str(tmpdir), *arguments))
        return made[0]
    yield make
    made[0].stop()
    assert not tmpdir.join('forged').check() and not os.path.exists('/forged')


def test_no_name_gets_anywhere_unescaped(names):
    names = names('native', sorted(ANSWER_OF))
    code, out, err = names.say('once', '-v')
    assert (code, out) == (65, b'')
    for raw, beginning in ((err, b'envio: '), (names.page('log'), br'\d{4}(-\d\d){2} [\d:,]{12} [A-Z]+ ')):
        lines = lines_of(raw, beginning)
        assert len([line for line in lines if b': rejected by error: 422 No' in line]) == len(NAMES)
        assert len([line for line in lines if b': RETRY by stays: 500 Down' in line]) == len(NAMES)
    records = [json.loads(line.decode('ascii')) for line in lines_of(names.page('journal'), br'\{"attempts":1,.*\}\Z')]
    for kind, verdict in (('sent', 'ACK'), ('error', 'NACK')):
        assert sorted([name_of(record['file']) for record in records if record['receiver'] == kind
                       and record['verdict'] == verdict]) == sorted(NAMES)
    assert len(records) == 2 * len(NAMES)
    assert b'forged' not in names.page('metrics.prom')
    for server in names.servers.values():
        check_requests(server)
    check_reasons(names)
    check_state(names)


@pytest.mark.skipif(bool(no_curl()), reason='there is no cURL on this machine')
def test_no_name_gets_into_the_configuration_of_curl_unescaped(names):
    names = names('curl', ['sent'])
    assert names.say('once') == (0, b'', b'')
    check_requests(names.servers['sent'])
    check_configurations(names)
