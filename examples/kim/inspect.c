// SPDX-License-Identifier: MIT
// kim inspect: what a model file holds, and the exact memory it takes, also per device.
#include "common.h"

#include <stdlib.h>
#include <string.h>

static struct {
    int json, tensors;
} options;

static struct poptOption table[] = {
    INCLUDE_OPTIONS(model_options, NULL),
    INCLUDE_OPTIONS(synthetic_options, NULL),
    { "tensors", 't', POPT_ARG_NONE, &options.tensors, 0, "list every tensor (JSON always does)",
      NULL },
    { "json", '\0', POPT_ARG_NONE, &options.json, 0, "for a program", NULL },
    INCLUDE_OPTIONS(session_options, NULL),
    INCLUDE_OPTIONS(device_options, NULL),
    POPT_TABLEEND,
};

// What the tensors of one type add up to.
typedef struct type_sum {
    char name[16];
    uint32_t tensors;
    uint64_t bytes;
} type_sum;

// The plan on one device.
typedef struct device_plan {
    kim_device_info info;
    kim_plan plan;
    char *problem; // NULL: the plan is there
} device_plan;

typedef struct report {
    const kim_model *model;
    const kim_model_info *info;
    type_sum types[64];
    uint32_t n_types;
    uint32_t context; // of the plans
    kim_plan plan;    // without a device
    device_plan *devices;
    uint32_t n_devices;
    char *no_devices; // why there is none to plan for; NULL: there are
} report;

// --------------------------------------------------------------------------------- gathering

static kim_err sum_types(report *r)
{
    for (uint32_t i = 0; i < r->info->tensors; i++) {
        kim_tensor_info tensor;
        kim_err err = kim_model_get_tensor(r->model, i, &tensor);
        if (err)
            return err;
        uint32_t at = 0;
        while (at < r->n_types && strcmp(r->types[at].name, tensor.type) != 0)
            at++;
        if (at == sizeof r->types / sizeof *r->types)
            continue; // GGUF has fewer types than that
        if (at == r->n_types)
            snprintf(r->types[r->n_types++].name, sizeof r->types->name, "%s", tensor.type);
        r->types[at].tensors++;
        r->types[at].bytes += tensor.bytes;
    }
    return KIM_OK;
}

static bool wanted(const kim_device_info *d, const char *device)
{
    char index[16];
    snprintf(index, sizeof index, "%u", d->index);
    return !device || strcmp(device, index) == 0 || strcasecmp(device, d->uuid) == 0 ||
           (strspn(device, "0123456789") != strlen(device) && strcasestr(d->name, device));
}

static void plan_device(report *r, const kim_gpu_params *base, const kim_session_params *session,
                        device_plan *p)
{
    kim_gpu *gpu = NULL;
    kim_gpu_params params = *base;
    params.device = p->info.uuid;
    if (!p->info.usable)
        p->problem = checked(strdup(p->info.problem));
    else if (kim_gpu_create(&gpu, &params) || kim_model_plan(r->model, gpu, session, &p->plan))
        p->problem = checked(strdup(kim_error_text()));
    kim_gpu_destroy(&gpu);
}

// The absence of devices is no failure: the file can be looked at without one.
static int gather(report *r)
{
    kim_gpu_params params;
    int status = gpu_params(&params);
    if (status != STATUS_OK)
        return status;
    const kim_session_params session = session_params((uint32_t)given.context);
    r->context = r->info->context < 8192 ? r->info->context : 8192; // as of a session
    if (session.context)
        r->context = session.context;
    if (sum_types(r) || kim_model_plan(r->model, NULL, &session, &r->plan))
        return fail_library();
    kim_device_info *infos;
    uint32_t count;
    if (list_devices(&infos, &count)) {
        r->no_devices = checked(strdup(kim_error_text()));
        return STATUS_OK;
    }
    r->devices = checked(calloc((size_t)count + 1, sizeof *r->devices));
    for (uint32_t i = 0; i < count; i++) {
        if (wanted(&infos[i], params.device)) {
            r->devices[r->n_devices].info = infos[i];
            plan_device(r, &params, &session, &r->devices[r->n_devices++]);
        }
    }
    free(infos);
    if (!r->n_devices && count)
        return fail("no device of this machine fits \"%s\"; `kim devices` lists them",
                    params.device);
    if (!count)
        r->no_devices = checked(strdup("Vulkan is installed, but it has no device here"));
    return STATUS_OK;
}

static void report_free(report *r)
{
    for (uint32_t i = 0; i < r->n_devices; i++)
        free(r->devices[i].problem);
    free(r->devices);
    free(r->no_devices);
}

// What can be had of the device: what is free, as far as the driver tells.
static uint64_t room_on(const kim_device_info *d)
{
    return d->memory_free ? d->memory_free : d->memory;
}

// -------------------------------------------------------------------------------------- JSON

static void add_plan(cJSON *json, const kim_plan *plan)
{
    cJSON *object = cJSON_AddObjectToObject(json, "plan");
    cJSON_AddNumberToObject(object, "weights", (double)plan->weights);
    cJSON_AddNumberToObject(object, "kv_local", (double)plan->kv_local);
    cJSON_AddNumberToObject(object, "kv_global", (double)plan->kv_global);
    cJSON_AddNumberToObject(object, "activations", (double)plan->activations);
    cJSON_AddNumberToObject(object, "vision_weights", (double)plan->vision_weights);
    cJSON_AddNumberToObject(object, "vision_activations", (double)plan->vision_activations);
    cJSON_AddNumberToObject(object, "total", (double)plan->total);
    cJSON_AddNumberToObject(object, "kv_local_rows", plan->kv_local_rows);
}

static void add_shapes(cJSON *json, const kim_model_info *info)
{
    cJSON_AddStringToObject(json, "architecture", info->architecture);
    cJSON_AddStringToObject(json, "name", info->name);
    cJSON_AddStringToObject(json, "size", info->size);
    cJSON_AddBoolToObject(json, "chat", info->chat);
    cJSON_AddNumberToObject(json, "parameters", (double)info->parameters);
    cJSON_AddNumberToObject(json, "file_bytes", (double)info->file_bytes);
    cJSON_AddNumberToObject(json, "layers", info->layers);
    cJSON_AddNumberToObject(json, "hidden", info->hidden);
    cJSON_AddNumberToObject(json, "feed_forward", info->feed_forward);
    cJSON_AddNumberToObject(json, "heads", info->heads);
    cJSON_AddNumberToObject(json, "kv_heads", info->kv_heads);
    cJSON_AddNumberToObject(json, "head_size", info->head_size);
    cJSON_AddNumberToObject(json, "window", info->window);
    cJSON_AddNumberToObject(json, "window_pattern", info->window_pattern);
    cJSON_AddNumberToObject(json, "context", info->context);
    cJSON_AddItemToObject(json, "rms_eps", json_float(info->rms_eps));
    cJSON_AddItemToObject(json, "rope_base_global", json_float(info->rope_base_global));
    cJSON_AddItemToObject(json, "rope_base_local", json_float(info->rope_base_local));
    cJSON_AddItemToObject(json, "rope_factor_global", json_float(info->rope_factor_global));
    cJSON_AddItemToObject(json, "attention_scale", json_float(info->attention_scale));
    cJSON *tokenizer = cJSON_AddObjectToObject(json, "tokenizer");
    cJSON_AddNumberToObject(tokenizer, "vocab", info->vocab);
    cJSON_AddNumberToObject(tokenizer, "bos", info->bos);
    cJSON_AddNumberToObject(tokenizer, "eos", info->eos);
    cJSON_AddNumberToObject(tokenizer, "end_of_turn", info->end_of_turn);
    if (!info->vision)
        return;
    cJSON *vision = cJSON_AddObjectToObject(json, "vision");
    cJSON_AddNumberToObject(vision, "image_size", info->image_size);
    cJSON_AddNumberToObject(vision, "patch_size", info->image_patch);
    cJSON_AddNumberToObject(vision, "soft_tokens", info->image_tokens);
    cJSON_AddNumberToObject(vision, "layers", info->vision_layers);
    cJSON_AddNumberToObject(vision, "hidden", info->vision_hidden);
    cJSON_AddNumberToObject(vision, "start_of_image", info->start_of_image);
    cJSON_AddNumberToObject(vision, "end_of_image", info->end_of_image);
    cJSON_AddNumberToObject(vision, "soft_token", info->image_token);
}

static kim_err add_tensors(cJSON *json, const report *r)
{
    cJSON *types = cJSON_AddArrayToObject(json, "quantisations");
    for (uint32_t i = 0; i < r->n_types; i++) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "type", r->types[i].name);
        cJSON_AddNumberToObject(object, "tensors", r->types[i].tensors);
        cJSON_AddNumberToObject(object, "bytes", (double)r->types[i].bytes);
        cJSON_AddItemToArray(types, object);
    }
    cJSON *tensors = cJSON_AddArrayToObject(json, "tensors");
    for (uint32_t i = 0; i < r->info->tensors; i++) {
        kim_tensor_info tensor;
        kim_err err = kim_model_get_tensor(r->model, i, &tensor);
        if (err)
            return err;
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "name", tensor.name);
        cJSON_AddStringToObject(object, "type", tensor.type);
        cJSON *shape = cJSON_AddArrayToObject(object, "shape");
        for (uint32_t k = 0; k < tensor.dims; k++)
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)tensor.shape[k]));
        cJSON_AddNumberToObject(object, "bytes", (double)tensor.bytes);
        cJSON_AddItemToArray(tensors, object);
    }
    return KIM_OK;
}

static void add_devices(cJSON *json, const report *r)
{
    cJSON *devices = cJSON_AddArrayToObject(json, "devices");
    for (uint32_t i = 0; i < r->n_devices; i++) {
        const device_plan *p = &r->devices[i];
        cJSON *object = cJSON_CreateObject();
        cJSON_AddNumberToObject(object, "index", p->info.index);
        cJSON_AddStringToObject(object, "name", p->info.name);
        cJSON_AddNumberToObject(object, "memory", (double)p->info.memory);
        cJSON_AddNumberToObject(object, "memory_free", (double)p->info.memory_free);
        if (p->problem) {
            cJSON_AddStringToObject(object, "problem", p->problem);
        } else {
            cJSON_AddBoolToObject(object, "fits", p->plan.total <= room_on(&p->info));
            add_plan(object, &p->plan);
        }
        cJSON_AddItemToArray(devices, object);
    }
    if (r->no_devices)
        cJSON_AddStringToObject(json, "no_devices", r->no_devices);
}

static int print_report_json(const report *r, const char *path)
{
    cJSON *json = checked(cJSON_CreateObject());
    cJSON_AddStringToObject(json, "file", path);
    add_shapes(json, r->info);
    if (add_tensors(json, r)) {
        cJSON_Delete(json);
        return fail_library();
    }
    cJSON_AddNumberToObject(json, "plan_context", r->context);
    cJSON_AddStringToObject(json, "plan_cache_type", given.cache_type ? given.cache_type : "f16");
    add_plan(json, &r->plan);
    add_devices(json, r);
    return print_json(json);
}

// ---------------------------------------------------------------------------------- for people

static void print_shapes(const kim_model_info *info)
{
    char bytes[32];
    printf("%s%s%s  (%s%s%s)\n", style_bold(stdout), *info->name ? info->name : "no name",
           style_end(stdout), info->architecture, *info->size ? " " : "", info->size);
    printf("  kind          %s\n", given.synthetic ? "synthetic: made-up weights, to measure with"
                                   : info->chat    ? "tuned for conversation"
                                                   : "pre-trained: continues text");
    printf("  parameters    %.1f million in %s, %.2f bits each\n", (double)info->parameters / 1e6,
           format_bytes(info->file_bytes, bytes),
           8.0 * (double)info->file_bytes / (double)(info->parameters ? info->parameters : 1));
    printf("  layers        %u", info->layers);
    if (info->window)
        printf(": every %uth global, the others see %u positions", info->window_pattern,
               info->window);
    printf("\n  hidden        %u, feed-forward %u\n", info->hidden, info->feed_forward);
    printf("  attention     %u heads, %u of keys and values, size %u, scale %g\n", info->heads,
           info->kv_heads, info->head_size, (double)info->attention_scale);
    printf("  RoPE          base %g global (factor %g), %g local\n", (double)info->rope_base_global,
           (double)info->rope_factor_global, (double)info->rope_base_local);
    printf("  norm          RMS, epsilon %g\n", (double)info->rms_eps);
    printf("  context       %u positions\n", info->context);
    printf("  tokenizer     %u tokens; <bos> %d, <eos> %d, <end_of_turn> %d\n", info->vocab,
           (int)info->bos, (int)info->eos, (int)info->end_of_turn);
    if (info->vision)
        printf("  vision        %u x %u pixels in patches of %u, %u soft tokens; %u layers, hidden "
               "%u\n",
               info->image_size, info->image_size, info->image_patch, info->image_tokens,
               info->vision_layers, info->vision_hidden);
    else
        puts("  vision        none here: pictures need the mmproj file published with the model "
             "(--mmproj)");
}

static kim_err print_tensors(const report *r)
{
    char bytes[32];
    printf("\n%u tensors\n", r->info->tensors);
    for (uint32_t i = 0; i < r->n_types; i++)
        printf("  %-12s  %4u  %10s\n", r->types[i].name, r->types[i].tensors,
               format_bytes(r->types[i].bytes, bytes));
    if (!options.tensors)
        return KIM_OK;
    putchar('\n');
    for (uint32_t i = 0; i < r->info->tensors && output_flush(); i++) {
        kim_tensor_info tensor;
        kim_err err = kim_model_get_tensor(r->model, i, &tensor);
        if (err)
            return err;
        printf("  %-36s %-7s %10s  [", tensor.name, tensor.type, format_bytes(tensor.bytes, bytes));
        for (uint32_t k = 0; k < tensor.dims; k++)
            printf("%s%llu", k ? ", " : "", (unsigned long long)tensor.shape[k]);
        puts("]");
    }
    return KIM_OK;
}

static void print_plan(const kim_plan *plan)
{
    const struct {
        const char *name;
        uint64_t bytes;
    } rows[] = {
        { "weights", plan->weights },
        { "K and V, local", plan->kv_local },
        { "K and V, global", plan->kv_global },
        { "activations", plan->activations },
        { "vision, weights", plan->vision_weights },
        { "vision, work", plan->vision_activations },
        { "total", plan->total },
    };
    char bytes[32];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].bytes)
            printf("  %-16s %14llu bytes  %10s\n", rows[i].name, (unsigned long long)rows[i].bytes,
                   format_bytes(rows[i].bytes, bytes));
}

static void print_memory(const report *r)
{
    char memory[32];
    printf("\nMemory for %u positions in %s (local layers keep %u)\n", r->context,
           given.cache_type ? given.cache_type : "f16", r->plan.kv_local_rows);
    print_plan(&r->plan);
    for (uint32_t i = 0; i < r->n_devices && output_flush(); i++) {
        const device_plan *p = &r->devices[i];
        printf("\nOn device %u, %s\n", p->info.index, p->info.name);
        if (p->problem) {
            printf("  %s\n", p->problem);
            continue;
        }
        print_plan(&p->plan);
        printf("  %s: %s %s\n", p->plan.total <= room_on(&p->info) ? "fits" : "does not fit",
               format_bytes(room_on(&p->info), memory),
               p->info.memory_free ? "are free" : "in all");
    }
    if (r->no_devices)
        printf("\nNo plan for a device: %s\n", r->no_devices);
}

static int print_report(const report *r)
{
    print_shapes(r->info);
    if (print_tensors(r))
        return fail_library();
    print_memory(r);
    return output_flush() ? STATUS_OK : STATUS_FAILED;
}

int command_inspect(int argc, const char **argv)
{
    static const char *path;
    int status = arguments_parse(
        &(arguments){
            .command = "kim inspect",
            .synopsis = "MODEL [--mmproj F] | --synthetic SIZE:TYPE [OPTION...]",
            .purpose =
                "Shows the architecture, tensors, quantisations and tokenizer of a model file,\n"
                "and the exact memory it takes. Needs no GPU.",
            .notes = "The plan is for one session of --context positions, on every device, or on\n"
                     "that of --device.\n",
            .options = table,
            .operand = &path,
        },
        argc, argv);
    if (status != STATUS_GO_ON)
        return status;
    if (path)
        given.model = (char *)path;
    opened o = { 0 };
    report r = { 0 };
    status = open_model(&o);
    if (status == STATUS_OK) {
        r.model = o.model;
        r.info = kim_model_get_info(o.model);
        status = gather(&r);
    }
    if (status == STATUS_OK)
        status = options.json
                     ? print_report_json(&r, given.synthetic ? given.synthetic : model_path())
                     : print_report(&r);
    report_free(&r);
    return close_all(&o, status);
}
