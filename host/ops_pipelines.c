// SPDX-License-Identifier: MIT
// Which pipeline an operation takes on a device: the one table of shaders and their constants.
#include "ops_pipelines.h"

#include <stdlib.h>
#include <string.h>

#define MAX_COLUMNS 16        // of one workgroup of matmul
#define MANY_QUERIES_ROWS 128 // of these on, lanes that load for each other take 16 queries
#define SPLIT_KEYS 128     // of a split at least; on a CPU, where splits only share out the work of
#define SPLIT_KEYS_CPU 256 // its cores, more
#define MAX_SPLITS 128
#define MAX_SPLITS_CPU 8
#define UNIT_WORKGROUPS 4 // workgroups that a compute unit runs at once, at least
#define CHUNK_MOST 64     // weights of a row that one lane takes at a time, at most: weights.glsl
#define FEW_LANES 256     // of a workgroup of a product of few columns, at most
#define TILE_ATTENTION_ROWS 32 // from here on attention goes by matrices, where it can
#define TILE_ATTENTION_DEPTH 64
#define FULL_DIMENSIONS 40 // of a lane of attention_full on a GPU, at most

// On a CPU a workgroup of eight is one vector, and a larger one buys nothing; on a GPU 64 lanes are
// one or two subgroups.
static uint32_t workgroup(const kim_gpu *g, uint32_t of_gpu)
{
    return g->info.type == KIM_DEVICE_CPU ? 8 : of_gpu;
}

const few_shape few_shapes[FEW_SHAPES] = {
    { "8 lanes", 8, 1 },        { "4 lanes", 4, 1 },        { "16 lanes", 16, 1 },
    { "8 lanes, twice", 8, 2 }, { "4 lanes, twice", 4, 2 },
};

// A lane makes 4 rows and 4 or 8 columns.
const tile_shape tile_shapes[TILE_SHAPES] = {
    { "middle", { 128, 64, 64, 16 }, { 128, 64 } },
    { "small", { 64, 32, 32, 8 }, { 64, 64 } },
    { "large", { 256, 64, 128, 16 }, { 128, 128 } },
};

// Whether shaders touch what they read next: see TOUCH in shaders/memory.glsl.
static bool touches(const kim_gpu *g)
{
    return g->touch && g->pass;
}

static uint32_t weight_index(const weight_type *type)
{
    return (uint32_t)(type - weight_types);
}

// Compute units, or what a device of its kind has at least.
static uint32_t units_of(const kim_gpu *g)
{
    const uint32_t usual = g->info.type == KIM_DEVICE_DISCRETE ? 32 : 8;
    return g->info.compute_units ? g->info.compute_units : usual;
}

// How lanes of a GPU share a product of `columns`, at most eight. What was measured is for
// FEW_ROWS, or as many rows as fill the device; where there are fewer, more lanes share each sum,
// until as many run as there, or each has one chunk of weights.
static few_shape few_shape_of(const kim_gpu *g, const linear_part *part, uint32_t columns)
{
    few_shape s = few_shapes[g->few_shape];
    const uint32_t groups = divide_up(part->rows, WEIGHT_GROUP);
    const uint32_t chunks = divide_up(part->blocks * part->type->block, CHUNK_MOST);
    const uint32_t device = UNIT_WORKGROUPS * units_of(g);
    const uint32_t measured = divide_up(FEW_ROWS, WEIGHT_GROUP * s.groups);
    const uint32_t workgroups = device < measured ? device : measured;
    const uint32_t most = workgroups * s.groups * s.slices / groups; // slices, for as many lanes
    const uint32_t lane_bytes = columns * 8 + 4; // shared: sums of two rows, and the norms'
    if (divide_up(groups, s.groups) < workgroups)
        s.groups = 1;
    while (2 * s.slices <= most && s.slices < chunks) {
        const uint32_t lanes = 8 * s.groups * 2 * s.slices;
        if (lanes > FEW_LANES || lanes > g->limits.maxComputeWorkGroupInvocations ||
            lanes * lane_bytes + 4 > g->limits.maxComputeSharedMemorySize)
            break;
        s.slices *= 2;
    }
    return s;
}

// Few columns: lanes share each sum, and the weights are read once. Many: lanes share columns.
pipeline_key matmul_pipeline(const kim_gpu *g, const linear_part *part, bool paired,
                             uint32_t columns, uint32_t flags)
{
    const bool cpu = g->info.type == KIM_DEVICE_CPU;
    uint32_t at_once = columns > 1 && g->pass ? 8 : 1; // eight lanes load for eight columns
    while (at_once < columns && at_once < MAX_COLUMNS)
        at_once *= 2;
    const few_shape few = cpu || at_once > 8 ? (few_shape){ .slices = 1, .groups = cpu ? 1 : 8 }
                                             : few_shape_of(g, part, at_once);
    // x, which is gathered there, serves several groups of rows; sums of slices are shared memory.
    // Types of less than 8 bits have two quads and more a step: at eight columns four groups of
    // them are more than LLVM keeps in registers, and take six to eight times as long as two
    const bool wide = part->type->block_bytes >= part->type->block;
    const uint32_t sets = !g->pass || few.slices > 1               ? 1
                          : at_once == 1 || (at_once == 8 && wide) ? 4
                                                                   : 2;
    static const enum kim_variant first[2][2] = {
        { KIM_VARIANT_MATMUL_F32, KIM_VARIANT_MATMUL_GLU_F32 },
        { KIM_VARIANT_MATMUL_TOUCH_F32, KIM_VARIANT_MATMUL_GLU_TOUCH_F32 },
    };
    return (pipeline_key){
        .variant = first[touches(g)][paired] + weight_index(part->type),
        .constants = { 8 * few.groups * few.slices, at_once, few.slices, few.groups, flags, sets },
    };
}

// shape: of tile_shapes
static pipeline_key lanes_tile(const kim_gpu *g, enum kim_variant variant, uint32_t shape,
                               uint32_t flags)
{
    const uint32_t *t = tile_shapes[shape].lanes;
    const bool little = g->limits.maxComputeSharedMemorySize < 32768 && t[2] > 32;
    return (pipeline_key){ variant, { t[0], t[1], little ? 32 : t[2], t[3], flags } };
}

// Four subgroups, two by two; on a CPU each makes two matrices by two,
// which it compiles faster.
static pipeline_key matrices_tile(const kim_gpu *g, enum kim_variant variant,
                                  const kim_matrix_shape *s, uint32_t shape, uint32_t flags)
{
    const bool cpu = g->info.type == KIM_DEVICE_CPU;
    const uint32_t subgroup = matrix_subgroup(g);
    const uint32_t *t = tile_shapes[shape].matrices;
    return (pipeline_key){
        .variant = variant,
        .constants = { 4 * subgroup, cpu ? 4 * s->rows : t[0], cpu ? 4 * s->columns : t[1], 2,
                       flags, s->rows, s->columns, s->depth, subgroup },
    };
}

pipeline_key matmul_tile_pipeline(const kim_gpu *g, matmul_way way, const weight_type *type,
                                  uint32_t flags)
{
    const uint32_t i = weight_index(type);
    if (matmul_way_packs(way)) // what goes beyond x is zeros
        flags &= ~(uint32_t)MATMUL_TAIL;
    switch (way) {
    case MATMUL_DOT:
        return lanes_tile(g, KIM_VARIANT_MATMUL_DOT_Q4_0 - 3 + i, 0, flags); // the fourth type
    case MATMUL_HALF:
        return matrices_tile(g, KIM_VARIANT_MATMUL_HALF_F16 - 1 + i, &g->info.matrix_half,
                             g->tile_shape, flags);
    case MATMUL_INT8:
        return matrices_tile(g, KIM_VARIANT_MATMUL_INT8_Q4_0 - 3 + i, &g->info.matrix_int8, 0,
                             flags);
    default: return lanes_tile(g, KIM_VARIANT_MATMUL_TILE_F32 + i, g->tile_shape, flags);
    }
}

pipeline_key pack_pipeline(const kim_gpu *g, matmul_way way)
{
    const enum kim_variant variant =
        way == MATMUL_HALF ? KIM_VARIANT_PACK_HALF : KIM_VARIANT_PACK_INT8;
    return (pipeline_key){ variant, { workgroup(g, 64) } };
}

uint32_t matmul_flags(const matmul_params *p, const linear_part *part)
{
    return (p->bias ? MATMUL_BIAS : 0) | (p->gelu ? MATMUL_GELU : 0) | (p->add ? MATMUL_ADD : 0) |
           (part->blocks * part->type->block > p->x_width ? MATMUL_TAIL : 0);
}

pipeline_key embed_pipeline(const kim_gpu *g, const weight_type *type)
{
    return (pipeline_key){ KIM_VARIANT_EMBED_F32 + weight_index(type), { workgroup(g, 64) } };
}

pipeline_key norm_pipeline(const kim_gpu *g, bool add)
{
    return (pipeline_key){ add ? KIM_VARIANT_NORM_ADD : KIM_VARIANT_NORM, { workgroup(g, 128) } };
}

pipeline_key rope_pipeline(const kim_gpu *g, kv_type type, uint32_t head)
{
    return (pipeline_key){ type == KV_Q8 ? KIM_VARIANT_ROPE_Q8 : KIM_VARIANT_ROPE,
                           { workgroup(g, 64), head } };
}

uint32_t attention_most_splits(uint32_t keys)
{
    const uint32_t splits = keys / SPLIT_KEYS;
    return splits < 2 ? 1 : splits < MAX_SPLITS ? splits : MAX_SPLITS;
}

// Queries of one workgroup of attention. Where lanes load for each other, what is loaded serves
// more of many rows, but LLVM takes 4 s longer over it, and minutes through the table.
static uint32_t most_queries(const kim_gpu *g, uint32_t rows)
{
    return g->pass && (!g->address || rows < MANY_QUERIES_ROWS) ? 8 : 16;
}

// Heads that one workgroup takes: as many as share a kv head, as far as they fit.
static uint32_t heads_at_once(const kim_gpu *g, const head_shape *s)
{
    const uint32_t group = s->heads / s->kv_heads;
    uint32_t n = group < most_queries(g, 1) ? group : most_queries(g, 1);
    while (group % n)
        n--;
    return n;
}

uint32_t attention_splits(const kim_gpu *g, const head_shape *s, uint32_t keys, uint32_t rows)
{
    const bool cpu = g->info.type == KIM_DEVICE_CPU;
    const uint32_t groups = s->heads / heads_at_once(g, s); // workgroups of a row without splits
    const uint32_t wanted = cpu ? MAX_SPLITS_CPU : divide_up(UNIT_WORKGROUPS * units_of(g), groups);
    const uint32_t possible = cpu ? keys / SPLIT_KEYS_CPU : attention_most_splits(keys);
    const uint32_t splits = wanted < possible ? wanted : possible;
    return rows > SPLIT_ROWS || splits < 2 ? 1 : splits;
}

pipeline_key attention_pipeline(const kim_gpu *g, kv_type type, const head_shape *s,
                                const uint32_t rows_keys[2], bool rope)
{
    enum { PLAIN, TOUCH, QUADS, KINDS };
    // the second index is `rope`
    static const enum kim_variant variants[KV_TYPES][2][KINDS] = {
        [KV_F16] = { { KIM_VARIANT_ATTENTION, KIM_VARIANT_ATTENTION_TOUCH },
                     { KIM_VARIANT_ATTENTION_ROPE, KIM_VARIANT_ATTENTION_ROPE_TOUCH,
                       KIM_VARIANT_ATTENTION_ROPE_QUADS } },
        [KV_Q8] = { { KIM_VARIANT_ATTENTION_Q8, KIM_VARIANT_ATTENTION_Q8_TOUCH },
                    { KIM_VARIANT_ATTENTION_ROPE_Q8, KIM_VARIANT_ATTENTION_ROPE_Q8_TOUCH,
                      KIM_VARIANT_ATTENTION_ROPE_Q8_QUADS } },
    };
    const uint32_t rows = rows_keys[0], keys = rows_keys[1], group = heads_at_once(g, s);
    const uint32_t lane_keys = g->pass ? 2 : 1; // q, which is gathered there, serves two keys
    uint32_t queries = 1;
    while (queries < most_queries(g, rows) && queries < rows * group)
        queries *= 2;
    // many rows are longer over what they load than over loading
    const int kind = rope && g->attention_quads               ? QUADS
                     : touches(g) && rows < MANY_QUERIES_ROWS ? TOUCH
                                                              : PLAIN;
    return (pipeline_key){
        .variant = variants[type][rope][kind],
        .constants = { KEY_BLOCK / lane_keys, s->head, queries, group,
                       attention_splits(g, s, keys, rows), lane_keys },
    };
}

bool attention_in_tiles(const kim_gpu *g, uint32_t rows)
{
    return g->attention_tiles && rows >= TILE_ATTENTION_ROWS;
}

// Four subgroups. As many queries as let q stand in 16 KiB of shared memory, and their sums in the
// registers; on a CPU two matrices, which it compiles faster. With matrices of NV's second version
// each subgroup has one matrix of queries.
static pipeline_key attention_tile(const kim_gpu *g, enum kim_variant variant, uint32_t head,
                                   uint32_t group)
{
    const kim_matrix_shape *s = &g->info.matrix_half;
    const uint32_t subgroup = matrix_subgroup(g);
    uint32_t queries = head > 128 || subgroup < 16 || subgroup > 32 ? 32 : 64;
    if (g->info.type == KIM_DEVICE_CPU)
        queries = 2 * s->rows;
    if (g->attention_nv)
        queries = 4 * s->columns;
    return (pipeline_key){
        .variant = variant,
        .constants = { 4 * subgroup, head, queries, group, TILE_ATTENTION_DEPTH, s->rows,
                       s->columns, s->depth, subgroup },
    };
}

pipeline_key attention_tile_pipeline(const kim_gpu *g, kv_type type, const head_shape *s)
{
    static const enum kim_variant variants[KV_TYPES][2] = {
        [KV_F16] = { KIM_VARIANT_ATTENTION_TILE, KIM_VARIANT_ATTENTION_TILE_NV },
        [KV_Q8] = { KIM_VARIANT_ATTENTION_TILE_Q8, KIM_VARIANT_ATTENTION_TILE_NV_Q8 },
    };
    return attention_tile(g, variants[type][g->attention_nv], s->head, heads_at_once(g, s));
}

pipeline_key attention_full_tile_pipeline(const kim_gpu *g, uint32_t head)
{
    return attention_tile(
        g, g->attention_nv ? KIM_VARIANT_ATTENTION_FULL_TILE_NV : KIM_VARIANT_ATTENTION_FULL_TILE,
        head, 1);
}

pipeline_key combine_pipeline(const kim_gpu *g, uint32_t head)
{
    return (pipeline_key){ KIM_VARIANT_COMBINE, { workgroup(g, 64), head } };
}

pipeline_key geglu_pipeline(const kim_gpu *g)
{
    return (pipeline_key){ KIM_VARIANT_GEGLU, { workgroup(g, 128) } };
}

pipeline_key score_pipeline(void)
{
    // of many lanes on a CPU too: lavapipe 22 ends loops after 65,535 turns
    return (pipeline_key){ KIM_VARIANT_SCORE, { 128 } };
}

// Over ids, a CPU takes large chunks, so that the histograms of workgroups are few. The last stage
// is one workgroup, as large as can be: a long list is sorted by it.
pipeline_key sample_pipeline(const kim_gpu *g, enum kim_variant stage)
{
    const bool cpu = g->info.type == KIM_DEVICE_CPU;
    uint32_t most = cpu ? 512 : 1024;
    while (most > g->limits.maxComputeWorkGroupInvocations ||
           most > g->limits.maxComputeWorkGroupSize[0])
        most /= 2;
    if (stage == KIM_VARIANT_SAMPLE_DRAW)
        return (pipeline_key){ stage, { most } };
    return (pipeline_key){ stage,
                           { workgroup(g, 256 < most ? 256 : most),
                             cpu ? SAMPLE_MOST_CHUNK : SAMPLE_LEAST_CHUNK } };
}

pipeline_key propose_pipeline(const kim_gpu *g)
{
    return (pipeline_key){ KIM_VARIANT_PROPOSE, { workgroup(g, 64) } };
}

pipeline_key layer_norm_pipeline(const kim_gpu *g)
{
    return (pipeline_key){ KIM_VARIANT_LAYER_NORM, { workgroup(g, 128) } };
}

pipeline_key average_pool_pipeline(const kim_gpu *g)
{
    return (pipeline_key){ KIM_VARIANT_AVERAGE_POOL, { workgroup(g, 128) } };
}

// Of a query, q and y stand in registers: GPUs have too few for 72 dimensions of both in one lane.
pipeline_key attention_full_pipeline(const kim_gpu *g, uint32_t head)
{
    uint32_t parts = 1;
    while (g->info.type != KIM_DEVICE_CPU && head > FULL_DIMENSIONS * parts)
        parts *= 2;
    return (pipeline_key){ KIM_VARIANT_ATTENTION_FULL, { 64, head, parts } };
}

// --------------------------------------------------------------------------------------- list

typedef struct key_list {
    pipeline_key *keys;
    uint32_t count, room;
} key_list;

static kim_err add_key(key_list *l, pipeline_key key)
{
    kim_err err = KIM_OK;
    for (uint32_t i = 0; i < l->count; i++)
        if (!memcmp(&l->keys[i], &key, sizeof key))
            return KIM_OK;
    if (l->count == l->room) {
        const uint32_t room = 2 * l->room + 64;
        pipeline_key *keys = realloc(l->keys, room * sizeof *keys);
        REQUIRE_MEMORY(keys);
        l->keys = keys;
        l->room = room;
    }
    l->keys[l->count++] = key;
error:
    return err;
}

static kim_err add_matmul(key_list *l, const kim_gpu *g, const linear_part *part, bool paired,
                          uint32_t columns, uint32_t flags)
{
    kim_err err = KIM_OK;
    const matmul_way way = matmul_way_of(g, part->type, columns, true);
    if (way == MATMUL_FEW)
        return add_key(l, matmul_pipeline(g, part, paired, columns, flags));
    TRY(add_key(l, matmul_tile_pipeline(g, way, part->type, flags | (paired ? MATMUL_GLU : 0))));
    if (matmul_way_packs(way))
        TRY(add_key(l, pack_pipeline(g, way)));
error:
    return err;
}

static kim_err add_matmuls(key_list *l, const kim_gpu *g, const ops_needs *needs)
{
    kim_err err = KIM_OK;
    for (uint32_t i = 0; i < needs->n_matrices; i++) {
        const linear *w = needs->matrices[i].w;
        for (uint32_t j = 0; j < w->n_parts; j++) {
            for (uint32_t rows = 1; rows <= needs->rows; rows *= 2)
                TRY(add_matmul(l, g, &w->parts[j], w->paired, rows, 0));
            if (needs->matrices[i].norms && w->n_parts == 1)
                TRY(add_key(l, matmul_pipeline(g, w->parts, false, 1, MATMUL_NORM)));
        }
    }
    for (uint32_t i = 0; i < WEIGHT_TYPE_COUNT; i++)
        if (needs->embed >> i & 1)
            TRY(add_key(l, embed_pipeline(g, &weight_types[i])));
error:
    return err;
}

static kim_err add_attentions(key_list *l, const kim_gpu *g, const ops_needs *needs)
{
    kim_err err = KIM_OK;
    for (uint32_t i = 0; i < needs->n_shapes; i++) {
        const head_shape *s = &needs->shapes[i];
        TRY(add_key(l, rope_pipeline(g, needs->kv, s->head)));
        if (attention_in_tiles(g, needs->rows))
            TRY(add_key(l, attention_tile_pipeline(g, needs->kv, s)));
        for (uint32_t k = 0; k < needs->n_keys; k++) {
            if (attention_splits(g, s, needs->keys[k], 1) > 1)
                TRY(add_key(l, combine_pipeline(g, s->head)));
            for (uint32_t rows = 1; rows <= needs->rows; rows++)
                TRY(add_key(l, attention_pipeline(g, needs->kv, s,
                                                  (const uint32_t[2]){ rows, needs->keys[k] },
                                                  rows == 1)));
        }
    }
error:
    return err;
}

static kim_err add_sampling(key_list *l, const kim_gpu *g)
{
    static const enum kim_variant stages[] = {
        KIM_VARIANT_SAMPLE_GREEDY, KIM_VARIANT_SAMPLE_MAX,  KIM_VARIANT_SAMPLE_COUNT,
        KIM_VARIANT_SAMPLE_GATHER, KIM_VARIANT_SAMPLE_DRAW,
    };
    kim_err err = KIM_OK;
    for (uint32_t i = 0; i < sizeof stages / sizeof *stages; i++)
        TRY(add_key(l, sample_pipeline(g, stages[i])));
    TRY(add_key(l, propose_pipeline(g)));
error:
    return err;
}

static kim_err add_encoder(key_list *l, const kim_gpu *g, const ops_needs *needs)
{
    kim_err err = KIM_OK;
    for (uint32_t i = 0; i < needs->n_products; i++) {
        const matmul_params *p = &needs->products[i];
        for (uint32_t j = 0; j < p->w->n_parts; j++) {
            const linear_part *part = &p->w->parts[j];
            TRY(add_matmul(l, g, part, p->w->paired, p->columns, matmul_flags(p, part)));
        }
    }
    if (needs->full_head) {
        TRY(add_key(l, layer_norm_pipeline(g)));
        TRY(add_key(l, average_pool_pipeline(g)));
        TRY(add_key(l, attention_in_tiles(g, UINT32_MAX)
                           ? attention_full_tile_pipeline(g, needs->full_head)
                           : attention_full_pipeline(g, needs->full_head)));
    }
error:
    return err;
}

kim_err ops_list_pipelines(const kim_gpu *g, const ops_needs *needs, pipeline_key **keys,
                           uint32_t *count)
{
    kim_err err = KIM_OK;
    key_list l = { 0 };
    TRY(add_matmuls(&l, g, needs));
    TRY(add_attentions(&l, g, needs));
    TRY(add_encoder(&l, g, needs));
    TRY(add_key(&l, norm_pipeline(g, false)));
    if (needs->n_shapes) {
        TRY(add_key(&l, norm_pipeline(g, true)));
        TRY(add_key(&l, geglu_pipeline(g)));
        TRY(add_key(&l, score_pipeline()));
    }
    if (needs->sample)
        TRY(add_sampling(&l, g));
    *keys = l.keys;
    *count = l.count;
    return KIM_OK;
error:
    free(l.keys);
    return err;
}
