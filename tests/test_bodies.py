"""The body of a request: byte for byte what its headers say, in pieces, the same each time it is made."""

import base64
import gzip
import hashlib
import io
import os

import pytest

from agent import bodies, compat, request
from agent.bodies import KEPT, PIECE
from agent.errors import FileChanged
from agent.spool import OpenFile
from tests.samples import receiver, ticket

KEY = '01234567-89ab-8def-8123-456789abcdef'
WAYS = [dict(body='raw'), dict(digest=True), dict(body='multipart'), dict(gzip=True),
        dict(body='multipart', gzip=True, digest=True)]
ENCODED = WAYS[1:]


class Source(object):
    """A file's place on disk, and the bodies that are made of it."""

    def __init__(self, folder):
        self.path = os.path.join(str(folder), 'source')
        self._opened = []

    def write(self, content):
        with open(self.path, 'r+b' if os.path.exists(self.path) else 'wb') as stream:
            stream.write(content)
            stream.truncate()

    def body(self, content, name='a.json', **settings):
        """Return the body of a new file."""
        self.write(content)
        return self.body_of(len(content), name, **settings)

    def body_of(self, size, name='a.json', **settings):
        """Return the body of the file that is there; size: what it is taken for."""
        self._opened.append(OpenFile(os.open(self.path, os.O_RDONLY), size))
        return bodies.make(receiver(**settings), name, self._opened[-1], KEY)

    def close(self):
        for opened in self._opened:
            opened.close()


@pytest.fixture
def source(tmpdir):
    source = Source(tmpdir)
    yield source
    source.close()


def whole(body, piece=65536):
    """Return all of a body, read so many bytes at a time; each read but the last gives them all."""
    pieces = []
    while True:
        pieces.append(body.read(piece))
        if len(pieces[-1]) < piece:
            assert body.read(piece) == b'', 'that was the end'
            return b''.join(pieces)


def unpacked(raw):
    return gzip.GzipFile(fileobj=io.BytesIO(raw)).read()


def file_in_form(raw):
    """Return the file in a form of one part."""
    return raw.partition(b'\r\n\r\n')[2][:-len('\r\n--envio-%s--\r\n' % KEY)]


def content_in(raw, body='raw', **settings):
    """Return the file that lies in a body."""
    raw = unpacked(raw) if settings.get('gzip') else raw
    return file_in_form(raw) if body == 'multipart' else raw


# --- all of them

@pytest.mark.parametrize('settings', WAYS)
@pytest.mark.parametrize('size', [0, 1, KEPT - 300, KEPT, KEPT + 1, PIECE - 1, PIECE, PIECE + 1])
def test_a_body_holds_the_file_and_is_as_long_as_it_says(source, size, settings):
    content = os.urandom(size)
    body = source.body(content, **settings)
    raw = whole(body)
    assert len(raw) == body.size
    assert content_in(raw, **settings) == content


@pytest.mark.parametrize('settings', WAYS)
@pytest.mark.parametrize('size', [10, 3 * PIECE])
def test_a_body_is_the_same_to_the_byte_each_time(source, size, settings):
    body = source.body(os.urandom(size), **settings)
    first = whole(body)
    body.rewind()
    body.read(7)
    body.rewind()
    assert whole(body) == first
    assert whole(source.body_of(size, **settings)) == first, 'nor does it depend on the time'


@pytest.mark.parametrize('settings', WAYS)
@pytest.mark.parametrize('piece', [7919, 65537, 1000003, 10000000])
def test_a_large_file_comes_in_pieces_of_any_size(source, piece, settings):
    content = os.urandom(3000017)
    assert content_in(whole(source.body(content, **settings), piece), **settings) == content


@pytest.mark.parametrize('settings', WAYS)
def test_a_small_body_can_be_read_byte_by_byte(source, settings):
    assert content_in(whole(source.body(b'abc\0\r\n', **settings), 1), **settings) == b'abc\0\r\n'


# --- as it is

def test_a_file_as_it_is_has_its_type_and_nothing_else(source):
    assert source.body(b'x', 'a.csv').fields == (('Content-Type', 'text/csv'),)
    assert source.body(b'x', 'a').fields == (('Content-Type', 'application/octet-stream'),)
    assert source.body(b'x', 'a.csv', content_type='text/x-own').fields == (('Content-Type', 'text/x-own'),)


# --- as a form

def test_a_form_has_one_part_with_field_name_file_name_and_type(source):
    body = source.body(b'one\r\ntwo', 'a b.csv', body='multipart', multipart_field='upload')
    assert whole(body) == (
        b'--envio-01234567-89ab-8def-8123-456789abcdef\r\n'
        b'Content-Disposition: form-data; name="upload"; filename="a b.csv"\r\n'
        b'Content-Type: text/csv\r\n'
        b'\r\n'
        b'one\r\ntwo\r\n'
        b'--envio-01234567-89ab-8def-8123-456789abcdef--\r\n')
    assert body.fields == (
        ('Content-Type', 'multipart/form-data; boundary=envio-01234567-89ab-8def-8123-456789abcdef'),)


@pytest.mark.parametrize('raw, shown', [
    (b'a".json', b'a%22.json'), (b'a\r\nX: y', b'a%0D%0AX: y'), (b'\n', b'%0A'), (b'"', b'%22'),
    (b'a\\b', b'a\\b'), (b'100%', b'100%'), (b';a=b', b';a=b'), (b'caf\xc3\xa9', b'caf\xc3\xa9'),
    (b'\xff\xfe', b'\xff\xfe'), (b'\xe9"\xe9', b'\xe9%22\xe9'), (b'\t\x01', b'%09%01'),
])
def test_no_file_name_breaks_out_of_its_quotes_and_other_bytes_stay(source, raw, shown):
    form = whole(source.body(b'x', compat.fs_native(raw), body='multipart'))
    lines = form.split(b'\r\n')
    assert lines[1] == b'Content-Disposition: form-data; name="file"; filename="' + shown + b'"'
    assert len(lines) == 7


def test_the_type_of_a_part_is_the_configurations(source):
    form = whole(source.body(b'x', body='multipart', content_type='text/x-own; a="b c"'))
    assert b'\r\nContent-Type: text/x-own; a="b c"\r\n\r\nx\r\n' in form


def test_a_boundary_is_made_of_the_key_and_is_one(source):
    key = request.idempotency_key('identity', ticket().file)
    source.write(b'x')
    opened = OpenFile(os.open(source.path, os.O_RDONLY), 1)
    boundary = bodies.make(receiver(body='multipart'), 'a', opened, key).fields[0][1].partition('boundary=')[2]
    opened.close()
    assert boundary == 'envio-' + key
    assert len(boundary) <= 70 and boundary.replace('-', '').isalnum(), 'RFC 2046 5.1.1'


# --- compressed

def test_a_compressed_body_says_so_and_keeps_the_type_of_the_file(source):
    body = source.body(b'x' * 1000, 'a.csv', gzip=True)
    assert body.fields == (('Content-Type', 'text/csv'), ('Content-Encoding', 'gzip'))
    assert body.size < 100


def test_an_empty_file_is_compressed_to_something(source):
    raw = whole(source.body(b'', gzip=True))
    assert len(raw) > 0 and unpacked(raw) == b''


def test_no_time_and_no_name_stand_in_a_compressed_body(source):
    raw = whole(source.body(b'content', 'secret-name.json', gzip=True))
    assert raw[:8] == b'\x1f\x8b\x08\x00\0\0\0\0', 'RFC 1952 2.3: no flags, no time'
    assert b'secret-name' not in raw


def test_a_large_file_that_compresses_well_is_whole(source):
    content = b'the same line again and again\n' * 200000
    body = source.body(content, gzip=True)
    assert body.size < len(content) // 100
    assert unpacked(whole(body, 4099)) == content


# --- with a digest

def digest_of(raw):
    return ('Content-Digest', 'sha-256=:%s:' % compat.byte_string(base64.b64encode(hashlib.sha256(raw).digest())))


@pytest.mark.parametrize('settings', [dict(body='raw'), dict(gzip=True), dict(body='multipart'),
                                      dict(body='multipart', gzip=True)])
@pytest.mark.parametrize('size', [0, 10, 700001])
def test_a_digest_is_that_of_the_bytes_that_are_sent(source, size, settings):
    body = source.body(os.urandom(size), digest=True, **settings)
    assert body.fields[-1] == digest_of(whole(body))


def test_a_digest_as_the_standard_writes_it(source):
    # RFC 9530, appendix D
    body = source.body(b'{"hello": "world"}\n', digest=True)
    assert body.fields == (('Content-Type', 'application/json'),
                           ('Content-Digest', 'sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:'))


def test_all_at_once_in_their_order(source):
    content = b'{}' * 100000
    body = source.body(content, body='multipart', gzip=True, digest=True)
    raw = whole(body)
    assert body.fields == (('Content-Type', 'multipart/form-data; boundary=envio-' + KEY),
                           ('Content-Encoding', 'gzip'), digest_of(raw))
    assert file_in_form(unpacked(raw)) == content


# --- never whole in memory

class Endless(object):
    """A file as spool.OpenFile that lies nowhere; no compressor finds a pattern in it, as they look back 32 KiB."""
    block = os.urandom(PIECE)

    def __init__(self, size):
        self.size = size
        self.taken = 0   # bytes since its beginning
        self.largest = 0
        self.rewinds = 0

    def read(self, most):
        assert most <= PIECE
        piece = self.block[:min(most, self.size - self.taken)]
        self.taken += len(piece)
        return piece

    def rewind(self):
        self.taken, self.rewinds = 0, self.rewinds + 1


@pytest.mark.parametrize('settings', ENCODED)
def test_of_a_file_no_more_is_read_than_is_sent(settings):
    opened = Endless(20 * PIECE)
    body = bodies.make(receiver(**settings), 'a', opened, KEY)
    assert body.size >= opened.size
    sent, done = 0, False
    while not done:
        piece = body.read(50000)
        sent, done = sent + len(piece), len(piece) < 50000
        # a piece that is being sent, and one that is in the compressor
        assert opened.taken <= sent + 2 * PIECE
    assert (sent, opened.taken) == (body.size, opened.size)


def test_a_small_body_is_made_once():
    opened = Endless(1000)
    body = bodies.make(receiver(gzip=True), 'a', opened, KEY)
    rewinds = opened.rewinds
    body.rewind()
    whole(body)
    assert opened.rewinds == rewinds


# --- files that change

@pytest.mark.parametrize('settings', ENCODED)
@pytest.mark.parametrize('length, size', [(10, 11), (11, 10), (0, 1), (1, 0), (2 * PIECE, 2 * PIECE + 1),
                                          (2 * PIECE + 1, 2 * PIECE)])
def test_a_file_that_is_not_as_long_as_it_was_has_no_body(source, length, size, settings):
    source.write(b'x' * length)
    with pytest.raises(FileChanged) as caught:
        source.body_of(size, **settings)
    assert ('became shorter' if length < size else 'grew') in str(caught.value)
    assert not caught.value.gone


@pytest.mark.parametrize('settings', ENCODED)
@pytest.mark.parametrize('change, words', [(-1, 'became shorter'), (-300000, 'became shorter'), (1, 'grew')])
def test_a_file_that_changes_its_length_while_it_is_sent_is_not_passed_off_as_whole(source, change, words, settings):
    content = os.urandom(600000)
    body = source.body(content, **settings)
    body.read(1000)
    source.write((content + b'x')[:len(content) + change])
    with pytest.raises(FileChanged) as caught:
        whole(body)
    assert words in str(caught.value)


@pytest.mark.parametrize('settings', ENCODED)
def test_a_file_that_changes_its_length_before_it_is_sent_again_is_not_passed_off_as_whole(source, settings):
    content = os.urandom(600000)
    body = source.body(content, **settings)
    whole(body)
    source.write(content[:-1])
    body.rewind()
    with pytest.raises(FileChanged):
        whole(body)


@pytest.mark.parametrize('settings', ENCODED)
def test_a_small_body_stays_what_it_was_whatever_becomes_of_the_file(source, settings):
    body = source.body(b'0123456789', **settings)
    source.write(b'012')
    assert content_in(whole(body), **settings) == b'0123456789'
