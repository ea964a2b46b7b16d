// SPDX-License-Identifier: MIT
// EXIF, of which only the orientation is read. It is a TIFF file: a header with the byte order and
// the offset of the first directory; a directory is a count and entries of 12 bytes: tag, type,
// number of values, and the value itself where it fits into four bytes.
#include "picture_formats.h"

#include <string.h>

enum {
    TIFF_HEADER = 8,
    ENTRY = 12,
    TAG_ORIENTATION = 0x0112,
    TYPE_SHORT = 3,
};

typedef struct tiff {
    const uint8_t *data;
    size_t length;
    bool big; // the byte order
} tiff;

static uint32_t tiff_u16(const tiff *t, size_t at)
{
    const uint8_t *p = t->data + at;
    return t->big ? read_be16(p) : (uint32_t)p[1] << 8 | p[0];
}

static uint32_t tiff_u32(const tiff *t, size_t at)
{
    return t->big ? read_be32(t->data + at) : read_le32(t->data + at);
}

uint32_t exif_orientation(const uint8_t *data, size_t length)
{
    if (length >= 6 && !memcmp(data, "Exif\0\0", 6)) {
        data += 6;
        length -= 6;
    }
    if (length < TIFF_HEADER || (memcmp(data, "II*\0", 4) && memcmp(data, "MM\0*", 4)))
        return 1;
    tiff t = { .data = data, .length = length, .big = data[0] == 'M' };
    size_t at = tiff_u32(&t, 4);
    if (at < TIFF_HEADER || at > length - 2)
        return 1;
    size_t count = tiff_u16(&t, at);
    at += 2;
    if (count > (length - at) / ENTRY)
        return 1;
    for (; count--; at += ENTRY) {
        if (tiff_u16(&t, at) != TAG_ORIENTATION)
            continue;
        uint32_t value = tiff_u16(&t, at + 8);
        bool right = tiff_u16(&t, at + 2) == TYPE_SHORT && tiff_u32(&t, at + 4) == 1;
        return right && value >= 1 && value <= 8 ? value : 1;
    }
    return 1;
}
