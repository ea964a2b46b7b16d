# SPDX-License-Identifier: MIT
# What the tests of the command share; read by them with `.`, after `tests`, `model` and `kim` are set.
# They end with `finish`. The command runs under the validation layers where KIM_VALIDATION is set.
set -u
export LC_ALL=C
dir=$(mktemp -d)
at_exit=: # a command
trap '$at_exit; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
unset KIM_MODEL KIM_DEVICE
export XDG_CACHE_HOME="$dir/cache"
validation=
[ "${KIM_VALIDATION:-0}" != 0 ] && validation=--validation
failures=0
checks=0

# run COMMAND...: leaves $status, $dir/out, $dir/err
run() {
    "$@" </dev/null >"$dir/out" 2>"$dir/err"
    status=$?
    command_line=$*
}

failed() {
    failures=$((failures + 1))
    echo "FAILED: $*"
    echo "  command: $command_line"
    echo "  exit code $status; stdout: $(head -c 300 "$dir/out" | tr '\n' '|')"
    echo "  stderr: $(head -c 600 "$dir/err" | tr '\n' '|')"
}

# check NAME TEST...: TEST is a command that succeeds
check() {
    name=$1
    shift
    checks=$((checks + 1))
    "$@" || failed "$name"
}

# sentence STATUS PATTERN COMMAND...: it ends with STATUS, prints nothing but one line on stderr,
# which begins with `kim: ` and matches PATTERN
sentence() {
    expected=$1
    pattern=$2
    shift 2
    run "$@"
    checks=$((checks + 1))
    if [ "$status" != "$expected" ]; then
        failed "exit code $status, not $expected"
    elif [ "$(wc -l <"$dir/err")" != 1 ] || ! grep -qE "^kim: .*($pattern)" "$dir/err"; then
        failed "not one sentence with \"$pattern\""
    elif [ -s "$dir/out" ]; then
        failed "an error, and results"
    fi
}

# shows STATUS PATTERN FILE: the last run ended with STATUS, and its out or err has PATTERN
shows() {
    checks=$((checks + 1))
    if [ "$status" != "$1" ]; then
        failed "exit code $status, not $1"
    elif ! grep -qE -- "$2" "$dir/$3"; then
        failed "no \"$2\" in std$3"
    fi
}

# Whether there are pseudo-terminals, which `script` runs a program in; says so if not.
has_terminal() {
    script -qec true /dev/null >/dev/null 2>&1 && return
    echo "no pseudo-terminal can be made here: what is different at a terminal is not checked"
    return 1
}

finish() {
    echo "$checks checks, $failures failed"
    [ "$failures" = 0 ]
}
