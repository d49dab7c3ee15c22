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
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            action()
        except BaseException:
            os.write(writing, traceback.format_exc().encode('utf-8', 'replace') or b'?')
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, 'rb') as stream:
        failure = stream.read()
    os.waitpid(child, 0)
    assert not failure, failure.decode('utf-8')


def remove(folder):
    """Remove what make_folder() made."""
    shutil.rmtree(folder, ignore_errors=True)
