// SPDX-License-Identifier: MIT
// stb_image, compiled here only. It is given nothing but files that png_decode and jpeg_decode have
// written anew from what they checked, since it trusts lengths and tables that it should not.
#include "picture_formats.h"

#include "host/error.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// The most that one allocation may take: what the compressed data unfolds to is bounded by what the
// size of the picture needs, not by what the data says.
static _Thread_local size_t most_bytes;
static _Thread_local kim_err failure;

static bool may_allocate(size_t bytes)
{
    if (bytes > most_bytes)
        failure = KIM_ERR_FORMAT;
    return bytes <= most_bytes;
}

// Zeros, so that damaged data gives the same pixels in every run, and none of the heap's content.
static void *bounded_alloc(size_t bytes)
{
    void *memory = may_allocate(bytes) ? calloc(1, bytes ? bytes : 1) : NULL;
    if (!memory && !failure)
        failure = KIM_ERR_NO_MEMORY;
    return memory;
}

static void *bounded_realloc(void *old, size_t old_bytes, size_t bytes)
{
    char *memory = may_allocate(bytes) ? realloc(old, bytes) : NULL;
    if (memory && bytes > old_bytes)
        memset(memory + old_bytes, 0, bytes - old_bytes);
    if (!memory && !failure)
        failure = KIM_ERR_NO_MEMORY;
    return memory;
}

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_LINEAR
#define STBI_NO_STDIO
#define STBI_MAX_DIMENSIONS PICTURE_MOST_SIDE
#define STBI_ASSERT(condition) ((void)0)
#define STBI_MALLOC(bytes) bounded_alloc(bytes)
#define STBI_REALLOC_SIZED(old, old_bytes, bytes) bounded_realloc(old, old_bytes, bytes)
#define STBI_FREE(memory) free(memory)
#ifdef __GNUC__
#    pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include <stb/stb_image.h>

kim_err stb_decode(picture *out, const uint8_t *bytes, size_t length, uint32_t width,
                   uint32_t height)
{
    // 16-bit RGBA takes 8 bytes a pixel, and what is inflated grows by doubling, as does the copy
    // of the file; the blocks of a JPEG reach over its edges
    most_bytes = ((size_t)width + 64) * ((size_t)height + 64) * 16 + 2 * length + (1u << 20);
    failure = KIM_OK;
    int got_width, got_height, channels;
    uint8_t *rgb = stbi_load_from_memory(bytes, (int)length, &got_width, &got_height, &channels, 3);
    *out = (picture){ 0 };
    if (failure == KIM_ERR_NO_MEMORY)
        return kim_fail(KIM_ERR_NO_MEMORY, "out of host memory");
    if (failure)
        return kim_fail(failure,
                        "its data unfolds to far more than %" PRIu32 " x %" PRIu32
                        " pixels need: it is corrupt",
                        width, height);
    if (!rgb)
        return kim_fail(KIM_ERR_FORMAT, "its compressed data is corrupt or incomplete");
    *out = (picture){ .width = (uint32_t)got_width, .height = (uint32_t)got_height, .rgb = rgb };
    return KIM_OK;
}
