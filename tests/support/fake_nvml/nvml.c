/* A stand-in for libnvidia-ml.so.1 that does what a script says, for tests of everything from ctypes upwards.
 *
 * The file named by FAKE_NVML is read anew at every call, so a test may change it while the program runs:
 *
 *     count 8                  GPUs that there are
 *     driver 570.86.15         version text; also: nvml
 *     set 0 util 57            a value of device 0; * stands for every device
 *     set 0 field_82 81        a value of nvmlDeviceGetFieldValues
 *     fault 0 field_82 3       the code of that value alone
 *     fault 3 nvmlDeviceGetPowerUsage 15      the call fails on device 3 with this code; "hang" = it never returns
 *     fault * nvmlInitWithFlags 9             calls that belong to no device are found under *
 *     proc 0 Compute 4711 1048576             a process of device 0; memory -1 = not available
 *     proccount 0 Compute 4000000             the count that the driver claims, whatever there is
 *     sample 0 4711 1000 35                   a utilisation sample: pid, time, %
 *     xid 0 79                 an error that the driver reports: each line once, in order
 *     mig 0 0                  device 0 has a MIG instance in slot 0; it is device 100 * (GPU + 1) + slot
 *
 * PROC_VERSION (1, 2 or 3) says which symbols of the process lists are there.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef PROC_VERSION
#define PROC_VERSION 3
#endif

enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT = 7, TIMEOUT = 10 };

typedef struct { char legacy[16]; unsigned domain, bus, device, id, sub; char bus_id[32]; } pci_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory2_t;
typedef struct { unsigned long long total, free, used; } memory1_t;
typedef struct { unsigned gpu, memory; } rates_t;
typedef struct { unsigned version, sensor; int temperature; } temperature_t;
typedef struct { unsigned field, scope; int64_t time, latency; int type, code; unsigned long long value; } field_t;
typedef struct { unsigned version; int degrees; } margin_t;
typedef struct { unsigned processors, copy, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices; unsigned long long memory_mb; } attributes_t;
typedef struct { unsigned pid; unsigned long long memory; } process1_t;
typedef struct { unsigned pid; unsigned long long memory; unsigned gi, ci; } process2_t;
typedef struct { void *device; unsigned long long type, data; unsigned gi, ci; } event_t;
typedef struct { unsigned pid; unsigned long long time; unsigned sm, memory, encoder, decoder; } sample_t;

static int device_of(void *handle) { return (int)(intptr_t)handle - 1; }
static void *handle_of(int device) { return (void *)(intptr_t)(device + 1); }

/* Calls `take(words, count, argument)` for each line of the script until it returns non-zero; that value. */
static int each_line(int (*take)(char **, int, void *), void *argument) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    int found = 0;
    if (!file) return 0;
    while (!found && fgets(line, sizeof line, file)) {
        char *words[8], *rest = line, *word;
        int count = 0;
        while (count < 8 && (word = strtok_r(rest, count == 3 ? "\n" : " \n", &rest))) words[count++] = word;
        if (count) found = take(words, count, argument);
    }
    fclose(file);
    return found;
}

struct query { const char *kind, *key; int device; char value[256]; };

static int matches(const char *word, int device) { return !strcmp(word, "*") || (device >= 0 && atoi(word) == device); }

static int take_value(char **words, int count, void *argument) {
    struct query *query = argument;
    if (strcmp(words[0], query->kind) || count < 4 || !matches(words[1], query->device) || strcmp(words[2], query->key)) return 0;
    snprintf(query->value, sizeof query->value, "%s", words[3]);
    return 1;
}

static int find(const char *kind, int device, const char *key, char *value) {
    struct query query = {kind, key, device, ""};
    int found = each_line(take_value, &query);
    if (found) strcpy(value, query.value);
    return found;
}

static int fault(const char *call, int device) {
    char value[256];
    if (!find("fault", device, call, value)) return SUCCESS;
    if (!strcmp(value, "hang")) for (;;) pause();
    return atoi(value);
}

static int take_word(char **words, int count, void *argument) {
    struct query *query = argument;
    if (count < 2 || strcmp(words[0], query->kind)) return 0;
    snprintf(query->value, sizeof query->value, "%s", words[1]);
    return 1;
}

static int word(const char *kind, char *text, unsigned length, const char *otherwise) {
    struct query query = {kind, "", 0, ""};
    snprintf(text, length, "%s", each_line(take_word, &query) ? query.value : otherwise);
    return SUCCESS;
}

static long long number(int device, const char *key, long long otherwise) {
    char value[256];
    return find("set", device, key, value) ? atoll(value) : otherwise;
}

#define CHECK(call, device) do { int code_ = fault(#call, device); if (code_) return code_; } while (0)
#define NUMBER_CALL(call, type, key, otherwise) \
    int call(void *handle, type *value) { CHECK(call, device_of(handle)); *value = (type)number(device_of(handle), key, otherwise); return SUCCESS; }

int nvmlInitWithFlags(unsigned flags) { (void)flags; CHECK(nvmlInitWithFlags, -1); return SUCCESS; }
int nvmlShutdown(void) { CHECK(nvmlShutdown, -1); return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "fake"; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { CHECK(nvmlSystemGetDriverVersion, -1); return word("driver", text, length, "570.86.15"); }
int nvmlSystemGetNVMLVersion(char *text, unsigned length) { CHECK(nvmlSystemGetNVMLVersion, -1); return word("nvml", text, length, "12.570.86.15"); }
int nvmlSystemGetCudaDriverVersion(int *version) { CHECK(nvmlSystemGetCudaDriverVersion, -1); *version = 12080; return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    char text[32];
    CHECK(nvmlDeviceGetCount_v2, -1);
    word("count", text, sizeof text, "0");
    *count = (unsigned)atoi(text);
    return SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    CHECK(nvmlDeviceGetHandleByIndex_v2, (int)index);
    *handle = handle_of((int)index);
    return SUCCESS;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
    CHECK(nvmlDeviceGetName, device_of(handle));
    char value[256] = "NVIDIA Fake";
    find("set", device_of(handle), "name", value);
    if (!strcmp(value, "undecodable")) strcpy(value, "\xff\xfe");
    snprintf(text, length, "%s", value);
    return SUCCESS;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned length) {
    CHECK(nvmlDeviceGetUUID, device_of(handle));
    char value[256];
    if (!find("set", device_of(handle), "uuid", value)) snprintf(value, sizeof value, "GPU-%d", device_of(handle));
    snprintf(text, length, "%s", value);
    return SUCCESS;
}
int nvmlDeviceGetSerial(void *handle, char *text, unsigned length) {
    CHECK(nvmlDeviceGetSerial, device_of(handle));
    snprintf(text, length, "1650%d", device_of(handle));
    return SUCCESS;
}
int nvmlDeviceGetPciInfo_v3(void *handle, pci_t *pci) {
    CHECK(nvmlDeviceGetPciInfo_v3, device_of(handle));
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", 16 + device_of(handle));
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo_v2(void *handle, memory2_t *memory) {
    CHECK(nvmlDeviceGetMemoryInfo_v2, device_of(handle));
    if (memory->version != 0x02000028) return INVALID;
    memory->total = (unsigned long long)number(device_of(handle), "total", 85899345920LL);
    memory->used = (unsigned long long)number(device_of(handle), "used", 1073741824LL);
    memory->reserved = 629145600;
    memory->free = memory->total - memory->used - memory->reserved;
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory1_t *memory) {
    CHECK(nvmlDeviceGetMemoryInfo, device_of(handle));
    memory->total = (unsigned long long)number(device_of(handle), "total", 85899345920LL);
    memory->used = (unsigned long long)number(device_of(handle), "used", 1073741824LL);
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(void *handle, rates_t *rates) {
    CHECK(nvmlDeviceGetUtilizationRates, device_of(handle));
    rates->gpu = (unsigned)number(device_of(handle), "util", 40);
    rates->memory = (unsigned)number(device_of(handle), "mutil", 20);
    return SUCCESS;
}
int nvmlDeviceGetTemperatureV(void *handle, temperature_t *temperature) {
    CHECK(nvmlDeviceGetTemperatureV, device_of(handle));
    temperature->temperature = (int)number(device_of(handle), "temperature", 36);
    return SUCCESS;
}
int nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *value) {
    (void)sensor;
    CHECK(nvmlDeviceGetTemperature, device_of(handle));
    *value = (unsigned)number(device_of(handle), "temperature", 36);
    return SUCCESS;
}
int nvmlDeviceGetTemperatureThreshold(void *handle, unsigned kind, unsigned *value) {
    CHECK(nvmlDeviceGetTemperatureThreshold, device_of(handle));
    *value = kind == 0 ? 92 : 87;
    return SUCCESS;
}
NUMBER_CALL(nvmlDeviceGetPowerUsage, unsigned, "power", 120000)
NUMBER_CALL(nvmlDeviceGetEnforcedPowerLimit, unsigned, "limit", 700000)
NUMBER_CALL(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, "energy", 123456789)
NUMBER_CALL(nvmlDeviceGetPerformanceState, int, "pstate", 0)
NUMBER_CALL(nvmlDeviceGetNumFans, unsigned, "fans", 2)
NUMBER_CALL(nvmlDeviceGetFanSpeed, unsigned, "fan", 44)
NUMBER_CALL(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, "events", 4)
NUMBER_CALL(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, "events", 4)
NUMBER_CALL(nvmlDeviceGetMaxMigDeviceCount, unsigned, "migmax", 7)
NUMBER_CALL(nvmlDeviceGetGpuInstanceId, unsigned, "gi", 3)
NUMBER_CALL(nvmlDeviceGetComputeInstanceId, unsigned, "ci", 0)
int nvmlDeviceGetFanSpeed_v2(void *handle, unsigned fan, unsigned *value) {
    CHECK(nvmlDeviceGetFanSpeed_v2, device_of(handle));
    *value = (unsigned)number(device_of(handle), "fan", 44) + fan;
    return SUCCESS;
}
int nvmlDeviceGetClockInfo(void *handle, unsigned kind, unsigned *value) {
    CHECK(nvmlDeviceGetClockInfo, device_of(handle));
    *value = kind == 2 ? 2619 : 1980;
    return SUCCESS;
}
int nvmlDeviceGetMaxClockInfo(void *handle, unsigned kind, unsigned *value) {
    CHECK(nvmlDeviceGetMaxClockInfo, device_of(handle));
    *value = kind == 2 ? 2619 : 1980;
    return SUCCESS;
}
int nvmlDeviceGetEncoderUtilization(void *handle, unsigned *share, unsigned *period) {
    CHECK(nvmlDeviceGetEncoderUtilization, device_of(handle));
    *share = 5;
    *period = 167000;
    return SUCCESS;
}
int nvmlDeviceGetDecoderUtilization(void *handle, unsigned *share, unsigned *period) {
    CHECK(nvmlDeviceGetDecoderUtilization, device_of(handle));
    *share = 6;
    *period = 167000;
    return SUCCESS;
}
/* Fields that the device has by default: NVML's number, value type (1 = unsigned int, 3 = unsigned long long), value. */
static const struct { unsigned field; int type; unsigned long long value; } FIELDS[] = {
    {3, 3, 1}, {4, 3, 0}, {5, 3, 7}, {6, 3, 2}, {74, 3, 5000000000ULL}, {75, 3, 0}, {76, 3, 0}, {77, 3, 0}, {78, 3, 0},
    {79, 3, 0}, {83, 3, 123456789}, {138, 3, 2048}, {139, 3, 1024}, {142, 1, 3}, {143, 1, 1}, {144, 1, 1}, {145, 1, 0},
    {185, 1, 120000}, {186, 1, 121500}, {197, 3, 1000}, {198, 3, 2000}, {230, 1, 0}, {269, 3, 30}, {270, 3, 20}, {271, 3, 10},
};
int nvmlDeviceGetFieldValues(void *handle, int count, field_t *fields) {
    int device = device_of(handle);
    CHECK(nvmlDeviceGetFieldValues, device);
    for (int i = 0; i < count; i++) {
        char key[32], value[256];
        field_t *row = &fields[i];
        row->code = INVALID;
        for (unsigned k = 0; k < sizeof FIELDS / sizeof *FIELDS; k++)
            if (FIELDS[k].field == row->field) *row = (field_t){row->field, row->scope, 0, 0, FIELDS[k].type, SUCCESS, FIELDS[k].value};
        if ((row->field == 138 || row->field == 139) && row->scope != ~0u) row->code = INVALID;
        snprintf(key, sizeof key, "field_%u", row->field);
        if (find("set", device, key, value)) {
            row->type = row->code == SUCCESS ? row->type : 1;
            row->code = SUCCESS;
            row->value = strtoull(value, NULL, 10);
        }
        int code = fault(key, device);
        if (code) row->code = code;
    }
    return SUCCESS;
}
NUMBER_CALL(nvmlDeviceGetMinorNumber, unsigned, "minor", device_of(handle))
NUMBER_CALL(nvmlDeviceGetPersistenceMode, int, "persistence", 1)
int nvmlDeviceGetMarginTemperature(void *handle, margin_t *margin) {
    CHECK(nvmlDeviceGetMarginTemperature, device_of(handle));
    margin->degrees = (int)number(device_of(handle), "margin", 51);
    return SUCCESS;
}
int nvmlDeviceGetAttributes_v2(void *handle, attributes_t *attributes) {
    CHECK(nvmlDeviceGetAttributes_v2, device_of(handle));
    memset(attributes, 0, sizeof *attributes);
    attributes->gpu_slices = (unsigned)number(device_of(handle), "gpu_slices", 1);
    attributes->compute_slices = (unsigned)number(device_of(handle), "compute_slices", 1);
    attributes->memory_mb = (unsigned long long)number(device_of(handle), "slice_mb", 9856);
    return SUCCESS;
}

struct slots { int gpu, slot; };

static int take_slot(char **words, int count, void *argument) {
    struct slots *slots = argument;
    return count >= 3 && !strcmp(words[0], "mig") && atoi(words[1]) == slots->gpu && (slots->slot < 0 || atoi(words[2]) == slots->slot);
}
int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    CHECK(nvmlDeviceGetMigMode, device_of(handle));
    struct slots slots = {device_of(handle), -1};
    *current = *pending = (unsigned)each_line(take_slot, &slots);
    return SUCCESS;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned slot, void **instance) {
    CHECK(nvmlDeviceGetMigDeviceHandleByIndex, device_of(handle));
    struct slots slots = {device_of(handle), (int)slot};
    if (!each_line(take_slot, &slots)) return NOT_FOUND;
    *instance = handle_of(100 * (slots.gpu + 1) + slots.slot);
    return SUCCESS;
}

struct list { const char *kind; int device; unsigned count; process2_t rows[64]; unsigned long long claimed; };

static int take_process(char **words, int count, void *argument) {
    struct list *list = argument;
    if (count < 4 || !matches(words[1], list->device) || strcmp(words[2], list->kind)) return 0;
    if (!strcmp(words[0], "proccount")) list->claimed = (unsigned long long)atoll(words[3]);
    if (!strcmp(words[0], "proc") && list->count < 64) {
        char *memory = strchr(words[3], ' ');
        process2_t *row = &list->rows[list->count++];
        memset(row, 0xff, sizeof *row);
        row->pid = (unsigned)atoi(words[3]);
        row->memory = memory && atoll(memory) >= 0 ? (unsigned long long)atoll(memory) : ~0ULL;
    }
    return 0;
}
static int processes(void *handle, const char *kind, unsigned *count, void *rows, int version) {
    struct list list = {kind, device_of(handle), 0, {{0}}, 0};
    each_line(take_process, &list);
    if (!list.claimed) list.claimed = list.count;
    if (*count < list.claimed) {
        *count = (unsigned)list.claimed;
        return INSUFFICIENT;
    }
    for (unsigned i = 0; i < list.count; i++) {
        if (version == 1) ((process1_t *)rows)[i] = (process1_t){list.rows[i].pid, list.rows[i].memory};
        else ((process2_t *)rows)[i] = list.rows[i];
    }
    *count = list.count;
    return SUCCESS;
}
#define PROCESS_CALL(kind, suffix, version) \
    int nvmlDeviceGet##kind##RunningProcesses##suffix(void *handle, unsigned *count, void *rows) { \
        CHECK(nvmlDeviceGet##kind##RunningProcesses##suffix, device_of(handle)); \
        return processes(handle, #kind, count, rows, version); \
    }
PROCESS_CALL(Compute, , 1)
PROCESS_CALL(Graphics, , 1)
#if PROC_VERSION >= 2
PROCESS_CALL(Compute, _v2, 2)
PROCESS_CALL(Graphics, _v2, 2)
#endif
#if PROC_VERSION >= 3
PROCESS_CALL(Compute, _v3, 3)
PROCESS_CALL(Graphics, _v3, 3)
#endif

struct xids { int wanted, at, device; unsigned long long xid; };

static int take_xid(char **words, int count, void *argument) {
    struct xids *xids = argument;
    if (count < 3 || strcmp(words[0], "xid") || xids->at++ != xids->wanted) return 0;
    xids->device = atoi(words[1]);
    xids->xid = strtoull(words[2], NULL, 10);
    return 1;
}
int nvmlEventSetCreate(void **set) { CHECK(nvmlEventSetCreate, -1); *set = malloc(1); return SUCCESS; }
int nvmlEventSetFree(void *set) { free(set); return SUCCESS; }
int nvmlDeviceRegisterEvents(void *handle, unsigned long long types, void *set) {
    (void)types, (void)set;
    CHECK(nvmlDeviceRegisterEvents, device_of(handle));
    return SUCCESS;
}
int nvmlEventSetWait_v2(void *set, event_t *event, unsigned timeout_ms) {
    static int told;
    (void)set;
    CHECK(nvmlEventSetWait_v2, -1);
    for (unsigned waited_ms = 0; waited_ms < timeout_ms; waited_ms += 50) {
        struct xids xids = {told, 0, 0, 0};
        if (each_line(take_xid, &xids)) {
            told++;
            *event = (event_t){handle_of(xids.device), 8, xids.xid, ~0u, ~0u};
            return SUCCESS;
        }
        usleep(50000);
    }
    return TIMEOUT;
}

struct samples { int device; unsigned long long since; unsigned count; sample_t rows[64]; };

static int take_sample(char **words, int count, void *argument) {
    struct samples *samples = argument;
    unsigned long long time;
    unsigned sm;
    if (count < 4 || strcmp(words[0], "sample") || !matches(words[1], samples->device)) return 0;
    if (sscanf(words[3], "%llu %u", &time, &sm) != 2 || samples->count >= 64) return 0;
    samples->rows[samples->count++] = (sample_t){(unsigned)atoi(words[2]), time, sm, 0, 0, 0};
    return 0;
}
int nvmlDeviceGetProcessUtilization(void *handle, sample_t *rows, unsigned *count, unsigned long long since) {
    CHECK(nvmlDeviceGetProcessUtilization, device_of(handle));
    struct samples samples = {device_of(handle), since, 0, {{0}}};
    each_line(take_sample, &samples);
    if (!samples.count) return NOT_FOUND;
    if (*count < samples.count || !rows) {
        *count = samples.count;
        return INSUFFICIENT;
    }
    memcpy(rows, samples.rows, samples.count * sizeof *rows);
    *count = samples.count;
    return SUCCESS;
}
