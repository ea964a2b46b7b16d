// SPDX-License-Identifier: MIT
// What attention_tile.comp and attention_tile_nv.comp share: the constants, where q, K and V stand,
// and how they come into shared memory.
#include "kim_shared.h"
#include "memory.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(constant_id = SPEC_A) const uint HEAD = 64;    // a multiple of 4
layout(constant_id = SPEC_B) const uint QUERIES = 32; // a multiple of M
layout(constant_id = SPEC_C) const uint GROUP = 4;    // at most QUERIES
layout(constant_id = SPEC_D) const uint DEPTH = 64;   // a multiple of K, and of N * WORKERS
layout(constant_id = SPEC_E) const uint M = 16;       // the device's, see matmul_ways.h
layout(constant_id = SPEC_F) const uint N = 16;
layout(constant_id = SPEC_G) const uint K = 16;
layout(constant_id = SPEC_SUBGROUP) const uint SUBGROUP = 32;
#ifdef FULL
layout(push_constant, std430) uniform Push { attention_full_args a; };
#else
layout(push_constant, std430) uniform Push { attention_args a; };
#include "kv.glsl"
#endif

const uint KEYS = ATTENTION_TILE_KEYS; // a multiple of N and K
const uint TOKENS = QUERIES / GROUP;
const uint WORKERS = gl_WorkGroupSize.x / SUBGROUP;
const uint PARTS = gl_WorkGroupSize.x / QUERIES; // lanes that share a query
const uint PAD = N > K ? N : K;
const uint PADDED = (HEAD + PAD - 1) / PAD * PAD;
const uint SLICES = (PADDED + DEPTH - 1) / DEPTH;
const bool WHOLE = HEAD % DEPTH == 0; // no slice goes beyond HEAD
const float NONE = -1e30; // below any score, and finite

// Rows are 16 bytes longer than they need be, which keeps them apart in the banks.
const uint Q_STRIDE = PADDED / 4 + 2;    // in quads of fp16
const uint STAGE_STRIDE = DEPTH / 4 + 2; // likewise
const uint VALUE_STRIDE = KEYS / 4 + 2;
const uint KEY_QUADS = KEYS * STAGE_STRIDE, VALUE_QUADS = DEPTH * VALUE_STRIDE;

shared uvec2 tile_q[QUERIES * Q_STRIDE];
shared uvec2 stage[KEY_QUADS > VALUE_QUADS ? KEY_QUADS : VALUE_QUADS];
shared float parts[gl_WorkGroupSize.x];
#ifndef FULL
shared uint newest; // key that any row sees
#endif

uvec2 half_quad(vec4 x)
{
    x = clamp(x, -65504.0, 65504.0);
    return uvec2(packFloat2x16(f16vec2(x.xy)), packFloat2x16(f16vec2(x.zw)));
}

// ---------------------------------------------------------------------------- where things stand

#ifdef FULL
uint q_at(uint row, uint head)
{
    return ((gl_WorkGroupID.z * a.rows + row) * 3 * a.heads + head) * HEAD * 4;
}

vec4 load_q(uint at, uint quad)
{
    return load_f32x4(a.qkv, at + quad * 16) * a.scale;
}

// Four dimensions of a head of a row; what is beyond the last row repeats it.
uvec2 load_row(uint row, uint head, uint quad)
{
    return half_quad(load_f32x4(a.qkv, q_at(min(row, a.rows - 1), head) + quad * 16));
}

// Four dimensions of a key of a head: of K, or of V.
// first: key of the block   key: in the block
uvec2 load_k(uint head, uint first, uint key, uint quad)
{
    return load_row(first + key, a.heads + head, quad);
}

uvec2 load_v(uint head, uint first, uint key, uint quad)
{
    return load_row(first + key, 2 * a.heads + head, quad);
}

uint y_row(uint row)
{
    return gl_WorkGroupID.z * a.rows + row;
}

#else
uint q_at(uint row, uint head)
{
    return (row * (a.heads + 2 * a.kv_heads) + head) * HEAD * 4;
}

vec4 load_q(uint at, uint quad)
{
    return load_f32x4(a.qkv, at + quad * 16);
}

#ifdef KV_Q8
#define QUAD_WORDS 1
#else
#define QUAD_WORDS 2
#endif

// Four dimensions of what stands in a slot of a cache, in words at `words` of its head, which begins
// at `at`.
uvec2 load_cached(uvec2 cache, uint at, uint words, uint slot, uint quad)
{
#ifdef KV_Q8
    return half_quad(q8_unpack(load_u32(cache, at + words)) *
                     load_f32(cache, at + kv_scale_at(slot, quad / (KV_BLOCK / 4))));
#else
    return load_u32x2(cache, at + words);
#endif
}

// A block lies in one piece in the ring: KEYS divides KEY_BLOCK.
uvec2 load_k(uint head, uint first, uint key, uint quad)
{
    const uint slot = first % a.cache_rows + key, at = kv_head_at(head, a.cache_rows);
    return load_cached(a.k_cache, at, k_word_at(slot, quad * QUAD_WORDS), slot, quad);
}

uvec2 load_v(uint head, uint first, uint key, uint quad)
{
    const uint slot = first % a.cache_rows + key, at = kv_head_at(head, a.cache_rows);
    return load_cached(a.v_cache, at, v_word_at(slot, quad * QUAD_WORDS), slot, quad);
}

uint y_row(uint row)
{
    return row;
}
#endif

// Keys that a row sees, the first and the last.
uvec2 keys_of(uint row)
{
#ifdef FULL
    return uvec2(0, a.rows - 1);
#else
    const uint at = load_u32(a.control, CONTROL_POSITION * 4) + row;
    return uvec2(at - min(a.window - 1, at),
                 at + load_u32(a.control, CONTROL_ROW(row, CONTROL_ROW_AHEAD) * 4));
#endif
}

// Keys that any row of the workgroup sees. keys: of the lane's row
uvec2 keys_of_all(uint first_row, uvec2 keys)
{
#ifdef FULL
    return keys;
#else
    if (gl_LocalInvocationIndex == 0)
        newest = 0;
    barrier();
    atomicMax(newest, keys.y);
    barrier();
    const uint at = load_u32(a.control, CONTROL_POSITION * 4) + first_row;
    return uvec2(at - min(a.window - 1, at), newest);
#endif
}

uint kv_head_of(uint first_head)
{
#ifdef FULL
    return first_head;
#else
    return first_head / (a.heads / a.kv_heads);
#endif
}

// --------------------------------------------------------------------------------------- staging

// q of the lane's query to tile_q; returns what its scores are to be multiplied with.
float stage_q(uint at, uint query, uint part)
{
    float largest = 0;
    for (uint from = 0; from < HEAD / 4; from += PARTS) {
        if (HEAD / 4 % PARTS != 0 && from + part >= HEAD / 4)
            break;
        const vec4 size = abs(load_q(at, from + part));
        largest = max(largest, max(max(size.x, size.y), max(size.z, size.w)));
    }
    parts[gl_LocalInvocationIndex] = largest;
    barrier();
    for (uint j = 0; j < PARTS; j++)
        largest = max(largest, parts[query * PARTS + j]);
    // below 2^-100 it counts as zeros; so both powers of two are normal floats
    const uint exponent = floatBitsToUint(largest) >> 23;
    const bool zero = exponent < 27;
    const float scale = zero ? 0 : uintBitsToFloat((127 + 14 + 127 - exponent) << 23);
    for (uint quad = part; quad < PADDED / 4; quad += PARTS)
        tile_q[query * Q_STRIDE + quad] =
            quad < HEAD / 4 ? half_quad(load_q(at, quad) * scale) : uvec2(0);
    return zero ? 0 : uintBitsToFloat((exponent - 14) << 23);
}

// Neighbouring lanes take neighbouring keys, which stand side by side.
void stage_keys(uint head, uint first_key, uint first_quad)
{
    for (uint from = 0; from < KEYS * DEPTH / 4; from += gl_WorkGroupSize.x) {
        const uint n = from + gl_LocalInvocationIndex, key = n % KEYS, quad = n / KEYS;
        if (KEYS * DEPTH / 4 % gl_WorkGroupSize.x != 0 && quad >= DEPTH / 4)
            break;
        stage[key * STAGE_STRIDE + quad] = WHOLE || first_quad + quad < HEAD / 4
                                               ? load_k(head, first_key, key, first_quad + quad)
                                               : uvec2(0);
    }
}

// Four keys of four dimensions a lane, written by dimensions.
void stage_values(uint head, uint first_key, uint first_quad)
{
    for (uint from = 0; from < KEYS * DEPTH / 16; from += gl_WorkGroupSize.x) {
        const uint n = from + gl_LocalInvocationIndex, keys = n % (KEYS / 4), quad = n / (KEYS / 4);
        if (KEYS * DEPTH / 16 % gl_WorkGroupSize.x != 0 && quad >= DEPTH / 4)
            break;
        const bool is_there = WHOLE || first_quad + quad < HEAD / 4;
        uvec2 v[4];
        [[unroll]] for (uint j = 0; j < 4; j++)
            v[j] = is_there ? load_v(head, first_key, keys * 4 + j, first_quad + quad) : uvec2(0);
        [[unroll]] for (uint d = 0; d < 4; d++) {
            uvec4 x; // dimension d of the four keys
            [[unroll]] for (uint j = 0; j < 4; j++)
                x[j] = d % 2 == 0 ? v[j][d / 2] & 0xffffu : v[j][d / 2] >> 16;
            stage[(quad * 4 + d) * VALUE_STRIDE + keys] = x.xz | x.yw << 16;
        }
    }
}
