// SPDX-License-Identifier: MIT
// Pictures for a model: tiles, and their soft tokens, made once for equal pixels.
#include "image.h"

#include "model.h"

#include "host/error.h"
#include "host/file.h"

#include <stdlib.h>
#include <string.h>

#define CACHE_BYTES (128u << 20) // about 25 tiles of 4B

// --------------------------------------------------------------------------------- soft tiles

soft_tile *soft_tile_create(uint32_t tokens, uint32_t width, const uint8_t *pixels,
                            size_t pixel_bytes)
{
    soft_tile *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    atomic_init(&t->users, 1);
    t->tokens = tokens;
    t->width = width;
    t->rows = malloc((size_t)tokens * width * sizeof *t->rows);
    t->pixel_bytes = pixels ? pixel_bytes : 0;
    t->pixels = pixels ? malloc(pixel_bytes) : NULL;
    if (!t->rows || (pixels && !t->pixels))
        soft_tile_release(&t);
    else if (pixels)
        memcpy(t->pixels, pixels, pixel_bytes);
    return t;
}

soft_tile *soft_tile_share(soft_tile *t)
{
    atomic_fetch_add(&t->users, 1);
    return t;
}

void soft_tile_release(soft_tile **tp)
{
    soft_tile *t = *tp;
    *tp = NULL;
    if (!t || atomic_fetch_sub(&t->users, 1) > 1)
        return;
    free(t->rows);
    free(t->pixels);
    free(t);
}

static bool has_pixels(const soft_tile *t, const uint8_t *pixels, size_t bytes)
{
    return t->pixels && t->pixel_bytes == bytes && !memcmp(t->pixels, pixels, bytes);
}

bool soft_tile_equal(const soft_tile *a, const soft_tile *b)
{
    return a == b || (b->pixels && has_pixels(a, b->pixels, b->pixel_bytes)) ||
           (a->tokens == b->tokens && a->width == b->width &&
            !memcmp(a->rows, b->rows, (size_t)a->tokens * a->width * sizeof *a->rows));
}

// -------------------------------------------------------------------------------------- cache

void image_cache_init(image_cache *c)
{
    *c = (image_cache){ 0 };
    pthread_mutex_init(&c->lock, NULL);
}

void image_cache_destroy(image_cache *c)
{
    for (uint32_t i = 0; i < c->count; i++)
        soft_tile_release(&c->tiles[i]);
    free(c->tiles);
    pthread_mutex_destroy(&c->lock);
}

static size_t tile_bytes(const soft_tile *t)
{
    return t->pixel_bytes + (size_t)t->tokens * t->width * sizeof *t->rows;
}

// A tile of these pixels, for one more user; NULL: not known.
static soft_tile *cache_find(image_cache *c, const uint8_t *pixels, size_t bytes)
{
    soft_tile *found = NULL;
    pthread_mutex_lock(&c->lock);
    for (uint32_t i = 0; i < c->count && !found; i++)
        if (has_pixels(c->tiles[i], pixels, bytes)) {
            found = soft_tile_share(c->tiles[i]);
            memmove(&c->tiles[i], &c->tiles[i + 1], (c->count - i - 1) * sizeof *c->tiles);
            c->tiles[c->count - 1] = found;
            c->remembered++;
        }
    pthread_mutex_unlock(&c->lock);
    return found;
}

// Remembers a tile, and forgets those that were not used for longest where there are too many.
// Without memory for the list it is not remembered, which costs time only.
static void cache_add(image_cache *c, soft_tile *t)
{
    pthread_mutex_lock(&c->lock);
    if (c->count == c->room) {
        const uint32_t room = 2 * c->room + 16;
        soft_tile **list = realloc(c->tiles, room * sizeof *list);
        if (list) {
            c->tiles = list;
            c->room = room;
        }
    }
    if (c->count < c->room) {
        c->tiles[c->count++] = soft_tile_share(t);
        c->bytes += tile_bytes(t);
    }
    uint32_t gone = 0;
    while (c->bytes > CACHE_BYTES && gone + 1 < c->count) {
        c->bytes -= tile_bytes(c->tiles[gone]);
        soft_tile_release(&c->tiles[gone++]);
    }
    if (gone) {
        c->count -= gone;
        memmove(c->tiles, c->tiles + gone, c->count * sizeof *c->tiles);
    }
    pthread_mutex_unlock(&c->lock);
}

static void cache_count(image_cache *c, uint32_t encoded)
{
    pthread_mutex_lock(&c->lock);
    c->encoded += encoded;
    pthread_mutex_unlock(&c->lock);
}

void kim_model_get_vision_stats(const kim_model *model, kim_vision_stats *out)
{
    image_cache *c = &((kim_model *)model)->images;
    *out = (kim_vision_stats){ 0 };
    if (model->vision)
        encoder_get_speed(model->vision, &out->seconds, &out->operations);
    pthread_mutex_lock(&c->lock);
    out->tiles = c->encoded;
    out->remembered = c->remembered;
    pthread_mutex_unlock(&c->lock);
}

// ------------------------------------------------------------------------------------- images

static kim_err image_create(kim_image **out, const picture *whole)
{
    kim_image *image = calloc(1, sizeof *image);
    if (!image)
        return kim_fail(KIM_ERR_NO_MEMORY, "out of host memory");
    image->whole = *whole;
    *out = image;
    return KIM_OK;
}

kim_err kim_image_decode(kim_image **out, const void *bytes, size_t length, const char *name)
{
    kim_err err = KIM_OK;
    picture whole = { 0 };
    if (!out || !bytes)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_image_decode: out or bytes is NULL");
    *out = NULL;
    TRY(picture_decode(&whole, name ? name : "the picture", bytes, length));
    TRY(image_create(out, &whole));
    return KIM_OK;
error:
    picture_destroy(&whole);
    return err;
}

kim_err kim_image_open(kim_image **out, const char *path)
{
    kim_err err = KIM_OK;
    file_mapping file = { 0 };
    if (!out || !path)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_image_open: out or path is NULL");
    *out = NULL;
    TRY(file_map(&file, path));
    TRY(kim_image_decode(out, file.data, (size_t)file.size, path));
error:
    file_unmap(&file);
    return err;
}

kim_err kim_image_from_pixels(kim_image **out, const void *pixels, uint32_t width, uint32_t height,
                              uint32_t channels, size_t stride)
{
    kim_err err = KIM_OK;
    picture whole = { 0 };
    if (!out || !pixels)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_image_from_pixels: out or pixels is NULL");
    *out = NULL;
    TRY(picture_from_pixels(&whole, pixels, width, height, channels, stride));
    TRY(image_create(out, &whole));
    return KIM_OK;
error:
    picture_destroy(&whole);
    return err;
}

static void forget_tiles(kim_image *image)
{
    for (uint32_t i = 0; image->soft && i < image->tiles.count; i++)
        soft_tile_release(&image->soft[i]);
    free(image->soft);
    image->soft = NULL;
    tiles_destroy(&image->tiles);
    image->model = NULL;
}

void kim_image_destroy(kim_image **imagep)
{
    if (!imagep || !*imagep)
        return;
    forget_tiles(*imagep);
    picture_destroy(&(*imagep)->whole);
    free(*imagep);
    *imagep = NULL;
}

void kim_image_get_info(const kim_image *image, kim_image_info *out)
{
    *out = (kim_image_info){
        .width = image->whole.width,
        .height = image->whole.height,
        .tiles = image->tiles.count,
        .tile_size = image->tiles.size,
        .tile_tokens = image->model ? encoder_get_shape(image->model->vision)->tokens : 0,
        .encoded = image->soft != NULL,
    };
}

static kim_err check_vision(const kim_model *model)
{
    if (model->vision)
        return KIM_OK;
    return kim_fail(KIM_ERR_UNSUPPORTED, "%s: holds no vision encoder, so it cannot see pictures%s",
                    tensors_path(model->files.text),
                    model->files.text_file
                        ? "; open it with the mmproj-*.gguf that was published with it"
                        : ": its config.json has no vision_config");
}

kim_err kim_image_prepare(kim_image *image, kim_model *model, const kim_pan_and_scan *crops)
{
    kim_err err = KIM_OK;
    tiles made = { 0 };
    if (!image || !model)
        FAIL(KIM_ERR_ARGUMENT, "kim_image_prepare: image or model is NULL");
    TRY(check_vision(model));
    pan_and_scan options = { 0 };
    if (crops) {
        const pan_and_scan *own = &model->files.crops;
        options.on = crops->on;
        options.min_crop = crops->min_crop ? crops->min_crop : own->min_crop;
        options.max_crops = crops->max_crops ? crops->max_crops : own->max_crops;
        options.ratio = crops->ratio != 0 ? crops->ratio : own->ratio;
    }
    TRY(tiles_make(&made, &image->whole, encoder_get_shape(model->vision)->image, &options));
    forget_tiles(image);
    image->tiles = made;
    image->model = model;
error:
    return err;
}

static const uint8_t *tile_rgb(const kim_image *image, uint32_t tile)
{
    return image->tiles.rgb + (size_t)tile * image->tiles.size * image->tiles.size * 3;
}

const uint8_t *kim_image_get_rgb(const kim_image *image, uint32_t tile)
{
    return image && tile < image->tiles.count ? tile_rgb(image, tile) : NULL;
}

kim_err kim_image_get_pixels(const kim_image *image, uint32_t tile, float *pixels)
{
    if (!image || !pixels || tile >= image->tiles.count)
        return kim_fail(KIM_ERR_ARGUMENT, "kim_image_get_pixels: the image has no tile %u", tile);
    const encoder_shape *s = encoder_get_shape(image->model->vision);
    tile_normalise(tile_rgb(image, tile), s->image, s->mean, s->std, pixels);
    return KIM_OK;
}

const float *kim_image_get_soft_tokens(const kim_image *image, uint32_t tile)
{
    return image && image->soft && tile < image->tiles.count ? image->soft[tile]->rows : NULL;
}

// ------------------------------------------------------------------------------------- encode

// Tiles whose soft tokens are to be made.
typedef struct tile_list {
    soft_tile **tiles;
    uint32_t count, room;
} tile_list;

// A tile of these pixels: one that is remembered, is made already, or is to be made.
static kim_err take_tile(kim_model *m, tile_list *fresh, const uint8_t *pixels, soft_tile **out)
{
    kim_err err = KIM_OK;
    const encoder_shape *s = encoder_get_shape(m->vision);
    const size_t bytes = (size_t)s->image * s->image * 3;
    *out = cache_find(&m->images, pixels, bytes);
    if (*out)
        return KIM_OK;
    for (uint32_t i = 0; i < fresh->count; i++)
        if (has_pixels(fresh->tiles[i], pixels, bytes)) {
            *out = soft_tile_share(fresh->tiles[i]);
            return KIM_OK;
        }
    if (fresh->count == fresh->room) {
        const uint32_t room = 2 * fresh->room + 16;
        soft_tile **list = realloc(fresh->tiles, room * sizeof *list);
        REQUIRE_MEMORY(list);
        fresh->tiles = list;
        fresh->room = room;
    }
    *out = soft_tile_create(s->tokens, s->text_hidden, pixels, bytes);
    REQUIRE_MEMORY(*out);
    fresh->tiles[fresh->count++] = soft_tile_share(*out);
error:
    return err;
}

static kim_err encode_fresh(kim_model *m, const tile_list *fresh,
                            bool (*progress)(void *user, uint64_t done, uint64_t total), void *user)
{
    kim_err err = KIM_OK;
    const encoder_shape *s = encoder_get_shape(m->vision);
    const size_t bytes = (size_t)s->image * s->image * 3;
    const size_t values = (size_t)s->tokens * s->text_hidden;
    uint8_t *rgb = malloc(fresh->count * bytes);
    float *soft = malloc(fresh->count * values * sizeof *soft);
    REQUIRE_MEMORY(rgb && soft);
    for (uint32_t i = 0; i < fresh->count; i++)
        memcpy(rgb + i * bytes, fresh->tiles[i]->pixels, bytes);
    TRY(encoder_encode(m->vision, rgb, fresh->count, soft, progress, user));
    for (uint32_t i = 0; i < fresh->count; i++) {
        memcpy(fresh->tiles[i]->rows, soft + i * values, values * sizeof *soft);
        cache_add(&m->images, fresh->tiles[i]);
    }
    cache_count(&m->images, fresh->count);
error:
    free(rgb);
    free(soft);
    return err;
}

// Prepared, with a list of soft tiles to fill; an image that is encoded stays as it is.
static kim_err begin_image(kim_model *m, kim_image *image, tile_list *fresh)
{
    kim_err err = KIM_OK;
    if (image->model != m)
        TRY(kim_image_prepare(image, m, NULL));
    if (image->soft)
        return KIM_OK;
    image->soft = calloc(image->tiles.count, sizeof *image->soft);
    REQUIRE_MEMORY(image->soft);
    for (uint32_t t = 0; t < image->tiles.count; t++)
        TRY(take_tile(m, fresh, tile_rgb(image, t), &image->soft[t]));
error:
    return err;
}

// Takes back soft tiles of which some were not made.
static void undo_image(kim_image *image, const tile_list *fresh)
{
    bool unfinished = false;
    for (uint32_t t = 0; image->soft && t < image->tiles.count; t++) {
        unfinished |= !image->soft[t];
        for (uint32_t i = 0; i < fresh->count; i++)
            unfinished |= image->soft[t] == fresh->tiles[i];
    }
    for (uint32_t t = 0; unfinished && t < image->tiles.count; t++)
        soft_tile_release(&image->soft[t]);
    if (unfinished) {
        free(image->soft);
        image->soft = NULL;
    }
}

kim_err kim_images_encode(kim_model *model, kim_image *const *images, uint32_t count,
                          bool (*progress)(void *user, uint64_t done, uint64_t total), void *user)
{
    kim_err err = KIM_OK;
    tile_list fresh = { 0 };
    uint32_t begun = 0;
    if (!model || (!images && count))
        FAIL(KIM_ERR_ARGUMENT, "kim_images_encode: model or images is NULL");
    TRY(check_vision(model));
    if (!model->gpu)
        FAIL(KIM_ERR_ARGUMENT, "kim_images_encode: the model was opened without a gpu");
    while (begun < count) {
        if (!images[begun])
            FAIL(KIM_ERR_ARGUMENT, "kim_images_encode: picture %u is NULL", begun + 1);
        begun++;
        TRY(begin_image(model, images[begun - 1], &fresh));
    }
    if (fresh.count)
        TRY(encode_fresh(model, &fresh, progress, user));
error:
    for (uint32_t i = 0; err && i < begun; i++)
        undo_image(images[i], &fresh);
    for (uint32_t i = 0; i < fresh.count; i++)
        soft_tile_release(&fresh.tiles[i]);
    free(fresh.tiles);
    return err;
}
