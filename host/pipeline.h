// SPDX-License-Identifier: MIT
// Pipelines: made on first use or all at once, kept for the life of the device, cached in a file.
#ifndef KIM_PIPELINE_H
#define KIM_PIPELINE_H

#include "gpu.h"

#include "shaders/kim_shared.h"

#include "kim_variants.h" // generated from shaders/variants.txt

// A shader and the values of its specialisation constants; constants[0] is SPEC_WORKGROUP.
// Constants that a shader does not have stay 0.
typedef struct pipeline_key {
    enum kim_variant variant;
    uint32_t constants[SPEC_COUNT - SPEC_WORKGROUP];
} pipeline_key;

// cache_dir: as in kim_gpu_params
kim_err pipeline_table_create(kim_gpu *g, const char *cache_dir);

// Writes the cache file if pipelines were made.
void pipeline_table_destroy(kim_gpu *g);

// The pipeline of a key. Thread-safe.
kim_err pipeline_get(kim_gpu *g, const pipeline_key *key, VkPipeline *out);

// Makes many at once on all processors; those that exist already are skipped.
kim_err pipeline_get_all(kim_gpu *g, const pipeline_key *keys, uint32_t count);

#endif
