// SPDX-License-Identifier: MIT
// WebP by libwebp, where the build has it. A file is "RIFF", a size, "WEBP", then chunks of a name,
// a length, and data padded to an even number of bytes.
#include "picture_formats.h"

#include "host/error.h"

#ifdef KIM_HAVE_WEBP

#    include <stdlib.h>
#    include <string.h>
#    include <webp/decode.h>

static uint32_t find_orientation(const uint8_t *bytes, size_t length)
{
    for (size_t at = 12; length - at >= 8;) {
        uint32_t n = read_le32(bytes + at + 4);
        if (n > length - at - 8)
            break;
        if (!memcmp(bytes + at, "EXIF", 4))
            return exif_orientation(bytes + at + 8, n);
        at += 8 + n;
        if (n & 1 && at < length)
            at++;
    }
    return 1;
}

kim_err webp_decode(picture *out, uint32_t *orientation, const uint8_t *bytes, size_t length)
{
    kim_err err = KIM_OK;
    *out = (picture){ 0 };
    WebPBitstreamFeatures features;
    if (WebPGetFeatures(bytes, length, &features) != VP8_STATUS_OK)
        FAIL(KIM_ERR_FORMAT, "its WebP header is damaged or truncated");
    if (features.has_animation)
        FAIL(KIM_ERR_UNSUPPORTED, "an animated WebP, expected a single picture");
    TRY(picture_check_size((uint64_t)features.width, (uint64_t)features.height));
    out->width = (uint32_t)features.width;
    out->height = (uint32_t)features.height;
    size_t row = (size_t)out->width * 3;
    out->rgb = malloc(row * out->height);
    REQUIRE_MEMORY(out->rgb);
    if (!WebPDecodeRGBInto(bytes, length, out->rgb, row * out->height, (int)row))
        FAIL(KIM_ERR_FORMAT, "its WebP data is damaged or truncated");
    *orientation = find_orientation(bytes, length);
    return KIM_OK;
error:
    picture_destroy(out);
    return err;
}

#else

kim_err webp_decode(picture *out, uint32_t *orientation, const uint8_t *bytes, size_t length)
{
    (void)bytes, (void)length;
    *out = (picture){ 0 };
    *orientation = 1;
    return kim_fail(KIM_ERR_UNSUPPORTED, "a WebP picture, and this build is without libwebp; "
                                         "expected PNG or JPEG");
}

#endif
