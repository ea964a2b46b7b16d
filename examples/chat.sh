#!/bin/sh
# SPDX-License-Identifier: MIT
# From a fresh clone to a conversation about a picture: installs what is missing (Debian packages,
# as root or with sudo), builds, and runs `kim chat`, on the GPU if there is one with a Vulkan driver,
# else on the CPU.
#
# examples/chat.sh [OPTION...]       the small model of examples/demo, which sees; without a prompt it
#                                    is shown a picture and asked about it first
# examples/chat.sh 270m [OPTION...]  fetches the real Gemma 3 270M (253 MB, text only)
# Options are those of `kim chat`; -m MODEL takes another model.
set -eu
kim_root=$(cd "$(dirname "$0")/.." && pwd)
. "$kim_root/tests/setup.sh"
. "$kim_root/tests/drivers.sh"

# word splitting of the list is meant
# shellcheck disable=SC2086
setup_packages $packages_build
setup_glslang

programs=$kim_build/release
log=$kim_build/chat.log
[ -x "$programs/kim" ] || say "building (about a minute)"
(
    cd "$kim_root" || exit
    { [ -f "$programs/build.ninja" ] || cmake --preset release; } &&
        cmake --build --preset release --target kim list_devices
) >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "the build failed; all of it is in $log"; }
! grep '^### ' "$log" >&2

if ! "$programs/examples/list_devices" 2>/dev/null | grep -qE '\((discrete|integrated|virtual),.* usable'; then
    [ -f "$kim_build/drivers/lavapipe/env" ] || say "no GPU with a Vulkan driver: running on the CPU"
    setup_driver lavapipe
    . "$kim_build/drivers/lavapipe/env"
fi

if [ "${1-}" = 270m ]; then
    shift
    setup_model
    exec "$programs/kim" chat -m "$kim_model" "$@"
fi
demo=$kim_root/examples/demo
picture=$demo/samples/shapes.png
first=yes
sampling=--greedy # such a small model errs when it is drawn from
for option in "$@"; do
    case $option in
    -m | --model | -m?* | --model=*) exec "$programs/kim" chat "$@" ;;
    --temp | --temp=* | --top-* | --min-p* | --seed*) sampling= ;;
    -p | --prompt | -p?* | --prompt=* | -i | --interactive | --image | --image=* | -h | --help) first= ;;
    esac
done
[ -t 0 ] || first=
[ -z "$first" ] || set -- --image "$picture" -i -p "What do you see?" "$@"
exec "$programs/kim" chat -m "$demo/demo.gguf" --mmproj "$demo/demo-mmproj.gguf" $sampling "$@"
