#version 460
// SPDX-License-Identifier: MIT
// Joins what attention made of the splits of the keys:      one workgroup a head of a row
//     y = sum over s of exp(best_s - best) * partial_s / sum over s of exp(best_s - best) * sum_s
//
// partial: [rows, heads, splits, head + 2] f32: values, best, sum   y: [rows, heads * head] f32
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(constant_id = SPEC_A) const uint HEAD = 64;
layout(push_constant, std430) uniform Push { combine_args a; };

void main()
{
    const uint head = gl_WorkGroupID.x;
    const uint at = head * a.splits * (HEAD + 2) * 4;
    float best = -1e30, sum = 0;
    for (uint s = 0; s < a.splits; s++)
        best = max(best, load_f32(a.partial, at + (s * (HEAD + 2) + HEAD) * 4));
    for (uint s = 0; s < a.splits; s++) {
        const vec2 of_split = load_f32x2(a.partial, at + (s * (HEAD + 2) + HEAD) * 4);
        sum += exp(of_split.x - best) * of_split.y;
    }
    for (uint d = gl_LocalInvocationIndex * 2; d < HEAD; d += gl_WorkGroupSize.x * 2) {
        vec2 value = vec2(0);
        for (uint s = 0; s < a.splits; s++) {
            const float weight = exp(load_f32(a.partial, at + (s * (HEAD + 2) + HEAD) * 4) - best);
            value += weight * load_f32x2(a.partial, at + (s * (HEAD + 2) + d) * 4);
        }
        store_f32x2(a.y, (head * HEAD + d) * 4, value / sum);
    }
}
