/* SPDX-License-Identifier: MIT */
/* Commands of QEMU's monitor that people and scripts know and that have nothing to act on here: each says why. */
#include "core/cmd.h"

#define ABSENT(var, nm, why) static const struct hmp_cmd var = { .name = nm, .absent = why }; HMP_CMD(&var)

#define NO_DISPLAY "this build has no display"
ABSENT(screendump, "screendump", NO_DISPLAY);
ABSENT(info_vnc, "info vnc", NO_DISPLAY);
ABSENT(info_spice, "info spice", NO_DISPLAY);
ABSENT(set_password, "set_password", NO_DISPLAY);
ABSENT(expire_password, "expire_password", NO_DISPLAY);

#define NO_INPUT "this machine has no keyboard, mouse or tablet"
ABSENT(sendkey, "sendkey", NO_INPUT);
ABSENT(mouse_move, "mouse_move", NO_INPUT);
ABSENT(mouse_button, "mouse_button", NO_INPUT);
ABSENT(mouse_set, "mouse_set", NO_INPUT);
ABSENT(info_mice, "info mice", NO_INPUT);

#define NO_AUDIO "this build has no sound"
ABSENT(wavcapture, "wavcapture", NO_AUDIO);
ABSENT(stopcapture, "stopcapture", NO_AUDIO);
ABSENT(info_capture, "info capture", NO_AUDIO);

#define NO_USB "USB support not enabled"
ABSENT(info_usb, "info usb", NO_USB);
ABSENT(info_usbhost, "info usbhost", NO_USB);

#define NO_MIGRATION "this build does not migrate"
ABSENT(migrate, "migrate", NO_MIGRATION);
ABSENT(migrate_cancel, "migrate_cancel", NO_MIGRATION);
ABSENT(migrate_incoming, "migrate_incoming", NO_MIGRATION);
ABSENT(migrate_set_parameter, "migrate_set_parameter", NO_MIGRATION);
ABSENT(migrate_set_capability, "migrate_set_capability", NO_MIGRATION);
ABSENT(migrate_continue, "migrate_continue", NO_MIGRATION);
ABSENT(migrate_pause, "migrate_pause", NO_MIGRATION);
ABSENT(migrate_recover, "migrate_recover", NO_MIGRATION);
ABSENT(migrate_postcopy, "migrate_start_postcopy", NO_MIGRATION);
ABSENT(client_migrate, "client_migrate_info", NO_MIGRATION);
ABSENT(colo, "x_colo_lost_heartbeat", NO_MIGRATION);
ABSENT(info_migrate, "info migrate", NO_MIGRATION);
ABSENT(info_migrate_parameters, "info migrate_parameters", NO_MIGRATION);
ABSENT(info_migrate_capabilities, "info migrate_capabilities", NO_MIGRATION);

#define NO_SNAPSHOT "snapshots of a running machine are not in this build; blockdev-snapshot-internal-sync has those of a disk"
ABSENT(savevm, "savevm", NO_SNAPSHOT);
ABSENT(loadvm, "loadvm", NO_SNAPSHOT);
ABSENT(delvm, "delvm", NO_SNAPSHOT);
ABSENT(info_snapshots, "info snapshots", "snapshots of a running machine are not in this build; backplane-img snapshot -l lists those of an image");

#define NO_RATE "how fast memory is written is not measured, and no vCPU is held back for it"
ABSENT(calc_dirty_rate, "calc_dirty_rate", NO_RATE);
ABSENT(info_dirty_rate, "info dirty_rate", NO_RATE);
ABSENT(set_dirty_limit, "set_vcpu_dirty_limit", NO_RATE);
ABSENT(cancel_dirty_limit, "cancel_vcpu_dirty_limit", NO_RATE);
ABSENT(info_dirty_limit, "info vcpu_dirty_limit", NO_RATE);

#define NO_REPLAY "runs are not recorded; with -icount two runs are the same by themselves"
ABSENT(replay_break, "replay_break", NO_REPLAY);
ABSENT(replay_delete_break, "replay_delete_break", NO_REPLAY);
ABSENT(replay_seek, "replay_seek", NO_REPLAY);
ABSENT(info_replay, "info replay", NO_REPLAY);

#define NO_DESCRIPTOR "a monitor for a person receives no descriptors; getfd and add-fd of QMP do, or -add-fd"
ABSENT(getfd, "getfd", NO_DESCRIPTOR);
ABSENT(closefd, "closefd", NO_DESCRIPTOR);

#define NO_PROFILE "locks and blocks of instructions are not profiled"
ABSENT(sync_profile, "sync-profile", NO_PROFILE);
ABSENT(info_sync_profile, "info sync-profile", NO_PROFILE);
ABSENT(info_opcount, "info opcount", NO_PROFILE);
ABSENT(trace_file, "trace-file", "trace events are not in this build; -d and -D log");

#define SEEN_ELSEWHERE(where) "not in this build; " where
ABSENT(info_virtio, "info virtio", SEEN_ELSEWHERE("info qtree shows devices and their options"));
ABSENT(info_virtio_status, "info virtio-status", SEEN_ELSEWHERE("info qtree shows devices and their options"));
ABSENT(info_virtio_queue, "info virtio-queue-status", SEEN_ELSEWHERE("info qtree shows devices and their options"));
ABSENT(info_virtio_element, "info virtio-queue-element", SEEN_ELSEWHERE("info qtree shows devices and their options"));
ABSENT(info_ramblock, "info ramblock", SEEN_ELSEWHERE("info memdev shows back ends, info mtree where memory is"));
ABSENT(info_roms, "info roms", SEEN_ELSEWHERE("info mtree shows where memory is"));
ABSENT(info_stats, "info stats", SEEN_ELSEWHERE("info blockstats has those of disks"));
ABSENT(info_history, "info history", SEEN_ELSEWHERE("up and down go through older lines"));
ABSENT(info_numa, "info numa", "this machine has one node of memory");
ABSENT(info_memory_devices, "info memory-devices", "this machine has no memory that is plugged in");
ABSENT(system_wakeup, "system_wakeup", "this machine does not sleep");
ABSENT(pcie_aer, "pcie_aer_inject_error", "errors of PCI Express are not reported in this build");
ABSENT(commit, "commit", "block-commit does it while the guest runs, backplane-img commit does it afterwards");

#define NO_TPM "No TPM device present"
ABSENT(info_tpm, "info tpm", NO_TPM);

ABSENT(boot_set, "boot_set", "no function defined to set boot device list for this architecture; bootindex= of devices and -boot do it at the start");
ABSENT(nmi, "nmi", "machine does not provide NMIs");
ABSENT(watchdog_action, "watchdog_action", "this machine has no watchdog");
ABSENT(one_insn, "one-insn-per-tb", "blocks of instructions cannot be changed while the machine runs; -accel interp goes one by one");
ABSENT(singlestep, "singlestep", "blocks of instructions cannot be changed while the machine runs; -accel interp goes one by one");
#define OTHER_BOARD "the boards of this build have no such thing"
ABSENT(info_irq, "info irq", "interrupts are not counted; info registers shows which are pending");
ABSENT(info_pic, "info pic", "interrupts are not counted; info registers shows which are pending");
ABSENT(info_lapic, "info lapic", OTHER_BOARD);
ABSENT(info_sgx, "info sgx", OTHER_BOARD);
ABSENT(info_sev, "info sev", OTHER_BOARD);
ABSENT(info_skeys, "info skeys", OTHER_BOARD);
ABSENT(info_via, "info via", OTHER_BOARD);
ABSENT(info_rocker, "info rocker", OTHER_BOARD);
ABSENT(mce, "mce", OTHER_BOARD);
ABSENT(info_cryptodev, "info cryptodev", "this build has no virtio-crypto");
ABSENT(info_accelerators, "info accelerators", "not in this build; -accel help lists them");
ABSENT(info_hotplug, "info hotpluggable-cpus", "machine does not support hot-plugging CPUs");
ABSENT(info_generation, "info vm-generation-id", "VM Generation ID device not found");
