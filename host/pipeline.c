// SPDX-License-Identifier: MIT
// Pipelines: made on first use or all at once, kept for the life of the device, cached in a file.
#include "pipeline.h"

#include "cache.h"
#include "clock.h"
#include "file.h"
#include "labels.h"
#include "spirv.h"
#include "threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct pipeline_entry {
    pipeline_key key;
    VkPipeline pipeline;
} pipeline_entry;

struct pipeline_table {
    pthread_mutex_t lock; // guards entries; creation runs outside it
    pipeline_entry *entries;
    uint32_t count, room;
    bool changed; // since the cache file was read or written
    VkPipelineCache cache;
    char path[512]; // of the cache file; "": none
};

// What stands before the driver's data in the cache file. The driver checks its own header, but
// drivers have crashed on damaged data, so length and hash are checked first.
typedef struct cache_header {
    char magic[8];
    uint32_t vendor, device, driver, reserved;
    uint8_t uuid[VK_UUID_SIZE];
    uint64_t length, hash;
} cache_header;

static cache_header header_for(const kim_gpu *g)
{
    VkPhysicalDeviceProperties p;
    vkGetPhysicalDeviceProperties(g->physical, &p);
    cache_header h = {
        .magic = "KIMPIPE1",
        .vendor = p.vendorID,
        .device = p.deviceID,
        .driver = p.driverVersion,
    };
    memcpy(h.uuid, p.pipelineCacheUUID, sizeof h.uuid);
    return h;
}

kim_err pipeline_table_create(kim_gpu *g, const char *cache_dir)
{
    kim_err err = KIM_OK;
    file_mapping file = { 0 };
    struct pipeline_table *t = calloc(1, sizeof *t);
    REQUIRE_MEMORY(t);
    pthread_mutex_init(&t->lock, NULL);
    g->pipelines = t;
    char name[80];
    snprintf(name, sizeof name, "pipelines-%s-%s.bin", g->info.uuid,
             g->address ? "address" : "table");
    cache_path(cache_dir, name, t->path, sizeof t->path);

    VkPipelineCacheCreateInfo info = { .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO };
    if (t->path[0] && file_map(&file, t->path) == KIM_OK && file.size > sizeof(cache_header)) {
        const cache_header want = header_for(g);
        cache_header have;
        memcpy(&have, file.data, sizeof have);
        const uint8_t *const data = file.data + sizeof have;
        if (!memcmp(&have, &want, offsetof(cache_header, length)) &&
            have.length == file.size - sizeof have &&
            have.hash == cache_hash(CACHE_HASH, data, have.length)) {
            info.pInitialData = data;
            info.initialDataSize = have.length;
        } else {
            gpu_log(g, KIM_LOG_INFO,
                    "the pipeline cache %s is of another driver or damaged: "
                    "starting a new one",
                    t->path);
        }
    }
    VK_TRY(g->vk.vkCreatePipelineCache(g->device, &info, NULL, &t->cache));
error:
    file_unmap(&file);
    return err;
}

static void write_cache(kim_gpu *g)
{
    struct pipeline_table *t = g->pipelines;
    file_writer *writer = NULL;
    uint8_t *data = NULL;
    kim_err err = KIM_OK;
    if (!t->path[0] || !t->changed)
        return;
    size_t size = 0;
    VK_TRY(g->vk.vkGetPipelineCacheData(g->device, t->cache, &size, NULL));
    data = malloc(size ? size : 1);
    REQUIRE_MEMORY(data);
    VK_TRY(g->vk.vkGetPipelineCacheData(g->device, t->cache, &size, data));
    cache_header header = header_for(g);
    header.length = size;
    header.hash = cache_hash(CACHE_HASH, data, size);
    TRY(file_writer_open(&writer, t->path));
    TRY(file_writer_write(writer, &header, sizeof header));
    TRY(file_writer_write(writer, data, size));
    TRY(file_writer_commit(&writer));
    t->changed = false;
error:
    if (err)
        gpu_log(g, KIM_LOG_WARNING, "the pipeline cache was not written: %s", kim_error_text());
    file_writer_abandon(&writer);
    free(data);
}

void pipeline_table_destroy(kim_gpu *g)
{
    struct pipeline_table *t = g->pipelines;
    if (!t)
        return;
    write_cache(g);
    for (uint32_t i = 0; i < t->count; i++)
        g->vk.vkDestroyPipeline(g->device, t->entries[i].pipeline, NULL);
    g->vk.vkDestroyPipelineCache(g->device, t->cache, NULL);
    pthread_mutex_destroy(&t->lock);
    free(t->entries);
    free(t);
    g->pipelines = NULL;
}

// "matmul_q4_k 32 8 1 4": the shader and its constants
static void name_pipeline(const kim_gpu *g, const pipeline_key *key, VkPipeline pipeline)
{
    char constants[128] = "";
    int used = 0;
    if (!g->labels.name)
        return;
    uint32_t n = SPEC_COUNT - SPEC_WORKGROUP;
    while (n && !key->constants[n - 1])
        n--;
    for (uint32_t i = 0; i < n && used < (int)sizeof constants; i++)
        used +=
            snprintf(constants + used, sizeof constants - (size_t)used, " %u", key->constants[i]);
    labels_name(g, VK_OBJECT_TYPE_PIPELINE, (uint64_t)pipeline, "%s%s",
                kim_spirv_table[key->variant].name, constants);
}

static kim_err create_pipeline(kim_gpu *g, const pipeline_key *key, VkPipeline *out)
{
    kim_err err = KIM_OK;
    VkShaderModule module = VK_NULL_HANDLE;
    const kim_spirv *s = &kim_spirv_table[key->variant];
    uint32_t values[SPEC_COUNT];
    VkSpecializationMapEntry entries[SPEC_COUNT];
    uint32_t n = 0;
    for (uint32_t i = 0; i < SPEC_COUNT; i++) {
        values[i] = i == SPEC_TABLE_SIZE ? g->table_size
                    : i == SPEC_PASS     ? g->pass
                                         : key->constants[i - SPEC_WORKGROUP];
        if (values[i])
            entries[n++] = (VkSpecializationMapEntry){ i, i * 4, 4 };
    }
    const VkSpecializationInfo special = { n, entries, sizeof values, values };
    if (!s->code[g->address])
        FAIL(KIM_ERR_UNSUPPORTED, "the shader %s was left out of this build: %s", s->name,
             kim_build_missing_text);
    const VkShaderModuleCreateInfo code = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = s->bytes[g->address],
        .pCode = s->code[g->address],
    };
    VK_TRY(g->vk.vkCreateShaderModule(g->device, &code, NULL, &module));
    const uint32_t subgroup = values[SPEC_SUBGROUP];
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfo subgroups = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = subgroup,
    };
    const VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        // a base: long dispatches are cut
        .flags = VK_PIPELINE_CREATE_DISPATCH_BASE_BIT |
                 (g->statistics ? VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR : 0),
        .stage = {
            .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
            .pNext = subgroup && g->info.subgroup_min < g->info.subgroup_max ? &subgroups : NULL,
            .flags =
                subgroup ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT_EXT : 0,
            .stage = VK_SHADER_STAGE_COMPUTE_BIT,
            .module = module,
            .pName = "main",
            .pSpecializationInfo = &special,
        },
        .layout = g->layout,
    };
    VK_TRY(g->vk.vkCreateComputePipelines(g->device, g->pipelines->cache, 1, &info, NULL, out));
    name_pipeline(g, key, *out);
error:
    if (module)
        g->vk.vkDestroyShaderModule(g->device, module, NULL);
    return err ? kim_fail_prefix(err, s->name) : KIM_OK;
}

// Caller holds the lock.
static VkPipeline find_pipeline(const struct pipeline_table *t, const pipeline_key *key)
{
    for (uint32_t i = 0; i < t->count; i++)
        if (!memcmp(&t->entries[i].key, key, sizeof *key))
            return t->entries[i].pipeline;
    return VK_NULL_HANDLE;
}

// was_made: set to whether it had to be made
static kim_err get_or_make(kim_gpu *g, const pipeline_key *key, VkPipeline *out, bool *was_made)
{
    kim_err err = KIM_OK;
    struct pipeline_table *t = g->pipelines;
    VkPipeline made = VK_NULL_HANDLE;
    pthread_mutex_lock(&t->lock);
    *out = find_pipeline(t, key);
    pthread_mutex_unlock(&t->lock);
    *was_made = !*out;
    if (*out)
        return KIM_OK;
    TRY(create_pipeline(g, key, &made));

    pthread_mutex_lock(&t->lock);
    *out = find_pipeline(t, key); // another thread may have been faster
    if (!*out && t->count == t->room) {
        const uint32_t room = t->room ? 2 * t->room : 64;
        pipeline_entry *entries = realloc(t->entries, room * sizeof *entries);
        if (entries) {
            t->entries = entries;
            t->room = room;
        }
    }
    if (!*out && t->count < t->room) {
        t->entries[t->count++] = (pipeline_entry){ *key, made };
        t->changed = true;
        g->pipelines_made++;
        *out = made;
        made = VK_NULL_HANDLE;
    }
    pthread_mutex_unlock(&t->lock);
    if (!*out)
        err = kim_fail(KIM_ERR_NO_MEMORY, "out of host memory");
error:
    if (made)
        g->vk.vkDestroyPipeline(g->device, made, NULL);
    return err;
}

static void count_time(kim_gpu *g, double start)
{
    g->pipeline_ns += (uint64_t)((clock_seconds() - start) * 1e9);
}

kim_err pipeline_get(kim_gpu *g, const pipeline_key *key, VkPipeline *out)
{
    const double start = clock_seconds();
    bool was_made = false;
    const kim_err err = get_or_make(g, key, out, &was_made);
    if (was_made)
        count_time(g, start);
    return err;
}

typedef struct create_job {
    kim_gpu *gpu;
    const pipeline_key *keys;
} create_job;

static kim_err create_one(void *user, uint32_t index, uint32_t thread)
{
    const create_job *job = user;
    VkPipeline pipeline;
    bool was_made;
    (void)thread;
    return get_or_make(job->gpu, &job->keys[index], &pipeline, &was_made);
}

kim_err pipeline_get_all(kim_gpu *g, const pipeline_key *keys, uint32_t count)
{
    create_job job = { .gpu = g, .keys = keys };
    const double start = clock_seconds();
    const kim_err err = share_among_threads(count, processor_count(), create_one, &job);
    count_time(g, start);
    return err;
}

const char *kim_build_missing(void)
{
    return kim_build_missing_text;
}
