// SPDX-License-Identifier: MIT
// One operation at one shape on a device: its memory, its runs, its times.
#include "kernel_parts.h"

#include "clock.h"
#include "pipeline_statistics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD_BYTES 256
#define POISON 0xff             // a byte; four are no number, and so are two as f16
#define COLD_BYTES (256u << 20) // read between two reads of the same: beyond today's caches
#define CPU_COLD_BYTES (64u << 20)
#define SAMPLE_SECONDS 1e-3 // of a sample, at least, so that stamps of a microsecond do
#define MOST_SECONDS 50e-3  // of a sample, for the sake of cold reads
#define MOST_REPEATS 1024

static const kernel_class *const classes[KERNEL_OPS] = {
    [KERNEL_MATMUL] = &kernel_matmul,
    [KERNEL_MATMUL_NORM] = &kernel_matmul_norm,
    [KERNEL_EMBED] = &kernel_embed,
    [KERNEL_NORM] = &kernel_norm,
    [KERNEL_ROPE] = &kernel_rope,
    [KERNEL_ATTENTION] = &kernel_attention,
    [KERNEL_ATTENTION_ROPE] = &kernel_attention_rope,
    [KERNEL_GEGLU] = &kernel_geglu,
    [KERNEL_SCORE] = &kernel_score,
    [KERNEL_SAMPLE] = &kernel_sample,
    [KERNEL_LAYER_NORM] = &kernel_layer_norm,
    [KERNEL_AVERAGE_POOL] = &kernel_average_pool,
    [KERNEL_ATTENTION_FULL] = &kernel_attention_full,
    [KERNEL_COPY] = &kernel_copy,
};

const char *kernel_op_name(kernel_op op)
{
    return classes[op]->name;
}

// -------------------------------------------------------------------------------------- memory

kim_err kernel_place(kernel *k, uint64_t bytes)
{
    kim_err err = KIM_OK;
    span guard;
    TRY(pool_place(&k->device, bytes, &k->spans[k->n_spans++]));
    TRY(pool_place(&k->device, GUARD_BYTES, &guard));
error:
    return err;
}

kim_err kernel_place_floats(kernel *k, uint64_t n)
{
    return kernel_place(k, n * sizeof(float));
}

// Block i of the activations, as a span.
static span whole_block(pool *p, uint32_t i)
{
    return (span){ .pool = p, .block = i, .bytes = p->blocks[i].bytes };
}

static void *block_data(const kernel *k, uint32_t i)
{
    return k->move ? k->staging.blocks[i].mapped : k->device.blocks[i].mapped;
}

static uint64_t block_start(const kernel *k, uint32_t i)
{
    uint64_t at = 0;
    while (i--)
        at += k->device.blocks[i].bytes;
    return at;
}

void *kernel_data(const kernel *k, uint32_t i)
{
    return (char *)block_data(k, k->spans[i].block) + k->spans[i].offset;
}

const void *kernel_before(const kernel *k, uint32_t i)
{
    return k->before + block_start(k, k->spans[i].block) + k->spans[i].offset;
}

static kim_err commit(kernel *k)
{
    kim_err err = KIM_OK;
    TRY(pool_commit(&k->device, k->gpu));
    k->before = malloc(pool_bytes(&k->device));
    REQUIRE_MEMORY(k->before);
    bool mapped = true;
    for (uint32_t i = 0; i < k->device.n_blocks; i++)
        mapped = mapped && k->device.blocks[i].mapped;
    if (!mapped) {
        span s;
        for (uint32_t i = 0; i < k->device.n_blocks; i++)
            TRY(pool_place(&k->staging, k->device.blocks[i].bytes, &s));
        TRY(pool_commit(&k->staging, k->gpu));
        TRY(stream_create(&k->move, k->gpu));
    }
    for (uint32_t i = 0; i < k->device.n_blocks; i++)
        memset(block_data(k, i), POISON, k->device.blocks[i].bytes);
error:
    return err;
}

// Between what the host sees and the device.
static kim_err move(kernel *k, bool to_device)
{
    kim_err err = KIM_OK;
    if (!k->move)
        return KIM_OK;
    TRY(stream_reset(k->move));
    for (uint32_t i = 0; i < k->device.n_blocks; i++) {
        const span device = whole_block(&k->device, i), staging = whole_block(&k->staging, i);
        TRY(stream_copy(k->move, to_device ? &device : &staging, to_device ? &staging : &device));
    }
    TRY(stream_submit(k->move));
    TRY(stream_wait(k->move));
error:
    return err;
}

// The inputs as they were made.
static kim_err restore(kernel *k)
{
    for (uint32_t i = 0; i < k->device.n_blocks; i++)
        memcpy(block_data(k, i), k->before + block_start(k, i), k->device.blocks[i].bytes);
    return move(k, true);
}

// Of one copy after the other.
static kim_err record(kernel *k, uint32_t times)
{
    kim_err err = KIM_OK;
    k->recorded = times;
    for (uint32_t i = 0; i < times; i++)
        TRY(k->class->record(k, i % k->copies));
error:
    return err;
}

kim_err kernel_create(kernel **out, kim_gpu *gpu, const kernel_params *p)
{
    kim_err err = KIM_OK;
    span guard;
    kernel *k = calloc(1, sizeof *k);
    REQUIRE_MEMORY(k);
    k->gpu = gpu;
    k->p = *p;
    k->class = classes[p->op];
    k->cache = UINT32_MAX;
    k->way = MATMUL_WAYS;
    pool_init(&k->device, "a kernel's inputs and outputs", POOL_DEVICE, pool_limit_of(gpu));
    pool_init(&k->first, "a kernel's weights", POOL_DEVICE, pool_limit_of(gpu));
    pool_init(&k->staging, "a kernel's inputs and outputs", POOL_READBACK, pool_limit_of(gpu));
    ops_random_begin();
    TRY(stream_create(&k->st, gpu));
    k->matrices = calloc(1, sizeof *k->matrices);
    REQUIRE_MEMORY(k->matrices);
    k->copies = 1;
    TRY(pool_place(&k->device, GUARD_BYTES, &guard));
    TRY(k->class->place(k));
    TRY(commit(k));
    TRY(k->class->fill(k));
    for (uint32_t i = 0; i < k->device.n_blocks; i++)
        memcpy(k->before + block_start(k, i), block_data(k, i), k->device.blocks[i].bytes);
    TRY(move(k, true));
    TRY(record(k, 1));
    *out = k;
    return KIM_OK;
error:
    kernel_destroy(&k);
    return err;
}

static void drop_copies(kernel *k)
{
    for (; k->copies > 1; k->copies--)
        linear_destroy(&k->matrices[k->copies - 1]);
    pool_destroy(&k->more);
}

void kernel_destroy(kernel **kp)
{
    kernel *k = *kp;
    if (!k)
        return;
    stream_destroy(&k->st);
    stream_destroy(&k->move);
    drop_copies(k);
    if (k->matrices)
        linear_destroy(k->matrices);
    free(k->matrices);
    free(k->caches);
    free(k->weights);
    free(k->before);
    pool_destroy(&k->first);
    pool_destroy(&k->device);
    pool_destroy(&k->staging);
    free(k);
    *kp = NULL;
}

// ------------------------------------------------------------------------------------ checking

static double share(double error, double bound)
{
    return bound > 0 ? error / bound : 0;
}

void kernel_compare(kernel *k, const char *part, uint64_t at, double got, double want, double bound)
{
    kernel_error *const worst = &k->worst;
    const double error = fabs(got - want);
    const bool right = error <= bound;
    // the first that is no number, else the first that is wrong, else the nearest to it is told
    if (!worst->right && (right || !isnan(error) || isnan(worst->error)))
        return;
    if (right && worst->where[0] && share(error, bound) <= share(worst->error, worst->bound))
        return;
    worst->right = right;
    worst->error = error;
    worst->bound = bound;
    snprintf(worst->where, sizeof worst->where, "%s[%llu] is %.9g, expected %.9g", part,
             (unsigned long long)at, got, want);
}

uint32_t kernel_next(uint32_t at, uint32_t n, uint32_t most)
{
    const uint32_t step = n / most | 1; // odd, so that all places in a tile come
    return at + 1 >= n ? n : at + step < n ? at + step : n - 1;
}

double kernel_spread(const kernel *k)
{
    return k->p.spread == 0 ? 1 : k->p.spread;
}

// Bytes between the spans are as they were.
static void check_guards(kernel *k)
{
    for (uint32_t b = 0; b < k->device.n_blocks; b++) {
        const uint8_t *bytes = block_data(k, b);
        uint64_t at = 0;
        for (uint32_t i = 0; i <= k->n_spans; i++) {
            const span *s = &k->spans[i];
            if (i < k->n_spans && s->block != b)
                continue;
            const uint64_t end = i < k->n_spans ? s->offset : k->device.blocks[b].bytes;
            for (; at < end; at++)
                if (bytes[at] != POISON) {
                    kernel_compare(k, "a byte outside of all outputs", at, bytes[at], POISON, 0);
                    return;
                }
            at = i < k->n_spans ? s->offset + s->bytes : end;
        }
    }
}

kim_err kernel_check(kernel *k, kernel_error *out)
{
    kim_err err = KIM_OK;
    if (k->ran)
        TRY(restore(k));
    if (k->recorded > 1) { // for times
        TRY(stream_reset(k->st));
        TRY(record(k, 1));
    }
    k->worst = (kernel_error){ .right = true };
    k->ran = true;
    TRY(stream_submit(k->st));
    TRY(stream_wait(k->st));
    TRY(move(k, false));
    check_guards(k);
    TRY(k->class->check(k));
    *out = k->worst;
error:
    return err;
}

// ---------------------------------------------------------------------------------------- times

// Places `n` in all and copies the first one.
static kim_err place_copies(kernel *k, uint32_t n)
{
    kim_err err = KIM_OK;
    pool_init(&k->more, "what a kernel reads", POOL_DEVICE, pool_limit_of(k->gpu));
    for (; k->copies < n; k->copies++) {
        span *to = k->caches[k->copies];
        if (k->cache == UINT32_MAX)
            TRY(kernel_place_matrix(k, &k->matrices[k->copies], &k->more));
        for (uint32_t i = 0; k->cache < UINT32_MAX && i < 2; i++)
            TRY(pool_place(&k->more, k->spans[k->cache + i].bytes, &to[i]));
    }
    TRY(pool_commit(&k->more, k->gpu));
    for (uint32_t c = 1; c < n; c++) {
        const linear *to = &k->matrices[c];
        for (uint32_t i = 0; i < to->n_parts; i++)
            TRY(stream_copy(k->st, &to->parts[i].w, &k->matrices->parts[i].w));
        for (uint32_t i = 0; k->cache < UINT32_MAX && i < 2; i++)
            TRY(stream_copy(k->st, &k->caches[c][i], &k->spans[k->cache + i]));
    }
    TRY(stream_submit(k->st));
    TRY(stream_wait(k->st));
error:
    return err;
}

// As many as are wanted, or as there is memory for.
static kim_err make_copies(kernel *k, uint32_t n)
{
    kim_err err = KIM_OK;
    drop_copies(k);
    linear *matrices = realloc(k->matrices, n * sizeof *matrices);
    REQUIRE_MEMORY(matrices);
    k->matrices = matrices;
    memset(matrices + 1, 0, (n - 1) * sizeof *matrices);
    span(*caches)[2] = realloc(k->caches, n * sizeof *caches);
    REQUIRE_MEMORY(caches);
    k->caches = caches;
    for (; n > 1; n /= 2) {
        err = place_copies(k, n);
        if (err != KIM_ERR_DEVICE_MEMORY)
            break;
        TRY(stream_reset(k->st));
        drop_copies(k);
    }
error:
    return err;
}

static kim_err run(kernel *k, double *seconds)
{
    kim_err err = KIM_OK;
    stream_stats stats;
    if (k->class->moves_on)
        TRY(restore(k));
    TRY(stream_submit(k->st));
    TRY(stream_wait(k->st));
    stream_get_stats(k->st, &stats);
    *seconds = stats.last_seconds;
error:
    return err;
}

// How often it is run for a sample, if it takes this long.
static uint32_t repeats_of(const kernel *k, double seconds, uint32_t copies)
{
    double n = ceil(SAMPLE_SECONDS / seconds);
    n = fmin(fmax(n, copies), fmax(1, floor(MOST_SECONDS / seconds)));
    return k->class->moves_on ? (uint32_t)fmin(n, SAMPLE_DRAWS) : (uint32_t)fmin(n, MOST_REPEATS);
}

kim_err kernel_time(kernel *k, double *seconds, uint32_t *n, double most, double *cpu)
{
    kim_err err = KIM_OK;
    double once;
    const uint64_t cold = k->gpu->info.type == KIM_DEVICE_CPU ? CPU_COLD_BYTES : COLD_BYTES;
    const uint32_t wanted = k->cold_bytes ? (uint32_t)(cold / k->cold_bytes) + 1 : 1;
    TRY(run(k, &once)); // after that of the check, in which CPU drivers compile
    const uint32_t repeats = repeats_of(k, once > 0 ? once : 1e-6, wanted);
    TRY(stream_reset(k->st));
    TRY(make_copies(k, wanted < repeats ? wanted : repeats));
    TRY(stream_reset(k->st));
    TRY(record(k, repeats));
    TRY(run(k, &once));
    const double start = clock_seconds(), cpu_start = clock_cpu_seconds();
    uint32_t done = 0;
    do {
        TRY(run(k, &seconds[done]));
        seconds[done++] /= repeats;
    } while (done < *n && clock_seconds() - start < most);
    *n = done;
    *cpu = (clock_cpu_seconds() - cpu_start) / done / repeats;
error:
    return err;
}

double kernel_flop(const kernel *k)
{
    return k->flop;
}

double kernel_bytes(const kernel *k)
{
    return k->bytes;
}

bool kernel_way(const kernel *k, matmul_way *way)
{
    *way = k->way;
    return k->way < MATMUL_WAYS;
}

kim_err kernel_figures(kernel *k, double *registers, double *spills)
{
    kim_err err = KIM_OK;
    pipeline_figures figures;
    *registers = *spills = NAN;
    if (!k->class->pipeline)
        return KIM_OK;
    const pipeline_key key = k->class->pipeline(k);
    TRY(pipeline_get_figures(k->gpu, &key, &figures));
    *registers = figures.values[PIPELINE_REGISTERS];
    *spills = figures.values[PIPELINE_SPILLS];
error:
    return err;
}
