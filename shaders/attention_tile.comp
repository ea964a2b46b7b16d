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
//     sum = sum * correction + weights * v      V is staged likewise
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
#include "kim_shared.h"
#include "memory.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(constant_id = SPEC_A) const uint HEAD = 64;    // a multiple of 4
layout(constant_id = SPEC_B) const uint QUERIES = 32; // a multiple of M
layout(constant_id = SPEC_C) const uint GROUP = 4;    // at most QUERIES
layout(constant_id = SPEC_D) const uint DEPTH = 64;   // a multiple of K, and of N * WORKERS
layout(constant_id = SPEC_E) const uint M = 16;       // the device's, see matmul_ways.h
layout(constant_id = SPEC_F) const uint N = 16;
layout(constant_id = SPEC_G) const uint K = 16;
layout(constant_id = SPEC_SUBGROUP) const uint SUBGROUP = 32;
#ifdef FULL
layout(push_constant, std430) uniform Push { attention_full_args a; };
#else
layout(push_constant, std430) uniform Push { attention_args a; };
#include "kv.glsl"
#endif

const uint KEYS = ATTENTION_TILE_KEYS; // a multiple of N and K
const uint TOKENS = QUERIES / GROUP;
const uint WORKERS = gl_WorkGroupSize.x / SUBGROUP;
const uint PARTS = gl_WorkGroupSize.x / QUERIES; // lanes that share the softmax of a query
const uint PART_KEYS = KEYS / PARTS;             // even
const uint PAD = N > K ? N : K;
const uint PADDED = (HEAD + PAD - 1) / PAD * PAD;
const uint SLICES = (PADDED + DEPTH - 1) / DEPTH;
const uint DEEP = QUERIES / M;
const uint SCORES = DEEP * (KEYS / N) / WORKERS; // matrices of the scores of a subgroup
const uint WIDE = DEPTH / N / WORKERS;           // of the sums' columns, in a slice
const float NONE = -1e30; // below any score, and finite

#define MATRIX_LEFT coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA>
#define MATRIX_RIGHT coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB>
#define MATRIX_SUM coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>

// Rows are 16 bytes longer than they need be, which keeps them apart in the banks.
const uint Q_STRIDE = PADDED / 4 + 2;    // in quads of fp16
const uint STAGE_STRIDE = DEPTH / 4 + 2; // likewise
const uint SCORE_STRIDE = KEYS + 4;      // in words
shared uvec2 tile_q[QUERIES * Q_STRIDE];
shared uvec2 stage[KEYS * STAGE_STRIDE];
shared uint scores[QUERIES * SCORE_STRIDE]; // f32, then weights as f16; at last, matrices of sums
shared float parts[gl_WorkGroupSize.x];
shared float correction[QUERIES]; // exp(best before - best now); at last, 1 / the sum of weights
#ifndef FULL
shared uint newest; // key that any row sees
#endif

MATRIX_SUM sum[SLICES * WIDE * DEEP];

uvec2 half_quad(vec4 x)
{
    x = clamp(x, -65504.0, 65504.0);
    return uvec2(packFloat2x16(f16vec2(x.xy)), packFloat2x16(f16vec2(x.zw)));
}

// ---------------------------------------------------------------------------- where things stand

#ifdef FULL
uint q_at(uint row, uint head)
{
    return ((gl_WorkGroupID.z * a.rows + row) * 3 * a.heads + head) * HEAD * 4;
}

vec4 load_q(uint at, uint quad)
{
    return load_f32x4(a.qkv, at + quad * 16) * a.scale;
}

// Four dimensions of key `key` of a head: of K, or of V. What is beyond the last row repeats it.
uvec2 load_k(uint head, uint key, uint quad)
{
    return half_quad(load_f32x4(a.qkv, q_at(min(key, a.rows - 1), a.heads + head) + quad * 16));
}

uvec2 load_v(uint head, uint key, uint quad)
{
    return half_quad(load_f32x4(a.qkv, q_at(min(key, a.rows - 1), 2 * a.heads + head) + quad * 16));
}

uint y_row(uint row)
{
    return gl_WorkGroupID.z * a.rows + row;
}

#else
uint q_at(uint row, uint head)
{
    return (row * (a.heads + 2 * a.kv_heads) + head) * HEAD * 4;
}

vec4 load_q(uint at, uint quad)
{
    return load_f32x4(a.qkv, at + quad * 16);
}

uvec2 load_k(uint head, uint key, uint quad)
{
    const uint slot = key % a.cache_rows, at = kv_head_at(head, a.cache_rows);
#ifdef KV_Q8
    return half_quad(q8_unpack(load_u32(a.k_cache, at + k_word_at(slot, quad))) *
                     load_f32(a.k_cache, at + kv_scale_at(slot, quad / (KV_BLOCK / 4))));
#else
    return load_u32x2(a.k_cache, at + k_word_at(slot, quad * 2));
#endif
}

uvec2 load_v(uint head, uint key, uint quad)
{
    const uint slot = key % a.cache_rows, at = kv_head_at(head, a.cache_rows);
#ifdef KV_Q8
    return half_quad(q8_unpack(load_u32(a.v_cache, at + v_word_at(slot, quad))) *
                     load_f32(a.v_cache, at + kv_scale_at(slot, quad / (KV_BLOCK / 4))));
#else
    return load_u32x2(a.v_cache, at + v_word_at(slot, quad * 2));
#endif
}

uint y_row(uint row)
{
    return row;
}
#endif

// ----------------------------------------------------------------------------------------- steps

// q of the lane's query to tile_q; returns what its scores are to be multiplied with.
float stage_q(uint at, uint query, uint part)
{
    float largest = 0;
    for (uint quad = part; quad < HEAD / 4; quad += PARTS) {
        const vec4 size = abs(load_q(at, quad));
        largest = max(largest, max(max(size.x, size.y), max(size.z, size.w)));
    }
    parts[gl_LocalInvocationIndex] = largest;
    barrier();
    for (uint j = 0; j < PARTS; j++)
        largest = max(largest, parts[query * PARTS + j]);
    // below 2^-100 it counts as zeros; so both powers of two are normal floats
    const uint exponent = floatBitsToUint(largest) >> 23;
    const bool zero = exponent < 27;
    const float scale = zero ? 0 : uintBitsToFloat((127 + 14 + 127 - exponent) << 23);
    for (uint quad = part; quad < PADDED / 4; quad += PARTS)
        tile_q[query * Q_STRIDE + quad] =
            quad < HEAD / 4 ? half_quad(load_q(at, quad) * scale) : uvec2(0);
    return zero ? 0 : uintBitsToFloat((exponent - 14) << 23);
}

// Neighbouring lanes take neighbouring keys, which stand side by side.
void stage_keys(uint head, uint first_key, uint first_quad)
{
    for (uint n = gl_LocalInvocationIndex; n < KEYS * DEPTH / 4; n += gl_WorkGroupSize.x) {
        const uint key = n % KEYS, quad = n / KEYS;
        stage[key * STAGE_STRIDE + quad] = first_quad + quad < HEAD / 4
                                               ? load_k(head, first_key + key, first_quad + quad)
                                               : uvec2(0);
    }
}

void stage_values(uint head, uint first_key, uint first_quad)
{
    for (uint n = gl_LocalInvocationIndex; n < KEYS * DEPTH / 4; n += gl_WorkGroupSize.x) {
        const uint key = n / (DEPTH / 4), quad = n % (DEPTH / 4);
        stage[key * STAGE_STRIDE + quad] = first_quad + quad < HEAD / 4
                                               ? load_v(head, first_key + key, first_quad + quad)
                                               : uvec2(0);
    }
}

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
                coopMatLoad(values, stage, k * K * STAGE_STRIDE + column_of(w) / 4, STAGE_STRIDE,
                            gl_CooperativeMatrixLayoutRowMajor);
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
#ifdef FULL
    const uint head = first_head;
    const uvec2 keys = uvec2(0, a.rows - 1), all_keys = keys;
#else
    const uint head = first_head / (a.heads / a.kv_heads);
    const uint position = load_u32(a.control, CONTROL_POSITION * 4);
    const uint at = position + row, first_at = position + first_row;
    const uvec2 keys = uvec2(at - min(a.window - 1, at),
                             at + load_u32(a.control, CONTROL_ROW(row, CONTROL_ROW_AHEAD) * 4));
    if (gl_LocalInvocationIndex == 0)
        newest = 0;
    barrier();
    atomicMax(newest, keys.y);
    barrier();
    const uvec2 all_keys = uvec2(first_at - min(a.window - 1, first_at), newest);
#endif
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
