// SPDX-License-Identifier: MIT
// kim bench model --trace: a step of each test once more, command by command. What is measured is
// measured without it.
#include "bench.h"
#include "trace.h"

typedef struct collector {
    cJSON *list;
    uint64_t only; // this run; 0: all
    bool print;
} collector;

static void collect(void *user, const kim_trace_event *e)
{
    collector *c = user;
    if (c->only && e->run != c->only)
        return;
    cJSON_AddItemToArray(c->list, trace_json(e));
    if (c->print)
        trace_print(stderr, e);
}

static void begin(const bench *b, collector *c)
{
    kim_gpu_set_trace(b->o.gpu, collect, c);
}

// The last batch of the prompt.
static kim_err trace_prompt(const bench *b, const bench_row *r, collector *c)
{
    const uint32_t rest = r->n_prompt % b->batch, rows = rest ? rest : b->batch;
    const uint32_t position = r->n_depth + r->n_prompt - rows;
    kim_err err = bench_prepare(b, position);
    if (err)
        return err;
    begin(b, c);
    return kim_session_append(b->o.session, b->tokens + position, rows);
}

// The last token. Of an answer of two the second run is a step that reads one and draws the next;
// the first only draws, and the last makes logits for the host.
static kim_err trace_token(const bench *b, const bench_row *r, collector *c)
{
    static const int32_t none;
    const uint32_t end = r->n_depth + r->n_prompt + r->n_gen, position = end > 1 ? end - 1 : 1;
    kim_sampler *sampler = NULL;
    kim_err err = bench_prepare(b, position - 1);
    if (!err)
        err = kim_session_append(b->o.session, b->tokens + position - 1, 1);
    if (!err)
        err = kim_sampler_create(&sampler, &(kim_sampling){ .greedy = true });
    c->only = 2;
    begin(b, c);
    if (!err)
        err = kim_session_answer(b->o.session, sampler,
                                 &(kim_answer_params){ .most = 2, .stops = &none }, NULL);
    kim_sampler_destroy(&sampler);
    return err;
}

kim_err bench_trace(bench *b, bench_row *r)
{
    collector c = { .list = checked(cJSON_CreateArray()), .print = b->print_trace };
    kim_err err = KIM_OK;
    r->trace = c.list;
    if (c.print)
        fprintf(stderr, "%strace of %s\n", r == b->rows ? "" : "\n", r->test);
    if (r->n_prompt)
        err = trace_prompt(b, r, &c);
    kim_gpu_set_trace(b->o.gpu, NULL, NULL);
    if (!err && r->n_gen)
        err = trace_token(b, r, &c);
    kim_gpu_set_trace(b->o.gpu, NULL, NULL);
    if (!err && r->n_images) {
        begin(b, &c);
        err = bench_encode(b, r->n_images, NULL);
    }
    kim_gpu_set_trace(b->o.gpu, NULL, NULL);
    return err;
}
