"""The system's cURL: which there is, what its version can do, and how it is told what to do.

Every option goes through `-K -`, its standard input, the secret ones too. What 7.19 (RHEL 6) knows is enough; newer
options are used where the version has them: what it does not know cURL passes over without a word.
Called by curl.py, transports.py and abilities.py.
Raises Refused where there is no usable cURL.
"""

import math
import os
import re
from collections import namedtuple

from agent import compat, request, text
from agent.places import host_port
from agent.rules import Refused

FOLDERS = ('/usr/bin', '/bin', '/usr/local/bin', '/opt/csw/bin')  # of the program, where ENVIO_CURL names none
SILENCE = 4.0  # seconds at most that handshake() takes, one more at the end
ENVIRONMENT = {'LC_ALL': 'C'}  # all that it gets of ours: no proxy, no .curlrc or .netrc of a HOME, no secret

# From which version on there is what 7.19 has not.
INSISTS_ON_TLS_1_2 = (7, 34)             # --tlsv1.2
KEEPS_HEADERS_FROM_PROXY = (7, 42, 1)    # before, CONNECT carries the receiver's headers (CVE-2015-3153)
TAKES_A_TARGET = (7, 55)                 # --request-target
TELLS_EACH_END = (7, 76)                 # %{exitcode}, %{errormsg}, --fail-with-body; --next and --fail-early are older
_KNOWS_WILDCARDS = (7, 28)
_EMPTY_HEADERS, _FRACTIONS, _HTTP_1_1, _PATH_AS_IS = (7, 23), (7, 32), (7, 33), (7, 42)

Program = namedtuple('Program', (
    'path',     # absolute
    'version',  # tuple of three ints
    'words',    # the first line of `curl -V`
    'https',    # it speaks https
    'tls12',    # it can be told to take TLS 1.2 or better, and nothing less
))

_found = {}  # path -> Program: each is asked once


def find(environ):
    """Return the Program to use: what ENVIO_CURL names, else the first in FOLDERS.

    Raises Refused when there is none that runs.
    """
    named = environ.get('ENVIO_CURL')
    if named and not named.startswith('/'):
        raise Refused('ENVIO_CURL=%s: it must be an absolute path' % text.shown(named))
    for path in [named] if named else [folder + '/curl' for folder in FOLDERS]:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            if path not in _found:
                _found[path] = _probe(path)
            return _found[path]
    raise Refused('there is no cURL (%s)' % (text.shown(named) if named else ', '.join(FOLDERS)))


def _probe(path):
    said = _ask(path, '-V')
    found = re.match(r'curl ([0-9]{1,9})\.([0-9]{1,9})(?:\.([0-9]{1,9}))?', said)
    if not found:
        raise Refused('%s does not say its version' % text.shown(path))
    version = tuple([int(part or 0) for part in found.groups()])
    protocols = re.search(r'(?m)^Protocols: (.*)$', said)
    https = bool(protocols) and 'https' in protocols.group(1).split()
    words = said.split('\n')[0].strip()
    # Red Hat's older ones, built with NSS, were given the option later.
    tls12 = https and (version >= INSISTS_ON_TLS_1_2 or 'NSS/' in words and '--tlsv1.2' in _ask(path, '--help'))
    return Program(path, version, words, https, tls12)


def _ask(path, option):
    try:
        said = compat.start([path, '-q', option], None, None, ENVIRONMENT).communicate()[0]
    except EnvironmentError as error:
        raise Refused('%s can\'t be run: %s' % (text.shown(path), compat.error_text(error)))
    return compat.native_text(compat.decode(said))


def lack(program):
    """Return why https by this cURL is not what it has to be (SPEC 4: verified, SNI, TLS 1.2), or ''."""
    if not program.https:
        return '%s does not speak https' % program.path
    if not program.tls12:
        wildcards = ' and lets a wildcard in a certificate stand for several labels'
        return '%s (%s) can\'t insist on TLS 1.2%s' % (
            program.path, '.'.join(['%d' % part for part in program.version]),
            wildcards if program.version < _KNOWS_WILDCARDS and 'NSS/' not in program.words else '')
    return ''


def options(program, parcel, place, credentials, files):
    """Return [(option, value or None)] for one transfer, but what says where its files are.

    parcel: records.Parcel; place: places.Place; credentials: of resources.fields(); files: of tls.files_of(), or None
    without TLS.
    """
    receiver = parcel.ticket.receiver
    path = place.target[len('http://' + place.authority):] if place.target.startswith('http:') else place.target
    found = [('url', '%s://%s%s' % (place.scheme, place.authority, path)), ('request', receiver.method),
             ('globoff', None)]
    if program.version >= TAKES_A_TARGET:
        found.append(('request-target', place.target))  # else it adds the file's name where the path ends in a slash
    fields = request.fixed_fields(receiver, credentials)
    # It sees the length itself, and asks first by itself: 7.19 does not wait where it is told to ask.
    fields += [field for field in request.file_fields(parcel) if field[0] not in ('Content-Length', 'Expect')]
    names = [name.lower() for name, _ in fields]
    for name, value in fields:
        if value or program.version >= _EMPTY_HEADERS:
            found.append(('header', '%s: %s' % (name, value) if value else name + ';'))
    found += [('header', name + ':') for name in ['Accept'] + ['Expect'] * (not parcel.expect)
              if name.lower() not in names]
    found += _limits(program, receiver)
    found += [(name, None) for name, since in (('http1.1', _HTTP_1_1), ('path-as-is', _PATH_AS_IS))
              if program.version >= since]
    return found + way(program, place, files)


def handshake(program, receiver, place, files):
    """Return [(option, value or None)] for a connection with TLS on which nothing is sent: to cURL the receiver is an
    FTP server, and an FTP client waits until the server has said something. It ends with a time-out, after TLS."""
    seconds = math.ceil(min(receiver.connect_timeout, SILENCE))
    return [('url', 'ftps://%s/' % host_port(place)), ('proxytunnel', None), ('connect-timeout', '%d' % seconds),
            ('max-time', '%d' % (seconds + 1)), ('write-out', '\n@%{time_appconnect}\n')] + way(program, place, files)


def way(program, place, files):
    """Return the options for the proxy and TLS; files: of tls.files_of(), or None without TLS."""
    found, proxy = [], place.proxy
    if proxy:
        host = '[%s]' % proxy.host if ':' in proxy.host else proxy.host
        found.append(('proxy', 'http://%s:%d' % (host, proxy.port)))
    if proxy and proxy.credentials:
        # It decodes each part, in every version.
        user, _, password = proxy.credentials.partition(':')
        found.append(('proxy-user', ':'.join([compat.percent(compat.wire(part)) for part in (user, password)])))
    if files is not None:
        trusted, certificate, key = [path_value(path) for path in files]
        # Behind a colon it looks for a passphrase.
        certificate = certificate.replace('\\', '\\\\').replace(':', '\\:')
        found.append(('cacert', trusted) if trusted else ('insecure', None))
        if program.tls12:
            found.append(('tlsv1.2', None))  # the others take the best they know; their `tlsv1` means TLS 1.0 alone
        found += [(name, path) for name, path in (('cert', certificate), ('key', key)) if path]
    return found


def path_value(path):
    """Return a path as it stands in the configuration: the same bytes, whatever the locale."""
    return compat.config_native(compat.fs_bytes(path))


def _limits(program, receiver):
    exact = program.version >= _FRACTIONS
    found = [(name, '%.3f' % seconds if exact else '%d' % math.ceil(seconds)) for name, seconds in (
        ('connect-timeout', receiver.connect_timeout), ('max-time', receiver.deadline))]
    # It knows no silence, only a speed: less than a byte a second for so long.
    found += [('speed-limit', '1'), ('speed-time', '%d' % math.ceil(receiver.read_timeout))]
    if receiver.rate_limit:
        # Each process has its share for itself, so that all together never send more.
        found.append(('limit-rate', '%d' % max(1, receiver.rate_limit // receiver.workers)))
    return found


def configuration(sections):
    """Return the bytes for `-K -`. sections: for each transfer, [(option, value or None)] with quotable values."""
    # What holds for the whole run stands in the first section.
    whole = ['silent', 'show-error']
    if len(sections) > 1:
        # The first file that is not accepted ends the run: what fails or rejects gets no more files for that.
        whole.append('fail-early')
        sections = [section + [('fail-with-body', None)] for section in sections]
    pages = ['\n'.join([_line(*option) for option in section]) for section in sections]
    return compat.config_bytes('\n'.join(whole) + '\n' + '\nnext\n'.join(pages) + '\n')


def _line(name, value):
    if value is None:
        return name
    for plain, escaped in (('\\', '\\\\'), ('"', '\\"'), ('\n', '\\n'), ('\r', '\\r'), ('\t', '\\t')):
        value = value.replace(plain, escaped)
    return '%s = "%s"' % (name, value)
