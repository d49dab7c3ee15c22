"""The files of soak.py: what was put into a spool, and what became of each."""

import glob
import hashlib
import json
import os

from soak_receivers import whose

MOST = 5 << 20  # bytes of a file


class Files(object):
    """The files of one spool (a path).

    rnd: random.Random; taken: set of the (name, digest) that receivers have accepted whole; journals: pattern of the
    paths of the journal; faults: list of sentences.
    """

    def __init__(self, spool, rnd, taken, journals, faults):
        self._spool, self._rnd, self._taken, self._journals = spool, rnd, taken, journals
        self.faults = faults
        self.state = {}     # (name, digest) -> put, removed (by us), sent, deleted, error, waiting
        self._number = 0
        self._seen = set()  # paths in sent/ that the next harvest takes
        self._recent = []   # (name, digest) put a moment ago
        self._block = rnd.getrandbits(8 * MOST).to_bytes(MOST, 'little')

    def put(self, count, kinds, size=None):
        """Put so many files for receivers of these kinds into the spool, each there at once and whole.

        size: bytes, None = all kinds of sizes.
        """
        for _ in range(count):
            kind = self._rnd.choice(kinds)
            self._number += 1
            self._place('%s-%07d.dat' % (kind, self._number), self._size() if size is None else size)

    def _size(self):
        most = self._rnd.choice((0,) + 22 * (4096,) + 6 * (65536,) + 2 * (1 << 20,))
        return self._rnd.randint(0, most if self._rnd.random() < 0.99 else MOST)

    def _place(self, name, size):
        content = ('%s %d ' % (name, self._rnd.getrandbits(60))).encode() if size else b''
        content += self._block[:max(0, size - len(content))]
        one = name, hashlib.sha1(content).digest()
        with open(self._spool + '/.draft', 'wb') as stream:
            stream.write(content)
        self.state[one] = 'put'
        self._recent = self._recent[-40:] + [one]
        os.rename(self._spool + '/.draft', self._spool + '/' + name)

    def meddle(self):
        """Replace, touch or delete a file that was put a moment ago: it may be on its way."""
        one = self._rnd.choice(self._recent)
        self._recent = [other for other in self._recent if other[0] != one[0]]
        path, act = self._spool + '/' + one[0], self._rnd.randrange(9)
        try:
            if act == 0:
                os.unlink(path)
                self._removed(one)
            elif act == 1:
                os.utime(path)
            elif act == 2 and os.path.exists(path):
                self._removed(one)
                self._place(one[0], self._rnd.randint(100, 5000))
        except FileNotFoundError:
            pass  # it was sent

    def _removed(self, one):
        if self.state[one] == 'put':
            self.state[one] = 'removed'

    def harvest(self, all_of_it=False):
        """Look at what lies in sent/ since the harvest before, and remove it."""
        there = set(glob.glob(self._spool + '/sent/*/*'))
        for path in there if all_of_it else there & self._seen:
            self._found(path, 'sent')
            os.unlink(path)
        self._seen = there

    def _found(self, path, where):
        with open(path, 'rb') as stream:
            one = whose(os.path.basename(path)), hashlib.sha1(stream.read()).digest()
        if self.state.get(one, 'nothing') not in ('put', 'removed'):
            self.faults.append('%s: was %s already' % (path, self.state.get(one, 'never put, or')))
        elif where == 'sent' and one not in self._taken:
            self.faults.append('%s: no receiver has taken it whole' % path)
        self.state[one] = where

    def waiting(self):
        """Return the names of the files that wait."""
        return [name for name in os.listdir(self._spool) if '.dat' in name]

    def account(self):
        """Find out where every file is, once the agent has ended."""
        self.harvest(True)
        for name in self.waiting():
            self._found(self._spool + '/' + name, 'waiting')
        for path in glob.glob(self._spool + '/error/*.dat*'):
            if path.endswith('.reason'):
                if not os.path.exists(path[:-len('.reason')]):
                    self.faults.append('%s: its file is not there' % path)
                continue
            if not os.path.exists(path + '.reason'):
                self.faults.append('%s: there is no reason file' % path)
            self._found(path, 'error')
        for one, state in self.state.items():
            if state != 'put':
                continue
            if one[0].startswith('delete-') and one in self._taken:
                self.state[one] = 'deleted'
            else:
                self.faults.append('%s: is lost' % one[0])
        left = [name for name in os.listdir(self._spool + '/.envio')
                if name not in ('lock', 'id', 'state.json', 'deleted')] + os.listdir(self._spool + '/.envio/deleted')
        if left:
            self.faults.append('left in .envio: %s' % ', '.join(sorted(left)))

    def counts(self):
        """Return {state: number of files}, `acked` being those of the journal."""
        found = dict.fromkeys(('sent', 'deleted', 'error', 'waiting', 'removed', 'put'), 0)
        for state in self.state.values():
            found[state] += 1
        found['acked'] = 0
        for path in glob.glob(self._journals):
            with open(path) as stream:
                found['acked'] += sum(json.loads(line)['verdict'] == 'ACK' for line in stream)
        return found
