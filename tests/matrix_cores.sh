#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs attention and the products of many columns on a driver that has cooperative matrices, with the
# validation layers on: lavapipe of Debian's next release, in the driver folder of tests/vendors.sh. No card is
# needed. Fails when a product is wrong, and when the matrices were not used. Where the build's GLSL
# compiler lacks something, the programs are those of `tests/vendors.sh --whole`.
#
# tests/matrix_cores.sh OPS_TEST [OPTION...]   the built ops_test, and options for it
# tests/matrix_cores.sh --models FOLDER        the built tests of whole models, which lie in FOLDER: the
#                                              fixtures with each of the matrices' ways forced; ten minutes
set -eu
kim_root=$(cd "$(dirname "$0")/.." && pwd)
. "$kim_root/tests/setup.sh"

# run PROGRAM ARGUMENT...: in the folder, on its lavapipe
run() {
    as_root chroot "$folder" env HOME=/tmp XDG_CACHE_HOME=/tmp/cache KIM_VALIDATION=1 \
        VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/lvp_icd.json "$@"
}

models() {
    setup_model
    as_root mkdir -p "$folder/models"
    for name in model_test small_models_test vision_test; do
        as_root cp "$("$kim_root/tests/vendors.sh" --whole "$1/$name")" "$folder/models/"
    done
    as_root cp -r "$kim_root/tests" "$kim_model" "$folder/models/"
    for forced in "half matrices" "half nv" "int8 matrices"; do
        way=${forced% *}
        attention=${forced#* }
        set -- /models/tests "/models/${kim_model##*/}" --way $way --attention $attention
        run /models/model_test "$@" --limit 1200 --odd 300 --single 0
        [ $way = half ] || continue # int8 has limits in model_test only
        run /models/small_models_test "$@"
        run /models/vision_test "$@" --limit 2
    done
}

if [ $# = 2 ] && [ "$1" = --models ]; then
    folder=$("$kim_root/tests/vendors.sh" --folder)
    models "$2"
    exit
fi
[ $# -gt 0 ] && [ -x "$1" ] || fail "usage: tests/matrix_cores.sh OPS_TEST [OPTION...]"
program=$1
shift
folder=$("$kim_root/tests/vendors.sh" --folder)
as_root cp "$("$kim_root/tests/vendors.sh" --whole "$program")" "$folder/ops_test"

status=0
output=$(run /ops_test --matrices "$@") || status=$?
printf '%s\n' "$output"
for way in half int8 "attention by matrices" "attention by matrices of NV"; do
    printf '%s\n' "$output" | grep -q "^  $way:" || {
        say "no case went by $way: does the build have the shaders, the driver them?"
        status=1
    }
done
exit $status
