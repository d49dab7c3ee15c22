"""From root to an account that may do less, before anything of others is read: the one the configuration names, or the
owner of a spool. And what keeps secrets out of core dumps.

Called by cli.py. Raises ConfigError. Nothing here does anything unless root runs it, but for core dumps.
"""

import grp
import os
import pwd
import resource

from agent import compat, text
from agent.errors import ConfigError
from agent.folders import OWN

_SECRETS = ('secret_headers_file', 'password_file', 'token_file', 'client_key')


def check(config):
    """Return (user's number or None, group's number or None, user's name or None) that `user` and `group` name.

    Raises ConfigError when there are no such accounts.
    """
    problems, user, group = [], None, None
    try:
        user = pwd.getpwnam(config.user) if config.user else None
    except KeyError:
        problems.append('%s: user: this host has no account %r: make it (useradd -r %s), or name another' % (
            config.path, config.user, config.user))
    try:
        group = grp.getgrnam(config.group).gr_gid if config.group else user and user.pw_gid
    except KeyError:
        problems.append('%s: group: this host has no group %r: make it (groupadd -r %s), or name another' % (
            config.path, config.group, config.group))
    if problems:
        raise ConfigError(problems)
    return user and user.pw_uid, group, user and user.pw_name


def drop(config):
    """Become the account that `user` and `group` name (SPEC 4), for good. Raises ConfigError when that can't be."""
    if os.geteuid() != 0 or not (config.user or config.group):
        return
    user, group, name = check(config)
    try:
        _become(user, group, name)
    except EnvironmentError as error:
        raise ConfigError(['%s: user: can\'t become %s: %s' % (
            config.path, config.user or config.group, compat.error_text(error))])
    for folder in closed():
        raise ConfigError(['%s: user: %s can\'t read %s: put it where every account can, such as /opt' % (
            config.path, config.user, folder)])


def closed():
    """Return the folders of the program and of its Python that this account can't read: what is loaded only when it is
    needed would fail then."""
    # Of a module in an archive (bin/bundle.py) that is what has to be read.
    own = getattr(globals().get('__loader__'), 'archive', os.path.abspath(__file__))
    return [os.path.dirname(path) for path in (own, os.__file__) if not _readable(path)]


def _readable(path):
    # A compiled module that root wrote with its own umask is no loss: its source, a letter shorter, can be read.
    return os.access(path, os.R_OK) or os.access(path[:-1], os.R_OK)


def become_owner(config):
    """Become the account whose agent works on the spools, so that root leaves no files of its own in them.

    Raises ConfigError when the spools belong to several.
    """
    if os.geteuid() != 0:
        return
    owners = dict([(os.lstat(path).st_uid, path) for path in [spool + '/' + OWN for spool in config.spool]
                   if os.path.lexists(path)])
    if len(owners) > 1:
        raise ConfigError(['%s: spool: %s belong to different accounts: run this as each of them, with a configuration '
                           'of its own' % (config.path, ' and '.join(sorted(owners.values())))])
    for number in owners:
        if number:
            name, group = _names(number)
            _become(number, group, name)


def _names(number):
    try:
        account = pwd.getpwuid(number)
    except KeyError:
        return None, number  # no account, such as one of a container: its group has no other name either
    return account.pw_name, account.pw_gid


def _become(user, group, name):
    """Change to these numbers; None: that one stays. name: the user's, whose supplementary groups are taken."""
    if name is not None:
        compat.init_groups(name, group)
    else:
        os.setgroups([] if group is None else [group])
    if group is not None:
        os.setgid(group)
    if user is not None:
        os.setuid(user)


def protect_secrets(config):
    """Let no core dump be written when the configuration names secrets: they would be in it."""
    receivers = config.receivers + (config.defaults,)
    if any(['@' in receiver.proxy or getattr(receiver, key) for receiver in receivers for key in _SECRETS]):
        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def warnings(config):
    """Return sentences about what this account can't do later. Call it when drop() was called."""
    if os.access(config.path, os.R_OK):
        return []
    return ['%s: can\'t be read by %s: a reload will be refused: chgrp and chmod g+r it' % (
        text.shown(config.path), config.user or 'this account')]
