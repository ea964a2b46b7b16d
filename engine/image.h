// SPDX-License-Identifier: MIT
// Pictures for a model: tiles, and their soft tokens, made once for equal pixels. Internal to
// engine/.
#ifndef KIM_IMAGE_H
#define KIM_IMAGE_H

#include "kimberlite.h"

#include "vision/encoder.h"
#include "vision/tiles.h"

#include <pthread.h>
#include <stdatomic.h>

// The soft tokens of one tile. Shared by images, sessions and the cache; never changed.
typedef struct soft_tile {
    atomic_uint users;
    uint32_t tokens, width;
    float *rows;     // [tokens, width]
    uint8_t *pixels; // [pixel_bytes] that they were made of; NULL: they came with a session's file
    size_t pixel_bytes;
} soft_tile;

// One user. NULL: no memory. pixels: copied; NULL: none
soft_tile *soft_tile_create(uint32_t tokens, uint32_t width, const uint8_t *pixels,
                            size_t pixel_bytes);
soft_tile *soft_tile_share(soft_tile *t);
void soft_tile_release(soft_tile **t);

// The same picture: the same pixels, or soft tokens that are equal.
bool soft_tile_equal(const soft_tile *a, const soft_tile *b);

// Tiles encoded before, the last used at the end.
typedef struct image_cache {
    pthread_mutex_t lock;
    soft_tile **tiles;
    uint32_t count, room;
    size_t bytes;
    uint64_t encoded, remembered; // tiles so far
} image_cache;

void image_cache_init(image_cache *c);
void image_cache_destroy(image_cache *c);

struct kim_image {
    picture whole;
    const kim_model *model; // that it was prepared for; NULL: none
    tiles tiles;
    soft_tile **soft; // [tiles.count]; NULL: not encoded
};

#endif
