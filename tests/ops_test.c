// SPDX-License-Identifier: MIT
// Every operation on a device against plain C, in both memory modes: after all cases by addresses,
// a part of them by the table, which CPU drivers compile for minutes.
//   ops_test [TESTS_FOLDER [MODEL]] [--device D] [--mode address|table|both] [--validation]
//   [--quick] [--many] [--attention] [--matrices]
// --many:      only the products of many columns, and the peaks
// --attention: only attention
// --matrices:  only attention by the device's matrices, and the products of many columns
#include "ops_cases.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct options {
    const char *device;
    bool address, table, validation, quick, many, attention, matrices;
} options;

static void parse(options *o, int argc, char **argv)
{
    *o =
        (options){ .address = true, .table = true, .validation = getenv("KIM_VALIDATION") != NULL };
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--device")) {
            o->device = value;
            i++;
        } else if (!strcmp(argv[i], "--mode")) {
            o->address = strcmp(value, "table") != 0;
            o->table = strcmp(value, "address") != 0;
            i++;
        } else if (!strcmp(argv[i], "--validation")) {
            o->validation = true;
        } else if (!strcmp(argv[i], "--quick")) {
            o->quick = true;
        } else if (!strcmp(argv[i], "--many")) {
            o->many = true;
        } else if (!strcmp(argv[i], "--attention")) {
            o->attention = true;
        } else if (!strcmp(argv[i], "--matrices")) {
            o->matrices = true;
        }
    }
}

static void print_log(void *user, kim_log_level level, const char *text)
{
    (void)user;
    if (level <= KIM_LOG_WARNING)
        printf("%s\n", text);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// How many cases failed in one mode; 1 if the validation layers had something to say.
static uint32_t run_mode(const options *o, kim_memory_mode mode, const char *name)
{
    const bool again = mode == KIM_MEMORY_TABLE && o->address; // the shaders' other door to memory
    ops_run run = { .quick = o->quick || again, .again = again, .matrices = o->matrices };
    const double start = seconds();
    const kim_gpu_params params = {
        .device = o->device,
        .memory_mode = mode,
        .validation = o->validation,
        .log = print_log,
    };
    MUST(kim_gpu_create(&run.gpu, &params));
    MUST(stream_create(&run.st, run.gpu));
    const bool all = !o->many && !o->attention && !o->matrices;
    if (all) {
        cases_rows(&run);
        cases_sample(&run);
        cases_encoder(&run);
        cases_weights(&run);
    }
    if (all || o->attention || o->matrices) {
        cases_attention(&run);
        cases_full_attention(&run);
    }
    if (all || o->many || o->matrices)
        cases_many_columns(&run);
    if (all || o->many)
        cases_peaks(&run);
    stream_destroy(&run.st);
    const uint32_t messages = kim_gpu_validation_messages(run.gpu);
    printf("%s, %s mode: %u cases, %u failed, %u validation messages%s, %.1f s\n",
           kim_gpu_info(run.gpu)->name, name, run.cases, run.failures, messages,
           o->validation ? "" : " (off)", seconds() - start);
    if (run.tiles)
        printf("  attention by matrices: %u cases\n", run.tiles);
    if (run.tiles_nv)
        printf("  attention by matrices of NV: %u cases\n", run.tiles_nv);
    for (matmul_way way = MATMUL_FLOAT; way < MATMUL_WAYS; way++)
        if (run.error[way] > 0)
            printf("  %s: relative error of a case's outputs at most %.2g\n", matmul_way_name(way),
                   run.error[way]);
    kim_gpu_destroy(&run.gpu);
    return run.failures + (messages != 0);
}

static bool has_addresses(const options *o)
{
    kim_gpu *gpu = NULL;
    MUST(kim_gpu_create(&gpu, &(kim_gpu_params){ .device = o->device, .cache_dir = "" }));
    const bool has = kim_gpu_info(gpu)->buffer_device_address;
    if (!has)
        printf("%s has no buffer device addresses: table mode only\n", kim_gpu_info(gpu)->name);
    kim_gpu_destroy(&gpu);
    return has;
}

int main(int argc, char **argv)
{
    options o;
    uint32_t failures = 0;
    parse(&o, argc, argv);
    o.address = o.address && has_addresses(&o);
    if (o.address)
        failures += run_mode(&o, KIM_MEMORY_ADDRESS, "address");
    if (o.table)
        failures += run_mode(&o, KIM_MEMORY_TABLE, "table");
    return failures != 0;
}
