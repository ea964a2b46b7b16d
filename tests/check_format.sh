#!/bin/sh
# SPDX-License-Identifier: MIT
# Checks the format of all C files; --fix formats them.
set -eu
cd "$(dirname "$0")/.."
files=$(git ls-files --cached --others --exclude-standard -- '*.c' '*.h' ':!shaders' | sort -u)
case ${1-} in
--fix) clang-format -i $files ;;
'') clang-format --dry-run -Werror $files ;;
*) echo "usage: tests/check_format.sh [--fix]" >&2; exit 2 ;;
esac
for file in $(git ls-files --cached --others --exclude-standard -- '*.c' '*.h' '*.comp' '*.glsl' '*.sh'); do
    if ! head -n 2 "$file" | grep -q 'SPDX-License-Identifier: MIT'; then
        echo "$file: its first lines hold no SPDX-License-Identifier" >&2
        exit 1
    fi
done
