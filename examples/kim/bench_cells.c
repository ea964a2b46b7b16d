// SPDX-License-Identifier: MIT
// What kim bench model and kim bench kernels print alike: figures by their keys, as JSON and as
// CSV, and the device they are of.
#include "bench_cells.h"
#include "kim_build.h"

#include <math.h>

static const struct peak {
    const char *name, *key, *unit;
} peak_names[KIM_PEAK_COUNT] = {
    [KIM_PEAK_COPY] = { "copy", "peak_copy_gbs", "GB/s" },
    [KIM_PEAK_FP32] = { "fp32", "peak_fp32_gflops", "GFLOP/s" },
    [KIM_PEAK_FP16] = { "fp16", "peak_fp16_gflops", "GFLOP/s" },
    [KIM_PEAK_INT8_DOT] = { "int8 dot products", "peak_dot_gflops", "GOP/s" },
    [KIM_PEAK_HALF_MATRIX] = { "fp16 matrices", "peak_half_gflops", "GFLOP/s" },
    [KIM_PEAK_INT8_MATRIX] = { "int8 matrices", "peak_int8_gflops", "GOP/s" },
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

void cells_number(cells *c, const char *key, double number)
{
    c->list[c->count++] = (cell){ .key = key, .number = number };
}

void cells_text(cells *c, const char *key, const char *text)
{
    c->list[c->count++] = (cell){ .key = key, .text = text };
}

void cells_peaks(cells *c, const double *peaks)
{
    for (int i = 0; i < KIM_PEAK_COUNT; i++)
        cells_number(c, peak_names[i].key, peaks[i] > 0 ? peaks[i] * 1e-9 : NAN);
}

void cells_device(cells *c, const kim_gpu *gpu)
{
    const kim_device_info *device = kim_gpu_info(gpu);
    cells_text(c, "device", device->name);
    cells_text(c, "device_uuid", device->uuid);
    cells_text(c, "driver", device->driver);
    cells_text(c, "build", build_text());
}

cJSON *cells_json(const cells *c)
{
    cJSON *object = checked(cJSON_CreateObject());
    for (uint32_t i = 0; i < c->count; i++) {
        const cell *from = &c->list[i];
        if (from->text)
            cJSON_AddStringToObject(object, from->key, from->text);
        else
            cJSON_AddNumberToObject(object, from->key, from->number); // null if it is none
    }
    return object;
}

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

void cells_print_csv(const cells *c, bool keys)
{
    for (uint32_t i = 0; i < c->count; i++) {
        const cell *from = &c->list[i];
        if (i)
            putchar(',');
        if (keys)
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

const char *figure(double value, int decimals, const char *unit, char buffer[32])
{
    if (isnan(value))
        return "n/a";
    snprintf(buffer, 32, "%.*f%s", decimals, value, unit);
    return buffer;
}

void print_peaks(const double *peaks)
{
    char text[32];
    printf("measured peaks:");
    for (int i = 0; i < KIM_PEAK_COUNT; i++)
        if (peaks[i] != 0) // of what the device does not have nothing is said
            printf("%s %s %s %s", i ? "," : "", peak_names[i].name,
                   figure(peaks[i] * 1e-9, 1, "", text), peak_names[i].unit);
    putchar('\n');
}

void print_device(const kim_gpu *gpu)
{
    const kim_device_info *device = kim_gpu_info(gpu);
    printf("%s, %s, UUID %s\n%s\n", device->name, device->driver, device->uuid, build_text());
}
