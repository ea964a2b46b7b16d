#version 460
// SPDX-License-Identifier: MIT
// What a row of logits says:      one workgroup a row
//     scores[r] = (best id, its logit, log(sum(exp(logits))), logit of the token that does follow)
//
// logits: [rows, vocab] f32   scores: [rows, 4]; the id as bits; the last token of a step has no
// next, and gets 0, as one does that a soft token follows
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { score_args a; };

#include "reduce.glsl"
shared uint best_id[gl_WorkGroupSize.x];

void main()
{
    const uint row = gl_WorkGroupID.x;
    const uint lane = gl_LocalInvocationIndex;
    const uint at = row * a.vocab * 4;
    float best = -3.402823466e38;
    uint id = 0;
    for (uint i = lane; i < a.vocab; i += gl_WorkGroupSize.x) {
        const float logit = load_f32(a.logits, at + i * 4);
        if (logit > best) {
            best = logit;
            id = i;
        }
    }
    reduce_scratch[lane] = best;
    best_id[lane] = id;
    barrier();
    if (lane == 0) { // the lowest id of equal logits
        for (uint i = 1; i < gl_WorkGroupSize.x; i++)
            if (reduce_scratch[i] > best || (reduce_scratch[i] == best && best_id[i] < id)) {
                best = reduce_scratch[i];
                id = best_id[i];
            }
        reduce_scratch[0] = best;
        best_id[0] = id;
    }
    barrier();
    best = reduce_scratch[0];
    float sum = 0;
    for (uint i = lane; i < a.vocab; i += gl_WorkGroupSize.x)
        sum += exp(load_f32(a.logits, at + i * 4) - best);
    sum = workgroup_sum(sum);
    if (lane != 0)
        return;
    const uint next = a.first + row + 1;
    float logit = 0;
    if (next < a.tokens) {
        const uint token = load_u32(a.control, CONTROL_ROW(next, CONTROL_ROW_TOKEN) * 4);
        if (token != CONTROL_SOFT)
            logit = load_f32(a.logits, at + token * 4);
    }
    store_u32x4(a.scores, row * 16,
                uvec4(best_id[0], floatBitsToUint(best), floatBitsToUint(best + log(sum)),
                      floatBitsToUint(logit)));
}
