#version 460
// SPDX-License-Identifier: MIT
// y[i, t, :] = mean of x[i, p, :] over the pool * pool places p that t covers
//     one workgroup a place of y; places of both run along the rows of their square
//
// x: [images, side * side, width] f32   y: [images, (side / pool)^2, width] f32   width: a multiple
// of 4
// macros: none
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { average_pool_args a; };

void main()
{
    const uint token = gl_WorkGroupID.x, image = gl_WorkGroupID.y;
    const uint across = a.side / a.pool;
    const uint corner = (image * a.side + token / across * a.pool) * a.side + token % across * a.pool;
    const uint to = image * across * across + token;
    for (uint i = gl_LocalInvocationIndex * 4; i < a.width; i += gl_WorkGroupSize.x * 4) {
        vec4 sum = vec4(0);
        for (uint r = 0; r < a.pool; r++)
            for (uint c = 0; c < a.pool; c++)
                sum += load_f32x4(a.x, ((corner + r * a.side + c) * a.width + i) * 4);
        store_f32x4(a.y, (to * a.width + i) * 4, sum / float(a.pool * a.pool));
    }
}
