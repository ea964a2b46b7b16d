// SPDX-License-Identifier: MIT
// The tables of tensor types and the packer.
#include "weight_types.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#    error "files and devices are little-endian, and the packer copies words as they are"
#endif

// Gaps are numbers that GGML has retired or never given out.
static const tensor_type tensor_types[] = {
    [0] = { "F32", 1, 4 },         [1] = { "F16", 1, 2 },         [2] = { "Q4_0", 32, 18 },
    [3] = { "Q4_1", 32, 20 },      [6] = { "Q5_0", 32, 22 },      [7] = { "Q5_1", 32, 24 },
    [8] = { "Q8_0", 32, 34 },      [9] = { "Q8_1", 32, 40 },      [10] = { "Q2_K", 256, 84 },
    [11] = { "Q3_K", 256, 110 },   [12] = { "Q4_K", 256, 144 },   [13] = { "Q5_K", 256, 176 },
    [14] = { "Q6_K", 256, 210 },   [15] = { "Q8_K", 256, 292 },   [16] = { "IQ2_XXS", 256, 66 },
    [17] = { "IQ2_XS", 256, 74 },  [18] = { "IQ3_XXS", 256, 98 }, [19] = { "IQ1_S", 256, 50 },
    [20] = { "IQ4_NL", 32, 18 },   [21] = { "IQ3_S", 256, 110 },  [22] = { "IQ2_S", 256, 82 },
    [23] = { "IQ4_XS", 256, 136 }, [24] = { "I8", 1, 1 },         [25] = { "I16", 1, 2 },
    [26] = { "I32", 1, 4 },        [27] = { "I64", 1, 8 },        [28] = { "F64", 1, 8 },
    [29] = { "IQ1_M", 256, 56 },   [30] = { "BF16", 1, 2 },       [34] = { "TQ1_0", 256, 54 },
    [35] = { "TQ2_0", 256, 66 },   [39] = { "MXFP4", 32, 17 },    [40] = { "NVFP4", 64, 36 },
    [41] = { "Q1_0", 128, 18 },
};

const tensor_type *tensor_type_find(uint32_t ggml)
{
    if (ggml >= sizeof tensor_types / sizeof *tensor_types || !tensor_types[ggml].name)
        return NULL;
    return &tensor_types[ggml];
}

// In the order of WEIGHT_* in shaders/weights.glsl: the place picks the shader.
const weight_type weight_types[WEIGHT_TYPE_COUNT] = {
    { .ggml = 0, .name = "F32", 32, 128, .words = 32, .word_offset = 0, .half_offset = -1 },
    { .ggml = 1, .name = "F16", 32, 64, .words = 16, .word_offset = 0, .half_offset = -1 },
    { .ggml = 30, .name = "BF16", 32, 64, .words = 16, .word_offset = 0, .half_offset = -1 },
    { .ggml = 2, .name = "Q4_0", 32, 18, .words = 4, .word_offset = 2, .half_offset = 0 },
    { .ggml = 3, .name = "Q4_1", 32, 20, .words = 5, .word_offset = 0, .half_offset = -1 },
    { .ggml = 6, .name = "Q5_0", 32, 22, .words = 5, .word_offset = 2, .half_offset = 0 },
    { .ggml = 7, .name = "Q5_1", 32, 24, .words = 6, .word_offset = 0, .half_offset = -1 },
    { .ggml = 8, .name = "Q8_0", 32, 34, .words = 8, .word_offset = 2, .half_offset = 0 },
    { .ggml = 10, .name = "Q2_K", 256, 84, .words = 21, .word_offset = 0, .half_offset = -1 },
    { .ggml = 11, .name = "Q3_K", 256, 110, .words = 27, .word_offset = 0, .half_offset = 108 },
    { .ggml = 12, .name = "Q4_K", 256, 144, .words = 36, .word_offset = 0, .half_offset = -1 },
    { .ggml = 13, .name = "Q5_K", 256, 176, .words = 44, .word_offset = 0, .half_offset = -1 },
    { .ggml = 14, .name = "Q6_K", 256, 210, .words = 52, .word_offset = 0, .half_offset = 208 },
    { .ggml = 20, .name = "IQ4_NL", 32, 18, .words = 4, .word_offset = 2, .half_offset = 0 },
    { .ggml = 23, .name = "IQ4_XS", 256, 136, .words = 34, .word_offset = 0, .half_offset = -1 },
};

const weight_type *weight_type_find(uint32_t ggml)
{
    for (uint32_t i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        if (weight_types[i].ggml == ggml)
            return &weight_types[i];
    }
    return NULL;
}

uint64_t weight_row_blocks(const weight_type *type, uint64_t row_length)
{
    return row_length / type->block + (row_length % type->block != 0);
}

uint64_t weight_row_bytes(const weight_type *type, uint64_t row_length)
{
    // every block that can end early is 32 elements of the same size
    return row_length / type->block * type->block_bytes +
           row_length % type->block * (type->block_bytes / type->block);
}

uint64_t weight_group_bytes(const weight_type *type, uint64_t row_length)
{
    return weight_row_blocks(type, row_length) * type->block_bytes * WEIGHT_GROUP;
}

uint64_t weight_packed_bytes(const weight_type *type, uint64_t rows, uint64_t row_length)
{
    uint64_t groups = rows / WEIGHT_GROUP + (rows % WEIGHT_GROUP != 0);
    return groups * weight_group_bytes(type, row_length);
}

const uint8_t *weight_row_at(const weight_type *type, const uint8_t *data, uint32_t distinct,
                             uint64_t row_length, uint64_t row)
{
    return distinct ? data + row % distinct * type->block_bytes
                    : data + row * weight_row_bytes(type, row_length);
}

static const uint8_t zeros[WEIGHT_BLOCK_BYTES_MAX];

// One record. blocks: the block of each row
static uint8_t *pack_record(const weight_type *type, const uint8_t *const blocks[WEIGHT_GROUP],
                            uint8_t *out)
{
    for (size_t w = 0; w < type->words; w++) {
        size_t at = type->word_offset + 4 * w;
        for (size_t r = 0; r < WEIGHT_GROUP; r++)
            memcpy(out + 4 * r, blocks[r] + at, 4);
        out += 4 * WEIGHT_GROUP;
    }
    if (type->half_offset >= 0) {
        for (size_t r = 0; r < WEIGHT_GROUP; r++)
            memcpy(out + 2 * r, blocks[r] + type->half_offset, 2);
        out += 2 * WEIGHT_GROUP;
    }
    return out;
}

void weight_pack(const weight_type *type, const void *const rows[WEIGHT_GROUP], uint64_t row_length,
                 void *out)
{
    assert((uintptr_t)out % 4 == 0);
    const uint8_t *blocks[WEIGHT_GROUP];
    size_t step[WEIGHT_GROUP];
    for (size_t r = 0; r < WEIGHT_GROUP; r++) {
        blocks[r] = rows[r] ? rows[r] : zeros;
        step[r] = rows[r] ? type->block_bytes : 0;
    }
    uint8_t *to = out;
    for (uint64_t b = row_length / type->block; b > 0; b--) {
        to = pack_record(type, blocks, to);
        for (size_t r = 0; r < WEIGHT_GROUP; r++)
            blocks[r] += step[r];
    }

    size_t rest = row_length % type->block;
    if (rest == 0)
        return;
    assert(tensor_type_find(type->ggml)->block == 1);
    uint8_t last[WEIGHT_GROUP][128] = { { 0 } };
    size_t rest_bytes = rest * (type->block_bytes / type->block);
    for (size_t r = 0; r < WEIGHT_GROUP; r++) {
        memcpy(last[r], blocks[r], rest_bytes);
        blocks[r] = last[r];
    }
    pack_record(type, blocks, to);
}
