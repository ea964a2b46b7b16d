// SPDX-License-Identifier: MIT
// Weight matrices on the device: placed, packed and uploaded from mapped files.
#ifndef KIM_LINEAR_H
#define KIM_LINEAR_H

#include "memory.h"
#include "stream.h"
#include "tensors.h"
#include "weight_types.h"

// A matrix as a file has it: rows one after the other.
typedef struct matrix_source {
    const char *name;        // for messages; kept
    const weight_type *type; // on the device
    const uint8_t *data;
    uint32_t distinct; // see weight_row_at
    uint32_t rows;
    const weight_type *file_type; // NULL: as on the device; else rows are quantised on their way
    const file_mapping *file;     // gives pages back as they have been read; NULL: none
} matrix_source;

// The tensor of this name and of just this shape.
kim_err matrix_find(const tensors *t, const char *name, uint32_t width, uint32_t rows,
                    matrix_source *out);

// Makes an unquantised matrix one of `to`, a type of weight_quantized_find, if its rows are whole
// blocks; any other stays as it is.
void matrix_quantize(matrix_source *s, uint32_t width, const weight_type *to);

// A run of output rows whose weights are of one type and in one block of memory.
typedef struct linear_part {
    const weight_type *type;
    span w;
    uint32_t first, rows; // output rows
    uint32_t blocks;      // along a row
} linear_part;

#define LINEAR_MAX_SOURCES 3

// y = W x for up to three matrices whose outputs stand one after the other.
typedef struct linear {
    matrix_source sources[LINEAR_MAX_SOURCES];
    uint32_t n_sources;
    uint32_t width; // elements of a row: of x
    uint32_t rows;  // of all sources
    bool paired;    // two sources of one type whose rows alternate: for matmul's GLU
    linear_part *parts;
    uint32_t n_parts;
} linear;

// Decides the parts and their places: sources of one type share a part, and a matrix larger than a
// block of the pool is split by rows.
//
// paired: alternate the rows of two sources, if their types are the same; see linear.paired
kim_err linear_place(linear *l, pool *p, const matrix_source *sources, uint32_t n_sources,
                     uint32_t width, bool paired);
void linear_destroy(linear *l);

// Brings bytes to the device: straight into place where memory is unified, else through a ring of
// staging buffers, of which some are filled while others are copied. Matrices are packed by several
// threads, as fast as the file, the processors or the bus allow.
typedef struct uploader uploader;

// progress: as in kim_model_params; called by the thread that uploads
kim_err uploader_create(uploader **out, kim_gpu *gpu,
                        bool (*progress)(void *user, uint64_t done, uint64_t total), void *user,
                        uint64_t total);
void uploader_destroy(uploader **u);
kim_err upload_bytes(uploader *u, const span *to, const void *data, uint64_t bytes);

// The matrix is brought by uploader_finish, and must be there until then.
kim_err upload_linear(uploader *u, const linear *l);
kim_err uploader_finish(uploader *u); // waits until all is there

#endif
