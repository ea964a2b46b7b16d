// SPDX-License-Identifier: MIT
// The inner loop of matmul_tile.comp on the device's matrices (VK_KHR_cooperative_matrix): each
// subgroup makes DEEP x WIDE matrices of M rows and N columns, from M x K and K x N ones.
//
// fp16 (INNER_HALF): weights rounded to fp16, x scaled for each column by a power of two (pack.comp),
// sums in fp32. int8 (INNER_INT8): integers of a run, whose sum is exact, times the scales of the
// run. Scales come as matrices too, loaded with a stride of 0: all columns, or all rows, the same.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#if INNER == INNER_INT8
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#define ELEMENT int8_t
#else
#define ELEMENT float16_t
#endif

// the device's, see matmul_ways.h; their defaults are never used
layout(constant_id = SPEC_SUBGROUP) const uint SUBGROUP = 32;
layout(constant_id = SPEC_E) const uint M = 16;
layout(constant_id = SPEC_F) const uint N = 16;
layout(constant_id = SPEC_G) const uint K = 16;

const uint WORKERS = gl_WorkGroupSize.x / SUBGROUP;
const uint DEEP = ROWS / ACROSS / M;
const uint WIDE = COLUMNS / (WORKERS / ACROSS) / N;

#define MATRIX_W coopmat<ELEMENT, gl_ScopeSubgroup, M, K, gl_MatrixUseA>
#define MATRIX_X coopmat<ELEMENT, gl_ScopeSubgroup, K, N, gl_MatrixUseB>
#define MATRIX_SUM coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>
#define MATRIX_RUN coopmat<int, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>

MATRIX_SUM sum[WIDE * DEEP];
shared float stored[WORKERS * M * N];

uint row_of(uint i)
{
    return (gl_SubgroupID % ACROSS * DEEP + i) * M;
}

uint column_of(uint j)
{
    return (gl_SubgroupID / ACROSS * WIDE + j) * N;
}

void begin()
{
    for (uint i = 0; i < WIDE * DEEP; i++)
        sum[i] = MATRIX_SUM(0);
}

#if INNER == INNER_HALF
void multiply()
{
    for (uint k = 0; k < DEPTH / K; k++) {
        MATRIX_X x[WIDE];
        for (uint j = 0; j < WIDE; j++)
            coopMatLoad(x[j], tile_x, column_of(j) * STRIDE + k * K / 4, STRIDE,
                        gl_CooperativeMatrixLayoutColumnMajor);
        for (uint i = 0; i < DEEP; i++) {
            MATRIX_W w;
            coopMatLoad(w, tile_w, row_of(i) * STRIDE + k * K / 4, STRIDE,
                        gl_CooperativeMatrixLayoutRowMajor);
            for (uint j = 0; j < WIDE; j++)
                sum[j * DEEP + i] = coopMatMulAdd(w, x[j], sum[j * DEEP + i]);
        }
    }
}

#else
void multiply()
{
    for (uint r = 0; r < RUNS; r++) {
        MATRIX_X x[WIDE * (RUN / K)];
        MATRIX_SUM d_x[WIDE];
#if HAS_MINIMUM
        MATRIX_SUM s_x[WIDE];
#endif
        for (uint j = 0; j < WIDE; j++) {
            for (uint k = 0; k < RUN / K; k++)
                coopMatLoad(x[j * (RUN / K) + k], tile_x, column_of(j) * STRIDE + (r * RUN + k * K) / 4,
                            STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
            coopMatLoad(d_x[j], scale_x, r * COLUMNS + column_of(j), 0,
                        gl_CooperativeMatrixLayoutRowMajor);
#if HAS_MINIMUM
            coopMatLoad(s_x[j], sum_x, r * COLUMNS + column_of(j), 0,
                        gl_CooperativeMatrixLayoutRowMajor);
#endif
        }
        for (uint i = 0; i < DEEP; i++) {
            MATRIX_W w[RUN / K];
            for (uint k = 0; k < RUN / K; k++)
                coopMatLoad(w[k], tile_w, row_of(i) * STRIDE + (r * RUN + k * K) / 4, STRIDE,
                            gl_CooperativeMatrixLayoutRowMajor);
            MATRIX_SUM d_w;
            coopMatLoad(d_w, scale_w, r * ROWS + row_of(i), 0, gl_CooperativeMatrixLayoutColumnMajor);
#if HAS_MINIMUM
            MATRIX_SUM m_w;
            coopMatLoad(m_w, minimum_w, r * ROWS + row_of(i), 0,
                        gl_CooperativeMatrixLayoutColumnMajor);
#endif
            for (uint j = 0; j < WIDE; j++) {
                MATRIX_RUN part = MATRIX_RUN(0);
                for (uint k = 0; k < RUN / K; k++)
                    part = coopMatMulAdd(w[k], x[j * (RUN / K) + k], part);
                sum[j * DEEP + i] += MATRIX_SUM(part) * (d_w * d_x[j]);
#if HAS_MINIMUM
                sum[j * DEEP + i] += m_w * s_x[j];
#endif
            }
        }
    }
}
#endif

// By way of shared memory: which lane holds which element is the device's own affair.
void end(uint first_row, uint first_column)
{
    const uint at = gl_SubgroupID * M * N;
    for (uint j = 0; j < WIDE; j++)
        for (uint i = 0; i < DEEP; i++) {
            coopMatStore(sum[j * DEEP + i], stored, at, M, gl_CooperativeMatrixLayoutColumnMajor);
            subgroupBarrier();
            for (uint e = gl_SubgroupInvocationID * 2; e < M * N; e += SUBGROUP * 2)
                finish(first_column + column_of(j) + e / M, first_row + row_of(i) + e % M,
                       vec2(stored[at + e], stored[at + e + 1]));
            subgroupBarrier();
        }
}
