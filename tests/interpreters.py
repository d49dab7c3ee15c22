"""Runs the tests on every interpreter of this machine, and says in one table what ran: `make test` is this.

    .venv/bin/python tests/interpreters.py [ENVIRONMENT...]      (py311, 3.11, lint, fuzz; none: all of tox.ini)

tox does the work. What it says at the end is not relied on, as it also praises a run that left most of it out: the
table is made from the report that each environment's pytest wrote. The exit code is 0 only if every environment whose
interpreter is on this machine ran and passed. The last line is the sum: `N passed, N failed, N skipped`.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = os.path.join(ROOT, '.tox')
AT_ONCE = '2'
TOOLS = ('lint', 'fuzz')       # environments that are not about one Python
OWN_WAY = TOOLS + ('python26',)  # those that tox makes with the Python it runs on
PASSED, FAILED, ABSENT = 'passed', 'FAILED', 'not run'


def environments():
    with open(os.path.join(ROOT, 'tox.ini')) as page:
        return re.search(r'(?m)^env_list = (.*)$', page.read()).group(1).split(', ')


def pyenv():
    """Return pyenv's own folder, whether there is one or not."""
    return os.environ.get('PYENV_ROOT') or os.path.expanduser('~/.pyenv')


def folders():
    """Return where to look: PATH without pyenv's stand-ins, then pyenv's real ones, the newest patch first."""
    path = [folder for folder in os.environ.get('PATH', os.defpath).split(os.pathsep)
            if folder and os.path.realpath(folder) != os.path.realpath(os.path.join(pyenv(), 'shims'))]
    versions = os.path.join(pyenv(), 'versions')
    names = [name for name in (os.listdir(versions) if os.path.isdir(versions) else [])
             if re.match(r'\d+\.\d+\.\d+$', name)]
    names.sort(key=lambda name: [int(part) for part in name.split('.')], reverse=True)
    return path + [os.path.join(versions, name, 'bin') for name in names]


def version_of(python):
    """Return an interpreter's version ('3.11.7'), or None where it doesn't start."""
    try:
        child = subprocess.Popen([python, '-c', 'import sys; sys.stdout.write(sys.version.split()[0])'],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    except EnvironmentError:
        return None
    out = child.communicate()[0]
    return out if child.returncode == 0 else None


def find(environment, path):
    """Return (interpreter, version) for an environment; (None, None) where this machine has none, and version None
    where there are only ones that don't start."""
    if environment in TOOLS:
        return sys.executable, version_of(sys.executable)
    name = re.sub(r'^\D+(\d)', r'python\1.', environment)
    broken = None
    for folder in path:
        python = os.path.join(folder, name)
        if os.path.isfile(python) and os.access(python, os.X_OK):
            version = version_of(python)
            if version:
                return python, version
            broken = broken or python
    return broken, None


def run_tox(wanted, pythons, path):
    """Run tox on the wanted environments; return what it reports of each, by name.

    pythons: the interpreters it is to make environments from, lest it takes others of the same version.
    """
    report = os.path.join(WORK, 'report.json')
    command = [sys.executable, '-m', 'tox', 'run-parallel', '-p', AT_ONCE, '--parallel-no-spinner', '-c', ROOT,
               '--result-json', report, '-e', ','.join(wanted)]
    if pythons:
        command += ['--discover'] + pythons
    surroundings = dict(os.environ, PATH=os.pathsep.join(path), NO_COLOR='1', PYTHONDONTWRITEBYTECODE='1')
    surroundings.pop('PYTHONPATH', None)
    # The wheels that came with virtualenv: newer ones, which it fetches by itself, may not run on an old Python.
    surroundings.update([('VIRTUALENV_' + name, 'embed') for name in ('PIP', 'SETUPTOOLS', 'WHEEL')])
    sys.stdout.flush()
    with open(os.devnull) as nothing:
        subprocess.call(command, cwd=ROOT, stdin=nothing, env=surroundings)
    if not os.path.exists(report):
        return {}
    with open(report) as page:
        return json.load(page).get('testenvs', {})


class Run(object):
    """What became of one environment."""

    def __init__(self, environment, python, version):
        self.environment = environment
        self.python = python
        self.version = version
        self.result = FAILED if python else ABSENT
        self.passed = self.failed = self.skipped = 0
        self.reasons = []  # why tests were skipped, one for each
        self.report = os.path.join(WORK, environment, 'junit.xml')

    def judge(self, by_tox):
        """Take in the report that pytest left, and what tox says of the environment ({} = it never came to it)."""
        if by_tox.get('python') and self.environment != 'python26':
            self.python = by_tox['python']['executable']
            self.version = by_tox['python']['version'].split()[0]
        if os.path.exists(self.report):
            self.count(ElementTree.parse(self.report))
        ran = self.passed > 0 or self.environment == 'lint'
        if by_tox.get('result', {}).get('success') and ran and not self.failed:
            self.result = PASSED
            # Nearly 1 GB an interpreter, of use after a failure alone.
            shutil.rmtree(os.path.join(WORK, self.environment, 'tmp'), ignore_errors=True)
        elif not self.failed:
            self.failed = 1  # the environment itself

    def count(self, report):
        for case in report.findall('.//testcase'):
            skip = case.find('skipped')
            if case.find('failure') is not None or case.find('error') is not None:
                self.failed += 1
            elif skip is not None:
                self.skipped += 1
                self.reasons.append(skip.get('message') or 'no reason given')
            else:
                self.passed += 1

    def row(self):
        if not self.python:
            return self.environment, 'absent', ABSENT
        result = self.result
        if self.environment != 'lint':
            result += ' %d' % self.passed
            if self.failed:
                result += ', failed %d' % self.failed
            if self.skipped:
                result += ', skipped %d' % self.skipped
        return self.environment, '%s (%s)' % (self.python, self.version or 'does not start'), result


def footer(runs):
    """Return a line for each reason why tests were skipped, with where."""
    where = {}
    for run in runs:
        for reason in set(run.reasons):
            where.setdefault(reason, []).append(run.environment)
    return ['skipped (%s): %s' % (len(names) == len(runs) and 'all' or ' '.join(names), reason)
            for reason, names in sorted(where.items())]


def table(runs):
    rows = [('environment', 'interpreter', 'result')] + [run.row() for run in runs]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return ['%-*s  %-*s  %s' % (widths[0], row[0], widths[1], row[1], row[2]) for row in rows]


def alone():
    """Return a lock, held until it is closed: two runs in one tree would take each other's reports away."""
    lock = open(os.path.join(WORK, 'lock'), 'w')
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except EnvironmentError:
        sys.stdout.write('another run is at work in this tree: waiting for it\n')
        sys.stdout.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def chosen(arguments):
    """Return the environments that the arguments name; all without any."""
    known = environments()
    by_digits = dict((re.sub(r'\D', '', name) or name, name) for name in known)
    names = []
    for argument in arguments:
        name = by_digits.get(re.sub(r'^(py|python)?([23])\.?(\d+)$', r'\2\3', argument))
        if name is None:
            sys.exit('%s: no such environment: one of %s' % (argument, ' '.join(known)))
        names.append(name)
    return names or known


def main(arguments):
    names = chosen(arguments)
    path = folders()
    runs = [Run(name, *find(name, path)) for name in names]
    able = [run for run in runs if run.version]
    if not os.path.isdir(WORK):
        os.mkdir(WORK)
    lock = alone()
    for stale in [os.path.join(WORK, name) for name in ('report.json', 'summary')] + [run.report for run in runs]:
        if os.path.exists(stale):
            os.remove(stale)
    # virtualenv gives up where one of these is a Python that it doesn't know.
    pythons = [run.python for run in able if run.environment not in OWN_WAY]
    by_tox = run_tox([run.environment for run in able], pythons, path) if able else {}
    for run in runs:
        if run.python:
            run.judge(by_tox.get(run.environment, {}))
    tested = [run for run in runs if run.python and run.environment not in TOOLS]
    total = '%d passed, %d failed, %d skipped' % (
        sum(run.passed for run in runs), sum(run.failed for run in runs), sum(run.skipped for run in runs))
    sys.stdout.write('\n'.join([''] + table(runs) + footer(tested) + ['', total, '']))
    with open(os.path.join(WORK, 'summary'), 'w') as page:
        page.write(total + '\n')
    lock.close()
    asked_in_vain = arguments and [run for run in runs if not run.python]
    return 1 if asked_in_vain or not able or [run for run in runs if run.result == FAILED] else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
