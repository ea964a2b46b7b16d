// SPDX-License-Identifier: MIT
// The host's clock.
#ifndef KIM_CLOCK_H
#define KIM_CLOCK_H

// Seconds since some moment; never goes back.
double clock_seconds(void);

// Processor time of this process, of all its threads, in seconds.
double clock_cpu_seconds(void);

#endif
