// SPDX-License-Identifier: MIT
// What a device reaches at best, measured.
#include "peaks.h"

// Of the source: beyond the caches of today's devices; and where memory is short.
#define COPY_BYTES (256u << 20)
#define CPU_COPY_BYTES (64u << 20)
#define LEAST_COPY_BYTES (16u << 20)
#define LANES (1u << 20) // of arithmetic
#define LEAST_SECONDS 5e-3
#define MOST_ROUNDS 4096
#define RUNS 8           // of which the best counts, after one that does not
#define ENOUGH_SECONDS 1 // of all runs: a device that slow is measured well by fewer

kim_err peak_copy(stream *st, const span *to, const span *from)
{
    const struct peak_copy_args args = { .x = span_handle(from), .y = span_handle(to) };
    const span_use accesses[] = { READS(*from), WRITES(*to) };
    return stream_dispatch(st, &(dispatch){
                                   .key = { KIM_VARIANT_PEAK_COPY, { PEAK_WORKGROUP } },
                                   .args = &args,
                                   .args_bytes = sizeof args,
                                   .groups = { (uint32_t)(to->bytes / PEAK_COPY_PIECE), 1, 1 },
                                   .work = (double)to->bytes,
                                   .accesses = accesses,
                                   .n_accesses = 2,
                               });
}

bool peak_has(const kim_gpu *gpu, kim_peak peak)
{
    switch (peak) {
    case KIM_PEAK_FP16: return gpu->info.float16;
    case KIM_PEAK_INT8_DOT: return gpu->info.integer_dot_product;
    case KIM_PEAK_HALF_MATRIX: return gpu->matmul_ways >> MATMUL_HALF & 1;
    case KIM_PEAK_INT8_MATRIX: return gpu->matmul_ways >> MATMUL_INT8 & 1;
    default: return true;
    }
}

static const kim_matrix_shape *matrix_of(const kim_gpu *gpu, kim_peak peak)
{
    return peak == KIM_PEAK_HALF_MATRIX   ? &gpu->info.matrix_half
           : peak == KIM_PEAK_INT8_MATRIX ? &gpu->info.matrix_int8
                                          : NULL;
}

// Of matrices four subgroups, as products have them.
static pipeline_key pipeline_of(const kim_gpu *gpu, kim_peak peak)
{
    static const enum kim_variant variants[KIM_PEAK_COUNT] = {
        [KIM_PEAK_COPY] = KIM_VARIANT_PEAK_COPY,
        [KIM_PEAK_FP32] = KIM_VARIANT_PEAK_FP32,
        [KIM_PEAK_FP16] = KIM_VARIANT_PEAK_FP16,
        [KIM_PEAK_INT8_DOT] = KIM_VARIANT_PEAK_DOT,
        [KIM_PEAK_HALF_MATRIX] = KIM_VARIANT_PEAK_HALF_MATRIX,
        [KIM_PEAK_INT8_MATRIX] = KIM_VARIANT_PEAK_INT8_MATRIX,
    };
    const kim_matrix_shape *m = matrix_of(gpu, peak);
    if (!m)
        return (pipeline_key){ variants[peak], { PEAK_WORKGROUP } };
    const bool of_32 = gpu->info.subgroup_min <= 32 && gpu->info.subgroup_max >= 32;
    const uint32_t subgroup = of_32 ? 32 : gpu->info.subgroup_size;
    return (pipeline_key){ variants[peak],
                           { 4 * subgroup, [SPEC_E - SPEC_WORKGROUP] = m->rows, m->columns,
                             m->depth, subgroup } };
}

uint32_t peak_workgroup(const kim_gpu *gpu, kim_peak peak)
{
    return pipeline_of(gpu, peak).constants[0];
}

double peak_operations(const kim_gpu *gpu, kim_peak peak)
{
    const kim_matrix_shape *m = matrix_of(gpu, peak);
    if (m) // of a subgroup, which four of are a workgroup
        return 2.0 * m->rows * m->columns * m->depth * PEAK_MATRIX_CHAINS * PEAK_FP32_STEPS * 4 /
               peak_workgroup(gpu, peak);
    return (peak == KIM_PEAK_INT8_DOT ? 8.0 : 2.0) * PEAK_FP32_CHAINS * PEAK_FP32_STEPS;
}

kim_err peak_arithmetic(stream *st, kim_peak peak, const span *sums, uint32_t rounds)
{
    const struct peak_args args = {
        .y = span_handle(sums),
        .rounds = rounds,
        .factor = 1,
        .term = 1,
    };
    const uint32_t lanes = (uint32_t)(sums->bytes / 4);
    const span_use writes = WRITES(*sums);
    const pipeline_key key = pipeline_of(stream_gpu(st), peak);
    return stream_dispatch(st, &(dispatch){
                                   .key = key,
                                   .args = &args,
                                   .args_bytes = sizeof args,
                                   .groups = { lanes / key.constants[0], 1, 1 },
                                   .work = (double)lanes * rounds,
                                   .accesses = &writes,
                                   .n_accesses = 1,
                               });
}

static kim_err run(stream *st, double *seconds)
{
    kim_err err = KIM_OK;
    stream_stats stats;
    TRY(stream_submit(st));
    TRY(stream_wait(st));
    stream_get_stats(st, &stats);
    *seconds = stats.last_seconds;
error:
    return err;
}

// The list as it stands, `work` of it a run. rate: of the best run, a second
static kim_err best_rate(stream *st, double work, double *rate)
{
    kim_err err = KIM_OK;
    double seconds, all = 0;
    *rate = 0;
    TRY(run(st, &seconds));
    for (int i = 0; i < RUNS && all < ENOUGH_SECONDS; i++) {
        TRY(run(st, &seconds));
        all += seconds;
        if (seconds > 0 && work / seconds > *rate)
            *rate = work / seconds;
    }
error:
    return err;
}

// Two spans of as many bytes as there is memory for, COPY_BYTES at most.
static kim_err take_copy_memory(pool *p, kim_gpu *gpu, span spans[2])
{
    const uint64_t most = gpu->info.type == KIM_DEVICE_CPU ? CPU_COPY_BYTES : COPY_BYTES;
    uint64_t bytes = pool_limit_of(gpu) < most ? pool_limit_of(gpu) : most;
    for (;; bytes /= 2) {
        kim_err err = KIM_OK;
        pool_init(p, "measuring copies", POOL_DEVICE, pool_limit_of(gpu));
        bytes -= bytes % PEAK_COPY_PIECE;
        for (int i = 0; !err && i < 2; i++)
            err = pool_place(p, bytes, &spans[i]);
        err = err ? err : pool_commit(p, gpu);
        if (err != KIM_ERR_DEVICE_MEMORY || bytes / 2 < LEAST_COPY_BYTES)
            return err;
        pool_destroy(p);
    }
}

static kim_err measure_copy(kim_gpu *gpu, stream *st, double *peak)
{
    kim_err err = KIM_OK;
    pool memory = { 0 };
    span spans[2];
    TRY(take_copy_memory(&memory, gpu, spans));
    TRY(stream_reset(st));
    TRY(stream_fill(st, &spans[1], 0x9e3779b9u)); // pages that nobody wrote may be no memory yet
    TRY(stream_submit(st));
    TRY(stream_reset(st));
    TRY(peak_copy(st, &spans[0], &spans[1]));
    TRY(best_rate(st, 2.0 * (double)spans[0].bytes, peak));
error:
    (void)stream_reset(st); // its commands name the memory
    pool_destroy(&memory);
    return err;
}

static kim_err measure_arithmetic(kim_gpu *gpu, stream *st, kim_peak kind, double *peak)
{
    kim_err err = KIM_OK;
    pool memory = { 0 };
    span sums;
    double seconds = 0;
    uint32_t rounds = 2;
    pool_init(&memory, "measuring arithmetic", POOL_DEVICE, 0);
    TRY(pool_place(&memory, LANES * 4ull, &sums));
    TRY(pool_commit(&memory, gpu));
    do {
        rounds *= 2;
        TRY(stream_reset(st));
        TRY(peak_arithmetic(st, kind, &sums, rounds));
        TRY(run(st, &seconds)); // maybe in small submits, as it is not known yet
        TRY(run(st, &seconds));
    } while (seconds < LEAST_SECONDS && rounds < MOST_ROUNDS);
    TRY(best_rate(st, peak_operations(gpu, kind) * LANES * rounds, peak));
error:
    (void)stream_reset(st);
    pool_destroy(&memory);
    return err;
}

kim_err kim_gpu_measure_peaks(kim_gpu *gpu, double *peaks)
{
    kim_err err = KIM_OK;
    stream *st = NULL;
    if (!gpu || !peaks)
        FAIL(KIM_ERR_ARGUMENT, "kim_gpu_measure_peaks: an argument is NULL");
    TRY(stream_create(&st, gpu));
    TRY(measure_copy(gpu, st, &peaks[KIM_PEAK_COPY]));
    for (kim_peak peak = KIM_PEAK_FP32; peak < KIM_PEAK_COUNT; peak++) {
        peaks[peak] = 0;
        if (peak_has(gpu, peak))
            TRY(measure_arithmetic(gpu, st, peak, &peaks[peak]));
    }
error:
    stream_destroy(&st);
    return err;
}
