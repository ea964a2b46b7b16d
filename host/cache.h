// SPDX-License-Identifier: MIT
// The folder of what can be made again: compiled pipelines, measured choices.
#ifndef KIM_CACHE_H
#define KIM_CACHE_H

#include "base.h"

// Sets `path` to that of a file in the cache folder, which is made. "": there is no such folder.
//
// dir: as kim_gpu_params.cache_dir
void cache_path(const char *dir, const char *name, char *path, size_t size);

#define CACHE_HASH 0xcbf29ce484222325u // to begin with

// FNV-1a, 64 bits: goes on with `hash`
uint64_t cache_hash(uint64_t hash, const void *data, uint64_t n);

#endif
