// SPDX-License-Identifier: MIT
// Energy and clocks while a benchmark runs, from what Linux shows in /sys: counters of energy
// (RAPL's for processors, hwmon's for GPUs), else hwmon's power, and clocks, both read 20 times a
// second.
#include "bench.h"

#include <glob.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_COUNTERS = 8, PERIOD_NS = 50000000 };

typedef struct counter {
    char *path;
    double wraps_at; // microjoules; 0: it does not
    double begin;
} counter;

struct sensors {
    counter counters[MOST_COUNTERS];
    uint32_t n_counters;
    char *power;        // microwatts; NULL: counters, or nothing
    char *clock;        // NULL: not shown
    double clock_scale; // to MHz
    char source[128];

    // of the run under way; the thread's until it is joined
    pthread_t thread;
    bool running;
    pthread_mutex_t lock;
    pthread_cond_t stopped;
    bool stop;
    double began, power_sum, clock_sum;
    uint32_t power_samples, clock_samples;
};

// A file with one number. Not a number if it cannot be read.
static double read_number(const char *path)
{
    double value = NAN;
    FILE *file = fopen(path, "r");
    if (!file)
        return NAN;
    if (fscanf(file, "%lf", &value) != 1)
        value = NAN;
    fclose(file);
    return value;
}

// The first file that fits a pattern and holds a number; free(). NULL: none.
static char *find_number(const char *pattern)
{
    glob_t found;
    char *path = NULL;
    if (glob(pattern, 0, NULL, &found))
        return NULL;
    for (size_t i = 0; i < found.gl_pathc && !path; i++)
        if (!isnan(read_number(found.gl_pathv[i])))
            path = checked(strdup(found.gl_pathv[i]));
    globfree(&found);
    return path;
}

static char *find_of_device(const kim_device_info *device, const char *file)
{
    char pattern[128];
    if (!*device->pci)
        return NULL;
    snprintf(pattern, sizeof pattern, "/sys/bus/pci/devices/%s/%s", device->pci, file);
    return find_number(pattern);
}

static void find_device_energy(sensors *s, const kim_device_info *device)
{
    char *energy = find_of_device(device, "hwmon/hwmon*/energy1_input");
    if (energy) {
        s->counters[s->n_counters++].path = energy;
        snprintf(s->source, sizeof s->source, "%s", energy);
        return;
    }
    s->power = find_of_device(device, "hwmon/hwmon*/power1_average");
    if (!s->power)
        s->power = find_of_device(device, "hwmon/hwmon*/power1_input");
    if (s->power)
        snprintf(s->source, sizeof s->source, "%s", s->power);
}

// The packages of the processor. Only root may read these on most systems.
static void find_processor_energy(sensors *s)
{
    glob_t found;
    if (glob("/sys/class/powercap/intel-rapl:?", 0, NULL, &found))
        return;
    for (size_t i = 0; i < found.gl_pathc && s->n_counters < MOST_COUNTERS; i++) {
        char path[160];
        snprintf(path, sizeof path, "%s/max_energy_range_uj", found.gl_pathv[i]);
        const double wraps_at = read_number(path);
        snprintf(path, sizeof path, "%s/energy_uj", found.gl_pathv[i]);
        if (isnan(read_number(path)))
            continue;
        s->counters[s->n_counters++] = (counter){
            .path = checked(strdup(path)),
            .wraps_at = isnan(wraps_at) ? 0 : wraps_at,
        };
    }
    globfree(&found);
    if (s->n_counters)
        snprintf(s->source, sizeof s->source, "RAPL, %u package%s: the processor and all it does",
                 s->n_counters, s->n_counters > 1 ? "s" : "");
}

static void find_clock(sensors *s, const kim_device_info *device)
{
    static const struct {
        const char *file;
        double scale;
    } files[] = {
        { "hwmon/hwmon*/freq1_input", 1e-6 }, // amdgpu, Hz
        { "drm/card*/gt_act_freq_mhz", 1 },   // i915
        { "tile0/gt0/freq0/act_freq", 1 },    // xe, MHz
    };
    for (size_t i = 0; i < sizeof files / sizeof *files && !s->clock; i++) {
        s->clock = find_of_device(device, files[i].file);
        s->clock_scale = files[i].scale;
    }
    if (device->type == KIM_DEVICE_CPU) {
        s->clock = find_number("/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq");
        s->clock_scale = 1e-3;
    }
}

sensors *sensors_open(const kim_device_info *device)
{
    sensors *s = checked(calloc(1, sizeof *s));
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->stopped, NULL);
    find_device_energy(s, device);
    if (!*s->source && device->type != KIM_DEVICE_DISCRETE)
        find_processor_energy(s);
    find_clock(s, device);
    return s;
}

void sensors_close(sensors *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->n_counters; i++)
        free(s->counters[i].path);
    free(s->power);
    free(s->clock);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->stopped);
    free(s);
}

const char *sensors_source(const sensors *s)
{
    return s->source;
}

static void add_sample(const char *path, double *sum, uint32_t *samples)
{
    const double value = path ? read_number(path) : NAN;
    if (isnan(value))
        return;
    *sum += value;
    ++*samples;
}

static void *watch(void *argument)
{
    sensors *s = argument;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        struct timespec until;
        add_sample(s->power, &s->power_sum, &s->power_samples);
        add_sample(s->clock, &s->clock_sum, &s->clock_samples);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += PERIOD_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&s->stopped, &s->lock, &until);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

void sensors_begin(sensors *s)
{
    s->stop = false;
    s->power_sum = s->clock_sum = 0;
    s->power_samples = s->clock_samples = 0;
    for (uint32_t i = 0; i < s->n_counters; i++)
        s->counters[i].begin = read_number(s->counters[i].path);
    s->began = now_seconds();
    s->running = (s->power || s->clock) && !pthread_create(&s->thread, NULL, watch, s);
}

void sensors_end(sensors *s, double *joules, double *clock_mhz)
{
    const double seconds = now_seconds() - s->began;
    double microjoules = s->n_counters ? 0 : NAN;
    for (uint32_t i = 0; i < s->n_counters; i++) {
        const counter *c = &s->counters[i];
        const double used = read_number(c->path) - c->begin;
        microjoules += used < 0 ? used + c->wraps_at : used;
    }
    if (s->running) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->stopped);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    if (s->power_samples)
        microjoules = s->power_sum / s->power_samples * seconds;
    *joules = microjoules * 1e-6;
    *clock_mhz = s->clock_samples ? s->clock_sum / s->clock_samples * s->clock_scale : NAN;
}
