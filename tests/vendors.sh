#!/bin/sh
# SPDX-License-Identifier: MIT
# Creates every pipeline with the compilers of GPUs; no card is needed, because nothing is run. Fails
# when a pipeline does not compile on AMD or NVIDIA, when one spills registers on AMD, and when
# tests/vendors.csv is out of date. All figures go to build/vendors.csv.
#
# tests/vendors.sh TOOL          AMD's oldest and newest chips and two between, and NVIDIA's Turing; of
#                                AMD the outer two in both memory modes; TOOL: the built pipelines_tool
# tests/vendors.sh --all TOOL    all chips in both memory modes, and as a second opinion Qualcomm's
#                                and Apple's compilers, whose refusals are printed and no failure
# tests/vendors.sh --renew TOOL  the chips of tests/vendors.csv, and writes that
# tests/vendors.sh --folder      only makes the driver folder, and prints where it is
# tests/vendors.sh --whole TOOL  prints the path of the program with all shaders: of TOOL itself, or, if
#                                the build's GLSL compiler lacks something, of one built with the folder's
# tests/vendors.sh --on CHIP COMMAND...  runs a command in that folder, with the compiler for the chip
#
# tests/vendors.csv has a few chips' figures, so that a change of a shader shows in its diff. It is
# only compared where the drivers and the GLSL compiler are those that it was made with.
#
# The drivers come from Debian's next release, unpacked once by debootstrap (root) into
# ~/.cache/kimberlite/drivers (or below XDG_CACHE_HOME); delete that folder to get newer ones.
set -eu
kim_root=$(cd "$(dirname "$0")/.." && pwd)
. "$kim_root/tests/setup.sh"

suite=forky
folder=${XDG_CACHE_HOME:-$HOME/.cache}/kimberlite/drivers/$suite
table=$kim_build/vendors.csv
kept=$kim_root/tests/vendors.csv

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
        vulkan-tools vulkan-validationlayers glslang-tools spirv-tools libvulkan1 \
        libcjson1 libwebp7 >&2 ||
        fail "could not install the drivers into $folder"
    folder_apt clean
    as_root touch "$folder/ready"
}

# A build beside that of the program, with its shaders and those that the folder's GLSL compiler has
# besides: half a minute the first time.
whole() {
    build=$(cd "$(dirname "$1")/.." && pwd)
    if ! grep -qs '{0, 0}' "$build/generated/kim_spirv.c"; then
        echo "$1"
        return 0
    fi
    whole=$kim_build/whole
    compiler=$whole/glslangValidator
    mkdir -p "$whole"
    libraries=$(gcc -print-multiarch)
    loader=$(ls "$folder"/lib*/ld-linux*.so.* | head -n 1)
    printf '#!/bin/sh\nf=%s\nexec %s --library-path "$f/usr/lib/%s:$f/lib/%s" "$f/usr/bin/%s" "$@"\n' \
        "$folder" "$loader" "$libraries" "$libraries" glslangValidator >"$compiler.part"
    cmp -s "$compiler.part" "$compiler" || cp "$compiler.part" "$compiler"
    chmod +x "$compiler"
    cmake -S "$kim_root" -B "$whole" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DKIM_TESTS=ON \
        -DKIM_EXAMPLES=OFF -DKIM_TEST_DRIVERS=none "-DKIM_GLSLANG=$compiler" \
        "-DKIM_SPIRV_FROM=$build" >&2 || return 1 # set -e is off in an && list
    cmake --build "$whole" --target "$(basename "$1")" >&2 || return 1
    echo "$whole/tests/$(basename "$1")"
}

# on CHIP COMMAND...: runs it in the folder with the driver's compiler for the chip.
on() {
    chip=$1
    shift
    libraries=/usr/lib/$(gcc -print-multiarch)
    case $chip in
    0x*) set -- NVK_I_WANT_A_BROKEN_VULKAN_DRIVER=1 NOUVEAU_CHIPSET=$chip "$@" && kind=nouveau ;;
    adreno*) set -- FD_GPU_ID="${chip#adreno}" "$@" && kind=freedreno ;;
    apple) kind=asahi ;;
    # RADV has NV's second version of matrices for those who ask for it
    *) set -- AMDGPU_GPU_ID="$chip" radv_cooperative_matrix2_nv=true "$@" && kind=amdgpu ;;
    esac
    icd=$kind
    [ $kind != amdgpu ] || icd=radeon
    in_folder env MESA_SHADER_CACHE_DISABLE=true LD_PRELOAD="$libraries/lib${kind}_noop_drm_shim.so" \
        VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/${icd}_icd.json "$@"
}

# make_pipelines CHIP MODE: writes their lines to a file of $work, and makes another if some failed.
# The tool prints a line for each pipeline, with a header before the first:
#   pipeline,registers,scalar_registers,spills,shared_bytes,occupancy,instructions,throughput
# and fails when one cannot be created. Numbers that a driver does not give are empty.
make_pipelines() {
    on "$1" "/$program" --mode "$2" >"$work/lines.$1.$2" 2>"$work/errors.$1.$2" ||
        touch "$work/failed.$1.$2"
    sed -n "2,\$s/^/$1,$2,/p" "$work/lines.$1.$2" >"$work/csv.$1.$2"
}

# Takes every n-th of the jobs: worker WHICH.
worker() {
    at=0
    for job in $jobs; do
        [ $((at % workers)) != "$1" ] || make_pipelines "${job%,*}" "${job#*,}"
        at=$((at + 1))
    done
}

# What the kept table depends on beside the shaders.
versions() {
    compiler=$kim_build/tools/bin/glslangValidator
    [ -x "$compiler" ] || compiler=glslangValidator
    printf '# Mesa %s, %s%s; address mode; renewed by tests/vendors.sh --renew\n' \
        "$(in_folder dpkg-query -W -f '${Version}' mesa-vulkan-drivers)" \
        "$(glslang_version "$compiler")" "$second_compiler"
}

glslang_version() {
    "$1" --version | sed -n '1s/Glslang Version: /glslang /p'
}

# The part of the table that is kept in the tree.
kept_chips="polaris10 navi31 0x162"
kept_table() {
    versions
    echo "pipeline,chip,registers,spills,shared_bytes,occupancy,instructions"
    awk -F , -v OFS=, -v chips=" $kept_chips " '$2 == "address" && index(chips, " " $1 " ") {
        print $3, $1, $4, $6, $7, $8, $9 }' "$table" | LC_ALL=C sort
}

check_kept_table() {
    kept_table >"$work/kept"
    if [ "$1" = --renew ]; then
        cp "$work/kept" "$kept"
        say "written: tests/vendors.csv"
    elif [ "$(head -n 1 "$kept")" != "$(head -n 1 "$work/kept")" ]; then
        say "tests/vendors.csv is of other compilers, so it is not compared:" "$(head -n 1 "$kept")"
    elif ! diff -U 0 "$kept" "$work/kept" >"$work/difference"; then
        say "tests/vendors.csv is out of date; tests/vendors.sh --renew $tool writes it. What differs:"
        grep '^[-+][^-+]' "$work/difference" | head -n 40 >&2
        return 1
    fi
}

what=--quick
case ${1-} in --all | --renew) what=$1 && shift ;; esac
[ $# -gt 0 ] || fail "usage: tests/vendors.sh [--all | --renew] TOOL, and see the top of the file"
make_folder
case $1 in
--folder) echo "$folder" && exit 0 ;;
--on) shift && on "$@" && exit 0 || exit 1 ;;
--whole) shift && whole "$1" && exit 0 || exit 1 ;;
esac
tool=$1
[ -x "$tool" ] || fail "no such program: $tool"
tool=$(whole "$tool")
second_compiler=
[ "$tool" = "$1" ] ||
    second_compiler=" and $(glslang_version "$kim_build/whole/glslangValidator") for what that lacks"
case $what in
--all) # strix1 is gfx1150
    chips="polaris10 vega10 renoir navi10 navi21 navi31 strix1 gfx1201 0x140 0x162 0x172
        adreno660 adreno740 adreno750 apple"
    both=$chips
    ;;
--renew) chips=$kept_chips both= ;;
*)
    chips="polaris10 navi10 navi31 gfx1201 0x162"
    both="polaris10 gfx1201"
    ;;
esac
jobs=
for chip in $chips; do
    jobs="$jobs $chip,address"
done
for chip in $both; do
    jobs="$jobs $chip,table"
done
work=$(mktemp -d)
program=pipelines_tool.$$
trap 'rm -rf "$work"; as_root rm -f "$folder/$program"' EXIT
trap 'exit 1' INT TERM
as_root cp "$tool" "$folder/$program"
workers=$(nproc)
number=0
while [ $number -lt "$workers" ]; do
    worker $number &
    number=$((number + 1))
done
wait

status=0
echo "chip,mode,pipeline,registers,scalar_registers,spills,shared_bytes,occupancy,instructions,throughput" \
    >"$table.part"
for job in $jobs; do
    part=${job%,*}.${job#*,}
    cat "$work/csv.$part" >>"$table.part"
    [ -f "$work/failed.$part" ] || continue
    case $job in
    adreno* | apple*) say "$job: no promise to users, so no failure; it says:" ;;
    *) say "$job: a pipeline could not be created:" && status=1 ;;
    esac
    sort "$work/errors.$part" | uniq -c | head -n 5 >&2
done
mv "$table.part" "$table"

awk -F , '
    NR == 1 { next }
    { key = $1 " " $2; if (!(key in count)) order[++keys] = key; count[key]++ }
    $4 > most[key] { most[key] = $4; worst[key] = $3 }
    $6 > 0 { spilling[key]++ }
    $6 > 0 && $1 !~ /^(0x|adreno|apple)/ { print "spills on " $1 ", " $2 ": " $3 " (" $6 ")"; bad = 1 }
    END {
        for (i = 1; i <= keys; i++) {
            key = order[i]
            printf "%-20s %4d pipelines, %d spill, at most %3d registers (%s)\n", key, count[key],
                spilling[key], most[key], worst[key]
        }
        exit bad
    }' "$table" || status=1
for job in $jobs; do
    case $job in adreno* | apple*) continue ;; esac
    grep -q "^$job," "$table" || { say "no pipelines for $job" && status=1; }
done
check_kept_table $what || status=1
say "all figures: $table"
exit $status
