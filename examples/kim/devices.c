// SPDX-License-Identifier: MIT
// kim devices: every Vulkan device, what it has, which one is the default and why.
#include "common.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static int as_json;

static struct poptOption table[] = {
    { "json", '\0', POPT_ARG_NONE, &as_json, 0, "for a program", NULL },
    POPT_TABLEEND,
};

// The optional features: the key in JSON, the words on the screen, the place in kim_device_info.
static const struct {
    const char *key, *words;
    size_t offset;
} features[] = {
#define OF(name) offsetof(kim_device_info, name)
    { "buffer_device_address", "buffer addresses", OF(buffer_device_address) },
    { "float16", "fp16 arithmetic", OF(float16) },
    { "int8", "int8", OF(int8) },
    { "storage_8bit", "8-bit storage", OF(storage_8bit) },
    { "integer_dot_product", "integer dot product", OF(integer_dot_product) },
    { "cooperative_matrix", "cooperative matrix", OF(cooperative_matrix) },
    { "cooperative_matrix_nv", "NV cooperative matrix 2", OF(cooperative_matrix_nv) },
    { "subgroup_size_control", "subgroup size control", OF(subgroup_size_control) },
    { "subgroup_quads", "subgroup quads", OF(subgroup_quads) },
    { "host_memory_import", "host memory import", OF(host_memory_import) },
    { "calibrated_timestamps", "calibrated timestamps", OF(calibrated_timestamps) },
    { "memory_budget", "memory budget", OF(memory_budget) },
    { "unified_memory", "unified memory", OF(unified_memory) },
#undef OF
};
enum { N_FEATURES = sizeof features / sizeof *features };

static bool has_feature(const kim_device_info *d, int feature)
{
    return *(const bool *)((const char *)d + features[feature].offset);
}

// The parts of a VK_MAKE_API_VERSION, as "1.3.239".
static const char *version_text(uint32_t version, char buffer[32])
{
    snprintf(buffer, 32, "%u.%u.%u", version >> 22 & 0x7f, version >> 12 & 0x3ff, version & 0xfff);
    return buffer;
}

// [rows, columns, depth], or null
static void add_shape(cJSON *object, const char *key, const kim_matrix_shape *s)
{
    const int numbers[] = { (int)s->rows, (int)s->columns, (int)s->depth };
    cJSON_AddItemToObject(object, key,
                          s->rows ? cJSON_CreateIntArray(numbers, 3) : cJSON_CreateNull());
}

static cJSON *device_json(const kim_device_info *d)
{
    char version[32];
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "index", d->index);
    cJSON_AddStringToObject(json, "name", d->name);
    cJSON_AddStringToObject(json, "driver", d->driver);
    cJSON_AddStringToObject(json, "uuid", d->uuid);
    cJSON_AddStringToObject(json, "type", name_of_device_type(d->type));
    cJSON_AddNumberToObject(json, "vendor_id", d->vendor_id);
    cJSON_AddNumberToObject(json, "device_id", d->device_id);
    cJSON_AddStringToObject(json, "api_version", version_text(d->api_version, version));
    cJSON_AddNumberToObject(json, "memory", (double)d->memory);
    if (d->memory_free)
        cJSON_AddNumberToObject(json, "memory_free", (double)d->memory_free);
    else
        cJSON_AddNullToObject(json, "memory_free");
    cJSON_AddNumberToObject(json, "buffer_range", (double)d->buffer_range);
    cJSON_AddNumberToObject(json, "subgroup_size", d->subgroup_size);
    cJSON_AddNumberToObject(json, "subgroup_min", d->subgroup_min);
    cJSON_AddNumberToObject(json, "subgroup_max", d->subgroup_max);
    cJSON_AddNumberToObject(json, "compute_units", d->compute_units);
    cJSON_AddBoolToObject(json, "usable", d->usable);
    cJSON_AddStringToObject(json, "problem", d->problem);
    cJSON_AddBoolToObject(json, "default", d->chosen);
    cJSON_AddStringToObject(json, "reason", d->reason);
    cJSON *object = cJSON_AddObjectToObject(json, "features");
    for (int i = 0; i < N_FEATURES; i++)
        cJSON_AddBoolToObject(object, features[i].key, has_feature(d, i));
    object = cJSON_AddObjectToObject(json, "matrices");
    add_shape(object, "fp16", &d->matrix_half);
    add_shape(object, "int8", &d->matrix_int8);
    kim_tuning tuning;
    kim_device_get_tuning(d, NULL, &tuning);
    cJSON_AddItemToObject(json, "tuning", tuning_json(&tuning));
    return json;
}

static int print_devices_json(const kim_device_info *infos, uint32_t count)
{
    cJSON *json = checked(cJSON_CreateObject());
    cJSON_AddStringToObject(json, "version", KIM_VERSION);
    cJSON_AddStringToObject(json, "build_missing", kim_build_missing());
    cJSON *array = cJSON_AddArrayToObject(json, "devices");
    for (uint32_t i = 0; i < count; i++)
        cJSON_AddItemToArray(array, device_json(&infos[i]));
    return print_json(json);
}

// The names of features in lines of at most 80 columns.
static void print_features(const kim_device_info *d, bool present, const char *label)
{
    enum { INDENT = 14, WIDTH = 80 };
    int column = 0;
    for (int i = 0; i < N_FEATURES; i++) {
        if (has_feature(d, i) != present)
            continue;
        int length = (int)strlen(features[i].words);
        if (!column)
            column = printf("   %-*s", INDENT - 3, label);
        else if (column + 2 + length < WIDTH)
            column += printf(", ");
        else
            column = printf(",\n%*s", INDENT, "") - 2;
        column += printf("%s", features[i].words);
    }
    if (column)
        putchar('\n');
}

static void print_shape(const char *type, const kim_matrix_shape *s)
{
    if (s->rows)
        printf(" %s %ux%ux%u", type, s->rows, s->columns, s->depth);
}

// The choices that were measured on it, and what was struck off.
static void print_tuning(const kim_device_info *d)
{
    kim_tuning t;
    kim_device_get_tuning(d, NULL, &t);
    const char *separator = "   measured   ";
    for (uint32_t i = 0; i < t.count; i++) {
        if (!t.rows[i].chosen)
            continue;
        printf("%s%s: %s", separator, t.rows[i].choice, t.rows[i].candidate);
        separator = ", ";
    }
    printf("%s\n", t.count ? "" : "   measured   nothing yet: the defaults are taken");
    for (uint32_t i = 0; i < t.count; i++)
        if (t.rows[i].problem[0])
            printf("   struck off %s: %s: %s\n", t.rows[i].choice, t.rows[i].candidate,
                   t.rows[i].problem);
}

static void print_device(const kim_device_info *d)
{
    char version[32], memory[32], unused[32], range[32];
    printf("%s%u  %s%s  (%s)%s%s\n", style_bold(stdout), d->index, d->name, style_end(stdout),
           name_of_device_type(d->type), d->chosen ? "  <- default" : "",
           d->usable ? "" : "  unusable");
    printf("   %-10s %s\n", d->chosen ? "default" : "not taken", d->reason);
    printf("   driver     %s, Vulkan %s\n", d->driver, version_text(d->api_version, version));
    printf("   UUID       %s\n", d->uuid);
    printf("   memory     %s", format_bytes(d->memory, memory));
    if (d->memory_free)
        printf(", %s free", format_bytes(d->memory_free, unused));
    printf("; one descriptor reaches %s\n", format_bytes(d->buffer_range, range));
    printf("   subgroup   %u", d->subgroup_size);
    if (d->subgroup_min != d->subgroup_max)
        printf(" (%u to %u)", d->subgroup_min, d->subgroup_max);
    if (d->compute_units)
        printf("; %u compute units", d->compute_units);
    if (d->matrix_half.rows || d->matrix_int8.rows)
        printf("\n   matrices  ");
    print_shape("fp16", &d->matrix_half);
    print_shape("int8", &d->matrix_int8);
    printf("\n   baseline   %s\n", d->usable ? "yes" : d->problem);
    print_features(d, true, "has");
    print_features(d, false, "has not");
    if (d->usable)
        print_tuning(d);
}

int command_devices(int argc, const char **argv)
{
    int status = arguments_parse(
        &(arguments){
            .command = "kim devices",
            .synopsis = "[--json]",
            .purpose =
                "Lists every Vulkan device, what of the baseline and of the optional features\n"
                "it has, and which one is taken and why.",
            .options = table,
        },
        argc, argv);
    if (status != STATUS_GO_ON)
        return status;
    kim_device_info *infos;
    uint32_t count;
    if (list_devices(&infos, &count))
        return fail_library();
    if (count == 0) {
        free(infos);
        return fail("Vulkan is installed, but it has no device here");
    }
    if (as_json) {
        status = print_devices_json(infos, count);
    } else {
        for (uint32_t i = 0; i < count && output_flush(); i++) {
            if (i)
                putchar('\n');
            print_device(&infos[i]);
        }
        if (*kim_build_missing())
            printf("\nThis build lacks: %s\n", kim_build_missing());
        status = output_flush() ? STATUS_OK : STATUS_FAILED;
    }
    free(infos);
    return status;
}
