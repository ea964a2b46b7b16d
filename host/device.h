// SPDX-License-Identifier: MIT
// The devices of this machine: what they can do, and which one to take.
#ifndef KIM_DEVICE_H
#define KIM_DEVICE_H

#include "devices.h"
#include "vulkan.h"

#define DEVICE_MAX 32

// Describes one device; `info->usable` and `info->problem` say whether it has the baseline.
void device_describe(VkPhysicalDevice physical, uint32_t index, kim_device_info *info);

// Describes all devices of an instance and marks the default choice.
kim_err device_list(VkInstance instance, VkPhysicalDevice *physical, kim_device_info *infos,
                    uint32_t *count);

// The device that `wanted` means: an index, a part of the name without regard to case, or a UUID;
// NULL: the default choice.
kim_err device_choose(const kim_device_info *infos, uint32_t count, const char *wanted,
                      uint32_t *chosen);

// Whether a device lists an extension.
bool device_has_extension(VkPhysicalDevice physical, const char *name);

const char *device_type_name(kim_device_type type);

#endif
