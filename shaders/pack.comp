#version 460
// SPDX-License-Identifier: MIT
// x as matmul_tile.comp multiplies it: in fp16, or in int8 blocks
//
// x: [columns, x_stride] f32, of which `width` count   to: [blocks of 32][columns][32], the rest of
// the last block zeros
// fp16: x * s, with the power of two s that brings the column's largest |x| between 2^14 and 2^15, so
//     none overflows, and any that is above 2^-29 of the largest keeps all eleven bits;
//     scales: [columns] f32, 1 / s                                     one workgroup a column
// INT8: round(127 x / largest |x| of the block);
//     scales: [blocks][columns] (largest / 127, sums of the two halves as int16)
//                                                                      one lane a block
// What is smaller than 2^-100 in all of a column, or block, counts as zeros.
// macros: INT8
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"
#ifndef INT8
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { pack_args a; };

// four values from k on
vec4 x_at(uint column, uint k)
{
    if (k >= a.width)
        return vec4(0);
    const vec4 x = load_f32x4(a.x, (column * a.x_stride + k) * 4);
    return mix(vec4(0), x, lessThan(k + uvec4(0, 1, 2, 3), uvec4(a.width)));
}

float largest_of(vec4 x)
{
    const vec4 size = abs(x);
    return max(max(size.x, size.y), max(size.z, size.w));
}

const float LEAST = 7.888609052210118e-31; // 2^-100

#ifdef INT8
void main()
{
    const uint column = gl_GlobalInvocationID.x, block = gl_GlobalInvocationID.y;
    if (column >= a.columns)
        return;
    vec4 x[8];
    float largest = 0;
    for (uint i = 0; i < 8; i++) {
        x[i] = x_at(column, block * 32 + 4 * i);
        largest = max(largest, largest_of(x[i]));
    }
    const float scale = largest < LEAST ? 0 : 127 / largest;
    const uint at = block * a.columns + column;
    uint words[8];
    ivec2 sums = ivec2(0);
    for (uint i = 0; i < 8; i++) {
        const ivec4 v = ivec4(roundEven(x[i] * scale));
        words[i] = (v.x & 255) | (v.y & 255) << 8 | (v.z & 255) << 16 | v.w << 24;
        sums[i / 4] += v.x + v.y + v.z + v.w;
    }
    store_u32x4(a.to, at * 32, uvec4(words[0], words[1], words[2], words[3]));
    store_u32x4(a.to, at * 32 + 16, uvec4(words[4], words[5], words[6], words[7]));
    store_u32x2(a.scales, at * 8,
                uvec2(floatBitsToUint(largest < LEAST ? 0 : largest / 127), (sums.x & 0xffff) | sums.y << 16));
}
#else
#include "reduce.glsl"

void main()
{
    const uint column = gl_WorkGroupID.x;
    float largest = 0;
    for (uint k = gl_LocalInvocationIndex * 4; k < a.width; k += gl_WorkGroupSize.x * 4)
        largest = max(largest, largest_of(x_at(column, k)));
    largest = workgroup_max(largest);
    // both powers of two are normal floats: the exponent is 27 .. 255
    const uint exponent = floatBitsToUint(largest) >> 23;
    const float scale = largest < LEAST ? 0 : uintBitsToFloat((127 + 14 + 127 - exponent) << 23);
    for (uint k = gl_LocalInvocationIndex * 8; k < (a.width + 31) / 32 * 32; k += gl_WorkGroupSize.x * 8) {
        const vec4 x = x_at(column, k) * scale, y = x_at(column, k + 4) * scale;
        store_u32x4(a.to, (k / 32 * a.columns + column) * 64 + k % 32 * 2,
                    uvec4(packFloat2x16(f16vec2(x.xy)), packFloat2x16(f16vec2(x.zw)),
                          packFloat2x16(f16vec2(y.xy)), packFloat2x16(f16vec2(y.zw))));
    }
    if (gl_LocalInvocationIndex == 0)
        store_f32(a.scales, column * 4, largest < LEAST ? 0 : uintBitsToFloat((exponent - 14) << 23));
}
#endif
