"""Fuzz: what receivers, proxies and cURL say: the reader of answers, the native transport, verdicts, cURL's reports."""

import contextlib
import io
import os
import re
import socket
import threading

from hypothesis import assume
from hypothesis import strategies as st

from agent import classify, compat, curl, curl_program, delivery, request, rules
from agent.answers import MOST_BODY, MOST_HEAD, PIECE, AnswerReader
from agent.curl import CurlTransport
from agent.errors import TransportError
from agent.native import Connection
from agent.places import Place, place_of
from agent.proxies import Proxy
from agent.records import NACK, RETRY, Parcel, Reply
from agent.resources import Resources
from agent.streams import PlainStream
from tests.answers import ANSWERS, NO_ANSWERS
from tests.fuzz_common import fuzz, mutated, phrases, pieces
from tests.samples import receiver, ticket

BITS = [b'HTTP/1.1 ', b'HTTP/1.0 ', b'200', b'100', b'101', b'204', b'422', b'503', b' OK', b'\r\n', b'\n', b'\r',
        b'\r\n\r\n', b'Content-Length: ', b'Transfer-Encoding: ', b'Connection: ', b'close', b'keep-alive',
        b'chunked', b'gzip', b'0', b'2', b'5', b'65537', b'a', b' ', b'\t', b':', b',', b';x=y', b'\0', b'-1',
        b'\r\n0\r\n\r\n', b'body', b' ' * 50, b'\r\n ', b'\n\t']
samples = st.sampled_from([row[0] for row in ANSWERS] + [raw for raw, _ in NO_ANSWERS if len(raw) < 400])
anything = st.one_of(st.binary(max_size=200), pieces(*BITS), mutated(samples),
                     st.lists(samples, max_size=3).map(b''.join),
                     pieces(*BITS).map(lambda raw: b'HTTP/1.1 200 OK\r\n' + raw))
cuts = st.lists(st.integers(0, 300), max_size=12)


class Wire(object):
    """A socket that gives bytes in pieces, then its end; given: how many bytes it gave."""

    def __init__(self, parts):
        self._parts = [part for part in parts if part]
        self.given = 0

    def recv(self, most):
        if not self._parts:
            return b''
        piece, self._parts[0] = self._parts[0][:most], self._parts[0][most:]
        if not self._parts[0]:
            del self._parts[0]
        self.given += len(piece)
        return piece


def split(raw, places):
    places = sorted(set([place for place in places if place < len(raw)]))
    return [raw[low:high] for low, high in zip([0] + places, places + [len(raw)])]


def read_all(wire, most=4):
    """Return what a connection's answers are, one after the other as long as it may be used."""
    reader, found = AnswerReader(wire), []
    while len(found) < most:
        reader.begin()
        try:
            reply = reader.read()
        except TransportError as error:
            assert error.stage in ('receive', 'protocol') and error.sent_whole and str(error)
            found.append((error.stage, str(error)))
            return found
        check_reply(reply)
        found.append((reply, reader.reusable))
        if not reader.reusable:
            return found
        assert not reader.buffered()
    return found


def check_reply(reply):
    assert 200 <= reply.status <= 599 and len(reply.body) <= MOST_BODY
    compat.wire(reply.reason)
    for name, value in reply.headers:
        assert re.match("[!#$%&'*+.^_`|~0-9a-z-]+$", name) and not re.search('[\n\0]', value), (name, value)
        assert value == value.strip(' \t')


@fuzz(anything, cuts)
def test_an_answer_is_the_same_however_it_is_split(raw, places):
    whole = read_all(Wire([raw]), 1)[0]
    for parts in (split(raw, places), [raw[at:at + 1] for at in range(len(raw))]):
        apart = read_all(Wire(parts), 1)[0]
        assert apart[0] == whole[0]
        # What comes behind the answer is seen only when it has come.
        assert apart[1] == whole[1] or apart[1] is True


@fuzz(st.lists(mutated(samples, 1), min_size=1, max_size=3), cuts)
def test_answers_on_a_kept_connection_are_read_as_each_alone(raws, places):
    """Each comes when the one before was read: what is remembered of heads changes nothing."""
    raws = raws + raws
    for raw in raws:
        alone = read_all(Wire([raw]), 1)[0]
        assume(alone[1] is True)
    reader = AnswerReader(Wire([part for raw in raws for part in split(raw, places)]))
    for raw in raws:
        reader.begin()
        reply = reader.read()
        assert (reply, reader.reusable) == read_all(Wire([raw]), 1)[0]


class Endless(Wire):
    """A socket that says `first`, then the same for ever."""

    def __init__(self, first, again):
        Wire.__init__(self, [first])
        self._again = again * (PIECE // len(again) + 1)

    def recv(self, most):
        return Wire.recv(self, most) or Wire.recv(self, self._refill(most))

    def _refill(self, most):
        self._parts = [self._again]
        return most


@fuzz(anything, st.one_of(st.sampled_from(BITS), st.binary(min_size=1, max_size=30)))
def test_of_a_receiver_that_never_ends_a_bounded_part_is_read(raw, again):
    wire = Endless(raw, again)
    read_all(wire)
    assert wire.given <= 4 * (MOST_HEAD * 2 + MOST_BODY + 2 * PIECE) + len(raw)


# --- beside http.client

tokens = st.from_regex(r'\AX-[A-Za-z0-9-]{1,12}\Z')
values = st.from_regex(r'\A(?:[!-~](?:[ !-~]{0,30}[!-~])?)?\Z')


@fuzz(st.sampled_from((200, 201, 204, 304, 400, 404, 422, 500, 599)),
      st.from_regex(r'\A(?:[A-Za-z][ -~]{0,20}[a-z])?\Z'),
      st.lists(st.tuples(tokens, values), max_size=6), st.binary(max_size=400),
      st.sampled_from(('length', 'chunked', 'close')), st.integers(0, 2), cuts)
def test_what_is_well_formed_is_read_as_the_library_reads_it(status, reason, headers, body, framing, interim, places):
    bare = status in (204, 304)
    body = b'' if bare else body
    head = [('HTTP/1.1 %d %s' % (status, reason)).encode()] + [('%s: %s' % pair).encode() for pair in headers]
    if framing == 'length' and not bare:
        head.append(b'Content-Length: %d' % len(body))
    elif framing == 'chunked' and not bare:
        head.append(b'Transfer-Encoding: chunked')
        chunks = [b'%x;a=b\r\n%s\r\n' % (len(part), part) for part in split(body, places) if part]
        body = b''.join(chunks) + b'0\r\nT: x\r\n\r\n'
    raw = b'HTTP/1.1 100 Continue\r\n\r\n' * interim + b'\r\n'.join(head) + b'\r\n\r\n' + body
    theirs = compat.http_client().HTTPResponse(Library(raw))
    theirs.begin()
    reply, reusable = read_all(Wire(split(raw, places)), 1)[0]
    assert (reply.status, reply.reason, reply.body) == (theirs.status, theirs.reason, theirs.read())
    assert [pair for pair in reply.headers if pair[0].startswith('x-')] == [
        (name.lower(), value) for name, value in theirs.getheaders() if name.startswith('X-')]
    assert reusable == (bare or framing != 'close')


class Library(object):
    """What http.client takes for a socket."""

    def __init__(self, raw):
        self._raw = raw

    def makefile(self, *_):
        return io.BytesIO(self._raw)


# --- through a socket

class Memory(object):
    """A body of a request."""

    def __init__(self, raw):
        self._stream, self.size = io.BytesIO(raw), len(raw)

    def read(self, most):
        return self._stream.read(most)


@fuzz(anything, cuts, st.sampled_from((0, 10, 70000)), st.booleans(), st.booleans())
def test_an_exchange_over_a_socket_ends_with_a_reply_or_a_transport_error(raw, places, size, expect, early):
    """Also when all is said before anything was read, and the connection closed."""
    one = receiver(read_timeout=10.0)
    ours, theirs = compat.socket_pair()
    with contextlib.closing(ours):
        connection = Connection(Place('http', 'h', 80, None, '/', 'h'), one, None)
        connection.sock, connection.stream = ours, PlainStream(ours, 10.0)
        connection.reader = AnswerReader(connection.stream)
        thread = threading.Thread(target=answer, args=(theirs, split(raw, places), early))
        thread.start()
        try:
            parcel = Parcel(ticket(one), Memory(b'x' * size), 'k', expect)
            reply = connection.exchange(b'POST / HTTP/1.1\r\n\r\n', parcel, None)
        except TransportError as error:
            assert error.stage in ('send', 'receive', 'protocol')
        else:
            check_reply(reply)
            whole = read_all(Wire([raw]), 1)[0]
            assert whole[0].status == reply.status or expect or early
        finally:
            ours.close()
            thread.join()


def answer(sock, parts, early):
    """Play a receiver: say all, having read nothing or something, and hang up."""
    try:
        if not early:
            sock.recv(65536)
        for part in parts:
            sock.sendall(part)
        if not early:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
    except EnvironmentError:
        pass
    finally:
        sock.close()


# --- what an answer means

header_values = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=30), st.integers(0, 10 ** 30).map(str), st.just('9' * 5000),
    st.text('0123456789 :,-+GMTnovMONJan', max_size=30), st.sampled_from((
        'Tue, 24 Nov 2026 10:00:00 GMT', 'Tue, 24 Nov 99999 10:00:00 GMT', '\xb2', '\xb9\xb2', '1e9', '-1', '',
        '//[', 'http://[', '/other', '../x', '//h/', '?x')))


@fuzz(st.sampled_from((200, 307, 308, 400, 408, 413, 425, 429, 500, 503, 599)), st.lists(st.tuples(st.sampled_from((
    'retry-after', 'date', 'location', 'x')), header_values), max_size=4),
      st.text(st.characters(max_codepoint=255), max_size=20), st.integers(0, 1 << 33))
def test_any_answer_has_a_meaning(status, headers, reason, wall):
    reply = Reply(status, reason, tuple(headers), b'')
    outcome = classify.of_reply(reply, receiver(follow_redirects=True, retry=('404',)), wall)
    assert outcome.retry_after is None or 0 <= outcome.retry_after <= classify.LONGEST_RETRY_AFTER
    assert (outcome.verdict == NACK) == (status in (400,) or status == 413 and outcome.retry_after is None)
    assert outcome.verdict != RETRY or status >= 400


@fuzz(st.one_of(header_values, st.text('/.:[]@?#%ah1', max_size=16),
                st.text(st.characters(max_codepoint=255), max_size=12).map(lambda t: 'http://h.example/' + t)),
      st.sampled_from(('http://h.example/in/a', 'http://h.example', 'https://[::1]:8/x?y')))
def test_a_redirect_stays_on_its_origin(place, url):
    target = delivery._redirect(url, Reply(307, '', (('location', place),), b''))
    if target is not None:
        here, there = [place_of(each, receiver(proxy='none'), Resources({})) for each in (url, target)]
        assert there[:4] == here[:4] and there.target.startswith('/')
        assert request.usable_target(target)


# --- cURL

@fuzz(st.one_of(st.binary(max_size=200), pieces(
    b'@', b'@12 0.5 ', b'0 ', b'\n', b'22 ', b'1.2.3', b',', b'curl: (6) ', b'9' * 30, b'\xd9\xa1', b'words')),
      st.integers(1, 4), st.integers(0, 99))
def test_whatever_curl_says_becomes_one_report_a_file_at_the_most(raw, count, code):
    transport = CurlTransport(None, curl_program.Program('/curl', (8, 0, 0), '', True, True))
    transport._receiver, transport._process = receiver(), Ended(code)
    transport._explained = lambda error, place: error
    reading, writing = compat.pipe()
    try:
        os.write(writing, raw)
        os.close(writing)
        reports = list(transport._reports(reading, count))
    finally:
        os.close(reading)
    assert 1 <= len(reports) <= count
    assert not [report for report in reports[:-1] if report.code], 'nothing comes after a failure'
    place = Place('http', 'h', 80, None, '/', 'h')
    for report in reports:
        assert report.sent >= 0 and report.connected >= 0 and '\n' not in report.message
        assert transport._failure(report, place, 'why').stage in TransportError.STAGES


class Ended(object):
    """A process that is over."""

    def __init__(self, code):
        self._code = code

    def wait(self):
        return self._code


@fuzz(anything, st.binary(max_size=99), st.sampled_from(('http', 'https')), st.booleans())
def test_the_files_that_curl_leaves_are_an_answer_or_none(head, body, scheme, proxied):
    transport = CurlTransport(None, curl_program.Program('/curl', (8, 0, 0), '', True, True))
    contents = {'h': head, 'b': body}
    transport._paths = lambda number: ('h', 'b', 'l')
    before, curl._content = curl._content, lambda path, most: contents[path][:most]
    try:
        proxy = Proxy('p', 1, '') if proxied else None
        reply = transport._answer(0, Place(scheme, 'h', 80, proxy, '/', 'h'))
    except TransportError as error:
        assert error.stage in ('receive', 'protocol', 'proxy')
        return
    finally:
        curl._content = before
    check_reply(reply)
    assert reply.body == body


@fuzz(phrases('curl ', '7.', '88', '.1', '\n', 'Protocols: ', 'https', ' ', 'NSS/3', '--tlsv1.2', '9' * 5000))
def test_any_version_text_is_a_program_or_refused(said):
    before, curl_program._ask = curl_program._ask, lambda path, option: said
    try:
        program = curl_program._probe('/usr/bin/curl')
    except rules.Refused as refused:
        assert str(refused)
        return
    finally:
        curl_program._ask = before
    assert len(program.version) == 3 and curl_program.lack(program) == '' or not (program.https and program.tls12)
