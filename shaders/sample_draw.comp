#version 460
// SPDX-License-Identifier: MIT
// Drawing a token, last: sorts the candidates, keeps those that the filters do, takes the one where the
// sum of weights passes the random share of the whole, and moves the session on.      one workgroup
#extension GL_GOOGLE_include_directive : require
#include "kim_shared.h"
#include "memory.glsl"
#include "sample.glsl"

shared uvec2 short_list[SAMPLE_SHORT];
shared float sums[gl_WorkGroupSize.x];
shared uint kept;
shared float kept_mass;
shared uint chosen;

// Candidate i: its order and its id.
uvec2 candidate(bool is_short, uint i)
{
    if (is_short)
        return short_list[i];
    return load_u32x2_coherent(a.scratch, list_at(i));
}

void put_candidate(bool is_short, uint i, uvec2 value)
{
    if (is_short)
        short_list[i] = value;
    else
        store_u32x2_coherent(a.scratch, list_at(i), value);
}

bool more_probable(uvec2 x, uvec2 y)
{
    return x.x > y.x || (x.x == y.x && x.y < y.y);
}

// Batcher's bitonic sort of 2^n candidates.
void sort(bool is_short, uint size)
{
    for (uint run = 2; run <= size; run *= 2)
        for (uint step = run / 2; step > 0; step /= 2) {
            for (uint pair = gl_LocalInvocationIndex; pair < size / 2; pair += gl_WorkGroupSize.x) {
                const uint i = 2 * pair - (pair & (step - 1));
                const uvec2 x = candidate(is_short, i), y = candidate(is_short, i + step);
                if (more_probable(y, x) == ((i & run) == 0)) {
                    put_candidate(is_short, i, y);
                    put_candidate(is_short, i + step, x);
                }
            }
            memoryBarrierBuffer();
            barrier();
        }
}

// The sum of `own` over the lanes before this one.
float sum_before_lane(float own)
{
    const uint lane = gl_LocalInvocationIndex;
    sums[lane] = own;
    barrier();
    for (uint step = 1; step < gl_WorkGroupSize.x; step *= 2) {
        const float before = lane >= step ? sums[lane - step] : 0;
        barrier();
        sums[lane] += before;
        barrier();
    }
    return lane > 0 ? sums[lane - 1] : 0;
}

// The id that is drawn from a sorted list.
uint draw(bool is_short, uint count, float share)
{
    const uint lane = gl_LocalInvocationIndex;
    const float temperature = sampling_f32(SAMPLING_TEMPERATURE);
    const float top_p = sampling_f32(SAMPLING_TOP_P), min_p = sampling_f32(SAMPLING_MIN_P);
    const float mass = top_p < 1 ? top_p * scratch_f32(SAMPLE_MASS) : LARGEST;
    const float highest = level(candidate(is_short, 0).x);
    const uint most = min(count, sampling_u32(SAMPLING_TOP_K));
    const uint a_lane = (most + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;
    const uint first = min(lane * a_lane, most), end = min(first + a_lane, most);

    float own = 0;
    for (uint i = first; i < end; i++)
        own += weigh(level(candidate(is_short, i).x), highest, temperature);
    const float start = sum_before_lane(own);
    if (lane == 0)
        kept = most;
    barrier();
    float before = start;
    for (uint i = first; i < end; i++) {
        const float weight = weigh(level(candidate(is_short, i).x), highest, temperature);
        if (i > 0 && (before > mass || weight < min_p))
            atomicMin(kept, i);
        before += weight;
    }
    barrier();
    const uint kept_end = min(end, kept);
    before = start;
    for (uint i = first; i < kept_end; i++)
        before += weigh(level(candidate(is_short, i).x), highest, temperature);
    if (first < kept && kept <= end) {
        kept_mass = before;
        chosen = kept - 1;
    }
    barrier();
    float sum = start;
    for (uint i = first; i < kept_end; i++) {
        sum += weigh(level(candidate(is_short, i).x), highest, temperature);
        if (sum > kept_mass * share)
            atomicMin(chosen, i);
    }
    barrier();
    return candidate(is_short, chosen).y;
}

void main()
{
    const uint lane = gl_LocalInvocationIndex;
    const uint count = scratch_u32(SAMPLE_LISTED), status = scratch_u32(SAMPLE_STATUS);
    const uint size = count > 1 ? 2u << findMSB(count - 1) : 1;
    const bool is_short = size <= SAMPLE_SHORT;
    for (uint i = lane; i < size; i += gl_WorkGroupSize.x) {
        uvec2 value = uvec2(0, 0xffffffffu); // after all others
        if (i < count)
            value = load_u32x2_coherent(a.scratch, list_at(i));
        put_candidate(is_short, i, value);
    }
    if (lane == 0)
        chosen = 0; // of an empty list
    memoryBarrierBuffer();
    barrier();
    sort(is_short, size);
    const uint step = reload_u32(a.control, CONTROL_STEP * 4) + gl_WorkGroupID.y;
    const uint id = draw(is_short, count, sampling_f32(SAMPLING_DRAWS + step % SAMPLE_DRAWS));
    if (lane == 0)
        leave_drawn(status == SAMPLE_ODD ? scratch_u32(SAMPLE_ID) : id, status,
                    scratch_u32(SAMPLE_BEST), scratch_f32(SAMPLE_SUM));
    move_on(true);
}
