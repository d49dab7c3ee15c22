"""What is read from a certificate, and which hosts it is for, in tables: the same on every Python."""

import random
import ssl

import pytest

from agent import certificates, compat, ip
from agent.certificates import Certificate
from tests.authority import Authority

DNS, IP, URI = 0x82, 0x87, 0x86
UTF8, PRINTABLE, IA5, T61, BMP = 0x0c, 0x13, 0x16, 0x14, 0x1e
CN, O, C = b'\x55\x04\x03', b'\x55\x04\x0a', b'\x55\x04\x06'  # noqa: E741 (as in RFC 4514)
V4, V6 = b'\x7f\0\0\1', b'\x20\x01\x0d\xb8' + b'\0' * 11 + b'\1'
SERIAL_NUMBER = b'\x55\x04\x05'


# --- certificates made by hand

def element(tag, *parts):
    """Return a DER element."""
    content = b''.join(parts)
    length = [len(content)]
    if len(content) >= 0x80:
        digits = '%x' % len(content)
        digits = '0' * (len(digits) % 2) + digits
        length = [0x80 | len(digits) // 2] + [int(digits[at:at + 2], 16) for at in range(0, len(digits), 2)]
    return bytes(bytearray([tag] + length)) + content


def sequence(*parts):
    return element(0x30, *parts)


def name(*attributes):
    """Return a name; attributes: (OID, tag, content)."""
    return sequence(*[element(0x31, sequence(element(6, kind), element(tag, content)))
                      for kind, tag, content in attributes])


def extension(oid, content, critical=b''):
    return sequence(element(6, oid), critical, element(4, content))


def names_extension(*names):
    """Return a subjectAltName; names: (tag, content)."""
    return extension(b'\x55\x1d\x11', sequence(*[element(tag, content) for tag, content in names]))


BASIC = extension(b'\x55\x1d\x13', sequence(), element(1, b'\xff'))


TIMES = ((0x17, b'200101000000Z'), (0x17, b'300101000000Z'))


def der(subject=name((CN, UTF8, b'localhost')), extensions=(), times=TIMES, issuer=name((CN, UTF8, b'Authority')),
        version=element(0xa0, element(2, b'\x02')), more=()):
    """Return a certificate. times: (tag, content); extensions: None: the field is missing; more: fields before it."""
    fields = [version, element(2, b'\x01'), sequence(), issuer, sequence(*[element(*time) for time in times]), subject,
              sequence()] + list(more)
    if extensions is not None:
        fields.append(element(0xa3, sequence(*extensions)))
    return sequence(sequence(*fields), sequence(), element(3, b'\0signature'))


def common_names(tag, content):
    return certificates.parse(der(name((CN, tag, content)))).common_names


# --- what is read

def test_everything_is_read():
    raw = der(name((C, PRINTABLE, b'DE'), (O, UTF8, b'Example'), (CN, UTF8, b'Orders')),
              [BASIC, names_extension((DNS, b'A.Example.com'), (IP, V4), (URI, b'x:y'), (IP, V6))])
    assert certificates.parse(raw) == Certificate(
        'CN=Orders, O=Example, C=DE', 'CN=Authority', ('Orders',), ('a.example.com',), (V4, V6), True,
        1577836800, 1893456000, False)


def test_an_old_certificate_without_version_and_extensions_is_read():
    found = certificates.parse(der(version=b'', extensions=None))
    assert (found.common_names, found.dns_names, found.has_names) == (('localhost',), (), False)
    assert certificates.parse(der(more=[element(0x81, b'\0x'), element(0x82, b'\0y')])).subject == 'CN=localhost'


def test_names_are_there_even_when_there_is_none_among_them():
    assert not certificates.parse(der(extensions=[BASIC])).has_names
    for names in ((), [(URI, b'x:y')], [(IP, b'\x7f\0\0\0\xff\0\0\0')]):
        found = certificates.parse(der(extensions=[names_extension(*names)]))
        assert (found.has_names, found.dns_names, found.addresses) == (True, (), ())


def test_self_issued_compares_the_bytes():
    assert certificates.parse(der(issuer=name((CN, UTF8, b'localhost')))).self_issued
    assert not certificates.parse(der(issuer=name((CN, PRINTABLE, b'localhost')))).self_issued


@pytest.mark.parametrize('tag, content, text', [
    (UTF8, u'caf\xe9'.encode('utf-8'), u'caf\xe9'), (PRINTABLE, b'cafe', u'cafe'), (IA5, b'caf@', u'caf@'),
    (T61, b'caf\xe9', u'caf\xe9'), (BMP, u'caf\xe9'.encode('utf-16-be'), u'caf\xe9'), (BMP, b'\0a\0', u'a\ufffd'),
    (UTF8, b'caf\xe9', u'caf\ufffd'), (0x1c, b'\0\0\0a', u'???a'), (UTF8, b'a\0b\x1b\n', u'a?b??'),
    (BMP, b'\0a\0\0\x20\x2e', u'a??'), (UTF8, b'', u''), (UTF8, b'x' * 300, u'x' * 255 + u'...'),
])
def test_strings_of_every_kind_are_text_that_is_safe_to_show(tag, content, text):
    assert common_names(tag, content) == (compat.native_text(text),)


def test_a_name_is_written_as_rfc_4514_does():
    assert certificates.parse(der(name())).subject == ''
    assert certificates.parse(der(name((O, UTF8, b'A, Inc. <x>; "y"+z\\')))).subject == (
        'O=A\\, Inc. \\<x\\>\\; \\"y\\"\\+z\\\\')
    assert certificates.parse(der(name((SERIAL_NUMBER, PRINTABLE, b'17'), (CN, UTF8, b'x')))).subject == 'CN=x'
    both = sequence(element(0x31, *[sequence(element(6, kind), element(UTF8, b'x')) for kind in (O, CN)]))
    assert certificates.parse(der(both)).subject == 'O=x+CN=x'


@pytest.mark.parametrize('tag, content, seconds', [
    (0x17, b'700101000000Z', 0), (0x17, b'691231235959Z', -1), (0x17, b'500101000000Z', -631152000),
    (0x17, b'491231235959Z', 2524607999), (0x17, b'200229120000Z', 1582977600), (0x18, b'20380119031408Z', 1 << 31),
    (0x18, b'99991231235959Z', 253402300799),
])
def test_times_are_seconds_since_1970(tag, content, seconds):
    found = certificates.parse(der(times=[(tag, content)] * 2))
    assert (found.not_before, found.not_after) == (seconds, seconds)


@pytest.mark.parametrize('tag, content', [
    (0x17, b''), (0x17, b'200101000000'), (0x17, b'2001010000Z'), (0x17, b'200101000000+0100'),
    (0x17, b'200101000000Z\n'), (0x17, b'20200101000000Z'), (0x18, b'200101000000Z'), (0x18, b'20200101000000.5Z'),
    (0x18, b'00000101000000Z'), (0x17, b'201301000000Z'), (0x17, b'200230000000Z'), (0x17, b'200101240000Z'),
    (0x17, b'200101006000Z'), (0x17, b'200101000060Z'), (0x17, b'2001010000 1Z'), (0x0c, b'200101000000Z'),
])
def test_a_time_that_is_none_is_refused(tag, content):
    with pytest.raises(ValueError):
        certificates.parse(der(times=[(tag, content)] * 2))


NAMES = names_extension((DNS, b'a.example.com'))


@pytest.mark.parametrize('raw', [
    b'', b'\x30', b'\x30\x00', b'0\x80\0\0', b'0\xff' + b'x' * 127, b'0\x84\xff\xff\xff\xff', b'0\x85\0\0\0\0\0',
    b'\x1f\x81\1\0', b'-----BEGIN CERTIFICATE-----', b'x' * 1000, b'0' * 100000, der() + b'\0', der() + b'\0\0',
    der() + der(), der(extensions=[NAMES, NAMES]), der(extensions=[NAMES], more=[element(0xa3, sequence(NAMES))]),
    der(extensions=[extension(b'\x55\x1d\x11', b'')]),
    der(extensions=[extension(b'\x55\x1d\x11', b'\x30\5\x82\4abc')]), der(extensions=[b'\x04\0']),
    der(extensions=[sequence()]), der(extensions=[sequence(element(6, b'x'))]),
    der(version=b'', more=()).replace(b'\2\1\1', b'\4\1\1', 1), der(times=()),
    der(times=[(0x17, b'200101000000Z')] * 3), der(subject=sequence(sequence())),
    der(subject=sequence(element(0x31, sequence()))), der(subject=sequence(element(0x31, element(6, CN)))),
    der(subject=element(0x31)), sequence(sequence(), sequence(), element(3)), sequence(der()),
    element(0x31, der()[4:]),
])
def test_what_is_no_certificate_is_refused(raw):
    with pytest.raises(ValueError):
        certificates.parse(raw)


def certificate_or_refusal(raw):
    try:
        return certificates.parse(raw)
    except ValueError:
        return None


WHOLE = der(name((CN, BMP, b'\0a'), (O, UTF8, b'Example')),
            [BASIC, names_extension((DNS, b'a.example.com'), (IP, V4))])


def test_a_certificate_that_is_cut_anywhere_is_refused():
    assert [size for size in range(len(WHOLE)) if certificate_or_refusal(WHOLE[:size])] == []


def test_every_byte_may_be_wrong():
    for at in range(len(WHOLE)):
        for octet in range(256):
            found = certificate_or_refusal(WHOLE[:at] + bytes(bytearray([octet])) + WHOLE[at + 1:])
            assert found is None or isinstance(found, Certificate)


def test_random_bytes_in_random_places_are_survived():
    rnd = random.Random(11)
    for _ in range(3000):
        raw = bytearray(WHOLE)
        for _ in range(rnd.randint(1, 6)):
            at = rnd.randrange(len(raw))
            raw[at:at + rnd.randint(0, 3)] = [rnd.choice((0, 1, 0x30, 0x7f, 0x80, 0x84, 0xff, rnd.randrange(256)))]
        found = certificate_or_refusal(bytes(raw))
        assert found is None or isinstance(found, Certificate)


# --- certificates made by OpenSSL

NOW = 1764000000  # in 2025


@pytest.fixture(scope='module')
def read(tmpdir_factory):
    """A function that returns the DER of the certificate with a label."""
    authority = Authority(str(tmpdir_factory.mktemp('authority')))
    if authority.absent:
        pytest.skip(authority.absent)

    def of(label):
        with open(authority.certificate(label).cert) as page:
            return ssl.PEM_cert_to_DER_cert(page.read())
    return of


@pytest.mark.parametrize('label, subject, names, trouble', [
    ('good', 'envio test', ('localhost', 'good.envio.test', '127.0.0.1'), ''),
    ('expired', 'envio test', ('localhost', 'good.envio.test', '127.0.0.1'), 'expired on 2020-01-01'),
    ('not_yet', 'envio test', ('localhost', 'good.envio.test', '127.0.0.1'), 'not valid before 2099-01-01'),
    ('other_name', 'envio test', ('other.envio.test',), 'issued for other.envio.test, not for localhost'),
    ('ip', 'envio test', ('127.0.0.1',), 'issued for 127.0.0.1, not for localhost'),
    ('wildcard', 'envio test', ('*.envio.test',), 'issued for *.envio.test, not for localhost'),
    ('cn_only', 'localhost', ('localhost',), ''),
    ('cn_beside_san', 'localhost', ('other.envio.test',), 'issued for other.envio.test, not for localhost'),
    ('san_first', 'envio test', ('localhost', 'good.envio.test', '127.0.0.1'), ''),
    ('client', 'envio client', ('envio client',), 'issued for envio client, not for localhost'),
])
def test_a_real_certificate_is_read(read, label, subject, names, trouble):
    found = certificates.parse(read(label))
    assert (found.subject, found.issuer, found.self_issued) == ('CN=' + subject, 'CN=envio ca', False)
    assert certificates.names(found) == names
    assert certificates.problem(found, 'localhost', NOW) == trouble


def test_a_real_certificate_of_its_own_is_told_from_one_that_was_issued(read):
    assert certificates.parse(read('self_signed')).self_issued


def test_a_real_certificate_of_many_names_is_for_the_last_of_them_too(read):
    found = certificates.parse(read('many_names'))
    assert certificates.problem(found, 'localhost', NOW) == ''
    assert certificates.problem(found, 'x.envio.test', NOW).endswith('n04.envio.test and 55 more, not for x.envio.test')


def test_a_real_certificate_that_is_cut_or_changed_anywhere_is_read_or_refused(read):
    raw = read('san_first')
    assert [size for size in range(len(raw)) if certificate_or_refusal(raw[:size])] == []
    for at, right in enumerate(bytearray(raw)):
        for octet in (0, 0x30, 0x80, 0xff, right ^ 1, right ^ 0x80):
            found = certificate_or_refusal(raw[:at] + bytes(bytearray([octet])) + raw[at + 1:])
            assert found is None or isinstance(found, Certificate)


# --- whom it is for

def certificate(dns=(), addresses=(), cn=(), has_names=True, not_before=0, not_after=100):
    return Certificate('CN=x', 'CN=y', cn, dns, addresses, has_names, not_before, not_after, False)


KELVIN = compat.native_text(u'\u212a')  # in lower case it is a k


@pytest.mark.parametrize('presented, host, expected', [
    ('a.example.com', 'a.example.com', True), ('a.example.com', 'A.Example.COM', True),
    ('a.example.com', 'a.example.com.', True), ('a.example.com', 'a.example.com..', False),
    ('a.example.com.', 'a.example.com', False), ('a.example.com', 'example.com', False),
    ('a.example.com', 'b.example.com', False), ('example.com', 'a.example.com', False),
    ('a.example.com', 'a.example.com.evil.org', False), ('localhost', 'localhost', True),
    ('a_b.example.com', 'a_b.example.com', True), ('*.example.com', 'a.example.com', True),
    ('*.example.com', 'xn--caf-dma.example.com', True), ('*.example.com', 'A.EXAMPLE.com.', True),
    ('*.example.com', 'a.b.example.com', False), ('*.example.com', 'example.com', False),
    ('*.example.com', '.example.com', False), ('*.example.com', '*.example.com', False),
    ('*.com', 'example.com', False), ('*.com', 'a.example.com', False), ('*', 'localhost', False),
    ('*.localhost', 'a.localhost', False), ('*', 'example.com', False), ('*.', 'a.', False),
    ('a*.example.com', 'ab.example.com', False), ('*a.example.com', 'ba.example.com', False),
    ('a.*.com', 'a.example.com', False), ('*.*.com', 'a.example.com', False),
    ('**.example.com', 'a.example.com', False), ('a.example.com?.evil.org', 'a.example.com', False), ('', '', False),
    ('', 'a', False), ('.', '.', False), ('a b', 'a b', False), ('a.example.com', 'a.example.com\0', False),
    ('a.example.com', ' a.example.com', False), ('a.example.com', 'a.example.com\n', False),
    ('a\0b.example.com', 'a\0b.example.com', False),
    (compat.native_text(u'caf\xe9.example.com'), compat.native_text(u'caf\xe9.example.com'), False),
    (KELVIN + '.example.com', 'k.example.com', False), ('k.example.com', KELVIN + '.example.com', False),
    ('127.0.0.1', '127.0.0.1', False), ('127.1', '127.1', False), ('*.0.0.1', '127.0.0.1', False), ('1', '1', False),
    ('a.0x7f', 'a.0x7f', False), ('*.0.0.1', '0177.0.0.1', False), ('::1', '::1', False), ('[::1]', '[::1]', False),
    ('1.example.com', '1.example.com', True), ('a.b.c.1d', 'a.b.c.1d', True),
])
def test_a_dns_name_is_for_a_host_and_so_is_a_cn_where_there_is_none(presented, host, expected):
    assert certificates.matches(certificate([presented]), host) == expected
    assert certificates.matches(certificate(cn=(presented,), has_names=False), host) == expected


def test_a_cn_never_counts_beside_a_subject_alt_name():
    for dns in ((), ('b.example.com',)):
        assert not certificates.matches(certificate(dns, cn=('a.example.com',)), 'a.example.com')


def test_one_name_of_many_is_enough():
    assert certificates.matches(certificate(('a.org', '*.b.org', 'c.org')), 'c.org')


def test_a_dns_name_with_a_nul_or_a_kelvin_sign_is_for_nobody():
    for raw in (b'k.example.com\0.evil.org', compat.config_bytes(KELVIN + '.example.com')):
        for found in (certificates.parse(der(extensions=[names_extension((DNS, raw))])),
                      certificates.parse(der(name((CN, UTF8, raw))))):
            assert not certificates.matches(found, 'k.example.com')


@pytest.mark.parametrize('host, expected', [
    ('127.0.0.1', True), ('127.0.0.2', False), ('127.1', False), ('127.0.0.1.', False), ('[127.0.0.1]', False),
    ('2001:db8::1', True), ('[2001:DB8:0:0::1]', True), ('2001:db8::2', False), ('2001:db8::1%eth0', False),
    ('::ffff:127.0.0.1', False), ('localhost', False),
])
def test_an_address_is_looked_for_among_addresses_alone(host, expected):
    assert certificates.matches(certificate(addresses=(V4, V6)), host) == expected
    assert not certificates.matches(certificate((host,)), host if ip.packed(host) else '127.0.0.1')


# --- what is said of it

def test_the_names_are_those_that_count():
    both = certificate(('a.org',), (V4, V6), ('c.org',))
    assert certificates.names(both) == ('a.org', '127.0.0.1', '2001:db8::1')
    assert certificates.names(both._replace(has_names=False)) == ('c.org',)


@pytest.mark.parametrize('groups, shown', [
    ('::', '::'), ('::1', '::1'), ('1::', '1::'), ('1:0:2:3:4:5:6:7', '1:0:2:3:4:5:6:7'),
    ('1:0:0:2:0:0:0:3', '1:0:0:2::3'), ('1:0:0:2:3:0:0:4', '1::2:3:0:0:4'), ('0:0:1:2:3:4:0:0', '::1:2:3:4:0:0'),
    ('10:0:0:1:2:3:4:5', '10::1:2:3:4:5'), ('1:2:3:4:5:0:0:0', '1:2:3:4:5::'), ('2001:DB8::00aB', '2001:db8::ab'),
])
def test_ipv6_is_written_as_rfc_5952_does(groups, shown):
    assert certificates.names(certificate(addresses=(ip.packed(groups),))) == (shown,)


@pytest.mark.parametrize('now, host, expected', [
    (0, 'a.org', ''), (86400, 'a.org', ''), (86401, 'a.org', 'expired on 1970-01-02'),
    (86401, 'b.org', 'expired on 1970-01-02'), (-1, 'b.org', 'not valid before 1970-01-01'),
    (9, 'b.org', 'issued for a.org, not for b.org'),
])
def test_a_problem_is_said_times_first(now, host, expected):
    assert certificates.problem(certificate(('a.org',), not_after=86400), host, now) == expected


def test_of_many_names_five_are_said():
    many = tuple(['%d.example.com' % number for number in range(7)])
    five = '0.example.com, 1.example.com, 2.example.com, 3.example.com, 4.example.com'
    assert certificates.problem(certificate(many[:5]), 'x', 0) == 'issued for %s, not for x' % five
    assert certificates.problem(certificate(many), 'x', 0) == 'issued for %s and 2 more, not for x' % five
    assert certificates.problem(certificate(cn=('x',)), 'x', 0) == 'issued for no name'


# --- addresses

@pytest.mark.parametrize('host, expected', [
    ('0.0.0.0', '00000000'), ('255.255.255.255', 'ffffffff'), ('10.0.0.1', '0a000001'), ('256.0.0.1', None),
    ('10.0.0', None), ('10.0.0.01', None), ('10.0.0.0x1', None), ('10.0.0.1\n', None), (' 10.0.0.1', None),
    ('10.0.0.1.', None), ('10.0.0.-1', None), ('10..0.1', None), ('', None), ('[10.0.0.1]', None), ('localhost', None),
    ('abcd', None), ('::', '0' * 32), ('::1', '0' * 31 + '1'), ('[::1]', '0' * 31 + '1'), ('1::', '0001' + '0' * 28),
    ('1:2:3:4:5:6:7:8', '00010002000300040005000600070008'), ('1:2:3:4:5:6:7::', '00010002000300040005000600070000'),
    ('::2:3:4:5:6:7:8', '00000002000300040005000600070008'), ('2001:DB8::ab', '20010db8' + '0' * 22 + 'ab'),
    ('::ffff:10.0.0.1', '0' * 20 + 'ffff0a000001'), ('1:2:3:4:5:6:10.0.0.1', '0001000200030004000500060a000001'),
    ('::10.0.0.1:1', None), ('::10.0.0.256', None), ('1:2:3:4:5:6:7:10.0.0.1', None), ('1:2:3:4:5:6:7', None),
    ('1:2:3:4:5:6:7:8:9', None), ('1:2:3:4::5:6:7:8', None), ('1::2::3', None), (':::', None), (':', None),
    ('1:', None), (':1:2:3:4:5:6:7', None), ('1:2:3:4:5:6:7:', None), ('::12345', None), ('::g', None),
    ('::1%1', None), ('fe80::1%eth0', None), ('[::1', None), ('::1]', None), ('[]', None), ('[[::1]]', None),
    ('::1\n', None), (':: 1', None), ('::-1', None),
])
def test_addresses_are_read_strictly(host, expected):
    found = ip.packed(host)
    assert found == (expected and bytes(bytearray([int(expected[at:at + 2], 16) for at in range(0, len(expected), 2)])))
