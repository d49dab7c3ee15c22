"""bin/install.sh: into place, again, upgraded, away again; below a folder in every shell, and for real in a root of its
own. The packages, which are made by it, with the system's own tools."""

import os
import re
import shutil
import stat
import subprocess

import pytest

from tests import nobody, roots, test_launcher
from tests.conftest import ROOT
from tests.programs import find
from tests.test_bundle import MAKERS, PAGES, PARTS, TOP, bundle, kinds  # noqa: F401 (bundle is a fixture)

shell = test_launcher.shell

PATH = '/usr/sbin:/usr/bin:/sbin:/bin'
OUTSIDE = ('/etc/default/envio', '/etc/logrotate.d/envio', '/etc/init.d/envio')

# In a root of its own: all that is in it but what the kernel and Python's caches of `envio` change.
LISTING = r'''
list() { (find /etc /opt /var /usr/local -exec ls -ldi --time-style=full-iso {} + 2>/dev/null ||
    find /etc /opt /var -exec ls -ldie {} +) | sort; }
'''
BY_HAND = LISTING + r'''
/srv/tree/bin/install.sh
id envio
ls -ld /etc/envio /etc/envio/envio.conf /var/spool/envio /var/log/envio /opt/envio/versions
list >/tmp/before
/srv/tree/bin/install.sh
/opt/envio/bin/install.sh
list >/tmp/after
cmp /tmp/before /tmp/after && echo nothing changed
[ -n "$(find /opt/envio/current/agent/ -name 'cli*.pyc')" ] && echo compiled
/opt/envio/bin/envio check
'''
DAEMON = r'''
mkdir -p /var/run
echo "PYTHON=%(python)s" >>/etc/default/envio
/etc/init.d/envio start
/etc/init.d/envio status
ps -o user= -p "$(cat /var/run/envio/envio.pid)"
/srv/tree/bin/install.sh --uninstall && exit 92
/etc/init.d/envio stop
/srv/tree/bin/install.sh --uninstall
/srv/tree/bin/install.sh --uninstall
ls -d /etc/envio/envio.conf /var/spool/envio /var/spool/envio/.envio /var/log/envio /etc/default/envio
ls -d /opt/envio /usr/local/bin/envio /etc/init.d/envio /etc/logrotate.d/envio 2>&1 | grep -v 'No such' && exit 93
id envio
'''
PACKAGE = r'''
%(install)s
/usr/bin/envio version
/usr/bin/envio check
echo "PYTHON=%(python)s" >>/etc/default/envio
mkdir -p /var/run
/etc/init.d/envio start
before=$(cat /var/run/envio/envio.pid)
%(again)s
/etc/init.d/envio status
[ "$before" != "$(cat /var/run/envio/envio.pid)" ]
echo '# mine' >>/etc/envio/envio.conf
touch /var/spool/envio/waiting
%(remove)s
ls /var/spool/envio/waiting
[ ! -e /var/run/envio/envio.pid ]
grep mine /etc/envio/envio.conf*
ls -d /opt/envio/versions /usr/bin/envio 2>&1 | grep -v 'No such' && exit 93
id envio
'''
INSTALL = {'deb': 'mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates; : >/var/lib/dpkg/status\n'
                  'dpkg -i --force-depends /srv/package',
           'rpm': 'mkdir -p /var/lib/rpm; rpm -i --nodeps /srv/package'}
AGAIN = {'deb': 'dpkg -i --force-depends /srv/package', 'rpm': 'rpm -U --force --nodeps /srv/package'}
REMOVE = {'deb': 'dpkg -r envio', 'rpm': 'rpm -e envio'}


def install(shell, tree, destination, *words):
    """Run install.sh below a folder; return what it says."""
    child = subprocess.Popen(list(shell) + [os.path.join(tree, 'bin', 'install.sh')] + list(words), cwd='/',
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
                             env={'PATH': PATH, 'DESTDIR': destination})
    said = child.communicate()[0]
    assert child.returncode == 0, said
    return said


def listing(folder):
    """Return {path: what it is, to the nanosecond} of all below a folder."""
    found = {}
    for where, folders, files in os.walk(folder):
        for path in [where] + [os.path.join(where, name) for name in folders + files]:
            status = os.lstat(path)
            found[path[len(folder):]] = (status.st_mode, status.st_ino, status.st_mtime, status.st_ctime)
    return found


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def append(path, text):
    with open(path, 'a') as page:
        page.write(text)


@pytest.fixture
def tree(tmpdir):
    """A copy of what a bundle unpacks to."""
    copy = str(tmpdir.join('tree'))
    for part in PARTS:
        if os.path.isdir(os.path.join(ROOT, part)):
            shutil.copytree(os.path.join(ROOT, part), os.path.join(copy, part),
                            ignore=shutil.ignore_patterns('*.pyc', '__pycache__'))
    for page in PAGES:
        shutil.copy(os.path.join(ROOT, page), copy)
    return copy


@pytest.fixture
def root(tmpdir, tree):
    """Make a root of one kind with the tree in it."""
    if roots.absent():
        pytest.skip(roots.absent())

    def make(kind):
        made = kind(tmpdir.mkdir('root'))
        shutil.copytree(tree, made.path('srv/tree'))
        return made
    return make


def test_it_puts_all_into_place_keeps_what_is_yours_and_takes_the_rest_away(shell, tree, tmpdir):
    to = str(tmpdir.join('to'))
    said = install(shell, tree, to)
    assert 'nothing was started' in said
    assert [mode(to + path) for path in ('/opt/envio', '/etc/envio', '/etc/envio/envio.conf', '/var/spool/envio',
                                         '/var/log/envio')] == [0o755, 0o750, 0o640, 0o2770, 0o750]
    assert 'user = envio\n' in open(to + '/etc/envio/envio.conf').read()
    assert mode(to + '/etc/init.d/envio') == 0o755
    assert os.readlink(to + '/usr/local/bin/envio') == '/opt/envio/bin/envio'
    before = listing(to)
    assert install(shell, tree, to) == 'install.sh: %s is in /opt/envio already: nothing changed\n' % TOP[6:]
    assert listing(to) == before

    append(to + '/etc/envio/envio.conf', '# mine\n')
    append(to + '/etc/default/envio', '# mine\n')
    append(to + '/etc/init.d/envio', '# a bug\n')
    os.chmod(to + '/var/spool/envio', 0o2775)
    install(shell, tree, to)
    assert [open(to + path).read().split('\n')[-2] for path in ('/etc/envio/envio.conf', '/etc/default/envio')] == [
        '# mine'] * 2
    assert '# a bug' not in open(to + '/etc/init.d/envio').read()
    assert mode(to + '/var/spool/envio') == 0o2775

    said = install(shell, tree, to, '--uninstall')
    assert 'left as they are: /etc/default/envio /etc/envio /var/spool/envio /var/log/envio, and the account' in said
    files = [os.path.join(where, name)[len(to):] for where, folders, names in os.walk(to) for name in names
             + [name for name in folders if os.path.islink(os.path.join(where, name))]]
    assert sorted(files) == ['/etc/default/envio', '/etc/envio/envio.conf']
    assert os.path.isdir(to + '/var/spool/envio')
    before = listing(to)
    install(shell, tree, to, '--uninstall')
    assert listing(to) == before


def test_a_running_agent_keeps_its_files_when_a_newer_version_comes(tree, tmpdir):
    to, versions = str(tmpdir.join('to')), []
    for number in range(3):
        append(os.path.join(tree, 'agent', '__init__.py'), '\n__version__ = "2.%d"\n' % number)
        install(['/bin/sh'], tree, to, '/opt/my-envio')
        versions.append(os.path.realpath(to + '/opt/my-envio/current'))
        assert os.path.realpath(to + '/opt/my-envio/bin') == versions[-1] + '/bin'
        assert sorted(os.listdir(to + '/opt/my-envio/versions')) == sorted(
            [os.path.basename(version) for version in versions[-2:]])
    assert len(set(versions)) == 3
    unit = open(to + '/etc/systemd/system/envio.service').read()
    assert 'ExecStart=/opt/my-envio/bin/envio ' in unit and '/opt/envio/' not in unit


def test_a_damaged_tree_is_mended(tree, tmpdir):
    to = str(tmpdir.join('to'))
    install(['/bin/sh'], tree, to)
    append(to + '/opt/envio/current/agent/engine.py', 'broken')
    os.remove(to + '/opt/envio/bin')
    assert 'nothing changed' not in install(['/bin/sh'], tree, to)
    assert 'broken' not in open(to + '/opt/envio/current/agent/engine.py').read()
    assert os.path.isfile(to + '/opt/envio/bin/envio')


def test_what_others_can_not_read_in_the_tree_they_can_in_its_place(tree, tmpdir):
    to = str(tmpdir.join('to'))
    os.chmod(os.path.join(tree, 'agent'), 0o700)
    os.chmod(os.path.join(tree, 'agent', 'cli.py'), 0o600)
    os.chmod(os.path.join(tree, 'agent', 'engine.py'), 0o666)
    install(['/bin/sh'], tree, to)
    agent = to + '/opt/envio/current/agent'
    assert [mode(path) for path in (agent, agent + '/cli.py', agent + '/engine.py')] == [0o755, 0o644, 0o644]


@pytest.mark.parametrize('words, code, sentence', [
    (['--help'], 2, 'usage: '), (['/a', '/b'], 2, 'usage: '), (['opt'], 2, 'opt: use an absolute path'),
    (['/opt/../etc'], 2, 'use an absolute'), (['/with blank'], 2, 'use an absolute'),
    (['/taken'], 1, '/taken: holds ')])
def test_it_refuses_what_it_would_do_harm_with(tree, tmpdir, words, code, sentence):
    tmpdir.ensure('taken', 'bin', dir=True)
    before = listing(str(tmpdir))
    child = subprocess.Popen([os.path.join(tree, 'bin', 'install.sh')] + words, stderr=subprocess.PIPE,
                             env={'PATH': PATH, 'DESTDIR': str(tmpdir)}, universal_newlines=True)
    assert sentence in child.communicate()[1]
    assert child.returncode == code
    assert listing(str(tmpdir)) == before


def test_without_root_it_says_so_and_below_a_folder_it_works(tree):
    folder = nobody.make_folder()

    def as_nobody():
        child = subprocess.Popen([folder + '/tree/bin/install.sh'], stderr=subprocess.PIPE, env={'PATH': PATH})
        assert child.communicate()[1].startswith(b'install.sh: this takes root (or DESTDIR')
        assert child.returncode == 1
        install(['/bin/sh'], folder + '/tree', folder + '/to')
        assert os.path.isfile(folder + '/to/opt/envio/bin/envio')
    try:
        shutil.copytree(tree, folder + '/tree')
        nobody.run(as_nobody)
    finally:
        nobody.remove(folder)


@pytest.mark.parametrize('kind', [roots.host, roots.empty], ids=['host', 'busybox'])
def test_for_real_it_makes_accounts_and_folders_and_the_second_time_nothing(root, kind):
    if kind is roots.host and not find('useradd'):
        pytest.skip('there is no useradd on this machine')
    made = root(kind)
    script = BY_HAND
    if kind is roots.host:
        script += DAEMON % {'python': '/python/bin/' + roots.NAME}
    else:  # Debian's busybox makes no accounts
        append(made.path('etc/passwd'), 'envio:x:99:99::/nonexistent:/bin/false\n')
        append(made.path('etc/group'), 'envio:x:99:\n')
    code, said = made.run(script)
    assert code == 0, said
    lines = said.split('\n')
    assert 'nothing changed' in lines and 'compiled' in lines, said
    assert [re.sub(r' +\d+ (\w+) +(\w+) .* /', r' \1 \2 /', line) for line in lines
            if re.search(r'^[d-][rwxs-]{9}.* /(etc|var|opt)/', line)][:5] == [
        'drwxr-x--- root envio /etc/envio', '-rw-r----- root envio /etc/envio/envio.conf',
        'drwxr-xr-x root root /opt/envio/versions', 'drwxr-x--- envio envio /var/log/envio',
        'drwxrws--- envio envio /var/spool/envio'], said
    assert '/etc/envio/envio.conf: ok' in said
    if kind is roots.host:
        assert re.search(r'envio is running \(pid \d+\)\nenvio *\n', said) and 'envio is running: stop it' in said, said
        with open(made.path('etc/passwd')) as page:
            assert re.search(r'(?m)^envio:.*:/nonexistent:/\S*(nologin|false)$', page.read())


@pytest.mark.parametrize('kind', ['deb', 'rpm'])
def test_the_package_installs_and_leaves_what_is_yours(root, bundle, kind):  # noqa: F811
    if kind not in kinds():
        pytest.skip('there is no %s on this machine' % dict([(maker[1], maker[0]) for maker in MAKERS])[kind])
    made = root(roots.host)
    name = [maker[2] for maker in MAKERS if maker[1] == kind][0]
    shutil.copy(os.path.join(bundle, 'dist', name), made.path('srv/package'))
    code, said = made.run(PACKAGE % {'install': INSTALL[kind], 'again': AGAIN[kind], 'remove': REMOVE[kind],
                                     'python': '/python/bin/' + roots.NAME})
    assert code == 0, said
