/* SPDX-License-Identifier: MIT */
/*
 * Memory that the guest gives (VIRTIO 1.2, 5.5.6, 5.5.6.7). Pages go back to the host in small steps with the lock dropped
 * between them; a step is done only while its request is of the present generation, so that a driver that was reset and
 * started again never loses a page that it uses already.
 */
#include <errno.h>
#include <stdlib.h>
#include "base/log.h"
#include "hw/virtio/virtio_balloon.h"

#define STEP_PAGES 64u                  /* scattered pages, or */
#define STEP_BYTES (512 * KiB)          /* contiguous bytes between two looks at who else wants to run */
#define PFNS_MAX 65536u                 /* of one request */

static struct virtio_balloon *balloon_of(const struct vq_elem *e) { return (struct virtio_balloon *)e->vq->v; }

static void give_back(struct virtio_balloon *b, struct ram *r, uint64_t off, uint64_t len)
{
    int err = ram_discard(r, off, len);

    if (!err)
        b->discarded += len;
    else if (err != -ENOTSUP)
        log_warn("virtio-balloon '%s': memory cannot be given back to the host: %s", b->v.dev->obj.id, strerror(-err));
}

/* The RAM behind a page number, held; NULL (with a word in the log) if there is none. */
static struct ram *page_ram(struct virtio_balloon *b, uint32_t pfn, uint64_t *off)
{
    uint64_t addr = (uint64_t)pfn << VBALLOON_PFN_SHIFT;
    const struct view_range *r;
    struct ram *ram = NULL;

    rcu_read_lock();
    r = view_lookup(view_get(&as_memory), addr);
    if (r && r->ram && r->writable && range_ok(addr - r->start, VBALLOON_PFN_BYTES, r->size) && ram_hold(r->ram)) {
        ram = r->ram;
        *off = r->ram_off + (addr - r->start);
    }
    rcu_read_unlock();
    if (!ram)
        log_guest("virtio-balloon '%s': page number 0x%x is not RAM", b->v.dev->obj.id, pfn);
    return ram;
}

/* ---- back ends with larger pages ---- */

void vballoon_forget_parts(struct virtio_balloon *b)
{
    if (b->part.ram)
        ram_drop(b->part.ram);
    free(b->part.given);
    b->part = (struct vballoon_part){ 0 };
}

/* Guests give larger pages piece by piece in a row: one page in the making is remembered. */
static void give_part(struct virtio_balloon *b, struct ram *r, uint64_t off)
{
    struct vballoon_part *p = &b->part;
    uint64_t page = align_down(off, r->page_size), n = r->page_size >> VBALLOON_PFN_SHIFT, i = (off - page) >> VBALLOON_PFN_SHIFT;

    if (p->ram != r || p->off != page) {
        uint8_t *given = calloc(1, n);
        vballoon_forget_parts(b);
        if (!given || !ram_hold(r)) {
            free(given);
            return;
        }
        *p = (struct vballoon_part){ r, page, (uint32_t)n, given };
    }
    p->left -= !p->given[i];
    p->given[i] = 1;
    if (p->left)
        return;
    give_back(b, r, page, r->page_size);
    vballoon_forget_parts(b);
}

static void take_part(struct virtio_balloon *b, struct ram *r, uint64_t off)
{
    if (b->part.ram == r && b->part.off == align_down(off, r->page_size))
        vballoon_forget_parts(b);
}

/* ---- runs of pages ---- */

/* Neighbouring pages of a request go together: guests list them in rising or falling order. */
struct run { struct ram *ram; uint64_t off, len; };

static void run_flush(struct virtio_balloon *b, struct run *r)
{
    if (!r->ram)
        return;
    give_back(b, r->ram, r->off, r->len);
    ram_drop(r->ram);
    r->ram = NULL;
}

static void run_take(struct virtio_balloon *b, struct run *r, uint32_t pfn)
{
    uint64_t off = 0;
    struct ram *ram = page_ram(b, pfn, &off);

    if (ram && ram->page_size > VBALLOON_PFN_BYTES) {
        give_part(b, ram, off);
        ram_drop(ram);
        return;
    }
    if (ram && r->ram == ram && r->len < STEP_BYTES && (off == r->off + r->len || off + VBALLOON_PFN_BYTES == r->off)) {
        r->off = MIN(r->off, off);
        r->len += VBALLOON_PFN_BYTES;
        ram_drop(ram);
        return;
    }
    run_flush(b, r);
    if (ram)
        *r = (struct run){ ram, off, VBALLOON_PFN_BYTES };
}

/* Page numbers [first, first + n) of a request; fewer at its end. */
static uint32_t read_pfns(const struct vq_elem *e, uint32_t first, uint32_t *pfn, uint32_t n)
{
    return (uint32_t)(vec_to_buf(&e->out, (uint64_t)first * 4, pfn, (size_t)n * 4) / 4);
}

static void co_inflate(void *arg)
{
    struct vq_elem *e = arg;
    struct virtio_balloon *b = balloon_of(e);
    uint32_t pfn[STEP_PAGES], n, at = 0;

    if (e->out.len % 4)
        log_guest("virtio-balloon '%s': a list of pages of %llu bytes", b->v.dev->obj.id, (unsigned long long)e->out.len);
    while (!virtq_stale(e) && at < PFNS_MAX && (n = read_pfns(e, at, pfn, STEP_PAGES))) {
        struct run r = { 0 };
        for (uint32_t i = 0; i < n; i++)
            run_take(b, &r, le32toh(pfn[i]));
        run_flush(b, &r);
        at += n;
        co_yield();
    }
    virtq_push(e, 0);
}

static bool serve_inflate(struct virtq *vq, struct vq_elem *e)
{
    co_spawn(NULL, vq->v->dom, co_inflate, e);
    return true;
}

void vballoon_inflated(struct virtq *vq)
{
    virtq_drain(vq, serve_inflate);
}

/* Pages that the guest takes back need nothing: touched, they are there. Only a page in the making is not to go any more. */
static bool serve_deflate(struct virtq *vq, struct vq_elem *e)
{
    struct virtio_balloon *b = balloon_of(e);
    uint32_t pfn[STEP_PAGES], n, at = 0;

    while (b->part.ram && at < PFNS_MAX && (n = read_pfns(e, at, pfn, STEP_PAGES))) {
        for (uint32_t i = 0; i < n; i++) {
            uint64_t off;
            struct ram *ram = page_ram(b, le32toh(pfn[i]), &off);
            if (ram) {
                take_part(b, ram, off);
                ram_drop(ram);
            }
        }
        at += n;
    }
    virtq_push(e, 0);
    return true;
}

void vballoon_deflated(struct virtq *vq)
{
    virtq_drain(vq, serve_deflate);
}

/* ---- free page reporting: the buffers themselves are the pages ---- */

static void co_report(void *arg)
{
    struct vq_elem *e = arg;
    struct virtio_balloon *b = balloon_of(e);
    const struct virtio_balloon_config *c = (const struct virtio_balloon_config *)b->v.config;
    /* 5.5.6.7.2: pages that must come back filled with a value other than zero stay as they are. */
    bool keep = virtio_has(&b->v, VIRTIO_BALLOON_F_PAGE_POISON) && c->poison_val;

    for (unsigned i = 0; i < e->in.n && !keep; i++) {
        struct ram *r = e->in.seg[i].ram;
        uint64_t from = align_up(e->in.seg[i].off, r->page_size);
        uint64_t end = align_down(e->in.seg[i].off + e->in.iov[i].iov_len, r->page_size);
        while (from < end && !virtq_stale(e)) {
            uint64_t n = MIN(end - from, MAX(STEP_BYTES, r->page_size));
            give_back(b, r, from, n);
            from += n;
            co_yield();
        }
    }
    virtq_push(e, 0);
}

static bool serve_report(struct virtq *vq, struct vq_elem *e)
{
    co_spawn(NULL, vq->v->dom, co_report, e);
    return true;
}

void vballoon_reported(struct virtq *vq)
{
    virtq_drain(vq, serve_report);
}
