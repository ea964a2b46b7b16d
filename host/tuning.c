// SPDX-License-Identifier: MIT
// Choice by measurement: of ways to do the same, the one that is right and fastest on this device.
#include "tuning.h"

#include "cache.h"
#include "error.h"
#include "file.h"
#include "kernel.h"
#include "matmul_ways.h"
#include "ops_pipelines.h"
#include "spirv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEASURED_SECONDS 0.02 // of one product of one candidate
#define SAMPLES 16
#define SLOW_SECONDS 2e-3 // of probe_product: on such a device many columns are fewer
#define FEWER_COLUMNS 64
#define MARGIN 0.98 // of the time of what was chosen so far: what comes later must be below

// ---- what is chosen -----------------------------------------------------------------------------

typedef struct choice {
    const char *name;
    uint32_t count; // of candidates; the first is what is taken without measurement
    const char *(*candidate)(const kim_gpu *g, uint32_t i); // its name; NULL: not on this device
    void (*take)(kim_gpu *g, uint32_t i);
    void (*strike)(kim_gpu *g, uint32_t i); // NULL: to choose another is enough
    const kernel_params *checks, *times;
    uint32_t n_checks, n_times;
} choice;

// The ways of many columns in the order of preference without measurement; those that round
// activations to int8 are never taken unless asked for.
static const matmul_way ways[] = { MATMUL_HALF, MATMUL_FLOAT, MATMUL_FEW };
static const matmul_way ways_of_cpu[] = { MATMUL_FEW, MATMUL_HALF, MATMUL_FLOAT };

static matmul_way way_at(const kim_gpu *g, uint32_t i)
{
    return (g->info.type == KIM_DEVICE_CPU ? ways_of_cpu : ways)[i];
}

static const char *way_candidate(const kim_gpu *g, uint32_t i)
{
    const matmul_way way = way_at(g, i);
    return g->matmul_ways >> way & 1 ? matmul_way_name(way) : NULL;
}

static void take_way(kim_gpu *g, uint32_t i)
{
    g->matmul_way = way_at(g, i);
}

static void strike_way(kim_gpu *g, uint32_t i)
{
    if (way_at(g, i) != MATMUL_FEW) // what few columns need in any case
        g->matmul_ways &= ~(1u << way_at(g, i));
}

static const char *tile_candidate(const kim_gpu *g, uint32_t i)
{
    const bool fits = tile_shapes[i].lanes[0] <= g->limits.maxComputeWorkGroupInvocations;
    return fits && g->matmul_way != MATMUL_FEW ? tile_shapes[i].name : NULL;
}

static void take_tile(kim_gpu *g, uint32_t i)
{
    g->tile_shape = i;
}

static const char *few_candidate(const kim_gpu *g, uint32_t i)
{
    return i == 0 || g->info.type != KIM_DEVICE_CPU ? few_shapes[i].name : NULL;
}

static void take_few(kim_gpu *g, uint32_t i)
{
    g->few_shape = i;
}

static const char *loads_candidate(const kim_gpu *g, uint32_t i)
{
    static const char *const names[] = { "touched ahead", "as needed" };
    return g->has_touch && g->pass ? names[i] : NULL;
}

static void take_loads(kim_gpu *g, uint32_t i)
{
    g->touch = g->has_touch && i == 0;
}

static const char *decode_candidate(const kim_gpu *g, uint32_t i)
{
    if (!i)
        return "each lane";
    return g->has_attention_quads && g->info.type != KIM_DEVICE_CPU ? "quads" : NULL;
}

static void take_decode(kim_gpu *g, uint32_t i)
{
    g->attention_quads = i == 1;
}

// Of many rows. On a CPU the lanes, which it compiles much faster than matrices.
static const char *prompt_candidate(const kim_gpu *g, uint32_t i)
{
    static const char *const names[] = { "matrices", "matrices of NV", "lanes" };
    const bool cpu = g->info.type == KIM_DEVICE_CPU;
    const bool has[] = { g->has_attention_tiles && !cpu, g->has_attention_nv && !cpu, true };
    return has[i] ? names[i] : NULL;
}

static void take_prompt(kim_gpu *g, uint32_t i)
{
    g->attention_tiles = i < 2 && g->has_attention_tiles && g->info.type != KIM_DEVICE_CPU;
    g->attention_nv = i == 1;
}

// Types whose readers differ: no scales, scales, scales and minima; by their places, of which
// addresses are constants.
#define F16 &weight_types[1]
#define Q8_0 &weight_types[7]
#define Q4_K &weight_types[10]
#define PRODUCT(of_type, m, k, n, ...)                                                             \
    {                                                                                              \
        .op = KERNEL_MATMUL, .type = of_type, .rows = m, .width = k, .columns = n, __VA_ARGS__     \
    }

static const kernel_params many_checks[] = {
    PRODUCT(F16, 83, 544, 45, .extreme = true),
    PRODUCT(Q8_0, 146, 544, 70, .paired = true),
    PRODUCT(Q4_K, 211, 512, 130, .extreme = true),
};
static const kernel_params many_times[] = {
    PRODUCT(Q4_K, 4096, 1024, 512, .spread = 1),
};
// The first has as many rows as are timed; the last so few that more lanes share a sum.
static const kernel_params few_checks[] = {
    PRODUCT(Q8_0, FEW_ROWS + 34, 544, 3, .paired = true),
    PRODUCT(Q4_K, 83, 512, 8, .extreme = true),
    { .op = KERNEL_MATMUL_NORM, .type = Q4_K, .rows = 244, .width = 2048, .columns = 1 },
};
static const kernel_params few_times[] = {
    PRODUCT(Q4_K, FEW_ROWS, 2560, 1, .spread = 1),
    PRODUCT(Q8_0, 4096, 2560, 1, .spread = 1),
};

// The 4b's and the 270m's heads; a wrapped ring of the first, and all keys of the second, in
// splits.
static const kernel_params decode_checks[] = {
    { .op = KERNEL_ATTENTION_ROPE,
      .heads = { 8, 4, 256 },
      .columns = 1,
      .cache_rows = 1088,
      .window = 1024,
      .position = 1500 },
    { .op = KERNEL_ATTENTION_ROPE,
      .heads = { 4, 1, 256 },
      .columns = 1,
      .cache_rows = 1088,
      .window = UINT32_MAX,
      .position = 1000,
      .kv = KV_Q8 },
};
static const kernel_params decode_times[] = {
    { .op = KERNEL_ATTENTION_ROPE,
      .heads = { 8, 4, 256 },
      .columns = 1,
      .cache_rows = 4096,
      .window = UINT32_MAX,
      .position = 4000 },
    { .op = KERNEL_ATTENTION_ROPE,
      .heads = { 4, 1, 256 },
      .columns = 1,
      .cache_rows = 4096,
      .window = UINT32_MAX,
      .position = 4000 },
};

// A ring that wraps, and all keys.
static const kernel_params prompt_checks[] = {
    { .op = KERNEL_ATTENTION,
      .heads = { 8, 4, 256 },
      .columns = 70,
      .cache_rows = 1088,
      .window = 1000,
      .position = 1100 },
    { .op = KERNEL_ATTENTION,
      .heads = { 4, 1, 256 },
      .columns = 45,
      .cache_rows = 512,
      .window = UINT32_MAX,
      .position = 130,
      .kv = KV_Q8 },
    { .op = KERNEL_ATTENTION_FULL,
      .heads = { 3, 3, 72 },
      .columns = 77,
      .width = 216,
      .images = 2 },
};
static const kernel_params prompt_times[] = {
    { .op = KERNEL_ATTENTION,
      .heads = { 8, 4, 256 },
      .columns = 512,
      .cache_rows = 1024,
      .window = UINT32_MAX,
      .position = 512 },
};

static const kernel_params probe_product = PRODUCT(Q4_K, 1024, 1024, 64, .spread = 1);

static const choice choices[] = {
    { "many columns", 3, way_candidate, take_way, strike_way, many_checks, many_times,
      sizeof many_checks / sizeof *many_checks, sizeof many_times / sizeof *many_times },
    { "tile", TILE_SHAPES, tile_candidate, take_tile, NULL, many_checks, many_times,
      sizeof many_checks / sizeof *many_checks, sizeof many_times / sizeof *many_times },
    { "few columns", FEW_SHAPES, few_candidate, take_few, NULL, few_checks, few_times,
      sizeof few_checks / sizeof *few_checks, sizeof few_times / sizeof *few_times },
    { "loads", 2, loads_candidate, take_loads, NULL, few_checks, few_times,
      sizeof few_checks / sizeof *few_checks, sizeof few_times / sizeof *few_times },
    { "decode attention", 2, decode_candidate, take_decode, NULL, decode_checks, decode_times,
      sizeof decode_checks / sizeof *decode_checks, sizeof decode_times / sizeof *decode_times },
    { "prompt attention", 3, prompt_candidate, take_prompt, NULL, prompt_checks, prompt_times,
      sizeof prompt_checks / sizeof *prompt_checks, sizeof prompt_times / sizeof *prompt_times },
};
#define CHOICES (sizeof choices / sizeof *choices)

// ---- measuring ----------------------------------------------------------------------------------

static kim_tuning_row *add_row(kim_tuning *t, const char *of, const char *candidate, double seconds)
{
    kim_tuning_row *row = &t->rows[t->count < KIM_TUNING_ROWS ? t->count++ : KIM_TUNING_ROWS - 1];
    *row = (kim_tuning_row){ .seconds = seconds };
    snprintf(row->choice, sizeof row->choice, "%s", of);
    snprintf(row->candidate, sizeof row->candidate, "%s", candidate);
    return row;
}

// Sets row->problem where an output is wrong.
static kim_err check_candidate(kim_gpu *g, const choice *c, kim_tuning_row *row)
{
    kim_err err = KIM_OK;
    kernel *k = NULL;
    for (uint32_t i = 0; i < c->n_checks && !row->problem[0]; i++) {
        kernel_error e;
        TRY(kernel_create(&k, g, &c->checks[i]));
        TRY(kernel_check(k, &e));
        kernel_destroy(&k);
        if (e.right)
            continue;
        row->seconds = NAN;
        snprintf(row->problem, sizeof row->problem, "%s, off by %.3g where %.3g is allowed",
                 e.where, e.error, e.bound);
    }
error:
    kernel_destroy(&k);
    return err;
}

// columns: at most
static kim_err time_product(kim_gpu *g, const kernel_params *listed, uint32_t columns,
                            double *seconds)
{
    kim_err err = KIM_OK;
    kernel *k = NULL;
    kernel_params p = *listed;
    double samples[SAMPLES], processor;
    uint32_t n = SAMPLES;
    p.columns = p.columns < columns ? p.columns : columns;
    TRY(kernel_create(&k, g, &p));
    TRY(kernel_time(k, samples, &n, MEASURED_SECONDS, &processor));
    *seconds = INFINITY;
    for (uint32_t i = 0; i < n; i++)
        *seconds = fmin(*seconds, samples[i]);
error:
    kernel_destroy(&k);
    return err;
}

static kim_err time_candidate(kim_gpu *g, const choice *c, uint32_t columns, double *seconds)
{
    kim_err err = KIM_OK;
    *seconds = 0;
    for (uint32_t i = 0; i < c->n_times; i++) {
        double one;
        TRY(time_product(g, &c->times[i], columns, &one));
        *seconds += one;
    }
error:
    return err;
}

// A candidate that cannot even be made is struck off like a wrong one; a lost device and too little
// memory are errors.
static kim_err try_candidate(kim_gpu *g, const choice *c, uint32_t columns, kim_tuning_row *row)
{
    kim_err err = check_candidate(g, c, row);
    if (!err && !row->problem[0])
        err = time_candidate(g, c, columns, &row->seconds);
    if (err != KIM_ERR_VULKAN && err != KIM_ERR_UNSUPPORTED)
        return err;
    row->seconds = NAN;
    snprintf(row->problem, sizeof row->problem, "%s", kim_error_text());
    return KIM_OK;
}

static kim_err choose(kim_gpu *g, const choice *c, uint32_t columns, double *seconds)
{
    kim_err err = KIM_OK;
    kim_tuning_row *best = NULL;
    uint32_t taken = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        const char *const name = c->candidate(g, i);
        if (!name)
            continue;
        kim_tuning_row *row = add_row(&g->tuning, c->name, name, NAN);
        c->take(g, i);
        TRY(try_candidate(g, c, columns, row));
        if (row->problem[0])
            gpu_log(g, KIM_LOG_WARNING, "%s: %s is struck off on this device: %s", c->name, name,
                    row->problem);
        if (row->problem[0] && c->strike)
            c->strike(g, i);
        if (!row->problem[0] && (!best || row->seconds < MARGIN * best->seconds)) {
            best = row;
            taken = i;
        }
    }
    c->take(g, taken); // where none is right, the first: there is nothing better
    if (best) {
        best->chosen = true;
        *seconds += best->seconds;
    }
error:
    return err;
}

kim_err tuning_measure(kim_gpu *g, const char *only, double *seconds)
{
    kim_err err = KIM_OK;
    double probe;
    *seconds = 0;
    g->tuning.count = 0;
    gpu_log(g, KIM_LOG_INFO, "measuring what is fastest on this device in %s mode, once",
            g->address ? "address" : "table");
    TRY(time_product(g, &probe_product, UINT32_MAX, &probe));
    const uint32_t columns = probe > SLOW_SECONDS ? FEWER_COLUMNS : UINT32_MAX;
    for (uint32_t i = 0; i < CHOICES; i++)
        if (!only || !strcmp(only, choices[i].name))
            TRY(choose(g, &choices[i], columns, seconds));
error:
    return err;
}

// ---- the file -----------------------------------------------------------------------------------

// The first line: who measured, and what. Other shaders, another driver: measured anew.
static void file_head(const kim_device_info *info, char *head, size_t size)
{
    uint64_t hash = CACHE_HASH;
    for (uint32_t i = 0; i < kim_spirv_count; i++)
        for (int mode = 0; mode < 2; mode++)
            hash = cache_hash(hash, kim_spirv_table[i].code[mode], kim_spirv_table[i].bytes[mode]);
    snprintf(head, size, "kimberlite tuning 1, %s, %08x:%08x, shaders %016llx\n", info->driver,
             info->vendor_id, info->device_id, (unsigned long long)hash);
}

static void file_path(const kim_device_info *info, const char *dir, kim_memory_mode mode,
                      char *path, size_t size)
{
    static const char *const names[] = { "auto", "address", "table" };
    char name[80];
    snprintf(name, sizeof name, "tuning-%s-%s.txt", info->uuid, names[mode]);
    cache_path(dir, name, path, size);
}

// A row: choice, candidate, seconds, 1 for the chosen one, and its problem, with tabs between.
static bool read_row(const char *line, kim_tuning *t)
{
    kim_tuning_row row = { .seconds = NAN };
    int chosen, n = 0;
    if (t->count == KIM_TUNING_ROWS ||
        sscanf(line, "%23[^\t]\t%23[^\t]\t%lf\t%d\t%n", row.choice, row.candidate, &row.seconds,
               &chosen, &n) != 4 ||
        !n)
        return false;
    row.chosen = chosen == 1;
    snprintf(row.problem, sizeof row.problem, "%s", line + n);
    t->rows[t->count++] = row;
    return true;
}

// Leaves t empty if there is no such file, or one of another driver, or a damaged one.
static void read_file(kim_tuning *t, const kim_device_info *info, const char *dir,
                      kim_memory_mode mode)
{
    char path[512], head[1024];
    char *text = NULL;
    file_mapping file = { 0 };
    t->count = 0;
    file_path(info, dir, mode, path, sizeof path);
    if (!path[0] || file_find(path) != FILE_OTHER || file_map(&file, path))
        return;
    file_head(info, head, sizeof head); // hashes all shaders: only if there is a file
    text = malloc(file.size + 1);
    if (text && file.size > strlen(head) && !memcmp(file.data, head, strlen(head))) {
        memcpy(text, file.data, file.size);
        text[file.size] = 0;
        bool whole = true;
        for (char *line = text + strlen(head), *end; *line && whole; line = end) {
            end = line + strcspn(line, "\n");
            whole = *end == '\n';
            if (whole)
                *end++ = 0;
            whole = whole && read_row(line, t);
        }
        if (!whole)
            t->count = 0;
    }
    free(text);
    file_unmap(&file);
}

static void write_file(const kim_gpu *g, const char *dir, kim_memory_mode mode)
{
    kim_err err = KIM_OK;
    char path[512], line[1024];
    file_writer *writer = NULL;
    file_path(&g->info, dir, mode, path, sizeof path);
    if (!path[0])
        return;
    TRY(file_writer_open(&writer, path));
    file_head(&g->info, line, sizeof line);
    TRY(file_writer_write(writer, line, strlen(line)));
    for (uint32_t i = 0; i < g->tuning.count; i++) {
        const kim_tuning_row *r = &g->tuning.rows[i];
        snprintf(line, sizeof line, "%s\t%s\t%.9g\t%d\t%s\n", r->choice, r->candidate, r->seconds,
                 r->chosen, r->problem);
        TRY(file_writer_write(writer, line, strlen(line)));
    }
    TRY(file_writer_commit(&writer));
error:
    if (err)
        gpu_log(g, KIM_LOG_WARNING, "what was measured is not kept: %s", kim_error_text());
    file_writer_abandon(&writer);
}

// ---- opening a device
// -----------------------------------------------------------------------------

static const char memory_choice[] = "memory";

static const char *mode_name(bool address)
{
    return address ? "address" : "table";
}

// The mode that was chosen, if it was measured.
static kim_memory_mode mode_of(const kim_tuning *t, kim_memory_mode asked)
{
    for (uint32_t i = 0; i < t->count && asked == KIM_MEMORY_AUTO; i++)
        if (t->rows[i].chosen && !strcmp(t->rows[i].choice, memory_choice))
            return strcmp(t->rows[i].candidate, mode_name(true)) ? KIM_MEMORY_TABLE
                                                                 : KIM_MEMORY_ADDRESS;
    return asked;
}

// Makes the choices that were measured before.
static void apply(kim_gpu *g, const kim_tuning *t)
{
    g->tuning = *t;
    for (uint32_t n = 0; n < CHOICES * t->count; n++) {
        const choice *c = &choices[n / t->count];
        const kim_tuning_row *row = &t->rows[n % t->count];
        for (uint32_t i = 0; i < c->count && !strcmp(row->choice, c->name); i++) {
            const char *const name = c->candidate(g, i);
            if (!name || strcmp(name, row->candidate))
                continue;
            if (row->chosen)
                c->take(g, i);
            else if (row->problem[0] && c->strike)
                c->strike(g, i);
            break;
        }
    }
}

// Measures the other memory mode as well, and keeps the better device of the two.
static kim_err compare_modes(kim_gpu **g, const kim_gpu_params *params, double seconds)
{
    kim_err err = KIM_OK;
    kim_gpu *other = NULL;
    const bool address = (*g)->address;
    double others = NAN;
    kim_gpu_params same = *params;
    same.device = (*g)->info.uuid;
    TRY(gpu_open(&other, &same, address ? KIM_MEMORY_TABLE : KIM_MEMORY_ADDRESS));
    TRY(tuning_measure(other, NULL, &others));
    if (others < MARGIN * seconds) {
        kim_gpu *const slower = *g;
        *g = other;
        other = slower;
    }
    add_row(&(*g)->tuning, memory_choice, mode_name(address), seconds)->chosen =
        (*g)->address == address;
    add_row(&(*g)->tuning, memory_choice, mode_name(!address), others)->chosen =
        (*g)->address != address;
error:
    kim_gpu_destroy(&other);
    return err;
}

static kim_err measure(kim_gpu **g, const kim_gpu_params *params)
{
    kim_err err = KIM_OK;
    double seconds;
    TRY(tuning_measure(*g, NULL, &seconds));
    if (params->memory_mode == KIM_MEMORY_AUTO && (*g)->info.buffer_device_address)
        TRY(compare_modes(g, params, seconds));
    write_file(*g, params->cache_dir, params->memory_mode);
error:
    return err;
}

static bool measures_now(const kim_gpu *g, const kim_gpu_params *params)
{
    char path[512];
    file_path(&g->info, params->cache_dir, params->memory_mode, path, sizeof path);
    return params->tuning == KIM_TUNING_NOW ||
           (params->tuning == KIM_TUNING_AUTO && !g->tuning.count && path[0] &&
            g->info.type != KIM_DEVICE_CPU && !params->validation);
}

kim_err tuning_open(kim_gpu **out, const kim_gpu_params *params)
{
    kim_err err = KIM_OK;
    kim_gpu *g = NULL;
    kim_tuning kept = { 0 };
    TRY(gpu_open(&g, params, params->memory_mode));
    if (params->tuning == KIM_TUNING_AUTO)
        read_file(&kept, &g->info, params->cache_dir, params->memory_mode);
    const kim_memory_mode mode = mode_of(&kept, params->memory_mode);
    if (mode != KIM_MEMORY_AUTO && g->address != (mode == KIM_MEMORY_ADDRESS)) {
        kim_gpu_destroy(&g);
        TRY(gpu_open(&g, params, mode));
    }
    apply(g, &kept);
    if (measures_now(g, params))
        TRY(measure(&g, params));
    *out = g;
    return KIM_OK;
error:
    kim_gpu_destroy(&g);
    return err;
}

void kim_gpu_get_tuning(const kim_gpu *gpu, kim_tuning *out)
{
    *out = gpu->tuning;
}

void kim_device_get_tuning(const kim_device_info *info, const char *cache_dir, kim_tuning *out)
{
    read_file(out, info, cache_dir, KIM_MEMORY_AUTO);
}
