"""The second transport: the system's cURL, for Pythons whose TLS is not good enough (SPEC 4, transport).

It reads the file through the descriptor that was opened and checked here, and leaves each answer in two small files,
which answers.py reads: so a verdict is the native transport's. Several files of one receiver go through one process
where cURL tells how each ended. One CurlTransport belongs to one worker; cut() and abort() alone may be called by
another thread. Raises TransportError, FileChanged.
"""

import errno
import fcntl
import os
import re
import shutil
import signal
import tempfile
from collections import namedtuple

from agent import bodies, compat, curl_program, text
from agent.answers import MOST_BODY, AnswerReader, check_early
from agent.errors import FileChanged, TransportError
from agent.folders import ANSWERS
from agent.places import check_proxy, place_of, refused_by_proxy
from agent.records import Reply
from agent.resources import usable

MOST_FILES = 16     # in one run
GRACE = 1.0         # seconds that cURL has to end by itself at the deadline, and to write down what it has
BLOCKS = 160        # of 512 bytes: no file of an answer grows larger; more than answers.py takes of one
MOST_SAID = 262144  # bytes that cURL may say of one run

# Exit codes by the stage at which the exchange ended (curl(1), EXIT CODES); any other is 'receive'.
_STAGES = {'resolve': (5, 6), 'connect': (7,), 'tls': (35, 51, 53, 54, 59, 60, 64, 66, 80, 83, 90, 91, 98),
           'credentials': (2, 58, 77, 82), 'send': (55, 65), 'protocol': (0, 1, 8, 27, 43, 61, 92), 'local': (23, 26),
           'proxy': (97,)}
_STAGE_OF = dict([(code, stage) for stage, codes in _STAGES.items() for code in codes])
_INVALID = (51, 60, 83, 90, 91)  # the certificate or its name is not valid
_TIMED_OUT = 28

# How one transfer ended. code: cURL's exit code; sent: bytes of the body; connected: seconds it took, 0 = never.
_Report = namedtuple('_Report', 'code sent connected message')

_REPORT = re.compile(r'@([0-9]{1,20}) ([0-9]{1,9}(?:[.,][0-9]{0,9})?) ([0-9]{0,3})(?![0-9]) ?(.*)\Z')
_COMPLAINT = re.compile(r'curl: \(\d+\) (.*)')


def shake_hands(program, receiver, place):
    """Raise TransportError unless cURL can connect to a place with TLS as `receiver` wants it; nothing is sent."""
    options = curl_program.handshake(program, receiver, place, _files_of(receiver))
    stdin, feed = compat.pipe()
    try:
        process = compat.start([program.path, '-q', '-K', '-'], stdin, None, curl_program.ENVIRONMENT)
    finally:
        os.close(stdin)
    try:
        _write(feed, curl_program.configuration([options]))
    finally:
        os.close(feed)
    said = [compat.native_text(compat.decode(line)) for line in process.communicate()[0].split(b'\n')]
    if not [line for line in said if re.match('@0*[.,]?0*[1-9]', line)]:
        raise TransportError(_STAGE_OF.get(process.returncode, 'connect'), '%s (cURL: %d)' % (
            _complaint(said) or 'can\'t connect', process.returncode))


def _files_of(receiver):
    from agent import tls  # here: the ssl module is slow to load, and plain http needs it not
    return usable(tls.files_of, receiver)


class CurlTransport(object):
    """Sends files for one worker.

    resources: resources.Resources; program: curl_program.Program; clock: monotonic, in seconds.
    """
    ride = True  # the files of send_all() go through one connection, one after the other

    def __init__(self, resources, program, clock=compat.monotonic):
        self._resources = resources
        self._program = program
        self._clock = clock
        self._folder = None    # of the answers, made with the first
        self._process = None   # the one that runs
        self._receiver = None  # whose files it sends
        self._deadline = None  # when cut() is to end the present transfer
        self._ended = None     # why cut() or abort() ended it

    def most(self, receiver):
        """Return how many files of a receiver one run can take."""
        return MOST_FILES if self._each_end_is_told() else 1

    def _each_end_is_told(self):
        return self._program.version >= curl_program.TELLS_EACH_END

    def send(self, parcel):
        """Send one file (records.Parcel) and return the Reply. Raises TransportError and FileChanged."""
        _, result = next(self.send_all([parcel]))
        if not isinstance(result, Reply):
            raise result
        return result

    def send_all(self, parcels):
        """Send files of one receiver, one after the other, and yield (number, Reply, TransportError or FileChanged) for
        each. After a failure the rest is not tried: then there are fewer results than files."""
        made = []  # open files that cURL reads
        try:
            try:
                places, descriptors, configuration = self._prepare(parcels, made)
                reading = self._start(parcels[0].ticket.receiver, descriptors, configuration)
            except (TransportError, FileChanged) as error:
                yield 0, error
                return
            except EnvironmentError as error:
                yield 0, TransportError('local', 'cURL can\'t be used: %s' % compat.error_text(error))
                return
            try:
                for number, report in enumerate(self._reports(reading, len(parcels))):
                    result = self._result(number, parcels[number], places[number], report)
                    yield number, result
                    if not isinstance(result, Reply):
                        break
            finally:
                os.close(reading)
                self._reap()
        finally:
            for stream in made:
                stream.close()

    def _prepare(self, parcels, made):
        """Return (places, descriptors of the bodies, configuration)."""
        places, descriptors, sections = [], [], []
        receiver = parcels[0].ticket.receiver
        credentials = self._resources.fields(receiver)
        told = '%{size_upload} %{time_connect} '
        if self._each_end_is_told():
            told = '%{stderr}\n@' + told + '%{exitcode} %{errormsg}\n'  # stderr: not kept back until a buffer is full
        else:
            told = '\n@' + told + '\n'
        for number, parcel in enumerate(parcels):
            place = place_of(parcel.ticket.url, receiver, self._resources)
            head, body, link = self._paths(number)
            for path in (head, body, link):
                if os.path.lexists(path):
                    os.unlink(path)
            places.append(place)
            descriptors.append(self._descriptor(parcel.body, made))
            upload = '/dev/fd/%d' % descriptors[-1]
            if self._program.version < curl_program.TAKES_A_TARGET:
                # It puts the name behind a URL that ends in a slash: what comes after the last slash and backslash.
                os.symlink(upload, link)
                upload = link
            files = _files_of(receiver) if place.scheme == 'https' else None
            sections.append(curl_program.options(self._program, parcel, place, credentials, files) + [
                ('upload-file', curl_program.path_value(upload)), ('dump-header', curl_program.path_value(head)),
                ('output', curl_program.path_value(body)), ('write-out', told)])
        return places, descriptors, curl_program.configuration(sections)

    def _paths(self, number):
        if self._folder is None or not os.path.isdir(self._folder):
            self._folder = tempfile.mkdtemp(prefix=ANSWERS, dir=self._resources.folder)
        return ['%s/%d.%s' % (self._folder, number, kind) for kind in ('head', 'body', 'file\\')]

    def _descriptor(self, body, made):
        """Return a descriptor with the bytes of the body: the file's own, or a nameless file's with what is made of
        it."""
        if isinstance(body, bodies.RawBody):
            return body.opened.fd
        stream = tempfile.TemporaryFile(dir=self._folder)
        made.append(stream)
        piece = body.read(bodies.PIECE)
        while piece:
            stream.write(piece)
            piece = body.read(bodies.PIECE)
        stream.flush()
        return stream.fileno()

    def _start(self, receiver, descriptors, configuration):
        """Start cURL; return the descriptor from which its reports can be read."""
        self._ended = None
        reading, writing = compat.pipe()
        try:
            stdin, feed = compat.pipe()
        except Exception:
            # Where descriptors are what is short, none may be lost.
            os.close(reading)
            os.close(writing)
            raise
        try:
            # All of it before there is a cURL, where it finds room: one that outlived us would act on half of it.
            rest = _filled(feed, configuration)
            # The shell sets the one bound for answers of unknown length that none of cURL's options sets.
            process = compat.start(
                ['/bin/sh', '-c', 'ulimit -f %d; exec "$0" -q -K -' % BLOCKS, self._program.path], stdin, writing,
                curl_program.ENVIRONMENT, descriptors)
        except Exception:
            os.close(reading)
            os.close(feed)
            raise
        finally:
            os.close(stdin)
            os.close(writing)
        self._receiver, self._process = receiver, process
        self._deadline = self._clock() + receiver.deadline + GRACE
        try:
            _write(feed, rest)
        except Exception:
            os.close(reading)
            self._reap()
            raise
        finally:
            os.close(feed)
        return reading

    def _reports(self, reading, count):
        """Yield a _Report for each transfer that ended, `count` at the most; the last one with cURL's own exit."""
        said, sent, connected, code = [], 0, 0.0, 0
        for line in _lines(reading):
            found = _REPORT.match(line)
            if not found:
                said.append(line)
                continue
            sent, connected = int(found.group(1)), float(found.group(2).replace(',', '.'))
            if found.group(3):
                code, count = int(found.group(3)), count - 1
                yield _Report(code, sent, connected, text.printable(compat.config_bytes(found.group(4))))
                sent, connected, said = 0, 0.0, []
                self._deadline = self._clock() + self._receiver.deadline + GRACE
                if not count or code:
                    return  # after a failure it ends by itself
        if count:
            self._deadline = None
            yield _Report(self._process.wait(), sent, connected, _complaint(said))

    def _reap(self):
        process, self._process, self._deadline = self._process, None, None
        # race: cut() looks at _process first, so that what is reaped from here on is out of its reach.
        if process.poll() is None:
            _kill(process)
        process.wait()

    def _result(self, number, parcel, place, report):
        """Return the Reply, or the TransportError, of one transfer."""
        whole = report.sent >= parcel.body.size
        try:
            reply = self._answer(number, place)
            if not whole:
                check_early(reply)
            check_proxy(place, reply)
            return reply
        except TransportError as error:
            if error.stage == 'receive':
                error = self._failure(report, place, str(error))
            error.sent_whole = whole and error.stage in ('receive', 'protocol', 'deadline')
            return error

    def _answer(self, number, place):
        """Return the Reply that a transfer left. Raises TransportError: 'receive' when its head is not whole."""
        head, body, _ = self._paths(number)
        reader = AnswerReader(_Recording(_content(head, 512 * BLOCKS)))
        reader.begin()
        found = reader.final_head()
        if place.proxy is not None and place.scheme == 'https':
            if found[1] >= 300:
                raise refused_by_proxy(place.proxy, found[1], found[2])
            found = reader.final_head()  # connected: now the receiver's own
        if found[1] == 417:
            try:
                found = reader.final_head()  # it may have tried again by itself, without Expect
            except TransportError:
                pass
        return Reply(found[1], found[2], found[3], _content(body, MOST_BODY))

    def _failure(self, report, place, why):
        """Return the TransportError of a transfer that left no whole head; why: what is missing in it."""
        if self._ended:
            return TransportError('deadline', self._ended)
        words = '%s (cURL: %d)' % (report.message or why, report.code)
        if report.code in _INVALID or 'certificate verify failed' in report.message:
            return self._explained(TransportError('tls', 'certificate not valid: %s' % words, hold=True), place)
        stage = _STAGE_OF.get(report.code, 'receive')
        if report.code == _TIMED_OUT:
            stage = 'receive' if report.connected else 'connect'
        return TransportError(stage, words, hold=stage == 'credentials')

    def _explained(self, error, place):
        """Return `error` in the native transport's words, where this Python can look at the certificate."""
        from agent import native, tls
        if tls.lack():
            return error
        return native.Connection(place, self._receiver, self._resources.context(self._receiver)).explained(error)

    def cut(self, now):
        """End the present transfer if its deadline has passed (`now`: monotonic). Any thread may call this."""
        deadline, receiver = self._deadline, self._receiver
        if deadline is not None and now >= deadline:
            self._end('not done within %g s' % receiver.deadline)

    def abort(self):
        """End the present run. Any thread may call this."""
        self._end('stopped before it was done')

    def _end(self, why):
        process = self._process
        if process is not None:
            self._ended = why
            _kill(process)

    def close(self):
        """Remove what answers are left."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class _Recording(object):
    """Bytes to be read as if from a socket."""

    def __init__(self, raw):
        self._raw = raw

    def recv(self, most):
        """As of a socket."""
        taken, self._raw = self._raw[:most], self._raw[most:]
        return taken


def _content(path, most):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except EnvironmentError as error:
        if compat.error_number(error) == errno.ENOENT:
            return b''
        raise TransportError('local', 'the answer can\'t be read: %s' % compat.error_text(error))
    try:
        return os.read(fd, most)
    finally:
        os.close(fd)


def _lines(reading):
    """Yield the lines that come from a descriptor, native, MOST_SAID bytes at the most."""
    rest, left = b'', MOST_SAID
    while left > 0:
        piece = compat.retry_interrupted(os.read, reading, 4096)
        if not piece:
            break
        left -= len(piece)
        lines = (rest + piece).split(b'\n')
        rest = lines.pop()
        for line in lines:
            yield compat.native_text(compat.decode(line))
    yield compat.native_text(compat.decode(rest))


def _complaint(said):
    """Return what cURL says of a failure, by its lines."""
    found = [match.group(1) for match in [_COMPLAINT.match(line) for line in said] if match]
    return text.printable(compat.config_bytes(found[-1])) if found else ''


def _filled(feed, raw):
    """Write what a pipe takes at once; return the rest."""
    flags = fcntl.fcntl(feed, fcntl.F_GETFL)
    compat.set_nonblocking(feed)
    try:
        return raw[compat.retry_interrupted(os.write, feed, raw):]
    except EnvironmentError as error:
        if compat.error_number(error) != errno.EAGAIN:
            raise
        return raw
    finally:
        fcntl.fcntl(feed, fcntl.F_SETFL, flags)


def _write(feed, raw):
    try:
        while raw:
            raw = raw[compat.retry_interrupted(os.write, feed, raw):]
    except EnvironmentError as error:
        if compat.error_number(error) != errno.EPIPE:  # it has ended, and its exit code says why
            raise


def _kill(process):
    try:
        os.kill(process.pid, signal.SIGKILL)
    except EnvironmentError as error:
        if compat.error_number(error) != errno.ESRCH:  # over by itself
            raise
