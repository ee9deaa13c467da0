/* SPDX-License-Identifier: MIT */
/* -serial: which character back end each serial port of the board gets. */
#include <stdlib.h>
#include "chardev/chr.h"
#include "core/flags.h"
#include "machine/machine_int.h"

#define SERIAL_MAX 4
static struct { const char *arg; bool used; struct obj *chr; } ports[SERIAL_MAX];       /* arg: NULL for what is there by default */
static unsigned n_ports;

static bool serial_apply(const char *arg, struct err *e)
{
    char id[16];
    if (n_ports == SERIAL_MAX)
        return err_set(e, ERR_VALUE, "at most %d serial ports", SERIAL_MAX);
    ports[n_ports].arg = arg;
    if (strcmp(arg, "none")) {
        snprintf(id, sizeof id, "serial%u", n_ports);
        ports[n_ports].chr = chr_from_legacy(id, arg, true, e);
        if (!ports[n_ports].chr)
            return false;
    }
    n_ports++;
    return true;
}
static const struct cli_opt serial_opt = {
    .name = "serial", .arg = "BACKEND", .doc = "character back end of the next serial port (stdio, mon:stdio, pty, file:F, tcp:H:P, none...)",
    .section = "Character", .phase = CLI_CHARDEV, .apply = serial_apply,
};
CLI_OPT(&serial_opt);

/* The terminal is taken only where somebody sits at it. */
static bool serial_default(struct err *e)
{
    bool terminal = cli_flags.nographic || (!cli_flags.display_none && !cli_flags.qtest && !cli_flags.daemonize);
    if (n_ports || cli_flags.nodefaults || !terminal)
        return true;
    ports[0].chr = chr_from_legacy("serial0", "mon:stdio", true, e);
    n_ports = 1;
    return ports[0].chr || err_prefix(e, "default serial port");
}
static const struct cli_step serial_step = { .name = "serial", .phase = CLI_CHARDEV, .prio = 100, .run = serial_default };
CLI_STEP(&serial_step);

struct obj *machine_serial(unsigned n)
{
    if (n >= n_ports)
        return NULL;
    ports[n].used = true;
    return ports[n].chr;
}

/* A back end at a port that the board does not have would hear nothing; QEMU takes it all the same. */
static bool serial_unused(struct err *e)
{
    for (unsigned i = 0; i < n_ports && !cli_flags.compat_qemu; i++)
        if (ports[i].arg && !ports[i].used && ports[i].chr && strcmp(ports[i].arg, "null"))
            return err_set(e, ERR_VALUE, "-serial %s: this machine has no serial port %u", ports[i].arg, i + 1);
    return true;
}
static const struct cli_step unused_step = { .name = "serial ports", .phase = CLI_BOARD, .prio = 100, .run = serial_unused };
CLI_STEP(&unused_step);
