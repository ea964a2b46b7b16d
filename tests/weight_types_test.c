// SPDX-License-Identifier: MIT
// Weight types: the reference against the format's definition, the packer against the reference.
//   weight_types_test TESTS_FOLDER [--time]
#include "host/weight_types.h"
#include "check.h"
#include "host/reference_dequant.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { GUARD = 64, POISON = 0xa5 };

static uint32_t random_u32(void)
{
    static uint64_t state = 88172645463325252u; // xorshift64
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes);
    CHECK(memory, "out of memory");
    return memory;
}

// ------------------------------------------------------------------------------------- tables

static void test_tables(void)
{
    for (int i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        const weight_type *w = &weight_types[i];
        const tensor_type *t = tensor_type_find(w->ggml);
        bool covered[WEIGHT_BLOCK_BYTES_MAX] = { false };
        CHECK(weight_type_find(w->ggml) == w, "%s: not found by its number", w->name);
        CHECK(t && strcmp(t->name, w->name) == 0, "%s: not the same in both tables", w->name);
        CHECK(t->block_bytes * (w->block / t->block) == w->block_bytes, "%s: block", w->name);
        CHECK(w->block_bytes <= WEIGHT_BLOCK_BYTES_MAX, "%s: block too large", w->name);
        for (int at = 0; at < 4 * w->words; at++)
            covered[w->word_offset + at] = true;
        for (int at = 0; w->half_offset >= 0 && at < 2; at++) {
            CHECK(!covered[w->half_offset + at], "%s: half inside the words", w->name);
            covered[w->half_offset + at] = true;
        }
        for (int at = 0; at < w->block_bytes; at++)
            CHECK(covered[at], "%s: byte %d is not packed", w->name, at);
        CHECK(4 * w->words + 2 * (w->half_offset >= 0) == w->block_bytes, "%s: size", w->name);
    }
    CHECK(!weight_type_find(16) && tensor_type_find(16), "IQ2_XXS: known, not supported");
    CHECK(!tensor_type_find(4) && !tensor_type_find(42) && !tensor_type_find(UINT32_MAX),
          "unknown types are found");
}

// --------------------------------------------------------------------- against the definition

static void test_dequant(const char *folder)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/fixtures/dequant.bin", folder);
    FILE *file = fopen(path, "rb");
    CHECK(file, "%s: cannot open", path);
    uint32_t head[4], records = 0; // type, block bytes, elements, blocks
    while (fread(head, sizeof head, 1, file) == 1) {
        const weight_type *type = weight_type_find(head[0]);
        CHECK(type && type->block_bytes == head[1] && type->block == head[2],
              "type %u: another block than in the fixture", (unsigned)head[0]);
        size_t n = (size_t)head[2] * head[3], bytes = (size_t)head[1] * head[3];
        uint8_t *data = allocate(bytes);
        float *expected = allocate(n * sizeof *expected), *got = allocate((n + 1) * sizeof *got);
        CHECK(fread(data, 1, bytes, file) == bytes &&
                  fread(expected, sizeof *expected, n, file) == n,
              "%s: too short", path);
        memset(got, POISON, (n + 1) * sizeof *got);
        reference_dequant(head[0], data, got, n);
        for (size_t i = 0; i < n; i++) {
            CHECK(memcmp(&got[i], &expected[i], sizeof *got) == 0,
                  "%s: block %zu element %zu is %a, expected %a", type->name, i / type->block,
                  i % type->block, (double)got[i], (double)expected[i]);
        }
        uint32_t guard;
        memcpy(&guard, &got[n], sizeof guard);
        CHECK(guard == 0x01010101u * POISON, "%s: wrote beyond the end", type->name);
        free(data);
        free(expected);
        free(got);
        records++;
    }
    CHECK(records == WEIGHT_TYPE_COUNT, "%s: %u types, expected %d", path, (unsigned)records,
          WEIGHT_TYPE_COUNT);
    fclose(file);
}

// ------------------------------------------------------------------------------------- packer

typedef struct matrix {
    const weight_type *type;
    uint64_t rows, length, row_bytes;
    uint8_t *memory, *source; // source: rows one after the other, at an odd address
    bool holes;               // every fifth row is absent
} matrix;

static const uint8_t *source_row(const matrix *m, uint64_t row)
{
    if (row >= m->rows || (m->holes && row % 5 == 3))
        return NULL;
    return m->source + row * m->row_bytes;
}

// Every byte and every element of the packed rows.
static void check_packed(const matrix *m, const uint8_t *packed)
{
    const weight_type *type = m->type;
    uint64_t blocks = weight_row_blocks(type, m->length);
    uint64_t whole = blocks * type->block_bytes;
    uint8_t *got = allocate(whole), *expected = allocate(whole);
    float *values = allocate(blocks * type->block * sizeof *values);
    for (uint64_t row = 0; row < (m->rows + 15) / 16 * 16; row++) {
        const uint8_t *source = source_row(m, row);
        memset(expected, 0, whole);
        if (source)
            memcpy(expected, source, m->row_bytes);
        memset(got, POISON, whole);
        reference_unpack_row(type->ggml, packed, m->length, row, got);
        CHECK(memcmp(got, expected, whole) == 0, "%s: %d rows of %d: row %d differs", type->name,
              (int)m->rows, (int)m->length, (int)row);
        reference_dequant(type->ggml, expected, values, m->length);
        for (uint64_t i = 0; i < m->length; i++) {
            float one = reference_unpack(type->ggml, packed, m->length, row, i);
            CHECK(memcmp(&one, &values[i], sizeof one) == 0, "%s: row %d, element %d", type->name,
                  (int)row, (int)i);
        }
    }
    free(got);
    free(expected);
    free(values);
}

static void test_pack(const weight_type *type, uint64_t rows, uint64_t length, bool holes)
{
    matrix m = { .type = type, .rows = rows, .length = length, .holes = holes };
    m.row_bytes = weight_row_bytes(type, length);
    m.memory = allocate(rows * m.row_bytes + 1);
    m.source = m.memory + 1;
    for (uint64_t i = 0; i < rows * m.row_bytes; i++)
        m.source[i] = (uint8_t)random_u32();

    uint64_t group_bytes = weight_group_bytes(type, length);
    uint64_t bytes = weight_packed_bytes(type, rows, length);
    uint64_t blocks = (length + type->block - 1) / type->block;
    CHECK(group_bytes == blocks * type->block_bytes * 16, "%s: bytes of a group", type->name);
    CHECK(bytes == group_bytes * ((rows + 15) / 16), "%s: packed bytes", type->name);
    uint8_t *memory = allocate(bytes + 2 * GUARD), *packed = memory + GUARD;
    memset(memory, POISON, bytes + 2 * GUARD);
    for (uint64_t row = 0; row < rows; row += 16) {
        const void *group[16];
        for (uint64_t r = 0; r < 16; r++)
            group[r] = source_row(&m, row + r);
        weight_pack(type, group, length, packed + row / 16 * group_bytes);
    }
    for (size_t i = 0; i < GUARD; i++)
        CHECK(memory[i] == POISON && packed[bytes + i] == POISON, "%s: %d rows of %d: wrote beyond",
              type->name, (int)rows, (int)length);
    check_packed(&m, packed);
    free(memory);
    free(m.memory);
}

static void test_packer(void)
{
    static const uint64_t rows[] = { 1, 15, 16, 17, 33 }, lengths[] = { 1, 31, 32, 33, 70, 96 };
    for (int t = 0; t < WEIGHT_TYPE_COUNT; t++) {
        const weight_type *type = &weight_types[t];
        bool whole_blocks = tensor_type_find(type->ggml)->block > 1;
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            for (size_t l = 0; l < sizeof lengths / sizeof *lengths && !whole_blocks; l++)
                test_pack(type, rows[r], lengths[l], r % 2);
            for (uint64_t blocks = 1; blocks <= 3; blocks++)
                test_pack(type, rows[r], blocks * type->block, blocks == 2);
        }
    }
}

// -------------------------------------------------------------------------------------- speed

static double seconds(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

// Packs a matrix that no cache holds.
static void time_packer(void)
{
    const uint64_t length = 2048, bytes = 64 << 20;
    uint8_t *source = allocate(bytes), *packed = allocate(bytes);
    memset(source, 1, bytes);
    memset(packed, 1, bytes);
    for (int t = 0; t < WEIGHT_TYPE_COUNT; t++) {
        const weight_type *type = &weight_types[t];
        uint64_t row_bytes = weight_row_bytes(type, length);
        uint64_t groups = bytes / (16 * row_bytes);
        double best = 1e9;
        for (int repeat = 0; repeat < 3; repeat++) {
            double begin = seconds();
            for (uint64_t g = 0; g < groups; g++) {
                const void *rows[16];
                for (uint64_t r = 0; r < 16; r++)
                    rows[r] = source + (g * 16 + r) * row_bytes;
                weight_pack(type, rows, length, packed + g * 16 * row_bytes);
            }
            double taken = seconds() - begin;
            best = taken < best ? taken : best;
        }
        printf("%-7s %5.2f GB/s\n", type->name, (double)(groups * 16 * row_bytes) / best * 1e-9);
    }
    free(source);
    free(packed);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2, "usage: weight_types_test TESTS_FOLDER [--time]");
    test_tables();
    test_dequant(argv[1]);
    test_packer();
    if (strcmp(argv[argc - 1], "--time") == 0)
        time_packer();
    return 0;
}
