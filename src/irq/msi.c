/* SPDX-License-Identifier: MIT */
#include "base/log.h"
#include "irq/irq.h"
#include "mem/view.h"

bool msi_send(struct address_space *as, struct msi_msg m)
{
    bool done = false;
    rcu_read_lock();
    const struct view_range *r = view_lookup(view_get(as), m.addr);
    uint64_t off = r ? m.addr - r->start : 0;
    if (!r || m.addr & 3 || !range_ok(off, 4, r->size)) {
        done = false;
    } else if (r->region->msi) {
        r->region->msi(r->region->opaque, r->region_off + off, m.data);
        done = true;
    } else if (r->writable) {
        done = view_range_write(r, m.addr, m.data, 4);
    }
    rcu_read_unlock();
    if (!done)
        log_guest("msi: message 0x%x to 0x%llx goes nowhere", m.data, (unsigned long long)m.addr);
    return done;
}
