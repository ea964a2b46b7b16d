// SPDX-License-Identifier: MIT
// For the tests of text: checks, fixtures, a small vocabulary, and that of a model file.
#ifndef TEXT_SUPPORT_H
#define TEXT_SUPPORT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tokenizer.h"
#include "check.h"

// The same numbers in every run.
uint32_t random_u32(void);
uint32_t random_below(uint32_t end);

// A file of fixtures/: the bytes from `at` on are to be read.
typedef struct fixture {
    uint8_t *data;
    size_t size, at;
} fixture;

fixture fixture_open(const char *tests_folder, const char *name, const char *magic);
void fixture_close(fixture *f); // checks that all was read
uint32_t fixture_u32(fixture *f);
const char *fixture_bytes(fixture *f, size_t length);

// A vocabulary made like Gemma 3's: special tokens, runs, tags, bytes, a few pieces.
enum { SMALL_MAX = 400 };
typedef struct small_vocabulary {
    tokenizer_params params; // points to the arrays below
    gguf_string texts[SMALL_MAX];
    float scores[SMALL_MAX];
    int32_t types[SMALL_MAX];
    char byte_texts[256][8];
} small_vocabulary;

void small_vocabulary_make(small_vocabulary *v);

// Its id; -1: not in it.
int32_t small_vocabulary_find(const small_vocabulary *v, const char *text);

// The tokenizer of the model whose path is argv[2]. Ends the test as skipped if there is none.
tokenizer *model_tokenizer(int argc, char **argv);

double seconds_now(void);

#endif
