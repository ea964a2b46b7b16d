#version 460
// SPDX-License-Identifier: MIT
// y[r, i] = gelu(x[r, i]) * x[r, width + i]
//
// x: [rows, 2 * width] f32: gate, then up   y: [rows, width] f32
// For the rare file whose gate and up differ in type; else matmul.comp has it (GLU).
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"
#include "gelu.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { geglu_args a; };

void main()
{
    const uint i = gl_GlobalInvocationID.x;
    const uint row = gl_WorkGroupID.y;
    if (i >= a.width)
        return;
    const float gate = load_f32(a.x, (row * 2 * a.width + i) * 4);
    const float up = load_f32(a.x, (row * 2 * a.width + a.width + i) * 4);
    store_f32(a.y, (row * a.width + i) * 4, gelu(gate) * up);
}
