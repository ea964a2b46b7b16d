#version 460
// SPDX-License-Identifier: MIT
// What stands between the q/k/v product and attention:      one workgroup a head of a row
//     q = rope(rms(q) * w_q) * q_scale, in place
//     k = rope(rms(k) * w_k) and v, rounded to f16 or 8 bits, to their place in the cache
// macros: KV_Q8 (kv.glsl)
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(constant_id = SPEC_A) const uint HEAD = 64; // a multiple of 4
layout(push_constant, std430) uniform Push { rope_args a; };

#include "reduce.glsl"
#include "rope.glsl"
#include "kv.glsl"

#ifdef KV_Q8
shared vec2 fresh[HEAD / 2]; // k or v of this head, in pairs of dimensions
#endif

// A pair of dimensions of k or v, to the cache, or to `fresh`.
void keep(bool is_v, uint kv_at, uint slot, uint pair, vec2 x)
{
#ifdef KV_Q8
    fresh[pair] = x;
#else
    if (is_v)
        store_u32(a.v_cache, kv_at + v_word_at(slot, pair), packHalf2x16(x));
    else
        store_u32(a.k_cache, kv_at + k_word_at(slot, pair), packHalf2x16(x));
#endif
}

#ifdef KV_Q8
// Eight lanes take the words of a block.
void store_fresh(bool is_v, uint kv_at, uint slot)
{
    for (uint word = gl_LocalInvocationIndex; word < KV_WORDS; word += gl_WorkGroupSize.x) {
        const uint block = word / (KV_BLOCK / 4);
        float largest = 0;
        for (uint i = block * KV_BLOCK / 2; i < min((block + 1) * KV_BLOCK, HEAD) / 2; i++)
            largest = max(largest, max(abs(fresh[i].x), abs(fresh[i].y)));
        const uint packed = q8_pack(vec4(fresh[word * 2], fresh[word * 2 + 1]), q8_inverse(largest));
        const bool first = word % (KV_BLOCK / 4) == 0;
        if (is_v) {
            store_u32(a.v_cache, kv_at + v_word_at(slot, word), packed);
            if (first)
                store_f32(a.v_cache, kv_at + kv_scale_at(slot, block), q8_scale(largest));
        } else {
            store_u32(a.k_cache, kv_at + k_word_at(slot, word), packed);
            if (first)
                store_f32(a.k_cache, kv_at + kv_scale_at(slot, block), q8_scale(largest));
        }
    }
}
#endif

void main()
{
    const uint head = gl_WorkGroupID.x; // q heads, k heads, v heads
    const uint row = gl_WorkGroupID.y;
    const uint heads = a.heads + 2 * a.kv_heads;
    const uint at = (row * heads + head) * HEAD * 4;
    const uint position = load_u32(a.control, CONTROL_POSITION * 4) + row;
    const uint slot = position % a.cache_rows;
    const bool is_q = head < a.heads, is_v = head >= a.heads + a.kv_heads;
    const uint kv_head = head < a.heads ? 0 : (head - a.heads) % a.kv_heads;
    const uint kv_at = kv_head_at(kv_head, a.cache_rows);

    // no early return: SwiftShader crashes where a workgroup leaves before a barrier of the shader
    if (is_v)
        for (uint i = gl_LocalInvocationIndex * 4; i < HEAD; i += gl_WorkGroupSize.x * 4) {
            const vec4 v = reload_f32x4(a.qkv, at + i * 4);
            keep(true, kv_at, slot, i / 2, v.xy);
            keep(true, kv_at, slot, i / 2 + 1, v.zw);
        }

    float squares = 0;
    for (uint i = gl_LocalInvocationIndex * 4; i < HEAD; i += gl_WorkGroupSize.x * 4) {
        const vec4 v = reload_f32x4(a.qkv, at + i * 4);
        squares += dot(v, v);
    }
    const float scale = inversesqrt(workgroup_sum(squares) / float(HEAD) + a.eps);
    for (uint i = gl_LocalInvocationIndex * 2; i < HEAD / 2 && !is_v; i += gl_WorkGroupSize.x * 2) {
        vec2 low = reload_f32x2(a.qkv, at + i * 4) * scale;
        vec2 high = reload_f32x2(a.qkv, at + (i + HEAD / 2) * 4) * scale;
        // not a chosen handle: SwiftShader takes the slot of a lane that is not active
        low *= is_q ? load_f32x2(a.w_q, i * 4) : load_f32x2(a.w_k, i * 4);
        high *= is_q ? load_f32x2(a.w_q, (i + HEAD / 2) * 4) : load_f32x2(a.w_k, (i + HEAD / 2) * 4);
        rotate(a.rotation, position, i, low, high);
        if (is_q) {
            store_f32x2(a.qkv, at + i * 4, low * a.q_scale);
            store_f32x2(a.qkv, at + (i + HEAD / 2) * 4, high * a.q_scale);
        } else {
            keep(false, kv_at, slot, i / 2, low);
            keep(false, kv_at, slot, i / 2 + HEAD / 4, high);
        }
    }
#ifdef KV_Q8
    barrier();
    if (!is_q)
        store_fresh(is_v, kv_at, slot);
#endif
}
