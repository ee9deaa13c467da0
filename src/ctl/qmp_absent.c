/* SPDX-License-Identifier: MIT */
/* Commands of QEMU's protocol that tools send and that have nothing to act on here: each says why. Their class stays CommandNotFound. */
#include <string.h>
#include "base/bits.h"
#include "ctl/qmp.h"

#define NO_MIGRATION "this build does not migrate"
#define NO_SNAPSHOT "snapshots of a running machine are not in this build; blockdev-snapshot-internal-sync has those of a disk"
#define NO_DISPLAY "this build has no display"
#define NO_INPUT "this machine has no keyboard, mouse or tablet"
#define NO_RATE "how fast memory is written is not measured, and no vCPU is held back for it"
#define NO_REPLAY "runs are not recorded; with -icount two runs are the same by themselves"
#define NO_TPM "TPMs are not in this build"
#define NO_XEN "Xen is not in this build"
#define NO_SEV "encrypted memory is not in this build"
#define NO_PLUG "CPUs and memory cannot be plugged into this machine"
#define SEEN(where) "not in this build; " where

static const struct { const char *name, *why; } rows[] = {
    { "migrate", NO_MIGRATION }, { "migrate-incoming", NO_MIGRATION }, { "migrate_cancel", NO_MIGRATION }, { "migrate-continue", NO_MIGRATION },
    { "migrate-pause", NO_MIGRATION }, { "migrate-recover", NO_MIGRATION },
    { "migrate-set-parameters", NO_MIGRATION }, { "migrate-start-postcopy", NO_MIGRATION },
    { "query-migrate-parameters", NO_MIGRATION }, { "client_migrate_info", NO_MIGRATION },
    { "query-migrationthreads", NO_MIGRATION }, { "x-colo-lost-heartbeat", NO_MIGRATION }, { "query-colo-status", NO_MIGRATION },
    { "blockdev-set-active", NO_MIGRATION },
    { "snapshot-save", NO_SNAPSHOT }, { "snapshot-load", NO_SNAPSHOT }, { "snapshot-delete", NO_SNAPSHOT },
    { "screendump", NO_DISPLAY }, { "query-vnc", NO_DISPLAY }, { "query-vnc-servers", NO_DISPLAY }, { "query-spice", NO_DISPLAY },
    { "change-vnc-password", NO_DISPLAY }, { "set_password", NO_DISPLAY }, { "expire_password", NO_DISPLAY }, { "display-reload", NO_DISPLAY },
    { "display-update", NO_DISPLAY }, { "query-display-options", NO_DISPLAY }, { "add_client", NO_DISPLAY },
    { "send-key", NO_INPUT }, { "input-send-event", NO_INPUT }, { "query-mice", NO_INPUT },
    { "query-audiodevs", "this build has no sound" },
    { "calc-dirty-rate", NO_RATE }, { "query-dirty-rate", NO_RATE }, { "set-vcpu-dirty-limit", NO_RATE }, { "cancel-vcpu-dirty-limit", NO_RATE },
    { "query-vcpu-dirty-limit", NO_RATE },
    { "query-replay", NO_REPLAY }, { "replay-break", NO_REPLAY }, { "replay-delete-break", NO_REPLAY }, { "replay-seek", NO_REPLAY },
    { "query-tpm", NO_TPM }, { "query-tpm-models", NO_TPM }, { "query-tpm-types", NO_TPM },
    { "query-hotpluggable-cpus", NO_PLUG }, { "query-memory-devices", NO_PLUG }, { "set-numa-node", "this machine has one node of memory" },
    { "query-accelerators", SEEN("-accel help lists them") }, { "qom-list-get", SEEN("qom-list and qom-get") },
    { "query-rx-filter", "the filters of network cards are not told" }, { "query-stats", SEEN("query-blockstats has those of disks") },
    { "query-stats-schemas", SEEN("query-blockstats has those of disks") },
    { "x-debug-query-block-graph", SEEN("query-named-block-nodes") }, { "x-query-virtio", SEEN("info qtree of the other monitor") },
    { "x-query-virtio-status", SEEN("info qtree of the other monitor") }, { "x-query-roms", SEEN("info mtree of the other monitor") },
    { "x-query-ramblock", SEEN("info mtree of the other monitor") }, { "x-query-jit", SEEN("info jit of the other monitor") },
    { "block-latency-histogram-set", "latencies are not sorted into histograms" }, { "block-set-write-threshold", "no threshold of writes is watched" },
    { "x-blockdev-set-iothread", SEEN("iothread= of the device says it") }, { "query-yank", "connections cannot be cut by hand in this build" },
    { "yank", "connections cannot be cut by hand in this build" },
    { "system_wakeup", "this machine does not sleep" }, { "inject-nmi", "this machine has no NMIs" },
    { "rtc-reset-reinjection", "the clock of this machine has no ticks that could be lost" }, { "watchdog-set-action", "this machine has no watchdog" },
    { "query-acpi-ospm-status", "this machine is described by its device tree, not by ACPI" }, { "query-vm-generation-id", "this machine has none" },
    { "query-sev", NO_SEV }, { "query-sev-capabilities", NO_SEV }, { "query-sgx", NO_SEV }, { "query-sgx-capabilities", NO_SEV },
    { "xen-load-devices-state", NO_XEN }, { "xen-save-devices-state", NO_XEN }, { "xen-set-global-dirty-log", NO_XEN },
    { "pcie-aer-inject-error", "errors of PCI Express are not reported in this build" },
};

const char *qmp_absent(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (!strcmp(rows[i].name, name))
            return rows[i].why;
    return NULL;
}
