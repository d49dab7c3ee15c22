"""bin/envio: finds its tree and a Python that can run it, in every shell of this machine; agent/__main__.py likewise.

Each test works on a copy of the tree whose cli.py only tells how it was called. No PATH here but the test's own.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from agent import compat
from tests.conftest import ROOT

CRON = '/usr/bin:/bin'
SHELLS = (('sh',), ('dash',), ('bash', '--posix'), ('busybox', 'sh'), ('mksh',))
TELL = """\
from __future__ import absolute_import
import json, sys
def main(argv=None):
    sys.stdout.write(json.dumps([sys.executable, sys.path[0], sys.argv[1:], __file__]))
    return 3
"""


def write(path, text, mode=0o644):
    with open(str(path), 'w') as page:
        page.write(text)
    os.chmod(str(path), mode)
    return str(path)


def which(name):
    for folder in (CRON + ':/usr/local/bin').split(':'):
        if os.access(os.path.join(folder, name), os.X_OK):
            return os.path.join(folder, name)
    return None


def run(command, cwd='/', **environment):
    """Return exit code, standard output and standard error of `command` with exactly this environment."""
    child = subprocess.Popen(command, cwd=str(cwd), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    out, err = [compat.fs_native(raw) for raw in child.communicate()]  # names of files, whatever the locale
    return child.returncode, out, err


def told(result):
    """Return what the stub of cli.py told: interpreter, first folder of the path, arguments, its own file."""
    assert (result[0], result[2]) == (3, '')
    return json.loads(result[1])


def nowhere_else(tree):
    """Keep the launcher from the interpreters that this machine has beside PATH."""
    launcher = tree.join('bin', 'envio')
    text, times = re.subn("(?m)^elsewhere='.*' #", "elsewhere='/nonexistent' #", launcher.read())
    assert times == 1
    launcher.write(text)


def fake(folder, name, version, answers=True):
    """Put a script that passes for a Python into `folder`: it answers a trial (or not), and names itself."""
    folder.ensure(dir=True)
    return write(folder.join(name), '#!/bin/sh\n[ "$1" = -E ] && exit %d\necho "%s $*"\n'
                 % (42 if answers else 1, version), 0o755)


@pytest.fixture
def tree(tmpdir):
    copy = tmpdir.join('a tree with blanks')
    shutil.copytree(os.path.join(ROOT, 'bin'), str(copy.join('bin')))
    copy.mkdir('agent')
    for name in ('__init__.py', '__main__.py'):
        shutil.copy(os.path.join(ROOT, 'agent', name), str(copy.join('agent')))
    write(copy.join('agent', 'cli.py'), TELL)
    return copy


@pytest.fixture(params=SHELLS, ids=' '.join)
def shell(request):
    path = which(request.param[0])
    if path is None:
        pytest.skip('%s is not installed' % request.param[0])
    return [path] + list(request.param[1:])


def test_every_shell_passes_arguments_and_exit_code_through(tree, shell):
    arguments = ['route', 'a name', '', '*', '--', "it's"]
    answer = told(run(shell + [str(tree.join('bin', 'envio'))] + arguments, PATH=CRON, ENVIO_PYTHON=sys.executable))
    assert answer[2] == arguments
    assert answer[3].startswith(os.path.realpath(str(tree)))


def test_it_is_found_through_chains_of_links_from_any_folder(tree, shell, tmpdir):
    away = tmpdir.mkdir('away').mkdir('sub')
    away.join('absolute').mksymlinkto(str(tree.join('bin', 'envio')))
    away.join('relative').mksymlinkto('../../a tree with blanks/bin/envio')
    tmpdir.join('chain').mksymlinkto('away/sub/relative')
    tmpdir.join('linked folder').mksymlinkto(str(tree.join('bin')))
    for path in ('away/sub/absolute', './away/sub/relative', 'chain', str(tmpdir.join('linked folder', 'envio'))):
        answer = told(run(shell + [path, 'version'], tmpdir, PATH=CRON, ENVIO_PYTHON=sys.executable))
        assert answer[1] == os.path.realpath(str(tree))


def test_it_runs_by_its_name_alone(tree):
    linked = tree.mkdir('local')
    linked.join('envio').mksymlinkto('../bin/envio')
    answer = told(run(['/bin/sh', '-c', 'envio version'], PATH='%s:%s' % (linked, CRON), ENVIO_PYTHON=sys.executable))
    assert answer[2] == ['version']


def test_nothing_inherited_leads_it_astray(tree, tmpdir):
    answer = told(run([str(tree.join('bin', 'envio'))], tmpdir, PATH=CRON, ENVIO_PYTHON=sys.executable, home='/tmp',
                      python='/bin/false', IFS='/', CDPATH='/', start='x', bin='/bin', self='/bin/sh'))
    assert answer[1] == os.path.realpath(str(tree))


def test_the_newest_python_is_taken_whatever_comes_first_on_path(tree, shell, tmpdir):
    nowhere_else(tree)
    fake(tmpdir.join('one'), 'python3.9', '3.9')
    fake(tmpdir.join('one'), 'python2.7', '2.7')
    fake(tmpdir.join('two'), 'python3.10', '3.10')
    path = '%s:%s' % (tmpdir.join('one'), tmpdir.join('two'))
    code, out, err = run(shell + [str(tree.join('bin', 'envio')), 'x'], PATH=path)
    assert (code, out, err) == (0, '3.10 %s x\n' % tree.join('agent'), '')


def test_a_script_that_does_not_answer_is_passed_over(tree, shell, tmpdir):
    nowhere_else(tree)
    fake(tmpdir.join('shims'), 'python3.13', '3.13', answers=False)
    write(tmpdir.join('shims', 'python3.12'), '', 0o755)
    write(tmpdir.join('shims', 'python3.11'), 'no program', 0o644)
    tmpdir.join('shims', 'python3.10').ensure(dir=True)
    fake(tmpdir.join('shims'), 'python3', 'too old', answers=False)
    fake(tmpdir.join('shims'), 'python2.6', '2.6')
    code, out, _ = run(shell + [str(tree.join('bin', 'envio'))], PATH=str(tmpdir.join('shims')))
    assert (code, out) == (0, '2.6 %s\n' % tree.join('agent'))


def test_a_real_interpreter_is_not_tried_first(tree, tmpdir):
    nowhere_else(tree)
    tmpdir.mkdir('only').join('python%d.%d' % sys.version_info[:2]).mksymlinkto(os.path.realpath(sys.executable))
    text = tree.join('bin', 'envio').read()
    assert text.count('    "$python" -E') == 1
    tree.join('bin', 'envio').write(text.replace('    "$python" -E', '    echo tried >&2; "$python" -E'))
    assert told(run(['/bin/sh', str(tree.join('bin', 'envio'))], PATH=str(tmpdir.join('only'))))[2] == []


@pytest.mark.parametrize('path', ['', '/nonexistent', ':', '/tmp/*/[x:y]'])
def test_no_python_at_all_is_said_in_a_sentence(tree, shell, path):
    nowhere_else(tree)
    code, out, err = run(shell + [str(tree.join('bin', 'envio')), 'run'], PATH=path)
    assert (code, out, err.count('\n')) == (78, '', 1)
    assert err.startswith('envio: python: ')


@pytest.mark.parametrize('python', ['/nonexistent/python3', 'python9.9', '/bin/sh', '/bin/true', '/usr', 'a b', '*'])
def test_an_unusable_envio_python_is_refused_not_replaced(tree, shell, python):
    code, out, err = run(shell + [str(tree.join('bin', 'envio')), 'run'], PATH=CRON, ENVIO_PYTHON=python)
    assert (code, out) == (78, '')
    assert err.startswith('envio: ENVIO_PYTHON=%s: ' % python) and err.count('\n') == 1


def test_envio_python_may_be_a_name_on_path(tree, shell, tmpdir):
    folder = tmpdir.join('some where')
    fake(folder, 'my python', 'mine')
    code, out, _ = run(shell + [str(tree.join('bin', 'envio'))], PATH=str(folder), ENVIO_PYTHON='my python')
    assert (code, out) == (0, 'mine %s\n' % tree.join('agent'))


def test_a_launcher_without_its_tree_says_so(tree, shell):
    shutil.rmtree(str(tree.join('agent')))
    code, _, err = run(shell + [str(tree.join('bin', 'envio'))], PATH=CRON)
    assert code == 78
    assert 'keep bin/ and agent/ together' in err and err.count('\n') == 1


def test_modules_of_the_agent_do_not_pass_for_others(tree):
    write(tree.join('agent', 'json.py'), 'raise RuntimeError("this is not json")\n')
    assert told(run([sys.executable, str(tree.join('agent'))], PATH=CRON))[1] == os.path.realpath(str(tree))


def test_it_runs_as_a_module(tree):
    module = 'agent' if sys.version_info >= (2, 7) else 'agent.__main__'  # 2.6 runs no packages
    answer = told(run([sys.executable, '-m', module, 'version'], tree, PATH=CRON))
    assert answer[1:3] == [os.path.realpath(str(tree)), ['version']]


def test_an_unsupported_python_is_told_so_in_a_sentence(tree):
    main = tree.join('agent', '__main__.py')
    text = main.read()
    assert text.count('import sys\n') == 1
    main.write(text.replace('import sys\n', 'import sys\nsys.version_info = (3, 4, 10)\n'))
    code, out, err = run([sys.executable, str(tree.join('agent'))], PATH=CRON)
    assert (code, out, err.count('\n')) == (78, '', 1)
    assert err.startswith('envio: ')


def test_the_tree_as_it_is_tells_its_version():
    if not os.path.exists(os.path.join(ROOT, 'agent', 'cli.py')):
        pytest.skip('agent/cli.py is not written yet')
    code, out, err = run([os.path.join(ROOT, 'bin', 'envio'), 'version'], PATH=CRON, ENVIO_PYTHON=sys.executable,
                         PYTHONDONTWRITEBYTECODE='1')
    assert (code, err) == (0, '')
    assert '0.1' in out


def test_the_launcher_is_clean_under_checkbashisms():
    if which('checkbashisms') is None:
        pytest.skip('checkbashisms is not installed')
    assert run([which('checkbashisms'), os.path.join(ROOT, 'bin', 'envio')], PATH=CRON) == (0, '', '')
