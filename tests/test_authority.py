"""The certificates themselves: what other tests rely on when they say one is good, or bad in one way."""

import os
import re
import stat
import subprocess

import pytest

from tests import authority as module
from tests.authority import Authority, find_openssl
from tests.programs import find

ANY_YEAR = (2020, 2049)


@pytest.fixture
def fresh(tmpdir):
    made = Authority(str(tmpdir))
    if made.absent:
        pytest.skip(made.absent)
    return made


def openssl(*arguments):
    """Return what openssl says, on both streams, whatever it thinks of it."""
    process = subprocess.Popen((find_openssl(),) + arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    return process.communicate()[0].decode('ascii')


def verdict(cert, ca, *more):
    """Return the number of the error that a strict verification of a certificate finds first, 0 if it finds none."""
    said = openssl('verify', '-x509_strict', '-CAfile', ca, *(more + (cert,)))
    found = re.search(r'error (\d+) at', said)
    assert found or said.endswith(': OK\n'), said
    return int(found.group(1)) if found else 0


def text(cert):
    return openssl('x509', '-noout', '-text', '-in', cert)


def names(cert):
    """Return the subjectAltName entries of a certificate."""
    found = re.search(r'X509v3 Subject Alternative Name:.*\n *(.*)', text(cert))
    return [name.replace('IP Address:', 'IP:') for name in found.group(1).split(', ')] if found else []


def common_name(cert):
    return openssl('x509', '-noout', '-subject', '-nameopt', 'RFC2253', '-in', cert).partition('CN=')[2].strip()


def years(cert):
    said = openssl('x509', '-noout', '-dates', '-in', cert)
    return tuple([int(year) for year in re.findall(r'=.* (\d{4}) GMT', said)])


# X509_V_ERR_...: 9 CERT_NOT_YET_VALID, 10 CERT_HAS_EXPIRED, 18 DEPTH_ZERO_SELF_SIGNED_CERT,
# 20 UNABLE_TO_GET_ISSUER_CERT_LOCALLY
@pytest.mark.parametrize('label, expected', [
    ('good', 0), ('other_name', 0), ('ip', 0), ('wildcard', 0), ('cn_only', 0), ('cn_beside_san', 0), ('san_first', 0),
    ('many_names', 0), ('expired', 10), ('not_yet', 9), ('unknown', 20), ('self_signed', 18),
    ('missing_intermediate', 20), ('intermediate', 20)])
def test_a_strict_verification_finds_nothing_but_what_the_label_says(authority, label, expected):
    assert verdict(authority.certificate(label).cert, authority.ca, '-purpose', 'sslserver') == expected


def test_an_intermediate_certificate_completes_the_chain(authority):
    pair = authority.certificate('intermediate')
    assert verdict(pair.cert, authority.ca, '-untrusted', pair.cert, '-purpose', 'sslserver') == 0


def test_the_pair_without_the_intermediate_certificate_is_the_same_leaf(authority):
    whole, alone = authority.certificate('intermediate'), authority.certificate('missing_intermediate')
    with open(whole.cert) as page:
        chain = page.read()
    with open(alone.cert) as page:
        leaf = page.read()
    assert chain.startswith(leaf) and chain.count('BEGIN CERTIFICATE') == 2 and leaf.count('BEGIN CERTIFICATE') == 1
    assert whole.key == alone.key


def test_the_other_authority_signed_nothing(authority):
    labels = module.SERVER_LABELS + ('client',)
    assert 0 not in [verdict(authority.certificate(label).cert, authority.other_ca) for label in labels]
    assert verdict(authority.other_ca, authority.other_ca) == 0


def test_a_client_certificate_is_for_clients_alone(authority):
    cert = authority.certificate('client').cert
    assert common_name(cert) == 'envio client'
    assert verdict(cert, authority.ca, '-purpose', 'sslclient') == 0
    assert verdict(cert, authority.ca, '-purpose', 'sslserver') != 0
    assert verdict(authority.certificate('good').cert, authority.ca, '-purpose', 'sslclient') != 0


GOOD_NAMES = ['DNS:localhost', 'IP:127.0.0.1', 'DNS:good.envio.test']


@pytest.mark.parametrize('label, expected', [
    ('good', GOOD_NAMES), ('expired', GOOD_NAMES), ('not_yet', GOOD_NAMES), ('unknown', GOOD_NAMES),
    ('self_signed', GOOD_NAMES), ('intermediate', GOOD_NAMES), ('san_first', GOOD_NAMES),
    ('other_name', ['DNS:other.envio.test']), ('ip', ['IP:127.0.0.1']), ('wildcard', ['DNS:*.envio.test']),
    ('cn_only', []), ('cn_beside_san', ['DNS:other.envio.test'])])
def test_a_certificate_has_the_names_its_label_says(authority, label, expected):
    cert = authority.certificate(label).cert
    assert names(cert) == expected
    assert (common_name(cert) == 'localhost') == label.startswith('cn_')


def test_many_names_are_sixty_and_the_last_is_localhost(authority):
    found = names(authority.certificate('many_names').cert)
    assert len(set(found)) == len(found) == 60
    assert found[-1] == 'DNS:localhost'


@pytest.mark.parametrize('label, expected', [('good', ANY_YEAR), ('expired', (2019, 2020)), ('not_yet', (2099, 2100))])
def test_a_certificate_is_valid_when_its_label_says(authority, label, expected):
    assert years(authority.certificate(label).cert) == expected


@pytest.mark.parametrize('label, place', [('san_first', 0), ('good', 5)])
def test_the_place_of_subject_alt_name_among_the_extensions(authority, label, place):
    extensions = re.findall(r'X509v3 ([A-Z].*?):', text(authority.certificate(label).cert).partition('extensions:')[2])
    assert extensions.index('Subject Alternative Name') == place
    assert len(extensions) == 6


def test_a_key_belongs_to_its_certificate_and_nobody_else_can_read_it(authority):
    for label in module.SERVER_LABELS + ('client',):
        pair = authority.certificate(label)
        assert stat.S_IMODE(os.stat(pair.key).st_mode) == 0o600
        assert openssl('pkey', '-pubout', '-in', pair.key) == openssl('x509', '-noout', '-pubkey', '-in', pair.cert)


def test_a_certificate_is_made_when_it_is_first_asked_for_and_once(fresh):
    assert os.listdir(fresh.folder) == []
    pair = fresh.certificate('self_signed')
    assert sorted(name for name in os.listdir(fresh.folder) if name.endswith('.crt')) == ['self_signed.crt']
    with open(pair.cert) as page:
        before = page.read()
    assert fresh.certificate('self_signed') == pair
    with open(pair.cert) as page:
        assert page.read() == before


def test_any_path_will_do(tmpdir):
    made = Authority(str(tmpdir.mkdir('a "b\' $c #d\\')))
    if made.absent:
        pytest.skip(made.absent)
    assert verdict(made.certificate('good').cert, made.ca) == 0


def test_an_unknown_label_is_an_error(authority):
    with pytest.raises(KeyError):
        authority.certificate('better')


def test_what_openssl_says_when_it_fails_is_passed_on(fresh):
    fresh.program = find('false')
    with pytest.raises(RuntimeError):
        fresh.certificate('good')


def test_a_machine_without_openssl_is_told_apart(tmpdir, monkeypatch):
    monkeypatch.setattr(module, 'find_openssl', lambda: None)
    assert Authority(str(tmpdir)).absent == 'there is no openssl program on this machine'
