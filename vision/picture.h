// SPDX-License-Identifier: MIT
// A picture on the host: decoded from a file's bytes, or made from pixels.
#ifndef KIM_PICTURE_H
#define KIM_PICTURE_H

#include "host/base.h"

typedef struct picture {
    uint32_t width, height;
    uint8_t *rgb; // [height, width, 3], owned
} picture;

// More than this is refused before anything is decoded.
#define PICTURE_MOST_PIXELS (1u << 27)
#define PICTURE_MOST_SIDE (1u << 20)
#define PICTURE_MOST_BYTES (1u << 28) // of the file

// PNG, JPEG, and WebP where the build has libwebp. Alpha is dropped, grey and palettes become RGB,
// 16 bits a channel 8; the orientation of EXIF is applied. A file that is damaged or cut short is
// refused. Decoding takes up to 25 bytes a pixel (16-bit PNG; JPEG 12) until it returns.
//
// name: stands for the file in errors
// out:  zero on failure
kim_err picture_decode(picture *out, const char *name, const void *bytes, size_t length);

// channels: 3 or 4 (the fourth is dropped)   stride: bytes from row to row; 0: width * channels
kim_err picture_from_pixels(picture *out, const void *pixels, uint32_t width, uint32_t height,
                            uint32_t channels, size_t stride);

void picture_destroy(picture *p); // leaves it zero

#endif
