// SPDX-License-Identifier: MIT
// The small models that see, of fixtures/make_small_vision.py, and what the reference says.
#ifndef VISION_SUPPORT_H
#define VISION_SUPPORT_H

#include "model_support.h"
#include "vision/encoder.h"

typedef struct vision_picture {
    uint32_t width, height, seed;
    bool pan_and_scan;
    uint32_t tiles;          // itself and its crops
    uint32_t stride, values; // every stride-th value of the soft tokens is known
    uint32_t *sums;          // [tiles] adler32 of the pixels
    float *soft;             // [values]
} vision_picture;

typedef struct vision_conversation {
    char *name, *text; // special tokens and <start_of_image> stand in the text
    uint32_t pictures;
    int32_t *picture; // [pictures] their numbers
    uint32_t count;
    int32_t *ids; // [count] soft tokens included
    uint32_t next;
    int32_t *following; // [next] the greedy continuation
    float *logits;      // [next, vocab] before each
    float *gap;         // [next] of the log-probabilities of the first and the second
    float *logprob;     // [count] of what follows; 0 where that is a soft token
} vision_conversation;

typedef struct small_vision {
    char text_path[SMALL_PATH], mmproj_path[SMALL_PATH]; // removed by small_vision_close
    encoder_shape shape;
    uint32_t vocab;
    int32_t soft; // the id that stands for a soft token
    uint32_t n_pictures, n_conversations;
    vision_picture *pictures;
    vision_conversation *conversations;
} small_vision;

void small_vision_open(small_vision *v, const char *tests_folder, const char *name);

// The published encoder without weights: the file has a hole there, and nothing but its shape is
// known.
void vision_plan_open(small_vision *v, const char *tests_folder);
void small_vision_close(small_vision *v);

// [height, width, 3]; free with free()
uint8_t *vision_pixels(const vision_picture *p);

#endif
