"""`envio send`: these files, now, and they stay where they are."""

import os
import signal
import threading

import pytest

from agent.spool import Spool
from tests.servers import ScriptedServer, ok, refusing_port
from tests.test_cli import Host, host  # noqa: F401 (a fixture)

assert Host  # the fixture's


@pytest.fixture
def files(host, tmpdir):  # noqa: F811
    """Files outside of the spool: {name: path}."""
    folder = tmpdir.mkdir('elsewhere')
    paths = {}
    for name in ('a.json', 'b.json', 'c.json', 'd.txt'):
        folder.join(name).write(name)
        paths[name] = str(folder.join(name))
    return paths


def send(host, *words):  # noqa: F811
    return host.call('-c', host.config, 'send', *words)


@pytest.fixture
def server(host):  # noqa: F811
    """A receiver that accepts everything and remembers its requests."""
    with ScriptedServer([('read_request',), ('send', ok())] * 9) as server:
        host.configure(server.url)
        yield server


def received(server):
    """Return [(name, body)] of what came, by name."""
    return sorted([(dict(request.headers)['X-File-Name'], request.body) for request in server.requests()])


def said(text):
    return sorted(text.splitlines())


def test_files_are_sent_and_stay_and_nothing_is_left_behind(host, files, server):  # noqa: F811
    code, out, err = send(host, files['a.json'], files['b.json'], files['c.json'])
    assert (code, said(out), err) == (0, ['%s.json: accepted by orders: 200 OK' % name for name in 'abc'], '')
    assert received(server) == [(name, name.encode()) for name in ('a.json', 'b.json', 'c.json')]
    assert [os.path.exists(path) for path in files.values()] == [True] * 4
    assert os.listdir(host.spool) == []


def test_what_is_said_of_it_is_as_of_a_pass(host, files):  # noqa: F811
    host.serve('a.json=200,b.json=422,c.json=503,*=200', receiver='nack = 499')
    assert send(host, files['a.json'], files['b.json'])[::2] == (
        65, 'envio: b.json: rejected by orders: 422 Unprocessable Content\n')
    assert send(host, files['a.json'], files['c.json'])[::2] == (
        75, 'envio: c.json: not taken by orders: 503 Service Unavailable\n')
    assert send(host, files['b.json'], files['c.json'])[0] == 65
    assert host.call('-q', '-c', host.config, 'send', files['a.json']) == (0, '', '')


def test_a_receiver_can_be_named(host, files, server):  # noqa: F811
    assert send(host, files['d.txt'])[0] == 2
    assert send(host, files['d.txt'], '--to', 'orders') == (0, 'd.txt: accepted by orders: 200 OK\n', '')
    assert received(server) == [('d.txt', b'd.txt')]


@pytest.mark.parametrize('words, sentence', [
    ((), 'which FILE? see envio --help'),
    (('%(a)s', '%(none)s'), '%(none)s: No such file or directory: nothing was sent'),
    (('%(a)s', '%(folder)s'), '%(folder)s: is no regular file: nothing was sent'),
    (('%(a)s', '--to', 'nobody'),
     '%(a)s: no receiver: there is no [receiver:nobody]: name one by --to: nothing was sent'),
    (('%(a)s', '%(d)s'), '%(d)s: no receiver: no [receiver:...] section matches: name one by --to: nothing was sent'),
])
def test_what_can_not_be_sent_is_said_before_anything_is(host, files, server, words, sentence):  # noqa: F811
    places = {'a': files['a.json'], 'd': files['d.txt'], 'none': files['a.json'] + '.none', 'folder': host.folder}
    assert send(host, *[word % places for word in words]) == (2, '', 'envio: send: %s\n' % (sentence % places))
    assert server.requests() == []


def test_a_file_of_the_spool_has_the_key_that_the_agent_gives_it(host, server):  # noqa: F811
    spool = Spool(host.spool)
    spool.lock()
    spool.unlock()
    host.put('a.json')
    assert send(host, host.spool + '/a.json')[0] == 0
    assert host.waiting() == ['a.json']
    assert host.call('-c', host.config, 'once')[0] == 0
    first, second = [dict(request.headers)['Idempotency-Key'] for request in server.requests()]
    assert first == second


def test_a_link_is_followed_and_a_relative_path_is_from_here(host, files, server, monkeypatch):  # noqa: F811
    os.symlink(files['a.json'], os.path.dirname(files['a.json']) + '/link.json')
    monkeypatch.chdir(os.path.dirname(files['a.json']))
    assert send(host, 'link.json', './b.json')[0] == 0
    assert received(server) == [('b.json', b'b.json'), ('link.json', b'a.json')]


def test_more_than_a_receiver_takes_are_said_to_be_untried(host, files):  # noqa: F811
    with refusing_port() as port:
        host.configure('http://127.0.0.1:%d/' % port, receiver='breaker_threshold = 1\nworkers = 1')
        code, out, err = send(host, files['a.json'], files['b.json'], files['c.json'])
    assert (code, out) == (75, '')
    assert len([line for line in err.splitlines() if 'not taken by orders' in line]) == 1
    assert len([line for line in err.splitlines() if ': not tried: its receiver did not' in line]) == 2


def test_a_file_that_changes_while_it_is_sent_was_not_sent(host, files):  # noqa: F811
    def change():
        with open(files['a.json'], 'a') as stream:
            stream.write('more')
    with ScriptedServer([('read_request',), ('call', change), ('send', ok())]) as server:
        host.configure(server.url)
        code, out, err = send(host, files['a.json'])
    assert (code, out) == (75, '') and 'but the file changed while it was sent' in err


def test_it_can_be_stopped(host, files):  # noqa: F811
    with ScriptedServer([('read_request',), ('hang',)]) as server:
        host.configure(server.url)
        process = host._popen(['sh', '-c', 'exec "$0" -c "$1" send "$2"', os.path.join(
            os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'bin', 'envio'), host.config,
            files['a.json']], {})
        hung = threading.Event()
        while not server.requests() and process.poll() is None:
            hung.wait(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert process.returncode == 75 and b'a.json: not tried: stopped' in err
