// SPDX-License-Identifier: MIT
// Many sessions together: the batch, its requests, and the order of a step.
#include "batch.h"

#include "host/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ------------------------------------------------------------------------------------ creation

static kim_err fill_params(const kim_model *m, const kim_batch_params *given, kim_batch_params *out,
                           kim_session_params *session)
{
    kim_err err = KIM_OK;
    *out = given ? *given : (kim_batch_params){ 0 };
    if (!out->sessions)
        out->sessions = 4;
    if (!out->wait_ms)
        out->wait_ms = 100;
    if (out->sessions > MOST_SESSIONS)
        FAIL(KIM_ERR_ARGUMENT, "%u sessions were asked for; at most %d are decoded together",
             out->sessions, MOST_SESSIONS);
    TRY(model_check_text(m));
    TRY(session_params_fill(m,
                            &(kim_session_params){ .context = out->context,
                                                   .batch = out->batch,
                                                   .kv_type = out->kv_type },
                            session));
    if (session->batch < out->sessions) // a step has a row of each
        session->batch = out->sessions;
    out->context = session->context;
    out->batch = session->batch;
    if (out->piece > out->batch)
        out->piece = out->batch;
error:
    return err;
}

kim_err kim_batch_plan(const kim_model *model, const kim_gpu *gpu, const kim_batch_params *params,
                       kim_plan *out)
{
    kim_err err = KIM_OK;
    kim_batch_params p;
    kim_session_params session;
    session_memory shared = { 0 }, each[MOST_SESSIONS] = { 0 };
    if (!model || !out)
        FAIL(KIM_ERR_ARGUMENT, "kim_batch_plan: model or out is NULL");
    TRY(fill_params(model, params, &p, &session));
    TRY(session_place_many(&shared, each, p.sessions, model, gpu, &session));
    *out = session_memory_plan(&shared, each[0].kv, model);
error:
    for (uint32_t i = 0; i < MOST_SESSIONS; i++)
        session_memory_destroy(&each[i]);
    session_memory_destroy(&shared);
    return err;
}

static kim_err make_slots(kim_batch *b, const kim_session_params *p)
{
    kim_err err = KIM_OK;
    session_memory each[MOST_SESSIONS] = { 0 };
    const uint32_t n = b->params.sessions;
    b->slots = calloc(n, sizeof *b->slots);
    REQUIRE_MEMORY(b->slots);
    err = session_place_many(&b->shared, each, n, b->model, b->model->gpu, p);
    for (uint32_t i = 0; i < n; i++)
        b->slots[i].s = (kim_session){
            .model = b->model,
            .params = *p,
            .context = p->context,
            .batch = p->batch,
            .kv_type = p->kv_type,
            .memory = each[i],
        };
    TRY(err);
    for (uint32_t i = 0; i < n; i++) {
        b->slots[i].s.tokens = malloc(p->context * sizeof *b->slots[i].s.tokens);
        REQUIRE_MEMORY(b->slots[i].s.tokens);
    }
error:
    return err;
}

kim_err kim_batch_create(kim_batch **out, kim_model *model, const kim_batch_params *params)
{
    kim_err err = KIM_OK;
    kim_batch *b = NULL;
    kim_session_params p;
    if (!out || !model)
        FAIL(KIM_ERR_ARGUMENT, "kim_batch_create: out or model is NULL");
    *out = NULL;
    if (!model->gpu)
        FAIL(KIM_ERR_ARGUMENT, "kim_batch_create: the model was opened without a gpu");
    b = calloc(1, sizeof *b);
    REQUIRE_MEMORY(b);
    pthread_mutex_init(&b->lock, NULL);
    b->model = model;
    b->piece = PIECE_FIRST;
    TRY(fill_params(model, params, &b->params, &p));
    TRY(make_slots(b, &p));
    TRY(session_memory_commit(&b->shared, model->gpu));
    TRY(session_make_pipelines(model, &p));
    TRY(stream_create(&b->prompt, model->gpu));
    TRY(stream_create(&b->copy, model->gpu));
    for (uint32_t i = 0; i < BATCH_AHEAD; i++)
        TRY(stream_create(&b->steps[i].st, model->gpu));
    TRY(session_memory_zero(&b->shared, b->prompt));
    *out = b;
    return KIM_OK;
error:
    kim_batch_destroy(&b);
    return err;
}

static void request_destroy(request *r)
{
    if (!r)
        return;
    kim_sampler_destroy(&r->sampler);
    session_pictures_destroy(&r->pictures);
    free((int32_t *)r->given.prompt.tokens);
    free(r);
}

void kim_batch_destroy(kim_batch **batch)
{
    if (!batch || !*batch)
        return;
    kim_batch *b = *batch;
    stream_destroy(&b->prompt);
    stream_destroy(&b->copy);
    for (uint32_t i = 0; i < BATCH_AHEAD; i++)
        stream_destroy(&b->steps[i].st);
    for (request *r = b->requests, *next; r; r = next) {
        next = r->next;
        request_destroy(r);
    }
    for (uint32_t i = 0; b->slots && i < b->params.sessions; i++) {
        session_memory_destroy(&b->slots[i].s.memory);
        session_pictures_destroy(&b->slots[i].s.pictures);
        free(b->slots[i].s.tokens);
    }
    free(b->slots);
    session_memory_destroy(&b->shared);
    pthread_mutex_destroy(&b->lock);
    free(b);
    *batch = NULL;
}

// ------------------------------------------------------------------------------------ requests

static kim_err check_request(const kim_batch *b, const kim_request *r)
{
    if (!b || !r || !r->prompt.tokens || !r->prompt.count)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_batch_add: no batch, no request or no tokens");
    if (r->prompt.count >= b->params.context)
        return kim_fail(KIM_ERR_CONTEXT_FULL,
                        "a prompt of %u tokens leaves no room for an answer in a context of %u "
                        "positions",
                        r->prompt.count, b->params.context);
    if (r->answer.stops && r->answer.n_stops > SAMPLING_MAX_STOPS)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_batch_add: %u stop tokens, expected at most %u",
                        r->answer.n_stops, SAMPLING_MAX_STOPS);
    return KIM_OK;
}

static kim_err request_create(request **out, const kim_batch *b, const kim_request *given)
{
    kim_err err = KIM_OK;
    const kim_prompt *prompt = &given->prompt;
    const uint32_t room = b->params.context - prompt->count, most = given->answer.most;
    request *r = calloc(1, sizeof *r);
    REQUIRE_MEMORY(r);
    r->given = *given;
    r->given.prompt.images = NULL;
    r->given.prompt.n_images = 0;
    if (given->answer.stops) {
        memcpy(r->stops, given->answer.stops, given->answer.n_stops * sizeof *r->stops);
        r->given.answer.stops = r->stops;
    }
    r->to_the_end = !most || most > room;
    r->most = r->to_the_end ? room : most;
    int32_t *tokens = malloc(prompt->count * sizeof *tokens);
    r->given.prompt.tokens = tokens;
    REQUIRE_MEMORY(tokens);
    memcpy(tokens, prompt->tokens, prompt->count * sizeof *tokens);
    TRY(session_pictures_find(&r->pictures, b->model, prompt, 0));
    TRY(kim_sampler_create(&r->sampler, &given->sampling));
    *out = r;
    return KIM_OK;
error:
    request_destroy(r);
    return err;
}

kim_err kim_batch_add(kim_batch *batch, const kim_request *request_of_caller, uint64_t *id)
{
    kim_err err = KIM_OK;
    request *r = NULL;
    TRY(check_request(batch, request_of_caller));
    TRY(request_create(&r, batch, request_of_caller));
    pthread_mutex_lock(&batch->lock);
    request **end = &batch->requests;
    while (*end)
        end = &(*end)->next;
    r->id = ++batch->last_id;
    if (id)
        *id = r->id;
    *end = r;
    pthread_mutex_unlock(&batch->lock);
error:
    return err;
}

bool kim_batch_cancel(kim_batch *batch, uint64_t id)
{
    bool found = false;
    if (!batch)
        return false;
    pthread_mutex_lock(&batch->lock);
    for (request *r = batch->requests; r && !found; r = r->next)
        if (r->id == id) {
            r->cancelled = true;
            found = true;
        }
    pthread_mutex_unlock(&batch->lock);
    return found;
}

// The first request that was cancelled, or that waits; NULL: none.
static request *find_request(kim_batch *b, bool cancelled)
{
    pthread_mutex_lock(&b->lock);
    request *r = b->requests;
    while (r && (cancelled ? !r->cancelled : r->slot != NULL))
        r = r->next;
    pthread_mutex_unlock(&b->lock);
    return r;
}

static request *first_request(kim_batch *b)
{
    pthread_mutex_lock(&b->lock);
    request *r = b->requests;
    pthread_mutex_unlock(&b->lock);
    return r;
}

static void unlink_request(kim_batch *b, const request *r)
{
    pthread_mutex_lock(&b->lock);
    request **at = &b->requests;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    pthread_mutex_unlock(&b->lock);
}

void batch_end(kim_batch *b, request *r, kim_err failed, kim_answer_end end)
{
    char text[1024] = "";
    batch_slot *slot = r->slot;
    if (failed)
        snprintf(text, sizeof text, "%s", kim_error_text());
    unlink_request(b, r);
    if (slot) {
        slot->r = NULL;
        slot->used = ++b->clock;
        b->reading = b->reading == slot ? NULL : b->reading;
        b->first = b->first == slot ? NULL : b->first;
    }
    if (r->given.ended)
        r->given.ended(r->given.answer.user, &(kim_request_end){
                                                 .err = failed,
                                                 .error = text,
                                                 .end = end,
                                                 .prompt_tokens = r->given.prompt.count,
                                                 .reused_tokens = r->reused,
                                                 .answer_tokens = r->answered,
                                             });
    request_destroy(r);
}

// ---------------------------------------------------------------------------------------- steps

// After a failure nothing of what the device has is known. The first error is the one that counts.
static void fail_all(kim_batch *b, kim_err failed)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", kim_error_text());
    (void)stream_reset(b->prompt);
    (void)stream_reset(b->copy);
    b->recorded.rows = b->running = 0;
    for (uint32_t i = 0; i < BATCH_AHEAD; i++) {
        (void)stream_reset(b->steps[i].st);
        b->steps[i].n = 0;
    }
    b->collected = b->submitted;
    for (uint32_t i = 0; i < b->params.sessions; i++) {
        kim_session *s = &b->slots[i].s;
        s->position = s->written = s->loaded = 0;
        session_pictures_cut(&s->pictures, 0);
    }
    pthread_mutex_lock(&b->lock);
    const uint64_t last = b->last_id; // those that are added from now on are not concerned
    pthread_mutex_unlock(&b->lock);
    for (request *r; (r = first_request(b)) && r->id <= last;) {
        (void)kim_fail(failed, "%s", text);
        batch_end(b, r, failed, KIM_ANSWER_CALLER);
    }
    (void)kim_fail(failed, "%s", text);
}

// The device has a step in hand while the host gives out the tokens of the one before, and while
// it waits for a piece of a prompt.
static kim_err step(kim_batch *b)
{
    kim_err err = KIM_OK;
    bool submitted;
    for (request *r; (r = find_request(b, true));)
        batch_end(b, r, KIM_OK, KIM_ANSWER_CALLER);
    TRY(batch_submit_step(b, &submitted));
    if (b->submitted - b->collected > (submitted ? BATCH_AHEAD - 1 : 0))
        TRY(batch_collect_step(b));
    TRY(batch_wait_piece(b));
    request *waiting = b->reading ? NULL : find_request(b, false);
    if (waiting)
        TRY(batch_place(b, waiting));
    if (b->reading)
        TRY(batch_submit_piece(b));
error:
    return err;
}

kim_err kim_batch_step(kim_batch *batch, bool *idle)
{
    if (!batch)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_batch_step: batch is NULL");
    const kim_err err = step(batch);
    if (err)
        fail_all(batch, err);
    if (idle)
        *idle = !first_request(batch);
    return err;
}

kim_err kim_batch_run(kim_batch *batch)
{
    kim_err err = KIM_OK;
    for (bool idle = false; !err && !idle;)
        err = kim_batch_step(batch, &idle);
    return err;
}

void kim_batch_get_stats(const kim_batch *batch, kim_batch_stats *out)
{
    kim_batch *b = (kim_batch *)batch; // its lock
    const stream *const all[] = { b->prompt, b->copy, b->steps[0].st, b->steps[1].st };
    stream_stats one;
    *out = b->stats;
    pthread_mutex_lock(&b->lock);
    for (const request *r = b->requests; r; r = r->next)
        ++*(!r->slot ? &out->waiting : r->submitted ? &out->answering : &out->reading);
    pthread_mutex_unlock(&b->lock);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        stream_get_stats(all[i], &one);
        out->dispatches += one.dispatches;
        out->submits += one.submits;
        out->barriers += one.barriers;
    }
    stream_get_stats(b->steps[b->submitted % BATCH_AHEAD].st, &one);
    out->step_dispatches = one.list_dispatches;
    out->step_submits = one.list_submits;
}
