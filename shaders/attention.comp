#version 460
// SPDX-License-Identifier: MIT
// y[r, h, :] = sum over keys j of softmax_j(q[r, h, :] . k[j, :]) * v[j, :]
//     keys: position(r) - window < j <= position(r), and later ones of the same picture;
//     query heads h share kv head h / (heads / kv_heads)
// Online softmax in fp32 over blocks of KEY_BLOCK keys (Milakov and Gimelshein 2018; Dao et al.
// 2022): the scores are never stored. Blocks outside the window are not touched.
//
// A workgroup takes up to QUERIES queries: TOKENS rows times GROUP heads that share a kv head.
// Scores: a lane takes KEYS keys. Values: a lane takes PAIRS pairs of words of dimensions. The third dimension
// of the grid cuts the keys into splits, whose results combine.comp joins.
//
// ROPE: for a step of one row, what rope.comp does as well: q is normed, rotated and scaled in
// shared memory; of the newest key, K and V go to the cache and are never read from there: the split
// that has it starts from its score and its value.
// macros: ROPE, KV_Q8 (kv.glsl), BY_QUADS (pass.glsl), TOUCH (memory.glsl): a block is touched one
// turn before it is read
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kim_shared.h"
#include "memory.glsl"
#include "pass.glsl"

layout(local_size_x_id = SPEC_WORKGROUP) in; // LANES
layout(constant_id = SPEC_A) const uint HEAD = 64;
layout(constant_id = SPEC_B) const uint QUERIES = 16; // a power of two, at most 16
layout(constant_id = SPEC_C) const uint GROUP = 4;    // at most QUERIES
layout(constant_id = SPEC_D) const uint SPLITS = 1;
layout(constant_id = SPEC_E) const uint KEYS = 1; // a power of two; LANES is at least QUERIES
layout(push_constant, std430) uniform Push { attention_args a; };

#include "rope.glsl"
#include "kv.glsl"

#ifdef KV_Q8
#define VALUE vec4 // what a word of V holds
#define PAIR_QUADS 2 // of dimensions, in a pair of words
#else
#define VALUE vec2
#define PAIR_QUADS 1
#endif
const uint TOKENS = QUERIES / GROUP;
const uint LANES = KEY_BLOCK / KEYS;
const uint PAIRS = (KV_WORDS / 2 + LANES - 1) / LANES;
const uint WORDS = PAIRS * 2; // of a lane: word w is word_of(w, lane) of the head
const uint QUADS = KEY_BLOCK / 4; // of scores
const uint PARTS = LANES / QUERIES < QUADS ? LANES / QUERIES : QUADS; // lanes that share a query's statistics
const uint PART_QUADS = QUADS / PARTS;
const uint SCORES = QUERIES * KEYS; // of a lane
const uint BATCH = QUERIES < PASS_LANES ? QUERIES : PASS_LANES; // queries held in registers
// With PASS, lanes that are more than queries load what follows: this many quads of dimensions at once.
const uint FOLD = !PASS ? 1 : PASS_LANES / BATCH < 4 ? PASS_LANES / BATCH : HEAD % 16 == 0 ? 4 : 2;
const uint STEP = FOLD > PAIR_QUADS ? FOLD / PAIR_QUADS : 1; // pairs of words of K
#ifdef BY_QUADS
#define PASS_WEIGHTS false
#define UNROLL [[unroll]]
#else
#define PASS_WEIGHTS PASS
#if defined(KV_Q8) && !defined(ROPE)
#define UNROLL [[dont_unroll]] // of 16 queries, Mesa would, and spill on navi31
#else
#define UNROLL
#endif
#endif
const float NONE = -1e30; // below any score, and finite, so that NONE - NONE is 0

shared vec4 scores[QUERIES * QUADS]; // of four keys each, of this block; then exp(score - best)
shared float part_best[QUERIES * PARTS];
shared float best[QUERIES];               // of all blocks so far
shared float correction[QUERIES];         // exp(best before - best now)
shared uint first_key[QUERIES], last_key[QUERIES]; // what a query sees

VALUE value[QUERIES * WORDS]; // of the lane's dimensions: sums over keys, not divided yet

uint word_of(uint w, uint lane)
{
    return (w / 2 * LANES + lane) * 2 + w % 2;
}

#ifdef ROPE
shared vec4 turned[GROUP * HEAD / 4]; // q

vec4 load_q(uint at) { return turned[at / 16]; }

// K and V as the cache has them. By way of memory: compilers take unpackHalf2x16(packHalf2x16(x)) for x.
shared uint newest[2 * KV_WORDS];
#ifdef KV_Q8
shared vec2 fresh[HEAD]; // before they are rounded, in pairs
shared float newest_scale[2 * KV_SCALES];
#endif
shared float squares[(GROUP + 1) * LANES];
shared float scales[GROUP + 1]; // of the norms of the heads of q, and of k

// A pair of the newest K (of: 0) or V (1), to `newest`, or to `fresh`.
void keep(uint of, uint pair, vec2 x)
{
#ifdef KV_Q8
    fresh[of * (HEAD / 2) + pair] = x;
#else
    newest[of * KV_WORDS + pair] = packHalf2x16(x);
#endif
}

#ifdef KV_Q8
void round_fresh(uint lane)
{
    barrier();
    for (uint n = lane; n < 2 * KV_WORDS; n += LANES) {
        const uint of = n / KV_WORDS, block = n % KV_WORDS / (KV_BLOCK / 4);
        float largest = 0;
        for (uint i = block * KV_BLOCK / 2; i < min((block + 1) * KV_BLOCK, HEAD) / 2; i++) {
            const vec2 x = abs(fresh[of * (HEAD / 2) + i]);
            largest = max(largest, max(x.x, x.y));
        }
        newest[n] = q8_pack(vec4(fresh[n * 2], fresh[n * 2 + 1]), q8_inverse(largest));
        if (n % KV_WORDS % (KV_BLOCK / 4) == 0)
            newest_scale[of * KV_SCALES + block] = q8_scale(largest);
    }
}
#endif

// Four dimensions of the newest K or V.
vec4 newest_quad(uint of, uint quad)
{
#ifdef KV_Q8
    return q8_unpack(newest[of * KV_WORDS + quad]) *
           newest_scale[of * KV_SCALES + quad / (KV_BLOCK / 4)];
#else
    return vec4(unpackHalf2x16(newest[of * KV_WORDS + quad * 2]),
                unpackHalf2x16(newest[of * KV_WORDS + quad * 2 + 1]));
#endif
}

VALUE newest_value(uint word)
{
#ifdef KV_Q8
    return newest_quad(1, word);
#else
    return unpackHalf2x16(newest[KV_WORDS + word]);
#endif
}

void store_newest(uint lane, uint slot, uint kv_at)
{
    for (uint word = lane; word < KV_WORDS; word += LANES) {
        store_u32(a.k_cache, kv_at + k_word_at(slot, word), newest[word]);
        store_u32(a.v_cache, kv_at + v_word_at(slot, word), newest[KV_WORDS + word]);
    }
#ifdef KV_Q8
    if (lane < KV_SCALES) {
        store_f32(a.k_cache, kv_at + kv_scale_at(slot, lane), newest_scale[lane]);
        store_f32(a.v_cache, kv_at + kv_scale_at(slot, lane), newest_scale[KV_SCALES + lane]);
    }
#endif
}

// Two dimensions of q to `turned`.
void turn(uint dimension, vec2 x)
{
    turned[dimension / 4][dimension % 4] = x.x;
    turned[dimension / 4][dimension % 4 + 1] = x.y;
}

// q to `turned`, k and v to `newest`, and with `store` to the cache.
// kv_at: where the kv head's part of the caches begins
void norm_and_rotate(uint lane, uint position, uint first_head, uint kv_head, uint kv_at, bool store)
{
    for (uint h = 0; h <= GROUP; h++) {
        const uint at = (h < GROUP ? first_head + h : a.heads + kv_head) * HEAD * 4;
        float sum = 0;
        for (uint i = lane * 4; i < HEAD; i += LANES * 4) {
            const vec4 v = load_f32x4(a.qkv, at + i * 4);
            sum += dot(v, v);
        }
        squares[h * LANES + lane] = sum;
    }
    barrier();
    if (lane <= GROUP) {
        float sum = 0;
        for (uint i = 0; i < LANES; i++)
            sum += squares[lane * LANES + i];
        scales[lane] = inversesqrt(sum / float(HEAD) + a.eps);
    }
    barrier();
    for (uint n = lane; n < (GROUP + 1) * (HEAD / 4); n += LANES) {
        const uint h = n / (HEAD / 4), i = n % (HEAD / 4) * 2;
        const bool is_q = h < GROUP;
        const uint at = (is_q ? first_head + h : a.heads + kv_head) * HEAD * 4;
        vec2 low = load_f32x2(a.qkv, at + i * 4) * scales[h];
        vec2 high = load_f32x2(a.qkv, at + (i + HEAD / 2) * 4) * scales[h];
        low *= is_q ? load_f32x2(a.w_q, i * 4) : load_f32x2(a.w_k, i * 4);
        high *= is_q ? load_f32x2(a.w_q, (i + HEAD / 2) * 4) : load_f32x2(a.w_k, (i + HEAD / 2) * 4);
        rotate(a.rotation, position, i, low, high);
        if (is_q) {
            turn(h * HEAD + i, low * a.q_scale);
            turn(h * HEAD + i + HEAD / 2, high * a.q_scale);
        } else {
            keep(0, i / 2, low);
            keep(0, i / 2 + HEAD / 4, high);
        }
    }
    const uint v_at = (a.heads + a.kv_heads + kv_head) * HEAD * 4;
    for (uint pair = lane; pair < HEAD / 2; pair += LANES)
        keep(1, pair, load_f32x2(a.qkv, v_at + pair * 8));
#ifdef KV_Q8
    round_fresh(lane);
#endif
    barrier();
    if (store)
        store_newest(lane, position % a.cache_rows, kv_at);
}

// `best` to the scores of the newest key. Called by all lanes or none.
void begin_with_newest(uint lane)
{
    const uint query = lane % QUERIES, part = lane / QUERIES;
    float score = 0;
    for (uint quad = part; quad < HEAD / 4; quad += PARTS)
        score += dot(load_q(query % GROUP * HEAD * 4 + quad * 16), newest_quad(0, quad));
    if (part < PARTS)
        part_best[query * PARTS + part] = score;
    barrier();
    if (lane < QUERIES) {
        score = 0;
        for (uint j = 0; j < PARTS; j++)
            score += part_best[lane * PARTS + j];
        best[lane] = score;
    }
}
#else
vec4 load_q(uint at) { return load_f32x4(a.qkv, at); }
#endif

void set_keys(uint lane, uint position, uint first_row, uint last_row)
{
    if (lane < QUERIES) {
        const uint row = min(first_row + lane / GROUP, last_row);
        const uint at = position + row;
        first_key[lane] = at - min(a.window - 1, at);
        last_key[lane] = at + load_u32(a.control, CONTROL_ROW(row, CONTROL_ROW_AHEAD) * 4);
        best[lane] = NONE;
    }
    barrier();
}

// Takes a block's scores into `best`, by parts, then of all.
void update_best(uint lane)
{
    const uint query = lane % QUERIES, part = lane / QUERIES;
    if (part < PARTS) {
        vec4 most = vec4(NONE);
        for (uint j = 0; j < PART_QUADS; j++)
            most = max(most, scores[query * QUADS + part * PART_QUADS + j]);
        part_best[query * PARTS + part] = max(max(most.x, most.y), max(most.z, most.w));
    }
    barrier();
    if (lane < QUERIES) {
        float now = best[lane];
        for (uint j = 0; j < PARTS; j++)
            now = max(now, part_best[lane * PARTS + j]);
        correction[lane] = exp(best[lane] - now);
        best[lane] = now;
    }
    barrier();
}

// A pair of words of V of key j of a block, at `at` of its first key; with KV_Q8 their integers.
void load_values(uint at, uint j, out VALUE low, out VALUE high)
{
    const uvec2 two = load_u32x2(a.v_cache, at, v_word_at(j, 0));
#ifdef KV_Q8
    low = q8_unpack(two.x);
    high = q8_unpack(two.y);
#else
    low = unpackHalf2x16(two.x);
    high = unpackHalf2x16(two.y);
#endif
}

#ifdef KV_Q8
// The scales of that word of keys j to j + 3; with PASS, each of the four lanes whose words share a
// scale has one, as x.
vec4 load_value_scales(uint v_at, uint j, uint word)
{
    const uint at = v_at + j / KEY_GROUP * KV_GROUP_WORDS * 4;
    const uint block = word / (KV_BLOCK / 4);
    if (PASS)
        return vec4(load_f32(a.v_cache, at + kv_scale_at(j % KEY_GROUP + pass_lane() % 4, block)));
    return load_f32x4(a.v_cache, at + kv_scale_at(j % KEY_GROUP, block));
}

// of key k
float value_scale(vec4 scales, uint k)
{
#ifdef BY_QUADS
    return pass(scales.x, k);
#else
    return PASS ? mix(pass(scales.x, k), pass(scales.x, k + 4), pass_lane() >= 4) : scales[k];
#endif
}
#endif

void store_value(uint at, uint word, VALUE value)
{
#ifdef KV_Q8
    store_f32x2(a.y, at + word * 16, value.xy);
    store_f32x2(a.y, at + word * 16 + 8, value.zw);
#else
    store_f32x2(a.y, at + word * 8, value);
#endif
}

// The values of four keys, weighed; scale: of KV_Q8. With PASS a lane loads the weights of some queries.
void add_four(uint v_at[PAIRS], uint quad, vec4 scale[PAIRS])
{
    VALUE v[4 * WORDS];
    [[unroll]] for (uint k = 0; k < 4; k++) {
        for (uint p = 0; p < PAIRS; p++) {
            const uint i = k * WORDS + p * 2;
            load_values(v_at[p], quad * 4 + k, v[i], v[i + 1]);
#ifdef KV_Q8
            v[i] *= value_scale(scale[p], k);
            v[i + 1] *= value_scale(scale[p], k);
#endif
        }
    }
    vec4 mine[QUERIES / BATCH]; // i of query i * BATCH + lane
    for (uint i = 0; i < (PASS_WEIGHTS ? QUERIES / BATCH : 0); i++)
        mine[i] = scores[(i * BATCH + pass_lane() % BATCH) * QUADS + quad];
    [[unroll]] for (uint i = 0; i < QUERIES; i++) {
        const vec4 weight = PASS_WEIGHTS ? pass(mine[i / BATCH], i % BATCH) : scores[i * QUADS + quad];
        [[unroll]] for (uint w = 0; w < WORDS; w++) {
            VALUE sum = value[i * WORDS + w];
            [[unroll]] for (uint k = 0; k < 4; k++)
                sum += weight[k] * v[k * WORDS + w];
            value[i * WORDS + w] = sum;
        }
    }
}

// The values of a block, weighed.
void add_values(uint lane, uint v_at)
{
    uint pair_at[PAIRS];
    for (uint p = 0; p < PAIRS; p++)
        pair_at[p] = v_at + min(word_of(p * 2, lane), KV_WORDS - 2) * 4;
    for (uint quad = 0; quad < QUADS; quad++) {
        vec4 scale[PAIRS];
#ifdef KV_Q8
        for (uint p = 0; p < PAIRS; p++)
            scale[p] = load_value_scales(v_at, quad * 4, min(word_of(p * 2, lane), KV_WORDS - 2));
#endif
        add_four(pair_at, quad, scale);
    }
}

void store_values(uint lane, uint first_row, uint last_row, uint first_head)
{
    [[unroll]] for (uint i = 0; i < QUERIES; i++) {
        const uint row = first_row + i / GROUP;
        if (i / GROUP >= TOKENS || row > last_row)
            break;
        const uint head = row * a.heads + first_head + i % GROUP;
        float sum = 0;
        for (uint j = 0; j < PARTS; j++)
            sum += part_best[i * PARTS + j];
        for (uint w = 0; w < WORDS; w++) {
            const uint word = word_of(w, lane);
            if (word >= KV_WORDS)
                continue;
            if (SPLITS == 1)
                store_value(head * HEAD * 4, word, value[i * WORDS + w] / sum);
            else
                store_value((head * SPLITS + gl_WorkGroupID.z) * (HEAD + 2) * 4, word,
                            value[i * WORDS + w]);
        }
        if (SPLITS > 1 && lane == 0)
            store_f32x2(a.y, ((head * SPLITS + gl_WorkGroupID.z) * (HEAD + 2) + HEAD) * 4,
                        vec2(best[i], sum));
    }
}

// of the first key of the block after that of `slot`
uint next_slot(uint slot)
{
    return slot + KEY_BLOCK < a.cache_rows ? slot + KEY_BLOCK : 0;
}

// Every line of K and V of the block at `at`.
void touch_block(uint lane, uint at)
{
    const uint bytes = KEY_BLOCK / KEY_GROUP * KV_GROUP_WORDS * 4;
    for (uint i = 0; TOUCHES && i < bytes; i += LANES * CACHE_LINE) {
        const uint line = at + min(i + lane * CACHE_LINE, bytes - 1);
        touch_line(a.k_cache, line);
        touch_line(a.v_cache, line);
    }
}

void main()
{
    const uint lane = gl_LocalInvocationIndex;
    const uint first_row = gl_WorkGroupID.x * TOKENS;
    const uint first_head = gl_WorkGroupID.y * GROUP;
    const uint kv_head = first_head / (a.heads / a.kv_heads);
    const uint kv_at = kv_head_at(kv_head, a.cache_rows);
    const uint row_stride = (a.heads + 2 * a.kv_heads) * HEAD * 4;
    const uint position = load_u32(a.control, CONTROL_POSITION * 4);

    const uint last_row = min(first_row + TOKENS, a.rows) - 1;
    set_keys(lane, position, first_row, last_row);
    // the blocks this workgroup looks at: of what all its rows see, its share
    uint oldest = first_key[0], newest = last_key[0];
    for (uint i = GROUP; i < QUERIES; i += GROUP) {
        oldest = min(oldest, first_key[i]);
        newest = max(newest, last_key[i]);
    }
    uint block = oldest / KEY_BLOCK;
    uint end = newest / KEY_BLOCK + 1;
    if (SPLITS > 1) {
        const uint share = (end - block + SPLITS - 1) / SPLITS;
        block += gl_WorkGroupID.z * share;
        end = min(end, block + share);
    }

    const uint my_query = lane % QUERIES, my_part = lane / QUERIES;
    float my_sum = 0; // of exp(score - best), over the keys of my part, for my query
    for (uint i = 0; i < QUERIES * WORDS; i++)
        value[i] = VALUE(0);
#ifdef ROPE
    const uint newest_block = position / KEY_BLOCK;
    const bool has_newest = newest_block >= block && newest_block < end;
    norm_and_rotate(lane, position, first_head, kv_head, kv_at, has_newest);
    if (has_newest)
        begin_with_newest(lane);
    if (has_newest && my_part == 0)
        my_sum = 1;
    for (uint w = 0; w < WORDS && has_newest; w++) {
        const VALUE v = newest_value(min(word_of(w, lane), KV_WORDS - 1));
        for (uint i = 0; i < QUERIES; i++)
            value[i * WORDS + w] = v;
    }
    barrier();
#endif

    uint q_at[QUERIES]; // with PASS: i is of query i * BATCH + lane
    for (uint i = 0; i < QUERIES; i++) {
        const uint query = PASS ? i * BATCH + pass_lane() % BATCH : i;
#ifdef ROPE
        q_at[i] = query % GROUP * HEAD * 4;
#else
        const uint row = min(first_row + query / GROUP, last_row);
        q_at[i] = row * row_stride + (first_head + query % GROUP) * HEAD * 4;
#endif
    }
    uint slot = block * KEY_BLOCK % a.cache_rows; // of the block's first key
    touch_block(lane, kv_at + k_word_at(slot, 0));
    for (; block < end; block++) {
        if (block + 1 < end)
            touch_block(lane, kv_at + k_word_at(next_slot(slot), 0));
        // scores of the lane's keys: i * KEYS + s is of query i and key s * LANES + lane of the block
        uint k_at[KEYS];
        for (uint s = 0; s < KEYS; s++)
            k_at[s] = kv_at + k_word_at(slot + s * LANES + lane, 0);
        float score[SCORES];
        for (uint i = 0; i < SCORES; i++)
            score[i] = 0;
#ifdef KV_Q8
        uint scale_at[KEYS];
        float k_scale[KEYS];
        for (uint s = 0; s < KEYS; s++) {
            scale_at[s] = kv_at + kv_scale_at(slot + s * LANES + lane, 0);
            k_scale[s] = 0;
        }
#endif
        UNROLL for (uint first = 0; first < KV_WORDS / 2; first += STEP) {
            vec4 mine[QUERIES / BATCH]; // of q
            uvec2 words[KEYS];
            [[unroll]] for (uint quad = 0; quad < STEP * PAIR_QUADS; quad++) {
                const uint pair = first + quad / PAIR_QUADS, d = (first * PAIR_QUADS + quad) * 4;
                vec4 k[KEYS];
                for (uint s = 0; s < KEYS; s++) {
                    if (quad % PAIR_QUADS == 0)
                        words[s] = load_u32x2(a.k_cache, k_at[s], k_word_at(0, pair * 2));
#ifdef KV_Q8
                    if (quad % PAIR_QUADS == 0 && pair % (KV_BLOCK / 8) == 0)
                        k_scale[s] = load_f32(a.k_cache, scale_at[s] + pair / (KV_BLOCK / 8) * (KEY_GROUP * 4));
                    k[s] = q8_unpack(words[s][quad % PAIR_QUADS]) * k_scale[s];
#else
                    k[s] = vec4(unpackHalf2x16(words[s].x), unpackHalf2x16(words[s].y));
#endif
                }
                [[unroll]] for (uint j = 0; j < QUERIES / BATCH; j++) {
                    vec4 q[BATCH];
                    for (uint i = 0; i < (PASS ? 0 : BATCH); i++)
                        q[i] = load_q(q_at[j * BATCH + i] + d * 4);
                    if (PASS && quad % FOLD == 0)
                        mine[j] = load_q(q_at[j] + (d + pass_lane() / BATCH % FOLD * 4) * 4);
                    [[unroll]] for (uint i = 0; i < BATCH; i++) {
                        const vec4 of_query = PASS ? pass(mine[j], quad % FOLD * BATCH + i) : q[i];
                        for (uint s = 0; s < KEYS; s++)
                            score[(j * BATCH + i) * KEYS + s] += dot(of_query, k[s]);
                    }
                }
            }
        }
        [[unroll]] for (uint i = 0; i < SCORES; i++) {
            const uint in_block = i % KEYS * LANES + lane, key = block * KEY_BLOCK + in_block;
#ifdef ROPE
            if (key < first_key[i / KEYS] || key >= position)
#else
            if (key < first_key[i / KEYS] || key > last_key[i / KEYS])
#endif
                score[i] = NONE;
            scores[i / KEYS * QUADS + in_block / 4][in_block % 4] = score[i];
        }
        barrier();

        update_best(lane);
        [[unroll]] for (uint i = 0; i < SCORES; i++) { // a masked key adds nothing even where all are masked
            const uint in_block = i % KEYS * LANES + lane;
            scores[i / KEYS * QUADS + in_block / 4][in_block % 4] =
                score[i] == NONE ? 0.0 : exp(score[i] - best[i / KEYS]);
        }
        barrier();

        my_sum *= correction[my_query];
        for (uint j = 0; j < PART_QUADS && my_part < PARTS; j++) {
            const vec4 four = scores[my_query * QUADS + my_part * PART_QUADS + j];
            my_sum += (four.x + four.y) + (four.z + four.w);
        }

        // values
        [[unroll]] for (uint i = 0; i < QUERIES; i++)
            [[unroll]] for (uint w = 0; w < WORDS; w++)
                value[i * WORDS + w] *= correction[i];
        add_values(lane, kv_at + v_word_at(slot, 0));
        slot = next_slot(slot);
        barrier();
    }

    if (touched_nothing(a.heads))
        my_sum = 0;
    // part_best is free: the parts' sums
    if (my_part < PARTS)
        part_best[my_query * PARTS + my_part] = my_sum;
    barrier();
    store_values(lane, first_row, last_row, first_head);
}
