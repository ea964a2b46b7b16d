// SPDX-License-Identifier: MIT
// RMSNorm of one row by a workgroup (Zhang and Sennrich 2019):
//     rms(v) = v * rsqrt(mean(v^2) + eps)
// All in fp32: the residual of the published models passes 292,000 and its square 8e10.
//
// Defined before: LOAD_O, how o is read. The width is a multiple of 4; row_at is in bytes.
#include "reduce.glsl"

// h = rms(x) * w; squares: of this lane's part of x, which it wrote itself or nobody did
void norm_row(uvec2 x, uvec2 w, uvec2 h, uint row_at, uint width, float eps, float squares)
{
    const float scale = inversesqrt(workgroup_sum(squares) / float(width) + eps);
    for (uint i = gl_LocalInvocationIndex * 4; i < width; i += gl_WorkGroupSize.x * 4)
        store_f32x4(h, row_at + i * 4,
                    reload_f32x4(x, row_at + i * 4) * scale * load_f32x4(w, i * 4));
}

// x += rms(o) * w_post; returns the squares of this lane's part of x
float add_normed_row(uvec2 x, uvec2 o, uvec2 w_post, uint row_at, uint width, float eps)
{
    const uint first = gl_LocalInvocationIndex * 4, stride = gl_WorkGroupSize.x * 4;
    float squares = 0;
    for (uint i = first; i < width; i += stride) {
        const vec4 part = LOAD_O(o, row_at + i * 4);
        squares += dot(part, part);
    }
    const float scale = inversesqrt(workgroup_sum(squares) / float(width) + eps);
    squares = 0;
    for (uint i = first; i < width; i += stride) {
        const vec4 sum = reload_f32x4(x, row_at + i * 4) +
                         LOAD_O(o, row_at + i * 4) * scale * load_f32x4(w_post, i * 4);
        store_f32x4(x, row_at + i * 4, sum);
        squares += dot(sum, sum);
    }
    return squares;
}
