"""Says where a file goes by its name: the first [receiver:...] in file order that matches, and its URL.

The user's own router function, when there is one, is asked first. route() raises nothing: a name that goes nowhere
gets a Target without receiver, and why. load_plugin() alone touches the disk; it raises errors.ConfigError.
"""

import errno
import os
import stat
import sys

from agent import compat, rules, text
from agent.errors import ConfigError
from agent.records import Target
from agent.rules import Refused

MOST_ORIGINS = 256  # receivers the router function may bring up by URL: each has a lane and a breaker of its own
_MOST_SOURCE = 1 << 20
_MOST_LINKS = 40


class Router(object):
    """The rules of one configuration.

    config: records.Config; plugin: the function load_plugin returned, or None; vet: function(Receiver) that raises
    Refused for a receiver, brought up by the plug-in, that files can't be sent to.
    """

    def __init__(self, config, plugin=None, vet=None):
        self._vet = vet
        self._rules = tuple([_Rule(receiver) for receiver in config.receivers])
        self._by_name = dict([(rule.receiver.name, rule) for rule in self._rules])
        self._defaults = config.defaults
        self._plugin = plugin
        self._origins = {}  # origin -> Receiver made for URLs of the router function
        self._nobody = Target(None, None, 'no [receiver:...] section matches')

    def route(self, spool, name, full=()):
        """Return the Target of the file `name` (native) in `spool` (its path as in the configuration). full: names of
        receivers of which nobody wants to know the URL now."""
        if self._plugin is not None:
            target = self._ask(name)
            if target is not None:
                return target
        key = rules.name_key(name)
        for rule in self._rules:
            if rule.spool and rule.spool != spool:
                continue
            target = rule.target(key, full)
            if target is not None:
                return target
        return self._nobody

    def route_path(self, spools, folder, name):
        """Return the Target of a file that a person names: as in `folder` if that is one of `spools`, else as in the
        first spool in which it has a receiver."""
        target = self._nobody
        for spool in [folder] if folder in spools else spools:
            target = self.route(spool, name)
            if target.receiver is not None:
                break
        return target

    def to(self, receiver, name):
        """Return the Target of the file `name` at the receiver of this name, whatever its rules say of the file."""
        rule = self._by_name.get(receiver)
        if rule is None:
            return Target(None, None, 'there is no [receiver:%s]' % text.shown(receiver))
        return rule.chosen(rules.name_key(name), '[receiver:%s]' % receiver)

    def _ask(self, name):
        """Return the Target the router function chooses for a name, or None when it has no opinion."""
        try:
            answer = self._plugin(name)
        except (Exception, SystemExit) as error:
            return Target(None, None, 'the router function failed: %s' % _error_text(error))
        if answer is None:
            return None
        if not isinstance(answer, compat.string_types):
            return Target(None, None, 'the router function returned %s, not a receiver\'s name, a URL or None'
                          % type(answer).__name__)
        if isinstance(answer, compat.text_type):
            answer = compat.native_text(answer)
        if '://' in answer:
            return self._target_of_url(answer)
        rule = self._by_name.get(answer)
        if rule is None:
            return Target(None, None, 'the router function returned %s: there is no such receiver' % _shown(answer))
        return rule.chosen(rules.name_key(name), 'router function: [receiver:%s]' % answer)

    def _target_of_url(self, url):
        """Return the Target for a URL the router function returned: a receiver for each origin."""
        try:
            template = rules.parse_url(url)
            if template.names:
                raise Refused('it holds braces')
        except Refused as refused:
            return Target(None, None, 'the router function returned %s: %s' % (_shown(url), refused))
        origin = template.origin
        receiver = self._origins.get(origin)
        if receiver is None:
            if len(self._origins) >= MOST_ORIGINS:
                return Target(None, None, 'the router function returned %s: it named %d other origins already'
                              % (_shown(url), MOST_ORIGINS))
            receiver = self._defaults._replace(name=origin, url=origin)
            try:
                if self._vet is not None:
                    self._vet(receiver)
            except Refused as refused:
                return Target(None, None, 'the router function returned %s: %s' % (_shown(url), refused))
            self._origins[origin] = receiver
        return Target(receiver, url, 'router function: %s' % url)


class _Rule(object):
    """A receiver, ready to be matched."""

    def __init__(self, receiver):
        self.receiver = receiver
        self.spool = receiver.spool
        self._template = rules.parse_url(receiver.url)
        self._find = rules.matcher(receiver.match) if receiver.match else None
        self._regex = rules.compile_regex(receiver.match_regex).match if receiver.match_regex else None
        first = 'first match: [receiver:%s] ' % receiver.name
        self._pattern_whys = [first + 'match = ' + _shown(pattern) for pattern in receiver.match]
        self._regex_why = first + 'match_regex = ' + _shown(receiver.match_regex)
        self._groups = [name for name in self._template.names if name not in ('name', 'stem')]
        self._full = Target(receiver, None, 'its receiver has enough')
        # without a placeholder nothing is left to do for a file
        self._fixed = None
        if not self._template.names:
            self._fixed = [Target(receiver, receiver.url, why) for why in self._pattern_whys + [self._regex_why]]

    def target(self, key, full=()):
        """Return the Target of the name `key` (rules.name_key), or None when it does not match. full: as of
        Router.route()."""
        index = self._find(key) if self._find is not None else None
        found = self._regex(key) if index is None and self._regex is not None else None
        if index is None and not found:
            return None
        if self._fixed:
            return self._fixed[-1 if index is None else index]
        if self.receiver.name in full:
            return self._full
        if index is None:
            return self._build(key, found, self._regex_why)
        return self.chosen(key, self._pattern_whys[index])

    def chosen(self, key, why):
        """Return the Target of a name that is this receiver's for the reason `why`, whatever match_regex says of it.

        A URL with groups needs match_regex to match all the same; else the Target is without receiver.
        """
        return self._build(key, self._regex(key) if self._groups and self._regex else None, why)

    def _build(self, key, found, why):
        def value(name):
            if name == 'name':
                return key
            if name == 'stem':
                return rules.stem(key)
            return found.group(name) if found else None

        try:
            return Target(self.receiver, rules.fill(self._template, value), why)
        except Refused as refused:
            return Target(None, None, '%s, but it gets no URL: %s' % (why, refused))


# --- the user's own router function

def load_plugin(spec):
    """Return the function `FILE.py:FUNCTION` (an absolute path), to be called with a file name alone.

    The agent may run as root, so that nobody but root and the account it runs as may be able to change the file or
    to put another in its place: each folder on the way to it and each link is looked at, the file is opened once,
    and what was read of it then is what runs. Raises ConfigError.
    """
    path, _, function = spec.rpartition(':')
    try:
        source = _read_trusted(path)
    except EnvironmentError as error:
        raise _refusal(path, 'can\'t be read: %s' % compat.error_text(error))
    namespace = {'__name__': 'envio_router', '__file__': path}
    try:
        exec(compile(source.replace(b'\r\n', b'\n') + b'\n', path, 'exec', 0, True), namespace)
    except (Exception, SystemExit) as error:
        line = _error_line(error, path)
        raise _refusal('%s:%d' % (path, line) if line else path, 'can\'t be loaded: %s' % _error_text(error))
    if function not in namespace:
        raise _refusal(path, 'has no function %s' % function)
    if not callable(namespace[function]):
        raise _refusal(path, '%s is no function' % function)
    return namespace[function]


def _refusal(path, why):
    return ConfigError(['%s: the router function %s' % (text.shown(path), why)])


def _read_trusted(path):
    """Return the bytes of the file `path`; raises ConfigError when others could change it, EnvironmentError."""
    here = _trusted_path(path)
    descriptor = os.open(here, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(path, 'is not in a regular file')
        if status.st_size > _MOST_SOURCE:
            raise _refusal(path, 'is in a file larger than 1 MiB')
        _refuse_untrusted(here, status)
        return b''.join(iter(lambda: os.read(descriptor, 1 << 16), b''))
    finally:
        os.close(descriptor)


def _trusted_path(path):
    """Return `path` with each link followed; raises ConfigError when others could change a step, EnvironmentError."""
    here, links = '/', 0
    ahead = path.split('/')[::-1]
    _refuse_untrusted(here, os.lstat(here))
    while ahead:
        part = ahead.pop()
        if part in ('', '.'):
            continue
        if part == '..':
            here = os.path.dirname(here)
            continue
        step = os.path.join(here, part)
        status = os.lstat(step)
        _refuse_untrusted(step, status)
        if not stat.S_ISLNK(status.st_mode):
            here = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(step)
        here = '/' if target.startswith('/') else here
        ahead.extend(target.split('/')[::-1])
    return here


def _refuse_untrusted(path, status):
    """Raise ConfigError when somebody other than root and ourselves could change what lies at `path`."""
    if status.st_uid not in (0, os.geteuid()):
        raise _refusal(path, 'is not safe: this belongs to another account (%d): it must be root\'s, or that of the '
                             'account the agent runs as' % status.st_uid)
    if stat.S_ISLNK(status.st_mode):
        return  # a link's mode means nothing
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return  # others may add to a sticky folder such as /tmp, but not replace what is in it
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _refusal(path, 'is not safe: others can write here: chmod go-w %s' % text.shown(path))


def _error_text(error):
    """Return `Type: what it says` of any exception, on one line; never raises."""
    try:
        says = str(error)
    except Exception:
        says = '(its text can\'t be shown)'
    return '%s: %s' % (type(error).__name__, _shown(says)) if says else type(error).__name__


def _shown(says):
    """Return native text from outside the agent, safe to show."""
    raw = says if isinstance(says, bytes) else says.encode('utf-8', 'replace')
    return text.printable(raw)


def _error_line(error, path):
    """Return the line in the file `path` at which the exception being handled came about; 0 when there is none."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno or 0
    import traceback  # here: slow to load
    lines = [entry[1] for entry in traceback.extract_tb(sys.exc_info()[2]) if entry[0] == path]
    return lines[-1] if lines else 0
