#version 460
// SPDX-License-Identifier: MIT
// What attention_tile.comp computes, on matrices that can be reduced, converted and changed element by
// element (VK_NV_cooperative_matrix2): scores and weights never leave them.
//
// A subgroup takes N queries, all keys and all dimensions. A query is a column: on AMD two lanes have
// it, so that its best score takes one exchange between them, and a matrix of sums becomes a right-hand
// one by as little; to become a left-hand one it would be transposed. For each block of KEYS keys:
//     scores = k * q^T                          K is staged DEPTH dimensions at a time
//     weights = 2^(scores - best), as fp16      scores are in units of ln 2
//     sum = sum * correction + v^T * weights    V is staged likewise, by dimensions
// macros: KV_Q8 (kv.glsl), FULL
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_NV_cooperative_matrix2 : require
#include "attention_tile.glsl"

const uint TALL = PADDED / M; // matrices of the sums
const uint BLOCK = KEYS / M;  // of the scores; M is K, so that they can be multiplied again
const float FIRST_BEST = NONE / 2;
const float LOG2_E = 1.44269504;

#define MATRIX_LEFT coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA>
#define MATRIX_RIGHT coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB>
#define MATRIX_WEIGHT coopmat<float16_t, gl_ScopeSubgroup, M, N, gl_MatrixUseB>
#define MATRIX_VALUE coopmat<float16_t, gl_ScopeSubgroup, M, M, gl_MatrixUseA>
#define MATRIX_SUM coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>

shared float scales[QUERIES]; // of scores
shared float lows[QUERIES];   // keys that a query sees, the first and the last
shared float highs[QUERIES];

MATRIX_SUM sum[TALL];

// -------------------------------------------------------------------------- of elements of matrices

float larger(const in float x, const in float y)
{
    return max(x, y);
}

float total(const in float x, const in float y)
{
    return x + y;
}

float larger_element(const in uint row, const in uint column, const in float x, const in float y)
{
    return max(x, y);
}

float seen(const in uint row, const in uint column, const in float score, const in uint first_key,
           const in float low, const in float high)
{
    const float key = float(first_key + row);
    return key < low || key > high ? NONE : score;
}

// 0 for what is masked, since `best` is above that
float weight_of(const in uint row, const in uint column, const in float score, const in float best)
{
    return exp2(score - best);
}

float inverse(const in uint row, const in uint column, const in float x)
{
    return 1 / x;
}

// ----------------------------------------------------------------------------------------- steps

void multiply_keys(uint head, uint first_key, out MATRIX_SUM score[BLOCK])
{
    [[unroll]] for (uint j = 0; j < BLOCK; j++)
        score[j] = MATRIX_SUM(0);
    for (uint slice = 0; slice < SLICES; slice++) {
        barrier(); // what was staged before has been multiplied
        stage_keys(head, first_key, slice * DEPTH / 4);
        barrier();
        const uint steps = min(DEPTH, PADDED - slice * DEPTH) / K;
        for (uint k = 0; k < steps; k++) {
            MATRIX_RIGHT q;
            coopMatLoad(q, tile_q, gl_SubgroupID * N * Q_STRIDE + (slice * DEPTH + k * K) / 4,
                        Q_STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
            [[unroll]] for (uint j = 0; j < BLOCK; j++) {
                MATRIX_LEFT keys;
                coopMatLoad(keys, stage, j * M * STAGE_STRIDE + k * K / 4, STAGE_STRIDE,
                            gl_CooperativeMatrixLayoutRowMajor);
                score[j] = coopMatMulAdd(keys, q, score[j]);
            }
        }
    }
}

void multiply_values(uint head, uint first_key, MATRIX_WEIGHT weight[BLOCK])
{
    [[unroll]] for (uint slice = 0; slice < SLICES; slice++) {
        barrier();
        stage_values(head, first_key, slice * DEPTH / 4);
        barrier();
        [[unroll]] for (uint i = slice * DEPTH / M; i < min(TALL, (slice + 1) * DEPTH / M); i++) {
            [[unroll]] for (uint j = 0; j < BLOCK; j++) {
                MATRIX_VALUE values;
                coopMatLoad(values, stage, (i - slice * DEPTH / M) * M * VALUE_STRIDE + j * M / 4,
                            VALUE_STRIDE, gl_CooperativeMatrixLayoutRowMajor);
                sum[i] = coopMatMulAdd(values, weight[j], sum[i]);
            }
        }
    }
}

// By way of shared memory: which lane holds which element is the device's own affair.
void store_sums(uint first_row, uint last_row, uint first_head)
{
    const uint from = gl_SubgroupID * M * N / 2; // a matrix each stands in what is staged
    barrier(); // what was staged has been multiplied
    [[unroll]] for (uint i = 0; i < TALL; i++) {
        coopMatStore(sum[i], stage, from, M / 2, gl_CooperativeMatrixLayoutColumnMajor);
        subgroupBarrier();
        for (uint e = gl_SubgroupInvocationID; e < M * N / 2; e += SUBGROUP) {
            const uint query = gl_SubgroupID * N + e / (M / 2), row = first_row + query / GROUP;
            const uint head = y_row(row) * a.heads + first_head + query % GROUP;
            const uint dimension = i * M + e % (M / 2) * 2;
            if (dimension < HEAD && query < TOKENS * GROUP && row <= last_row)
                store_u32x2(a.y, (head * HEAD + dimension) * 4, stage[from + e]);
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
    const float scale_of_query = stage_q(q_at(row, first_head + query % GROUP), query, part);
    if (part == 0) {
        scales[query] = scale_of_query * LOG2_E;
        lows[query] = float(keys.x); // exact up to 2^24
        highs[query] = float(keys.y);
    }
    barrier();
    // with a stride of 0: all rows alike
    MATRIX_SUM scale, low, high;
    coopMatLoad(scale, scales, gl_SubgroupID * N, 0, gl_CooperativeMatrixLayoutRowMajor);
    coopMatLoad(low, lows, gl_SubgroupID * N, 0, gl_CooperativeMatrixLayoutRowMajor);
    coopMatLoad(high, highs, gl_SubgroupID * N, 0, gl_CooperativeMatrixLayoutRowMajor);

    MATRIX_SUM best = MATRIX_SUM(FIRST_BEST), weights = MATRIX_SUM(0);
    [[unroll]] for (uint i = 0; i < TALL; i++)
        sum[i] = MATRIX_SUM(0);
    for (uint block = all_keys.x / KEYS; block <= all_keys.y / KEYS; block++) {
        MATRIX_SUM score[BLOCK], now = best, correction;
        MATRIX_WEIGHT weight[BLOCK];
        multiply_keys(head, block * KEYS, score);
        [[unroll]] for (uint j = 0; j < BLOCK; j++) {
            score[j] *= scale;
            coopMatPerElementNV(score[j], score[j], seen, block * KEYS + j * M, low, high);
            coopMatPerElementNV(now, now, larger_element, score[j]);
        }
        coopMatReduceNV(now, now, gl_CooperativeMatrixReduceColumnNV, larger);
        coopMatPerElementNV(correction, best, weight_of, now);
        best = now;
        weights *= correction;
        [[unroll]] for (uint j = 0; j < BLOCK; j++) {
            coopMatPerElementNV(score[j], score[j], weight_of, best);
            weights += score[j];
            weight[j] = MATRIX_WEIGHT(score[j]);
        }
        [[unroll]] for (uint i = 0; i < TALL; i++)
            sum[i] *= correction;
        multiply_values(head, block * KEYS, weight);
    }

    coopMatReduceNV(weights, weights, gl_CooperativeMatrixReduceColumnNV, total);
    coopMatPerElementNV(weights, weights, inverse);
    [[unroll]] for (uint i = 0; i < TALL; i++)
        sum[i] *= weights;
    store_sums(first_row, last_row, first_head);
}
