// SPDX-License-Identifier: MIT
// Pictures for the subcommands: their options, opening, and encoding with a bar.
#include "pictures.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    char **files; // ends with NULL
    int pan_and_scan, min_crop, max_crops;
    float ratio;
} options;

struct poptOption crop_options[] = {
    { "pan-and-scan", '\0', POPT_ARG_NONE, &options.pan_and_scan, 0,
      "show the model crops of long pictures too", NULL },
    { "min-crop", '\0', POPT_ARG_INT, &options.min_crop, 0,
      "pixels that the shorter side of a crop has at least (the model's: 256)", "N" },
    { "max-crops", '\0', POPT_ARG_INT, &options.max_crops, 0,
      "crops of a picture at most (the model's: 4)", "N" },
    { "pan-ratio", '\0', POPT_ARG_FLOAT, &options.ratio, 0,
      "of the sides, from which on there are crops (the model's: 1.2)", "R" },
    POPT_TABLEEND,
};

struct poptOption picture_options[] = {
    { "image", '\0', POPT_ARG_ARGV, &options.files, 0,
      "a picture; it stands where the text has <start_of_image>, else before it (several: again)",
      "FILE" },
    INCLUDE_OPTIONS(crop_options, NULL),
    POPT_TABLEEND,
};

int check_picture_options(void)
{
    if (!option_in_range("--min-crop", options.min_crop, 0, 1 << 20) ||
        !option_in_range("--max-crops", options.max_crops, 0, 64) ||
        !option_in_range("--pan-ratio", (double)options.ratio, 0, 1000))
        return STATUS_USAGE;
    if (!options.pan_and_scan && (options.min_crop || options.max_crops || options.ratio != 0))
        return fail_usage("--min-crop, --max-crops and --pan-ratio belong to --pan-and-scan");
    return STATUS_OK;
}

int pictures_add(pictures *p, kim_model *model, const char *path, const kim_pan_and_scan *crops)
{
    shown one = { .crops = {
                      .on = options.pan_and_scan,
                      .min_crop = (uint32_t)options.min_crop,
                      .max_crops = (uint32_t)options.max_crops,
                      .ratio = options.ratio,
                  } };
    if (crops)
        one.crops = *crops;
    if (!kim_model_get_info(model)->vision)
        return fail("this model cannot see pictures; give the mmproj file that was published with "
                    "it, with --mmproj");
    if (kim_image_open(&one.image, path) || kim_image_prepare(one.image, model, &one.crops)) {
        kim_image_destroy(&one.image);
        return fail_library();
    }
    one.path = checked(strdup(path));
    p->list = checked(realloc(p->list, (p->count + 1) * sizeof *p->list));
    p->list[p->count++] = one;
    return STATUS_OK;
}

int pictures_add_given(pictures *p, kim_model *model)
{
    pictures added = { 0 };
    for (char **file = options.files; file && *file; file++)
        if (pictures_add(&added, model, *file, NULL) != STATUS_OK) {
            pictures_free(&added);
            return STATUS_FAILED;
        }
    pictures_move(p, &added);
    return STATUS_OK;
}

kim_image **pictures_images(const pictures *p)
{
    kim_image **images = checked(calloc((size_t)p->count + 1, sizeof(kim_image *)));
    for (uint32_t i = 0; i < p->count; i++)
        images[i] = p->list[i].image;
    return images;
}

void pictures_move(pictures *to, pictures *from)
{
    if (from->count) {
        to->list = checked(realloc(to->list, (to->count + from->count) * sizeof *to->list));
        memcpy(to->list + to->count, from->list, from->count * sizeof *to->list);
        to->count += from->count;
    }
    from->count = 0;
    pictures_free(from);
}

void pictures_free(pictures *p)
{
    for (uint32_t i = 0; i < p->count; i++) {
        kim_image_destroy(&p->list[i].image);
        free(p->list[i].path);
    }
    free(p->list);
    *p = (pictures){ 0 };
}

static bool show_progress(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    if (isatty(STDERR_FILENO))
        progress_share("looking at the picture", done, total);
    return interrupts == 0;
}

kim_err pictures_encode(kim_image *const *images, uint32_t count, kim_model *model, double *seconds)
{
    const double start = now_seconds();
    kim_vision_stats before, after;
    *seconds = 0;
    if (!count)
        return KIM_OK;
    kim_model_get_vision_stats(model, &before);
    kim_err err = kim_images_encode(model, images, count, show_progress, NULL);
    progress_clear();
    kim_model_get_vision_stats(model, &after);
    if (after.tiles > before.tiles)
        *seconds = now_seconds() - start;
    return err;
}
