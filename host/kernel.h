// SPDX-License-Identifier: MIT
// One operation at one shape on a device: with made-up inputs, checked against plain C, and timed.
//
// Products of many columns go the way that the device has chosen when the kernel is made; see
// matmul_way_set.
#ifndef KIM_KERNEL_H
#define KIM_KERNEL_H

#include "ops.h"
#include "ops_fill.h"
#include "peaks.h"

typedef enum kernel_op {
    KERNEL_MATMUL,
    KERNEL_MATMUL_NORM,
    KERNEL_EMBED,
    KERNEL_NORM,
    KERNEL_ROPE,
    KERNEL_ATTENTION,
    KERNEL_ATTENTION_ROPE,
    KERNEL_GEGLU,
    KERNEL_SCORE,
    KERNEL_SAMPLE,
    KERNEL_LAYER_NORM,
    KERNEL_AVERAGE_POOL,
    KERNEL_ATTENTION_FULL,
    KERNEL_COPY,
    KERNEL_OPS,
} kernel_op;

const char *kernel_op_name(kernel_op op); // "matmul"

// What an operation does not have is not looked at.
typedef struct kernel_params {
    kernel_op op;
    uint32_t columns; // tokens: rows of the activations; of one image, with images
    uint32_t width;   // of an activation row; of score and sample the vocabulary
    // matmul, matmul_norm, embed
    const weight_type *type; // its blocks divide the width, unless it is not quantised
    uint32_t rows;           // of the weights
    weight_kind weights;
    bool paired; // matmul: two matrices of rows / 2 each, and gelu(gate) * up
    bool bias, gelu, add;
    // rope, attention, attention_rope (of one column); of attention_full only heads and head
    head_shape heads;
    kv_type kv;                            // of the caches
    uint32_t cache_rows, window, position; // as in kv_cache; of the first column
    uint32_t images;                       // attention_full, average_pool
    uint32_t side, pool;                   // average_pool
    double spread;                         // of x, about; 0: 1
    double mean;                           // layer_norm: of x
    bool extreme;                          // products: columns of zeros, of denormals, beyond fp16
    bool add_norm;                         // norm: x += rms(o) * w_post first
    bool greedy;                           // sample
} kernel_params;

// The output that is off by most of what it may be off by.
typedef struct kernel_error {
    bool right;   // error <= bound for every output that was looked at
    double error; // |it - reference|; not a number if it is none
    double bound;
    char where[128]; // "y[12] is 3.5, expected 3.4"
} kernel_error;

typedef struct kernel kernel;

// Makes the inputs, on the device, and records the operation once.
kim_err kernel_create(kernel **out, kim_gpu *gpu, const kernel_params *p);
void kernel_destroy(kernel **k);

// Runs it once and compares. Of large outputs some rows and columns are looked at, among them the
// first and last ones; guards around all that is not weights show what is written beside it.
kim_err kernel_check(kernel *k, kernel_error *out);

// Times it by the device's clock, after kernel_check. What it reads from memory in a model
// (weights, K and V) it reads from memory here: one after the other from several copies, more than
// caches hold, as far as there is memory. Short ones are run often for one sample.
//
// seconds: [*n] of one run each; *n: out: as many as could be had in `most` seconds, at least one
// cpu:     this process's processor time for one run, the mean; of a CPU driver its work, of others
//          that of handing it in
kim_err kernel_time(kernel *k, double *seconds, uint32_t *n, double most, double *cpu);

// Of one run: operations (2 for a multiplication with an addition), and bytes that it cannot do
// without.
double kernel_flop(const kernel *k);
double kernel_bytes(const kernel *k);

// The way that a product goes; false: it is none.
bool kernel_way(const kernel *k, matmul_way *way);

// Of the pipeline that does most of it; not numbers where the driver does not tell, or the device
// was opened without statistics.
kim_err kernel_figures(kernel *k, double *registers, double *spills);

#endif
