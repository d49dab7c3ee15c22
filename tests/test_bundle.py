"""bin/bundle.py: what it makes is complete, is the same on every Python, and runs where there is nothing else."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from agent import __version__, demo
from tests import roots
from tests.conftest import ROOT
from tests.programs import find
from tests.test_launcher import CRON, SHELLS, run, which

PARTS = ('agent', 'bin', 'conf', 'docs', 'init.d')
PAGES = ('CHANGES.md', 'LICENSE', 'README.md')
TOP = 'envio-' + __version__
GIT = ['git', '-c', 'user.name=x', '-c', 'user.email=x@localhost', '-c', 'core.hooksPath=/dev/null']
COMMITTED = 1764000001
MAKERS = (('dpkg-deb', 'deb', 'envio_%s_all.deb' % __version__), ('rpmbuild', 'rpm', TOP + '-1.noarch.rpm'))
OTHERS = ('python3.13', 'python3.8', 'python2.7', 'python3', 'python2.6')  # one that is not the one under test

# In an empty root: arguments for Envio are put to both, the unpacked tree and the single file.
EMPTY_ROOT = r'''
! touch /usr/new 2>/dev/null || exit 91
ip link set lo up
mkdir "/srv/any where" /srv/spool /srv/got
cd "/srv/any where"
tar xzf ../%(top)s.tar.gz
tree="/srv/any where/%(top)s/bin/envio"
printf '[agent]\nspool = /srv/spool\nsettle = 0\n[receiver:r]\nmatch = *\n' >/srv/conf
printf 'url = http://127.0.0.1:8080/{name}\n' >>/srv/conf
("$tree" demo >/tmp/demo.tree || echo demo: $?) &
(%(python)s ../%(top)s.pyz demo >/tmp/demo.pyz || echo demo: $?) &
sh ../%(top)s.pyz receiver --port 8080 --dir /srv/got >/dev/null 2>&1 &
until "$tree" -c /srv/conf check --connect >/dev/null 2>&1; do sleep 0.1; done
for envio in "$tree" "../%(top)s.pyz"; do
    "$envio" version
    "$envio" -c /srv/conf check
    head -c 100000 /dev/urandom >/srv/file
    name=$(md5sum </srv/file | cut -d ' ' -f 1)
    cp /srv/file "/srv/spool/$name"
    "$envio" -c /srv/conf once
    cmp /srv/file "/srv/got/$name"
    [ -f /srv/spool/sent/*/"$name" ] && [ ! -f "/srv/spool/$name" ] && echo "sent by $envio"
done
kill $!
wait
tail -n 1 /tmp/demo.tree /tmp/demo.pyz
'''


def build(tree, *kinds, **options):
    """Run bin/bundle.py of a tree; return its standard error."""
    python = options.pop('python', sys.executable)
    child = subprocess.Popen([python, os.path.join(tree, 'bin', 'bundle.py')] + list(kinds), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, universal_newlines=True, **options)
    out, err = child.communicate()
    assert (child.returncode, [line for line in out.split('\n') if line and not os.path.isfile(line)]) == (0, []), err
    return err


def made(tree):
    """Return {name: bytes} of what a tree's dist/ has."""
    folder = os.path.join(tree, 'dist')
    return dict([(name, open(os.path.join(folder, name), 'rb').read()) for name in os.listdir(folder)])


def kinds():
    return [kind for program, kind, _ in MAKERS if find(program)]


def checkout(folder):
    """Copy this tree, as git would take it, into a repository of its own; return its path."""
    tree = os.path.join(str(folder), 'tree')
    for part in PARTS:
        if os.path.isdir(os.path.join(ROOT, part)):
            shutil.copytree(os.path.join(ROOT, part), os.path.join(tree, part),
                            ignore=shutil.ignore_patterns('*.pyc', '__pycache__'))
    for page in PAGES + ('.gitignore',):
        shutil.copy(os.path.join(ROOT, page), tree)
    when = '%d +0000' % COMMITTED
    surroundings = dict(os.environ, GIT_AUTHOR_DATE=when, GIT_COMMITTER_DATE=when)
    for words in (['init', '-q'], ['add', '-A'], ['commit', '-q', '-m', 'all']):
        assert subprocess.call(GIT + words, cwd=tree, env=surroundings) == 0
    return tree


_built = []


@pytest.fixture(scope='session')
def bundle(tmpdir_factory):
    """The path of a committed copy of this tree, with all that can be made here in its dist/."""
    if not find('git'):
        pytest.skip('there is no git on this machine')
    if not _built:  # each file that imports this has a fixture of its own
        tree = checkout(tmpdir_factory.mktemp('bundle'))
        assert 'bundle: ' not in build(tree, *kinds())  # rpmbuild warns of absolute links
        _built.append(tree)
    return _built[0]


@pytest.fixture
def pyz(bundle):
    return os.path.join(bundle, 'dist', TOP + '.pyz')


def test_the_archive_has_what_a_host_needs_and_nothing_else(bundle):
    archive = tarfile.open(os.path.join(bundle, 'dist', TOP + '.tar.gz'))
    members = archive.getmembers()
    archive.close()
    names = [member.name for member in members]
    assert names == sorted(names) and names[0] == TOP
    assert set([name.split('/')[1] for name in names[1:]]) == set(os.listdir(bundle)) & set(PARTS + PAGES)
    on_disk = [os.path.relpath(os.path.join(folder, name), ROOT) for part in PARTS
               for folder, _, files in os.walk(os.path.join(ROOT, part)) for name in files]
    kept = [name for name in on_disk if not name.endswith('.pyc') and name != 'bin/bundle.py']
    wanted = kept + list(PAGES) + ['conf/envio.conf.full', 'docs/man/envio.1', 'docs/man/envio.conf.5']
    assert sorted([TOP + '/' + name for name in wanted]) == [one.name for one in members if one.isfile()]
    for member in members:
        runs = member.isdir() or member.name[len(TOP):] in ('/bin/envio', '/bin/install.sh', '/init.d/envio')
        assert (member.mode, member.uid, member.gid, member.mtime) == (
            0o755 if runs else 0o644, 0, 0, COMMITTED), member.name


def test_the_same_commit_gives_the_same_bytes_on_another_python(bundle, tmpdir):
    clone = str(tmpdir.join('clone'))
    old = os.umask(0o077)
    try:
        assert subprocess.call(GIT + ['clone', '-q', bundle, clone]) == 0
    finally:
        os.umask(old)
    mine = 'python%d.%d' % sys.version_info[:2]
    other = [find(name) for name in OTHERS if name != mine and find(name)
             and subprocess.call([find(name), '-c', 'import zipfile, zlib'], stderr=subprocess.PIPE) == 0][:1]
    said = build(clone, *kinds(), **{'python': (other or [sys.executable])[0],
                                     'env': dict(os.environ, TZ='Asia/Tokyo', LC_ALL='C')})
    assert 'bundle: ' not in said
    assert sorted(made(clone)) == sorted(made(bundle))
    assert [name for name, content in made(clone).items() if made(bundle)[name] != content] == []


def test_without_git_a_tree_gives_them_too(bundle, tmpdir):
    tree = str(tmpdir.join('tree'))
    shutil.copytree(bundle, tree, ignore=shutil.ignore_patterns('.git', 'dist'))
    tmpdir.join('tree', 'agent', 'compiled.pyc').write('x')
    build(tree, env=dict(os.environ, SOURCE_DATE_EPOCH=str(COMMITTED)))
    assert sorted(made(tree)) == [TOP + '.pyz', TOP + '.tar.gz']
    assert [name for name, content in made(tree).items() if made(bundle)[name] != content] == []


def test_what_is_not_committed_is_said(bundle, tmpdir):
    clone = str(tmpdir.join('clone'))
    assert subprocess.call(GIT + ['clone', '-q', bundle, clone]) == 0
    tmpdir.join('clone', 'agent', 'new.py').write('x = 1\n')
    tmpdir.join('clone', 'agent', 'old.pyc').write('x')
    assert build(clone).startswith('bundle: not as committed: ?? agent/new.py\n')
    names = zipfile.ZipFile(os.path.join(clone, 'dist', TOP + '.pyz')).namelist()
    assert 'agent/new.py' in names and 'agent/old.pyc' not in names


@pytest.mark.parametrize('shell', SHELLS, ids=' '.join)
def test_every_shell_runs_the_single_file_with_the_python_it_is_told(pyz, shell, tmpdir):
    path = which(shell[0])
    if path is None:
        pytest.skip('%s is not installed' % shell[0])
    link = tmpdir.join('a link')
    link.mksymlinkto(pyz)
    code, out, err = run([path] + list(shell[1:]) + [str(link), 'version'], PATH=CRON, ENVIO_PYTHON=sys.executable)
    assert (code, err, out.split('\n')[0]) == (0, '', 'envio ' + __version__)
    assert 'Python %s (%s)' % (sys.version.split()[0], sys.executable) in out
    code, _, err = run([path] + list(shell[1:]) + [str(link), 'route', "it's", '-c', '/no such'], PATH=CRON,
                       ENVIO_PYTHON=sys.executable)
    assert (code, err.startswith('envio: /no such: ')) == (78, True)


def test_the_single_file_runs_by_its_name_and_by_a_python(pyz, tmpdir):
    shutil.copy(pyz, str(tmpdir.join('envio')))
    path = '%s:%s' % (tmpdir, CRON)
    for command in (['sh', '-c', 'envio version'], [sys.executable, str(tmpdir.join('envio')), 'version']):
        code, out, err = run(command, PATH=path, ENVIO_PYTHON=sys.executable)
        assert (code, err, out.split('\n')[0]) == (0, '', 'envio ' + __version__)


def test_the_single_file_drops_to_the_account_that_is_named(pyz):
    if os.getuid() != 0:
        pytest.skip('a change of account takes root')
    # A module is not a file that can be opened: what is looked at has to be the archive.
    source = 'import sys; sys.path.insert(0, sys.argv[1]); from agent import privileges; print(privileges.closed())'
    assert run([sys.executable, '-c', source, pyz]) == (0, '[]\n', '')


def test_the_demo_shows_all_its_examples():
    assert sorted(demo.EXAMPLES) == sorted(os.listdir(os.path.join(ROOT, 'agent', 'examples')))


def test_it_runs_in_an_empty_root_with_a_read_only_usr(bundle, tmpdir):
    if roots.absent():
        pytest.skip(roots.absent())
    root = roots.empty(tmpdir.mkdir('root'))
    for name in ('tar.gz', 'pyz'):
        shutil.copy(os.path.join(bundle, 'dist', '%s.%s' % (TOP, name)), root.path('srv'))
    code, said = root.run(EMPTY_ROOT % {'top': TOP, 'python': roots.NAME})
    assert code == 0, said
    assert said.count('sent by ') == said.count('envio ' + __version__) == said.count('\nas expected\n') == 2, said
    assert said.count('Python %s (/usr/bin/%s)' % (sys.version.split()[0], roots.NAME)) == 2, said
