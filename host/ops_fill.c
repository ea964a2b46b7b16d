// SPDX-License-Identifier: MIT
// What operations are checked with: random numbers, halves, weights as files have them.
#include "ops_fill.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define OPS_SEED 0x9e3779b97f4a7c15u

static _Thread_local uint64_t state = OPS_SEED;

void ops_random_begin(void)
{
    state = OPS_SEED;
}

uint32_t ops_random(void)
{
    state ^= state >> 12; // xorshift64*
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1du) >> 32);
}

double ops_uniform(double low, double high)
{
    return low + (high - low) * ops_random() / 4294967296.0;
}

double ops_normal(void)
{
    double sum = -6; // of twelve uniform ones: variance 1
    for (int i = 0; i < 12; i++)
        sum += ops_uniform(0, 1);
    return sum;
}

void ops_fill_normal(float *out, uint64_t n, double scale)
{
    for (uint64_t i = 0; i < n; i++)
        out[i] = (float)(scale * ops_normal());
}

uint16_t ops_half(double x)
{
    const uint16_t sign = x < 0 ? 0x8000 : 0;
    int exponent;
    x = fabs(x);
    if (x == 0)
        return sign;
    (void)frexp(x, &exponent); // x in [2^(exponent - 1), 2^exponent)
    if (exponent - 1 < -14)
        return sign | (uint16_t)nearbyint(ldexp(x, 24));
    const double mantissa = nearbyint(ldexp(x, 11 - exponent)); // 1024 .. 2048
    const uint32_t bits = (uint32_t)((exponent + 13) << 10) + (uint32_t)mantissa;
    return sign | (uint16_t)(bits > 0x7c00 ? 0x7c00 : bits);
}

// ------------------------------------------------------------------------------------ weights

// Byte offsets of the halves in a block that scale it.
static uint32_t scale_offsets(const weight_type *type, uint32_t offsets[2])
{
    const bool two = !strcmp(type->name, "Q4_1") || !strcmp(type->name, "Q5_1") ||
                     !strcmp(type->name, "Q4_K") || !strcmp(type->name, "Q5_K");
    offsets[0] = type->half_offset > 0 ? (uint32_t)type->half_offset : 0;
    offsets[1] = 2;
    if (!strcmp(type->name, "Q2_K")) {
        offsets[0] = 80;
        offsets[1] = 82;
        return 2;
    }
    return two ? 2 : 1;
}

static void put_half(uint8_t *at, double x)
{
    const uint16_t bits = ops_half(x);
    memcpy(at, &bits, 2);
}

static void fill_plain(const weight_type *type, uint8_t *at, weight_kind kind)
{
    const double x = kind == WEIGHTS_TINY ? ldexp(ops_normal(), -20) : ops_normal() * 0.05;
    const float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if (type->ggml == 0) {
        memcpy(at, &bits, 4);
    } else if (type->ggml == 1) {
        put_half(at, x);
    } else {
        const uint16_t top = (uint16_t)(bits >> 16);
        memcpy(at, &top, 2);
    }
}

void ops_fill_weights(const weight_type *type, uint8_t *rows, uint64_t n_rows, uint32_t width,
                      weight_kind kind)
{
    const uint64_t bytes = n_rows * weight_row_bytes(type, width);
    const uint32_t element = type->block_bytes / type->block;
    if (type->block_bytes % type->block == 0) {
        for (uint64_t at = 0; at < bytes; at += element)
            fill_plain(type, rows + at, kind);
        return;
    }
    uint32_t offsets[2];
    const uint32_t n = scale_offsets(type, offsets);
    for (uint64_t at = 0; at < bytes; at++)
        rows[at] = (uint8_t)(ops_random() >> 24);
    for (uint64_t at = 0; at < bytes; at += type->block_bytes)
        for (uint32_t i = 0; i < n; i++) {
            double scale = ldexp(ops_uniform(-1, 1), -(int)(ops_random() % 8) - 4);
            if (kind == WEIGHTS_TINY)
                scale = ops_random() % 3 ? ldexp(ops_uniform(-1, 1), -18) : 0;
            put_half(rows + at + offsets[i], scale);
        }
}
