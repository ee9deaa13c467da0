/* SPDX-License-Identifier: MIT */
/* Options of QEMU's that scripts and people write and that this build has nothing for: each says so, and what to write in its place. */
#include <string.h>
#include "base/bits.h"
#include "ctl/cli_int.h"

#define NO_DISPLAY "a graphical display is not in this build", "-nographic has the serial port on this terminal, -display none has nothing"
#define NO_USB "USB is not in this build", "virtio devices do the same: -device help"
#define NO_MIGRATION "migration is not in this build", NULL
#define NO_SUCH_BOARD "the boards of this build have no such thing", NULL

static const struct absent { const char *name, *why, *hint; } absent[] = {
    { "enable-kvm", "KVM is not in this build", "guests are emulated: leave it out" },
    { "vnc", NO_DISPLAY }, { "spice", NO_DISPLAY }, { "sdl", NO_DISPLAY }, { "gtk", NO_DISPLAY }, { "curses", NO_DISPLAY },
    { "full-screen", NO_DISPLAY }, { "g", NO_DISPLAY }, { "k", NO_DISPLAY }, { "alt-grab", NO_DISPLAY }, { "ctrl-grab", NO_DISPLAY },
    { "no-quit", NO_DISPLAY }, { "rotate", NO_DISPLAY }, { "portrait", NO_DISPLAY },
    { "usb", NO_USB }, { "usbdevice", NO_USB },
    { "incoming", NO_MIGRATION }, { "only-migratable", NO_MIGRATION }, { "dump-vmstate", NO_MIGRATION },
    { "loadvm", "snapshots of a running machine are not in this build", "backplane-img snapshot -a TAG brings a disk back" },
    { "soundhw", "sound is not in this build", NULL },
    { "tpmdev", "TPMs are not in this build", NULL },
    { "semihosting", "semihosting is not in this build", "a guest writes to -serial or to a virtconsole" },
    { "semihosting-config", "semihosting is not in this build", "a guest writes to -serial or to a virtconsole" },
    { "numa", "NUMA nodes are not in this build", "all memory is in one node: leave it out" },
    { "watchdog", "watchdogs are not in this build", NULL }, { "balloon", "this option went long ago", "-device virtio-balloon-pci" },
    { "one-insn-per-tb", "this option is another accelerator's", "-accel interp goes one instruction after the other" },
    { "singlestep", "this option is another accelerator's", "-accel interp goes one instruction after the other" },
    { "tb-size", "this option is another accelerator's", "-accel jit,help shows what the translator takes" },
    { "plugin", "plugins are not in this build", "-d help lists what can be logged" },
    { "perfmap", "this option is another accelerator's", "-accel jit,perf=on writes the map" },
    { "jitdump", "maps for perf are not in this build", "-accel jit,stats=on tells what was translated" },
    { "dfilter", "ranges of addresses for the log are not in this build", "-d help lists what can be logged" },
    { "chroot", "this option has a newer form", "-run-with chroot=FOLDER" },
    { "runas", "this option has a newer form", "-run-with user=NAME" },
    { "async-teardown", "this option has a newer form", "-run-with help" },
    { "fsdev", "shared folders (9p) are not in this build", "share files over a network or a disk: -netdev user, -drive" },
    { "virtfs", "shared folders (9p) are not in this build", "share files over a network or a disk: -netdev user, -drive" },
    { "mem-path", "this option has another form", "-object memory-backend-file,id=mem,size=SIZE,mem-path=FILE -M memory-backend=mem" },
    { "mem-prealloc", "this option has another form", "-object memory-backend-ram,id=mem,size=SIZE,prealloc=on -M memory-backend=mem" },
    { "realtime", "this option has a newer form", "-overcommit mem-lock=on" },
    { "redir", "this option has a newer form", "-netdev user,id=ID,hostfwd=tcp::HOSTPORT-:GUESTPORT" },
    { "tftp", "this option has a newer form", "-netdev user,id=ID,tftp=FOLDER" }, { "bootp", "this option has a newer form", "-netdev user,id=ID,bootfile=FILE" },
    { "debugcon", "the port of this option is another architecture's", "-serial, or -device virtconsole" },
    { "fda", NO_SUCH_BOARD }, { "fdb", NO_SUCH_BOARD }, { "mtdblock", NO_SUCH_BOARD }, { "option-rom", NO_SUCH_BOARD }, { "prom-env", NO_SUCH_BOARD },
    { "acpitable", NO_SUCH_BOARD }, { "smbios", NO_SUCH_BOARD }, { "shim", NO_SUCH_BOARD }, { "no-acpi", NO_SUCH_BOARD }, { "no-hpet", NO_SUCH_BOARD },
    { "win2k-hack", NO_SUCH_BOARD }, { "no-fd-bootchk", NO_SUCH_BOARD },
    { "xen-domid", "Xen is not in this build", NULL }, { "xen-attach", "Xen is not in this build", NULL },
    { "enable-fips", "this option went long ago", NULL }, { "bt", "this option went long ago", NULL },
};

bool cli_absent(const char *name, struct err *e)
{
    for (size_t i = 0; i < ARRAY_SIZE(absent); i++) {
        if (strcmp(absent[i].name, name))
            continue;
        err_set(e, ERR_NOT_BUILT, "-%s: %s", name, absent[i].why);
        if (absent[i].hint)
            err_hint(e, "%s", absent[i].hint);
        return true;
    }
    return false;
}
