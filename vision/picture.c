// SPDX-License-Identifier: MIT
// Pictures: which format a file has, its orientation, and pixels from memory.
#include "picture_formats.h"

#include "host/error.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

kim_err picture_check_size(uint64_t width, uint64_t height)
{
    if (!width || !height)
        return kim_fail(KIM_ERR_FORMAT, "%" PRIu64 " x %" PRIu64 " pixels: there is no picture",
                        width, height);
    if (width > PICTURE_MOST_SIDE || height > PICTURE_MOST_SIDE ||
        width * height > PICTURE_MOST_PIXELS)
        return kim_fail(KIM_ERR_UNSUPPORTED,
                        "%" PRIu64 " x %" PRIu64 " pixels, expected at most %u, and %u a side",
                        width, height, PICTURE_MOST_PIXELS, PICTURE_MOST_SIDE);
    return KIM_OK;
}

// ------------------------------------------------------------------------------------- formats

typedef kim_err (*decode_fn)(picture *out, uint32_t *orientation, const uint8_t *bytes,
                             size_t length);

// The first bytes of files, with '?' for any; a decoder, or the name of a format that has none.
static const struct {
    const char *start;
    size_t length;
    decode_fn decode;
    const char *name;
} formats[] = {
    { "\x89PNG\r\n\x1a\n", 8, png_decode, NULL },
    { "\xff\xd8\xff", 3, jpeg_decode, NULL },
    { "RIFF????WEBP", 12, webp_decode, NULL },
    { "GIF8", 4, NULL, "GIF" },
    { "BM", 2, NULL, "BMP" },
    { "II*\0", 4, NULL, "TIFF" },
    { "MM\0*", 4, NULL, "TIFF" },
    { "????ftypavif", 12, NULL, "AVIF" },
    { "????ftyp", 8, NULL, "HEIF" },
    { "\0\0\0\x0cjP  ", 8, NULL, "JPEG 2000" },
    { "\0\0\0\x0cJXL ", 8, NULL, "JPEG XL" },
    { "\xff\x0a", 2, NULL, "JPEG XL" },
    { "8BPS", 4, NULL, "Photoshop" },
    { "%PDF", 4, NULL, "PDF" },
    { "<svg", 4, NULL, "SVG" },
};

static bool starts_with(const uint8_t *bytes, size_t length, const char *start, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i >= length || (start[i] != '?' && bytes[i] != (uint8_t)start[i]))
            return false;
    }
    return true;
}

static kim_err decode_any(picture *out, uint32_t *orientation, const uint8_t *bytes, size_t length)
{
    if (!length)
        return kim_fail(KIM_ERR_FORMAT, "the file is empty, expected a PNG or JPEG picture");
    if (length > PICTURE_MOST_BYTES)
        return kim_fail(KIM_ERR_UNSUPPORTED, "the file has %" PRIu64 " bytes, expected at most %u",
                        (uint64_t)length, PICTURE_MOST_BYTES);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (!starts_with(bytes, length, formats[i].start, formats[i].length))
            continue;
        if (formats[i].decode)
            return formats[i].decode(out, orientation, bytes, length);
        return kim_fail(KIM_ERR_UNSUPPORTED, "a file of the format %s, expected PNG or JPEG",
                        formats[i].name);
    }
    return kim_fail(KIM_ERR_FORMAT,
                    "not a picture (it starts with byte 0x%02x), expected PNG or "
                    "JPEG",
                    bytes[0]);
}

// --------------------------------------------------------------------------------- orientation

// What is seen at (x, y) is stored at (x, y), or at (y, x) where the sides are swapped, counted
// from the right and from the bottom where mirrored.
static const struct {
    bool swapped, from_right, from_bottom;
} orientations[9] = {
    [2] = { false, true, false }, [3] = { false, true, true }, [4] = { false, false, true },
    [5] = { true, false, false }, [6] = { true, false, true }, [7] = { true, true, true },
    [8] = { true, true, false },
};

enum { BLOCK = 32 }; // pixels a side: rows and columns of it stay in the cache

static kim_err orient(picture *p, uint32_t orientation)
{
    if (orientation == 1)
        return KIM_OK;
    bool swapped = orientations[orientation].swapped;
    uint32_t width = swapped ? p->height : p->width, height = swapped ? p->width : p->height;
    uint8_t *rgb = malloc((size_t)width * height * 3);
    if (!rgb)
        return kim_fail(KIM_ERR_NO_MEMORY, "out of host memory");
    ptrdiff_t row = 3 * (ptrdiff_t)p->width, step_x = 3, step_y = row;
    const uint8_t *from = p->rgb;
    if (orientations[orientation].from_right) {
        from += row - 3;
        step_x = -3;
    }
    if (orientations[orientation].from_bottom) {
        from += row * (ptrdiff_t)(p->height - 1);
        step_y = -row;
    }
    ptrdiff_t along = swapped ? step_y : step_x, down = swapped ? step_x : step_y;
    for (uint32_t top = 0; top < height; top += BLOCK) {
        uint32_t bottom = height - top < BLOCK ? height : top + BLOCK;
        for (uint32_t left = 0; left < width; left += BLOCK) {
            uint32_t right = width - left < BLOCK ? width : left + BLOCK;
            for (uint32_t y = top; y < bottom; y++) {
                uint8_t *to = rgb + ((size_t)y * width + left) * 3;
                for (uint32_t x = left; x < right; x++, to += 3)
                    memcpy(to, from + (ptrdiff_t)x * along + (ptrdiff_t)y * down, 3);
            }
        }
    }
    free(p->rgb);
    *p = (picture){ .width = width, .height = height, .rgb = rgb };
    return KIM_OK;
}

// -------------------------------------------------------------------------------------- public

kim_err picture_decode(picture *out, const char *name, const void *bytes, size_t length)
{
    kim_err err = KIM_OK;
    uint32_t orientation = 1;
    *out = (picture){ 0 };
    TRY(decode_any(out, &orientation, bytes, length));
    TRY(orient(out, orientation));
    return KIM_OK;
error:
    picture_destroy(out);
    return kim_fail_prefix(err, name);
}

kim_err picture_from_pixels(picture *out, const void *pixels, uint32_t width, uint32_t height,
                            uint32_t channels, size_t stride)
{
    kim_err err = KIM_OK;
    *out = (picture){ 0 };
    if (!pixels || (channels != 3 && channels != 4))
        FAIL(KIM_ERR_ARGUMENT, "%s pixels of %" PRIu32 " channels, expected 3 or 4",
             pixels ? "there are" : "there are no", channels);
    if (picture_check_size(width, height))
        return KIM_ERR_ARGUMENT;
    size_t row = (size_t)width * channels;
    if (stride && stride < row)
        FAIL(KIM_ERR_ARGUMENT, "a stride of %" PRIu64 " bytes, expected at least %" PRIu64,
             (uint64_t)stride, (uint64_t)row);
    out->width = width;
    out->height = height;
    out->rgb = malloc((size_t)width * height * 3);
    REQUIRE_MEMORY(out->rgb);
    for (uint32_t y = 0; y < height; y++) {
        const uint8_t *from = (const uint8_t *)pixels + y * (stride ? stride : row);
        uint8_t *to = out->rgb + (size_t)y * width * 3;
        for (uint32_t x = 0; x < width; x++, from += channels, to += 3)
            memcpy(to, from, 3);
    }
    return KIM_OK;
error:
    picture_destroy(out);
    return err;
}

void picture_destroy(picture *p)
{
    free(p->rgb);
    *p = (picture){ 0 };
}
