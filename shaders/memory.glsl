// SPDX-License-Identifier: MIT
// The one door to memory: what a handle is, and how to read and write through it.
//
// KIM_ADDRESS 1: a handle is a device address; 0: a slot in the table of blocks (x) and a byte
// offset (y). `at` is a byte offset below 4 GiB in both. The address is computed as
// base + uint64_t(at), which AMD's compiler turns into one instruction with a scalar base; indexing a
// buffer reference costs it half as much again.
//
// All accesses are of 32-bit words, alone or in aligned twos and fours, so nothing is asked of a
// device beyond core Vulkan, but for TOUCH: half floats are packed and unpacked in registers.
// load_* are for what the dispatch does not write; reload_* for what it does. *_coherent are for what
// other lanes of the same dispatch write or read, with a memoryBarrierBuffer() between; of a word that
// is added to atomically, the same dispatch reads and writes with these.
// `more` is a constant that is added to `at` in 64 bits, where it becomes a part of the load: a sum of
// 32 bits could wrap, and takes an instruction for each load.
// Pairs are loaded as one 64-bit word, quads as two: lavapipe gathers word by word, and half as many are faster.

#if KIM_ADDRESS
#extension GL_EXT_buffer_reference : require
#extension GL_ARB_gpu_shader_int64 : require

layout(buffer_reference, std430, buffer_reference_align = 4) readonly restrict buffer In1 { uint v; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly restrict buffer In2 { uint64_t v; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly restrict buffer In4 { u64vec2 v; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Out1 { uint v; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Out2 { uvec2 v; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Out4 { uvec4 v; };
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer Shared1 { uint v; };
layout(buffer_reference, std430, buffer_reference_align = 8) coherent buffer Shared2 { uvec2 v; };
layout(buffer_reference, std430, buffer_reference_align = 16) coherent buffer Shared4 { uvec4 v; };

#define ADDRESS_OF(handle, at) (packUint2x32(handle) + uint64_t(at))

uint load_u32(uvec2 handle, uint at) { return In1(ADDRESS_OF(handle, at)).v; }
uvec2 load_u32x2(uvec2 handle, uint at) { return unpackUint2x32(In2(ADDRESS_OF(handle, at)).v); }
uvec4 pairs_to_words(u64vec2 v) { return uvec4(unpackUint2x32(v.x), unpackUint2x32(v.y)); }
uvec4 load_u32x4(uvec2 handle, uint at) { return pairs_to_words(In4(ADDRESS_OF(handle, at)).v); }
uint load_u32(uvec2 handle, uint at, uint more) { return In1(ADDRESS_OF(handle, at) + uint64_t(more)).v; }
uvec2 load_u32x2(uvec2 handle, uint at, uint more) { return unpackUint2x32(In2(ADDRESS_OF(handle, at) + uint64_t(more)).v); }
uvec4 load_u32x4(uvec2 handle, uint at, uint more) { return pairs_to_words(In4(ADDRESS_OF(handle, at) + uint64_t(more)).v); }
uint reload_u32(uvec2 handle, uint at) { return Out1(ADDRESS_OF(handle, at)).v; }
uvec2 reload_u32x2(uvec2 handle, uint at) { return Out2(ADDRESS_OF(handle, at)).v; }
uvec4 reload_u32x4(uvec2 handle, uint at) { return Out4(ADDRESS_OF(handle, at)).v; }
void store_u32(uvec2 handle, uint at, uint value) { Out1(ADDRESS_OF(handle, at)).v = value; }
void store_u32x2(uvec2 handle, uint at, uvec2 value) { Out2(ADDRESS_OF(handle, at)).v = value; }
void store_u32x4(uvec2 handle, uint at, uvec4 value) { Out4(ADDRESS_OF(handle, at)).v = value; }
#define SHARED1(handle, at) Shared1(ADDRESS_OF(handle, at)).v
#define SHARED2(handle, at) Shared2(ADDRESS_OF(handle, at)).v
#define SHARED4(handle, at) Shared4(ADDRESS_OF(handle, at)).v

#else
layout(constant_id = SPEC_TABLE_SIZE) const uint TABLE_SIZE = 16;
layout(set = 0, binding = 0, std430) buffer Block1 { uint v[]; } block1[TABLE_SIZE];
layout(set = 0, binding = 0, std430) buffer Block2 { uvec2 v[]; } block2[TABLE_SIZE];
layout(set = 0, binding = 0, std430) buffer Block4 { uvec4 v[]; } block4[TABLE_SIZE];
layout(set = 0, binding = 0, std430) coherent buffer Shared1 { uint v[]; } shared1[TABLE_SIZE];
layout(set = 0, binding = 0, std430) coherent buffer Shared2 { uvec2 v[]; } shared2[TABLE_SIZE];
layout(set = 0, binding = 0, std430) coherent buffer Shared4 { uvec4 v[]; } shared4[TABLE_SIZE];

uint load_u32(uvec2 handle, uint at) { return block1[handle.x].v[(handle.y + at) >> 2]; }
uvec2 load_u32x2(uvec2 handle, uint at) { return block2[handle.x].v[(handle.y + at) >> 3]; }
uvec4 load_u32x4(uvec2 handle, uint at) { return block4[handle.x].v[(handle.y + at) >> 4]; }
uint load_u32(uvec2 handle, uint at, uint more) { return block1[handle.x].v[(handle.y + at + more) >> 2]; }
uvec2 load_u32x2(uvec2 handle, uint at, uint more) { return block2[handle.x].v[(handle.y + at + more) >> 3]; }
uvec4 load_u32x4(uvec2 handle, uint at, uint more) { return block4[handle.x].v[(handle.y + at + more) >> 4]; }
uint reload_u32(uvec2 handle, uint at) { return block1[handle.x].v[(handle.y + at) >> 2]; }
uvec2 reload_u32x2(uvec2 handle, uint at) { return block2[handle.x].v[(handle.y + at) >> 3]; }
uvec4 reload_u32x4(uvec2 handle, uint at) { return block4[handle.x].v[(handle.y + at) >> 4]; }
void store_u32(uvec2 handle, uint at, uint value) { block1[handle.x].v[(handle.y + at) >> 2] = value; }
void store_u32x2(uvec2 handle, uint at, uvec2 value) { block2[handle.x].v[(handle.y + at) >> 3] = value; }
void store_u32x4(uvec2 handle, uint at, uvec4 value) { block4[handle.x].v[(handle.y + at) >> 4] = value; }
#define SHARED1(handle, at) shared1[(handle).x].v[((handle).y + (at)) >> 2]
#define SHARED2(handle, at) shared2[(handle).x].v[((handle).y + (at)) >> 3]
#define SHARED4(handle, at) shared4[(handle).x].v[((handle).y + (at)) >> 4]
#endif

uint load_u32_coherent(uvec2 handle, uint at) { return SHARED1(handle, at); }
uvec2 load_u32x2_coherent(uvec2 handle, uint at) { return SHARED2(handle, at); }
uvec4 load_u32x4_coherent(uvec2 handle, uint at) { return SHARED4(handle, at); }
void store_u32_coherent(uvec2 handle, uint at, uint value) { SHARED1(handle, at) = value; }
void store_u32x2_coherent(uvec2 handle, uint at, uvec2 value) { SHARED2(handle, at) = value; }
void store_u32x4_coherent(uvec2 handle, uint at, uvec4 value) { SHARED4(handle, at) = value; }
uint atomic_add_u32(uvec2 handle, uint at, uint value) { return atomicAdd(SHARED1(handle, at), value); } // the value before

float load_f32(uvec2 handle, uint at) { return uintBitsToFloat(load_u32(handle, at)); }
vec2 load_f32x2(uvec2 handle, uint at) { return uintBitsToFloat(load_u32x2(handle, at)); }
vec4 load_f32x4(uvec2 handle, uint at) { return uintBitsToFloat(load_u32x4(handle, at)); }
vec4 load_f32x4(uvec2 handle, uint at, uint more) { return uintBitsToFloat(load_u32x4(handle, at, more)); }
float reload_f32(uvec2 handle, uint at) { return uintBitsToFloat(reload_u32(handle, at)); }
vec2 reload_f32x2(uvec2 handle, uint at) { return uintBitsToFloat(reload_u32x2(handle, at)); }
vec4 reload_f32x4(uvec2 handle, uint at) { return uintBitsToFloat(reload_u32x4(handle, at)); }
void store_f32(uvec2 handle, uint at, float value) { store_u32(handle, at, floatBitsToUint(value)); }
void store_f32x2(uvec2 handle, uint at, vec2 value) { store_u32x2(handle, at, floatBitsToUint(value)); }
void store_f32x4(uvec2 handle, uint at, vec4 value) { store_u32x4(handle, at, floatBitsToUint(value)); }
float load_f32_coherent(uvec2 handle, uint at) { return uintBitsToFloat(load_u32_coherent(handle, at)); }
vec4 load_f32x4_coherent(uvec2 handle, uint at) { return uintBitsToFloat(load_u32x4_coherent(handle, at)); }
void store_f32_coherent(uvec2 handle, uint at, float value) { store_u32_coherent(handle, at, floatBitsToUint(value)); }
void store_f32x4_coherent(uvec2 handle, uint at, vec4 value) { store_u32x4_coherent(handle, at, floatBitsToUint(value)); }

// Lavapipe gathers words by an instruction during which AMD's CPUs wait for one line after the other,
// unless they are in a cache; bytes it loads one by one, which CPUs do ahead. So with TOUCH, where
// lanes load for each other, a byte of each line is read before its words are.
// macros: TOUCH
#define CACHE_LINE 64
#if KIM_ADDRESS && defined TOUCH
#extension GL_EXT_shader_8bit_storage : require
layout(buffer_reference, std430, buffer_reference_align = 1) readonly restrict buffer InByte { uint8_t v; };
#define TOUCHES true
uint touched = 0;
void touch_line(uvec2 handle, uint at) { touched |= uint(InByte(ADDRESS_OF(handle, at)).v); }
// Never true, which compilers cannot know; what comes of it makes them keep the reading.
// count: any number of things
bool touched_nothing(uint count) { return touched > 255 + count; }
#else
#define TOUCHES false
void touch_line(uvec2 handle, uint at) {}
bool touched_nothing(uint count) { return false; }
#endif
