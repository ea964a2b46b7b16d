// SPDX-License-Identifier: MIT
// Reader of safetensors files. Trusts nothing in them.
//
// Opening checks the whole header: afterwards every tensor has a name of its own, a known type and
// a shape that fits its bytes, and the tensors fill the file's data without gap or overlap.
// Every error names the file. What is handed out is valid as long as the safetensors. Reading one
// from several threads is safe.
#ifndef KIM_SAFETENSORS_H
#define KIM_SAFETENSORS_H

#include "file.h"

typedef struct safetensors safetensors;

enum { SAFETENSORS_MAX_DIMS = 8 };

typedef struct safetensor {
    const char *name;
    const char *dtype; // "BF16"
    uint32_t ggml;     // the number of the same type in GGML; UINT32_MAX: it has none
    uint32_t n_dims;   // 0 .. SAFETENSORS_MAX_DIMS
    uint64_t shape[SAFETENSORS_MAX_DIMS]; // the last one is the row length; may be 0
    uint64_t bytes;
    const uint8_t *data; // at any alignment
} safetensor;

kim_err safetensors_open(safetensors **out, const char *path);

// Reads from memory, which must outlive the safetensors. name: stands for the file in errors
kim_err safetensors_open_memory(safetensors **out, const void *data, uint64_t size,
                                const char *name);
void safetensors_close(safetensors **s);

const char *safetensors_path(const safetensors *s);

// The file in memory, for file_release; zero if it was opened from memory.
const file_mapping *safetensors_mapping(const safetensors *s);

uint32_t safetensors_count(const safetensors *s);

// In the order of the data. NULL: index is not below the count.
const safetensor *safetensors_at(const safetensors *s, uint32_t index);

// NULL: not in the file.
const safetensor *safetensors_find(const safetensors *s, const char *name);

#endif
