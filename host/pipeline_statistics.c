// SPDX-License-Identifier: MIT
// What a driver's compiler says of a pipeline: registers, spills, occupancy. Needs no submit.
#include "pipeline_statistics.h"

#include "spirv.h"

#include <math.h>
#include <stdio.h>

#define MAX_EXECUTABLES 8
#define MAX_STATISTICS 128

void pipeline_name(const pipeline_key *key, char *out, size_t size)
{
    int used = snprintf(out, size, "%s", kim_spirv_table[key->variant].name);
    for (uint32_t i = 0; i < SPEC_COUNT - SPEC_WORKGROUP; i++)
        if (key->constants[i] && used >= 0 && (size_t)used < size)
            used += snprintf(out + used, size - (size_t)used, "/%u", key->constants[i]);
}

static double value_of(const VkPipelineExecutableStatisticKHR *s)
{
    switch (s->format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR: return s->value.b32;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR: return (double)s->value.i64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR: return (double)s->value.u64;
    default: return s->value.f64;
    }
}

static kim_err visit_executable(kim_gpu *g, VkPipeline pipeline, uint32_t index,
                                pipeline_statistic_fn visit, void *user)
{
    kim_err err = KIM_OK;
    VkPipelineExecutableStatisticKHR statistics[MAX_STATISTICS];
    uint32_t n = MAX_STATISTICS;
    for (uint32_t i = 0; i < n; i++)
        statistics[i] = (VkPipelineExecutableStatisticKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR,
        };
    const VkPipelineExecutableInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
        .pipeline = pipeline,
        .executableIndex = index,
    };
    VK_TRY(g->vk.vkGetPipelineExecutableStatisticsKHR(g->device, &info, &n, statistics));
    for (uint32_t i = 0; i < n; i++)
        visit(user, statistics[i].name, value_of(&statistics[i]));
error:
    return err;
}

kim_err pipeline_statistics(kim_gpu *g, const pipeline_key *key, pipeline_statistic_fn visit,
                            void *user)
{
    kim_err err = KIM_OK;
    VkPipeline pipeline;
    TRY(pipeline_get(g, key, &pipeline));
    if (!g->statistics)
        return KIM_OK;
    VkPipelineExecutablePropertiesKHR executables[MAX_EXECUTABLES];
    uint32_t n = MAX_EXECUTABLES;
    for (uint32_t i = 0; i < n; i++)
        executables[i] = (VkPipelineExecutablePropertiesKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR,
        };
    const VkPipelineInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR,
        .pipeline = pipeline,
    };
    VK_TRY(g->vk.vkGetPipelineExecutablePropertiesKHR(g->device, &info, &n, executables));
    for (uint32_t i = 0; i < n; i++)
        TRY(visit_executable(g, pipeline, i, visit, user));
error:
    return err;
}

// What drivers call it: AMD (RADV), NVIDIA (NVK), Intel (ANV), Qualcomm, Apple; in lower case
static const struct {
    const char *name;
    pipeline_figure figure;
} names[] = {
    { "vgprs", PIPELINE_REGISTERS },
    { "number of gprs", PIPELINE_REGISTERS },
    { "gprs", PIPELINE_REGISTERS },
    { "max live registers", PIPELINE_REGISTERS },
    { "full registers", PIPELINE_REGISTERS },
    { "sgprs", PIPELINE_SCALAR_REGISTERS },
    { "spilled sgprs", PIPELINE_SPILLS },
    { "spilled vgprs", PIPELINE_SPILLS },
    { "spill count", PIPELINE_SPILLS },
    { "spills to memory", PIPELINE_SPILLS },
    { "lds size", PIPELINE_SHARED_BYTES },
    { "shared memory size", PIPELINE_SHARED_BYTES },
    { "workgroup memory size", PIPELINE_SHARED_BYTES },
    { "subgroups per simd", PIPELINE_OCCUPANCY },
    { "max warps/sm", PIPELINE_OCCUPANCY },
    { "max waves per core", PIPELINE_OCCUPANCY },
    { "instructions", PIPELINE_INSTRUCTIONS },
    { "instruction count", PIPELINE_INSTRUCTIONS },
    { "inverse throughput", PIPELINE_THROUGHPUT },
    { "cycle count", PIPELINE_THROUGHPUT },
    { "static cycle count", PIPELINE_THROUGHPUT },
};

static bool same_without_case(const char *a, const char *b)
{
    while (*a && *b && (*a | 0x20) == (*b | 0x20))
        a++, b++;
    return *a == *b;
}

void pipeline_figures_add(void *figures, const char *name, double value)
{
    double *values = ((pipeline_figures *)figures)->values;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (same_without_case(name, names[i].name)) {
            double *to = &values[names[i].figure];
            *to = isnan(*to) ? value : *to + value;
        }
}

kim_err pipeline_get_figures(kim_gpu *g, const pipeline_key *key, pipeline_figures *out)
{
    for (int i = 0; i < PIPELINE_FIGURES; i++)
        out->values[i] = NAN;
    return pipeline_statistics(g, key, pipeline_figures_add, out);
}
