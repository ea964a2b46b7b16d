// SPDX-License-Identifier: MIT
// Finds the Vulkan library at run time and makes instances.
#define VOLK_IMPLEMENTATION
#include "vulkan.h"

#include <stdio.h>
#include <string.h>

kim_err vulkan_load(void)
{
    // volkInitialize is idempotent: the second call finds the same library.
    if (volkInitialize() != VK_SUCCESS)
        return kim_fail(KIM_ERR_NO_VULKAN, "no Vulkan library on this machine: install the driver "
                                           "of the GPU, or Mesa's lavapipe to run on the CPU "
                                           "(Debian: mesa-vulkan-drivers)");
    return KIM_OK;
}

static bool has_layer(const char *name)
{
    VkLayerProperties layers[64];
    uint32_t n = 64;
    if (vkEnumerateInstanceLayerProperties(&n, layers) < 0)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(layers[i].layerName, name))
            return true;
    return false;
}

static bool has_instance_extension(const char *layer, const char *name)
{
    VkExtensionProperties extensions[128];
    uint32_t n = 128;
    if (vkEnumerateInstanceExtensionProperties(layer, &n, extensions) < 0)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(extensions[i].extensionName, name))
            return true;
    return false;
}

kim_err vulkan_instance_create(VkInstance *out, bool validation)
{
    static const char *const layer = "VK_LAYER_KHRONOS_validation";
    if (validation && !has_layer(layer))
        return kim_fail(KIM_ERR_UNSUPPORTED,
                        "validation was asked for, but the layer %s is not "
                        "installed (Debian: vulkan-validationlayers)",
                        layer);

    const char *extensions[4];
    uint32_t n = 0;
    VkInstanceCreateFlags flags = 0;
    if (has_instance_extension(NULL, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME)) {
        extensions[n++] = VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME;
        flags |= VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR;
    }
    if (validation || has_instance_extension(NULL, VK_EXT_DEBUG_UTILS_EXTENSION_NAME))
        extensions[n++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME; // the layer has it in any case
    if (validation)
        extensions[n++] = VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME;
    const VkValidationFeatureEnableEXT enable[] = {
        VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT,
    };
    const VkValidationFeaturesEXT features = {
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .enabledValidationFeatureCount = 1,
        .pEnabledValidationFeatures = enable,
    };
    const VkApplicationInfo application = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pApplicationName = "kimberlite",
        .apiVersion = VK_API_VERSION_1_3, // the most this code knows; 1.2 is what it needs
    };
    const VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pNext = validation ? &features : NULL,
        .flags = flags,
        .pApplicationInfo = &application,
        .enabledLayerCount = validation ? 1 : 0,
        .ppEnabledLayerNames = &layer,
        .enabledExtensionCount = n,
        .ppEnabledExtensionNames = extensions,
    };
    VkResult result = vkCreateInstance(&info, NULL, out);
    if (result == VK_ERROR_INCOMPATIBLE_DRIVER)
        return kim_fail(KIM_ERR_NO_VULKAN,
                        "there is a Vulkan library but no driver for it: install "
                        "the driver of the GPU, or Mesa's lavapipe to run on the "
                        "CPU (Debian: mesa-vulkan-drivers)");
    if (result < 0)
        return vulkan_fail(result, "vkCreateInstance");
    volkLoadInstanceOnly(*out);
    return KIM_OK;
}

kim_err vulkan_fail(VkResult result, const char *call)
{
    // `call` is the text of the whole call: keep the name of the function.
    const char *name = strstr(call, "vk");
    int length = name ? (int)strcspn(name, "(") : 0;
    const char *start = name ? name : call;
    for (const char *arrow; (arrow = strstr(start, "vk.")) && arrow < call + strcspn(call, "(");) {
        start = arrow + 3;
        length = (int)strcspn(start, "(");
    }
    switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return kim_fail(KIM_ERR_NO_MEMORY, "%.*s: out of host memory", length, start);
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
        return kim_fail(KIM_ERR_DEVICE_MEMORY, "%.*s: the device is out of memory", length, start);
    case VK_ERROR_DEVICE_LOST:
        return kim_fail(
            KIM_ERR_DEVICE_LOST,
            "%.*s: the device was lost (reset, unplugged, or hung); open the model again", length,
            start);
    default:
        return kim_fail(KIM_ERR_VULKAN, "%.*s failed with VkResult %d", length, start, (int)result);
    }
}
