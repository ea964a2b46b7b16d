#version 460
// SPDX-License-Identifier: MIT
// y[c, r] = sum over k of x[c, k] * w[r, k], then what FLAGS says
//
// x: [columns, length] f32   w: packed, [rows, length]   y: [columns, rows] f32
// A lane makes two rows (weights.glsl) times COLUMNS columns; eight lanes make a row group. A
// workgroup has GROUPS row groups, and SLICES lanes that share each sum over k.
// MATMUL_NORM, of one column: the workgroup that is done last makes the norms of all of y that
// follow, norm_add of norm.comp.
// macros: WEIGHT; GLU: rows come in pairs (gate, up), y[c, r / 2] = gelu(gate) * up
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kim_shared.h"
#include "memory.glsl"
#include "weights.glsl"
#include "gelu.glsl"
#include "pass.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in; // 8 * GROUPS * SLICES
layout(constant_id = SPEC_A) const uint COLUMNS = 1; // with PASS 1, or a multiple of 8
layout(constant_id = SPEC_B) const uint SLICES = 1;
layout(constant_id = SPEC_C) const uint GROUPS = 1;
layout(constant_id = SPEC_D) const uint FLAGS = 0; // MATMUL_*; with GLU only MATMUL_TAIL
layout(push_constant, std430) uniform Push { matmul_args a; };

#ifndef GLU
#define LOAD_O load_f32x4_coherent
#include "norm.glsl"
#include "last.glsl"
#endif

shared vec2 partial[SLICES == 1 ? 1 : COLUMNS * 8 * GROUPS * SLICES];

const uint BATCH = COLUMNS < PASS_LANES ? COLUMNS : PASS_LANES; // columns whose x is held in registers

// A quad is four weights in a row; quad q of a chunk is section q % SECTIONS of step q / SECTIONS.
const uint QUADS = SECTIONS * STEPS;

uint quad_at(uint q)
{
    return (q % SECTIONS * SECTION_STRIDE + q / SECTIONS * 4) * 4;
}

// Weights beyond the row's end are zeros. There x is what follows in memory, up to its very end.
// more: a constant that is added to `at`
vec4 load_x(uint at, uint more)
{
    if ((FLAGS & MATMUL_TAIL) != 0)
        return load_f32x4(a.x, min(at + more, (a.columns * a.x_stride - 4) * 4));
    return load_f32x4(a.x, at, more);
}

// One column: the scale is applied once a chunk, to the sum of its products; the offset to the sum
// of x, which is the same for all rows.
vec2 chunk_product_one(weight_place p, uint c, uint x_at, vec2 sum)
{
    vec2 d[SECTIONS], m[SECTIONS], part[SECTIONS];
    float sum_x[SECTIONS];
    vec4 held[QUADS / PASS_LANES]; // with PASS: of quad lane + 8 * i
    if (PASS)
        for (uint i = 0; i < QUADS / PASS_LANES; i++)
            held[i] = load_x(x_at + quad_at(i * PASS_LANES + pass_lane()), 0);
    weight_scales(p, c, d, m);
    for (uint s = 0; s < SECTIONS; s++) {
        part[s] = vec2(0);
        sum_x[s] = 0;
    }
    [[unroll]] for (uint t = 0; t < STEPS; t++) {
        vec4 q0[SECTIONS], q1[SECTIONS];
        weight_quads(p, c, t, q0, q1);
        [[unroll]] for (uint s = 0; s < SECTIONS; s++) {
            const uint q = t * SECTIONS + s;
            const vec4 x = PASS ? pass(held[q / PASS_LANES], q % PASS_LANES)
                                : load_x(x_at, quad_at(q));
            part[s] += vec2(dot(x, q0[s]), dot(x, q1[s]));
#if HAS_MIN
            sum_x[s] += (x.x + x.y) + (x.z + x.w);
#endif
        }
    }
    for (uint s = 0; s < SECTIONS; s++) {
#if HAS_SCALE
        sum += part[s] * d[s];
#else
        sum += part[s];
#endif
#if HAS_MIN
        sum += sum_x[s] * m[s];
#endif
    }
    return sum;
}

#ifndef GLU
void finish(uint row, float value, uint y_at)
{
    if (row >= a.rows)
        return;
    if ((FLAGS & MATMUL_BIAS) != 0)
        value += load_f32(a.bias, row * 4);
    if ((FLAGS & MATMUL_GELU) != 0)
        value = gelu(value);
    if ((FLAGS & MATMUL_ADD) != 0)
        value += reload_f32(a.y, y_at + row * 4);
    if ((FLAGS & MATMUL_NORM) != 0)
        store_f32_coherent(a.y, y_at + row * 4, value);
    else
        store_f32(a.y, y_at + row * 4, value);
}

void norm_if_last()
{
    const uint all = (a.rows + ROW_GROUP * GROUPS - 1) / (ROW_GROUP * GROUPS);
    if (last_to_finish(a.counter, 0, all)) {
        const float squares = add_normed_row(a.residual, a.y, a.w_post, 0, a.rows, a.eps);
        norm_row(a.residual, a.w_norm, a.h, 0, a.rows, a.eps, squares);
    }
}
#endif

void main()
{
    const uint lane = gl_LocalInvocationIndex % 8;
    const uint slice = SLICES == 1 ? 0 : gl_LocalInvocationIndex / (8 * GROUPS);
    const uint group = gl_WorkGroupID.x * GROUPS + (GROUPS == 1 ? 0 : gl_LocalInvocationIndex / 8 % GROUPS);
    const uint column = gl_WorkGroupID.y * COLUMNS;
    const uint groups = (a.rows + ROW_GROUP - 1) / ROW_GROUP;
    // a lane beyond the rows repeats the last group, so that no lane skips the barrier
    const weight_place p = weight_place(a.w, min(group, groups - 1) * a.blocks * RECORD, lane);
    const uint chunks = a.blocks * CHUNKS;

    vec2 sum[COLUMNS];
    uint x_at[COLUMNS]; // with PASS and several columns: i is of column i * BATCH + lane
    for (uint i = 0; i < COLUMNS; i++) {
        const uint mine = PASS && COLUMNS > 1 ? i * BATCH + pass_lane() : i;
        sum[i] = vec2(0);
        x_at[i] = min(column + mine, a.columns - 1) * a.x_stride * 4;
    }
    for (uint c = slice; c < chunks; c += SLICES) {
        const uint start = chunk_start(c) * 4;
        if (COLUMNS == 1) {
            sum[0] = chunk_product_one(p, c, x_at[0] + start, sum[0]);
            continue;
        }
        vec2 d[SECTIONS], m[SECTIONS];
        weight_scales(p, c, d, m);
        for (uint t = 0; t < STEPS; t++) {
            vec4 q0[SECTIONS], q1[SECTIONS];
            weight_quads(p, c, t, q0, q1);
            for (uint s = 0; s < SECTIONS; s++) {
#if HAS_SCALE
                q0[s] = q0[s] * d[s].x + m[s].x;
                q1[s] = q1[s] * d[s].y + m[s].y;
#endif
                const uint at = start + (s * SECTION_STRIDE + 4 * t) * 4; // not `more`: on polaris10 that spills
                vec4 mine[COLUMNS / BATCH];
                for (uint j = 0; PASS && j < COLUMNS / BATCH; j++)
                    mine[j] = load_x(x_at[j] + at, 0);
                for (uint j = 0; j < COLUMNS / BATCH; j++) {
                    vec4 x[BATCH];
                    for (uint i = 0; !PASS && i < BATCH; i++)
                        x[i] = load_x(x_at[j * BATCH + i] + at, 0);
                    for (uint i = 0; i < BATCH; i++) {
                        const vec4 of_column = PASS ? pass(mine[j], i) : x[i];
                        sum[j * BATCH + i] += vec2(dot(of_column, q0[s]), dot(of_column, q1[s]));
                    }
                }
            }
        }
    }

    if (SLICES > 1) {
        for (uint i = 0; i < COLUMNS; i++)
            partial[i * gl_WorkGroupSize.x + gl_LocalInvocationIndex] = sum[i];
        barrier();
        for (uint i = 0; i < COLUMNS && slice == 0; i++)
            for (uint j = 1; j < SLICES; j++)
                sum[i] += partial[i * gl_WorkGroupSize.x + gl_LocalInvocationIndex + j * 8 * GROUPS];
    }
    const uint row = group * ROW_GROUP + lane * 2;
    for (uint i = 0; i < COLUMNS && column + i < a.columns && slice == 0; i++) {
        const uint y_at = (column + i) * a.y_stride * 4;
#ifdef GLU
        if (row + 1 < a.rows)
            store_f32(a.y, y_at + row * 2, gelu(sum[i].x) * sum[i].y);
#else
        finish(row, sum[i].x, y_at);
        finish(row + 1, sum[i].y, y_at);
#endif
    }
#ifndef GLU
    if ((FLAGS & MATMUL_NORM) != 0)
        norm_if_last();
#endif
}
