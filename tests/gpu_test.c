// SPDX-License-Identifier: MIT
// Devices, memory, streams, uploads, and the file of the pipeline cache, on a driver.
//   gpu_test [TESTS_FOLDER [MODEL]] [--device D] [--validation]
#include "ops_harness.h"
#include "check.h"

#include <stdlib.h>
#include <string.h>

#include "host/device.h"
#include "host/pacing.h"

static const char *wanted_device;
static bool validation;
static uint32_t validation_messages;
static char log_text[4096]; // of the device opened last

static void keep_log(void *user, kim_log_level level, const char *text)
{
    (void)user;
    if (level == KIM_LOG_ERROR)
        fprintf(stderr, "%s\n", text);
    const size_t used = strlen(log_text);
    snprintf(log_text + used, sizeof log_text - used, "%s\n", text);
}

// params: what is not the same for all of these tests
static kim_gpu *open_gpu(kim_gpu_params params)
{
    kim_gpu *gpu = NULL;
    log_text[0] = 0;
    params.device = params.device ? params.device : wanted_device;
    params.cache_dir = params.cache_dir ? params.cache_dir : "";
    params.validation = validation;
    params.log = keep_log;
    MUST(kim_gpu_create(&gpu, &params));
    return gpu;
}

static void close_gpu(kim_gpu **gpu)
{
    validation_messages += kim_gpu_validation_messages(*gpu);
    CHECK(kim_gpu_memory_used(*gpu) == 0, "%llu bytes were not given back",
          (unsigned long long)kim_gpu_memory_used(*gpu));
    kim_gpu_destroy(gpu);
    CHECK(!*gpu, "the pointer is kept");
}

// ------------------------------------------------------------------------------------ devices

static void test_choice(void)
{
    kim_device_info infos[4] = {
        { .index = 0,
          .name = "Fast One 100",
          .uuid = "00000000-0000-0000-0000-00000000000a",
          .type = KIM_DEVICE_DISCRETE,
          .memory = 1ull << 30,
          .usable = true },
        { .index = 1,
          .name = "Fast One 200",
          .uuid = "00000000-0000-0000-0000-00000000000b",
          .type = KIM_DEVICE_DISCRETE,
          .memory = 2ull << 30,
          .usable = true,
          .chosen = true },
        { .index = 2,
          .name = "Slow",
          .uuid = "00000000-0000-0000-0000-00000000000c",
          .type = KIM_DEVICE_CPU,
          .memory = 8ull << 30,
          .usable = true },
        { .index = 3,
          .name = "Old",
          .uuid = "00000000-0000-0000-0000-00000000000d",
          .type = KIM_DEVICE_DISCRETE,
          .problem = "has no 16-bit storage" },
    };
    static const struct {
        const char *wanted;
        uint32_t index;
    } cases[] = {
        { NULL, 1 },
        { "0", 0 },
        { "2", 2 },
        { "fast one", 1 },
        { "100", 0 },
        { "SLOW", 2 },
        { "00000000-0000-0000-0000-00000000000C", 2 },
    };
    uint32_t chosen;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *wanted = cases[i].wanted;
        if (wanted && !strcmp(wanted, "100")) // digits only: an index
            CHECK_FAILS(device_choose(infos, 4, wanted, &chosen), KIM_ERR_NO_DEVICE, "'100'");
        else if (device_choose(infos, 4, wanted, &chosen) || chosen != cases[i].index)
            CHECK(false, "'%s' is not device %u", wanted ? wanted : "(default)", cases[i].index);
    }
    CHECK_FAILS(device_choose(infos, 4, "3", &chosen), KIM_ERR_NO_DEVICE, "no 16-bit storage");
    CHECK_FAILS(device_choose(infos, 4, "none such", &chosen), KIM_ERR_NO_DEVICE, "'none such'");
    CHECK_FAILS(device_choose(infos, 0, NULL, &chosen), KIM_ERR_NO_DEVICE, "no Vulkan device");
}

static void test_devices(void)
{
    kim_device_info infos[DEVICE_MAX];
    uint32_t count = 0, room = DEVICE_MAX, chosen = 0;
    MUST(kim_list_devices(NULL, &count));
    MUST(kim_list_devices(infos, &room));
    CHECK(count == room && count > 0, "%u devices, then %u", count, room);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(infos[i].index == i && infos[i].name[0] && infos[i].reason[0], "device %u", i);
        CHECK(infos[i].usable == !infos[i].problem[0], "%s: %s", infos[i].name, infos[i].problem);
        chosen += infos[i].chosen;
    }
    CHECK(chosen == 1, "%u devices are the default", chosen);

    kim_gpu *gpu = open_gpu((kim_gpu_params){ 0 });
    const kim_device_info info = *kim_gpu_info(gpu);
    CHECK(strstr(log_text, info.name) && strstr(log_text, "mode"), "the log says: %s", log_text);
    close_gpu(&gpu);
    gpu = open_gpu((kim_gpu_params){ .device = info.uuid });
    CHECK(kim_gpu_info(gpu)->index == info.index, "chosen by UUID");
    close_gpu(&gpu);
    CHECK_FAILS(kim_gpu_create(&gpu, &(kim_gpu_params){ .device = "no such device" }),
                KIM_ERR_NO_DEVICE, "no such device");
    CHECK(!gpu, "a device in spite of the error");
    CHECK_FAILS(kim_gpu_create(NULL, NULL), KIM_ERR_ARGUMENT, "NULL");
    if (!info.buffer_device_address)
        CHECK_FAILS(kim_gpu_create(&gpu, &(kim_gpu_params){ .memory_mode = KIM_MEMORY_ADDRESS,
                                                            .device = wanted_device }),
                    KIM_ERR_UNSUPPORTED, "table");
}

// ------------------------------------------------------------------------------------- memory

static void test_cap(void)
{
    kim_gpu *gpu = open_gpu((kim_gpu_params){ .memory_cap = 1 << 20 });
    pool p, q;
    span s;
    pool_init(&p, "first", POOL_DEVICE, 0);
    pool_init(&q, "second", POOL_DEVICE, 0);
    MUST(pool_place(&p, 700000, &s));
    MUST(pool_place(&q, 400000, &s));
    MUST(pool_commit(&p, gpu));
    CHECK(kim_gpu_memory_used(gpu) == pool_bytes(&p), "%llu bytes are counted",
          (unsigned long long)kim_gpu_memory_used(gpu));
    CHECK_FAILS(pool_commit(&q, gpu), KIM_ERR_DEVICE_MEMORY, "cap of 1.0 MiB");
    CHECK(kim_gpu_memory_used(gpu) == pool_bytes(&p), "what failed is counted");
    pool_destroy(&q);
    pool_destroy(&p);
    pool_init(&q, "second", POOL_DEVICE, 0);
    MUST(pool_place(&q, 1 << 20, &s));
    MUST(pool_commit(&q, gpu)); // just the cap
    pool_destroy(&q);
    CHECK(kim_gpu_memory_peak(gpu) == 1 << 20, "the peak is %llu",
          (unsigned long long)kim_gpu_memory_peak(gpu));
    close_gpu(&gpu);
}

static void test_pool_limits(void)
{
    pool p;
    span spans[40];
    pool_init(&p, "limits", POOL_DEVICE, 10000 / 256 * 256);
    for (uint32_t i = 0; i < 40; i++) {
        MUST(pool_place(&p, 1 + i * 197 % 5000, &spans[i]));
        CHECK(spans[i].offset % POOL_ALIGNMENT == 0, "offset %u", spans[i].offset);
        CHECK(spans[i].offset + spans[i].bytes <= p.block_limit, "a tensor leaves its block");
        for (uint32_t j = 0; j < i; j++)
            CHECK(spans[i].block != spans[j].block ||
                      spans[i].offset >= spans[j].offset + spans[j].bytes ||
                      spans[j].offset >= spans[i].offset + spans[i].bytes,
                  "tensors %u and %u share bytes", i, j);
    }
    CHECK(p.n_blocks > 5, "%u blocks", p.n_blocks);
    for (uint32_t i = 0; i < p.n_blocks; i++)
        CHECK(p.blocks[i].bytes <= p.block_limit, "block %u is too large", i);
    pool_destroy(&p);
}

// Blocks come and go; what was recorded before still runs. One too many is an error.
static void test_table(void)
{
    kim_gpu *gpu = open_gpu((kim_gpu_params){ .memory_mode = KIM_MEMORY_TABLE });
    static pool pools[GPU_MAX_BLOCKS + 1];
    uint32_t n = 0;
    span s;
    kim_err err = KIM_OK;
    while (!err && n <= GPU_MAX_BLOCKS) {
        pool_init(&pools[n], "table", POOL_DEVICE, 0);
        MUST(pool_place(&pools[n], 256, &s));
        err = pool_commit(&pools[n++], gpu);
    }
    CHECK(err == KIM_ERR_DEVICE_MEMORY && n == gpu->table_size + 1, "%u blocks fit", n - 1);
    CHECK(strstr(kim_error_text(), "table"), "%s", kim_error_text());
    pool_destroy(&pools[3]);
    pool_init(&pools[3], "table", POOL_DEVICE, 0);
    MUST(pool_place(&pools[3], 256, &s));
    MUST(pool_commit(&pools[3], gpu));
    CHECK(pools[3].blocks[0].slot == 3, "the free slot is not taken: %u", pools[3].blocks[0].slot);
    for (uint32_t i = 0; i < n; i++)
        pool_destroy(&pools[i]);
    close_gpu(&gpu);
}

// ------------------------------------------------------------------------------------ streams

enum { WORDS = 1000 };

static bool all_are(const span *s, uint32_t word)
{
    const uint32_t *words = span_map(s);
    for (uint64_t i = 0; i < s->bytes / 4; i++)
        if (words[i] != word)
            return false;
    return true;
}

static void test_barriers(kim_memory_mode mode)
{
    kim_gpu *gpu = open_gpu((kim_gpu_params){ .memory_mode = mode });
    // with validation, table mode has one before every command: see stream.c
    const uint32_t barriers = validation && !gpu->address ? 7 : 3;
    pool p, other;
    span s[6], unused;
    stream *st = NULL;
    stream_stats stats;
    pool_init(&p, "tensors", POOL_READBACK, 0);
    for (int i = 0; i < 6; i++)
        MUST(pool_place(&p, WORDS * 4, &s[i]));
    MUST(pool_commit(&p, gpu));
    MUST(stream_create(&st, gpu));
    MUST(stream_submit(st)); // of nothing
    MUST(stream_wait(st));

    MUST(stream_fill(st, &s[0], 7));
    MUST(stream_fill(st, &s[1], 8));     // independent
    MUST(stream_copy(st, &s[2], &s[0])); // reads 0: waits
    MUST(stream_copy(st, &s[3], &s[0])); // reads what was read: goes along
    MUST(stream_copy(st, &s[4], &s[1]));
    MUST(stream_fill(st, &s[0], 9));     // writes what was read: waits
    MUST(stream_copy(st, &s[5], &s[2])); // written before that barrier: goes along
    MUST(stream_copy(st, &s[1], &s[0])); // waits
    MUST(stream_submit(st));
    MUST(stream_wait(st));
    stream_get_stats(st, &stats);
    CHECK(stats.barriers == barriers, "%u barriers, not %u", (unsigned)stats.barriers, barriers);
    CHECK(stats.submits == 1 && stats.list_submits == 1, "%u submits", (unsigned)stats.submits);
    static const uint32_t want[6] = { 9, 9, 7, 7, 8, 7 };
    for (int i = 0; i < 6; i++)
        CHECK(all_are(&s[i], want[i]), "tensor %d is not %u", i, want[i]);

    // again, with a block more: the table of blocks has changed since
    pool_init(&other, "other", POOL_DEVICE, 0);
    MUST(pool_place(&other, 256, &unused));
    MUST(pool_commit(&other, gpu));
    for (int run = 0; run < 3; run++) {
        memset(p.blocks[0].mapped, 0, p.blocks[0].bytes);
        MUST(stream_submit(st));
        MUST(stream_wait(st));
        for (int i = 0; i < 6; i++)
            CHECK(all_are(&s[i], want[i]), "run %d: tensor %d is not %u", run, i, want[i]);
    }
    stream_get_stats(st, &stats);
    CHECK(stats.submits == 4 && stats.barriers == 4 * barriers, "the runs are not counted");
    MUST(stream_reset(st));
    stream_get_stats(st, &stats);
    CHECK(stats.list_dispatches == 0, "the list is not empty");
    stream_destroy(&st);
    pool_destroy(&other);
    pool_destroy(&p);
    close_gpu(&gpu);
}

// Devices that are made up: what a kind takes for a unit, the first of it less than the rest.
typedef struct made_up {
    double unit_ns, first_share; // of unit_ns, for the first tenth of a command
    uint64_t units;
} made_up;

// Submits one run of `n` commands as stream.c does; careful: learns from each submit.
// most: the longest submit of several units
static uint32_t pace_run(pacing *p, const made_up *device, const paced_command *c, uint32_t n,
                         bool careful, double *most)
{
    uint32_t submits = 0, i = 0;
    uint64_t at = 0;
    *most = 0;
    while (i < n) {
        double ns = 0;
        uint64_t units = 0;
        pacing_begin(p);
        for (uint64_t fit; i < n && (fit = pacing_fit(p, &c[i], c[i].units - at)); units += fit) {
            for (uint64_t u = at; u < at + fit; u++)
                ns += device->unit_ns * (u * 10 < c[i].units ? device->first_share : 1);
            at += fit;
            if (at < c[i].units)
                break;
            at = 0;
            i++;
        }
        pacing_took(p, ns);
        if (careful)
            pacing_learn(p);
        submits++;
        if (units > 1 && ns > *most)
            *most = ns;
    }
    pacing_learn(p);
    return submits;
}

static void test_pacing(void)
{
    static const made_up devices[] = {
        { 1e9, 1, 64 },      // hopeless: a unit takes a second
        { 30e6, 1, 269 },    // no two units fit
        { 1e6, 1, 100000 },  // slow
        { 1e6, 0.01, 1000 }, // slow, and at first it does not seem so
        { 1, 1, 1000000 },   // fast
    };
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        pacing *p = NULL;
        uint32_t kind;
        double most;
        MUST(pacing_create(&p));
        MUST(pacing_kind(p, 7, &kind));
        CHECK(!pacing_knows(p, kind), "device %zu is known", i);
        const paced_command c[2] = { { kind, 4e10, devices[i].units, 1 },
                                     { kind, 4e10, devices[i].units, 1 } };
        for (int run = 0; run < 3; run++) {
            const uint32_t submits = pace_run(p, &devices[i], c, 2, run == 0, &most);
            // where the first tenth deceives, the first run may be off by the growth of a step
            CHECK(most < (run || devices[i].first_share == 1 ? 1.4 * SUBMIT_NS : 0.5e9),
                  "device %zu, run %d: a submit of %g ms", i, run, most * 1e-6);
            const double all = 2 * devices[i].unit_ns * (double)devices[i].units;
            CHECK(run < 2 || submits <= 2 + 2 * all / SUBMIT_NS, "device %zu: %u submits", i,
                  submits);
        }
        CHECK(pacing_knows(p, kind), "device %zu is not known", i);
        pacing_destroy(&p);
    }
}

// A dispatch of a grid of workgroups in three dimensions, much longer than it is allowed to be at
// first; then the same as often as wanted. Every run must leave the same.
static void test_cut_dispatch(uint32_t heads, uint32_t rows, uint32_t images, bool print)
{
    enum { HEAD = 32 };
    kim_gpu *gpu = open_gpu((kim_gpu_params){ 0 });
    const uint32_t width = heads * HEAD;
    const uint64_t n = (uint64_t)images * rows * width;
    pool p;
    span qkv, y;
    stream *st = NULL;
    stream_stats stats;
    float *first = malloc(n * sizeof *first);
    CHECK(first, "out of memory");
    pool_init(&p, "activations", POOL_READBACK, 0);
    MUST(pool_place(&p, 12 * n, &qkv));
    MUST(pool_place(&p, 4 * n, &y));
    MUST(pool_commit(&p, gpu));
    ops_fill_normal(span_map(&qkv), 3 * n, 1);
    MUST(stream_create(&st, gpu));
    MUST(op_attention_full(st, &(attention_full_params){
                                   .qkv = &qkv,
                                   .y = &y,
                                   .heads = heads,
                                   .head = HEAD,
                                   .images = images,
                                   .rows = rows,
                                   .scale = 0.18f,
                               }));
    for (int run = 0; run < 4; run++) {
        memset(span_map(&y), 0xff, y.bytes);
        MUST(stream_submit(st));
        MUST(stream_wait(st));
        stream_get_stats(st, &stats);
        if (print)
            printf("  run %d: %u submits, %.1f ms in all, %.1f ms the longest\n", run,
                   stats.list_submits, stats.last_seconds * 1e3, stats.longest_submit * 1e3);
        if (run == 0)
            memcpy(first, span_map(&y), y.bytes);
        for (uint64_t i = 0; i < n; i++)
            CHECK(first[i] == first[i], "y[%llu] was not written", (unsigned long long)i);
        CHECK(!memcmp(first, span_map(&y), y.bytes), "run %d is not as the first", run);
        CHECK(run || stats.list_submits > 1, "the first run is one submit");
    }
    CHECK(stats.list_dispatches == 1 && stats.dispatches == 4, "pieces are counted as dispatches");
    stream_destroy(&st);
    pool_destroy(&p);
    free(first);
    close_gpu(&gpu);
}

// Copies and fills that are longer than they are allowed to be at first.
static void test_cut_copies(void)
{
    enum { COPY_BYTES = (90 << 20) + 40 };
    kim_gpu *gpu = open_gpu((kim_gpu_params){ 0 });
    pool from_pool, to_pool;
    span from, to;
    stream *st = NULL;
    stream_stats stats;
    pool_init(&from_pool, "from", POOL_READBACK, 0);
    pool_init(&to_pool, "to", POOL_READBACK, 0);
    MUST(pool_place(&from_pool, COPY_BYTES, &from));
    MUST(pool_place(&to_pool, COPY_BYTES, &to));
    MUST(pool_commit(&from_pool, gpu));
    MUST(pool_commit(&to_pool, gpu));
    MUST(stream_create(&st, gpu));
    MUST(stream_fill(st, &from, 77));
    MUST(stream_copy(st, &to, &from));
    for (int run = 0; run < 2; run++) {
        memset(span_map(&from), 0, from.bytes);
        memset(span_map(&to), 0, to.bytes);
        MUST(stream_submit(st));
        MUST(stream_wait(st));
        stream_get_stats(st, &stats);
        CHECK(run || stats.list_submits > 2, "%u submits of a fill and a copy", stats.list_submits);
        CHECK(all_are(&from, 77) && all_are(&to, 77), "run %d: not all was filled and copied", run);
    }
    stream_destroy(&st);
    pool_destroy(&from_pool);
    pool_destroy(&to_pool);
    close_gpu(&gpu);
}

// ------------------------------------------------------------------------------------ uploads

enum { UPLOAD_BYTES = 20 << 20 };

typedef struct progress_log {
    uint64_t done, calls, stop_at;
} progress_log;

static bool count_progress(void *user, uint64_t done, uint64_t total)
{
    progress_log *log = user;
    CHECK(done > log->done && done <= total, "%llu bytes of %llu after %llu",
          (unsigned long long)done, (unsigned long long)total, (unsigned long long)log->done);
    log->done = done;
    log->calls++;
    return !log->stop_at || done < log->stop_at;
}

static void test_upload(bool staging)
{
    kim_gpu *gpu = open_gpu((kim_gpu_params){ 0 });
    if (staging)
        gpu->info.unified_memory = false;
    else if (!gpu->info.unified_memory)
        printf("this device has no unified memory: uploads are tested with staging only\n");
    uint8_t *data = malloc(UPLOAD_BYTES);
    CHECK(data, "out of memory");
    for (uint32_t i = 0; i < UPLOAD_BYTES; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 24);
    pool p, back;
    span to, from;
    uploader *u = NULL;
    stream *st = NULL;
    progress_log log = { 0 };
    pool_init(&p, "weights", POOL_DEVICE, 0);
    pool_init(&back, "back", POOL_READBACK, 0);
    MUST(pool_place(&p, UPLOAD_BYTES, &to));
    MUST(pool_place(&back, UPLOAD_BYTES, &from));
    MUST(pool_commit(&p, gpu));
    MUST(pool_commit(&back, gpu));
    CHECK(!span_map(&to) == !gpu->info.unified_memory, "mapped memory is not what it should be");
    MUST(uploader_create(&u, gpu, count_progress, &log, UPLOAD_BYTES));
    MUST(upload_bytes(u, &to, data, UPLOAD_BYTES));
    MUST(uploader_finish(u));
    CHECK(log.done == UPLOAD_BYTES && log.calls == 5, "progress in %u calls", (unsigned)log.calls);
    MUST(stream_create(&st, gpu));
    MUST(stream_copy(st, &from, &to));
    MUST(stream_submit(st));
    MUST(stream_wait(st));
    CHECK(!memcmp(span_map(&from), data, UPLOAD_BYTES), "not what was uploaded");
    uploader_destroy(&u);

    log = (progress_log){ .stop_at = 1 };
    MUST(uploader_create(&u, gpu, count_progress, &log, UPLOAD_BYTES));
    CHECK_FAILS(upload_bytes(u, &to, data, UPLOAD_BYTES), KIM_ERR_CANCELLED, "cancelled");
    CHECK(log.calls == 1, "%u calls after the stop", (unsigned)log.calls);
    uploader_destroy(&u);
    stream_destroy(&st);
    pool_destroy(&p);
    pool_destroy(&back);
    free(data);
    close_gpu(&gpu);
}

// A matrix of several pieces, packed by all threads at once, its last group not whole.
static void test_upload_matrix(bool staging)
{
    enum { ROWS = 3003, WIDTH = 4096 };
    kim_gpu *gpu = open_gpu((kim_gpu_params){ 0 });
    if (staging)
        gpu->info.unified_memory = false;
    const weight_type *type = weight_type_find(1); // F16
    const uint64_t row_bytes = weight_row_bytes(type, WIDTH);
    const uint64_t group_bytes = weight_group_bytes(type, WIDTH);
    uint8_t *data = malloc(ROWS * row_bytes), *packed = malloc(group_bytes);
    CHECK(data && packed, "out of memory");
    for (uint64_t i = 0; i < ROWS * row_bytes; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 24);
    const matrix_source source = { .name = "w", .type = type, .data = data, .rows = ROWS };
    pool weights, back;
    span from;
    linear l;
    uploader *u = NULL;
    stream *st = NULL;
    progress_log log = { 0 };
    pool_init(&weights, "weights", POOL_DEVICE, 0);
    pool_init(&back, "back", POOL_READBACK, 0);
    MUST(linear_place(&l, &weights, &source, 1, WIDTH, false));
    MUST(pool_place(&back, l.parts[0].w.bytes, &from));
    MUST(pool_commit(&weights, gpu));
    MUST(pool_commit(&back, gpu));
    MUST(uploader_create(&u, gpu, count_progress, &log, l.parts[0].w.bytes));
    MUST(upload_linear(u, &l));
    MUST(uploader_finish(u));
    CHECK(log.done == l.parts[0].w.bytes, "progress ended at %llu", (unsigned long long)log.done);
    MUST(stream_create(&st, gpu));
    MUST(stream_copy(st, &from, &l.parts[0].w));
    MUST(stream_submit(st));
    MUST(stream_wait(st));
    const uint8_t *found = span_map(&from);
    for (uint32_t g = 0; g * WEIGHT_GROUP < ROWS; g++) {
        const void *rows[WEIGHT_GROUP];
        for (uint32_t r = 0; r < WEIGHT_GROUP; r++) {
            const uint32_t row = g * WEIGHT_GROUP + r;
            rows[r] = row < ROWS ? data + row * row_bytes : NULL;
        }
        weight_pack(type, rows, WIDTH, packed);
        CHECK(!memcmp(found + g * group_bytes, packed, group_bytes), "group %u is another", g);
    }
    uploader_destroy(&u);

    log = (progress_log){ .stop_at = 1 };
    MUST(uploader_create(&u, gpu, count_progress, &log, l.parts[0].w.bytes));
    MUST(upload_linear(u, &l));
    CHECK_FAILS(uploader_finish(u), KIM_ERR_CANCELLED, "cancelled");
    uploader_destroy(&u);
    stream_destroy(&st);
    linear_destroy(&l);
    pool_destroy(&weights);
    pool_destroy(&back);
    free(data);
    free(packed);
    close_gpu(&gpu);
}

// ----------------------------------------------------------------------------- pipeline cache

static char cache_dir[200], cache_file[600];

// Opens a device with the cache in cache_dir and makes a pipeline.
static void make_pipeline(uint32_t workgroup)
{
    kim_gpu *gpu = open_gpu((kim_gpu_params){ .cache_dir = cache_dir });
    VkPipeline pipeline, again;
    const pipeline_key key = { KIM_VARIANT_NORM, { workgroup } };
    MUST(pipeline_get(gpu, &key, &pipeline));
    MUST(pipeline_get(gpu, &key, &again));
    CHECK(pipeline == again, "made twice");
    snprintf(cache_file, sizeof cache_file, "%s/pipelines-%s-%s.bin", cache_dir, gpu->info.uuid,
             gpu->address ? "address" : "table");
    close_gpu(&gpu);
}

static bool said_damaged(void)
{
    return strstr(log_text, "damaged") != NULL;
}

static long read_cache(uint8_t *bytes, size_t room)
{
    FILE *f = fopen(cache_file, "rb");
    CHECK(f, "%s was not written", cache_file);
    const size_t n = fread(bytes, 1, room, f);
    fclose(f);
    return (long)n;
}

static void write_cache(const uint8_t *bytes, long n)
{
    FILE *f = fopen(cache_file, "wb");
    CHECK(f && fwrite(bytes, 1, (size_t)n, f) == (size_t)n && !fclose(f), "%s", cache_file);
}

static void test_cache(void)
{
    static uint8_t whole[1 << 22], damaged[1 << 22];
    const char *temporary = getenv("TMPDIR");
    snprintf(cache_dir, sizeof cache_dir, "%s/kim_gpu_test_XXXXXX", temporary ? temporary : "/tmp");
    CHECK(mkdtemp(cache_dir), "no folder %s", cache_dir);
    make_pipeline(8);
    CHECK(!said_damaged(), "%s", log_text);
    const long n = read_cache(whole, sizeof whole);
    CHECK(n > 64 && !memcmp(whole, "KIMPIPE1", 8), "%ld bytes", n);
    make_pipeline(8);
    CHECK(!said_damaged(), "%s", log_text);
    // a changed byte of the content, of the vendor's number, of the length; cut short; not a cache
    const long flips[] = { n - 1, 8, 40 };
    for (size_t i = 0; i < sizeof flips / sizeof *flips; i++) {
        memcpy(damaged, whole, (size_t)n);
        damaged[flips[i]] ^= 0x55;
        write_cache(damaged, n);
        make_pipeline(8);
        CHECK(said_damaged(), "byte %ld: %s", flips[i], log_text);
        make_pipeline(8);
        CHECK(!said_damaged(), "the damaged file was not replaced: %s", log_text);
    }
    write_cache(whole, n - 10);
    make_pipeline(8);
    CHECK(said_damaged(), "cut short: %s", log_text);
    write_cache((const uint8_t *)"no cache", 8);
    make_pipeline(8);
    CHECK(remove(cache_file) == 0 && remove(cache_dir) == 0, "there is more than one file");
    // a folder that cannot be: everything works without
    snprintf(cache_dir, sizeof cache_dir, "/dev/null/none");
    make_pipeline(8);
}

static void test_many_pipelines(void)
{
    kim_gpu *gpu = open_gpu((kim_gpu_params){ 0 });
    pipeline_key keys[12];
    VkPipeline pipeline;
    for (uint32_t i = 0; i < 12; i++)
        keys[i] = (pipeline_key){ i % 2 ? KIM_VARIANT_NORM : KIM_VARIANT_GEGLU, { 4u << i / 3 } };
    MUST(pipeline_get_all(gpu, keys, 12));
    for (uint32_t i = 0; i < 12; i++)
        MUST(pipeline_get(gpu, &keys[i], &pipeline));
    close_gpu(&gpu);
}

int main(int argc, char **argv)
{
    validation = getenv("KIM_VALIDATION") != NULL;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--validation"))
            validation = true;
        else if (!strcmp(argv[i], "--device") && i + 1 < argc)
            wanted_device = argv[++i];
    }
    test_choice();
    test_devices();
    test_cap();
    test_pool_limits();
    test_table();
    test_barriers(KIM_MEMORY_AUTO);
    test_barriers(KIM_MEMORY_TABLE);
    const bool wanted_validation = validation;
    validation = false; // the barriers as they are
    test_barriers(KIM_MEMORY_AUTO);
    test_barriers(KIM_MEMORY_TABLE);
    validation = wanted_validation;
    test_pacing();
    test_cut_copies();
    test_cut_dispatch(7, 5 * 64, 3, false);
    test_cut_dispatch(3, 64, 50, false);
    printf("a dispatch that is cut:\n");
    test_cut_dispatch(4, 1280, 1, true);
    test_upload(false);
    test_upload(true);
    test_upload_matrix(false);
    test_upload_matrix(true);
    test_cache();
    test_many_pipelines();
    CHECK(validation_messages == 0, "%u validation messages", validation_messages);
    printf("devices, memory, streams, uploads and the pipeline cache: right; %s\n",
           validation ? "0 validation messages" : "validation was off");
    return 0;
}
