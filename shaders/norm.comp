#version 460
// SPDX-License-Identifier: MIT
// RMSNorm, alone or with the residual around it:      one workgroup a row
//     ADD: x[r, :] += rms(o[r, :]) * w_post
//     h[r, :] = rms(x[r, :]) * w
//
// o, x, h: [rows, width] f32   w, w_post: [width] f32   width: a multiple of 4
// macros: ADD
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { norm_args a; };

#define LOAD_O load_f32x4
#include "norm.glsl"

void main()
{
    const uint row_at = gl_WorkGroupID.x * a.width * 4;
#ifdef ADD
    const float squares = add_normed_row(a.x, a.o, a.w_post, row_at, a.width, a.eps);
#else
    float squares = 0;
    for (uint i = gl_LocalInvocationIndex * 4; i < a.width; i += gl_WorkGroupSize.x * 4) {
        const vec4 x = reload_f32x4(a.x, row_at + i * 4);
        squares += dot(x, x);
    }
#endif
    norm_row(a.x, a.w, a.h, row_at, a.width, a.eps, squares);
}
