// SPDX-License-Identifier: MIT
// Device memory: pools of a few large blocks, placed first and allocated once.
//
// A pool is filled in two passes. Placing decides block and offset of every tensor and needs no
// device, so a plan is exact; committing allocates blocks of just the size that was placed.
#ifndef KIM_MEMORY_H
#define KIM_MEMORY_H

#include "gpu.h"

#include "shaders/kim_shared.h"

#define POOL_ALIGNMENT 256

typedef enum pool_use {
    POOL_DEVICE,   // weights, K and V, activations; mapped where memory is unified
    POOL_UPLOAD,   // the host writes, the device reads
    POOL_READBACK, // the device writes, the host reads
} pool_use;

typedef struct pool_block {
    uint64_t bytes; // placed so far; after the commit, allocated
    VkBuffer buffer;
    VkDeviceMemory memory;
    uint64_t address;
    uint32_t slot;
    void *mapped; // NULL where the host cannot reach it
} pool_block;

typedef struct pool {
    kim_gpu *gpu; // NULL until the commit
    const char *name;
    pool_use use;
    uint64_t block_limit;
    pool_block *blocks;
    uint32_t n_blocks;
} pool;

// A run of bytes in a pool. Plain value; valid as long as the pool.
typedef struct span {
    pool *pool;
    uint32_t block;
    uint32_t offset; // in the block
    uint64_t bytes;
    const char *name; // of the tensor, for traces: as long as the pool; NULL: that of the pool
} span;

// block_limit: bytes of a block at most, 0 for GPU_BLOCK_LIMIT
void pool_init(pool *p, const char *name, pool_use use, uint64_t block_limit);
void pool_destroy(pool *p);

// Bytes of the largest block that every driver of this device takes.
uint64_t pool_limit_of(const kim_gpu *gpu);

// bytes: at most the block limit
kim_err pool_place(pool *p, uint64_t bytes, span *out);
uint64_t pool_bytes(const pool *p);
kim_err pool_commit(pool *p, kim_gpu *gpu);

// After the commit.
kim_handle span_handle(const span *s);
void *span_map(const span *s); // NULL where the host cannot reach it
span span_part(const span *s, uint64_t offset, uint64_t bytes);
VkBuffer span_buffer(const span *s);

#endif
