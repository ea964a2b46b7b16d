// SPDX-License-Identifier: MIT
// A session: reads tokens in batches, keeps their K and V, gives the logits of the last.
#include "session.h"

#include "sampler.h"

#include "host/error.h"
#include "host/ops_pipelines.h"

#include <stdlib.h>
#include <string.h>

static kim_err fill_zero(kim_session *s)
{
    kim_err err = KIM_OK;
    stream *st = s->decode.st;
    pool *const pools[] = { &s->memory.local, &s->memory.global, &s->memory.activations };
    // Attention multiplies the V of masked keys by 0, and matmuls the padding of rows: neither may
    // be what was in memory before, which could be a NaN.
    for (size_t i = 0; i < sizeof pools / sizeof pools[0]; i++)
        for (uint32_t b = 0; b < pools[i]->n_blocks; b++) {
            const span all = { pools[i], b, 0, pools[i]->blocks[b].bytes };
            TRY(stream_fill(st, &all, 0));
        }
    TRY(stream_submit(st));
    TRY(stream_reset(st));
error:
    return err;
}

static uint32_t weight_bits(const linear *l)
{
    uint32_t bits = 0;
    for (uint32_t i = 0; i < l->n_parts; i++)
        bits |= 1u << (l->parts[i].type - weight_types);
    return bits;
}

// Makes all pipelines of this session now and at once, not one by one in the middle of an answer.
static kim_err create_pipelines(const kim_session *s)
{
    kim_err err = KIM_OK;
    const kim_model *m = s->model;
    const head_shape shape = { m->arch.heads, m->arch.kv_heads, m->arch.head };
    const uint32_t keys[2] = { m->arch.window ? m->arch.window : s->context, s->context };
    ops_needs needs = {
        .matmul = weight_bits(&m->embedding),
        .embed = weight_bits(&m->embedding),
        .shapes = &shape,
        .n_shapes = 1,
        .keys = keys,
        .n_keys = 2,
        .rows = s->batch,
    };
    for (uint32_t i = 0; i < m->arch.layers; i++) {
        const layer_weights *w = &m->layers[i];
        needs.matmul |= weight_bits(&w->qkv) | weight_bits(&w->o) | weight_bits(&w->down);
        *(w->gate_up.paired ? &needs.paired : &needs.matmul) |= weight_bits(&w->gate_up);
    }
    pipeline_key *list = NULL;
    uint32_t count;
    TRY(ops_list_pipelines(m->gpu, &needs, &list, &count));
    TRY(pipeline_get_all(m->gpu, list, count));
error:
    free(list);
    return err;
}

kim_err kim_session_create(kim_session **out, kim_model *model, const kim_session_params *params)
{
    kim_err err = KIM_OK;
    kim_session *s = NULL;
    kim_session_params p;
    if (!out || !model)
        FAIL(KIM_ERR_ARGUMENT, "kim_session_create: out or model is NULL");
    *out = NULL;
    if (!model->gpu)
        FAIL(KIM_ERR_ARGUMENT, "kim_session_create: the model was opened without a gpu");
    TRY(session_params_fill(model, params, &p));
    s = calloc(1, sizeof *s);
    REQUIRE_MEMORY(s);
    s->model = model;
    s->context = p.context;
    s->batch = p.batch;
    s->tokens = malloc(p.context * sizeof *s->tokens);
    REQUIRE_MEMORY(s->tokens);
    TRY(session_place(&s->memory, model, model->gpu, &p));
    TRY(pool_commit(&s->memory.local, model->gpu));
    TRY(pool_commit(&s->memory.global, model->gpu));
    TRY(pool_commit(&s->memory.activations, model->gpu));
    TRY(pool_commit(&s->memory.upload, model->gpu));
    TRY(pool_commit(&s->memory.readback, model->gpu));
    TRY(create_pipelines(s));
    TRY(stream_create(&s->decode.st, model->gpu));
    TRY(stream_create(&s->prompt.st, model->gpu));
    TRY(fill_zero(s));
    *out = s;
    return KIM_OK;
error:
    kim_session_destroy(&s);
    return err;
}

void kim_session_destroy(kim_session **session)
{
    if (!session || !*session)
        return;
    kim_session *s = *session;
    stream_destroy(&s->decode.st);
    stream_destroy(&s->prompt.st);
    session_memory_destroy(&s->memory);
    free(s->tokens);
    free(s);
    *session = NULL;
}

uint32_t kim_session_position(const kim_session *session)
{
    return session->position;
}

uint32_t kim_session_context(const kim_session *session)
{
    return session->context;
}

const int32_t *kim_session_tokens(const kim_session *session)
{
    return session->tokens;
}

const float *kim_session_logits(const kim_session *session)
{
    return session->has_logits ? span_map(&session->memory.logits_back) : NULL;
}

// Runs one batch at the session's position. It moves on only if all went well.
//
// next: tokens[rows] exists: the one after the batch, for the score of the last
static kim_err run_step(kim_session *s, const int32_t *tokens, uint32_t rows, step_output output,
                        bool next)
{
    kim_err err = KIM_OK;
    step_stream *step = rows == 1 && output == STEP_LOGITS ? &s->decode : &s->prompt;
    const uint32_t scored = output == STEP_SCORES ? rows + next : 0;
    if (step->rows != rows || step->output != output || step->scored != scored) {
        step->rows = 0;
        TRY(stream_reset(step->st));
        TRY(forward_record(step->st, s->model, &s->memory, rows, output, scored));
        step->rows = rows;
        step->output = output;
        step->scored = scored;
    }
    uint32_t *control = span_map(&s->memory.control);
    control[CONTROL_POSITION] = s->position;
    memcpy(control + CONTROL_TOKENS, tokens, (rows + next) * sizeof *tokens);
    s->has_logits = false;
    if (s->written < s->position + rows)
        s->written = s->position + rows;
    TRY(stream_submit(step->st));
    TRY(stream_wait(step->st));
    memmove(s->tokens + s->position, tokens, rows * sizeof *tokens);
    s->position += rows;
    s->has_logits = output != STEP_NOTHING;
error:
    return err;
}

// The scores of a batch as the device left them: (id, its logit, log of the sum, logit of the next)
static void read_scores(const kim_session *s, uint32_t rows, kim_score *out)
{
    const float *back = span_map(&s->memory.scores_back);
    for (uint32_t i = 0; i < rows; i++, back += 4) {
        memcpy(&out[i].top, back, sizeof out[i].top);
        out[i].top_logprob = back[1] - back[2];
        out[i].next_logprob = back[3] - back[2];
    }
}

static kim_err run_tokens(kim_session *s, const int32_t *tokens, uint32_t n, kim_score *scores)
{
    kim_err err = KIM_OK;
    for (uint32_t done = 0; done < n;) {
        const uint32_t rows = n - done < s->batch ? n - done : s->batch;
        const bool last = done + rows == n;
        const step_output output = scores ? STEP_SCORES : last ? STEP_LOGITS : STEP_NOTHING;
        TRY(run_step(s, tokens + done, rows, output, scores && !last));
        if (scores)
            read_scores(s, rows, scores + done);
        done += rows;
    }
    if (scores)
        scores[n - 1].next_logprob = 0;
error:
    return err;
}

kim_err session_restore_rings(kim_session *s)
{
    // A local layer at position p needs the keys from p - window + 1 on; those below written - rows
    // are gone.
    for (uint32_t i = 0; i < s->model->arch.layers; i++) {
        const kv_cache *c = &s->memory.kv[i];
        uint32_t lost = s->written > c->rows ? s->written - c->rows : 0;
        if (s->loaded > c->window && lost < s->loaded - c->window)
            lost = s->loaded - c->window;
        const uint32_t needed = s->position + 1 > c->window ? s->position + 1 - c->window : 0;
        if (lost > needed && s->position) {
            const uint32_t n = s->position;
            s->position = s->written = s->loaded = 0;
            const kim_err err = run_tokens(s, s->tokens, n, NULL);
            s->position = n; // what was read is in s->tokens in any case; the next try starts anew
            s->has_logits = false; // as after any cut
            if (err)
                s->written = UINT32_MAX;
            return err;
        }
    }
    return KIM_OK;
}

static kim_err append(kim_session *s, const int32_t *tokens, uint32_t n, kim_score *scores)
{
    kim_err err = KIM_OK;
    if (!s || !tokens || !n)
        FAIL(KIM_ERR_ARGUMENT, "kim_session_append: no session or no tokens");
    const uint32_t position = s->position;
    if (n > s->context - position)
        FAIL(KIM_ERR_CONTEXT_FULL,
             "%u tokens do not fit: %u of the session's %u positions are free, "
             "%u too few",
             n, s->context - position, s->context, n - (s->context - position));
    for (uint32_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= s->model->arch.vocab)
            FAIL(KIM_ERR_ARGUMENT, "token %u is %d; ids are 0 to %u", i, (int)tokens[i],
                 s->model->arch.vocab - 1);
    TRY(session_restore_rings(s));
    err = run_tokens(s, tokens, n, scores);
    if (err)
        s->position = position;
error:
    return err;
}

kim_err kim_session_append(kim_session *session, const int32_t *tokens, uint32_t n)
{
    return append(session, tokens, n, NULL);
}

kim_err kim_session_append_scored(kim_session *session, const int32_t *tokens, uint32_t n,
                                  kim_score *scores)
{
    if (!scores)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_session_append_scored: scores is NULL");
    return append(session, tokens, n, scores);
}

kim_err kim_session_cut(kim_session *session, uint32_t position)
{
    if (!session || position > session->position)
        return kim_fail(KIM_ERR_ARGUMENT,
                        "kim_session_cut: the session has %u tokens, fewer than %u",
                        session ? session->position : 0, position);
    if (position < session->position)
        session->has_logits = false;
    session->position = position;
    return KIM_OK;
}

static kim_err copy_blocks(stream *st, pool *to, pool *from)
{
    kim_err err = KIM_OK;
    for (uint32_t b = 0; b < from->n_blocks; b++) {
        const span a = { to, b, 0, to->blocks[b].bytes };
        const span c = { from, b, 0, from->blocks[b].bytes };
        TRY(stream_copy(st, &a, &c));
    }
error:
    return err;
}

kim_err kim_session_fork(kim_session **out, const kim_session *session)
{
    kim_err err = KIM_OK;
    kim_session *s = NULL;
    if (!out || !session)
        FAIL(KIM_ERR_ARGUMENT, "kim_session_fork: out or session is NULL");
    *out = NULL;
    TRY(kim_session_create(
        &s, session->model,
        &(kim_session_params){ .context = session->context, .batch = session->batch }));
    // the same model and parameters: the pools are laid out alike
    session_memory *from = (session_memory *)&session->memory;
    stream *st = s->prompt.st;
    TRY(copy_blocks(st, &s->memory.local, &from->local));
    TRY(copy_blocks(st, &s->memory.global, &from->global));
    TRY(stream_submit(st));
    TRY(stream_reset(st));
    memcpy(s->tokens, session->tokens, session->position * sizeof *s->tokens);
    memcpy(span_map(&s->memory.logits_back), span_map(&from->logits_back), from->logits_back.bytes);
    s->position = session->position;
    s->written = session->written;
    s->loaded = session->loaded;
    s->has_logits = session->has_logits;
    *out = s;
    return KIM_OK;
error:
    kim_session_destroy(&s);
    return err;
}

void kim_session_get_stats(const kim_session *session, kim_session_stats *out)
{
    stream_stats decode, prompt;
    stream_get_stats(session->decode.st, &decode);
    stream_get_stats(session->prompt.st, &prompt);
    *out = (kim_session_stats){
        .dispatches = decode.dispatches + prompt.dispatches,
        .submits = decode.submits + prompt.submits,
        .barriers = decode.barriers + prompt.barriers,
        .decode_dispatches = decode.list_dispatches,
        .decode_submits = decode.list_submits,
    };
}

kim_err kim_sample(kim_sampler *sampler, const kim_session *session, int32_t *id, float *logprob)
{
    const float *logits = session ? kim_session_logits(session) : NULL;
    if (!sampler || !id || !logits)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_sample: no sampler, no id, or a session without "
                                          "logits");
    return sampler_draw(sampler, logits, tokenizer_draw_limit(session->model->tokens),
                        session->tokens, session->position, id, logprob);
}
