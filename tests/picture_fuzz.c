// SPDX-License-Identifier: MIT
// libFuzzer target: any bytes as a file of a picture; what is decoded is cut into tiles.
//   clang -fsanitize=fuzzer,address,undefined ...; picture_fuzz TESTS_FOLDER/corpus/picture
#include "vision/tiles.h"

#include "fuzz_support.h"

static uint32_t crc_of(const uint8_t *data, size_t n)
{
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++) {
        c ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
    }
    return ~c;
}

// Makes the CRC of every chunk of a PNG right, which chance would not.
static void mend_png(uint8_t *file, size_t size)
{
    for (size_t at = 8; size >= 8 && size - at >= 12;) {
        uint8_t *p = file + at;
        uint32_t n = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        if (n > size - at - 12)
            break;
        uint32_t crc = crc_of(p + 4, 4 + (size_t)n);
        for (int i = 0; i < 4; i++)
            p[8 + n + i] = (uint8_t)(crc >> (24 - 8 * i));
        at += 12 + (size_t)n;
    }
}

static void check_tiles(const picture *p, uint32_t size, const pan_and_scan *options)
{
    static const float half[3] = { 0.5f, 0.5f, 0.5f };
    tiles t;
    if (tiles_make(&t, p, size, options)) {
        require(!t.rgb && !t.count);
        return;
    }
    require(t.size == size && t.count >= 1 && (options || t.count == 1));
    size_t values = (size_t)size * size * 3;
    touch(t.rgb, values * t.count);
    float *out = malloc(values * sizeof *out);
    if (out) {
        tile_normalise(t.rgb, size, half, half, out);
        for (size_t i = 0; i < values; i++)
            require(out[i] >= -1 && out[i] <= 1);
    }
    free(out);
    tiles_destroy(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    picture p;
    uint8_t *file = malloc(size ? size : 1);
    if (!file)
        return 0;
    memcpy(file, data, size);
    if (size > 8 && !memcmp(file, "\x89PNG\r\n\x1a\n", 8) && data[size - 1] != 0)
        mend_png(file, size);
    kim_err err = picture_decode(&p, "fuzz", file, size);
    free(file);
    if (err) {
        require(!p.rgb && strncmp(kim_error_text(), "fuzz: ", 6) == 0);
        return 0;
    }
    require(p.width && p.height && p.width <= PICTURE_MOST_SIDE && p.height <= PICTURE_MOST_SIDE);
    touch(p.rgb, (size_t)p.width * p.height * 3);
    if ((size_t)p.width * p.height <= 1u << 20) {
        check_tiles(&p, 1 + size % 40, NULL);
        check_tiles(&p, 16,
                    &(pan_and_scan){ .on = true,
                                     .min_crop = 1 + data[size / 2] % 32,
                                     .max_crops = data[size - 1] % 66 });
    }
    picture_destroy(&p);
    return 0;
}
