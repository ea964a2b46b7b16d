#version 460
// SPDX-License-Identifier: MIT
// LayerNorm:      one workgroup a row
//     y[r, :] = (x[r, :] - mean) * inversesqrt(variance + eps) * w + b
// Ba, Kiros and Hinton 2016. The variance is that of x - mean, in a pass of its own: mean(x^2) -
// mean(x)^2 loses what it has to large means.
//
// x, y: [rows, width] f32   w, b: [width] f32   width: a multiple of 4
// macros: none
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { layer_norm_args a; };

#include "reduce.glsl"

void main()
{
    const uint row_at = gl_WorkGroupID.x * a.width * 4;
    const uint first = gl_LocalInvocationIndex * 4;
    const uint stride = gl_WorkGroupSize.x * 4;
    float sum = 0;
    for (uint i = first; i < a.width; i += stride)
        sum += dot(load_f32x4(a.x, row_at + i * 4), vec4(1));
    const float mean = workgroup_sum(sum) / float(a.width);
    float squares = 0;
    for (uint i = first; i < a.width; i += stride) {
        const vec4 x = load_f32x4(a.x, row_at + i * 4) - mean;
        squares += dot(x, x);
    }
    const float scale = inversesqrt(workgroup_sum(squares) / float(a.width) + a.eps);
    for (uint i = first; i < a.width; i += stride)
        store_f32x4(a.y, row_at + i * 4,
                    (load_f32x4(a.x, row_at + i * 4) - mean) * scale * load_f32x4(a.w, i * 4) +
                        load_f32x4(a.b, i * 4));
}
