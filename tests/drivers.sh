#!/bin/sh
# SPDX-License-Identifier: MIT
# Unpacks Vulkan drivers of Debian's packages into build/drivers/NAME, without touching the system.
# Read by the other scripts (`. tests/drivers.sh`, after setup.sh) for its functions.
#
# tests/drivers.sh NAME...
#   lavapipe     Mesa's CPU driver, the main test device: 25.0 on Debian 12 (from its backports)
#   lavapipe22   Mesa's CPU driver as a plain Debian 12 has it
#   swiftshader  a second, unrelated CPU driver, with the least of everything
#
# Each folder then has icd.json, lib/ and env; with `. build/drivers/NAME/env` programs use it.

kim_root=${kim_root:-$(cd "$(dirname "$0")/.." && pwd)}
[ "$(basename "$0")" != drivers.sh ] || . "$kim_root/tests/setup.sh"

# apt-get with lists of its own: Debian main and backports of the release that runs here. What is
# installed counts as there, so only what is missing is downloaded.
drivers_apt() {
    apt-get -qq -o Dir::Etc::SourceList="$apt_folder/sources.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$apt_folder/lists" -o Dir::Cache="$apt_folder/cache" \
        -o APT::Sandbox::User= -o Debug::NoLocking=true -o APT::Get::AllowUnauthenticated=false "$@"
}

drivers_prepare_apt() {
    command -v apt-get >/dev/null || fail "drivers are unpacked from Debian's packages with apt-get"
    release=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
    apt_folder=$kim_build/drivers/apt
    [ -f "$apt_folder/ready" ] && return 0
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
        grep -v -e security -e '^https\?://[^/]*/*$' | grep '/debian/*$' | head -n 1)
    [ -n "$mirror" ] || fail "found no mirror of Debian in the system's apt sources"
    mkdir -p "$apt_folder/lists/partial" "$apt_folder/cache/archives/partial"
    for suite in "$release" "$release-backports"; do
        echo "deb $mirror $suite main"
    done >"$apt_folder/sources.list"
    retry drivers_apt update || fail "could not read the package lists of $mirror: is there a network?"
    touch "$apt_folder/ready"
}

# Unpacks package $2 of suite $3, and what it depends on and is not installed, into folder $1.
drivers_unpack() {
    rm -f "$apt_folder"/cache/archives/*.deb
    retry drivers_apt install -y --download-only --reinstall --allow-downgrades \
        --no-install-recommends "$2/$3" || fail "could not fetch $2 of $3"
    rm -rf "$1"
    mkdir -p "$1"
    for package in "$apt_folder"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$1"
    done
    rm -f "$apt_folder"/cache/archives/*.deb
}

# Writes icd.json and env of folder $1 for the driver library $2, which lies in folder $3 of it.
drivers_describe() {
    [ -f "$1/$3/$2" ] || fail "the package does not hold $3/$2"
    ln -sfn "$3" "$1/lib"
    final=${1%.part}
    printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.2.0"}}\n' \
        "$final/lib/$2" >"$1/icd.json"
    cat >"$1/env" <<EOF
export VK_ICD_FILENAMES="$final/icd.json"
export LD_LIBRARY_PATH="$final/lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
EOF
}

setup_driver() {
    folder=$kim_build/drivers/$1
    [ -f "$folder/env" ] && return 0
    say "fetching the Vulkan driver $1 (up to 60 MB)"
    drivers_prepare_apt
    libraries=usr/lib/$(gcc -print-multiarch)
    backports=$release
    [ "$release" != bookworm ] || backports=bookworm-backports
    case $1 in
    lavapipe)
        drivers_unpack "$folder.part" mesa-vulkan-drivers "$backports"
        drivers_describe "$folder.part" libvulkan_lvp.so "$libraries"
        ;;
    lavapipe22)
        drivers_unpack "$folder.part" mesa-vulkan-drivers "$release"
        drivers_describe "$folder.part" libvulkan_lvp.so "$libraries"
        ;;
    swiftshader)
        # the common files of the release's browser, whichever is installed: what else they depend on
        # is not needed
        mkdir -p "$folder.part"
        (cd "$apt_folder/cache/archives" && retry drivers_apt download "chromium-common/$release" &&
            dpkg-deb -x chromium-common_*.deb "$folder.part" && rm chromium-common_*.deb) ||
            fail "could not fetch chromium-common"
        mkdir -p "$folder.part/swiftshader"
        mv "$folder.part/usr/lib/chromium/libvk_swiftshader.so" "$folder.part/swiftshader/"
        rm -rf "$folder.part/usr" "$folder.part/etc"
        drivers_describe "$folder.part" libvk_swiftshader.so swiftshader
        ;;
    *) fail "no such driver: $1 (lavapipe, lavapipe22, swiftshader)" ;;
    esac
    rm -rf "$folder"
    mv "$folder.part" "$folder"
}

if [ "$(basename "$0")" = drivers.sh ]; then
    set -eu
    [ $# -gt 0 ] || fail "usage: tests/drivers.sh lavapipe|lavapipe22|swiftshader..."
    for name in "$@"; do
        setup_driver "$name"
    done
fi
