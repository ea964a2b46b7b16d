// SPDX-License-Identifier: MIT
// The kernel that draws a token.
#include "kernel_parts.h"

#include "reference_ops.h"
#include "reference_sample.h"

#include <math.h>
#include <string.h>

#define PROMPT 20 // tokens that are there before

enum { LOGITS, CONTROL, HISTORY, SAMPLING, SCRATCH, RESULTS };

static kim_err place_sample(kernel *k)
{
    kim_err err = KIM_OK;
    TRY(kernel_place_floats(k, k->p.width));
    TRY(kernel_place_floats(k, CONTROL_ROW(1, 0)));
    TRY(kernel_place_floats(k, PROMPT + SAMPLE_DRAWS));
    TRY(kernel_place(k, sizeof(struct sampling_block)));
    TRY(kernel_place(k, sample_scratch_bytes(k->p.width)));
    TRY(kernel_place_floats(k, 4 * SAMPLE_SLOTS));
    k->flop = k->p.width;
    k->bytes = 4.0 * k->p.width;
error:
    return err;
}

static kim_err fill_sample(kernel *k)
{
    uint32_t *control = kernel_data(k, CONTROL);
    int32_t *history = kernel_data(k, HISTORY);
    struct sampling_block *block = kernel_data(k, SAMPLING);
    ops_fill_normal(kernel_data(k, LOGITS), k->p.width, 3 * kernel_spread(k));
    memset(kernel_data(k, SCRATCH), 0, k->spans[SCRATCH].bytes);
    control[CONTROL_POSITION] = PROMPT - 1;
    control[CONTROL_STEP] = control[CONTROL_STOPPED] = 0;
    for (uint32_t i = 0; i < PROMPT; i++)
        history[i] = (int32_t)(ops_random() % k->p.width);
    *block = (struct sampling_block){
        .temperature = 1,
        .top_k = 64,
        .top_p = 0.95f,
        .repeat_penalty = 1.1f,
        .repeat_last = 64,
    };
    for (uint32_t i = 0; i < SAMPLE_DRAWS; i++)
        block->draws[i] = ldexpf((float)(ops_random() >> 8), -24);
    return KIM_OK;
}

static kim_err record_sample(kernel *k, uint32_t copy)
{
    (void)copy;
    return op_sample(k->st, &(sample_params){
                                .logits = &k->spans[LOGITS],
                                .control = &k->spans[CONTROL],
                                .history = &k->spans[HISTORY],
                                .sampling = &k->spans[SAMPLING],
                                .scratch = &k->spans[SCRATCH],
                                .results = &k->spans[RESULTS],
                                .vocab = k->p.width,
                                .greedy = k->p.greedy,
                            });
}

static kim_err check_sample(kernel *k)
{
    kim_err err = KIM_OK;
    const float *x = kernel_data(k, LOGITS);
    const uint32_t *control = kernel_data(k, CONTROL), *result = kernel_data(k, RESULTS);
    const int32_t *history = kernel_data(k, HISTORY);
    const uint32_t id = result[SAMPLE_RESULT_ID], vocab = k->p.width;
    uint32_t best = 0;
    float logprob;
    memcpy(&logprob, &result[SAMPLE_RESULT_LOGPROB], sizeof logprob);
    for (uint32_t i = 1; i < vocab; i++)
        best = x[i] > x[best] ? i : best;
    kernel_compare(k, "mark", 0, result[SAMPLE_RESULT_MARK], 1, 0);
    kernel_compare(k, "status", 0, result[SAMPLE_RESULT_STATUS], SAMPLE_OK, 0);
    kernel_compare(k, "position", 0, control[CONTROL_POSITION], PROMPT, 0);
    kernel_compare(k, "step", 0, control[CONTROL_STEP], 1, 0);
    kernel_compare(k, "token", 0, control[CONTROL_ROW(0, CONTROL_ROW_TOKEN)], id, 0);
    kernel_compare(k, "history", PROMPT, history[PROMPT], id, 0);
    if (k->p.greedy || id >= vocab) {
        kernel_compare(k, "id", 0, id, best, 0);
    } else {
        bool may[2];
        TRY(reference_may_draw(kernel_data(k, SAMPLING), x, vocab, history, PROMPT, 0,
                               (uint32_t[2]){ id, best }, may));
        kernel_compare(k, "an id that may be drawn", id, may[0], 1, 0);
    }
    if (id < vocab) {
        const double want = x[id] - reference_log_sum(x, vocab);
        kernel_compare(k, "logprob", 0, logprob, want, 2e-5 + ldexp(4, -24) * fabs(want));
    }
error:
    return err;
}

static pipeline_key pipeline_of_sample(const kernel *k)
{
    return sample_pipeline(k->gpu,
                           k->p.greedy ? KIM_VARIANT_SAMPLE_GREEDY : KIM_VARIANT_SAMPLE_MAX);
}

const kernel_class kernel_sample = {
    .name = "sample",
    .place = place_sample,
    .fill = fill_sample,
    .record = record_sample,
    .check = check_sample,
    .pipeline = pipeline_of_sample,
    .moves_on = true,
};
