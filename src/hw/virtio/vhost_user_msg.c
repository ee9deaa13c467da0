/* SPDX-License-Identifier: MIT */
/* What a back end of vhost-user is told of a device's life: who it is, its configuration, its memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/rcu.h"
#include "hw/virtio/vhost_user_int.h"

static const uint64_t protocol_known = BIT64(VU_P_MQ) | BIT64(VU_P_REPLY_ACK) | BIT64(VU_P_BACKEND_REQ) | BIT64(VU_P_CONFIG) |
                                       BIT64(VU_P_INFLIGHT_SHMFD) | BIT64(VU_P_RESET_DEVICE) | BIT64(VU_P_STATUS);

/* A later back end must have what the first had, for a driver has seen the offer. */
bool co_vhost_negotiate(struct vhost_user *u, struct err *e)
{
    struct vu_link *l = &u->link;

    if (!co_vu_features(l, e))
        return false;
    if (u->v.offered & ~l->features)
        return err_set(e, ERR_STATE, "this back end lacks features 0x%llx that the one before had", (unsigned long long)(u->v.offered & ~l->features));
    if (!co_vu_agree(l, protocol_known, u->kind->protocol, u->v.model->name, u->n_rings, e))
        return false;
    return u->inflight_fd < 0 || vu_link_speaks(l, VU_P_INFLIGHT_SHMFD) ||
           err_set(e, ERR_STATE, "this back end lacks protocol feature INFLIGHT_SHMFD, and the one before left requests under way in its memory");
}

bool co_vhost_write_config(struct vhost_user *u, struct err *e)
{
    struct vu_config c = { .off = u->write_off, .size = u->write_len };

    memcpy(c.data, u->v.config + c.off, c.size);
    return co_vu_tell(&u->link, VU_SET_CONFIG, &c, (uint32_t)offsetof(struct vu_config, data) + c.size, NULL, e);
}

/* ---- memory ("Memory region description") ---- */

/* Where a piece can go on: the same file, the next byte. */
static bool adjoins(const struct vu_mem *m, const struct ram *a, const struct view_range *r)
{
    return a == r->ram && m->guest + m->size == r->start && m->user + m->size == (uint64_t)(uintptr_t)r->host;
}

static void memory_drop(struct vhost_memory *m)
{
    for (unsigned i = 0; m && i < m->table.n; i++)
        ram_drop(m->ram[i]);
    free(m);
}

/* All guest memory that can be shared. NULL with @e filled where it does not fit the protocol. */
static struct vhost_memory *memory_collect(struct vhost_user *u, struct err *e)
{
    struct vhost_memory *m = xnew(struct vhost_memory);
    struct vu_mem_table *t = &m->table;
    bool fits = true;

    *m = (struct vhost_memory){ 0 };
    rcu_read_lock();
    const struct view *view = view_get(u->v.dma->as);
    u->memory_gen = view->gen;
    for (size_t i = 0; i < view->n && fits; i++) {
        const struct view_range *r = &view->r[i];
        if (!r->ram || !r->writable || !r->ram->share || r->ram->fd < 0)
            continue;
        if (t->n && adjoins(&t->v[t->n - 1], m->ram[t->n - 1], r)) {
            t->v[t->n - 1].size += r->size;
        } else if (t->n == ARRAY_SIZE(t->v)) {
            fits = false;
        } else if (ram_hold(r->ram)) {
            m->ram[t->n] = r->ram;
            t->v[t->n++] = (struct vu_mem){ r->start, r->size, (uint64_t)(uintptr_t)r->host, r->ram->fd_off + r->ram_off };
        }
    }
    rcu_read_unlock();
    if (fits)
        return m;
    err_set(e, ERR_STATE, "guest memory is in more than %zu pieces, which vhost-user cannot say", ARRAY_SIZE(t->v));
    memory_drop(m);
    return NULL;
}

static bool memory_equal(const struct vhost_memory *a, const struct vhost_memory *b)
{
    return a && a->table.n == b->table.n && !memcmp(a->table.v, b->table.v, a->table.n * sizeof a->table.v[0]) &&
           !memcmp(a->ram, b->ram, a->table.n * sizeof a->ram[0]);
}

bool co_vhost_send_memory(struct vhost_user *u, struct err *e)
{
    struct vhost_memory *m = memory_collect(u, e);
    struct vu_fds fds = { .n = 0 };

    if (!m || memory_equal(u->memory, m)) {
        memory_drop(m);
        return m != NULL;
    }
    for (; fds.n < m->table.n; fds.n++)
        fds.fd[fds.n] = m->ram[fds.n]->fd;
    bool ok = co_vu_tell(&u->link, VU_SET_MEM_TABLE, &m->table, (uint32_t)(8 + m->table.n * sizeof m->table.v[0]), &fds, e);
    memory_drop(u->memory);
    u->memory = ok ? m : NULL;
    if (!ok)
        memory_drop(m);
    return ok;
}

void vhost_memory_forget(struct vhost_user *u)
{
    memory_drop(u->memory);
    u->memory = NULL;
}

/* The largest range is the machine's memory; what a back end of memory stands behind is memory, too. Others (devices' own) need not be seen. */
bool vhost_memory_shared(struct vhost_user *u, struct err *e)
{
    const char *name = NULL;

    rcu_read_lock();
    const struct view *view = view_get(u->v.dma->as);
    for (size_t i = 0; i < view->n && !name; i++) {
        const struct view_range *r = &view->r[i];
        if (r->ram && r->writable && (i == view->big || r->ram->owner) && (!r->ram->share || r->ram->fd < 0))
            name = r->ram->name;
    }
    rcu_read_unlock();
    if (!name)
        return true;
    err_set(e, ERR_STATE, "guest memory '%s' is not shared, and the back end of %s must reach it", name, u->v.model->name);
    return err_hint(e, "-object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem");
}

bool vhost_memory_has(const struct vhost_user *u, const void *p, uint64_t len)
{
    uint64_t at = (uint64_t)(uintptr_t)p;

    for (unsigned i = 0; u->memory && i < u->memory->table.n; i++) {
        const struct vu_mem *m = &u->memory->table.v[i];
        if (at >= m->user && range_ok(at - m->user, len, m->size))
            return true;
    }
    return false;
}
