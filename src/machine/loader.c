/* SPDX-License-Identifier: MIT */
/*
 * -device loader, QEMU's "generic loader" (its manual, docs/system/generic-loader.rst): a file, or up to eight bytes, put into guest memory
 * at each reset; a hart that sets out from there. ELF files lie where they say; everything else, as it is, at addr=.
 */
#include "machine/loader.h"

#include "core/dev.h"
#include "cpu/riscv/hart.h"
#include "machine/boot.h"
#include "machine/machine_int.h"
#include "mem/view.h"

#define NOT_GIVEN (-1)
#define PC_REG 32u                      /* as gdb numbers registers */

struct loader {
    struct dev dev;                     /* first */
    /* options */
    char *file;
    int64_t addr;                       /* NOT_GIVEN: the file says */
    uint64_t data;
    uint8_t data_len;
    bool data_be, raw;
    int32_t cpu;                        /* NOT_GIVEN: none */
    /* not saved */
    struct boot_file image;
    struct list link;                   /* in loaders */
};

static struct list loaders = LIST_INIT(loaders);

bool loader_brings_code(void)
{
    struct loader *l;

    list_for_each(l, &loaders, link) {
        if (l->file || l->data_len)
            return true;
    }
    return false;
}

static bool put_data(const struct loader *l, struct err *e)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < l->data_len; i++)
        bytes[l->data_be ? l->data_len - 1u - i : i] = (uint8_t)(l->data >> 8 * i);
    return as_load(&as_memory, (uint64_t)l->addr, bytes, l->data_len) ||
           err_set(e, ERR_VALUE, "addr=0x%llx is not in memory", (unsigned long long)l->addr);
}

/* The hart was started by the board already, with the registers that firmware or kernel expect: only its pc is another. */
static bool set_out(const struct loader *l, struct machine *m, uint64_t pc, struct err *e)
{
    struct hart *h = m->harts && (unsigned)l->cpu < hart_set_count(m->harts) ? hart_get(m->harts, (unsigned)l->cpu) : NULL;

    if (!h)
        return err_set(e, ERR_VALUE, "cpu-num=%d: the machine has no such CPU", l->cpu);
    if (!machine_runs_code())
        return true;
    if (!hart_is_on(h)) {
        err_set(e, ERR_VALUE, "cpu-num=%d: this CPU waits for the built-in firmware to start it", l->cpu);
        return err_hint(e, "with -bios none all CPUs set out at once");
    }
    return hart_reg_write(h, PC_REG, pc) || err_set(e, ERR_GENERIC, "cpu-num=%d: its pc cannot be set", l->cpu);
}

static bool load(struct loader *l, struct machine *m, struct err *e)
{
    uint64_t pc = (uint64_t)l->addr;

    if (l->file && !l->raw && boot_file_is_elf(&l->image)) {
        struct boot_image img;

        if (!boot_image_load(&l->image, 0, &img, e))
            return false;
        pc = img.entry;
    } else if (l->file && !boot_file_load(&l->image, (uint64_t)l->addr, e)) {
        return false;
    }
    return (!l->data_len || put_data(l, e)) && (l->cpu == NOT_GIVEN || set_out(l, m, pc, e));
}

bool loader_load_all(struct machine *m, struct err *e)
{
    struct loader *l;

    list_for_each(l, &loaders, link) {
        if (!load(l, m, e))
            return err_prefix(e, "-device loader");
    }
    return true;
}

static bool no_addr(struct err *e, const char *why)
{
    const struct machine *m = machine_current();

    err_set(e, ERR_VALUE, "'addr' is missing: %s", why);
    return m && m->ram && err_hint(e, "main memory begins at 0x%llx", (unsigned long long)m->ram->id);
}

static bool loader_check(struct obj *o, struct err *e)
{
    const struct loader *l = (const struct loader *)o;

    if (!l->data_len && (l->data || l->data_be))
        return err_set(e, ERR_VALUE, "data= needs data-len=, 1 to 8 bytes");
    if (!l->file && !l->data_len && l->cpu == NOT_GIVEN)
        return err_set(e, ERR_VALUE, "there is nothing to do: file=, data= with data-len=, or cpu-num= is missing");
    if (l->file && l->data_len)
        return err_set(e, ERR_VALUE, "file= and data= are two things to load: write two loaders");
    if (l->data_len && l->data_len < 8 && l->data >> 8 * l->data_len)
        return err_set(e, ERR_VALUE, "data=0x%llx has more than data-len=%u bytes", (unsigned long long)l->data, l->data_len);
    if (!l->file && l->raw)
        return err_set(e, ERR_VALUE, "force-raw= is for a file, and file= is missing");
    return l->addr != NOT_GIVEN || (l->file && !l->raw) || no_addr(e, "it says where");
}

static bool loader_realize(struct dev *d, struct err *e)
{
    struct loader *l = (struct loader *)d;

    if (l->file && !boot_file_open(&l->image, "file", l->file, e))
        return false;
    if (l->file && l->addr == NOT_GIVEN && !boot_file_is_elf(&l->image)) {
        boot_file_close(&l->image);
        return no_addr(e, "the file is no ELF file, which would say where it lies");
    }
    list_push(&loaders, &l->link);
    return true;
}

static void loader_unrealize(struct dev *d)
{
    struct loader *l = (struct loader *)d;

    list_del(&l->link);
    boot_file_close(&l->image);
}

static const struct prop loader_props[] = {
    PROP_STR(struct loader, file, "file", 0, "File to load: ELF, or anything else as it is at addr="),
    PROP_S64(struct loader, addr, "addr", NOT_GIVEN, NOT_GIVEN, INT64_MAX, "Physical address of the file or the data; where the CPU sets out. -1: an ELF file says"),
    { .name = "data", .type = PROP_T_U64, .off = offsetof(struct loader, data), .flags = PF_HEX, .doc = "Bytes to load, as a number" },
    PROP_U8(struct loader, data_len, "data-len", 0, 0, 8, "How many bytes data= is"),
    PROP_BOOL(struct loader, data_be, "data-be", false, "data= is stored with the high byte first"),
    PROP_BOOL(struct loader, raw, "force-raw", false, "An ELF file, too, is put at addr= as it is"),
    PROP_S32(struct loader, cpu, "cpu-num", NOT_GIVEN, NOT_GIVEN, INT32_MAX, "CPU that sets out at the file's entry, or at addr=; -1: none"),
    PROP_END,
};

static const struct dev_class loader_class = {
    .obj = { .name = "loader", .desc = "File or bytes put into memory at each reset, and where a CPU begins", .base = &dev_obj_class,
             .size = sizeof(struct loader), .props = loader_props, .check = loader_check },
    .cat = "Misc", .realize = loader_realize, .unrealize = loader_unrealize,
    .state_none = "it acts at a reset only",
};
OBJ_CLASS(&loader_class.obj);
