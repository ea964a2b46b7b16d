// SPDX-License-Identifier: MIT
// The published models that kim pull knows by name.
#ifndef KIM_PULL_H
#define KIM_PULL_H

#include <stdbool.h>
#include <stdint.h>

typedef struct pull_file {
    const char *path;    // in the repository; NULL: there is none
    const char *save_as; // NULL: as path. Repositories give their projectors the same name.
    uint64_t size;       // 0: not known for certain
    const char *sha256;  // NULL: not known for certain; the hub says it with every file
} pull_file;

typedef struct pull_model {
    const char *name;
    const char *repository;
    const char *revision; // a commit, where what it holds is known; else NULL: main
    bool gated;           // the hub wants a token of someone who accepted the terms
    pull_file text, projector;
} pull_model;

extern const pull_model pull_models[];
extern const int n_pull_models;

#endif
