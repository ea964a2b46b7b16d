// SPDX-License-Identifier: MIT
// Times the operations at the shapes of a 270M model, and of a picture's encoder: the best of
// several runs.
//   ops_bench_tool [--device D] [--mode address|table] [--type NAME] [--columns N] [--runs N]
//                  [--op matmul|vocabulary|attention|encoder] [--way few|float|dot|half|int8]
#include "ops_harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct options {
    const char *device, *type, *op;
    kim_memory_mode mode;
    const char *way;        // of many columns; NULL: the device's default
    uint32_t columns, runs; // columns: 0: 1 and 512; of the encoder 4096
} options;

typedef struct bench {
    kim_gpu *gpu;
    stream *st;
    uint32_t runs;
} bench;

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// Runs the stream's list, and prints the best of its times on the device and, for drivers that run
// on the processor of the host, that processor's time. The first run is apart: it measures how to
// cut the list into submits, and CPU drivers compile in it.
static void run_and_print(bench *b, const char *name, double flop, double bytes)
{
    double best = INFINITY, cpu = INFINITY, first = 0;
    stream_stats stats;
    for (uint32_t i = 0; i <= b->runs; i++) {
        const double start = seconds(CLOCK_MONOTONIC),
                     cpu_start = seconds(CLOCK_PROCESS_CPUTIME_ID);
        MUST(stream_submit(b->st));
        MUST(stream_wait(b->st));
        stream_get_stats(b->st, &stats);
        if (i == 0) {
            first = seconds(CLOCK_MONOTONIC) - start;
            continue;
        }
        best = fmin(best, stats.last_seconds);
        cpu = fmin(cpu, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_start);
    }
    MUST(stream_reset(b->st));
    printf("%-44s first %6.3f s, best %8.3f ms, host %8.3f ms, %7.2f GFLOP/s, %6.2f GB/s, "
           "%u submits to %.0f ms\n",
           name, first, best * 1e3, cpu * 1e3, flop / best * 1e-9, bytes / best * 1e-9,
           stats.list_submits, stats.longest_submit * 1e3);
    fflush(stdout);
}

typedef struct bench_shape {
    uint32_t rows, width;
    bool paired, bias, gelu, add;
} bench_shape;

// 64 random rows, again and again: random numbers for a whole vocabulary take too long.
static void fill_rows(const weight_type *type, uint8_t *rows, uint64_t n, uint32_t width)
{
    const uint64_t row = weight_row_bytes(type, width);
    ops_fill_weights(type, rows, 64, width, WEIGHTS_RANDOM);
    for (uint64_t at = 64; at < n; at++)
        memcpy(rows + at * row, rows + at % 64 * row, row);
}

static void bench_matmul(bench *b, const weight_type *type, const bench_shape *s, uint32_t columns)
{
    const uint64_t source_rows = s->paired ? s->rows / 2 : s->rows;
    uint8_t *data = malloc(source_rows * weight_row_bytes(type, s->width));
    const matrix_source source = {
        .name = "w", .type = type, .data = data, .rows = (uint32_t)source_rows
    };
    const matrix_source sources[2] = { source, source };
    linear l;
    pool weights, activations;
    span x, y, bias, packed;
    uploader *u = NULL;
    fill_rows(type, data, source_rows, s->width);
    pool_init(&weights, "weights", POOL_DEVICE, b->gpu->block_limit);
    pool_init(&activations, "activations", POOL_READBACK, b->gpu->block_limit);
    MUST(linear_place(&l, &weights, sources, s->paired ? 2 : 1, s->width, s->paired));
    MUST(pool_commit(&weights, b->gpu));
    MUST(uploader_create(&u, b->gpu, NULL, NULL, 0));
    MUST(upload_linear(u, &l));
    MUST(uploader_finish(u));
    uploader_destroy(&u);
    free(data);
    MUST(pool_place(&activations, 4ull * s->width * columns, &x));
    MUST(pool_place(&activations, 4ull * s->rows * columns, &y));
    MUST(pool_place(&activations, 4ull * s->rows, &bias));
    const uint64_t packed_bytes = matmul_packed_bytes(b->gpu, s->width, columns);
    if (packed_bytes)
        MUST(pool_place(&activations, packed_bytes, &packed));
    MUST(pool_commit(&activations, b->gpu));
    ops_fill_normal(span_map(&x), (uint64_t)s->width * columns, 1);
    memset(span_map(&y), 0, y.bytes);
    memset(span_map(&bias), 0, bias.bytes);
    MUST(op_matmul(b->st, &(matmul_params){
                              .w = &l,
                              .x = &x,
                              .x_width = s->width,
                              .y = &y,
                              .packed = packed_bytes ? &packed : NULL,
                              .columns = columns,
                              .bias = s->bias ? &bias : NULL,
                              .gelu = s->gelu,
                              .add = s->add,
                          }));
    char name[100];
    snprintf(name, sizeof name, "matmul %s %ux%u%s%s%s%s, %u columns", type->name, s->rows,
             s->width, s->paired ? " paired" : "", s->bias ? " bias" : "", s->gelu ? " gelu" : "",
             s->add ? " add" : "", columns);
    run_and_print(b, name, 2.0 * s->rows * s->width * columns,
                  (double)weight_packed_bytes(type, s->rows, s->width));
    linear_destroy(&l);
    pool_destroy(&weights);
    pool_destroy(&activations);
}

static void bench_attention(bench *b, uint32_t rows, uint32_t keys)
{
    const head_shape shape = { 4, 1, 256 };
    const uint64_t cache_bytes = 2ull * keys * shape.head;
    pool activations;
    span qkv, control, y, partial;
    kv_cache cache = { .rows = keys, .window = 512 };
    pool_init(&activations, "activations", POOL_READBACK, b->gpu->block_limit);
    MUST(pool_place(&activations, 4ull * rows * 6 * shape.head, &qkv));
    MUST(pool_place(&activations, cache_bytes, &cache.k));
    MUST(pool_place(&activations, cache_bytes, &cache.v));
    MUST(pool_place(&activations, 4ull * CONTROL_ROW(rows, 0), &control));
    MUST(pool_place(&activations, 4ull * rows * 4 * shape.head, &y));
    MUST(pool_place(&activations, attention_partial_bytes(&shape, keys, 1), &partial));
    MUST(pool_commit(&activations, b->gpu));
    memset(span_map(&qkv), 0, qkv.bytes);
    memset(span_map(&cache.k), 0x11, cache.k.bytes);
    memset(span_map(&cache.v), 0x11, cache.v.bytes);
    memset(span_map(&control), 0, control.bytes);
    ((uint32_t *)span_map(&control))[CONTROL_POSITION] = keys - rows;
    MUST(op_attention(b->st, &(attention_params){
                                 .qkv = &qkv,
                                 .control = &control,
                                 .cache = &cache,
                                 .partial = &partial,
                                 .y = &y,
                                 .shape = shape,
                                 .rows = rows,
                             }));
    double pairs = 0; // of a query and a key it sees
    for (uint32_t r = 0; r < rows; r++)
        pairs += fmin(512, keys - rows + r + 1);
    char name[100];
    snprintf(name, sizeof name, "attention 4:1 heads of 256, %u rows, %u keys", rows, keys);
    run_and_print(b, name, 4 * pairs * 4 * shape.head, 2 * (double)cache_bytes);
    pool_destroy(&activations);
}

static void bench_attention_full(bench *b, uint32_t rows)
{
    const uint32_t heads = 16, head = 72;
    pool activations;
    span qkv, y;
    pool_init(&activations, "activations", POOL_READBACK, b->gpu->block_limit);
    MUST(pool_place(&activations, 12ull * rows * heads * head, &qkv));
    MUST(pool_place(&activations, 4ull * rows * heads * head, &y));
    MUST(pool_commit(&activations, b->gpu));
    ops_fill_normal(span_map(&qkv), 3ull * rows * heads * head, 1);
    MUST(op_attention_full(b->st, &(attention_full_params){
                                      .qkv = &qkv,
                                      .y = &y,
                                      .heads = heads,
                                      .head = head,
                                      .images = 1,
                                      .rows = rows,
                                      .scale = 0.1178f,
                                  }));
    char name[100];
    snprintf(name, sizeof name, "full attention, %u heads of %u, %u rows", heads, head, rows);
    run_and_print(b, name, 4.0 * rows * rows * heads * head, 4.0 * 4 * rows * heads * head);
    pool_destroy(&activations);
}

static void parse(options *o, int argc, char **argv)
{
    *o = (options){ .runs = 5 };
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--device"))
            o->device = argv[i + 1];
        else if (!strcmp(argv[i], "--type"))
            o->type = argv[i + 1];
        else if (!strcmp(argv[i], "--op"))
            o->op = argv[i + 1];
        else if (!strcmp(argv[i], "--columns"))
            o->columns = (uint32_t)atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--runs"))
            o->runs = (uint32_t)atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--way"))
            o->way = argv[i + 1];
        else if (!strcmp(argv[i], "--mode"))
            o->mode = strcmp(argv[i + 1], "table") ? KIM_MEMORY_ADDRESS : KIM_MEMORY_TABLE;
    }
}

// q, k and v; the output; up and down of a SigLIP layer
static void bench_encoder(bench *b, const options *o, const weight_type *type)
{
    static const bench_shape shapes[] = {
        { 3456, 1152, .bias = true },
        { 1152, 1152, .bias = true, .add = true },
        { 4304, 1152, .bias = true, .gelu = true },
        { 1152, 4304, .bias = true, .add = true },
    };
    for (uint32_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (shapes[i].width % type->block == 0 || type->block_bytes % type->block == 0)
            bench_matmul(b, type, &shapes[i], o->columns ? o->columns : 4096);
}

static void bench_type(bench *b, const options *o, const weight_type *type)
{
    static const bench_shape shapes[] = {
        { 1536, 640, .paired = false },
        { 640, 1024, .paired = false },
        { 4096, 640, .paired = true },
        { 640, 2048, .paired = false },
    };
    for (uint32_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const bool whole = shapes[i].width % type->block == 0;
        if (!whole || (o->op && strcmp(o->op, "matmul")))
            continue;
        if (o->columns) {
            bench_matmul(b, type, &shapes[i], o->columns);
            continue;
        }
        bench_matmul(b, type, &shapes[i], 1);
        bench_matmul(b, type, &shapes[i], 512);
    }
    const bench_shape vocabulary = { 262144, type->block == 256 ? 768 : 640, .paired = false };
    if (!o->op ||
        !strcmp(o->op, "vocabulary")) // of 16 columns at most: their logits must fit in a block
        bench_matmul(b, type, &vocabulary, o->columns && o->columns < 16 ? o->columns : 1);
}

int main(int argc, char **argv)
{
    static const char *const names[] = { "Q5_0", "Q8_0", "Q4_K", "Q6_K", "F16" };
    static const char *const encoder_names[] = { "F32", "F16", "BF16", "Q8_0" };
    options o;
    bench b = { 0 };
    parse(&o, argc, argv);
    b.runs = o.runs;
    MUST(kim_gpu_create(&b.gpu, &(kim_gpu_params){
                                    .device = o.device,
                                    .memory_mode = o.mode,
                                    .cache_dir = "",
                                }));
    matmul_way way;
    if (o.way && !matmul_way_find(o.way, &way)) {
        fprintf(stderr, "no such way to multiply: %s\n", o.way);
        return 2;
    }
    if (o.way)
        MUST(matmul_way_set(b.gpu, way));
    MUST(stream_create(&b.st, b.gpu));
    printf("%s, %s mode\n", kim_gpu_info(b.gpu)->name, b.gpu->address ? "address" : "table");
    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++)
        for (uint32_t t = 0; t < WEIGHT_TYPE_COUNT; t++)
            if (!strcmp(weight_types[t].name, o.type ? o.type : names[i]) && (!o.type || i == 0))
                bench_type(&b, &o, &weight_types[t]);
    for (uint32_t i = 0; i < sizeof encoder_names / sizeof *encoder_names; i++)
        for (uint32_t t = 0; t < WEIGHT_TYPE_COUNT; t++)
            if (!strcmp(weight_types[t].name, o.type ? o.type : encoder_names[i]) &&
                (!o.type || i == 0) && (!o.op || !strcmp(o.op, "encoder")))
                bench_encoder(&b, &o, &weight_types[t]);
    if (!o.op || !strcmp(o.op, "attention")) {
        bench_attention(&b, 512, 512);
        bench_attention(&b, 512, 1024);
        bench_attention(&b, 1, 512);
        bench_attention(&b, 1, 4096);
    }
    if (!o.op || !strcmp(o.op, "encoder"))
        bench_attention_full(&b, o.columns ? o.columns : 4096);
    stream_destroy(&b.st);
    kim_gpu_destroy(&b.gpu);
    return 0;
}
