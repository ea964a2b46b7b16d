#version 460
// SPDX-License-Identifier: MIT
// y[c, r] = sum over k of x[c, k] * w[r, k] for many columns, then what FLAGS says
//
// x: [columns, length] f32, or as pack.comp left it   w: packed, [rows, length]
// y: [columns, rows] f32; with MATMUL_GLU [columns, rows / 2]: gelu(even row) * odd row
//
// A workgroup makes a tile of ROWS rows and COLUMNS columns. Again and again it brings DEPTH weights
// of each of its rows, unpacked once, and what stands beside them of each of its columns into shared
// memory; its workers then multiply all that: lanes (tile_lanes.glsl), or subgroups with the
// device's matrices (tile_matrices.glsl). ACROSS workers stand side by side along the rows.
// macros: WEIGHT; INNER, one of INNER_*
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kim_shared.h"
#include "memory.glsl"
#include "weights.glsl"
#include "gelu.glsl"

// from 1, as the weight types are
#define INNER_FLOAT 1 // fp32, as it is
#define INNER_DOT 2   // int8 by dot products of four
#define INNER_HALF 3  // fp16 matrices, fp32 sums
#define INNER_INT8 4  // int8 matrices, int32 sums of a run
#define INTEGER (INNER == INNER_DOT || INNER == INNER_INT8)
#define MATRICES (INNER == INNER_HALF || INNER == INNER_INT8)

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(constant_id = SPEC_A) const uint ROWS = 16; // of the tile; a multiple of 16
layout(constant_id = SPEC_B) const uint COLUMNS = 8;
layout(constant_id = SPEC_C) const uint ACROSS = 8;
layout(constant_id = SPEC_D) const uint FLAGS = 0; // MATMUL_*
layout(push_constant, std430) uniform Push { matmul_tile_args a; };

// Integers of whole chunks, so that weights that share their scales stand together; floats, which
// take more room, 32 of a chunk at once.
#if INTEGER
#define TURNS 1
#else
#define TURNS (CHUNK / 32)
#endif
#define DEPTH (CHUNK / TURNS)
#define STEPS_AT_ONCE (STEPS / TURNS)
#define QUADS (DEPTH / 4) // quad q of the tile is section q / STEPS_AT_ONCE of a chunk

// A tile holds the quads of a row or column one after the other, then some room that keeps its rows
// apart in the banks of shared memory (and a multiple of 16 bytes long, as matrices are loaded).
#if INNER == INNER_FLOAT
#define QUAD vec4
#define STRIDE (QUADS + 1)
#elif INNER == INNER_DOT
#define QUAD uvec4 // four quads
#define STRIDE (QUADS / 4 + 1)
#elif INNER == INNER_HALF
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define QUAD uvec2
#define STRIDE (QUADS + 2)
#elif INNER == INNER_INT8
#define QUAD uint
#define STRIDE (QUADS + 4)
#endif
shared QUAD tile_w[ROWS * STRIDE];
shared QUAD tile_x[COLUMNS * STRIDE];

#if INTEGER
// A run of a chunk shares its scales in w, and in x.
#define RUN (SECTIONS == 4 ? 16 : 32)
#define RUNS (CHUNK / RUN)
#define HAS_MINIMUM (HAS_MIN && CENTRE == 0)
shared float scale_w[RUNS * ROWS];
shared float scale_x[RUNS * COLUMNS];
#if HAS_MINIMUM
shared float minimum_w[RUNS * ROWS];
shared float sum_x[RUNS * COLUMNS];
#endif
#endif

// ------------------------------------------------------------------------------------- weights

// Where a row stands in the tile. Lanes own pairs of rows and read the even ones together.
uint tile_row(uint row)
{
#if MATRICES
    return row;
#else
    return (row & 1) * (ROWS / 2) + row / 2;
#endif
}

void put_quad(uint row, uint q, vec4 quad, float d, float m)
{
#if INTEGER
    const ivec4 v = ivec4(quad) - CENTRE;
    const uint word = (v.x & 255) | (v.y & 255) << 8 | (v.z & 255) << 16 | v.w << 24;
#endif
#if INNER == INNER_FLOAT && HAS_SCALE
    tile_w[row * STRIDE + q] = quad * d + m;
#elif INNER == INNER_FLOAT
    tile_w[row * STRIDE + q] = quad;
#elif INNER == INNER_HALF
    // held within the range: what a weight beyond it makes is finite
    const vec4 w = clamp(quad * d + m, -65504.0, 65504.0);
    tile_w[row * STRIDE + q] = uvec2(packFloat2x16(f16vec2(w.xy)), packFloat2x16(f16vec2(w.zw)));
#elif INNER == INNER_DOT
    tile_w[row * STRIDE + q / 4][q % 4] = word;
#elif INNER == INNER_INT8
    tile_w[row * STRIDE + q] = word;
#endif
}

#if INTEGER
void put_scales(uint row, vec2 d[SECTIONS], vec2 m[SECTIONS], bool second)
{
    for (uint r = 0; r < RUNS; r++) {
        const uint s = r * SECTIONS / RUNS;
        scale_w[r * ROWS + row] = second ? d[s].y : d[s].x;
#if HAS_MINIMUM
        minimum_w[r * ROWS + row] = second ? m[s].y : m[s].x;
#endif
    }
}
#endif

// Eight invocations read a row group's line, the next eight its next line.
void stage_weights(uint first_group, uint c, uint turn)
{
    const uint groups = (a.rows + ROW_GROUP - 1) / ROW_GROUP;
    for (uint u = gl_LocalInvocationIndex; u < ROWS / 2 * STEPS_AT_ONCE; u += gl_WorkGroupSize.x) {
        const uint lane = u % 8, step = u / 8 % STEPS_AT_ONCE, group = u / (8 * STEPS_AT_ONCE);
        const uint at = min(first_group + group, groups - 1) * a.blocks * RECORD;
        const weight_place p = weight_place(a.w, at, lane);
        const uint row0 = tile_row(group * ROW_GROUP + 2 * lane);
        const uint row1 = tile_row(group * ROW_GROUP + 2 * lane + 1);
        vec2 d[SECTIONS], m[SECTIONS];
        vec4 q0[SECTIONS], q1[SECTIONS];
        weight_scales(p, c, d, m);
        weight_quads(p, c, turn * STEPS_AT_ONCE + step, q0, q1);
        [[unroll]] for (uint s = 0; s < SECTIONS; s++) {
            put_quad(row0, s * STEPS_AT_ONCE + step, q0[s], d[s].x, m[s].x);
            put_quad(row1, s * STEPS_AT_ONCE + step, q1[s], d[s].y, m[s].y);
        }
#if INTEGER
        if (step == 0) {
            put_scales(row0, d, m, false);
            put_scales(row1, d, m, true);
        }
#endif
    }
}

// ------------------------------------------------------------------------------------------- x

// position in the row of quad q of the tile
uint quad_position(uint c, uint turn, uint q)
{
    return chunk_start(c) + q / STEPS_AT_ONCE * SECTION_STRIDE +
           (turn * STEPS_AT_ONCE + q % STEPS_AT_ONCE) * 4;
}

// Columns beyond the last repeat it; what they make is not stored.
void stage_x(uint first_column, uint c, uint turn)
{
#if INNER == INNER_FLOAT
    const uint parts = QUADS;
#elif INNER == INNER_HALF
    const uint parts = QUADS / 2;
#else
    const uint parts = QUADS / 4;
#endif
    for (uint u = gl_LocalInvocationIndex; u < COLUMNS * parts; u += gl_WorkGroupSize.x) {
        const uint q = u % parts * (QUADS / parts), to = u / parts;
        const uint column = min(first_column + to, a.columns - 1);
        const uint k = quad_position(c, turn, q);
#if INNER == INNER_FLOAT
        // weights beyond the row's end are zeros; there x is what follows, up to its very end
        const uint at = (column * a.x_stride + k) * 4;
        tile_x[to * STRIDE + q] =
            load_f32x4(a.x, (FLAGS & MATMUL_TAIL) != 0 ? min(at, (a.columns * a.x_stride - 4) * 4) : at);
#elif INNER == INNER_HALF
        const uvec4 words = load_u32x4(a.x, (k / 32 * a.columns + column) * 64 + k % 32 * 2);
        tile_x[to * STRIDE + q] = words.xy;
        tile_x[to * STRIDE + q + 1] = words.zw;
#else
        const uvec4 words = load_u32x4(a.x, (k / 32 * a.columns + column) * 32 + k % 32);
#if INNER == INNER_DOT
        tile_x[to * STRIDE + q / 4] = words;
#else
        for (uint i = 0; i < 4; i++)
            tile_x[to * STRIDE + q + i] = words[i];
#endif
#endif
    }
#if INTEGER
    for (uint u = gl_LocalInvocationIndex; u < COLUMNS * RUNS; u += gl_WorkGroupSize.x) {
        const uint r = u / COLUMNS, k = quad_position(c, 0, r * RUN / 4);
        const uint column = min(first_column + u % COLUMNS, a.columns - 1);
        const uvec2 of_block = load_u32x2(a.x_scales, (k / 32 * a.columns + column) * 8);
        scale_x[u] = uintBitsToFloat(of_block.x);
#if HAS_MINIMUM
        const int low = int(of_block.y << 16) >> 16, high = int(of_block.y) >> 16;
        sum_x[u] = float(RUN == 32 ? low + high : k % 32 == 0 ? low : high) * scale_x[u];
#endif
    }
#endif
}

// -------------------------------------------------------------------------------------- result

void finish_one(uint row, float value, uint y_at)
{
    if ((FLAGS & MATMUL_BIAS) != 0)
        value += load_f32(a.bias, row * 4);
    if ((FLAGS & MATMUL_GELU) != 0)
        value = gelu(value);
    if ((FLAGS & MATMUL_ADD) != 0)
        value += reload_f32(a.y, y_at + row * 4);
    store_f32(a.y, y_at + row * 4, value);
}

// value: of an even row and the next one
void finish(uint column, uint row, vec2 value)
{
    if (column >= a.columns || row >= a.rows)
        return;
    const uint y_at = column * a.y_stride * 4;
#if INNER == INNER_HALF
    value *= load_f32(a.x_scales, column * 4);
#endif
    if ((FLAGS & MATMUL_GLU) != 0) {
        store_f32(a.y, y_at + row * 2, gelu(value.x) * value.y);
        return;
    }
    finish_one(row, value.x, y_at);
    if (row + 1 < a.rows)
        finish_one(row + 1, value.y, y_at);
}

#if MATRICES
#include "tile_matrices.glsl"
#else
#include "tile_lanes.glsl"
#endif

void main()
{
    const uint first_row = gl_WorkGroupID.x * ROWS, first_column = gl_WorkGroupID.y * COLUMNS;
    begin();
    for (uint c = 0; c < a.blocks * CHUNKS; c++)
        for (uint turn = 0; turn < TURNS; turn++) {
            barrier(); // the tiles of before have been multiplied
            stage_weights(first_row / ROW_GROUP, c, turn);
            stage_x(first_column, c, turn);
            barrier();
            multiply();
        }
    end(first_row, first_column);
}
