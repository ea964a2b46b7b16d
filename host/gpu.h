// SPDX-License-Identifier: MIT
// A device: what it can do, its queue, its table of blocks, its pipelines. Internal to host/.
#ifndef KIM_GPU_H
#define KIM_GPU_H

#include "devices.h"
#include "trace.h"
#include "vulkan.h"

#include <pthread.h>
#include <stdatomic.h>

#define GPU_MAX_BLOCKS 256         // slots of the table, at most
#define GPU_BLOCK_LIMIT (1u << 30) // bytes of one block, at most

struct pipeline_table; // pipeline.h
struct pacing;         // pacing.h

// Ways to multiply weights by many columns, see matmul_ways.h. Their order is that of the names.
typedef enum matmul_way {
    MATMUL_FEW,   // as few columns are multiplied: matmul.comp
    MATMUL_FLOAT, // tiles in fp32
    MATMUL_DOT,   // tiles of int8, by dot products
    MATMUL_HALF,  // tiles of fp16, by the device's matrices
    MATMUL_INT8,  // tiles of int8, by the device's matrices
    MATMUL_WAYS,
} matmul_way;

// See labels.h.
typedef struct gpu_labels {
    PFN_vkCmdBeginDebugUtilsLabelEXT begin;
    PFN_vkCmdEndDebugUtilsLabelEXT end;
    PFN_vkSetDebugUtilsObjectNameEXT name;
} gpu_labels;

struct kim_gpu {
    kim_gpu_params params;
    kim_device_info info;

    VkInstance instance;
    VkDebugUtilsMessengerEXT messenger;
    atomic_uint validation_messages;
    VkPhysicalDevice physical;
    VkPhysicalDeviceMemoryProperties memory;
    VkPhysicalDeviceLimits limits;
    VkDevice device;
    struct VolkDeviceTable vk;
    gpu_labels labels;

    bool address; // memory mode: device addresses; else the table
    bool pass;    // lanes load for each other, see shaders/pass.glsl
    uint64_t block_limit;
    uint32_t matmul_ways;  // set of bits: those that this device and this build have
    matmul_way matmul_way; // the one that is taken, where the weights' type lets it
    uint32_t few_shape;    // of few_shapes, tile_shape: of tile_shapes (ops_pipelines.h)
    uint32_t tile_shape;
    kim_tuning tuning;                         // what was measured to choose these
    bool has_attention_tiles, attention_tiles; // attention of many rows by the device's matrices:
                                               // possible; taken, as by default on GPUs,
                                               // unless lanes were measured faster
    bool has_attention_nv, attention_nv; // the same by attention_tile_nv.comp: possible; taken
                                         // instead, if measured faster
    bool has_touch, touch; // with `pass`, shaders touch what they load next (shaders/memory.glsl):
                           // possible; taken, unless loads as needed were measured faster
    bool has_attention_quads,
        attention_quads; // attention of one row, with lanes that load for each
                         // other by fours: possible; taken, if measured faster

    // One queue; `lock` guards it, the table, the timeline's count and what is known of durations.
    pthread_mutex_t lock;
    VkQueue queue;
    uint32_t queue_family;
    VkSemaphore timeline; // counts submissions
    uint64_t submitted;
    struct pacing *pacing; // of all streams; made by the first one
    uint64_t last_stamp;   // of the last submit whose duration was looked at: when it ended

    // The table of blocks. Changing it waits for the device and makes recorded streams stale.
    VkDescriptorSetLayout table_layout;
    VkDescriptorPool table_pool;
    VkDescriptorSet table;
    uint32_t table_size;
    VkBuffer slots[GPU_MAX_BLOCKS];
    VkBuffer empty_buffer; // what unused slots hold
    VkDeviceMemory empty_memory;
    uint64_t table_generation;

    VkPipelineLayout layout;
    struct pipeline_table *pipelines;
    bool statistics; // pipelines keep what the compiler says of them

    _Atomic uint64_t memory_used, memory_peak;
    _Atomic uint64_t wait_ns, pipeline_ns; // see kim_gpu_stats
    atomic_uint pipelines_made;

    kim_trace_fn trace; // NULL: nothing is traced
    void *trace_user;
    _Atomic uint64_t trace_runs; // handed in since it was set
};

// Opens a device in a mode, without any choice by measurement.
kim_err gpu_open(kim_gpu **out, const kim_gpu_params *params, kim_memory_mode mode);

void gpu_log(const kim_gpu *g, kim_log_level level, const char *fmt, ...) KIM_PRINTF(3, 4);

// Waits until submission number `value` is done. KIM_ERR_DEVICE_LOST is an error of this call.
kim_err gpu_wait(kim_gpu *g, uint64_t value);

// Gives a buffer a slot in the table, or takes it back. Waits for everything submitted.
kim_err gpu_table_add(kim_gpu *g, VkBuffer buffer, uint32_t *slot);
void gpu_table_remove(kim_gpu *g, uint32_t slot);

// Counts device memory against the cap; `bytes` may be given back with gpu_memory_return.
kim_err gpu_memory_take(kim_gpu *g, uint64_t bytes);
void gpu_memory_return(kim_gpu *g, uint64_t bytes);

#endif
