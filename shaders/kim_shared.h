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
#define ROW_GROUP 16 // weight rows interleaved in one group
#define KEY_GROUP 16 // positions of a group of the caches, interleaved in that of K
#define KV_BLOCK 32  // dimensions that share a scale in a cache of 8 bits
#define KEY_BLOCK 64 // keys that attention takes at once
#define ATTENTION_TILE_KEYS 32 // and where it goes by matrices
#define ROPE_LOW 256 // rotation of position p = that of p % ROPE_LOW times that of the rest

// ---- what is measured with (peak_*.comp) ------------------------------------------------------
#define PEAK_COPY_LOADS 8  // 16-byte loads of a lane
#define PEAK_FP32_CHAINS 16
#define PEAK_FP32_STEPS 8  // of every chain in a round
#define PEAK_MATRIX_CHAINS 8

// ---- specialisation constant ids ------------------------------------------------------------
#define SPEC_TABLE_SIZE 0 // of the device: slots of the table (memory.glsl)
#define SPEC_PASS 1       // of the device: lanes load for each other (pass.glsl)
#define SPEC_WORKGROUP 2
#define SPEC_A 3 // further ones are named where the shader declares them
#define SPEC_B 4
#define SPEC_C 5
#define SPEC_D 6
#define SPEC_E 7
#define SPEC_F 8
#define SPEC_G 9
#define SPEC_SUBGROUP                                                                              \
    10 // lanes of a subgroup, which the pipeline then requires; 0: the driver's choice
#define SPEC_COUNT 11

// ---- the control block of a session: what changes from step to step ---------------------------
#define CONTROL_POSITION 0 // position of the first row of this step
#define CONTROL_STEP 1     // tokens drawn since the host last set it
#define CONTROL_STOPPED 2  // not 0: no more are drawn
#define CONTROL_ROWS 4     // from here, for each row of this step and the token after the last:
#define CONTROL_ROW_WORDS 2
#define CONTROL_ROW_TOKEN 0      // its id, or CONTROL_SOFT
#define CONTROL_ROW_AHEAD 1      // rows of the same picture after it, which it sees; 0 for text
#define CONTROL_SOFT 0xffffffffu // no token: a row of the pictures' soft tokens
#define CONTROL_ROW(row, what) (CONTROL_ROWS + CONTROL_ROW_WORDS * (row) + (what))

// ---- drawing tokens (sample.glsl) ---------------------------------------------------------------
#define SAMPLE_DRAWS 64 // random numbers in the sampling block
#define SAMPLE_SLOTS 64 // results that are kept: step i is in slot i % SAMPLE_SLOTS, four words:
#define SAMPLE_RESULT_ID 0
#define SAMPLE_RESULT_LOGPROB 1 // f32, before penalty and temperature
#define SAMPLE_RESULT_MARK 2    // i + 1
#define SAMPLE_RESULT_STATUS 3
#define SAMPLE_OK 0
#define SAMPLE_STOP 1    // a stop token was drawn
#define SAMPLE_ODD 2     // the logit of the id is not a number: nothing was drawn
#define SAMPLE_NOTHING 3 // all logits are -infinity
#define SAMPLE_AGREED 4  // as the draft in the step's next row, whose result follows

// The words of the sampling block, which the host writes (struct sampling_block).
#define SAMPLING_TEMPERATURE 0
#define SAMPLING_TOP_K 1
#define SAMPLING_TOP_P 2
#define SAMPLING_MIN_P 3
#define SAMPLING_REPEAT_PENALTY 4
#define SAMPLING_REPEAT_LAST 5
#define SAMPLING_N_STOPS 6
#define SAMPLING_STOPS 7
#define SAMPLING_MAX_STOPS 16
#define SAMPLING_DRAWS (SAMPLING_STOPS + SAMPLING_MAX_STOPS)

#ifndef GL_core_profile
struct sampling_block {
    float temperature;
    uint32_t top_k; // UINT32_MAX: all
    float top_p, min_p, repeat_penalty;
    uint32_t repeat_last, n_stops, stops[SAMPLING_MAX_STOPS];
    float draws[SAMPLE_DRAWS]; // for step i: draws[i % SAMPLE_DRAWS], of 24 bits, in [0, 1)
};
#endif

// Words of the scratch memory, which is zeros before its first use.
#define SAMPLE_DONE 0   // workgroups of the dispatch that have finished
#define SAMPLE_LISTED 1 // candidates
#define SAMPLE_STATUS 2
#define SAMPLE_ID 3      // of a logit that is not a number
#define SAMPLE_BEST 4    // order of the highest logit
#define SAMPLE_SUM 5     // f32: sum of exp(logit - highest)
#define SAMPLE_TOP 6     // order of the highest adjusted logit
#define SAMPLE_MASS 7    // f32: sum of exp((adjusted - highest) / temperature)
#define SAMPLE_REACH 8   // f32: (highest - adjusted) / temperature of what may be kept, at most
#define SAMPLE_BORDER 9  // f32: the same, once the histogram is known
#define SAMPLE_ROWS_DONE 10 // rows of the step that are, in the first row's memory
#define SAMPLE_DRAWN 12     // [4]: id, f32 log-probability, status
#define SAMPLE_BINS 1024 // of the histogram of that distance
#define SAMPLE_COUNTS 64 // [SAMPLE_BINS, 2]: logits, and their share of the mass in 2^-30
#define SAMPLE_PARTS                                                                               \
    (SAMPLE_COUNTS + 2 * SAMPLE_BINS) // of SAMPLE_LEAST_CHUNK ids, [SAMPLE_PART_WORDS]
#define SAMPLE_PART_WORDS 8
#define SAMPLE_LEAST_CHUNK 2048 // ids of a workgroup, or a multiple up to
#define SAMPLE_MOST_CHUNK 16384
#define SAMPLE_SHORT 1024 // candidates that are sorted in shared memory

// ---- what matmul does besides, in its constant FLAGS --------------------------------------------
#define MATMUL_BIAS 1 // + bias[r]
#define MATMUL_GELU 2 // gelu of it
#define MATMUL_ADD 4  // y += instead of y =
#define MATMUL_TAIL 8 // the last block of a row goes beyond x_stride
#define MATMUL_GLU 16 // rows come in pairs (gate, up): y[c, r / 2] = gelu(gate) * up; of tiles only
#define MATMUL_NORM                                                                                \
    32 // of one column, then residual += rms(y) * w_post, h = rms(residual) * w_norm

// ---- push constants ---------------------------------------------------------------------------
// Columns whose x is looked at for all rows, before the next ones': so it stays in a cache that lies
// closer than that of the weights. A multiple of all counts of columns of a workgroup.
#define MATMUL_SPAN 64

struct matmul_args {
    KIM_HANDLE x;      // [columns, x_stride] f32
    KIM_HANDLE w;      // packed weights, `rows` rows of `blocks` blocks
    KIM_HANDLE y;      // [columns, y_stride] f32
    KIM_HANDLE bias;   // [rows] f32                                       (MATMUL_BIAS only)
    KIM_UINT rows;     // weight rows that are real; the last group may be padded
    KIM_UINT blocks;   // blocks in a weight row
    KIM_UINT columns;  // activation rows
    KIM_UINT x_stride; // in elements, a multiple of 4; at least blocks * block without MATMUL_TAIL
    KIM_UINT y_stride; // in elements
    // with MATMUL_NORM
    KIM_FLOAT eps;
    KIM_HANDLE residual; // [rows] f32
    KIM_HANDLE w_post;   // [rows] f32
    KIM_HANDLE w_norm;   // [rows] f32
    KIM_HANDLE h;        // [rows] f32
    KIM_HANDLE counter;  // a word that is 0 before and after: workgroups that are done
};

struct matmul_tile_args {
    KIM_HANDLE x;        // [columns, x_stride] f32, or as pack.comp left it
    KIM_HANDLE x_scales; // of pack.comp
    KIM_HANDLE w;        // the rest as in matmul_args
    KIM_HANDLE y;
    KIM_HANDLE bias;
    KIM_UINT rows;
    KIM_UINT blocks;
    KIM_UINT columns;
    KIM_UINT x_stride;
    KIM_UINT y_stride;
};

struct pack_args {
    KIM_HANDLE x;      // [columns, x_stride] f32
    KIM_HANDLE to;     // [blocks of 32][columns][32] f16 or int8
    KIM_HANDLE scales; // see pack.comp
    KIM_UINT columns;
    KIM_UINT width;
    KIM_UINT x_stride; // in elements, a multiple of 4
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
    KIM_HANDLE o;      // [rows, width] f32: what the layer made           (ADD only)
    KIM_HANDLE w_post; // [width] f32: norm of o                           (ADD only)
    KIM_HANDLE x;      // [rows, width] f32: the residual, read and written (read only without ADD)
    KIM_HANDLE w;      // [width] f32: norm of x
    KIM_HANDLE h;      // [rows, width] f32
    KIM_UINT width;
    KIM_FLOAT eps;
};

struct rope_args {
    KIM_HANDLE qkv;      // [rows, (heads + 2 * kv_heads) * head] f32: q heads, k heads, v heads
    KIM_HANDLE w_q;      // [head] f32
    KIM_HANDLE w_k;      // [head] f32
    KIM_HANDLE rotation; // [ROPE_LOW + ..., head / 2] (cos, sin), see rope.comp
    KIM_HANDLE k_cache;  // see kv.glsl
    KIM_HANDLE v_cache;
    KIM_HANDLE control;
    KIM_UINT heads;
    KIM_UINT kv_heads;
    KIM_UINT cache_rows; // positions the cache holds; position p is at p % cache_rows
    KIM_FLOAT eps;
    KIM_FLOAT q_scale;
};

struct attention_args {
    KIM_HANDLE qkv; // as rope left it: q normed, rotated and scaled
    KIM_HANDLE k_cache;
    KIM_HANDLE v_cache;
    KIM_HANDLE y; // [rows, heads * head] f32; with splits: [rows, heads, splits, head + 2],
                  // sum of exp(score - best) * v, then best, then sum of exp(score - best)
    KIM_HANDLE control;
    KIM_UINT heads;
    KIM_UINT kv_heads;
    KIM_UINT rows;
    KIM_UINT cache_rows; // a multiple of KEY_BLOCK; at least rows + window - 1, or all positions
    KIM_UINT window;     // keys a query sees, itself included
    // with ROPE also of rope_args, and qkv is as the product left it
    KIM_HANDLE w_q;
    KIM_HANDLE w_k;
    KIM_HANDLE rotation;
    KIM_FLOAT eps;
    KIM_FLOAT q_scale;
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
    KIM_HANDLE
    scores; // [rows, 4]: best id (bits), its logit, log(sum(exp)), logit of the next token
    KIM_UINT vocab;
    KIM_UINT first;  // row 0 is token `first` of this step
    KIM_UINT tokens; // tokens of this step: the last has no next
};

struct sample_args {
    KIM_HANDLE logits; // [rows, stride] f32
    KIM_HANDLE control;
    KIM_HANDLE history;  // [context + 1] ids of the session's tokens
    KIM_HANDLE sampling; // SAMPLING_*
    KIM_HANDLE scratch;  // [rows, scratch_row] SAMPLE_*
    KIM_HANDLE results;  // [SAMPLE_SLOTS, 4]
    KIM_UINT vocab;
    KIM_UINT row;    // of this step, whose logits the first ones are
    KIM_UINT groups; // workgroups over the vocabulary
    KIM_UINT list;   // where in a row, in bytes: [2^n >= vocab, 2] order and id of candidates
    KIM_UINT rows;
    KIM_UINT stride;      // in elements
    KIM_UINT scratch_row; // bytes
};

struct propose_args {
    KIM_HANDLE from_control; // of the session that drafts
    KIM_HANDLE from_history;
    KIM_HANDLE control;
    KIM_HANDLE history;
    KIM_UINT drafts;
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
    KIM_UINT rows; // of one image
    KIM_FLOAT scale;
};

struct peak_copy_args {
    KIM_HANDLE x;
    KIM_HANDLE y;
};

struct peak_args { // of all but the copy
    KIM_HANDLE y; // [lanes] f32
    KIM_UINT rounds;
    KIM_FLOAT factor;
    KIM_FLOAT term;
};

#endif
