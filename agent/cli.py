"""The commands: reads the command line, calls what does the work, turns errors into a sentence and an exit code.

main() is what bin/envio, `python -m agent` and the installed `envio` call. Modules that a command does not need are
imported by the command that does.
"""

import optparse
import os
import signal
import sys

from agent import console, errors, text
from agent.errors import AgentError, ConfigError, UsageError

DEFAULT_CONFIG = '/etc/envio/envio.conf'

HELP = """\
usage: envio [-c FILE] [-v|-q] COMMAND [OPTIONS]

  run [--detach]         collect and send until SIGTERM (SIGHUP: reload)
  once [--max-time D]    one pass over what is there, for cron
  check [--connect]      validate the configuration, reach every receiver
  status [--json] [--watch]   receivers and what waits; Nagios exit codes
  list [--json]          the waiting files: tries, next one, last answer
  report --html FILE     all this, and what was sent by the hour, as a page
  route NAME...          which receiver and URL a name gets, and why
  requeue [NAME...] [--all] [--receiver R]   rejected files back into the spool
  flush [RECEIVER]       forget pauses: try now
  send FILE... [--to RECEIVER]   now, wherever they are; they stay there
  receiver [--port N] [--host H] [--dir D] [--answer RULES] [--tls]
           [--cert FILE [--key FILE]]   a small receiver, to try things out
  demo                   the whole thing in a temporary folder
  help [conf|man1|man5|KEY]   every key explained; manual pages; one key
  version                version, interpreter, TLS abilities, cURL found

-c FILE: else %s. -v, -q: say more, say only errors.
once ends with 0: all accepted, 65: some rejected, 75: some wait, 78: wrong
configuration. Examples:
    envio demo                       # begin here
    envio -c FILE check && envio -c FILE once -v
""" % DEFAULT_CONFIG


class _Parser(optparse.OptionParser):
    def error(self, msg):
        command = '' if self.prog == 'envio' else self.prog + ': '
        raise UsageError('%s%s: see envio --help' % (command, msg))


def main(argv=None):
    """Run the command line `argv` (default: the process's) and return the exit code."""
    console.fill_streams()
    try:
        return _command(sys.argv[1:] if argv is None else argv)
    except AgentError as error:
        for line in error.problems:
            console.say(line)
        return error.exit_code
    except console.ReaderGone:
        return errors.EX_OK
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        import traceback
        console.write(sys.stderr, traceback.format_exc())
        console.say('internal error: %s: %s: please report this with the lines above' % (
            error.__class__.__name__, error))
        return errors.EX_SOFTWARE


def _command(argv):
    options, words = _common(argv)
    if options.version:
        return version(options, [])
    wants_help = options.help or set(words[1:]) & set(['-h', '--help'])
    if wants_help or not words:
        console.show(HELP)
        return errors.EX_OK if wants_help else errors.EX_USAGE
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise UsageError('%s: no such command: see envio --help' % name)
    os.umask(0o027)
    return COMMANDS[name](options, rest)


def _common(argv):
    """Return (options, words): the options that may stand before or after the command are taken out."""
    parser = _Parser(prog='envio', add_help_option=False)
    parser.disable_interspersed_args()
    _add_common(parser, DEFAULT_CONFIG, 0)
    parser.add_option('-h', '--help', action='store_true', default=False)
    parser.add_option('--version', action='store_true', default=False)
    options, words = parser.parse_args(argv)
    return options, words


def _add_common(parser, config, loudness):
    """Add -c, -v and -q, with what holds where they are not given."""
    parser.add_option('-c', dest='config', default=config)
    parser.add_option('-v', dest='loudness', action='store_const', const=1, default=loudness)
    parser.add_option('-q', dest='loudness', action='store_const', const=-1)


def _options(name, common, argv, add=None, words=False):
    """Parse what follows a command's name, the common options too; return (options, words)."""
    parser = _Parser(prog=name, add_help_option=False)
    _add_common(parser, common.config, common.loudness)
    if add is not None:
        add(parser)
    options, rest = parser.parse_args(argv)
    if rest and not words:
        raise UsageError('%s: takes no %r: see envio --help' % (name, rest[0]))
    return options, rest


def _setup(path, before=None, sends=True):
    """Return (Config, Router) of a configuration file, and be the account that it names from then on.

    before: called with the Config while this is still the account that started it; sends: False for what only looks,
    and so needs neither credentials nor keys.
    """
    from agent import config, privileges, router, transports
    loaded = config.load(os.path.abspath(path))
    if before is not None:
        before(loaded)
    privileges.drop(loaded)
    privileges.protect_secrets(loaded)
    problems = transports.problems(loaded, os.environ) if sends else None
    if problems:
        raise ConfigError(problems)
    plugin = router.load_plugin(loaded.router) if loaded.router else None
    return loaded, router.Router(loaded, plugin, transports.vetting(os.environ))


def _setup_of_owner(path):
    """Return the Config, and be the account whose agent works on its spools from then on."""
    from agent import privileges
    config, _ = _setup(path, sends=False)
    privileges.become_owner(config)
    return config


def run(common, argv):
    """envio run [--detach]"""
    options, _ = _options('run', common, argv, lambda parser: parser.add_option(
        '--detach', action='store_true', default=False))
    path = os.path.abspath(options.config)
    from agent import daemon, engine, logs, wakeup
    process = daemon.Process(options.detach)

    def begin(before=None):
        fresh = _setup(path, before)
        log = logs.setup(fresh[0], options.loudness, detached=options.detach)
        _warn(fresh[0], log)
        return fresh

    setup = begin(process.prepare)
    waker = wakeup.Wakeup()
    waker.catch(engine.STOP + (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
    try:
        engine.run(setup, waker, reload=begin, ready=lambda: process.ready(setup[0]))
    except Exception as error:
        if process.detached:
            logs.say_end(error)
        raise
    finally:
        process.end()
        waker.close()
    return errors.EX_OK


def once(common, argv):
    """envio once"""
    options, _ = _options('once', common, argv, lambda parser: parser.add_option('--max-time', metavar='D'))
    from agent import engine, logs, progress, summary, wakeup
    max_time = _duration(options.max_time)
    setup = _setup(options.config)
    log = logs.setup(setup[0], options.loudness, quiet=True)
    _warn(setup[0], log, often=True)
    watch = progress.Progress(sys.stderr) if sys.stderr.isatty() and options.loudness >= 0 else None
    waker = wakeup.Wakeup()
    waker.catch(engine.STOP + (signal.SIGUSR1, signal.SIGUSR2))
    try:
        agent = engine.run(setup, waker, once=True, max_time=max_time, watch=watch)
    finally:
        waker.close()
        if watch:
            watch.clear()
    return summary.sum_up(agent, log, watch is not None)


def _duration(word):
    if word is None:
        return None
    from agent import rules, settings
    try:
        return settings.duration(word)
    except rules.Refused as error:
        raise UsageError('once: --max-time: %s' % error)


def _warn(config, log, often=False):
    """Say at the start what holds but should be known. often: this start is one of many: not what others may do."""
    from agent import transports
    for level, sentence in transports.warnings(config, os.environ):
        log.log(level, '%s', sentence)
    for sentence in _others(config):
        (log.info if often else log.warning)('%s', sentence)


def _others(config):
    """Return sentences about what other accounts can do to this host's files, and this account can't."""
    from agent import folders, privileges
    return privileges.warnings(config) + [words for path in config.spool for words in folders.warnings(path)]


def check(common, argv):
    """envio check [--connect]"""
    options, _ = _options('check', common, argv, lambda parser: parser.add_option('--connect', action='store_true'))
    from agent import abilities, folders, transports
    config, _ = _setup(options.config)
    problems = []
    for path in config.spool:
        try:
            folders.check(path)
        except AgentError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(problems)
    for sentence in [words for _, words in transports.warnings(config, os.environ)] + _others(config):
        if options.loudness >= 0:
            console.say(sentence)
    if options.connect:
        _connect(config, options.loudness)
    if options.loudness >= 0:
        console.show('%s: ok: %s, %s\n' % (config.path, text.count(len(config.spool), 'spool'),
                                           text.count(len(config.receivers), 'receiver')))
        console.show(abilities.https(os.environ) + '\n')
    return errors.EX_OK


def _connect(config, loudness):
    """Try to reach each receiver; raises ConfigError when one can't be."""
    from agent import probe, resources
    shared, problems = resources.Resources(os.environ), []
    for receiver in config.receivers:
        good, found = probe.probe(receiver, shared)
        if not good:
            problems.append('%s: %s' % (receiver.name, found))
        elif loudness >= 0:
            console.show('%s: %s\n' % (receiver.name, found))
    if problems:
        raise ConfigError(problems)


def route(common, argv):
    """envio route NAME..."""
    options, names = _options('route', common, argv, words=True)
    if not names:
        raise UsageError('route: which NAME? see envio --help')
    config, router = _setup(options.config)
    code = errors.EX_OK
    for word in names:
        folder, name = os.path.split(word)
        target = router.route_path(config.spool, folder, name)
        if target.receiver is None:
            code = 1
            answer = 'no receiver: %s' % target.why
        else:
            answer = '%s %s (%s)' % (target.receiver.name, target.url, target.why)
        console.show('%s: %s\n' % (text.shown(name), answer))
    return code


def status(common, argv):
    """envio status [--json] [--watch]"""
    options, _ = _options('status', common, argv, lambda parser: [
        parser.add_option(flag, action='store_true') for flag in ('--json', '--watch')])
    from agent import status as page
    return page.status(lambda: _setup(options.config, sends=False), options.json, options.watch, console.show)


def list_files(common, argv):
    """envio list [--json]"""
    options, _ = _options('list', common, argv, lambda parser: parser.add_option('--json', action='store_true'))
    from agent import listing
    listing.list_files(_setup(options.config, sends=False), options.json, console.show, console.say)
    return errors.EX_OK


def report(common, argv):
    """envio report --html FILE"""
    options, _ = _options('report', common, argv, lambda parser: parser.add_option('--html', metavar='FILE'))
    if not options.html:
        raise UsageError('report: needs --html FILE, - for standard output: see envio --help')
    path = options.html if options.html == '-' else os.path.abspath(options.html)
    import time
    from agent import report as page
    console.show(page.write(_setup(options.config, sends=False), path, time.time()))
    return errors.EX_OK


def requeue(common, argv):
    """envio requeue [NAME...] [--all] [--receiver R]"""
    options, names = _options('requeue', common, argv, lambda parser: [
        parser.add_option('--all', action='store_true'), parser.add_option('--receiver')], words=True)
    from agent import requeue as page
    page.requeue(lambda: _setup_of_owner(options.config), names, options.all, options.receiver, _teller(options))
    return errors.EX_OK


def flush(common, argv):
    """envio flush [RECEIVER]"""
    options, names = _options('flush', common, argv, words=True)
    from agent import requeue as page
    page.flush(lambda: _setup_of_owner(options.config), names, _teller(options))
    return errors.EX_OK


def _teller(options):
    return (lambda line: console.show(line + '\n')) if options.loudness >= 0 else (lambda line: None)


def send(common, argv):
    """envio send FILE... [--to RECEIVER]"""
    options, words = _options('send', common, argv, lambda parser: parser.add_option('--to', metavar='RECEIVER'),
                              words=True)
    if not words:
        raise UsageError('send: which FILE? see envio --help')
    from agent import engine, logs, sending, wakeup
    words = [os.path.abspath(word) for word in words]
    setup = _setup(options.config)
    logs.setup(None, options.loudness, quiet=True)
    waker = wakeup.Wakeup()
    waker.catch(engine.STOP)
    try:
        return sending.send(setup, words, options.to, waker, _teller(options), console.say)
    finally:
        waker.close()


def receiver(common, argv):
    """envio receiver"""
    def add(parser):
        parser.add_option('--port', type='int', default=8080)
        parser.add_option('--host', default='127.0.0.1')
        parser.add_option('--dir')
        parser.add_option('--answer', default='200')
        parser.add_option('--tls', action='store_true', default=False)
        parser.add_option('--cert')
        parser.add_option('--key')
    options, _ = _options('receiver', common, argv, add)
    if options.tls and options.cert:
        raise UsageError('receiver: --tls makes a certificate, --cert names one: give one of them')
    if options.key and not options.cert:
        raise UsageError('receiver: --key goes with --cert: give both')
    from agent import receiver as tryout
    return tryout.run(options.port, options.host, options.dir, options.answer, options.tls, options.cert, options.key)


def demo(common, argv):
    """envio demo"""
    _options('demo', common, argv)
    from agent import demo as show
    return show.run(sys.stdout)


def help_(common, argv):
    """envio help [conf|man1|man5|KEY]"""
    _, words = _options('help', common, argv, words=True)
    from agent import reference
    console.show(reference.page(words, HELP, COMMANDS))
    return errors.EX_OK


def version(common, argv):
    """envio version"""
    _options('version', common, argv)
    from agent import abilities
    console.show(''.join(['%s\n' % line for line in abilities.lines(os.environ)]))
    return errors.EX_OK


COMMANDS = {'run': run, 'once': once, 'check': check, 'route': route, 'status': status, 'list': list_files,
            'report': report, 'requeue': requeue, 'flush': flush, 'send': send, 'receiver': receiver, 'demo': demo,
            'help': help_, 'version': version}
