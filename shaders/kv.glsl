// SPDX-License-Identifier: MIT
// K and V as the cache has them, in words of f16 pairs, or with KV_Q8 of four signed bytes.
//
// A kv head is groups of KEY_GROUP positions. K is for lanes that take one key each: the positions
// of a group side by side for every pair of words. V is for lanes that take dimensions: a position
// after the other. With KV_Q8, KV_BLOCK dimensions of a position share a scale (f32), the largest magnitude
// divided by 127; the scales follow in the group, of K and V alike side by side for every block.
//
// Defined before: HEAD, the specialisation constant.

#ifdef KV_Q8
const uint KV_WORDS = HEAD / 4; // of a position, without scales
const uint KV_SCALES = (HEAD + KV_BLOCK - 1) / KV_BLOCK;
#else
const uint KV_WORDS = HEAD / 2;
const uint KV_SCALES = 0;
#endif
const uint KV_GROUP_WORDS = KEY_GROUP * (KV_WORDS + KV_SCALES);

// The first byte of a kv head.
uint kv_head_at(uint kv_head, uint cache_rows)
{
    return kv_head * (cache_rows / KEY_GROUP) * KV_GROUP_WORDS * 4;
}

// Bytes from there.
uint k_word_at(uint slot, uint word)
{
    return (slot / KEY_GROUP * KV_GROUP_WORDS + slot % KEY_GROUP * 2 + word / 2 * (KEY_GROUP * 2) +
            word % 2) * 4;
}

uint v_word_at(uint slot, uint word)
{
    return (slot / KEY_GROUP * KV_GROUP_WORDS + slot % KEY_GROUP * KV_WORDS + word) * 4;
}

#ifdef KV_Q8
uint kv_scale_at(uint slot, uint block)
{
    return (slot / KEY_GROUP * KV_GROUP_WORDS + slot % KEY_GROUP + (KV_WORDS + block) * KEY_GROUP) * 4;
}

// What to multiply with to get the integers; a block that is all below 1e-30 counts as zeros.
float q8_inverse(float largest)
{
    return largest < 1e-30 ? 0.0 : 127.0 / largest;
}

float q8_scale(float largest)
{
    return largest < 1e-30 ? 0.0 : largest / 127.0;
}

uint q8_pack(vec4 x, float inverse)
{
    const ivec4 v = ivec4(floor(x * inverse + 0.5)) & 255;
    return uint(v.x | v.y << 8 | v.z << 16 | v.w << 24);
}

vec4 q8_unpack(uint word)
{
    const int v = int(word);
    return vec4(ivec4(v << 24, v << 16, v << 8, v) >> 24);
}
#endif
