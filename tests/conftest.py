"""The tests import the agent from this checkout, and none of them hangs for ever."""

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
