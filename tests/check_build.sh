#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds a preset and runs its tests that need no driver: tests/check_build.sh debug|clang|asan|mingw
# The shaders are taken from build/release, if they are there.
set -eu
cd "$(dirname "$0")/.."
shaders=$PWD/build/release
[ -d "$shaders/spirv" ] || shaders=
cmake --preset "$1" -DKIM_TEST_DRIVERS=none "-DKIM_SPIRV_FROM=$shaders"
cmake --build --preset "$1"
case $1 in
debug | asan) ctest --preset "$1" -j2 ;;
mingw) test -s build/mingw/examples/list_devices.exe ;;
esac
