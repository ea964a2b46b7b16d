// SPDX-License-Identifier: MIT
// What the encoder sees of a picture: the whole of it and, with pan and scan, crops of it, each
// resized to the encoder's square.
#ifndef KIM_TILES_H
#define KIM_TILES_H

#include "picture.h"

#define TILES_MOST_CROPS 64u
#define TILES_MOST_SIZE (1u << 14)

// Pan and scan, with the published parameters where 0 is given.
typedef struct pan_and_scan {
    bool on;
    uint32_t min_crop;  // pixels of the shorter side of a crop; 0: 256
    uint32_t max_crops; // 0: 4; at most TILES_MOST_CROPS
    float ratio;        // of the sides, from which on there are crops; 0: 1.2
} pan_and_scan;

typedef struct tiles {
    uint32_t size, count; // the whole picture, then count - 1 crops in reading order
    uint8_t *rgb;         // [count, size, size, 3], owned
} tiles;

// Resizes without regard to the aspect ratio, with the arithmetic of PIL's BILINEAR: equal to it to
// the last bit.
//
// options: NULL: no pan and scan
// out:     zero on failure
kim_err tiles_make(tiles *out, const picture *p, uint32_t size, const pan_and_scan *options);
void tiles_destroy(tiles *t); // leaves it zero

// One tile as the reference has it: (value / 255 - mean) / std in fp32, in its order of operations.
// rgb: [size, size, 3]   out: [3, size, size]
void tile_normalise(const uint8_t *rgb, uint32_t size, const float mean[3], const float std[3],
                    float *out);

#endif
