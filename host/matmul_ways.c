// SPDX-License-Identifier: MIT
// Ways to multiply weights by many columns: which ones a device has, and which one is taken.
#include "matmul_ways.h"

#include "pipeline.h"
#include "spirv.h"
#include "weight_quantize.h"

#include <string.h>

#define MANY_COLUMNS 32           // from here on in tiles: matmul.comp would read the weights twice
#define MATRIX_SHARED (32u << 10) // bytes of shared memory that are enough for tiles of matrices

static bool has(const kim_gpu *g, matmul_way way)
{
    return g->matmul_ways >> way & 1;
}

// Whether attention_tile.comp can be made of such matrices.
static bool attention_fits(const kim_matrix_shape *s)
{
    return ATTENTION_TILE_KEYS % s->rows == 0 && ATTENTION_TILE_KEYS % s->columns == 0 &&
           ATTENTION_TILE_KEYS % s->depth == 0 && s->columns % 8 == 0 && s->columns <= 16 &&
           s->depth % 8 == 0 && s->rows * s->columns <= 256;
}

uint32_t matrix_subgroup(const kim_gpu *g)
{
    const bool of_32 = g->info.subgroup_min <= 32 && g->info.subgroup_max >= 32;
    return of_32 ? 32 : g->info.subgroup_size;
}

// Whether attention_tile_nv.comp can be made of them: its weights are multiplied as they come out
// of the sums, a query is shared by whole lanes, and its queries stand in shared memory beside what
// is staged.
static bool attention_nv_fits(const kim_gpu *g, const kim_matrix_shape *s)
{
    const uint32_t query = 2 * 256 + 16, stage = 8u << 10; // bytes
    return s->rows == s->depth && matrix_subgroup(g) % s->columns == 0 &&
           4 * s->columns * query + stage <= g->limits.maxComputeSharedMemorySize;
}

void matmul_ways_find(kim_gpu *g)
{
    const kim_device_info *d = &g->info;
    const bool matrices = d->cooperative_matrix && d->subgroup_size_control &&
                          g->limits.maxComputeSharedMemorySize >= MATRIX_SHARED &&
                          kim_spirv_table[KIM_VARIANT_MATMUL_HALF_F16].code[g->address];
    g->matmul_ways = 1u << MATMUL_FEW | 1u << MATMUL_FLOAT;
    if (d->integer_dot_product)
        g->matmul_ways |= 1u << MATMUL_DOT;
    if (matrices && d->float16 && d->matrix_half.rows)
        g->matmul_ways |= 1u << MATMUL_HALF;
    if (matrices && d->int8 && d->matrix_int8.rows)
        g->matmul_ways |= 1u << MATMUL_INT8;
    g->has_attention_tiles = has(g, MATMUL_HALF) && attention_fits(&d->matrix_half);
    g->attention_tiles = g->has_attention_tiles && d->type != KIM_DEVICE_CPU;
    g->has_attention_nv = g->has_attention_tiles && d->cooperative_matrix_nv &&
                          attention_nv_fits(g, &d->matrix_half) &&
                          kim_spirv_table[KIM_VARIANT_ATTENTION_TILE_NV].code[g->address];
    g->has_attention_quads = d->subgroup_quads;
    g->has_touch = g->pass && g->address && d->storage_8bit &&
                   kim_spirv_table[KIM_VARIANT_MATMUL_TOUCH_F32].code[g->address];
    g->touch = g->has_touch;
    g->matmul_way = d->type == KIM_DEVICE_CPU ? MATMUL_FEW
                    : has(g, MATMUL_HALF)     ? MATMUL_HALF
                                              : MATMUL_FLOAT;
}

static const char *const names[MATMUL_WAYS] = { "few", "float", "dot", "half", "int8" };

const char *matmul_way_name(matmul_way way)
{
    return names[way];
}

bool matmul_way_find(const char *name, matmul_way *way)
{
    uint32_t i = 0;
    while (i < MATMUL_WAYS && strcmp(names[i], name))
        i++;
    *way = (matmul_way)i;
    return i < MATMUL_WAYS;
}

kim_err matmul_way_set(kim_gpu *g, matmul_way way)
{
    const bool left_out = !kim_spirv_table[KIM_VARIANT_MATMUL_HALF_F16].code[g->address];
    if (!has(g, way))
        return kim_fail(KIM_ERR_UNSUPPORTED, "%s cannot multiply many columns the way '%s'%s%s",
                        g->info.name, names[way], left_out ? "; " : "",
                        left_out ? kim_build_missing_text : "");
    g->matmul_way = way;
    return KIM_OK;
}

bool matmul_way_packs(matmul_way way)
{
    return way == MATMUL_DOT || way == MATMUL_HALF || way == MATMUL_INT8;
}

// Weights of these share their scales in runs of 16, all others of 32.
static bool has_short_runs(const weight_type *type)
{
    return type->ggml == 10 || type->ggml == 11 || type->ggml == 14; // Q2_K, Q3_K, Q6_K
}

matmul_way matmul_way_of(const kim_gpu *g, const weight_type *type, uint32_t columns, bool packed)
{
    const bool plain = weight_is_plain(type->ggml);
    matmul_way way = g->matmul_way;
    if (columns < MANY_COLUMNS)
        return MATMUL_FEW;
    if (way == MATMUL_INT8 && has_short_runs(type) && g->info.matrix_int8.depth > 16)
        way = MATMUL_HALF;
    if ((way == MATMUL_INT8 || way == MATMUL_DOT) && plain)
        way = MATMUL_HALF;
    if (way == MATMUL_HALF && (!has(g, MATMUL_HALF) || type->ggml == 0)) // F32
        way = MATMUL_FLOAT;
    return matmul_way_packs(way) && !packed ? MATMUL_FLOAT : way;
}

// fp16 with a scale a column: int8 with what a block needs takes less.
uint64_t matmul_packed_bytes(const kim_gpu *g, uint32_t width, uint32_t columns)
{
    if (!g || columns < MANY_COLUMNS || !matmul_way_packs(g->matmul_way))
        return 0;
    return ((uint64_t)width + 31) / 32 * 32 * columns * 2 + columns * 4ull;
}
