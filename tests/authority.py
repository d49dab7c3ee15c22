"""A certificate authority for tests, made with the system's `openssl`: good certificates and every kind of bad one.

RuntimeError, with what openssl said, when it fails.
"""

import os
import subprocess
from collections import namedtuple

from tests import programs

Pair = namedtuple('Pair', (
    'cert',  # path of the PEM certificate, for `intermediate` followed by that of its issuer
    'key',   # path of the PEM key, readable for its owner alone
))

_Leaf = namedtuple('_Leaf', (
    'names',   # tuple of subjectAltName entries
    'cn',      # the subject's common name
    'issuer',  # which CA signs it; None: its own key does
    'start',   # UTCTime, from 2050 on GeneralizedTime (RFC 5280 4.1.2.5)
    'end',     # the same
    'use',     # extendedKeyUsage
    'first',   # True: subjectAltName goes before all other extensions
))

_GOOD = _Leaf(('DNS:localhost', 'IP:127.0.0.1', 'DNS:good.envio.test'), 'envio test', 'ca',
              '200101000000Z', '491231235959Z', 'serverAuth', False)

_LEAVES = {
    'good': _GOOD,
    'expired': _GOOD._replace(start='190101000000Z', end='200101000000Z'),
    'not_yet': _GOOD._replace(start='20990101000000Z', end='21000101000000Z'),
    'other_name': _GOOD._replace(names=('DNS:other.envio.test',)),
    'unknown': _GOOD._replace(issuer='unknown_ca'),
    'self_signed': _GOOD._replace(issuer=None),
    'ip': _GOOD._replace(names=('IP:127.0.0.1',)),
    'wildcard': _GOOD._replace(names=('DNS:*.envio.test',)),
    'cn_only': _GOOD._replace(names=(), cn='localhost'),
    'cn_beside_san': _GOOD._replace(names=('DNS:other.envio.test',), cn='localhost'),
    'missing_intermediate': _GOOD._replace(issuer='intermediate_ca'),
    'client': _GOOD._replace(names=(), cn='envio client', use='clientAuth'),
    # Python 2.6 begins its search for subjectAltName at the second extension.
    'san_first': _GOOD._replace(first=True),
    'many_names': _GOOD._replace(names=tuple(['DNS:n%02d.envio.test' % n for n in range(59)] + ['DNS:localhost'])),
}

# What a server can show; `intermediate` is the leaf of `missing_intermediate` with its issuer behind it.
SERVER_LABELS = tuple(sorted(set(_LEAVES) - set(['client']) | set(['intermediate'])))

_CA_USE = ('keyUsage = critical,keyCertSign,cRLSign',)
_IDENTIFIERS = ('subjectKeyIdentifier = hash', 'authorityKeyIdentifier = keyid')

# Names without a folder, as openssl runs inside it: so the path can't break this file, whatever is in it.
_CONF = '''
[ca]
default_ca = issuer
[issuer]
database = index.txt
serial = serial
new_certs_dir = issued
unique_subject = no
default_md = sha256
policy = subject
[req]
prompt = no
distinguished_name = subject_name
[subject_name]
commonName = %(cn)s
[subject]
commonName = supplied
[extensions]
%(extensions)s
'''


def find_openssl():
    """Return the path of the openssl program, or None."""
    return programs.find('openssl')


class Authority(object):
    """Certificates in `folder` (native), each made when it is first asked for.

    absent: why none can be made, or ''.
    ca, other_ca: paths of root certificates; the first is to be trusted, the second signed nothing.
    """

    def __init__(self, folder):
        self.folder = folder
        self.program = find_openssl()
        self.absent = '' if self.program else 'there is no openssl program on this machine'
        self._made = set()

    @property
    def ca(self):
        """The path of the root certificate behind the good certificates: the ca_file."""
        return self._root('ca').cert

    @property
    def other_ca(self):
        """The path of the certificate of a root that signed nothing."""
        return self._root('other_ca').cert

    def certificate(self, label):
        """Return the Pair for `label`; KeyError if there is no such label.

        good: DNS:localhost, IP:127.0.0.1 and DNS:good.envio.test, signed by `ca`. As good, but:
        expired (2019), not_yet (2099), unknown (signed by a CA of its own), self_signed,
        intermediate (signed by an intermediate CA, which follows in the file), missing_intermediate (does not follow),
        san_first (subjectAltName is the first extension).
        With other names: other_name (DNS:other.envio.test), ip (IP:127.0.0.1), wildcard (DNS:*.envio.test),
        cn_only (CN=localhost, no subjectAltName), cn_beside_san (CN=localhost, DNS:other.envio.test),
        many_names (60, the last DNS:localhost).
        client: CN=envio client, for clients alone.
        """
        if label == 'intermediate':
            return self._with_issuer('missing_intermediate', label)
        leaf = _LEAVES[label]
        extensions = ['basicConstraints = critical,CA:FALSE', 'keyUsage = critical,digitalSignature',
                      'extendedKeyUsage = ' + leaf.use] + list(_IDENTIFIERS)
        if leaf.names:
            extensions.insert(0 if leaf.first else len(extensions), 'subjectAltName = ' + ','.join(leaf.names))
        return self._issue(label, leaf, extensions)

    def _with_issuer(self, of, name):
        leaf = self.certificate(of)
        chain = self._pair(name)._replace(key=leaf.key)
        if name not in self._made:
            with open(chain.cert, 'w') as page:
                for path in (leaf.cert, self._signer(_LEAVES[of].issuer).cert):
                    with open(path) as part:
                        page.write(part.read())
            self._made.add(name)
        return chain

    def _signer(self, name):
        if name != 'intermediate_ca':
            return self._root(name)
        extensions = ('basicConstraints = critical,CA:TRUE,pathlen:0',) + _CA_USE + _IDENTIFIERS
        return self._issue(name, _GOOD._replace(cn='envio ' + name), extensions)

    def _root(self, name):
        extensions = ('basicConstraints = critical,CA:TRUE',) + _CA_USE + _IDENTIFIERS[:1]
        return self._issue(name, _GOOD._replace(cn='envio ' + name, issuer=None), extensions)

    def _pair(self, name):
        return Pair(os.path.join(self.folder, name + '.crt'), os.path.join(self.folder, name + '.key'))

    def _issue(self, name, leaf, extensions):
        pair = self._pair(name)
        if name in self._made:
            return pair
        signing = ['-selfsign', '-keyfile', name + '.key']
        if leaf.issuer:
            self._signer(leaf.issuer)
            signing = ['-cert', leaf.issuer + '.crt', '-keyfile', leaf.issuer + '.key']
        self._prepare()
        self._write(name + '.cnf', _CONF % {'cn': leaf.cn, 'extensions': '\n'.join(extensions)})
        self._openssl('req', '-config', name + '.cnf', '-new', '-newkey', 'ec', '-pkeyopt',
                      'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', name + '.key', '-out', name + '.csr')
        os.chmod(pair.key, 0o600)
        self._openssl('ca', '-config', name + '.cnf', '-batch', '-notext', '-extensions', 'extensions', '-startdate',
                      leaf.start, '-enddate', leaf.end, '-in', name + '.csr', '-out', name + '.crt', *signing)
        self._made.add(name)
        return pair

    def _prepare(self):
        """Give `openssl ca` the records it insists on."""
        if not self._made:
            os.mkdir(os.path.join(self.folder, 'issued'))
            self._write('index.txt', '')
            self._write('serial', '01\n')

    def _write(self, name, text):
        with open(os.path.join(self.folder, name), 'w') as page:
            page.write(text)

    def _openssl(self, *arguments):
        process = subprocess.Popen((self.program,) + arguments, close_fds=True, cwd=self.folder, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = process.communicate()[0].decode('utf-8', 'replace')
        if process.returncode:
            raise RuntimeError('openssl %s: %s' % (' '.join(arguments), said))
