// SPDX-License-Identifier: MIT
// Operations: one launch function each. They add dispatches to a stream and own nothing.
//
// A span given here holds exactly the tensor, row after row, f32 unless said otherwise.
#ifndef KIM_OPS_H
#define KIM_OPS_H

#include "linear.h"
#include "stream.h"

typedef enum kv_type {
    KV_F16,
    KV_Q8, // 8 bits, with an f32 scale for each KV_BLOCK dimensions of a position
    KV_TYPES,
} kv_type;

// K and V of one layer. V is finite from the start, as zeros are: what is masked is weighed with 0.
typedef struct kv_cache {
    span k, v;       // kv_cache_bytes each; see kv.glsl
    uint32_t rows;   // positions it holds; a multiple of KEY_BLOCK
    uint32_t window; // keys a query sees, itself included
    kv_type type;
} kv_cache;

// Bytes of K, or of V, of KEY_GROUP positions of one kv head, which stand together.
uint64_t kv_group_bytes(kv_type type, uint32_t head);

// The shape of attention.
typedef struct head_shape {
    uint32_t heads, kv_heads, head; // head: 64 .. 256, a multiple of 8
} head_shape;

uint64_t kv_cache_bytes(kv_type type, const head_shape *shape, uint32_t rows);

// y[c, r] = sum over k of x[c, k] * w[r, k] for all parts of w; then, where asked for, + bias[r],
// and gelu of it; stored or added to y.
//
// Unquantised rows may end inside a block. The rest of the block is multiplied by zeros with what
// follows in x, which is finite as x is; beyond the end of x nothing is read.
typedef struct matmul_params {
    const linear *w;
    const span *x;    // [columns, x_width]
    uint32_t x_width; // at least w->width, a multiple of 4
    const span *y;    // [columns, rows of w], or with w->paired [columns, rows / 2]: the gated
                      // product gelu(even row) * odd row, with none of the following
    uint32_t columns;
    const span *packed; // room for matmul_packed_bytes, see matmul_ways.h; NULL: many columns are
                        // multiplied in fp32
    const span *bias;   // [rows of w]; NULL: none
    bool gelu;          // its tanh form, after the bias
    bool add;           // y += instead of y =
} matmul_params;
kim_err op_matmul(stream *st, const matmul_params *p);

// y[c, :] = scale * w[token c, :], or soft[c, :] as it is where the token is CONTROL_SOFT; the
// tokens stand in the control block
typedef struct embed_params {
    const linear *w;
    const span *control;
    const span *soft; // [columns, width]; NULL: no token is CONTROL_SOFT
    const span *y;    // [columns, width]
    uint32_t columns;
    float scale;
} embed_params;
kim_err op_embed(stream *st, const embed_params *p);

typedef struct norm_params {
    const span *o, *w_post; // both or none: x += rms(o) * w_post first
    const span *x, *w, *h;  // h = rms(x) * w
    uint32_t rows, width;   // width: a multiple of 4
    float eps;
} norm_params;
kim_err op_norm(stream *st, const norm_params *p);

// op_matmul, then op_norm with o = y: of one column in one dispatch, whose last workgroup to finish
// makes the norms.
//
// counter: a word that is 0, and is left so
kim_err op_matmul_norm(stream *st, const matmul_params *p, const norm_params *norm,
                       const span *counter);

typedef struct rope_params {
    const span *qkv; // [rows, (heads + 2 kv_heads) head]; q is changed in place
    const span *w_q, *w_k, *rotation, *control;
    const kv_cache *cache;
    head_shape shape;
    uint32_t rows;
    float eps, q_scale;
} rope_params;
kim_err op_rope(stream *st, const rope_params *p);

typedef struct attention_params {
    const span *qkv, *control;
    const kv_cache *cache;
    const span *partial; // attention_partial_bytes; unused where the keys are not split
    const span *y;       // [rows, heads * head]
    head_shape shape;
    uint32_t rows;
} attention_params;
kim_err op_attention(stream *st, const attention_params *p);

// op_rope and op_attention in one, for a step of one row; qkv stays as it is. Of `rope`, what
// attention has too is not looked at.
kim_err op_attention_rope(stream *st, const attention_params *p, const rope_params *rope);

// The same for p->rows sessions, with a row each of qkv and y. Each is a dispatch of its own, and
// none waits for another.
typedef struct attention_session {
    const span *control;   // instead of p->control and p->cache
    const kv_cache *cache; // all of one size
} attention_session;
kim_err op_attention_rope_each(stream *st, const attention_params *p, const rope_params *rope,
                               const attention_session *sessions);

// sessions: the most rows of op_attention_rope_each; 1 where it is not used
uint64_t attention_partial_bytes(const head_shape *shape, uint32_t cache_rows, uint32_t sessions);

// y[r, i] = gelu(x[r, i]) * x[r, width + i]
kim_err op_geglu(stream *st, const span *x, const span *y, uint32_t rows, uint32_t width);

// scores: [rows, 4], see score.comp. Row 0 of the logits is token `first` of a step of `tokens`.
kim_err op_score(stream *st, const span *logits, const span *control, const span *scores,
                 uint32_t vocab, const uint32_t rows_first_tokens[3]);

// Draws a token by the logits of one row, and leaves everything as the next step needs it: the id
// is row 0's token, in the history and among the results; the position is its. What changes from
// step to step is read on the device, so a recorded step can be run again and again. The rule is
// that of engine/sampler.c.
//
// Of several rows, the tokens of those after the first are drafts of what is drawn. As many tokens
// are drawn as there are right drafts in a row, and one more; they are those that steps of one row
// would draw from these logits. All but the last have the status SAMPLE_AGREED.
//
// Results: see SAMPLE_RESULT_ID and what follows in kim_shared.h. A stop token is drawn and counts
// as a step like any other. Where nothing can be drawn, the step counts, but token, position and
// history stay. After both, CONTROL_STOPPED is set, and further steps change nothing.
typedef struct sample_params {
    const span *logits;   // [rows, vocab or more]
    uint64_t logits_at;   // bytes to the first of them
    const span *control;  // CONTROL_STEP and CONTROL_STOPPED are the host's to set first
    const span *history;  // [context + 1] u32: tokens by position; those up to the last row's are
                          // there
    const span *sampling; // struct sampling_block
    const span *scratch;  // [rows] sample_scratch_bytes; zeros before the first use
    const span *results;  // [SAMPLE_SLOTS, 4] u32
    uint32_t vocab;       // ids below it are drawn
    uint32_t first_row;   // of this step, whose logits the first are: 0 in a decode step
    uint32_t rows;        // 0: 1
    bool greedy;          // take the most probable; of the sampling block only stops are used
} sample_params;
kim_err op_sample(stream *st, const sample_params *p);

// The same for n sessions, which do not wait for each other.
kim_err op_sample_each(stream *st, const sample_params *list, uint32_t n);
uint64_t sample_scratch_bytes(uint32_t vocab); // of a row

// The last tokens that op_sample drew for one session become drafts of another's next step: they
// are the tokens of its rows from 1 on, and stand in its history behind its position.
typedef struct propose_params {
    const span *from_control, *from_history; // of the session that drew them
    const span *control, *history;
    uint32_t drafts;
} propose_params;
kim_err op_propose(stream *st, const propose_params *p);

typedef struct layer_norm_params {
    const span *x, *w, *b, *y; // y = (x - mean(x)) / sqrt(variance(x) + eps) * w + b; not in place
    uint32_t rows, width;      // width: a multiple of 4
    float eps;
} layer_norm_params;
kim_err op_layer_norm(stream *st, const layer_norm_params *p);

typedef struct average_pool_params {
    const span *x;                      // [images, side * side, width]
    const span *y;                      // [images, (side / pool)^2, width]
    uint32_t images, side, pool, width; // pool divides side; width: a multiple of 4
} average_pool_params;
kim_err op_average_pool(stream *st, const average_pool_params *p);

// Attention of every row of an image to every row of the same image.
typedef struct attention_full_params {
    const span *qkv;       // [images * rows, 3 * heads * head]: q, k, v one after the other
    const span *y;         // [images * rows, heads * head]
    uint32_t heads, head;  // head: 32 .. 256, a multiple of 4
    uint32_t images, rows; // rows: of one image
    float scale;           // of q . k
} attention_full_params;
kim_err op_attention_full(stream *st, const attention_full_params *p);

// The table of rotations for positions below `context`: rope_table_rows(context) * head / 2 pairs.
uint32_t rope_table_rows(uint32_t context);
void rope_table_fill(float *table, uint32_t context, uint32_t head, double base, double factor);

#endif
