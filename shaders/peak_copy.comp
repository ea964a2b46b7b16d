#version 460
// SPDX-License-Identifier: MIT
// y[i] = x[i]: a copy as fast as memory is, to measure it.
//
// x, y: [groups * PEAK_COPY_LOADS * workgroup] of 16 bytes
// A workgroup copies a piece without gaps; each lane has PEAK_COPY_LOADS loads under way.
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { peak_copy_args a; };

void main()
{
    const uint first = gl_WorkGroupID.x * PEAK_COPY_LOADS * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    uvec4 held[PEAK_COPY_LOADS];
    for (uint i = 0; i < PEAK_COPY_LOADS; i++)
        held[i] = load_u32x4(a.x, (first + i * gl_WorkGroupSize.x) * 16);
    for (uint i = 0; i < PEAK_COPY_LOADS; i++)
        store_u32x4(a.y, (first + i * gl_WorkGroupSize.x) * 16, held[i]);
}
