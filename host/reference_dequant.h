// SPDX-License-Identifier: MIT
// What weight types mean, in plain C: the reference for shaders and for the packer.
#ifndef KIM_REFERENCE_DEQUANT_H
#define KIM_REFERENCE_DEQUANT_H

#include <stdint.h>

// One half-precision number, exactly.
float reference_half(uint16_t bits);

// A row as a file has it to floats, for all types of host/weight_types.h.
//
// row: whole blocks, at any alignment
// out: [n]; n: whole blocks for the quantised types
void reference_dequant(uint32_t ggml_type, const void *row, float *out, uint64_t n);

// One row of a packed tensor, back to the bytes the file has.
//
// packed:     as weight_pack writes it, all groups
// row_bytes:  weight_row_blocks * block_bytes: the last block of an unquantised row is whole
void reference_unpack_row(uint32_t ggml_type, const void *packed, uint64_t row_length, uint64_t row,
                          void *row_bytes);

// One element of a packed tensor.
float reference_unpack(uint32_t ggml_type, const void *packed, uint64_t row_length, uint64_t row,
                       uint64_t column);

#endif
