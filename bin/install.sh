#!/bin/sh
# Puts the tree this file lies in into place on this host, or takes it away again:
#
#     bin/install.sh [PREFIX]               (/opt/envio)
#     bin/install.sh --uninstall [PREFIX]
#
# Run again it changes nothing; with a newer tree it replaces the program and keeps what is yours: configuration, spool,
# logs. It starts and enables nothing. Takes root, but with DESTDIR, which is put before every path and gets the files
# alone; a package does the rest on the host by `install.sh --finish PREFIX`. The command and the manual
# go below USR (/usr/local).
#
# PREFIX/bin -> current/bin, PREFIX/current -> versions/VERSION-CHECKSUM: an agent that runs while a newer version comes
# goes on with the files of its own, which stay until the version after the next.

parts='agent bin conf docs init.d CHANGES.md LICENSE README.md'
root=${DESTDIR-}
usr=${USR:-/usr/local}
changed=

say() {
    echo "install.sh: $1"
}

refuse() {
    echo "install.sh: $1" >&2
    exit "${2:-1}"
}

# rows: what goes outside of PREFIX: whether it is ours (new) or becomes theirs (keep), mode, source, target.
rows() {
    echo "keep 640 conf/envio.conf /etc/envio/envio.conf"
    if [ -z "$root" ] && [ -d /etc/sysconfig ] && [ ! -d /etc/default ]; then
        echo "keep 644 conf/envio.default /etc/sysconfig/envio"
    else
        echo "keep 644 conf/envio.default /etc/default/envio"
    fi
    echo "keep 644 conf/envio.logrotate /etc/logrotate.d/envio"
    echo "new 644 conf/envio.bash-completion /etc/bash_completion.d/envio"
    echo "new 644 docs/man/envio.1 $usr/share/man/man1/envio.1"
    echo "new 644 docs/man/envio.conf.5 $usr/share/man/man5/envio.conf.5"
    if [ -n "$root" ] || [ -d /run/systemd/system ]; then
        echo "new 644 conf/envio.service /etc/systemd/system/envio.service"
    fi
    if [ -n "$root" ] || [ -d /etc/init.d ] || [ ! -d /etc/rc.d/init.d ]; then
        echo "new 755 init.d/envio /etc/init.d/envio"
    else
        echo "new 755 init.d/envio /etc/rc.d/init.d/envio"
    fi
}

# folders: owner and group, mode, path.
folders() {
    echo "root:envio 750 /etc/envio"
    echo "envio:envio 2770 /var/spool/envio"
    echo "envio:envio 750 /var/log/envio"
}

# shipped SOURCE: the file as it is to be on this host: with our folder, and the agent with our account.
shipped() {
    case $1 in
    conf/envio.conf) sed 's/^\[agent\]$/&\
user = envio/' "$here/$1" ;;
    *) sed "s|/opt/envio/|$prefix/|g" "$here/$1" ;;
    esac
}

# same SOURCE TARGET: whether the target is what we would make it.
same() {
    [ -f "$root$2" ] && [ "$(shipped "$1" | $sum)" = "$($sum <"$root$2")" ]
}

# checksum FOLDER: one for all that the tree has, but what Python compiled.
checksum() {
    (cd "$1" && for part in $parts; do
        [ ! -e "$part" ] || find "$part" -name __pycache__ -prune -o -type f ! -name '*.py[co]' -print
    done | LC_ALL=C sort | xargs "$sum" | $sum | cut -d ' ' -f 1 | cut -c 1-10)
}

# put SOURCE TARGET MODE: makes it there in one step.
put() {
    if ! { mkdir -p "$root${2%/*}" && shipped "$1" >"$root$2.new" && chmod "$3" "$root$2.new" &&
        mv -f "$root$2.new" "$root$2"; }; then
        refuse "$root$2: can't be written"
    fi
    changed=yes
    say "wrote $2"
}

# point LINK TARGET: makes the link lead there, in one step where mv can.
point() {
    [ "$(readlink "$root$1")" != "$2" ] || return 0
    rm -f "$root$1.new"
    ln -s "$2" "$root$1.new" || refuse "$root$1: can't be made"
    mv -fT "$root$1.new" "$root$1" 2>/dev/null || { rm -f "$root$1" && mv "$root$1.new" "$root$1"; } ||
        refuse "$root$1: can't be made"
    changed=yes
}

# place_tree: the program itself; the version before stays.
place_tree() {
    tree=$root$prefix
    [ -h "$tree/current" ] || [ -z "$(ls -A "$tree" 2>/dev/null)" ] ||
        refuse "$tree: holds something that this program did not put there: move it away, or name another folder"
    name=$version-$(checksum "$here")
    if [ ! -d "$tree/versions/$name" ] || [ "$(checksum "$tree/versions/$name")" != "${name#"$version"-}" ]; then
        rm -rf "$tree/versions/.new"
        mkdir -p "$tree/versions/.new" || refuse "$tree: can't be made"
        for part in $parts; do
            [ ! -e "$here/$part" ] || cp -R "$here/$part" "$tree/versions/.new" || refuse "$tree: can't be written"
        done
        find "$tree/versions/.new" \( -name __pycache__ -o -name '*.py[co]' \) -prune -exec rm -rf {} +
        chmod -R u+rwX,go+rX,go-w "$tree/versions/.new"
        rm -rf "$tree/versions/$name"
        mv "$tree/versions/.new" "$tree/versions/$name" || refuse "$tree: can't be written"
        say "wrote $prefix/versions/$name"
    fi
    before=$(readlink "$tree/current")
    point "$prefix/current" "versions/$name"
    point "$prefix/bin" current/bin
    [ "$before" = "versions/$name" ] || for old in "$tree"/versions/*; do
        case ${old##*/} in "$name" | "${before##*/}") ;; *) rm -rf "$old" ;; esac
    done
}

place_files() {
    rows | while read -r how mode source target; do
        if [ -f "$here/$source" ] && ! same "$source" "$target"; then
            [ "$how:$(ls "$root$target" 2>/dev/null)" = "keep:$root$target" ] || echo "$source $target $mode"
        fi
    done
}

make_folders() {
    while read -r _ mode path; do
        if [ -d "$root$path" ]; then
            continue
        elif ! { mkdir -p "$root$path" && chmod "$mode" "$root$path"; }; then
            refuse "$root$path: can't be made"
        fi
        changed=yes
        say "made $path"
    done
}

install() {
    [ -n "$version" ] || refuse "$here/agent/__init__.py: no version there: the tree is not whole"
    place_tree
    make_folders <<EOF
$(folders)
EOF
    while read -r source target mode; do
        [ -z "$source" ] || put "$source" "$target" "$mode"
    done <<EOF
$(place_files)
EOF
    link=$usr/bin/envio
    if [ -e "$root$link" ] && [ ! -h "$root$link" ]; then
        say "$link is a program of others and stays: call $prefix/bin/envio"
    elif mkdir -p "$root$usr/bin" 2>/dev/null && [ -w "$root$usr/bin" ]; then
        point "$link" "$prefix/bin/envio"
    else
        say "$usr/bin can't be written: call $prefix/bin/envio"
    fi
    [ -n "$root" ] || finish
    hints
}

# finish: the account, who owns what was made by root, and the program compiled: cron's account could not keep that.
finish() {
    known group || { groupadd -r envio || addgroup -S envio; } 2>/dev/null ||
        refuse "no group envio, and neither groupadd nor addgroup makes one"
    known passwd || make_user 2>/dev/null || refuse "no account envio, and neither useradd nor adduser makes one"
    while read -r owner mode path; do
        [ ! -d "$path" ] || [ -z "$(find "$path" -prune -user 0 -group 0)" ] ||
            { chown "$owner" "$path" && chmod "$mode" "$path"; }
    done <<EOF
$(folders)
EOF
    file=/etc/envio/envio.conf
    [ ! -f $file ] || [ -z "$(find $file -user 0 -group 0)" ] || chgrp envio $file
    python=$("$prefix/bin/envio" version 2>/dev/null | sed -n 's/^Python [^ ]* (\(.*\))$/\1/p')
    if [ -n "$python" ]; then
        "$python" -m compileall -q "$(cd "$prefix/current" && pwd -P)/agent" >/dev/null
    else
        say "no Python here that Envio runs on: 2.6, 2.7, or 3.6 and later"
    fi
}

known() {
    if command -v getent >/dev/null; then
        getent "$1" envio >/dev/null
    else
        grep -q '^envio:' "/etc/$1"
    fi
}

make_user() {
    for shell in /usr/sbin/nologin /sbin/nologin /bin/false; do
        [ ! -x $shell ] || break
    done
    useradd -r -M -g envio -d /nonexistent -s "$shell" -c Envio envio ||
        adduser -S -D -H -G envio -h /nonexistent -s "$shell" envio
}

hints() {
    if [ -z "$changed" ]; then
        say "$version is in $prefix already: nothing changed"
        return
    fi
    say "$version is in $prefix; nothing was started. Edit /etc/envio/envio.conf, try it by: envio check"
    say "at every boot: $(at_boot enable); or by cron: $prefix/current/conf/envio.cron"
}

# at_boot enable|disable: the command of this host for it.
at_boot() {
    if [ -d /run/systemd/system ]; then
        echo "systemctl $1 envio"
    elif command -v chkconfig >/dev/null; then
        [ "$1" = enable ] && echo "chkconfig --add envio" || echo "chkconfig --del envio"
    elif command -v rc-update >/dev/null; then
        [ "$1" = enable ] && echo "rc-update add envio" || echo "rc-update del envio"
    else
        [ "$1" = enable ] && echo "update-rc.d envio defaults" || echo "update-rc.d envio remove"
    fi
}

running() {
    [ -z "$root" ] || return 1
    ! systemctl is-active --quiet envio 2>/dev/null || return 0
    for script in /etc/init.d/envio /etc/rc.d/init.d/envio; do
        ! { [ -x $script ] && $script status >/dev/null 2>&1; } || return 0
    done
    return 1
}

uninstall() {
    ! running || refuse "envio is running: stop it, and undo its start at boot by: $(at_boot disable)"
    [ ! -d "$root$prefix/current/conf" ] || here=$root$prefix/current
    left=
    while read -r how _ source target; do
        if [ ! -f "$root$target" ] || [ "$source" = conf/envio.conf ]; then
            continue
        fi
        if [ "$how" = new ] || same "$source" "$target"; then
            rm -f "$root$target"
            say "removed $target"
        else
            left="$left $target"
        fi
    done <<EOF
$(rows)
EOF
    [ "$(readlink "$root$usr/bin/envio")" != "$prefix/bin/envio" ] || rm -f "$root$usr/bin/envio"
    if [ -h "$root$prefix/current" ]; then
        rm -rf "$root$prefix/versions"
        rm -f "$root$prefix/bin" "$root$prefix/current"
        rmdir "$root$prefix" 2>/dev/null || left="$left $prefix"
        say "removed $prefix"
    fi
    for path in /etc/envio /var/spool/envio /var/log/envio; do
        [ ! -d "$root$path" ] || left="$left $path"
    done
    say "left as they are:$left, and the account envio"
}

umask 022
action=install
case ${1-} in
--uninstall) action=uninstall && shift ;;
--finish) action=finish && shift ;;
-*) refuse "usage: bin/install.sh [--uninstall] [PREFIX]" 2 ;;
esac
prefix=${1:-/opt/envio}
[ $# -le 1 ] || refuse "usage: bin/install.sh [--uninstall] [PREFIX]" 2
case $prefix in
*[!A-Za-z0-9/._+-]* | */ | */../* | */..) wrong=yes ;;
/*) wrong= ;;
*) wrong=yes ;;
esac
[ -z "$wrong" ] || refuse "$prefix: use an absolute path of letters, digits, / and ._+-" 2
[ -n "$root" ] || [ "$(id -u)" = 0 ] || refuse "this takes root (or DESTDIR: a folder to put everything into)"
for sum in cksum sha1sum md5sum; do # no Unix is without the first, but many a busybox
    ! command -v $sum >/dev/null || break
done
here=$(cd -P "$(dirname "$0")/.." && pwd -P) || refuse "$0: can't find its own folder"
version=$(sed -n "s/^__version__ = '\(.*\)'/\1/p" "$here/agent/__init__.py")
$action
