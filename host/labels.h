// SPDX-License-Identifier: MIT
// Names for debuggers and profilers (VK_EXT_debug_utils): what RenderDoc, RGP and Nsight show.
//
// Without the extension g->labels is all NULL, and nothing is formatted.
#ifndef KIM_LABELS_H
#define KIM_LABELS_H

#include "gpu.h"

void labels_load(kim_gpu *g); // after the device has been created

// A region of commands, within one command buffer.
void labels_begin(const kim_gpu *g, VkCommandBuffer cb, const char *text);
void labels_end(const kim_gpu *g, VkCommandBuffer cb);

// object: a Vulkan handle, as a number
void labels_name(const kim_gpu *g, VkObjectType type, uint64_t object, const char *fmt, ...)
    KIM_PRINTF(4, 5);

#endif
