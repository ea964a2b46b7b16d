#version 460
// SPDX-License-Identifier: MIT
// y[lane] = sum over j < PEAK_MATRIX_CHAINS of one element of C[j], where C[j] = j to begin with, and
// then PEAK_FP32_STEPS * rounds times C[j] = A B + C[j], with A all factor and B all term: products
// of the device's matrices as fast as registers allow, to measure them.
//
// y: [lanes] f32
// macros: INT8: of int8, into int32; else of fp16, into fp32
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#if INT8
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#define ELEMENT int8_t
#define SUM int
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define ELEMENT float16_t
#define SUM float
#endif
#include "kim_shared.h"
#include "memory.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { peak_args a; };

// the device's; their defaults are never used
layout(constant_id = SPEC_E) const uint M = 16;
layout(constant_id = SPEC_F) const uint N = 16;
layout(constant_id = SPEC_G) const uint K = 16;

#define MATRIX_C coopmat<SUM, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>

void main()
{
    const coopmat<ELEMENT, gl_ScopeSubgroup, M, K, gl_MatrixUseA> factor =
        coopmat<ELEMENT, gl_ScopeSubgroup, M, K, gl_MatrixUseA>(ELEMENT(a.factor));
    const coopmat<ELEMENT, gl_ScopeSubgroup, K, N, gl_MatrixUseB> term =
        coopmat<ELEMENT, gl_ScopeSubgroup, K, N, gl_MatrixUseB>(ELEMENT(a.term));
    MATRIX_C c[PEAK_MATRIX_CHAINS];
    for (uint j = 0; j < PEAK_MATRIX_CHAINS; j++)
        c[j] = MATRIX_C(SUM(j));
    for (uint round = 0; round < a.rounds; round++)
        for (uint i = 0; i < PEAK_FP32_STEPS; i++)
            for (uint j = 0; j < PEAK_MATRIX_CHAINS; j++)
                c[j] = coopMatMulAdd(factor, term, c[j]);
    float sum = 0;
    for (uint j = 0; j < PEAK_MATRIX_CHAINS; j++)
        sum += float(c[j][0]);
    store_f32(a.y, gl_GlobalInvocationID.x * 4, sum);
}
