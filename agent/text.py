"""Text made safe to show: file names, answers and reasons that others wrote, on a terminal, in a log, in a file.

Any file may import this one. It raises nothing.
"""

from agent import compat


def printable(raw, most=200, keep=''):
    """Return the bytes `raw` as a native string in which nothing controls a terminal or ends a line.

    most: characters at the most, the rest becomes '...'; keep: control characters that may stay ('\\n\\t').
    """
    text = compat.decode(raw)
    cut = text[:most] + u'...' if len(text) > most else text
    return compat.native_text(u''.join([c if c in keep or _harmless(c) else u'?' for c in cut]))


def _harmless(character):
    code = ord(character)
    if code < 0x80:
        return 0x20 <= code < 0x7f
    # C1 controls; what is invisible, ends a line or turns the direction of text; lone surrogates
    return not (code < 0xa0 or 0x200b <= code <= 0x200f or 0x2028 <= code <= 0x202e or 0x2060 <= code <= 0x206f
                or code in (0xad, 0x61c, 0x180e, 0xfeff) or 0xd800 <= code <= 0xdfff or 0xfff9 <= code <= 0xfffb
                or 0xe0000 <= code <= 0xe0fff)


def shown(name):
    """Return the file name `name` so that it stays on its line and can be told from every other: where there are
    bytes that are not printable text, a `%`, or blanks at an end, these are percent-encoded."""
    raw = compat.fs_bytes(name)
    plain, bare = _plain(raw), raw.strip(b' ')
    if plain is not None and b'%' not in raw and raw == bare:
        return plain
    before = len(raw) - len(raw.lstrip(b' '))
    behind = len(raw) - before - len(bare)
    return '%20' * before + compat.percent(bare, ' !"#$&\'()*+,:;<=>?@[]^`{|}') + '%20' * behind


def shell_word(name):
    """Return the file name `name` as one word of a POSIX shell; None when it holds what can't be typed."""
    plain = _plain(compat.fs_bytes(name))
    if plain and not all([c.isalnum() or c in '_-.,:/@%+=' for c in plain]):
        return "'" + plain.replace("'", "'\\''") + "'"
    return plain


def _plain(raw):
    try:
        plain = compat.native_text(raw.decode('utf-8'))
    except UnicodeDecodeError:
        return None
    return plain if printable(raw, len(raw)) == plain else None


_STATUSES = {}  # (code, reason) -> words: a receiver says few different ones


def status(code, reason):
    """Return a status line's code and words, safe to show; reason: native, a byte a character."""
    words = _STATUSES.get((code, reason))
    if words is None:
        words = ('%d %s' % (code, printable(compat.wire(reason)))).strip()
        if len(_STATUSES) < 100:
            _STATUSES[code, reason] = words
    return words


def count(number, noun):
    """Return `1 file`, `2 files`."""
    return '%d %s%s' % (number, noun, '' if number == 1 else 's')


def duration(seconds):
    """Return a duration in seconds as people say it: `0.8 s`, `45 s`, `12 m`, `3 h`, `2 d`."""
    if seconds < 10:
        return '%.1f s' % max(0, seconds)
    for unit, size in (('d', 86400), ('h', 3600), ('m', 60)):
        if seconds >= 2 * size:
            return '%d %s' % (seconds // size, unit)
    return '%d s' % seconds


def size(count):
    """Return a number of bytes as people say it: `512 B`, `1.5 MB` (powers of 1,000)."""
    amount = float(count)
    for unit in ('B', 'kB', 'MB', 'GB'):
        if amount < 1000 or unit == 'GB':
            return ('%d %s' if unit == 'B' else '%.1f %s') % (amount, unit)
        amount /= 1000
