/* SPDX-License-Identifier: MIT */
/* Switches of the command line that several folders look at. Written while options are applied; constant afterwards. */
#ifndef CORE_FLAGS_H
#define CORE_FLAGS_H

#include <stdbool.h>
#include <stdint.h>

struct cli_flags {
    const char *prog;           /* base name of argv[0], for messages */
    bool compat_qemu;           /* -compat qemu, or started under a name that begins with "qemu-system-" */
    bool nodefaults;            /* -nodefaults: no default serial port, monitor or network card */
    bool nographic;             /* -nographic: serial port and monitor share the terminal */
    bool display_none;          /* -display none */
    bool preconfig;             /* --preconfig: monitors first, the machine when one of them says so */
    bool paused;                /* -S: do not start the CPUs */
    bool qtest;                 /* -accel qtest: no CPU runs, the VM clock moves only when stepped */
    bool snapshot;              /* -snapshot: drives write to temporary files */
    bool daemonize;             /* -daemonize: no terminal */
    const char *name;           /* -name, or NULL */
    bool has_uuid;
    uint8_t uuid[16];           /* -uuid */
};
extern struct cli_flags cli_flags;

#endif
