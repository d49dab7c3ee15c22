"""The whole agent over https, by cURL, and with secrets: what a user sees, and what he must not see."""

import os
import signal

import pytest

from agent import receiver, receiver_tls, tls
from tests import test_end_to_end
from tests.senders import no_curl
from tests.servers import ScriptedServer, ok
from tests.test_end_to_end import contents, some, until

host = test_end_to_end.host
pytestmark = pytest.mark.skipif(tls.ssl is None, reason='this Python has no ssl module')


@pytest.fixture(params=['native', 'curl', 'auto'])
def transport(request):
    if request.param == 'curl' and no_curl():
        pytest.skip(no_curl())
    if request.param == 'auto' and tls.lack() and no_curl():
        pytest.skip(no_curl())
    return request.param


class Store(object):
    """A receiver of our own that speaks https and keeps what it gets."""

    def __init__(self, folder, authority, answers='201'):
        pair = authority.certificate('good')
        self.folder = str(folder)
        self._identity = receiver_tls.Identity(pair.cert, pair.key)
        self.server = receiver.serve(folder=self.folder, answers=answers, identity=self._identity)
        self.url = 'https://localhost:%d' % self.server.port

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop()
        self._identity.close()


def private(folder, name, content):
    path = folder.join(name)
    path.write(content)
    path.chmod(0o600)
    return str(path)


def test_files_arrive_byte_for_byte_over_https(host, tmpdir, authority, transport):
    with Store(tmpdir.join('stored'), authority) as store:
        host.configure((store.url + '/in', 'transport = %s\nca_file = %s' % (transport, authority.ca)))
        files = host.put(some(120))
        code, out, said = host.once()
        assert (code, out) == (0, '')
        assert contents(store.folder) == files == host.sent()
        counts = store.server.counts()
        assert counts.requests == len(files) and counts.connections < len(files) // 2, counts


def test_large_files_and_bodies_that_are_made_go_over_https(host, tmpdir, authority, transport):
    with Store(tmpdir.join('stored'), authority) as store:
        keys = 'transport = %s\nca_file = %s\n' % (transport, authority.ca)
        host.configure((store.url + '/raw', keys, 'raw', 'raw-*'),
                       (store.url + '/zip', keys + 'gzip = yes\ndigest = yes', 'zip', 'zip-*'))
        files = host.put({'raw-a': os.urandom(3000000), 'zip-b': b'0123456789' * 200000})
        assert host.once()[0] == 0
        stored = contents(store.folder)
    assert stored['raw-a'] == files['raw-a']
    import zlib
    assert zlib.decompress(stored['zip-b'], 31) == files['zip-b'] and len(stored['zip-b']) < 100000


def test_rejected_files_have_their_reason_whatever_brought_the_answer(host, tmpdir, authority, transport):
    with Store(tmpdir.join('stored'), authority, 'f0003=422:problem=field total is missing,*=200') as store:
        host.configure((store.url + '/in', 'transport = %s\nca_file = %s' % (transport, authority.ca)))
        files = host.put(some(40))
        assert host.once()[0] == 65
    assert sorted(host.rejected()) == ['f0003', 'f0003.reason']
    assert b'field total is missing' in host.rejected()['f0003.reason']
    assert len(host.sent()) == len(files) - 1 and not host.waiting()


def test_a_certificate_that_is_not_valid_holds_the_receiver_and_is_said_once(host, nginx_tls, authority, transport):
    url = 'https://localhost:%d/in' % nginx_tls.port('expired')
    host.configure((url, 'transport = %s\nca_file = %s\nhold_probe = 100ms' % (transport, authority.ca)))
    host.put(some(3))
    agent = host.start('run')
    agent.hears('HOLD: certificate not valid: ')
    before = agent.state()
    until(lambda: tries(agent.state()) >= tries(before) + 3, lambda: 'it tries again: ' + agent.said())
    agent.signal(signal.SIGTERM)
    code, _, said = agent.end()
    lines = [line for line in said.splitlines() if 'state:' not in line]
    assert code == 0 and len([line for line in lines if 'certificate not valid' in line]) == 1, said
    assert 'expired' in said and len(host.waiting()) == 3


def tries(state):
    found = [line for line in state.splitlines() if ' held; last' in line]
    return int(found[-1].split(' tries failed, ')[1].split()[0]) if found else 0


def test_verification_that_is_off_is_said_at_each_start(host, nginx_tls, transport):
    host.configure(('https://localhost:%d/in' % nginx_tls.port('expired'),
                    'transport = %s\ntls_verify = no' % transport))
    host.put(some(2))
    code, _, said = host.once()
    assert code == 0 and len(host.sent()) == 2
    lines = said.splitlines()
    assert len([line for line in lines if 'tls_verify = no' in line]) == 1
    assert len(lines) == (2 if transport == 'native' and tls.lack() else 1), 'a Python without SNI is said as well'


def test_a_receiver_that_knows_no_expect_gets_the_file_without_it(host, tmpdir, transport):
    refusal = ok(b'', '417 Expectation Failed', ['Connection: close'])
    content = os.urandom(3000000)
    with ScriptedServer([('read_head',), ('send', refusal), ('read_to_end',)],
                        [('read_request',), ('send', ok())]) as server:
        host.configure((server.url + '/in', 'transport = %s' % transport))
        host.put({'large': content})
        assert host.once()[0] == 0
        first, second = server.wait(2)
    assert ('Expect', '100-continue') in first.requests[0].headers and first.raw == b''
    assert 'Expect' not in dict(second.requests[0].headers) and second.requests[0].body == content


def test_no_secret_is_in_the_log_the_reason_or_the_messages(host, tmpdir, transport):
    marks = ['token-MARK', 'header-MARK', 'proxy-MARK']
    keys = 'transport = %s\ntoken_file = %s\nsecret_headers_file = %s\n' % (
        transport, private(tmpdir, 'token', marks[0] + '\n'), private(tmpdir, 'headers', 'X-Key: %s\n' % marks[1]))
    log = tmpdir.join('log')
    answers = [ok(b'bad', '422 No'), ok(b'', '500 No'), ok(b'', '407 No')]
    script = []
    for answer in answers:
        script.extend([('read_request',), ('send', answer)])
    with ScriptedServer(script, [('close',)]) as server:
        proxied = 'proxy = http://me:%s@127.0.0.1:%d\n' % (marks[2], server.port)
        host.configure((server.url + '/in', keys + proxied), agent='log_file = %s\nlog_level = debug' % log)
        host.put(some(5))
        code, out, said = host.once('-v')
        sent = server.requests()
    assert code == 65, said
    headers = dict(sent[0].headers)
    assert headers['Authorization'] == 'Bearer ' + marks[0] and headers['X-Key'] == marks[1]
    pages = [out, said, log.read(), str(host.rejected())]
    assert pages[2] and 'MARK' not in ''.join(pages)
    coded = headers['Proxy-Authorization'].split()[1]
    assert coded not in ''.join(pages)


@pytest.mark.parametrize('mode, words', [(0o644, 'chmod 600'), (0o600, None)])
def test_a_token_that_others_can_read_is_refused_at_the_start(host, tmpdir, mode, words):
    token = private(tmpdir, 'token', 'secret\n')
    os.chmod(token, mode)
    with ScriptedServer([('read_request',), ('send', ok())]) as server:
        host.configure((server.url, 'token_file = ' + token))
        host.put({'a': b'1'})
        code, _, said = host.once()
    assert code == (78 if words else 0) and (words or '') in said and 'secret' not in said


def test_a_curl_that_outlives_its_agent_does_not_keep_the_spool(host):
    if no_curl():
        pytest.skip(no_curl())
    with ScriptedServer([('read_request',), ('hang',)], [('read_request',), ('send', ok())]) as server:
        host.configure((server.url, 'transport = curl'))
        host.put({'a': b'1'})
        first = host.start('run')
        until(lambda: server.requests() and server.requests()[0].body, lambda: 'cURL has sent it: ' + first.said())
        first.kill()
        assert host.once()[0] == 0
        assert list(host.sent()) == ['a']
    assert [name for name in os.listdir(os.path.join(host.spool, '.envio')) if name.startswith('curl.')] == []


def test_two_signals_end_an_agent_whose_curl_hangs(host):
    if no_curl():
        pytest.skip(no_curl())
    with ScriptedServer([('read_request',), ('read_to_end',)]) as server:
        host.configure((server.url, 'transport = curl'))
        host.put({'a': b'1'})
        agent = host.start('run')
        until(lambda: server.requests() and server.requests()[0].body, lambda: 'cURL has sent it: ' + agent.said())
        for number in (signal.SIGTERM, signal.SIGINT):  # two of a kind may come as one
            agent.signal(number)
        assert agent.end()[0] == 0
        assert list(host.waiting()) == ['a']
        server.wait(1)  # cURL was ended, too


def test_where_https_can_t_be_had_as_it_has_to_be_the_configuration_is_refused(host, tmpdir):
    old = tmpdir.join('curl')
    old.write('#!/bin/sh\necho "curl 7.19.7 (x) libcurl/7.19.7 OpenSSL/1.0.1"\necho "Protocols: http https"\n')
    old.chmod(0o755)
    host.configure(('https://localhost:9/in', ''))
    code, out, said = host.start('check', **{'ENVIO_CURL': str(old)}).end()
    if tls.lack():
        assert code == 78 and tls.lack() in said and 'can\'t insist on TLS 1.2' in said
    else:
        assert code == 0 and 'https: by this Python' in out
