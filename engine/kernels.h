// SPDX-License-Identifier: MIT
// Kernels one by one: every operation of a device checked against plain C, and timed. Part of the
// public API, for who measures or doubts a device; the rules are those of kimberlite.h.
#ifndef KIMBERLITE_KERNELS_H
#define KIMBERLITE_KERNELS_H

#include "base.h"
#include "devices.h"

#ifdef __cplusplus
extern "C" {
#endif

// A list of kernels: operations at their shapes.
typedef struct kim_kernels kim_kernels;

typedef struct kim_kernels_params {
    // "270m", "1b", "4b", "12b", "27b": the shapes of a published size; "ggml": the product that
    // llama.cpp's test-backend-ops times, 4096 x 14336; NULL: small and odd shapes and worst-case
    // numbers, that between them run every shader in every way that the device has
    const char *size;
    const char *op;   // only this one, see kim_kernel_op; NULL: all
    const char *type; // of weights, only this one, "Q4_0" in any case; NULL: all
    // how products of 32 and more columns go: "few", "float", "dot", "half" or "int8"; NULL: as the
    // device has chosen, and without a size every way in turn
    const char *way;
    const uint32_t *columns; // tokens at once, of what depends on them; NULL: 1 and 512
    uint32_t n_columns;
} kim_kernels_params;

// KIM_ERR_ARGUMENT with a sentence: there is no such size, op, type or way; KIM_ERR_UNSUPPORTED:
// this device or build does not have the way. Nothing is allocated on the device yet.
KIM_API kim_err kim_kernels_create(kim_kernels **out, kim_gpu *gpu,
                                   const kim_kernels_params *params);
KIM_API void kim_kernels_destroy(kim_kernels **kernels);
KIM_API uint32_t kim_kernels_count(const kim_kernels *kernels);

// The names of the operations; NULL: no more.
KIM_API const char *kim_kernel_op(uint32_t index);

// Valid as long as the list.
typedef struct kim_kernel_info {
    const char *op;
    const char *type;  // of weights; "": has none
    const char *label; // what it is in a model: "gate_up", "local, 4096 keys"
    uint32_t rows;     // of weights; 0: has none
    uint32_t width;    // of a row of activations, or of the vocabulary
    uint32_t columns;  // tokens, or rows of an image
} kim_kernel_info;
KIM_API const kim_kernel_info *kim_kernels_at(const kim_kernels *kernels, uint32_t index);

typedef struct kim_kernel_result {
    bool right;               // every output that was looked at is within its bound
    double error;             // of the worst output, beside the plain C; not a number if it is none
    double bound;             // of this output
    char where[128];          // which it is: "y[12] is 3.5, expected 3.4"
    const char *way;          // that a product went; "": it is none
    double flop;              // operations of one run; a multiplication with an addition is two
    double bytes;             // that one run has to move, at least
    kim_peak arithmetic;      // the peak that bounds its operations
    double registers, spills; // see kim_gpu_params.statistics; not a number: not known
} kim_kernel_result;

// Makes a kernel's inputs, runs it, and compares what comes out with plain C; large outputs in
// part. Its memory is kept until the next one, or the end of the list.
//
// Not while another thread uses the device.
KIM_API kim_err kim_kernels_check(kim_kernels *kernels, uint32_t index, kim_kernel_result *out);

// Times the kernel that was checked last, by the device's clock, after runs that are not counted.
// Weights, keys and values are read from memory and not from caches, as far as there is memory for
// copies of them.
//
// seconds: [*samples] of one run each
// samples: in: at most so many, and what fits into `most` seconds; out: how many there are
// cpu:     this process's processor time for one run, the mean: on a CPU driver that of its work, a
//          better measure than the clock where other programs run too
KIM_API kim_err kim_kernels_time(kim_kernels *kernels, double *seconds, uint32_t *samples,
                                 double most, double *cpu);

#ifdef __cplusplus
}
#endif
#endif
