// SPDX-License-Identifier: MIT
// Every operation of host/ops.h in plain C and double precision: the reference for the shaders.
#include "reference_ops.h"

#include "error.h"
#include "reference_dequant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shaders/kim_shared.h"

void reference_matmul(double *y, const float *x, uint32_t stride, const float *w, uint32_t rows,
                      uint32_t width, uint32_t columns)
{
    for (uint32_t c = 0; c < columns; c++)
        for (uint32_t r = 0; r < rows; r++) {
            const float *xc = x + (uint64_t)c * stride, *wr = w + (uint64_t)r * width;
            double sum = 0;
            for (uint32_t k = 0; k < width; k++)
                sum += (double)xc[k] * (double)wr[k];
            y[(uint64_t)c * rows + r] = sum;
        }
}

// The sums are of fp32 products, in an order of the device's own: the error of one is at most
// width * 2^-24 * sum |x| |w|, and in fact grows with the square root of the width. Types with an
// offset add q * d + m, whose parts are up to twice the weight. So for each sum
//     24 * 2^-24 * sum |x| * the row's largest weight
// which every type meets with room at widths up to 2,560. Denormal weights may count as zeros:
// Vulkan lets a device flush them.
//
// What the packing of a column adds to that, by the definition of the way (pack.comp):
//   fp16: x and w are each rounded to 11 bits, 2^-11 of them; below the normal halves the steps are
//         2^-24, for x of a column whose largest was brought to 2^14 at least
//   int8: half a step of the block of 32, that is 1/254 of its largest x; w as it is
// In both, columns or blocks below 2^-100 count as zeros; in fp32, denormals may.
double reference_product_tolerance(matmul_way way, const float *x, const float *w, uint32_t width)
{
    double error = 0, largest = 0, largest_w = 0, sum_x = 0, sum_w = 0;
    for (uint32_t k = 0; k < width; k++) {
        largest = fmax(largest, fabs((double)x[k]));
        largest_w = fmax(largest_w, fabs((double)w[k]));
        sum_x += fabs((double)x[k]);
        sum_w += fabs((double)w[k]);
    }
    const double sums = ldexp(24, -24) * sum_x * largest_w + ldexp(sum_x, -126);
    if (!matmul_way_packs(way))
        return sums + ldexp(sum_w, -126);
    if (way == MATMUL_HALF) {
        for (uint32_t k = 0; k < width; k++)
            error += fabs((double)x[k] * (double)w[k]);
        return sums + ldexp(error, -10) * 1.001 + ldexp(sum_x, -25) + ldexp(largest * sum_w, -39) +
               ldexp(sum_w, -100);
    }
    for (uint32_t k = 0; k < width;) {
        double of_block = 0;
        const uint32_t end = k + 32 < width ? k + 32 : width, first = k;
        for (; k < end; k++)
            of_block = fmax(of_block, fabs((double)x[k]));
        for (k = first; k < end; k++)
            error += of_block / 254 * fabs((double)w[k]);
    }
    return sums + error * 1.001 + ldexp(sum_w, -100);
}

double reference_gelu(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

// |gelu'| < 1.13; 8 * 2^-24 for the exponential in it
double reference_glu_tolerance(double gate, double up, double of_gate, double of_up)
{
    return 1.13 * of_gate * fabs(up) + of_up * (fabs(reference_gelu(gate)) + 1.13 * of_gate) +
           ldexp(8, -24) * fabs(gate * up);
}

void reference_norm(double *y, const double *x, const float *w, uint32_t width, double eps)
{
    double squares = 0;
    for (uint32_t i = 0; i < width; i++)
        squares += x[i] * x[i];
    const double scale = 1 / sqrt(squares / width + eps);
    for (uint32_t i = 0; i < width; i++)
        y[i] = x[i] * scale * (double)w[i];
}

void reference_rotate(double *x, uint32_t head, uint32_t position, double base, double factor)
{
    for (uint32_t j = 0; j < head / 2; j++) {
        // as transformers: the power and its inverse are each rounded to fp32
        const float power = (float)pow(base, 2.0 * j / head);
        const double angle = position * ((double)(1.0f / power) / factor);
        const double a = x[j], b = x[j + head / 2];
        x[j] = a * cos(angle) - b * sin(angle);
        x[j + head / 2] = b * cos(angle) + a * sin(angle);
    }
}

// Bytes of a group of a KV head, of K or of V.
static uint64_t group_bytes(const reference_heads *h)
{
    return KEY_GROUP * (h->q8 ? h->head + (h->head + 31) / 32 * 4ull : 2ull * h->head);
}

// Where the group of a position begins.
static uint64_t group_at(const reference_heads *h, uint32_t kv_head, uint32_t position)
{
    const uint64_t group = position % h->cache_rows / KEY_GROUP;
    return ((uint64_t)kv_head * (h->cache_rows / KEY_GROUP) + group) * group_bytes(h);
}

uint64_t reference_k_at(const reference_heads *h, uint32_t kv_head, uint32_t position, uint32_t d)
{
    const uint32_t of_word = h->q8 ? 4 : 2; // elements
    const uint32_t slot = position % h->cache_rows % KEY_GROUP, word = d / of_word;
    const uint64_t place = (word / 2 * KEY_GROUP + slot) * 2ull + word % 2;
    return group_at(h, kv_head, position) / (4 / of_word) + place * of_word + d % of_word;
}

uint64_t reference_v_at(const reference_heads *h, uint32_t kv_head, uint32_t position, uint32_t d)
{
    const uint32_t slot = position % h->cache_rows % KEY_GROUP;
    return group_at(h, kv_head, position) / (h->q8 ? 1 : 2) + slot * h->head + d;
}

uint64_t reference_scale_at(const reference_heads *h, uint32_t kv_head, uint32_t position,
                            uint32_t d)
{
    const uint32_t slot = position % h->cache_rows % KEY_GROUP;
    return group_at(h, kv_head, position) + KEY_GROUP * h->head + (d / 32 * KEY_GROUP + slot) * 4;
}

double reference_cached(const reference_heads *h, const void *cache, uint64_t at, uint64_t scale_at)
{
    float scale;
    if (!h->q8)
        return (double)reference_half(((const uint16_t *)cache)[at]);
    memcpy(&scale, (const uint8_t *)cache + scale_at, sizeof scale);
    return (double)scale * ((const int8_t *)cache)[at];
}

void reference_put_cached(const reference_heads *h, void *cache, uint64_t at, uint64_t scale_at,
                          uint16_t bits)
{
    if (!h->q8) {
        ((uint16_t *)cache)[at] = bits;
        return;
    }
    // of four bits: a product with an integer is exact as f16 too
    const float scale = (float)(8 + bits % 8) / 1024;
    memcpy((uint8_t *)cache + scale_at, &scale, sizeof scale);
    ((int8_t *)cache)[at] = (int8_t)(bits % 255 - 127);
}

// To f16 to nearest or towards zero, 2^-10, and 2^-24 below its smallest normal; to 8 bits to the
// nearest of 127 steps of the largest element of the block.
double reference_cache_tolerance(const reference_heads *h, const double *x, uint32_t d)
{
    const uint32_t block = d / KV_BLOCK * KV_BLOCK;
    double largest = 0;
    if (!h->q8)
        return ldexp(fabs(x[d]), -10) + ldexp(1, -24);
    for (uint32_t i = block; i < block + KV_BLOCK && i < h->head; i++)
        largest = fmax(largest, fabs(x[i]));
    return largest / 254 * (1 + ldexp(1, -10));
}

uint64_t reference_written(const reference_heads *h, const void *cache, bool is_v,
                           const uint32_t positions[2])
{
    const uint8_t *bytes = cache;
    const uint32_t element = h->q8 ? 1 : 2;
    uint64_t written = 0;
    for (uint32_t head = 0; head < h->kv_heads; head++)
        for (uint32_t j = positions[0]; j < positions[1]; j++)
            for (uint32_t d = 0; d < h->head; d++) {
                const uint64_t at =
                    is_v ? reference_v_at(h, head, j, d) : reference_k_at(h, head, j, d);
                const uint8_t *scale = bytes + reference_scale_at(h, head, j, d);
                written += memcmp(bytes + at * element, "\xff\xff", element) != 0 ||
                           (h->q8 && memcmp(scale, "\xff\xff\xff\xff", 4) != 0);
            }
    return written;
}

kim_err reference_attention(const reference_heads *h, const float *q, const void *k, const void *v,
                            uint32_t kv_head, const uint32_t keys[2], double *y, double *spread)
{
    kim_err err = KIM_OK;
    const uint32_t first = keys[0], count = keys[1] - keys[0] + 1;
    double *scores = calloc(count, sizeof *scores), best = -INFINITY, sum = 0;
    REQUIRE_MEMORY(scores);
    *spread = 0;
    for (uint32_t j = 0; j < count; j++) {
        double size = 0;
        for (uint32_t d = 0; d < h->head; d++) {
            const double product =
                (double)q[d] * reference_cached(h, k, reference_k_at(h, kv_head, first + j, d),
                                                reference_scale_at(h, kv_head, first + j, d));
            scores[j] += product;
            size += fabs(product);
        }
        *spread = fmax(*spread, size);
        best = fmax(best, scores[j]);
    }
    for (uint32_t d = 0; d < h->head; d++)
        y[d] = 0;
    for (uint32_t j = 0; j < count; j++) {
        const double weight = exp(scores[j] - best);
        sum += weight;
        for (uint32_t d = 0; d < h->head; d++)
            y[d] += weight * reference_cached(h, v, reference_v_at(h, kv_head, first + j, d),
                                              reference_scale_at(h, kv_head, first + j, d));
    }
    for (uint32_t d = 0; d < h->head; d++)
        y[d] /= sum;
error:
    free(scores);
    return err;
}

// The error of a score is that of its sum, 8 * 2^-24 of the products' sizes; it scales the key's
// weight, and with it at most the whole output, |v| < 2. The weights' own errors add 64 * 2^-24.
double reference_attention_tolerance(double spread, bool tiles)
{
    return 4 * fmin(1, ldexp(8, -24) * spread) + ldexp(128, -24) + (tiles ? ldexp(2, -10) : 0);
}

void reference_layer_norm(double *y, const float *x, const float *w, const float *b, uint32_t width,
                          double eps)
{
    double mean = 0, variance = 0;
    for (uint32_t i = 0; i < width; i++)
        mean += (double)x[i] / width;
    for (uint32_t i = 0; i < width; i++)
        variance += ((double)x[i] - mean) * ((double)x[i] - mean) / width;
    for (uint32_t i = 0; i < width; i++)
        y[i] = ((double)x[i] - mean) / sqrt(variance + eps) * (double)w[i] + (double)b[i];
}

kim_err reference_attention_full(const reference_full *p, const float *q, const float *k,
                                 const float *v, double *y, double *spread)
{
    kim_err err = KIM_OK;
    double *scores = calloc(p->rows, sizeof *scores), best = -INFINITY, sum = 0;
    REQUIRE_MEMORY(scores);
    *spread = 0;
    for (uint32_t j = 0; j < p->rows; j++) {
        double size = 0;
        for (uint32_t d = 0; d < p->head; d++) {
            const double product = p->scale * (double)q[d] * (double)k[(uint64_t)j * p->stride + d];
            scores[j] += product;
            size += fabs(product);
        }
        *spread = fmax(*spread, size);
        best = fmax(best, scores[j]);
    }
    for (uint32_t d = 0; d < p->head; d++)
        y[d] = 0;
    for (uint32_t j = 0; j < p->rows; j++) {
        const double weight = exp(scores[j] - best);
        sum += weight;
        for (uint32_t d = 0; d < p->head; d++)
            y[d] += weight * (double)v[(uint64_t)j * p->stride + d];
    }
    for (uint32_t d = 0; d < p->head; d++)
        y[d] /= sum;
error:
    free(scores);
    return err;
}

// As of reference_attention: a score's error scales its key's weight, and |v| is below 6, but
// errors of many keys are not of one sign.
double reference_full_tolerance(double spread, uint32_t head, bool tiles)
{
    return tiles ? 2 * fmin(1, ldexp(4, -11) * spread / sqrt(head)) + ldexp(6, -11)
                 : 2 * fmin(1, ldexp(4, -24) * spread) + ldexp(16, -24);
}

double reference_log_sum(const float *x, uint32_t n)
{
    double best = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        best = fmax(best, (double)x[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)x[i] - best);
    return best + log(sum);
}
