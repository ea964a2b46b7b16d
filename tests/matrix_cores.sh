#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs attention and the products of many columns on a driver that has cooperative matrices, with the
# validation layers on: lavapipe of Debian's next release, in the driver folder of tests/vendors.sh. No card is
# needed. Fails when a product is wrong, and when the matrices were not used.
#
# tests/matrix_cores.sh OPS_TEST [OPTION...]   the built ops_test, and options for it
set -eu
kim_root=$(cd "$(dirname "$0")/.." && pwd)
. "$kim_root/tests/setup.sh"

[ $# -gt 0 ] && [ -x "$1" ] || fail "usage: tests/matrix_cores.sh OPS_TEST [OPTION...]"
program=$1
shift
folder=$("$kim_root/tests/vendors.sh" --folder)
as_root cp "$program" "$folder/ops_test"

status=0
output=$(as_root chroot "$folder" env HOME=/tmp XDG_CACHE_HOME=/tmp/cache KIM_VALIDATION=1 \
    VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/lvp_icd.json /ops_test --matrices "$@") ||
    status=$?
printf '%s\n' "$output"
for way in half int8 "attention by matrices"; do
    printf '%s\n' "$output" | grep -q "^  $way:" || {
        say "no case went by $way: does the build have the shaders, the driver them?"
        status=1
    }
done
exit $status
