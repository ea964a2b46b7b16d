// SPDX-License-Identifier: MIT
// Lists the Vulkan devices of this machine: the smallest program over the library.
#include "engine/kimberlite.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const type_names[] = {
    [KIM_DEVICE_OTHER] = "other",       [KIM_DEVICE_INTEGRATED] = "integrated",
    [KIM_DEVICE_DISCRETE] = "discrete", [KIM_DEVICE_VIRTUAL] = "virtual",
    [KIM_DEVICE_CPU] = "cpu",
};

int main(void)
{
    // How many there are, then the devices themselves.
    uint32_t count = 0;
    kim_device_info *devices = NULL;
    kim_err err = kim_list_devices(NULL, &count);
    if (!err && count > 0) {
        devices = calloc(count, sizeof *devices);
        if (!devices)
            return 1;
        err = kim_list_devices(devices, &count);
    }
    if (err) {
        fprintf(stderr, "list_devices: %s\n", kim_error_text());
        free(devices);
        return 1;
    }

    for (uint32_t i = 0; i < count; i++) {
        const kim_device_info *d = &devices[i];
        printf("%u: %s (%s, %.1f GiB, %s)%s%s\n", d->index, d->name, type_names[d->type],
               (double)d->memory / (1 << 30), d->usable ? "usable" : d->problem,
               d->chosen ? ", the default: " : "", d->chosen ? d->reason : "");
    }
    free(devices);
    return 0;
}
