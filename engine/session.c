// SPDX-License-Identifier: MIT
// A session: reads tokens in batches, keeps their K and V, gives the logits of the last.
#include "session.h"

#include "sampler.h"
#include "speculative.h"

#include "host/error.h"
#include "host/ops_pipelines.h"

#include <stdlib.h>
#include <string.h>

kim_err session_memory_zero(session_memory *mem, stream *st)
{
    kim_err err = KIM_OK;
    pool *const pools[] = { &mem->local, &mem->global, &mem->activations };
    // Attention multiplies the V of masked keys by 0, and matmuls the padding of rows: neither may
    // be what was in memory before, which could be a NaN.
    for (size_t i = 0; i < sizeof pools / sizeof pools[0]; i++)
        for (uint32_t b = 0; b < pools[i]->n_blocks; b++) {
            const span all = { .pool = pools[i], .block = b, .bytes = pools[i]->blocks[b].bytes };
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

kim_err session_make_pipelines(const kim_model *m, const kim_session_params *p)
{
    kim_err err = KIM_OK;
    const head_shape shape = { m->arch.heads, m->arch.kv_heads, m->arch.head };
    const uint32_t keys[2] = { m->arch.window ? m->arch.window : p->context, p->context };
    pipeline_key *list = NULL;
    uint32_t count, n = 0;
    needed_matrix *matrices = calloc(4 * m->arch.layers + 1, sizeof *matrices);
    REQUIRE_MEMORY(matrices);
    matrices[n++].w = &m->embedding;
    for (uint32_t i = 0; i < m->arch.layers; i++) {
        const layer_weights *w = &m->layers[i];
        matrices[n++] = (needed_matrix){ .w = &w->qkv };
        matrices[n++] = (needed_matrix){ .w = &w->o, .norms = true };
        matrices[n++] = (needed_matrix){ .w = &w->gate_up };
        matrices[n++] = (needed_matrix){ .w = &w->down, .norms = true };
    }
    const ops_needs needs = {
        .matrices = matrices,
        .n_matrices = n,
        .embed = weight_bits(&m->embedding),
        .shapes = &shape,
        .n_shapes = 1,
        .keys = keys,
        .n_keys = 2,
        .kv = session_kv_type(p->kv_type),
        .rows = p->batch,
        .sample = true,
    };
    TRY(ops_list_pipelines(m->gpu, &needs, &list, &count));
    TRY(pipeline_get_all(m->gpu, list, count));
error:
    free(matrices);
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
    TRY(model_check_text(model));
    TRY(session_params_fill(model, params, &p));
    s = calloc(1, sizeof *s);
    REQUIRE_MEMORY(s);
    s->model = model;
    s->params = p;
    s->context = p.context;
    s->batch = p.batch;
    s->kv_type = p.kv_type;
    s->tokens = malloc(p.context * sizeof *s->tokens);
    REQUIRE_MEMORY(s->tokens);
    TRY(session_place(&s->memory, model, model->gpu, &p));
    TRY(session_memory_commit(&s->memory, model->gpu));
    TRY(session_make_pipelines(model, &p));
    TRY(stream_create(&s->decode.st, model->gpu));
    TRY(stream_create(&s->prompt.st, model->gpu));
    TRY(stream_create(&s->answer.first, model->gpu));
    TRY(stream_create(&s->answer.steps[0], model->gpu));
    TRY(stream_create(&s->answer.steps[1], model->gpu));
    TRY(session_memory_zero(&s->memory, s->decode.st));
    TRY(speculation_create(&s->speculation, model, &p));
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
    speculation_destroy(&s->speculation);
    stream_destroy(&s->decode.st);
    stream_destroy(&s->prompt.st);
    stream_destroy(&s->answer.first);
    stream_destroy(&s->answer.steps[0]);
    stream_destroy(&s->answer.steps[1]);
    session_memory_destroy(&s->memory);
    session_pictures_destroy(&s->pictures);
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
    session_write_rows(s, tokens, rows, next);
    s->has_logits = false;
    if (s->written < s->position + rows)
        s->written = s->position + rows;
    stream_set_position(step->st, s->position);
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

// Tokens of the next batch: as many as fit without parting a picture, whose tokens see each other.
static uint32_t batch_rows(const kim_session *s, uint32_t left)
{
    if (left <= s->batch)
        return left;
    const session_picture *p = session_pictures_at(&s->pictures, s->position + s->batch);
    return p ? p->first - s->position : s->batch;
}

// The pictures among the tokens are known to the session already.
static kim_err run_tokens(kim_session *s, const kim_prompt *p, kim_score *scores)
{
    kim_err err = KIM_OK;
    for (uint32_t done = 0; done < p->count;) {
        if (p->progress && !p->progress(p->progress_user, done, p->count))
            FAIL(KIM_ERR_CANCELLED, "reading the prompt was stopped after %u of %u tokens", done,
                 p->count);
        const uint32_t rows = batch_rows(s, p->count - done);
        const bool last = done + rows == p->count;
        const step_output output = scores ? STEP_SCORES : last ? STEP_LOGITS : STEP_NOTHING;
        TRY(run_step(s, p->tokens + done, rows, output, scores && !last));
        if (scores)
            read_scores(s, rows, scores + done);
        done += rows;
    }
    for (uint32_t i = 0; scores && i < p->count; i++)
        if (i + 1 == p->count || session_pictures_at(&s->pictures, s->position - p->count + i + 1))
            scores[i].next_logprob = 0;
error:
    return err;
}

bool session_rings_hold(const kim_session *s, uint32_t position)
{
    // A local layer at position p needs the keys from p - window + 1 on; those below written - rows
    // are gone.
    for (uint32_t i = 0; i < s->model->arch.layers; i++) {
        const kv_cache *c = &s->memory.kv[i];
        uint32_t lost = s->written > c->rows ? s->written - c->rows : 0;
        if (s->loaded > c->window && lost < s->loaded - c->window)
            lost = s->loaded - c->window;
        const uint32_t needed = position + 1 > c->window ? position + 1 - c->window : 0;
        if (lost > needed && position)
            return false;
    }
    return true;
}

kim_err session_restore_rings(kim_session *s)
{
    if (session_rings_hold(s, s->position))
        return KIM_OK;
    const uint32_t n = s->position;
    s->position = s->written = s->loaded = 0;
    const kim_err err = run_tokens(s, &(kim_prompt){ .tokens = s->tokens, .count = n }, NULL);
    s->position = n;       // what was read is in s->tokens in any case; the next try starts anew
    s->has_logits = false; // as after any cut
    if (err)
        s->written = UINT32_MAX;
    return err;
}

static kim_err check_room(const kim_session *s, uint32_t position, uint32_t n)
{
    if (n <= s->context - position)
        return KIM_OK;
    return kim_fail(KIM_ERR_CONTEXT_FULL,
                    "%u tokens do not fit: %u of the session's %u positions are free, %u too few",
                    n, s->context - position, s->context, n - (s->context - position));
}

kim_err kim_session_read(kim_session *s, const kim_prompt *prompt, kim_score *scores)
{
    kim_err err = KIM_OK;
    session_pictures fresh = { 0 };
    if (!s || !prompt || !prompt->tokens || !prompt->count)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_session_read: no session or no tokens");
    const uint32_t position = s->position;
    TRY(check_room(s, position, prompt->count));
    TRY(session_pictures_find(&fresh, s->model, prompt, position));
    TRY(session_restore_rings(s));
    for (uint32_t i = 0; i < fresh.count; i++)
        TRY(session_pictures_add(&s->pictures, fresh.list[i].first, fresh.list[i].tile));
    TRY(run_tokens(s, prompt, scores));
error:
    if (err) {
        s->position = position;
        session_pictures_cut(&s->pictures, position);
    }
    session_pictures_destroy(&fresh);
    return err;
}

kim_err kim_session_append(kim_session *session, const int32_t *tokens, uint32_t n)
{
    return kim_session_read(session, &(kim_prompt){ .tokens = tokens, .count = n }, NULL);
}

kim_err kim_session_continue(kim_session *s, const kim_prompt *prompt, uint32_t *reused)
{
    kim_err err = KIM_OK;
    session_pictures all = { 0 };
    if (!s || !prompt || !prompt->tokens || !prompt->count)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_session_continue: no session or no tokens");
    TRY(check_room(s, 0, prompt->count));
    TRY(session_pictures_find(&all, s->model, prompt, 0));
    const uint32_t same = session_common(s, prompt, &all);
    TRY(kim_session_cut(s, same));
    TRY(session_restore_rings(s));
    for (uint32_t i = 0; i < all.count; i++)
        if (all.list[i].first >= same)
            TRY(session_pictures_add(&s->pictures, all.list[i].first, all.list[i].tile));
    kim_prompt rest = *prompt;
    rest.tokens += same;
    rest.count -= same;
    TRY(run_tokens(s, &rest, NULL));
    if (reused)
        *reused = same;
error:
    session_pictures_cut(&s->pictures, s->position);
    session_pictures_destroy(&all);
    return err;
}

kim_err kim_session_cut(kim_session *session, uint32_t position)
{
    if (!session || position > session->position)
        return kim_fail(KIM_ERR_ARGUMENT,
                        "kim_session_cut: the session has %u tokens, fewer than %u",
                        session ? session->position : 0, position);
    const session_picture *p = session_pictures_at(&session->pictures, position);
    if (position < session->position && p && p->first < position)
        return kim_fail(KIM_ERR_ARGUMENT,
                        "kim_session_cut: position %u is within a picture, from %u to %u; its soft "
                        "tokens see each other",
                        position, p->first, p->first + p->tile->tokens - 1);
    if (position < session->position)
        session->has_logits = false;
    session->position = position;
    if (!position) // what was overwritten is of no use any more
        session->written = session->loaded = 0;
    session_pictures_cut(&session->pictures, position);
    return KIM_OK;
}

static kim_err copy_blocks(stream *st, pool *to, pool *from)
{
    kim_err err = KIM_OK;
    for (uint32_t b = 0; b < from->n_blocks; b++) {
        const span a = { .pool = to, .block = b, .bytes = to->blocks[b].bytes };
        const span c = { .pool = from, .block = b, .bytes = from->blocks[b].bytes };
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
    TRY(kim_session_create(&s, session->model, &session->params));
    // the same model and parameters: the pools are laid out alike
    session_memory *from = (session_memory *)&session->memory;
    stream *st = s->prompt.st;
    TRY(copy_blocks(st, &s->memory.local, &from->local));
    TRY(copy_blocks(st, &s->memory.global, &from->global));
    TRY(stream_submit(st));
    TRY(stream_reset(st));
    memcpy(s->tokens, session->tokens, session->position * sizeof *s->tokens);
    memcpy(span_map(&s->memory.logits_back), span_map(&from->logits_back), from->logits_back.bytes);
    for (uint32_t i = 0; i < session->pictures.count; i++)
        TRY(session_pictures_add(&s->pictures, session->pictures.list[i].first,
                                 session->pictures.list[i].tile));
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
    const stream *const all[] = { session->decode.st, session->prompt.st, session->answer.first,
                                  session->answer.steps[0], session->answer.steps[1] };
    stream_stats one;
    *out = (kim_session_stats){ 0 };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        stream_get_stats(all[i], &one);
        out->dispatches += one.dispatches;
        out->submits += one.submits;
        out->barriers += one.barriers;
    }
    if (session->speculation)
        speculation_get_stats(session->speculation, out);
    stream_get_stats(session->answer.recorded ? session->answer.steps[0] : session->decode.st,
                     &one);
    out->decode_dispatches = one.list_dispatches;
    out->decode_submits = one.list_submits;
}

kim_err kim_sample(kim_sampler *sampler, const kim_session *session, int32_t *id, float *logprob)
{
    const float *logits = session ? kim_session_logits(session) : NULL;
    if (!sampler || !id || !logits)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_sample: no sampler, no id, or a session without "
                                          "logits");
    return sampler_draw(sampler, logits, session->model->files.draw_limit, session->tokens,
                        session->position, id, logprob);
}
