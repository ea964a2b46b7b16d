// SPDX-License-Identifier: MIT
// kim image: what the model sees of a picture, as pixels and as soft tokens.
#include "pictures.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_image_write.h>

static struct {
    const char *file;
    char *npy, *soft, *png;
} options;

static struct poptOption table[] = {
    INCLUDE_OPTIONS(model_options, NULL),
    INCLUDE_OPTIONS(crop_options, NULL),
    { "npy", '\0', POPT_ARG_STRING, &options.npy, 0,
      "write the pixels: float32 [n, 3, height, width], NumPy's format", "OUT" },
    { "soft", '\0', POPT_ARG_STRING, &options.soft, 0,
      "write the soft tokens: float32 [n, tokens, hidden], NumPy's format", "OUT" },
    { "png", '\0', POPT_ARG_STRING, &options.png, 0,
      "write the pixels as a picture, crops beside each other", "OUT" },
    INCLUDE_OPTIONS(device_options, NULL),
    POPT_TABLEEND,
};

// Format version 1.0 of NumPy's .npy: magic, length of the header, a dict padded to 64 bytes, data.
static void add_npy_header(strbuf *out, const char *shape)
{
    char dict[160];
    int n = snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }",
                     shape);
    const int length = (10 + n + 1 + 63) / 64 * 64 - 10;
    const char start[10] = {
        '\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0, (char)(length & 0xff), (char)(length >> 8)
    };
    strbuf_add(out, start, sizeof start);
    strbuf_add(out, dict, (size_t)n);
    for (; n < length - 1; n++)
        strbuf_add(out, " ", 1);
    strbuf_add(out, "\n", 1);
}

static int write_strbuf(const char *path, strbuf *out)
{
    const bool written = write_file(path, out->data, out->length);
    strbuf_free(out);
    return written ? STATUS_OK : STATUS_FAILED;
}

static int write_pixels(const kim_image *image)
{
    kim_image_info info;
    kim_image_get_info(image, &info);
    const size_t n = (size_t)info.tile_size * info.tile_size * 3;
    strbuf out = { 0 };
    char shape[64];
    float *pixels = checked(malloc(n * sizeof *pixels));
    snprintf(shape, sizeof shape, "%u, 3, %u, %u", info.tiles, info.tile_size, info.tile_size);
    add_npy_header(&out, shape);
    for (uint32_t t = 0; t < info.tiles; t++) {
        if (kim_image_get_pixels(image, t, pixels)) {
            free(pixels);
            strbuf_free(&out);
            return fail_library();
        }
        strbuf_add(&out, (const char *)pixels, n * sizeof *pixels);
    }
    free(pixels);
    return write_strbuf(options.npy, &out);
}

static int write_soft(const kim_image *image, uint32_t hidden)
{
    kim_image_info info;
    kim_image_get_info(image, &info);
    strbuf out = { 0 };
    char shape[64];
    snprintf(shape, sizeof shape, "%u, %u, %u", info.tiles, info.tile_tokens, hidden);
    add_npy_header(&out, shape);
    for (uint32_t t = 0; t < info.tiles; t++)
        strbuf_add(&out, (const char *)kim_image_get_soft_tokens(image, t),
                   (size_t)info.tile_tokens * hidden * sizeof(float));
    return write_strbuf(options.soft, &out);
}

static void add_png(void *user, void *data, int size)
{
    strbuf_add(user, data, (size_t)size);
}

static int write_png(const kim_image *image)
{
    kim_image_info info;
    kim_image_get_info(image, &info);
    const size_t row = (size_t)info.tile_size * 3;
    uint8_t *all = checked(malloc(row * info.tile_size * info.tiles));
    for (uint32_t t = 0; t < info.tiles; t++)
        for (uint32_t y = 0; y < info.tile_size; y++)
            memcpy(all + (y * info.tiles + t) * row, kim_image_get_rgb(image, t) + y * row, row);
    strbuf out = { 0 };
    const int written =
        stbi_write_png_to_func(add_png, &out, (int)(info.tiles * info.tile_size),
                               (int)info.tile_size, 3, all, (int)(row * info.tiles));
    free(all);
    if (!written) {
        strbuf_free(&out);
        return fail("out of memory");
    }
    return write_strbuf(options.png, &out);
}

static int show(opened *o, const pictures *seen)
{
    kim_image *image = seen->list[0].image;
    kim_image_info info;
    double seconds = 0;
    if (options.soft && pictures_encode(&image, 1, o->model, &seconds))
        return fail_library();
    kim_image_get_info(image, &info);
    printf("picture  %u x %u\n", info.width, info.height);
    printf("model    %u %s of %u x %u pixels, %u soft tokens each\n", info.tiles,
           info.tiles == 1 ? "tile" : "tiles", info.tile_size, info.tile_size, info.tile_tokens);
    if (seconds > 0)
        printf("encoded  in %.2f s\n", seconds);
    int status = output_flush() ? STATUS_OK : STATUS_FAILED;
    if (status == STATUS_OK && options.npy)
        status = write_pixels(image);
    if (status == STATUS_OK && options.soft)
        status = write_soft(image, kim_model_get_info(o->model)->hidden);
    if (status == STATUS_OK && options.png)
        status = write_png(image);
    return status;
}

int command_image(int argc, const char **argv)
{
    int status = arguments_parse(
        &(arguments){
            .command = "kim image",
            .synopsis = "FILE (-m MODEL [--mmproj F] | --mmproj F) [OPTION...]",
            .purpose = "Shows what the model sees of a picture: the tiles that its encoder gets,\n"
                       "and what the encoder makes of them.",
            .notes = "Without --soft the encoder does not run, and no device is needed.\n",
            .options = table,
            .operand = &options.file,
        },
        argc, argv);
    if (status != STATUS_GO_ON)
        return status;
    opened o = { 0 };
    pictures seen = { 0 };
    status = check_picture_options();
    if (status == STATUS_OK && !options.file)
        status = fail_usage("no picture; see `kim image --help`");
    if (status == STATUS_OK && options.soft)
        status = open_gpu(&o);
    if (status == STATUS_OK)
        status = given.mmproj && !given.model ? open_encoder(&o) : open_model(&o);
    if (status == STATUS_OK)
        status = pictures_add(&seen, o.model, options.file, NULL);
    if (status == STATUS_OK)
        status = show(&o, &seen);
    pictures_free(&seen);
    return close_all(&o, status);
}
