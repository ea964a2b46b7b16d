// SPDX-License-Identifier: MIT
// Traces tell what is run: as many commands and barriers as the streams count, work as the shapes
// of the model have it, times that add up; and the labels for debuggers are whole.
//
//   trace_test TESTS_FOLDER [MODEL] [--device D] [--validation]
#include "model_support.h"

#include "host/clock.h"
#include "host/gpu.h"

#include <math.h>

enum { CONTEXT = 300, BATCH = 32, START = 75, MOST_EVENTS = 4096 };

// What a traced call told.
typedef struct trace {
    const kim_model_info *info;
    uint64_t runs, commands; // commands: of the run so far
    uint32_t dispatches, barriers, submits;
    uint32_t run_submits; // of the run so far
    uint32_t layers;      // sections of the run so far that are layers
    double seconds, products, attention, keys_read;
    bool timed;
} trace;

static void take(void *user, const kim_trace_event *e)
{
    trace *t = user;
    char text[128];
    if (e->run != t->runs) {
        CHECK(e->run == t->runs + 1 && !e->command, "run %u begins with command %u",
              (unsigned)e->run, e->command);
        t->runs++;
        t->commands = 0;
        t->layers = 0;
        t->run_submits = 0;
    }
    CHECK(e->command == t->commands++, "command %u, not %u", e->command, (unsigned)t->commands - 1);
    CHECK(e->submit + 1 >= t->run_submits, "submit %u after %u", e->submit, t->run_submits);
    t->submits += e->submit + 1 - t->run_submits;
    t->run_submits = e->submit + 1;
    t->dispatches += e->kind == KIM_TRACE_DISPATCH;
    t->barriers += e->barrier.there;
    if (e->barrier.tensor)
        CHECK(e->barrier.after < e->command && *e->barrier.tensor &&
                  (e->barrier.before != KIM_TRACE_READS || e->barrier.now != KIM_TRACE_READS),
              "command %u waits for %u, and both read", e->command, e->barrier.after);
    if (!strcmp(e->section, "layer")) {
        CHECK(e->section_index + 1 == t->layers || e->section_index == t->layers,
              "layer %u after %u layers", e->section_index, t->layers);
        t->layers = e->section_index + 1;
    }
    t->timed &= e->seconds >= 0;
    t->seconds += e->seconds;
    kim_operation_text(&e->operation, text);
    CHECK(*text && *e->section, "command %u has no text, or no section", e->command);
    if (!strncmp(text, "matmul", 6))
        t->products += e->flop;
    if (strstr(text, "attention"))
        t->attention += e->flop;
    uint64_t read = 0, written = 0;
    for (uint32_t i = 0; i < e->n_tensors; i++) {
        CHECK(*e->tensors[i].name, "%s: a tensor without a name", text);
        read += e->tensors[i].read;
        written += e->tensors[i].written;
        if (!strcmp(e->tensors[i].name, "K cache"))
            t->keys_read += (double)e->tensors[i].read;
    }
    CHECK(read == e->read && written == e->written && written, "%s: %llu bytes read, %llu written",
          text, (unsigned long long)e->read, (unsigned long long)e->written);
}

typedef struct moment {
    kim_session_stats stats;
    double seconds;
} moment;

static moment begin(kim_gpu *gpu, kim_session *s, trace *t)
{
    moment m;
    *t = (trace){ .info = t->info, .timed = true };
    kim_gpu_set_trace(gpu, take, t);
    kim_session_get_stats(s, &m.stats);
    m.seconds = clock_seconds();
    return m;
}

// runs: that the call makes
static void end(kim_gpu *gpu, kim_session *s, const trace *t, const moment *before, uint32_t runs)
{
    const double wall = clock_seconds() - before->seconds;
    kim_session_stats after;
    kim_session_get_stats(s, &after);
    kim_gpu_set_trace(gpu, NULL, NULL);
    CHECK(t->runs == runs, "%u runs, not %u", (unsigned)t->runs, runs);
    CHECK(t->dispatches == after.dispatches - before->stats.dispatches &&
              t->barriers == after.barriers - before->stats.barriers &&
              t->submits == after.submits - before->stats.submits,
          "%u dispatches, %u barriers, %u submits, where the session counts %u, %u and %u",
          t->dispatches, t->barriers, t->submits,
          (unsigned)(after.dispatches - before->stats.dispatches),
          (unsigned)(after.barriers - before->stats.barriers),
          (unsigned)(after.submits - before->stats.submits));
    if (gpu->limits.timestampComputeAndGraphics)
        CHECK(t->timed && t->seconds > 0 && t->seconds < wall, "%g s on the device, of %g s",
              t->seconds, wall);
}

// By the shapes: of the products, and of attention without what rope does.
static void check_work(const trace *t, uint32_t position, uint32_t rows, bool logits, bool rope)
{
    const kim_model_info *i = t->info;
    const double q = i->heads * i->head_size, kv = i->kv_heads * i->head_size;
    const double layer =
        i->hidden * (q + 2 * kv) + q * i->hidden + 3.0 * i->hidden * i->feed_forward;
    const double products = 2 * layer * i->layers * rows + 2.0 * i->vocab * i->hidden * logits;
    CHECK(fabs(t->products - products) < 0.5, "%g operations of products, not %g", t->products,
          products);
    double attention = 0, keys = 0;
    for (uint32_t l = 0; l < i->layers; l++) {
        const bool local = i->window && (l + 1) % i->window_pattern;
        const uint32_t window = local ? i->window : CONTEXT, all = position + rows;
        for (uint32_t r = 1; r <= rows; r++)
            attention += 4 * q * (position + r < window ? position + r : window);
        keys += 2 * kv * (all < window + rows - 1 ? all : window + rows - 1);
        attention += rope ? 7.0 * (q + kv) : 0;
    }
    CHECK(fabs(t->attention - attention) < 0.5, "%g operations of attention, not %g", t->attention,
          attention);
    CHECK(fabs(t->keys_read - keys) < 0.5, "%g bytes of keys, not %g", t->keys_read, keys);
}

static void test_trace(kim_gpu *gpu, const small_model *m)
{
    kim_session *s = NULL, *plain = NULL;
    kim_sampler *sampler = NULL;
    static const int32_t none;
    trace t = { .info = kim_model_get_info(m->model) };
    const size_t bytes = t.info->vocab * sizeof(float);
    const kim_session_params params = { .context = CONTEXT, .batch = BATCH };
    CHECK_OK(kim_session_create(&s, m->model, &params));
    CHECK_OK(kim_session_create(&plain, m->model, &params));
    // the first run of a shape is cut into many submits: nothing is known of its duration
    for (uint32_t at = 0, rows; at < START; at += rows) {
        rows = START - at < BATCH ? START - at : BATCH;
        moment before = begin(gpu, s, &t);
        CHECK_OK(kim_session_append(s, m->ids + at, rows));
        end(gpu, s, &t, &before, 1);
        CHECK(t.layers == t.info->layers, "%u layers", t.layers);
        check_work(&t, at, rows, true, rows == 1);
        CHECK_OK(kim_session_append(plain, m->ids + at, rows));
    }
    CHECK(!memcmp(kim_session_logits(s), kim_session_logits(plain), bytes),
          "a traced prompt gives other logits");
    moment before = begin(gpu, s, &t);
    CHECK_OK(kim_session_append(s, m->ids + START, 1));
    end(gpu, s, &t, &before, 1);
    check_work(&t, START, 1, true, true);
    CHECK_OK(kim_session_append(plain, m->ids + START, 1));
    CHECK(!memcmp(kim_session_logits(s), kim_session_logits(plain), bytes),
          "a traced token gives other logits");
    CHECK_OK(kim_sampler_create(&sampler, &(kim_sampling){ .greedy = true }));
    before = begin(gpu, s, &t);
    CHECK_OK(
        kim_session_answer(s, sampler, &(kim_answer_params){ .most = 3, .stops = &none }, NULL));
    end(gpu, s, &t, &before, 4); // three draws, of which two read the one before; the last is read
    t.runs = 0;
    CHECK_OK(kim_session_append(s, m->ids, 1));
    CHECK(!t.runs, "what is not traced is told");
    kim_sampler_destroy(&sampler);
    kim_session_destroy(&s);
    kim_session_destroy(&plain);
}

// ---------------------------------------------------------------------------------------- labels

// What a debugger would be given.
static struct {
    uint32_t depth, deepest, begun, names;
    bool layer, operation, pool, pipeline;
} labels;

static VKAPI_ATTR void VKAPI_CALL label_begin(VkCommandBuffer cb, const VkDebugUtilsLabelEXT *l)
{
    (void)cb;
    labels.begun++;
    labels.depth++;
    labels.deepest = labels.depth > labels.deepest ? labels.depth : labels.deepest;
    labels.layer |= labels.depth == 1 && !strcmp(l->pLabelName, "layer 3");
    labels.operation |= labels.depth == 2 && !strncmp(l->pLabelName, "rope+attention heads=", 21);
}

static VKAPI_ATTR void VKAPI_CALL label_end(VkCommandBuffer cb)
{
    (void)cb;
    CHECK(labels.depth, "a label ends that has not begun");
    labels.depth--;
}

static VKAPI_ATTR VkResult VKAPI_CALL label_name(VkDevice device,
                                                 const VkDebugUtilsObjectNameInfoEXT *name)
{
    (void)device;
    labels.names++;
    labels.pool |=
        name->objectType == VK_OBJECT_TYPE_BUFFER && !strcmp(name->pObjectName, "activations 0");
    labels.pipeline |= name->objectType == VK_OBJECT_TYPE_PIPELINE &&
                       !strncmp(name->pObjectName, "sample_greedy ", 14);
    return VK_SUCCESS;
}

static void test_labels(const small_model *m)
{
    kim_session *s = NULL;
    CHECK_OK(kim_session_create(&s, m->model, &(kim_session_params){ .context = 64, .batch = 8 }));
    CHECK_OK(kim_session_append(s, m->ids, 1));
    CHECK(!labels.depth && labels.deepest == 2, "labels end %u deep, %u at most", labels.depth,
          labels.deepest);
    CHECK(labels.layer && labels.operation && labels.pool && labels.pipeline,
          "of %u labels and %u names some are not there", labels.begun, labels.names);
    kim_session_destroy(&s);
}

int main(int argc, char **argv)
{
    model_options o = { 0 };
    small_model m;
    model_options_read(&o, argc, argv);
    kim_gpu *gpu = model_gpu(&o);
    CHECK(gpu->labels.begin && gpu->labels.name, "Vulkan's loader has VK_EXT_debug_utils");
    gpu->labels = (gpu_labels){ label_begin, label_end, label_name };
    small_model_open(&m, o.tests_folder, "4b", gpu);
    test_labels(&m);
    gpu->labels = (gpu_labels){ 0 }; // as where the extension is absent; other tests have it
    labels.begun = labels.names = 0;
    test_trace(gpu, &m);
    CHECK(!labels.begun && !labels.names, "labels in spite of that");
    small_model_close(&m);
    model_gpu_finish(&gpu);
    return 0;
}
