// SPDX-License-Identifier: MIT
// Work for the workgroup of a dispatch that is done last, so that it needs no dispatch of its own.

shared bool is_last;

// Whether this workgroup is the last of `groups` to come here with `counts`; what the others stored
// before then, with store_*_coherent, can be seen. Called by the whole workgroup. They are counted in
// the word at `at`, which is 0 before and after: in memory, because the stream may cut a dispatch into
// several.
bool last_to_finish(uvec2 counter, uint at, uint groups, bool counts)
{
    memoryBarrierBuffer();
    barrier();
    if (gl_LocalInvocationIndex == 0) {
        is_last = counts && atomic_add_u32(counter, at, 1) == groups - 1;
        if (is_last)
            store_u32_coherent(counter, at, 0);
    }
    memoryBarrierBuffer();
    barrier();
    return is_last;
}

bool last_to_finish(uvec2 counter, uint at, uint groups)
{
    return last_to_finish(counter, at, groups, true);
}
