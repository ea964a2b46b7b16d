#!/bin/sh
# SPDX-License-Identifier: MIT
# Creates every pipeline, in both memory modes, with the compilers of AMD and NVIDIA GPUs; no card is
# needed, because nothing is run. Fails when a pipeline does not compile or spills registers on AMD,
# and writes registers, occupancy and throughput to build/vendors.csv.
#
# tests/vendors.sh TOOL      TOOL: the built pipelines_tool
# tests/vendors.sh --folder  only makes the driver folder, and prints where it is
#
# The drivers come from Debian's next release, unpacked once by debootstrap (root) into
# ~/.cache/kimberlite/drivers (or below XDG_CACHE_HOME); delete that folder to get newer ones.
set -eu
kim_root=$(cd "$(dirname "$0")/.." && pwd)
. "$kim_root/tests/setup.sh"

suite=forky
folder=${XDG_CACHE_HOME:-$HOME/.cache}/kimberlite/drivers/$suite
table=$kim_build/vendors.csv

in_folder() { as_root chroot "$folder" "$@"; }

folder_apt() {
    in_folder env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Check-Valid-Until=false \
        "$@" </dev/null
}

make_folder() {
    [ -f "$folder/ready" ] && return 0
    command -v debootstrap >/dev/null || setup_packages debootstrap
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
        grep '/debian/*$' | head -n 1)
    [ -n "$mirror" ] || fail "found no mirror of Debian in the system's apt sources"
    say "unpacking Debian $suite with its Vulkan drivers into $folder (once, about two minutes)"
    as_root rm -rf "$folder"
    mkdir -p "$(dirname "$folder")"
    retry as_root debootstrap --variant=minbase "$suite" "$folder" "$mirror" sid >&2 ||
        fail "debootstrap failed: is there a network?"
    retry folder_apt update >&2 || fail "could not read the package lists of $mirror"
    retry folder_apt install -y --no-install-recommends mesa-vulkan-drivers mesa-drm-shim \
        vulkan-tools vulkan-validationlayers glslang-tools spirv-tools libvulkan1 >&2 ||
        fail "could not install the drivers into $folder"
    folder_apt clean
    as_root touch "$folder/ready"
}

# on CHIP COMMAND...: runs it in the folder with the driver's compiler for the chip.
on() {
    chip=$1
    shift
    libraries=/usr/lib/$(gcc -print-multiarch)
    case $chip in
    0x*) set -- "LD_PRELOAD=$libraries/libnouveau_noop_drm_shim.so" "NOUVEAU_CHIPSET=$chip" \
        NVK_I_WANT_A_BROKEN_VULKAN_DRIVER=1 \
        VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/nouveau_icd.json "$@" ;;
    *) set -- "LD_PRELOAD=$libraries/libamdgpu_noop_drm_shim.so" "AMDGPU_GPU_ID=$chip" \
        VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/radeon_icd.json "$@" ;;
    esac
    in_folder env MESA_SHADER_CACHE_DISABLE=true "$@"
}

[ $# = 1 ] || fail "usage: tests/vendors.sh TOOL | --folder"
make_folder
if [ "$1" = --folder ]; then
    echo "$folder"
    exit 0
fi
[ -x "$1" ] || fail "no such program: $1"
as_root cp "$1" "$folder/pipelines_tool"

# The tool prints a line for each pipeline, with a header before the first:
#   pipeline,registers,scalar_registers,spills,shared_bytes,occupancy,instructions,throughput
# and fails when one cannot be created. Numbers that a driver does not give are empty.
status=0
echo "chip,mode,pipeline,registers,scalar_registers,spills,shared_bytes,occupancy,instructions,throughput" \
    >"$table.part"
for chip in polaris10 vega10 navi10 navi21 navi31 gfx1201 0x162 0x172; do
    for mode in address table; do
        if ! lines=$(on $chip /pipelines_tool --mode $mode); then
            say "$chip, $mode: a pipeline could not be created"
            status=1
        fi
        printf '%s\n' "$lines" | sed -n "2,\$s/^/$chip,$mode,/p" >>"$table.part"
    done
done
mv "$table.part" "$table"

awk -F , -v OFS='\t' '
    NR == 1 { next }
    { key = $1 " " $2; if (!(key in count)) order[++keys] = key; count[key]++ }
    $4 > most[key] { most[key] = $4; worst[key] = $3 }
    $6 > 0 && $1 !~ /^0x/ { print "spills on " $1 ", " $2 ": " $3 " (" $6 ")"; bad = 1 }
    END {
        for (i = 1; i <= keys; i++) {
            key = order[i]
            printf "%-20s %4d pipelines, at most %3d registers (%s)\n", key, count[key], most[key], worst[key]
        }
        if (keys != 16) { print "no pipelines for some chip or mode"; bad = 1 }
        exit bad
    }' "$table" || status=1
say "all figures: $table"
exit $status
