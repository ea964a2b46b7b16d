// SPDX-License-Identifier: MIT
// Reads benchmarks back, prints documents of them, and kim bench report.
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct {
    char *compare, *output_file;
} options;

static cJSON *old_rows; // of --compare

struct poptOption report_options[] = {
    { "compare", '\0', POPT_ARG_STRING, &options.compare, 0,
      "what -o json printed before: show its figures beside the new ones, and whether they differ "
      "by more than they vary",
      "OLD.json" },
    { "output-file", '\0', POPT_ARG_STRING, &options.output_file, 0,
      "where json or html goes instead of stdout", "FILE" },
    POPT_TABLEEND,
};

// ------------------------------------------------------------------------------------------ rows

double row_number(const cJSON *row, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(row, key);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

const char *row_text(const cJSON *row, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, key));
    return text ? text : "";
}

bool row_is_kernel(const cJSON *row)
{
    return strcmp(row_text(row, "kind"), "kernel") == 0;
}

static bool row_is_model(const cJSON *row)
{
    return *row_text(row, "test") && !isnan(row_number(row, "avg_ts"));
}

static void add_size(strbuf *out, const cJSON *row, const char *key, const char *name)
{
    const double value = row_number(row, key);
    if (value > 0)
        strbuf_printf(out, " %s=%.0f", name, value);
}

void row_name(const cJSON *row, strbuf *out)
{
    static const char *const texts[] = { "op", "type", "label", "size" }, *const ways[] = { "mode",
                                                                                            "way" };
    strbuf_printf(out, "%s", row_text(row, "test"));
    if (!row_is_kernel(row))
        return;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (*row_text(row, texts[i]))
            strbuf_printf(out, "%s%s", out->length ? " " : "", row_text(row, texts[i]));
    add_size(out, row, "rows", "m");
    add_size(out, row, "width", "k");
    add_size(out, row, "columns", "n");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (*row_text(row, ways[i]))
            strbuf_printf(out, " %s", row_text(row, ways[i]));
}

// --------------------------------------------------------------------------------------- reading

// The rows of a file: of the kind that is wanted, or of either. NULL, with the sentence printed.
static cJSON *read_rows(const char *path, const char *kind)
{
    strbuf text;
    if (!read_file(path, &text))
        return NULL;
    cJSON *rows = cJSON_ParseWithLength(text.data, text.length);
    const size_t end = rows || !cJSON_GetErrorPtr() ? 0 : (size_t)(cJSON_GetErrorPtr() - text.data);
    strbuf_free(&text);
    if (!rows)
        return fail("%s is not JSON, or a part of it is missing: what is at byte %zu does not "
                    "belong there",
                    path, end),
               NULL;
    const char *other = NULL;
    bool good = cJSON_IsArray(rows) && cJSON_GetArraySize(rows);
    const cJSON *row;
    cJSON_ArrayForEach(row, rows)
    {
        const char *is = row_is_kernel(row) ? "kernel" : row_is_model(row) ? "model" : NULL;
        good &= is != NULL;
        if (is && kind && strcmp(is, kind) != 0)
            other = is;
    }
    if (good && !other)
        return rows;
    cJSON_Delete(rows);
    if (good)
        fail("%s is of kim bench %s%s; what it is compared with is of kim bench %s%s", path, other,
             strcmp(other, "kernel") ? "" : "s", kind, strcmp(kind, "kernel") ? "" : "s");
    else
        fail("%s is JSON, but not what -o json of kim bench model or kim bench kernels prints",
             path);
    return NULL;
}

int report_check(bench_format format, const char *kind)
{
    if (options.compare && format == BENCH_CSV)
        return fail_usage("--compare goes with -o md, json or html, not with csv");
    if (options.output_file && format != BENCH_JSON && format != BENCH_HTML)
        return fail_usage("--output-file goes with -o json or html");
    if (options.output_file && !can_replace(options.output_file))
        return STATUS_FAILED;
    if (options.compare)
        old_rows = read_rows(options.compare, kind);
    return options.compare && !old_rows ? STATUS_FAILED : STATUS_OK;
}

// -------------------------------------------------------------------------------------- printing

static int print_document(const cJSON *rows, bench_format format)
{
    strbuf document = { 0 };
    int status = STATUS_OK;
    if (format == BENCH_JSON) {
        char *json = checked(cJSON_Print(rows));
        strbuf_printf(&document, "%s\n", json);
        cJSON_free(json);
    } else {
        report_html(rows, &document);
    }
    if (options.output_file ? !write_file(options.output_file, document.data, document.length)
                            : !output_write(document.data, document.length))
        status = STATUS_FAILED;
    strbuf_free(&document);
    return status;
}

int report_print(cJSON *rows, bench_format format)
{
    int status = STATUS_OK;
    if (old_rows)
        compare_rows(rows, old_rows);
    if (format == BENCH_JSON || format == BENCH_HTML)
        status = print_document(rows, format);
    else if (old_rows)
        compare_print(rows, old_rows);
    cJSON_Delete(rows);
    cJSON_Delete(old_rows);
    old_rows = NULL;
    return output_flush() ? status : STATUS_FAILED;
}

// --------------------------------------------------------------------------------------- command

// The rows of a further file, which has to be of the same device: there is one roofline.
static bool add_rows(cJSON *rows, const char *path)
{
    cJSON *added = read_rows(path, NULL), *row;
    if (!added)
        return false;
    const char *device = row_text(added->child, "device_uuid");
    const bool same = strcmp(device, row_text(rows->child, "device_uuid")) == 0;
    if (!same)
        fail("%s is of another device than the first file: %s, not %s", path,
             row_text(added->child, "device"), row_text(rows->child, "device"));
    while (same && (row = cJSON_DetachItemFromArray(added, 0)))
        cJSON_AddItemToArray(rows, row);
    cJSON_Delete(added);
    return same;
}

int command_report(int argc, const char **argv)
{
    static char *name;
    static const char *path;
    static char **more;
    static struct poptOption table[] = {
        { "output", 'o', POPT_ARG_STRING, &name, 0, "html, json, or md for --compare (html)",
          "FORMAT" },
        { "with", '\0', POPT_ARG_ARGV, &more, 0, "a further file; may be given again", "FILE" },
        INCLUDE_OPTIONS(report_options, NULL),
        POPT_TABLEEND,
    };
    bench_format format;
    int status = arguments_parse(
        &(arguments){
            .command = "kim bench report",
            .synopsis = "FILE [OPTION...]",
            .purpose = "Makes a page that a browser opens, without a network, of what -o json of\n"
                       "kim bench model and kim bench kernels printed; or compares two of these.",
            .options = table,
            .operand = &path,
        },
        argc, argv);
    if (status != STATUS_GO_ON)
        return status;
    if (!path)
        return fail_usage("kim bench report needs the file that -o json printed");
    status = bench_format_find(name, BENCH_HTML, &format);
    if (status == STATUS_OK && (format == BENCH_CSV || (format == BENCH_MD && !options.compare)))
        return fail_usage("-o of kim bench report is html or json, or with --compare md");
    if (status == STATUS_OK)
        status = report_check(format, NULL);
    if (status != STATUS_OK)
        return status;
    cJSON *rows = read_rows(path, NULL);
    for (char **next = more; rows && next && *next; next++) {
        if (!add_rows(rows, *next)) {
            cJSON_Delete(rows);
            rows = NULL;
        }
    }
    return rows ? report_print(rows, format) : STATUS_FAILED;
}
