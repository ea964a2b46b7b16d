// SPDX-License-Identifier: MIT
// What operations are checked with: random numbers, halves, weights as files have them.
#ifndef KIM_OPS_FILL_H
#define KIM_OPS_FILL_H

#include "weight_types.h"

// The same numbers in every run, for each thread; from the beginning again after ops_random_begin.
void ops_random_begin(void);
uint32_t ops_random(void);
double ops_uniform(double low, double high);
double ops_normal(void);
void ops_fill_normal(float *out, uint64_t n, double scale);
uint16_t ops_half(double x); // to nearest even; infinite beyond the range

// Rows of a weight type as a file has them: random bits, with scales that are sane halves.
typedef enum weight_kind {
    WEIGHTS_RANDOM,
    WEIGHTS_TINY, // the scales are zeros and denormals
} weight_kind;
void ops_fill_weights(const weight_type *type, uint8_t *rows, uint64_t n_rows, uint32_t width,
                      weight_kind kind);

#endif
