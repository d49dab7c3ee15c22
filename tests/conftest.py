"""The tests import the agent from this checkout, and none of them hangs for ever."""

import logging
import os
import signal
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
LONGEST = 120  # seconds a test may take

sys.path[:0] = [ROOT, HERE]


@pytest.fixture(autouse=True)
def time_limit():
    def over(*_):
        raise AssertionError('the test took longer than %d s' % LONGEST)
    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def own_umask():
    # A command that runs in this process sets it for good: no later test is to depend on that.
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def said():
    """What the agent logs during the test: (level, line) of each."""
    log, lines = logging.getLogger('envio'), []

    class Listener(logging.Handler):
        def emit(self, record):
            lines.append((record.levelname, record.getMessage()))
    before = log.handlers, log.level, log.propagate
    log.handlers, log.propagate = [Listener()], False
    log.setLevel(logging.DEBUG)
    yield lines
    log.handlers, level, log.propagate = before
    log.setLevel(level)


@pytest.fixture(scope='session')
def authority(tmpdir_factory):
    from tests.authority import Authority
    authority = Authority(str(tmpdir_factory.mktemp('authority')))
    if authority.absent:
        pytest.skip(authority.absent)
    return authority


@pytest.fixture(scope='session')
def nginx_tls(tmpdir_factory, authority):
    from tests.tls_servers import NginxTls
    nginx = NginxTls(str(tmpdir_factory.mktemp('nginx')), authority)
    if nginx.absent:
        pytest.skip(nginx.absent)
    with nginx:
        yield nginx
