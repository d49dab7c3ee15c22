"""What only somebody without root's rights can show: permissions that refuse."""

import os
import shutil
import tempfile
import traceback

NOBODY = 65534


def make_folder():
    """Return a new folder that nobody owns and can get to (pytest's own are closed to others); remove it yourself."""
    folder = tempfile.mkdtemp(prefix='envio-test-')
    give(folder)
    return folder


def give(*paths):
    """Let nobody own these paths, when root runs the tests."""
    for path in paths:
        if os.getuid() == 0:
            os.chown(path, NOBODY, NOBODY)


def run(action):
    """Call action() as nobody in a child process when this is root, else as who we are; its failure is raised here.

    Import before what it needs: nobody may not be able to read this Python.
    """
    if os.getuid() != 0:
        action()
        return

    def as_nobody():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        action()
    in_child(as_nobody)


def in_child(action):
    """Return the text that action() returns in a child process, '' for None; its failure is raised here."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b'+' + (action() or '').encode('utf-8'))
        except BaseException:
            os.write(writing, b'-' + traceback.format_exc().encode('utf-8', 'replace'))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, 'rb') as stream:
        said = stream.read().decode('utf-8')
    os.waitpid(child, 0)
    assert said[:1] == '+', said[1:] or 'the child ended without a word'
    return said[1:]


def remove(folder):
    """Remove what make_folder() made."""
    shutil.rmtree(folder, ignore_errors=True)
