/* SPDX-License-Identifier: MIT */
/* dumpdtb: the machine's device tree to a file, while it stands or runs. */
#include "core/cmd.h"
#include "machine/machine_int.h"

struct dump_args { char *filename; };
static const struct prop dump_props[] = { PROP_STR(struct dump_args, filename, "filename", PF_REQUIRED, "File to write"), PROP_END };

static json_t *co_dumpdtb(void *args, struct err *e)
{
    struct machine *m = machine_current();
    if (!m || !MACHINE_CLASS(m)->dump_fdt) {
        err_set(e, ERR_STATE, "This machine doesn't have an FDT");
        return NULL;
    }
    return MACHINE_CLASS(m)->dump_fdt(m, ((struct dump_args *)args)->filename, e) ? json_object() : NULL;
}
static const struct qmp_cmd qmp_dumpdtb = { .name = "dumpdtb", .doc = "Writes the machine's device tree to a file", .args = dump_props,
    .args_size = sizeof(struct dump_args), .co_run = co_dumpdtb, .ret = qmp_nothing };
QMP_CMD(&qmp_dumpdtb);

static const struct hmp_cmd hmp_dumpdtb = { .name = "dumpdtb", .aliases = "", .args = "FILE", .doc = "writes the device tree to a file",
    .qmp = "dumpdtb", .words = "filename" };
HMP_CMD(&hmp_dumpdtb);
