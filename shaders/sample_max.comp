#version 460
// SPDX-License-Identifier: MIT
// Drawing a token, first: the highest logit and the sum of exponentials, of the logits as they are and
// as they are adjusted; or all of it, if the most probable is wanted.      one workgroup a chunk of ids
//
// macros: GREEDY
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"
#define SAMPLE_CHUNK_SPEC
#include "sample.glsl"

// Of some logits.
struct part {
    uint best;  // order of the highest
    uint id;    // its id, the lowest of equal ones
    uint odd;   // the lowest id of one that is not a number
    float sum;  // of exp(logit - highest)
    uint top;   // the same as `best` and `sum`, adjusted and with the temperature
    float mass;
};
const part no_part = part(0, 0xffffffffu, 0xffffffffu, 0, 0, 0);

shared part parts[gl_WorkGroupSize.x];

#define PARTS (CHUNK / SAMPLE_LEAST_CHUNK) // that a workgroup leaves
#define MOST_TOPS 256

part join(part p, part q, float temperature)
{
    const float best = max(level(p.best), level(q.best));
    part r;
    r.best = max(p.best, q.best);
    r.id = min(p.best == r.best ? p.id : 0xffffffffu, q.best == r.best ? q.id : 0xffffffffu);
    r.odd = min(p.odd, q.odd);
    r.sum = p.sum * weigh(level(p.best), best, 1) + q.sum * weigh(level(q.best), best, 1);
    r.top = 0;
    r.mass = 0;
#ifndef GREEDY
    const float top = max(level(p.top), level(q.top));
    r.top = max(p.top, q.top);
    r.mass = p.mass * weigh(level(p.top), top, temperature) +
             q.mass * weigh(level(q.top), top, temperature);
#endif
    return r;
}

// Joins those of the lanes until `left` are left: part i is of the lanes i, i + left, ...
void join_lanes(part p, uint left, float temperature)
{
    const uint lane = gl_LocalInvocationIndex;
    barrier(); // the parts of an earlier call have been read
    parts[lane] = p;
    barrier();
    for (uint half_size = gl_WorkGroupSize.x / 2; half_size >= left; half_size /= 2) {
        if (lane < half_size)
            parts[lane] = join(parts[lane], parts[lane + half_size], temperature);
        barrier();
    }
}

// Adds weights relative to the highest so far, which may be this one.
float add_weight(float sum, float x, float highest, float temperature)
{
    const float w = weigh(min(x, highest), max(x, highest), temperature);
    return x > highest ? sum * w + 1 : sum + w;
}

part part_of_lane(float temperature)
{
    part p = no_part;
#ifndef GREEDY
    const float penalty = sampling_f32(SAMPLING_REPEAT_PENALTY);
    const bool as_is = penalty == 1 && temperature == 1;
    mark_repeated();
#endif
    for (uint i = chunk_first() + gl_LocalInvocationIndex; i < chunk_end(); i += gl_WorkGroupSize.x) {
        const uint order = order_of(load_u32(a.logits, logit_at(i)));
        if (order < ORDER_LEAST || order > ORDER_MOST)
            p.odd = min(p.odd, i);
        p.sum = add_weight(p.sum, level(order), level(p.best), 1);
        p.id = order > p.best ? i : p.id;
        p.best = max(order, p.best);
#ifndef GREEDY
        if (!as_is) {
            const uint adjusted = adjust(order, i, penalty);
            p.mass = add_weight(p.mass, level(adjusted), level(p.top), temperature);
            p.top = max(adjusted, p.top);
        }
#endif
    }
#ifndef GREEDY
    if (as_is) {
        p.top = p.best;
        p.mass = p.sum;
    }
#endif
    return p;
}

#ifndef GREEDY
shared uint tops[MOST_TOPS];
shared uint bound;

// Leaves in `bound` an order that at least top_k adjusted logits reach, or 0: the top_k-th highest one of some that are
// the highest ones of their parts.
void find_bound(uint count)
{
    const uint lane = gl_LocalInvocationIndex, k = sampling_u32(SAMPLING_TOP_K);
    for (uint i = lane; i < count; i += gl_WorkGroupSize.x)
        tops[i] = load_u32_coherent(a.scratch, scratch_at(SAMPLE_PARTS + i * SAMPLE_PART_WORDS + 4));
    if (lane == 0)
        bound = 0;
    barrier();
    for (uint i = lane; i < (k <= count ? count : 0); i += gl_WorkGroupSize.x) {
        uint as_high = 0;
        for (uint j = 0; j < count; j++)
            as_high += tops[j] >= tops[i] ? 1 : 0;
        if (as_high >= k)
            atomicMax(bound, tops[i]);
    }
    barrier();
}

// The distance beyond which nothing is drawn. In 2^20 ids beyond 32 there is less than half of what one
// step of the random number is worth. Beyond D there is at most vocab * exp(-D): where that is less than
// 1 - top_p of the mass, top-p has ended before.
float find_reach(float top, float mass, float temperature)
{
    const float top_p = sampling_f32(SAMPLING_TOP_P), min_p = sampling_f32(SAMPLING_MIN_P);
    float reach = 32;
    if (top_p < 1)
        reach = min(reach, log(float(a.vocab) / (0.99 * (1 - top_p) * mass)));
    if (min_p > 0)
        reach = min(reach, 0.001 - 1.0001 * log(min_p));
    if (bound > 0)
        reach = min(reach, with_slack(distance_below(level(bound), top, temperature), top, temperature));
    return reach;
}
#endif

void store_results(part p, float temperature)
{
    const uint status = p.odd != 0xffffffffu ? SAMPLE_ODD
                        : p.best == ORDER_LEAST || p.top == ORDER_LEAST ? SAMPLE_NOTHING : SAMPLE_OK;
#ifdef GREEDY
    leave_drawn(status == SAMPLE_ODD ? p.odd : p.id, status, p.best, p.sum);
#else
    store_u32(a.scratch, scratch_at(SAMPLE_LISTED), 0);
    store_u32(a.scratch, scratch_at(SAMPLE_STATUS), status);
    store_u32(a.scratch, scratch_at(SAMPLE_ID), p.odd);
    store_u32(a.scratch, scratch_at(SAMPLE_BEST), p.best);
    store_f32(a.scratch, scratch_at(SAMPLE_SUM), p.sum);
    store_u32(a.scratch, scratch_at(SAMPLE_TOP), p.top);
    store_f32(a.scratch, scratch_at(SAMPLE_MASS), p.mass);
    store_f32(a.scratch, scratch_at(SAMPLE_REACH),
              status == SAMPLE_OK ? find_reach(level(p.top), p.mass, temperature) : -1);
#endif
}

void main()
{
    const uint lane = gl_LocalInvocationIndex;
#ifdef GREEDY
    const float temperature = 1;
#else
    const float temperature = sampling_f32(SAMPLING_TEMPERATURE);
#endif
    join_lanes(part_of_lane(temperature), PARTS, temperature);
    if (lane < PARTS) {
        const part p = parts[lane];
        const uint at = scratch_at(SAMPLE_PARTS + (gl_WorkGroupID.x * PARTS + lane) * SAMPLE_PART_WORDS);
        store_u32x4_coherent(a.scratch, at, uvec4(p.best, p.id, p.odd, floatBitsToUint(p.sum)));
        store_u32x4_coherent(a.scratch, at + 16, uvec4(p.top, floatBitsToUint(p.mass), 0, 0));
    }
    const bool last = last_to_finish(a.scratch, scratch_at(SAMPLE_DONE), a.groups);
    const uint count = last ? a.groups * PARTS : 0;
    part p = no_part;
    for (uint i = lane; i < count; i += gl_WorkGroupSize.x) {
        const uint from = scratch_at(SAMPLE_PARTS + i * SAMPLE_PART_WORDS);
        const uvec4 u = load_u32x4_coherent(a.scratch, from);
        const uvec4 v = load_u32x4_coherent(a.scratch, from + 16);
        p = join(p, part(u.x, u.y, u.z, uintBitsToFloat(u.w), v.x, uintBitsToFloat(v.y)), temperature);
    }
    join_lanes(p, 1, temperature);
#ifndef GREEDY
    find_bound(min(count, MOST_TOPS));
#endif
    if (lane == 0 && last)
        store_results(parts[0], temperature);
#ifdef GREEDY
    move_on(last);
#endif
}
