// SPDX-License-Identifier: MIT
// Sums over a workgroup, by shared memory: needs nothing of subgroups, whatever their size.
// The workgroup is a power of two.

shared float reduce_scratch[gl_WorkGroupSize.x];

float workgroup_sum(float value)
{
    const uint i = gl_LocalInvocationIndex;
    barrier(); // the scratch of an earlier sum has been read
    reduce_scratch[i] = value;
    barrier();
    for (uint half_size = gl_WorkGroupSize.x / 2; half_size > 0; half_size /= 2) {
        if (i < half_size)
            reduce_scratch[i] += reduce_scratch[i + half_size];
        barrier();
    }
    return reduce_scratch[0];
}
