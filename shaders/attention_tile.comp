#version 460
// SPDX-License-Identifier: MIT
// Attention of many rows on the device's matrices (VK_KHR_cooperative_matrix): what attention.comp
// computes, or with FULL what attention_full.comp does.
//
// A workgroup takes QUERIES queries: TOKENS rows times GROUP heads that share a kv head. Online
// softmax in fp32 (Milakov and Gimelshein 2018; Dao et al. 2022) over blocks of KEYS keys; blocks
// outside the window are not touched. For each block:
//     scores = q * k^T                          K is staged DEPTH dimensions at a time
//     weights = exp(scores - best), as fp16     in the place of the scores
//     sum = sum * correction + weights * v      V is staged by dimensions
// Scores are shared out among the subgroups by matrices; of the sums each has all queries, and every
// WORKERS-th matrix of the dimensions.
//
// fp16 cannot overflow: q of each query is multiplied by a power of two that brings its largest |q|
// to between 2^14 and 2^15, and its scores are divided by it in fp32 (so what is above 2^-29 of the
// largest keeps eleven bits); weights are at most 1; K and V, where they are not fp16 already, are
// held within its range. Products are summed in fp32.
// macros: KV_Q8 (kv.glsl), FULL
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#include "attention_tile.glsl"

const uint PART_KEYS = KEYS / PARTS; // of a lane's softmax; even
const uint DEEP = QUERIES / M;
const uint SCORES = DEEP * (KEYS / N) / WORKERS; // matrices of the scores of a subgroup
const uint WIDE = DEPTH / N / WORKERS;           // of the sums' columns, in a slice

#define MATRIX_LEFT coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA>
#define MATRIX_RIGHT coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB>
#define MATRIX_SUM coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>

const uint SCORE_STRIDE = KEYS + 4; // in words
shared uint scores[QUERIES * SCORE_STRIDE]; // f32, then weights as f16; at last, matrices of sums
shared float correction[QUERIES]; // exp(best before - best now); at last, 1 / the sum of weights

MATRIX_SUM sum[SLICES * WIDE * DEEP];

// `scores` of a block, without the scale of q.
void multiply_keys(uint head, uint first_key)
{
    MATRIX_SUM score[SCORES];
    [[unroll]] for (uint n = 0; n < SCORES; n++)
        score[n] = MATRIX_SUM(0);
    for (uint slice = 0; slice < SLICES; slice++) {
        barrier(); // what was staged before has been multiplied
        stage_keys(head, first_key, slice * DEPTH / 4);
        barrier();
        const uint steps = min(DEPTH, PADDED - slice * DEPTH) / K;
        for (uint k = 0; k < steps; k++) {
            [[unroll]] for (uint n = 0; n < SCORES; n++) {
                const uint at = gl_SubgroupID * SCORES + n, i = at % DEEP, j = at / DEEP;
                MATRIX_LEFT q;
                MATRIX_RIGHT keys;
                coopMatLoad(q, tile_q, i * M * Q_STRIDE + (slice * DEPTH + k * K) / 4, Q_STRIDE,
                            gl_CooperativeMatrixLayoutRowMajor);
                coopMatLoad(keys, stage, j * N * STAGE_STRIDE + k * K / 4, STAGE_STRIDE,
                            gl_CooperativeMatrixLayoutColumnMajor);
                score[n] = coopMatMulAdd(q, keys, score[n]);
            }
        }
    }
    [[unroll]] for (uint n = 0; n < SCORES; n++) {
        const uint at = gl_SubgroupID * SCORES + n, i = at % DEEP, j = at / DEEP;
        coopMatStore(score[n], scores, i * M * SCORE_STRIDE + j * N, SCORE_STRIDE,
                     gl_CooperativeMatrixLayoutRowMajor);
    }
    barrier();
}

// Scores of the lane's part of a block to weights.
// keys: that the query sees, the first and the last   best, weights: so far, of this query and part
void weigh(uint query, uint part, uint first_key, float scale, uvec2 keys, inout float best,
           inout float weights)
{
    float score[PART_KEYS], now = best;
    [[unroll]] for (uint j = 0; j < PART_KEYS; j++) {
        const uint key = first_key + part * PART_KEYS + j;
        score[j] = uintBitsToFloat(scores[query * SCORE_STRIDE + part * PART_KEYS + j]) * scale;
        if (key < keys.x || key > keys.y)
            score[j] = NONE;
        now = max(now, score[j]);
    }
    parts[gl_LocalInvocationIndex] = now;
    barrier();
    for (uint j = 0; j < PARTS; j++)
        now = max(now, parts[query * PARTS + j]);
    const float correct = exp(best - now);
    best = now;
    weights *= correct;
    if (part == 0)
        correction[query] = correct;
    [[unroll]] for (uint j = 0; j < PART_KEYS; j += 2) {
        // a masked key adds nothing even where all are masked
        const vec2 w = vec2(score[j] == NONE ? 0.0 : exp(score[j] - best),
                            score[j + 1] == NONE ? 0.0 : exp(score[j + 1] - best));
        weights += w.x + w.y;
        scores[query * SCORE_STRIDE + (part * PART_KEYS + j) / 2] = packFloat2x16(f16vec2(w));
    }
}

// The first dimension, in a slice, of the w-th column of sums of this subgroup. Beyond HEAD there are
// zeros: nobody would be done sooner without them.
uint column_of(uint w)
{
    return (w * WORKERS + gl_SubgroupID) * N;
}

void multiply_values(uint head, uint first_key)
{
    [[unroll]] for (uint slice = 0; slice < SLICES; slice++) {
        if (slice > 0)
            barrier();
        stage_values(head, first_key, slice * DEPTH / 4);
        barrier();
        if (slice == 0)
            [[unroll]] for (uint i = 0; i < DEEP; i++) {
                MATRIX_SUM correct; // with a stride of 0: all columns alike
                coopMatLoad(correct, correction, i * M, 0, gl_CooperativeMatrixLayoutColumnMajor);
                [[unroll]] for (uint n = 0; n < SLICES * WIDE; n++)
                    sum[n * DEEP + i] *= correct;
            }
        [[unroll]] for (uint w = 0; w < WIDE; w++) {
            [[unroll]] for (uint k = 0; k < KEYS / K; k++) {
                MATRIX_RIGHT values;
                coopMatLoad(values, stage, column_of(w) * VALUE_STRIDE + k * K / 4, VALUE_STRIDE,
                            gl_CooperativeMatrixLayoutColumnMajor);
                [[unroll]] for (uint i = 0; i < DEEP; i++) {
                    MATRIX_LEFT weights;
                    coopMatLoad(weights, scores, i * M * SCORE_STRIDE + k * K / 2, SCORE_STRIDE,
                                gl_CooperativeMatrixLayoutRowMajor);
                    const uint n = (slice * WIDE + w) * DEEP + i;
                    sum[n] = coopMatMulAdd(weights, values, sum[n]);
                }
            }
        }
    }
}

// By way of shared memory: which lane holds which element is the device's own affair.
void store_sums(uint first_row, uint last_row, uint first_head)
{
    const uint from = gl_SubgroupID * M * N;
    [[unroll]] for (uint n = 0; n < SLICES * WIDE * DEEP; n++) {
        const uint first = n / DEEP / WIDE * DEPTH + column_of(n / DEEP % WIDE); // dimension
        coopMatStore(sum[n], scores, from, N, gl_CooperativeMatrixLayoutRowMajor);
        subgroupBarrier();
        for (uint e = gl_SubgroupInvocationID * 2; e < M * N; e += SUBGROUP * 2) {
            const uint query = n % DEEP * M + e / N, row = first_row + query / GROUP;
            const uint head = y_row(row) * a.heads + first_head + query % GROUP;
            if (first + e % N < HEAD && query < TOKENS * GROUP && row <= last_row)
                store_f32x2(a.y, (head * HEAD + first + e % N) * 4,
                            vec2(uintBitsToFloat(scores[from + e]),
                                 uintBitsToFloat(scores[from + e + 1])) *
                                correction[query]);
        }
        subgroupBarrier();
    }
}

void main()
{
    const uint query = gl_LocalInvocationIndex / PARTS, part = gl_LocalInvocationIndex % PARTS;
    const uint first_row = gl_WorkGroupID.x * TOKENS, first_head = gl_WorkGroupID.y * GROUP;
    const uint last_row = min(first_row + TOKENS, a.rows) - 1;
    const uint row = min(first_row + query / GROUP, last_row);
    const uint head = kv_head_of(first_head);
    const uvec2 keys = keys_of(row), all_keys = keys_of_all(first_row, keys);
    const float scale = stage_q(q_at(row, first_head + query % GROUP), query, part);
    [[unroll]] for (uint n = 0; n < SLICES * WIDE * DEEP; n++)
        sum[n] = MATRIX_SUM(0);

    float best = NONE, weights = 0;
    for (uint block = all_keys.x / KEYS; block <= all_keys.y / KEYS; block++) {
        multiply_keys(head, block * KEYS);
        weigh(query, part, block * KEYS, scale, keys, best, weights);
        multiply_values(head, block * KEYS);
    }

    barrier(); // correction and scores have been read
    parts[gl_LocalInvocationIndex] = weights;
    barrier();
    weights = 0;
    for (uint j = 0; j < PARTS; j++)
        weights += parts[query * PARTS + j];
    if (part == 0)
        correction[query] = 1 / weights;
    barrier();
    store_sums(first_row, last_row, first_head);
}
