// SPDX-License-Identifier: MIT
// Every operation of host/ops.h in plain C and double precision: the reference for the shaders; and
// how far off what a device computes may be.
#ifndef KIM_REFERENCE_OPS_H
#define KIM_REFERENCE_OPS_H

#include "base.h"
#include "matmul_ways.h"

#include <stdbool.h>
#include <stdint.h>

// y[c, r] = sum over k of x[c, k] * w[r, k]
//
// x: [columns, stride]   w: [rows, width]   y: [columns, rows]
void reference_matmul(double *y, const float *x, uint32_t stride, const float *w, uint32_t rows,
                      uint32_t width, uint32_t columns);

// How far off one such sum may be, of finite inputs.
//
// way: that the product goes, matmul_way_of
double reference_product_tolerance(matmul_way way, const float *x, const float *w, uint32_t width);

double reference_gelu(double x);

// gelu(gate) * up, of a gate and an up that may be off by of_gate and of_up
double reference_glu_tolerance(double gate, double up, double of_gate, double of_up);

// y = x * rsqrt(mean(x^2) + eps) * w, one row
void reference_norm(double *y, const double *x, const float *w, uint32_t width, double eps);

// One head, already normed, to its rotation at a position.
void reference_rotate(double *x, uint32_t head, uint32_t position, double base, double factor);

typedef struct reference_heads {
    uint32_t heads, kv_heads, head, cache_rows, window;
} reference_heads;

// The place of element d of position p of a KV head, in halves, as rope.comp lays them out.
uint64_t reference_k_at(const reference_heads *h, uint32_t kv_head, uint32_t position, uint32_t d);
uint64_t reference_v_at(const reference_heads *h, uint32_t kv_head, uint32_t position, uint32_t d);

// One query head.
//
// q:     [head]   k, v: the caches, halves
// keys:  the positions it sees, the first and the last
// y:     [head]
// spread: the largest sum over d of |q[d] k[j, d]|: what the error of a score is relative to
kim_err reference_attention(const reference_heads *h, const float *q, const uint16_t *k,
                            const uint16_t *v, uint32_t kv_head, const uint32_t keys[2], double *y,
                            double *spread);
double reference_attention_tolerance(double spread); // of an output, where |v| < 2

// y = (x - mean(x)) / sqrt(variance(x) + eps) * w + b, one row
void reference_layer_norm(double *y, const float *x, const float *w, const float *b, uint32_t width,
                          double eps);

// One query: y = sum over j < rows of softmax_j(scale * q . k[j]) * v[j]
//
// q: [head]   k, v: rows of `stride` floats   y: [head]   spread: as above, of the scaled scores
typedef struct reference_full {
    uint32_t stride, rows, head;
    double scale;
} reference_full;
kim_err reference_attention_full(const reference_full *p, const float *q, const float *k,
                                 const float *v, double *y, double *spread);
double reference_full_tolerance(double spread); // of an output, where |v| < 6

// log(sum(exp(x)))
double reference_log_sum(const float *x, uint32_t n);

#endif
