// SPDX-License-Identifier: MIT
// Reader of GGUF files, versions 2 and 3, little-endian. Trusts nothing in them.
//
// Opening checks the whole structure: afterwards every key is of a known type and lies in the file,
// every tensor's shape fits its type, and its data lies in the file, aligned and apart from all
// others. Memory taken is a small multiple of the file's header at most.
// Every error names the file. What is handed out is valid as long as the gguf. Reading one gguf
// from several threads is safe.
#ifndef KIM_GGUF_H
#define KIM_GGUF_H

#include "base.h"
#include "file.h"
#include "weight_types.h"

typedef struct gguf gguf;

// Numbers as in the files.
typedef enum gguf_type {
    GGUF_U8 = 0,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
} gguf_type;

// Bytes in the file: any bytes, not zero-terminated.
typedef struct gguf_string {
    const char *data;
    uint64_t length;
} gguf_string;

typedef struct gguf_key {
    const char *name;
    gguf_type type;
    gguf_type item_type; // of the items of an array; otherwise = type
    uint64_t count;      // of items; 1 if no array
    const uint8_t *data; // the items as in the file, at any alignment; strings after their lengths
    uint64_t bytes;
} gguf_key;

typedef struct gguf_tensor {
    const char *name;
    uint32_t type;   // GGML's number; tensor_type_find knows it
    uint32_t n_dims; // 1 .. 4
    uint64_t ne[4];  // ne[0] is the row length; 1 beyond n_dims; never 0
    uint64_t offset; // of data, from the start of the file
    uint64_t bytes;
    const void *data;
} gguf_tensor;

kim_err gguf_open(gguf **out, const char *path);

// Reads from memory, which must outlive the gguf. name: stands for the file in errors
kim_err gguf_open_memory(gguf **out, const void *data, uint64_t size, const char *name);

void gguf_close(gguf **g);

const char *gguf_path(const gguf *g);
uint32_t gguf_version(const gguf *g);
uint64_t gguf_file_bytes(const gguf *g);

// In file order. NULL: index is not below the count.
uint32_t gguf_key_count(const gguf *g);
uint32_t gguf_tensor_count(const gguf *g);
const gguf_key *gguf_key_at(const gguf *g, uint32_t index);
const gguf_tensor *gguf_tensor_at(const gguf *g, uint32_t index);

// In O(log n). NULL: not in the file.
const gguf_key *gguf_find_key(const gguf *g, const char *name);
const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name);

// Typed values. An absent key is no error: *value, which may hold the default, stays as it is.
// A key of another type, or with a value out of range, is KIM_ERR_FORMAT.
// found: set to whether the key is there; NULL: not wanted
//
// u32, i32: from an integer type of any width; f32: from f32 or f64, finite
kim_err gguf_get_u32(const gguf *g, const char *name, uint32_t *value, bool *found);
kim_err gguf_get_i32(const gguf *g, const char *name, int32_t *value, bool *found);
kim_err gguf_get_f32(const gguf *g, const char *name, float *value, bool *found);
kim_err gguf_get_bool(const gguf *g, const char *name, bool *value, bool *found);
kim_err gguf_get_string(const gguf *g, const char *name, gguf_string *value, bool *found);

// Arrays, by the same rules, in memory of the caller's to free(). NULL and 0 if the key is absent
// or the array empty; found tells these apart.
kim_err gguf_get_array_i32(const gguf *g, const char *name, int32_t **values, uint64_t *count,
                           bool *found);
kim_err gguf_get_array_f32(const gguf *g, const char *name, float **values, uint64_t *count,
                           bool *found);
kim_err gguf_get_array_strings(const gguf *g, const char *name, gguf_string **values,
                               uint64_t *count, bool *found);

// "u32", "array"
const char *gguf_type_name(gguf_type type);

// The file in memory, for file_release; zero if it was opened from memory.
const file_mapping *gguf_mapping(const gguf *g);

#endif
