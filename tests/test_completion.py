"""Completion in a real bash: what is offered for a line, and that it knows the commands and options there are."""

import os
import re
import subprocess

import pytest

from agent import cli, reference, settings
from tests.conftest import ROOT
from tests.test_launcher import which

SCRIPT = os.path.join(ROOT, 'conf', 'envio.bash-completion')
COMMON = ['-c', '-v', '-q', '--help']
CONFIG = """\
[agent]
# spool = /nowhere
spool = %s, %s
    %s
journal = /nowhere
[receiver:orders]
match = *.json
url = http://127.0.0.1:8080/
[receiver: rest.1 ]
match = *
url = http://127.0.0.1:8080/
  [receiver:no-section]
#[receiver:comment]
"""

pytestmark = pytest.mark.skipif(which('bash') is None, reason='bash: not installed')


class Shell(object):
    """A folder with a configuration, three spools, and an `envio` that knows `help conf` alone."""

    def __init__(self, folder):
        self.folder = folder
        self.spools = [folder.join('first'), folder.join('with blank'), folder.join('third')]
        for spool in self.spools:
            spool.ensure('error', dir=True)
        self.config = folder.join('the envio.conf')
        self.config.write(CONFIG % tuple(self.spools))
        folder.join('conf').write(reference.example())
        self.program = folder.join('envio')
        self.program.write('#!/bin/sh\n[ "$*" = "help conf" ] && exec cat \'%s\'\n' % folder.join('conf'))
        self.program.chmod(0o755)

    def offered(self, *words):
        """Return what is offered for the last of `words`, as they are typed."""
        script = 'set -u; . "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _envio; printf "%s\\n" ' \
                 '"${COMPREPLY[@]-}"'
        child = subprocess.Popen([which('bash'), '-c', script, 'bash', SCRIPT, str(self.program)] + list(words),
                                 env={'PATH': '/usr/bin:/bin', 'HOME': str(self.folder)}, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        out, err = child.communicate()
        assert (child.returncode, err) == (0, '')
        return out.split('\n')[:-1] if out != '\n' else []

    def rejected(self, name, spool=0):
        self.spools[spool].join('error', name).write('')
        self.spools[spool].join('error', name + '.reason').write('')


@pytest.fixture
def shell(tmpdir):
    return Shell(tmpdir)


def test_the_commands_are_those_there_are(shell):
    assert sorted(shell.offered('')) == sorted(set(cli.COMMANDS) | set(['help']))
    assert shell.offered('re') == ['report', 'requeue', 'receiver']
    assert shell.offered('-c', 'x', '-q', 'chec') == ['check']
    assert shell.offered('zzz') == []


def test_each_command_has_the_options_that_its_usage_names(shell):
    used = dict(re.findall(r'(?m)^  ([a-z]+)((?: .*)?)$', re.sub(r'\n {9,}\[', ' [', cli.HELP)))
    for name in cli.COMMANDS:
        assert shell.offered(name, '-') == re.findall('--[a-z-]+', used[name].split('   ')[0]) + COMMON, name
    assert shell.offered('-') == COMMON
    assert shell.offered('receiver', '--tls', '--c') == ['--cert']


@pytest.mark.parametrize('words', [
    ('-c', ''), ('run', '-c', 'a'), ('receiver', '--dir', ''), ('receiver', '--cert', '/'), ('receiver', '--key', '='),
    ('report', '--html', ''), ('send', ''), ('send', 'dir/-x'), ('once', '--max-time', ''), ('receiver', '--port', ''),
])
def test_files_and_values_are_left_to_bash(shell, words):
    assert shell.offered(*words) == []


@pytest.mark.parametrize('words', [
    ('flush', ''), ('requeue', '--receiver', ''), ('send', 'a.json', '--to', ''), ('send', '--to', '='),
    ('requeue', '--receiver', '=', ''),
])
def test_receivers_come_from_the_configuration(shell, words):
    config = str(shell.config).replace(' ', '\\ ')
    assert shell.offered('-c', config, *words) == ['orders', 'rest.1']
    assert shell.offered('-c', '"%s"' % shell.config, *words) == ['orders', 'rest.1']
    assert shell.offered('-c' + config, *words) == ['orders', 'rest.1']


def test_the_configuration_may_be_named_behind_the_command_and_from_home(shell):
    assert shell.offered('flush', '-c', '~/the\\ envio.conf', 'o') == ['orders']
    assert shell.offered('-c', '/nonexistent', 'flush', '') == []


def test_rejected_files_come_from_all_spools_without_their_reason_files(shell):
    shell.rejected('orders-1.json')
    shell.rejected('orders-2.json', 1)
    shell.rejected('stock.csv', 2)
    shell.spools[0].join('error', 'folder').ensure(dir=True)
    config = '"%s"' % shell.config
    assert shell.offered('-c', config, 'requeue', '') == ['orders-1.json', 'orders-2.json', 'stock.csv']
    assert shell.offered('-c', config, 'requeue', 'stock.csv', 'orders-2') == ['orders-2.json']
    assert shell.offered('-c', config, 'requeue', 'nothing') == []


def test_odd_names_are_quoted_so_that_bash_reads_them_back(shell):
    names = ['a b.json', "it's.json", '12:30=x.json', '$(touch x)', '*.json']
    for name in names:
        shell.rejected(name)
    config = '"%s"' % shell.config
    offered = shell.offered('-c', config, 'requeue', '')
    read_back = subprocess.Popen([which('bash'), '-c', 'printf "%s\\n" ' + ' '.join(offered)], stdout=subprocess.PIPE,
                                 universal_newlines=True).communicate()[0]
    assert sorted(read_back.split('\n')[:-1]) == sorted(names)
    shell.rejected('-x')
    assert shell.offered('-c', config, 'requeue', 'e') == ['error/-x']
    assert shell.offered('-c', config, 'requeue', 'a\\ ') == ['a\\ b.json']
    assert shell.offered('-c', config, 'requeue', '"a ') == ['a b.json']
    assert shell.offered('-c', config, 'requeue', "'12:") == ['12:30=x.json']
    assert shell.offered('-c', config, 'requeue', '12\\:3') == ['12\\:30\\=x.json']


def test_help_offers_the_pages_and_the_keys_that_this_envio_knows(shell):
    assert shell.offered('help', '') == ['conf', 'man1', 'man5'] + sorted(set([s.name for s in settings.SETTINGS]))
    assert shell.offered('help', 'retry_') == ['retry_max_pause', 'retry_pause']
    shell.program.remove()
    assert shell.offered('help', '') == ['conf', 'man1', 'man5']


def test_it_is_there_for_the_word_envio():
    child = subprocess.Popen([which('bash'), '-c', '. "$1"; complete -p envio', 'bash', SCRIPT], stdout=subprocess.PIPE)
    assert child.communicate()[0] == b'complete -o default -F _envio envio\n'
