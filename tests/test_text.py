"""What others wrote is shown safely: it ends no line, controls no terminal, and can be told from everything else."""

import random
import subprocess

import pytest

from agent import compat, text

AWKWARD = [b'plain.json', b'new\nline', b'\r', b'esc\x1b[31m', b'tab\t', b'inv\xff\xfealid', b'50%', b'%0A', b'\n',
           b' ', b' blank ', b"it's", b'"quoted"', b'$HOME', b'`id`', b'a;b', b'a&b', b'*', b'~root', b'#', b'!',
           b'(x)', b'\\n',
           b'\x7f', b'caf\xc3\xa9', b'\xe2\x80\xae', b'\xc2\x85', b'-', b'a=b', b'{name}', b'\xe2\x82', b'\xef\xbf\xbd']


def random_names(count=300):
    rnd = random.Random(7)
    letters = [number for number in range(1, 256) if number != 47]
    return [bytes(bytearray([rnd.choice(letters) for _ in range(rnd.randint(1, 12))])) for _ in range(count)]


def is_one_safe_line(shown):
    return not [c for c in compat.decode(compat.config_bytes(shown)) if c < u' ' or u'\x7f' <= c < u'\xa0' or c in
                u'\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069']


@pytest.mark.parametrize('raw, expected', [
    (b'', ''),
    (b'503 Service Unavailable', '503 Service Unavailable'),
    (b'a\r\nb', 'a??b'),
    (b'\x00\x07\x1b[2J\x7f', '???[2J?'),
    (b'caf\xc3\xa9', compat.native_text(u'caf\xe9')),
    (b'\xc2\x9b31m', '?31m'),                                       # CSI in one character
    (b'a\xe2\x80\xaeb\xe2\x80\xa8c\xe2\x81\xa6', 'a?b?c?'),         # turns the direction, ends a line
    (b'a\xd8\x9cb\xc2\xadc\xe1\xa0\x8ed\xef\xbf\xba', 'a?b?c?d?'),   # so does ALM; what is invisible
    (b'\xff\xc3', compat.native_text(u'\ufffd\ufffd')),
])
def test_printable_leaves_nothing_that_controls_a_terminal(raw, expected):
    assert text.printable(raw) == expected


def test_printable_is_cut_with_a_mark_and_not_one_character_earlier():
    assert text.printable(b'x' * 200) == 'x' * 200
    assert text.printable(b'x' * 201) == 'x' * 200 + '...'
    assert text.printable(u'\xe9\xe9\xe9\xe9'.encode('utf-8'), 3) == compat.native_text(u'\xe9\xe9\xe9...')


def test_printable_keeps_the_control_characters_it_is_told_to_keep():
    assert text.printable(b'a\n\tb\r\x1b', keep='\n\t') == 'a\n\tb??'


def test_a_shown_name_is_one_line_and_tells_which_file_it_is():
    for raw in AWKWARD + random_names():
        shown = text.shown(compat.fs_native(raw))
        assert is_one_safe_line(shown), raw
        back = compat.unpercent(shown) if '%' in shown else compat.config_bytes(shown)
        assert back == raw, (raw, shown)


def test_a_usual_name_is_shown_as_it_is():
    for raw in (b'orders-17.json', b'a b.txt', b"it's", b'-rf', b'{x}', b'caf\xc3\xa9'):
        assert text.shown(compat.fs_native(raw)) == compat.native_text(raw.decode('utf-8'))


def test_a_shell_reads_back_the_name_that_was_meant():
    raws = [raw for raw in AWKWARD + random_names() if text.shell_word(compat.fs_native(raw))]
    assert len(raws) > 15
    words = [text.shell_word(compat.fs_native(raw)) for raw in raws]
    script = compat.config_bytes('printf "%s\\n" ' + ' '.join(words))
    shell = subprocess.Popen(['sh'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert shell.communicate(script)[0].split(b'\n')[:-1] == raws


def test_what_cant_be_typed_has_no_shell_word():
    for raw in (b'a\nb', b'\xff', b'\x1b', b'tab\t', b'\xe2\x80\xae'):
        assert text.shell_word(compat.fs_native(raw)) is None


@pytest.mark.parametrize('seconds, expected', [
    (-1, '0.0 s'), (0, '0.0 s'), (0.04, '0.0 s'), (0.8, '0.8 s'), (9.9, '9.9 s'), (10, '10 s'), (119.9, '119 s'),
    (120, '2 m'), (7199, '119 m'), (7200, '2 h'), (172799, '47 h'), (172800, '2 d'), (10 ** 9, '11574 d')])
def test_durations_as_people_say_them(seconds, expected):
    assert text.duration(seconds) == expected


@pytest.mark.parametrize('count, expected', [
    (0, '0 B'), (999, '999 B'), (1000, '1.0 kB'), (1500, '1.5 kB'), (10 ** 6, '1.0 MB'), (1500000, '1.5 MB'),
    (10 ** 9, '1.0 GB'), (5 * 10 ** 12, '5000.0 GB')])
def test_sizes_as_people_say_them(count, expected):
    assert text.size(count) == expected
