#!/usr/bin/env python3
"""Makes what is copied to a host, in dist/: envio-VERSION.tar.gz (unpack it anywhere), envio-VERSION.pyz (one file, run
by any shell or Python), and on demand envio_VERSION_all.deb and envio-VERSION-1.noarch.rpm.

    bin/bundle.py [deb] [rpm]

The same commit gives the same bytes, whoever builds: nothing of this machine gets in, neither times nor owners nor an
order of files. (What is compressed also depends on zlib, and the packages on dpkg-deb and rpmbuild.) Runs where the
agent runs. Exit code 1, with a sentence, when something is missing.
"""

import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from time import gmtime

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
DIST = os.path.join(ROOT, 'dist')
PARTS = ('agent', 'bin', 'conf', 'docs', 'init.d', 'CHANGES.md', 'LICENSE', 'README.md')
BUILDER = 'bin/bundle.py'
PREFIX = '/opt/envio'  # of the packages

# Another Python may run the pyz than its first lines would choose: agent/__main__.py looks at the version. It is run,
# not imported: on Python 2 no other thread can import anything while an import goes on.
PYZ_MAIN = b"""\
import runpy

runpy.run_module('agent.__main__', run_name='__main__')
"""

CONTROL = """\
Package: envio
Version: %(version)s
Architecture: all
Maintainer: the Envio authors <root@localhost>
Section: net
Priority: optional
Depends: python3 | python2.7 | python2.6 | python
Suggests: curl, logrotate
Description: sends the files of a spool folder by HTTP POST
 Accepted files are moved aside, rejected ones too, with the reason; what got no
 usable answer is tried again. Needs nothing but a Python.
"""
# Before an upgrade's old files go, what Python made of them; and an agent that runs is not left without its files.
SERVICE = """\
service() {
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        systemctl "$1" envio
    else
        /etc/init.d/envio "$1"
    fi || :
}
"""
FINISH = SERVICE + """\
%s/bin/install.sh --finish %s || exit
service try-restart
""" % (PREFIX, PREFIX)
CLEAN = SERVICE + """\
case $1 in remove | 0) service stop ;; esac
find %s/%%s \\( -name '*.py[co]' -o -name __pycache__ \\) -prune -exec rm -rf {} +
""" % PREFIX

SPEC = """\
Name: envio
Version: %(version)s
Release: 1
Summary: Sends the files of a spool folder by HTTP POST
License: MIT
BuildArch: noarch
AutoReqProv: no
%%define _build_name_fmt %%%%{NAME}-%%%%{VERSION}-%%%%{RELEASE}.%%%%{ARCH}.rpm
%%define _binary_payload w9.gzdio
%%define _buildhost localhost
%%define use_source_date_epoch_as_buildtime 1
%%define clamp_mtime_to_source_date_epoch 1
%%define __os_install_post %%{nil}
%%description
Accepted files are moved aside, rejected ones too, with the reason; what got no
usable answer is tried again. Needs nothing but a Python.
%%install
cp -a %(tree)s/. %%{buildroot}
%%post
%(finish)s
%%preun
%(clean)s
%%files
%%defattr(-,root,root)
%(files)s
"""


def run(*command, **options):
    """Return what a program writes to standard output; None when it fails, or is not there."""
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, **options)
    except EnvironmentError:
        return None
    out = child.communicate()[0]
    return out if child.returncode == 0 else None


def refuse(sentence):
    sys.stderr.write('bundle: %s\n' % sentence)
    sys.exit(1)


def read(path):
    with open(path, 'rb') as page:
        return page.read()


def write(name, content, mode=0o644):
    """Write a file of dist/, there whole or not at all."""
    path = os.path.join(DIST, name)
    with open(path + '.new', 'wb') as page:
        page.write(content)
    os.chmod(path + '.new', mode)
    os.rename(path + '.new', path)
    return path


def names():
    """Return the paths of what belongs on a host: what git knows or would take, and all there is where git is not."""
    listed = None
    if os.path.exists(os.path.join(ROOT, '.git')):
        listed = run('git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard', '--', *PARTS, cwd=ROOT)
    if listed is not None:
        found = set(listed.decode('ascii').split('\0')) - set([''])
    else:
        found = set(part for part in PARTS if os.path.isfile(os.path.join(ROOT, part)))
        for part in PARTS:
            for folder, _, files in os.walk(os.path.join(ROOT, part)):
                found.update(os.path.relpath(os.path.join(folder, name), ROOT) for name in files)
    return sorted(str(name) for name in found if name != BUILDER and not re.search(r'\.py[co]$', name)
                  and os.path.isfile(os.path.join(ROOT, name)))


def timestamp(found):
    """Return the one time that everything gets: SOURCE_DATE_EPOCH, else that of the commit, else of the newest file."""
    if os.environ.get('SOURCE_DATE_EPOCH'):
        return int(os.environ['SOURCE_DATE_EPOCH'])
    if os.path.exists(os.path.join(ROOT, '.git')):
        changed = run('git', 'status', '--porcelain', '--', *PARTS, cwd=ROOT, universal_newlines=True)
        if changed == '':
            return int(run('git', 'log', '-1', '--format=%ct', cwd=ROOT))
        # With the commit's time, Python would take the compiled files of an earlier attempt for these.
        sys.stderr.write('bundle: not as committed: %s\n' % ', '.join((changed or 'git fails').splitlines()))
    return max(int(os.path.getmtime(os.path.join(ROOT, name))) for name in found)


def load():
    """Return ([(path, mode, content)] by path, seconds)."""
    found = names()
    files = []
    for name in found:
        content = read(os.path.join(ROOT, name))
        files.append((name, 0o755 if content.startswith(b'#!') else 0o644, content))
    return sorted(files + made()), timestamp(found)


def made():
    """Return the files that are made of the agent's own table of settings."""
    sys.path.insert(0, ROOT)
    sys.dont_write_bytecode = True
    from agent import compat, reference
    pages = (('conf/envio.conf.full', reference.example()), ('docs/man/envio.1', reference.man_envio()),
             ('docs/man/envio.conf.5', reference.man_conf()))
    return [(name, 0o644, compat.config_bytes(page)) for name, page in pages]


def tar(files, top, seconds):
    """Return a tar of the files, below the folder `top`. By hand: tarfile writes other bytes on other Pythons."""
    folders = set([top])
    for name, _, _ in files:
        parts = name.split('/')[:-1]
        folders.update('/'.join([top] + parts[:end]) for end in range(1, len(parts) + 1))
    members = [(folder + '/', 0o755, b'', b'5') for folder in folders]
    members += [(top + '/' + name, mode, content, b'0') for name, mode, content in files]
    blocks = [_header(name, mode, len(content), seconds, kind) + content + b'\0' * (-len(content) % 512)
              for name, mode, content, kind in sorted(members)]
    return b''.join(blocks + [b'\0' * 1024])


def _header(name, mode, size, seconds, kind):
    """Return the header of one member (POSIX.1-1988 ustar)."""
    assert len(name) <= 100, name
    fields = [name.encode('ascii')] + [('%07o' % number).encode('ascii') for number in (mode, 0, 0)]
    fields += [('%011o' % number).encode('ascii') for number in (size, seconds)]
    layout = '100s8s8s8s12s12s8s1s100s6s2s32s32s183s'
    rest = [kind, b'', b'ustar', b'00', b'root', b'root', b'']
    block = struct.pack(layout, *fields + [b' ' * 8] + rest)
    return struct.pack(layout, *fields + [('%06o\0 ' % sum(bytearray(block))).encode('ascii')] + rest)


def gzip(content):
    """Return it compressed, without a name and a time (RFC 1952): GzipFile of 2.6 writes the time of day."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(content) + packer.flush()
    return (b'\x1f\x8b\x08\0\0\0\0\0\x02\xff' + packed
            + struct.pack('<LL', zlib.crc32(content) & 0xffffffff, len(content) & 0xffffffff))


def launcher(text):
    """Return the shell's part of the pyz: bin/envio with the search for a Python, and without the search for a tree."""
    head, tree = text.split('self=$0\n')
    tail = tree[tree.index('if [ -n "${ENVIO_PYTHON-}" ]'):]
    head = re.sub(r'\A#!/bin/sh\n(#.*\n)+', '#!/bin/sh\n# Envio in one file: a shell runs it as well as a Python, '
                  'which reads the archive below.\n# ENVIO_PYTHON names the Python to take; else it is the newest.\n',
                  head)
    text, times = re.subn('"\\$home/agent"', '"$0"', head + tail)
    assert times == 1
    return text


def pyz(files, seconds):
    """Return the agent as one file. Not compressed: it starts sooner, and a Python without zlib reads it."""
    inside = [(name, content) for name, _, content in files if name.startswith('agent/')]
    inside = sorted(inside + [('__main__.py', PYZ_MAIN)] + [(name, content) for name, _, content in files
                                                            if name == 'LICENSE'])
    page = io.BytesIO()
    archive = zipfile.ZipFile(page, 'w', zipfile.ZIP_STORED)
    for name, content in inside:
        member = zipfile.ZipInfo(name, gmtime(max(seconds, 315532800))[:6])  # a zip begins in 1980
        member.external_attr = 0o100644 << 16
        member.create_system = 3
        archive.writestr(member, content)
    archive.close()
    shell = [content for name, _, content in files if name == 'bin/envio'][0].decode('ascii')
    return launcher(shell).encode('ascii') + page.getvalue()


def stage(archive, folder, seconds):
    """Install the bundle below a folder as install.sh does on a host; return the configuration files in it."""
    tree = os.path.join(folder, 'root')
    if run('tar', 'xzf', archive, '-C', folder) is None:
        refuse('tar: can\'t unpack %s' % archive)
    top = os.path.join(folder, os.path.basename(archive)[:-len('.tar.gz')])
    if run(os.path.join(top, 'bin', 'install.sh'), PREFIX, env=dict(os.environ, DESTDIR=tree, USR='/usr')) is None:
        refuse('bin/install.sh failed')
    for where, folders, files in os.walk(tree):
        for path in [where] + [os.path.join(where, name) for name in files + folders]:
            if not os.path.islink(path):
                os.utime(path, (seconds, seconds))
    return tree, sorted(os.path.join(where, name)[len(tree):] for where, _, files in os.walk(tree + '/etc')
                        for name in files)


def deb(version, tree, configuration, folder, seconds):
    """Make the package of Debian and its like."""
    os.mkdir(os.path.join(tree, 'DEBIAN'))
    prerm = '#!/bin/sh\n' + CLEAN % os.readlink(tree + PREFIX + '/current')
    pages = (('control', CONTROL % {'version': version}, 0o644), ('conffiles', '\n'.join(configuration + ['']), 0o644),
             ('postinst', '#!/bin/sh\n' + FINISH, 0o755), ('prerm', prerm, 0o755))
    for name, page, mode in pages:
        path = os.path.join(tree, 'DEBIAN', name)
        with open(path, 'w') as stream:
            stream.write(page)
        os.chmod(path, mode)
    target = os.path.join(DIST, 'envio_%s_all.deb' % version)
    if run('dpkg-deb', '--root-owner-group', '-Zgzip', '--build', tree, target,
           env=dict(os.environ, SOURCE_DATE_EPOCH=str(seconds))) is None:
        refuse('dpkg-deb: failed, or is not here (1.19 or later)')
    shutil.rmtree(os.path.join(tree, 'DEBIAN'))
    return target


def rpm(version, tree, configuration, folder, seconds):
    """Make the package of Red Hat, SUSE and their like."""
    lines = []
    for where, folders, files in os.walk(tree):
        here = where[len(tree):]
        if here in ('/etc/envio', '/var/spool/envio', '/var/log/envio') or here.startswith(PREFIX):
            lines.append('%%dir %s' % here)
        for name in files + [name for name in folders if os.path.islink(os.path.join(where, name))]:
            path = here + '/' + name
            lines.append('%config(noreplace) ' * (path in configuration) + path)
    spec = os.path.join(folder, 'envio.spec')
    with open(spec, 'w') as page:
        page.write(SPEC % {'version': version, 'tree': tree, 'finish': FINISH,
                           'clean': CLEAN % os.readlink(tree + PREFIX + '/current'),
                           'files': '\n'.join(sorted(lines))})
    if run('rpmbuild', '-bb', '--quiet', '--define', '_topdir %s/rpm' % folder, '--define', '_rpmdir %s' % DIST, spec,
           env=dict(os.environ, SOURCE_DATE_EPOCH=str(seconds))) is None:
        refuse('rpmbuild: failed, or is not here')
    return os.path.join(DIST, 'envio-%s-1.noarch.rpm' % version)


def main(wanted):
    makers = {'deb': deb, 'rpm': rpm}
    if set(wanted) - set(makers):
        refuse('usage: bin/bundle.py [deb] [rpm]')
    files, seconds = load()
    source = dict((name, content) for name, _, content in files)
    found = re.search(b"(?m)^__version__ = '([^']+)'", source['agent/__init__.py'])
    version = str(found.group(1).decode('ascii'))
    top = 'envio-' + version
    if not os.path.isdir(DIST):
        os.mkdir(DIST)
    made = [write(top + '.tar.gz', gzip(tar(files, top, seconds))), write(top + '.pyz', pyz(files, seconds), 0o755)]
    folder = tempfile.mkdtemp(prefix='envio-bundle-')
    try:
        if wanted:
            tree, configuration = stage(made[0], folder, seconds)
        for kind in wanted:
            made.append(makers[kind](version, tree, configuration, folder, seconds))
    finally:
        shutil.rmtree(folder)
    sys.stdout.write('\n'.join(made + ['']))


if __name__ == '__main__':
    main(sys.argv[1:])
