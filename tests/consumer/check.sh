#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs a build and builds this folder's project against it, with CMake and with pkg-config,
# static and shared: check.sh BUILD_FOLDER
set -eu
source=$(cd "$(dirname "$0")" && pwd)
work=$1/consumer
rm -rf "$work"
cmake --install "$1" --prefix "$work/installed" >/dev/null
mv "$work/installed" "$work/moved" # the installed folder is relocatable
for library in kimberlite shared; do
    cmake -S "$source" -B "$work/$library" -G Ninja -DLIBRARY=$library \
        -DCMAKE_PREFIX_PATH="$work/moved" >/dev/null
    cmake --build "$work/$library" >/dev/null
    "$work/$library/consumer"
done
export PKG_CONFIG_PATH
PKG_CONFIG_PATH=$(dirname "$(find "$work/moved" -name kimberlite.pc)")
libraries=$(pkg-config --variable=libdir kimberlite)
cc "$source/consumer.c" -o "$work/with_pkg_config" $(pkg-config --cflags --libs kimberlite)
LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$work/with_pkg_config"
cc "$source/consumer.c" -o "$work/with_pkg_config_static" $(pkg-config --cflags kimberlite) \
    "$libraries/libkimberlite.a" $(pkg-config --libs --static kimberlite | sed 's/-lkimberlite//')
"$work/with_pkg_config_static"
