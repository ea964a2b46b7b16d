// SPDX-License-Identifier: MIT
// What the dispatches that draw a token share: how logits compare, the repetition penalty, and how a
// session moves on. The rule is that of engine/sampler.c, which is the reference:
//     adjusted = logits with those of the last repeat_last tokens penalised; the most probable first,
//     of equal ones the lower id; k of them, while the mass before is at most top_p of all, and each
//     weighs at least min_p; one of these by a random number
//
//     sample_max     maxima and sums, and how far from the maximum something may be kept   over ids
//     sample_count   histogram of the distance from the maximum, and where the border lies  over ids
//     sample_gather  lists what is not beyond the border                                    over ids
//     sample_draw    sorts the list, cuts it, draws, moves on                               one group
//     sample_greedy  all of it, if the most probable is wanted                              over ids
//
// The second dimension of the grid is the rows of a step whose tokens after the first are drafts, each
// with the random number of its place. Drafts are right as long as they are what is drawn; what is
// drawn instead of the first wrong one is the last that counts.
//
// Logits are compared as integers (their order), so nothing depends on how a device treats infinities,
// denormals and what is not a number.

layout(local_size_x_id = SPEC_WORKGROUP) in;
layout(push_constant, std430) uniform Push { sample_args a; };

#include "last.glsl"

#define ORDER_LEAST 0x007fffffu // of -infinity; with what is not a number it is not between these
#define ORDER_MOST 0xff800000u  // of infinity
#define LARGEST 3.402823466e38
#define BELOW_ALL -104.0 // its exponential is 0

// Monotonic, and the same for both zeros.
uint order_of(uint bits)
{
    bits = bits == 0x80000000u ? 0 : bits;
    return bits ^ (uint(int(bits) >> 31) | 0x80000000u);
}

// The logit of an order, finite: the largest number for infinity.
float level(uint order)
{
    const uint finite = clamp(order, ORDER_LEAST + 1, ORDER_MOST - 1);
    return uintBitsToFloat(finite ^ ((finite >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}

// How far x is below the highest, in units of temperature.
float distance_below(float x, float highest, float temperature)
{
    return x == highest ? 0 : clamp((highest - x) / temperature, 0, -BELOW_ALL);
}

// At least what rounding makes of this distance in another shader.
float with_slack(float distance, float highest, float temperature)
{
    return distance + 1e-6 * (1 + distance + abs(highest) / temperature);
}

// The probability relative to the highest one's.
float weigh(float x, float highest, float temperature)
{
    return exp(-distance_below(x, highest, temperature));
}

// Where a word of this row's scratch memory is, a candidate there, and the logit of an id.
uint scratch_at(uint word) { return gl_WorkGroupID.y * a.scratch_row + word * 4; }
uint list_at(uint i) { return gl_WorkGroupID.y * a.scratch_row + a.list + i * 8; }
uint logit_at(uint id) { return (gl_WorkGroupID.y * a.stride + id) * 4; }

uint scratch_u32(uint word) { return reload_u32(a.scratch, scratch_at(word)); }
float scratch_f32(uint word) { return reload_f32(a.scratch, scratch_at(word)); }
uint sampling_u32(uint word) { return load_u32(a.sampling, word * 4); }
float sampling_f32(uint word) { return load_f32(a.sampling, word * 4); }

#ifdef SAMPLE_CHUNK_SPEC
layout(constant_id = SPEC_A) const uint CHUNK = SAMPLE_LEAST_CHUNK; // ids of a workgroup
shared uint marked[CHUNK / 32]; // bits of those that are penalised

uint chunk_first() { return gl_WorkGroupID.x * CHUNK; }
uint chunk_end() { return min(a.vocab, chunk_first() + CHUNK); }

// Called by the whole workgroup before adjust().
void mark_repeated()
{
    for (uint i = gl_LocalInvocationIndex; i < CHUNK / 32; i += gl_WorkGroupSize.x)
        marked[i] = 0;
    barrier();
    const uint end = load_u32(a.control, CONTROL_POSITION * 4) + a.row + gl_WorkGroupID.y + 1;
    const uint last = sampling_f32(SAMPLING_REPEAT_PENALTY) == 1 ? 0 : sampling_u32(SAMPLING_REPEAT_LAST);
    for (uint i = end - min(end, last) + gl_LocalInvocationIndex; i < end; i += gl_WorkGroupSize.x) {
        const uint at = load_u32(a.history, i * 4) - chunk_first();
        if (at < CHUNK)
            atomicOr(marked[at / 32], 1u << at % 32);
    }
    barrier();
}

// The order of id i after the repetition penalty.
uint adjust(uint order, uint i, float penalty)
{
    const uint at = i - chunk_first();
    if ((marked[at / 32] >> at % 32 & 1) == 0 || order <= ORDER_LEAST || order >= ORDER_MOST)
        return order;
    const float x = level(order);
    return order_of(floatBitsToUint(x > 0 ? x / penalty : x * penalty));
}
#endif

// Leaves what a row drew, by one lane.
//
// best, sum: of the logits as they were
void leave_drawn(uint id, uint status, uint best, float sum)
{
    float logprob = 0;
    if (status == SAMPLE_OK) {
        const uint stops = min(sampling_u32(SAMPLING_N_STOPS), SAMPLING_MAX_STOPS);
        for (uint i = 0; i < stops; i++)
            if (sampling_u32(SAMPLING_STOPS + i) == id)
                status = SAMPLE_STOP;
        const float x = level(order_of(load_u32(a.logits, logit_at(id)))), highest = level(best);
        logprob = (x == highest ? 0 : x - highest) - log(sum);
    }
    store_u32x4_coherent(a.scratch, scratch_at(SAMPLE_DRAWN),
                         uvec4(id, floatBitsToUint(logprob), status, 0));
}

// The end of a step, by the whole workgroup: the last one that comes with `counts`, each row's does,
// leaves the results, and the session at its next token.
void move_on(bool counts)
{
    const bool last = last_to_finish(a.scratch, SAMPLE_ROWS_DONE * 4, a.rows, counts);
    if (!last || gl_LocalInvocationIndex != 0 || reload_u32(a.control, CONTROL_STOPPED * 4) != 0)
        return;
    const uint step = reload_u32(a.control, CONTROL_STEP * 4);
    const uint position = reload_u32(a.control, CONTROL_POSITION * 4) + a.row + 1;
    uint n = 0, id = 0, status = SAMPLE_AGREED;
    for (; status == SAMPLE_AGREED; n++) {
        const uvec4 drawn = load_u32x4_coherent(a.scratch, n * a.scratch_row + SAMPLE_DRAWN * 4);
        status = drawn.z;
        if (status == SAMPLE_OK && n + 1 < a.rows &&
            reload_u32(a.control, CONTROL_ROW(a.row + n + 1, CONTROL_ROW_TOKEN) * 4) == drawn.x)
            status = SAMPLE_AGREED;
        store_u32x4(a.results, (step + n) % SAMPLE_SLOTS * 16, uvec4(drawn.xy, step + n + 1, status));
        if (status == SAMPLE_ODD || status == SAMPLE_NOTHING)
            continue;
        id = drawn.x;
        store_u32(a.history, (position + n) * 4, id);
        store_u32(a.control, CONTROL_POSITION * 4, position + n);
    }
    if (n > 1 || status == SAMPLE_OK || status == SAMPLE_STOP) {
        store_u32(a.control, CONTROL_ROW(0, CONTROL_ROW_TOKEN) * 4, id);
        store_u32(a.control, CONTROL_ROW(0, CONTROL_ROW_AHEAD) * 4, 0);
    }
    store_u32(a.control, CONTROL_STEP * 4, step + n);
    store_u32(a.control, CONTROL_STOPPED * 4, status == SAMPLE_OK ? 0 : 1);
}
