// SPDX-License-Identifier: MIT
// Ways to multiply weights by many columns: which ones a device has, and which one is taken.
//
// What is fastest is measured (tuning.h). Before that, the fp16 matrices of a GPU, where it has
// none fp32 tiles, and on a CPU MATMUL_FEW, where lanes that load for each other are faster than
// shared memory. int8 rounds activations to seven bits: it is never taken unless asked for.
#ifndef KIM_MATMUL_WAYS_H
#define KIM_MATMUL_WAYS_H

#include "gpu.h"
#include "weight_types.h"

// Lanes of a subgroup that multiplies matrices: 32 where the device lets that be chosen.
uint32_t matrix_subgroup(const kim_gpu *g);

// Fills in g->matmul_ways, g->has_attention_tiles, _nv and _quads, and the defaults of what is
// taken; before the device is made.
void matmul_ways_find(kim_gpu *g);

// Chooses the way for all that is placed and recorded from now on; KIM_ERR_UNSUPPORTED if this
// device or this build does not have it. Not while other threads use the device.
kim_err matmul_way_set(kim_gpu *g, matmul_way way);

// few, float, dot, half, int8
const char *matmul_way_name(matmul_way way);
bool matmul_way_find(const char *name, matmul_way *way); // false: none is called so

// The way that a product goes, which is not always the chosen one: few columns go MATMUL_FEW; F32
// weights are not rounded to fp16, nor those without block scales to int8.
//
// packed: there is room to pack the columns, matmul_packed_bytes
matmul_way matmul_way_of(const kim_gpu *g, const weight_type *type, uint32_t columns, bool packed);

// Whether columns are packed first (pack.comp).
bool matmul_way_packs(matmul_way way);

// Room for the packed columns of a product on this device as the way is chosen now; may be 0.
//
// g:     NULL: no device, 0
// width: elements of a column
uint64_t matmul_packed_bytes(const kim_gpu *g, uint32_t width, uint32_t columns);

#endif
