// SPDX-License-Identifier: MIT
// Kernels one by one: which there are at which shapes.
#include "kernels.h"

#include "architecture.h"

#include "host/error.h"
#include "host/kernel.h"
#include "host/matmul_ways.h"
#include "host/weight_quantize.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct kernel_case {
    kim_kernel_info info;
    kernel_params p;
    matmul_way way; // MATMUL_WAYS: as the device has chosen
    char label[48];
} kernel_case;

struct kim_kernels {
    kim_gpu *gpu;
    kim_kernels_params only; // valid while the list is made
    matmul_way way;          // likewise; MATMUL_WAYS: none is asked for
    kernel_case *cases;
    uint32_t count, room;
    kernel *current; // NULL: none was checked yet
};

static bool same_without_case(const char *a, const char *b)
{
    while (*a && tolower((unsigned char)*a) == tolower((unsigned char)*b))
        a++, b++;
    return *a == *b;
}

const char *kim_kernel_op(uint32_t index)
{
    return index < KERNEL_OPS ? kernel_op_name((kernel_op)index) : NULL;
}

// -------------------------------------------------------------------------------------- the list

// Adds a kernel if it is one of those that are wanted.
static kim_err add(kim_kernels *k, const char *label, const kernel_params *p)
{
    kim_err err = KIM_OK;
    const kim_kernels_params *only = &k->only;
    if ((only->op && strcmp(only->op, kernel_op_name(p->op))) ||
        (p->type && only->type && !same_without_case(only->type, p->type->name)))
        return KIM_OK;
    if (p->type && p->width % p->type->block && !weight_is_plain(p->type->ggml))
        return KIM_OK; // no such file
    if (k->count == k->room) {
        const uint32_t room = 2 * k->room + 64;
        kernel_case *cases = realloc(k->cases, room * sizeof *cases);
        REQUIRE_MEMORY(cases);
        k->cases = cases;
        k->room = room;
    }
    kernel_case *c = &k->cases[k->count++];
    *c = (kernel_case){
        .info = { .op = kernel_op_name(p->op),
                  .type = p->type          ? p->type->name
                          : p->kv == KV_Q8 ? "Q8_0"
                                           : "",
                  .rows = p->type ? p->rows : 0,
                  .width = p->width,
                  .columns = p->columns },
        .p = *p,
        .way = k->way,
    };
    snprintf(c->label, sizeof c->label, "%s", label);
error:
    return err;
}

// A product in a model, alone and, of one column, with the norms that follow it.
typedef struct product_shape {
    const char *label;
    uint32_t rows, width;
    bool paired, norm;
} product_shape;

static kim_err add_products(kim_kernels *k, const product_shape *s, uint32_t columns)
{
    kim_err err = KIM_OK;
    for (uint32_t i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        kernel_params p = {
            .op = KERNEL_MATMUL,
            .type = &weight_types[i],
            .rows = s->rows,
            .width = s->width,
            .columns = columns,
            .paired = s->paired,
        };
        TRY(add(k, s->label, &p));
        p.op = KERNEL_MATMUL_NORM;
        if (s->norm && columns == 1)
            TRY(add(k, s->label, &p));
    }
error:
    return err;
}

static kim_err add_embed(kim_kernels *k, const architecture *a, uint32_t columns)
{
    kim_err err = KIM_OK;
    for (uint32_t i = 0; i < WEIGHT_TYPE_COUNT; i++)
        TRY(add(k, "embed",
                &(kernel_params){ .op = KERNEL_EMBED,
                                  .type = &weight_types[i],
                                  .rows = a->vocab,
                                  .width = a->hidden,
                                  .columns = columns }));
error:
    return err;
}

// The heads of a step of `columns` tokens, the last of which sees `keys` in a global layer.
static kim_err add_heads(kim_kernels *k, const architecture *a, uint32_t columns, uint32_t keys)
{
    kim_err err = KIM_OK;
    char label[48];
    if (keys < columns)
        return KIM_OK;
    for (uint32_t i = 0; i < 2 * KV_TYPES; i++) {
        const uint32_t global = i % 2;
        const uint32_t ring = (a->window + 512 + KEY_BLOCK - 1) / KEY_BLOCK * KEY_BLOCK;
        const uint32_t all = (keys + KEY_BLOCK - 1) / KEY_BLOCK * KEY_BLOCK;
        kernel_params p = {
            .op = columns == 1 ? KERNEL_ATTENTION_ROPE : KERNEL_ATTENTION,
            .heads = { a->heads, a->kv_heads, a->head },
            .kv = (kv_type)(i / 2),
            .width = a->heads * a->head,
            .columns = columns,
            .cache_rows = global ? all : ring,
            .window = global ? UINT32_MAX : a->window,
            .position = keys - columns,
        };
        snprintf(label, sizeof label, "%s, %u keys", global ? "global" : "local", keys);
        TRY(add(k, label, &p));
        p.op = KERNEL_ROPE;
        if (!global && columns > 1)
            TRY(add(k, label, &p));
    }
error:
    return err;
}

// All that a step of `columns` tokens comes to.
static kim_err add_step(kim_kernels *k, const architecture *a, uint32_t columns)
{
    static const uint32_t keys[] = { 512, 4096, 32768 };
    kim_err err = KIM_OK;
    const uint32_t heads = a->heads * a->head;
    const product_shape shapes[] = {
        { "qkv", heads + 2 * a->kv_heads * a->head, a->hidden, false, false },
        { "out", a->hidden, heads, false, true },
        { "gate_up", 2 * a->feed_forward, a->hidden, true, false },
        { "down", a->hidden, a->feed_forward, false, true },
        { "logits", a->vocab, a->hidden, false, false },
    };
    for (uint32_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (shapes[i].rows < a->vocab || columns <= 16) // of a prompt only the last has logits
            TRY(add_products(k, &shapes[i], columns));
    TRY(add_embed(k, a, columns));
    for (uint32_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i] < 32768 || columns == 1)
            TRY(add_heads(k, a, columns, keys[i]));
    const kernel_params row = { .columns = columns, .width = a->hidden };
    kernel_params p = row;
    p.op = KERNEL_NORM;
    TRY(add(k, "first norm", &p));
    p.add_norm = true;
    TRY(add(k, "norm, add, norm", &p));
    p = row;
    p.op = KERNEL_GEGLU;
    p.width = a->feed_forward;
    TRY(add(k, "gelu(gate) up", &p));
error:
    return err;
}

// What draws tokens, and what scores texts.
static kim_err add_draws(kim_kernels *k, const architecture *a)
{
    kim_err err = KIM_OK;
    kernel_params p = { .op = KERNEL_SAMPLE, .width = a->vocab, .columns = 1 };
    TRY(add(k, "top-k 64, top-p 0.95", &p));
    p.greedy = true;
    TRY(add(k, "greedy", &p));
    p = (kernel_params){ .op = KERNEL_SCORE, .width = a->vocab, .columns = 16 };
    TRY(add(k, "score", &p));
error:
    return err;
}

// SigLIP So400m/14 on one tile of 896 x 896, as all sizes that see have it; and the projector.
static kim_err add_vision(kim_kernels *k, const architecture *a)
{
    enum { HIDDEN = 1152, FEED_FORWARD = 4304, PATCH = 3 * 14 * 14, SIDE = 64, POOL = 4 };
    kim_err err = KIM_OK;
    const kernel_params products[] = {
        { .rows = HIDDEN, .width = PATCH, .bias = true },
        { .rows = 3 * HIDDEN, .width = HIDDEN, .bias = true },
        { .rows = HIDDEN, .width = HIDDEN, .bias = true, .add = true },
        { .rows = FEED_FORWARD, .width = HIDDEN, .bias = true, .gelu = true },
        { .rows = HIDDEN, .width = FEED_FORWARD, .bias = true, .add = true },
        { .rows = a->hidden, .width = HIDDEN },
    };
    static const char *const labels[] = { "patches",   "vision qkv",  "vision out",
                                          "vision up", "vision down", "projector" };
    static const uint32_t types[] = { 1, 0, 30, 8 }; // F16 as published; F32, BF16, Q8_0
    for (uint32_t i = 0; i < sizeof products / sizeof *products; i++)
        for (uint32_t t = 0; t < (k->only.type ? 4 : 1); t++) {
            kernel_params p = products[i];
            p.op = KERNEL_MATMUL;
            p.type = weight_type_find(types[t]);
            p.columns = p.bias ? SIDE * SIDE : SIDE * SIDE / (POOL * POOL);
            TRY(add(k, labels[i], &p));
        }
    kernel_params p = { .columns = SIDE * SIDE, .width = HIDDEN, .op = KERNEL_LAYER_NORM };
    TRY(add(k, "vision norm", &p));
    p.op = KERNEL_ATTENTION_FULL;
    p.heads = (head_shape){ 16, 16, 72 };
    p.images = 1;
    TRY(add(k, "vision", &p));
    p.op = KERNEL_AVERAGE_POOL;
    p.side = SIDE;
    p.pool = POOL;
    TRY(add(k, "soft tokens", &p));
error:
    return err;
}

static kim_err list_size(kim_kernels *k)
{
    static const uint32_t usual[] = { 1, 512 };
    static const product_shape ggml = { "ggml", 4096, 14336, false, false };
    kim_err err = KIM_OK;
    architecture a = { 0 };
    const bool is_ggml = same_without_case(k->only.size, "ggml");
    const uint32_t *columns = k->only.columns ? k->only.columns : usual;
    const uint32_t n = k->only.columns ? k->only.n_columns : 2;
    if (!is_ggml && architecture_make(&a, k->only.size))
        FAIL(KIM_ERR_ARGUMENT,
             "there are no shapes called '%.32s'; there are 270m, 1b, 4b, 12b, 27b and ggml",
             k->only.size);
    for (uint32_t i = 0; i < n; i++)
        TRY(is_ggml ? add_products(k, &ggml, columns[i]) : add_step(k, &a, columns[i]));
    if (!is_ggml)
        TRY(add_draws(k, &a));
    if (a.factor_global > 1) // those from 4B on see
        TRY(add_vision(k, &a));
    if (!is_ggml) {
        const kernel_params copy = { .op = KERNEL_COPY, .width = 1u << 24, .columns = 1 };
        TRY(add(k, "64 MiB", &copy));
    }
error:
    architecture_destroy(&a);
    return err;
}

// ------------------------------------------------------------------------------- the self-test

// Rows and columns that are no multiples of a tile, in more than one tile both ways.
static kim_err list_many_columns(kim_kernels *k, const weight_type *type, uint32_t width)
{
    kim_err err = KIM_OK;
    const matmul_way asked = k->way, chosen = k->gpu->matmul_way;
    for (matmul_way way = MATMUL_FEW; way < MATMUL_WAYS; way++) {
        if ((asked != MATMUL_WAYS && way != asked) || matmul_way_set(k->gpu, way) ||
            matmul_way_of(k->gpu, type, 70, true) != way)
            continue;
        k->way = way;
        kernel_params p = {
            .op = KERNEL_MATMUL,
            .type = type,
            .rows = 150,
            .width = width,
            .columns = 70,
            .extreme = true,
        };
        TRY(add(k, matmul_way_name(way), &p));
        p.extreme = false;
        p.weights = WEIGHTS_TINY;
        p.spread = 3e5;
        p.columns = 33;
        TRY(add(k, matmul_way_name(way), &p));
        p.weights = WEIGHTS_RANDOM;
        p.spread = 0.5;
        p.paired = true;
        if (type->ggml == 8) // Q8_0; a pipeline more for each is long on CPU drivers
            TRY(add(k, matmul_way_name(way), &p));
        p.paired = false;
        p.bias = p.gelu = p.add = true;
        if (type->ggml == 8 || type->ggml == 1)
            TRY(add(k, matmul_way_name(way), &p));
    }
error:
    k->way = asked;
    k->gpu->matmul_way = chosen;
    return err;
}

static kim_err list_type(kim_kernels *k, const weight_type *type)
{
    kim_err err = KIM_OK;
    const uint32_t width = type->block == 256 ? 512 : weight_is_plain(type->ggml) ? 100 : 96;
    kernel_params p = {
        .op = KERNEL_MATMUL, .type = type, .rows = 37, .width = width, .columns = 1
    };
    TRY(add(k, "one column", &p));
    p.weights = WEIGHTS_TINY;
    p.spread = 3e5;
    TRY(add(k, "one column", &p));
    p.weights = WEIGHTS_RANDOM;
    p.width = 2560;
    TRY(add(k, "one column", &p));
    p.width = width;
    p.spread = 0;
    p.rows = 100;
    p.paired = true;
    TRY(add(k, "one column", &p));
    p.paired = false;
    for (p.columns = 2; p.columns <= 8; p.columns += 2)
        if (type->ggml == 2) // Q4_0
            TRY(add(k, "few columns", &p));
    p.columns = 5;
    p.op = KERNEL_EMBED;
    TRY(add(k, "tokens and soft tokens", &p));
    p.columns = 1;
    p.op = KERNEL_MATMUL_NORM;
    TRY(add(k, "one column", &p));
    TRY(list_many_columns(k, type, width));
error:
    return err;
}

// Windows that end inside a block, rings that have wrapped, splits, scores of tens of thousands.
static kim_err list_heads(kim_kernels *k)
{
    static const kernel_params some[] = {
        { .heads = { 4, 1, 256 },
          .columns = 1,
          .cache_rows = 1024,
          .window = 512,
          .position = 5056 },
        { .heads = { 4, 1, 256 },
          .columns = 1,
          .cache_rows = 4096,
          .window = UINT32_MAX,
          .position = 4032 },
        { .heads = { 4, 1, 256 },
          .columns = 37,
          .cache_rows = 1024,
          .window = 512,
          .position = 2040 },
        { .heads = { 2, 2, 64 },
          .columns = 130,
          .cache_rows = 256,
          .window = 100,
          .position = 700 },
        { .heads = { 32, 16, 128 },
          .columns = 1,
          .cache_rows = 256,
          .window = 100,
          .position = 300 },
        { .heads = { 32, 16, 128 },
          .columns = 9,
          .cache_rows = 256,
          .window = 100,
          .position = 300 },
        { .heads = { 4, 2, 80 }, .columns = 7, .cache_rows = 256, .window = 1, .position = 63 },
    };
    kim_err err = KIM_OK;
    char label[48];
    for (uint32_t i = 0; i < KV_TYPES * sizeof some / sizeof *some; i++) {
        kernel_params p = some[i / KV_TYPES];
        p.kv = (kv_type)(i % KV_TYPES);
        p.width = p.heads.heads * p.heads.head;
        snprintf(label, sizeof label, "%u:%u heads of %u, at %u", p.heads.heads, p.heads.kv_heads,
                 p.heads.head, p.position);
        p.op = KERNEL_ROPE;
        TRY(add(k, label, &p));
        p.op = KERNEL_ATTENTION;
        TRY(add(k, label, &p));
        p.spread = 6000;
        TRY(add(k, label, &p));
        p.spread = 0;
        p.op = KERNEL_ATTENTION_ROPE;
        if (p.columns == 1)
            TRY(add(k, label, &p));
    }
error:
    return err;
}

static kim_err list_others(kim_kernels *k)
{
    static const kernel_params some[] = {
        { .op = KERNEL_NORM, .columns = 3, .width = 640 },
        { .op = KERNEL_NORM, .columns = 2, .width = 36, .spread = 3e5 },
        { .op = KERNEL_NORM, .columns = 3, .width = 1152, .add_norm = true },
        { .op = KERNEL_NORM, .columns = 2, .width = 5376, .add_norm = true, .spread = 3e5 },
        { .op = KERNEL_GEGLU, .columns = 3, .width = 37, .spread = 3 },
        { .op = KERNEL_GEGLU, .columns = 1, .width = 2048, .spread = 3e5 },
        { .op = KERNEL_GEGLU, .columns = 2, .width = 130, .spread = 1e-20 },
        { .op = KERNEL_SCORE, .columns = 3, .width = 1003 },
        { .op = KERNEL_SCORE, .columns = 1, .width = 262144 },
        { .op = KERNEL_SAMPLE, .columns = 1, .width = 1003, .greedy = true },
        { .op = KERNEL_SAMPLE, .columns = 1, .width = 1003 },
        { .op = KERNEL_SAMPLE, .columns = 1, .width = 262144, .greedy = true },
        { .op = KERNEL_SAMPLE, .columns = 1, .width = 262144 },
        { .op = KERNEL_LAYER_NORM, .columns = 3, .width = 1152, .mean = 3000 },
        { .op = KERNEL_LAYER_NORM, .columns = 7, .width = 36 },
        { .op = KERNEL_AVERAGE_POOL,
          .columns = 36,
          .width = 20,
          .images = 2,
          .side = 6,
          .pool = 3 },
        { .op = KERNEL_ATTENTION_FULL,
          .columns = 100,
          .width = 144,
          .heads = { 2, 2, 72 },
          .images = 2 },
        { .op = KERNEL_ATTENTION_FULL,
          .columns = 17,
          .width = 72,
          .heads = { 1, 1, 72 },
          .images = 3,
          .spread = 300 },
        { .op = KERNEL_COPY, .columns = 3, .width = 100003 },
    };
    kim_err err = KIM_OK;
    for (uint32_t i = 0; i < sizeof some / sizeof *some; i++)
        TRY(add(k,
                some[i].greedy     ? "greedy"
                : some[i].add_norm ? "norm, add, norm"
                                   : "",
                &some[i]));
error:
    return err;
}

// One operation after the other.
static kim_err list_all(kim_kernels *k)
{
    kim_err err = KIM_OK;
    const char *const asked = k->only.op;
    for (kernel_op op = 0; op < KERNEL_OPS; op++) {
        k->only.op = kernel_op_name(op);
        if (asked && strcmp(asked, k->only.op))
            continue;
        TRY(list_others(k));
        TRY(list_heads(k));
        for (uint32_t i = 0; i < WEIGHT_TYPE_COUNT; i++)
            TRY(list_type(k, &weight_types[i]));
    }
error:
    return err;
}

// ----------------------------------------------------------------------------------- the object

static kim_err check_names(kim_kernels *k)
{
    kim_err err = KIM_OK;
    const kim_kernels_params *only = &k->only;
    uint32_t i = 0;
    while (only->op && i < KERNEL_OPS && strcmp(only->op, kernel_op_name((kernel_op)i)))
        i++;
    if (i == KERNEL_OPS)
        FAIL(KIM_ERR_ARGUMENT, "there is no operation called '%.32s'", only->op);
    i = 0;
    while (only->type && i < WEIGHT_TYPE_COUNT &&
           !same_without_case(only->type, weight_types[i].name))
        i++;
    if (i == WEIGHT_TYPE_COUNT)
        FAIL(KIM_ERR_ARGUMENT, "there is no weight type called '%.32s'", only->type);
    if (only->way && !matmul_way_find(only->way, &k->way))
        FAIL(KIM_ERR_ARGUMENT,
             "there is no way to multiply called '%.32s'; there are few, float, dot, half and int8",
             only->way);
    if (k->way != MATMUL_WAYS) {
        const matmul_way chosen = k->gpu->matmul_way;
        TRY(matmul_way_set(k->gpu, k->way));
        k->gpu->matmul_way = chosen;
    }
    for (i = 0; only->columns && i < only->n_columns; i++)
        if (!only->columns[i] || only->columns[i] > 1 << 16)
            FAIL(KIM_ERR_ARGUMENT, "%u columns; there must be 1 to %d", only->columns[i], 1 << 16);
error:
    return err;
}

kim_err kim_kernels_create(kim_kernels **out, kim_gpu *gpu, const kim_kernels_params *params)
{
    kim_err err = KIM_OK;
    kim_kernels *k = NULL;
    if (!out || !gpu)
        FAIL(KIM_ERR_ARGUMENT, "kim_kernels_create: an argument is NULL");
    *out = NULL;
    k = calloc(1, sizeof *k);
    REQUIRE_MEMORY(k);
    k->gpu = gpu;
    k->way = MATMUL_WAYS;
    if (params)
        k->only = *params;
    TRY(check_names(k));
    TRY(k->only.size ? list_size(k) : list_all(k));
    for (uint32_t i = 0; i < k->count; i++)
        k->cases[i].info.label = k->cases[i].label;
    k->only = (kim_kernels_params){ 0 };
    *out = k;
    return KIM_OK;
error:
    kim_kernels_destroy(&k);
    return err;
}

void kim_kernels_destroy(kim_kernels **kernels)
{
    if (!kernels || !*kernels)
        return;
    kernel_destroy(&(*kernels)->current);
    free((*kernels)->cases);
    free(*kernels);
    *kernels = NULL;
}

uint32_t kim_kernels_count(const kim_kernels *kernels)
{
    return kernels->count;
}

const kim_kernel_info *kim_kernels_at(const kim_kernels *kernels, uint32_t index)
{
    return &kernels->cases[index].info;
}

static kim_peak peak_of(matmul_way way)
{
    return way == MATMUL_HALF   ? KIM_PEAK_HALF_MATRIX
           : way == MATMUL_INT8 ? KIM_PEAK_INT8_MATRIX
           : way == MATMUL_DOT  ? KIM_PEAK_INT8_DOT
                                : KIM_PEAK_FP32;
}

kim_err kim_kernels_check(kim_kernels *kernels, uint32_t index, kim_kernel_result *out)
{
    kim_err err = KIM_OK;
    kernel_error error;
    matmul_way way;
    if (!kernels || !out || index >= kernels->count)
        FAIL(KIM_ERR_ARGUMENT, "kim_kernels_check: an argument is NULL or out of range");
    const kernel_case *c = &kernels->cases[index];
    kim_gpu *const gpu = kernels->gpu;
    const matmul_way chosen = gpu->matmul_way;
    kernel_destroy(&kernels->current);
    if (c->way != MATMUL_WAYS)
        gpu->matmul_way = c->way;
    err = kernel_create(&kernels->current, gpu, &c->p);
    gpu->matmul_way = chosen;
    TRY(err);
    kernel *const k = kernels->current;
    TRY(kernel_check(k, &error));
    const bool product = kernel_way(k, &way);
    *out = (kim_kernel_result){
        .right = error.right,
        .error = error.error,
        .bound = error.bound,
        .way = product ? matmul_way_name(way) : "",
        .flop = kernel_flop(k),
        .bytes = kernel_bytes(k),
        .arithmetic = peak_of(way),
    };
    memcpy(out->where, error.where, sizeof out->where);
    TRY(kernel_figures(k, &out->registers, &out->spills));
error:
    return err;
}

kim_err kim_kernels_time(kim_kernels *kernels, double *seconds, uint32_t *samples, double most,
                         double *cpu)
{
    if (!kernels || !kernels->current || !seconds || !samples || !*samples || !cpu)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_kernels_time: an argument is NULL or 0, or nothing "
                                          "was checked before");
    return kernel_time(kernels->current, seconds, samples, most, cpu);
}
