// SPDX-License-Identifier: MIT
// kim selftest: every operation on a device, in each memory mode that it has, against plain C.
#include "bench_cells.h"

#include "engine/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    char *op, *type;
    int json;
} options;

static struct poptOption table[] = {
    { "op", '\0', POPT_ARG_STRING, &options.op, 0, "only this operation", "NAME" },
    { "type", '\0', POPT_ARG_STRING, &options.type, 0, "only this type of weights, such as q4_0",
      "T" },
    { "json", '\0', POPT_ARG_NONE, &options.json, 0,
      "print the device and all kernels with their errors as JSON", NULL },
    INCLUDE_OPTIONS(device_options, NULL),
    POPT_TABLEEND,
};

static char mode_names[][8] = { "address", "table" };

typedef struct selftest {
    opened o;
    kim_kernels *list;
    const char *mode;
    cJSON *kernels; // of all modes
    uint32_t right, wrong;
} selftest;

// What was found of the kernels of one operation.
typedef struct tally {
    const char *op;
    uint32_t right, wrong;
    double worst; // error / bound
} tally;

static void print_tally(const tally *t)
{
    if (options.json || !t->op)
        return;
    printf("  %-16s", t->op);
    if (t->right)
        printf(" %4u right, at most %.2f of what they may be off by", t->right, t->worst);
    if (t->wrong)
        printf("%s %u WRONG", t->right ? "," : "", t->wrong);
    putchar('\n');
}

static void keep_json(const selftest *s, const kim_kernel_info *i, const kim_kernel_result *r)
{
    cells c = { 0 };
    cells_text(&c, "mode", s->mode);
    cells_text(&c, "op", i->op);
    cells_text(&c, "type", i->type);
    cells_text(&c, "label", i->label);
    cells_text(&c, "way", r->way);
    cells_number(&c, "rows", i->rows);
    cells_number(&c, "width", i->width);
    cells_number(&c, "columns", i->columns);
    cells_number(&c, "error", r->error);
    cells_number(&c, "error_bound", r->bound);
    cells_text(&c, "worst", r->where);
    cJSON *object = cells_json(&c);
    cJSON_AddBoolToObject(object, "right", r->right);
    cJSON_AddItemToArray(s->kernels, object);
}

static void print_wrong(const selftest *s, const kim_kernel_info *i, const kim_kernel_result *r)
{
    char rows[32] = "";
    if (i->rows)
        snprintf(rows, sizeof rows, "%u x ", i->rows);
    fail("%s mode: %s%s%s %s%u, %u columns%s%s%s%s, is wrong: %s, off by %.3g, may be off by %.3g",
         s->mode, i->op, *i->type ? " " : "", i->type, rows, i->width, i->columns,
         *i->label ? ", " : "", i->label, *r->way && strcmp(r->way, i->label) ? ", " : "",
         strcmp(r->way, i->label) ? r->way : "", r->where, r->error, r->bound);
}

// All kernels of the list. What this device has no memory for is said, and counts as wrong.
static int run_list(selftest *s)
{
    const uint32_t n = kim_kernels_count(s->list);
    tally t = { 0 };
    for (uint32_t k = 0; k < n; k++) {
        const kim_kernel_info *i = kim_kernels_at(s->list, k);
        kim_kernel_result r;
        if (!t.op || strcmp(t.op, i->op) != 0) {
            print_tally(&t);
            t = (tally){ .op = i->op };
        }
        if (isatty(STDERR_FILENO))
            progress_share(i->op, k, n);
        const kim_err err = kim_kernels_check(s->list, k, &r);
        progress_clear();
        if (err)
            return fail("%s mode: %s %s: %s", s->mode, i->op, i->type, kim_error_text());
        if (r.right)
            t.worst = r.bound > 0 ? fmax(t.worst, r.error / r.bound) : t.worst;
        else
            print_wrong(s, i, &r);
        t.right += r.right;
        t.wrong += !r.right;
        s->right += r.right;
        s->wrong += !r.right;
        keep_json(s, i, &r);
        if (!output_flush())
            return STATUS_FAILED;
    }
    print_tally(&t);
    return STATUS_OK;
}

static const char *mode_of(const selftest *s)
{
    return mode_names[kim_gpu_memory_mode(s->o.gpu) == KIM_MEMORY_TABLE];
}

static int run_mode(selftest *s)
{
    const double start = now_seconds();
    s->mode = mode_of(s);
    if (!options.json)
        printf("%s, %s mode\n", kim_gpu_info(s->o.gpu)->name, s->mode);
    const kim_err err = kim_kernels_create(
        &s->list, s->o.gpu, &(kim_kernels_params){ .op = options.op, .type = options.type });
    if (err == KIM_ERR_ARGUMENT)
        return fail_usage("%s", kim_error_text());
    if (err)
        return fail_library();
    const int status = run_list(s);
    if (status == STATUS_OK && !options.json)
        printf("  %u kernels in %.1f s\n", kim_kernels_count(s->list), now_seconds() - start);
    return status;
}

static int print_result(selftest *s, cJSON **json)
{
    if (options.json) {
        cJSON *object = *json;
        *json = NULL;
        cJSON_AddNumberToObject(object, "right", s->right);
        cJSON_AddNumberToObject(object, "wrong", s->wrong);
        cJSON_AddItemToObject(object, "kernels", s->kernels);
        s->kernels = NULL;
        return print_json(object);
    }
    if (s->wrong)
        printf("%u of %u kernels are WRONG on this device: please report this with the lines "
               "above and `kim devices`\n",
               s->wrong, s->right + s->wrong);
    else
        printf("all %u right\n", s->right);
    return output_flush() ? STATUS_OK : STATUS_FAILED;
}

// In the memory mode that is asked for, or else in each that the device has.
static int run_modes(selftest *s, cJSON **json)
{
    const bool both = !given.memory_mode || strcmp(given.memory_mode, "auto") == 0;
    int status = open_gpu(&s->o);
    if (status != STATUS_OK)
        return status;
    cells c = { 0 };
    cells_device(&c, s->o.gpu);
    *json = cells_json(&c);
    if (!options.json)
        print_device(s->o.gpu);
    const bool addresses = kim_gpu_info(s->o.gpu)->buffer_device_address;
    const bool first_is_table = kim_gpu_memory_mode(s->o.gpu) == KIM_MEMORY_TABLE;
    status = run_mode(s);
    kim_kernels_destroy(&s->list);
    status = close_all(&s->o, status);
    if (status != STATUS_OK || !both || (first_is_table && !addresses))
        return status;
    given.memory_mode = mode_names[!first_is_table];
    status = open_gpu(&s->o);
    if (status == STATUS_OK)
        status = run_mode(s);
    kim_kernels_destroy(&s->list);
    return close_all(&s->o, status);
}

int command_selftest(int argc, const char **argv)
{
    int status = arguments_parse(
        &(arguments){
            .command = "kim selftest",
            .synopsis = "[OPTION...]",
            .purpose = "Checks every operation on a device against plain C: all types of weights, "
                       "odd shapes,\nworst-case numbers, all ways to multiply, in each memory "
                       "mode that the device has.",
            .notes = "Exit code 0: all are right; 1: what is not is on stderr.\n",
            .options = table,
        },
        argc, argv);
    if (status != STATUS_GO_ON)
        return status;
    selftest s = { .kernels = checked(cJSON_CreateArray()) };
    cJSON *json = NULL;
    status = run_modes(&s, &json);
    if (status == STATUS_OK && !(s.right + s.wrong))
        status = fail_usage("there is no such operation with such weights");
    if (status == STATUS_OK)
        status = print_result(&s, &json);
    cJSON_Delete(json);
    cJSON_Delete(s.kernels);
    return status == STATUS_OK && s.wrong ? STATUS_FAILED : status;
}
