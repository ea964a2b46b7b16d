// SPDX-License-Identifier: MIT
// kim bench model: tests of several sessions that are decoded together.
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// One of the sessions of a run.
typedef struct one {
    uint64_t id;
    uint32_t given;     // tokens
    double first_token; // when
    kim_err failed;
} one;

static one all[BENCH_MOST_SESSIONS];

static bool count(void *user, const kim_answer_token *token)
{
    one *o = user;
    (void)token;
    if (o->given++ == 0)
        o->first_token = now_seconds();
    return true;
}

static void note_end(void *user, const kim_request_end *end)
{
    ((one *)user)->failed = end->err;
}

// Adds a request to each session: the first `prompt` tokens, of which the first one is another in
// each, and an answer that ends nowhere.
static kim_err add_all(bench *b, const bench_row *r, uint32_t prompt, uint32_t most)
{
    const int32_t none = 0;
    int32_t *tokens = checked(malloc(prompt * sizeof *tokens));
    kim_err err = KIM_OK;
    memcpy(tokens, b->tokens, prompt * sizeof *tokens);
    for (uint32_t i = 0; !err && i < r->n_sessions; i++) {
        all[i] = (one){ 0 };
        tokens[0] = (int32_t)(i % b->info.vocab);
        err = kim_batch_add(
            b->together,
            &(kim_request){
                .prompt = { .tokens = tokens, .count = prompt },
                .sampling = { .greedy = true },
                .answer = { .most = most, .stops = &none, .token = count, .user = &all[i] },
                .ended = note_end },
            &all[i].id);
    }
    free(tokens);
    return err;
}

static bool all_answer(const bench_row *r)
{
    for (uint32_t i = 0; i < r->n_sessions; i++)
        if (!all[i].given)
            return false;
    return true;
}

// Tokens decoded while the last ones still read, at most, and some to spare.
static uint32_t ahead(const bench_row *r)
{
    return 2 * r->n_sessions + 8;
}

// Each session has read `depth` tokens. Prompts were read: a new batch, which keeps none of them.
kim_err bench_prepare_sessions(bench *b, const bench_row *r)
{
    const uint32_t positions = r->n_depth + r->n_prompt + r->n_gen + ahead(r);
    kim_err err = KIM_OK;
    if (r->n_prompt)
        kim_batch_destroy(&b->together);
    if (!b->together)
        err = kim_batch_create(&b->together, b->o.model,
                               &(kim_batch_params){ .sessions = r->n_sessions,
                                                    .context = positions,
                                                    .batch = (uint32_t)given.batch,
                                                    .kv_type = session_params(0).kv_type });
    if (!err && r->n_depth && r->n_prompt) {
        err = add_all(b, r, r->n_depth, 1);
        if (!err)
            err = kim_batch_run(b->together);
    }
    if (err || r->n_prompt)
        return err;
    // tokens alone: all are there when the clock starts
    err = add_all(b, r, r->n_depth ? r->n_depth : 1, r->n_gen + ahead(r));
    while (!err && !all_answer(r))
        err = kim_batch_step(b->together, NULL);
    return err;
}

kim_err bench_run_sessions(bench *b, const bench_row *r, run_result *out)
{
    kim_batch_stats before, after;
    kim_err err = KIM_OK;
    kim_batch_get_stats(b->together, &before);
    const moment start = take_moment(b);
    if (r->n_prompt) { // to the first token, or to the last
        err = add_all(b, r, r->n_depth + r->n_prompt, r->n_gen ? r->n_gen : 1);
        if (!err)
            err = kim_batch_run(b->together);
    } else {
        for (uint32_t i = 0; !err && i < r->n_gen; i++)
            err = kim_batch_step(b->together, NULL);
    }
    add_time(out, start, take_moment(b));
    kim_batch_get_stats(b->together, &after);
    out->steps = (uint32_t)(after.pieces - before.pieces + after.steps - before.steps);
    for (uint32_t i = 0; r->n_prompt && i < r->n_sessions; i++) // the mean
        out->first_token =
            (i ? out->first_token : 0) + (all[i].first_token - start.now) / r->n_sessions;
    for (uint32_t i = 0; i < r->n_sessions; i++)
        (void)kim_batch_cancel(b->together, all[i].id);
    if (!err)
        err = kim_batch_run(b->together);
    for (uint32_t i = 0; !err && i < r->n_sessions; i++)
        err = all[i].failed;
    return err;
}
