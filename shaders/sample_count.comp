#version 460
// SPDX-License-Identifier: MIT
// Drawing a token, second: how many adjusted logits are how far below the highest, and what they weigh;
// from that, where the last one lies that top-k and top-p may keep.      one workgroup a chunk of ids
//
// Weights are added up as integers, rounded down: the sum does not depend on the order, and the border
// lies too far rather than too near. sample_draw cuts exactly.
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"
#define SAMPLE_CHUNK_SPEC
#include "sample.glsl"

#define UNITS 1073741824.0 // of the whole mass
#define LANE_BINS (SAMPLE_BINS / gl_WorkGroupSize.x)

shared uint counts[SAMPLE_BINS];
shared uint masses[SAMPLE_BINS];
shared uvec2 sums[gl_WorkGroupSize.x];
shared uint border;

void count_chunk(float reach)
{
    const float top = level(scratch_u32(SAMPLE_TOP)), units = UNITS / scratch_f32(SAMPLE_MASS);
    const float temperature = sampling_f32(SAMPLING_TEMPERATURE);
    const float penalty = sampling_f32(SAMPLING_REPEAT_PENALTY);
    for (uint i = chunk_first() + gl_LocalInvocationIndex; i < chunk_end(); i += gl_WorkGroupSize.x) {
        const uint order = adjust(order_of(load_u32(a.logits, logit_at(i))), i, penalty);
        const float distance = distance_below(level(order), top, temperature);
        if (distance <= reach) {
            const uint bin = min(uint(int(distance / reach * SAMPLE_BINS)), SAMPLE_BINS - 1);
            atomicAdd(counts[bin], 1);
            atomicAdd(masses[bin], uint(int(exp(-distance) * units)));
        }
    }
}

// The sum of `own` over this lane and those before it.
uvec2 sum_up_to_lane(uvec2 own)
{
    const uint lane = gl_LocalInvocationIndex;
    sums[lane] = own;
    barrier();
    for (uint step = 1; step < gl_WorkGroupSize.x; step *= 2) {
        const uvec2 before = lane >= step ? sums[lane - step] : uvec2(0);
        barrier();
        sums[lane] += before;
        barrier();
    }
    return sums[lane];
}

// The first bin after which top-k or top-p ends, or the last one. Leaves zeros in the histogram.
uint find_border(bool last)
{
    const uint first = gl_LocalInvocationIndex * LANE_BINS, end = last ? first + LANE_BINS : first;
    const float top_p = sampling_f32(SAMPLING_TOP_P);
    const uint k = sampling_u32(SAMPLING_TOP_K);
    // a little more, because the sum of all is rounded
    const uint mass = top_p < 1 ? uint(int(top_p * UNITS * 1.00002)) : 0xffffffffu;
    uvec2 own = uvec2(0);
    for (uint b = first; b < end; b++)
        own += load_u32x2_coherent(a.scratch, scratch_at(SAMPLE_COUNTS + 2 * b));
    uvec2 before = sum_up_to_lane(own) - own;
    if (gl_LocalInvocationIndex == 0)
        border = SAMPLE_BINS - 1;
    barrier();
    for (uint b = first; b < end; b++) {
        const uint at = scratch_at(SAMPLE_COUNTS + 2 * b);
        before += load_u32x2_coherent(a.scratch, at);
        store_u32x2_coherent(a.scratch, at, uvec2(0));
        if (before.x >= k || before.y > mass)
            atomicMin(border, b);
    }
    barrier();
    return border;
}

void main()
{
    const uint lane = gl_LocalInvocationIndex;
    const float reach = scratch_f32(SAMPLE_REACH); // below 0: nothing is drawn
    for (uint b = lane; b < SAMPLE_BINS; b += gl_WorkGroupSize.x)
        counts[b] = masses[b] = 0;
    mark_repeated();
    count_chunk(reach);
    barrier();
    for (uint b = lane; b < SAMPLE_BINS; b += gl_WorkGroupSize.x)
        if (counts[b] > 0) {
            atomic_add_u32(a.scratch, scratch_at(SAMPLE_COUNTS + 2 * b), counts[b]);
            atomic_add_u32(a.scratch, scratch_at(SAMPLE_COUNTS + 2 * b + 1), masses[b]);
        }
    const bool last = last_to_finish(a.scratch, scratch_at(SAMPLE_DONE), a.groups);
    const uint end = find_border(last) + 1;
    const float top = level(scratch_u32(SAMPLE_TOP)), temperature = sampling_f32(SAMPLING_TEMPERATURE);
    if (lane == 0 && last)
        store_f32(a.scratch, scratch_at(SAMPLE_BORDER),
                  reach < 0 ? -1 : with_slack(float(end) / SAMPLE_BINS * reach, top, temperature));
}
