// SPDX-License-Identifier: MIT
// Streams of work: a list of dispatches with what each reads and writes, turned into commands.
#include "stream.h"

#include "clock.h"
#include "labels.h"
#include "pacing.h"
#include "spirv.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ACCESSES KIM_TRACE_TENSORS
#define COPY_UNIT (1u << 20) // bytes

typedef enum command_kind {
    COMMAND_DISPATCH = KIM_TRACE_DISPATCH,
    COMMAND_COPY = KIM_TRACE_COPY,
    COMMAND_FILL = KIM_TRACE_FILL,
} command_kind;

// An access of a command.
typedef struct use_ref {
    uint32_t command, access;
} use_ref;

typedef struct command {
    command_kind kind;
    VkPipeline pipeline;
    uint8_t args[128];
    uint32_t args_bytes;
    uint32_t groups[3];
    uint32_t word;                   // of a fill
    paced_command paced;             // units: workgroups, or of a copy or fill COPY_UNIT bytes
    span_use accesses[MAX_ACCESSES]; // of a copy: written, read
    uint32_t n_accesses;
    bool joined;
    bool barrier;      // before it
    use_ref waits_for; // that made it necessary; UINT32_MAX: none, the validation layers want it
    uint32_t waits_to; // own access that has to wait
    dispatch_note note;
    const char *section;
    uint32_t section_index;
} command;

// Units first .. first + count - 1 of a command.
typedef struct piece {
    uint32_t command;
    uint64_t first, count;
} piece;

struct stream {
    kim_gpu *gpu;
    command *commands;
    uint32_t n_commands, room;

    // Written or read since the last barrier of the list; see `needs_barrier`.
    use_ref *pending;
    uint32_t n_pending, pending_room;
    uint32_t joinable; // those before this one are not of the last command and its joined ones
    uint32_t n_barriers, n_dispatches;

    // The list as it is cut into submits; `ends` are in pieces.
    piece *pieces;
    uint32_t n_pieces, piece_room;
    uint32_t *ends;
    uint32_t n_submits, submit_room;

    VkCommandPool pool;
    VkCommandBuffer *buffers; // one a submit
    uint32_t n_buffers;
    VkQueryPool times; // two a submit
    uint32_t times_room;
    bool encoded;
    uint64_t table_generation; // that the commands were encoded with

    uint64_t value; // of the timeline when the last run is done
    bool times_pending;
    stream_stats stats;

    const char *section; // of what is added
    uint32_t section_index;
    uint32_t position;  // of row 0, for traces
    bool traced;        // the run at hand
    VkQueryPool stamps; // of a traced submit: at its start and after each piece
    uint32_t stamps_room;
};

kim_err stream_create(stream **out, kim_gpu *gpu)
{
    kim_err err = KIM_OK;
    stream *st = calloc(1, sizeof *st);
    REQUIRE_MEMORY(st);
    st->gpu = gpu;
    stream_set_section(st, "other", UINT32_MAX);
    const VkCommandPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .queueFamilyIndex = gpu->queue_family,
    };
    VK_TRY(gpu->vk.vkCreateCommandPool(gpu->device, &info, NULL, &st->pool));
    pthread_mutex_lock(&gpu->lock);
    if (!gpu->pacing)
        err = pacing_create(&gpu->pacing);
    pthread_mutex_unlock(&gpu->lock);
    TRY(err);
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
    g->vk.vkDestroyQueryPool(g->device, st->stamps, NULL);
    g->vk.vkDestroyCommandPool(g->device, st->pool, NULL); // and its buffers
    free(st->buffers);
    free(st->commands);
    free(st->pending);
    free(st->pieces);
    free(st->ends);
    free(st);
    *stp = NULL;
}

kim_err stream_reset(stream *st)
{
    kim_err err = KIM_OK;
    TRY(stream_wait(st));
    st->n_commands = st->n_pending = st->joinable = st->n_barriers = st->n_dispatches = 0;
    st->encoded = false;
    stream_set_section(st, "other", UINT32_MAX);
error:
    return err;
}

void stream_set_section(stream *st, const char *name, uint32_t index)
{
    st->section = name;
    st->section_index = index;
}

void stream_set_position(stream *st, uint32_t position)
{
    st->position = position;
}

static bool overlap(const span *a, const span *b)
{
    return a->pool == b->pool && a->block == b->block && a->offset < b->offset + b->bytes &&
           b->offset < a->offset + a->bytes;
}

// In table mode a dispatch touches every block as far as the validation layers can see, and two
// without a barrier between them are a hazard to them. What is apart, tests/gpu_test.c checks.
static bool layers_want_barriers(const kim_gpu *g)
{
    return g->params.validation && !g->address;
}

// A command must wait for the ones since the last barrier if it reads what one of them writes, or
// writes what one of them reads or writes. Which one is told by c->waits_for.
static bool needs_barrier(const stream *st, command *c)
{
    c->waits_for.command = UINT32_MAX;
    if (layers_want_barriers(st->gpu))
        return st->n_pending > 0;
    for (uint32_t i = 0; i < c->n_accesses; i++)
        for (uint32_t j = 0; j < (c->joined ? st->joinable : st->n_pending); j++) {
            const use_ref ref = st->pending[j];
            const span_use *before = &st->commands[ref.command].accesses[ref.access];
            if ((c->accesses[i].write || before->write) &&
                overlap(&c->accesses[i].span, &before->span)) {
                c->waits_for = ref;
                c->waits_to = i;
                return true;
            }
        }
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
        use_ref *pending = realloc(st->pending, room * sizeof *pending);
        REQUIRE_MEMORY(pending);
        st->pending = pending;
        st->pending_room = room;
    }
    // copies and fills have keys that no pipeline has
    const uint64_t key = c->kind == COMMAND_DISPATCH ? (uint64_t)c->pipeline : (uint64_t)c->kind;
    uint32_t kind;
    pthread_mutex_lock(&st->gpu->lock);
    err = pacing_kind(st->gpu->pacing, key, &kind);
    pthread_mutex_unlock(&st->gpu->lock);
    TRY(err);
    command *to = &st->commands[st->n_commands++];
    *to = *c;
    to->paced.kind = kind;
    to->section = st->section;
    to->section_index = st->section_index;
    to->barrier = needs_barrier(st, to);
    if (to->barrier) {
        st->n_pending = st->joinable = 0;
        st->n_barriers++;
    }
    if (!c->joined)
        st->joinable = st->n_pending;
    for (uint32_t i = 0; i < c->n_accesses; i++)
        st->pending[st->n_pending++] = (use_ref){ st->n_commands - 1, i };
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
        .paced = { .work = d->work,
                   .units = (uint64_t)d->groups[0] * d->groups[1] * d->groups[2],
                   .row = d->groups[0] },
        .n_accesses = d->n_accesses,
        .joined = d->joined,
        .note = d->note,
    };
    if (!c.note.op.name)
        c.note.op.name = kim_spirv_table[d->key.variant].name;
    assert(d->args_bytes <= sizeof c.args && d->n_accesses <= MAX_ACCESSES && c.paced.units);
    memcpy(c.args, d->args, d->args_bytes);
    memcpy(c.accesses, d->accesses, d->n_accesses * sizeof *d->accesses);
    TRY(pipeline_get(st->gpu, &d->key, &c.pipeline));
    TRY(add_command(st, &c));
    st->n_dispatches++;
error:
    return err;
}

static uint64_t copy_units(const span *to)
{
    return (to->bytes + COPY_UNIT - 1) / COPY_UNIT;
}

kim_err stream_copy(stream *st, const span *to, const span *from)
{
    assert(from->bytes >= to->bytes);
    const command c = {
        .kind = COMMAND_COPY,
        .paced = { .work = (double)to->bytes, .units = copy_units(to), .row = 1 },
        .accesses = { WRITES(*to), READS(*from) },
        .n_accesses = 2,
        .note = { .op = { .name = "copy" } },
    };
    return add_command(st, &c);
}

kim_err stream_fill(stream *st, const span *to, uint32_t word)
{
    const command c = {
        .kind = COMMAND_FILL,
        .word = word,
        .paced = { .work = (double)to->bytes, .units = copy_units(to), .row = 1 },
        .accesses = { WRITES(*to) },
        .n_accesses = 1,
        .note = { .op = { .name = "fill" } },
    };
    return add_command(st, &c);
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

// The groups `from` .. `end` - 1 of a dispatch, counted along x, then y, then z, as boxes.
static void encode_dispatch(stream *st, VkCommandBuffer cb, const command *c, uint64_t from,
                            uint64_t end)
{
    const struct VolkDeviceTable *vk = &st->gpu->vk;
    const uint32_t *g = c->groups;
    const uint64_t row = g[0], plane = row * g[1], first = from;
    while (from < end) {
        const uint64_t left = end - from;
        const uint32_t x = (uint32_t)(from % row), y = (uint32_t)(from % plane / row);
        uint32_t box[3] = { g[0], 1, 1 };
        if (x || left < row)
            box[0] = (uint32_t)(left < row - x ? left : row - x);
        else if (y || left < plane)
            box[1] = (uint32_t)(left / row < g[1] - y ? left / row : g[1] - y);
        else
            box[1] = g[1], box[2] = (uint32_t)(left / plane);
        if (from > first && layers_want_barriers(st->gpu))
            encode_device_barrier(st, cb);
        vk->vkCmdDispatchBase(cb, x, y, (uint32_t)(from / plane), box[0], box[1], box[2]);
        from += (uint64_t)box[0] * box[1] * box[2];
    }
}

static void encode_piece(stream *st, VkCommandBuffer cb, const piece *p)
{
    const struct VolkDeviceTable *vk = &st->gpu->vk;
    const command *c = &st->commands[p->command];
    const span *to = &c->accesses[0].span;
    const uint64_t at = p->first * COPY_UNIT, end = (p->first + p->count) * COPY_UNIT;
    const uint64_t bytes = (end < to->bytes ? end : to->bytes) - at; // of a copy or fill
    if (c->kind == COMMAND_COPY) {
        const span *from = &c->accesses[1].span;
        const VkBufferCopy region = { from->offset + at, to->offset + at, bytes };
        vk->vkCmdCopyBuffer(cb, span_buffer(from), span_buffer(to), 1, &region);
    } else if (c->kind == COMMAND_FILL) {
        vk->vkCmdFillBuffer(cb, span_buffer(to), to->offset + at, bytes / 4 * 4, c->word);
    } else {
        vk->vkCmdBindPipeline(cb, VK_PIPELINE_BIND_POINT_COMPUTE, c->pipeline);
        vk->vkCmdPushConstants(cb, st->gpu->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, c->args_bytes,
                               c->args);
        encode_dispatch(st, cb, c, p->first, p->first + p->count);
    }
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

// Whether two pieces are of one section.
static bool same_section(const stream *st, uint32_t a, uint32_t b)
{
    const command *c = &st->commands[st->pieces[a].command];
    const command *d = &st->commands[st->pieces[b].command];
    return c->section == d->section && c->section_index == d->section_index;
}

static void begin_section(const stream *st, VkCommandBuffer cb, const command *c)
{
    char text[64];
    if (c->section_index == UINT32_MAX)
        snprintf(text, sizeof text, "%s", c->section);
    else
        snprintf(text, sizeof text, "%s %u", c->section, c->section_index);
    labels_begin(st->gpu, cb, text);
}

// Time stamp number `index` of a traced submit.
static void encode_stamp(const stream *st, VkCommandBuffer cb, uint32_t index)
{
    if (st->traced && st->stamps)
        st->gpu->vk.vkCmdWriteTimestamp(cb, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, st->stamps,
                                        index);
}

static void encode_pieces(stream *st, VkCommandBuffer cb, uint32_t first, uint32_t end)
{
    const bool labelled = st->gpu->labels.begin;
    if (st->traced && st->stamps)
        st->gpu->vk.vkCmdResetQueryPool(cb, st->stamps, 0, end - first + 1);
    encode_stamp(st, cb, 0);
    for (uint32_t i = first; i < end; i++) {
        const command *c = &st->commands[st->pieces[i].command];
        if (labelled && (i == first || !same_section(st, i - 1, i)))
            begin_section(st, cb, c);
        if (c->barrier && i > first)
            encode_device_barrier(st, cb);
        if (labelled) {
            char text[128];
            kim_operation_text(&c->note.op, text);
            labels_begin(st->gpu, cb, text);
        }
        encode_piece(st, cb, &st->pieces[i]);
        labels_end(st->gpu, cb);
        if (labelled && (i + 1 == end || !same_section(st, i, i + 1)))
            labels_end(st->gpu, cb);
        encode_stamp(st, cb, i - first + 1);
    }
}

static kim_err encode_submit(stream *st, uint32_t index)
{
    kim_err err = KIM_OK;
    kim_gpu *g = st->gpu;
    const VkCommandBuffer cb = st->buffers[index];
    const uint32_t first = index ? st->ends[index - 1] : 0;
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
    encode_pieces(st, cb, first, st->ends[index]);
    encode_barrier(st, cb, VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
    if (st->times)
        g->vk.vkCmdWriteTimestamp(cb, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, st->times,
                                  2 * index + 1);
    VK_TRY(g->vk.vkEndCommandBuffer(cb));
error:
    return err;
}

// The next piece of the submit that is being made up; of none: the submit ends here.
// at:   the first unit that is in no submit yet; its count is not used
// full: the submit has ended within a command
static piece next_piece(const stream *st, piece *at, bool *full)
{
    piece p = { .command = at->command, .first = at->first };
    if (*full || at->command == st->n_commands)
        return p;
    const paced_command *c = &st->commands[at->command].paced;
    const uint64_t left = c->units - at->first;
    p.count = pacing_fit(st->gpu->pacing, c, left);
    at->first += p.count;
    *full = p.count < left;
    if (!*full)
        *at = (piece){ .command = at->command + 1 };
    return p;
}

// Into how many submits the list would be cut by what is known now.
static uint32_t count_submits(const stream *st)
{
    uint32_t n = 0;
    for (piece at = { 0 }; at.command < st->n_commands; n++) {
        bool full = false;
        pacing_begin(st->gpu->pacing);
        while (next_piece(st, &at, &full).count)
            ;
    }
    return n;
}

// Cuts off the next submit; at: as above.
static kim_err cut_submit(stream *st, piece *at)
{
    kim_err err = KIM_OK;
    bool full = false;
    if (st->n_submits == st->submit_room) {
        const uint32_t room = 2 * st->submit_room + 16;
        uint32_t *ends = realloc(st->ends, room * sizeof *ends);
        REQUIRE_MEMORY(ends);
        st->ends = ends;
        st->submit_room = room;
    }
    pacing_begin(st->gpu->pacing);
    for (piece p; (p = next_piece(st, at, &full)).count;) {
        if (st->n_pieces == st->piece_room) {
            const uint32_t room = 2 * st->piece_room + 256;
            piece *pieces = realloc(st->pieces, room * sizeof *pieces);
            REQUIRE_MEMORY(pieces);
            st->pieces = pieces;
            st->piece_room = room;
        }
        st->pieces[st->n_pieces++] = p;
    }
    st->ends[st->n_submits++] = st->n_pieces;
error:
    return err;
}

static void forget_cuts(stream *st)
{
    st->n_pieces = st->n_submits = 0;
    st->encoded = false;
}

static kim_err encode(stream *st)
{
    kim_err err = KIM_OK;
    piece at = { 0 };
    VK_TRY(st->gpu->vk.vkResetCommandPool(st->gpu->device, st->pool, 0));
    forget_cuts(st);
    while (at.command < st->n_commands)
        TRY(cut_submit(st, &at));
    TRY(make_room(st, st->n_submits));
    for (uint32_t i = 0; i < st->n_submits; i++)
        TRY(encode_submit(st, i));
    st->encoded = true;
    st->table_generation = st->gpu->table_generation;
error:
    return err;
}

static kim_err submit_locked(stream *st)
{
    kim_err err = KIM_OK;
    kim_gpu *g = st->gpu;
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
    st->stats.submits += st->n_submits;
    return KIM_OK;
error:
    g->vk.vkQueueWaitIdle(
        g->queue); // for those before the one that failed: their buffers are reused
    return err;
}

// What submit `index` took on the device. A queue may begin with one while another runs, and its
// time is that after the other. The caller holds the lock.
static bool submit_ns(const stream *st, uint32_t index, double *ns)
{
    kim_gpu *g = st->gpu;
    uint64_t stamps[2];
    if (!st->times ||
        g->vk.vkGetQueryPoolResults(g->device, st->times, 2 * index, 2, sizeof stamps, stamps,
                                    sizeof stamps[0], VK_QUERY_RESULT_64_BIT) != VK_SUCCESS)
        return false;
    const uint64_t before = g->last_stamp;
    g->last_stamp = stamps[1];
    // they are of fewer than 64 bits, and have begun anew; or a later submit was looked at before
    if (stamps[1] < stamps[0] || stamps[1] < before)
        return false;
    const uint64_t start = stamps[0] > before ? stamps[0] : before;
    *ns = (double)(stamps[1] - start) * (double)g->limits.timestampPeriod;
    return true;
}

// Takes note of how long submit `index` took.
static void learn_submit(stream *st, uint32_t index, double ns)
{
    pacing *p = st->gpu->pacing;
    pacing_begin(p);
    for (uint32_t i = index ? st->ends[index - 1] : 0; i < st->ends[index]; i++)
        pacing_add(p, &st->commands[st->pieces[i].command].paced, st->pieces[i].count);
    pacing_took(p, ns);
    st->stats.last_seconds += ns * 1e-9;
    st->stats.longest_submit =
        ns * 1e-9 > st->stats.longest_submit ? ns * 1e-9 : st->stats.longest_submit;
}

// Whether the list can be cut by what is known: everything in it has been measured, and enough of
// it at once. Without time stamps nothing is learnt of a run that is not waited for.
static bool can_cut(const stream *st)
{
    double ns = 0;
    if (!st->gpu->limits.timestampComputeAndGraphics)
        return false;
    for (uint32_t i = 0; i < st->n_commands; i++) {
        if (!pacing_knows(st->gpu->pacing, st->commands[i].paced.kind))
            return false;
        ns += pacing_expected(st->gpu->pacing, &st->commands[i].paced);
    }
    return st->encoded || count_submits(st) <= 64 + 4 * ns / SUBMIT_NS;
}

// Room for the time stamps of a traced submit of so many pieces.
static kim_err make_stamps(stream *st, uint32_t pieces)
{
    kim_err err = KIM_OK;
    kim_gpu *g = st->gpu;
    if (pieces + 1 <= st->stamps_room || !g->limits.timestampComputeAndGraphics)
        return KIM_OK;
    g->vk.vkDestroyQueryPool(g->device, st->stamps, NULL);
    st->stamps = VK_NULL_HANDLE;
    const VkQueryPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
        .queryType = VK_QUERY_TYPE_TIMESTAMP,
        .queryCount = pieces + 1,
    };
    VK_TRY(g->vk.vkCreateQueryPool(g->device, &info, NULL, &st->stamps));
    st->stamps_room = pieces + 1;
error:
    return err;
}

static kim_err submit_next(stream *st, piece *at)
{
    kim_err err = KIM_OK;
    VK_TRY(st->gpu->vk.vkResetCommandPool(st->gpu->device, st->pool, 0));
    forget_cuts(st);
    TRY(cut_submit(st, at));
    TRY(make_room(st, 1));
    if (st->traced)
        TRY(make_stamps(st, st->n_pieces));
    TRY(encode_submit(st, 0));
    TRY(submit_locked(st));
error:
    return err;
}

// What attention reads is counted from the position of the rows.
static uint64_t keys_read(const dispatch_note *n, uint32_t position)
{
    const uint64_t all = (uint64_t)position + n->rows, most = (uint64_t)n->window + n->rows - 1;
    return !n->rows ? 0 : all < most ? all : most;
}

static double keys_seen(const dispatch_note *n, uint32_t position)
{
    double sum = 0;
    for (uint32_t r = 1; r <= n->rows; r++)
        sum += position + r < n->window ? position + r : n->window;
    return sum;
}

static kim_trace_use use_of(const span_use *u)
{
    return !u->write ? KIM_TRACE_READS : u->read ? KIM_TRACE_CHANGES : KIM_TRACE_WRITES;
}

static const char *tensor_name(const span_use *u)
{
    return u->span.name ? u->span.name : u->span.pool->name;
}

static void tell(const stream *st, uint64_t run, uint32_t submit, uint32_t index, double seconds)
{
    const command *c = &st->commands[index];
    const uint64_t keys = keys_read(&c->note, st->position);
    kim_trace_event e = {
        .run = run,
        .command = index,
        .submit = submit,
        .kind = (kim_trace_kind)c->kind,
        .section = c->section,
        .section_index = c->section_index,
        .operation = c->note.op,
        .groups = { c->groups[0], c->groups[1], c->groups[2] },
        .flop = c->note.flop + c->note.flop_per_key * keys_seen(&c->note, st->position),
        .n_tensors = c->n_accesses,
        .seconds = seconds,
        .barrier = { .there = c->barrier },
    };
    for (uint32_t i = 0; i < c->n_accesses; i++) {
        const span_use *u = &c->accesses[i];
        e.tensors[i] =
            (kim_trace_tensor){ tensor_name(u), u->read + u->read_per_key * keys, u->written };
        e.read += e.tensors[i].read;
        e.written += e.tensors[i].written;
    }
    if (c->barrier && c->waits_for.command != UINT32_MAX) {
        const span_use *before = &st->commands[c->waits_for.command].accesses[c->waits_for.access];
        e.barrier.tensor = tensor_name(before);
        e.barrier.after = c->waits_for.command;
        e.barrier.before = use_of(before);
        e.barrier.now = use_of(&c->accesses[c->waits_to]);
    }
    if (st->gpu->trace) // the callback itself may have ended the trace
        st->gpu->trace(st->gpu->trace_user, &e);
}

// Tells of the commands that ended with submit 0, which is that number of the run.
//
// before: seconds that earlier submits took of the command that this one begins with; set to those
//         of the one that goes on in the next
static kim_err trace_submit(const stream *st, uint64_t run, uint32_t submit, double *before)
{
    kim_err err = KIM_OK;
    kim_gpu *g = st->gpu;
    const uint32_t n = st->n_pieces + 1;
    uint64_t *stamps = calloc(n, sizeof *stamps);
    REQUIRE_MEMORY(stamps);
    const bool timed = st->stamps && g->vk.vkGetQueryPoolResults(
                                         g->device, st->stamps, 0, n, n * sizeof *stamps, stamps,
                                         sizeof *stamps, VK_QUERY_RESULT_64_BIT) == VK_SUCCESS;
    for (uint32_t i = 0; i < st->n_pieces; i++) {
        const piece *p = &st->pieces[i];
        const bool counted = timed && stamps[i + 1] >= stamps[i]; // else they have begun anew
        *before +=
            counted ? (double)(stamps[i + 1] - stamps[i]) * (double)g->limits.timestampPeriod * 1e-9
                    : NAN;
        if (p->first + p->count < st->commands[p->command].paced.units)
            continue;
        tell(st, run, submit, p->command, *before);
        *before = 0;
    }
error:
    free(stamps);
    return err;
}

// A run that is traced, or with something of unknown duration: each submit is waited for, and the
// next one made up with what was learnt. Without time stamps the host's clock does.
static kim_err run_and_learn(stream *st)
{
    kim_err err = KIM_OK;
    kim_gpu *g = st->gpu;
    uint32_t submits = 0;
    const uint64_t run = st->traced ? ++g->trace_runs : 0;
    double cut_seconds = 0; // of a command that is in several submits
    st->stats.last_seconds = st->stats.longest_submit = 0;
    for (piece at = { 0 }; at.command < st->n_commands; submits++) {
        const double start = clock_seconds();
        pthread_mutex_lock(&g->lock);
        err = submit_next(st, &at);
        pthread_mutex_unlock(&g->lock);
        TRY(err);
        TRY(gpu_wait(g, st->value));
        double ns;
        pthread_mutex_lock(&g->lock);
        if (!submit_ns(st, 0, &ns))
            ns = (clock_seconds() - start) * 1e9;
        learn_submit(st, 0, ns);
        pacing_learn(g->pacing);
        pthread_mutex_unlock(&g->lock);
        if (st->traced)
            TRY(trace_submit(st, run, submits, &cut_seconds));
    }
    st->n_submits = submits;
error:
    return err;
}

kim_err stream_submit(stream *st)
{
    kim_err err = KIM_OK;
    kim_gpu *g = st->gpu;
    if (!st->n_commands)
        return KIM_OK;
    TRY(stream_wait(st));
    st->traced = g->trace != NULL;
    pthread_mutex_lock(&g->lock);
    const bool known = !st->traced && can_cut(st);
    if (known && (!st->encoded || st->table_generation != g->table_generation))
        err = encode(st);
    if (known && !err)
        err = submit_locked(st);
    pthread_mutex_unlock(&g->lock);
    TRY(err);
    if (known)
        st->times_pending = st->times != VK_NULL_HANDLE;
    else
        TRY(run_and_learn(st));
    st->stats.dispatches += st->n_dispatches;
    st->stats.barriers += st->n_barriers;
error:
    return err;
}

// Learns from the last run how long its commands take, and has them cut anew where a submit was too
// long, or where fewer would do.
static void learn(stream *st)
{
    bool too_long = false;
    st->times_pending = false;
    st->stats.last_seconds = st->stats.longest_submit = 0;
    for (uint32_t i = 0; i < st->n_submits; i++) {
        double ns;
        if (!submit_ns(st, i, &ns)) {
            st->stats.last_seconds = 0; // of a part it would say nothing
            return;
        }
        learn_submit(st, i, ns);
        const uint32_t first = i ? st->ends[i - 1] : 0;
        // by a third, so that noise does not cut again and again
        if (ns > 1.33 * SUBMIT_NS && (st->ends[i] - first > 1 || st->pieces[first].count > 1))
            too_long = true;
    }
    pacing_learn(st->gpu->pacing);
    if (too_long || (st->n_submits > 1 && count_submits(st) < 0.75 * st->n_submits))
        st->encoded = false;
}

kim_err stream_wait(stream *st)
{
    kim_err err = KIM_OK;
    if (!st->value)
        return KIM_OK;
    TRY(gpu_wait(st->gpu, st->value));
    if (st->times_pending) {
        pthread_mutex_lock(&st->gpu->lock);
        learn(st);
        pthread_mutex_unlock(&st->gpu->lock);
    }
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
