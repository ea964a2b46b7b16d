// SPDX-License-Identifier: MIT
// The host's clock.
#ifndef KIM_CLOCK_H
#define KIM_CLOCK_H

// Seconds since some moment; never goes back.
double clock_seconds(void);

#endif
