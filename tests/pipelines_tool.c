// SPDX-License-Identifier: MIT
// Makes every pipeline that models of all sizes come to, and prints what the driver's compiler
// says. Submits nothing, so drivers that only compile will do.
//   pipelines_tool [--device D] [--mode address|table] [--only TEXT] [--fail-on-spill] [--all]
//
// One line of CSV a pipeline; figures that a driver does not give are empty. The name holds the
// constants: workgroup, then as the shader declares them. --all: every figure by the driver's own
// name. --only: those whose name has this in it.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/ops_pipelines.h"
#include "host/pipeline_statistics.h"

typedef struct row {
    pipeline_figures figures;
    bool all;
} row;

static void take(void *user, const char *name, double value)
{
    row *r = user;
    if (r->all)
        fprintf(stderr, "    %s = %g\n", name, value);
    pipeline_figures_add(&r->figures, name, value);
}

typedef struct options {
    const char *device, *only;
    kim_memory_mode mode;
    bool fail_on_spill, all;
} options;

#define ENCODER_PRODUCTS 4
#define MANY_ROWS 262144

// The products of an encoder's layers: q, k and v; the output; up; down, whose rows of 4304 end
// inside a block where the type lets them.
static void list_products(const linear *w, matmul_params *to)
{
    static const span bias;
    const matmul_params p = { .w = w, .x_width = w->width, .columns = 4096, .bias = &bias };
    for (uint32_t i = 0; i < ENCODER_PRODUCTS; i++)
        to[i] = p;
    to[1].add = true;
    to[2].gelu = true;
    to[3].add = true;
    to[3].x_width = w->width - w->parts->type->block / 2;
}

// Matrices of some types.
typedef struct every_type {
    linear_part parts[WEIGHT_TYPE_COUNT];
    linear matrices[2 * WEIGHT_TYPE_COUNT];
    needed_matrix needed[2 * WEIGHT_TYPE_COUNT];
    uint32_t n;
} every_type;

// types: bit i is weight_types[i]
// paired: paired ones too
static void fill_every_type(every_type *e, uint32_t types, uint32_t rows, bool paired)
{
    e->n = 0;
    for (uint32_t i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        e->parts[i] = (linear_part){ .type = &weight_types[i], .rows = rows, .blocks = 80 };
        for (uint32_t glu = 0; glu <= (uint32_t)paired && types >> i & 1; glu++) {
            linear *w = &e->matrices[e->n];
            *w = (linear){ .parts = &e->parts[i], .n_parts = 1, .paired = glu };
            e->needed[e->n++] = (needed_matrix){ .w = w, .norms = !glu };
        }
    }
}

// The shapes of 270M, 1B, 4B, 12B and 27B, and of small heads; caches of a window and of
// everything; the encoder's with weights of every type that its files have. Products of many
// columns go the way that is chosen.
static kim_err list_one_way(const kim_gpu *gpu, kv_type kv, pipeline_key **keys, uint32_t *count)
{
    static const uint32_t types[] = { 0, 1, 30, 8 }; // F32, F16, BF16, Q8_0
    enum { TYPES = sizeof types / sizeof *types };
    linear_part parts[TYPES];
    linear matrices[TYPES];
    matmul_params products[TYPES * ENCODER_PRODUCTS];
    for (uint32_t i = 0; i < TYPES; i++) {
        parts[i] = (linear_part){ .type = weight_type_find(types[i]), .rows = 16, .blocks = 1 };
        matrices[i] = (linear){ .width = 32, .rows = 16, .parts = &parts[i], .n_parts = 1 };
        list_products(&matrices[i], &products[i * ENCODER_PRODUCTS]);
    }
    static const head_shape shapes[] = {
        { 4, 1, 256 }, { 8, 4, 256 }, { 16, 8, 256 }, { 32, 16, 128 }, { 8, 1, 64 }, { 6, 2, 96 },
    };
    static const uint32_t keys_seen[] = { 512, 1024, 2048, 131072 };
    every_type every;
    fill_every_type(&every, (1u << WEIGHT_TYPE_COUNT) - 1, MANY_ROWS, true);
    const ops_needs needs = {
        .matrices = every.needed,
        .n_matrices = every.n,
        .embed = (1u << WEIGHT_TYPE_COUNT) - 1,
        .shapes = shapes,
        .n_shapes = sizeof shapes / sizeof *shapes,
        .keys = keys_seen,
        .n_keys = sizeof keys_seen / sizeof *keys_seen,
        .kv = kv,
        .rows = 512,
        .sample = true,
        .products = products,
        .n_products = TYPES * ENCODER_PRODUCTS,
        .full_head = 72,
    };
    return ops_list_pipelines(gpu, &needs, keys, count);
}

// Adds those that are not there yet.
static kim_err add_keys(pipeline_key **keys, uint32_t *count, const pipeline_key *some, uint32_t n)
{
    kim_err err = KIM_OK;
    pipeline_key *all = realloc(*keys, (*count + n) * sizeof *all);
    REQUIRE_MEMORY(all);
    *keys = all;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = 0;
        while (j < *count && memcmp(&all[j], &some[i], sizeof *all))
            j++;
        if (j == *count)
            all[(*count)++] = some[i];
    }
error:
    return err;
}

// What tuning.h may choose besides, and what few rows take, for weights of two types: the shapes
// are the same for all.
static kim_err list_shapes(kim_gpu *gpu, pipeline_key **keys, uint32_t *count)
{
    kim_err err = KIM_OK;
    pipeline_key *some = NULL;
    every_type some_types;
    uint32_t types = 0, n;
    for (uint32_t i = 0; i < WEIGHT_TYPE_COUNT; i++)
        if (weight_types[i].ggml == 8 || weight_types[i].ggml == 12) // Q8_0, Q4_K
            types |= 1u << i;
    for (uint32_t i = 0; i < FEW_SHAPES || i < TILE_SHAPES; i++) {
        fill_every_type(&some_types, types, i ? MANY_ROWS : 256, false);
        gpu->few_shape = i < FEW_SHAPES ? i : 0;
        gpu->tile_shape = i < TILE_SHAPES ? i : 0;
        const ops_needs needs = { .matrices = some_types.needed,
                                  .n_matrices = some_types.n,
                                  .rows = 64 };
        TRY(ops_list_pipelines(gpu, &needs, &some, &n));
        TRY(add_keys(keys, count, some, n));
        free(some);
        some = NULL;
    }
error:
    gpu->few_shape = gpu->tile_shape = 0;
    free(some);
    return err;
}

// Of every way that products of many columns can go, and both types of K and V; each pipeline once.
static kim_err list_all(kim_gpu *gpu, pipeline_key **keys, uint32_t *count)
{
    kim_err err = KIM_OK;
    pipeline_key *some = NULL;
    for (uint32_t i = 0; i < MATMUL_WAYS * KV_TYPES; i++) {
        const matmul_way way = i / KV_TYPES;
        uint32_t n = 0;
        if (!(gpu->matmul_ways >> way & 1))
            continue;
        TRY(matmul_way_set(gpu, way));
        gpu->attention_quads = gpu->has_attention_quads && way == MATMUL_FLOAT;
        gpu->attention_nv = gpu->has_attention_nv && way == MATMUL_FLOAT;
        TRY(list_one_way(gpu, i % KV_TYPES, &some, &n));
        TRY(add_keys(keys, count, some, n));
        free(some);
        some = NULL;
        if (i % KV_TYPES == 0)
            TRY(list_shapes(gpu, keys, count));
    }
error:
    gpu->attention_quads = gpu->attention_nv = false;
    free(some);
    return err;
}

static bool print_pipeline(kim_gpu *gpu, const pipeline_key *key, const options *o)
{
    char name[128];
    row r = { .all = o->all };
    const double *values = r.figures.values;
    for (int i = 0; i < PIPELINE_FIGURES; i++)
        r.figures.values[i] = NAN;
    pipeline_name(key, name, sizeof name);
    if (o->only && !strstr(name, o->only))
        return true;
    if (r.all)
        fprintf(stderr, "%s\n", name);
    if (pipeline_statistics(gpu, key, take, &r)) {
        fprintf(stderr, "%s: %s\n", name, kim_error_text());
        return false;
    }
    printf("%s", name);
    for (int i = 0; i < PIPELINE_FIGURES; i++)
        if (isnan(values[i]))
            printf(",");
        else
            printf(",%g", values[i]);
    printf("\n");
    const bool spills = values[PIPELINE_SPILLS] > 0;
    if (o->fail_on_spill && spills)
        fprintf(stderr, "%s: spills %g registers\n", name, values[PIPELINE_SPILLS]);
    return !o->fail_on_spill || !spills;
}

static void parse(options *o, int argc, char **argv)
{
    *o = (options){ 0 };
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--fail-on-spill")) {
            o->fail_on_spill = true;
        } else if (!strcmp(argv[i], "--all")) {
            o->all = true;
        } else if (!strcmp(argv[i], "--device")) {
            o->device = value;
            i++;
        } else if (!strcmp(argv[i], "--only")) {
            o->only = value;
            i++;
        } else if (!strcmp(argv[i], "--mode")) {
            o->mode = strcmp(value, "table") ? KIM_MEMORY_ADDRESS : KIM_MEMORY_TABLE;
            i++;
        }
    }
}

int main(int argc, char **argv)
{
    options o;
    kim_gpu *gpu = NULL;
    pipeline_key *keys = NULL;
    uint32_t count = 0;
    bool right = true;
    parse(&o, argc, argv);
    const kim_gpu_params params = {
        .device = o.device, .memory_mode = o.mode, .cache_dir = "", .statistics = true
    };
    if (kim_gpu_create(&gpu, &params) || list_all(gpu, &keys, &count)) {
        fprintf(stderr, "%s\n", kim_error_text());
        kim_gpu_destroy(&gpu);
        return 1;
    }
    if (!gpu->statistics)
        fprintf(stderr, "%s: the driver gives no figures\n", kim_gpu_info(gpu)->name);
    printf("pipeline,registers,scalar_registers,spills,shared_bytes,occupancy,instructions,"
           "throughput\n");
    for (uint32_t i = 0; i < count; i++)
        right = print_pipeline(gpu, &keys[i], &o) && right;
    free(keys);
    kim_gpu_destroy(&gpu);
    return right ? 0 : 1;
}
