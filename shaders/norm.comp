#version 460
// SPDX-License-Identifier: MIT
// RMSNorm, alone or with the residual around it:      one workgroup a row
//     ADD: x[r, :] += rms(o[r, :]) * w_post
//     h[r, :] = rms(x[r, :]) * w,     rms(v) = v * rsqrt(mean(v^2) + eps)
// Zhang and Sennrich 2019. All in fp32: the residual passes 292,000 and its square 8e10.
//
// o, x, h: [rows, width] f32   w, w_post: [width] f32   width: a multiple of 4
// macros: ADD
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { norm_args a; };

#include "reduce.glsl"

void main()
{
    const uint row_at = gl_WorkGroupID.x * a.width * 4;
    const uint first = gl_LocalInvocationIndex * 4;
    const uint stride = gl_WorkGroupSize.x * 4;
    float squares = 0;
#ifdef ADD
    for (uint i = first; i < a.width; i += stride) {
        const vec4 o = load_f32x4(a.o, row_at + i * 4);
        squares += dot(o, o);
    }
    const float post = inversesqrt(workgroup_sum(squares) / float(a.width) + a.eps);
    squares = 0;
    for (uint i = first; i < a.width; i += stride) {
        const vec4 o = load_f32x4(a.o, row_at + i * 4);
        const vec4 x = reload_f32x4(a.x, row_at + i * 4) +
                       o * post * load_f32x4(a.w_post, i * 4);
        store_f32x4(a.x, row_at + i * 4, x);
        squares += dot(x, x);
    }
#else
    for (uint i = first; i < a.width; i += stride) {
        const vec4 x = reload_f32x4(a.x, row_at + i * 4);
        squares += dot(x, x);
    }
#endif
    const float scale = inversesqrt(workgroup_sum(squares) / float(a.width) + a.eps);
    // each lane reads back only what it wrote itself
    for (uint i = first; i < a.width; i += stride)
        store_f32x4(a.h, row_at + i * 4,
                    reload_f32x4(a.x, row_at + i * 4) * scale * load_f32x4(a.w, i * 4));
}
