#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs and fetches what is missing, builds, and runs the tests on lavapipe and SwiftShader.
#
# tests/run.sh [CTEST_OPTION...]        the tests
# tests/run.sh --all [CTEST_OPTION...]  and all that CI checks: format, budgets, other compilers,
#                                       sanitizers and fuzzing, Windows, the vendors' compilers
set -eu
kim_root=$(cd "$(dirname "$0")/.." && pwd)
. "$kim_root/tests/setup.sh"
. "$kim_root/tests/drivers.sh"
cd "$kim_root"

which='-LE ^ci$'
if [ "${1-}" = --all ]; then
    which=
    shift
fi
# word splitting of the lists is meant
# shellcheck disable=SC2086
setup_packages $packages_test
setup_glslang
setup_model
for driver in lavapipe swiftshader lavapipe22; do
    setup_driver $driver
done

cmake --preset release '-DKIM_TEST_DRIVERS=lavapipe;swiftshader;lavapipe22'
cmake --build --preset release
say "testing; details in build/release/Testing/Temporary/LastTest.log"
# shellcheck disable=SC2086
exec ctest --test-dir build/release --output-on-failure --no-tests=error -j2 $which "$@"
