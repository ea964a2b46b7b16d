// SPDX-License-Identifier: MIT
// A device: created from a choice, with its queue, its table of blocks and its limits.
#include "gpu.h"

#include "clock.h"
#include "device.h"
#include "labels.h"
#include "matmul_ways.h"
#include "pacing.h"
#include "pipeline.h"
#include "tuning.h"

#include "shaders/kim_shared.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gpu_log(const kim_gpu *g, kim_log_level level, const char *fmt, ...)
{
    if (!g->params.log)
        return;
    char line[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    g->params.log(g->params.log_user, level, line);
}

static VKAPI_ATTR VkBool32 VKAPI_CALL validation_message(
    VkDebugUtilsMessageSeverityFlagBitsEXT severity, VkDebugUtilsMessageTypeFlagsEXT types,
    const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    kim_gpu *g = user;
    (void)types;
    (void)severity;
    g->validation_messages++;
    gpu_log(g, KIM_LOG_ERROR, "validation: %s", data->pMessage);
    return VK_FALSE;
}

static kim_err create_messenger(kim_gpu *g)
{
    kim_err err = KIM_OK;
    const VkDebugUtilsMessengerCreateInfoEXT info = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                       VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = validation_message,
        .pUserData = g,
    };
    VK_TRY(vkCreateDebugUtilsMessengerEXT(g->instance, &info, NULL, &g->messenger));
error:
    return err;
}

// A queue family for compute: one without graphics first, so that a desktop is not held up.
static uint32_t choose_queue_family(VkPhysicalDevice physical)
{
    VkQueueFamilyProperties families[32];
    uint32_t n = 32, best = UINT32_MAX;
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &n, families);
    for (uint32_t i = 0; i < n; i++) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT))
            continue;
        if (best == UINT32_MAX || !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT))
            best = i;
        if (!(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT))
            break;
    }
    return best;
}

// What is asked of the device: the baseline, and what the ways to multiply need (matmul_ways.h).
typedef struct device_features {
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executable;
    VkPhysicalDeviceShaderIntegerDotProductFeatures dot;
    VkPhysicalDeviceSubgroupSizeControlFeatures subgroups;
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrices;
    VkPhysicalDeviceCooperativeMatrix2FeaturesNV matrices_nv;
    VkPhysicalDeviceMaintenance4Features maintenance;
    VkPhysicalDeviceVulkan12Features f12;
    VkPhysicalDeviceFeatures2 all;
    const char *extensions[6];
    uint32_t n_extensions;
} device_features;

static void list_features(const kim_gpu *g, device_features *f)
{
    const bool half = g->matmul_ways >> MATMUL_HALF & 1, int8 = g->matmul_ways >> MATMUL_INT8 & 1;
    *f = (device_features){
        .executable = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR,
            .pipelineExecutableInfo = VK_TRUE,
        },
        .dot = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES,
            .shaderIntegerDotProduct = VK_TRUE,
        },
        .subgroups = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES,
            .subgroupSizeControl = VK_TRUE,
            .computeFullSubgroups = VK_TRUE,
        },
        .matrices = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR,
            .pNext = &f->subgroups,
            .cooperativeMatrix = VK_TRUE,
        },
        .matrices_nv = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV,
            .pNext = &f->maintenance,
            .cooperativeMatrixReductions = VK_TRUE,
            .cooperativeMatrixConversions = VK_TRUE,
            .cooperativeMatrixPerElementOperations = VK_TRUE,
        },
        .maintenance = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_FEATURES,
            .maintenance4 = VK_TRUE,
        },
        .f12 = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
            .timelineSemaphore = VK_TRUE,
            .subgroupBroadcastDynamicId = VK_TRUE,
            .bufferDeviceAddress = g->address,
            .shaderFloat16 = g->info.float16,
            .shaderInt8 = int8,
            .storageBuffer8BitAccess = g->has_touch,
            .vulkanMemoryModel = half || int8,
            .vulkanMemoryModelDeviceScope = half || int8,
        },
        .all = {
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
            .pNext = &f->f12,
            .features = {
                .shaderInt64 = g->address,
                .shaderStorageBufferArrayDynamicIndexing = !g->address,
            },
        },
    };
    void **next = &f->f12.pNext;
    if (device_has_extension(g->physical, VK_KHR_PORTABILITY_SUBSET_EXTENSION_NAME))
        f->extensions[f->n_extensions++] = VK_KHR_PORTABILITY_SUBSET_EXTENSION_NAME;
    if (g->statistics) {
        f->extensions[f->n_extensions++] = VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME;
        *next = &f->executable;
        next = &f->executable.pNext;
    }
    if (g->matmul_ways >> MATMUL_DOT & 1) {
        f->extensions[f->n_extensions++] = VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME;
        *next = &f->dot;
        next = &f->dot.pNext;
    }
    if (half || int8) {
        f->extensions[f->n_extensions++] = VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME;
        f->extensions[f->n_extensions++] = VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME;
        *next = &f->matrices;
        next = &f->subgroups.pNext;
    }
    if (g->has_attention_nv) {
        f->extensions[f->n_extensions++] = VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME;
        *next = &f->matrices_nv;
    }
}

static kim_err create_device(kim_gpu *g)
{
    kim_err err = KIM_OK;
    g->queue_family = choose_queue_family(g->physical);
    const float priority = 1.0f;
    const VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = g->queue_family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    device_features features;
    list_features(g, &features);
    const VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &features.all,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = features.n_extensions,
        .ppEnabledExtensionNames = features.extensions,
    };
    VK_TRY(vkCreateDevice(g->physical, &info, NULL, &g->device));
    volkLoadDeviceTable(&g->vk, g->device);
    labels_load(g);
    g->vk.vkGetDeviceQueue(g->device, g->queue_family, 0, &g->queue);

    const VkSemaphoreTypeCreateInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
    };
    const VkSemaphoreCreateInfo semaphore = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
        .pNext = &timeline,
    };
    VK_TRY(g->vk.vkCreateSemaphore(g->device, &semaphore, NULL, &g->timeline));
error:
    return err;
}

// A buffer for the slots of the table that hold no block: every descriptor must be valid.
static kim_err create_empty_buffer(kim_gpu *g)
{
    kim_err err = KIM_OK;
    const VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = 256,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT,
    };
    VK_TRY(g->vk.vkCreateBuffer(g->device, &info, NULL, &g->empty_buffer));
    VkMemoryRequirements need;
    g->vk.vkGetBufferMemoryRequirements(g->device, g->empty_buffer, &need);
    uint32_t type = 0;
    while (!(need.memoryTypeBits & 1u << type))
        type++;
    const VkMemoryAllocateInfo allocate = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = need.size,
        .memoryTypeIndex = type,
    };
    VK_TRY(g->vk.vkAllocateMemory(g->device, &allocate, NULL, &g->empty_memory));
    VK_TRY(g->vk.vkBindBufferMemory(g->device, g->empty_buffer, g->empty_memory, 0));
error:
    return err;
}

static void write_slot(kim_gpu *g, uint32_t slot)
{
    const VkDescriptorBufferInfo buffer = {
        .buffer = g->slots[slot] ? g->slots[slot] : g->empty_buffer,
        .range = VK_WHOLE_SIZE,
    };
    const VkWriteDescriptorSet write = {
        .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
        .dstSet = g->table,
        .dstArrayElement = slot,
        .descriptorCount = 1,
        .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
        .pBufferInfo = &buffer,
    };
    g->vk.vkUpdateDescriptorSets(g->device, 1, &write, 0, NULL);
}

static kim_err create_table(kim_gpu *g)
{
    kim_err err = KIM_OK;
    uint32_t size = g->limits.maxPerStageDescriptorStorageBuffers;
    if (size > g->limits.maxDescriptorSetStorageBuffers)
        size = g->limits.maxDescriptorSetStorageBuffers;
    g->table_size = size < GPU_MAX_BLOCKS ? size : GPU_MAX_BLOCKS;
    TRY(create_empty_buffer(g));
    const VkDescriptorSetLayoutBinding binding = {
        .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
        .descriptorCount = g->table_size,
        .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
    };
    const VkDescriptorSetLayoutCreateInfo layout = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = 1,
        .pBindings = &binding,
    };
    VK_TRY(g->vk.vkCreateDescriptorSetLayout(g->device, &layout, NULL, &g->table_layout));
    const VkDescriptorPoolSize pool_size = { VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, g->table_size };
    const VkDescriptorPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
        .maxSets = 1,
        .poolSizeCount = 1,
        .pPoolSizes = &pool_size,
    };
    VK_TRY(g->vk.vkCreateDescriptorPool(g->device, &pool, NULL, &g->table_pool));
    const VkDescriptorSetAllocateInfo set = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = g->table_pool,
        .descriptorSetCount = 1,
        .pSetLayouts = &g->table_layout,
    };
    VK_TRY(g->vk.vkAllocateDescriptorSets(g->device, &set, &g->table));
    for (uint32_t i = 0; i < g->table_size; i++)
        write_slot(g, i);
error:
    return err;
}

static kim_err create_layout(kim_gpu *g)
{
    kim_err err = KIM_OK;
    if (!g->address)
        TRY(create_table(g));
    const VkPushConstantRange range = { VK_SHADER_STAGE_COMPUTE_BIT, 0, 128 };
    const VkPipelineLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = g->address ? 0 : 1,
        .pSetLayouts = &g->table_layout,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &range,
    };
    VK_TRY(g->vk.vkCreatePipelineLayout(g->device, &info, NULL, &g->layout));
error:
    return err;
}

// Before it is measured: addresses where the device has them; the table on Intel, whose compiler
// spends 20 to 30% fewer cycles on it, and where the loader of old lavapipe makes addresses several
// times slower.
static bool choose_address(const kim_gpu *g, kim_memory_mode wanted)
{
    const bool intel = g->info.vendor_id == 0x8086;
    const bool old_lavapipe =
        g->info.type == KIM_DEVICE_CPU && g->info.api_version < VK_MAKE_API_VERSION(0, 1, 4, 0);
    if (wanted != KIM_MEMORY_AUTO)
        return wanted == KIM_MEMORY_ADDRESS;
    return g->info.buffer_device_address && !intel && !old_lavapipe;
}

static kim_err open_physical(kim_gpu *g, const kim_gpu_params *params)
{
    kim_err err = KIM_OK;
    VkPhysicalDevice physical[DEVICE_MAX];
    uint32_t count, chosen;
    kim_device_info *infos = calloc(DEVICE_MAX, sizeof *infos);
    REQUIRE_MEMORY(infos);
    TRY(device_list(g->instance, physical, infos, &count));
    TRY(device_choose(infos, count, params->device, &chosen));
    g->physical = physical[chosen];
    g->info = infos[chosen];
    if (params->memory_mode == KIM_MEMORY_ADDRESS && !g->info.buffer_device_address)
        FAIL(KIM_ERR_UNSUPPORTED,
             "%s has no buffer device addresses with 64-bit integers: "
             "use the memory mode table or auto",
             g->info.name);
    g->address = choose_address(g, params->memory_mode);
    g->pass = g->info.type == KIM_DEVICE_CPU && g->info.subgroup_size == 8;
    VkPhysicalDeviceProperties properties;
    vkGetPhysicalDeviceProperties(g->physical, &properties);
    vkGetPhysicalDeviceMemoryProperties(g->physical, &g->memory);
    g->limits = properties.limits;
    g->block_limit = g->limits.maxStorageBufferRange < GPU_BLOCK_LIMIT
                         ? g->limits.maxStorageBufferRange
                         : GPU_BLOCK_LIMIT;
    g->block_limit = g->block_limit / 256 * 256;
    matmul_ways_find(g);
    gpu_log(g, KIM_LOG_INFO, "device %u: %s (%s), %s mode; %s", g->info.index, g->info.name,
            g->info.driver, g->address ? "address" : "table",
            params->device ? "as asked" : g->info.reason);
error:
    free(infos);
    return err;
}

kim_err gpu_open(kim_gpu **out, const kim_gpu_params *params, kim_memory_mode mode)
{
    kim_err err = KIM_OK;
    kim_gpu *g = calloc(1, sizeof *g);
    REQUIRE_MEMORY(g);
    g->params = *params;
    g->params.memory_mode = mode;
    pthread_mutex_init(&g->lock, NULL);
    TRY(vulkan_load());
    TRY(vulkan_instance_create(&g->instance, g->params.validation));
    if (g->params.validation)
        TRY(create_messenger(g));
    TRY(open_physical(g, &g->params));
    g->statistics =
        g->params.statistics &&
        device_has_extension(g->physical, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME);
    TRY(create_device(g));
    TRY(create_layout(g));
    TRY(pipeline_table_create(g, g->params.cache_dir));
    g->params.device = g->params.cache_dir = NULL; // the caller's; not kept
    *out = g;
    return KIM_OK;
error:
    kim_gpu_destroy(&g);
    return err;
}

kim_err kim_gpu_create(kim_gpu **out, const kim_gpu_params *params)
{
    const kim_gpu_params defaults = { 0 };
    if (!out)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_gpu_create: out is NULL");
    *out = NULL;
    return tuning_open(out, params ? params : &defaults);
}

void kim_gpu_destroy(kim_gpu **gpu)
{
    if (!gpu || !*gpu)
        return;
    kim_gpu *g = *gpu;
    if (g->device) {
        g->vk.vkDeviceWaitIdle(g->device);
        pipeline_table_destroy(g);
        g->vk.vkDestroyPipelineLayout(g->device, g->layout, NULL);
        g->vk.vkDestroyDescriptorPool(g->device, g->table_pool, NULL);
        g->vk.vkDestroyDescriptorSetLayout(g->device, g->table_layout, NULL);
        g->vk.vkDestroyBuffer(g->device, g->empty_buffer, NULL);
        g->vk.vkFreeMemory(g->device, g->empty_memory, NULL);
        g->vk.vkDestroySemaphore(g->device, g->timeline, NULL);
        g->vk.vkDestroyDevice(g->device, NULL);
    }
    if (g->messenger) {
        // volk's own pointer is that of the last instance, which may be one without the layers
        const PFN_vkDestroyDebugUtilsMessengerEXT destroy =
            (PFN_vkDestroyDebugUtilsMessengerEXT)vkGetInstanceProcAddr(
                g->instance, "vkDestroyDebugUtilsMessengerEXT");
        destroy(g->instance, g->messenger, NULL);
    }
    if (g->instance)
        vkDestroyInstance(g->instance, NULL);
    pacing_destroy(&g->pacing);
    pthread_mutex_destroy(&g->lock);
    free(g);
    *gpu = NULL;
}

kim_err gpu_wait(kim_gpu *g, uint64_t value)
{
    const VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .semaphoreCount = 1,
        .pSemaphores = &g->timeline,
        .pValues = &value,
    };
    const double start = clock_seconds();
    const VkResult result = g->vk.vkWaitSemaphores(g->device, &info, UINT64_MAX);
    g->wait_ns += (uint64_t)((clock_seconds() - start) * 1e9);
    return result < 0 ? vulkan_fail(result, "vkWaitSemaphores") : KIM_OK;
}

// Caller holds the lock. A lost device is reported by the next submit: nothing runs on it any more.
static void table_change(kim_gpu *g, uint32_t slot, VkBuffer buffer)
{
    (void)gpu_wait(g, g->submitted);
    g->slots[slot] = buffer;
    write_slot(g, slot);
    g->table_generation++;
}

kim_err gpu_table_add(kim_gpu *g, VkBuffer buffer, uint32_t *slot)
{
    kim_err err = KIM_OK;
    pthread_mutex_lock(&g->lock);
    uint32_t i = 0;
    while (i < g->table_size && g->slots[i])
        i++;
    if (i == g->table_size)
        FAIL(KIM_ERR_DEVICE_MEMORY,
             "%s: the table holds %u blocks and is full; the memory mode "
             "address has no such limit",
             g->info.name, g->table_size);
    table_change(g, i, buffer);
    *slot = i;
error:
    pthread_mutex_unlock(&g->lock);
    return err;
}

void gpu_table_remove(kim_gpu *g, uint32_t slot)
{
    pthread_mutex_lock(&g->lock);
    table_change(g, slot, VK_NULL_HANDLE);
    pthread_mutex_unlock(&g->lock);
}

kim_err gpu_memory_take(kim_gpu *g, uint64_t bytes)
{
    const uint64_t now = atomic_fetch_add(&g->memory_used, bytes) + bytes;
    if (g->params.memory_cap && now > g->params.memory_cap) {
        g->memory_used -= bytes;
        return kim_fail(KIM_ERR_DEVICE_MEMORY,
                        "the memory cap of %.1f MiB was reached: %.1f MiB are in use and %.1f MiB "
                        "more are needed",
                        (double)g->params.memory_cap / 1048576.0, (double)(now - bytes) / 1048576.0,
                        (double)bytes / 1048576.0);
    }
    uint64_t peak = g->memory_peak;
    while (now > peak && !atomic_compare_exchange_weak(&g->memory_peak, &peak, now))
        ;
    return KIM_OK;
}

void gpu_memory_return(kim_gpu *g, uint64_t bytes)
{
    g->memory_used -= bytes;
}

const kim_device_info *kim_gpu_info(const kim_gpu *gpu)
{
    return &gpu->info;
}

kim_memory_mode kim_gpu_memory_mode(const kim_gpu *gpu)
{
    return gpu->address ? KIM_MEMORY_ADDRESS : KIM_MEMORY_TABLE;
}

uint32_t kim_gpu_validation_messages(const kim_gpu *gpu)
{
    return gpu->validation_messages;
}

uint64_t kim_gpu_memory_used(const kim_gpu *gpu)
{
    return gpu->memory_used;
}

uint64_t kim_gpu_memory_peak(const kim_gpu *gpu)
{
    return gpu->memory_peak;
}

void kim_gpu_get_stats(const kim_gpu *gpu, kim_gpu_stats *out)
{
    *out = (kim_gpu_stats){
        .wait_seconds = (double)gpu->wait_ns * 1e-9,
        .pipeline_seconds = (double)gpu->pipeline_ns * 1e-9,
        .pipelines = gpu->pipelines_made,
    };
}
