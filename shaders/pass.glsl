// SPDX-License-Identifier: MIT
// Lanes that load for each other.
//
// GPUs load once what all lanes load from one address. Mesa's lavapipe does not inside a loop: its
// 8-lane vectors gather it lane by lane, which costs more than all that is done with it. There, each
// lane loads another one of eight values, and passes it on to the others in registers.
//
// BY_QUADS: four lanes do so, which AMD and Intel do as part of the instruction that takes the value.
// macros: BY_QUADS

#extension GL_KHR_shader_subgroup_basic : require
#ifdef BY_QUADS
#extension GL_KHR_shader_subgroup_quad : require
#define PASS true
#define PASS_LANES 4
#define PASS_ON subgroupQuadBroadcast
#else
#extension GL_KHR_shader_subgroup_ballot : require
layout(constant_id = SPEC_PASS) const bool PASS = false;
#define PASS_LANES 8 // of a subgroup, with PASS
#define PASS_ON subgroupBroadcast
#endif

uint pass_lane()
{
    return gl_SubgroupInvocationID % PASS_LANES;
}

vec4 pass(vec4 mine, uint lane)
{
    return PASS_ON(mine, lane);
}

float pass(float mine, uint lane)
{
    return PASS_ON(mine, lane);
}
