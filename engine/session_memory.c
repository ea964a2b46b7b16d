// SPDX-License-Identifier: MIT
// What a session takes on the device: every tensor is placed before anything is allocated.
#include "speculative.h"

#include "host/error.h"
#include "host/matmul_ways.h"

#include <stdlib.h>
#include <string.h>

static uint32_t round_up(uint32_t value, uint32_t to)
{
    return (value + to - 1) / to * to;
}

kim_err session_params_fill(const kim_model *m, const kim_session_params *given,
                            kim_session_params *out)
{
    *out = given ? *given : (kim_session_params){ 0 };
    if (!out->context)
        out->context = m->arch.context < 8192 ? m->arch.context : 8192;
    if (!out->batch)
        out->batch = 512;
    if (out->context > m->arch.context)
        return kim_fail(KIM_ERR_ARGUMENT,
                        "a context of %u positions was asked for; this model was "
                        "made for at most %u",
                        out->context, m->arch.context);
    if (out->batch > 65536)
        return kim_fail(KIM_ERR_ARGUMENT,
                        "a batch of %u tokens was asked for; at most 65536 is "
                        "possible",
                        out->batch);
    if (m->vision && out->batch < encoder_get_shape(m->vision)->tokens)
        out->batch = encoder_get_shape(m->vision)->tokens;
    if (out->batch > out->context)
        out->batch = out->context;
    return speculation_params_fill(m, out);
}

// K and V of every layer: all positions, or a ring of what the window of the oldest token of a
// batch sees and the batch itself. Fewer than that would let a token's keys be overwritten before
// it has seen them.
static kim_err place_kv(session_memory *mem, const kim_model *m, const kim_session_params *p)
{
    kim_err err = KIM_OK;
    const architecture *a = &m->arch;
    const uint32_t all = round_up(p->context, KEY_BLOCK);
    for (uint32_t i = 0; i < a->layers; i++) {
        kv_cache *c = &mem->kv[i];
        pool *to = a->is_local[i] ? &mem->local : &mem->global;
        const uint32_t ring = round_up(a->window + p->batch, KEY_BLOCK);
        c->rows = a->is_local[i] && ring < all ? ring : all;
        c->window = a->is_local[i] ? a->window : p->context;
        const uint64_t bytes = 2ull * a->kv_heads * c->rows * a->head;
        if (bytes > to->block_limit)
            FAIL(KIM_ERR_DEVICE_MEMORY,
                 "a context of %u positions needs %.1f MiB in one piece, and "
                 "this device reaches %.1f MiB: take at most %llu positions",
                 p->context, (double)bytes / 1048576.0, (double)to->block_limit / 1048576.0,
                 (unsigned long long)(to->block_limit / (2ull * a->kv_heads * a->head)) /
                     KEY_BLOCK * KEY_BLOCK);
        TRY(pool_place(to, bytes, &c->k));
        TRY(pool_place(to, bytes, &c->v));
    }
error:
    return err;
}

static kim_err place_rows(pool *p, uint32_t rows, uint64_t words, span *out)
{
    if (rows * words * 4 > p->block_limit)
        return kim_fail(KIM_ERR_DEVICE_MEMORY,
                        "a batch of %u tokens needs %.1f MiB in one piece, "
                        "and this device reaches %.1f MiB: take a smaller "
                        "batch",
                        rows, (double)(rows * words * 4) / 1048576.0,
                        (double)p->block_limit / 1048576.0);
    return pool_place(p, rows * words * 4, out);
}

// What a session has for itself: K and V, where it stands, and what tokens are drawn with on the
// device.
static kim_err place_own(session_memory *mem, const kim_model *m, const kim_session_params *p)
{
    kim_err err = KIM_OK;
    mem->kv = calloc(m->arch.layers, sizeof *mem->kv);
    REQUIRE_MEMORY(mem->kv);
    TRY(place_kv(mem, m, p));
    TRY(place_rows(&mem->upload, 1, CONTROL_ROW(p->batch + 1ull, 0), &mem->control));
    const uint64_t scratch = sample_scratch_bytes(m->arch.vocab) * speculation_rows(p);
    TRY(place_rows(&mem->upload, 1, p->context + 1ull, &mem->history));
    TRY(pool_place(&mem->upload, sizeof(struct sampling_block), &mem->sampling));
    TRY(pool_place(&mem->activations, scratch, &mem->sample_scratch));
    TRY(place_rows(&mem->readback, SAMPLE_SLOTS, 4, &mem->results));
error:
    return err;
}

// The widest columns that are multiplied.
static uint32_t widest(const architecture *a)
{
    const uint32_t q = a->heads * a->head, most = q > a->hidden ? q : a->hidden;
    return a->feed_forward > most ? a->feed_forward : most;
}

// sessions: that are decoded together
static kim_err place_activations(session_memory *mem, const kim_model *m, const kim_gpu *gpu,
                                 uint32_t batch, uint32_t sessions)
{
    kim_err err = KIM_OK;
    const architecture *a = &m->arch;
    const uint64_t q = (uint64_t)a->heads * a->head, kv = (uint64_t)a->kv_heads * a->head;
    const head_shape shape = { a->heads, a->kv_heads, a->head };
    const uint64_t packed = matmul_packed_bytes(gpu, widest(a), batch);
    pool *to = &mem->activations;
    bool unpaired = false;
    uint32_t most_keys = 0;
    for (uint32_t i = 0; i < a->layers; i++) {
        unpaired |= !m->layers[i].gate_up.paired;
        most_keys = mem->kv[i].rows > most_keys ? mem->kv[i].rows : most_keys;
    }
    TRY(place_rows(to, batch, a->hidden, &mem->x));
    TRY(place_rows(to, batch, a->hidden, &mem->h));
    TRY(place_rows(to, batch, q + 2 * kv, &mem->qkv));
    TRY(place_rows(to, batch, q, &mem->attended));
    TRY(place_rows(to, batch, a->hidden, &mem->made));
    TRY(place_rows(to, batch, a->feed_forward, &mem->gated));
    if (unpaired)
        TRY(place_rows(to, batch, 2ull * a->feed_forward, &mem->gate_up));
    if (packed)
        TRY(pool_place(to, packed, &mem->packed));
    TRY(pool_place(to, attention_partial_bytes(&shape, most_keys, sessions), &mem->partial));
    TRY(pool_place(to, 4, &mem->counter));
    TRY(place_rows(to, sessions > SCORE_ROWS ? sessions : SCORE_ROWS, a->vocab, &mem->logits));
    TRY(place_rows(to, batch, 4, &mem->scores));
    if (m->vision)
        TRY(place_rows(&mem->upload, batch, a->hidden, &mem->soft));
    TRY(place_rows(&mem->readback, 1, a->vocab, &mem->logits_back));
    TRY(place_rows(&mem->readback, batch, 4, &mem->scores_back));
error:
    return err;
}

// For traces.
static void name_tensors(session_memory *mem, uint32_t layers)
{
    for (uint32_t i = 0; i < layers; i++) {
        mem->kv[i].k.name = "K cache";
        mem->kv[i].v.name = "V cache";
    }
    mem->x.name = "x";
    mem->h.name = "h";
    mem->qkv.name = "qkv";
    mem->attended.name = "attended";
    mem->made.name = "made";
    mem->gate_up.name = "gate_up";
    mem->gated.name = "gated";
    mem->packed.name = "packed";
    mem->partial.name = "partial";
    mem->counter.name = "counter";
    mem->logits.name = "logits";
    mem->scores.name = "scores";
    mem->control.name = "control";
    mem->history.name = "history";
    mem->sampling.name = "sampling";
    mem->sample_scratch.name = "sample scratch";
    mem->results.name = "results";
    mem->soft.name = "soft tokens";
}

static void init_pools(session_memory *mem, const kim_gpu *gpu)
{
    const uint64_t limit = gpu ? pool_limit_of(gpu) : 0;
    memset(mem, 0, sizeof *mem);
    pool_init(&mem->local, "K and V of the local layers", POOL_DEVICE, limit);
    pool_init(&mem->global, "K and V of the global layers", POOL_DEVICE, limit);
    pool_init(&mem->activations, "activations", POOL_DEVICE, limit);
    pool_init(&mem->upload, "tokens", POOL_UPLOAD, limit);
    pool_init(&mem->readback, "logits for the host", POOL_READBACK, limit);
}

kim_err session_place(session_memory *mem, const kim_model *m, const kim_gpu *gpu,
                      const kim_session_params *p)
{
    kim_err err = KIM_OK;
    init_pools(mem, gpu);
    TRY(place_own(mem, m, p));
    TRY(place_activations(mem, m, gpu, p->batch, 1));
    name_tensors(mem, m->arch.layers);
    return KIM_OK;
error:
    session_memory_destroy(mem);
    return err;
}

kim_err session_place_many(session_memory *shared, session_memory *each, uint32_t n,
                           const kim_model *m, const kim_gpu *gpu, const kim_session_params *p)
{
    kim_err err = KIM_OK;
    init_pools(shared, gpu);
    for (uint32_t i = 0; i < n; i++) {
        TRY(place_own(shared, m, p));
        if (i == 0)
            TRY(place_activations(shared, m, gpu, p->batch, n));
        name_tensors(shared, m->arch.layers);
        each[i] = *shared;
        memset(&each[i].local, 0, sizeof each[i].local);
        memset(&each[i].global, 0, sizeof each[i].global);
        memset(&each[i].activations, 0, sizeof each[i].activations);
        memset(&each[i].upload, 0, sizeof each[i].upload);
        memset(&each[i].readback, 0, sizeof each[i].readback);
        shared->kv = NULL;
    }
    return KIM_OK;
error:
    session_memory_destroy(shared);
    return err;
}

kim_err session_memory_commit(session_memory *mem, kim_gpu *gpu)
{
    kim_err err = KIM_OK;
    TRY(pool_commit(&mem->local, gpu));
    TRY(pool_commit(&mem->global, gpu));
    TRY(pool_commit(&mem->activations, gpu));
    TRY(pool_commit(&mem->upload, gpu));
    TRY(pool_commit(&mem->readback, gpu));
error:
    return err;
}

void session_memory_destroy(session_memory *mem)
{
    pool_destroy(&mem->local);
    pool_destroy(&mem->global);
    pool_destroy(&mem->activations);
    pool_destroy(&mem->upload);
    pool_destroy(&mem->readback);
    free(mem->kv);
    memset(mem, 0, sizeof *mem);
}

kim_plan session_memory_plan(const session_memory *mem, const kv_cache *kv, const kim_model *model)
{
    kim_plan plan = {
        .weights = pool_bytes(&model->weights),
        .kv_local = pool_bytes(&mem->local),
        .kv_global = pool_bytes(&mem->global),
        .activations =
            pool_bytes(&mem->activations) + pool_bytes(&mem->upload) + pool_bytes(&mem->readback),
    };
    for (uint32_t i = 0; i < model->arch.layers; i++)
        if (model->arch.is_local[i])
            plan.kv_local_rows = kv[i].rows;
    if (model->vision)
        encoder_plan(model->vision, &plan.vision_weights, &plan.vision_activations);
    plan.total = plan.weights + plan.kv_local + plan.kv_global + plan.activations +
                 plan.vision_weights + plan.vision_activations;
    return plan;
}

kim_err kim_model_plan(const kim_model *model, const kim_gpu *gpu, const kim_session_params *params,
                       kim_plan *out)
{
    kim_err err = KIM_OK;
    kim_session_params p;
    session_memory mem = { 0 };
    if (!model || !out)
        FAIL(KIM_ERR_ARGUMENT, "kim_model_plan: model or out is NULL");
    TRY(model_check_text(model));
    TRY(session_params_fill(model, params, &p));
    TRY(session_place(&mem, model, gpu, &p));
    *out = session_memory_plan(&mem, mem.kv, model);
    TRY(speculation_plan(gpu, &p, &out->draft));
    out->total += out->draft;
error:
    session_memory_destroy(&mem);
    return err;
}
