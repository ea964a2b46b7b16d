// SPDX-License-Identifier: MIT
// Vulkan through volk, and the structures that older headers lack.
#ifndef KIM_VULKAN_H
#define KIM_VULKAN_H

#ifndef VK_NO_PROTOTYPES
#    define VK_NO_PROTOTYPES
#endif
#define VK_ENABLE_BETA_EXTENSIONS
#if defined(__GNUC__)
#    pragma GCC diagnostic push
#    pragma GCC diagnostic ignored "-Wundef"
#endif
#include <volk.h>
#if defined(__GNUC__)
#    pragma GCC diagnostic pop
#endif

#include "error.h"

#ifndef VK_KHR_cooperative_matrix
#    define VK_KHR_cooperative_matrix 1
#    define VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME "VK_KHR_cooperative_matrix"
#    define VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR                      \
        ((VkStructureType)1000506000)
typedef struct VkPhysicalDeviceCooperativeMatrixFeaturesKHR {
    VkStructureType sType;
    void *pNext;
    VkBool32 cooperativeMatrix;
    VkBool32 cooperativeMatrixRobustBufferAccess;
} VkPhysicalDeviceCooperativeMatrixFeaturesKHR;
#    define VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR ((VkStructureType)1000506001)
typedef enum VkComponentTypeKHR {
    VK_COMPONENT_TYPE_FLOAT16_KHR = 0,
    VK_COMPONENT_TYPE_FLOAT32_KHR = 1,
    VK_COMPONENT_TYPE_SINT8_KHR = 3,
    VK_COMPONENT_TYPE_SINT32_KHR = 5,
} VkComponentTypeKHR;
typedef enum VkScopeKHR {
    VK_SCOPE_SUBGROUP_KHR = 3,
} VkScopeKHR;
typedef struct VkCooperativeMatrixPropertiesKHR {
    VkStructureType sType;
    void *pNext;
    uint32_t MSize;
    uint32_t NSize;
    uint32_t KSize;
    VkComponentTypeKHR AType;
    VkComponentTypeKHR BType;
    VkComponentTypeKHR CType;
    VkComponentTypeKHR ResultType;
    VkBool32 saturatingAccumulation;
    VkScopeKHR scope;
} VkCooperativeMatrixPropertiesKHR;
typedef VkResult(VKAPI_PTR *PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)(
    VkPhysicalDevice physicalDevice, uint32_t *pPropertyCount,
    VkCooperativeMatrixPropertiesKHR *pProperties);
#endif

#ifndef VK_NV_cooperative_matrix2
#    define VK_NV_cooperative_matrix2 1
#    define VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME "VK_NV_cooperative_matrix2"
#    define VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV                     \
        ((VkStructureType)1000593000)
typedef struct VkPhysicalDeviceCooperativeMatrix2FeaturesNV {
    VkStructureType sType;
    void *pNext;
    VkBool32 cooperativeMatrixWorkgroupScope;
    VkBool32 cooperativeMatrixFlexibleDimensions;
    VkBool32 cooperativeMatrixReductions;
    VkBool32 cooperativeMatrixConversions;
    VkBool32 cooperativeMatrixPerElementOperations;
    VkBool32 cooperativeMatrixTensorAddressing;
    VkBool32 cooperativeMatrixBlockLoads;
} VkPhysicalDeviceCooperativeMatrix2FeaturesNV;
#endif

#ifndef VK_KHR_portability_subset
#    define VK_KHR_PORTABILITY_SUBSET_EXTENSION_NAME "VK_KHR_portability_subset"
#endif

// Loads the Vulkan library of this machine, once; KIM_ERR_NO_VULKAN if there is none.
kim_err vulkan_load(void);

// Creates an instance of the loader's version with portability drivers enumerated.
// validation: adds the validation layer with synchronisation checks, where installed
kim_err vulkan_instance_create(VkInstance *out, bool validation);

// The error for a failed Vulkan call; VK_ERROR_DEVICE_LOST and the out-of-memory codes get their
// own.
kim_err vulkan_fail(VkResult result, const char *call);

#define VK_TRY(call)                                                                               \
    do {                                                                                           \
        VkResult vk_result = (call);                                                               \
        if (vk_result < 0) {                                                                       \
            err = vulkan_fail(vk_result, #call);                                                   \
            goto error;                                                                            \
        }                                                                                          \
    } while (0)

#endif
