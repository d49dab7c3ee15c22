"""The metrics are what Prometheus' own programs read, whole at any moment, and nothing that happens to them stops the
agent."""

import os
import resource
import stat
import subprocess
import time

import pytest

from agent import __version__, compat, metrics
from agent.breaker import CLOSED, HALF_OPEN, OPEN
from agent.metrics import Metrics, render
from agent.records import LaneState
from agent.state import State
from tests import nobody, programs

QUIET = LaneState(CLOSED, 0, 0, 0, '', 0, 0, 0, True, 4)
PROMTOOL = programs.find('promtool')


def picture(*names):
    """Return the State of an agent with these receivers."""
    state = State(1795458611.25, 1795000000.5, 17, 'run')
    for name in names:
        state.lanes[name] = QUIET
    return state


def busy_picture():
    state = picture('invoices', 'orders')
    state.lanes['orders'] = QUIET._replace(breaker=HALF_OPEN, held='401 Unauthorized')
    state.counts['orders'] = {'accepted': 7, 'rejected': 1, 'failed': 3, 'held': 2, 'gone': 4, 'bytes': 1 << 60}
    state.answers['orders'] = '401 Unauthorized', 1795458600.0
    state.waiting['orders'], state.busy['orders'] = 12, 1
    return state


def values(raw):
    """Return {name with its labels: value, as they stand there}."""
    lines = raw.decode('utf-8').split('\n')
    assert lines.pop() == ''
    return dict([line.rsplit(' ', 1) for line in lines if not line.startswith('#')])


@pytest.fixture
def path(tmpdir):
    return str(tmpdir.mkdir('textfile').join('envio.prom'))


def read(path):
    with open(path, 'rb') as stream:
        return stream.read()


# --- what it tells

def test_an_agent_without_receivers_tells_of_itself_alone():
    assert render(picture()).decode('ascii') == '\n'.join([
        '# HELP envio_build_info The version of the agent; always 1.',
        '# TYPE envio_build_info gauge',
        'envio_build_info{version="%s"} 1' % __version__,
        '# HELP envio_running 1 while an agent is at work, 0 when it has ended.',
        '# TYPE envio_running gauge',
        'envio_running 1',
        '# HELP envio_state_timestamp_seconds When these values were taken.',
        '# TYPE envio_state_timestamp_seconds gauge',
        'envio_state_timestamp_seconds 1795458611.250',
        '# HELP envio_counting_since_timestamp_seconds When the counters began; they outlive a restart.',
        '# TYPE envio_counting_since_timestamp_seconds gauge',
        'envio_counting_since_timestamp_seconds 1795000000.500', ''])


def test_a_receiver_has_all_its_values():
    found = values(render(busy_picture()))
    assert dict([(key, value) for key, value in found.items() if 'orders' in key]) == {
        'envio_files_total{receiver="orders",verdict="accepted"}': '7',
        'envio_files_total{receiver="orders",verdict="rejected"}': '1',
        'envio_files_total{receiver="orders",verdict="gone"}': '4',
        'envio_accepted_bytes_total{receiver="orders"}': '1152921504606846976',
        'envio_attempts_failed_total{receiver="orders"}': '3',
        'envio_attempts_held_total{receiver="orders"}': '2',
        'envio_waiting_files{receiver="orders"}': '12',
        'envio_in_flight_files{receiver="orders"}': '1',
        'envio_breaker_state{receiver="orders",state="closed"}': '0',
        'envio_breaker_state{receiver="orders",state="open"}': '0',
        'envio_breaker_state{receiver="orders",state="half_open"}': '1',
        'envio_hold{receiver="orders"}': '1',
        'envio_last_answer_timestamp_seconds{receiver="orders"}': '1795458600.000'}


def test_a_receiver_of_which_nothing_is_known_yet_begins_at_zero():
    one = picture('invoices', 'orders')
    one.answers['orders'] = '', 0  # as read from a state
    found = values(render(one))
    assert found['envio_files_total{receiver="orders",verdict="accepted"}'] == '0'
    assert found['envio_breaker_state{receiver="orders",state="closed"}'] == '1'
    assert [key for key in found if key.startswith('envio_last_answer')] == [], 'none is not 1970'


@pytest.mark.parametrize('state', [CLOSED, OPEN, HALF_OPEN])
def test_a_breaker_is_in_one_state(state):
    one = picture('orders')
    one.lanes['orders'] = QUIET._replace(breaker=state)
    found = [(key, value) for key, value in values(render(one)).items() if key.startswith('envio_breaker_state')]
    assert [key.split('"')[3] for key, value in found if value == '1'] == [state.lower()] and len(found) == 3


def test_an_agent_that_has_ended_does_not_run():
    ended = picture()
    ended.mode = ''
    assert values(render(ended))['envio_running'] == '0'


@pytest.mark.parametrize('raw, escaped', [
    (b'a"b', u'a\\"b'), (b'a\\b', u'a\\\\b'), (b'a\nb', u'a\\nb'), (b'caf\xc3\xa9', u'caf\xe9'), (b'{a}', u'{a}')])
def test_labels_are_escaped(raw, escaped):
    assert u'envio_hold{receiver="%s"} 0' % escaped in render(picture(compat.fs_native(raw))).decode('utf-8')


# --- the file

def test_the_file_is_replaced_and_nothing_else_is_left(path):
    for names in (('orders', 'invoices'), ('orders',)):
        Metrics(path).write(picture(*names))
        assert read(path) == render(picture(*names))
    assert os.listdir(os.path.dirname(path)) == ['envio.prom']


def test_other_accounts_may_read_it_whatever_the_umask(path):
    os.umask(0o077)
    Metrics(path).write(picture())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644


def test_a_reader_finds_it_whole_at_any_moment(path):
    Metrics(path).write(picture('orders'))
    with open(path, 'rb') as opened:
        Metrics(path).write(picture('orders', 'invoices'))
        assert opened.read() == render(picture('orders'))


def test_what_a_crash_left_is_in_nobodys_way(path):
    with open(os.path.join(os.path.dirname(path), '.envio.prom.new'), 'w') as draft:
        draft.write('half of it')
    Metrics(path).write(picture())
    assert read(path) == render(picture()) and os.listdir(os.path.dirname(path)) == ['envio.prom']


@pytest.mark.parametrize('link', [os.symlink, os.link])
def test_no_link_is_followed(path, tmpdir, link):
    other = tmpdir.join('other')
    other.write('its own')
    for name in ('envio.prom', '.envio.prom.new'):
        link(str(other), os.path.join(os.path.dirname(path), name))
    Metrics(path).write(picture())
    assert other.read() == 'its own' and read(path) == render(picture())
    assert not os.path.islink(path)


def test_without_a_path_there_are_no_metrics(tmpdir):
    none = Metrics('')
    with tmpdir.as_cwd():
        none.write(picture())
    assert tmpdir.listdir() == [] and none.due() == float('inf')


def test_an_idle_agent_gives_a_sign_of_life(path):
    now = [1000.0]
    some = Metrics(path, lambda: now[0])
    assert some.due() <= now[0]
    some.write(picture())
    assert some.due() == now[0] + metrics.EVERY


# --- what goes wrong

def test_a_full_disk_is_said_once_and_the_old_values_stay(path, said):
    some = Metrics(path)
    some.write(picture())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        for _ in range(3):
            some.write(picture('orders'))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read(path) == render(picture()) and os.listdir(os.path.dirname(path)) == ['envio.prom']
    some.write(picture('orders'))
    assert read(path) == render(picture('orders'))
    assert said == [('ERROR', '%s: the metrics can\'t be written: File too large: the old ones stay' % path),
                    ('WARNING', '%s: the metrics can be written again' % path)]


@pytest.mark.parametrize('in_the_way', ['envio.prom', '.envio.prom.new', '..'])
def test_what_lies_in_the_way_stops_nothing(path, said, in_the_way):
    folder = os.path.dirname(path)
    if in_the_way == '..':
        os.rmdir(folder)
    else:
        os.mkdir(os.path.join(folder, in_the_way))
    for _ in range(2):
        Metrics(path).write(picture())
    some = Metrics(path)
    del said[:]
    for _ in range(2):
        some.write(picture())
    assert [level for level, _ in said] == ['ERROR']


def test_an_unwritable_folder_is_said_once(said):
    folder = nobody.make_folder()
    path = os.path.join(folder, 'envio.prom')

    def fail():
        os.chmod(folder, 0o500)
        some = Metrics(path)
        for _ in range(3):
            some.write(picture())
        os.chmod(folder, 0o700)
        some.write(picture())
        assert said == [('ERROR', '%s: the metrics can\'t be written: Permission denied: the old ones stay' % path),
                        ('WARNING', '%s: the metrics can be written again' % path)]
        assert read(path) == render(picture())
    try:
        nobody.run(fail)
    finally:
        nobody.remove(folder)


# --- Prometheus' own programs

def odd_picture():
    """Receivers as the configuration and a router plug-in name them, and as nobody should."""
    state = busy_picture()
    for raw in (b'https://[::1]:8443', b'a"b\\c\nd', b'caf\xc3\xa9', b'\xff'):
        state.lanes[compat.fs_native(raw)] = QUIET
    return state


@pytest.mark.skipif(not PROMTOOL, reason='there is no promtool on this machine')
@pytest.mark.parametrize('make', [picture, busy_picture, odd_picture])
def test_promtool_has_nothing_to_say(path, make):
    Metrics(path).write(make())
    with open(path, 'rb') as stream:
        tool = subprocess.Popen([PROMTOOL, 'check', 'metrics'], stdin=stream, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)
        words = tool.communicate()[0]
    assert (tool.returncode, words.decode('utf-8')) == (0, '')


class NodeExporter(programs.Daemon):
    """The system's node_exporter, with no collector but that of text files. textfile: the folder it reads."""

    names = ('prometheus-node-exporter', 'node_exporter')
    labels = ('http',)

    def __init__(self, folder, textfile):
        programs.Daemon.__init__(self, folder)
        self._textfile = textfile

    def _configure(self):
        pass

    def _command(self):
        return [self.program, '--web.listen-address=127.0.0.1:%d' % self.ports['http'], '--collector.disable-defaults',
                '--collector.textfile', '--collector.textfile.directory=%s' % self._textfile]

    def _ready(self):
        for _ in range(1000):
            ended = self._process.poll() is not None
            if ended or 'Listening on' in self._read('output'):
                return not ended
            time.sleep(0.01)  # it writes no pid, and tells in no other way
        return False

    def scrape(self):
        """Return what it hands Prometheus, as bytes."""
        connection = compat.http_client().HTTPConnection('127.0.0.1', self.ports['http'], timeout=10)
        try:
            connection.request('GET', '/metrics')
            return connection.getresponse().read()
        finally:
            connection.close()


def test_node_exporter_hands_on_every_value(path, tmpdir):
    exporter = NodeExporter(str(tmpdir.mkdir('exporter')), os.path.dirname(path))
    if exporter.absent:
        pytest.skip(exporter.absent)
    Metrics(path).write(odd_picture())
    with open(os.path.join(os.path.dirname(path), '.envio.prom.new'), 'w') as draft:
        draft.write('half of {it')  # as while it is being written
    with exporter:
        found = values(exporter.scrape())
    assert found['node_textfile_scrape_error'] == '0'
    assert [key for key in found if key.startswith('node_textfile_mtime')] == [
        'node_textfile_mtime_seconds{file="%s"}' % path]
    expected = values(render(odd_picture()))
    assert sorted([key for key in found if key.startswith('envio_')]) == sorted(expected)
    assert [key for key, value in expected.items() if float(value) != float(found[key])] == []
