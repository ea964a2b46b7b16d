// SPDX-License-Identifier: MIT
// Weights on the CPU: F16 and BF16 to f32, all there are; quantised rows as the reference has them.
//   weight_quantize_test TESTS_FOLDER
#include "host/weight_quantize.h"
#include "host/reference_dequant.h"
#include "text_support.h"

#include <math.h>

static bool same(float a, float b)
{
    return isnan(a) ? isnan(b) : !memcmp(&a, &b, sizeof a);
}

static void test_plain(void)
{
    for (uint32_t i = 0; i < 65536; i++) {
        const uint16_t bits = (uint16_t)i;
        const uint32_t wide = i << 16;
        float half, brain, expected;
        weight_to_floats(1, &bits, 1, &half);
        weight_to_floats(30, &bits, 1, &brain);
        memcpy(&expected, &wide, sizeof expected);
        CHECK(same(half, reference_half(bits)), "the half %04x is %g", i, (double)half);
        CHECK(same(brain, expected), "the bfloat16 %04x is %g", i, (double)brain);
    }
    const float in[3] = { 1, -2.5f, 1e-30f };
    float out[3];
    weight_to_floats(0, in, 3, out);
    CHECK(!memcmp(in, out, sizeof in), "F32");
    for (uint32_t i = 0; i < 64; i++)
        CHECK(weight_is_plain(i) == (i == 0 || i == 1 || i == 30), "type %u", i);
}

static void test_quantized(const char *tests_folder)
{
    static const char *const names[] = { "q8_0", "q4_0" };
    fixture f = fixture_open(tests_folder, "quantize.bin", "KQNT");
    const uint32_t count = fixture_u32(&f);
    float *values = malloc(count * 32 * sizeof *values);
    CHECK(values, "out of memory");
    memcpy(values, fixture_bytes(&f, count * 32 * sizeof *values), count * 32 * sizeof *values);
    for (uint32_t i = 0; i < 2; i++) {
        const weight_type *type = weight_quantized_find(names[i]);
        const size_t bytes = (size_t)count * type->block_bytes;
        const uint8_t *expected = (const uint8_t *)fixture_bytes(&f, bytes);
        uint8_t *got = malloc(bytes);
        CHECK(got, "out of memory");
        weight_quantize(type, values, count * 32ull, got);
        for (size_t k = 0; k < bytes; k++)
            CHECK(got[k] == expected[k], "%s: byte %zu of block %zu is %02x, not %02x", type->name,
                  k % type->block_bytes, k / type->block_bytes, got[k], expected[k]);
        free(got);
    }
    free(values);
    fixture_close(&f);
    CHECK(!weight_quantized_find("f16") && !weight_quantized_find(""), "other types are made");
}

// No value makes the conversions undefined; what comes out does not matter.
static void test_odd(void)
{
    static const float odd[] = { NAN, INFINITY, -INFINITY, 3.4e38f, -3.4e38f, 1e-45f, -1e-40f, 0 };
    for (uint32_t i = 0; i < 8 * 8 * 8; i++) {
        float in[32] = { odd[i & 7], odd[i >> 3 & 7], 1e-3f };
        uint8_t out[34];
        in[31] = odd[i >> 6];
        weight_quantize(weight_quantized_find("q8_0"), in, 32, out);
        weight_quantize(weight_quantized_find("q4_0"), in, 32, out);
    }
}

int main(int argc, char **argv)
{
    CHECK(argc > 1, "usage: weight_quantize_test TESTS_FOLDER");
    test_plain();
    test_quantized(argv[1]);
    test_odd();
    return 0;
}
