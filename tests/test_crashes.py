"""The agent is killed at random moments and at chosen ones, and started again; and the checks that follow can fail.

bench/crash.py is the same for thousands of kills.
"""

import os
import shutil
import sys

import pytest

from agent import compat
from agent.spool import Spool
from tests.crashes import (ACCEPTED, AT_ONCE, LATER, PATIENCE, REJECTED, Crashes, Plan, Request, broken_promises,
                           digest)
from tests.programs import find

SEED = 20261125
RIGHT_AFTER = Plan('once', 'call', 1, 0, 0, True)
KEY, OTHER_KEY = '5f0c', '77aa'


def begin(tmpdir, curl=False):
    return Crashes(str(tmpdir), sys.executable, SEED, curl)


def told(crashes, broken):
    return 'seed %d, %d kills: %s' % (SEED, len(crashes.killed), '\n'.join(broken))


def test_no_promise_is_broken_by_kills_at_random_moments(tmpdir):
    crashes = begin(tmpdir)
    broken = crashes.run(10)
    assert not broken, told(crashes, broken)
    assert len(crashes.killed) == 10 and len(crashes.put) > 50


def test_no_promise_is_broken_by_kills_while_curl_sends(tmpdir):
    if not find('curl'):
        pytest.skip('there is no curl on this machine')
    crashes = begin(tmpdir, curl=True)
    broken = crashes.run(6)
    assert not broken, told(crashes, broken)
    assert [request for request in crashes.receiver.requests if request.name.startswith('curl-')]


@pytest.mark.parametrize('calls', [
    ['open /.envio/id'],             # the spool's name is about to be written
    ['open /state.json.new'],
    ['rename /state.json.new'],
    ['rename /sent/'],               # an accepted file was moved
    ['rename .reason'],              # a reason is there, its file is not yet
    ["rename /error/keep-reject-1'"],  # both are
    ['rename /deleted/'],            # a file to be deleted is not yet
    ['rename /deleted/', 'link /deleted/'],  # and the next start is killed while it cleans up
], ids=' then '.join)
def test_no_promise_is_broken_by_a_kill_right_after_a_call(tmpdir, calls):
    crashes = begin(tmpdir)
    try:
        for receiver, kind in (('keep', 'accept'), ('keep', 'reject'), ('drop', 'accept')):
            crashes.add(receiver, kind)
        for call in calls:
            crashes.kill(RIGHT_AFTER, '1 ' + call, PATIENCE)
        crashes.drain()
    finally:
        crashes.receiver.stop()
    broken = crashes.check()
    assert not broken, told(crashes, broken)
    assert 1 in crashes.killed, 'there is no such call any more: name the one that took its place'


def test_a_start_is_not_stopped_by_a_curl_that_outlived_its_agent(tmpdir, monkeypatch):
    spool, left = Spool(str(tmpdir)), tmpdir.mkdir('.envio').mkdir('curl.left')
    left.join('0.head').write('HTTP/1.1 200 OK')
    remove = os.rmdir

    def removed_while_it_writes(path, **options):
        if path == str(left):
            left.join('1.head').write('')  # cURL begins with the next file of its list
        remove(path, **options)
    monkeypatch.setattr(os, 'rmdir', removed_while_it_writes)
    spool.lock()
    spool.unlock()
    monkeypatch.undo()
    spool.lock()
    spool.unlock()
    assert not left.check(), 'what could not be removed then is removed by the next start'


# --- the checks can fail


class World(object):
    """A spool as a run leaves it: one file accepted, one rejected, one accepted and deleted."""

    def __init__(self, folder):
        self.spool = os.path.join(folder, 'spool')
        for name in ('sent/2026-11-25', 'error', '.envio/deleted'):
            os.makedirs(os.path.join(self.spool, name))
        self.write('.envio/id', '0123456789abcdef' * 2 + '\n')
        self.put, self.requests, self.killed = {}, [], set()
        self.deliver('sent/2026-11-25/keep-accept-0', ACCEPTED)
        self.deliver('error/keep-reject-1', REJECTED)
        self.deliver('drop-accept-2', ACCEPTED)
        self.write('error/keep-reject-1.reason', reason(KEY))
        os.unlink(self.path('drop-accept-2'))

    def path(self, name):
        return os.path.join(self.spool, name)

    def write(self, name, content):
        with open(self.path(name), 'wb') as stream:
            stream.write(compat.wire(content))

    def deliver(self, path, *answers):
        """Let a file lie at `path`, put there under its name and answered in turn by starts 1, 2, ..."""
        name = os.path.basename(path)
        self.write(path, 'content of ' + name)
        self.put[digest(compat.wire('content of ' + name))] = name
        for run, answer in enumerate(answers):
            self.send(name, run + 1, answer)

    def send(self, name, run, answer, key=KEY):
        self.requests.append(Request(run, name, key, digest(compat.wire('content of ' + name)), answer))

    def broken(self):
        return sorted(broken_promises(self.spool, self.put, self.requests, self.killed))


def reason(key):
    return 'File: keep-reject-1\nIdempotency-Key: %s\nRequeue: envio requeue keep-reject-1\n\nno order\n' % key


@pytest.fixture
def world(tmpdir):
    world = World(str(tmpdir))
    assert world.broken() == []
    return world


def test_a_lost_file_is_reported(world):
    os.unlink(world.path('sent/2026-11-25/keep-accept-0'))
    assert world.broken() == ['keep-accept-0: is lost']
    del world.requests[-1]
    assert world.broken() == ['drop-accept-2: is lost', 'keep-accept-0: is lost']


def test_a_file_in_two_places_and_one_from_nowhere_are_reported(world):
    shutil.copy(world.path('error/keep-reject-1'), world.path('keep-reject-1.1'))
    world.write('sent/2026-11-25/half', 'content of')
    assert world.broken() == ['keep-reject-1: lies in more than one place: error/keep-reject-1 keep-reject-1.1',
                              'sent/2026-11-25/half: bytes that nobody put there']


def test_a_sent_file_that_was_never_received_is_reported(world):
    world.deliver('sent/2026-11-25/keep-accept-3')
    world.deliver('sent/2026-11-25/keep-busy-4', LATER)
    world.deliver('error/keep-reject-5')
    world.write('error/keep-reject-5.reason', reason(KEY))
    assert [line for line in world.broken() if 'reason' not in line] == [
        'error/keep-reject-5: was never received whole and rejected',
        'sent/2026-11-25/keep-accept-3: was never received whole and accepted',
        'sent/2026-11-25/keep-busy-4: was never received whole and accepted']


def test_a_body_that_is_not_the_file_s_is_reported(world):
    world.send('keep-accept-9', 4, ACCEPTED)
    assert world.broken() == ['start 4: sent as keep-accept-9 what is not that file']


def test_a_reason_without_its_file_and_a_file_without_its_reason_are_reported(world):
    world.write('error/keep-reject-7.reason', reason(KEY))
    os.unlink(world.path('error/keep-reject-1.reason'))
    assert world.broken() == ['error/keep-reject-1: has no reason',
                              'error/keep-reject-7.reason: a reason without its file']


def test_half_a_reason_and_one_with_another_key_are_reported(world):
    world.write('error/keep-reject-1.reason', reason(KEY)[:60])
    assert world.broken() == ['error/keep-reject-1.reason: is not whole']
    world.write('error/keep-reject-1.reason', reason(OTHER_KEY))
    assert world.broken() == ['error/keep-reject-1.reason: another Idempotency-Key than the receiver saw']


def test_another_key_for_the_same_file_is_reported(world):
    world.killed.add(1)
    world.send('keep-accept-0', 2, ACCEPTED)
    assert world.broken() == []
    world.requests[-1] = world.requests[-1]._replace(key=OTHER_KEY)
    assert world.broken() == ['keep-accept-0: was sent with 2 different Idempotency-Keys']


def test_a_repetition_is_reported_unless_its_start_was_killed(world):
    world.send('keep-accept-0', 2, ACCEPTED)
    assert world.broken() == ['keep-accept-0: start 2 sent again what start 1, which was not killed, had sent']
    world.killed.add(1)
    assert world.broken() == []
    world.send('keep-accept-0', 1, ACCEPTED)
    assert world.broken() == ['keep-accept-0: start 1 sent it again after it was answered for good']


def test_more_repetitions_than_files_in_flight_are_reported(world):
    world.killed.add(1)
    for number in range(10, 10 + AT_ONCE['native']):
        world.deliver('sent/2026-11-25/keep-accept-%d' % number, ACCEPTED, ACCEPTED)
    assert world.broken() == []
    world.send('keep-accept-0', 2, ACCEPTED)
    assert world.broken() == ['start 1: %d files were sent again by native, and no more than %d were in flight' % (
        AT_ONCE['native'] + 1, AT_ONCE['native'])]


def test_what_a_crash_left_in_the_agent_s_folder_is_reported(world):
    for name in ('reason.0', 'deleted/drop-accept-2', 'state.json.new'):
        world.write('.envio/' + name, 'half')
    world.write('.envio/id', '0123')
    world.write('.envio/state.json', '{"version": 1, "wri')
    broken = world.broken()
    assert broken[:-1] == ['.envio/deleted/drop-accept-2: is left over', '.envio/id: is not whole',
                           '.envio/reason.0: is left over', '.envio/state.json.new: is left over']
    assert broken[-1].startswith('.envio/state.json: ')
