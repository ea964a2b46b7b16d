// SPDX-License-Identifier: MIT
// The tensors of one model, from a GGUF file or from several safetensors files, under one set of
// names.
#ifndef KIM_TENSORS_H
#define KIM_TENSORS_H

#include "file.h"
#include "gguf.h"

typedef struct file_tensor {
    const char *name; // as it is asked for
    uint32_t type;    // GGML's number; tensor_type_find knows it
    uint32_t n_dims;  // 1 .. 4
    uint64_t ne[4];   // ne[0] is the row length; 1 beyond n_dims; never 0
    uint64_t bytes;
    const uint8_t *data;
    uint32_t distinct;        // rows that there are at data; see weight_row_at
    const file_mapping *file; // that it lies in; see file_release
    const char *path;         // of that file, for messages
} file_tensor;

typedef struct tensors tensors;

// The gguf must outlive the tensors.
kim_err tensors_from_gguf(tensors **out, const gguf *g);

// One folder as published: model.safetensors, or the files that model.safetensors.index.json names.
//
// rename: writes the name under which a tensor of the files is to be found, or returns false: the
//         tensor is not part of the model. Two tensors of one name are an error.
kim_err tensors_from_folder(tensors **out, const char *folder,
                            bool (*rename)(void *user, const char *name, char *to, size_t room),
                            void *user);
void tensors_destroy(tensors **t);

// Of any files: how the two above are made. Two of one name are an error.
//
// items:   [count] allocated; taken, also on failure
// owner:   what the items point into; taken, also on failure; NULL: outlives the tensors
// destroy: ends the owner
kim_err tensors_create(tensors **out, const char *path, file_tensor *items, uint32_t count,
                       void *owner, void (*destroy)(void *owner));

// "the file" in messages: the gguf's path, or the folder.
const char *tensors_path(const tensors *t);

uint32_t tensors_count(const tensors *t);
const file_tensor *tensors_at(const tensors *t, uint32_t index); // in the order of the files

// NULL: not there. In O(log n).
const file_tensor *tensors_find(const tensors *t, const char *name);

// A tensor of just this shape (ne[1 ..] multiplied together is `rows`), or KIM_ERR_FORMAT with the
// name, what was found and what was expected.
kim_err tensors_expect(const tensors *t, const char *name, uint64_t width, uint64_t rows,
                       const file_tensor **out);

// The same, of type F32, F16 or BF16; another one is KIM_ERR_UNSUPPORTED.
kim_err tensors_expect_plain(const tensors *t, const char *name, uint64_t width, uint64_t rows,
                             const file_tensor **out);

// The elements of a tensor of type F32, F16 or BF16 as f32; another type is KIM_ERR_UNSUPPORTED.
// out: [elements]
kim_err file_tensor_read(const file_tensor *t, float *out);

#endif
