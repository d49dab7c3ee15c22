"""What `envio help` shows: the example configuration, a key explained, the manual pages. Pure.

The keys are those of settings.SETTINGS, which also validates: a key added there is explained everywhere. Called by
cli.py, and where a bundle is made. Raises UsageError.
"""

import difflib
import textwrap

from agent import __version__, man1, man5, settings
from agent.errors import UsageError

_WIDTH = 80  # columns

# What the example says where a default would not do, or where there is none.
_SAID = {
    (settings.AGENT, 'spool'): '/var/spool/envio',
    (settings.RECEIVER, 'match'): '*',
    (settings.RECEIVER, 'url'): 'http://127.0.0.1:8080/in/{name}',
    (settings.BOTH, 'hold'): '401, 403, 407',
}

_HEAD = (
    'Every key of Envio, explained. A line "#key = value", with no blank behind the #, shows a default: take the # '
    'away to change it. Then: envio check -c FILE. More in envio.conf(5), or by: envio help man5 | man -l -')
_BOTH = (
    'From here on: what holds for all receivers. Each of these keys may also stand in a [receiver:NAME], for that one '
    'alone.')
_RECEIVER = (
    'A receiver. There may be many, each with a name of its own. A file goes to the first, in the order of this file, '
    'that matches its name.')
_HELD = 'These mean that the agent is refused, not the file. (The default is empty: then they reject the file.)'

_PLACES = {
    settings.AGENT: 'in [agent]',
    settings.RECEIVER: 'in [receiver:NAME]',
    settings.BOTH: 'in [receiver:NAME], and in [agent] as the default of all receivers',
}


def page(words, usage, commands):
    """Return the text of `envio help WORD...`.

    words: those behind `help`; usage: the text for none, and for a command's name; commands: their names. Raises
    UsageError for a word that is none of these, nor a key.
    """
    if words[1:]:
        raise UsageError('help: takes one word: see envio --help')
    word = words[0] if words else 'help'
    if word == 'help' or word in commands:
        return usage
    if word in PAGES:
        return PAGES[word]()
    found = [setting for setting in settings.SETTINGS if setting.name == word]
    if not found:
        raise UsageError('help: %s: %s' % (word, _meant(word, commands)))
    return '\n'.join([_explained(setting) for setting in found])


def _meant(word, commands):
    known = set([setting.name for setting in settings.SETTINGS] + list(commands) + list(PAGES))
    near = difflib.get_close_matches(word.lower(), sorted(known), 1)
    if near:
        return 'no such key: did you mean %s' % near[0]
    return 'no such key: `envio help conf` shows them all'


def _explained(setting):
    value = 'It has to be given.' if setting.default is None else 'Default: %s.' % (setting.default or 'empty')
    return '%s\n%s' % (setting.name, ''.join([
        _wrapped(line, '    ') for line in (
            setting.help + '.', 'Value: %s.' % setting.kind.form, value,
            'It stands %s.' % _PLACES[setting.where])]))


def _wrapped(words, indent='# '):
    return textwrap.fill(words, _WIDTH - 1, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
                         break_on_hyphens=False) + '\n'


# --- the example configuration

def example():
    """Return a configuration that shows every key; it loads as it stands."""
    agent, both, receiver = [
        ''.join(['\n\n# --- %s\n%s' % (group, ''.join([_shown(setting) for setting in rows]))
                 for group, rows in _groups() if rows[0].where == where])
        for where in (settings.AGENT, settings.BOTH, settings.RECEIVER)]
    return ''.join([_wrapped(_HEAD), '\n[agent]', agent, '\n\n', _wrapped(_BOTH).rstrip(), both, '\n\n',
                    _wrapped(_RECEIVER), '[receiver:example]', receiver])


def _groups():
    """Return [(heading, [Setting])] in the order of the table."""
    groups = []
    for setting in settings.SETTINGS:
        if not groups or groups[-1][0] != setting.group:
            groups.append((setting.group, []))
        groups[-1][1].append(setting)
    return groups


def _shown(setting):
    said = _SAID.get((setting.where, setting.name))
    words = setting.help + '.'
    if setting.name == 'hold':
        words += ' ' + _HELD
    line = '#' + _line(setting.name, setting.default) if said is None else _line(setting.name, said)
    return '\n%s%s%s\n' % (_wrapped(words), _wrapped('[%s]' % setting.kind.form, '#   '), line)


def _line(name, value):
    return ('%s = %s' % (name, value)).rstrip()


# --- the manual pages, in the macros of man(7)

def man_envio():
    """Return envio(1) as troff."""
    return _filled(man1.TEXT)


def man_conf():
    """Return envio.conf(5) as troff."""
    return _filled(man5.TEXT).replace('@KEYS@\n', ''.join([_section(*group) for group in _groups()]))


def _filled(source):
    return source.replace('@VERSION@', _troff(__version__))


def _section(group, rows):
    lines = ['.SS ' + _troff(group)] + _lines('These stand %s.' % _PLACES[rows[0].where])
    for setting in rows:
        lines += ['.TP', _tag(setting)] + _lines(setting.help + '.')
        lines += ['.br'] + _lines('Value: %s.' % setting.kind.form)
    return '\n'.join(lines) + '\n'


def _lines(words):
    return [_troff(line) for line in textwrap.wrap(words, 70, break_on_hyphens=False)]


def _tag(setting):
    name = '\\fB%s\\fR' % _troff(setting.name)
    if setting.default is None:
        return name + ' (has to be given)'
    return name + (' = \\fI%s\\fR' % _troff(setting.default) if setting.default else ' = (empty)')


_ESCAPES = {'\\': '\\e', '-': '\\-', "'": '\\(aq', '`': '\\(ga', '^': '\\(ha', '~': '\\(ti'}


def _troff(words):
    """Return plain text so that troff shows just that; a full stop that begins a line would make it a request."""
    escaped = ''.join([_ESCAPES.get(character, character) for character in words])
    return '\\&' + escaped if escaped.startswith('.') else escaped


PAGES = {'conf': example, 'man1': man_envio, 'man5': man_conf}
