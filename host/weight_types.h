// SPDX-License-Identifier: MIT
// Types of weights: what a file holds, what the device can multiply with, and the packer between.
#ifndef KIM_WEIGHT_TYPES_H
#define KIM_WEIGHT_TYPES_H

#include <stdint.h>

// A tensor type of GGML as a file holds it: rows are whole blocks, one after the other.
typedef struct tensor_type {
    const char *name;
    uint16_t block; // elements
    uint16_t block_bytes;
} tensor_type;

// Every type GGML defines, whether it can be computed with or not. NULL: no such number.
const tensor_type *tensor_type_find(uint32_t ggml);

// A type that shaders can read.
//
// The packed form, the same for all types: rows stand in groups of WEIGHT_GROUP, the last group
// filled up with rows of zero bytes. A group has one record for each block along the row. A record
// is `words` lines of one u32 for each row of the group, and, where the block has a lone half, one
// line of one u16 for each row:
//     word w of row r = the 4 bytes at word_offset + 4 * w of the block of row r
//     half of row r   = the 2 bytes at half_offset of the block of row r
// A record has as many bytes as the blocks in it; no bit of a block is changed.
// So a subgroup whose lanes take one row each reads whole lines.
typedef struct weight_type {
    uint32_t ggml; // the number in files
    const char *name;
    uint16_t block; // elements; the unquantised types are packed by 32
    uint16_t block_bytes;
    uint16_t words;
    uint16_t word_offset;
    int16_t half_offset; // -1: none
} weight_type;

enum {
    WEIGHT_GROUP = 16,
    WEIGHT_TYPE_COUNT = 15,
    WEIGHT_BLOCK_BYTES_MAX = 210,
};

extern const weight_type weight_types[WEIGHT_TYPE_COUNT];

// NULL: not one of them.
const weight_type *weight_type_find(uint32_t ggml);

// Blocks, and bytes of the source, in a row. An unquantised row may end inside its last block.
uint64_t weight_row_blocks(const weight_type *type, uint64_t row_length);
uint64_t weight_row_bytes(const weight_type *type, uint64_t row_length);

// Bytes of one packed group, and of all groups of a tensor. Cannot overflow for a tensor that a
// file of less than 2^50 bytes holds.
uint64_t weight_group_bytes(const weight_type *type, uint64_t row_length);
uint64_t weight_packed_bytes(const weight_type *type, uint64_t rows, uint64_t row_length);

// Where a row of a matrix begins in the source.
//
// distinct: 0: rows stand one after the other; else row r is that of r % distinct, and each of
//           these begins one block after the one before, and goes on over the following ones
const uint8_t *weight_row_at(const weight_type *type, const uint8_t *data, uint32_t distinct,
                             uint64_t row_length, uint64_t row);

// Packs one group.
//
// rows:       where each row begins in the file, at any alignment; NULL: a row of zero bytes
// row_length: elements; whole blocks for quantised types. The rest of the last block of the others
//             becomes zero
// out:        weight_group_bytes; 4-byte aligned. Written once from front to back and never read,
//             so it may be write-combined memory
void weight_pack(const weight_type *type, const void *const rows[WEIGHT_GROUP], uint64_t row_length,
                 void *out);

#endif
