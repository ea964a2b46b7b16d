// SPDX-License-Identifier: MIT
// Pictures as the published image processor and PIL have them: tiles, pan and scan, normalisation,
// files of every kind, damaged files.
//   picture_test TESTS_FOLDER
#include "text_support.h"
#include "vision/tiles.h"

#include <math.h>

static const char *fixture_text(fixture *f, char text[256])
{
    uint32_t n = fixture_u32(f);
    CHECK(n < 256, "a text of %u bytes", n);
    memcpy(text, fixture_bytes(f, n), n);
    text[n] = 0;
    return text;
}

static float fixture_f32(fixture *f)
{
    uint32_t bits = fixture_u32(f);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// --------------------------------------------------------------------------------------- tiles

enum { SAMPLES = 32, HASH_PARTS = 4096 };

// As source() in make_pictures.py.
static uint8_t source_pixel(uint32_t x, uint32_t y, uint32_t c, uint32_t kind)
{
    uint32_t h = x * 0x9E3779B1u ^ y * 0x85EBCA77u ^ c * 0xC2B2AE3Du;
    h ^= h >> 15;
    h *= 0x2C1B3C6Du;
    h ^= h >> 12;
    switch (kind) {
    case 0: return h & 255;
    case 1: return (((x * 3 + y * 2 + c * 85) >> 2) + (h & 7)) & 255;
    case 2: return (x >> 2 ^ y >> 1 ^ c) & 1 ? 255 : 0;
    default: return 255;
    }
}

static picture source(uint32_t width, uint32_t height, uint32_t kind)
{
    picture p;
    uint8_t *pixels = malloc((size_t)width * height * 3), *at = pixels;
    CHECK(pixels, "out of memory");
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            for (uint32_t c = 0; c < 3; c++)
                *at++ = source_pixel(x, y, c, kind);
        }
    }
    CHECK_OK(picture_from_pixels(&p, pixels, width, height, 3, 0));
    free(pixels);
    return p;
}

// As fnv() in make_pictures.py: of each part, then of the hashes.
static uint32_t hash(const uint8_t *data, size_t n)
{
    size_t length = (n + HASH_PARTS - 1) / HASH_PARTS;
    uint32_t total = 0x811C9DC5u;
    for (size_t part = 0; part < HASH_PARTS; part++) {
        uint32_t h = 0x811C9DC5u;
        for (size_t i = part * length; i < (part + 1) * length; i++)
            h = (h ^ (i < n ? data[i] : 0)) * 0x01000193u;
        total = (total ^ h) * 0x01000193u;
    }
    return total;
}

static void test_tiles(fixture *f)
{
    uint32_t n = fixture_u32(f), n_tiles = 0, n_cut = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t width = fixture_u32(f), height = fixture_u32(f), kind = fixture_u32(f);
        uint32_t size = fixture_u32(f);
        pan_and_scan pan = { .on = fixture_u32(f) };
        pan.min_crop = fixture_u32(f);
        pan.max_crops = fixture_u32(f);
        pan.ratio = fixture_f32(f);
        char label[128];
        snprintf(label, sizeof label, "%u x %u to %u, pan and scan %d (%u, %u, %g)", width, height,
                 size, pan.on, pan.min_crop, pan.max_crops, (double)pan.ratio);
        picture p = source(width, height, kind);
        tiles t;
        CHECK_OK(tiles_make(&t, &p, size, &pan));
        uint32_t count = fixture_u32(f);
        CHECK(t.count == count && t.size == size, "%s: %u tiles of %u, expected %u", label, t.count,
              t.size, count);
        for (uint32_t k = 0; k < count; k++) {
            const uint8_t *tile = t.rgb + (size_t)k * size * size * 3;
            uint32_t expected = fixture_u32(f);
            for (uint32_t s = 0; s < SAMPLES; s++) {
                const uint8_t *e = (const uint8_t *)fixture_bytes(f, 3);
                uint32_t at = s * (size * size - 1) / (SAMPLES - 1);
                const uint8_t *g = tile + (size_t)at * 3;
                CHECK(!memcmp(e, g, 3),
                      "%s: tile %u, pixel %u is (%u, %u, %u), expected (%u, %u, %u)", label, k, at,
                      g[0], g[1], g[2], e[0], e[1], e[2]);
            }
            CHECK(hash(tile, (size_t)size * size * 3) == expected,
                  "%s: tile %u differs from the reference's", label, k);
        }
        n_tiles += count;
        n_cut += count > 1;
        tiles_destroy(&t);
        picture_destroy(&p);
    }
    CHECK(n >= 40 && n_cut >= 15, "%u cases, %u with crops", n, n_cut);
    printf("tiles: %u pictures, %u of them cut, %u tiles equal to the last bit\n", n, n_cut,
           n_tiles);
}

static void test_tile_arguments(void)
{
    picture p = source(5, 1, 0);
    tiles t;
    CHECK_FAILS(tiles_make(&t, &(picture){ 0 }, 8, NULL), KIM_ERR_ARGUMENT, "no picture");
    CHECK_FAILS(tiles_make(&t, &p, 0, NULL), KIM_ERR_ARGUMENT, "expected 1 to 16384");
    CHECK_FAILS(tiles_make(&t, &p, 1u << 15, NULL), KIM_ERR_ARGUMENT, "tiles of 32768");
    CHECK_FAILS(tiles_make(&t, &p, 8, &(pan_and_scan){ .on = true, .ratio = -1 }), KIM_ERR_ARGUMENT,
                "ratio of sides of -1");
    CHECK_FAILS(tiles_make(&t, &p, 8, &(pan_and_scan){ .on = true, .ratio = nanf("") }),
                KIM_ERR_ARGUMENT, "ratio");
    CHECK_FAILS(tiles_make(&t, &p, 8, &(pan_and_scan){ .on = true, .max_crops = 65 }),
                KIM_ERR_ARGUMENT, "65 crops");
    CHECK_FAILS(tiles_make(&t, &p, 8, &(pan_and_scan){ .on = true, .min_crop = 1 }),
                KIM_ERR_ARGUMENT, "4 crops of 2 pixels leave nothing of 5");
    CHECK(!t.rgb && !t.count, "something is left of a failure");
    CHECK_OK(tiles_make(&t, &p, 8, NULL));
    CHECK(t.count == 1 && t.size == 8, "%u tiles of %u", t.count, t.size);
    tiles_destroy(&t);
    tiles_destroy(&t);
    picture_destroy(&p);
    printf("tiles: wrong arguments are refused\n");
}

static void test_normalise(fixture *f)
{
    uint32_t n = fixture_u32(f);
    uint8_t tile[256 * 3];
    for (uint32_t i = 0; i < 256 * 3; i++)
        tile[i] = (uint8_t)(i / 3 + 31 * (i % 3));
    for (uint32_t i = 0; i < n; i++) {
        float mean[3], std[3], got[3 * 256];
        for (uint32_t c = 0; c < 3; c++)
            mean[c] = fixture_f32(f);
        for (uint32_t c = 0; c < 3; c++)
            std[c] = fixture_f32(f);
        tile_normalise(tile, 16, mean, std, got);
        for (uint32_t k = 0; k < 3 * 256; k++) {
            float expected = fixture_f32(f);
            CHECK(!memcmp(&expected, &got[k], sizeof expected),
                  "mean %g, channel %u, value %u: %.9g, expected %.9g", (double)mean[0], k / 256,
                  tile[k % 256 * 3 + k / 256], (double)got[k], (double)expected);
        }
    }
    CHECK(n >= 2, "%u cases", n);
    printf("normalisation: every value, %u means, equal to the last bit\n", n);
}

// --------------------------------------------------------------------------------------- files

// Where a WebP file may be refused, since the build is without libwebp.
static bool is_refused_webp(const char *name, kim_err err)
{
    return strstr(name, ".webp") && err == KIM_ERR_UNSUPPORTED &&
           strstr(kim_error_text(), "this build is without libwebp");
}

// A file cut anywhere is no picture, and never crashes.
static void check_cut(const char *name, const uint8_t *file, uint32_t length, uint32_t needed)
{
    for (uint32_t n = 0; n < needed; n++) {
        uint8_t *cut = malloc(n ? n : 1); // of just this size, so that ASan sees reads behind it
        CHECK(cut, "out of memory");
        memcpy(cut, file, n);
        picture p;
        kim_err err = picture_decode(&p, name, cut, n);
        CHECK(err == KIM_ERR_FORMAT || err == KIM_ERR_UNSUPPORTED,
              "%s: the first %u of %u bytes are taken for a picture", name, n, length);
        CHECK(!p.rgb && !p.width && !p.height, "%s: something is left of a failure", name);
        free(cut);
    }
}

static void test_good_files(fixture *f)
{
    uint32_t n = fixture_u32(f), n_webp = 0, n_done = 0, jpeg_most = 0;
    double jpeg_mean = 0;
    for (uint32_t i = 0; i < n; i++) {
        char name[256];
        fixture_text(f, name);
        uint32_t length = fixture_u32(f);
        const uint8_t *file = (const uint8_t *)fixture_bytes(f, length);
        uint32_t width = fixture_u32(f), height = fixture_u32(f);
        uint32_t most_allowed = fixture_u32(f);
        double mean_allowed = fixture_u32(f) / 1000.0;
        const uint8_t *expected = (const uint8_t *)fixture_bytes(f, (size_t)width * height * 3);
        picture p;
        kim_err err = picture_decode(&p, name, file, length);
        if (is_refused_webp(name, err)) {
            n_webp++;
            continue;
        }
        CHECK(err == KIM_OK, "%s", kim_error_text());
        CHECK(p.width == width && p.height == height, "%s: %u x %u, expected %u x %u", name,
              p.width, p.height, width, height);
        uint32_t most = 0, sum = 0, values = width * height * 3;
        for (uint32_t k = 0; k < values; k++) {
            uint32_t difference = (uint32_t)abs(p.rgb[k] - expected[k]);
            most = difference > most ? difference : most;
            sum += difference;
        }
        double mean = (double)sum / values;
        bool counts = strstr(name, ".jpg") && most_allowed < 255;
        if (counts && most > jpeg_most)
            jpeg_most = most;
        if (counts && mean > jpeg_mean)
            jpeg_mean = mean;
        CHECK(most <= most_allowed && mean <= mean_allowed,
              "%s: pixels differ by %u at most and %.3f in the mean, expected %u and %.3f", name,
              most, mean, most_allowed, mean_allowed);
        picture_destroy(&p);
        uint32_t needed = strstr(name, "trailing") ? length - 18 : length;
        if (!strstr(name, ".webp")) // whose last bytes may be padding
            check_cut(name, file, length, needed);
        n_done++;
    }
    CHECK(n_done >= 80, "%u files", n_done);
    printf(
        "files: %u as PIL reads them, JPEG within %u and %.3f in the mean; none taken when cut\n",
        n_done, jpeg_most, jpeg_mean);
    if (n_webp)
        printf("files: %u of WebP are refused, the build is without libwebp\n", n_webp);
}

static void test_bad_files(fixture *f)
{
    uint32_t n = fixture_u32(f);
    for (uint32_t i = 0; i < n; i++) {
        char name[256], words[256];
        fixture_text(f, name);
        uint32_t length = fixture_u32(f);
        const char *file = fixture_bytes(f, length);
        kim_err expected = fixture_u32(f) ? KIM_ERR_UNSUPPORTED : KIM_ERR_FORMAT;
        fixture_text(f, words);
        picture p = { 1, 2, NULL };
        kim_err err = picture_decode(&p, name, file, length);
        if (is_refused_webp(name, err))
            continue;
        CHECK(err == expected, "%s: \"%s\" (%s), expected \"%s\"", name, kim_err_name(err),
              kim_error_text(), kim_err_name(expected));
        CHECK(strstr(kim_error_text(), words) && !strncmp(kim_error_text(), name, strlen(name)) &&
                  kim_error_text()[strlen(name)] == ':',
              "%s: \"%s\" does not say \"%s\"", name, kim_error_text(), words);
        CHECK(!p.rgb && !p.width && !p.height, "%s: something is left of a failure", name);
    }
    CHECK(n >= 60, "%u files", n);
    picture p;
    CHECK_FAILS(picture_decode(&p, "x", "", 0), KIM_ERR_FORMAT, "x: the file is empty");
    CHECK_FAILS(picture_decode(&p, "x", "", (size_t)PICTURE_MOST_BYTES + 1), KIM_ERR_UNSUPPORTED,
                "at most 268435456");
    printf("files: %u bad ones refused with the right words\n", n);
}

// -------------------------------------------------------------------------------------- pixels

static void test_pixels(void)
{
    static const uint8_t pixels[2][12] = { { 1, 2, 3, 9, 4, 5, 6, 9, 0, 0, 0, 0 },
                                           { 7, 8, 9, 9, 10, 11, 12, 9, 0, 0, 0, 0 } };
    picture p;
    CHECK_OK(picture_from_pixels(&p, pixels, 2, 2, 4, 12));
    for (uint32_t i = 0; i < 12; i++)
        CHECK(p.rgb[i] == i + 1, "value %u is %u", i, p.rgb[i]);
    picture_destroy(&p);
    CHECK_OK(picture_from_pixels(&p, pixels, 4, 2, 3, 0));
    CHECK(!memcmp(p.rgb, pixels, 24), "rows without a gap");
    picture_destroy(&p);
    picture_destroy(&p);
    CHECK_FAILS(picture_from_pixels(&p, pixels, 2, 2, 4, 7), KIM_ERR_ARGUMENT,
                "stride of 7 bytes, expected at least 8");
    CHECK_FAILS(picture_from_pixels(&p, pixels, 2, 2, 1, 0), KIM_ERR_ARGUMENT, "1 channels");
    CHECK_FAILS(picture_from_pixels(&p, NULL, 2, 2, 3, 0), KIM_ERR_ARGUMENT, "no pixels");
    CHECK_FAILS(picture_from_pixels(&p, pixels, 0, 2, 3, 0), KIM_ERR_ARGUMENT, "0 x 2 pixels");
    CHECK_FAILS(picture_from_pixels(&p, pixels, 1u << 15, 1u << 15, 3, 0), KIM_ERR_ARGUMENT,
                "at most");
    CHECK(!p.rgb && !p.width, "something is left of a failure");
    printf("pixels: of 3 and 4 channels, with and without gaps; wrong arguments are refused\n");
}

// A photograph of a telephone: the time is printed, not checked, as machines differ.
static void time_large(void)
{
    picture p = source(4000, 3000, 1);
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        tiles t;
        double start = seconds_now();
        CHECK_OK(tiles_make(&t, &p, 896, NULL));
        double time = seconds_now() - start;
        best = time < best ? time : best;
        tiles_destroy(&t);
    }
    picture_destroy(&p);
    printf("time: 4000 x 3000 to 896 x 896 in %.1f ms\n", best * 1000);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2, "usage: picture_test TESTS_FOLDER");
    fixture f = fixture_open(argv[1], "pictures.bin", "KPIC");
    test_tiles(&f);
    test_tile_arguments();
    test_normalise(&f);
    test_good_files(&f);
    test_bad_files(&f);
    fixture_close(&f);
    test_pixels();
    time_large();
    return 0;
}
