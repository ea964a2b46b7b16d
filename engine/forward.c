// SPDX-License-Identifier: MIT
// The forward pass: one step of Gemma 3's text model as dispatches in a stream.
#include "session.h"

#include "host/error.h"

typedef struct forward {
    stream *st;
    const kim_model *m;
    const session_memory *mem;
    uint32_t rows;
    const session_memory *const *each; // [rows] sessions with a row each; NULL: one has them all
} forward;

static head_shape heads_of(const kim_model *m)
{
    return (head_shape){ m->arch.heads, m->arch.kv_heads, m->arch.head };
}

// x, or x + rms(made) * w_post if that is given, normed to h
static norm_params norm_of(const forward *f, const span *w_post, const span *w)
{
    return (norm_params){
        .o = w_post ? &f->mem->made : NULL,
        .w_post = w_post,
        .x = &f->mem->x,
        .w = w,
        .h = &f->mem->h,
        .rows = f->rows,
        .width = f->m->arch.hidden,
        .eps = f->m->arch.eps,
    };
}

// q and k normed and rotated, k and v to the cache, attention
static kim_err attend(const forward *f, uint32_t i)
{
    kim_err err = KIM_OK;
    const kim_model *m = f->m;
    const rope_params rope = {
        .qkv = &f->mem->qkv,
        .w_q = &m->layers[i].norm_q,
        .w_k = &m->layers[i].norm_k,
        .rotation = m->arch.is_local[i] ? &m->rotation_local : &m->rotation_global,
        .control = &f->mem->control,
        .cache = &f->mem->kv[i],
        .shape = heads_of(m),
        .rows = f->rows,
        .eps = m->arch.eps,
        .q_scale = m->arch.q_scale,
    };
    const attention_params attention = {
        .qkv = &f->mem->qkv,
        .control = &f->mem->control,
        .cache = &f->mem->kv[i],
        .partial = &f->mem->partial,
        .y = &f->mem->attended,
        .shape = heads_of(m),
        .rows = f->rows,
    };
    if (f->each) {
        attention_session sessions[MOST_SESSIONS];
        for (uint32_t r = 0; r < f->rows; r++)
            sessions[r] = (attention_session){ &f->each[r]->control, &f->each[r]->kv[i] };
        return op_attention_rope_each(f->st, &attention, &rope, sessions);
    }
    if (f->rows == 1)
        return op_attention_rope(f->st, &attention, &rope);
    TRY(op_rope(f->st, &rope));
    TRY(op_attention(f->st, &attention));
error:
    return err;
}

static matmul_params product(const forward *f, const linear *w, const span *x, const span *y)
{
    return (matmul_params){
        .w = w,
        .x = x,
        .x_width = w->width,
        .y = y,
        .columns = f->rows,
        .packed = f->mem->packed.bytes ? &f->mem->packed : NULL,
    };
}

// What attention or feed-forward made, projected, with the norms and the residual after it.
static kim_err project(const forward *f, const linear *w, const span *x, const span *w_post,
                       const span *w_next)
{
    const matmul_params p = product(f, w, x, &f->mem->made);
    const norm_params norm = norm_of(f, w_post, w_next);
    return op_matmul_norm(f->st, &p, &norm, &f->mem->counter);
}

// h holds the normed input on entry, and on exit that of the next layer, or of the output.
static kim_err layer(const forward *f, uint32_t i)
{
    kim_err err = KIM_OK;
    const session_memory *mem = f->mem;
    const layer_weights *w = &f->m->layers[i];
    const span *next = i + 1 < f->m->arch.layers ? &w[1].norm_attention : &f->m->norm_output;
    const span *gate_up = w->gate_up.paired ? &mem->gated : &mem->gate_up;
    const matmul_params to_qkv = product(f, &w->qkv, &mem->h, &mem->qkv);
    const matmul_params to_gate_up = product(f, &w->gate_up, &mem->h, gate_up);
    TRY(op_matmul(f->st, &to_qkv));
    TRY(attend(f, i));
    TRY(project(f, &w->o, &mem->attended, &w->norm_post_attention, &w->norm_feed_forward));
    TRY(op_matmul(f->st, &to_gate_up));
    if (!w->gate_up.paired)
        TRY(op_geglu(f->st, gate_up, &mem->gated, f->rows, f->m->arch.feed_forward));
    TRY(project(f, &w->down, &mem->gated, &w->norm_post_feed_forward, next));
error:
    return err;
}

// From the residual to the normed input of the output.
static kim_err layers(const forward *f)
{
    kim_err err = KIM_OK;
    const norm_params first = norm_of(f, NULL, &f->m->layers[0].norm_attention);
    TRY(op_norm(f->st, &first));
    for (uint32_t i = 0; i < f->m->arch.layers; i++) {
        stream_set_section(f->st, "layer", i);
        TRY(layer(f, i));
    }
    stream_set_section(f->st, "output", UINT32_MAX);
error:
    return err;
}

// logits[0 .. rows) of the tokens first .. first + rows - 1
static kim_err logits(const forward *f, uint32_t first, uint32_t rows)
{
    const uint64_t row_bytes = f->m->arch.hidden * 4ull;
    const span h = span_part(&f->mem->h, first * row_bytes, rows * row_bytes);
    return op_matmul(f->st, &(matmul_params){
                                .w = &f->m->embedding,
                                .x = &h,
                                .x_width = f->m->arch.hidden,
                                .y = &f->mem->logits,
                                .columns = rows,
                            });
}

static kim_err scores(const forward *f, uint32_t scored)
{
    kim_err err = KIM_OK;
    const session_memory *mem = f->mem;
    for (uint32_t first = 0; first < f->rows; first += SCORE_ROWS) {
        const uint32_t n = f->rows - first < SCORE_ROWS ? f->rows - first : SCORE_ROWS;
        const span to = span_part(&mem->scores, first * 16ull, n * 16ull);
        TRY(logits(f, first, n));
        TRY(op_score(f->st, &mem->logits, &mem->control, &to, f->m->arch.vocab,
                     (const uint32_t[3]){ n, first, scored }));
    }
error:
    return err;
}

kim_err forward_record(stream *st, const kim_model *m, const session_memory *mem, uint32_t rows,
                       step_output output, uint32_t scored)
{
    kim_err err = KIM_OK;
    const forward f = { st, m, mem, rows, NULL };
    stream_set_section(st, "embedding", UINT32_MAX);
    TRY(op_embed(st, &(embed_params){
                         .w = &m->embedding,
                         .control = &mem->control,
                         .soft = mem->soft.bytes ? &mem->soft : NULL,
                         .y = &mem->x,
                         .columns = rows,
                         .scale = m->arch.embed_scale,
                     }));
    TRY(layers(&f));
    if (output == STEP_SCORES)
        TRY(scores(&f, scored));
    if (output == STEP_ROWS_ON_DEVICE)
        TRY(logits(&f, 0, rows));
    else if (output != STEP_NOTHING)
        TRY(logits(&f, rows - 1, 1));
    if (output == STEP_LOGITS || output == STEP_SCORES)
        TRY(stream_copy(st, &mem->logits_back, &mem->logits));
    if (output == STEP_SCORES) {
        // After all dispatches: to the validation layers every dispatch reads and writes all blocks
        // of the table, and a copy between two of them without a barrier is a hazard.
        const span from = span_part(&mem->scores, 0, rows * 16ull);
        const span to = span_part(&mem->scores_back, 0, rows * 16ull);
        TRY(stream_copy(st, &to, &from));
    }
error:
    return err;
}

kim_err forward_record_each(stream *st, const kim_model *m, const session_memory *const *each,
                            uint32_t n)
{
    kim_err err = KIM_OK;
    const forward f = { st, m, each[0], n, each };
    const uint64_t row_bytes = m->arch.hidden * 4ull;
    for (uint32_t r = 0; r < n; r++) {
        const span x = span_part(&f.mem->x, r * row_bytes, row_bytes);
        TRY(op_embed(st, &(embed_params){
                             .w = &m->embedding,
                             .control = &each[r]->control,
                             .y = &x,
                             .columns = 1,
                             .scale = m->arch.embed_scale,
                         }));
    }
    TRY(layers(&f));
    TRY(logits(&f, 0, n));
error:
    return err;
}
