// SPDX-License-Identifier: MIT
// kim bench model: what was measured, as a table, as CSV and as JSON.
#include "bench.h"
#include "kim_build.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// One figure or text of a row, for programs. The same list makes CSV and JSON.
typedef struct cell {
    const char *key;
    const char *text; // NULL: a number
    double number;
} cell;

enum { MOST_CELLS = 48 };

typedef struct cells {
    cell list[MOST_CELLS];
    uint32_t count;
} cells;

static const struct peak {
    const char *name, *key, *unit;
} peak_names[KIM_PEAK_COUNT] = {
    [KIM_PEAK_COPY] = { "copy", "peak_copy_gbs", "GB/s" },
    [KIM_PEAK_FP32] = { "fp32", "peak_fp32_gflops", "GFLOP/s" },
};

static const char *build_text(void)
{
    static char text[256];
#ifdef __clang__
    const char *compiler = "";
#else
    const char *compiler = "gcc ";
#endif
    const char *missing = kim_build_missing();
    snprintf(text, sizeof text, "kimberlite %s (%s), %s%s%s%s", KIM_VERSION, KIM_BUILD_COMMIT,
             compiler, __VERSION__, *missing ? "; lacks: " : "", missing);
    return text;
}

static const char *model_text(const bench *b)
{
    return *b->info.name ? b->info.name : *b->info.size ? b->info.size : b->info.architecture;
}

static void add_number(cells *c, const char *key, double number)
{
    c->list[c->count++] = (cell){ .key = key, .number = number };
}

static void add_text(cells *c, const char *key, const char *text)
{
    c->list[c->count++] = (cell){ .key = key, .text = text };
}

static void add_row(cells *c, const bench_row *r)
{
    add_text(c, "test", r->test);
    add_number(c, "n_prompt", r->n_prompt);
    add_number(c, "n_gen", r->n_gen);
    add_number(c, "n_images", r->n_images);
    add_number(c, "n_depth", r->n_depth);
    add_number(c, "avg_ns", r->avg_ns);
    add_number(c, "stddev_ns", r->stddev_ns);
    add_number(c, "avg_ts", r->avg_ts);
    add_number(c, "stddev_ts", r->stddev_ts);
    add_number(c, "ttft_ms", r->ttft_ms);
    add_number(c, "bandwidth_gbs", r->bandwidth_gbs);
    add_number(c, "copy_share", r->copy_share);
    add_number(c, "gflops", r->gflops);
    add_number(c, "fp32_share", r->fp32_share);
    add_number(c, "dispatches_per_step", r->dispatches_per_step);
    add_number(c, "barriers_per_step", r->barriers_per_step);
    add_number(c, "submits_per_step", r->submits_per_step);
    add_number(c, "host_us_per_step", r->host_us_per_step);
    add_number(c, "joules_per_token", r->joules_per_token);
    add_number(c, "clock_mhz", r->clock_mhz);
}

static void add_run(cells *c, const bench *b)
{
    const kim_device_info *device = kim_gpu_info(b->o.gpu);
    add_number(c, "n_batch", b->batch);
    add_text(c, "type_k", given.cache_type ? given.cache_type : "f16"); // as llama-bench names them
    add_text(c, "type_v", given.cache_type ? given.cache_type : "f16");
    add_number(c, "load_open_s", b->load.open_seconds);
    add_number(c, "load_file_bytes", (double)b->info.file_bytes);
    add_number(c, "load_pipelines_s", b->made.pipeline_seconds);
    add_number(c, "load_pipelines", b->made.pipelines);
    add_number(c, "load_upload_s", b->load.upload_seconds);
    add_number(c, "load_upload_bytes", (double)b->load.upload_bytes);
    add_number(c, "start_to_first_token_s", b->start_to_first_token);
    add_number(c, "memory_peak_bytes", (double)b->memory_peak);
    for (int i = 0; i < KIM_PEAK_COUNT; i++)
        add_number(c, peak_names[i].key, b->peaks[i] * 1e-9);
    add_text(c, "energy_source", sensors_source(b->sensors));
    add_text(c, "model", model_text(b));
    add_number(c, "model_parameters", (double)b->info.parameters);
    add_number(c, "model_bytes", (double)b->weights);
    add_text(c, "device", device->name);
    add_text(c, "device_uuid", device->uuid);
    add_text(c, "driver", device->driver);
    add_text(c, "build", build_text());
}

static void fill_cells(const bench *b, const bench_row *r, cells *c)
{
    c->count = 0;
    add_row(c, r);
    add_run(c, b);
}

// ----------------------------------------------------------------------------------------- JSON

static int print_json_rows(const bench *b)
{
    cJSON *json = checked(cJSON_CreateArray());
    const int n = (int)b->repeats;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const bench_row *r = &b->rows[i];
        cJSON *object = checked(cJSON_CreateObject());
        cells c;
        fill_cells(b, r, &c);
        for (uint32_t k = 0; k < c.count; k++) {
            const cell *from = &c.list[k];
            if (from->text)
                cJSON_AddStringToObject(object, from->key, from->text);
            else
                cJSON_AddNumberToObject(object, from->key, from->number); // null if it is none
        }
        cJSON_AddItemToObject(object, "samples_ns", cJSON_CreateDoubleArray(r->samples_ns, n));
        cJSON_AddItemToObject(object, "samples_ts", cJSON_CreateDoubleArray(r->samples_ts, n));
        if (r->n_prompt)
            cJSON_AddItemToObject(object, "samples_ttft_ns",
                                  cJSON_CreateDoubleArray(r->samples_ttft_ns, n));
        cJSON_AddItemToArray(json, object);
    }
    return print_json(json);
}

// ------------------------------------------------------------------------------------------ CSV

// RFC 4180: texts in quotes, with quotes doubled.
static void print_csv_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"')
            putchar('"');
        putchar(*text);
    }
    putchar('"');
}

static void print_csv_row(const bench *b, const bench_row *r, bool header)
{
    cells c;
    fill_cells(b, r, &c);
    for (uint32_t i = 0; i < c.count; i++) {
        const cell *from = &c.list[i];
        if (i)
            putchar(',');
        if (header)
            fputs(from->key, stdout);
        else if (from->text)
            print_csv_text(from->text);
        else if (!isnan(from->number))
            printf("%.*g",
                   fabs(from->number) < 0x1p53 && rint(from->number) == from->number ? 17 : 6,
                   from->number);
    }
    putchar('\n');
}

// ---------------------------------------------------------------------------------------- table

// A figure with its decimals, "n/a" where there is none. Returns buffer.
static const char *figure(double value, int decimals, const char *unit, char buffer[32])
{
    if (isnan(value))
        return "n/a";
    snprintf(buffer, 32, "%.*f%s", decimals, value, unit);
    return buffer;
}

static void print_table(const bench *b)
{
    static const struct column {
        const char *title;
        size_t offset; // in bench_row
        double scale;
        int decimals;
        const char *unit;
    } columns[] = {
        { "first token ms", offsetof(bench_row, ttft_ms), 1, 1, "" },
        { "GB/s", offsetof(bench_row, bandwidth_gbs), 1, 1, "" },
        { "of copy", offsetof(bench_row, copy_share), 100, 0, "%" },
        { "GFLOP/s", offsetof(bench_row, gflops), 1, 1, "" },
        { "of fp32", offsetof(bench_row, fp32_share), 100, 0, "%" },
        { "dispatches", offsetof(bench_row, dispatches_per_step), 1, 1, "" },
        { "barriers", offsetof(bench_row, barriers_per_step), 1, 1, "" },
        { "submits", offsetof(bench_row, submits_per_step), 1, 2, "" },
        { "host us", offsetof(bench_row, host_us_per_step), 1, 0, "" },
        { "J/token", offsetof(bench_row, joules_per_token), 1, 3, "" },
        { "MHz", offsetof(bench_row, clock_mhz), 1, 0, "" },
    };
    enum { N_COLUMNS = sizeof columns / sizeof *columns };
    char bytes[32], text[64];
    printf("| %-24s | %10s | %10s | %-16s | %18s |", "model", "size", "params", "test", "t/s");
    for (int i = 0; i < N_COLUMNS; i++)
        printf(" %9s |", columns[i].title);
    printf("\n| ------------------------ | ---------: | ---------: | ---------------- | "
           "-----------------: |");
    for (int i = 0; i < N_COLUMNS; i++)
        printf(" %.*s: |", (int)(strlen(columns[i].title) > 9 ? strlen(columns[i].title) - 1 : 8),
               "------------------------");
    putchar('\n');
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const bench_row *r = &b->rows[i];
        char speed[64], parameters[32];
        snprintf(speed, sizeof speed, "%.2f \u00b1 %.2f", r->avg_ts, r->stddev_ts);
        snprintf(parameters, sizeof parameters, "%.2f %c",
                 (double)b->info.parameters / (b->info.parameters < 1000000000 ? 1e6 : 1e9),
                 b->info.parameters < 1000000000 ? 'M' : 'B');
        // the sign takes two bytes and one column
        printf("| %-24s | %10s | %10s | %-16s | %19s |", model_text(b),
               format_bytes(b->weights, bytes), parameters, r->test, speed);
        for (int k = 0; k < N_COLUMNS; k++) {
            const double value = *(const double *)((const char *)r + columns[k].offset);
            printf(" %*s |", (int)(strlen(columns[k].title) > 9 ? strlen(columns[k].title) : 9),
                   figure(value * columns[k].scale, columns[k].decimals, columns[k].unit, text));
        }
        putchar('\n');
    }
}

static void print_notes(const bench *b)
{
    const kim_device_info *device = kim_gpu_info(b->o.gpu);
    char bytes[32], text[32];
    puts("\nDispatches, barriers, submits and the host's time (not waiting for the device) are of "
         "a\n"
         "step: one token, or a batch of the prompt. Of pictures, tokens are soft tokens.");
    printf("\nload: open %.3f s (%s), %u pipelines %.3f s, upload %.3f s", b->load.open_seconds,
           format_bytes(b->info.file_bytes, bytes), b->made.pipelines, b->made.pipeline_seconds,
           b->load.upload_seconds);
    printf(" (%s, %.2f GB/s)", format_bytes(b->load.upload_bytes, bytes),
           (double)b->load.upload_bytes / b->load.upload_seconds * 1e-9);
    printf("; start to first token %s", figure(b->start_to_first_token, 3, " s\n", text));
    if (isnan(b->start_to_first_token))
        putchar('\n');
    printf("memory on the device: %s at most\nmeasured peaks:",
           format_bytes(b->memory_peak, bytes));
    for (int i = 0; i < KIM_PEAK_COUNT; i++)
        printf("%s %s %s %s", i ? "," : "", peak_names[i].name,
               figure(b->peaks[i] * 1e-9, 1, "", text), peak_names[i].unit);
    printf("\nenergy: %s\n", *sensors_source(b->sensors) ? sensors_source(b->sensors) : "n/a");
    printf("%s, %s, UUID %s\n%s\n", device->name, device->driver, device->uuid, build_text());
}

int bench_print(const bench *b, bench_format format)
{
    if (format == BENCH_JSON)
        return print_json_rows(b);
    if (format == BENCH_MD) {
        print_table(b);
        print_notes(b);
    } else {
        print_csv_row(b, b->rows, true);
        for (uint32_t i = 0; i < b->n_rows; i++)
            print_csv_row(b, &b->rows[i], false);
    }
    return output_flush() ? STATUS_OK : STATUS_FAILED;
}
