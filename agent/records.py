"""The records that travel between the parts: namedtuples, so that nobody changes one on its way.

Times are seconds: `now`, `due` and `since` by the monotonic clock, the others durations. Sizes are bytes.
Any file may import this one. It raises nothing.
"""

from collections import namedtuple

# Verdicts (SPEC 3).
ACK = 'ACK'      # the receiver has the file
NACK = 'NACK'    # the receiver refuses this file
RETRY = 'RETRY'  # no usable answer, or a passing failure: the file stays
HOLD = 'HOLD'    # the receiver or its configuration is at fault: everything of it stays
GONE = 'GONE'    # no verdict: somebody took the file away before it was sent

# Blame: whom an outcome speaks about. The breaker hears it.
FILE = 'FILE'          # the receiver is alive and said something about the file
RECEIVER = 'RECEIVER'  # the receiver failed
HOST = 'HOST'          # this host: the file could not be read, or changed; the receiver was not heard

SECTION_KEYS = (
    # which files, and where they go
    'match',                # tuple of shell patterns on the file name, () = none
    'match_regex',          # source of a regular expression on the file name, or ''
    'spool',                # only files of this spool (absolute path), or ''
    'url',                  # URL template: {name} {stem} and the groups of match_regex
    'method',               # POST, PUT, PATCH or GET
    'content_type',         # 'auto' or a literal media type
    'body',                 # raw or multipart
    'multipart_field',      # name of the file's part
    'gzip', 'digest',       # bool
    'headers',              # tuple of (name, value)
    'secret_headers_file', 'username', 'password_file', 'token_file',  # '' = none
    'ca_file', 'tls_verify', 'client_cert', 'client_key',
    'proxy',                # none, env or a URL
    'transport',            # native, curl or auto
    # how much, how long
    'workers',              # most exchanges at once
    'connect_timeout', 'read_timeout', 'deadline',  # seconds; deadline: the whole exchange
    'rate_limit',           # bytes a second, 0 = no limit
    # what an answer means
    'accepted',             # move or delete
    'ack', 'nack', 'retry', 'hold',  # tuples of codes ('404') and classes ('5xx') that override the table
    'breaker_threshold',    # failures in a row
    'breaker_pause', 'breaker_max_pause',  # seconds
    'retry_pause', 'retry_max_pause',      # seconds, a failed file's own pause
    'brake',                # NACKs in a row, 0 = never
    'hold_probe',           # seconds
    'max_attempts', 'expire',  # 0 = never; expire in seconds
    'follow_redirects',     # bool
)

Receiver = namedtuple('Receiver', ('name',) + SECTION_KEYS)

AGENT_KEYS = (
    'spool',          # tuple of absolute paths, in the order given
    'workers',        # threads in all
    'scan_interval',  # seconds
    'settle',         # seconds, 0 = collect at once
    'ignore',         # tuple of shell patterns
    'keep_sent',      # days, 0 = for ever
    'router',         # FILE.py:FUNCTION or ''
    'run_dir', 'log_file', 'log_level', 'syslog', 'journal', 'metrics',
    'stop_grace',     # seconds
    'splay',          # seconds: the most that a start waits, by chance
    'user', 'group',
)

# path: the configuration file's; receivers: tuple of Receiver in file order;
# defaults: a Receiver without name, match and URL: what a URL from the router plug-in is sent with.
Config = namedtuple('Config', ('path',) + AGENT_KEYS + ('receivers', 'defaults'))

# What the collector saw of a file. Two equal stamps: the same file, unchanged.
# device, inode; size in bytes; mtime, ctime in microseconds (as exact as every Python tells them alike).
Stamp = namedtuple('Stamp', 'device inode size mtime ctime')

SpoolFile = namedtuple('SpoolFile', (
    'spool',   # the spool's path
    'name',    # native string, no slash in it
    'stamp',   # Stamp as collected
))

Ticket = namedtuple('Ticket', (
    'file',      # SpoolFile
    'receiver',  # Receiver
    'url',       # the URL for this file, complete
    'attempts',  # how often it was tried so far
    'due',       # not before this time; 0 = at once
    'settled',   # None, or the Outcome that could not be carried out on the file yet: only the move is left
    'last',      # what came of the newest attempt, in words; '' before the first
    'maybe',     # True: an attempt was sent whole and got no answer, so that the receiver may have the file
))
Ticket.__new__.__defaults__ = ('', False)

# What is remembered of a file that was tried and stays. stamp, attempts, due, last, maybe: as of SpoolFile and Ticket;
# receiver: its name.
Tried = namedtuple('Tried', 'stamp attempts due last maybe receiver')

# What is remembered of a receiver; times in seconds from now on, 0 = no longer.
LaneState = namedtuple('LaneState', (
    'breaker',      # CLOSED, OPEN or HALF_OPEN
    'failures', 'openings',  # in a row
    'until',        # OPEN: how long still
    'held',         # why it is on HOLD, or ''
    'hold_due',     # when the next file probes it
    'paused',       # how long it asked to be left alone
    'nacks',        # rejected in a row
    'accepts',      # it has accepted a file since the last hold
    'window',       # exchanges at once, while it opens again
))

# A ticket on its way to a worker.
# generation: the breaker's, None when only a move is left; holding: True when the ticket probes a held receiver;
# riding: True when it goes with another one through the same exchange, and so takes no share of the workers;
# turn: a number that grows with each file that a worker takes; 0: it takes this one along with another.
Job = namedtuple('Job', 'ticket generation holding riding turn')
Job.__new__.__defaults__ = (0,)

# What a transport sends for one ticket.
# body: bodies.RawBody or EncodedBody, at its first byte; key: the Idempotency-Key;
# expect: True: ask before sending the body (Expect: 100-continue, RFC 9110 10.1.1)
Parcel = namedtuple('Parcel', 'ticket body key expect')

Target = namedtuple('Target', 'receiver url why')  # what the router answers: Receiver, URL, a sentence

Reply = namedtuple('Reply', (
    'status',   # int, 200..599
    'reason',   # the status line's text, a byte a character, may be empty
    'headers',  # tuple of (lower-case name, value), in order
    'body',     # bytes, at most the bound
))

Outcome = namedtuple('Outcome', (
    'verdict',      # ACK, NACK, RETRY, HOLD or GONE
    'blame',        # FILE, RECEIVER or HOST
    'status',       # int, None without an answer
    'reason',       # a few words: native string, safe to show
    'retry_after',  # seconds the receiver asked for (Retry-After), at most 3,600, or None
    'throttle',     # True: the receiver asked to be left alone for a while: no failure, but a pause for all its files
    'reply',        # Reply or None
    'moved',        # True: the file is where the verdict sends it; False: that is still to be done
    'gone',         # True: the file as it was collected is no more (taken away or changed): forget it
    'maybe',        # True: no answer came, but the file had been sent whole: the receiver may have it
))
Outcome.__new__.__defaults__ = (False,)

# One finished job, for statistics, journal and log. took: seconds from opening to the move.
Result = namedtuple('Result', 'file receiver outcome attempts took')
