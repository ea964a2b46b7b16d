// SPDX-License-Identifier: MIT
// Choice by measurement: every candidate of a GPU is right on this driver, the fastest one is
// taken, what is wrong is struck off, and what was measured is kept.
//   tuning_test TESTS_FOLDER MODEL [--wrong]   --wrong: only that what is wrong is struck off
#include "check.h"
#include "ops_harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/matmul_ways.h"
#include "host/tuning.h"

static void print_message(void *user, kim_log_level level, const char *text)
{
    (void)user;
    if (level <= KIM_LOG_ERROR)
        fprintf(stderr, "%s\n", text);
}

// A device that takes what a GPU takes: workgroups of more than one subgroup.
static kim_gpu *open_as_gpu(void)
{
    kim_gpu *g = NULL;
    MUST(kim_gpu_create(&g, &(kim_gpu_params){
                                .cache_dir = "",
                                .tuning = KIM_TUNING_OFF,
                                .log = print_message,
                                .validation = getenv("KIM_VALIDATION") != NULL,
                            }));
    CHECK(!g->tuning.count, "something was measured that should not be");
    g->info.type = KIM_DEVICE_DISCRETE;
    g->pass = false;
    g->matmul_way = MATMUL_FLOAT;
    return g;
}

static void close_gpu(kim_gpu **g)
{
    const uint32_t messages = kim_gpu_validation_messages(*g);
    CHECK(!messages, "%u validation messages", messages);
    kim_gpu_destroy(g);
}

// Of each choice one candidate is chosen, and none is faster beyond the margin.
static void check_rows(const kim_tuning *t, const char *choice, uint32_t least)
{
    uint32_t n = 0, chosen = 0;
    double best = INFINITY, taken = NAN;
    for (uint32_t i = 0; i < t->count; i++) {
        const kim_tuning_row *r = &t->rows[i];
        if (strcmp(r->choice, choice))
            continue;
        CHECK(!r->problem[0], "%s: %s: %s", choice, r->candidate, r->problem);
        CHECK(r->seconds > 0, "%s: %s took %g s", choice, r->candidate, r->seconds);
        n++;
        chosen += r->chosen;
        best = fmin(best, r->seconds);
        taken = r->chosen ? r->seconds : taken;
        printf("  %-12s %-14s %8.3f ms%s\n", choice, r->candidate, r->seconds * 1e3,
               r->chosen ? ", chosen" : "");
    }
    CHECK(n >= least && chosen == 1, "%s: %u candidates, %u of them chosen", choice, n, chosen);
    CHECK(taken * 0.9 <= best, "%s: chosen was one of %g s, the best takes %g", choice, taken,
          best);
}

static void test_candidates(void)
{
    static const struct {
        const char *choice;
        uint32_t least;
    } all[] = {
        { "tile", 3 }, { "few columns", 5 }, { "decode attention", 1 }, { "prompt attention", 1 }
    };
    for (uint32_t i = 0; i < sizeof all / sizeof *all; i++) { // test_file has the others
        kim_gpu *g = open_as_gpu();
        double seconds;
        MUST(tuning_measure(g, all[i].choice, &seconds));
        check_rows(&g->tuning, all[i].choice, all[i].least);
        close_gpu(&g);
    }
}

// Lanes that load for each other in subgroups of four, where there have to be eight: products of
// several columns are wrong, and that is found.
static void test_wrong(void)
{
    kim_gpu *g = open_as_gpu();
    double seconds;
    if (g->info.subgroup_size == 4) {
        g->pass = true;
        MUST(tuning_measure(g, "few columns", &seconds));
        CHECK(g->tuning.count, "nothing was tried");
        for (uint32_t i = 0; i < g->tuning.count; i++)
            CHECK(g->tuning.rows[i].problem[0] && !g->tuning.rows[i].chosen,
                  "%s is right, though it cannot be", g->tuning.rows[i].candidate);
        printf("  found to be wrong: %s\n", g->tuning.rows[0].problem);
        CHECK(g->few_shape == 0, "a wrong candidate was chosen");
    } else {
        printf("  subgroups are not of four: that wrong variants are found is not tested here\n");
    }
    close_gpu(&g);
}

static char folder[] = "/tmp/kim_tuning_XXXXXX", path[600];

static kim_gpu *open_kept(kim_tuning_mode mode)
{
    kim_gpu *g = NULL;
    MUST(kim_gpu_create(&g, &(kim_gpu_params){ .cache_dir = folder, .tuning = mode }));
    return g;
}

static void write_text(const char *head, const char *rows)
{
    FILE *file = fopen(path, "w");
    CHECK(file && fputs(head, file) >= 0 && fputs(rows, file) >= 0 && !fclose(file),
          "cannot write %s", path);
}

// What is kept is what was measured; a damaged file, and one of another driver, count for nothing.
static void test_file(void)
{
    char head[2000];
    kim_tuning kept;
    CHECK(mkdtemp(folder), "no temporary folder");
    kim_gpu *g = open_kept(KIM_TUNING_AUTO);
    CHECK(g->info.type != KIM_DEVICE_CPU || !g->tuning.count, "a CPU driver was measured unasked");
    kim_gpu_destroy(&g);
    g = open_kept(KIM_TUNING_NOW);
    const kim_tuning measured = g->tuning;
    check_rows(&measured, "many columns", 2);
    check_rows(&measured, "decode attention", 1);
    if (g->info.buffer_device_address)
        check_rows(&measured, "memory", 2);
    snprintf(path, sizeof path, "%s/tuning-%s-auto.txt", folder, g->info.uuid);
    if (g->has_touch)
        check_rows(&measured, "loads", 2);
    const bool address = g->address;
    const matmul_way way = g->matmul_way;
    const kim_device_info info = g->info;
    kim_gpu_destroy(&g);
    g = open_kept(KIM_TUNING_AUTO);
    CHECK(g->tuning.count == measured.count && g->address == address && g->matmul_way == way,
          "what was measured was not kept");
    kim_gpu_destroy(&g);

    FILE *file = fopen(path, "r");
    CHECK(file && fgets(head, sizeof head, file) && !fclose(file), "cannot read %s", path);
    write_text(head, "many columns\tfloat\tnan\t0\ty[3] is 1, expected 2\n"
                     "many columns\tfew\t0.5\t1\t\nmemory\ttable\t0.1\t1\t\n");
    kim_device_get_tuning(&info, folder, &kept);
    CHECK(kept.count == 3 && !strcmp(kept.rows[0].problem, "y[3] is 1, expected 2") &&
              kept.rows[1].chosen && kept.rows[1].seconds == 0.5,
          "a file was not read as it is");
    g = open_kept(KIM_TUNING_AUTO);
    CHECK(!g->address, "the memory mode is not that of the file");
    CHECK(g->matmul_way == MATMUL_FEW, "the way is not that of the file");
    CHECK_FAILS(matmul_way_set(g, MATMUL_FLOAT), KIM_ERR_UNSUPPORTED, "float");
    kim_gpu_destroy(&g);
    g = open_kept(KIM_TUNING_OFF);
    CHECK(!g->tuning.count, "the file was read though it was not to be");
    kim_gpu_destroy(&g);

    static const char *const damaged[] = { "many columns\tfew\t0.5\t1\t", "many columns\n",
                                           "many columns\tfew\thalf\t1\t\n", "\n" };
    for (uint32_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        write_text(head, damaged[i]);
        kim_device_get_tuning(&info, folder, &kept);
        CHECK(!kept.count, "damaged file %u was taken for a whole one", i);
    }
    head[strlen("kimberlite tuning 1, x")] ^= 1; // in the driver's name
    write_text(head, "many columns\tfew\t0.5\t1\t\n");
    kim_device_get_tuning(&info, folder, &kept);
    CHECK(!kept.count, "a file of another driver was taken");
    remove(path);
}

int main(int argc, char **argv)
{
    test_wrong();
    if (argc < 4 || strcmp(argv[3], "--wrong")) {
        test_candidates();
        test_file();
    }
    printf("choices: right\n");
    return 0;
}
