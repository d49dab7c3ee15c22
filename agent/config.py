"""The configuration file: INI text -> a validated records.Config, or every problem at once, each with its line.

An own small reader: the ConfigParsers of 2.6 and 3.x understand the same file differently. It works on bytes, so
that neither the locale nor the Python has a say. Raises errors.ConfigError; load() alone touches the disk.
"""

import io
import re
from collections import namedtuple

from agent import compat, rules, settings, text
from agent.errors import ConfigError
from agent.records import AGENT_KEYS, SECTION_KEYS, Config, Receiver
from agent.rules import Refused

_MOST_BYTES = 1 << 20

_BLANKS = b' \t'
_CONTROL = re.compile(b'[\x00-\x08\x0b-\x1f\x7f]')
_SEMICOLON = b'[ \t];'
_KEY = re.compile(r'([A-Za-z0-9_-]+)[ \t]*=(.*)\Z', re.DOTALL)
_COLON = r'([A-Za-z0-9_-]+)[ \t]*:'
_SECTION = re.compile(r'\[([^\]]*)\]\Z')
_RECEIVER_NAME = re.compile(r'[A-Za-z0-9._-]+\Z')
_MISSPELT = 0.6  # difflib's likeness from which on a name is taken for a misspelt one

# A section as it stands in the file. kind: settings.AGENT, settings.RECEIVER, or None when it is neither.
_Section = namedtuple('_Section', 'kind name line entries')


class _Entry(object):
    """A key as it stands in the file."""

    def __init__(self, line, key=''):
        self.line = line
        self.key = key
        self.parts = []    # (line, native text) for each line of its value that holds something
        self.sound = True  # False: a problem was noted, and nothing further is said about it


def load(path):
    """Return the Config of the file `path`; raises ConfigError, also when it can't be read."""
    try:
        with io.open(path, 'rb') as opened:
            raw = opened.read(_MOST_BYTES + 1)
    except EnvironmentError as error:
        raise ConfigError(['%s: can\'t be read: %s: name another file with -c, or write this one'
                           % (text.shown(path), compat.error_text(error))])
    if len(raw) > _MOST_BYTES:
        raise ConfigError(['%s: is larger than 1 MiB: surely not a configuration file' % text.shown(path)])
    return parse(raw, path)


def parse(raw, path):
    """Return the Config that the bytes `raw` describe; path: the file's, for messages.

    Raises ConfigError with every problem found, in the order of the lines: `PATH:LINE: what: why or what to do`.
    """
    problems = _Problems(path)
    if raw[:2] in (b'\xff\xfe', b'\xfe\xff'):
        problems.add(1, 'the file is UTF-16', 'save it as UTF-8')
        problems.raise_any()
    if b'\0' in raw:
        problems.add(raw[:raw.index(b'\0')].count(b'\n') + 1, 'a NUL byte', 'this is no text file')
        problems.raise_any()
    sections = _read_sections(raw, problems)
    agent = _agent_section(sections, problems)
    own = _values(agent, settings.FOR_AGENT, _defaults(settings.FOR_AGENT), problems)
    _check_agent(agent, own, problems)

    inherited = _defaults(settings.FOR_RECEIVER)
    inherited.update([(name, value) for name, value in own.items() if settings.FOR_AGENT[name].where == settings.BOTH])
    _check_related(agent, inherited, problems)
    receivers = []
    for section in sections:
        if section.kind == settings.RECEIVER:
            values = _values(section, settings.FOR_RECEIVER, inherited, problems)
            _check_receiver(section, values, own, problems)
            _check_related(section, values, problems)
            receivers.append(_receiver(section.name, values))
    if not receivers and not own['router'] and not _is_wrong(agent, 'router') and not problems.sections:
        problems.add(agent.line, 'no receiver', 'write a section [receiver:NAME] with match and url')
    problems.raise_any()
    return Config(path=path, receivers=tuple(receivers), defaults=_receiver('', inherited),
                  **dict([(key, own[key]) for key in AGENT_KEYS]))


class _Problems(object):
    """What is wrong with a file."""

    def __init__(self, path):
        self._path = path
        self._found = []
        self.sections = False  # True: a section could not be told, so that none is missed

    def add(self, line, what, why):
        """Note one problem; line: from 1 on; what: native text as it stands in the file."""
        what = re.sub('://.*@', '://...@', what)  # a password, whatever else is wrong with the line
        what, why = [text.printable(compat.config_bytes(part), most) for part, most in ((what, 100), (why, 1000))]
        self._found.append((line, '%s:%d: %s: %s' % (text.shown(self._path), line, what, why)))

    def raise_any(self):
        """Raise ConfigError when there is a problem."""
        if self._found:
            raise ConfigError([sentence for _, sentence in sorted(self._found, key=lambda found: found[0])])


# --- lines to sections

def _read_sections(raw, problems):
    """Return the list of _Section in file order."""
    if raw[:3] == b'\xef\xbb\xbf':
        raw = raw[3:]
    section, entry = _Section(None, '', 0, {}), None
    sections = [section]
    for index, line in enumerate(raw.split(b'\n')):
        number, indented = index + 1, line[:1] in (b' ', b'\t')
        if line[-1:] == b'\r':
            line = line[:-1]
        bare = line.strip(_BLANKS)
        if not bare or bare[:1] in (b'#', b';'):
            continue
        content = compat.config_native(bare)
        if indented:
            _continue_value(entry, number, content, problems)
        elif bare[:1] == b'[':
            section, entry = _open_section(content, number, sections, problems), None
            continue
        else:
            entry = _open_entry(content, number, section, problems)
        if entry and entry.sound:
            shown = content.partition(':')[0] if entry.key == 'headers' else content  # its value may be a secret
            entry.sound = _is_clean(line, shown, number, problems)
    return sections


def _is_clean(line, content, number, problems):
    """Return True when the bytes of a line hold nothing that must not stand in a value; note it when they do."""
    if _CONTROL.search(line):
        problems.add(number, content, 'holds a control character: take it out')
    elif re.search(_SEMICOLON, line):
        problems.add(number, content, 'a blank and ; inside a value: a comment needs a line of its own')
    else:
        return True
    return False


def _continue_value(entry, number, content, problems):
    """Add an indented line to the value of `entry`."""
    if entry is None:
        problems.add(number, content, 'an indented line continues a value, and there is none above: '
                                      'begin it at the left edge')
        return
    found = _KEY.match(content)
    if found and (found.group(1) in settings.FOR_AGENT or found.group(1) in settings.FOR_RECEIVER):
        problems.add(number, content, 'an indented line continues the value above: begin a key at the left edge')
    else:
        entry.parts.append((number, content))


def _open_section(content, number, sections, problems):
    """Return the _Section that the line `content` begins, or continues when it stands there twice."""
    found = _SECTION.match(content)
    word, colon, name = [part.strip(' \t') for part in (found.group(1) if found else '').partition(':')]
    kind = None
    if not found:
        problems.add(number, content, 'a section is [agent] or [receiver:NAME], alone on its line')
    elif word == 'agent' and not colon:
        kind = settings.AGENT
    elif word == 'receiver' and _RECEIVER_NAME.match(name):
        kind = settings.RECEIVER
    elif word == 'receiver':
        problems.add(number, content, 'a receiver needs a name of letters, digits and ._-: [receiver:NAME]')
    else:
        near = _nearest(word, ['agent', 'receiver'])
        meant = {'agent': 'did you mean [agent]', 'receiver': 'did you mean [receiver:%s]' % (name or 'NAME')}
        problems.add(number, content, 'unknown section: '
                     + (meant[near[0]] if near else 'there are [agent] and [receiver:NAME]'))
    for other in sections:
        if kind and (other.kind, other.name) == (kind, name):
            problems.add(number, content, 'the same section as in line %d: make them one' % other.line)
            return other
    problems.sections = problems.sections or kind is None
    sections.append(_Section(kind, name, number, {}))
    return sections[-1]


def _open_entry(content, number, section, problems):
    """Return the _Entry that the line `content` begins; it is the section's unless something is wrong with it."""
    entry, found = _Entry(number), _KEY.match(content)
    if not found:
        colon = re.match(_COLON, content)
        why = 'a key is followed by =: write %s = ...' % colon.group(1) if colon else 'neither section nor key = value'
        problems.add(number, content.partition(':')[0], why)  # what follows may be a header's value
        entry.sound = False
        return entry
    key, value = found.group(1), found.group(2).strip(' \t')
    entry.key = key
    if value:
        entry.parts.append((number, value))
    if section.line == 0:
        problems.add(number, key, 'a key before the first section: begin with [agent]')
    elif key in section.entries:
        problems.add(number, key, 'stands in line %d already: keep one of them, or make one list'
                     % section.entries[key].line)
    else:
        section.entries[key] = entry
    return entry


def _agent_section(sections, problems):
    """Return the section [agent]; an empty one, and a problem, when there is none."""
    for section in sections:
        if section.kind == settings.AGENT:
            return section
    problems.add(1, 'no section [agent]', 'write one that says spool = /the/folder')
    return _Section(None, '', 1, {})


# --- sections to values

def _defaults(table):
    """Return {key: value} for a table of settings; None where a value has to be given."""
    return dict([(name, None if setting.default is None else _default(setting)) for name, setting in table.items()])


def _default(setting):
    if setting.kind.split == settings.ONE:
        return setting.kind.parse(setting.default) if setting.default else ''
    return tuple([setting.kind.parse(item) for _, item in _items(setting.kind, [(0, setting.default)])])


def _values(section, table, inherited, problems):
    """Return {key: value}: what the section says, over `inherited`. What is wrong is noted and left as inherited."""
    values = dict(inherited)
    for key, entry in section.entries.items():
        if section.kind is None:
            continue
        if key not in table:
            problems.add(entry.line, key, _unknown_key(key, section.kind, table))
            continue
        value = _value(table[key], entry, problems) if entry.sound else None
        entry.sound = value is not None
        if entry.sound:
            values[key] = value
    for key, setting in table.items():
        if values[key] is None and section.kind and key not in section.entries:
            problems.add(section.line, key, 'is missing in this section: it needs %s' % setting.kind.form)
    return values


def _value(setting, entry, problems):
    """Return the value of one key, or None when a problem was noted."""
    kind, found, sound = setting.kind, [], True
    items = _items(kind, entry.parts)
    if not items and not kind.blank:
        problems.add(entry.line, '%s =' % setting.name, 'needs a value: %s' % kind.form)
        return None
    if kind.split == settings.ONE and len(items) > 1:
        problems.add(items[1][0], items[1][1], '%s has one value, and an indented line continues it' % setting.name)
        return None
    for line, item in items:
        try:
            found.append(kind.parse(item))
        except Refused as refused:
            problems.add(line, '%s = %s' % (setting.name, settings.shown(kind, item)), str(refused))
            sound = False
    if not sound:
        return None
    return tuple(found) if kind.split != settings.ONE else found[0] if found else ''


def _items(kind, parts):
    """Return [(line, text)] of the values in an entry's parts: by line, and by comma where the kind says so."""
    if kind.split != settings.ITEMS:
        return [(line, item) for line, item in parts if item]
    split = [(line, item.strip(' \t')) for line, content in parts for item in content.split(',')]
    return [(line, item) for line, item in split if item]


def _nearest(word, known):
    import difflib  # here: slow to load
    return difflib.get_close_matches(word.lower(), known, 1, _MISSPELT)


def _unknown_key(key, kind, table):
    """Return why `key` can't stand in a section of that kind, and what may be meant."""
    others = settings.FOR_RECEIVER if kind == settings.AGENT else settings.FOR_AGENT
    if key in others:
        return 'belongs in %s, not in %s' % (others[key].where, kind)
    near = _nearest(key, sorted(table))
    if near:
        return 'unknown key: did you mean %s' % near[0]
    near = _nearest(key, sorted(others))
    if near:
        return 'unknown key: did you mean %s, which belongs in %s' % (near[0], others[near[0]].where)
    return 'unknown key: %s knows %s' % (kind, ', '.join(sorted(table)))


def _receiver(name, values):
    if not name:
        values = dict(values, url='')
    return Receiver(name=name, **dict([(key, values[key]) for key in SECTION_KEYS]))


# --- what holds between values

def _line(section, *keys):
    """Return the line of the last of `keys` in a section, or the section's own."""
    return max([section.entries[key].line for key in keys if key in section.entries] or [section.line])


def _is_wrong(section, *keys):
    """Return True when one of `keys` stands in a section with a value that was refused."""
    return bool([key for key in keys if key in section.entries and not section.entries[key].sound])


def _check_agent(section, own, problems):
    """Note what is wrong with the spools."""
    spools = own['spool'] or ()
    for number, path in enumerate(spools):
        for other in spools[:number]:
            if path == other:
                problems.add(_line(section, 'spool'), 'spool = %s' % path, 'stands there twice')
            elif _inside(path, other) or _inside(other, path):
                problems.add(_line(section, 'spool'), 'spool = %s' % path, 'one spool can\'t lie inside another, %s'
                             % other)
    for key in ('log_file', 'journal', 'metrics'):
        if own[key] and own[key].rpartition('/')[0] in spools:
            problems.add(_line(section, key), '%s = %s' % (key, own[key]), 'would be collected and sent: it lies in a '
                                                                           'spool')


def _inside(path, folder):
    return path.startswith(folder.rstrip('/') + '/')


def _check_receiver(section, values, own, problems):
    """Note what is wrong with which files a receiver gets and where they go."""
    if own['spool'] and values['spool'] and values['spool'] not in own['spool']:
        problems.add(_line(section, 'spool'), 'spool = %s' % values['spool'], 'is none of those in [agent]: %s'
                     % ', '.join(own['spool']))
    if not (values['match'] or values['match_regex'] or own['router']) \
            and not _is_wrong(section, 'match', 'match_regex'):
        problems.add(section.line, '[receiver:%s]' % section.name, 'gets no file: say match = ..., or match = * for '
                                                                   'all that no section above takes')
    if not values['url'] or _is_wrong(section, 'match_regex'):
        return
    known = ['name', 'stem']
    if values['match_regex']:
        known += sorted(rules.compile_regex(values['match_regex']).groupindex)
    for name in rules.parse_url(values['url']).names:
        if name not in known:
            problems.add(_line(section, 'url'), 'url = %s' % values['url'], 'there is no {%s}: there are %s' % (
                name, ' '.join(['{%s}' % each for each in known])))


_ORDERED = (('breaker_pause', 'breaker_max_pause'), ('retry_pause', 'retry_max_pause'))
_VERDICTS = ('ack', 'nack', 'retry', 'hold')


def _check_related(section, values, problems):
    """Note values of a section that contradict each other; what it only inherited was checked where it stands."""
    for low, high in _ORDERED:
        if values[low] > values[high] and (low in section.entries or high in section.entries):
            problems.add(_line(section, low, high), low, 'is longer than %s (%gs > %gs)'
                         % (high, values[low], values[high]))
    for number, key in enumerate(_VERDICTS):
        for other in _VERDICTS[:number]:
            both = [code for code in values[key] if code in values[other]]
            if both and (key in section.entries or other in section.entries):
                problems.add(_line(section, key, other), '%s = %s' % (key, ', '.join(both)),
                             'stands in %s too: an answer has one meaning' % other)
    _check_credentials(section, values, problems)


# key, whether it needs or excludes the other, the other, what to say
_NEEDS = (
    ('username', True, 'password_file', 'needs password_file: the file that holds its password'),
    ('password_file', True, 'username', 'needs username: whose password it is'),
    ('client_key', True, 'client_cert', 'needs client_cert: the certificate it belongs to'),
    ('token_file', False, 'username', 'stands beside username: a request has one Authorization'),
)


def _check_credentials(section, values, problems):
    for key, wanted, other, why in _NEEDS:
        if values[key] and bool(values[other]) != wanted and (key in section.entries or other in section.entries) \
                and not _is_wrong(section, key, other):
            problems.add(_line(section, key), '%s = %s' % (key, values[key]), why)
    own = [name for name, _ in values['headers'] if name.lower() == 'authorization']
    if own and (values['username'] or values['token_file']):
        problems.add(_line(section, 'headers', 'username', 'token_file'), 'headers = Authorization',
                     'is made from username or token_file: leave one of them out')
