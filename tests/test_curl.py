"""What is cURL's alone: several files through one process, the options of old versions, what it leaves behind."""

import os

import pytest

from agent import bodies, compat, curl_program
from agent.curl import MOST_FILES, CurlTransport
from agent.errors import TransportError
from agent.records import Reply
from agent.resources import Resources
from tests.samples import receiver
from tests.senders import Sender, make, no_curl
from tests.servers import ScriptedServer, ok

pytestmark = pytest.mark.skipif(bool(no_curl()), reason='there is no cURL on this machine')


def program():
    return curl_program.find(os.environ)


@pytest.fixture
def sender(tmpdir):
    sender = Sender(tmpdir, make('curl', folder=str(tmpdir.mkdir('answers'))))
    yield sender
    sender.close()


@pytest.fixture
def several(sender):
    if sender.transport.most(None) == 1:
        pytest.skip('this cURL does not tell how each of several files ended')
    return sender


def parcels(sender, server, count, **settings):
    return [sender.parcel(server.url + '/in', ('content %d' % number).encode('ascii'),
                          'f%d.json' % number, **settings) for number in range(count)]


def sent(sender, several):
    """Send files through one run, and return what became of them, in their order."""
    results = list(sender.transport.send_all(several))
    assert [number for number, _ in results] == list(range(len(results)))
    return [result for _, result in results]


def answering(*answers):
    """Return a script that reads a request and answers, for each of `answers`."""
    script = []
    for answer in answers:
        script.extend([('read_request',), ('send', answer)])
    return script


# --- several files

def test_several_files_go_through_one_process_and_connection_each_with_its_own_headers(several):
    with ScriptedServer(answering(*[ok() for _ in range(5)])) as server:
        results = sent(several, parcels(several, server, 5))
        talks = server.wait(1)
    assert [reply.status for reply in results] == [200] * 5
    assert len(talks) == 1, 'one connection, so one process'
    for number, request in enumerate(talks[0].requests):
        assert ('X-File-Name', 'f%d.json' % number) in request.headers
        assert request.body.endswith(str(number).encode('ascii'))


@pytest.mark.parametrize('failure', [ok(b'why', '422 Unprocessable'), ok(b'', '503 Busy')])
def test_the_first_file_that_is_not_accepted_ends_the_run_and_keeps_its_answer(several, failure):
    with ScriptedServer(answering(ok(), failure, ok(), ok())) as server:
        results = sent(several, parcels(several, server, 4))
        assert len(server.requests()) == 2, 'the rest was not begun'
    assert [reply.status for reply in results] == [200, 422 if b'422' in failure else 503]
    assert results[1].body == failure.partition(b'\r\n\r\n')[2]


def test_a_connection_that_dies_ends_the_run_with_an_error_for_that_file_alone(several):
    dies = answering(ok()) + [('read_request',), ('send', b'HTTP/1.1 200 OK\r\nContent'), ('reset',)]
    with ScriptedServer(dies) as server:
        results = sent(several, parcels(several, server, 4))
    assert len(results) == 2
    assert results[0].status == 200 and isinstance(results[1], TransportError)


def test_an_accepted_file_whose_answer_is_cut_in_its_body_is_accepted_and_ends_the_run(several):
    cut = b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut'
    with ScriptedServer(answering(ok(), cut)) as server:
        results = sent(several, parcels(several, server, 4))
    assert [isinstance(result, Reply) and result.status for result in results] == [200, 200]


def test_killing_it_in_the_middle_fails_the_file_that_was_under_way(several):
    script = answering(ok()) + [('read_request',), ('call', several.transport.abort), ('hang',)]
    with ScriptedServer(script) as server:
        results = sent(several, parcels(several, server, 4))
    assert len(results) == 2 and results[0].status == 200
    assert str(results[1]) == 'stopped before it was done'


def test_the_most_files_that_go_together_do(several):
    with ScriptedServer(answering(*[ok()] * MOST_FILES)) as server:
        results = sent(several, parcels(several, server, MOST_FILES))
    assert [reply.status for reply in results] == [200] * MOST_FILES


def test_what_is_no_report_of_curl_is_taken_for_words():
    class Ended(object):
        @staticmethod
        def wait():
            return 7
    digits = b'9' * 5000
    for line in (b'@1 1.2.3 0 x', b'@1 , 0 x', b'@' + digits + b' 0.5 0 x', b'@1 0.5 ' + digits, b'@\xd9\xa1 0.5 0'):
        transport = CurlTransport(None, program())
        transport._receiver, transport._process = receiver(), Ended
        reading, writing = compat.pipe()
        os.write(writing, line + b'\ncurl: (7) why\n')
        os.close(writing)
        try:
            assert [report.code for report in transport._reports(reading, 2)] == [7]
        finally:
            os.close(reading)


# --- old versions

@pytest.fixture(params=[(7, 19, 7), (7, 29, 0), (7, 40, 0), (7, 60, 0)])
def old(request, tmpdir):
    """The present cURL, told what an old one would be told."""
    if request.param > program().version:
        pytest.skip('this cURL is older')
    resources = Resources({}, str(tmpdir.mkdir('answers')))
    sender = Sender(tmpdir, CurlTransport(resources, program()._replace(version=request.param, tls12=False)))
    yield sender
    sender.close()


@pytest.mark.parametrize('path', ['/in', '/in/', '', '/in/?a=b/'])
def test_old_versions_are_told_so_that_they_send_the_same(old, path):
    with ScriptedServer(answering(ok())) as server:
        assert old.send(server.port, b'{}', path=path).status == 200
        sent, = server.requests()
    assert sent.line == 'POST %s HTTP/1.1' % (path or '/') and sent.body == b'{}'
    assert 'Expect' not in dict(sent.headers) and 'Accept' not in dict(sent.headers)
    assert old.transport.most(None) == 1


def test_old_versions_say_why_there_was_no_answer(old):
    with ScriptedServer([('read_request',), ('close',)]) as server:
        with pytest.raises(TransportError) as caught:
            old.send(server.port)
    assert caught.value.stage == 'receive' and 'cURL: 5' in str(caught.value)


# --- what is left behind, and what can't be had

def test_answers_and_copies_are_gone_with_the_transport(sender, tmpdir):
    with ScriptedServer(answering(ok())) as server:
        sender.send(server.port, gzip=True)
    assert tmpdir.join('answers').listdir() != []
    sender.transport.close()
    assert tmpdir.join('answers').listdir() == []


def test_an_answer_is_never_taken_for_that_of_another_file(sender):
    with ScriptedServer(answering(ok()), [('read_request',), ('close',)]) as server:
        assert sender.send(server.port).status == 200
        server.conversations[0].cut()
        with pytest.raises(TransportError):
            sender.send(server.port)


def test_no_room_for_answers_is_this_hosts_fault(sender, tmpdir):
    sender.transport = CurlTransport(Resources({}, str(tmpdir.join('no', 'such'))), program())
    with ScriptedServer(answering(ok())) as server:
        with pytest.raises(TransportError) as caught:
            sender.send(server.port)
        assert caught.value.stage == 'local' and server.requests() == []


def test_a_program_that_is_gone_is_this_hosts_fault_or_no_answer(sender, tmpdir):
    gone = program()._replace(path=str(tmpdir.join('curl')))
    sender.transport = CurlTransport(Resources({}, str(tmpdir)), gone)
    with pytest.raises(TransportError) as caught:
        sender.send(9)
    assert not caught.value.hold


def test_it_gets_no_descriptor_but_the_files_and_no_environment(sender, tmpdir):
    spy = tmpdir.join('curl')
    spy.write('#!/bin/sh\nls /proc/self/fd >%s/fds\nenv >%s/env\ncat >%s/config\nexit 7\n' % ((str(tmpdir),) * 3))
    spy.chmod(0o755)
    sender.transport = CurlTransport(Resources({}, str(tmpdir)), program()._replace(path=str(spy)))
    secret = os.open('/etc/passwd', os.O_RDONLY)
    os.environ['ENVIO_TEST_SECRET'] = 'secret'
    try:
        with pytest.raises(TransportError):
            sender.send(9)
    finally:
        del os.environ['ENVIO_TEST_SECRET']
        os.close(secret)
    assert 'secret' not in tmpdir.join('env').read()
    fds = [int(word) for word in tmpdir.join('fds').read().split()]
    files = [line.split('"')[1].replace('\\\\', '\\') for line in tmpdir.join('config').readlines()
             if line.startswith('upload-file')]
    given = [int(os.path.basename(os.readlink(path) if path.endswith('\\') else path)) for path in files]
    # 0, 1, 2, the file, and what ls itself opened to look.
    assert len(given) == 1 and len([fd for fd in fds if fd > 2 and fd not in given]) <= 1, fds


def test_a_body_that_is_made_goes_through_a_file_without_a_name(sender, tmpdir):
    content = os.urandom(300000)
    with ScriptedServer(answering(ok())) as server:
        assert sender.send(server.port, content, gzip=True, digest=True).status == 200
        sent, = server.requests()
    assert sent.body == sender.parcel('http://h/', content, gzip=True, digest=True).body.read(1000000)
    assert isinstance(sender.parcel('http://h/', content, gzip=True).body, bodies.EncodedBody)
