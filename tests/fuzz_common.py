"""What the fuzz tests share: @fuzz makes a test of a property, which hypothesis then tries to break for a while.

    ENVIO_FUZZ_SECONDS=600 python3 -m pytest -o python_files="fuzz_*.py" tests   (`make fuzz`; `make test`: about 45 s)

Python 3 with hypothesis alone. What is found is printed with a line @reproduce_failure(...): put below @fuzz(...) it
brings the same example again. Each find becomes a plain test in tests/test_*.py, which runs on every Python.
"""

import functools
import os
import signal
import sys

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import compat

SECONDS = float(os.environ.get('ENVIO_FUZZ_SECONDS', '40'))  # for all properties together; a few more pass
AT_A_TIME = max(50, int(SECONDS))  # examples between two looks at the clock
SLOWEST = 20       # seconds one example may take: more is taken for an endless loop
PROFILE = settings(max_examples=AT_A_TIME, deadline=None, database=None, derandomize=False, print_blob=True,
                   suppress_health_check=list(HealthCheck))

_properties = []


def fuzz(*parts, **named):
    """Make a test of a function that asserts something of its arguments; parts, named: their strategies."""
    def decorate(check):
        @functools.wraps(check)  # hypothesis asks for its arguments, and for an example that is to come again
        def each(*arguments, **words):
            signal.alarm(SLOWEST)  # conftest's own limit is for a whole test
            each.examples += 1
            check(*arguments, **words)

        def test(capsys):
            until = compat.monotonic() + SECONDS / len(_properties)
            tried = PROFILE(given(*parts, **named)(each))
            each.examples = 0
            tried()
            while compat.monotonic() < until:
                tried()
            with capsys.disabled():
                sys.stdout.write(' %d examples ' % each.examples)
                sys.stdout.flush()
        _properties.append(check)
        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test
    return decorate


def pieces(*literals):
    """Return a strategy of bytes put together from these and from others."""
    return st.lists(st.one_of(st.sampled_from(literals), st.binary(max_size=6)), max_size=40).map(b''.join)


def phrases(*literals):
    """Return a strategy of text put together from these and from other characters."""
    return st.lists(st.one_of(st.sampled_from(literals), st.text(max_size=3)), max_size=12).map(''.join)


def mutated(raws, count=6):
    """Return a strategy of bytes: one of what `raws` gives, with some bytes changed, taken out or put in."""
    change = st.tuples(st.integers(0, 1 << 20), st.sampled_from(('set', 'cut', 'put', 'twice')), st.binary(max_size=4))
    return st.builds(_mutate, raws, st.lists(change, max_size=count))


def _mutate(raw, changes):
    for where, how, piece in changes:
        at = where % (len(raw) + 1)
        if how == 'set':
            raw = raw[:at] + piece + raw[at + len(piece):]
        elif how == 'cut':
            raw = raw[:at] + raw[at + 1 + len(piece):]
        elif how == 'put':
            raw = raw[:at] + piece + raw[at:]
        else:
            raw = raw[:at] + raw[max(0, at - 8 * len(piece)):at] + raw[at:]
    return raw


# The names that a folder can hold (native); those that are no UTF-8 too.
file_names = st.one_of(
    st.text(st.characters(blacklist_categories=('Cs',), blacklist_characters='/\0'), min_size=1, max_size=40).map(
        lambda name: compat.fs_native(name.encode('utf-8'))),
    st.binary(min_size=1, max_size=40).map(lambda raw: raw.replace(b'/', b'_').replace(b'\0', b'_')).map(
        compat.fs_native),
    st.text('ab-_.%~* ', min_size=1, max_size=12)).filter(lambda name: name not in ('.', '..'))
