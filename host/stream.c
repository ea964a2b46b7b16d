// SPDX-License-Identifier: MIT
// Streams of work: a list of dispatches with what each reads and writes, turned into commands.
#include "stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ACCESSES 8
#define MAX_SUBMITS 4096
#define FIRST_NS_PER_WORK 0.1 // before anything is measured: 10 GFLOP/s

typedef enum command_kind { COMMAND_DISPATCH, COMMAND_COPY, COMMAND_FILL } command_kind;

typedef struct command {
    command_kind kind;
    VkPipeline pipeline;
    uint8_t args[128];
    uint32_t args_bytes;
    uint32_t groups[3];
    uint32_t word; // of a fill
    double work;
    span_use accesses[MAX_ACCESSES]; // of a copy: written, read
    uint32_t n_accesses;
    bool joined;
    bool barrier; // before it
} command;

struct stream {
    kim_gpu *gpu;
    command *commands;
    uint32_t n_commands, room;

    // Written or read since the last barrier of the list; see `needs_barrier`.
    span_use *pending;
    uint32_t n_pending, pending_room;
    uint32_t joinable; // those before this one are not of the last command and its joined ones
    uint32_t n_barriers, n_dispatches;

    VkCommandPool pool;
    VkCommandBuffer *buffers; // one a submit
    uint32_t n_buffers, n_submits;
    VkQueryPool times; // two a submit
    uint32_t times_room;
    bool encoded;
    uint64_t table_generation; // that the commands were encoded with

    double ns_per_work; // measured
    uint64_t value;     // of the timeline when the last run is done
    bool times_pending;
    stream_stats stats;
};

kim_err stream_create(stream **out, kim_gpu *gpu)
{
    kim_err err = KIM_OK;
    stream *st = calloc(1, sizeof *st);
    REQUIRE_MEMORY(st);
    st->gpu = gpu;
    st->ns_per_work = FIRST_NS_PER_WORK;
    const VkCommandPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .queueFamilyIndex = gpu->queue_family,
    };
    VK_TRY(gpu->vk.vkCreateCommandPool(gpu->device, &info, NULL, &st->pool));
    *out = st;
    return KIM_OK;
error:
    stream_destroy(&st);
    return err;
}

void stream_destroy(stream **stp)
{
    stream *st = *stp;
    if (!st)
        return;
    kim_gpu *g = st->gpu;
    (void)stream_wait(st); // of a lost device: nothing runs on it any more
    g->vk.vkDestroyQueryPool(g->device, st->times, NULL);
    g->vk.vkDestroyCommandPool(g->device, st->pool, NULL); // and its buffers
    free(st->buffers);
    free(st->commands);
    free(st->pending);
    free(st);
    *stp = NULL;
}

kim_err stream_reset(stream *st)
{
    kim_err err = KIM_OK;
    TRY(stream_wait(st));
    st->n_commands = st->n_pending = st->joinable = st->n_barriers = st->n_dispatches = 0;
    st->encoded = false;
error:
    return err;
}

static bool overlap(const span *a, const span *b)
{
    return a->pool == b->pool && a->block == b->block && a->offset < b->offset + b->bytes &&
           b->offset < a->offset + a->bytes;
}

// A command must wait for the ones since the last barrier if it reads what one of them writes, or
// writes what one of them reads or writes.
static bool needs_barrier(const stream *st, const command *c)
{
    // In table mode a dispatch touches every block as far as the validation layers can see, and two
    // without a barrier between them are a hazard to them. What is apart, tests/gpu_test.c checks.
    if (st->gpu->params.validation && !st->gpu->address)
        return st->n_pending > 0;
    for (uint32_t i = 0; i < c->n_accesses; i++)
        for (uint32_t j = 0; j < (c->joined ? st->joinable : st->n_pending); j++)
            if ((c->accesses[i].write || st->pending[j].write) &&
                overlap(&c->accesses[i].span, &st->pending[j].span))
                return true;
    return false;
}

static kim_err add_command(stream *st, const command *c)
{
    kim_err err = KIM_OK;
    if (st->n_commands == st->room) {
        const uint32_t room = st->room ? 2 * st->room : 256;
        command *commands = realloc(st->commands, room * sizeof *commands);
        REQUIRE_MEMORY(commands);
        st->commands = commands;
        st->room = room;
    }
    if (st->n_pending + c->n_accesses > st->pending_room) {
        const uint32_t room = 2 * st->pending_room + 64;
        span_use *pending = realloc(st->pending, room * sizeof *pending);
        REQUIRE_MEMORY(pending);
        st->pending = pending;
        st->pending_room = room;
    }
    command *to = &st->commands[st->n_commands++];
    *to = *c;
    to->barrier = needs_barrier(st, c);
    if (to->barrier) {
        st->n_pending = st->joinable = 0;
        st->n_barriers++;
    }
    if (!c->joined)
        st->joinable = st->n_pending;
    for (uint32_t i = 0; i < c->n_accesses; i++)
        st->pending[st->n_pending++] = c->accesses[i];
    st->encoded = false;
error:
    return err;
}

kim_err stream_dispatch(stream *st, const dispatch *d)
{
    kim_err err = KIM_OK;
    command c = {
        .kind = COMMAND_DISPATCH,
        .args_bytes = d->args_bytes,
        .groups = { d->groups[0], d->groups[1], d->groups[2] },
        .work = d->work,
        .n_accesses = d->n_accesses,
        .joined = d->joined,
    };
    assert(d->args_bytes <= sizeof c.args && d->n_accesses <= MAX_ACCESSES);
    memcpy(c.args, d->args, d->args_bytes);
    memcpy(c.accesses, d->accesses, d->n_accesses * sizeof *d->accesses);
    TRY(pipeline_get(st->gpu, &d->key, &c.pipeline));
    TRY(add_command(st, &c));
    st->n_dispatches++;
error:
    return err;
}

kim_err stream_copy(stream *st, const span *to, const span *from)
{
    assert(from->bytes >= to->bytes);
    const command c = {
        .kind = COMMAND_COPY,
        .work = (double)to->bytes,
        .accesses = { WRITES(*to), READS(*from) },
        .n_accesses = 2,
    };
    return add_command(st, &c);
}

kim_err stream_fill(stream *st, const span *to, uint32_t word)
{
    const command c = {
        .kind = COMMAND_FILL,
        .word = word,
        .work = (double)to->bytes,
        .accesses = { WRITES(*to) },
        .n_accesses = 1,
    };
    return add_command(st, &c);
}

static void encode_command(stream *st, VkCommandBuffer cb, const command *c)
{
    const struct VolkDeviceTable *vk = &st->gpu->vk;
    const span *to = &c->accesses[0].span;
    if (c->kind == COMMAND_COPY) {
        const span *from = &c->accesses[1].span;
        const VkBufferCopy region = { from->offset, to->offset, to->bytes };
        vk->vkCmdCopyBuffer(cb, span_buffer(from), span_buffer(to), 1, &region);
    } else if (c->kind == COMMAND_FILL) {
        vk->vkCmdFillBuffer(cb, span_buffer(to), to->offset, to->bytes / 4 * 4, c->word);
    } else {
        vk->vkCmdBindPipeline(cb, VK_PIPELINE_BIND_POINT_COMPUTE, c->pipeline);
        vk->vkCmdPushConstants(cb, st->gpu->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, c->args_bytes,
                               c->args);
        vk->vkCmdDispatch(cb, c->groups[0], c->groups[1], c->groups[2]);
    }
}

static void encode_barrier(const stream *st, VkCommandBuffer cb, VkPipelineStageFlags to_stages,
                           VkAccessFlags to)
{
    const VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = to,
    };
    st->gpu->vk.vkCmdPipelineBarrier(
        cb, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT, to_stages, 0, 1,
        &barrier, 0, NULL, 0, NULL);
}

static void encode_device_barrier(const stream *st, VkCommandBuffer cb)
{
    encode_barrier(st, cb, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                   VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                       VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT);
}

// Room for the command buffers and time stamps of `submits` submits.
static kim_err make_room(stream *st, uint32_t submits)
{
    kim_err err = KIM_OK;
    kim_gpu *g = st->gpu;
    if (submits > st->n_buffers) {
        VkCommandBuffer *buffers = realloc(st->buffers, submits * sizeof *buffers);
        REQUIRE_MEMORY(buffers);
        st->buffers = buffers;
        const VkCommandBufferAllocateInfo info = {
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = st->pool,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = submits - st->n_buffers,
        };
        VK_TRY(g->vk.vkAllocateCommandBuffers(g->device, &info, &buffers[st->n_buffers]));
        st->n_buffers = submits;
    }
    if (submits > st->times_room && g->limits.timestampComputeAndGraphics) {
        g->vk.vkDestroyQueryPool(g->device, st->times, NULL);
        st->times = VK_NULL_HANDLE;
        const VkQueryPoolCreateInfo info = {
            .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
            .queryType = VK_QUERY_TYPE_TIMESTAMP,
            .queryCount = 2 * submits,
        };
        VK_TRY(g->vk.vkCreateQueryPool(g->device, &info, NULL, &st->times));
        st->times_room = submits;
    }
error:
    return err;
}

static kim_err encode_submit(stream *st, uint32_t index, uint32_t first, uint32_t end)
{
    kim_err err = KIM_OK;
    kim_gpu *g = st->gpu;
    const VkCommandBuffer cb = st->buffers[index];
    const VkCommandBufferBeginInfo begin = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO };
    VK_TRY(g->vk.vkBeginCommandBuffer(cb, &begin));
    if (st->times) {
        g->vk.vkCmdResetQueryPool(cb, st->times, 2 * index, 2);
        g->vk.vkCmdWriteTimestamp(cb, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, st->times, 2 * index);
    }
    if (!g->address)
        g->vk.vkCmdBindDescriptorSets(cb, VK_PIPELINE_BIND_POINT_COMPUTE, g->layout, 0, 1,
                                      &g->table, 0, NULL);
    encode_device_barrier(st, cb); // what earlier submits of the queue wrote
    for (uint32_t i = first; i < end; i++) {
        if (st->commands[i].barrier && i > first)
            encode_device_barrier(st, cb);
        encode_command(st, cb, &st->commands[i]);
    }
    encode_barrier(st, cb, VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
    if (st->times)
        g->vk.vkCmdWriteTimestamp(cb, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, st->times,
                                  2 * index + 1);
    VK_TRY(g->vk.vkEndCommandBuffer(cb));
error:
    return err;
}

// Cuts the list where the expected time of a submit would pass the limit.
static uint32_t cut(const stream *st, uint32_t *ends, uint32_t room)
{
    uint32_t n = 0;
    double ns = 0;
    for (uint32_t i = 0; i < st->n_commands; i++) {
        const double more = st->commands[i].work * st->ns_per_work;
        if (ns > 0 && ns + more > STREAM_SUBMIT_NS && n + 1 < room) {
            ends[n++] = i;
            ns = 0;
        }
        ns += more;
    }
    ends[n++] = st->n_commands;
    return n;
}

static kim_err encode(stream *st)
{
    kim_err err = KIM_OK;
    uint32_t *ends = malloc(MAX_SUBMITS * sizeof *ends);
    REQUIRE_MEMORY(ends);
    VK_TRY(st->gpu->vk.vkResetCommandPool(st->gpu->device, st->pool, 0));
    st->n_submits = cut(st, ends, MAX_SUBMITS);
    TRY(make_room(st, st->n_submits));
    for (uint32_t i = 0; i < st->n_submits; i++)
        TRY(encode_submit(st, i, i ? ends[i - 1] : 0, ends[i]));
    st->encoded = true;
error:
    free(ends);
    return err;
}

static kim_err submit_locked(stream *st)
{
    kim_err err = KIM_OK;
    kim_gpu *g = st->gpu;
    if (!st->encoded || st->table_generation != g->table_generation) {
        TRY(encode(st));
        st->table_generation = g->table_generation;
    }
    const uint64_t value = g->submitted + 1;
    const VkTimelineSemaphoreSubmitInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &value,
    };
    for (uint32_t i = 0; i < st->n_submits; i++) {
        const bool last = i + 1 == st->n_submits;
        const VkSubmitInfo info = {
            .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
            .pNext = last ? &timeline : NULL,
            .commandBufferCount = 1,
            .pCommandBuffers = &st->buffers[i],
            .signalSemaphoreCount = last ? 1 : 0,
            .pSignalSemaphores = &g->timeline,
        };
        VK_TRY(g->vk.vkQueueSubmit(g->queue, 1, &info, VK_NULL_HANDLE));
    }
    g->submitted = st->value = value;
    st->times_pending = st->times != VK_NULL_HANDLE;
    st->stats.dispatches += st->n_dispatches;
    st->stats.submits += st->n_submits;
    st->stats.barriers += st->n_barriers;
error:
    return err;
}

kim_err stream_submit(stream *st)
{
    kim_err err = KIM_OK;
    if (!st->n_commands)
        return KIM_OK;
    TRY(stream_wait(st));
    pthread_mutex_lock(&st->gpu->lock);
    err = submit_locked(st);
    pthread_mutex_unlock(&st->gpu->lock);
error:
    return err;
}

// Learns from the last run how long a unit of work takes, and cuts anew where a submit was too long
// or there were many more than needed.
static void learn(stream *st)
{
    kim_gpu *g = st->gpu;
    uint64_t stamps[2];
    double total = 0, longest = 0, work = 0;
    st->times_pending = false;
    for (uint32_t i = 0; i < st->n_submits; i++) {
        if (g->vk.vkGetQueryPoolResults(g->device, st->times, 2 * i, 2, sizeof stamps, stamps,
                                        sizeof stamps[0], VK_QUERY_RESULT_64_BIT) != VK_SUCCESS)
            return;
        const double ns = (double)(stamps[1] - stamps[0]) * (double)g->limits.timestampPeriod;
        total += ns;
        longest = ns > longest ? ns : longest;
    }
    for (uint32_t i = 0; i < st->n_commands; i++)
        work += st->commands[i].work;
    st->stats.last_seconds = total * 1e-9;
    if (work > 0 && total > 0)
        st->ns_per_work = total / work;
    // by a third more than is wanted, so that noise does not cut again and again
    if ((longest > 1.33 * STREAM_SUBMIT_NS && st->n_submits < st->n_commands) ||
        (st->n_submits > 1 && total < 0.67 * STREAM_SUBMIT_NS * (st->n_submits - 1)))
        st->encoded = false;
}

kim_err stream_wait(stream *st)
{
    kim_err err = KIM_OK;
    if (!st->value)
        return KIM_OK;
    TRY(gpu_wait(st->gpu, st->value));
    if (st->times_pending)
        learn(st);
error:
    return err;
}

void stream_get_stats(const stream *st, stream_stats *out)
{
    *out = st->stats;
    out->list_dispatches = st->n_dispatches;
    out->list_submits = st->n_submits;
}

kim_gpu *stream_gpu(const stream *st)
{
    return st->gpu;
}
