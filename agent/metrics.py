"""Metrics in Prometheus' text format, exposition format 0.0.4: a file for node_exporter's textfile collector.

Called by engine.py, by the main thread alone. A file that can't be written is said once and stops nothing; the old one
stays, and its timestamps show its age.
"""

import logging

from agent import __version__, compat, moves, text
from agent.breaker import CLOSED, HALF_OPEN, OPEN

EVERY = 15.0  # seconds between two writes at the most, so that an idle agent is told from a dead one

log = logging.getLogger('envio')


class Metrics(object):
    """Replaces the file `path`, '' = there are no metrics. clock: monotonic seconds."""

    def __init__(self, path, clock=compat.monotonic):
        self._path = path
        folder, _, name = path.rpartition('/')
        # node_exporter reads *.prom: the draft has another ending.
        self._draft = '%s/.%s.new' % (folder, name)
        self._clock = clock
        self._written = -EVERY  # when write() was called last
        self._failing = False

    def due(self):
        """Return when write() is to be called even if nothing has changed; inf without a path."""
        return self._written + EVERY if self._path else float('inf')

    def write(self, picture):
        """Write a state.State."""
        if not self._path:
            return
        self._written = self._clock()
        try:
            moves.publish(self._path, self._draft, render(picture))
        except EnvironmentError as error:
            if not self._failing:
                log.error('%s: the metrics can\'t be written: %s: the old ones stay', text.shown(self._path),
                          compat.error_text(error))
            self._failing = True
            return
        if self._failing:
            self._failing = False
            log.warning('%s: the metrics can be written again', text.shown(self._path))


# --- the text

def _of_each(value, **labels):
    """Return a function that yields (labels, value) for each receiver. value: (State, receiver's name) -> a number, or
    None: it has none yet; labels: further ones."""
    def samples(picture):
        for name in sorted(picture.lanes):
            number = value(picture, name)
            if number is not None:
                yield [('receiver', name)] + sorted(labels.items()), number
    return samples


def _counted(count):
    return lambda picture, name: picture.counts.get(name, {}).get(count, 0)


def _in_state(state):
    return lambda picture, name: picture.lanes[name].breaker == state


def _all(*samples):
    return lambda picture: [sample for one in samples for sample in one(picture)]


def _one(value):
    return lambda picture: [([], value(picture))]


# name without its prefix; type; help; function State -> (labels, number) of each sample
_FAMILIES = (
    ('build_info', 'gauge', 'The version of the agent; always 1.', lambda _: [([('version', __version__)], 1)]),
    ('running', 'gauge', '1 while an agent is at work, 0 when it has ended.', _one(lambda picture: picture.mode != '')),
    ('state_timestamp_seconds', 'gauge', 'When these values were taken.', _one(lambda picture: picture.written)),
    ('counting_since_timestamp_seconds', 'gauge', 'When the counters began; they outlive a restart.',
     _one(lambda picture: picture.since)),
    ('files_total', 'counter', 'Files that left the spool; rejected: given up too; gone: taken away by others.',
     _all(*[_of_each(_counted(count), verdict=count) for count in ('accepted', 'rejected', 'gone')])),
    ('accepted_bytes_total', 'counter', 'Bytes of the files that were accepted.', _of_each(_counted('bytes'))),
    ('attempts_failed_total', 'counter', 'Attempts without a usable answer, or with a passing failure.',
     _of_each(_counted('failed'))),
    ('attempts_held_total', 'counter', 'Attempts that put or left the receiver on HOLD.', _of_each(_counted('held'))),
    ('waiting_files', 'gauge', 'Files known to wait.', _of_each(lambda picture, name: picture.waiting.get(name, 0))),
    ('in_flight_files', 'gauge', 'Files being sent.', _of_each(lambda picture, name: picture.busy.get(name, 0))),
    ('breaker_state', 'gauge', '1 for the state that the circuit breaker is in.',
     _all(*[_of_each(_in_state(state), state=state.lower()) for state in (CLOSED, OPEN, HALF_OPEN)])),
    ('hold', 'gauge', '1 while the receiver is on HOLD.',
     _of_each(lambda picture, name: bool(picture.lanes[name].held))),
    ('last_answer_timestamp_seconds', 'gauge', 'When the newest attempt ended.',
     _of_each(lambda picture, name: picture.answers.get(name, ('', 0))[1] or None)),  # a state.json says 0 for none
)


def render(picture):
    """Return a state.State as bytes in Prometheus' text format."""
    lines = []
    for name, kind, help_, samples in _FAMILIES:
        own = ['envio_%s%s %s' % (name, _labels(labels), _number(value)) for labels, value in samples(picture)]
        if own:
            lines += ['# HELP envio_%s %s' % (name, help_), '# TYPE envio_%s %s' % (name, kind)] + own
    return compat.log_bytes('\n'.join(lines) + '\n')


def _labels(pairs):
    return '{%s}' % ','.join(['%s="%s"' % (label, _escaped(value)) for label, value in pairs]) if pairs else ''


def _escaped(value):
    plain = compat.native_text(compat.unicode_text(value))
    return plain.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n')


def _number(value):
    return '%.3f' % value if isinstance(value, float) else '%d' % value
