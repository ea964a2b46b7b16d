#version 460
// SPDX-License-Identifier: MIT
// y[lane] = sum over j < PEAK_FP32_CHAINS of v[j], where v[j] = lane % 16 + j to begin with, and then
// PEAK_FP32_STEPS * rounds times v[j] = v[j] * factor + term: arithmetic as fast as registers allow,
// to measure it.
//
// y: [lanes] f32
// macros: HALF: v is fp16
// The chains do not depend on each other, so that units with a long pipeline are kept busy.
#extension GL_GOOGLE_include_directive : require
#if HALF
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define VECTOR f16vec4
#else
#define VECTOR vec4
#endif
#include "kim_shared.h"
#include "memory.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { peak_args a; };

#define VECTORS (PEAK_FP32_CHAINS / 4)

void main()
{
    const uint lane = gl_GlobalInvocationID.x;
    const VECTOR factor = VECTOR(a.factor), term = VECTOR(a.term);
    VECTOR v[VECTORS];
    for (uint j = 0; j < VECTORS; j++)
        v[j] = VECTOR(vec4(float(lane % 16) + 4 * j) + vec4(0, 1, 2, 3));
    for (uint round = 0; round < a.rounds; round++)
        for (uint i = 0; i < PEAK_FP32_STEPS; i++)
            for (uint j = 0; j < VECTORS; j++)
                v[j] = v[j] * factor + term;
    vec4 sum = vec4(v[0]);
    for (uint j = 1; j < VECTORS; j++)
        sum += vec4(v[j]);
    store_f32(a.y, lane * 4, sum.x + sum.y + sum.z + sum.w);
}
