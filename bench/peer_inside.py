"""Runs the agent with a clock around each stage of a file: `peer_inside.py PAGE` and the agent's own arguments.

For peer_stages.py; writes its figures to PAGE as JSON. A stage's time is its own: what other stages take within it is
theirs. The clock is the processor time of the thread.
"""

import importlib
import json
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from agent import cli  # noqa: E402 (found by the line above)

STAGES = (  # in the order of a file's way: what it is, and where in agent/
    ('look at the spool, route, offer', 'collector.Collector.work'),
    ('idempotency key', 'request.idempotency_key'),
    ('open, fstat', 'spool.Spool.open'),
    ('body and its fields', 'bodies.make'),
    ('URL and fixed part of the head', 'native.NativeTransport._request'),
    ('head of the file', 'request.file_head'),
    ('find the connection', 'native.NativeTransport._connection'),
    ('connect', 'native.Connection.connect'),
    ('is it still open: poll', 'streams.PlainStream.idle'),
    ('read the file', 'spool.OpenFile.read'),
    ('send', 'streams.PlainStream.sendall'),
    ('rest of sending', 'native.NativeTransport._begin'),
    ('wait for answers: poll', 'native.NativeTransport._ready'),
    ('recv', 'answers.AnswerReader.arrived'),
    ('read the answer but recv', 'answers.AnswerReader.read'),
    ('keep the connection', 'native.NativeTransport._take_in'),
    ('rest of receiving', 'native.NativeTransport._found'),
    ('what the answer means', 'classify.of_reply'),
    ('close', 'spool.OpenFile.close'),
    ('free name: lstat', 'spool.Spool._claim'),
    ('lstat, rename, lstat', 'spool.Spool._rename'),
    ('rest of the move', 'spool.Spool.accept'),
    ('rest of settling the file', 'delivery.Delivery._conclude'),
    ('tell the lanes, with the lock', 'workers.Pool._take_back'),
    ('the next file, with the lock', 'workers.Pool._next'),
    ('those that go along, with the lock', 'workers.Pool._take_along'),
    ('rest of a worker', 'workers.Pool._run'),
    ('count results', 'engine.Agent.count_results'),
    ('what is due', 'engine.Agent.next_due'),
    ('write the state', 'engine.Agent._keep'),
    ('rest of the main thread: start, end', 'cli.main'),
)
clock = time.thread_time
mine = threading.local()
everyone = []  # the books of all threads: {stage: [seconds, calls, calls of other stages within it]}


def watched(function, stage):
    """Return the function with a clock around it."""
    def inner(*args, **named):
        try:
            stack, book = mine.stack, mine.book
        except AttributeError:
            stack, book = mine.stack, mine.book = [], {}
            everyone.append(book)
        within = [0.0, 0]
        stack.append(within)
        begin = clock()
        try:
            return function(*args, **named)
        finally:
            took = clock() - begin
            stack.pop()
            page = book.setdefault(stage, [0.0, 0, 0])
            page[0] += took - within[0]
            page[1] += 1
            page[2] += within[1]
            if stack:
                stack[-1][0] += took
                stack[-1][1] += 1
    return inner


def watch(place, stage):
    """Put a clock around agent.`place`; return whether there is such a thing."""
    module, names = place.split('.')[0], place.split('.')[1:]
    try:
        owner = importlib.import_module('agent.' + module)
        for name in names[:-1]:
            owner = getattr(owner, name)
        setattr(owner, names[-1], watched(getattr(owner, names[-1]), stage))
    except (ImportError, AttributeError):
        return False
    return True


def cost(times=20000):
    """Return what a clock adds: (to the stage itself, to the one around it), in seconds a call."""
    def nothing(_):
        pass

    def plain():
        for number in range(times):
            nothing(number)
    inner = watched(nothing, 'inner')

    def clocked():
        for number in range(times):
            inner(number)
    whole = []
    for function in (plain, clocked):
        begin = clock()
        function()
        whole.append(clock() - begin)
    book = everyone.pop()['inner']
    del mine.stack, mine.book
    own = max(0.0, (book[0] - whole[0]) / times)
    return own, max(0.0, (whole[1] - whole[0]) / times - own)


def main():
    page, arguments = sys.argv[1], sys.argv[2:]
    own, around = cost()
    missing = [place for stage, place in STAGES if not watch(place, stage)]
    try:
        code = cli.main(arguments)
    except SystemExit as error:
        code = error.code
    rows, clocks = [], 0
    for stage, _ in STAGES:
        books = [book[stage] for book in everyone if stage in book]
        seconds, calls, within = [sum(column) for column in zip(*books)] if books else (0, 0, 0)
        off = min(seconds, own * calls + around * within)
        clocks += off
        if calls:
            rows.append((stage, seconds - off, calls))
    with open(page, 'w') as stream:
        json.dump({'stages': rows, 'clocks': clocks, 'missing': missing}, stream)
    return code


if __name__ == '__main__':
    sys.exit(main())
