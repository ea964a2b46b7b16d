// SPDX-License-Identifier: MIT
// A small model that sees, written as every kind of files that a model comes in.
#ifndef FILES_SUPPORT_H
#define FILES_SUPPORT_H

#include "engine/kimberlite.h"
#include "text_support.h"

// The model: numbers that F16, BF16 and F32 all hold exactly.
enum {
    SMALL_LAYERS = 3,
    SMALL_HIDDEN = 64,
    SMALL_FEED_FORWARD = 96,
    SMALL_HEADS = 2,
    SMALL_HEAD = 64,
    SMALL_WINDOW = 16,
    SMALL_IMAGE = 24,
    SMALL_PATCH = 4,
    SMALL_VISION_LAYERS = 2,
    SMALL_VISION_HIDDEN = 64,
    SMALL_VISION_FEED_FORWARD = 72,
    SMALL_TOKENS = 9, // soft ones
    SMALL_MAX_TENSORS = 160,
};

typedef struct small_tensor {
    char name[64];      // in GGUF files
    char published[96]; // without what stands before the part
    uint32_t n_dims;
    uint64_t ne[4], count;
    float *values; // as in GGUF files
    bool plus_one; // published without the 1 that is in `values`
    bool vision, projector;
} small_tensor;

typedef struct small_files {
    const char *tests_folder;
    char folder[64]; // made in /tmp for the test
    uint32_t vocab;
    small_tensor tensors[SMALL_MAX_TENSORS];
    uint32_t count;
} small_files;

// The vocabulary is that of fixtures/tokenizer_small.json.
void small_files_make(small_files *s, const char *tests_folder);
void small_files_destroy(small_files *s); // the folder with all files too

// "/tmp/.../name", valid until the next call but three.
const char *small_path(const small_files *s, const char *name);

void small_write(const small_files *s, const char *name, const void *data, size_t size);

// GGUF files. type: GGML's number, of the matrices: F32, F16, BF16, Q8_0 or Q4_0
void small_write_text(const small_files *s, const char *name, uint32_t type);
// swapped: ffn_up and ffn_down have each other's names
void small_write_projector(const small_files *s, const char *name, uint32_t type, bool swapped);

typedef enum small_names { // what stands before the parts
    NAMES_OLD,        // language_model.model. vision_tower.vision_model. multi_modal_projector.
    NAMES_SAVED_BY_5, // language_model.model. vision_tower. multi_modal_projector.
    NAMES_NEW,        // model.language_model. model.vision_tower. model.multi_modal_projector.
    NAMES_TEXT,       // model. and no vision
} small_names;

typedef struct small_folder {
    const char *dtype; // "F32", "F16", "BF16"
    small_names names;
    uint32_t shards; // 1: no index
    bool new_config; // as of transformers 5
} small_folder;

// Writes the folder of a published model into the folder of the test: all its settings and weights.
void small_write_folder(const small_files *s, const small_folder *f);
void small_remove_folder(const small_files *s); // every file in the folder of the test

// Replaces a text, which must be there, in a file of the folder; in a safetensors file, in its
// header.
void small_edit(const small_files *s, const char *name, const char *find, const char *replace);

#endif
