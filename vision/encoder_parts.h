// SPDX-License-Identifier: MIT
// What encoder.c loads and encoder_forward.c computes with. Internal to the encoder.
#ifndef KIM_ENCODER_PARTS_H
#define KIM_ENCODER_PARTS_H

#include "encoder.h"

#include "host/ops.h"

#include <pthread.h>

// A matrix and its bias. Biases and norms are f32 on the device.
typedef struct affine {
    linear w;
    span bias; // [rows of w]
} affine;

typedef struct layer_norm {
    span w, b; // [hidden]
} layer_norm;

typedef struct encoder_layer {
    layer_norm before_attention;
    affine qkv; // (3 hidden, hidden): rows q, k, v
    affine out; // (hidden, hidden)
    layer_norm before_feed_forward;
    affine up;   // (feed_forward, hidden)
    affine down; // (hidden, feed_forward)
} encoder_layer;

// Device memory while tiles are encoded, for `tiles` of them: rows = tiles * patches of a tile.
typedef struct scratch {
    uint32_t tiles;
    pool upload, device, readback;
    span pixels; // [rows, patch_width] normalised, written by the host
    span x;      // [rows, hidden] the residual; then the pooled rows
    span h;      // [rows, hidden] normed rows; also what attention made of them
    span wide; // [rows, 3 hidden], [rows, feed_forward], [soft tokens, text_hidden]: one at a time
    span packed; // [rows] columns of a product, where this device packs them
    span soft;   // [tiles, tokens, text_hidden] for the host
} scratch;

// The work for a number of tiles: a stream a layer, so that the caller hears of progress.
typedef struct encoder_run {
    uint32_t tiles;   // 0: nothing is recorded
    stream **streams; // [layers]
} encoder_run;

struct encoder {
    kim_gpu *gpu; // NULL: plan only
    encoder_shape shape;
    uint32_t side, pool;  // patches of a side of a tile, and of a side of what is averaged
    uint32_t patch_width; // 3 * patch * patch, up to a multiple of 4
    pool weights;
    affine patch;   // (hidden, 3 * patch * patch)
    span positions; // [side * side, hidden]
    encoder_layer *layers;
    layer_norm after;
    span norm_soft; // [hidden]
    linear project; // (text_hidden, hidden)

    pthread_mutex_t lock; // guards what follows
    scratch scratch;
    bool ready;            // the scratch is on the device
    encoder_run full, odd; // for scratch.tiles, and for another number
    float pixel[3][256];   // a channel's values normalised
    double seconds, operations;
};

// Places the memory for as many tiles at once as it is meant for.
kim_err scratch_place(scratch *s, const encoder *e);
void scratch_destroy(scratch *s);

// Records the work for `tiles` tiles. A failure leaves r->tiles 0.
kim_err encoder_record(const encoder *e, encoder_run *r, uint32_t tiles);
void encoder_run_destroy(encoder_run *r, const encoder *e);

// The products of a run, as pipelines are asked for.
#define ENCODER_PRODUCTS(layers) (4 * (layers) + 2)
void encoder_products(const encoder *e, uint32_t tiles, matmul_params *list);

#endif
