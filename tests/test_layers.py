"""The shape of agent/ that docs/design.md promises, read off its source: layers, purity, sizes, versions."""

import ast
import os

import pytest

from tests.conftest import ROOT

# From low to high. A file imports files of lower rows, and those before it in its own row.
ROWS = (
    'compat errors records text',
    'rules ip certificates proxies settings man1 man5 reference config router classify '
    'backoff breaker lane lanes',  # pure
    'wakeup inotify folders moves leftovers spool appender logs request bodies reasons answers credentials streams '
    'tls ratelimit kept resources places curl_program connection native curl transports',  # input and output
    'collector delivery stats state journal metrics workers engine',
    'console privileges daemon abilities probe progress summary requeue sending health status listing report '
    'receiver_rules receiver_tls receiver demo cli',
    '__main__',
)
ORDER = ' '.join(ROWS).split()
PURE = ROWS[1].split() + ['receiver_rules']
WORLD = set('time socket threading random subprocess select signal ssl fcntl tempfile shutil thread _thread'.split())
WORLD_OF_COMPAT = set(['monotonic', 'scan_names'])
READS_ITS_PLUGIN = 'router'  # and first looks who else can write to it: all of os is open to it
VERSION_NAMES = set(['PY2', 'PY3', 'version_info', 'hexversion'])
VERSION_FILES = ('compat', '__main__')
LONGEST_FILE = 400
LONGEST_FUNCTION = 50


def present():
    return sorted(name[:-3] for name in os.listdir(os.path.join(ROOT, 'agent'))
                  if name.endswith('.py') and name != '__init__.py')


def source(name):
    with open(os.path.join(ROOT, 'agent', name + '.py'), 'rb') as page:
        return page.read()


def imports(tree):
    """Yield (module, name) of every import, wherever it stands: ('os', None), ('agent', 'compat')."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, 'line %d: a relative import: write `from agent import ...`' % node.lineno
            for alias in node.names:
                yield node.module, alias.name


def own_imports(tree):
    """Return the names of the agent's files that the source imports."""
    found = set()
    for module, name in imports(tree):
        if module.startswith('agent.'):
            found.add(module.split('.')[1])
        elif module == 'agent' and not (name or '').startswith('__'):
            found.add(name)
    return found


def too_high(name, tree):
    return sorted(other for other in own_imports(tree) if other not in ORDER[:ORDER.index(name)])


def impurities(tree):
    """Return what the source imports or uses that only the layers above the pure one may: of os, only os.path."""
    found = set()
    for module, name in imports(tree):
        if module.split('.')[0] in WORLD:
            found.add(module)
        elif module == 'agent.compat' and name in WORLD_OF_COMPAT:
            found.add('compat.' + name)
        elif module == 'os' and name not in (None, 'path'):
            found.add('os.' + name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == 'os' and node.attr != 'path':
                found.add('os.' + node.attr)
            elif node.value.id == 'compat' and node.attr in WORLD_OF_COMPAT:
                found.add('compat.' + node.attr)
    return sorted(found)


def long_functions(tree):
    """Return `name: N lines` of each function over the limit, its first line and docstring included."""
    found = []
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            lines = [getattr(node, 'end_lineno', None) or getattr(node, 'lineno', 0) for node in ast.walk(function)]
            length = max(lines) - function.lineno + 1
            if length > LONGEST_FUNCTION:
                found.append('%s: %d lines' % (function.name, length))
    return found


def version_questions(tree):
    """Return the lines that ask which Python this is."""
    found = []
    for node in ast.walk(tree):
        names = [getattr(node, 'attr', None), getattr(node, 'id', None)]
        if isinstance(node, ast.ImportFrom):
            names += [alias.name for alias in node.names]
        if VERSION_NAMES.intersection(names):
            found.append(node.lineno)
    return found


def test_every_file_has_its_place_in_the_table():
    assert [name for name in present() if name not in ORDER] == []


def test_every_file_of_the_table_exists():
    assert [name for name in ORDER if name not in present()] == []


@pytest.mark.parametrize('name', [name for name in present() if name in ORDER])
def test_a_file_imports_lower_layers_alone(name):
    assert too_high(name, ast.parse(source(name))) == []


@pytest.mark.parametrize('name', [name for name in present() if name in PURE])
def test_a_pure_file_has_no_clock_no_chance_no_thread_and_no_input_or_output(name):
    found = impurities(ast.parse(source(name)))
    assert [part for part in found if name != READS_ITS_PLUGIN or not part.startswith('os.')] == []


@pytest.mark.parametrize('name', present())
def test_files_and_functions_are_short(name):
    text = source(name)
    assert len(text.splitlines()) <= LONGEST_FILE
    assert long_functions(ast.parse(text)) == []


@pytest.mark.parametrize('name', [name for name in present() if name not in VERSION_FILES])
def test_only_compat_asks_for_the_version_of_python(name):
    assert version_questions(ast.parse(source(name))) == []


@pytest.mark.parametrize('name', ['__init__'] + present())
def test_sources_are_ascii_as_python_2_wants_them(name):
    lines = source(name).splitlines()
    assert [line for line in lines if max(bytearray(line or b' ')) > 126] == []


@pytest.mark.parametrize('name', [name for name in present() if name != '__main__'])
def test_no_file_has_the_name_of_a_module_of_python(name):
    # On Python 2 a file of the package comes before the library for every `import name` within the package.
    library = os.path.join(os.path.dirname(os.__file__), name)
    assert not os.path.exists(library + '.py') and not os.path.exists(os.path.join(library, '__init__.py'))


def test_the_checks_above_see_what_they_look_for():
    assert too_high('lanes', ast.parse('from agent import lanes, text, workers\nimport agent.cli')) == [
        'cli', 'lanes', 'workers']
    assert too_high('text', ast.parse('def late():\n    from agent.breaker import Breaker')) == ['breaker']
    assert too_high('breaker', ast.parse('from agent import __version__, backoff')) == []
    assert impurities(ast.parse('import time\nfrom socket import socket\nfrom agent.compat import monotonic')) == [
        'compat.monotonic', 'socket', 'time']
    assert impurities(ast.parse('import os\nos.path.join()\nos.listdir()')) == ['os.listdir']
    long_one = 'def f():\n' + '    pass\n' * LONGEST_FUNCTION
    assert long_functions(ast.parse(long_one)) == ['f: 51 lines']
    assert long_functions(ast.parse(long_one.replace('    pass\n', '', 1))) == []
    assert version_questions(ast.parse('import sys\n\nif sys.version_info > (3,): pass')) == [3]
    with pytest.raises(AssertionError):
        list(imports(ast.parse('from . import text')))
