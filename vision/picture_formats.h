// SPDX-License-Identifier: MIT
// The file formats of pictures. Each reader looks through the whole file first, strictly, and
// refuses what is damaged, too large, or would come out wrong; only then are pixels decoded. Errors
// do not name the file: picture_decode does.
#ifndef KIM_PICTURE_FORMATS_H
#define KIM_PICTURE_FORMATS_H

#include "picture.h"

// out:         zero on failure
// orientation: 1 to 8 as EXIF counts; still to be applied
kim_err png_decode(picture *out, uint32_t *orientation, const uint8_t *bytes, size_t length);
kim_err jpeg_decode(picture *out, uint32_t *orientation, const uint8_t *bytes, size_t length);
kim_err webp_decode(picture *out, uint32_t *orientation, const uint8_t *bytes, size_t length);

// Refuses a picture without pixels, and one of too many.
kim_err picture_check_size(uint64_t width, uint64_t height);

// The pixels of a PNG or JPEG that was looked through, by stb_image.
//
// width, height: what the file says, already checked
kim_err stb_decode(picture *out, const uint8_t *bytes, size_t length, uint32_t width,
                   uint32_t height);

// The orientation that a block of EXIF tells, with or without "Exif\0\0" before it; 1 where it
// tells none or is damaged, which is no reason to refuse the picture.
uint32_t exif_orientation(const uint8_t *data, size_t length);

static inline uint32_t read_be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t read_be32(const uint8_t *p)
{
    return read_be16(p) << 16 | read_be16(p + 2);
}

static inline uint32_t read_le32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

#endif
