// SPDX-License-Identifier: MIT
// What weight types mean. One function a type: a block in, its elements out.
//
// All results are exact but for one rounding, in the types that add a minimum: scales have 11 bits
// of significand, sub-scales at most 7 and quants at most 7, so that their products fit in the 24
// of a float. No compiler's choice of fused or separate operations can change a bit of them.
#include "reference_dequant.h"

#include "weight_types.h"

#include <assert.h>
#include <math.h>
#include <string.h>

float reference_half(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float magnitude;
    if (exponent == 0)
        magnitude = ldexpf((float)fraction, -24);
    else if (exponent == 31)
        magnitude = fraction ? NAN : INFINITY;
    else
        magnitude = ldexpf((float)(1024 + fraction), exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static uint16_t load_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static float load_half(const uint8_t *at)
{
    return reference_half(load_u16(at));
}

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// ------------------------------------------------------------------ not quantised: 32 elements

static void block_f32(const uint8_t *b, float *out)
{
    memcpy(out, b, 32 * sizeof *out);
}

static void block_f16(const uint8_t *b, float *out)
{
    for (int i = 0; i < 32; i++)
        out[i] = load_half(b + 2 * i);
}

static void block_bf16(const uint8_t *b, float *out)
{
    for (int i = 0; i < 32; i++)
        out[i] = from_bits((uint32_t)load_u16(b + 2 * i) << 16);
}

// --------------------------------------------------------------------- one scale, 32 elements
// Nibbles: the low ones of 16 bytes are the first half of the block, the high ones the second.

static int nibble(const uint8_t *qs, int i)
{
    return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

static int bit(const uint8_t *bits, int i)
{
    return bits[i / 8] >> i % 8 & 1;
}

// half d, nibbles
static void block_q4_0(const uint8_t *b, float *out)
{
    for (int i = 0; i < 32; i++)
        out[i] = load_half(b) * (float)(nibble(b + 2, i) - 8);
}

// half d, half m, nibbles
static void block_q4_1(const uint8_t *b, float *out)
{
    for (int i = 0; i < 32; i++)
        out[i] = load_half(b) * (float)nibble(b + 4, i) + load_half(b + 2);
}

// half d, 32 fifth bits, nibbles
static void block_q5_0(const uint8_t *b, float *out)
{
    for (int i = 0; i < 32; i++)
        out[i] = load_half(b) * (float)((nibble(b + 6, i) | bit(b + 2, i) << 4) - 16);
}

// half d, half m, 32 fifth bits, nibbles
static void block_q5_1(const uint8_t *b, float *out)
{
    for (int i = 0; i < 32; i++) {
        int q = nibble(b + 8, i) | bit(b + 4, i) << 4;
        out[i] = load_half(b) * (float)q + load_half(b + 2);
    }
}

// half d, signed bytes
static void block_q8_0(const uint8_t *b, float *out)
{
    for (int i = 0; i < 32; i++)
        out[i] = load_half(b) * (float)(int8_t)b[2 + i];
}

// Not evenly spaced: steps are small where weights are many.
static const int8_t iq4_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                       1,    13,   25,  38,  53,  69,  89,  113 };

// half d, nibbles that index the values
static void block_iq4_nl(const uint8_t *b, float *out)
{
    for (int i = 0; i < 32; i++)
        out[i] = load_half(b) * (float)iq4_values[nibble(b + 2, i)];
}

// ------------------------------------------------------------------ scales in two levels, 256

// 16 bytes (4-bit scale, 4-bit minimum) for 16 elements each; 64 bytes of 2-bit quants; half d,
// half dmin. 32 bytes hold 128 elements: the lowest bits of all the first 32, and so on.
static void block_q2_k(const uint8_t *b, float *out)
{
    const uint8_t *scales = b, *qs = b + 16;
    float d = load_half(b + 80), dmin = load_half(b + 82);
    for (int i = 0; i < 256; i++) {
        int q = qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
        float scale = d * (float)(scales[i / 16] & 15), min = dmin * (float)(scales[i / 16] >> 4);
        out[i] = scale * (float)q - min;
    }
}

// 256 third bits: bit i / 32 of byte i % 32, where 0 means "minus 4"; quants as in Q2_K; 12 bytes
// of 6-bit scales, biased by 32, for 16 elements each; half d
static void block_q3_k(const uint8_t *b, float *out)
{
    const uint8_t *high = b, *qs = b + 32, *scales = b + 96;
    float d = load_half(b + 108);
    for (int i = 0; i < 256; i++) {
        int s = i / 16; // low 4 bits: nibbles of bytes 0..7; high 2 bits: bytes 8..11
        int low = scales[s % 8] >> s / 8 * 4 & 15;
        int scale = (low | (scales[8 + s % 4] >> s / 4 * 2 & 3) << 4) - 32;
        int q = qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
        q -= high[i % 32] >> i / 32 & 1 ? 0 : 4;
        out[i] = d * (float)scale * (float)q;
    }
}

// The 12 bytes of Q4_K and Q5_K: 6-bit scale and minimum of sub-block j of 8. The first four are
// the low 6 bits of a byte; the last four have 4 bits in bytes 8..11, 2 on top of the first four's.
static void scale_min_k(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        *min = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
}

// half d, half dmin, 12 bytes of scales; 32 bytes hold 64 elements: low nibbles, then high ones
static void block_q4_k(const uint8_t *b, float *out)
{
    float d = load_half(b), dmin = load_half(b + 2);
    for (int i = 0; i < 256; i++) {
        int scale, min;
        scale_min_k(b + 4, i / 32, &scale, &min);
        int q = b[16 + i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15;
        out[i] = d * (float)scale * (float)q - dmin * (float)min;
    }
}

// As Q4_K with fifth bits between: bit i / 32 of byte i % 32
static void block_q5_k(const uint8_t *b, float *out)
{
    float d = load_half(b), dmin = load_half(b + 2);
    for (int i = 0; i < 256; i++) {
        int scale, min;
        scale_min_k(b + 4, i / 32, &scale, &min);
        int q = b[48 + i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15;
        q |= (b[16 + i % 32] >> i / 32 & 1) << 4;
        out[i] = d * (float)scale * (float)q - dmin * (float)min;
    }
}

// 128 bytes of low nibbles: 64 bytes hold 128 elements, low nibbles first; 64 bytes of high pairs
// of bits, as the quants of Q2_K; 16 signed bytes of scales for 16 elements each; half d
static void block_q6_k(const uint8_t *b, float *out)
{
    const uint8_t *low = b, *high = b + 128, *scales = b + 192;
    float d = load_half(b + 208);
    for (int i = 0; i < 256; i++) {
        int q = low[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 15;
        q |= (high[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) << 4;
        out[i] = d * (float)(int8_t)scales[i / 16] * (float)(q - 32);
    }
}

// half d, u16 of high pairs of bits and 4 bytes of low nibbles of 6-bit scales, biased by 32, for
// 32 elements each; then for each of these 16 bytes of nibbles as in IQ4_NL
static void block_iq4_xs(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int i = 0; i < 256; i++) {
        int j = i / 32;
        int scale = (b[4 + j / 2] >> j % 2 * 4 & 15) | (load_u16(b + 2) >> 2 * j & 3) << 4;
        out[i] = d * (float)(scale - 32) * (float)iq4_values[nibble(b + 8 + 16 * j, i % 32)];
    }
}

// ------------------------------------------------------------------------------------ all of it

static void dequant_block(uint32_t ggml_type, const uint8_t *b, float *out)
{
    switch (ggml_type) {
    case 0: block_f32(b, out); break;
    case 1: block_f16(b, out); break;
    case 2: block_q4_0(b, out); break;
    case 3: block_q4_1(b, out); break;
    case 6: block_q5_0(b, out); break;
    case 7: block_q5_1(b, out); break;
    case 8: block_q8_0(b, out); break;
    case 10: block_q2_k(b, out); break;
    case 11: block_q3_k(b, out); break;
    case 12: block_q4_k(b, out); break;
    case 13: block_q5_k(b, out); break;
    case 14: block_q6_k(b, out); break;
    case 20: block_iq4_nl(b, out); break;
    case 23: block_iq4_xs(b, out); break;
    case 30: block_bf16(b, out); break;
    default: assert(!"not a weight type");
    }
}

void reference_dequant(uint32_t ggml_type, const void *row, float *out, uint64_t n)
{
    const weight_type *type = weight_type_find(ggml_type);
    const uint8_t *b = row;
    for (; n >= type->block; n -= type->block) {
        dequant_block(ggml_type, b, out);
        b += type->block_bytes;
        out += type->block;
    }
    if (n > 0) {
        uint8_t last[128] = { 0 };
        float values[32];
        memcpy(last, b, n * (type->block_bytes / type->block));
        dequant_block(ggml_type, last, values);
        memcpy(out, values, n * sizeof *out);
    }
}

// One block of one row.
static void unpack_block(const weight_type *type, const void *packed, uint64_t row_length,
                         uint64_t row, uint64_t index, uint8_t *block)
{
    uint64_t row_blocks = (row_length + type->block - 1) / type->block, lane = row % 16;
    uint64_t record = (row / 16 * row_blocks + index) * 16 * type->block_bytes;
    const uint8_t *from = (const uint8_t *)packed + record;
    for (uint64_t w = 0; w < type->words; w++)
        memcpy(block + type->word_offset + 4 * w, from + 64 * w + 4 * lane, 4);
    if (type->half_offset >= 0)
        memcpy(block + type->half_offset, from + 64u * type->words + 2 * lane, 2);
}

void reference_unpack_row(uint32_t ggml_type, const void *packed, uint64_t row_length, uint64_t row,
                          void *row_bytes)
{
    const weight_type *type = weight_type_find(ggml_type);
    uint8_t *to = row_bytes;
    for (uint64_t i = 0; i * type->block < row_length; i++)
        unpack_block(type, packed, row_length, row, i, to + i * type->block_bytes);
}

float reference_unpack(uint32_t ggml_type, const void *packed, uint64_t row_length, uint64_t row,
                       uint64_t column)
{
    const weight_type *type = weight_type_find(ggml_type);
    uint8_t block[WEIGHT_BLOCK_BYTES_MAX];
    float values[256];
    unpack_block(type, packed, row_length, row, column / type->block, block);
    dequant_block(ggml_type, block, values);
    return values[column % type->block];
}
