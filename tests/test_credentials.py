"""Passwords, tokens and secret headers: how they are sent, which files are refused, and that none is ever shown."""

import base64
import os
import traceback

import pytest

from agent import compat, credentials
from agent.credentials import MOST, Credentials
from agent.errors import TransportError
from agent.resources import Resources
from agent.rules import Refused
from agent.spool import stamp_of
from tests import nobody
from tests.samples import receiver

SECRET = 'Xyzzy-Plugh'
KINDS = ['password_file', 'token_file', 'secret_headers_file']


def write(folder, content, name='secret', mode=0o600):
    """Return the path of a file that its owner alone can read, unless `mode` says else."""
    path = os.path.join(str(folder), name)
    with open(path, 'wb') as stream:
        stream.write(content if isinstance(content, bytes) else content.encode('ascii'))
    os.chmod(path, mode)
    return path


def with_file(kind, path, **settings):
    """Return a receiver that takes this kind of secret from a file."""
    if kind == 'password_file':
        settings.setdefault('username', 'me')
    return receiver(**dict(settings, **{kind: path}))


def fields(of):
    return Credentials().fields(of)


def basic(raw):
    return (('Authorization', 'Basic ' + compat.byte_string(base64.b64encode(raw))),)


def refused(of):
    """Return why the secrets of a receiver are refused; no trace of the error holds them."""
    try:
        Credentials().fields(of)
    except Refused as error:
        for said in (str(error), repr(error), traceback.format_exc()):
            assert SECRET not in said
        return str(error)
    raise AssertionError('not refused')


# --- what is sent

def test_who_has_no_secrets_sends_none_and_no_file_is_looked_at():
    assert fields(receiver()) == ()
    assert fields(receiver(username='me')) == ()


@pytest.mark.parametrize('raw, pair', [
    (b'word', b'me:word'), (b'word\n', b'me:word'), (b'word\r\n', b'me:word'), (b'a word ', b'me:a word '),
    (b' word\n', b'me: word'), (b'a:b', b'me:a:b'), (b'caf\xc3\xa9', b'me:caf\xc3\xa9'), (b'\xff', b'me:\xff'),
])
def test_a_password_goes_with_the_user_name(tmpdir, raw, pair):
    assert fields(with_file('password_file', write(tmpdir, raw))) == basic(pair)


def test_a_password_as_the_standard_writes_it(tmpdir):
    path = write(tmpdir, 'open sesame')
    assert fields(with_file('password_file', path, username='Aladdin')) == (
        ('Authorization', 'Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=='),)  # RFC 7617 2


def test_a_user_name_beyond_ascii_is_sent_as_it_stands_in_the_configuration(tmpdir):
    name = compat.config_native(b'caf\xc3\xa9\xff')
    path = write(tmpdir, 'word')
    assert fields(with_file('password_file', path, username=name)) == basic(b'caf\xc3\xa9\xff:word')


@pytest.mark.parametrize('raw', [b'mF_9.B5f-4.1JqM', b'mF_9.B5f-4.1JqM\n', b'mF_9.B5f-4.1JqM\r\n'])
def test_a_token_is_a_bearers(tmpdir, raw):
    assert fields(with_file('token_file', write(tmpdir, raw))) == (('Authorization', 'Bearer mF_9.B5f-4.1JqM'),)


def test_secret_headers_keep_their_order_between_comments_and_empty_lines(tmpdir):
    path = write(tmpdir, '# of the shop\nX-Key: a b; c="d"\r\n\n  X-Other:1\n#X-Not: 1\nAuthorization: Own x\n')
    assert fields(with_file('secret_headers_file', path)) == (
        ('X-Key', 'a b; c="d"'), ('X-Other', '1'), ('Authorization', 'Own x'))
    assert fields(with_file('secret_headers_file', write(tmpdir, '# none\n'))) == ()


def test_secret_headers_stand_beside_a_token(tmpdir):
    token, headers = write(tmpdir, 'abc', 'token'), write(tmpdir, 'X-Key: 1', 'headers')
    assert fields(receiver(token_file=token, secret_headers_file=headers)) == (
        ('Authorization', 'Bearer abc'), ('X-Key', '1'))


def test_each_receiver_has_its_own(tmpdir):
    known = Credentials()
    one, two = [receiver(name, token_file=write(tmpdir, name + '-token', name)) for name in ('one', 'two')]
    assert [known.fields(of)[0][1] for of in (one, two, one)] == [
        'Bearer one-token', 'Bearer two-token', 'Bearer one-token']
    password = write(tmpdir, 'word')
    pairs = [known.fields(receiver(username=name, password_file=password)) for name in ('me', 'you')]
    assert pairs == [basic(b'me:word'), basic(b'you:word')]


def test_a_link_to_a_file_is_followed_as_its_target_is_what_counts(tmpdir):
    write(tmpdir, 'abc', 'target')
    os.symlink('target', str(tmpdir.join('link')))
    assert fields(with_file('token_file', str(tmpdir.join('link')))) == (('Authorization', 'Bearer abc'),)
    os.chmod(str(tmpdir.join('target')), 0o644)
    assert 'chmod 600' in refused(with_file('token_file', str(tmpdir.join('link'))))


# --- what is refused

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('bit', [0o040, 0o020, 0o010, 0o004, 0o002, 0o001])
def test_a_file_that_is_open_to_others_in_any_way_is_refused(tmpdir, kind, bit):
    path = write(tmpdir, SECRET, mode=0o600 | bit)
    assert refused(with_file(kind, path)) == path + ': others may read or write it: chmod 600 it'


@pytest.mark.parametrize('mode', [0o400, 0o600, 0o700])
def test_what_its_owner_alone_can_read_is_fine(tmpdir, mode):
    assert fields(with_file('token_file', write(tmpdir, 'abc', mode=mode))) == (('Authorization', 'Bearer abc'),)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give files away')
@pytest.mark.parametrize('kind', KINDS)
def test_a_file_of_another_account_is_refused(tmpdir, kind):
    path = write(tmpdir, SECRET)
    os.chown(path, 12345, -1)
    assert refused(with_file(kind, path)) == path + ': belongs to another account (12345): chown it'


def test_a_file_that_cant_be_read_is_refused(tmpdir):
    folder = nobody.make_folder()
    path = write(folder, SECRET, mode=0)

    def look():
        assert refused(with_file('token_file', path)) == path + ': can\'t be read: Permission denied'
    try:
        nobody.give(path)
        nobody.run(look)
    finally:
        nobody.remove(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can make a file of root\'s')
def test_a_file_of_root_is_as_good_as_ones_own(tmpdir):
    path = write(tmpdir, 'abc')
    status = os.stat(path)
    nobody.run(lambda: credentials.check_private(path, status))


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_no_file_is_refused_and_waited_for_by_nobody(tmpdir, kind):
    fifo, folder, none = [str(tmpdir.join(name)) for name in ('fifo', 'folder', 'none')]
    os.mkfifo(fifo, 0o600)
    os.mkdir(folder, 0o700)
    assert refused(with_file(kind, fifo)) == fifo + ': is not a regular file'
    assert refused(with_file(kind, folder)) == folder + ': is not a regular file'
    assert refused(with_file(kind, '/dev/zero')) == '/dev/zero: is not a regular file'
    assert refused(with_file(kind, none)) == none + ': can\'t be read: No such file or directory'


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('raw', [b'', b'\n', b' \r\n\t\n'])
def test_an_empty_file_is_refused(tmpdir, kind, raw):
    path = write(tmpdir, raw)
    assert refused(with_file(kind, path)) == path + ': is empty'


@pytest.mark.parametrize('kind', KINDS)
def test_a_file_that_is_too_large_is_refused(tmpdir, kind):
    path = write(tmpdir, SECRET + 'x' * (MOST + 1 - len(SECRET)))
    assert refused(with_file(kind, path)) == path + ': is larger than 64 KiB: surely not that file'


def test_a_file_that_is_as_large_as_it_may_be_is_read_whole(tmpdir):
    assert fields(with_file('token_file', write(tmpdir, 'x' * MOST)))[0][1] == 'Bearer ' + 'x' * MOST


@pytest.mark.parametrize('kind, raw, words', [
    ('password_file', 'one\n%s', 'does not hold one line: a password'),
    ('password_file', '%s\n\n', 'does not hold one line: a password'),
    ('password_file', '%s\ttab', 'does not hold one line: a password'),
    ('password_file', '%s\0', 'does not hold one line: a password'),
    ('password_file', '%s\x7f', 'does not hold one line: a password'),
    ('password_file', '\r%s', 'does not hold one line: a password'),
    ('token_file', 'one\n%s', 'does not hold one line: a token without blanks'),
    ('token_file', '%s\n\n', 'does not hold one line: a token without blanks'),
    ('token_file', 'a %s', 'does not hold one line: a token without blanks'),
    ('token_file', '%s ', 'does not hold one line: a token without blanks'),
    ('token_file', ' %s', 'does not hold one line: a token without blanks'),
    ('token_file', '%s\xe9', 'does not hold one line: a token without blanks'),
    ('token_file', '%s\0', 'does not hold one line: a token without blanks'),
])
def test_a_file_that_does_not_hold_what_it_should_is_refused(tmpdir, kind, raw, words):
    path = write(tmpdir, compat.wire(raw % SECRET))
    assert refused(with_file(kind, path)) == '%s: %s' % (path, words)


@pytest.mark.parametrize('line, words', [
    ('%s', 'a header is Name: value, one a line, the name without blanks'),
    ('X Key: %s', 'a header is Name: value, one a line, the name without blanks'),
    (': %s', 'a header is Name: value, one a line, the name without blanks'),
    ('%s=1', 'a header is Name: value, one a line, the name without blanks'),
    ('X-Key: %s\xe9', 'the value of X-Key holds a control character or one beyond ASCII'),
    ('X-Key: \0%s', 'the value of X-Key holds a control character or one beyond ASCII'),
    ('X-Key: a\tb %s', 'the value of X-Key holds a control character or one beyond ASCII'),
    ('X-Key: a\rX-Other: %s', 'the value of X-Key holds a control character or one beyond ASCII'),
    ('Host: %s', 'Host is set by the agent itself: leave it out'),
    ('transfer-encoding: %s', 'transfer-encoding is set by the agent itself: leave it out'),
    ('Content-Type: %s', 'Content-Type is set by content_type: use that key'),
])
def test_a_line_that_is_no_header_is_refused_with_its_number(tmpdir, line, words):
    path = write(tmpdir, compat.wire('# a comment\nX-Good: 1\n\n' + line % SECRET))
    assert refused(with_file('secret_headers_file', path)) == '%s:4: %s' % (path, words)


@pytest.mark.parametrize('kind', ['password_file', 'token_file'])
def test_authorization_is_sent_once(tmpdir, kind):
    headers = write(tmpdir, 'X-Key: 1\nauthorization: Own ' + SECRET, 'headers')
    of = with_file(kind, write(tmpdir, SECRET), secret_headers_file=headers)
    assert refused(of) == (
        headers + ':2: a second Authorization: it comes from username, token_file, headers or this file')


def test_authorization_is_sent_once_by_a_file_of_headers_too(tmpdir):
    path = write(tmpdir, 'Authorization: Own %s\nX-Key: 1\nauthorization: Own %s' % (SECRET, SECRET))
    assert ':3: ' in refused(with_file('secret_headers_file', path))


def test_authorization_is_sent_once_by_both_kinds_of_headers(tmpdir):
    path = write(tmpdir, 'Authorization: Own ' + SECRET)
    assert ':1: ' in refused(with_file('secret_headers_file', path, headers=(('authorization', 'Own x'),)))


def test_a_name_that_could_end_the_line_is_shown_on_it(tmpdir):
    path = write(tmpdir, SECRET, 'a\nb', 0o644)
    assert 'a%0Ab: others may read or write it' in refused(with_file('token_file', path))


# --- kept, and read again

def change(path, action):
    """Do something with a file until the file system, whose clock goes by milliseconds, tells it from before."""
    before = stamp_of(os.stat(path))
    while True:
        action()
        if stamp_of(os.stat(path)) != before:
            return


def rewritten(path, content):
    """Write into the same file."""
    with open(path, 'r+b') as stream:
        stream.write(content)
        stream.truncate()


def with_times_of(path, status):
    os.utime(path, (status.st_atime, status.st_mtime))


def replaced(path, content):
    """Put another file in its place that is as old."""
    status = os.stat(path)
    write(os.path.dirname(path), content, 'fresh')
    with_times_of(os.path.join(os.path.dirname(path), 'fresh'), status)
    os.rename(os.path.join(os.path.dirname(path), 'fresh'), path)


def rewritten_as_old_as_before(path, content):
    status = os.stat(path)
    rewritten(path, content)
    with_times_of(path, status)


@pytest.mark.parametrize('how', [rewritten, replaced, rewritten_as_old_as_before])
@pytest.mark.parametrize('second', [b'bbb', b'bbbbbb\n'])
def test_a_token_that_changed_is_sent_from_then_on(tmpdir, how, second):
    path, known = write(tmpdir, 'aaa'), Credentials()
    of = with_file('token_file', path)
    assert known.fields(of) == (('Authorization', 'Bearer aaa'),)
    change(path, lambda: how(path, second))
    assert known.fields(of) == (('Authorization', 'Bearer ' + compat.byte_string(second.strip())),)


def test_as_long_as_no_file_changed_the_headers_are_the_very_same(tmpdir):
    path, known = write(tmpdir, 'aaa'), Credentials()
    headers = write(tmpdir, 'X-Key: 1', 'headers')
    of = with_file('token_file', path, secret_headers_file=headers)
    first = known.fields(of)
    assert known.fields(of) is first
    assert known.fields(of._replace(url='http://other/', deadline=1)) is first
    change(path, lambda: os.utime(path, (1, 1)))
    assert known.fields(of) is first, 'only touched'
    change(headers, lambda: rewritten(headers, b'X-Key: 2'))
    assert known.fields(of) == (first[0], ('X-Key', '2'))


def test_a_file_that_did_not_change_is_not_read_again(tmpdir, monkeypatch):
    known, of = Credentials(), with_file('token_file', write(tmpdir, 'aaa'))
    known.fields(of)
    monkeypatch.setattr(credentials, 'read_private', None)
    assert known.fields(of) == (('Authorization', 'Bearer aaa'),)


@pytest.mark.parametrize('kind, content', [('token_file', b'aaa'), ('password_file', b'aaa'),
                                           ('secret_headers_file', b'X-Key: aaa')])
def test_while_somebody_writes_the_file_anew_what_was_in_it_holds(tmpdir, kind, content):
    path, known = write(tmpdir, content), Credentials()
    of = with_file(kind, path)
    first = known.fields(of)
    for emptied in (b'', b'\n'):
        change(path, lambda: rewritten(path, emptied))
        assert known.fields(of) is first
    change(path, lambda: rewritten(path, content.replace(b'a', b'b')))
    assert known.fields(of) not in (first, ())


@pytest.mark.parametrize('spoil, words', [
    (os.unlink, 'can\'t be read: No such file'),
    (lambda path: os.chmod(path, 0o640), 'chmod 600'),
    (lambda path: rewritten(path, b''.join([SECRET.encode('ascii'), b' x'])), 'does not hold one line'),
    (lambda path: (os.unlink(path), os.mkfifo(path, 0o600)), 'is not a regular file'),
])
def test_a_file_that_is_spoilt_later_is_refused_until_it_is_mended(tmpdir, spoil, words):
    path, known = write(tmpdir, SECRET), Credentials()
    of = with_file('token_file', path)
    known.fields(of)
    if spoil is os.unlink:
        spoil(path)
    else:
        change(path, lambda: spoil(path))
    with pytest.raises(Refused) as caught:
        known.fields(of)
    assert words in str(caught.value) and SECRET not in str(caught.value)
    if os.path.exists(path):
        os.unlink(path)
    write(tmpdir, 'mended')
    assert known.fields(of) == (('Authorization', 'Bearer mended'),)


# --- nothing is shown

def test_what_holds_the_secrets_does_not_show_them(tmpdir):
    known = Credentials()
    known.fields(with_file('token_file', write(tmpdir, SECRET)))
    assert SECRET not in repr(known) and SECRET not in str(known)


def test_for_a_receiver_it_is_a_hold_without_a_word_of_the_secret(tmpdir):
    of = with_file('token_file', write(tmpdir, SECRET, mode=0o644))
    with pytest.raises(TransportError) as caught:
        Resources({}).fields(of)
    error = caught.value
    assert (error.stage, error.hold, error.sent_whole) == ('credentials', True, False)
    assert 'chmod 600' in str(error)
    assert SECRET not in str(error) + repr(error) + repr(error.problems)
