/* SPDX-License-Identifier: MIT */
/*
 * Firmware (5.11, 5.12) and boot partitions (8.2). An image names its revision in its first eight bytes. Boot partitions are the two
 * halves of a block node; the host reads them by registers before the controller is enabled, or by a log page.
 */
#include "hw/nvme/firmware.h"

#include <stdlib.h>
#include "base/str.h"
#include "block/blk.h"
#include "hw/nvme/ocp.h"
#include "hw/nvme/pel.h"
#include "hw/nvme/rpmb.h"

#define BOOT_UNIT (128 * KiB)
#define BOOT_MAX (32 * MiB)
#define CHUNK (64 * KiB)

enum { READ_NONE, READ_BUSY, READ_DONE, READ_ERROR };           /* BPINFO.BRS, 3.1.3.13 */
enum { ACTION_REPLACE, ACTION_REPLACE_ACTIVATE, ACTION_ACTIVATE, ACTION_ACTIVATE_NOW, ACTION_BOOT_REPLACE = 6, ACTION_BOOT_ACTIVATE = 7 };

/* ---- download ---- */

static bool image_room(struct nvme *n, uint64_t len)
{
    uint64_t cap = MAX(n->fw_cap, 64 * KiB);
    uint8_t *buf;

    while (cap < len)
        cap *= 2;
    if (cap == n->fw_cap)
        return true;
    buf = realloc(n->fw_buf, cap);
    if (!buf)
        return false;
    n->fw_buf = buf;
    n->fw_cap = cap;
    return true;
}

void nvme_fw_forget(struct nvme *n)
{
    free(n->fw_buf);
    n->fw_buf = NULL;
    n->fw_len = n->fw_cap = 0;
}

uint16_t co_nvme_fw_download(struct nvme_req *r)
{
    struct nvme *n = r->n;
    uint64_t len = ((uint64_t)r->cmd.cdw10 + 1) * 4, off = (uint64_t)r->cmd.cdw11 * 4;
    uint16_t st;

    if (!range_ok(off, len, MAX(NVME_FW_MAX, n->boot.size)) || len > nvme_max_transfer(n))
        return NVME_INVALID_FIELD | NVME_DNR;
    if (off && off != n->fw_len)
        return NVME_OVERLAP | NVME_DNR;                 /* pieces come in order, without holes */
    if (!image_room(n, off + len))
        return NVME_INTERNAL;
    n->fw_len = off;
    st = nvme_from_host(r, n->fw_buf + off, len);
    if (!st)
        n->fw_len = off + len;
    return st;
}

/* ---- slots ---- */

static bool revision_ok(const uint8_t *rev)
{
    for (unsigned i = 0; i < NVME_FW_REV; i++)
        if (rev[i] < 0x20 || rev[i] > 0x7e)
            return false;
    return true;
}

void nvme_fw_activate(struct nvme *n)
{
    if (n->fw_next) {
        nvme_ocp_activated(n, n->fw_next, n->fw_action);
        n->fw_active = n->fw_next;
    }
    n->fw_next = 0;
}

static uint16_t commit_slot(struct nvme *n, unsigned slot, unsigned action)
{
    if (slot > NVME_FW_SLOTS)
        return NVME_FW_SLOT | NVME_DNR;
    if (action <= ACTION_REPLACE_ACTIVATE) {
        if (slot == 1)
            return NVME_FW_SLOT | NVME_DNR;             /* read-only */
        if (n->fw_len < NVME_FW_REV || !revision_ok(n->fw_buf))
            return NVME_FW_IMAGE | NVME_DNR;
        pthread_mutex_lock(&n->ss->lock);               /* the state file is written by another thread */
        memcpy(n->fw_slot[slot], n->fw_buf, NVME_FW_REV);
        pthread_mutex_unlock(&n->ss->lock);
        nvme_fw_forget(n);
        nvme_state_dirty(n->ss);
        if (action == ACTION_REPLACE)
            return NVME_OK;
    }
    if (!slot || !n->fw_slot[slot][0])
        return NVME_FW_SLOT | NVME_DNR;
    n->fw_next = (uint8_t)slot;
    n->fw_action = (uint8_t)action;
    if (action != ACTION_ACTIVATE_NOW)
        return NVME_FW_RESET | NVME_DNR;                /* done; it needs a controller reset to run */
    nvme_fw_activate(n);
    return NVME_OK;
}

/* ---- boot partitions ---- */

/* The image into partition @id; what it does not fill is zeroed. */
static uint16_t co_boot_replace(struct nvme_req *r, unsigned id)
{
    struct nvme *n = r->n;
    uint64_t at = id * n->boot.size, len = n->fw_len;
    struct iovec v = { n->fw_buf, len };
    int e;

    if (n->boot.read_only)
        return NVME_BOOT_PROHIBITED | NVME_DNR;
    if (!len || len > n->boot.size)
        return NVME_FW_IMAGE | NVME_DNR;
    n->fw_buf = NULL;                   /* the image is ours: another download may begin */
    nvme_fw_forget(n);
    e = co_blk_pwritev(n->boot.blk, at, len, &v, 1, 0);
    if (!e && len < n->boot.size)
        e = co_blk_zero(n->boot.blk, at + len, n->boot.size - len, 0);
    if (!e)
        e = co_blk_flush(n->boot.blk);
    free(v.iov_base);
    return e ? NVME_WRITE_FAULT : NVME_OK;
}

static uint16_t co_boot_commit(struct nvme_req *r, unsigned action)
{
    struct nvme *n = r->n;
    unsigned id = r->cmd.cdw10 >> 31;

    if (!n->boot.blk)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (action == ACTION_BOOT_REPLACE && co_nvme_rpmb_locks(n, id))
        return NVME_BOOT_PROHIBITED | NVME_DNR;
    if (nvme_stale(r))
        return NVME_ABORT_REQUESTED;
    if (action == ACTION_BOOT_REPLACE)
        return co_boot_replace(r, id);
    n->boot.active = (uint8_t)id;
    nvme_state_dirty(n->ss);
    return NVME_OK;
}

/* Event 02h: the revision before and that of the image, action, slot, what became of it. */
uint16_t co_nvme_fw_commit(struct nvme_req *r)
{
    struct nvme *n = r->n;
    unsigned action = r->cmd.cdw10 >> 3 & 7, slot = r->cmd.cdw10 & 7;
    bool boot = action >= ACTION_BOOT_REPLACE;
    uint8_t d[22] = { 0 };
    uint16_t st;

    if (action > ACTION_ACTIVATE_NOW && !boot)
        return NVME_INVALID_FIELD | NVME_DNR;
    memcpy(d, n->fw_slot[n->fw_active], NVME_FW_REV);
    if (!slot && action <= ACTION_REPLACE_ACTIVATE)
        slot = n->fw_active == 2 ? 3 : 2;               /* our choice */
    st = boot ? co_boot_commit(r, action) : commit_slot(n, slot, action);
    if (nvme_stale(r))
        return st;
    if (!boot && slot <= NVME_FW_SLOTS)
        memcpy(d + 8, n->fw_slot[slot], NVME_FW_REV);
    d[16] = (uint8_t)action;
    d[17] = (uint8_t)(boot ? 0 : slot);
    d[18] = st >> 8 & 7;
    d[19] = (uint8_t)st;
    nvme_pel_add(n, NVME_PEL_FW_COMMIT, d, sizeof d);
    return st;
}

/* 5.16.1.4. */
void nvme_fw_log(const struct nvme *n, uint8_t *b)
{
    b[0] = n->fw_active | (uint8_t)(n->fw_next << 4);
    for (unsigned i = 1; i <= NVME_FW_SLOTS; i++)
        memcpy(b + 8 * i, n->fw_slot[i], NVME_FW_REV);
}

/* @len bytes of partition @id to guest memory at @to, in pieces. */
static bool co_boot_copy(struct nvme *n, unsigned id, uint64_t off, uint64_t len, uint64_t to, uint32_t gen)
{
    uint8_t *buf = xcalloc(1, CHUNK);
    bool ok = true;

    for (uint64_t at = 0; ok && at < len && gen == n->gen; at += CHUNK) {
        struct iovec v = { buf, MIN(len - at, CHUNK) };

        ok = !co_blk_preadv(n->boot.blk, id * n->boot.size + off + at, v.iov_len, &v, 1, 0) && gen == n->gen &&
             dma_write(&n->pci.dma, to + at, buf, v.iov_len);
    }
    free(buf);
    return ok;
}

static void co_boot_read(void *arg)
{
    struct nvme *n = arg;
    uint32_t gen = n->gen, sel = n->boot.select;
    uint64_t len = (sel & 0x3ff) * UINT64_C(4096), off = (sel >> 10 & 0xfffff) * UINT64_C(4096);
    bool asked = n->boot.status == READ_BUSY;           /* else a reset came before this began */
    bool ok = asked && len && range_ok(off, len, n->boot.size) && co_boot_copy(n, sel >> 31, off, len, n->boot.where, gen);

    if (asked && gen == n->gen)
        n->boot.status = ok ? READ_DONE : READ_ERROR;
    if (!--n->in_flight)
        nvme_drained(n);
}

uint64_t nvme_boot_reg(const struct nvme *n, uint64_t off)
{
    const struct nvme_boot *b = &n->boot;

    switch (b->blk ? off : 0) {
    case NVME_REG_BPINFO: return b->size / BOOT_UNIT | (uint32_t)b->status << 24 | (uint32_t)b->active << 31;
    case NVME_REG_BPRSEL: return b->select;
    case NVME_REG_BPMBL: return b->where;
    default: return 0;
    }
}

void nvme_boot_write(struct nvme *n, uint64_t off, uint64_t v)
{
    struct nvme_boot *b = &n->boot;

    if (!b->blk || b->status == READ_BUSY)
        return;                         /* 8.2.1: not while one is on its way */
    if (off == NVME_REG_BPMBL) {
        b->where = v & ~UINT64_C(0xfff);
        return;
    }
    b->select = (uint32_t)v & 0xbfffffff;
    b->status = READ_BUSY;
    n->in_flight++;
    co_spawn(NULL, n->pci.dev.dom, co_boot_read, n);
}

void nvme_boot_reset(struct nvme *n)
{
    n->boot.select = n->boot.status = 0;
    n->boot.where = 0;
}

/* 5.16.1.20: the header, then the partition. */
uint16_t co_nvme_boot_log(struct nvme_req *r, uint64_t off, uint64_t len)
{
    struct nvme *n = r->n;
    unsigned id = r->cmd.cdw10 >> 8 & 1;
    uint64_t end = n->boot.size + NVME_BOOT_HEADER, have, data;
    struct iovec v;
    uint8_t *b;

    if (off > end)
        return NVME_INVALID_FIELD | NVME_DNR;
    have = MIN(len, end - off);
    b = nvme_bounce(r, have + NVME_BOOT_HEADER);
    if (!b)
        return NVME_INTERNAL;
    memset(b, 0, NVME_BOOT_HEADER);
    b[0] = NVME_LOG_BOOT;
    st_le32(b + 4, (uint32_t)(n->boot.size / BOOT_UNIT) | (uint32_t)n->boot.active << 31);
    if (off >= NVME_BOOT_HEADER) {
        v = (struct iovec){ b, have };
        data = off - NVME_BOOT_HEADER;
    } else {
        memmove(b, b + off, NVME_BOOT_HEADER - off);
        v = (struct iovec){ b + NVME_BOOT_HEADER - off, have > NVME_BOOT_HEADER - off ? have - (NVME_BOOT_HEADER - off) : 0 };
        data = 0;
    }
    if (v.iov_len && co_blk_preadv(n->boot.blk, id * n->boot.size + data, v.iov_len, &v, 1, 0))
        return NVME_READ_FAULT;
    return nvme_to_host_part(r, b, have, 0, len);
}

/* ---- life ---- */

bool nvme_boot_init(struct nvme *n, struct err *e)
{
    struct blk_caps caps;
    uint64_t size;

    if (!n->boot.drive)
        return true;
    n->boot.blk = blk_open((struct blk_node *)n->boot.drive, blk_perm_rw((struct blk_node *)n->boot.drive), BLK_PERM_READ, n->pci.dev.dom,
                           n->pci.dev.obj.id, e);
    if (!n->boot.blk)
        return false;
    blk_get_caps(n->boot.blk, &caps);
    n->boot.read_only = caps.read_only;
    size = blk_size(n->boot.blk);
    if (!size || size % (2 * BOOT_UNIT) || size > 2 * BOOT_MAX) {
        nvme_boot_fini(n);
        return err_set(e, ERR_VALUE, "boot-drive '%s' has %llu bytes, but must have a multiple of 256 KiB (two partitions) up to 64 MiB", n->boot.drive->id,
                       (unsigned long long)size);
    }
    n->boot.size = size / 2;
    n->cap |= NVME_CAP_BPS;
    return true;
}

void nvme_boot_fini(struct nvme *n)
{
    if (n->boot.blk)
        blk_close(n->boot.blk);
    n->boot.blk = NULL;
    n->boot.size = 0;
}

/* ---- saved state ---- */

static void image_save(const void *obj, struct str *out)
{
    const struct nvme *n = obj;

    str_addn(out, n->fw_buf, n->fw_len);
}

static bool image_load(void *obj, const void *data, size_t len, struct err *e)
{
    struct nvme *n = obj;

    if (len > MAX(NVME_FW_MAX, n->boot.size) || (len && !image_room(n, len)))
        return err_set(e, ERR_VALUE, "nvme: a firmware image of %zu bytes", len);
    n->fw_len = len;
    if (len)
        memcpy(n->fw_buf, data, len);
    return true;
}
const struct state_custom nvme_fw_image = { image_save, image_load };

static const struct state_field boot_fields[] = {
    STATE_SKIP(struct nvme_boot, drive, "an option"), STATE_SKIP(struct nvme_boot, blk, "the host's"), STATE_SKIP(struct nvme_boot, size, "the host's"),
    STATE_UINT(struct nvme_boot, where), STATE_UINT(struct nvme_boot, select), STATE_UINT(struct nvme_boot, status, .max = READ_ERROR),
    STATE_UINT(struct nvme_boot, active, .max = 1), STATE_SKIP(struct nvme_boot, read_only, "the host's"), STATE_END
};
const struct state_desc nvme_boot_state = { .name = "nvme-boot", .version = 1, .fields = boot_fields };
