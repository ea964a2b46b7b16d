#version 460
// SPDX-License-Identifier: MIT
// Drawing a token, third: lists order and id of the adjusted logits that are not beyond the border, in
// no order.      one workgroup a chunk of ids
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"
#define SAMPLE_CHUNK_SPEC
#include "sample.glsl"

void main()
{
    const float border = scratch_f32(SAMPLE_BORDER), top = level(scratch_u32(SAMPLE_TOP));
    const float temperature = sampling_f32(SAMPLING_TEMPERATURE);
    const float penalty = sampling_f32(SAMPLING_REPEAT_PENALTY);
    mark_repeated();
    for (uint i = chunk_first() + gl_LocalInvocationIndex; i < chunk_end(); i += gl_WorkGroupSize.x) {
        const uint order = adjust(order_of(load_u32(a.logits, logit_at(i))), i, penalty);
        if (distance_below(level(order), top, temperature) <= border) {
            const uint at = atomic_add_u32(a.scratch, scratch_at(SAMPLE_LISTED), 1);
            store_u32x2(a.scratch, list_at(at), uvec2(order, i));
        }
    }
}
