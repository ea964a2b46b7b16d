// SPDX-License-Identifier: MIT
// Which pipeline an operation takes on a device: the one table of shaders and their constants.
#ifndef KIM_OPS_PIPELINES_H
#define KIM_OPS_PIPELINES_H

#include "matmul_ways.h"
#include "ops.h"

// Places in pipeline_key.constants, as the shaders declare them; 0 is the workgroup's size.
enum {
    MATMUL_COLUMNS = 1,
    MATMUL_SLICES,
    MATMUL_GROUPS,
    MATMUL_FLAGS,
    MATMUL_SETS,
    TILE_ROWS = 1,
    TILE_COLUMNS,
    TILE_ACROSS,
    TILE_FLAGS,
    TILE_M,
    TILE_N,
    TILE_K,
    TILE_SUBGROUP,
    ATTENTION_HEAD = 1,
    ATTENTION_QUERIES,
    ATTENTION_GROUP,
    ATTENTION_SPLITS, // not of tiles
    FULL_HEAD = 1,
    FULL_PARTS,
    SAMPLE_CHUNK = 1, // ids of a workgroup; 0: one workgroup
};

#define SPLIT_ROWS 8 // of a session, for which attention cuts its keys: not for more at once

#define FEW_ROWS 2560 // of the products of few columns that are measured, at least: see tuning.c

// How lanes of a GPU share a product of up to eight columns: so many add up each sum, and so many
// groups of rows are in a workgroup. Which one is fastest is measured, see tuning.h; where there
// are few rows, more lanes share a sum.
typedef struct few_shape {
    const char *name;
    uint32_t slices, groups;
} few_shape;
#define FEW_SHAPES 5
extern const few_shape few_shapes[FEW_SHAPES]; // the first is the default

// Tiles of many columns on a GPU, in fp32 by lanes, and in fp16 by matrices; int8 has the default.
typedef struct tile_shape {
    const char *name;
    uint32_t lanes[4];    // workgroup, rows, columns, lanes along the rows
    uint32_t matrices[2]; // rows, columns: of four subgroups
} tile_shape;
#define TILE_SHAPES 3
extern const tile_shape tile_shapes[TILE_SHAPES]; // the first is the default

static inline uint32_t divide_up(uint32_t a, uint32_t b)
{
    return (a + b - 1) / b;
}

// `at` bytes further
static inline kim_handle handle_part(const stream *st, const span *s, uint64_t at)
{
    return span_handle(s) + (stream_gpu(st)->address ? at : at << 32);
}

// flags: MATMUL_BIAS and so on; 0 for paired rows
pipeline_key matmul_pipeline(const kim_gpu *g, const linear_part *part, bool paired,
                             uint32_t columns, uint32_t flags);
// way: any but MATMUL_FEW; flags: MATMUL_GLU for paired rows
pipeline_key matmul_tile_pipeline(const kim_gpu *g, matmul_way way, const weight_type *type,
                                  uint32_t flags);
pipeline_key pack_pipeline(const kim_gpu *g, matmul_way way);
pipeline_key embed_pipeline(const kim_gpu *g, const weight_type *type);
pipeline_key norm_pipeline(const kim_gpu *g, bool add);
pipeline_key rope_pipeline(const kim_gpu *g, kv_type type, uint32_t head);
// rope: with what op_rope does, of one row
pipeline_key attention_pipeline(const kim_gpu *g, kv_type type, const head_shape *shape,
                                const uint32_t rows_keys[2], bool rope);
// Whether attention of so many rows goes by the device's matrices, and then the pipeline.
bool attention_in_tiles(const kim_gpu *g, uint32_t rows);
pipeline_key attention_tile_pipeline(const kim_gpu *g, kv_type type, const head_shape *shape);
pipeline_key attention_full_tile_pipeline(const kim_gpu *g, uint32_t head);
pipeline_key combine_pipeline(const kim_gpu *g, uint32_t head);
pipeline_key geglu_pipeline(const kim_gpu *g);
pipeline_key score_pipeline(void);
pipeline_key sample_pipeline(const kim_gpu *g, enum kim_variant stage);
pipeline_key propose_pipeline(const kim_gpu *g);
pipeline_key layer_norm_pipeline(const kim_gpu *g);
pipeline_key average_pool_pipeline(const kim_gpu *g);
pipeline_key attention_full_pipeline(const kim_gpu *g, uint32_t head);

// The MATMUL_* flags of one part of a product.
uint32_t matmul_flags(const matmul_params *p, const linear_part *part);

// Into how many parts attention cuts its keys, so that few rows fill the device. It depends on the
// room of the cache and not on the keys in it: a recorded stream stays valid.
uint32_t attention_splits(const kim_gpu *g, const head_shape *shape, uint32_t keys, uint32_t rows);

// The most there can be of them on any device.
uint32_t attention_most_splits(uint32_t keys);

typedef struct needed_matrix {
    const linear *w;
    bool norms; // by op_matmul_norm too
} needed_matrix;

// What a program will ask of the operations.
typedef struct ops_needs {
    const needed_matrix *matrices; // [n_matrices] of the steps
    uint32_t n_matrices;
    uint32_t embed;           // a set of weight types: bit i is weight_types[i]
    const head_shape *shapes; // [n_shapes]
    uint32_t n_shapes;
    const uint32_t *keys; // [n_keys] that queries see at most, of each kind of cache
    uint32_t n_keys;
    kv_type kv;    // of these caches
    uint32_t rows; // of a step, at most
    bool sample;   // tokens are drawn on the device

    // An encoder's: products as they will be asked for (of the spans only `bias` is looked at), and
    // the size of its heads, with which layer_norm, average_pool and attention_full come.
    const matmul_params *products; // [n_products]
    uint32_t n_products;
    uint32_t full_head; // 0: none
} ops_needs;

// All pipelines that these needs can come to, for pipeline_get_all; each once.
//
// keys: [*count], to be freed by the caller
kim_err ops_list_pipelines(const kim_gpu *g, const ops_needs *needs, pipeline_key **keys,
                           uint32_t *count);

#endif
