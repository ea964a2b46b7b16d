// SPDX-License-Identifier: MIT
// The compiled shaders inside the library. shaders/spirv.cmake generates the definitions.
#ifndef KIM_SPIRV_H
#define KIM_SPIRV_H

#include <stddef.h>
#include <stdint.h>

// One line of shaders/variants.txt, compiled in both memory modes.
typedef struct kim_spirv {
    const char *name;        // as in variants.txt, the weight type filled in
    const uint32_t *code[2]; // [0] table mode, [1] address mode; NULL: left out of this build
    size_t bytes[2];
} kim_spirv;

// In the order of variants.txt, which is that of `enum kim_variant` in the generated
// kim_variants.h.
extern const kim_spirv kim_spirv_table[];
extern const uint32_t kim_spirv_count;

// What was left out because the GLSL compiler lacks an extension, in one line; "" when nothing.
extern const char kim_build_missing_text[];

#endif
