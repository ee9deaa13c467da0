/* SPDX-License-Identifier: MIT */
/*
 * PCI functions, buses, config space, BARs, capabilities, INTx and MSI/MSI-X (PCI Local Bus 3.0, PCI Express Base 5.0).
 * A function is a root device: its own domain. Config accesses arrive with that domain's lock held.
 */
#ifndef PCI_PCI_H
#define PCI_PCI_H

#include <pthread.h>

#include "core/dev.h"
#include "core/state.h"
#include "irq/irq.h"
#include "loop/loop.h"
#include "mem/dma.h"
#include "mem/region.h"

#define PCI_DEVFN(slot, fn) (((slot) & 0x1f) << 3 | ((fn) & 7))
#define PCI_SLOT(devfn) ((devfn) >> 3 & 0x1f)
#define PCI_FUNC(devfn) ((devfn) & 7)
#define PCI_CONFIG_SIZE 256u
#define PCIE_CONFIG_SIZE 4096u
#define PCI_BARS 6
#define PCI_ROM_BAR 6

struct pci_bus;
struct pci_dev;
struct pci_msi;
struct pci_msix;
struct pci_sriov;
/* Why configuration accesses are not answered: of a function, of a bus. */
enum { PCI_SILENT_FLR = 1, PCI_SILENT_BUS_RESET = 2, PCI_SILENT_NO_POWER = 4, PCI_SILENT_VF = 8 /* not enabled */, PCI_SILENT_LINK = 16 /* down, or pulled out */ };
enum pci_link { PCI_LINK_UP, PCI_LINK_DOWN, PCI_LINK_REMOVED };

/* Options of every function. */
struct pci_opts {
    int32_t addr;                   /* devfn or -1 */
    bool multifunction;
    char *romfile;                  /* NULL or empty: none */
    uint8_t rombar;
    uint64_t romsize;               /* 0: as the file wants */
};
extern const struct prop pci_props[];       /* over struct pci_opts; pci_dev_class has them, devices need not include them */

/* The class part every PCI device declares. */
struct pci_class {
    struct dev_class dev;
    uint16_t vendor, device, subvendor, subdevice;
    uint32_t class_code;            /* 24 bits */
    uint8_t revision;
    bool express;                   /* has a PCI Express capability (added by the base when on an express bus) */
    bool bridge;
};

struct pci_bar {
    struct region *region;          /* NULL: none; the device's, it outlives the BAR */
    uint64_t size;                  /* power of two; what the region leaves of it reads as nothing */
    uint8_t type;                   /* PCI_BAR_* bits as in the register */
    _Atomic uint64_t mapped;        /* address, ~0 while not mapped; written under the topology lock */
};
enum { PCI_BAR_IO = 1, PCI_BAR_MEM32 = 0, PCI_BAR_MEM64 = 4, PCI_BAR_PREFETCH = 8 };

struct pci_dev {
    struct dev dev;                 /* first */
    atomic_bool visible;            /* answers configuration accesses: from plugged to hide, powered, not in reset */
    atomic_uint silent;             /* reasons not to: PCI_SILENT_* */
    struct pci_opts opt;
    int devfn;
    struct pci_bus *pbus;
    /* Configuration space and, bit by bit: what the guest writes, clears by writing 1, what the device itself changes, what only a
     * cold reset changes; and the values after a reset, taken when the function is plugged. PCIE_CONFIG_SIZE bytes each. */
    uint8_t *config, *wmask, *w1cmask, *vmask, *smask, *init;
    uint32_t config_size;
    uint8_t claimed[PCIE_CONFIG_SIZE / 32];         /* a bit a dword: the header's and the capabilities' */
    struct pci_bar bar[PCI_BARS + 1];
    struct pci_bus *_Atomic sec;    /* bridges: the bus below */
    struct pci_sriov *sriov;        /* physical functions */
    struct pci_dev *pf;             /* virtual functions: whose, */
    unsigned vf_index;              /* and which */
    atomic_bool master;             /* its own bus master enable, in D0 */
    struct dma dma;                 /* on while it and every bridge above it is a bus master */
    struct region rom;              /* of romfile= */
    struct ram *rom_ram;
    struct pci_msi *msi;            /* NULL: none */
    struct pci_msix *msix;
    pthread_mutex_t irq_lock;       /* leaf: MSI and MSI-X tables and pending bits */
    struct post flr_post;           /* a function level reset, or the one that ends D3hot */
    struct post link_post;
    atomic_uchar link;              /* enum pci_link */
    uint8_t cap_list_tail, pm_cap, msi_cap, exp_cap, msix_cap;
    atomic_uchar pm_state;          /* 0..3, as PMCSR said last */
    uint16_t ext_cap_tail;
    uint8_t intx_pin;               /* 1..4, 0: none */
    atomic_bool intx_level, intx_off;       /* what the device wants; the disable bit of the command register */
    bool intx_out;                  /* what the root bus counts; its irq_lock */
    /* Hooks; domain lock held. cfg_write is called after the masked bytes changed. */
    void (*cfg_write)(struct pci_dev *, uint32_t off, unsigned size, uint32_t old);
    uint32_t (*cfg_read)(struct pci_dev *, uint32_t off, unsigned size, uint32_t val);
};
#define PCI_DEV(d) ((struct pci_dev *)(d))
#define PCI_CLASS(d) ((const struct pci_class *)((struct dev *)(d))->obj.cls)

extern const struct pci_class pci_dev_class;        /* abstract base; realize order: bus attach fills the header, then the device's realize */
extern const struct bus_class pci_bus_class;        /* "PCI" */
extern const struct bus_class pcie_bus_class;       /* "PCIE", is a PCI */
extern const struct bus_class pcie_port_bus_class;  /* "PCIE-PORT", is a PCIE: the one slot below a port */
extern const struct bus_class pcie_switch_bus_class;    /* "PCIE-SWITCH", is a PCIE: inside a switch */
/* Configuration space, MSI, MSI-X, pins: first in each device's state table, STATE_STRUCT(T, pci, &pci_dev_state). */
extern const struct state_desc pci_dev_state;

/* ---- in realize ---- */
/*
 * Registers BAR @n of a PCI_BAR_* @type; @r's size is rounded up to a power of two; the region is mapped as the guest programs it.
 * Sizes end at 64 KiB (I/O), 2 GiB (32 bits), 2^62; a 64-bit BAR takes the next number too. The caller has checked what a user chose.
 */
void pci_bar_add(struct pci_dev *d, unsigned n, uint8_t type, struct region *r);
/*
 * Adds a capability of @size bytes at @off (0: next free); returns its offset, 0 with @e filled: no room, or another one is there.
 * Bytes are read-only until wmask says else, and what the registers hold when the function is plugged is their reset value.
 */
uint8_t pci_cap_add(struct pci_dev *d, uint8_t id, uint8_t off, uint8_t size, struct err *e);
/* The same for an extended capability; the first is at 0x100 (PCI Express 5.0, 7.6.1). */
uint16_t pci_ext_cap_add(struct pci_dev *d, uint16_t id, uint8_t ver, uint16_t off, uint16_t size, struct err *e);
/*
 * Power management: D0 and D3hot. On the way back from D3hot the function is reset, unless it says NoSoftReset (@keeps_state).
 * Config writes answer as ever in D3hot; BARs, bus mastering and INTx are off. PCI-PM 1.2, sections 3.2 and 5.
 */
bool pci_pm_init(struct pci_dev *d, bool keeps_state, struct err *e) MUST_CHECK;
/* The PCI Express capability of a @type (PCI_EXP_TYPE_*), link of port @port. Endpoints on an express bus have it without asking. */
bool pcie_cap_init(struct pci_dev *d, unsigned type, unsigned port, struct err *e) MUST_CHECK;
/* Extended capabilities at @off (0: next free): AER with the root port's part or without, ACS of a port, ARI. 0 with @e filled. */
uint16_t pcie_aer_init(struct pci_dev *d, uint16_t off, bool root, struct err *e);
uint16_t pcie_acs_init(struct pci_dev *d, uint16_t off, struct err *e);
uint16_t pcie_ari_init(struct pci_dev *d, uint16_t off, uint8_t next_fn, struct err *e);
bool pci_msi_init(struct pci_dev *d, unsigned vectors, bool mask_bits, struct err *e) MUST_CHECK;
/* MSI-X with table and PBA in BAR @bar at the offsets; the BAR's region must exist as a container or be NULL (own exclusive BAR). */
bool pci_msix_init(struct pci_dev *d, unsigned vectors, unsigned bar, uint32_t table_off, uint32_t pba_off, struct region *in, struct err *e) MUST_CHECK;
/* The guest is told of @vectors only, of those that the table has room for. Domain lock held. */
void pci_msix_show(struct pci_dev *d, unsigned vectors);
void pci_intx_init(struct pci_dev *d, unsigned pin /* 1..4 */);
/* Mirror of all of the above: called by the base after the device's unrealize. */
void pci_fini(struct pci_dev *d);

/* ---- interrupts: domain lock held or not ---- */
/* Level of the INTx pin (honours the disable bit). */
void pci_intx_set(struct pci_dev *d, int level);
/* Sends vector @v by MSI-X or MSI if enabled (latched while masked); false if neither is: use INTx. */
bool pci_msi_notify(struct pci_dev *d, unsigned v);
bool pci_msi_enabled(const struct pci_dev *d);      /* MSI or MSI-X */
bool pci_msix_enabled(const struct pci_dev *d);
unsigned pci_msi_vectors(struct pci_dev *d);       /* that the guest granted; of MSI-X, all */

static inline bool pci_bus_master(const struct pci_dev *d) { return atomic_load_explicit(&d->dma.enabled, memory_order_relaxed); }

/* ---- buses ---- */
struct pci_bus {
    struct bus bus;
    struct pci_dev *_Atomic fn[256];    /* written on the main loop, read under RCU */
    struct pci_dev *bridge;             /* NULL: root bus */
    struct pci_bus *root;
    struct list roots;                  /* root buses: in the list of all */
    struct region *mem, *io;            /* where BARs are mapped */
    struct address_space *dma_as;
    bool express;
    uint8_t max_slot;                   /* 32; 1 below a root port */
    uint8_t first_slot;                 /* of the automatic choice */
    atomic_uint range;                  /* its number, and the last one below it << 8 */
    atomic_uint silent;                 /* PCI_SILENT_*: nothing on it answers */
    /* Root buses: INTx after swizzling, pin 0..3. */
    void (*set_irq)(void *arg, unsigned pin, int level);
    void *irq_arg;
    int irq_count[4];                   /* wired OR; under irq_lock, a leaf, which also orders changes of bus mastering */
    pthread_mutex_t irq_lock;
    /* Port above the bus: told when a function came; asked when one is to go; told when it went or its link changed. May be NULL. Main loop,
     * no lock held */
    bool (*port_plugged)(struct pci_bus *, struct pci_dev *, struct err *);
    bool (*port_unplug)(struct pci_bus *, struct pci_dev *, struct err *);
    void (*port_changed)(struct pci_bus *);
};
/* A root bus owned by a host bridge. */
struct pci_bus *pci_root_bus_new(struct dev *host, const char *name, bool express, struct region *mem, struct region *io, struct err *e);
/* Config access through the hierarchy, as ECAM does: bus number from the bridges' registers. Absent: all ones. Takes the function's domain lock. */
uint32_t pci_config_read(struct pci_bus *root, unsigned bus, unsigned devfn, uint32_t off, unsigned size);
void pci_config_write(struct pci_bus *root, unsigned bus, unsigned devfn, uint32_t off, uint32_t v, unsigned size);
unsigned pci_bus_number(const struct pci_bus *b);     /* ANY */
static inline struct pci_dev *pci_bus_fn(const struct pci_bus *b, unsigned devfn)    /* NULL: none. RCU section or main loop */
{
    return atomic_load_explicit(&b->fn[devfn & 0xff], memory_order_acquire);
}
/* The i-th root bus, NULL after the last. Main loop. */
struct pci_bus *pci_root_bus_nth(unsigned i);
/* Calls fn for every function below @b, bridges before what is behind them. Main loop. */
void pci_bus_each(struct pci_bus *b, void (*fn)(struct pci_dev *, void *), void *arg);

#endif
