"""Fuzz: what lies on the disk: reason files, states, secrets, certificates, the kernel's events; what is made of it."""

import datetime
import email
import json
import logging
import os
import re
import shlex
import shutil
import tempfile

from hypothesis import strategies as st

from agent import (certificates, compat, config, credentials, journal, listing, metrics, reasons, requeue, router,
                   state, status, text)
from agent.breaker import CLOSED, HALF_OPEN, OPEN
from agent.inotify import Inotify
from agent.lanes import Lanes
from agent.records import ACK, FILE, NACK, RECEIVER, RETRY, LaneState, Outcome, Reply, Result, SpoolFile, Stamp, Tried
from agent.rules import Refused
from agent.spool import stamp_of
from agent.state import Keeper, State
from agent.stats import Stats
from tests import test_certificates as made
from tests.fuzz_common import file_names, fuzz, mutated, pieces
from tests.fuzz_config import printed
from tests.samples import receiver, ticket

FIELDS = ['File', 'Receiver', 'URL', 'Status', 'Reason', 'Time', 'Attempts', 'Idempotency-Key', 'Requeue']
NOW = 1.8e9
SHM = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None  # a folder for each example: quicker there
documents = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(('title', 'detail', 'x')), inner, max_size=3), max_leaves=6)
bodies = st.one_of(
    st.binary(max_size=200), st.text(max_size=60).map(lambda t: t.encode('utf-8')),
    documents.map(lambda document: json.dumps(document).encode()), st.integers(1, 9000).map(lambda n: b'\xff\n' * n),
    st.sampled_from((b'[' * 60000, b'{"title":' * 9000, b'9' * 60000,
                     b'{"title":"\\ud800","detail":"\\udfff\\u2028"}')))
latin = st.text(st.characters(max_codepoint=255), max_size=40)
logging.getLogger('envio').setLevel(logging.CRITICAL)


class Folder(object):
    """A temporary folder; `with` gives its path."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix='fuzz', dir=SHM)
        os.mkdir(self.path + '/.envio')
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path)


# --- reason files

@fuzz(file_names, latin, bodies, st.sampled_from(('application/problem+json', 'Application/Problem+JSON; a=b', '\xff')),
      st.one_of(st.just('/etc/envio/envio.conf'), file_names.map(lambda name: '/' + name)), st.booleans(), file_names)
def test_a_reason_file_can_be_parsed_and_nothing_in_it_is_forged(name, reason, body, kind, config_path, maybe, lies_as):
    reply = Reply(422, reason, (('content-type', kind),), body)
    outcome = Outcome(NACK, FILE, 422, text.status(422, reason), None, False, reply, False, False, maybe)
    raw = reasons.compose(ticket(name=name), outcome, 'key', config_path, NOW, '', lies_as)
    wanted = FIELDS[:-1] + ['Possibly-Delivered'] * maybe + FIELDS[-1:]
    message = email.message_from_string(raw.decode('utf-8'))
    assert message.keys() == wanted and not message.defects
    assert len(message.get_payload()) <= reasons.MOST_SHOWN + 1
    assert printed(re.sub('[\n\t]', '', raw.decode('utf-8')))
    head = requeue_head(raw)
    assert compat.unpercent(compat.byte_string(head[b'File'])) == compat.fs_bytes(name)
    assert head[b'Receiver'] == b'orders' and len(raw) < 3 * reasons.MOST_SHOWN + 5000
    words = shlex.split(head[b'Requeue'].decode('utf-8'))
    assert words[:2] == ['envio', '-c'] and words[3] == 'requeue'
    assert words[4:] in (['--all'], ['--', lies_as], [lies_as])


def requeue_head(raw):
    with Folder() as folder:
        with open(folder + '/x.reason', 'wb') as stream:
            stream.write(raw)
        return requeue.reason_fields(folder + '/x.reason')


@fuzz(st.one_of(pieces(b'File: ', b'Receiver: ', b'\n', b'\n\n', b'a.json', b'..', b'%2F', b'%', b'/', b'orders',
                       b': '),
                st.binary(max_size=300)), file_names, st.booleans())
def test_whatever_lies_beside_it_a_rejected_file_goes_back_into_its_spool(raw, name, numbered):
    if len(compat.fs_bytes(name)) > 230:
        return
    with Folder() as spool:
        os.mkdir(spool + '/error')
        here = name + '.1' if numbered else name
        for path, content in ((here, b'content'), (here + '.reason', raw)):
            with open('%s/error/%s' % (spool, path), 'wb') as stream:
                stream.write(content)
        there = requeue.put_back(spool, here)
        assert '/' not in there and os.path.isfile(spool + '/' + there)
        assert sorted(os.listdir(spool)) == sorted(['.envio', 'error', there]) and not os.listdir(spool + '/error')


# --- states

whole = st.integers(0, 10 ** 6)
seconds = st.floats(0, 1e9)
words = st.one_of(st.just(''), st.text(max_size=20).map(
    lambda t: compat.config_native(t.encode('utf-8', 'surrogatepass'))))
lane_states = st.builds(LaneState, st.sampled_from((CLOSED, OPEN, HALF_OPEN)), whole, whole, seconds, words, seconds,
                        seconds, whole, st.booleans(), whole)
stamps = st.builds(Stamp, *[st.integers(0, 1 << 62)] * 5)
tries = st.builds(Tried, stamps, whole, seconds, words, st.booleans(), st.sampled_from(('orders', 'http://plugged.in')))


def made_state(written, lanes, tried, answer):
    kept = State(written, written / 2, 4711, 'run')
    kept.lanes, kept.tried = lanes, tried
    for name in lanes:
        kept.counts[name] = dict.fromkeys(state.COUNTS, 3)
        kept.answers[name] = answer, written / 3
        kept.waiting[name] = kept.busy[name] = 2
    return kept


states = st.builds(made_state, st.floats(0, 4e9), st.dictionaries(
    st.sampled_from(('orders', 'http://plugged.in')), lane_states),
    st.dictionaries(file_names, tries, max_size=2), words)


@fuzz(states)
def test_a_state_is_read_as_it_was_written(kept):
    with Folder() as spool:
        state.write(spool, kept)
        found = state.read(spool)
    for part in ('written', 'since', 'pid', 'mode', 'counts', 'waiting', 'busy'):
        assert getattr(found, part) == getattr(kept, part), part
    shown = compat.native_text
    assert found.lanes == dict([(name, lane._replace(held=shown(compat.unicode_text(lane.held))))
                                for name, lane in kept.lanes.items()])
    assert found.tried == dict([(name, one._replace(last=shown(compat.unicode_text(one.last))))
                                for name, one in kept.tried.items()])


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-10, 10 ** 40) | st.text(max_size=9) | st.sampled_from((
        'OPEN', 'orders', float('inf'), 1e308, 1e17, 1e12, 10 ** 17, 'run', '%2F', '%00', u'\ud800')),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=8)


def edited(kept, edits):
    """Return the JSON of a state in which some values, wherever they are, are others."""
    with Folder() as spool:
        state.write(spool, kept)
        with open(spool + '/' + state.NAME) as stream:
            document = json.load(stream)
    for number, value in edits:
        places = []
        collect(document, places)
        holder, key = places[number % len(places)]
        holder[key] = value
    return json.dumps(document).encode()


def collect(value, places):
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        places.append((value, key))
        collect(value[key], places)


written = states.map(lambda kept: edited(kept, ()))
odd_states = st.one_of(
    st.builds(edited, states, st.lists(st.tuples(st.integers(0, 50), json_values), max_size=5)), mutated(written),
    st.binary(max_size=99), json_values.map(lambda value: json.dumps(value).encode()),
    st.just(b'[' * 100000), st.just(b'9' * 9000))


@fuzz(odd_states, st.floats(-1e6, 1e6))
def test_any_state_is_set_aside_or_can_be_gone_on_with(raw, gone_by):
    """By an agent that takes a file and fails, and writes it down anew; by `status` and `list`."""
    with Folder() as spool:
        with open(spool + '/' + state.NAME, 'wb') as stream:
            stream.write(raw)
        try:
            found = state.read(spool)
        except ValueError:
            found = None
        show(spool, found)
        clock = [1000.0]
        lanes = Lanes([receiver(name, workers=2) for name in ('orders', 'rest')])
        keeper = Keeper([spool], 'run', lambda: clock[0], lambda: NOW + gone_by)
        keeper.restore(lanes)
        assert os.path.exists(spool + '/' + state.NAME) == (found is not None)
        step(lanes, clock, spool)
        keeper.heard('orders', '200 OK')
        kept = keeper.save(lambda call: call(lanes), Stats(0))
        metrics.Metrics(spool + '/m.prom').write(kept)
        assert set(state.read(spool).lanes) >= set(('orders', 'rest'))
        show(spool, kept)


def step(lanes, clock, spool):
    for name in ('orders', 'rest'):
        one = ticket(lanes.lanes[name].receiver, name)
        lanes.offer(one._replace(file=one.file._replace(spool=spool)))
    until = clock[0] + 86400 * 3
    for outcome in (Outcome(RETRY, RECEIVER, 500, '500', None, False, None, False, False),
                    Outcome(ACK, FILE, 200, '200', None, False, None, True, False)) * 2:
        due = lanes.next_due(clock[0])
        if due is None:
            break
        assert due < until, 'a pause that was read is no longer than one may be'
        clock[0] = max(clock[0], due)
        job = lanes.take(clock[0])
        if job is not None:
            lanes.settle(job, outcome, clock[0], 0.5)
            assert lanes.busy == 0


def show(spool, found):
    """Draw what `status` and `list` do."""
    path = spool + '/new.json'
    with open(path, 'w'):
        pass
    page = ('[agent]\nspool = %s\n[receiver:orders]\nmatch = *\nurl = http://127.0.0.1:9/\n' % spool).encode()
    setup = config.parse(page, '/c')
    setup = setup, router.Router(setup)
    if found is not None:
        found.tried['new.json'] = Tried(stamp_of(os.stat(path)), 1, 2.0, '', True, 'orders')
    overview = status.gather(setup, NOW)
    level, summary = status.judge(overview)
    assert printed(summary) and level in range(4)
    assert printed(status.draw(overview, status.rates(overview, overview), False).replace('\n', ''))
    json.dumps(status._document(overview, level, summary))
    for as_json in (True, False):
        out = []
        listing.list_files(setup, as_json, out.append, out.append)
        assert printed(''.join(out).replace('\n', ''))
    os.unlink(path)


# --- the journal

@fuzz(file_names, words, latin, st.sampled_from((ACK, NACK, RETRY)), st.one_of(st.none(), st.integers(200, 599)),
      st.floats(0, 1e9), st.floats(0, 4e9))
def test_a_line_of_the_journal_is_one_line_of_json(name, spool, reason, verdict, code, took, wall):
    file = SpoolFile('/s/' + spool, name, Stamp(1, 2, 3, 4, 5))
    outcome = Outcome(verdict, FILE, code, text.status(code or 0, reason), None, False, None, True, False)
    raw = journal.line(Result(file, receiver(), outcome, 1, took), wall)
    assert raw.count(b'\n') == 1 and raw.endswith(b'\n') and printed(raw[:-1].decode('ascii'))
    fields = json.loads(raw.decode('ascii'))
    assert compat.unpercent(compat.byte_string(fields['file'].encode('utf-8'))) == compat.fs_bytes(name)
    assert fields['status'] == code and fields['reason'] == outcome.reason


# --- secrets

@fuzz(st.one_of(st.binary(max_size=60), pieces(b'secret', b'\n', b'\r\n', b': ', b'X-A', b'Authorization: b', b'#',
                                               b'\0', b'\xff')),
      st.one_of(st.none(), st.sampled_from(('password_file', 'token_file', 'secret_headers_file'))))
def test_any_file_of_secrets_gives_headers_or_is_refused_without_a_word_of_it(raw, key):
    with Folder() as folder:
        path = folder + '/file'
        with open(path, 'wb') as stream:
            stream.write(raw)
        os.chmod(path, 0o600)
        keys = [key] if key else ['password_file', 'secret_headers_file']
        one = receiver(username='me', **dict.fromkeys(keys, path))
        try:
            fields = credentials.Credentials().fields(one)
        except Refused as refused:
            assert str(refused).startswith(path) and printed(str(refused))
            assert len(raw.strip()) < 6 or b':' in raw or raw.strip() not in compat.config_bytes(str(refused))
            return
        assert len([name for name, _ in fields if name.lower() == 'authorization']) <= 1
        for name, value in fields:
            assert re.match(r'[!-9;-~]+$', name) and re.match(r'[ -~]*\Z', value) and '\n' not in name + value


# --- certificates

hosts = st.one_of(st.sampled_from(('localhost', 'a.example.com', '127.0.0.1', '::1', '[::1]', '', '.', 'x' * 300)),
                  st.text(max_size=20))
DERS = [made.der(), made.der(extensions=None), made.der(
    made.name((made.C, made.PRINTABLE, b'DE'), (made.CN, made.BMP, b'\0a\xd8\0'), (made.O, made.T61, b'\xff\0')),
    [made.BASIC, made.names_extension((made.DNS, b'*.Example.com'), (made.IP, made.V4), (made.IP, made.V6),
                                      (made.URI, b'x:y'))])]


@fuzz(st.one_of(mutated(st.sampled_from(DERS), 4), st.binary(max_size=99)), hosts, st.integers(0, 1 << 34))
def test_any_certificate_is_read_or_none(raw, host, now):
    try:
        found = certificates.parse(raw)
    except ValueError:
        return
    for words_ in (found.subject, found.issuer) + found.common_names + found.dns_names + certificates.names(found):
        assert printed(words_)
    assert isinstance(certificates.problem(found, host, now), str)
    fits = certificates.matches(found, host)
    assert not fits or certificates.names(found)
    assert datetime.datetime(1, 1, 1) <= datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=found.not_after)


@fuzz(st.lists(st.sampled_from((b'*', b'a', b'b-c', b'example', b'com', b'1', b'', b'xn--a', b'*a')),
               max_size=5).map(b'.'.join),
      st.lists(st.sampled_from(('a', 'b-c', 'example', 'com', '1', '', 'x')), max_size=5).map('.'.join))
def test_a_name_fits_only_what_it_says(name, host):
    found = certificates.parse(made.der(extensions=[made.names_extension((made.DNS, name))]))
    if certificates.matches(found, host):
        labels, wanted = name.decode().split('.'), host.rstrip('.').split('.')
        assert len(labels) == len(wanted) and labels[1:] == wanted[1:]
        assert labels[0] == wanted[0] or labels[0] == '*' and len(labels) > 2


# --- the kernel's events

@fuzz(st.lists(file_names, min_size=1, max_size=8), st.integers(1, 3))
def test_every_name_the_kernel_tells_of_is_heard(names, rounds):
    with Folder() as folder:
        watch = Inotify()
        try:
            watch.watch(folder)
            for name in names * rounds:
                with open(folder + '/' + name, 'w'):
                    pass
            found, whole_ = watch.read()
        finally:
            watch.close()
        assert whole_ and set(found) == set([(folder, name) for name in names])
