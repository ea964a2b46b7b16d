#version 460
// SPDX-License-Identifier: MIT
// y[r, h, :] = sum over all rows j of the image of softmax_j(scale * q[r, h, :] . k[j, h, :]) * v[j, h, :]
//
// qkv: [images * rows, 3 * heads * HEAD] f32: q, k, v   y: [images * rows, heads * HEAD] f32
// Online softmax in fp32 over blocks of KEYS keys (Milakov and Gimelshein 2018; Dao et al. 2022): the
// scores are never stored.
//
// A lane takes a query, and holds q and y in registers; or PARTS lanes do, a part of the dimensions
// each. All look at the same keys at the same time, so that K and V are loaded from one address for
// all lanes (or for all of a part).
// macros: none
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kim_shared.h"
#include "memory.glsl"
#include "pass.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(constant_id = SPEC_A) const uint HEAD = 64; // a multiple of 4
layout(constant_id = SPEC_B) const uint PARTS = 1; // with PASS 1
layout(push_constant, std430) uniform Push { attention_full_args a; };

// Keys of a block. lavapipe's compiler takes half a minute over 16 in table mode, 5 seconds over 8.
const uint KEYS = PASS && KIM_ADDRESS == 0 ? 8 : 16;
const uint RUN = PASS_LANES;                       // keys whose scores are summed together
const uint QUADS = (HEAD / 4 + PARTS - 1) / PARTS; // of a lane
const float NONE = -1e30; // below any score, and finite

shared float partial[PARTS == 1 ? 1 : KEYS * gl_WorkGroupSize.x];

uint part_index()
{
    return PARTS == 1 ? 0 : gl_LocalInvocationIndex % PARTS;
}

// Where quad d of this lane's part stands in a head; beyond the last one, for which q is 0, there.
uint quad_at(uint d)
{
    return min(part_index() * QUADS + d, HEAD / 4 - 1) * 16;
}

// A quad at `at` of row `first`, or with PASS of row first + lane; row_of gives the others.
vec4 load_row(uint at, uint first)
{
    const uint row = min(PASS ? first + pass_lane() : first, a.rows - 1);
    return load_f32x4(a.qkv, at + row * 3 * a.heads * HEAD * 4);
}

vec4 load_rows(vec4 mine, uint at, uint first, uint i)
{
    return PASS ? pass(mine, i) : load_row(at, first + i);
}

// partial sums of the lanes of a query to sums
void join(inout float score[KEYS])
{
    const uint lane = gl_LocalInvocationIndex;
    barrier(); // those of the block before have been read
    for (uint j = 0; j < KEYS; j++)
        partial[j * gl_WorkGroupSize.x + lane] = score[j];
    barrier();
    for (uint j = 0; j < KEYS; j++)
        for (uint p = 1; p < PARTS; p++)
            score[j] += partial[j * gl_WorkGroupSize.x + (lane ^ p)];
}

void main()
{
    const uint row = (gl_WorkGroupID.x * gl_WorkGroupSize.x + gl_LocalInvocationIndex) / PARTS;
    const uint first_row = gl_WorkGroupID.z * a.rows;
    const uint width = a.heads * HEAD * 4;
    const uint q_at = first_row * 3 * width + gl_WorkGroupID.y * HEAD * 4;
    const uint k_at = q_at + width, v_at = k_at + width;

    vec4 q[QUADS], y[QUADS];
    [[unroll]] for (uint d = 0; d < QUADS; d++) {
        const bool real = part_index() * QUADS + d < HEAD / 4;
        q[d] = load_f32x4(a.qkv, q_at + min(row, a.rows - 1) * 3 * width + quad_at(d)) *
               (real ? a.scale : 0);
        y[d] = vec4(0);
    }
    float best = NONE, sum = 0; // of the scores; of exp(score - best)

    for (uint block = 0; block < a.rows; block += KEYS) {
        if (PASS)
            barrier(); // CPUs: the subgroups stay together, and find the block in the cache

        float score[KEYS];
        [[unroll]] for (uint first = 0; first < KEYS; first += RUN) {
            [[unroll]] for (uint j = 0; j < RUN; j++)
                score[first + j] = 0;
            [[unroll]] for (uint d = 0; d < QUADS; d++) {
                const uint at = k_at + quad_at(d);
                const vec4 mine = load_row(at, block + first);
                [[unroll]] for (uint j = 0; j < RUN; j++)
                    score[first + j] += dot(q[d], load_rows(mine, at, block + first, j));
            }
        }
        if (PARTS > 1)
            join(score);

        float now = best;
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            if (block + j >= a.rows)
                score[j] = NONE;
            now = max(now, score[j]);
        }
        const float correction = exp(best - now);
        best = now;
        sum *= correction;
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            score[j] = exp(score[j] - best);
            sum += score[j];
        }

        [[unroll]] for (uint d = 0; d < QUADS; d++) {
            const uint at = v_at + quad_at(d);
            y[d] *= correction;
            [[unroll]] for (uint first = 0; first < KEYS; first += RUN) {
                const vec4 mine = load_row(at, block + first);
                [[unroll]] for (uint j = 0; j < RUN; j++)
                    y[d] += score[first + j] * load_rows(mine, at, block + first, j);
            }
        }
    }

    if (row >= a.rows)
        return;
    [[unroll]] for (uint d = 0; d < QUADS; d++)
        if (part_index() * QUADS + d < HEAD / 4)
            store_f32x4(a.y, (first_row + row) * width + gl_WorkGroupID.y * HEAD * 4 + quad_at(d),
                        y[d] / sum);
}
