#version 460
// SPDX-License-Identifier: MIT
// y[r, h, :] = sum over keys j of softmax_j(q[r, h, :] . k[j, :]) * v[j, :]
//     keys: position(r) - window < j <= position(r), and later ones of the same picture;
//     query heads h share kv head h / (heads / kv_heads)
// Online softmax in fp32 over blocks of KEY_BLOCK keys (Milakov and Gimelshein 2018; Dao et al.
// 2022): the scores are never stored. Blocks outside the window are not touched.
//
// A workgroup takes up to QUERIES queries: TOKENS rows times GROUP heads that share a kv head.
// Scores: a lane takes one key. Values: a lane takes WORDS pairs of dimensions. The third dimension
// of the grid cuts the keys into splits, whose results combine.comp joins.
// macros: none
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"
#include "pass.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in; // KEY_BLOCK
layout(constant_id = SPEC_A) const uint HEAD = 64;
layout(constant_id = SPEC_B) const uint QUERIES = 16; // a power of two, at most 16; PASS: at least 8
layout(constant_id = SPEC_C) const uint GROUP = 4;    // at most QUERIES
layout(constant_id = SPEC_D) const uint SPLITS = 1;
layout(push_constant, std430) uniform Push { attention_args a; };

const uint TOKENS = QUERIES / GROUP;
const uint WORDS = (HEAD / 2 + KEY_BLOCK - 1) / KEY_BLOCK;
const uint PARTS = KEY_BLOCK / QUERIES;      // lanes that share a query's statistics
const uint PART_KEYS = KEY_BLOCK / PARTS;
const uint BATCH = QUERIES < PASS_LANES ? QUERIES : PASS_LANES; // queries held in registers
const float NONE = -1e30; // below any score, and finite, so that NONE - NONE is 0

shared float scores[QUERIES * KEY_BLOCK]; // of this block; then exp(score - best)
shared float part_best[QUERIES * PARTS];
shared float best[QUERIES];               // of all blocks so far
shared float correction[QUERIES];         // exp(best before - best now)
shared uint first_key[QUERIES], last_key[QUERIES]; // what a query sees

void main()
{
    const uint lane = gl_LocalInvocationIndex;
    const uint first_row = gl_WorkGroupID.x * TOKENS;
    const uint first_head = gl_WorkGroupID.y * GROUP;
    const uint kv_at = first_head / (a.heads / a.kv_heads) * a.cache_rows * HEAD * 2;
    const uint row_stride = (a.heads + 2 * a.kv_heads) * HEAD * 4;
    const uint position = load_u32(a.control, CONTROL_POSITION * 4);

    const uint last_row = min(first_row + TOKENS, a.rows) - 1;
    if (lane < QUERIES) {
        const uint row = min(first_row + lane / GROUP, last_row);
        const uint at = position + row;
        first_key[lane] = at - min(a.window - 1, at);
        last_key[lane] = at + load_u32(a.control, CONTROL_ROW(row, CONTROL_ROW_AHEAD) * 4);
        best[lane] = NONE;
    }
    barrier();

    // the blocks this workgroup looks at: of what all its rows see, its share
    uint oldest = first_key[0], newest = last_key[0];
    for (uint i = GROUP; i < QUERIES; i += GROUP) {
        oldest = min(oldest, first_key[i]);
        newest = max(newest, last_key[i]);
    }
    uint block = oldest / KEY_BLOCK;
    uint end = newest / KEY_BLOCK + 1;
    if (SPLITS > 1) {
        const uint share = (end - block + SPLITS - 1) / SPLITS;
        block += gl_WorkGroupID.z * share;
        end = min(end, block + share);
    }

    uint q_at[QUERIES]; // with PASS: i is of query i * BATCH + lane
    for (uint i = 0; i < QUERIES; i++) {
        const uint query = PASS ? i * BATCH + pass_lane() : i;
        const uint row = min(first_row + query / GROUP, last_row);
        q_at[i] = row * row_stride + (first_head + query % GROUP) * HEAD * 4;
    }

    const uint my_query = lane % QUERIES, my_part = lane / QUERIES;
    float my_sum = 0; // of exp(score - best), over the keys of my part, for my query
    vec2 value[QUERIES * WORDS];
    for (uint i = 0; i < QUERIES * WORDS; i++)
        value[i] = vec2(0);

    for (; block < end; block++) {
        // scores of one key
        const uint key = block * KEY_BLOCK + lane;
        const uint slot = key % a.cache_rows;
        const uint k_at = kv_at + (slot / KEY_GROUP * (HEAD / 2) * KEY_GROUP + slot % KEY_GROUP) * 4;
        float score[QUERIES];
        for (uint i = 0; i < QUERIES; i++)
            score[i] = 0;
        for (uint d = 0; d < HEAD; d += 4) {
            const vec4 k = vec4(unpackHalf2x16(load_u32(a.k_cache, k_at + d / 2 * KEY_GROUP * 4)),
                                unpackHalf2x16(load_u32(a.k_cache, k_at + (d / 2 + 1) * KEY_GROUP * 4)));
            for (uint j = 0; j < QUERIES / BATCH; j++) {
                vec4 q[BATCH];
                for (uint i = 0; i < (PASS ? 1 : BATCH); i++)
                    q[i] = load_f32x4(a.qkv, q_at[PASS ? j : j * BATCH + i] + d * 4);
                for (uint i = 0; i < BATCH; i++)
                    score[j * BATCH + i] += dot(PASS ? pass(q[0], i) : q[i], k);
            }
        }
        for (uint i = 0; i < QUERIES; i++) {
            if (key < first_key[i] || key > last_key[i])
                score[i] = NONE;
            scores[i * KEY_BLOCK + lane] = score[i];
        }
        barrier();

        // the best of the block, by parts, then of all
        float part = NONE;
        for (uint j = 0; j < PART_KEYS; j++)
            part = max(part, scores[my_query * KEY_BLOCK + my_part * PART_KEYS + j]);
        part_best[my_query * PARTS + my_part] = part;
        barrier();
        if (lane < QUERIES) {
            float now = best[lane];
            for (uint j = 0; j < PARTS; j++)
                now = max(now, part_best[lane * PARTS + j]);
            correction[lane] = exp(best[lane] - now);
            best[lane] = now;
        }
        barrier();
        for (uint i = 0; i < QUERIES; i++) // a masked key adds nothing even where all are masked
            scores[i * KEY_BLOCK + lane] = score[i] == NONE ? 0.0 : exp(score[i] - best[i]);
        barrier();

        my_sum *= correction[my_query];
        for (uint j = 0; j < PART_KEYS; j++)
            my_sum += scores[my_query * KEY_BLOCK + my_part * PART_KEYS + j];

        // values
        for (uint i = 0; i < QUERIES; i++)
            for (uint w = 0; w < WORDS; w++)
                value[i * WORDS + w] *= correction[i];
        const uint v_at = kv_at + block * KEY_BLOCK % a.cache_rows * HEAD * 2;
        for (uint j = 0; j < KEY_BLOCK; j++) {
            float weight[QUERIES]; // with PASS: i is of query i * BATCH + lane
            for (uint i = 0; i < QUERIES / (PASS ? BATCH : 1); i++)
                weight[i] = scores[(PASS ? i * BATCH + pass_lane() : i) * KEY_BLOCK + j];
            for (uint w = 0; w < WORDS; w++) {
                const uint word = min(w * KEY_BLOCK + lane, HEAD / 2 - 1);
                const vec2 v = unpackHalf2x16(load_u32(a.v_cache, v_at + (j * HEAD / 2 + word) * 4));
                for (uint i = 0; i < QUERIES; i++)
                    value[i * WORDS + w] +=
                        (PASS ? pass(weight[i / BATCH], i % BATCH) : weight[i]) * v;
            }
        }
        barrier();
    }

    // part_best is free: the parts' sums
    part_best[my_query * PARTS + my_part] = my_sum;
    barrier();
    for (uint i = 0; i < QUERIES; i++) {
        const uint row = first_row + i / GROUP;
        if (i / GROUP >= TOKENS || row > last_row)
            break;
        const uint head = row * a.heads + first_head + i % GROUP;
        float sum = 0;
        for (uint j = 0; j < PARTS; j++)
            sum += part_best[i * PARTS + j];
        for (uint w = 0; w < WORDS; w++) {
            const uint word = w * KEY_BLOCK + lane;
            if (word >= HEAD / 2)
                continue;
            if (SPLITS == 1)
                store_f32x2(a.y, (head * HEAD + word * 2) * 4, value[i * WORDS + w] / sum);
            else
                store_f32x2(a.y, ((head * SPLITS + gl_WorkGroupID.z) * (HEAD + 2) + word * 2) * 4,
                            value[i * WORDS + w]);
        }
        if (SPLITS > 1 && lane == 0)
            store_f32x2(a.y, ((head * SPLITS + gl_WorkGroupID.z) * (HEAD + 2) + HEAD) * 4,
                        vec2(best[i], sum));
    }
}
