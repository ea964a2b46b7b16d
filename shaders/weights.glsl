// SPDX-License-Identifier: MIT
// Reads packed weights, two rows at a time: one reader for each weight type.
//
// Layout (host/weight_types.h): rows in groups of 16; for each block of a row group one record of
// 16 blocks: WORDS lines of 16 words, one a row, then, for types with a lone half, one line of 16
// halves. A lane owns rows 2 * lane and 2 * lane + 1 of a group, lane 0..7: it reads eight bytes of
// each line, and eight lanes read the line of 64 bytes whole.
//
// A chunk is a run of weights that share their scales. It is read in STEPS steps; a step gives
// SECTIONS quads of four weights in a row for each of the two rows, as integers in floats:
//     weight[chunk_start(c) + s * SECTION_STRIDE + 4 * step + i] = q[s][i] * d[s] + m[s]
// macros: WEIGHT, one of WEIGHT_*

// from 1: a name that is none of these is 0 to the preprocessor, and fails to compile
#define WEIGHT_F32 1
#define WEIGHT_F16 2
#define WEIGHT_BF16 3
#define WEIGHT_Q4_0 4
#define WEIGHT_Q4_1 5
#define WEIGHT_Q5_0 6
#define WEIGHT_Q5_1 7
#define WEIGHT_Q8_0 8
#define WEIGHT_Q2_K 9
#define WEIGHT_Q3_K 10
#define WEIGHT_Q4_K 11
#define WEIGHT_Q5_K 12
#define WEIGHT_Q6_K 13
#define WEIGHT_IQ4_NL 14
#define WEIGHT_IQ4_XS 15

// BLOCK weights and BLOCK_BYTES bytes in a block; WORDS lines before the lone half
#if WEIGHT == WEIGHT_F32
#define BLOCK 32
#define BLOCK_BYTES 128
#elif WEIGHT == WEIGHT_F16 || WEIGHT == WEIGHT_BF16
#define BLOCK 32
#define BLOCK_BYTES 64
#elif WEIGHT == WEIGHT_Q4_0 || WEIGHT == WEIGHT_IQ4_NL
#define BLOCK 32
#define BLOCK_BYTES 18
#elif WEIGHT == WEIGHT_Q4_1
#define BLOCK 32
#define BLOCK_BYTES 20
#elif WEIGHT == WEIGHT_Q5_0
#define BLOCK 32
#define BLOCK_BYTES 22
#elif WEIGHT == WEIGHT_Q5_1
#define BLOCK 32
#define BLOCK_BYTES 24
#elif WEIGHT == WEIGHT_Q8_0
#define BLOCK 32
#define BLOCK_BYTES 34
#elif WEIGHT == WEIGHT_Q2_K
#define BLOCK 256
#define BLOCK_BYTES 84
#elif WEIGHT == WEIGHT_Q3_K
#define BLOCK 256
#define BLOCK_BYTES 110
#elif WEIGHT == WEIGHT_Q4_K
#define BLOCK 256
#define BLOCK_BYTES 144
#elif WEIGHT == WEIGHT_Q5_K
#define BLOCK 256
#define BLOCK_BYTES 176
#elif WEIGHT == WEIGHT_Q6_K
#define BLOCK 256
#define BLOCK_BYTES 210
#elif WEIGHT == WEIGHT_IQ4_XS
#define BLOCK 256
#define BLOCK_BYTES 136
#endif
#define WORDS (BLOCK_BYTES / 4)
#define RECORD (ROW_GROUP * BLOCK_BYTES)
#define LINE (ROW_GROUP * 4)

#if WEIGHT == WEIGHT_Q2_K || WEIGHT == WEIGHT_Q3_K || WEIGHT == WEIGHT_Q6_K
#define SECTIONS 4
#define SECTION_STRIDE 32
#define STEPS 4
#elif WEIGHT == WEIGHT_Q4_K || WEIGHT == WEIGHT_Q5_K
#define SECTIONS 2
#define SECTION_STRIDE 32
#define STEPS 8
#elif WEIGHT == WEIGHT_F32 || WEIGHT == WEIGHT_F16 || WEIGHT == WEIGHT_BF16 || WEIGHT == WEIGHT_Q8_0
#define SECTIONS 1
#define SECTION_STRIDE 0
#define STEPS 8
#else
#define SECTIONS 2
#define SECTION_STRIDE 16
#define STEPS 4
#endif
#define CHUNK (SECTIONS * STEPS * 4)
#define CHUNKS (BLOCK / CHUNK) // chunks in a block

#define HAS_SCALE (WEIGHT > WEIGHT_BF16)
#define HAS_MIN (HAS_SCALE && WEIGHT != WEIGHT_Q8_0 && WEIGHT != WEIGHT_IQ4_NL && WEIGHT != WEIGHT_IQ4_XS)

// Where the offset is the same number of scales in all blocks, that number: m = -CENTRE * d.
#if WEIGHT == WEIGHT_Q4_0
#define CENTRE 8
#elif WEIGHT == WEIGHT_Q5_0
#define CENTRE 16
#elif WEIGHT == WEIGHT_Q3_K
#define CENTRE 4
#elif WEIGHT == WEIGHT_Q6_K
#define CENTRE 32
#else
#define CENTRE 0
#endif

// Where a lane reads: `at` is the byte offset of the row group.
struct weight_place {
    uvec2 handle;
    uint at;
    uint lane;
};

// of line `line` + `more`, of which `more` is a constant
uvec2 weight_words(weight_place p, uint block, uint line, uint more)
{
    return load_u32x2(p.handle, p.at + block * RECORD + line * LINE + p.lane * 8, more * LINE);
}

// the lone half of both rows
vec2 weight_half(weight_place p, uint block)
{
    return unpackHalf2x16(load_u32(p.handle, p.at + block * RECORD + WORDS * LINE + p.lane * 4));
}

// Position in the row of the first weight of chunk c, which lies in block c / CHUNKS.
uint chunk_start(uint c)
{
#if SECTIONS == 4 // 128 weights are two chunks whose runs of 16 alternate
    return (c >> 1) * 128 + (c & 1) * 16;
#else
    return c * CHUNK;
#endif
}

// four bytes to four floats; by way of int, because x86 has no cheap conversion from unsigned. The
// lowest is not w & 0xffu: compilers join that with the mask that w went through before, and then
// AMD's makes two instructions of it, where it has one that converts a byte
vec4 bytes_to_float(uint w)
{
    return vec4(ivec4(int(bitfieldExtract(w, 0, 8)), int((w >> 8) & 0xffu), int((w >> 16) & 0xffu), int(w >> 24)));
}

vec4 signed_bytes_to_float(uint w)
{
    const int v = int(w);
    return vec4(ivec4((v << 24) >> 24, (v << 16) >> 24, (v << 8) >> 24, v >> 24));
}

// the low four bits of `bits` to bit 0 of four bytes
uint spread_bits(uint bits)
{
    return ((bits & 0xfu) * 0x00204081u) & 0x01010101u;
}

uint byte_of(uint w, uint i)
{
    return (w >> (8 * i)) & 0xffu;
}

#if WEIGHT == WEIGHT_IQ4_NL || WEIGHT == WEIGHT_IQ4_XS
// the 16 levels -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113, as bytes
int iq4_level(uint q)
{
    // selects, not branches: SwiftShader takes minutes over those
    const bool odd = (q & 4u) != 0;
    const uint w = mix(mix(0xbfad9881u, 0xf6eaddcfu, odd), mix(0x26190d01u, 0x71594535u, odd), q >= 8);
    return int(w << (24 - 8 * (q & 3u))) >> 24;
}

vec4 iq4_levels(uint w)
{
    return vec4(ivec4(iq4_level(w & 0xfu), iq4_level((w >> 8) & 0xfu), iq4_level((w >> 16) & 0xfu),
                      iq4_level((w >> 24) & 0xfu)));
}
#endif

#if WEIGHT == WEIGHT_Q4_K || WEIGHT == WEIGHT_Q5_K
// six-bit scale and minimum of sub-block j from the twelve bytes s0 s1 s2
vec2 k4_scale_min(uint s0, uint s1, uint s2, uint j)
{
    const uint i = j & 3;
    const uint a = byte_of(s0, i), b = byte_of(s1, i), c = byte_of(s2, i);
    const uvec2 low = uvec2(a, b) & 63u, high = uvec2(c & 15u, c >> 4) | (uvec2(a, b) >> 6) << 4;
    return vec2(ivec2(mix(high, low, bvec2(j < 4)))); // a select: AMD's compiler branches on ?:
}
#endif

#if WEIGHT == WEIGHT_Q3_K
// six-bit scale i of 16, less 32
float q3_scale(uint s0, uint s1, uint s2, uint i)
{
    const uint low = byte_of((i & 4) == 0 ? s0 : s1, i & 3);
    const uint high = byte_of(s2, i & 3) >> (2 * (i >> 2));
    return float(int(((i < 8 ? low : low >> 4) & 15u) | ((high & 3u) << 4)) - 32);
}
#endif

// d[s], m[s]: scale and offset of section s; x is the first row, y the second
void weight_scales(weight_place p, uint c, out vec2 d[SECTIONS], out vec2 m[SECTIONS])
{
    const uint block = c / CHUNKS;
    const uint part = c % CHUNKS;
    for (uint s = 0; s < SECTIONS; s++) {
        d[s] = vec2(1);
        m[s] = vec2(0);
    }
#if WEIGHT == WEIGHT_Q4_0 || WEIGHT == WEIGHT_Q5_0 || WEIGHT == WEIGHT_Q8_0 || WEIGHT == WEIGHT_IQ4_NL
    const vec2 scale = weight_half(p, block);
    for (uint s = 0; s < SECTIONS; s++) {
        d[s] = scale;
#if WEIGHT == WEIGHT_Q4_0
        m[s] = scale * -8;
#elif WEIGHT == WEIGHT_Q5_0
        m[s] = scale * -16;
#endif
    }
#elif WEIGHT == WEIGHT_Q4_1 || WEIGHT == WEIGHT_Q5_1
    const uvec2 w = weight_words(p, block, 0, 0);
    const vec2 r0 = unpackHalf2x16(w.x), r1 = unpackHalf2x16(w.y);
    for (uint s = 0; s < SECTIONS; s++) {
        d[s] = vec2(r0.x, r1.x);
        m[s] = vec2(r0.y, r1.y);
    }
#elif WEIGHT == WEIGHT_Q4_K || WEIGHT == WEIGHT_Q5_K
    const uvec2 w = weight_words(p, block, 0, 0);
    const vec2 r0 = unpackHalf2x16(w.x), r1 = unpackHalf2x16(w.y);
    const uvec2 s0 = weight_words(p, block, 0, 1), s1 = weight_words(p, block, 0, 2);
    const uvec2 s2 = weight_words(p, block, 0, 3);
    for (uint s = 0; s < SECTIONS; s++) {
        const vec2 a = k4_scale_min(s0.x, s1.x, s2.x, 2 * part + s) * vec2(r0.x, -r0.y);
        const vec2 b = k4_scale_min(s0.y, s1.y, s2.y, 2 * part + s) * vec2(r1.x, -r1.y);
        d[s] = vec2(a.x, b.x);
        m[s] = vec2(a.y, b.y);
    }
#elif WEIGHT == WEIGHT_Q2_K
    const uvec2 w = weight_words(p, block, 0, 20);
    const vec2 r0 = unpackHalf2x16(w.x), r1 = unpackHalf2x16(w.y);
    // scale index 8 * (part / 2) + 2 * s + part % 2: bytes of two words
    const uvec2 s0 = weight_words(p, block, (part >> 1) * 2, 0), s1 = weight_words(p, block, (part >> 1) * 2, 1);
    for (uint s = 0; s < SECTIONS; s++) {
        const uint i = (2 * s + (part & 1)) & 3;
        const uint a = byte_of(s < 2 ? s0.x : s1.x, i), b = byte_of(s < 2 ? s0.y : s1.y, i);
        d[s] = vec2(float(int(a & 15u)) * r0.x, float(int(b & 15u)) * r1.x);
        m[s] = vec2(float(int(a >> 4)) * -r0.y, float(int(b >> 4)) * -r1.y);
    }
#elif WEIGHT == WEIGHT_Q3_K
    const vec2 scale = weight_half(p, block);
    const uvec2 s0 = weight_words(p, block, 0, 24), s1 = weight_words(p, block, 0, 25);
    const uvec2 s2 = weight_words(p, block, 0, 26);
    for (uint s = 0; s < SECTIONS; s++) {
        const uint i = 8 * (part >> 1) + 2 * s + (part & 1);
        d[s] = scale * vec2(q3_scale(s0.x, s1.x, s2.x, i), q3_scale(s0.y, s1.y, s2.y, i));
        m[s] = d[s] * -4;
    }
#elif WEIGHT == WEIGHT_Q6_K
    const vec2 scale = weight_half(p, block);
    const uvec2 s0 = weight_words(p, block, (part >> 1) * 2, 48);
    const uvec2 s1 = weight_words(p, block, (part >> 1) * 2, 49);
    for (uint s = 0; s < SECTIONS; s++) {
        const uint shift = 24 - 8 * ((2 * s + (part & 1)) & 3);
        const uvec2 w = s < 2 ? s0 : s1;
        d[s] = scale * vec2(float(int(w.x << shift) >> 24), float(int(w.y << shift) >> 24));
        m[s] = d[s] * -32;
    }
#elif WEIGHT == WEIGHT_IQ4_XS
    const uvec2 w = weight_words(p, block, 0, 0), low = weight_words(p, block, 0, 1);
    const vec2 scale = vec2(unpackHalf2x16(w.x).x, unpackHalf2x16(w.y).x);
    const uvec2 l = ((low >> (4 * part)) & 15u) | (((w >> (16 + 2 * part)) & 3u) << 4);
    for (uint s = 0; s < SECTIONS; s++)
        d[s] = scale * vec2(float(int(l.x) - 32), float(int(l.y) - 32));
#endif
}

// the quads of one row from the words that hold them
#if WEIGHT == WEIGHT_Q4_0 || WEIGHT == WEIGHT_Q4_1 || WEIGHT == WEIGHT_Q4_K
void nibble_quads(uint w, out vec4 q[SECTIONS])
{
    q[0] = bytes_to_float(w & 0x0f0f0f0fu);
    q[1] = bytes_to_float((w >> 4) & 0x0f0f0f0fu);
}
#elif WEIGHT == WEIGHT_IQ4_NL || WEIGHT == WEIGHT_IQ4_XS
void level_quads(uint w, out vec4 q[SECTIONS])
{
    q[0] = iq4_levels(w);
    q[1] = iq4_levels(w >> 4);
}
#elif WEIGHT == WEIGHT_Q5_0 || WEIGHT == WEIGHT_Q5_1
void five_bit_quads(uint w, uint high, uint t, out vec4 q[SECTIONS])
{
    q[0] = bytes_to_float((w & 0x0f0f0f0fu) | (spread_bits(high >> (4 * t)) << 4));
    q[1] = bytes_to_float(((w >> 4) & 0x0f0f0f0fu) | (spread_bits(high >> (4 * t + 16)) << 4));
}
#elif WEIGHT == WEIGHT_Q5_K
void five_bit_quads(uint w, uint high, out vec4 q[SECTIONS])
{
    q[0] = bytes_to_float((w & 0x0f0f0f0fu) | ((high & 0x01010101u) << 4));
    q[1] = bytes_to_float(((w >> 4) & 0x0f0f0f0fu) | (((high >> 1) & 0x01010101u) << 4));
}
#elif WEIGHT == WEIGHT_Q2_K
void two_bit_quads(uint w, out vec4 q[SECTIONS])
{
    for (uint s = 0; s < 4; s++)
        q[s] = bytes_to_float((w >> (2 * s)) & 0x03030303u);
}
#elif WEIGHT == WEIGHT_Q3_K
void three_bit_quads(uint w, uint high, out vec4 q[SECTIONS])
{
    for (uint s = 0; s < 4; s++)
        q[s] = bytes_to_float(((w >> (2 * s)) & 0x03030303u) | (((high >> s) & 0x01010101u) << 2));
}
#elif WEIGHT == WEIGHT_Q6_K
void six_bit_quads(uint a, uint b, uint high, out vec4 q[SECTIONS])
{
    q[0] = bytes_to_float((a & 0x0f0f0f0fu) | ((high & 0x03030303u) << 4));
    q[1] = bytes_to_float((b & 0x0f0f0f0fu) | (((high >> 2) & 0x03030303u) << 4));
    q[2] = bytes_to_float(((a >> 4) & 0x0f0f0f0fu) | (((high >> 4) & 0x03030303u) << 4));
    q[3] = bytes_to_float(((b >> 4) & 0x0f0f0f0fu) | (((high >> 6) & 0x03030303u) << 4));
}
#endif

// What all steps of a chunk share, of both rows: the fifth bits, where a chunk has them in one word.
uvec2 weight_high(weight_place p, uint c)
{
#if WEIGHT == WEIGHT_Q5_0 || WEIGHT == WEIGHT_Q5_1
    return weight_words(p, c, 0, WEIGHT == WEIGHT_Q5_0 ? 0 : 1);
#else
    return uvec2(0);
#endif
}

// q0, q1: the quads of step t of chunk c, of the first and of the second row
// shared_high: weight_high of the chunk
void weight_quads(weight_place p, uint c, uint t, uvec2 shared_high, out vec4 q0[SECTIONS],
                  out vec4 q1[SECTIONS])
{
    const uint block = c / CHUNKS;
    const uint part = c % CHUNKS;
#if WEIGHT == WEIGHT_F32
    const uvec2 a = weight_words(p, block, 0, 4 * t), b = weight_words(p, block, 0, 4 * t + 1);
    const uvec2 e = weight_words(p, block, 0, 4 * t + 2), f = weight_words(p, block, 0, 4 * t + 3);
    q0[0] = uintBitsToFloat(uvec4(a.x, b.x, e.x, f.x));
    q1[0] = uintBitsToFloat(uvec4(a.y, b.y, e.y, f.y));
#elif WEIGHT == WEIGHT_F16
    const uvec2 a = weight_words(p, block, 0, 2 * t), b = weight_words(p, block, 0, 2 * t + 1);
    q0[0] = vec4(unpackHalf2x16(a.x), unpackHalf2x16(b.x));
    q1[0] = vec4(unpackHalf2x16(a.y), unpackHalf2x16(b.y));
#elif WEIGHT == WEIGHT_BF16
    const uvec2 a = weight_words(p, block, 0, 2 * t), b = weight_words(p, block, 0, 2 * t + 1);
    q0[0] = uintBitsToFloat(uvec4(a.x << 16, a.x & 0xffff0000u, b.x << 16, b.x & 0xffff0000u));
    q1[0] = uintBitsToFloat(uvec4(a.y << 16, a.y & 0xffff0000u, b.y << 16, b.y & 0xffff0000u));
#elif WEIGHT == WEIGHT_Q8_0
    const uvec2 w = weight_words(p, block, 0, t);
    q0[0] = signed_bytes_to_float(w.x);
    q1[0] = signed_bytes_to_float(w.y);
#elif WEIGHT == WEIGHT_Q4_0 || WEIGHT == WEIGHT_Q4_1 || WEIGHT == WEIGHT_Q4_K
#if WEIGHT == WEIGHT_Q4_0
    const uvec2 w = weight_words(p, block, 0, t);
#elif WEIGHT == WEIGHT_Q4_1
    const uvec2 w = weight_words(p, block, 0, 1 + t);
#else
    const uvec2 w = weight_words(p, block, 8 * part, 4 + t);
#endif
    nibble_quads(w.x, q0);
    nibble_quads(w.y, q1);
#elif WEIGHT == WEIGHT_IQ4_NL || WEIGHT == WEIGHT_IQ4_XS
    const uvec2 w = WEIGHT == WEIGHT_IQ4_NL ? weight_words(p, block, 0, t) : weight_words(p, block, 4 * part, 2 + t);
    level_quads(w.x, q0);
    level_quads(w.y, q1);
#elif WEIGHT == WEIGHT_Q5_0 || WEIGHT == WEIGHT_Q5_1
    const uvec2 w = weight_words(p, block, 0, (WEIGHT == WEIGHT_Q5_0 ? 1 : 2) + t);
    five_bit_quads(w.x, shared_high.x, t, q0);
    five_bit_quads(w.y, shared_high.y, t, q1);
#elif WEIGHT == WEIGHT_Q5_K
    const uvec2 high = weight_words(p, block, 0, 4 + t) >> (2 * part);
    const uvec2 w = weight_words(p, block, 8 * part, 12 + t);
    five_bit_quads(w.x, high.x, q0);
    five_bit_quads(w.y, high.y, q1);
#elif WEIGHT == WEIGHT_Q2_K
    const uvec2 w = weight_words(p, block, 4 * part, 4 + t);
    two_bit_quads(w.x, q0);
    two_bit_quads(w.y, q1);
#elif WEIGHT == WEIGHT_Q3_K
    const uvec2 w = weight_words(p, block, 4 * part, 8 + t);
    const uvec2 high = weight_words(p, block, 4 * (part & 1), t) >> (4 * (part >> 1));
    three_bit_quads(w.x, high.x, q0);
    three_bit_quads(w.y, high.y, q1);
#elif WEIGHT == WEIGHT_Q6_K
    const uint line = 16 * (part >> 1) + 4 * (part & 1);
    const uvec2 a = weight_words(p, block, line, t), b = weight_words(p, block, line, t + 8);
    const uvec2 high = weight_words(p, block, 8 * (part >> 1) + 4 * (part & 1), 32 + t);
    six_bit_quads(a.x, b.x, high.x, q0);
    six_bit_quads(a.y, b.y, high.y, q1);
#endif
}

void weight_quads(weight_place p, uint c, uint t, out vec4 q0[SECTIONS], out vec4 q1[SECTIONS])
{
    weight_quads(p, c, t, weight_high(p, c), q0, q1);
}
