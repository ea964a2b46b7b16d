// SPDX-License-Identifier: MIT
// The vision encoder: tiles to soft tokens. A SigLIP tower, average pooling, and the projector.
#ifndef KIM_ENCODER_H
#define KIM_ENCODER_H

#include "host/tensors.h"
#include "host/gpu.h"

typedef struct encoder_shape {
    uint32_t image, patch; // pixels of a side; image is a multiple of patch
    uint32_t hidden, feed_forward, layers, heads;
    uint32_t tokens;      // soft tokens of a tile: a square that divides the square of patches
    uint32_t text_hidden; // width of a soft token
    float eps;
    float mean[3], std[3];
} encoder_shape;

typedef struct encoder encoder;

// Checks every tensor against the shape and, with a gpu, puts the weights on it and makes all
// pipelines. Matrices are F32, F16, BF16 or Q8_0, any mix; the rest F32, F16 or BF16. Files that
// have ffn_up and ffn_down under each other's names are known by the shapes.
//
// files:    tensors under the names of an mmproj file; not needed after this call
// norm_add: what is added to mm.soft_emb_norm.weight: 1 where the file has it as published
// gpu:      NULL: checks and the plan only
// progress: as in kim_model_params
kim_err encoder_create(encoder **out, kim_gpu *gpu, const tensors *files,
                       const encoder_shape *shape, float norm_add,
                       bool (*progress)(void *user, uint64_t done, uint64_t total), void *user);
void encoder_destroy(encoder **e);

const encoder_shape *encoder_get_shape(const encoder *e);

// Bytes on the device, exact: of the weights, and of everything else. The latter is taken by the
// first encode and kept: 121 MB for the published shape at 2560. What is encoded at once, it is
// planned for: one tile, or as many as have 4,096 patches together.
void encoder_plan(const encoder *e, uint64_t *weights, uint64_t *activations);

// Encodes tiles, as many at once as memory was planned for. One call at a time is served; further
// ones wait.
//
// rgb:      [count, image, image, 3]
// soft:     set to [count, tokens, text_hidden]; some of it, if the call fails
// progress: called after every layer with how many of all tiles' layers are done; false:
//           KIM_ERR_CANCELLED, and the encoder can be used again. NULL: not called
kim_err encoder_encode(encoder *e, const uint8_t *rgb, uint32_t count, float *soft,
                       bool (*progress)(void *user, uint64_t done, uint64_t total), void *user);

// Of all encodes so far: seconds on the device, and floating-point operations of their products.
void encoder_get_speed(encoder *e, double *seconds, double *operations);

#endif
