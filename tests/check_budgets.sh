#!/bin/sh
# SPDX-License-Identifier: MIT
# Checks the budgets: a file has at most 1,000 lines; a function at most 150, and at the 90th
# percentile 60; 8 parameters; 5 environment variables, each named in README.md.
set -eu
cd "$(dirname "$0")/.."
status=0
problem() { printf '%s\n' "$*"; status=1; }

files=$(git ls-files --cached --others --exclude-standard -- '*.c' '*.h' '*.comp' '*.glsl' '*.sh' \
    '*.py' '*.cmake' '*CMakeLists.txt' | sort -u)

for file in $files; do
    [ -f "$file" ] || continue
    lines=$(wc -l <"$file")
    [ "$lines" -le 1000 ] || problem "$file has $lines lines, at most 1000 are allowed"
done

# name, file, lines and parameters of every function
functions=$(printf '%s\n' "$files" | grep -E '\.(c|h|comp|glsl)$' |
    ctags -L - -o - --map-C=+.comp --map-C=+.glsl --map-C++=-.h --map-C=+.h --languages=C \
        --kinds-C=f --fields=neS --excmd=number --sort=no |
    awk -F '\t' '{
        line = end = 0; parameters = 0
        for (i = 4; i <= NF; i++) {
            if ($i ~ /^line:/) line = substr($i, 6)
            if ($i ~ /^end:/) end = substr($i, 5)
            if ($i ~ /^signature:/) {
                depth = 0; text = substr($i, 11)
                if (text !~ /^\((void)?\)$/) parameters = 1
                for (c = 1; c <= length(text); c++) {
                    letter = substr(text, c, 1)
                    if (letter == "(") depth++
                    if (letter == ")") depth--
                    if (letter == "," && depth == 1) parameters++
                }
            }
        }
        if (end) print $1, $2, end - line + 1, parameters
    }')
[ -n "$functions" ] || problem "found no function: is universal-ctags there?"

printf '%s\n' "$functions" | awk '
    $3 > 150 { printf "%s in %s has %d lines, at most 150 are allowed\n", $1, $2, $3; bad = 1 }
    $4 > 8 { printf "%s in %s has %d parameters, at most 8 are allowed\n", $1, $2, $4; bad = 1 }
    END { exit bad }' || status=1
printf '%s\n' "$functions" | sort -n -k 3 | awk '
    { lines[NR] = $3 }
    END {
        at = lines[int((NR * 9 + 9) / 10)]
        printf "%d functions; lines: median %d, 90th percentile %d, most %d\n", NR,
            lines[int((NR + 1) / 2)], at, lines[NR]
        if (at > 60) { print "the 90th percentile may be 60 at most"; exit 1 }
    }' || status=1

# those that a person sets; the system's own are not counted
variables=$(grep -rhoE 'getenv\("[A-Za-z_0-9]+"\)' host vision engine examples 2>/dev/null |
    sed 's/.*"\(.*\)".*/\1/' | sort -u | grep -vxE 'HOME|LOCALAPPDATA|NUMBER_OF_PROCESSORS' || true)
count=$(printf '%s' "$variables" | grep -c . || true)
[ "$count" -le 5 ] || problem "$count environment variables, at most 5 are allowed:" $variables
for variable in $variables; do
    grep -q "$variable" README.md || problem "environment variable $variable is not in README.md"
done
exit $status
