"""The errors of the agent: each knows the exit code it leads to (SPEC 5, after sysexits.h).

Any file may raise and catch these. cli.main turns them into one sentence on stderr.
"""

EX_OK = 0
EX_USAGE = 2
EX_REJECTED = 65
EX_SOFTWARE = 70
EX_WAITING = 75
EX_CONFIG = 78


class AgentError(Exception):
    """Something the user has to know. The text is a sentence `what: why: what to do`; `problems` holds the sentences
    one by one, where there are several."""
    exit_code = EX_SOFTWARE

    def __init__(self, text, problems=None):
        Exception.__init__(self, text)
        self.problems = problems or [text]


class UsageError(AgentError):
    """The command line can't be understood."""
    exit_code = EX_USAGE


class ConfigError(AgentError):
    """The configuration is wrong; `problems` holds every fault found, each a sentence with file and line."""
    exit_code = EX_CONFIG

    def __init__(self, problems):
        AgentError.__init__(self, '\n'.join(problems), list(problems))


class SpoolError(AgentError):
    """A spool can't be used: missing, not a folder, not ours to read and write."""
    exit_code = EX_CONFIG


class LockedError(SpoolError):
    """Another agent has the spool."""
    exit_code = EX_WAITING


class TransportError(AgentError):
    """The exchange with a receiver ended without a usable answer.

    stage: where it ended: one of STAGES; 'local': this host had no descriptor, memory or room for it.
    sent_whole: True when the request had left this host whole, so that it may have been processed.
    hold: True when trying again is of no use until somebody mends the receiver or its section (SPEC 3, HOLD): a
    certificate or name that is not valid, credentials that can't be read or that a proxy refuses.
    """
    STAGES = ('local', 'credentials', 'resolve', 'connect', 'proxy', 'tls', 'send', 'receive', 'protocol', 'deadline')

    def __init__(self, stage, text, sent_whole=False, hold=False):
        AgentError.__init__(self, text)
        self.stage = stage
        self.sent_whole = sent_whole
        self.hold = hold


class FileChanged(AgentError):
    """The file is not what it was when it was collected: gone, replaced, grown, cut, not regular, not readable.

    gone: True when there is nothing left under that name; unreadable: True when it is what it was, but its bytes can't
    be had: it has its pause, as if it could not have been opened.
    """
    exit_code = EX_WAITING

    def __init__(self, text, gone=False, unreadable=False):
        AgentError.__init__(self, text)
        self.gone = gone
        self.unreadable = unreadable
