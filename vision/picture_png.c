// SPDX-License-Identifier: MIT
// PNG: a signature, then chunks of a length, a name of four letters, data, and the data's CRC. What
// is handed to stb_image holds only the header, the palette, and the compressed data in one chunk;
// without transparency, since alpha is dropped anyway.
#include "picture_formats.h"

#include "host/error.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIGNATURE = 8,
    CHUNK = 12, // a chunk without data
    HEADER = 13,
    PALETTE = 256 * 3,
    COLOUR_PALETTE = 3,
    DEFLATE_MOST = 1032, // bytes that one byte of compressed data can stand for
};

typedef struct png {
    const uint8_t *bytes;
    uint64_t length;
    uint32_t width, height;
    uint32_t depth, colour, interlaced;
    uint32_t palette; // colours in it
    uint32_t orientation;
    bool header, end;
    uint64_t data;  // bytes of compressed data
    uint8_t *clean; // the file for stb_image
    size_t at;      // bytes in it
    uint32_t crc[256];
} png;

static void crc_init(png *p)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        p->crc[i] = c;
    }
}

static uint32_t crc_of(const png *p, const uint8_t *data, size_t n)
{
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++)
        c = p->crc[(c ^ data[i]) & 255] ^ c >> 8;
    return ~c;
}

static void put(png *p, const void *data, size_t n)
{
    memcpy(p->clean + p->at, data, n);
    p->at += n;
}

static void put_be32(png *p, uint32_t v)
{
    put(p, (const uint8_t[]){ v >> 24, v >> 16 & 255, v >> 8 & 255, v & 255 }, 4);
}

static uint32_t channels_of(uint32_t colour)
{
    static const uint8_t channels[] = { [0] = 1, [2] = 3, [COLOUR_PALETTE] = 1, [4] = 2, [6] = 4 };
    return colour < sizeof channels ? channels[colour] : 0;
}

static kim_err read_header(png *p, const uint8_t *data, uint32_t n)
{
    if (n != HEADER)
        return kim_fail(KIM_ERR_FORMAT, "IHDR has %" PRIu32 " bytes, expected 13", n);
    p->width = read_be32(data);
    p->height = read_be32(data + 4);
    p->depth = data[8];
    p->colour = data[9];
    p->interlaced = data[12];
    // depths by colour type: bit d says that d bits a channel are right
    static const uint32_t depths[] = {
        [0] = 0x10116, [2] = 0x10100, [COLOUR_PALETTE] = 0x116, [4] = 0x10100, [6] = 0x10100
    };
    if (!channels_of(p->colour) || p->depth > 16 || !(depths[p->colour] >> p->depth & 1))
        return kim_fail(KIM_ERR_FORMAT,
                        "colour type %" PRIu32 " with %" PRIu32
                        " bits a channel, which PNG does not have",
                        p->colour, p->depth);
    if (data[10] || data[11] || p->interlaced > 1)
        return kim_fail(KIM_ERR_UNSUPPORTED,
                        "compression %u, filter %u, interlace %u; expected 0, 0, and 0 or 1",
                        data[10], data[11], data[12]);
    p->header = true;
    put_be32(p, HEADER);
    put(p, "IHDR", 4);
    put(p, data, HEADER);
    put_be32(p, 0); // stb_image reads no CRC
    return picture_check_size(p->width, p->height);
}

// Colours that the palette lacks are black, as they are in PIL.
static kim_err read_palette(png *p, const uint8_t *data, uint32_t n)
{
    if (p->palette || p->data)
        return kim_fail(KIM_ERR_FORMAT, "PLTE comes twice, or after the pixels");
    if (!n || n % 3 || n > PALETTE)
        return kim_fail(KIM_ERR_FORMAT,
                        "PLTE has %" PRIu32 " bytes, expected 3 for each of 1 to 256 colours", n);
    p->palette = n / 3;
    if (p->colour != COLOUR_PALETTE) // only a suggestion
        return KIM_OK;
    put_be32(p, PALETTE);
    put(p, "PLTE", 4);
    put(p, data, n);
    memset(p->clean + p->at, 0, PALETTE - n);
    p->at += PALETTE - n;
    put_be32(p, 0);
    return KIM_OK;
}

// The length of the one chunk is filled in at the end.
static kim_err read_data(png *p, const uint8_t *data, uint32_t n)
{
    if (p->colour == COLOUR_PALETTE && !p->palette)
        return kim_fail(KIM_ERR_FORMAT, "the pixels come before the palette (PLTE)");
    if (!p->data && n)
        put(p, "\0\0\0\0IDAT", 8);
    put(p, data, n);
    p->data += n;
    return KIM_OK;
}

static kim_err read_chunk(png *p, const uint8_t *name, const uint8_t *data, uint32_t n)
{
    if (!memcmp(name, "CgBI", 4))
        return kim_fail(KIM_ERR_UNSUPPORTED,
                        "a PNG in Apple's own form (CgBI), expected a standard one");
    bool header = !memcmp(name, "IHDR", 4);
    if (header == p->header)
        return kim_fail(KIM_ERR_FORMAT, "%s",
                        header ? "IHDR comes twice" : "the first chunk is not IHDR");
    if (header)
        return read_header(p, data, n);
    if (!memcmp(name, "PLTE", 4))
        return read_palette(p, data, n);
    if (!memcmp(name, "IDAT", 4))
        return read_data(p, data, n);
    if (!memcmp(name, "eXIf", 4))
        p->orientation = exif_orientation(data, n);
    p->end = !memcmp(name, "IEND", 4);
    if (!p->end && !(name[0] & 0x20)) // a capital letter: cannot be understood without it
        return kim_fail(KIM_ERR_UNSUPPORTED, "an unknown critical chunk '%.4s'",
                        (const char *)name);
    return KIM_OK;
}

static kim_err read_chunks(png *p)
{
    uint64_t at = SIGNATURE;
    while (!p->end) {
        if (p->length - at < CHUNK)
            return kim_fail(KIM_ERR_FORMAT,
                            "the file ends at byte %" PRIu64 ", without IEND: it is truncated",
                            p->length);
        const uint8_t *chunk = p->bytes + at;
        uint32_t n = read_be32(chunk);
        for (int i = 4; i < 8; i++) {
            if ((chunk[i] | 0x20) < 'a' || (chunk[i] | 0x20) > 'z')
                return kim_fail(KIM_ERR_FORMAT,
                                "no chunk's name at byte %" PRIu64 ": it is corrupt", at + 4);
        }
        if (n > p->length - at - CHUNK)
            return kim_fail(KIM_ERR_FORMAT,
                            "the file ends at byte %" PRIu64 ", inside chunk '%.4s' of %" PRIu32
                            " bytes: it is truncated or corrupt",
                            p->length, (const char *)chunk + 4, n);
        if (crc_of(p, chunk + 4, 4 + n) != read_be32(chunk + 8 + n))
            return kim_fail(KIM_ERR_FORMAT, "chunk '%.4s' at byte %" PRIu64 " has a wrong CRC",
                            (const char *)chunk + 4, at);
        kim_err err = read_chunk(p, chunk + 4, chunk + 8, n);
        if (err)
            return err;
        at += CHUNK + n;
    }
    return KIM_OK;
}

// So that a small file cannot cost a large picture's memory and time.
static kim_err check_data(const png *p)
{
    uint64_t row = ((uint64_t)p->width * channels_of(p->colour) * p->depth + 7) / 8;
    uint64_t needed = row * p->height / DEFLATE_MOST;
    if (p->data <= needed)
        return kim_fail(KIM_ERR_FORMAT,
                        "%" PRIu32 " x %" PRIu32 " pixels need more than %" PRIu64
                        " bytes of data, IDAT has %" PRIu64,
                        p->width, p->height, needed, p->data);
    return KIM_OK;
}

kim_err png_decode(picture *out, uint32_t *orientation, const uint8_t *bytes, size_t length)
{
    kim_err err = KIM_OK;
    *out = (picture){ 0 };
    png p = { .bytes = bytes, .length = length, .orientation = 1 };
    crc_init(&p);
    p.clean = malloc(length + PALETTE + 3 * CHUNK); // what is put in, but for these, is copied
    REQUIRE_MEMORY(p.clean);
    put(&p, bytes, SIGNATURE);
    TRY(read_chunks(&p));
    TRY(check_data(&p));
    uint8_t *n = p.clean + p.at - p.data - 8;
    put_be32(&p, 0);
    put(&p, "\0\0\0\0IEND\0\0\0\0", CHUNK);
    for (int i = 0; i < 4; i++)
        n[i] = (uint8_t)(p.data >> (24 - 8 * i));
    *orientation = p.orientation;
    TRY(stb_decode(out, p.clean, p.at, p.width, p.height));
error:
    free(p.clean);
    return err;
}
