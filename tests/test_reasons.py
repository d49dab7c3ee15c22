"""The reason file beside a rejected file: read by people and scripts, so nothing in it may be forged or run away."""

import shlex
import subprocess

import pytest

from agent import compat, reasons
from tests import samples

PROBLEM = ('content-type', 'application/problem+json')
KEY = '0f170d47-8929-862e-b8f3-7828de9c7f46'
FIELDS = ['File', 'Receiver', 'URL', 'Status', 'Reason', 'Time', 'Attempts', 'Idempotency-Key', 'Requeue']


class Outcome(object):
    """As much of an Outcome as a reason file needs."""

    def __init__(self, reply, reason='422 Unprocessable Content'):
        self.reply = reply
        self.reason = reason
        self.maybe = False


def composed(reply=None, config_path='/etc/envio/envio.conf', reason='422 Unprocessable Content', **fields):
    """Return (head, fields in order, body): head and body as bytes."""
    name = compat.fs_native(fields.pop('name', b'orders-17.json'))
    raw = reasons.compose(samples.ticket(name=name, **fields), Outcome(reply, reason), KEY, config_path, 1795458611)
    head, _, body = raw.partition(b'\n\n')
    pairs = [line.partition(b': ') for line in head.split(b'\n')]
    return head, [(compat.byte_string(key), value) for key, _, value in pairs], body


def said(body, *headers):
    return reasons.problem(samples.reply(422, *(headers or (PROBLEM,)), body=body))


def test_each_field_says_what_it_promises_in_the_order_promised():
    _, fields, body = composed(samples.reply(422, body=b'no'), attempts=2)
    assert [name for name, _ in fields] == FIELDS
    assert [value for _, value in fields] == [
        b'orders-17.json', b'orders', b'http://127.0.0.1:9/in', b'422 Unprocessable Content',
        b'422 Unprocessable Content',
        b'2026-11-23T18:30:11Z', b'3', compat.wire(KEY), b'envio -c /etc/envio/envio.conf requeue orders-17.json']
    assert body == b'no\n'


def test_the_reason_is_the_problem_documents_where_the_body_is_one():
    body = b'{"title": "Invalid order", "detail": "field \\"total\\" is missing"}'
    _, fields, shown = composed(samples.reply(422, PROBLEM, body=body))
    assert dict(fields)['Reason'] == b'Invalid order: field "total" is missing'
    assert dict(fields)['Status'] == b'422 Unprocessable Content'
    assert shown == body + b'\n'


def test_the_command_that_sends_again_is_one_for_a_shell_whatever_the_path():
    for path in ("/it's; touch b\x1f", '/a b\n', '/$(c)\x7f', compat.fs_native(b'/"\xff')):
        _, fields, _ = composed(samples.reply(422), config_path=path)
        words = shlex.split(compat.native_text(compat.decode(dict(fields)['Requeue'])))
        assert words[:2] + words[3:] == ['envio', '-c', 'requeue', 'orders-17.json']


@pytest.mark.parametrize('name', [b'a\nStatus: 200 OK', b'a\r\nReason: fine', b'x\n\nforged body', b'\xff\xfe\n',
                                  b'\xc2\x85Status: 200', b'\xe2\x80\xa8Status: 200 OK'])
def test_a_file_name_cant_forge_a_line(name):
    head, fields, body = composed(samples.reply(422, body=b'the body'), name=name)
    assert [field for field, _ in fields] == FIELDS
    assert dict(fields)['Status'] == b'422 Unprocessable Content'
    assert len(compat.decode(head).splitlines()) == len(FIELDS)
    assert body == b'the body\n'


def test_a_configuration_path_cant_forge_a_line():
    _, fields, _ = composed(samples.reply(422), config_path='/etc/a\nStatus: 200 OK')
    assert [field for field, _ in fields] == FIELDS


def test_a_problem_document_cant_forge_a_line_nor_control_a_terminal():
    body = b'{"title": "x\\nStatus: 200 OK\\r\\n\\r\\nforged", "detail": "\\u001b[2J\\u0085\\u2028\\u202e"}'
    head, fields, _ = composed(samples.reply(422, PROBLEM, body=body))
    assert [field for field, _ in fields] == FIELDS
    assert dict(fields)['Reason'] == b'x?Status: 200 OK????forged: ?[2J???'
    assert len(compat.decode(head).splitlines()) == len(FIELDS)


def test_the_body_is_made_safe_and_keeps_its_lines():
    _, _, body = composed(samples.reply(422, body=b'one\ntwo\tthree\x1b[31m\x00\x07\x7f end'))
    assert body == b'one\ntwo\tthree?[31m??? end\n'


@pytest.mark.parametrize('size', [4095, 4096, 4097, 65536])
def test_at_most_4_KiB_of_the_body_are_kept(size):
    _, _, body = composed(samples.reply(422, body=b'x' * size))
    assert body.rstrip(b'\n') == b'x' * min(size, 4096)


def test_a_body_cut_within_a_character_is_still_text():
    _, _, body = composed(samples.reply(422, body=b'x' * 4095 + b'\xc3\xa9'))
    assert body.decode('utf-8').startswith(u'x' * 4095)


def test_without_a_body_the_head_stands_alone():
    assert composed(samples.reply(422))[2] == b''
    assert composed(None, reason='given up')[2] == b''


@pytest.mark.parametrize('raw', [b'orders-17.json', b"it's $(id) `id` ; rm *", b'a b', b'caf\xc3\xa9', b'~x',
                                 b'{name}', b'50%'])
def test_the_requeue_line_pasted_into_a_shell_names_the_file(raw):
    _, fields, _ = composed(samples.reply(422), name=raw, config_path='/etc/my envio/e.conf')
    line = dict(fields)['Requeue'].replace(b'envio', b'printf "%s\\n"', 1)
    shell = subprocess.Popen(['sh'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert shell.communicate(line)[0].split(b'\n')[:-1] == [b'-c', b'/etc/my envio/e.conf', b'requeue', raw]


def test_the_requeue_line_does_not_take_a_file_name_for_an_option():
    _, fields, _ = composed(samples.reply(422), name=b'-rf')
    assert dict(fields)['Requeue'].endswith(b' requeue -- -rf')


def test_a_file_whose_name_cant_be_typed_is_requeued_with_the_others():
    _, fields, _ = composed(samples.reply(422), name=b'\xff\n')
    assert dict(fields)['Requeue'].endswith(b' requeue --all')


@pytest.mark.parametrize('body, expected', [
    (b'{"title": "T", "detail": "D"}', 'T: D'),
    (b'{"title": "T"}', 'T'),
    (b'{"detail": "D"}', 'D'),
    (b'{"title": "Reason", "detail": "D"}', 'D'),         # about:blank: the title repeats the status line
    (b'{"title": "Reason"}', 'Reason'),
    (b'{"title": "", "detail": " "}', ''),
    (b'{"title": 17, "detail": ["D"]}', ''),
    (b'{"title": null, "detail": {"a": "b"}}', ''),
    (b'{"status": 422}', ''),
    (b'{"title": "T", "status": 1e999}', 'T'),
    (b'{"title": "\xc3\xa9"}', compat.native_text(u'\xe9')),
    (b'{"title": "\xff"}', ''),
    (b'["title", "T"]', ''), (b'"T"', ''), (b'17', ''), (b'null', ''), (b'true', ''),
    (b'', ''), (b'not JSON', ''), (b'{"title": "T"', ''), (b'<html></html>', ''), (b'\x00', ''),
])
def test_what_a_problem_document_says(body, expected):
    assert said(body) == expected


@pytest.mark.parametrize('body', [b'[' * 60000, b'{"title":' * 6000, b'{"title": "T", "a": ' + b'[' * 60000,
                                  b'{"title": ' + b'9' * 60000 + b'}'])
def test_a_hostile_problem_document_says_nothing(body):
    assert said(body) in ('', 'T')
    assert [name for name, _ in composed(samples.reply(422, PROBLEM, body=body))[1]] == FIELDS


def test_a_long_problem_is_cut():
    assert len(said(b'{"detail": "' + b'x' * 60000 + b'"}')) <= 503


@pytest.mark.parametrize('kind, expected', [
    ('application/problem+json', 'T'), ('Application/Problem+JSON; charset=utf-8', 'T'),
    (' application/problem+json ;', 'T'),
    ('application/json', ''), ('text/html', ''), ('', '')])
def test_only_a_problem_document_is_read_as_one(kind, expected):
    assert said(b'{"title": "T"}', ('content-type', kind)) == expected


def test_an_answer_without_content_type_or_no_answer_says_nothing():
    assert said(b'{"title": "T"}', ('server', 'x')) == ''
    assert reasons.problem(None) == ''
