// SPDX-License-Identifier: MIT
// kim bench kernels: every operation at the shapes of a model, checked first, then timed.
#include "bench_cells.h"
#include "report.h"

#include "engine/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_SECONDS 3 // that one kernel is timed

static struct {
    char *op, *type, *size, *columns, *way, *format;
    int repeats, tune;
} options = { .repeats = 10 };

static struct poptOption table[] = {
    { "op", '\0', POPT_ARG_STRING, &options.op, 0, "only this operation", "NAME" },
    { "type", '\0', POPT_ARG_STRING, &options.type, 0, "only this type of weights, such as q4_0",
      "T" },
    { "size", '\0', POPT_ARG_STRING, &options.size, 0,
      "shapes of 270m, 1b, 4b, 12b or 27b, or ggml: the product of llama.cpp's test-backend-ops "
      "(270m)",
      "S" },
    { "columns", '\0', POPT_ARG_STRING, &options.columns, 0, "tokens at once (1,512)", "N,..." },
    { "way", '\0', POPT_ARG_STRING, &options.way, 0,
      "how products of 32 and more columns go: few, float, dot, half or int8; without it, as the "
      "device has chosen",
      "W" },
    { "repeats", 'r', POPT_ARG_INT, &options.repeats, 0,
      "measured samples of each kernel, at most: after 3 s of them it is the next one's turn (10)",
      "N" },
    { "tune", '\0', POPT_ARG_NONE, &options.tune, 0,
      "measures which variants are fastest here, keeps that, and shows what was tried; no kernels",
      NULL },
    { "output", 'o', POPT_ARG_STRING, &options.format, 0, "md, csv, json or html (md)", "FORMAT" },
    INCLUDE_OPTIONS(report_options, NULL),
    INCLUDE_OPTIONS(device_options, NULL),
    POPT_TABLEEND,
};

// What was found of one kernel. A figure that could not be had is not a number.
typedef struct kernel_row {
    const kim_kernel_info *info;
    kim_kernel_result result;
    double *samples; // [n] seconds of one run each
    uint32_t n;
    double avg, stddev, cpu, clock_mhz;
    bool compute; // bound by arithmetic, not by memory
    double share; // of the peak that bounds it
} kernel_row;

typedef struct kernels_bench {
    opened o;
    kim_kernels *list;
    double peaks[KIM_PEAK_COUNT];
    sensors *sensors;
    const char *size;
    bench_format format;
    cJSON *json;
} kernels_bench;

static kim_err measure_peaks(kernels_bench *b)
{
    // under validation layers they would be those of the layers
    kim_err err =
        given.validation ? KIM_ERR_DEVICE_MEMORY : kim_gpu_measure_peaks(b->o.gpu, b->peaks);
    if (err == KIM_ERR_DEVICE_MEMORY) { // the rest is worth printing
        for (int i = 0; i < KIM_PEAK_COUNT; i++)
            b->peaks[i] = NAN;
        err = KIM_OK;
    }
    return err;
}

// Which peak bounds it, and what of it it reaches.
static void rate(const kernels_bench *b, kernel_row *r)
{
    const kim_kernel_result *k = &r->result;
    const double moving = k->bytes / b->peaks[KIM_PEAK_COPY];
    const double computing = k->flop / b->peaks[k->arithmetic];
    r->compute = computing > moving;
    r->share = fmax(moving, computing) / r->avg;
}

static kim_err measure(const kernels_bench *b, uint32_t index, kernel_row *r)
{
    double joules;
    *r = (kernel_row){ .info = kim_kernels_at(b->list, index), .n = (uint32_t)options.repeats };
    r->avg = r->stddev = r->cpu = r->clock_mhz = r->share = NAN;
    kim_err err = kim_kernels_check(b->list, index, &r->result);
    if (err || !r->result.right) {
        r->n = 0;
        return err;
    }
    r->samples = checked(malloc(r->n * sizeof *r->samples));
    sensors_begin(b->sensors);
    err = kim_kernels_time(b->list, r->samples, &r->n, MOST_SECONDS, &r->cpu);
    sensors_end(b->sensors, &joules, &r->clock_mhz);
    if (err)
        return err;
    r->avg = bench_mean(r->samples, r->n);
    r->stddev = bench_deviation(r->samples, r->n);
    rate(b, r);
    return KIM_OK;
}

// -------------------------------------------------------------------------------------- output

static void fill_cells(const kernels_bench *b, const kernel_row *r, cells *c)
{
    const kim_kernel_result *k = &r->result;
    c->count = 0;
    cells_text(c, "kind", "kernel");
    cells_text(c, "op", r->info->op);
    cells_text(c, "type", r->info->type);
    cells_text(c, "label", r->info->label);
    cells_text(c, "size", b->size);
    cells_number(c, "rows", r->info->rows);
    cells_number(c, "width", r->info->width);
    cells_number(c, "columns", r->info->columns);
    cells_text(c, "mode",
               kim_gpu_memory_mode(b->o.gpu) == KIM_MEMORY_ADDRESS ? "address" : "table");
    cells_text(c, "way", k->way);
    cells_number(c, "error", k->error);
    cells_number(c, "error_bound", k->bound);
    cells_number(c, "avg_s", r->avg);
    cells_number(c, "stddev_s", r->stddev);
    cells_number(c, "cpu_s", r->cpu);
    cells_number(c, "flop", k->flop);
    cells_number(c, "bytes", k->bytes);
    cells_number(c, "gflops", k->flop / r->avg * 1e-9);
    cells_number(c, "bandwidth_gbs", k->bytes / r->avg * 1e-9);
    cells_number(c, "share_of_peak", r->share);
    cells_text(c, "bound", r->compute ? "compute" : "memory");
    cells_number(c, "registers", k->registers);
    cells_number(c, "spills", k->spills);
    cells_number(c, "clock_mhz", r->clock_mhz);
    cells_peaks(c, b->peaks);
    cells_device(c, b->o.gpu);
}

static void print_head(const kernels_bench *b)
{
    if (b->format == BENCH_CSV) {
        cells c;
        fill_cells(b, &(kernel_row){ .info = kim_kernels_at(b->list, 0), .result.way = "" }, &c);
        cells_print_csv(&c, true);
        return;
    }
    printf("%u kernels of %s, at most %d samples or %d s each\n\n", kim_kernels_count(b->list),
           b->size, options.repeats, MOST_SECONDS);
    printf("| %-14s | %-6s | %-20s | %6s | %6s | %7s | %-5s | %9s | %6s | %9s | %8s | %9s | %7s | "
           "%-7s | %9s | %6s | %5s |\n",
           "op", "type", "what", "rows", "width", "columns", "way", "time", "+-", "cpu", "GB/s",
           "GFLOP/s", "of peak", "of", "registers", "spills", "error");
    printf(
        "| -------------- | ------ | -------------------- | -----: | -----: | ------: | ----- | "
        "--------: | -----: | --------: | -------: | --------: | ------: | ------- | --------: | "
        "-----: | ----: |\n");
}

static void print_md(const kernel_row *r)
{
    const kim_kernel_result *k = &r->result;
    char time[32], spread[32], cpu[32], bytes[32], flop[32], share[32], registers[32], spills[32],
        error[32];
    printf("| %-14s | %-6s | %-20s | %6u | %6u | %7u | %-5s | %9s | %6s | %9s | %8s | %9s | %7s | "
           "%-7s | %9s | %6s | %5s |\n",
           r->info->op, r->info->type, r->info->label, r->info->rows, r->info->width,
           r->info->columns, k->way, isnan(r->avg) ? "n/a" : format_seconds(r->avg, time),
           figure(r->stddev / r->avg * 100, 1, "%", spread),
           isnan(r->cpu) ? "n/a" : format_seconds(r->cpu, cpu),
           figure(k->bytes / r->avg * 1e-9, 2, "", bytes),
           figure(k->flop / r->avg * 1e-9, 2, "", flop), figure(r->share * 100, 0, "%", share),
           isnan(r->share) ? ""
           : r->compute    ? "compute"
                           : "memory",
           figure(k->registers, 0, "", registers), figure(k->spills, 0, "", spills),
           !k->right ? "WRONG" : figure(k->bound > 0 ? k->error / k->bound : 0, 2, "", error));
}

static void keep_json(kernels_bench *b, const kernel_row *r)
{
    cells c;
    fill_cells(b, r, &c);
    cJSON *object = cells_json(&c);
    cJSON_AddBoolToObject(object, "checked", r->result.right);
    cJSON_AddItemToObject(object, "samples_s", cJSON_CreateDoubleArray(r->samples, (int)r->n));
    cJSON_AddItemToArray(b->json, object);
}

static void print_row(kernels_bench *b, const kernel_row *r)
{
    cells c;
    if (b->format == BENCH_MD)
        print_md(r);
    if (b->format == BENCH_CSV) {
        fill_cells(b, r, &c);
        cells_print_csv(&c, false);
    }
    keep_json(b, r);
}

static void print_notes(const kernels_bench *b)
{
    puts(
        "\nTimes are the device's, of one run; weights, keys and values come from memory, not from "
        "caches;\ncpu is the processor time of this process, on a CPU driver that of the "
        "work.\n\"of peak\": of the measured peak that bounds it, moving bytes or computing. "
        "\"error\": the worst\noutput's, beside plain C, of what it may be.\n");
    print_peaks(b->peaks);
    print_device(b->o.gpu);
}

// ------------------------------------------------------------------------------------- command

// One kernel. Without memory for it, or without its way, the others are still worth running.
static int run_row(kernels_bench *b, uint32_t index)
{
    kernel_row r;
    const kim_err err = measure(b, index, &r);
    const kim_kernel_info *i = r.info;
    int status = STATUS_OK;
    if (err) {
        status = fail("%s %s %s: %s", i->op, i->type, i->label, kim_error_text());
        if (err == KIM_ERR_DEVICE_MEMORY || err == KIM_ERR_NO_MEMORY || err == KIM_ERR_UNSUPPORTED)
            status = STATUS_GO_ON;
    } else {
        progress_clear();
        print_row(b, &r);
        if (!r.result.right) {
            status = STATUS_GO_ON;
            fail("%s %s %s, %u columns, is wrong: %s, may be off by %.3g", i->op, i->type, i->label,
                 i->columns, r.result.where, r.result.bound);
        }
    }
    free(r.samples);
    return output_flush() ? status : STATUS_FAILED;
}

static int run_all(kernels_bench *b)
{
    const uint32_t n = kim_kernels_count(b->list);
    int all = STATUS_OK;
    if (b->format == BENCH_MD || b->format == BENCH_CSV)
        print_head(b);
    for (uint32_t i = 0; i < n; i++) {
        if (isatty(STDERR_FILENO))
            progress_share(kim_kernels_at(b->list, i)->op, i, n);
        const int status = run_row(b, i);
        if (status == STATUS_FAILED)
            return status;
        all = status == STATUS_GO_ON ? STATUS_FAILED : all;
    }
    progress_clear();
    if (b->format == BENCH_MD)
        print_notes(b);
    const int printed = report_print(b->json, b->format);
    b->json = NULL;
    return printed == STATUS_OK ? all : printed;
}

static int open_bench(kernels_bench *b, const bench_values *columns)
{
    kim_gpu_params params;
    int status = gpu_params(&params);
    if (status != STATUS_OK)
        return status;
    params.statistics = true;
    if (kim_gpu_create(&b->o.gpu, &params))
        return fail_library();
    const kim_err err = kim_kernels_create(&b->list, b->o.gpu,
                                           &(kim_kernels_params){
                                               .size = b->size,
                                               .op = options.op,
                                               .type = options.type,
                                               .way = options.way,
                                               .columns = columns->list,
                                               .n_columns = columns->count,
                                           });
    if (err == KIM_ERR_ARGUMENT)
        return fail_usage("%s", kim_error_text());
    if (err)
        return fail_library();
    if (!kim_kernels_count(b->list))
        return fail_usage("%s has no such operation with such weights", b->size);
    b->sensors = sensors_open(kim_gpu_info(b->o.gpu));
    return measure_peaks(b) ? fail_library() : STATUS_OK;
}

int bench_kernels(int argc, const char **argv)
{
    bench_values columns;
    strbuf notes = { 0 };
    strbuf_printf(&notes, "Operations:");
    for (uint32_t i = 0; kim_kernel_op(i); i++)
        strbuf_printf(&notes, "%s %s", i ? "," : "", kim_kernel_op(i));
    strbuf_printf(&notes, ".\n");
    int status = arguments_parse(
        &(arguments){
            .command = "kim bench kernels",
            .synopsis = "[OPTION...]",
            .purpose = "Runs every operation at the shapes of a model: compares it with plain C, "
                       "then times it by\nthe device's clock, and says what of the device's own "
                       "measured peaks that is.",
            .notes = notes.data,
            .options = table,
        },
        argc, argv);
    strbuf_free(&notes);
    if (status != STATUS_GO_ON)
        return status;
    kernels_bench b = { .size = options.size ? options.size : "270m" };
    if (!option_in_range("-r", options.repeats, 1, 10000))
        return STATUS_USAGE;
    status = bench_format_find(options.format, BENCH_MD, &b.format);
    if (status == STATUS_OK)
        status = bench_read_values("--columns", options.columns, "1,512", &columns);
    if (status == STATUS_OK)
        status = report_check(b.format, "kernel");
    if (status != STATUS_OK)
        return status;
    if (options.tune)
        return bench_tune(b.format);
    b.json = checked(cJSON_CreateArray());
    status = open_bench(&b, &columns);
    if (status == STATUS_OK)
        status = run_all(&b);
    cJSON_Delete(b.json);
    if (b.sensors)
        sensors_close(b.sensors);
    kim_kernels_destroy(&b.list);
    return close_all(&b.o, status);
}
