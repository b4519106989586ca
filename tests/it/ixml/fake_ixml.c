/*
 * A libixml that does as it is told: a machine without a GPU, with the interface of the real one.
 *
 * It reads CONTROL_FILE anew at each call. A line is KEY VALUE; INDEX counts chips from 0, CODE is an
 * nvmlReturn_t, FUNCTION is init, handle, pci, health, ecc or temperature:
 *   count N                 chips that are there; it knows those of the last nvmlInit
 *   bus.INDEX TEXT          where one sits, as nvmlDeviceGetPciInfo writes it
 *   health.INDEX BITS       single.INDEX, double.INDEX, temperature.INDEX N
 *   init.code CODE          FUNCTION.INDEX.code CODE
 *   hang FUNCTION           that call does not return while this stands here
 *   stick FUNCTION          that call never returns
 *   abort FUNCTION          that call ends the process
 *   noise 1                 it prints to standard output
 *   null 1                  handles are null, though the call succeeds
 * The number of the process that began last stands in CONTROL_FILE.begun, that of the one that
 * stuck last in CONTROL_FILE.stuck.
 *
 * Compiled with: PLAIN_NAMES (only the names without _v2 and _v3, and the short nvmlPciInfo_t),
 * WITHOUT_LOOKUP, WITHOUT_HEALTH, WITHOUT_ECC, WITHOUT_TEMPERATURE (functions that are not there),
 * UNRESOLVED (a function that needs one that nobody has), NEEDS_THUNK (libixthunk.so must be there).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef PLAIN_NAMES
#define VERSION(name, version) name
#else
#define VERSION(name, version) name##version
#endif

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_FOUND = 6, MOST_CHIPS = 32 };

typedef struct { int index; } Chip;
typedef struct { Chip *chip; } nvmlDevice_t;
typedef struct {
    char busIdLegacy[16];
    unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
#ifndef PLAIN_NAMES
    char busId[32];
#endif
} nvmlPciInfo_t;

static Chip chips[MOST_CHIPS];
static int inits, known;

#ifdef NEEDS_THUNK
extern int ixthunk(void);
#endif
#ifdef UNRESOLVED
extern int nobody_has_this(void);
#endif

/* The value of a key; 0 if it is not there. */
static int find(const char *key, char *value, size_t size) {
    char line[256];
    int found = 0;
    FILE *file = fopen(CONTROL_FILE, "r");
    while (file && !found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *space = strchr(line, ' ');
        if (!space) continue;
        *space = 0;
        found = !strcmp(line, key);
        if (found) snprintf(value, size, "%s", space + 1);
    }
    if (file) fclose(file);
    return found;
}

static unsigned long long number(const char *key) {
    char value[64];
    return find(key, value, sizeof value) ? strtoull(value, NULL, 0) : 0;
}

static unsigned long long number_of(const char *name, int index, const char *suffix) {
    char key[64];
    snprintf(key, sizeof key, "%s.%d%s", name, index, suffix);
    return number(key);
}

static int is(const char *key, const char *function) {
    char value[64];
    return find(key, value, sizeof value) && !strcmp(value, function);
}

/* The file is there with all that it says, or not at all. */
static void mark(const char *name) {
    FILE *file = fopen(CONTROL_FILE ".next-mark", "w");
    if (!file) return;
    fprintf(file, "%d\n", (int)getpid());
    fclose(file);
    rename(CONTROL_FILE ".next-mark", name);
}

static void misbehave(const char *function) {
    while (is("hang", function)) usleep(1000);
    if (is("stick", function)) {
        mark(CONTROL_FILE ".stuck");
        for (;;) pause();
    }
    if (is("abort", function)) abort();
}

/* What the call returns for this chip. */
static int enter(const char *function, nvmlDevice_t device) {
    misbehave(function);
    if (!inits) return UNINITIALIZED;
    return (int)number_of(function, device.chip->index, ".code");
}

int VERSION(nvmlInit, _v2)(void) {
    if (number("noise")) puts("libixml says hello where nobody asked for it");
    fflush(stdout);
    mark(CONTROL_FILE ".begun");
    misbehave("init");
#ifdef NEEDS_THUNK
    ixthunk();
#endif
    int code = (int)number("init.code");
    if (code) return code;
    if (!inits++) known = (int)number("count");
    return SUCCESS;
}

int nvmlShutdown(void) {
    if (!inits) return UNINITIALIZED;
    inits--;
    return SUCCESS;
}

int VERSION(nvmlDeviceGetCount, _v2)(unsigned int *count) {
    *count = (unsigned int)known;
    return SUCCESS;
}

int VERSION(nvmlDeviceGetHandleByIndex, _v2)(unsigned int index, nvmlDevice_t *device) {
    if (!inits) return UNINITIALIZED;
    if (index >= (unsigned int)known) return INVALID_ARGUMENT;
    chips[index].index = (int)index;
    device->chip = number("null") ? NULL : &chips[index];
    return enter("handle", (nvmlDevice_t){&chips[index]});
}

static void bus_id(int index, char *text, size_t size) {
    char key[32];
    snprintf(key, sizeof key, "bus.%d", index);
    if (!find(key, text, size)) snprintf(text, size, "0000:%02x:00.0", 0x10 + index);
}

#ifndef WITHOUT_LOOKUP
int VERSION(nvmlDeviceGetHandleByPciBusId, _v2)(const char *wanted, nvmlDevice_t *device) {
    unsigned int domain, bus, slot, its_domain, its_bus, its_slot;
    if (sscanf(wanted, "%x:%x:%x", &domain, &bus, &slot) != 3) return INVALID_ARGUMENT;
    for (int index = 0; index < known; index++) {
        char text[32];
        bus_id(index, text, sizeof text);
        sscanf(text, "%x:%x:%x", &its_domain, &its_bus, &its_slot);
        if (domain == its_domain && bus == its_bus && slot == its_slot)
            return VERSION(nvmlDeviceGetHandleByIndex, _v2)((unsigned int)index, device);
    }
    return NOT_FOUND;
}
#endif

int VERSION(nvmlDeviceGetPciInfo, _v3)(nvmlDevice_t device, nvmlPciInfo_t *info) {
    int code = enter("pci", device);
    if (code) return code;
    char text[32] = {0};
    bus_id(device.chip->index, text, sizeof text);
    memset(info, 0, sizeof *info);
    memcpy(info->busIdLegacy, text, 15);
#ifndef PLAIN_NAMES
    memcpy(info->busId, text, sizeof info->busId);
#endif
    return SUCCESS;
}

#ifndef WITHOUT_HEALTH
int ixmlDeviceGetHealth(nvmlDevice_t device, unsigned long long *bits) {
#ifdef UNRESOLVED
    nobody_has_this();
#endif
    *bits = number_of("health", device.chip->index, "");
    return enter("health", device);
}
#endif

#ifndef WITHOUT_ECC
int ixmlDeviceGetEccErros(nvmlDevice_t device, unsigned int *single, unsigned int *twice) {
    *single = (unsigned int)number_of("single", device.chip->index, "");
    *twice = (unsigned int)number_of("double", device.chip->index, "");
    return enter("ecc", device);
}
#endif

#ifndef WITHOUT_TEMPERATURE
int nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned int *degrees) {
    if (sensor != 0) return INVALID_ARGUMENT;
    *degrees = (unsigned int)number_of("temperature", device.chip->index, "");
    return enter("temperature", device);
}
#endif
