// SPDX-License-Identifier: MIT
// What kernel.c runs and kernel_*.c fill, record and check. Internal to them.
#ifndef KIM_KERNEL_PARTS_H
#define KIM_KERNEL_PARTS_H

#include "kernel.h"
#include "ops_pipelines.h"

enum { KERNEL_SPANS = 16 };

// How an operation is made and checked.
typedef struct kernel_class {
    const char *name;
    // Places spans[] in the order of an enum of its own, and makes what is read cold; sets flop and
    // bytes.
    kim_err (*place)(kernel *k);
    kim_err (*fill)(kernel *k); // kernel_data of all inputs
    kim_err (*record)(kernel *k, uint32_t copy);
    kim_err (*check)(kernel *k);               // kernel_compare
    pipeline_key (*pipeline)(const kernel *k); // NULL: none of ours
    bool moves_on;                             // what it leaves is no input of the next run of it
} kernel_class;

extern const kernel_class kernel_matmul, kernel_matmul_norm, kernel_embed;
extern const kernel_class kernel_rope, kernel_attention, kernel_attention_rope;
extern const kernel_class kernel_attention_full, kernel_layer_norm, kernel_average_pool;
extern const kernel_class kernel_norm, kernel_geglu, kernel_score, kernel_sample, kernel_copy;

struct kernel {
    kim_gpu *gpu;
    kernel_params p;
    const kernel_class *class;
    stream *st;   // the operation
    stream *move; // copies between device and staging; NULL where the host reaches the device

    // Activations, each between guards, everything poison until something is written.
    pool device, staging;
    span spans[KERNEL_SPANS];
    uint32_t n_spans;
    uint8_t *before; // of all blocks one after the other, before the run

    // What is read cold, `copies` times: matrices, or K and V. The first K and V are spans `cache`
    // and the one after it.
    pool first, more;
    linear *matrices;       // [copies]
    span (*caches)[2];      // [copies]
    uint32_t copies, cache; // cache: UINT32_MAX: none
    uint64_t cold_bytes;    // of one copy
    uint8_t *weights;       // as a file has them
    uint32_t distinct;      // see weight_row_at

    uint32_t recorded; // how often it is in the stream
    matmul_way way;    // of a product
    bool ran;          // and the inputs may have changed
    double flop, bytes;
    kernel_error worst;
};

// In place(). bytes: more than 0
kim_err kernel_place(kernel *k, uint64_t bytes);
kim_err kernel_place_floats(kernel *k, uint64_t n);

// Places the matrix of k->p, whose blocks k->weights has.
kim_err kernel_place_matrix(const kernel *k, linear *l, pool *p);

// What the host sees of spans[i], and saw before the run.
void *kernel_data(const kernel *k, uint32_t i);
const void *kernel_before(const kernel *k, uint32_t i);

void kernel_compare(kernel *k, const char *part, uint64_t at, double got, double want,
                    double bound);

// Which of `n` things a check looks at, if it looks at about `most` of them: the first, the last,
// and others over all of it. Begin with 0; returns n after the last.
uint32_t kernel_next(uint32_t at, uint32_t n, uint32_t most);

double kernel_spread(const kernel *k);

#endif
