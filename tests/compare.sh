#!/bin/sh
# SPDX-License-Identifier: MIT
# Measures Kimberlite and llama.cpp on one Vulkan device, in one run and by turns, and prints a table
# in Markdown with the ratios, the commands, the device, its driver and both builds. llama.cpp is
# built in build/peer from the source package llama-cpp-python of PyPI. Run it on an idle machine; on
# one without a GPU, with two cores, it takes hours.
#
# tests/compare.sh [OPTION...] >compare.md
#   --device D     which device, as kim takes it: an index, a part of its name, its UUID
#   --model FILE   another model than the 270M
#   --peer FOLDER  a build of llama.cpp that is there, with bin/llama-bench and bin/test-backend-ops
#   --quick        a little of everything, each run with a time limit: shows that the script works
#
# Where the system has no Vulkan driver, Mesa's CPU driver is fetched. To measure on one of
# tests/drivers.sh: `. build/drivers/NAME/env` first.
set -eu
kim_root=$(cd "$(dirname "$0")/.." && pwd)
. "$kim_root/tests/setup.sh"
. "$kim_root/tests/drivers.sh"

peer_version=0.3.36
peer=$kim_build/peer/build

# Vulkan headers before 1.3.272 lack a structure that llama.cpp uses for its debugging only.
peer_fit_headers() {
    printf '#include <vulkan/vulkan.h>\n' | gcc -E -dM - | grep -q VK_EXT_layer_settings && return 0
    say "the Vulkan headers are old: building llama.cpp without its settings of validation layers"
    sed -i -e '/std::vector<vk::LayerSettingEXT> settings/,/vk::LayerSettingsCreateInfoEXT/d' \
        -e 's/, &layer_setting_info)/)/' "$1"
}

# What llama.cpp's CPU back end is built for: all that this processor has, but for AMX, with which it
# crashes in virtual machines that do not let it be used.
peer_processor() {
    for feature in sse4_2:SSE42 avx:AVX avx2:AVX2 bmi2:BMI2 fma:FMA f16c:F16C avx_vnni:AVX_VNNI \
        avx512f:AVX512 avx512vbmi:AVX512_VBMI avx512_vnni:AVX512_VNNI avx512_bf16:AVX512_BF16; do
        ! grep -qw "${feature%:*}" /proc/cpuinfo || printf ' -DGGML_%s=ON' "${feature#*:}"
    done
}

setup_peer() {
    [ ! -f "$peer/ready" ] || return 0
    setup_packages g++ glslc spirv-headers cmake ninja-build libvulkan-dev python3-venv
    setup_python
    source=$kim_build/peer/llama_cpp_python-$peer_version/vendor/llama.cpp
    if [ ! -f "$kim_build/peer/unpacked" ]; then
        say "fetching llama.cpp (llama-cpp-python $peer_version, 77 MB)"
        rm -rf "$kim_build/peer"
        mkdir -p "$kim_build/peer"
        retry "$kim_build/python/bin/pip" -q download --no-deps --no-binary llama-cpp-python \
            --dest "$kim_build/peer" "llama-cpp-python==$peer_version" ||
            fail "could not fetch llama-cpp-python: is there a network?"
        tar -xzf "$kim_build/peer/llama_cpp_python-$peer_version.tar.gz" -C "$kim_build/peer" \
            "llama_cpp_python-$peer_version/vendor"
        peer_fit_headers "$source/ggml/src/ggml-vulkan/ggml-vulkan.cpp"
        touch "$kim_build/peer/unpacked"
    fi
    say "building llama.cpp (on two cores about a quarter of an hour)"
    # word splitting of the options is meant
    # shellcheck disable=SC2046
    cmake -G Ninja -S "$source" -B "$peer" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
        -DGGML_VULKAN=ON -DGGML_NATIVE=OFF $(peer_processor) -DLLAMA_BUILD_SERVER=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_TESTS=ON -DLLAMA_BUILD_TOOLS=ON >&2
    cmake --build "$peer" --target llama-bench test-backend-ops >&2
    touch "$peer/ready"
}

usage="usage: tests/compare.sh [--quick] [--device D] [--model FILE] [--peer FOLDER]"
quick=
device=
model=
ready_peer=
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=1 && shift && continue ;;
    --device | --model | --peer) [ $# -gt 1 ] || fail "$usage" ;;
    *) fail "$usage" ;;
    esac
    case $1 in
    --device) device=$2 ;;
    --model) model=$2 ;;
    --peer) ready_peer=$2 ;;
    esac
    shift 2
done

# word splitting of the list is meant
# shellcheck disable=SC2086
setup_packages $packages_build
setup_glslang
[ -n "$model" ] || { setup_model && model=$kim_model; }
if [ -n "$ready_peer" ]; then
    peer=$ready_peer
else
    setup_peer
fi
for program in llama-bench test-backend-ops; do
    [ -x "$peer/bin/$program" ] || fail "$peer has no bin/$program"
done
(cd "$kim_root" && cmake --preset release >&2 && cmake --build --preset release --target kim >&2)
kim=$kim_build/release/kim
if ! "$kim" devices >/dev/null 2>&1; then
    say "this system has no Vulkan device that can be used: taking Mesa's CPU driver"
    setup_driver lavapipe
    . "$kim_build/drivers/lavapipe/env"
fi
exec python3 "$kim_root/tests/compare.py" --kim "$kim" --peer "$peer" --peer-name \
    "llama-cpp-python $peer_version" --model "$model" --work "$kim_build/compare" \
    ${device:+--device "$device"} ${quick:+--quick}
