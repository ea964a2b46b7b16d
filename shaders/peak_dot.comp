#version 460
// SPDX-License-Identifier: MIT
// y[lane] = sum over j < PEAK_FP32_CHAINS of v[j], where v[j] = lane % 16 + j to begin with, and then
// PEAK_FP32_STEPS * rounds times v[j] = dot of the four bytes of v[j] with those of factor, + term:
// dot products of int8 as fast as registers allow, to measure them.
//
// y: [lanes] f32
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_spirv_intrinsics : require
#include "kim_shared.h"
#include "memory.glsl"

// GL_EXT_integer_dot_product
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6018, 6019], id = 4450)
int dot_of_four(uint a, uint b, spirv_literal int format);

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { peak_args a; };

void main()
{
    const uint lane = gl_GlobalInvocationID.x, factor = uint(a.factor);
    const int term = int(a.term);
    int v[PEAK_FP32_CHAINS];
    for (uint j = 0; j < PEAK_FP32_CHAINS; j++)
        v[j] = int(lane % 16 + j);
    for (uint round = 0; round < a.rounds; round++)
        for (uint i = 0; i < PEAK_FP32_STEPS; i++)
            for (uint j = 0; j < PEAK_FP32_CHAINS; j++)
                v[j] = dot_of_four(uint(v[j]), factor, 0) + term;
    int sum = 0;
    for (uint j = 0; j < PEAK_FP32_CHAINS; j++)
        sum += v[j];
    store_f32(a.y, lane * 4, float(sum));
}
