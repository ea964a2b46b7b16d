// SPDX-License-Identifier: MIT
// Pictures for the subcommands: their options, opening, and encoding with a bar.
#ifndef KIM_PICTURES_H
#define KIM_PICTURES_H

#include "common.h"

// --image, --pan-and-scan, --min-crop, --max-crops, --pan-ratio
extern struct poptOption picture_options[];
// The same without --image.
extern struct poptOption crop_options[];

// Pictures and the names of their files. Zero-initialised is empty.
typedef struct pictures {
    kim_image **images; // [count]
    char **paths;
    uint32_t count;
} pictures;

// Checks the options. Returns STATUS_OK or STATUS_USAGE, with the sentence printed.
int check_picture_options(void);

// Returns STATUS_OK, or STATUS_FAILED with the sentence printed and nothing added.
int pictures_add(pictures *p, kim_model *model, const char *path);
int pictures_add_given(pictures *p, kim_model *model); // those of --image

// Moves all to the end of `to`.
void pictures_move(pictures *to, pictures *from);
void pictures_free(pictures *p);

// Makes soft tokens of all that have none, with a progress bar where stderr is a terminal.
// seconds: set to what it took; 0 where there was nothing to do
kim_err pictures_encode(const pictures *p, kim_model *model, double *seconds);

#endif
