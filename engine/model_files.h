// SPDX-License-Identifier: MIT
// The files of a model: a GGUF file and maybe its projector, or a folder as published; or none, for
// a synthetic one. Internal to engine/.
#ifndef KIM_MODEL_FILES_H
#define KIM_MODEL_FILES_H

#include "architecture.h"
#include "tokenizer.h"

#include "vision/encoder.h"
#include "vision/tiles.h"

typedef struct model_files {
    // Under the names of GGUF files.
    tensors *text;
    const tensors *vision; // NULL: the model cannot see; else of a projector, or = text
    float norm_add;        // what is added to the weights of RMS norms: 1 as published, 0 in GGUF

    architecture arch;   // without the vocabulary
    tokenizer *tokens;   // NULL: a projector alone, or a synthetic model
    tokenizer_ids ids;   // of the tokenizer, or of a synthetic model
    uint32_t draw_limit; // see tokenizer_draw_limit
    encoder_shape shape; // of the vision part
    pan_and_scan crops;  // its defaults
    char name[128];      // "" if the files do not say
    bool chat;           // there is a chat template
    uint64_t bytes;      // of the weights' files

    gguf *text_file, *vision_file; // NULL: a folder, or none
    tensors *projector;
} model_files;

// A model of a published shape with made-up weights, of no file.
// name: as kim_model_params.synthetic
kim_err model_synthetic_open(model_files *f, const char *name);

// Reads and checks everything but the tensors' shapes.
//
// path:   NULL: only the vision part, of mmproj; there is no text, architecture or tokenizer
// mmproj: NULL: none
kim_err model_files_open(model_files *f, const char *path, const char *mmproj);
void model_files_close(model_files *f); // leaves it zero

// The part for folders, in model_folder.c: fills the first part of `f`.
kim_err model_folder_read(model_files *f, const char *folder);

// The same of a projector's keys and of a config.json: `crops` as published, and a mean and a
// deviation of one half.
void model_files_default_pixels(model_files *f);

#endif
