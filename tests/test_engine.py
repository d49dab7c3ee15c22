"""The whole agent in this process, against a real receiver on loopback: what a file's way ends in."""

import json
import os
import random
import signal
import threading
import time

import pytest

from agent import compat, config, engine, lanes, receiver as tryout, router
from agent.errors import ConfigError, LockedError
from agent.wakeup import Wakeup
from tests.servers import ScriptedServer, ok, refusing_port, tarpit

CONFIG = '[agent]\nspool = %s\nsettle = 0\n%s\n'
SECTION = '[receiver:%s]\nmatch = %s\nurl = %s\n%s\n'


class Host(object):
    """A spool with files, a configuration, and a way to run the agent over it."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.spool = os.path.join(self.folder, 'spool')
        os.mkdir(self.spool)
        self.sections = []
        self.agent_keys = 'scan_interval = 200ms'
        self.servers = []
        self.said = []

    def serve(self, answers='200', keep=None):
        folder = os.path.join(self.folder, keep) if keep else None
        server = tryout.serve(folder=folder, answers=answers, say=self.said.append).start()
        self.servers.append(server)
        return server.url + '/in'

    def receiver(self, url, name='orders', match='*', keys=''):
        self.sections.append(SECTION % (name, match, url, keys))

    def put(self, *names, **options):
        for name in names:
            with open(os.path.join(self.spool, name), 'wb') as stream:
                stream.write(options.get('content', name.encode('utf-8', 'surrogateescape') if str is not bytes
                                         else name))

    def setup(self):
        raw = CONFIG % (self.spool, self.agent_keys) + ''.join(self.sections)
        parsed = config.parse(raw.encode('utf-8'), os.path.join(self.folder, 'envio.conf'))
        return parsed, router.Router(parsed)

    def once(self, **options):
        wakeup = Wakeup()
        try:
            return engine.run(self.setup(), wakeup, once=True, **options)
        finally:
            wakeup.close()

    def run(self, until, reload=None, longest=30):
        """Run until `until(agent)` says so."""
        wakeup = Wakeup()
        end = compat.monotonic() + longest

        def watch(agent):
            if until(agent) or compat.monotonic() > end:
                wakeup.signals.append(signal.SIGTERM)
            return compat.monotonic() + 0.02
        try:
            return engine.run(self.setup(), wakeup, reload=reload, watch=watch)
        finally:
            wakeup.close()

    def waiting(self):
        return sorted([name for name in os.listdir(self.spool) if name not in ('.envio', 'sent', 'error')])

    def sent(self):
        days = os.path.join(self.spool, 'sent')
        return sorted([name for day in os.listdir(days) for name in os.listdir(os.path.join(days, day))])

    def rejected(self):
        return sorted(os.listdir(os.path.join(self.spool, 'error')))


@pytest.fixture
def host(tmpdir):
    host = Host(tmpdir)
    yield host
    for server in host.servers:
        server.stop()


def test_each_answer_sends_its_file_where_it_belongs(host):
    host.receiver(host.serve('a*=201,b*=404,c*=503,d*=408,e*=301'), keys='workers = 1')
    host.put('a1', 'b1', 'c1', 'd1', 'e1')
    agent = host.once()
    assert host.sent() == ['a1']
    assert host.rejected() == ['b1', 'b1.reason']
    assert host.waiting() == ['c1', 'd1', 'e1']
    assert (agent.stats.total('accepted'), agent.stats.total('rejected'), agent.waiting()) == (1, 1, 3)


def test_what_is_received_is_what_lay_in_the_spool(host):
    host.receiver(host.serve(keep='kept'))
    host.put('empty', content=b'')
    host.put('small', content=b'x')
    host.put('large', content=os.urandom(300000))
    contents = dict([(name, open(os.path.join(host.spool, name), 'rb').read()) for name in host.waiting()])
    host.once()
    assert host.sent() == ['empty', 'large', 'small']
    for name, content in contents.items():
        assert open(os.path.join(host.folder, 'kept', name), 'rb').read() == content


def test_odd_names_arrive_as_they_are(host):
    names = [compat.fs_native(raw) for raw in (b'new\nline', b'inv\xff\xfealid', b'"quoted"', b'50%', b' blank ',
                                               b'-rf', b'caf\xc3\xa9', b'back\\slash', b'semi;colon')]
    host.receiver(host.serve(keep='kept') + '/{name}')
    host.put(*names, content=b'odd')
    host.once()
    assert host.sent() == sorted(names)
    assert sorted(os.listdir(os.path.join(host.folder, 'kept'))) == sorted(names)


def test_what_is_no_file_stays_and_the_rest_is_delivered(host):
    host.receiver(host.serve())
    host.put('file')
    os.mkdir(os.path.join(host.spool, 'folder'))
    os.mkfifo(os.path.join(host.spool, 'fifo'))
    os.symlink('/etc/passwd', os.path.join(host.spool, 'link'))
    agent = host.once()
    assert host.sent() == ['file'] and host.waiting() == ['fifo', 'folder', 'link']
    assert agent.waiting() == 0


def test_ignored_names_are_left_alone(host):
    host.receiver(host.serve())
    ignored = ['.hidden', 'a.tmp', 'a.part', 'a.partial', 'a.filepart', 'a~', 'a.reason']
    host.put('a', *ignored)
    host.once()
    assert host.sent() == ['a'] and host.waiting() == sorted(ignored)


def test_a_name_without_a_receiver_stays_and_is_counted(host):
    host.receiver(host.serve(), match='*.json')
    host.put('a.json', 'b.xml')
    assert host.once().waiting() == 1
    assert host.waiting() == ['b.xml']


def test_a_dead_receiver_is_tried_until_its_breaker_opens_and_the_others_are_served(host):
    with refusing_port() as port:
        host.receiver('http://127.0.0.1:%d/' % port, 'dead', 'd*', 'breaker_threshold = 3\nworkers = 1')
        host.receiver(host.serve(), 'well', 'w*')
        host.put(*['%s%d' % (letter, number) for letter in 'dw' for number in range(20)])
        agent = host.once()
    assert len(host.sent()) == 20
    assert agent.stats.receivers['dead'].failed == 3
    assert len(host.waiting()) == 20


def test_a_tarpit_holds_its_own_workers_alone(host):
    with tarpit() as pit:
        host.agent_keys = 'workers = 3\nstop_grace = 100ms'
        host.receiver('http://127.0.0.1:%d/' % pit.port, 'pit', 'p*', 'workers = 2')
        host.receiver(host.serve(), 'well', 'w*')
        host.put(*['%s%02d' % (letter, number) for letter in 'pw' for number in range(40)])
        host.run(lambda agent: agent.stats.total('accepted') == 40)
        assert len(host.sent()) == 40 and len(host.waiting()) == 40


def test_the_deadline_ends_an_exchange_that_drips(host):
    host.receiver(host.serve('hang'), keys='deadline = 300ms\nretry_pause = 1h\nretry_max_pause = 1h')
    host.agent_keys = 'scan_interval = 1h'
    host.put('a')
    agent = host.run(lambda agent: agent.stats.total('failed') == 1)
    assert agent.stats.receivers['orders'].last_failure == 'not done within 0.3 s'
    assert host.waiting() == ['a']


def test_a_receiver_that_recovers_gets_its_files(host):
    host.receiver(host.serve('*=503:times=4,*=200'),
                  keys='breaker_threshold = 2\nbreaker_pause = 100ms\nretry_pause = 100ms')
    host.put('a', 'b', 'c')
    host.run(lambda agent: agent.stats.total('accepted') == 3)
    assert host.sent() == ['a', 'b', 'c'] and not host.waiting()


def test_every_attempt_of_a_file_carries_the_same_key_also_after_a_restart(host):
    with ScriptedServer([('read_request',), ('send', ok(status='503 Busy'))]) as server:
        host.receiver('http://127.0.0.1:%d/' % server.port, keys='retry_pause = 1ms\nbreaker_threshold = 99')
        host.put('a', 'b')
        for _ in range(3):
            host.once()
            time.sleep(0.02)  # until the pause is over
        keys = {}
        for sent in server.requests():
            headers = dict(sent.headers)
            keys.setdefault(headers['X-File-Name'], []).append(headers['Idempotency-Key'])
        os.utime(os.path.join(host.spool, 'a'), (1, 1))  # another version of the file
        host.once()
        newest = [dict(sent.headers)['Idempotency-Key'] for sent in server.requests()][-2:]
    assert sorted(keys) == ['a', 'b']
    assert [len(tried) for tried in keys.values()] == [3, 3]
    assert [len(set(tried)) for tried in keys.values()] == [1, 1]
    assert keys['a'][0] != keys['b'][0]
    assert keys['a'][0] not in newest and keys['b'][0] in newest


def test_new_files_are_found_while_it_runs(host):
    host.receiver(host.serve())
    host.put('first')
    put = []

    def until(agent):
        if agent.stats.total('accepted') == 1 and not put:
            put.append(1)
            host.put('.second')
            os.rename(os.path.join(host.spool, '.second'), os.path.join(host.spool, 'second'))
        return agent.stats.total('accepted') == 2
    host.run(until)
    assert host.sent() == ['first', 'second']


def test_a_file_goes_only_when_it_has_settled(host):
    host.agent_keys = ''
    host.receiver(host.serve())
    host.put('a')
    path = os.path.join(host.spool, 'a')
    parsed, route = host.setup()
    setup = parsed._replace(settle=0.3), route
    stop = threading.Event()

    def grow():
        while not stop.is_set():
            stop.wait(0.02)
            with open(path, 'ab') as stream:
                stream.write(b'more')
    writer = threading.Thread(target=grow)
    writer.start()
    wakeup = Wakeup()
    try:
        agent = engine.run(setup, wakeup, once=True)
        assert host.waiting() == ['a'] and agent.waiting() == 1
    finally:
        stop.set()
        writer.join()
    agent = engine.run(setup, wakeup, once=True)
    wakeup.close()
    assert host.sent() == ['a'] and agent.waiting() == 0


def test_a_second_agent_on_the_spool_is_refused_and_does_nothing(host):
    host.receiver(host.serve())
    host.put('a')
    spools = engine.lock_spools([host.spool])
    with pytest.raises(LockedError):
        host.once()
    assert host.waiting() == ['a']
    spools[host.spool].unlock()
    host.once()
    assert host.sent() == ['a']


def test_with_several_spools_all_are_locked_or_none(host, tmpdir):
    other = str(tmpdir.mkdir('other'))
    spools = engine.lock_spools([host.spool])
    with pytest.raises(LockedError):
        engine.lock_spools([other, host.spool])
    engine.lock_spools([other])[other].unlock()
    spools[host.spool].unlock()


def test_an_expired_password_does_not_empty_the_spool_into_error(host):
    host.receiver(host.serve('401'), keys='workers = 4')
    host.put(*['f%02d' % number for number in range(40)])
    host.once()
    assert len(host.rejected()) == 20, '10 files and their reasons'
    assert len(host.waiting()) == 30


def test_an_accepted_file_that_cant_be_moved_is_not_sent_twice_and_is_moved_later(host, monkeypatch):
    monkeypatch.setattr(lanes, 'MOVE_PAUSE', 0.1)
    url = host.serve()
    host.receiver(url)
    host.put('a')
    os.mkdir(os.path.join(host.spool, 'sent'))
    blocker = os.path.join(host.spool, 'sent', time.strftime('%Y-%m-%d'))
    open(blocker, 'w').close()

    def until(agent):
        if agent.lanes.unmoved() and os.path.isfile(blocker):
            os.unlink(blocker)
        return agent.stats.total('accepted') == 1
    host.run(until)
    assert host.sent() == ['a']
    assert host.servers[0].counts().requests == 1


def test_delete_removes_what_was_accepted(host):
    host.receiver(host.serve(keep='kept'), keys='accepted = delete')
    host.put('a')
    host.once()
    assert host.waiting() == [] and host.sent() == []
    assert os.listdir(os.path.join(host.folder, 'kept')) == ['a']


def test_redirects_are_held_unless_the_configuration_follows_them(host):
    host.receiver(host.serve('307'))
    host.put('a')
    agent = host.once()
    assert agent.lanes.lanes['orders'].held and host.waiting() == ['a']


@pytest.mark.parametrize('location', ['//[', 'http://[::1', '//h]/', '//[v1.x]:y/', '%', '/ \x7f'])
def test_a_redirect_to_what_is_no_url_is_held_as_one_to_another_origin(host, location):
    answer = 'HTTP/1.1 307 No\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n' % location
    with ScriptedServer([('read_request',), ('send', answer.encode('ascii'))] * 9) as server:
        host.receiver(server.url, keys='follow_redirects = yes')
        host.put('a')
        assert 'fault of the program' not in host.once().stats.receivers['orders'].last
    assert host.waiting() == ['a']


def test_reload_takes_the_new_configuration_and_keeps_the_old_one_when_it_is_wrong(host):
    host.receiver(host.serve('503'), keys='retry_pause = 100ms\nbreaker_pause = 100ms\nbreaker_max_pause = 100ms')
    host.put('a')
    turns = []

    def reload():
        turns.append(1)
        if len(turns) == 1:
            raise ConfigError(['wrong'])
        host.sections = []
        host.receiver(host.serve('200'))
        return host.setup()

    def until(agent):
        if agent.stats.total('failed') > len(turns) and len(turns) < 2:
            agent._wakeup.signals.append(signal.SIGHUP)
        return agent.stats.total('accepted') == 1
    host.run(until, reload=reload)
    assert len(turns) == 2 and host.sent() == ['a']


def test_max_time_starts_nothing_new_when_it_is_over(host):
    host.receiver(host.serve('200:delay=50ms'), keys='workers = 1')
    host.put(*['f%02d' % number for number in range(50)])
    agent = host.once(max_time=0.3)
    assert agent.interrupted
    assert 0 < len(host.sent()) < 50
    assert len(host.sent()) + len(host.waiting()) == 50


def test_a_start_waits_by_chance_and_a_signal_ends_the_wait(host, monkeypatch):
    host.receiver(host.serve())
    host.agent_keys += '\nsplay = 200ms'
    host.put('a')
    monkeypatch.setattr(random, 'random', lambda: 0.5)
    begin = compat.monotonic()
    assert host.once().stats.total('accepted') == 1
    assert compat.monotonic() - begin >= 0.09

    host.agent_keys = host.agent_keys.replace('200ms', '1h')
    wakeup = Wakeup()
    wakeup.signals.append(signal.SIGTERM)
    wakeup.notify()
    try:
        assert engine.run(host.setup(), wakeup, once=True).interrupted
    finally:
        wakeup.close()


def test_the_journal_and_the_metrics_tell_what_became_of_each_file(host):
    journal, metrics = [os.path.join(host.folder, name) for name in ('journal', 'metrics.prom')]
    host.agent_keys += '\njournal = %s\nmetrics = %s' % (journal, metrics)
    host.receiver(host.serve('a*=201,b*=404,c*=500'), keys='max_attempts = 1\nbreaker_threshold = 99')
    host.receiver(host.serve('503'), name='busy', match='w*')
    host.sections.reverse()
    host.put('a', 'b', 'c', 'w1', 'w2')
    host.once()
    with open(journal) as page:
        lines = [json.loads(line) for line in page]
    assert sorted([(line['file'], line['verdict'], line['status']) for line in lines]) == [
        ('a', 'ACK', 201), ('b', 'NACK', 404), ('c', 'EXPIRED', 500)]
    with open(metrics) as page:
        text = page.read()
    for line in ('envio_files_total{receiver="orders",verdict="accepted"} 1', 'envio_waiting_files{receiver="busy"} 2',
                 'envio_files_total{receiver="orders",verdict="rejected"} 2', 'envio_running 0'):
        assert line in text, text


def test_a_reload_takes_another_journal_and_one_that_cannot_be_opened_changes_nothing(host):
    paths = [os.path.join(host.folder, name) for name in ('first', 'second', 'no/such/folder')]
    host.receiver(host.serve())
    keys = host.agent_keys

    def setup(path):
        host.agent_keys = '%s\njournal = %s' % (keys, path)
        return host.setup()
    wanted = iter([paths[2], paths[1]])
    done = []

    def until(agent):
        if agent.stats.total('accepted') == len(done):
            if len(done) == 2:
                return True
            if done:
                agent._wakeup.signals.append(signal.SIGHUP)
                agent._wakeup.signals.append(signal.SIGHUP)
            done.append(1)
            host.put('.draft')
            os.rename(os.path.join(host.spool, '.draft'), os.path.join(host.spool, 'f%d' % len(done)))
        return False
    setup(paths[0])
    host.run(until, reload=lambda: setup(next(wanted)))
    assert os.path.getsize(paths[0]) + os.path.getsize(paths[1]) > 0 and len(done) == 2
