// SPDX-License-Identifier: MIT
// Sums and maxima over a workgroup, by shared memory: needs nothing of subgroups, whatever their
// size. The workgroup is a power of two.

shared float reduce_scratch[gl_WorkGroupSize.x];

float workgroup_reduce(float value, bool largest)
{
    const uint i = gl_LocalInvocationIndex;
    barrier(); // the scratch of an earlier one has been read
    reduce_scratch[i] = value;
    barrier();
    for (uint half_size = gl_WorkGroupSize.x / 2; half_size > 0; half_size /= 2) {
        if (i < half_size) {
            const float other = reduce_scratch[i + half_size];
            reduce_scratch[i] = largest ? max(reduce_scratch[i], other) : reduce_scratch[i] + other;
        }
        barrier();
    }
    return reduce_scratch[0];
}

float workgroup_sum(float value)
{
    return workgroup_reduce(value, false);
}

float workgroup_max(float value)
{
    return workgroup_reduce(value, true);
}
