// SPDX-License-Identifier: MIT
// Sessions: cut, fork, save and load give what a fresh run gives; errors leave them as they were;
// the memory plan is exact.
//
//   session_test TESTS_FOLDER [MODEL] [--device D] [--mode address|table] [--validation] [--limit
//   N]
// --limit: for slow drivers: saved files are read into N shapes, and what only the host does,
// damaged files, errors and threads, is left out
#include "model_support.h"

#include <math.h>
#include <pthread.h>
#include <unistd.h>

// The same tokens in other batches: other roundings of K and V, as in small_models_test.c.
#define SAME_LOGITS 0.1

static kim_kv_type kv_type; // of the sessions that are made

enum { BATCH = 32, CONTEXT = 500 }; // rings of 16 + 32 positions, rounded up to 64

static char folder[] = "/tmp/kim_session_XXXXXX";

static const char *in_folder(const char *name)
{
    static char paths[4][96];
    static uint32_t turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static kim_session *new_session(kim_model *model, uint32_t context, uint32_t batch)
{
    kim_session *s = NULL;
    CHECK_OK(kim_session_create(
        &s, model,
        &(kim_session_params){ .context = context, .batch = batch, .kv_type = kv_type }));
    CHECK(kim_session_context(s) == context, "the context is %u", kim_session_context(s));
    return s;
}

static kim_session *session_of(kim_model *model, const int32_t *ids, uint32_t n)
{
    kim_session *s = new_session(model, CONTEXT, BATCH);
    CHECK_OK(kim_session_append(s, ids, n));
    return s;
}

static float *copy_logits(const small_model *m, const kim_session *s)
{
    float *copy = malloc(m->expected.vocab * sizeof *copy);
    CHECK(copy && kim_session_logits(s), "there are no logits");
    memcpy(copy, kim_session_logits(s), m->expected.vocab * sizeof *copy);
    return copy;
}

// The session's tokens are these, and its logits what a fresh session has after them.
static void check_fresh(const small_model *m, const kim_session *s, const int32_t *ids, uint32_t n,
                        const char *what)
{
    CHECK(kim_session_position(s) == n, "%s: the position is %u, not %u", what,
          kim_session_position(s), n);
    CHECK(!memcmp(kim_session_tokens(s), ids, n * sizeof *ids), "%s: the tokens are others", what);
    kim_session *fresh = session_of(m->model, ids, n);
    const float *got = kim_session_logits(s), *want = kim_session_logits(fresh);
    CHECK(got && want, "%s: there are no logits", what);
    double worst = 0;
    for (uint32_t i = 0; i < m->expected.vocab; i++) {
        const double error = fabs((double)got[i] - (double)want[i]);
        if (!(error <= worst))
            worst = error;
    }
    CHECK(worst <= SAME_LOGITS, "%s: logits are off by %g", what, worst);
    printf("  %-52s off by %.2g\n", what, worst);
    kim_session_destroy(&fresh);
}

// Nothing of a session has changed by a call that failed.
static void check_unharmed(const small_model *m, const kim_session *s, const int32_t *ids,
                           uint32_t n, const float *logits)
{
    CHECK(kim_session_position(s) == n && !memcmp(kim_session_tokens(s), ids, n * sizeof *ids),
          "after a failed call the tokens are others: \"%s\"", kim_error_text());
    CHECK(kim_session_logits(s) &&
              !memcmp(kim_session_logits(s), logits, m->expected.vocab * sizeof *logits),
          "after a failed call the logits are others: \"%s\"", kim_error_text());
}

// ids[0..kept], then others than the fixture's: what stands in the cache from before would be
// wrong.
static int32_t *other_past(const small_model *m, uint32_t kept, uint32_t n)
{
    int32_t *ids = malloc(n * sizeof *ids);
    CHECK(ids, "out of memory");
    for (uint32_t i = 0; i < n; i++)
        ids[i] = i < kept ? m->ids[i] : (int32_t)random_below(m->expected.vocab);
    return ids;
}

// ------------------------------------------------------------------------------------------ cut

static void cut_and_append(const small_model *m, kim_session *s, uint32_t kept, uint32_t more,
                           const char *what)
{
    int32_t *ids = other_past(m, kept, kept + more);
    CHECK_OK(kim_session_cut(s, kept));
    CHECK(kim_session_position(s) == kept, "%s: the position after the cut is %u", what,
          kim_session_position(s));
    CHECK(!kim_session_logits(s), "%s: there are logits after a cut", what);
    CHECK_OK(kim_session_append(s, ids + kept, more));
    check_fresh(m, s, ids, kept + more, what);
    free(ids);
}

static void test_cut(const small_model *m)
{
    printf("cut\n");
    kim_session *s = new_session(m->model, CONTEXT, BATCH);
    CHECK(!kim_session_logits(s) && !kim_session_position(s), "a new session is not empty");
    CHECK_OK(kim_session_cut(s, 0));
    CHECK_OK(kim_session_append(s, m->ids, 150));
    float *logits = copy_logits(m, s);
    CHECK_OK(kim_session_cut(s, 150)); // nothing is forgotten
    check_unharmed(m, s, m->ids, 150, logits);
    CHECK_FAILS(kim_session_cut(s, 151), KIM_ERR_ARGUMENT, "150");
    check_unharmed(m, s, m->ids, 150, logits);
    free(logits);

    cut_and_append(m, s, 149, 1, "the last token");
    cut_and_append(m, s, 145, 20, "within the last batch");
    cut_and_append(m, s, 120, 3, "40 back");
    cut_and_append(m, s, 50, 25, "beyond the rings");
    cut_and_append(m, s, 45, 1, "a single token after a cut");
    cut_and_append(m, s, 0, 65, "all of it");

    // a cut, and another one before anything was read
    CHECK_OK(kim_session_cut(s, 0));
    CHECK_OK(kim_session_append(s, m->ids, 200));
    CHECK_OK(kim_session_cut(s, 190));
    CHECK_OK(kim_session_append(s, m->ids + 1, 1));
    CHECK_OK(kim_session_cut(s, 180));
    cut_and_append(m, s, 100, 35, "several cuts");
    kim_session_destroy(&s);
    CHECK(!s, "destroy left the pointer");
    kim_session_destroy(&s);
    kim_session_destroy(NULL);
}

// ----------------------------------------------------------------------------------------- fork

static void test_fork(const small_model *m)
{
    printf("fork\n");
    kim_session *a = session_of(m->model, m->ids, 100), *b = NULL, *c = NULL;
    float *logits = copy_logits(m, a);
    CHECK_OK(kim_session_fork(&b, a));
    CHECK(kim_session_context(b) == CONTEXT, "the fork's context is %u", kim_session_context(b));
    check_unharmed(m, b, m->ids, 100, logits);

    int32_t *ids = other_past(m, 100, 145);
    CHECK_OK(kim_session_append(b, ids + 100, 20)); // in turns: each has its own K and V
    CHECK_OK(kim_session_append(a, m->ids + 100, 35));
    CHECK_OK(kim_session_append(b, ids + 120, 25));
    check_fresh(m, a, m->ids, 135, "the first goes on");
    check_fresh(m, b, ids, 145, "the fork goes on its own way");
    kim_session_destroy(&a);
    CHECK_OK(kim_session_fork(&c, b));
    kim_session_destroy(&b);
    cut_and_append(m, c, 75, 20, "a fork's fork, alone, cut back");
    kim_session_destroy(&c);
    free(logits);
    free(ids);

    a = new_session(m->model, CONTEXT, BATCH);
    CHECK_OK(kim_session_fork(&b, a)); // of nothing
    CHECK(!kim_session_position(b) && !kim_session_logits(b), "the fork of nothing has something");
    CHECK_OK(kim_session_append(b, m->ids, 30));
    check_fresh(m, b, m->ids, 30, "a fork of nothing");
    kim_session_destroy(&a);
    kim_session_destroy(&b);
}

// ---------------------------------------------------------------------------------- save and load

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    CHECK(file, "%s cannot be opened", path);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(*size);
    CHECK(data && fread(data, 1, *size, file) == *size, "%s cannot be read", path);
    fclose(file);
    return data;
}

static void write_file(const char *path, const uint8_t *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(data, 1, size, file) == size && !fclose(file), "%s cannot be written",
          path);
}

static void test_load(const small_model *m, const char *path, uint32_t limit)
{
    printf("save and load\n");
    // rings and context of other sizes
    static const struct {
        uint32_t context, batch;
    } shapes[] = { { CONTEXT, BATCH }, { 700, 150 }, { 150, 1 }, { 125, 7 } };
    kim_session *saved = session_of(m->model, m->ids, 125);
    float *logits = copy_logits(m, saved);
    CHECK_OK(kim_session_save(saved, path));
    check_unharmed(m, saved, m->ids, 125, logits);
    CHECK_OK(kim_session_append(saved, m->ids + 125, 15));
    check_fresh(m, saved, m->ids, 140, "the session that was saved goes on");
    for (uint32_t i = 0; i < limit && i < sizeof shapes / sizeof shapes[0]; i++) {
        char what[64];
        kim_session *s = new_session(m->model, shapes[i].context, shapes[i].batch);
        snprintf(what, sizeof what, "loaded: context %u, batch %u", shapes[i].context,
                 shapes[i].batch);
        if (i)
            CHECK_OK(kim_session_append(s, m->ids + 50, 75)); // is replaced
        CHECK_OK(kim_session_load(s, path));
        check_unharmed(m, s, m->ids, 125, logits);
        if (shapes[i].context > 140) {
            CHECK_OK(kim_session_append(s, m->ids + 125, 15));
            check_fresh(m, s, m->ids, 140, what);
        }
        cut_and_append(m, s, 123, 2, "and cut back by two");
        CHECK_OK(kim_session_cut(s, 0));
        CHECK_OK(
            kim_session_append(s, m->ids + 1, 120)); // what the file lacks is now something else
        CHECK_OK(kim_session_load(s, path));
        kim_session *fork = NULL;
        CHECK_OK(kim_session_fork(&fork, s));
        cut_and_append(m, fork, 105, 3, "a fork of it, cut back beyond what the file has");
        kim_session_destroy(&fork);
        cut_and_append(m, s, 124, 1, "loaded again, and cut back by one");
        cut_and_append(m, s, 105, 3, "and cut back beyond what the file has");
        cut_and_append(m, s, 30, 20, "and cut far back");
        kim_session_destroy(&s);
    }
    kim_session *small = new_session(m->model, 124, BATCH);
    CHECK_FAILS(kim_session_load(small, path), KIM_ERR_CONTEXT_FULL, "125");
    kim_session_destroy(&small);

    // after a cut there are no logits to save; far back, the rings must be made whole first
    CHECK_OK(kim_session_cut(saved, 130));
    CHECK_OK(kim_session_save(saved, in_folder("cut")));
    CHECK_OK(kim_session_load(saved, in_folder("cut")));
    CHECK(kim_session_position(saved) == 130 && !kim_session_logits(saved), "a cut was not kept");
    CHECK_OK(kim_session_cut(saved, 60));
    CHECK_OK(kim_session_save(saved, in_folder("cut")));
    CHECK_OK(kim_session_load(saved, in_folder("cut")));
    CHECK_OK(kim_session_append(saved, m->ids + 60, 10));
    check_fresh(m, saved, m->ids, 70, "saved after a cut");

    // an empty one, over a file that is there
    CHECK_OK(kim_session_cut(saved, 0));
    CHECK_OK(kim_session_save(saved, in_folder("cut")));
    CHECK_OK(kim_session_append(saved, m->ids, 10));
    CHECK_OK(kim_session_load(saved, in_folder("cut")));
    CHECK(!kim_session_position(saved), "an empty session came back with something");
    kim_session_destroy(&saved);
    free(logits);
}

typedef struct damage_case {
    const small_model *m;
    kim_session *session; // of the model's first 33 tokens
    float *logits;
    char path[96];
    uint32_t tried;
} damage_case;

// The file is not loaded, the sentence names it, and the session is as before.
static void check_rejected(damage_case *c, const char *what)
{
    const kim_err got = kim_session_load(c->session, c->path);
    CHECK(got == KIM_ERR_FORMAT || got == KIM_ERR_UNSUPPORTED || got == KIM_ERR_CONTEXT_FULL ||
              got == KIM_ERR_FILE,
          "%s: \"%s\"", what, got ? kim_error_text() : "was loaded");
    CHECK(strstr(kim_error_text(), c->path), "%s: \"%s\" does not name the file", what,
          kim_error_text());
    check_unharmed(c->m, c->session, c->m->ids, 33, c->logits);
    c->tried++;
}

static void test_damage(const small_model *m, const small_model *other, const char *path)
{
    printf("damaged files\n");
    damage_case c = { .m = m, .session = session_of(m->model, m->ids, 33) };
    char what[64];
    size_t size;
    uint8_t *data = read_file(path, &size);
    c.logits = copy_logits(m, c.session);
    snprintf(c.path, sizeof c.path, "%s", in_folder("damaged"));
    for (size_t at = 0; at < size; at += at < 1100 ? 1 : size / 97) {
        const uint8_t before = data[at];
        snprintf(what, sizeof what, "byte %zu changed", at);
        data[at] ^= (uint8_t)(1 << random_below(8));
        write_file(c.path, data, size);
        check_rejected(&c, what);
        data[at] = before;
    }
    for (size_t cut = 0; cut < size; cut += cut < 100 ? 1 : size / 31) {
        snprintf(what, sizeof what, "%zu of %zu bytes", cut, size);
        write_file(c.path, data, cut);
        check_rejected(&c, what);
    }
    data = realloc(data, size + 8);
    CHECK(data, "out of memory");
    memset(data + size, 0, 8);
    write_file(c.path, data, size + 8);
    check_rejected(&c, "bytes too many");

    kim_session *stranger = session_of(other->model, other->ids, 20);
    CHECK_OK(kim_session_save(stranger, c.path));
    check_rejected(&c, "of another model");
    kim_session_destroy(&stranger);
    kv_type = KIM_KV_Q8_0;
    stranger = session_of(m->model, m->ids, 33);
    kv_type = KIM_KV_F16;
    CHECK_OK(kim_session_save(stranger, c.path));
    check_rejected(&c, "of another type of K and V");
    CHECK(strstr(kim_error_text(), "q8_0") && strstr(kim_error_text(), "f16"),
          "\"%s\" does not name the types", kim_error_text());
    kim_session_destroy(&stranger);

    CHECK_FAILS(kim_session_load(c.session, in_folder("nothing")), KIM_ERR_FILE, "nothing");
    CHECK_FAILS(kim_session_load(c.session, folder), KIM_ERR_FILE, folder);
    CHECK_FAILS(kim_session_save(c.session, in_folder("no/where")), KIM_ERR_FILE, "no/where");
    check_unharmed(m, c.session, m->ids, 33, c.logits);
    CHECK_OK(kim_session_append(c.session, m->ids + 33, 5));
    check_fresh(m, c.session, m->ids, 38, "the session goes on");
    printf("  %u damaged files\n", c.tried);
    kim_session_destroy(&c.session);
    free(c.logits);
    free(data);
}

// --------------------------------------------------------------------------------------- errors

static void test_errors(const small_model *m)
{
    printf("errors\n");
    const int32_t vocab = (int32_t)m->expected.vocab;
    kim_session *s = new_session(m->model, 100, BATCH), *none = NULL;
    CHECK_OK(kim_session_append(s, m->ids, 90));
    float *logits = copy_logits(m, s);
    kim_score scores[20];
    const int32_t negative[] = { 5, -1 }, high[] = { 5, 6, vocab };

    CHECK_FAILS(kim_session_append(s, m->ids, 13), KIM_ERR_CONTEXT_FULL, "13");
    CHECK(strstr(kim_error_text(), "10") && strstr(kim_error_text(), "3 too few") &&
              strstr(kim_error_text(), "100"),
          "\"%s\" does not say by how much", kim_error_text());
    check_unharmed(m, s, m->ids, 90, logits);
    CHECK_FAILS(kim_session_append(s, m->ids, UINT32_MAX), KIM_ERR_CONTEXT_FULL, "4294967295");
    CHECK_FAILS(kim_session_read(s, &(kim_prompt){ .tokens = m->ids, .count = 11 }, scores),
                KIM_ERR_CONTEXT_FULL, "11");
    CHECK_FAILS(kim_session_append(s, negative, 2), KIM_ERR_ARGUMENT, "-1");
    CHECK_FAILS(kim_session_append(s, high, 3), KIM_ERR_ARGUMENT, "300");
    CHECK_FAILS(kim_session_append(s, m->ids, 0), KIM_ERR_ARGUMENT, "");
    CHECK_FAILS(kim_session_append(s, NULL, 1), KIM_ERR_ARGUMENT, "");
    CHECK_FAILS(kim_session_append(NULL, m->ids, 1), KIM_ERR_ARGUMENT, "");
    CHECK_FAILS(kim_session_read(s, NULL, NULL), KIM_ERR_ARGUMENT, "");
    CHECK_FAILS(kim_session_save(s, NULL), KIM_ERR_ARGUMENT, "");
    CHECK_FAILS(kim_session_load(s, NULL), KIM_ERR_ARGUMENT, "");
    CHECK_FAILS(kim_session_fork(&none, NULL), KIM_ERR_ARGUMENT, "");
    check_unharmed(m, s, m->ids, 90, logits);
    CHECK_OK(kim_session_append(s, m->ids + 90, 10)); // to the last position
    check_fresh(m, s, m->ids, 100, "a full session");
    CHECK_FAILS(kim_session_append(s, m->ids, 1), KIM_ERR_CONTEXT_FULL, "1 too few");
    kim_session_destroy(&s);
    free(logits);

    CHECK_FAILS(kim_session_create(&none, m->model, &(kim_session_params){ .context = UINT32_MAX }),
                KIM_ERR_ARGUMENT, "2048");
    CHECK(!none, "a failed create set its pointer");
    s = new_session(m->model, 20, 512); // a batch larger than the context
    CHECK_OK(kim_session_append(s, m->ids, 20));
    check_fresh(m, s, m->ids, 20, "a context smaller than a batch");
    kim_session_destroy(&s);
}

// ------------------------------------------------------------------------------------- threads

typedef struct worker {
    const small_model *m;
    const int32_t *ids;
    kim_session *session;
    kim_err err;
} worker;

static void *work(void *user)
{
    worker *w = user;
    w->err = kim_session_create(&w->session, w->m->model,
                                &(kim_session_params){ .context = CONTEXT, .batch = 16 });
    for (uint32_t at = 0; at < 120 && !w->err; at += at < 96 ? 16 : 1)
        w->err = kim_session_append(w->session, w->ids + at, at < 96 ? 16 : 1);
    return NULL;
}

// Two sessions of one model at the same time.
static void test_threads(const small_model *m)
{
    printf("threads\n");
    int32_t *ids = other_past(m, 1, 120);
    worker workers[2] = { { .m = m, .ids = m->ids }, { .m = m, .ids = ids } };
    pthread_t threads[2];
    for (uint32_t i = 0; i < 2; i++)
        CHECK(!pthread_create(&threads[i], NULL, work, &workers[i]), "no thread can be made");
    for (uint32_t i = 0; i < 2; i++) {
        CHECK(!pthread_join(threads[i], NULL), "a thread cannot be joined");
        CHECK(!workers[i].err, "thread %u: %s", i, kim_err_name(workers[i].err));
    }
    check_fresh(m, workers[0].session, m->ids, 120, "one thread");
    check_fresh(m, workers[1].session, ids, 120, "another");
    kim_session_destroy(&workers[0].session);
    kim_session_destroy(&workers[1].session);
    free(ids);
}

// ---------------------------------------------------------------------------------------- memory

// The plan is what is then allocated.
static void test_memory(const small_model *m, kim_gpu *gpu)
{
    printf("memory\n");
    static const kim_session_params shapes[] = {
        { .context = 1000, .batch = 64 },
        { .context = 30, .batch = 512, .kv_type = KIM_KV_Q8_0 },
        { .context = 2048, .batch = 512 },
        { .context = 0 },
        { .context = 1000, .batch = 64, .kv_type = KIM_KV_Q8_0 },
    };
    kim_plan plan;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        kim_session *s = NULL;
        const uint64_t before = kim_gpu_memory_used(gpu);
        CHECK_OK(kim_model_plan(m->model, gpu, &shapes[i], &plan));
        CHECK(plan.total == plan.weights + plan.kv_local + plan.kv_global + plan.activations,
              "the total is %llu", (unsigned long long)plan.total);
        CHECK_OK(kim_session_create(&s, m->model, &shapes[i]));
        const uint64_t used = kim_gpu_memory_used(gpu) - before;
        CHECK(used == plan.total - plan.weights, "a session takes %llu bytes, %llu were planned",
              (unsigned long long)used, (unsigned long long)(plan.total - plan.weights));
        kim_session_destroy(&s);
        CHECK(kim_gpu_memory_used(gpu) == before, "memory of a session was not given back");
    }
}

static void test_plan(const char *tests_folder, const char *name, uint64_t local_rows,
                      uint64_t local, uint64_t global)
{
    kim_plan plan;
    kim_model *model = plan_model_open(tests_folder, name);
    CHECK_OK(kim_model_plan(model, NULL, &(kim_session_params){ .context = 32768, .batch = 512 },
                            &plan));
    const uint64_t file = kim_model_get_info(model)->file_bytes;
    printf("  %s: weights %llu, local %llu, global %llu, activations %llu\n",
           kim_model_get_info(model)->size, (unsigned long long)plan.weights,
           (unsigned long long)plan.kv_local, (unsigned long long)plan.kv_global,
           (unsigned long long)plan.activations);
    CHECK(plan.kv_local_rows == local_rows, "a ring has %u rows", plan.kv_local_rows);
    CHECK(plan.kv_local == local, "local layers take %llu bytes, not %llu",
          (unsigned long long)plan.kv_local, (unsigned long long)local);
    CHECK(plan.kv_global == global, "global layers take %llu bytes, not %llu",
          (unsigned long long)plan.kv_global, (unsigned long long)global);
    CHECK(plan.weights < file + file / 20, "%llu bytes of weights, the file has %llu",
          (unsigned long long)plan.weights, (unsigned long long)file);
    CHECK(plan.total == plan.weights + plan.kv_local + plan.kv_global + plan.activations,
          "the total is %llu", (unsigned long long)plan.total);
    // in 8 bits: a byte an element and four for each 32, instead of two
    CHECK_OK(kim_model_plan(
        model, NULL,
        &(kim_session_params){ .context = 32768, .batch = 512, .kv_type = KIM_KV_Q8_0 }, &plan));
    CHECK(plan.kv_local == local / 64 * 36 && plan.kv_global == global / 64 * 36,
          "in 8 bits local and global layers take %llu and %llu bytes",
          (unsigned long long)plan.kv_local, (unsigned long long)plan.kv_global);
    CHECK_FAILS(kim_model_plan(model, NULL, &(kim_session_params){ .context = 1u << 20 }, &plan),
                KIM_ERR_ARGUMENT, "1048576");
    CHECK_FAILS(kim_model_plan(model, NULL, &(kim_session_params){ .kv_type = 77 }, &plan),
                KIM_ERR_ARGUMENT, "77");
    kim_session *s = NULL;
    CHECK_FAILS(kim_session_create(&s, model, NULL), KIM_ERR_ARGUMENT, "gpu");
    kim_model_destroy(&model);
}

// ------------------------------------------------------------------------------------------ main

int main(int argc, char **argv)
{
    model_options o = { .limit = UINT32_MAX };
    small_model m, other;
    model_options_read(&o, argc, argv);
    const bool all = o.limit == UINT32_MAX;
    printf("memory for 32768 positions\n");
    // layers x rows x KV heads x (K and V) x head size x 2 bytes; a ring has 512 or 1024 positions
    // of the window and 512 of the batch
    test_plan(o.tests_folder, "270m", 1024, 15ull * 1024 * 1024, 3ull * 32768 * 1024);
    test_plan(o.tests_folder, "4b", 1536, 29ull * 1536 * 4096, 5ull * 32768 * 4096);

    kim_gpu *gpu = model_gpu(&o);
    CHECK(mkdtemp(folder), "no folder can be made in /tmp");
    small_model_open(&m, o.tests_folder, "4b", gpu);
    small_model_open(&other, o.tests_folder, "pattern", gpu);
    test_memory(&m, gpu);
    test_cut(&m);
    test_fork(&m);
    const char *path = in_folder("saved");
    char kept[96];
    snprintf(kept, sizeof kept, "%s", path);
    test_load(&m, kept, o.limit);
    if (all) {
        test_damage(&m, &other, kept);
        test_errors(&m);
        test_threads(&m);
    }
    printf("K and V in 8 bits\n");
    kv_type = KIM_KV_Q8_0;
    test_fork(&m);
    if (all)
        test_load(&m, kept, o.limit);
    unlink(kept);
    unlink(in_folder("cut"));
    unlink(in_folder("damaged"));
    CHECK(!rmdir(folder), "%s has files that nobody asked for", folder);
    small_model_close(&m);
    small_model_close(&other);
    model_gpu_finish(&gpu);
    return 0;
}
