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
    bool q8; // the caches are of 8 bits, else of halves
} reference_heads;

// The place of element d of position p of a KV head, in halves or bytes, as kv.glsl lays them out.
uint64_t reference_k_at(const reference_heads *h, uint32_t kv_head, uint32_t position, uint32_t d);
uint64_t reference_v_at(const reference_heads *h, uint32_t kv_head, uint32_t position, uint32_t d);

// The byte at which its scale stands, of K and of V alike. q8 only.
uint64_t reference_scale_at(const reference_heads *h, uint32_t kv_head, uint32_t position,
                            uint32_t d);

// The element itself; at: of K or of V.
double reference_cached(const reference_heads *h, const void *cache, uint64_t at,
                        uint64_t scale_at);

// A byte or half of random bits, for tests: no element gets beyond 2 where `bits` as a half does
// not.
void reference_put_cached(const reference_heads *h, void *cache, uint64_t at, uint64_t scale_at,
                          uint16_t bits);

// What rounding to the cache may change of element d of a head x.
double reference_cache_tolerance(const reference_heads *h, const double *x, uint32_t d);

// How many elements of these positions, the first and the one after the last, are not as they were
// when all bits of the cache were set. is_v: it is that of V
uint64_t reference_written(const reference_heads *h, const void *cache, bool is_v,
                           const uint32_t positions[2]);

// One query head.
//
// q:     [head]   k, v: the caches
// keys:  the positions it sees, the first and the last
// y:     [head]
// spread: the largest sum over d of |q[d] k[j, d]|: what the error of a score is relative to
kim_err reference_attention(const reference_heads *h, const float *q, const void *k, const void *v,
                            uint32_t kv_head, const uint32_t keys[2], double *y, double *spread);
// Of an output, where |v| < 2. tiles: by the device's matrices, with weights rounded to f16; q has
// eleven bits
double reference_attention_tolerance(double spread, bool tiles);

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
// Of an output, where |v| < 6. A score's error scales its key's weight, but errors of many keys are
// not of one sign. tiles: by the device's matrices, all of it rounded to f16
double reference_full_tolerance(double spread, uint32_t head, bool tiles);

// log(sum(exp(x)))
double reference_log_sum(const float *x, uint32_t n);

#endif
