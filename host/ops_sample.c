// SPDX-License-Identifier: MIT
// The operation that draws the next token, or as many as drafts are right, and moves the session
// on; see shaders/sample.glsl. And the one by which a session's tokens become drafts.
#include "ops.h"

#include "ops_pipelines.h"

// Behind the parts: workgroups leave all of their parts, also of ids that there are not.
static uint64_t list_offset(uint32_t vocab)
{
    const uint64_t parts =
        (uint64_t)divide_up(vocab, SAMPLE_MOST_CHUNK) * SAMPLE_MOST_CHUNK / SAMPLE_LEAST_CHUNK;
    return (SAMPLE_PARTS + parts * SAMPLE_PART_WORDS) * 4;
}

uint64_t sample_scratch_bytes(uint32_t vocab)
{
    uint64_t candidates = 1;
    while (candidates < vocab)
        candidates *= 2;
    return (list_offset(vocab) + candidates * 8 + 15) & ~15ull;
}

static kim_err add_stage(stream *st, const sample_params *p, enum kim_variant stage)
{
    const pipeline_key key = sample_pipeline(stream_gpu(st), stage);
    const uint32_t chunk = key.constants[SAMPLE_CHUNK];
    const uint32_t groups = chunk ? divide_up(p->vocab, chunk) : 1;
    const uint32_t rows = p->rows ? p->rows : 1;
    const bool moves_on = stage == KIM_VARIANT_SAMPLE_GREEDY || stage == KIM_VARIANT_SAMPLE_DRAW;
    const struct sample_args args = {
        .logits = handle_part(st, p->logits, p->logits_at),
        .control = span_handle(p->control),
        .history = span_handle(p->history),
        .sampling = span_handle(p->sampling),
        .scratch = span_handle(p->scratch),
        .results = span_handle(p->results),
        .vocab = p->vocab,
        .row = p->first_row,
        .groups = groups,
        .list = (uint32_t)list_offset(p->vocab),
        .rows = rows,
        .stride = (uint32_t)(p->logits->bytes / 4 / rows),
        .scratch_row = (uint32_t)sample_scratch_bytes(p->vocab),
    };
    // what the lists of candidates take depends on the logits: only the parts are counted
    const uint64_t parts = 4ull * divide_up(p->vocab, SAMPLE_LEAST_CHUNK) * SAMPLE_PART_WORDS;
    const span_use accesses[] = {
        READS_SOME(*p->logits, chunk ? 4ull * p->vocab : 0),
        READS(*p->sampling),
        CHANGES(*p->scratch, parts),
        { .span = *p->control, .write = moves_on, .read = 16, .written = moves_on ? 16 : 0 },
        { .span = *p->history, .write = moves_on, .written = moves_on ? 4 : 0 },
        WRITES_SOME(*p->results, 16),
    };
    const dispatch d = {
        .key = key,
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { groups, rows, 1 },
        .work = (double)rows * p->vocab,
        .accesses = accesses,
        .n_accesses = moves_on ? 6 : 5,
        .note = { .op = { .sizes = { { "vocab", p->vocab } } }, // named as the shader
                  .flop = chunk ? p->vocab : 0 },
    };
    return stream_dispatch(st, &d);
}

kim_err op_sample_each(stream *st, const sample_params *list, uint32_t n)
{
    kim_err err = KIM_OK;
    static const enum kim_variant stages[] = {
        KIM_VARIANT_SAMPLE_MAX,
        KIM_VARIANT_SAMPLE_COUNT,
        KIM_VARIANT_SAMPLE_GATHER,
        KIM_VARIANT_SAMPLE_DRAW,
    };
    for (uint32_t i = 0; i < n; i++)
        if (list[i].greedy)
            TRY(add_stage(st, &list[i], KIM_VARIANT_SAMPLE_GREEDY));
    // stage by stage: what waits for the stage before waits once for that of all sessions
    for (uint32_t stage = 0; stage < sizeof stages / sizeof *stages; stage++)
        for (uint32_t i = 0; i < n; i++)
            if (!list[i].greedy)
                TRY(add_stage(st, &list[i], stages[stage]));
error:
    return err;
}

kim_err op_sample(stream *st, const sample_params *p)
{
    return op_sample_each(st, p, 1);
}

kim_err op_propose(stream *st, const propose_params *p)
{
    const struct propose_args args = {
        .from_control = span_handle(p->from_control),
        .from_history = span_handle(p->from_history),
        .control = span_handle(p->control),
        .history = span_handle(p->history),
        .drafts = p->drafts,
    };
    const span_use accesses[] = {
        READS(*p->from_control),
        READS(*p->from_history),
        WRITES(*p->control),
        WRITES(*p->history),
    };
    const dispatch d = {
        .key = propose_pipeline(stream_gpu(st)),
        .args = &args,
        .args_bytes = sizeof args,
        .groups = { 1, 1, 1 },
        .work = p->drafts,
        .accesses = accesses,
        .n_accesses = 4,
        .note = { .op = { .sizes = { { "drafts", p->drafts } } } },
    };
    return stream_dispatch(st, &d);
}
