// SPDX-License-Identifier: MIT
// Names for debuggers and profilers (VK_EXT_debug_utils).
#include "labels.h"

#include <stdio.h>

// Volk's own pointers are those of the last instance, which may be another one.
void labels_load(kim_gpu *g)
{
    VkInstance i = g->instance;
    g->labels = (gpu_labels){
        .begin = (PFN_vkCmdBeginDebugUtilsLabelEXT)vkGetInstanceProcAddr(
            i, "vkCmdBeginDebugUtilsLabelEXT"),
        .end =
            (PFN_vkCmdEndDebugUtilsLabelEXT)vkGetInstanceProcAddr(i, "vkCmdEndDebugUtilsLabelEXT"),
        .name = (PFN_vkSetDebugUtilsObjectNameEXT)vkGetInstanceProcAddr(
            i, "vkSetDebugUtilsObjectNameEXT"),
    };
    if (!g->labels.begin || !g->labels.end || !g->labels.name)
        g->labels = (gpu_labels){ 0 };
}

void labels_begin(const kim_gpu *g, VkCommandBuffer cb, const char *text)
{
    const VkDebugUtilsLabelEXT label = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT,
        .pLabelName = text,
    };
    if (g->labels.begin)
        g->labels.begin(cb, &label);
}

void labels_end(const kim_gpu *g, VkCommandBuffer cb)
{
    if (g->labels.end)
        g->labels.end(cb);
}

void labels_name(const kim_gpu *g, VkObjectType type, uint64_t object, const char *fmt, ...)
{
    char text[160];
    va_list args;
    if (!g->labels.name)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    const VkDebugUtilsObjectNameInfoEXT info = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT,
        .objectType = type,
        .objectHandle = object,
        .pObjectName = text,
    };
    (void)g->labels.name(g->device, &info); // a name is not worth a failure
}
