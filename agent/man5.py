"""The manual page envio.conf(5), as man1.py. reference.py fills in @VERSION@ and @KEYS@: the table of settings."""

TEXT = r""".TH ENVIO.CONF 5 2026-11-25 "Envio @VERSION@" "File Formats"
.nh
.ad l
.SH NAME
envio.conf \- configuration of envio
.SH SYNOPSIS
.I /etc/envio/envio.conf
.SH DESCRIPTION
A text file (UTF\-8) of sections: one
.BR [agent] ,
and a
\fB[receiver:\fINAME\fB]\fR for each receiver, whose name is made of letters, digits and ._\-.
.PP
Below the head of its section each key stands at the beginning of a line,
followed by = and its value. An indented line continues a list. Comments stand
on lines of their own and begin with # or a semicolon; a semicolon behind a
blank inside a value is refused, since elsewhere it would begin a comment.
.PP
.B envio check
reports every fault at once, with its line; a key that is not known is one. A
running agent reads the file again at SIGHUP, and keeps to the old one when the
new one is wrong.
.B envio help conf
writes an example with every key.
.SS Values
.TP
.B A duration
A whole number with a unit:
.BR 500ms ", " 5s ", " 2m ", " 1h ", " 5d .
.TP
.B A size
Bytes, or with K, M or G (1,024 each time):
.BR 4096 ", " 64K ", " 10M ", " 1G .
.TP
.B A list
One item a line, the second and later ones indented; patterns, codes and
spools also by comma.
.TP
.B Patterns
As in a shell:
.B *
is any number of characters,
.B ?
one,
.B [a\-z]
one of these,
.B [!a\-z]
one that is none of these. They are compared with the whole name, byte by
byte; capitals count.
.TP
.B A regular expression
As Python has it, matched from the start of the name; end it with
.B \eZ
or
.B $
for the whole. What not every Python knows is refused.
.TP
.B A URL
May hold \fB{name}\fR (the file name), \fB{stem}\fR (the name without its last
extension) and the named groups \fB(?P<\fIgroup\fB>\fR...\fB)\fR of
.BR match_regex ,
as \fB{\fIgroup\fB}\fR. They are percent\-encoded; in the host they must be one
label. A brace itself is %7B or %7D.
.SS Which receiver a file gets
The first, in the order of this file, whose
.B match
or
.B match_regex
matches the file name, and whose
.BR spool ,
where one is set, is that of the file. A file that no receiver matches stays
and is counted in
.BR "envio status" .
.B envio route
.I NAME
says what a name would get.
.PP
A
.B router
function, if there is one, is asked before. It gets the file name and returns
the name of a receiver, a whole URL (which is sent to as [agent] says), or
None. Its file, and the folders above, may be writable only for root and the
agent's account.
.SH KEYS
Each is shown with its default.
@KEYS@
.SH ANSWERS
.TP
.B 2xx
Accepted: to
.IR sent/ ,
or removed, see
.BR accepted .
.TP
.B 4xx
Rejected: to
.I error/
with the reason; but:
.TP
.BR 408 ", " 425 ", " 429 ", and " 413 " with Retry\-After"
The file stays and is tried again, not before the time in Retry\-After (an hour
at most). 429 is for all files of the receiver; so is 503 with Retry\-After.
.TP
.BR 5xx ", no answer, no HTTP"
The file stays and is tried again. This counts against the receiver's circuit
breaker.
.TP
.BR 3xx ", a certificate or name that is not valid"
HOLD: the receiver or its section is at fault.
.PP
.BR ack ", " nack ", " retry " and " hold
change this by code (\fB404\fR) or class (\fB5xx\fR); a code goes before its
class.
.B hold = 401, 403, 407
is advisable: these mean that the agent's password is refused, not the file.
.SS The circuit breaker
After
.B breaker_threshold
failures in a row it is OPEN: nothing is sent to the receiver for
.BR breaker_pause ,
which doubles up to
.BR breaker_max_pause .
Then one file probes it (HALF_OPEN); when that is answered, all goes on
(CLOSED). Besides, each file that failed has a pause of its own, from
.B retry_pause
to
.BR retry_max_pause ,
so that one that always fails does not keep the others waiting.
.SS HOLD
No file of the receiver moves. One tries again every
.BR hold_probe ;
once one is accepted, all go on.
.B envio flush
tries at once.
.PP
As many rejections in a row as
.B brake
says, with no file accepted between them, also mean HOLD: an expired password
must not empty a spool into
.IR error/ .
.SH SECRETS
Passwords, tokens and secret headers stand in files of their own, which belong
to root or the agent's account and which nobody else may read or write (chmod
600); else the start is refused. They are looked at for each request, so that a
new one needs no restart. None of them gets into the log, the journal, a reason
file, or the arguments of a process.
.SH EXAMPLE
.nf
[agent]
spool = /var/spool/envio
hold = 401, 403, 407

[receiver:orders]
match = orders\-*.json, *.ord
url = https://api.example.com/orders/{name}
token_file = /etc/envio/orders.token

[receiver:regions]
match_regex = ^(?P<region>[a\-z]+)\-.*\e.xml$
url = https://{region}.example.com/in/{stem}
headers = X\-Site: 042
    X\-Kind: report

[receiver:rest]
match = *
url = http://intranet.example.com/in
.fi
.SH SEE ALSO
.BR envio (1)
"""
