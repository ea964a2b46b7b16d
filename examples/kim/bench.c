// SPDX-License-Identifier: MIT
// kim bench model: prompt and decode speed, with repeats.
#include "common.h"
#include "kim_build.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct {
    int n_prompt, n_gen, n_images, depth, sessions, repeats;
    char *format;
} options = { .n_prompt = 512, .n_gen = 128, .sessions = 1, .repeats = 5 };

static struct poptOption table[] = {
    INCLUDE_OPTIONS(model_options, NULL),
    { "prompt", 'p', POPT_ARG_INT, &options.n_prompt, 0,
      "tokens of the prompt (512; 0: no such test)", "N" },
    { "gen", 'n', POPT_ARG_INT, &options.n_gen, 0,
      "tokens decoded one by one (128; 0: no such test)", "N" },
    { "images", 'i', POPT_ARG_INT, &options.n_images, 0,
      "pictures encoded at once, where the model sees (0: no such test)", "N" },
    { "depth", 'd', POPT_ARG_INT, &options.depth, 0, "tokens that are there before (0)", "N" },
    { "sessions", 'b', POPT_ARG_INT, &options.sessions, 0, "sessions decoded together (1)", "N" },
    { "repeats", 'r', POPT_ARG_INT, &options.repeats, 0,
      "measured runs of each test, after one that is not counted (5)", "N" },
    { "output", 'o', POPT_ARG_STRING, &options.format, 0, "md, csv or json (md)", "FORMAT" },
    INCLUDE_OPTIONS(session_options, NULL),
    INCLUDE_OPTIONS(device_options, NULL),
    POPT_TABLEEND,
};

typedef enum output_format { OUTPUT_MD, OUTPUT_CSV, OUTPUT_JSON } output_format;

// One test: n_prompt tokens in batches, or n_gen one by one, after `depth` others; or the soft
// tokens of n_images pictures.
typedef struct row {
    char test[64];
    uint32_t n_prompt, n_gen, n_images;
    double *samples; // [repeats] tokens a second
    double mean, deviation;
    double dispatches_per_step, submits_per_step;
    double bandwidth_gbs; // the weights, once a step
    double gflops;        // of the encoder's products, on the device; the last repeat's
} row;

typedef struct bench {
    opened o;
    const kim_model_info *info;
    int32_t *tokens; // [depth + the longest test]: <bos>, then random
    uint32_t batch;
    uint64_t weights, vision_weights; // bytes
    row rows[3];
    uint32_t n_rows;
} bench;

// -------------------------------------------------------------------------------- measuring

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13; // xorshift32, Marsaglia 2003
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

// Any ids do: what is computed does not depend on them. Fixed, so that two runs are the same.
static void make_tokens(bench *b, uint32_t count)
{
    uint32_t state = 2463534242u;
    b->tokens = checked(malloc(count * sizeof *b->tokens));
    for (uint32_t i = 0; i < count; i++)
        b->tokens[i] = (int32_t)(next_random(&state) % b->info->vocab);
    b->tokens[0] = b->info->bos;
}

static uint32_t row_tokens(const bench *b, const row *r)
{
    return r->n_images ? r->n_images * b->info->image_tokens : r->n_prompt + r->n_gen;
}

static uint32_t row_steps(const bench *b, const row *r)
{
    if (r->n_images)
        return 1;
    return r->n_gen ? r->n_gen : (r->n_prompt + b->batch - 1) / b->batch;
}

// Leaves the session with `depth` tokens read.
static kim_err prepare(const bench *b)
{
    kim_err err = kim_session_cut(b->o.session, 0);
    if (!err && options.depth)
        err = kim_session_append(b->o.session, b->tokens, (uint32_t)options.depth);
    return err;
}

// Noise that was not seen before.
static kim_err make_picture(kim_image **out, uint32_t size)
{
    static uint32_t state = 88172645u;
    const size_t bytes = (size_t)size * size * 3;
    uint8_t *pixels = checked(malloc(bytes));
    for (size_t i = 0; i < bytes; i++)
        pixels[i] = (uint8_t)(next_random(&state) >> 24);
    kim_err err = kim_image_from_pixels(out, pixels, size, size, 3, 0);
    free(pixels);
    return err;
}

// seconds: of the encoding alone
static kim_err run_images(const bench *b, row *r, double *seconds)
{
    kim_vision_stats before, after;
    kim_image **images = checked(calloc(r->n_images, sizeof(kim_image *)));
    kim_err err = KIM_OK;
    for (uint32_t i = 0; !err && i < r->n_images; i++)
        err = make_picture(&images[i], b->info->image_size);
    kim_model_get_vision_stats(b->o.model, &before);
    const double start = now_seconds();
    if (!err)
        err = kim_images_encode(b->o.model, images, r->n_images, NULL, NULL);
    *seconds = now_seconds() - start;
    kim_model_get_vision_stats(b->o.model, &after);
    r->gflops = (after.operations - before.operations) / (after.seconds - before.seconds) * 1e-9;
    for (uint32_t i = 0; i < r->n_images; i++)
        kim_image_destroy(&images[i]);
    free(images);
    return err;
}

static kim_err run(const bench *b, const row *r)
{
    const int32_t *tokens = b->tokens + options.depth;
    if (r->n_prompt)
        return kim_session_append(b->o.session, tokens, r->n_prompt);
    kim_err err = KIM_OK;
    for (uint32_t i = 0; !err && i < r->n_gen; i++) {
        err = kim_session_append(b->o.session, &tokens[i], 1);
        (void)kim_session_logits(b->o.session); // as sampling would, at every step
    }
    return err;
}

static void summarise(const bench *b, row *r)
{
    uint32_t n = (uint32_t)options.repeats;
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += r->samples[i];
    r->mean = sum / n;
    for (uint32_t i = 0; i < n; i++)
        squares += (r->samples[i] - r->mean) * (r->samples[i] - r->mean);
    r->deviation = n > 1 ? sqrt(squares / (n - 1)) : 0;
    double steps_a_second = r->mean * row_steps(b, r) / row_tokens(b, r);
    r->bandwidth_gbs =
        (double)(r->n_images ? b->vision_weights : b->weights) * steps_a_second * 1e-9;
}

static kim_err measure(const bench *b, row *r)
{
    uint32_t tokens = row_tokens(b, r), steps = row_steps(b, r);
    int length =
        r->n_images
            ? snprintf(r->test, sizeof r->test, "img%u x %u", b->info->image_size, r->n_images)
            : snprintf(r->test, sizeof r->test, "%s%u", r->n_gen ? "tg" : "pp", tokens);
    if (options.depth && !r->n_images)
        snprintf(r->test + length, sizeof r->test - (size_t)length, " @ d%d", options.depth);
    r->samples = checked(calloc((size_t)options.repeats, sizeof *r->samples));
    for (int i = -1; i < options.repeats; i++) { // the first warms up and is not counted
        kim_session_stats before, after;
        kim_err err = r->n_images ? KIM_OK : prepare(b);
        if (err)
            return err;
        kim_session_get_stats(b->o.session, &before);
        double start = now_seconds(), seconds = 0;
        err = r->n_images ? run_images(b, r, &seconds) : run(b, r);
        if (!r->n_images)
            seconds = now_seconds() - start;
        if (err)
            return err;
        kim_session_get_stats(b->o.session, &after);
        r->dispatches_per_step = (double)(after.dispatches - before.dispatches) / steps;
        r->submits_per_step = (double)(after.submits - before.submits) / steps;
        if (i >= 0)
            r->samples[i] = tokens / seconds;
    }
    summarise(b, r);
    return KIM_OK;
}

// --------------------------------------------------------------------------------- printing

static const char *build_text(char buffer[256])
{
#ifdef __clang__
    const char *compiler = "";
#else
    const char *compiler = "gcc ";
#endif
    const char *missing = kim_build_missing();
    snprintf(buffer, 256, "kimberlite %s (%s), %s%s%s%s", KIM_VERSION, KIM_BUILD_COMMIT, compiler,
             __VERSION__, *missing ? "; lacks: " : "", missing);
    return buffer;
}

static const char *model_text(const bench *b)
{
    return *b->info->name ? b->info->name : *b->info->size ? b->info->size : b->info->architecture;
}

static int print_rows_json(const bench *b)
{
    char build[256];
    const kim_device_info *device = kim_gpu_info(b->o.gpu);
    cJSON *json = checked(cJSON_CreateArray());
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const row *r = &b->rows[i];
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "test", r->test);
        cJSON_AddNumberToObject(object, "n_prompt", r->n_prompt);
        cJSON_AddNumberToObject(object, "n_gen", r->n_gen);
        cJSON_AddNumberToObject(object, "n_images", r->n_images);
        cJSON_AddNumberToObject(object, "n_depth", options.depth);
        cJSON_AddNumberToObject(object, "avg_ts", r->mean);
        cJSON_AddNumberToObject(object, "stddev_ts", r->deviation);
        cJSON_AddItemToObject(object, "samples_ts",
                              cJSON_CreateDoubleArray(r->samples, options.repeats));
        cJSON_AddNumberToObject(object, "dispatches_per_step", r->dispatches_per_step);
        cJSON_AddNumberToObject(object, "submits_per_step", r->submits_per_step);
        cJSON_AddNumberToObject(object, "bandwidth_gbs", r->bandwidth_gbs);
        if (r->n_images)
            cJSON_AddNumberToObject(object, "gflops", r->gflops);
        cJSON_AddStringToObject(object, "model", model_text(b));
        cJSON_AddNumberToObject(object, "model_parameters", (double)b->info->parameters);
        cJSON_AddNumberToObject(object, "model_bytes", (double)b->weights);
        cJSON_AddStringToObject(object, "device", device->name);
        cJSON_AddStringToObject(object, "driver", device->driver);
        cJSON_AddStringToObject(object, "build", build_text(build));
        cJSON_AddItemToArray(json, object);
    }
    return print_json(json);
}

// RFC 4180: in quotes, with quotes doubled.
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

static void print_rows_csv(const bench *b)
{
    char build[256];
    const kim_device_info *device = kim_gpu_info(b->o.gpu);
    puts("test,n_prompt,n_gen,n_depth,avg_ts,stddev_ts,dispatches_per_step,submits_per_step,"
         "bandwidth_gbs,model,device,driver,build");
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const row *r = &b->rows[i];
        printf("%s,%u,%u,%d,%.6g,%.6g,%.6g,%.6g,%.6g,", r->test, r->n_prompt, r->n_gen,
               options.depth, r->mean, r->deviation, r->dispatches_per_step, r->submits_per_step,
               r->bandwidth_gbs);
        const char *const texts[] = { model_text(b), device->name, device->driver,
                                      build_text(build) };
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
            if (k)
                putchar(',');
            print_csv_text(texts[k]);
        }
        putchar('\n');
    }
}

static void print_rows_md(const bench *b)
{
    char bytes[32], build[256];
    const kim_device_info *device = kim_gpu_info(b->o.gpu);
    printf("| %-24s | %10s | %-16s | %18s | %8s | %15s | %12s |\n", "model", "size", "test",
           "tokens/s", "GB/s", "dispatches/step", "submits/step");
    puts("| ------------------------ | ---------: | ---------------- | -----------------: | "
         "-------: | --------------: | -----------: |");
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const row *r = &b->rows[i];
        char speed[64];
        snprintf(speed, sizeof speed, "%.2f \u00b1 %.2f", r->mean, r->deviation);
        // the sign takes two bytes and one column
        printf("| %-24s | %10s | %-16s | %19s | %8.2f | %15.1f | %12.2f |\n", model_text(b),
               format_bytes(b->weights, bytes), r->test, speed, r->bandwidth_gbs,
               r->dispatches_per_step, r->submits_per_step);
    }
    for (uint32_t i = 0; i < b->n_rows; i++)
        if (b->rows[i].n_images)
            printf("\n%s: tokens are soft tokens; the encoder's products at %.1f GFLOP/s\n",
                   b->rows[i].test, b->rows[i].gflops);
    printf("\n%s, %s\n%s\n", device->name, device->driver, build_text(build));
}

static int print_rows(const bench *b, output_format format)
{
    if (format == OUTPUT_JSON)
        return print_rows_json(b);
    if (format == OUTPUT_CSV)
        print_rows_csv(b);
    else
        print_rows_md(b);
    return output_flush() ? STATUS_OK : STATUS_FAILED;
}

// ---------------------------------------------------------------------------------- command

static int check_options(output_format *format)
{
    static const char *const formats[] = {
        [OUTPUT_MD] = "md", [OUTPUT_CSV] = "csv", [OUTPUT_JSON] = "json"
    };
    if (options.sessions != 1)
        return fail_usage("-b is %d; sessions decoded together are not in this version, it can "
                          "only be 1",
                          options.sessions);
    if (!option_in_range("-p", options.n_prompt, 0, 1 << 24) ||
        !option_in_range("-n", options.n_gen, 0, 1 << 24) ||
        !option_in_range("-i", options.n_images, 0, 1 << 12) ||
        !option_in_range("-d", options.depth, 0, 1 << 24) ||
        !option_in_range("-r", options.repeats, 1, 10000))
        return STATUS_USAGE;
    if (!options.n_prompt && !options.n_gen && !options.n_images)
        return fail_usage("-p, -n and -i are all 0: there is nothing to measure");
    for (int i = OUTPUT_MD; i <= OUTPUT_JSON; i++) {
        *format = (output_format)i;
        if (strcmp(options.format ? options.format : "md", formats[i]) == 0)
            return STATUS_OK;
    }
    return fail_usage("-o is \"%s\"; it must be md, csv or json", options.format);
}

static int open_bench(bench *b)
{
    uint32_t longest = (uint32_t)options.n_prompt > (uint32_t)options.n_gen
                           ? (uint32_t)options.n_prompt
                           : (uint32_t)options.n_gen;
    uint32_t positions = (uint32_t)options.depth + (longest ? longest : 1);
    int status = open_gpu(&b->o);
    if (status == STATUS_OK)
        status = open_model(&b->o);
    if (status == STATUS_OK)
        status = open_session(&b->o, given.context ? (uint32_t)given.context : positions);
    if (status != STATUS_OK)
        return status;
    kim_plan plan;
    kim_session_params params = { .context = kim_session_context(b->o.session),
                                  .batch = (uint32_t)given.batch };
    if (kim_model_plan(b->o.model, b->o.gpu, &params, &plan))
        return fail_library();
    b->info = kim_model_get_info(b->o.model);
    b->batch = given.batch ? (uint32_t)given.batch : 512;
    b->weights = plan.weights;
    b->vision_weights = plan.vision_weights;
    if (options.n_images && !b->info->vision)
        return fail("this model cannot see pictures; give the mmproj file that was published with "
                    "it, with --mmproj");
    if (options.n_prompt)
        b->rows[b->n_rows++].n_prompt = (uint32_t)options.n_prompt;
    if (options.n_gen)
        b->rows[b->n_rows++].n_gen = (uint32_t)options.n_gen;
    if (options.n_images)
        b->rows[b->n_rows++].n_images = (uint32_t)options.n_images;
    make_tokens(b, positions);
    return STATUS_OK;
}

static int bench_model(int argc, const char **argv)
{
    output_format format = OUTPUT_MD;
    int status = arguments_parse(
        &(arguments){
            .command = "kim bench model",
            .synopsis = "-m MODEL [OPTION...]",
            .purpose =
                "Measures how fast a prompt is read (pp), how fast tokens are decoded (tg), and\n"
                "how fast pictures are encoded (img), as mean and standard deviation of the\n"
                "repeats.",
            .notes = "GB/s counts the weights once a step: a batch of the prompt, or one token.\n",
            .options = table,
        },
        argc, argv);
    if (status != STATUS_GO_ON)
        return status;
    status = check_options(&format);
    if (status != STATUS_OK)
        return status;
    if (!model_path())
        return STATUS_USAGE;
    bench b = { 0 };
    status = open_bench(&b);
    for (uint32_t i = 0; i < b.n_rows && status == STATUS_OK; i++) {
        if (measure(&b, &b.rows[i]))
            status = fail_library();
    }
    if (status == STATUS_OK)
        status = print_rows(&b, format);
    for (uint32_t i = 0; i < b.n_rows; i++)
        free(b.rows[i].samples);
    free(b.tokens);
    return close_all(&b.o, status);
}

int command_bench(int argc, const char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "model") == 0)
        return bench_model(argc - 1, argv + 1);
    if (strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0) {
        puts("Usage: kim bench model [OPTION...]\n\n"
             "  model      prompt and decode speed of a model\n\n"
             "`kim bench model --help` tells more.");
        return STATUS_OK;
    }
    if (!*what)
        return fail_usage("kim bench needs to know what to measure: `kim bench model`");
    return fail_usage("there is no benchmark \"%s\"; `kim bench model` is the one there is", what);
}
