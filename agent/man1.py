r"""The manual page envio(1), in the macros of man(7) that even an old man knows. A text alone.

reference.py fills in @VERSION@. In troff `\-` is a hyphen that can be copied, `\(aq` a quote, `\e` a backslash; a line
that begins with a full stop is a macro.
"""

TEXT = r""".TH ENVIO 1 2026-11-25 "Envio @VERSION@" "User Commands"
.nh
.ad l
.SH NAME
envio \- send the files of spool folders by HTTP, and file them by the answer
.SH SYNOPSIS
.B envio
[\fB\-c\fR \fIFILE\fR] [\fB\-v\fR|\fB\-q\fR] \fICOMMAND\fR [\fIOPTIONS\fR]
.SH DESCRIPTION
Envio takes the files that other programs put into a spool folder, finds the
receiver of each by its file name, sends it by HTTP or HTTPS and moves it by
the answer: to
.I sent/
when it was accepted, to
.I error/
with the reason beside it when it was rejected. Otherwise the file stays and is
tried again.
.PP
A file is never lost. It may be sent twice, after a crash or when an answer did
not come; each attempt of the same file carries the same Idempotency\-Key, so
that a receiver can tell. What an answer means, and all that can be set, is in
.BR envio.conf (5).
.SH COMMANDS
.TP
\fBrun\fR [\fB\-\-detach\fR]
Collect and send until a signal says stop. With
.B \-\-detach
go on in the background, with a pid file; this returns once the agent is at
work, or has said why it can't be. Without it stay in the foreground, for
.BR init (8)
or another supervisor.
.TP
\fBonce\fR [\fB\-\-max\-time\fR \fIDURATION\fR]
One pass over what is there, for
.BR cron (8):
each file is tried once. A file that is not settled yet is waited for, up to
.BR settle .
Shows progress on a terminal; else silent unless something is wrong. After
.B \-\-max\-time
(such as 50s) nothing new is started.
.TP
\fBcheck\fR [\fB\-\-connect\fR]
Validate the configuration: every fault at once, with file and line. With
.B \-\-connect
also try to reach each receiver (name, TCP, proxy, TLS, certificate); no file
is sent.
.TP
\fBstatus\fR [\fB\-\-json\fR] [\fB\-\-watch\fR]
Receivers and what waits for them, with a running agent or without one. The
first line and the exit status are made for Nagios.
.B \-\-watch
draws it anew every 2 seconds.
.TP
\fBlist\fR [\fB\-\-json\fR]
The waiting files, the oldest first: receiver, age, attempts, next try, last
answer.
.TP
\fBreport \-\-html\fR \fIFILE\fR
Write a page: receivers, what was sent by the hour, rejected files with their
reasons, the oldest waiting. The hours are read from the
.BR journal ;
.B \-
is standard output.
.TP
\fBroute\fR \fINAME\fR...
Which receiver and URL a file of this name gets, and why.
.TP
\fBrequeue\fR [\fINAME\fR...] [\fB\-\-all\fR] [\fB\-\-receiver\fR \fIRECEIVER\fR]
Put rejected files from
.I error/
back into the spool, and remove their reason files: those named, or all, or all
that one receiver rejected.
.TP
\fBflush\fR [\fIRECEIVER\fR]
Forget the pauses of one receiver, or of all: try now.
.TP
\fBsend\fR \fIFILE\fR... [\fB\-\-to\fR \fIRECEIVER\fR]
Send these files now, wherever they are. They stay where they are, whatever the
answer. With
.B \-\-to
the receiver is the one named, else the one that the file name gets.
.TP
\fBreceiver\fR [\fB\-\-port\fR \fIN\fR] [\fB\-\-host\fR \fIH\fR] [\fB\-\-dir\fR \fID\fR] \
[\fB\-\-answer\fR \fIRULES\fR] [\fB\-\-tls\fR | \fB\-\-cert\fR \fIFILE\fR [\fB\-\-key\fR \fIFILE\fR]]
A small receiver for trying things out, on 127.0.0.1, port 8080, unless told
otherwise.
.B \-\-dir
keeps what it gets,
.B \-\-tls
makes a certificate for the occasion and speaks HTTPS.
.I RULES
are \fIPATTERN\fB=\fIANSWER\fR, separated by commas; the first that fits the
file name counts, and an
.I ANSWER
alone is for all.
.I ANSWER
is a code from 200 to 599,
.B close
or
.BR hang ,
and may be followed by
.BI :problem= TEXT\fR,
.BI :retry\-after= SECONDS\fR,
.BI :delay= DURATION
and
.BI :times= N\fR.
.TP
.B demo
The whole thing in a temporary folder: files accepted, rejected, failing and
recovering.
.TP
.B version
Version, interpreter, what it can do of TLS, and the cURL that was found.
.TP
\fBhelp\fR [\fBconf\fR | \fBman1\fR | \fBman5\fR | \fIKEY\fR]
Commands and options;
.BR conf :
a configuration with every key explained;
.BR man1 ,
.BR man5 :
this page and
.BR envio.conf (5),
to be read with
.B man \-l \-
or
.BR "nroff \-man | less \-R" ;
.IR KEY :
what a key of the configuration means.
.SH OPTIONS
These may stand before or after the command.
.TP
\fB\-c\fR \fIFILE\fR
The configuration; otherwise
.IR /etc/envio/envio.conf .
.TP
.B \-v
Say more.
.TP
.B \-q
Say only errors.
.TP
.BR \-h ", " \-\-help
The commands and their options.
.TP
.B \-\-version
As the command
.BR version .
.SH EXIT STATUS
.TP
.B 0
All is well:
.B run
was stopped; of
.B once
and
.BR send ,
all files were accepted or there was nothing to do.
.TP
.B 1
.BR route :
a name gets no receiver;
.BR requeue :
a file could not be put back.
.TP
.B 2
The command line can't be understood.
.TP
.B 65
.BR once ", " send :
some files were rejected (also when others wait).
.TP
.B 70
An internal error: please report it.
.TP
.B 75
.BR once ", " send :
some files wait (to be tried again, for a receiver on HOLD, or for want of a
receiver). Also: another agent has the spool.
.TP
.B 78
The configuration is wrong, or a spool can't be used.
.PP
.B status
has those of Nagios: 0 ok, 1 warning, 2 critical, 3 unknown.
.SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
Stop: nothing new is sent, and what is being sent gets
.B stop_grace
to end. A second one ends it at once; those files stay in the spool.
.TP
.B SIGHUP
.BR run :
read the configuration again. When the new one is wrong, that is logged and the
old one stays in force.
.TP
.B SIGUSR1
Write the state of the receivers to the log.
.TP
.B SIGUSR2
Sent by
.BR "envio flush" .
.SH FILES
.TP
.I /etc/envio/envio.conf
The configuration, see
.BR envio.conf (5).
.TP
.I SPOOL/NAME
A waiting file. Only regular files at the top level are sent. A producer writes
under a name that
.B ignore
lists, such as
.IR NAME.tmp ,
and renames it; or the file is left alone until it has not changed for the time
.BR settle .
.TP
.I SPOOL/sent/YYYY\-MM\-DD/NAME
An accepted file. A name that is taken gets
.IR .1 ", " .2 ,
and so on: nothing is overwritten.
.TP
.I SPOOL/error/NAME
A rejected file.
.TP
.I SPOOL/error/NAME.reason
Why: lines of
.IR "Field: value" ,
an empty line, and the beginning of the answer. The field
.I Requeue
holds the command that sends the file again.
.TP
.I SPOOL/.envio/
The agent's own: the lock that keeps a second agent out, and
.IR state.json ,
by which breakers, pauses and counters outlive the process.
.TP
.I /var/run/envio/envio.pid
The pid file of
.BR "run \-\-detach" ,
see
.B run_dir
in
.BR envio.conf (5).
.SH ENVIRONMENT
.TP
.B ENVIO_PYTHON
Path or name of the Python to run on; otherwise the newest that is found (2.6,
2.7, or 3.6 and later).
.TP
.B ENVIO_CURL
Path of the cURL to use; otherwise the first that is found in the usual
folders.
.TP
.BR http_proxy ", " https_proxy ", " all_proxy ", " no_proxy
Proxies, where the configuration says
.BR "proxy = env" .
.TP
.B NO_COLOR
If it is not empty,
.B status
shows no colours.
.SH EXAMPLES
See the whole thing at work, in a temporary folder:
.PP
.nf
    envio demo
.fi
.PP
A first configuration, checked:
.PP
.nf
    envio help conf >/etc/envio/envio.conf
    vi /etc/envio/envio.conf
    envio check \-\-connect
.fi
.PP
Every minute by cron:
.PP
.nf
    * * * * *  envio  /opt/envio/bin/envio once \-\-max\-time 50s
.fi
.PP
Send again what a receiver rejected, once it is mended:
.PP
.nf
    envio requeue \-\-receiver orders
.fi
.SH SEE ALSO
.BR envio.conf (5),
.BR cron (8),
.BR curl (1)
"""
