// SPDX-License-Identifier: MIT
// The devices of this machine: what they can do, and which one to take.
#include "device.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *device_type_name(kim_device_type type)
{
    switch (type) {
    case KIM_DEVICE_DISCRETE: return "discrete";
    case KIM_DEVICE_INTEGRATED: return "integrated";
    case KIM_DEVICE_VIRTUAL: return "virtual";
    case KIM_DEVICE_CPU: return "CPU";
    case KIM_DEVICE_OTHER: break;
    }
    return "other";
}

static kim_device_type type_of(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: return KIM_DEVICE_DISCRETE;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: return KIM_DEVICE_INTEGRATED;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU: return KIM_DEVICE_VIRTUAL;
    case VK_PHYSICAL_DEVICE_TYPE_CPU: return KIM_DEVICE_CPU;
    default: return KIM_DEVICE_OTHER;
    }
}

typedef struct extension_list {
    VkExtensionProperties *items;
    uint32_t count;
} extension_list;

static extension_list extensions_of(VkPhysicalDevice physical)
{
    extension_list list = { 0 };
    if (vkEnumerateDeviceExtensionProperties(physical, NULL, &list.count, NULL) < 0 || !list.count)
        return (extension_list){ 0 };
    list.items = calloc(list.count, sizeof *list.items);
    if (!list.items ||
        vkEnumerateDeviceExtensionProperties(physical, NULL, &list.count, list.items) < 0)
        list.count = 0;
    return list;
}

static bool has_extension(const extension_list *list, const char *name)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (!strcmp(list->items[i].extensionName, name))
            return true;
    return false;
}

bool device_has_extension(VkPhysicalDevice physical, const char *name)
{
    const extension_list list = extensions_of(physical);
    const bool has = has_extension(&list, name);
    free(list.items);
    return has;
}

static void describe_memory(VkPhysicalDevice physical, bool budget, kim_device_info *info)
{
    VkPhysicalDeviceMemoryBudgetPropertiesEXT used = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT,
    };
    VkPhysicalDeviceMemoryProperties2 memory = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
        .pNext = budget ? &used : NULL,
    };
    vkGetPhysicalDeviceMemoryProperties2(physical, &memory);
    const VkPhysicalDeviceMemoryProperties *m = &memory.memoryProperties;
    const VkMemoryPropertyFlags both =
        VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT;
    for (uint32_t i = 0; i < m->memoryTypeCount; i++) {
        const uint32_t heap = m->memoryTypes[i].heapIndex;
        if (!(m->memoryHeaps[heap].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT))
            continue;
        if (m->memoryHeaps[heap].size > info->memory) {
            info->memory = m->memoryHeaps[heap].size;
            info->memory_free = 0;
            if (budget && used.heapBudget[heap] > used.heapUsage[heap])
                info->memory_free = used.heapBudget[heap] - used.heapUsage[heap];
        }
        // A discrete card may map all of its memory too, but writing there crosses the bus in small
        // pieces: only memory that is the host's own is written in place.
        if ((m->memoryTypes[i].propertyFlags & both) == both &&
            (info->type == KIM_DEVICE_INTEGRATED || info->type == KIM_DEVICE_CPU))
            info->unified_memory = true;
    }
}

static void describe_driver(const VkPhysicalDeviceProperties *p,
                            const VkPhysicalDeviceDriverProperties *driver,
                            const VkPhysicalDeviceIDProperties *id, kim_device_info *info)
{
    snprintf(info->name, sizeof info->name, "%s", p->deviceName);
    snprintf(info->driver, sizeof info->driver, "%s%s%s", driver->driverName,
             driver->driverInfo[0] ? " " : "", driver->driverInfo);
    char *to = info->uuid;
    for (uint32_t i = 0; i < VK_UUID_SIZE; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *to++ = '-';
        to += sprintf(to, "%02x", id->deviceUUID[i]);
    }
}

static bool is_larger(const kim_matrix_shape *a, const kim_matrix_shape *b)
{
    return a->rows * a->columns * a->depth > b->rows * b->columns * b->depth;
}

static bool fills_tiles(const kim_matrix_shape *s)
{
    return s->rows >= 8 && s->columns >= 8 && s->depth >= 8 && 32 % s->rows == 0 &&
           32 % s->columns == 0 && 32 % s->depth == 0 && s->rows * s->columns <= 256;
}

// Keeps the largest shape whose matrices fill the tiles of shaders/matmul_tile.comp.
static void take_shape(const VkCooperativeMatrixPropertiesKHR *p, VkComponentTypeKHR from,
                       VkComponentTypeKHR to, kim_matrix_shape *shape)
{
    const kim_matrix_shape new = { p->MSize, p->NSize, p->KSize };
    if (p->AType == from && p->BType == from && p->CType == to && p->ResultType == to &&
        p->scope == VK_SCOPE_SUBGROUP_KHR && !p->saturatingAccumulation && fills_tiles(&new) &&
        is_larger(&new, shape))
        *shape = new;
}

static void describe_matrices(VkPhysicalDevice physical, kim_device_info *info)
{
    const PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR get =
        (PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)vkGetInstanceProcAddr(
            volkGetLoadedInstance(), "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    uint32_t count = 0;
    if (!get || get(physical, &count, NULL) < 0 || !count)
        return;
    VkCooperativeMatrixPropertiesKHR *list = calloc(count, sizeof *list);
    for (uint32_t i = 0; list && i < count; i++)
        list[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
    if (!list || get(physical, &count, list) < 0)
        count = 0;
    for (uint32_t i = 0; i < count; i++) {
        take_shape(&list[i], VK_COMPONENT_TYPE_FLOAT16_KHR, VK_COMPONENT_TYPE_FLOAT32_KHR,
                   &info->matrix_half);
        take_shape(&list[i], VK_COMPONENT_TYPE_SINT8_KHR, VK_COMPONENT_TYPE_SINT32_KHR,
                   &info->matrix_int8);
    }
    free(list);
}

// The baseline of the shaders: the sentence names the first thing that is missing.
static void check_baseline(VkPhysicalDevice physical, const VkPhysicalDeviceProperties *p,
                           const VkPhysicalDeviceFeatures *f,
                           const VkPhysicalDeviceVulkan12Features *f12,
                           const VkPhysicalDeviceSubgroupProperties *subgroup,
                           kim_device_info *info)
{
    VkQueueFamilyProperties families[32];
    uint32_t n = 32;
    bool compute = false;
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &n, families);
    for (uint32_t i = 0; i < n; i++)
        compute |= (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) != 0;

    const VkPhysicalDeviceLimits *l = &p->limits;
    char *problem = info->problem;
    const size_t size = sizeof info->problem;
    if (p->apiVersion < VK_API_VERSION_1_2)
        snprintf(problem, size, "has Vulkan %u.%u; 1.2 is needed: a newer driver may have it",
                 VK_API_VERSION_MAJOR(p->apiVersion), VK_API_VERSION_MINOR(p->apiVersion));
    else if (!compute)
        snprintf(problem, size, "has no compute queue");
    else if (!f12->timelineSemaphore)
        snprintf(problem, size, "lacks timeline semaphores");
    else if (!(subgroup->supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) ||
             !(subgroup->supportedOperations & VK_SUBGROUP_FEATURE_BALLOT_BIT) ||
             !f12->subgroupBroadcastDynamicId)
        snprintf(problem, size, "lacks broadcasts in subgroups of compute shaders");
    else if (!info->buffer_device_address && !f->shaderStorageBufferArrayDynamicIndexing)
        snprintf(problem, size,
                 "has neither buffer device addresses with 64-bit integers nor "
                 "dynamic indexing of storage buffers");
    else if (l->maxPushConstantsSize < 128 || l->maxComputeWorkGroupInvocations < 128 ||
             l->maxComputeSharedMemorySize < 16384)
        snprintf(problem, size,
                 "push constants %u, workgroup %u, shared memory %u; 128, 128 and 16384 are needed",
                 l->maxPushConstantsSize, l->maxComputeWorkGroupInvocations,
                 l->maxComputeSharedMemorySize);
    info->usable = !problem[0];
}

static uint32_t count_units(VkPhysicalDevice physical, const extension_list *list)
{
    VkPhysicalDeviceShaderCorePropertiesAMD amd = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_PROPERTIES_AMD,
    };
    VkPhysicalDeviceShaderSMBuiltinsPropertiesNV nv = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SM_BUILTINS_PROPERTIES_NV,
    };
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
    };
    if (has_extension(list, VK_AMD_SHADER_CORE_PROPERTIES_EXTENSION_NAME))
        properties.pNext = &amd;
    else if (has_extension(list, VK_NV_SHADER_SM_BUILTINS_EXTENSION_NAME))
        properties.pNext = &nv;
    vkGetPhysicalDeviceProperties2(physical, &properties);
    return amd.shaderEngineCount * amd.shaderArraysPerEngineCount * amd.computeUnitsPerShaderArray +
           nv.shaderSMCount;
}

void device_describe(VkPhysicalDevice physical, uint32_t index, kim_device_info *info)
{
    memset(info, 0, sizeof *info);
    info->index = index;
    const extension_list list = extensions_of(physical);

    VkPhysicalDeviceSubgroupSizeControlProperties sizes = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES,
    };
    VkPhysicalDeviceSubgroupProperties subgroup = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES,
    };
    VkPhysicalDeviceDriverProperties driver = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES,
        .pNext = &subgroup,
    };
    VkPhysicalDeviceIDProperties id = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES,
        .pNext = &driver,
    };
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
        .pNext = &id,
    };
    VkPhysicalDevicePCIBusInfoPropertiesEXT pci = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PCI_BUS_INFO_PROPERTIES_EXT,
    };
    info->subgroup_size_control = has_extension(&list, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
    if (info->subgroup_size_control)
        subgroup.pNext = &sizes;
    const bool on_pci = has_extension(&list, VK_EXT_PCI_BUS_INFO_EXTENSION_NAME);
    if (on_pci) {
        pci.pNext = properties.pNext;
        properties.pNext = &pci;
    }
    vkGetPhysicalDeviceProperties2(physical, &properties);
    const VkPhysicalDeviceProperties *p = &properties.properties;
    info->compute_units = count_units(physical, &list);

    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR,
    };
    VkPhysicalDeviceCooperativeMatrix2FeaturesNV matrix_nv = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV,
    };
    VkPhysicalDeviceMaintenance4Features maintenance = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_FEATURES,
    };
    VkPhysicalDeviceShaderIntegerDotProductFeatures dot = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES,
    };
    VkPhysicalDeviceSubgroupSizeControlFeatures control = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES,
    };
    VkPhysicalDeviceVulkan12Features f12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
    };
    VkPhysicalDeviceFeatures2 features = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
    };
    if (p->apiVersion >= VK_API_VERSION_1_2)
        features.pNext = &f12;
    if (has_extension(&list, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME)) {
        matrix.pNext = features.pNext;
        features.pNext = &matrix;
    }
    if (has_extension(&list, VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME) &&
        p->apiVersion >= VK_API_VERSION_1_3) {
        maintenance.pNext = features.pNext;
        matrix_nv.pNext = &maintenance;
        features.pNext = &matrix_nv;
    }
    if (has_extension(&list, VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME)) {
        dot.pNext = features.pNext;
        features.pNext = &dot;
    }
    if (info->subgroup_size_control) {
        control.pNext = features.pNext;
        features.pNext = &control;
    }
    vkGetPhysicalDeviceFeatures2(physical, &features);

    describe_driver(p, &driver, &id, info);
    info->type = type_of(p->deviceType);
    info->vendor_id = p->vendorID;
    info->device_id = p->deviceID;
    info->api_version = p->apiVersion;
    info->buffer_range = p->limits.maxStorageBufferRange;
    info->subgroup_size = subgroup.subgroupSize;
    info->subgroup_min = sizes.minSubgroupSize ? sizes.minSubgroupSize : subgroup.subgroupSize;
    info->subgroup_max = sizes.maxSubgroupSize ? sizes.maxSubgroupSize : subgroup.subgroupSize;
    info->subgroup_quads = subgroup.subgroupSize >= 4 &&
                           (subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) &&
                           (subgroup.supportedOperations & VK_SUBGROUP_FEATURE_QUAD_BIT);
    info->buffer_device_address = f12.bufferDeviceAddress && features.features.shaderInt64;
    // whole subgroups in compute shaders, of a size that is chosen where there is a choice
    info->subgroup_size_control =
        control.subgroupSizeControl && control.computeFullSubgroups &&
        (info->subgroup_min == info->subgroup_max ||
         (sizes.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0);
    info->float16 = f12.shaderFloat16;
    info->int8 = f12.shaderInt8;
    info->storage_8bit = f12.storageBuffer8BitAccess;
    info->integer_dot_product = dot.shaderIntegerDotProduct;
    // the shaders of cooperative matrices are of Vulkan's memory model; where that is on, others'
    // atomics need its device scope
    info->cooperative_matrix =
        matrix.cooperativeMatrix && f12.vulkanMemoryModel && f12.vulkanMemoryModelDeviceScope;
    if (info->cooperative_matrix)
        describe_matrices(physical, info);
    // its shaders are of SPIR-V 1.6, whose workgroups of a specialised size need maintenance 4
    info->cooperative_matrix_nv = info->cooperative_matrix && maintenance.maintenance4 &&
                                  matrix_nv.cooperativeMatrixReductions &&
                                  matrix_nv.cooperativeMatrixConversions &&
                                  matrix_nv.cooperativeMatrixPerElementOperations;
    info->host_memory_import = has_extension(&list, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME);
    info->calibrated_timestamps = has_extension(&list, VK_EXT_CALIBRATED_TIMESTAMPS_EXTENSION_NAME);
    info->memory_budget = has_extension(&list, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    if (on_pci)
        snprintf(info->pci, sizeof info->pci, "%04x:%02x:%02x.%x", pci.pciDomain & 0xffffu,
                 pci.pciBus & 0xffu, pci.pciDevice & 0xffu, pci.pciFunction & 0xfu);
    describe_memory(physical, info->memory_budget, info);
    check_baseline(physical, p, &features.features, &f12, &subgroup, info);
    free(list.items);
}

// Higher is better. Type first; then memory, since a larger model fits.
static uint32_t rank_of(kim_device_type type)
{
    switch (type) {
    case KIM_DEVICE_DISCRETE: return 4;
    case KIM_DEVICE_INTEGRATED: return 3;
    case KIM_DEVICE_VIRTUAL: return 2;
    case KIM_DEVICE_OTHER: return 1;
    case KIM_DEVICE_CPU: break;
    }
    return 0;
}

// What can be had now counts, where the driver says it: a card full of a game's textures loses.
static uint64_t memory_of(const kim_device_info *info)
{
    return info->memory_free ? info->memory_free : info->memory;
}

static bool better(const kim_device_info *a, const kim_device_info *b)
{
    if (a->usable != b->usable)
        return a->usable;
    if (rank_of(a->type) != rank_of(b->type))
        return rank_of(a->type) > rank_of(b->type);
    return memory_of(a) > memory_of(b);
}

static void mark_default(kim_device_info *infos, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++)
        if (better(&infos[i], &infos[best]))
            best = i;
    for (uint32_t i = 0; i < count; i++) {
        kim_device_info *d = &infos[i];
        const double gib = (double)memory_of(d) / (1024.0 * 1024 * 1024);
        const char *const what = d->memory_free ? "free" : "of memory";
        if (!d->usable) {
            snprintf(d->reason, sizeof d->reason, "not usable: %s", d->problem);
        } else if (i == best) {
            d->chosen = true;
            snprintf(d->reason, sizeof d->reason, "%s, %.1f GiB %s%s", device_type_name(d->type),
                     gib, what, count == 1 ? "; the only device" : "");
        } else {
            const bool by_type = rank_of(d->type) != rank_of(infos[best].type);
            snprintf(d->reason, sizeof d->reason, "%s, %.1f GiB %s; device %u %s",
                     device_type_name(d->type), gib, what, best,
                     by_type ? "is of a faster type" : "has as much or more");
        }
    }
}

kim_err device_list(VkInstance instance, VkPhysicalDevice *physical, kim_device_info *infos,
                    uint32_t *count)
{
    *count = DEVICE_MAX;
    const VkResult result = vkEnumeratePhysicalDevices(instance, count, physical);
    if (result < 0)
        return vulkan_fail(result, "vkEnumeratePhysicalDevices");
    for (uint32_t i = 0; i < *count; i++)
        device_describe(physical[i], i, &infos[i]);
    mark_default(infos, *count);
    return KIM_OK;
}

static bool contains_without_case(const char *text, const char *part)
{
    for (; *text; text++) {
        size_t i = 0;
        while (part[i] && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i]))
            i++;
        if (!part[i])
            return true;
    }
    return false;
}

static bool is_wanted(const kim_device_info *d, const char *wanted)
{
    char *end;
    const unsigned long index = strtoul(wanted, &end, 10);
    if (isdigit((unsigned char)wanted[0]) && !*end)
        return d->index == index;
    return contains_without_case(d->uuid, wanted) ? strlen(wanted) == strlen(d->uuid)
                                                  : contains_without_case(d->name, wanted);
}

kim_err device_choose(const kim_device_info *infos, uint32_t count, const char *wanted,
                      uint32_t *chosen)
{
    if (!count)
        return kim_fail(KIM_ERR_NO_DEVICE,
                        "no Vulkan device on this machine: install the driver of "
                        "the GPU, or Mesa's lavapipe to run on the CPU (Debian: "
                        "mesa-vulkan-drivers)");
    uint32_t found = count;
    for (uint32_t i = 0; i < count; i++) {
        if (wanted ? !is_wanted(&infos[i], wanted) : !infos[i].chosen)
            continue;
        if (found == count || better(&infos[i], &infos[found]))
            found = i;
    }
    if (found < count && infos[found].usable) {
        *chosen = found;
        return KIM_OK;
    }
    if (found < count)
        return kim_fail(KIM_ERR_NO_DEVICE, "device %u (%s) cannot be used: it %s", found,
                        infos[found].name, infos[found].problem);
    if (wanted)
        return kim_fail(KIM_ERR_NO_DEVICE,
                        "no device is called '%s': there are %u, numbered from 0; the first is %s",
                        wanted, count, infos[0].name);
    return kim_fail(KIM_ERR_NO_DEVICE, "none of the %u Vulkan devices can be used; %s %s", count,
                    infos[0].name, infos[0].problem);
}

kim_err kim_list_devices(kim_device_info *infos, uint32_t *count)
{
    kim_err err = KIM_OK;
    VkInstance instance = VK_NULL_HANDLE;
    VkPhysicalDevice physical[DEVICE_MAX];
    kim_device_info *all = NULL;
    uint32_t n = 0;
    if (!count)
        FAIL(KIM_ERR_ARGUMENT, "kim_list_devices: count is NULL");
    all = calloc(DEVICE_MAX, sizeof *all);
    REQUIRE_MEMORY(all);
    TRY(vulkan_load());
    TRY(vulkan_instance_create(&instance, false));
    TRY(device_list(instance, physical, all, &n));
    if (infos)
        memcpy(infos, all, (n < *count ? n : *count) * sizeof *infos);
    *count = n;
error:
    if (instance)
        vkDestroyInstance(instance, NULL);
    free(all);
    return err;
}
