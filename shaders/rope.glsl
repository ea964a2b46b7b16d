// SPDX-License-Identifier: MIT
// RoPE (Su et al. 2021) in the form that pairs d with d + HEAD / 2.
//
// The angle of position p is that of p % ROPE_LOW plus that of the rest: the table holds (cos, sin)
// of ROPE_LOW low positions, then of the multiples of ROPE_LOW, made in double precision by the
// host. So no device's sine matters, whose error Vulkan bounds only by 2^-11 and only between -pi
// and pi.
//
// Defined before: HEAD, the specialisation constant.

// the rotated pairs (i, i + HEAD / 2) and (i + 1, i + 1 + HEAD / 2): low.xy and high.xy
void rotate(uvec2 rotation, uint position, uint i, inout vec2 low, inout vec2 high)
{
    const uint fine = (position % ROPE_LOW * (HEAD / 2) + i) * 8;
    const uint coarse = ((ROPE_LOW + position / ROPE_LOW) * (HEAD / 2) + i) * 8;
    const vec4 f = load_f32x4(rotation, fine), c = load_f32x4(rotation, coarse);
    const vec2 cosine = vec2(f.x * c.x - f.y * c.y, f.z * c.z - f.w * c.w);
    const vec2 sine = vec2(f.y * c.x + f.x * c.y, f.w * c.z + f.z * c.w);
    const vec2 x = low * cosine - high * sine;
    high = high * cosine + low * sine;
    low = x;
}
