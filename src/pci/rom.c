/* SPDX-License-Identifier: MIT */
/* Option ROMs (PCI Local Bus 3.0, 6.3): a file that the guest reads through the expansion ROM BAR. Main loop. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "mem/ram.h"
#include "pci/pci_int.h"

enum { ROM_MIN = 2048, ROM_MAX = 16 << 20 };

/* The rest of @fd into @buf of @n bytes; fewer in the file: they stay as they are. */
static bool read_all(int fd, uint8_t *buf, size_t n, const char *name, struct err *e)
{
    while (n) {
        ssize_t got = read(fd, buf, n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_os(e, errno, "romfile '%s' cannot be read", name);
        if (!got)
            break;
        buf += got;
        n -= (size_t)got;
    }
    return true;
}

/* How large the BAR becomes; 0 with @e filled. */
static uint64_t rom_size(const struct pci_dev *d, uint64_t file, struct err *e)
{
    uint64_t size = MAX(file, (uint64_t)ROM_MIN);

    if (!is_pow2(size))
        size = BIT64(64 - clz64(size));
    if (!file || file > ROM_MAX)
        err_set(e, ERR_VALUE, "romfile '%s' has %llu bytes; an option ROM has 1 to %d", d->opt.romfile, (unsigned long long)file, ROM_MAX);
    else if (d->opt.romsize && d->opt.romsize < file)
        err_set(e, ERR_VALUE, "romsize=%llu is too small for romfile '%s' of %llu bytes", (unsigned long long)d->opt.romsize, d->opt.romfile,
                (unsigned long long)file);
    else
        return MAX(d->opt.romsize, size);
    return 0;
}

static bool load(struct pci_dev *d, int fd, struct err *e)
{
    struct stat st;
    uint64_t size;

    if (fstat(fd, &st) < 0)
        return err_os(e, errno, "romfile '%s' cannot be read", d->opt.romfile);
    size = rom_size(d, S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0, e);
    if (!size)
        return false;
    d->rom_ram = ram_new("option-rom", size, e);
    if (!d->rom_ram || !read_all(fd, d->rom_ram->host, (size_t)st.st_size, d->opt.romfile, e)) {
        ram_free(d->rom_ram);
        d->rom_ram = NULL;
        return false;
    }
    region_init_rom(&d->rom, "option-rom", d->rom_ram, 0, size);
    pci_bar_add(d, PCI_ROM_BAR, 0, &d->rom);
    return true;
}

bool pci_rom_init(struct pci_dev *d, struct err *e)
{
    bool has_file = d->opt.romfile && d->opt.romfile[0], ok;
    int fd;

    if (!has_file && d->opt.romsize)
        return err_set(e, ERR_VALUE, "romsize= has no effect without romfile=");
    if (!has_file)
        return true;
    if (!d->opt.rombar)
        return err_set(e, ERR_VALUE, "romfile=%s has no effect with rombar=0", d->opt.romfile);
    fd = open(d->opt.romfile, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_os(e, errno, "romfile '%s' cannot be opened", d->opt.romfile);
    ok = load(d, fd, e);
    close(fd);
    return ok;
}

void pci_rom_fini(struct pci_dev *d)
{
    if (!d->rom_ram)
        return;
    region_fini(&d->rom);
    ram_free(d->rom_ram);
    d->rom_ram = NULL;
}
