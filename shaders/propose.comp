#version 460
// SPDX-License-Identifier: MIT
// The last `drafts` tokens that one session drew become the rows from the second on of another's next
// step, and stand in its history.      one workgroup
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { propose_args a; };

void main()
{
    const uint drawn = load_u32(a.from_control, CONTROL_POSITION * 4) + 1;
    const uint position = load_u32(a.control, CONTROL_POSITION * 4);
    for (uint i = gl_LocalInvocationIndex; i < a.drafts; i += gl_WorkGroupSize.x) {
        // where fewer were drawn, the drafts are nonsense
        const uint id = load_u32(a.from_history, (max(drawn, a.drafts) - a.drafts + i) * 4);
        store_u32(a.control, CONTROL_ROW(1 + i, CONTROL_ROW_TOKEN) * 4, id);
        store_u32(a.control, CONTROL_ROW(1 + i, CONTROL_ROW_AHEAD) * 4, 0);
        store_u32(a.history, (position + 1 + i) * 4, id);
    }
}
