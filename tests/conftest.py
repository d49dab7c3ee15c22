"""The tests import the agent from this checkout, and none of them hangs for ever."""

import os
import signal
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LONGEST = 120  # seconds a test may take

sys.path.insert(0, ROOT)


@pytest.fixture(autouse=True)
def time_limit():
    def over(*_):
        raise AssertionError('the test took longer than %d s' % LONGEST)
    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
