"""What `envio help` shows is made of the table that validates, loads, and is sound troff."""

import os
import re
import subprocess

import pytest

from agent import cli, config, errors, reference, settings
from agent.errors import UsageError

USAGE = cli.HELP
MANUALS = {'envio.1': reference.man_envio, 'envio.conf.5': reference.man_conf}
NAMES = sorted(set([setting.name for setting in settings.SETTINGS]))
DEFAULT = re.compile(r'(?m)^#(?=[a-z_]+ =)')  # begins a line of the example that shows a default
SHOWN = re.compile(r'(?m)^#?([a-z_]+) =(.*)$')


def page(*words):
    return reference.page(list(words), USAGE, cli.COMMANDS)


def parse(text):
    return config.parse(text.encode('ascii'), '/etc/envio/envio.conf')


def plain(troff):
    """Return a manual page as its reader sees it, on one line."""
    text = re.sub(r'(?m)^\.[A-Z]+ ?', '', re.sub(r'\\f[BIR]|\\&', '', troff))
    for escaped, character in (('\\-', '-'), ('\\(aq', "'"), ('\\(ti', '~'), ('\\(ha', '^'), ('\\e', '\\')):
        text = text.replace(escaped, character)
    return ' '.join(text.split())


def program(name):
    for folder in os.environ.get('PATH', '').split(':') + ['/usr/bin', '/usr/local/bin']:
        if os.access(os.path.join(folder, name), os.X_OK):
            return os.path.join(folder, name)


def complaints(tmpdir, name, text, *command):
    """Return (exit code, stderr, stdout) of a program that reads manual pages for one of this name."""
    path = program(command[0])
    if path is None:
        pytest.skip('%s: not installed' % command[0])
    source = tmpdir.join(name)
    source.write(text)
    process = subprocess.Popen((path,) + command[1:] + (str(source),), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    out, said = process.communicate()
    return process.returncode, said, out


# --- the table

def test_every_explanation_is_a_sentence_on_one_line():
    for setting in settings.SETTINGS:
        assert re.match(r'[A-Z][ -~]{9,149}\Z', setting.help), setting.name
        assert not setting.help.endswith('.'), setting.name


# --- the example configuration

def test_the_example_shows_each_key_once_where_it_may_stand_with_its_default():
    agent, receiver = reference.example().split('\n[receiver:example]\n')
    for table, part in ((settings.FOR_AGENT, agent), (settings.FOR_RECEIVER, receiver)):
        lines = SHOWN.findall(part)
        expected = [s for s in settings.SETTINGS if table.get(s.name) is s and (
            table is settings.FOR_AGENT or s.where == settings.RECEIVER)]
        assert [name for name, _ in lines] == [s.name for s in expected]
        for (name, value), setting in zip(lines, expected):
            assert value.strip() == setting.default or name in ('spool', 'match', 'url', 'hold')


def test_the_example_loads_and_differs_from_the_defaults_only_where_it_must():
    read = parse(reference.example())
    short = parse('[agent]\nspool = /var/spool/envio\nhold = 401, 403, 407\n[receiver:example]\nmatch = *\n'
                  'url = http://127.0.0.1:8080/in/{name}\n')
    assert read == short
    assert read.receivers[0].hold == ('401', '403', '407')


def test_the_defaults_it_shows_change_nothing_when_they_are_no_longer_comments():
    text, found = DEFAULT.subn('', reference.example())
    assert found == len(settings.SETTINGS) - 4
    assert parse(text) == parse(reference.example())


def test_the_example_explains_each_key_and_fits_a_terminal():
    text = reference.example()
    assert max([len(line) for line in text.splitlines()]) < 80
    assert '\n\n\n\n' not in text and text.endswith('\n')
    comments = ' '.join(re.sub('(?m)^#', '', text).split())
    for setting in settings.SETTINGS:
        assert setting.help in comments and '[%s]' % setting.kind.form in comments


# --- envio help

@pytest.mark.parametrize('words', [(), ('help',), ('once',), ('requeue',)])
def test_help_alone_and_for_a_command_is_the_usage(words):
    assert page(*words) == USAGE


def test_help_shows_the_pages():
    assert page('conf') == reference.example()
    assert page('man1') == reference.man_envio()
    assert page('man5') == reference.man_conf()


@pytest.mark.parametrize('name', NAMES)
def test_help_explains_every_key(name):
    said = ' '.join(page(name).split())
    for setting in [setting for setting in settings.SETTINGS if setting.name == name]:
        assert setting.help in said and setting.kind.form in said
        assert 'Default: %s.' % setting.default in said if setting.default else 'given' in said or 'empty' in said


def test_a_key_that_stands_in_two_places_is_explained_twice():
    assert page('keep_sent') == ('keep_sent\n'
                                 '    Days that accepted files are kept in sent/; 0: for ever.\n'
                                 '    Value: a whole number from 0 to 36500.\n'
                                 '    Default: 0.\n'
                                 '    It stands in [agent].\n')
    assert re.findall('(?m)^    (?:Default|It stands).*', page('workers')) == [
        '    Default: 8.', '    It stands in [agent].', '    Default: 4.', '    It stands in [receiver:NAME].']


@pytest.mark.parametrize('words, sentence', [
    (('setle',), 'help: setle: no such key: did you mean settle'),
    (('Retry_Pause',), 'help: Retry_Pause: no such key: did you mean retry_pause'),
    (('xyzzy',), 'help: xyzzy: no such key: `envio help conf` shows them all'),
    (('settle', 'splay'), 'help: takes one word: see envio --help'),
])
def test_help_for_what_is_not_known_says_what_may_be_meant(words, sentence):
    with pytest.raises(UsageError) as raised:
        page(*words)
    assert str(raised.value) == sentence and raised.value.exit_code == 2


# --- the manual pages

def test_the_manual_names_every_command_with_its_options():
    tags = [plain(tag) for tag in re.findall(r'(?m)^\.TP\n((?:.*\\\n)*.*)', reference.man_envio())]
    commands = dict([(tag.split(' ')[0], tag) for tag in tags])
    assert set(cli.COMMANDS) | set(['help']) <= set(commands)
    used = re.findall(r'(?m)^  ([a-z]+)((?: .*)?)$', re.sub(r'\n {9,}\[', ' [', USAGE))
    assert set([name for name, _ in used] + ['help']) == set(cli.COMMANDS) | set(['help'])
    for name, rest in used:
        assert re.findall('--[a-z-]+', commands[name]) == re.findall('--[a-z-]+', rest.split('   ')[0])


def test_the_manual_names_every_exit_code_file_and_variable():
    text = plain(reference.man_envio())
    for name in [name for name in dir(errors) if name.startswith('EX_')]:
        assert re.search(r'(?m)^\.TP\n\.B %d$' % getattr(errors, name), reference.man_envio()), name
    for word in (cli.DEFAULT_CONFIG, 'ENVIO_PYTHON', 'ENVIO_CURL', 'NO_COLOR', 'SIGTERM', 'SIGHUP', 'SIGUSR1',
                 'state.json', 'NAME.reason'):
        assert word in text


def test_the_manual_of_the_configuration_explains_every_key():
    text = plain(reference.man_conf())
    for setting in settings.SETTINGS:
        value = ' (has to be given)' if setting.default is None else ' = ' + (setting.default or '(empty)')
        assert '%s%s %s. br Value: %s.' % (setting.name, value, setting.help, setting.kind.form) \
            in text.replace('.br', 'br'), setting.name
    assert cli.DEFAULT_CONFIG in text and '@' not in text.replace('user:password@', '')


def test_the_example_of_the_manual_loads():
    source = reference.man_conf().split('.SH EXAMPLE\n.nf\n')[1].split('.fi\n')[0]
    read = parse(source.replace('\\-', '-').replace('\\e', '\\'))
    assert [receiver.name for receiver in read.receivers] == ['orders', 'regions', 'rest']
    assert read.receivers[1].headers == (('X-Site', '042'), ('X-Kind', 'report'))


@pytest.mark.parametrize('name', sorted(MANUALS))
@pytest.mark.parametrize('command', [
    ('man', '--warnings', '-E', 'UTF-8', '-l', '-Tutf8', '-Z'),
    ('groff', '-man', '-ww', '-z'),
    ('mandoc', '-Tlint', '-Wstyle'),
], ids=['man', 'groff', 'mandoc'])
def test_readers_of_manual_pages_have_nothing_to_complain_of(tmpdir, name, command):
    code, said, out = complaints(tmpdir, name, MANUALS[name](), *command)
    assert said == b''
    assert command[0] == 'man' or out == b''
    assert code == 0


def test_what_reads_them_would_complain(tmpdir):
    odd = reference.man_envio().replace('.SH NAME', '.XY NAME')
    assert b'XY' in complaints(tmpdir, 'envio.1', odd, 'groff', '-man', '-ww', '-z')[1]


def test_what_troff_would_take_for_its_own_is_shown_as_it_is():
    assert reference._troff(".*, it's ~ ^ ` a-b \\") == "\\&.*, it\\(aqs \\(ti \\(ha \\(ga a\\-b \\e"
