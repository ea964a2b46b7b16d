#version 460
// SPDX-License-Identifier: MIT
// y[c, :] = scale * w[token[c] - first, :], or soft[c, :] unscaled      one workgroup a column
//
// w: packed, [rows, width], rows first.. of the embedding   y: [columns, width] f32
// A token whose row is in another part is left to that part's dispatch.
// macros: WEIGHT
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"
#include "weights.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { embed_args a; };

void main()
{
    const uint column = gl_WorkGroupID.x;
    const uint token = load_u32(a.control, CONTROL_ROW(column, CONTROL_ROW_TOKEN) * 4);
    if (token == CONTROL_SOFT) {
        for (uint k = gl_LocalInvocationIndex * 4; k < (a.first == 0 ? a.width : 0);
             k += gl_WorkGroupSize.x * 4)
            store_f32x4(a.y, (column * a.width + k) * 4,
                        load_f32x4(a.soft, (column * a.width + k) * 4));
        return;
    }
    const uint row = token - a.first;
    if (row >= a.rows)
        return;
    const weight_place p =
        weight_place(a.w, row / ROW_GROUP * a.blocks * RECORD, row % ROW_GROUP / 2);
    const bool second = (row & 1) != 0;
    for (uint c = gl_LocalInvocationIndex; c < a.blocks * CHUNKS; c += gl_WorkGroupSize.x) {
        vec2 d[SECTIONS], m[SECTIONS];
        weight_scales(p, c, d, m);
        for (uint t = 0; t < STEPS; t++) {
            vec4 q0[SECTIONS], q1[SECTIONS];
            weight_quads(p, c, t, q0, q1);
            for (uint s = 0; s < SECTIONS; s++) {
                const uint k = chunk_start(c) + s * SECTION_STRIDE + 4 * t;
                const vec4 w = second ? q1[s] * d[s].y + m[s].y : q0[s] * d[s].x + m[s].x;
                if (k < a.width)
                    store_f32x4(a.y, (column * a.width + k) * 4, w * a.scale);
            }
        }
    }
}
