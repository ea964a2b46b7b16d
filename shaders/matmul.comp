#version 460
// SPDX-License-Identifier: MIT
// y[c, r] = sum over k of x[c, k] * w[r, k], then what FLAGS says
//
// x: [columns, length] f32   w: packed, [rows, length]   y: [columns, rows] f32
// A lane makes two rows (weights.glsl) of each of SETS row groups, times COLUMNS columns; eight lanes
// make the row groups. A workgroup has GROUPS times SETS row groups, and SLICES lanes that share each
// sum over k.
// MATMUL_NORM, of one column: the workgroup that is done last makes the norms of all of y that
// follow, norm_add of norm.comp.
// macros: WEIGHT; GLU: rows come in pairs (gate, up), y[c, r / 2] = gelu(gate) * up;
// TOUCH (memory.glsl): a chunk of weights is touched one turn before it is read; with PASS
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
layout(constant_id = SPEC_E) const uint SETS = 1;
layout(push_constant, std430) uniform Push { matmul_args a; };

#ifndef GLU
#define LOAD_O load_f32x4_coherent
#include "norm.glsl"
#include "last.glsl"
#endif

const uint SUMS = SETS * COLUMNS;
shared vec2 partial[SLICES == 1 ? 1 : SUMS * 8 * GROUPS * SLICES];

// Sections of a step whose x is held at once; through the table, LLVM takes too long over two.
const uint TURN = PASS && KIM_ADDRESS == 1 && SECTIONS > 1 ? 2 : 1;
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
void add_chunk_of_one(weight_place p[SETS], uint c, uint x_at, inout vec2 sum[SUMS])
{
    vec2 part[SETS * SECTIONS];
    float sum_x[SECTIONS];
    vec4 held[QUADS / PASS_LANES]; // with PASS: of quad lane + 8 * i
    if (PASS)
        for (uint i = 0; i < QUADS / PASS_LANES; i++)
            held[i] = load_x(x_at + quad_at(i * PASS_LANES + pass_lane()), 0);
    for (uint s = 0; s < SECTIONS; s++)
        sum_x[s] = 0;
    for (uint i = 0; i < SETS * SECTIONS; i++)
        part[i] = vec2(0);
    [[unroll]] for (uint t = 0; t < STEPS; t++) {
        vec4 q0[SETS][SECTIONS], q1[SETS][SECTIONS];
        for (uint set = 0; set < SETS; set++)
            weight_quads(p[set], c, t, q0[set], q1[set]);
        [[unroll]] for (uint s = 0; s < SECTIONS; s++) {
            const uint q = t * SECTIONS + s;
            const vec4 x = PASS ? pass(held[q / PASS_LANES], q % PASS_LANES)
                                : load_x(x_at, quad_at(q));
            for (uint set = 0; set < SETS; set++)
                part[set * SECTIONS + s] += vec2(dot(x, q0[set][s]), dot(x, q1[set][s]));
#if HAS_MIN
            sum_x[s] += (x.x + x.y) + (x.z + x.w);
#endif
        }
    }
    for (uint set = 0; set < SETS; set++) {
        vec2 d[SECTIONS], m[SECTIONS];
        weight_scales(p[set], c, d, m);
        for (uint s = 0; s < SECTIONS; s++) {
#if HAS_SCALE
            sum[set] += part[set * SECTIONS + s] * d[s];
#else
            sum[set] += part[set * SECTIONS + s];
#endif
#if HAS_MIN
            sum[set] += sum_x[s] * m[s];
#endif
        }
    }
}

// The weights of section s from their integers.
void scale_quads(inout vec4 q0[SETS][SECTIONS], inout vec4 q1[SETS][SECTIONS], vec2 d[SETS][SECTIONS],
                 vec2 m[SETS][SECTIONS], uint s)
{
#if HAS_SCALE
    for (uint set = 0; set < SETS; set++) {
        q0[set][s] = q0[set][s] * d[set][s].x + m[set][s].x;
        q1[set][s] = q1[set][s] * d[set][s].y + m[set][s].y;
    }
#endif
}

// Several columns: the products of sections s to s + TURN - 1 of a step; of s, x begins at `at` of a
// column. A sum is touched once a turn: lavapipe keeps them in memory, and masks every write.
void add_quads(uint at, vec4 q0[SETS][SECTIONS], vec4 q1[SETS][SECTIONS], uint s, uint x_at[COLUMNS],
               inout vec2 sum[SUMS])
{
    for (uint j = 0; j < COLUMNS / BATCH; j++) {
        vec4 mine[TURN], x[BATCH];
        for (uint k = 0; PASS && k < TURN; k++) // not `more`: on polaris10 that spills
            mine[k] = load_x(x_at[j] + (at + k * SECTION_STRIDE * 4), 0);
        for (uint i = 0; !PASS && i < BATCH; i++)
            x[i] = load_x(x_at[j * BATCH + i] + at, 0);
        for (uint i = 0; i < BATCH; i++) {
            vec2 part[SETS];
            for (uint k = 0; k < TURN; k++) {
                const vec4 of_column = PASS ? pass(mine[k], i) : x[i];
                for (uint set = 0; set < SETS; set++) {
                    const vec2 more = vec2(dot(of_column, q0[set][s + k]), dot(of_column, q1[set][s + k]));
                    part[set] = k == 0 ? more : part[set] + more;
                }
            }
            for (uint set = 0; set < SETS; set++)
                sum[(j * BATCH + i) * SETS + set] += part[set];
        }
    }
}

// Every line of chunk c of SETS row groups, from `group` on, of `groups`.
void touch_chunk(uint group, uint groups, uint c)
{
    const uint lines = (RECORD / CHUNKS + CACHE_LINE - 1) / CACHE_LINE; // of a row group
    const uint stride = a.blocks * RECORD;
    for (uint i = 0; TOUCHES && i < SETS * lines; i += PASS_LANES) {
        const uint set = (i + pass_lane()) / lines, line = (i + pass_lane()) % lines;
        const uint at = (group + set) * stride + c * (RECORD / CHUNKS) + line * CACHE_LINE;
        touch_line(a.w, min(at, groups * stride - 1));
    }
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
    const uint rows = ROW_GROUP * GROUPS * SETS; // of a workgroup
    const uint all = (a.rows + rows - 1) / rows;
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
    const uint first_group =
        (gl_WorkGroupID.y * GROUPS + (GROUPS == 1 ? 0 : gl_LocalInvocationIndex / 8 % GROUPS)) * SETS;
    const uint column = gl_WorkGroupID.z * MATMUL_SPAN + gl_WorkGroupID.x * COLUMNS;
    const uint groups = (a.rows + ROW_GROUP - 1) / ROW_GROUP;
    // a lane beyond the rows repeats the last group, so that no lane skips the barrier
    weight_place p[SETS];
    for (uint set = 0; set < SETS; set++)
        p[set] = weight_place(a.w, min(first_group + set, groups - 1) * a.blocks * RECORD, lane);
    const uint chunks = column < a.columns ? a.blocks * CHUNKS : 0;

    vec2 sum[SUMS];
    uint x_at[COLUMNS]; // with PASS and several columns: i is of column i * BATCH + lane
    for (uint i = 0; i < COLUMNS; i++) {
        const uint mine = PASS && COLUMNS > 1 ? i * BATCH + pass_lane() : i;
        x_at[i] = min(column + mine, a.columns - 1) * a.x_stride * 4;
    }
    for (uint i = 0; i < SUMS; i++)
        sum[i] = vec2(0);
    touch_chunk(first_group, groups, slice);
    for (uint c = slice; c < chunks; c += SLICES) {
        const uint start = chunk_start(c) * 4;
        touch_chunk(first_group, groups, c + SLICES);
        if (COLUMNS == 1) {
            add_chunk_of_one(p, c, x_at[0] + start, sum);
            continue;
        }
        vec2 d[SETS][SECTIONS], m[SETS][SECTIONS];
        for (uint set = 0; set < SETS; set++)
            weight_scales(p[set], c, d[set], m[set]);
        uvec2 high[SETS];
        for (uint set = 0; set < SETS; set++)
            high[set] = weight_high(p[set], c);
        for (uint t = 0; t < STEPS; t++) {
            vec4 q0[SETS][SECTIONS], q1[SETS][SECTIONS];
            for (uint set = 0; set < SETS; set++)
                weight_quads(p[set], c, t, high[set], q0[set], q1[set]);
#if SECTIONS == 4
            // two turns of one code: all four sections at once are more than a CPU's cache of code holds
            for (uint s = 0; PASS && s < SECTIONS; s++)
                scale_quads(q0, q1, d, m, s);
            for (uint turn = 0; PASS && turn < 2; turn++) {
                vec4 r0[SETS][SECTIONS], r1[SETS][SECTIONS];
                for (uint set = 0; set < SETS; set++) {
                    for (uint s = 0; s < 2; s++) {
                        r0[set][s] = turn == 0 ? q0[set][s] : q0[set][s + 2];
                        r1[set][s] = turn == 0 ? q1[set][s] : q1[set][s + 2];
                    }
                }
                for (uint s = 0; s < 2; s += TURN)
                    add_quads(start + ((turn * 2 + s) * SECTION_STRIDE + 4 * t) * 4, r0, r1, s, x_at,
                              sum);
            }
#endif
            for (uint s = 0; !(PASS && SECTIONS == 4) && s < SECTIONS; s += TURN) {
                for (uint k = 0; k < TURN; k++)
                    scale_quads(q0, q1, d, m, s + k);
                add_quads(start + (s * SECTION_STRIDE + 4 * t) * 4, q0, q1, s, x_at, sum);
            }
        }
    }

    if (touched_nothing(a.columns))
        sum[0].x = 0;
    if (SLICES > 1) {
        for (uint i = 0; i < SUMS; i++)
            partial[i * gl_WorkGroupSize.x + gl_LocalInvocationIndex] = sum[i];
        barrier();
        for (uint i = 0; i < SUMS && slice == 0; i++)
            for (uint j = 1; j < SLICES; j++)
                sum[i] += partial[i * gl_WorkGroupSize.x + gl_LocalInvocationIndex + j * 8 * GROUPS];
    }
    for (uint i = 0; i < SUMS; i++) {
        const uint row = (first_group + i % SETS) * ROW_GROUP + lane * 2;
        const uint of_column = column + i / SETS;
        if (of_column >= a.columns || slice != 0)
            continue;
        const uint y_at = of_column * a.y_stride * 4;
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
