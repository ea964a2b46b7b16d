// SPDX-License-Identifier: MIT
// Kernels of host/kernel.h: that a check sees what is wrong, that times are times, that lists hold
// what they should.
#include "check.h"

#include <math.h>

#include "engine/kernels.h"
#include "host/kernel_parts.h"

typedef struct test {
    kim_gpu *gpu;
    const char *mode;
} test;

static kernel *make(const test *t, const kernel_params *p)
{
    kernel *k = NULL;
    CHECK_OK(kernel_create(&k, t->gpu, p));
    return k;
}

static kernel_error checked(kernel *k)
{
    kernel_error error;
    CHECK_OK(kernel_check(k, &error));
    return error;
}

// A check can be made again, and follows the inputs.
static void test_again(const test *t, const kernel_params *p, uint32_t input, uint32_t at)
{
    kernel *k = make(t, p);
    for (uint32_t i = 0; i < 3; i++) {
        const kernel_error error = checked(k);
        CHECK(error.right && error.error <= error.bound, "%s, %s mode, time %u: %s, of %g",
              kernel_op_name(p->op), t->mode, i, error.where, error.bound);
        if (i)
            ((float *)(k->before + k->spans[input].offset))[at] += 3;
    }
    kernel_destroy(&k);
    CHECK(!k, "it is not NULL");
}

// A weight that is another one on the device than in the file.
static void test_wrong_weight(const test *t, const char *type_name)
{
    const weight_type *type = weight_types;
    while (strcmp(type->name, type_name))
        type++;
    kernel *k =
        make(t, &(kernel_params){
                    .op = KERNEL_MATMUL, .type = type, .rows = 32, .width = 256, .columns = 3 });
    CHECK(checked(k).right, "%s is wrong", type_name);
    uint32_t *words = span_map(&k->matrices->parts[0].w);
    if (words) {
        words[17] ^= 0x00400040;
        const kernel_error error = checked(k);
        CHECK(!error.right, "a wrong weight of %s was not seen", type_name);
        CHECK(!(error.error <= error.bound), "%s: %g of %g", type_name, error.error, error.bound);
        CHECK(!strncmp(error.where, "y[", 2), "it is said to be at %s", error.where);
    }
    kernel_destroy(&k);
}

// What is written between the tensors is seen, and so is an output that is no number.
static void test_guards(const test *t)
{
    const kernel_params p = { .op = KERNEL_COPY, .width = 100, .columns = 3 };
    kernel *k = make(t, &p);
    CHECK(checked(k).right, "a copy is wrong");
    kernel_compare(k, "y", 7, NAN, 1, 10);
    CHECK(!k->worst.right && isnan(k->worst.error), "not a number passes");
    uint8_t *bytes = span_map(&k->spans[1]);
    if (bytes) {
        const uint64_t after = k->spans[1].bytes + 5;
        k->before[k->spans[1].offset + after] = 0; // restored before the run
        const kernel_error error = checked(k);
        CHECK(!error.right && strstr(error.where, "outside"), "it is said: %s", error.where);
    }
    kernel_destroy(&k);
}

// What is looked at of many: the first, the last, and about as many as are wanted.
static void test_next(void)
{
    for (uint32_t n = 1; n < 2000; n += 7)
        for (uint32_t most = 1; most < 300; most += 13) {
            uint32_t count = 0, last = 0;
            for (uint32_t at = 0; at < n; at = kernel_next(at, n, most), count++)
                last = at;
            CHECK(last == n - 1, "%u of %u: ends with %u", most, n, last);
            CHECK(count >= (n < most ? n : most / 2) && count <= 2 * most + 1, "%u of %u: %u", most,
                  n, count);
        }
}

static void test_times(const test *t)
{
    const kernel_params cases[] = {
        { .op = KERNEL_MATMUL, .type = weight_type_find(8), .rows = 64, .width = 64, .columns = 1 },
        { .op = KERNEL_NORM, .width = 64, .columns = 2, .add_norm = true },
        { .op = KERNEL_SAMPLE, .width = 100, .columns = 1, .greedy = true },
        { .op = KERNEL_ATTENTION_ROPE,
          .heads = { 2, 1, 64 },
          .columns = 1,
          .cache_rows = 128,
          .window = 100,
          .position = 120 },
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kernel *k = make(t, &cases[i]);
        double seconds[3] = { NAN, NAN, NAN }, cpu = NAN;
        uint32_t n = 3;
        CHECK(checked(k).right, "%s is wrong", kernel_op_name(cases[i].op));
        CHECK_OK(kernel_time(k, seconds, &n, 1000, &cpu));
        CHECK(n == 3, "%u samples", n);
        for (uint32_t j = 0; j < n; j++)
            CHECK(seconds[j] > 0 && seconds[j] < 100, "%g seconds", seconds[j]);
        CHECK(cpu >= 0, "%g seconds of the processor", cpu);
        n = 3;
        CHECK_OK(kernel_time(k, seconds, &n, 0, &cpu)); // again, and one at least
        CHECK(n == 1, "%u samples in no time", n);
        CHECK(checked(k).right, "%s is wrong afterwards", kernel_op_name(cases[i].op));
        kernel_destroy(&k);
    }
}

static uint32_t count(const test *t, const kim_kernels_params *p)
{
    kim_kernels *list = NULL;
    CHECK_OK(kim_kernels_create(&list, t->gpu, p));
    const uint32_t n = kim_kernels_count(list);
    kim_kernels_destroy(&list);
    return n;
}

static void test_lists(const test *t)
{
    static const char *const sizes[] = { NULL, "270m", "1b", "4b", "12b", "27B" };
    const uint32_t five = 5;
    for (uint32_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint32_t sum = 0;
        for (uint32_t i = 0; kim_kernel_op(i); i++) {
            const uint32_t n =
                count(t, &(kim_kernels_params){ .size = sizes[s], .op = kim_kernel_op(i) });
            const bool sees = s == 0 || s > 2; // those from 4B on
            const bool encoder = !strcmp(kim_kernel_op(i), "layer_norm") ||
                                 !strcmp(kim_kernel_op(i), "average_pool") ||
                                 !strcmp(kim_kernel_op(i), "attention_full");
            CHECK((n > 0) == (sees || !encoder), "%s: %u of %s", sizes[s] ? sizes[s] : "all", n,
                  kim_kernel_op(i));
            sum += n;
        }
        CHECK(sum == count(t, &(kim_kernels_params){ .size = sizes[s] }), "the parts are %u", sum);
    }
    CHECK(count(t, &(kim_kernels_params){ .size = "ggml" }) == 30, "not fifteen types, twice");
    const kim_kernels_params one = {
        .size = "GGML", .type = "q4_k", .columns = &five, .n_columns = 1
    };
    kim_kernels *list = NULL;
    CHECK_OK(kim_kernels_create(&list, t->gpu, &one));
    const kim_kernel_info *info = kim_kernels_at(list, 0);
    CHECK(kim_kernels_count(list) == 1 && info->rows == 4096 && info->width == 14336 &&
              info->columns == 5 && !strcmp(info->type, "Q4_K"),
          "it is %u x %u", info->rows, info->width);
    kim_kernels_destroy(&list);
    CHECK_FAILS(kim_kernels_create(&list, t->gpu, &(kim_kernels_params){ .size = "3b" }),
                KIM_ERR_ARGUMENT, "no shapes called '3b'");
    CHECK_FAILS(kim_kernels_create(&list, t->gpu, &(kim_kernels_params){ .op = "matmull" }),
                KIM_ERR_ARGUMENT, "'matmull'");
    CHECK_FAILS(kim_kernels_create(&list, t->gpu, &(kim_kernels_params){ .type = "Q9_0" }),
                KIM_ERR_ARGUMENT, "'Q9_0'");
    CHECK_FAILS(kim_kernels_create(&list, t->gpu, &(kim_kernels_params){ .way = "slow" }),
                KIM_ERR_ARGUMENT, "'slow'");
    CHECK(!list, "a list is left");
}

static void print_log(void *user, kim_log_level level, const char *text)
{
    (void)user;
    if (level <= KIM_LOG_WARNING)
        printf("%s\n", text);
}

// unified: as it is; else as where the host does not reach the device's memory
static void run_mode(kim_memory_mode mode, const char *name, bool unified)
{
    test t = { .mode = name };
    CHECK_OK(kim_gpu_create(&t.gpu, &(kim_gpu_params){ .memory_mode = mode,
                                                       .validation = getenv("KIM_VALIDATION"),
                                                       .log = print_log }));
    t.gpu->info.unified_memory &= unified;
    test_again(&t, &(kernel_params){ .op = KERNEL_NORM, .width = 64, .columns = 2 }, 0, 5);
    test_again(&t,
               &(kernel_params){ .op = KERNEL_SAMPLE, .width = 1003, .columns = 1, .greedy = true },
               0, 5);
    test_wrong_weight(&t, "Q4_0");
    test_wrong_weight(&t, "Q6_K");
    test_guards(&t);
    test_times(&t);
    test_lists(&t);
    CHECK(!kim_gpu_memory_used(t.gpu), "%llu bytes are not given back",
          (unsigned long long)kim_gpu_memory_used(t.gpu));
    CHECK(!kim_gpu_validation_messages(t.gpu), "%u validation messages",
          kim_gpu_validation_messages(t.gpu));
    kim_gpu_destroy(&t.gpu);
}

int main(void)
{
    kim_gpu *gpu = NULL;
    test_next();
    CHECK_OK(kim_gpu_create(&gpu, &(kim_gpu_params){ .cache_dir = "" }));
    const bool addresses = kim_gpu_info(gpu)->buffer_device_address;
    kim_gpu_destroy(&gpu);
    if (addresses)
        run_mode(KIM_MEMORY_ADDRESS, "address", true);
    run_mode(KIM_MEMORY_TABLE, "table", true);
    run_mode(KIM_MEMORY_TABLE, "table", false);
    return 0;
}
