// SPDX-License-Identifier: MIT
// Operations: one launch function each. They add dispatches to a stream and own nothing.
//
// A span given here holds exactly the tensor, row after row, f32 unless said otherwise. Rows of
// activations are `width` elements; a matmul's input is at least as wide as its packed weights,
// with zeros where they are padded.
#ifndef KIM_OPS_H
#define KIM_OPS_H

#include "linear.h"
#include "stream.h"

// K and V of one layer. V is finite from the start, as zeros are: what is masked is weighed with 0.
typedef struct kv_cache {
    span k, v;       // [kv_heads, rows, head] f16 each; see rope.comp
    uint32_t rows;   // positions it holds; a multiple of KEY_BLOCK
    uint32_t window; // keys a query sees, itself included
} kv_cache;

// The shape of attention.
typedef struct head_shape {
    uint32_t heads, kv_heads, head; // head: 64 .. 256, a multiple of 4
} head_shape;

// y[c, first + r] = sum over k of x[c, k] * w[r, k] for all parts of w.
//
// x: [columns, x_width]   y: [columns, rows of w], or with w->paired [columns, rows / 2]: the gated
// product gelu(even row) * odd row
kim_err op_matmul(stream *st, const linear *w, const span *x, uint32_t x_width, const span *y,
                  uint32_t columns);

// y[c, :] = scale * w[token c, :]; the tokens stand in the control block
kim_err op_embed(stream *st, const linear *w, const span *control, const span *y, uint32_t columns,
                 float scale);

typedef struct norm_params {
    const span *o, *w_post; // both or none: x += rms(o) * w_post first
    const span *x, *w, *h;  // h = rms(x) * w
    uint32_t rows, width;   // width: a multiple of 4
    float eps;
} norm_params;
kim_err op_norm(stream *st, const norm_params *p);

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
uint64_t attention_partial_bytes(const head_shape *shape, uint32_t cache_rows);

// y[r, i] = gelu(x[r, i]) * x[r, width + i]
kim_err op_geglu(stream *st, const span *x, const span *y, uint32_t rows, uint32_t width);

// scores: [rows, 4], see score.comp. Row 0 of the logits is token `first` of a step of `tokens`.
kim_err op_score(stream *st, const span *logits, const span *control, const span *scores,
                 uint32_t vocab, const uint32_t rows_first_tokens[3]);

// The table of rotations for positions below `context`: rope_table_rows(context) * head / 2 pairs.
uint32_t rope_table_rows(uint32_t context);
void rope_table_fill(float *table, uint32_t context, uint32_t head, double base, double factor);

#endif
