// SPDX-License-Identifier: MIT
// What C and GLSL share: push-constant structs, specialisation ids, constants of the layouts.
#ifndef KIM_SHADER_SHARED_H
#define KIM_SHADER_SHARED_H

#ifdef GL_core_profile
#    define KIM_HANDLE uvec2
#    define KIM_UINT uint
#    define KIM_FLOAT float
#else
#    include <stdint.h>
// A place in device memory as shaders see it (shaders/memory.glsl): an address, or a slot of the
// table (low word) and a byte offset (high word). 16-byte aligned.
typedef uint64_t kim_handle;
#    define KIM_HANDLE kim_handle
#    define KIM_UINT uint32_t
#    define KIM_FLOAT float
#endif

// ---- constants of the layouts ---------------------------------------------------------------
#define ROW_GROUP 16       // weight rows interleaved in one group
#define KEY_GROUP 16       // positions interleaved in the K cache
#define KEY_BLOCK 64       // keys that attention takes at once
#define ROPE_LOW 256       // rotation of position p = that of p % ROPE_LOW times that of the rest

// ---- what is measured with (peak_*.comp) ------------------------------------------------------
#define PEAK_COPY_LOADS 8  // 16-byte loads of a lane
#define PEAK_FP32_CHAINS 16
#define PEAK_FP32_STEPS 8  // of every chain in a round

// ---- specialisation constant ids ------------------------------------------------------------
#define SPEC_TABLE_SIZE 0 // of the device: slots of the table (memory.glsl)
#define SPEC_PASS 1       // of the device: lanes load for each other (pass.glsl)
#define SPEC_WORKGROUP 2
#define SPEC_A 3 // further ones are named where the shader declares them
#define SPEC_B 4
#define SPEC_C 5
#define SPEC_D 6
#define SPEC_COUNT 7

// ---- the control block of a session: what changes from step to step ---------------------------
#define CONTROL_POSITION 0   // position of the first row of this step
#define CONTROL_ROWS 4       // from here, for each row of this step and the token after the last:
#define CONTROL_ROW_WORDS 2
#define CONTROL_ROW_TOKEN 0  // its id, or CONTROL_SOFT
#define CONTROL_ROW_AHEAD 1  // rows of the same picture after it, which it sees; 0 for text
#define CONTROL_SOFT 0xffffffffu // no token: a row of the pictures' soft tokens
#define CONTROL_ROW(row, what) (CONTROL_ROWS + CONTROL_ROW_WORDS * (row) + (what))

// ---- what matmul does besides, in its constant FLAGS --------------------------------------------
#define MATMUL_BIAS 1 // + bias[r]
#define MATMUL_GELU 2 // gelu of it
#define MATMUL_ADD 4  // y += instead of y =
#define MATMUL_TAIL 8 // the last block of a row goes beyond x_stride

// ---- push constants ---------------------------------------------------------------------------
struct matmul_args {
    KIM_HANDLE x;       // [columns, x_stride] f32
    KIM_HANDLE w;       // packed weights, `rows` rows of `blocks` blocks
    KIM_HANDLE y;       // [columns, y_stride] f32
    KIM_HANDLE bias;    // [rows] f32                                       (MATMUL_BIAS only)
    KIM_UINT rows;      // weight rows that are real; the last group may be padded
    KIM_UINT blocks;    // blocks in a weight row
    KIM_UINT columns;   // activation rows
    KIM_UINT x_stride;  // in elements, a multiple of 4; at least blocks * block without MATMUL_TAIL
    KIM_UINT y_stride;  // in elements
};

struct embed_args {
    KIM_HANDLE w;       // packed weights: rows first .. first + rows - 1 of the embedding
    KIM_HANDLE control; // token ids
    KIM_HANDLE soft;    // [columns, width] f32: the rows whose token is CONTROL_SOFT
    KIM_HANDLE y;       // [columns, width] f32
    KIM_UINT first;
    KIM_UINT rows;
    KIM_UINT blocks;
    KIM_UINT width;
    KIM_FLOAT scale;
};

struct norm_args {
    KIM_HANDLE o;       // [rows, width] f32: what the layer made           (ADD only)
    KIM_HANDLE w_post;  // [width] f32: norm of o                           (ADD only)
    KIM_HANDLE x;       // [rows, width] f32: the residual, read and written (read only without ADD)
    KIM_HANDLE w;       // [width] f32: norm of x
    KIM_HANDLE h;       // [rows, width] f32
    KIM_UINT width;
    KIM_FLOAT eps;
};

struct rope_args {
    KIM_HANDLE qkv;      // [rows, (heads + 2 * kv_heads) * head] f32: q heads, k heads, v heads
    KIM_HANDLE w_q;      // [head] f32
    KIM_HANDLE w_k;      // [head] f32
    KIM_HANDLE rotation; // [ROPE_LOW + ..., head / 2] (cos, sin), see rope.comp
    KIM_HANDLE k_cache;  // [kv_heads][cache_rows / KEY_GROUP][head / 2][KEY_GROUP] pairs of f16
    KIM_HANDLE v_cache;  // [kv_heads][cache_rows][head] f16
    KIM_HANDLE control;
    KIM_UINT heads;
    KIM_UINT kv_heads;
    KIM_UINT cache_rows; // positions the cache holds; position p is at p % cache_rows
    KIM_FLOAT eps;
    KIM_FLOAT q_scale;
};

struct attention_args {
    KIM_HANDLE qkv;     // as rope left it: q normed, rotated and scaled
    KIM_HANDLE k_cache;
    KIM_HANDLE v_cache;
    KIM_HANDLE y;       // [rows, heads * head] f32; with splits: [rows, heads, splits, head + 2],
                        // sum of exp(score - best) * v, then best, then sum of exp(score - best)
    KIM_HANDLE control;
    KIM_UINT heads;
    KIM_UINT kv_heads;
    KIM_UINT rows;
    KIM_UINT cache_rows; // a multiple of KEY_BLOCK; at least rows + window - 1, or all positions
    KIM_UINT window;     // keys a query sees, itself included
};

struct combine_args {
    KIM_HANDLE partial; // [rows, heads, splits, head + 2] f32, of attention
    KIM_HANDLE y;       // [rows, heads * head] f32
    KIM_UINT splits;
};

struct geglu_args {
    KIM_HANDLE x; // [rows, 2 * width] f32: gate, up
    KIM_HANDLE y; // [rows, width] f32
    KIM_UINT width;
};

struct score_args {
    KIM_HANDLE logits;  // [rows, vocab] f32
    KIM_HANDLE control; // token ids
    KIM_HANDLE scores;  // [rows, 4]: best id (bits), its logit, log(sum(exp)), logit of the next token
    KIM_UINT vocab;
    KIM_UINT first;     // row 0 is token `first` of this step
    KIM_UINT tokens;    // tokens of this step: the last has no next
};

struct layer_norm_args {
    KIM_HANDLE x; // [rows, width] f32
    KIM_HANDLE w; // [width] f32
    KIM_HANDLE b; // [width] f32
    KIM_HANDLE y; // [rows, width] f32
    KIM_UINT width;
    KIM_FLOAT eps;
};

struct average_pool_args {
    KIM_HANDLE x; // [images, side * side, width] f32
    KIM_HANDLE y; // [images, (side / pool)^2, width] f32
    KIM_UINT side;
    KIM_UINT pool;
    KIM_UINT width;
};

struct attention_full_args {
    KIM_HANDLE qkv; // [images * rows, 3 * heads * head] f32: q, k, v
    KIM_HANDLE y;   // [images * rows, heads * head] f32
    KIM_UINT heads;
    KIM_UINT rows;  // of one image
    KIM_FLOAT scale;
};

struct peak_copy_args {
    KIM_HANDLE x;
    KIM_HANDLE y;
};

struct peak_fp32_args {
    KIM_HANDLE y; // [lanes] f32
    KIM_UINT rounds;
    KIM_FLOAT factor;
    KIM_FLOAT term;
};

#endif
