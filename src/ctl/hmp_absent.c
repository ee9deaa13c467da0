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
ABSENT(info_migrate, "info migrate", NO_MIGRATION);
ABSENT(info_migrate_parameters, "info migrate_parameters", NO_MIGRATION);
ABSENT(info_migrate_capabilities, "info migrate_capabilities", NO_MIGRATION);

#define NO_SNAPSHOT "snapshots of a running machine are not in this build; blockdev-snapshot-internal-sync has those of a disk"
ABSENT(savevm, "savevm", NO_SNAPSHOT);
ABSENT(loadvm, "loadvm", NO_SNAPSHOT);
ABSENT(delvm, "delvm", NO_SNAPSHOT);
ABSENT(commit, "commit", "block-commit does it while the guest runs, backplane-img commit does it afterwards");

#define NO_TPM "No TPM device present"
ABSENT(info_tpm, "info tpm", NO_TPM);

ABSENT(boot_set, "boot_set", "no function defined to set boot device list for this architecture; bootindex= of devices and -boot do it at the start");
ABSENT(nmi, "nmi", "machine does not provide NMIs");
ABSENT(watchdog_action, "watchdog_action", "this machine has no watchdog");
ABSENT(one_insn, "one-insn-per-tb", "blocks of instructions cannot be changed while the machine runs; -accel interp goes one by one");
ABSENT(singlestep, "singlestep", "blocks of instructions cannot be changed while the machine runs; -accel interp goes one by one");
ABSENT(info_hotplug, "info hotpluggable-cpus", "machine does not support hot-plugging CPUs");
ABSENT(info_generation, "info vm-generation-id", "VM Generation ID device not found");
