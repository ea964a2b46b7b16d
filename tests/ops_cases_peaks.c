// SPDX-License-Identifier: MIT
// What peaks are measured with: the shaders by their definition, and that a measurement ends.
#include "ops_cases.h"

#include <math.h>
#include <string.h>

#include "host/peaks.h"

static void copy_case(ops_run *run)
{
    enum { BYTES = 3 * PEAK_COPY_PIECE };
    ops_case c;
    case_begin(&c, run, "peak_copy");
    const span from = case_place(&c, BYTES), to = case_place(&c, BYTES);
    case_commit(&c);
    uint32_t *words = case_data(&from);
    for (uint32_t i = 0; i < BYTES / 4; i++)
        words[i] = ops_random();
    MUST(peak_copy(run->st, &to, &from));
    case_run(&c);
    const uint32_t *got = case_data(&to);
    for (uint32_t i = 0; i < BYTES / 4; i++)
        case_check(&c, "y", i, got[i], words[i], 0);
    case_end(&c);
}

// With a factor and a term of 1 the chains count: every one of them has to be there, to the end.
// Dot products take the lowest byte of what was there.
static double counted(const ops_run *run, kim_peak peak, uint32_t lane, uint32_t steps)
{
    double sum = 0;
    if (peak == KIM_PEAK_HALF_MATRIX || peak == KIM_PEAK_INT8_MATRIX) {
        const kim_device_info *d = &run->gpu->info;
        const uint32_t depth =
            peak == KIM_PEAK_HALF_MATRIX ? d->matrix_half.depth : d->matrix_int8.depth;
        for (uint32_t j = 0; j < PEAK_MATRIX_CHAINS; j++)
            sum += j + (double)depth * steps;
        return sum;
    }
    for (uint32_t j = 0; j < PEAK_FP32_CHAINS; j++) {
        int v = (int)(lane % 16 + j);
        for (uint32_t i = 0; i < steps; i++)
            v = (peak == KIM_PEAK_INT8_DOT ? (int8_t)v : v) + 1;
        sum += v;
    }
    return sum;
}

static void arithmetic_case(ops_run *run, kim_peak peak, uint32_t groups, uint32_t rounds)
{
    ops_case c;
    if (!peak_has(run->gpu, peak))
        return;
    const uint32_t lanes = groups * peak_workgroup(run->gpu, peak);
    case_begin(&c, run, "peak %d, %u lanes, %u rounds", (int)peak, lanes, rounds);
    const span sums = case_place_floats(&c, lanes);
    case_commit(&c);
    MUST(peak_arithmetic(run->st, peak, &sums, rounds));
    case_run(&c);
    const float *got = case_data(&sums);
    for (uint32_t i = 0; i < lanes; i++)
        case_check(&c, "y", i, got[i], counted(run, peak, i, PEAK_FP32_STEPS * rounds), 0);
    case_end(&c);
}

// Without the validation layers, under which nobody measures: those of Debian 12 now and then wait
// for their own queue thread in vain, and say so ("most likely a validation bug").
static void measure_case(ops_run *run)
{
    double peaks[KIM_PEAK_COUNT] = { 0 };
    kim_gpu *gpu = NULL;
    ops_case c;
    case_begin(&c, run, "kim_gpu_measure_peaks");
    case_commit(&c);
    MUST(kim_gpu_create(
        &gpu, &(kim_gpu_params){
                  .device = kim_gpu_info(run->gpu)->uuid,
                  .memory_mode = run->gpu->address ? KIM_MEMORY_ADDRESS : KIM_MEMORY_TABLE,
                  .cache_dir = "",
              }));
    MUST(kim_gpu_measure_peaks(gpu, peaks));
    for (uint32_t i = 0; i < KIM_PEAK_COUNT; i++)
        case_check(&c, "a number above 0", i, peaks[i] > 0 && isfinite(peaks[i]),
                   peak_has(gpu, (kim_peak)i), 0);
    case_check(&c, "memory given back", 0, (double)kim_gpu_memory_used(gpu), 0, 0);
    kim_gpu_destroy(&gpu);
    case_end(&c);
}

void cases_peaks(ops_run *run)
{
    copy_case(run);
    for (kim_peak peak = KIM_PEAK_FP32; peak < KIM_PEAK_COUNT; peak++) {
        arithmetic_case(run, peak, 1, 1);
        arithmetic_case(run, peak, 3, 17);
    }
    measure_case(run);
}
