#!/usr/bin/env python3
"""Two agents that start at once on one spool, over and over: exactly one is to work.

Each round puts a file into the spool and lets two `envio once` go at the same moment: both wait, as shells, on a pipe
that is then closed. The receiver holds its answer until one of the two has ended, so that the other is at work when it
does. In every second round the one at work is killed (SIGKILL) before it has its answer: the lock file stays as it was,
and a third agent has to work at once. With --transport curl its cURL lives on meanwhile.
"""

import argparse
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import common
from tests.servers import ScriptedServer, ok

PATIENCE = 60  # seconds that anything may take
REFUSAL = re.compile(rb'envio: \S+: another agent has this spool: [^\n]*: wait for it or stop it\n\Z')


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--python', action='append', metavar='PATH', help='an interpreter for Envio, may be repeated '
                        '(default: python3.11)')
    parser.add_argument('--rounds', type=int, default=1000, metavar='N', help='default: %(default)s')
    parser.add_argument('--transport', default='native', choices=('native', 'curl'))
    chosen = parser.parse_args()
    pythons = chosen.python or [shutil.which('python3.11') or sys.executable]
    chosen.python = [common.interpreter(python) for python in pythons]
    return chosen


class Series(object):
    """The rounds with one interpreter, and what came of them."""

    def __init__(self, python, transport, folder):
        self._spool, self._conf = os.path.join(folder, 'spool'), os.path.join(folder, 'envio.conf')
        os.mkdir(self._spool)
        self._answer = threading.Event()
        self._server = ScriptedServer([('read_request',), ('call', lambda: self._answer.wait(PATIENCE)),
                                       ('send', ok(headers=['Connection: close']))])
        with open(self._conf, 'w') as page:
            page.write(common.CONFIG % {'spool': self._spool, 'url': self._server.url, 'transport': transport,
                                        'keys': ''})
        self._environ = {'PATH': '/usr/bin:/bin', 'ENVIO_PYTHON': python, 'PYTHONDONTWRITEBYTECODE': '1'}
        self.exactly_one = self.second_won = self.crashes = self.works_after_crash = 0
        self.refused_after = []  # seconds from the start of both to the end of the one refused
        self.odd = []            # what was not as it should be, in words

    def play(self, number):
        """One round."""
        self._answer.clear()
        with open(os.path.join(self._spool, 'f%d' % number), 'wb') as stream:
            stream.write(b'content')
        before = len(self._server.requests())
        agents, begin = self._start(2)
        first = self._first_end(agents)
        self.refused_after.append(time.monotonic() - begin)
        loser, winner = agents[first], agents[1 - first]
        said = loser.stderr.read()
        if self._await_request(before) and winner.poll() is None and loser.returncode == 75 and REFUSAL.match(said):
            self.exactly_one += 1
            self.second_won += first == 0
        else:
            self.odd.append('round %d: %r: %r' % (number, [agent.poll() for agent in agents], said))
        if number % 2:
            self._crash(winner, number)
        else:
            self._answer.set()
            self._end(winner, number, 'the one at work')
        sent = len(self._server.requests()) - before
        if sent != 1 + number % 2 or not os.path.exists(self._moved(number)):
            self.odd.append('round %d: sent %d times' % (number, sent))

    def _crash(self, winner, number):
        self.crashes += 1
        winner.send_signal(signal.SIGKILL)
        winner.wait()
        winner.stderr.close()
        third = self._start(1)[0][0]
        if self._await_request(len(self._server.requests())):
            self.works_after_crash += 1
        self._answer.set()
        self._end(third, number, 'the third')

    def _start(self, count):
        """Start agents at once; return (their Popens, when they went)."""
        reading, writing = os.pipe()
        command = ['/bin/sh', '-c', 'read line; exec "$0" "$@" </dev/null', common.ENVIO, '-c', self._conf, 'once']
        agents = [subprocess.Popen(command, stdin=reading, stderr=subprocess.PIPE, env=self._environ)
                  for _ in range(count)]
        os.close(reading)
        begin = time.monotonic()
        os.close(writing)
        return agents, begin

    @staticmethod
    def _first_end(agents):
        """Return the index of the one that ends first: its stderr closes."""
        poll = select.poll()
        for agent in agents:
            poll.register(agent.stderr, select.POLLHUP)
        found = poll.poll(PATIENCE * 1000)
        first = [agent.stderr.fileno() for agent in agents].index(found[0][0]) if found else 0
        if not found:
            agents[0].kill()
        agents[first].wait()
        return first

    def _await_request(self, before):
        end = time.monotonic() + PATIENCE
        while len(self._server.requests()) <= before:
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def _end(self, agent, number, who):
        said = agent.stderr.read()
        if agent.wait() or said:
            self.odd.append('round %d: %s: %r, %r' % (number, who, agent.returncode, said))

    def _moved(self, number):
        name = 'f%d' % number
        return next((entry.path for entry in common.sent(self._spool) if entry.name == name), '')

    def stop(self):
        self._server.stop()


def run(python, given):
    """Play all rounds with one interpreter, print its row; return True when all was as it should be."""
    folder = tempfile.mkdtemp(prefix='envio-double-')
    series = Series(python, given.transport, folder)
    try:
        for number in range(given.rounds):
            series.play(number)
    finally:
        series.stop()
        shutil.rmtree(folder)
    print('| %s | %s | %d | %d | %d | %d of %d | %s |' % (
        common.version(python), given.transport, given.rounds, series.exactly_one, series.second_won,
        series.works_after_crash, series.crashes, common.spread([seconds * 1000 for seconds in series.refused_after])))
    for words in series.odd:
        print(words)
    sys.stdout.flush()
    return series.exactly_one == given.rounds and series.works_after_crash == series.crashes and not series.odd


def main():
    given = options()
    print(common.machine())
    print('| Python | transport | rounds | exactly one worked | of these the second | next works after SIGKILL '
          '| refused after, ms |')
    print('|---|---|---|---|---|---|---|')
    return 0 if all([run(python, given) for python in given.python]) else 1


if __name__ == '__main__':
    sys.exit(main())
