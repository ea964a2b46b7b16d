// SPDX-License-Identifier: MIT
// Pictures for the subcommands: their options, opening, and encoding with a bar.
#ifndef KIM_PICTURES_H
#define KIM_PICTURES_H

#include "common.h"

// --image, --pan-and-scan, --min-crop, --max-crops, --pan-ratio
extern struct poptOption picture_options[];
// The same without --image.
extern struct poptOption crop_options[];

// A picture, its file, and what the model is shown of it.
typedef struct shown {
    kim_image *image;
    char *path;
    kim_pan_and_scan crops;
} shown;

// Zero-initialised is empty.
typedef struct pictures {
    shown *list;
    uint32_t count;
} pictures;

// Checks the options. Returns STATUS_OK or STATUS_USAGE, with the sentence printed.
int check_picture_options(void);

// Returns STATUS_OK, or STATUS_FAILED with the sentence printed and nothing added.
// crops: NULL: those of the options
int pictures_add(pictures *p, kim_model *model, const char *path, const kim_pan_and_scan *crops);
int pictures_add_given(pictures *p, kim_model *model); // those of --image

// The images alone, one after the other: [count], free with free().
kim_image **pictures_images(const pictures *p);

// Moves all to the end of `to`.
void pictures_move(pictures *to, pictures *from);
void pictures_free(pictures *p);

// Makes soft tokens of all images that have none, with a progress bar where stderr is a terminal.
// seconds: set to what it took; 0 where there was nothing to do
kim_err pictures_encode(kim_image *const *images, uint32_t count, kim_model *model,
                        double *seconds);

#endif
