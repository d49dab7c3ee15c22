"""Where the time of a file goes in Envio: processor time, system calls and stages. Called by peers.py --stages.

1. Processor time a file, in the program and in the kernel: that of `envio once` with N files less that with none.
2. System calls a file: likewise the difference. strace -c tells which, but slows them down, and threads that wait for
   each other then wait more often (futex); perf, where it may count, tells how many there are at full speed.
3. Stages: peer_inside.py runs the agent with a clock around each stage, that of the thread's processor time: to wait
   costs nothing. What the clocks themselves cost is measured, and taken off. With --workers 1 no stage pays for the
   threads' waits for Python's lock.
"""

import json
import os
import re
import shutil
import statistics
import sys

import common
import peer_programs
from peer_programs import HERE, Task

_LINE = re.compile(r'\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)\Z')
SIZE = 1024


def tables(given, folder, receiver):
    """Print the tables for each interpreter; return the exit code."""
    count, workers = given.files or 5000, given.workers or 4
    print('\n`envio once`, %d files of 1 KB, %d workers; a file: what so many cost more than none; median of %d' % (
        count, workers, given.rounds))
    for python in given.python:
        bench = Stages(python, folder, receiver, count, workers)
        print('\n## Python %s\n' % common.version(python), flush=True)
        bench.processor(given.rounds)
        bench.system_calls()
        bench.calls_at_full_speed()
        bench.stages()
    return 0


class Stages(object):
    """One interpreter."""

    def __init__(self, python, folder, receiver, count, workers):
        self.python, self.folder, self.receiver, self.count = python, folder, receiver, count
        self.peer = peer_programs.envio(python)
        self.task = Task(os.path.join(folder, 'spool'), folder, receiver.url(), None, workers, count)

    def run(self, count, before=()):
        """Run once with `count` files, checked; `before`: what stands before the command. Returns the Run."""
        os.mkdir(self.task.spool)
        common.fill(self.task.spool, count, SIZE)

        def command(task):
            arguments, surroundings = self.peer.command(task)
            return list(before) + arguments, surroundings
        run = peer_programs.measured(self.peer._replace(command=command), self.task._replace(count=count),
                                     self.receiver)
        shutil.rmtree(self.task.spool)
        if run.problem:
            sys.exit('%s: %s' % (self.peer.name, run.problem))
        return run

    def processor(self, rounds):
        user, system = [], []
        for _ in range(rounds):
            none, many = self.run(0), self.run(self.count)
            user.append((many.user - none.user) / self.count * 1e6)
            system.append((many.system - none.system) / self.count * 1e6)
        print('Processor time a file: %.0f us = %.0f in the program + %.0f in the kernel\n' % (
            statistics.median(user) + statistics.median(system), statistics.median(user), statistics.median(system)))

    def system_calls(self):
        if not shutil.which('strace'):
            print('System calls: strace is not installed')
            return
        none, many = self._counted(0), self._counted(self.count)
        rows = [((many[name] - none.get(name, 0)) / self.count, name) for name in many]
        rows = sorted([row for row in rows if row[0] >= 0.01], reverse=True)
        print('| system call | a file |\n|---|---|')
        for number, name in rows:
            print('| %s | %.2f |' % (name, number))
        print('| **all** | %.2f |\n' % sum(number for number, _ in rows), flush=True)

    def calls_at_full_speed(self):
        page = os.path.join(self.folder, 'perf')
        command = ['perf', 'stat', '-x', ',', '-o', page, '-e', 'raw_syscalls:sys_enter,syscalls:sys_enter_futex']
        if not shutil.which('perf') or '0' != common.first_line(command + ['sh', '-c', 'echo 0']):
            print('perf is not installed, or may not count: no numbers at full speed\n')
            return
        counts = []
        for count in (0, self.count):
            self.run(count, [shutil.which('perf')] + command[1:])
            with open(page) as lines:
                counts.append([int(line.split(',')[0]) for line in lines if re.match(r'\d+,', line)])
        print('At full speed, by perf: %.2f a file, %.2f of them futex\n' % tuple(
            (many - none) / self.count for none, many in zip(*counts)), flush=True)

    def _counted(self, count):
        page = os.path.join(self.folder, 'strace')
        self.run(count, [shutil.which('strace'), '-f', '-c', '-o', page])
        with open(page) as lines:
            found = [match for match in map(_LINE.match, lines.read().splitlines()) if match]
        return dict((match.group(2), int(match.group(1))) for match in found if match.group(2) != 'total')

    def stages(self):
        if common.version(self.python).split('.')[0] == '2':
            print('Stages: Python 2 has no clock for a thread\'s processor time')
            return
        page = os.path.join(self.folder, 'stages.json')
        command = [self.python, os.path.join(HERE, 'peer_inside.py'), page]
        self.peer = self.peer._replace(command=lambda task: self._inside(task, command))
        self.run(self.count)
        with open(page) as stream:
            told = json.load(stream)
        print('| stage | us a file | times a file |\n|---|---|---|')
        for name, seconds, calls in told['stages']:
            print('| %s | %.1f | %.2f |' % (name, seconds / self.count * 1e6, calls / self.count))
        print('| **all of them** | %.1f | |' % (sum(row[1] for row in told['stages']) / self.count * 1e6))
        print('\nTaken off for the clocks: %.1f us a file.%s' % (
            told['clocks'] / self.count * 1e6,
            ' No such stage any more: %s.' % ', '.join(told['missing']) if told['missing'] else ''), flush=True)

    def _inside(self, task, command):
        arguments, surroundings = peer_programs.envio(self.python).command(task)
        return command + arguments[1:], surroundings
