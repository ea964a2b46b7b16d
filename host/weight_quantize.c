// SPDX-License-Identifier: MIT
// Weights on the CPU: plain ones to f32, and f32 to the quantised types that are made while
// loading.
#include "weight_quantize.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

// The numbers of GGML.
enum {
    TYPE_F32 = 0,
    TYPE_F16 = 1,
    TYPE_Q4_0 = 2,
    TYPE_Q8_0 = 8,
    TYPE_BF16 = 30,
};

enum { BLOCK = 32 };

static float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float float_of_half(uint16_t half)
{
    const uint32_t sign = (half & 0x8000u) << 16, rest = half & 0x7fffu;
    if (rest >= 0x7c00) // infinity, NaN
        return float_of_bits(sign | 0x7f800000u | rest << 13);
    // moved into place the exponent is 112 too low; multiplying also makes subnormal halves right
    return float_of_bits(sign | bits_of_float(float_of_bits(rest << 13) * 0x1p112f));
}

uint16_t half_of_float(float f)
{
    const uint32_t bits = bits_of_float(f), rest = bits & 0x7fffffffu;
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    if (rest > 0x7f800000u)
        return sign | 0x7e00;
    if (rest >= 0x47800000u) // 65536 and above
        return sign | 0x7c00;
    if (rest <
        0x38800000u) // subnormal as a half: the last bit is worth 2^-24, and so it is above 0.5
        return sign | (uint16_t)(bits_of_float(float_of_bits(rest) + 0.5f) - 0x3f000000u);
    return sign | (uint16_t)((rest - 0x38000000u + 0xfffu + (rest >> 13 & 1)) >> 13);
}

bool weight_is_plain(uint32_t ggml)
{
    return ggml == TYPE_F32 || ggml == TYPE_F16 || ggml == TYPE_BF16;
}

void weight_to_floats(uint32_t ggml, const void *in, uint64_t n, float *out)
{
    const uint8_t *from = in;
    assert(weight_is_plain(ggml));
    if (ggml == TYPE_F32) {
        memcpy(out, from, n * sizeof *out);
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * i, sizeof bits);
        out[i] = ggml == TYPE_F16 ? float_of_half(bits) : float_of_bits((uint32_t)bits << 16);
    }
}

const weight_type *weight_quantized_find(const char *name)
{
    return !strcmp(name, "q8_0")   ? weight_type_find(TYPE_Q8_0)
           : !strcmp(name, "q4_0") ? weight_type_find(TYPE_Q4_0)
                                   : NULL;
}

// What has the largest magnitude, the first of several.
static float largest(const float *x)
{
    float most = 0;
    for (uint32_t i = 0; i < BLOCK; i++) {
        if (fabsf(x[i]) > fabsf(most))
            most = x[i];
    }
    return most;
}

// Writes the scale as a half and returns what to multiply with: 0 where all is 0, or as good as.
static float put_scale(float d, uint8_t *block)
{
    const uint16_t half = half_of_float(d);
    memcpy(block, &half, sizeof half);
    return isfinite(1 / d) ? 1 / d : 0;
}

static void make_q8_0(const float *x, uint8_t *block)
{
    const float inverse = put_scale(fabsf(largest(x)) / 127, block);
    for (uint32_t i = 0; i < BLOCK; i++) {
        const float q = roundf(x[i] * inverse);
        block[2 + i] = q >= -127 && q <= 127 ? (uint8_t)(int8_t)q : 0;
    }
}

static uint8_t nibble(float x, float inverse)
{
    const float q = x * inverse; // rounded before the sum: no fused multiply-add
    const float biased = q + 8.5f;
    return biased > 15 ? 15 : biased > 0 ? (uint8_t)biased : 0;
}

static void make_q4_0(const float *x, uint8_t *block)
{
    const float inverse = put_scale(largest(x) / -8, block);
    for (uint32_t i = 0; i < BLOCK / 2; i++)
        block[2 + i] = (uint8_t)(nibble(x[i], inverse) | nibble(x[i + BLOCK / 2], inverse) << 4);
}

void weight_quantize(const weight_type *type, const float *in, uint64_t n, void *out)
{
    assert(n % BLOCK == 0);
    uint8_t *block = out;
    for (uint64_t i = 0; i < n; i += BLOCK, block += type->block_bytes) {
        if (type->ggml == TYPE_Q8_0)
            make_q8_0(in + i, block);
        else
            make_q4_0(in + i, block);
    }
}
