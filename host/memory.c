// SPDX-License-Identifier: MIT
// Device memory: pools of a few large blocks, placed first and allocated once.
#include "memory.h"

#include "labels.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void pool_init(pool *p, const char *name, pool_use use, uint64_t block_limit)
{
    *p = (pool){
        .name = name,
        .use = use,
        .block_limit = block_limit ? block_limit : GPU_BLOCK_LIMIT,
    };
}

static void block_free(pool *p, pool_block *b)
{
    kim_gpu *g = p->gpu;
    if (!g)
        return;
    if (b->slot != UINT32_MAX)
        gpu_table_remove(g, b->slot);
    g->vk.vkDestroyBuffer(g->device, b->buffer, NULL);
    g->vk.vkFreeMemory(g->device, b->memory, NULL); // unmaps
    if (b->memory)
        gpu_memory_return(g, b->bytes);
}

void pool_destroy(pool *p)
{
    for (uint32_t i = 0; i < p->n_blocks; i++)
        block_free(p, &p->blocks[i]);
    free(p->blocks);
    memset(p, 0, sizeof *p);
}

kim_err pool_place(pool *p, uint64_t bytes, span *out)
{
    kim_err err = KIM_OK;
    assert(!p->gpu && bytes && bytes <= p->block_limit);
    const uint64_t rounded = (bytes + POOL_ALIGNMENT - 1) / POOL_ALIGNMENT * POOL_ALIGNMENT;
    uint32_t i = 0;
    while (i < p->n_blocks && p->blocks[i].bytes + rounded > p->block_limit)
        i++;
    if (i == p->n_blocks) {
        pool_block *blocks = realloc(p->blocks, (p->n_blocks + 1) * sizeof *blocks);
        REQUIRE_MEMORY(blocks);
        p->blocks = blocks;
        blocks[p->n_blocks++] = (pool_block){ .slot = UINT32_MAX };
    }
    *out = (span){ .pool = p, .block = i, .offset = (uint32_t)p->blocks[i].bytes, .bytes = bytes };
    p->blocks[i].bytes += rounded;
error:
    return err;
}

uint64_t pool_bytes(const pool *p)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < p->n_blocks; i++)
        sum += p->blocks[i].bytes;
    return sum;
}

// The first memory type that the buffer may have and that has the flags, in order of preference.
static bool memory_type(const pool *p, uint32_t allowed, uint32_t *type)
{
    const VkMemoryPropertyFlags device = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
    const VkMemoryPropertyFlags host =
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    const VkMemoryPropertyFlags cached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    VkMemoryPropertyFlags wanted[3] = { 0 };
    if (p->use == POOL_DEVICE) {
        wanted[0] = p->gpu->info.unified_memory ? device | host : device;
        wanted[1] = device;
    } else if (p->use == POOL_UPLOAD) {
        wanted[0] = p->gpu->info.unified_memory ? device | host : host;
        wanted[1] = host;
        wanted[2] = host;
    } else {
        wanted[0] = host | cached;
        wanted[1] = host;
        wanted[2] = host;
    }
    for (int w = 0; w < 3; w++)
        for (uint32_t i = 0; i < p->gpu->memory.memoryTypeCount; i++)
            if ((allowed & 1u << i) &&
                (p->gpu->memory.memoryTypes[i].propertyFlags & wanted[w]) == wanted[w]) {
                *type = i;
                return true;
            }
    return false;
}

static kim_err block_commit(pool *p, pool_block *b)
{
    kim_err err = KIM_OK;
    kim_gpu *g = p->gpu;
    const VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = b->bytes,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                 (g->address ? VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT : 0),
    };
    VK_TRY(g->vk.vkCreateBuffer(g->device, &info, NULL, &b->buffer));
    VkMemoryRequirements need;
    g->vk.vkGetBufferMemoryRequirements(g->device, b->buffer, &need);
    uint32_t type;
    if (!memory_type(p, need.memoryTypeBits, &type))
        FAIL(KIM_ERR_VULKAN, "%s: no memory type fits a storage buffer", g->info.name);
    const VkMemoryAllocateFlagsInfo flags = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
        .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT,
    };
    const VkMemoryAllocateInfo allocate = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = g->address ? &flags : NULL,
        .allocationSize = need.size,
        .memoryTypeIndex = type,
    };
    TRY(gpu_memory_take(g, b->bytes));
    const VkResult result = g->vk.vkAllocateMemory(g->device, &allocate, NULL, &b->memory);
    if (result < 0) {
        gpu_memory_return(g, b->bytes);
        b->memory = VK_NULL_HANDLE;
        err = vulkan_fail(result, "vkAllocateMemory");
        if (err == KIM_ERR_DEVICE_MEMORY)
            FAIL(err, "%s: %s has no %.1f MiB left for %s (%.1f MiB are in use by this program)",
                 "out of device memory", g->info.name, (double)b->bytes / 1048576.0, p->name,
                 (double)g->memory_used / 1048576.0);
        goto error;
    }
    VK_TRY(g->vk.vkBindBufferMemory(g->device, b->buffer, b->memory, 0));
    const unsigned index = (unsigned)(b - p->blocks);
    labels_name(g, VK_OBJECT_TYPE_BUFFER, (uint64_t)b->buffer, "%s %u", p->name, index);
    labels_name(g, VK_OBJECT_TYPE_DEVICE_MEMORY, (uint64_t)b->memory, "%s %u", p->name, index);
    if (g->memory.memoryTypes[type].propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT &&
        (p->use != POOL_DEVICE || g->info.unified_memory))
        VK_TRY(g->vk.vkMapMemory(g->device, b->memory, 0, VK_WHOLE_SIZE, 0, &b->mapped));
    if (g->address) {
        const VkBufferDeviceAddressInfo where = {
            .sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
            .buffer = b->buffer,
        };
        b->address = g->vk.vkGetBufferDeviceAddress(g->device, &where);
    } else {
        TRY(gpu_table_add(g, b->buffer, &b->slot));
    }
error:
    return err;
}

kim_err pool_commit(pool *p, kim_gpu *gpu)
{
    kim_err err = KIM_OK;
    p->gpu = gpu;
    for (uint32_t i = 0; i < p->n_blocks; i++)
        TRY(block_commit(p, &p->blocks[i]));
error:
    return err; // half committed: pool_destroy frees what there is
}

kim_handle span_handle(const span *s)
{
    const pool_block *b = &s->pool->blocks[s->block];
    assert(s->offset % 16 == 0);
    return b->slot == UINT32_MAX ? b->address + s->offset : (uint64_t)s->offset << 32 | b->slot;
}

void *span_map(const span *s)
{
    const pool_block *b = &s->pool->blocks[s->block];
    return b->mapped ? (char *)b->mapped + s->offset : NULL;
}

span span_part(const span *s, uint64_t offset, uint64_t bytes)
{
    assert(offset + bytes <= s->bytes);
    span part = *s;
    part.offset += (uint32_t)offset;
    part.bytes = bytes;
    return part;
}

VkBuffer span_buffer(const span *s)
{
    return s->pool->blocks[s->block].buffer;
}

uint64_t pool_limit_of(const kim_gpu *gpu)
{
    return gpu->block_limit;
}
