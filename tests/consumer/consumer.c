// SPDX-License-Identifier: MIT
// The least that a user of the installed library writes.
#include <kimberlite/kernels.h>
#include <kimberlite/kimberlite.h>
#include <stdio.h>

int main(void)
{
    uint32_t count = 0;
    kim_err err = kim_list_devices(NULL, &count);
    printf("kimberlite " KIM_VERSION ": %u devices; %s\n", count, kim_err_name(err));
    return 0;
}
