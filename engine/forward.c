// SPDX-License-Identifier: MIT
// The forward pass: one step of Gemma 3's text model as dispatches in a stream.
#include "session.h"

#include "host/error.h"

typedef struct forward {
    stream *st;
    const kim_model *m;
    const session_memory *mem;
    uint32_t rows;
} forward;

static head_shape heads_of(const kim_model *m)
{
    return (head_shape){ m->arch.heads, m->arch.kv_heads, m->arch.head };
}

// o, w_post: NULL, or x += rms(o) * w_post first
static kim_err norm(const forward *f, const span *o, const span *w_post, const span *w)
{
    return op_norm(f->st, &(norm_params){
                              .o = o,
                              .w_post = w_post,
                              .x = &f->mem->x,
                              .w = w,
                              .h = &f->mem->h,
                              .rows = f->rows,
                              .width = f->m->arch.hidden,
                              .eps = f->m->arch.eps,
                          });
}

static kim_err qk_norm_rope_store(const forward *f, uint32_t i)
{
    const kim_model *m = f->m;
    return op_rope(f->st,
                   &(rope_params){
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
                   });
}

static kim_err attention(const forward *f, uint32_t i)
{
    return op_attention(f->st, &(attention_params){
                                   .qkv = &f->mem->qkv,
                                   .control = &f->mem->control,
                                   .cache = &f->mem->kv[i],
                                   .partial = &f->mem->partial,
                                   .y = &f->mem->attended,
                                   .shape = heads_of(f->m),
                                   .rows = f->rows,
                               });
}

static kim_err product(const forward *f, const linear *w, const span *x, const span *y)
{
    return op_matmul(f->st, &(matmul_params){
                                .w = w,
                                .x = x,
                                .x_width = w->width,
                                .y = y,
                                .packed = f->mem->packed.bytes ? &f->mem->packed : NULL,
                                .columns = f->rows,
                            });
}

static kim_err gated_feed_forward(const forward *f, const layer_weights *w)
{
    kim_err err = KIM_OK;
    const session_memory *mem = f->mem;
    const architecture *a = &f->m->arch;
    const span *to = w->gate_up.paired ? &mem->gated : &mem->gate_up;
    TRY(product(f, &w->gate_up, &mem->h, to));
    if (!w->gate_up.paired)
        TRY(op_geglu(f->st, to, &mem->gated, f->rows, a->feed_forward));
    TRY(product(f, &w->down, &mem->gated, &mem->made));
error:
    return err;
}

// h holds the normed input on entry, and on exit that of the next layer, or of the output.
static kim_err layer(const forward *f, uint32_t i)
{
    kim_err err = KIM_OK;
    const session_memory *mem = f->mem;
    const layer_weights *w = &f->m->layers[i];
    const span *next = i + 1 < f->m->arch.layers ? &w[1].norm_attention : &f->m->norm_output;
    TRY(product(f, &w->qkv, &mem->h, &mem->qkv));
    TRY(qk_norm_rope_store(f, i));
    TRY(attention(f, i));
    TRY(product(f, &w->o, &mem->attended, &mem->made));
    TRY(norm(f, &mem->made, &w->norm_post_attention, &w->norm_feed_forward));
    TRY(gated_feed_forward(f, w));
    TRY(norm(f, &mem->made, &w->norm_post_feed_forward, next));
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
    const forward f = { st, m, mem, rows };
    TRY(op_embed(st, &(embed_params){
                         .w = &m->embedding,
                         .control = &mem->control,
                         .soft = mem->soft.bytes ? &mem->soft : NULL,
                         .y = &mem->x,
                         .columns = rows,
                         .scale = m->arch.embed_scale,
                     }));
    TRY(norm(&f, NULL, NULL, &m->layers[0].norm_attention));
    for (uint32_t i = 0; i < m->arch.layers; i++)
        TRY(layer(&f, i));
    if (output == STEP_SCORES)
        TRY(scores(&f, scored));
    if (output != STEP_NOTHING) {
        TRY(logits(&f, rows - 1, 1));
        TRY(stream_copy(st, &mem->logits_back, &mem->logits));
    }
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
