#!/bin/sh
# SPDX-License-Identifier: MIT
# Fails when a folder includes from one to its right in shaders <- host <- vision <- engine <- examples,
# when examples/ includes an internal header, or when a word stands where it must not be known.
set -eu
cd "$(dirname "$0")/.."
status=0
problem() { printf '%s\n' "$*"; status=1; }

rank() {
    case $1 in
    shaders) echo 1 ;;
    host) echo 2 ;;
    vision) echo 3 ;;
    engine) echo 4 ;;
    examples) echo 5 ;;
    *) echo 9 ;; # tests, and what does not exist
    esac
}

# The folder that #include "$2" of a file in folder $1 (of top folder $3) means.
folder_of() {
    for place in "$1" . host engine; do
        if [ -f "$place/$2" ]; then
            file=${place#./}/$2
            file=${file#./}
            echo "${file%%/*}"
            return
        fi
    done
    echo unknown
}

for top in shaders host vision engine examples; do
    [ -d $top ] || continue
    for file in $(find $top -name '*.[ch]' -o -name '*.glsl' -o -name '*.comp'); do
        for header in $(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\(.*\)".*/\1/p' "$file")
        do
            case $header in
            kim_variants.h) to=host ;; # generated
            kim_build.h) to=examples ;;
            *) to=$(folder_of "$(dirname "$file")" "$header") ;;
            esac
            if [ "$(rank "$to")" -gt "$(rank $top)" ]; then
                problem "$file includes \"$header\", which is $to/"
            fi
            if [ $top = examples ] && [ "$to" != examples ]; then
                case $header in
                host/base.h | host/devices.h | host/kimberlite_vulkan.h) ;;
                engine/kimberlite.h | engine/kernels.h) ;;
                base.h | devices.h | kimberlite_vulkan.h | kimberlite.h | kernels.h) ;;
                *) problem "$file includes \"$header\", which is not a public header" ;;
                esac
            fi
        done
    done
done

# the folders that exist
folders() { for f in "$@"; do [ ! -d "$f" ] || echo "$f"; done; }

if grep -rniE gemma $(folders shaders host); then
    problem "shaders/ and host/ know no model"
fi
if grep -rnE '\b(Vk[A-Z]|vk[A-Z]|VK_)|volk\.h|vulkan\.h' $(folders vision engine) --include='*.[ch]'; then
    problem "vision/ and engine/ know no Vulkan"
fi
exit $status
