// SPDX-License-Identifier: MIT
// What a device reaches at best, measured.
#include "peaks.h"

// Of the source: beyond the caches of today's devices; and where memory is short.
#define COPY_BYTES (256u << 20)
#define CPU_COPY_BYTES (64u << 20)
#define LEAST_COPY_BYTES (16u << 20)
#define FP32_LANES (1u << 20)
#define FP32_LEAST_SECONDS 5e-3
#define FP32_MOST_ROUNDS 4096
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

kim_err peak_fp32(stream *st, const span *sums, uint32_t rounds)
{
    const struct peak_fp32_args args = {
        .y = span_handle(sums),
        .rounds = rounds,
        .factor = 1,
        .term = 1,
    };
    const uint32_t lanes = (uint32_t)(sums->bytes / 4);
    const span_use writes = WRITES(*sums);
    return stream_dispatch(st, &(dispatch){
                                   .key = { KIM_VARIANT_PEAK_FP32, { PEAK_WORKGROUP } },
                                   .args = &args,
                                   .args_bytes = sizeof args,
                                   .groups = { lanes / PEAK_WORKGROUP, 1, 1 },
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

static kim_err measure_fp32(kim_gpu *gpu, stream *st, double *peak)
{
    kim_err err = KIM_OK;
    pool memory = { 0 };
    span sums;
    double seconds = 0;
    uint32_t rounds = 2;
    pool_init(&memory, "measuring arithmetic", POOL_DEVICE, 0);
    TRY(pool_place(&memory, FP32_LANES * 4ull, &sums));
    TRY(pool_commit(&memory, gpu));
    do {
        rounds *= 2;
        TRY(stream_reset(st));
        TRY(peak_fp32(st, &sums, rounds));
        TRY(run(st, &seconds)); // maybe in small submits, as it is not known yet
        TRY(run(st, &seconds));
    } while (seconds < FP32_LEAST_SECONDS && rounds < FP32_MOST_ROUNDS);
    TRY(best_rate(st, 2.0 * PEAK_FP32_CHAINS * PEAK_FP32_STEPS * FP32_LANES * rounds, peak));
error:
    (void)stream_reset(st);
    pool_destroy(&memory);
    return err;
}

kim_err kim_gpu_measure_peaks(kim_gpu *gpu, double *peaks)
{
    static kim_err (*const measure[KIM_PEAK_COUNT])(kim_gpu * gpu, stream * st, double *peak) = {
        [KIM_PEAK_COPY] = measure_copy,
        [KIM_PEAK_FP32] = measure_fp32,
    };
    kim_err err = KIM_OK;
    stream *st = NULL;
    if (!gpu || !peaks)
        FAIL(KIM_ERR_ARGUMENT, "kim_gpu_measure_peaks: an argument is NULL");
    TRY(stream_create(&st, gpu));
    for (int i = 0; i < KIM_PEAK_COUNT; i++)
        TRY(measure[i](gpu, st, &peaks[i]));
error:
    stream_destroy(&st);
    return err;
}
