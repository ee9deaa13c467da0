/* SPDX-License-Identifier: MIT */
/*
 * Interrupt lines and messages. A sink is a leaf: it may be called from any thread with any domain lock held, so it uses
 * atomics (or a leaf mutex) and never calls back.
 */
#ifndef IRQ_IRQ_H
#define IRQ_IRQ_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* One end of a line. Zero-initialised is "not connected". Copied by value. */
struct irq { void (*set)(void *arg, unsigned n, int level); void *arg; unsigned n; };

static inline void irq_set(const struct irq *i, int level) { if (i->set) i->set(i->arg, i->n, level); }
static inline void irq_pulse(const struct irq *i) { irq_set(i, 1); irq_set(i, 0); }

/*
 * Named inputs and outputs, so that qtest can intercept lines (irq_intercept_in/out) and the monitor can list them.
 * A controller registers its inputs once: irq_in() then hands out lines that can be watched.
 */
struct irq_bank {
    const char *path;               /* of the device, as qom-list shows it */
    unsigned n;
    void (*set)(void *arg, unsigned n, int level);      /* the controller's input */
    void *arg;
    void (*_Atomic watch)(void *warg, unsigned n, int level);   /* sees each call before set; see irq_bank_watch() */
    void *warg;
    struct irq_bank *next;          /* private */
};
void irq_bank_register(struct irq_bank *b);     /* main loop */
void irq_bank_unregister(struct irq_bank *b);   /* nobody drives its lines any more. Main loop */
/* From now on @watch sees every call, on the caller's thread, then the input gets it as ever. For the life of the bank. */
void irq_bank_watch(struct irq_bank *b, void (*watch)(void *warg, unsigned n, int level), void *warg);
struct irq irq_in(struct irq_bank *b, unsigned n);
struct irq_bank *irq_bank_find(const char *path);
struct irq_bank *irq_bank_next(struct irq_bank *b);     /* NULL: first */

/*
 * A message-signalled interrupt: a 32-bit write to a 4-byte aligned address (PCI 3.0, 6.8.1). Delivered where system memory
 * has a region that accepts messages (region->msi: the IMSIC). To RAM it is the plain write that it is in hardware (a driver
 * may poll a word so). Anything else, device registers above all, is refused: dropped, logged as a guest error, false. ANY.
 */
struct msi_msg { uint64_t addr; uint32_t data; };
struct address_space;
bool msi_send(struct address_space *as, struct msi_msg m);

#endif
