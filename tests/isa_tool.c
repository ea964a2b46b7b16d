// SPDX-License-Identifier: MIT
// Prints what a driver's compiler makes of a shader: all the representations that it gives, the
// machine's instructions last. Submits nothing, so drivers that only compile will do.
//   isa_tool SHADER.spv [ID=VALUE...]   ID: of a specialisation constant
//
// The shader may be anyone's: it may have five storage buffers in set 0 and 128 bytes of push
// constants, or none of it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/vulkan.h"

#include "host/gpu.h"

#define MAX_CONSTANTS 16
#define BUFFERS 5
#define MAX_REPRESENTATIONS 8

typedef struct shader {
    uint32_t *code;
    size_t bytes;
    VkSpecializationMapEntry entries[MAX_CONSTANTS];
    uint32_t values[MAX_CONSTANTS], n;
} shader;

static bool read_shader(shader *s, int argc, char **argv)
{
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (!file)
        return false;
    fseek(file, 0, SEEK_END);
    const long size = ftell(file);
    rewind(file);
    s->bytes = size > 0 ? (size_t)size : 0;
    s->code = malloc(s->bytes + 1);
    const bool whole = s->code && fread(s->code, 1, s->bytes, file) == s->bytes;
    fclose(file);
    for (int i = 2; i < argc && i < MAX_CONSTANTS + 2; i++) {
        const char *value = strchr(argv[i], '=');
        if (!value)
            return false;
        s->values[s->n] = (uint32_t)strtoul(value + 1, NULL, 10);
        s->entries[s->n] =
            (VkSpecializationMapEntry){ (uint32_t)strtoul(argv[i], NULL, 10), s->n * 4, 4 };
        s->n++;
    }
    return whole && s->bytes;
}

static kim_err make_layout(kim_gpu *g, VkDescriptorSetLayout *set, VkPipelineLayout *out)
{
    kim_err err = KIM_OK;
    VkDescriptorSetLayoutBinding buffers[BUFFERS];
    for (uint32_t i = 0; i < BUFFERS; i++)
        buffers[i] = (VkDescriptorSetLayoutBinding){ i, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1,
                                                     VK_SHADER_STAGE_COMPUTE_BIT, NULL };
    const VkDescriptorSetLayoutCreateInfo bindings = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = BUFFERS,
        .pBindings = buffers,
    };
    const VkPushConstantRange push = { VK_SHADER_STAGE_COMPUTE_BIT, 0, 128 };
    VK_TRY(g->vk.vkCreateDescriptorSetLayout(g->device, &bindings, NULL, set));
    const VkPipelineLayoutCreateInfo layout = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = set,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &push,
    };
    VK_TRY(g->vk.vkCreatePipelineLayout(g->device, &layout, NULL, out));
error:
    return err;
}

static kim_err make_pipeline(kim_gpu *g, const shader *s, VkPipelineLayout layout, VkPipeline *out)
{
    kim_err err = KIM_OK;
    VkShaderModule module = VK_NULL_HANDLE;
    const VkShaderModuleCreateInfo code = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = s->bytes,
        .pCode = s->code,
    };
    const VkSpecializationInfo special = { s->n, s->entries, sizeof s->values, s->values };
    VK_TRY(g->vk.vkCreateShaderModule(g->device, &code, NULL, &module));
    const VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags = VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR,
        .stage = {
            .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
            .stage = VK_SHADER_STAGE_COMPUTE_BIT,
            .module = module,
            .pName = "main",
            .pSpecializationInfo = &special,
        },
        .layout = layout,
    };
    VK_TRY(g->vk.vkCreateComputePipelines(g->device, VK_NULL_HANDLE, 1, &info, NULL, out));
error:
    g->vk.vkDestroyShaderModule(g->device, module, NULL);
    return err;
}

// Asks twice: for the sizes, then for the texts.
static kim_err print_representations(kim_gpu *g, VkPipeline pipeline)
{
    kim_err err = KIM_OK;
    VkPipelineExecutableInternalRepresentationKHR all[MAX_REPRESENTATIONS];
    uint32_t n = MAX_REPRESENTATIONS;
    for (uint32_t i = 0; i < n; i++)
        all[i] = (VkPipelineExecutableInternalRepresentationKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR,
        };
    const VkPipelineExecutableInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
        .pipeline = pipeline,
    };
    VK_TRY(g->vk.vkGetPipelineExecutableInternalRepresentationsKHR(g->device, &info, &n, all));
    for (uint32_t i = 0; i < n; i++) {
        all[i].pData = calloc(1, all[i].dataSize + 1);
        REQUIRE_MEMORY(all[i].pData);
    }
    VK_TRY(g->vk.vkGetPipelineExecutableInternalRepresentationsKHR(g->device, &info, &n, all));
    for (uint32_t i = 0; i < n; i++)
        if (all[i].isText)
            printf("==== %s\n%s\n", all[i].name, (const char *)all[i].pData);
error:
    for (uint32_t i = 0; i < n; i++)
        free(all[i].pData);
    return err;
}

int main(int argc, char **argv)
{
    shader s = { 0 };
    kim_gpu *g = NULL;
    VkDescriptorSetLayout set = VK_NULL_HANDLE;
    VkPipelineLayout layout = VK_NULL_HANDLE;
    VkPipeline pipeline = VK_NULL_HANDLE;
    if (!read_shader(&s, argc, argv)) {
        fprintf(stderr, "usage: isa_tool SHADER.spv [ID=VALUE...]\n");
        return 2;
    }
    kim_err err = kim_gpu_create(&g, &(kim_gpu_params){ .cache_dir = "", .statistics = true });
    if (!err)
        err = make_layout(g, &set, &layout);
    if (!err)
        err = make_pipeline(g, &s, layout, &pipeline);
    if (!err)
        err = print_representations(g, pipeline);
    if (err)
        fprintf(stderr, "%s\n", kim_error_text());
    if (g) {
        g->vk.vkDestroyPipeline(g->device, pipeline, NULL);
        g->vk.vkDestroyPipelineLayout(g->device, layout, NULL);
        g->vk.vkDestroyDescriptorSetLayout(g->device, set, NULL);
    }
    kim_gpu_destroy(&g);
    free(s.code);
    return err ? 1 : 0;
}
