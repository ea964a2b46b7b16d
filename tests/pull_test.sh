#!/bin/sh
# SPDX-License-Identifier: MIT
# kim pull against a server on loopback that cuts, lies, corrupts, changes and redirects.
# usage: pull_test.sh TESTS_DIR MODEL KIM           (as root also a full disk)
tests=$1
kim=$3
command -v python3 >/dev/null || { echo "no python3: nothing to fetch from"; exit 77; }
. "$tests/command_support.sh"
server=
stop_server() { [ -z "$server" ] || kill "$server"; }
at_exit=stop_server
unset HF_TOKEN http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY no_proxy NO_PROXY

python3 "$tests/pull_server.py" "$dir" &
server=$!
for i in 1 2 3 4 5 6 7 8 9 10; do
    [ -s "$dir/ports" ] && break
    sleep 0.3
done
read -r port other_port <"$dir/ports" || { echo "the server did not start"; exit 1; }
hub=http://127.0.0.1:$port
to=$dir/to
sha256=$(sha256sum "$dir/good" | cut -d' ' -f1)

# ---------------------------------------------------------------------------------- helpers

# pull ARGUMENT...: leaves $status, $dir/out, $dir/err
pull() {
    command_line="kim pull $*"
    "$kim" pull --hub "$hub" --to "$to" --wait 0 --stall 1 "$@" </dev/null \
        >"$dir/out" 2>"$dir/err"
    status=$?
}

# fetches FILE ARGUMENT...: it ends well, FILE is what the server has, and nothing else is left
fetches() {
    file=$1
    shift
    pull "$@"
    shows 0 "^$file: fetched, " out
    check "$file is right" cmp -s "$to/$file" "${content:-$dir/good}"
    check 'no part is left' [ ! -e "$to/$file.part" -a ! -e "$to/$file.part.info" ]
}

# refuses PATTERN ARGUMENT...: one sentence, exit code 1, no file
refuses() {
    pattern=$1
    shift
    pull "$@"
    shows 1 "^kim: .*($pattern)" err
    check 'one sentence' [ "$(wc -l <"$dir/err")" = 1 ]
    check 'no results' [ ! -s "$dir/out" ]
}

# gone FILE: neither it nor a part of it is there
gone() {
    check "nothing is left of $1" \
        [ ! -e "$to/$1" -a ! -e "$to/$1.part" -a ! -e "$to/$1.part.info" ]
}

# asked PATTERN: how many requests match it
asked() {
    grep -cE -- "$1" "$dir/log"
}

# ------------------------------------------------------------------------- the command line

usage_checks() {
    for arguments in '' --list; do
        pull $arguments
        shows 0 '^4b-it-q4_k_m +2.32 GiB +812 MiB +ggml-org/gemma-3-4b-it-GGUF$' out
        shows 0 '^google-4b-it-qat-q4_0 .*token' out
    done
    pull --json
    shows 0 '"url":	"'"$hub"'/ggml-org/gemma-3-4b-it-GGUF/resolve/[0-9a-f]{40}/gemma-3-4b-it-Q4_K_M' out
    check 'it is JSON' python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$dir/out"
    while IFS=: read -r pattern arguments; do
        pull $arguments
        shows 2 "^kim: .*$pattern" err
    done <<'END'
no model "9b":9b
only https. and http.:ftp://localhost/a.gguf
only https. and http.:file:///etc/passwd
no address:http://a:b/c.gguf
does not end with the name:https://localhost/
does not end with the name:https://localhost/a/..
does not end with the name:https://localhost/%2e%2e%2f
does not end with the name:https://localhost/a%2f.hidden
--sha256 is:https://localhost/a.gguf --sha256 12
--sha256 goes with a URL:4b-it-q4_k_m --sha256 0000000000000000000000000000000000000000000000000000000000000000
--hub is:9b --hub localhost
--tries is 0:9b --tries 0
alone:4b-it-q4_k_m --list
END
    check 'nothing was asked for' [ ! -e "$dir/log" -a ! -e "$to" ]
}

# ------------------------------------------------------------------------------- what works

plain_checks() {
    fetches a.gguf "$hub/ok/a.gguf?download=true"
    shows 0 'no checksum' out
    shows 0 "^kim chat -m $to/a.gguf$" out
    fetches 'a b.gguf' "$hub/ok/a%20b.gguf" --sha256 "$(echo "$sha256" | tr a-f A-F)"
    shows 0 'SHA-256 is right' out
    shows 0 "^kim chat -m '$to/a b.gguf'$" out
    fetches mmproj-x.gguf "$hub/ok/mmproj-x.gguf"
    shows 0 "^kim chat -m MODEL --mmproj $to/mmproj-x.gguf$" out

    # again: with a checksum that is known the server is not even asked
    before=$(asked .) inode=$(ls -i "$to/a.gguf")
    pull "$hub/ok/a.gguf" --sha256 "$sha256"
    shows 0 '^a.gguf: is there, .*SHA-256 is right' out
    check 'nothing was asked for' [ "$(asked .)" = "$before" ]
    pull "$hub/ok/a.gguf"
    shows 0 '^a.gguf: is there, .*no checksum' out
    check 'the file was not replaced' [ "$(ls -i "$to/a.gguf")" = "$inode" ]

    # a file that is another one is not touched
    printf x | dd of="$to/a.gguf" bs=1 seek=5 conv=notrunc status=none
    refuses 'a.gguf is there already and is not what' "$hub/ok/a.gguf" --sha256 "$sha256"
    echo precious >"$to/own.gguf"
    refuses 'own.gguf is there already and is not what' "$hub/ok/own.gguf"
    check 'it is untouched' [ "$(cat "$to/own.gguf")" = precious ]
    mkdir "$to/folder.gguf"
    refuses 'folder.gguf is no plain file' "$hub/ok/folder.gguf"

    http_proxy=$hub pull http://no-such-host.invalid/x.gguf
    shows 0 '^x.gguf: fetched' out
    check 'by way of the proxy' [ "$(asked '/proxied/no-such-host.invalid/x.gguf')" = 1 ]
    to=
    command_line="$hub/ok/home.gguf, without --to"
    "$kim" pull "$hub/ok/home.gguf" >"$dir/out" 2>"$dir/err"
    status=$? to=$dir/to
    shows 0 "^kim chat -m $XDG_CACHE_HOME/kimberlite/models/home.gguf$" out
}

hub_checks() {
    fetches gemma-3-270m-Q8_0.gguf 270m-q8_0
    shows 0 'SHA-256 is right' out
    check 'by two redirects' [ "$(asked '270m-Q8_0.gguf')" = 3 ]
    pull 270m-q8_0
    shows 0 '^gemma-3-270m-Q8_0.gguf: is there, .*SHA-256 is right' out
    printf x | dd of="$to/gemma-3-270m-Q8_0.gguf" bs=1 seek=5 conv=notrunc status=none
    refuses 'is there already and is not what' 270m-q8_0
    refuses 'another version of gemma-3-270m-it-Q8_0.gguf: its SHA-256 is .*, expected was 0ef5' \
        270m-it-q8_0
    gone gemma-3-270m-it-Q8_0.gguf

    refuses 'HTTP 401.*accept.*HF_TOKEN' google-4b-it-qat-q4_0
    export HF_TOKEN=hf_bad
    refuses 'does not let this token.*HTTP 403' google-4b-it-qat-q4_0
    HF_TOKEN='hf good'
    refuses 'no token has' google-4b-it-qat-q4_0
    HF_TOKEN=hf_good
    fetches gemma-3-4b-it-q4_0.gguf google-4b-it-qat-q4_0
    check 'the projector too' cmp -s "$to/mmproj-model-f16-4B.gguf" "$dir/good"
    shows 0 "^kim chat -m $to/gemma-3-4b-it-q4_0.gguf --mmproj $to/mmproj-model-f16-4B.gguf$" out
    check 'the token went to the hub' [ "$(asked "^GET 127.0.0.1:$port /google/.* Bearer hf_good$")" = 4 ]
    check 'and nowhere else' [ "$(asked 'localhost.*hf_')" = 0 ]
    fetches t.gguf "http://localhost:$other_port/ok/t.gguf"
    fetches u.gguf "http://127.0.0.1:$other_port/ok/u.gguf"
    check 'nor to other addresses' [ "$(asked "(localhost|:$other_port).*hf_")" = 0 ]
    unset HF_TOKEN
}

# ------------------------------------------------------------------------- what goes wrong

resume_checks() {
    fetches cut.gguf "$hub/cut/cut.gguf" --sha256 "$sha256"
    check 'each time from where it was' [ "$(asked '/cut/cut.gguf bytes=(700|1400|2100|2800)000-')" = 4 ]
    pull "$hub/cut/twice.gguf" --tries 2
    shows 1 'could not be fetched: .*ended the connection after 1.34 MiB of 2.86 MiB \(try 2 of 2\)' err
    check 'the part is kept' [ "$(wc -c <"$to/twice.gguf.part")" = 1400000 ]
    fetches twice.gguf "$hub/cut/twice.gguf"
    check 'it went on' [ "$(asked '/cut/twice.gguf None')" = 1 ]

    # complete, but not yet checked
    cp "$dir/good" "$to/late.gguf.part"
    printf '"one"\n"one"\n3000000\n' >"$to/late.gguf.part.info"
    fetches late.gguf "$hub/ok/late.gguf"
    check 'one byte was asked for' [ "$(asked '/ok/late.gguf bytes=2999999-')" = 1 ]
    # parts that are none: no note of what they are of, or too long
    cp "$dir/other" "$to/stray.gguf.part"
    fetches stray.gguf "$hub/ok/stray.gguf"
    cat "$dir/good" "$dir/good" >"$to/fat.gguf.part"
    printf '"one"\n"one"\n3000000\n' >"$to/fat.gguf.part.info"
    fetches fat.gguf "$hub/ok/fat.gguf"

    content=$dir/other
    fetches changed.gguf "$hub/changed/changed.gguf"
    shows 0 'changed.gguf has changed at .* since a part was fetched: starting anew' err
    fetches mixed.gguf "$hub/mixed/mixed.gguf"
    shows 0 'mixed.gguf has changed at .* since a part was fetched: starting anew' err
    pull "$hub/changed/later.gguf" --tries 1
    shows 1 'ended the connection' err
    fetches later.gguf "$hub/changed/later.gguf"
    shows 0 'later.gguf has changed' err
    fetches nameless.gguf "$hub/nameless/nameless.gguf"
    content=
    fetches whole.gguf "$hub/whole/whole.gguf"
    shows 0 'does not give whole.gguf from the middle on: starting anew' err
    fetches anywhere.gguf "$hub/anywhere/anywhere.gguf"
    shows 0 'sends other bytes than were asked for: starting anew' err

    fetches busy.gguf "$hub/busy/busy.gguf"
    shows 0 'answered HTTP 429; trying again in 1 s' err
    shows 0 'answered HTTP 503; trying again in 0 s' err
    refuses 'HTTP 429, and asks to come back in 3600 s' "$hub/later/l.gguf"
    pull "$hub/down/d.gguf" --tries 3
    shows 1 'd.gguf could not be fetched: .* answered HTTP 500 \(try 3 of 3\)' err
    gone d.gguf
    fetches stall.gguf "$hub/stall/stall.gguf"
    shows 0 'sent nothing for 1 s; trying again' err
    refuses 'sent nothing for 1 s \(try 1 of 1\)' "$hub/silent/s.gguf" --tries 1
}

lie_checks() {
    refuses 'short.gguf has 2999000 bytes at .*, but should have 3000000' "$hub/short/short.gguf"
    gone short.gguf
    refuses 'sends more of more.gguf than the 3000000 bytes' "$hub/more/more.gguf"
    pull "$hub/less/less.gguf" --tries 2
    shows 1 'less.gguf could not be fetched: .*ended the connection' err
    pull "$hub/long/long.gguf" --tries 3
    shows 1 'long.gguf could not be fetched' err
    check 'it is no model' [ ! -e "$to/long.gguf" ]
    refuses 'corrupt.gguf.part is damaged and was removed: its SHA-256 is .*, expected was '"$sha256" \
        "$hub/corrupt/corrupt.gguf"
    gone corrupt.gguf
    refuses 'damaged and was removed' "$hub/ok/wrong.gguf" --sha256 "$(echo "$sha256" | tr 0-9 1-90)"
    gone wrong.gguf
    refuses 'what .* sent for page.gguf is no GGUF file' "$hub/html/page.gguf"
    gone page.gguf
    refuses 'redirects more than 10 times' "$hub/loop/loop.gguf"
    refuses 'the redirect to localhost is not followed' "$hub/elsewhere/e.gguf"
    refuses 'there is no none.gguf at 127.0.0.1:[0-9]+ \(HTTP 404\)' "$hub/nothing/none.gguf"
    gone none.gguf
    refuses 'has no such repository, or a private one.*HTTP 401' "$hub/private/p.gguf"
    refuses 'the host 127.0.0.1:1 cannot be reached' http://127.0.0.1:1/n.gguf
    refuses 'the host no-such-host.invalid is not found: is there a network' \
        https://no-such-host.invalid/n.gguf
    refuses 'no safe connection to 127.0.0.1' "https://127.0.0.1:$port/ok/tls.gguf"
    gone n.gguf
    gone tls.gguf
}

# --------------------------------------------------------------------- the disk and Ctrl-C

disk_checks() {
    echo file >"$dir/file"
    to=$dir/file/sub
    refuses 'file/sub could not be made: Not a directory' "$hub/ok/f.gguf"
    to=$dir/to
    command_line='endless, with a limit to the length of files'
    (
        ulimit -f 1000
        exec "$kim" pull --to "$to" "$hub/endless/e.gguf" >"$dir/out" 2>"$dir/err"
    )
    status=$?
    shows 1 'no space for more of .*e.gguf.part: File too large; what is there is kept' err
    rm -f "$to"/e.gguf.part*
    mkdir "$dir/disk"
    if mount -t tmpfs -o size=1m none "$dir/disk" 2>/dev/null; then
        to=$dir/disk
        refuses 'no space for f.gguf: 2.86 MiB are needed, .* are free' "$hub/ok/f.gguf"
        gone f.gguf
        refuses 'no space for more of .*e.gguf.part: No space left' "$hub/endless/e.gguf"
        to=$dir/to
        umount "$dir/disk"
    else
        echo "no tmpfs can be mounted here: fetching to a full disk is not checked"
    fi
}

# wait_for_bytes FILE
wait_for_bytes() {
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        [ -s "$1" ] && return
        sleep 0.1
    done
}

interrupt_checks() {
    command_line='slow.gguf, stopped'
    "$kim" pull --to "$to" "$hub/slow/slow.gguf" >"$dir/out" 2>"$dir/err" &
    process=$!
    wait_for_bytes "$to/slow.gguf.part"
    "$kim" pull --to "$to" "$hub/slow/slow.gguf" 2>"$dir/second"
    check 'not two at once' grep -q 'another kim is fetching slow.gguf' "$dir/second"
    kill -INT $process
    wait $process
    status=$?
    shows 1 '^kim: stopped; .* of 2.86 MiB are kept in .*slow.gguf.part, and the same command' err
    check 'what came is there' cmp -s -n "$(wc -c <"$to/slow.gguf.part")" "$to/slow.gguf.part" "$dir/good"
    fetches slow.gguf "$hub/slow/slow.gguf"
    check 'it went on' [ "$(asked '/slow/slow.gguf bytes=[1-9]')" = 1 ]
    has_terminal || return
    TERM=xterm script -qec "'$kim' pull --to '$to' '$hub/slow/bar.gguf'" "$dir/screen" \
        >"$dir/out" 2>"$dir/err" </dev/null
    status=$? command_line='slow.gguf at a terminal'
    shows 0 'bar.gguf .*[0-9]+%  .* of 2.86 MiB  .*iB/s  0:0[0-9] left' out
}

usage_checks
plain_checks
hub_checks
resume_checks
lie_checks
disk_checks
interrupt_checks
finish
