#!/bin/sh
# SPDX-License-Identifier: MIT
# Counts what a product of one column and the attention of one token cost on an AMD GPU (navi31),
# beside llama.cpp's own shaders through the same compiler: vector-ALU and memory instructions (of
# memory, shared memory and constants) that one subgroup of 64 issues in the main loop, from the
# compiler's own listing. No card is needed.
#
# tests/instructions.sh BUILD SHADERS   BUILD: a build folder, with tests/isa_tool and spirv/
#                                       SHADERS: where llama.cpp's build has its *.spv, such as
#                           build/peer/build/ggml/src/ggml-vulkan/vulkan-shaders.spv
set -eu
kim_root=$(cd "$(dirname "$0")/.." && pwd)
. "$kim_root/tests/setup.sh"

[ $# = 2 ] && [ -x "$1/tests/isa_tool" ] && [ -d "$2" ] ||
    fail "usage: tests/instructions.sh BUILD SHADERS"
build=$1
shaders=$2
folder=$("$kim_root/tests/vendors.sh" --folder)
place=isa.$$
listing=$(mktemp)
trap 'rm -f "$listing"; as_root rm -rf "${folder:?}/$place"' EXIT
trap 'exit 1' INT TERM
as_root mkdir -p "$folder/$place"
as_root cp "$build/tests/isa_tool" "$folder/$place/"

# count PER TRIPS SHADER CONSTANTS...: instructions in the main loop of a shader, the largest that is
# in no other, divided by PER. Loops in it count TRIPS times. A loop is what a branch goes back over.
count() {
    per=$1
    trips=$2
    as_root cp "$3" "$folder/$place/shader.spv"
    shift 3
    "$kim_root/tests/vendors.sh" --on navi31 "/$place/isa_tool" "/$place/shader.spv" "$@" >"$listing"
    awk -v per="$per" -v trips="$trips" '
        /^==== / { assembly = /Assembly/; next }
        !assembly { next }
        /^BB[0-9]+:/ { from[substr($1, 1, length($1) - 1)] = n; next }
        /^[ \t]+[a-z]/ {
            counts[++n] = $1 ~ /^(v|global|buffer|flat|scratch|ds|s_load|s_buffer)_/
            if ($1 ~ /^s_c?branch/ && $2 in from) to[$2] = n
        }
        function inside(a, b) { return a != b && from[a] >= from[b] && to[a] <= to[b] }
        END {
            for (l in to) {
                outer = 1
                for (m in to) if (inside(l, m)) outer = 0
                sum = 0
                for (i = from[l] + 1; outer && i <= to[l]; i++) {
                    times = 1
                    for (m in to) if (inside(m, l) && i > from[m] && i <= to[m]) times = trips
                    sum += counts[i] * times
                }
                if (sum > most) most = sum
            }
            if (!most) { print "no loop in the listing" >"/dev/stderr"; exit 1 }
            printf "%.3g", most / per
        }' "$listing"
}

# row NAME OURS THEIRS
row() {
    printf '| %s | %s | %s | %s |\n' "$1" "$2" "$3" "$(awk "BEGIN { printf \"%.2f\", $2 / $3 }")"
}

# Ours: a lane takes a run of weights that share scales, of two rows. llama.cpp's: four times eight
# weights, or a sixteenth of a block, of each of its rows; its host takes these numbers of rows.
matvec() {
    ours=$(count "$2" 1 "$build/spirv/matmul_$1.1.opt.spv" 2=64 3=1 4=8 5=1)
    theirs=$(count "$3" 1 "$shaders/mul_mat_vec_$1_f32_f32_subgroup_no_shmem.spv" 0=64 1="$4" 2=1)
    row "$1 times a vector, for a weight" "$ours" "$theirs"
}

echo "| navi31, instructions for | Kimberlite | llama.cpp | ratio |"
echo "|---|---|---|---|"
matvec q4_0 64 64 2
matvec q4_k 128 32 2
matvec q8_0 64 32 1
# Four query heads on one of keys and values, head 256, fp16. Ours: one subgroup and 64 keys a turn,
# and a loop over them by fours in it. llama.cpp's: four subgroups and 32 keys a turn.
attention() {
    count 64 16 "$build/spirv/$1.1.opt.spv" 2=64 3=256 4=4 5=4 6=8
}
theirs=$(count 8 1 "$shaders/flash_attn_f32_f16.spv" 0=256 1=4 2=32 3=256 4=256 5=0 6=8 7=4 8=64 \
    9=0 10=2 11=0 12=1 13=1 14=2 15=2)
ours=$(attention attention_rope)
row "attention of one token, 4 heads of 256, for a key" "$ours" "$theirs"
ours=$(attention attention_rope_quads)
row "the same, lanes load for each other by fours" "$ours" "$theirs"
