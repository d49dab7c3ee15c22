"""The standard streams of a command: nothing that is written there breaks a pipe or a terminal. Called by cli.py."""

import errno
import os
import sys

from agent import compat, text
from agent.errors import AgentError


class ReaderGone(Exception):
    """Nobody reads our output any more: no fault of anybody's."""


def fill_streams():
    """Put /dev/null where the caller closed a standard stream: else the next file opened, such as the lock, would be
    taken for it, and log lines written there."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    sys.stdout = sys.stdout or open(os.devnull, 'w')
    sys.stderr = sys.stderr or open(os.devnull, 'w')


def show(words):
    """Write to stdout. Raises ReaderGone when nobody reads it, AgentError when it can't be done."""
    error = write(sys.stdout, words)
    if error is None:
        return
    if compat.error_number(error) == errno.EPIPE:
        raise ReaderGone
    raise AgentError('standard output: can\'t be written: %s' % compat.error_text(error))


def say(line):
    """Write a sentence to stderr, safe to show."""
    write(sys.stderr, 'envio: %s\n' % text.printable(compat.config_bytes(line), 10000))


def write(stream, words):
    """Write and flush; return the error that came of it, or None."""
    try:
        stream.write(compat.writable(words, stream))
        stream.flush()
    except EnvironmentError as error:
        # What is left in the buffer would fail again when Python ends, and change the exit code.
        number = {sys.stdout: 1, sys.stderr: 2}[stream]
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        return error
