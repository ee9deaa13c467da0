/* SPDX-License-Identifier: MIT */
/* Frames of the MFI interface: from the queue port to the reply queue. */
#include <stdlib.h>
#include "base/log.h"
#include "hw/scsi/megasas.h"

static const char *name(const struct megasas *s) { return s->pci.dev.obj.id; }

/* ---- the way out ---- */

static void post_reply(struct megasas *s, const uint8_t *head)
{
    uint8_t producer[4];
    unsigned size = s->context64 ? 8 : 4;

    if (!s->reply_entries)
        return;                         /* not initialised: who sent this polls for it */
    if (!dma_write(&s->pci.dma, s->reply + (uint64_t)s->reply_head * size, head + MFI_F_CONTEXT, size))
        log_guest("megasas '%s': the reply queue is not RAM", name(s));
    s->reply_head = (s->reply_head + 1) % s->reply_entries;
    st_le32(producer, s->reply_head);
    if (!dma_write(&s->pci.dma, s->producer, producer, sizeof producer))
        log_guest("megasas '%s': the producer index is not RAM", name(s));
    megasas_reply_raised(s);
}

void megasas_complete(struct megasas *s, uint64_t frame, const uint8_t *head, uint8_t status, uint8_t scsi_status)
{
    uint8_t both[2] = { status, scsi_status };

    if (!dma_write(&s->pci.dma, frame + MFI_F_STATUS, both, sizeof both))
        log_guest("megasas '%s': frame 0x%llx is not RAM any more", name(s), (unsigned long long)frame);
    if (!(ld_le16(head + MFI_F_FLAGS) & MFI_FLAG_DONT_POST))
        post_reply(s, head);
}

/* ---- the scatter list ---- */

static bool map_one(struct mfi_cmd *c, const uint8_t *e)
{
    bool wide = c->flags & (MFI_FLAG_IEEE | MFI_FLAG_SGL64);
    uint64_t addr = wide ? ld_le64(e) : ld_le32(e);
    uint32_t len = ld_le32(e + (wide ? 8 : 4));

    return !len || dma_map(&c->data, addr, len);
}

bool megasas_map(struct mfi_cmd *c, uint32_t at, bool dev_writes)
{
    unsigned size = c->flags & MFI_FLAG_IEEE ? MFI_SGE_IEEE : c->flags & MFI_FLAG_SGL64 ? MFI_SGE64 : MFI_SGE32;
    unsigned n = c->f[MFI_F_SGE_COUNT];
    uint8_t list[MEGASAS_MAX_SGE * MFI_SGE_IEEE];

    dma_vec_init(&c->data, &c->s->pci.dma, dev_writes);
    if (n > c->s->max_sge || !dma_read(&c->s->pci.dma, c->frame + at, list, (uint64_t)n * size))
        return false;
    for (unsigned i = 0; i < n; i++)
        if (!map_one(c, list + i * size))
            return false;
    return true;
}

/* ---- initialisation, abort ---- */

static uint8_t init_queues(struct mfi_cmd *c)
{
    struct megasas *s = c->s;
    uint8_t q[MFI_QI_SIZE];
    uint32_t entries;

    if (s->fw_state != MFI_STATE_READY)
        return MFI_STAT_WRONG_STATE;
    if (!dma_read(&s->pci.dma, ld_le64(c->f + MFI_INIT_QUEUE_INFO), q, sizeof q))
        return MFI_STAT_INVALID_PARAMETER;
    entries = ld_le32(q + MFI_QI_ENTRIES);
    if (!entries || entries > UINT16_MAX + 1u)
        return MFI_STAT_INVALID_PARAMETER;
    s->reply_entries = entries;
    s->reply_head = 0;
    s->reply = ld_le64(q + MFI_QI_REPLY);
    s->producer = ld_le64(q + MFI_QI_PRODUCER);
    s->consumer = ld_le64(q + MFI_QI_CONSUMER);
    s->context64 = ld_le32(q + MFI_QI_FLAGS) & MFI_QUEUE_CONTEXT64;
    s->fw_state = MFI_STATE_OPERATIONAL;
    return MFI_STAT_OK;
}

static bool same_frame(const struct scsi_req *r, const void *arg)
{
    return container_of(r, struct mfi_cmd, r)->frame == *(const uint64_t *)arg;
}

static void complete_held(struct megasas *s, uint64_t frame)
{
    uint8_t head[MFI_FRAME];

    for (uint32_t i = 0; i < s->n_held; i++)
        if (s->held[i] == frame) {
            s->held[i] = s->held[--s->n_held];
            if (dma_read(&s->pci.dma, frame, head, sizeof head))
                megasas_complete(s, frame, head, MFI_STAT_SCSI_IO_FAILED, 0);
            return;
        }
}

static uint8_t co_abort(struct mfi_cmd *c)
{
    struct megasas *s = c->s;
    uint64_t frame = ld_le64(c->f + MFI_ABORT_FRAME) & ~0x1full;
    struct mfi_cmd *other;
    uint8_t head[MFI_FRAME];

    if (frame && frame == s->wait_frame) {
        s->wait_frame = 0;
        if (dma_read(&s->pci.dma, frame, head, sizeof head))
            megasas_complete(s, frame, head, MFI_STAT_OK, 0);
        return MFI_STAT_OK;
    }
    complete_held(s, frame);
    list_for_each(other, &s->flying, link)
        if (other->frame == frame && other->r.dev) {
            co_scsi_abort(other->r.dev, same_frame, &frame, SCSI_HOST_ABORTED);
            return MFI_STAT_OK;
        }
    return MFI_STAT_ABORT_NOT_POSSIBLE;
}

void megasas_abort_all(struct megasas *s)
{
    struct mfi_cmd *c;

    s->gen++;
    s->n_held = 0;
    s->wait_frame = 0;
    list_for_each(c, &s->flying, link)
        c->r.abort = SCSI_HOST_RESET;
}

/* ---- SCSI ---- */

static void put_sense(struct mfi_cmd *c, uint32_t at)
{
    uint64_t addr = c->flags & MFI_FLAG_SENSE64 ? ld_le64(c->f + at) : ld_le32(c->f + at);

    if (c->r.sense_len && addr && !dma_write(&c->s->pci.dma, addr, c->r.sense, MIN(c->r.sense_len, c->f[MFI_F_SENSE_LEN])))
        log_guest("megasas '%s': the buffer for sense data is not RAM", name(c->s));
}

static uint8_t status_of(const struct scsi_req *r)
{
    if (r->host != SCSI_HOST_OK)
        return MFI_STAT_SCSI_IO_FAILED;
    if (r->status == SCSI_RESERVATION_CONFLICT)
        return MFI_STAT_SCSI_RESERVATION_CONFLICT;
    return r->status == SCSI_GOOD ? MFI_STAT_OK : MFI_STAT_SCSI_DONE_WITH_ERROR;
}

/* Runs the command block that is in c->r; the frame's status. */
static uint8_t co_run(struct mfi_cmd *c, bool logical, bool to_device, uint32_t sense_at)
{
    struct megasas *s = c->s;
    struct scsi_dev *d = scsi_find(s->bus, 0, c->f[MFI_F_TARGET], (uint32_t)c->r.lun, true);
    if (!d || megasas_is_ld(s, d) != logical)
        return MFI_STAT_DEVICE_NOT_FOUND;
    c->r.out = (struct scsi_data){ &c->data, 0, to_device ? c->data.len : 0 };
    c->r.in = (struct scsi_data){ &c->data, 0, to_device ? 0 : c->data.len };
    c->r.tag = c->frame;
    co_scsi_run(&c->r, d);
    c->stopped = c->r.host == SCSI_HOST_STOPPED;
    if (c->gen == s->gen && !c->stopped)
        put_sense(c, sense_at);
    return status_of(&c->r);
}

static uint8_t co_scsi(struct mfi_cmd *c)
{
    unsigned n = c->f[MFI_F_CDB_LEN];
    bool to_device = c->flags & MFI_FLAG_WRITE;

    if (!n || n > 16 || !megasas_map(c, MFI_SCSI_SGL, !to_device))
        return MFI_STAT_INVALID_PARAMETER;
    memcpy(c->r.cdb, c->f + MFI_SCSI_CDB, n);
    c->r.lun = c->f[MFI_F_LUN];
    return co_run(c, c->f[MFI_F_CMD] == MFI_LD_SCSI, to_device, MFI_SCSI_SENSE);
}

/* Reads and writes of logical drives carry the address alone. */
static uint8_t co_ld_io(struct mfi_cmd *c)
{
    bool write = c->f[MFI_F_CMD] == MFI_LD_WRITE;
    uint64_t lba = (uint64_t)ld_le32(c->f + MFI_IO_LBA_HI) << 32 | ld_le32(c->f + MFI_IO_LBA_LO);

    if (!megasas_map(c, MFI_IO_SGL, !write))
        return MFI_STAT_INVALID_PARAMETER;
    c->r.cdb[0] = write ? OP_WRITE_16 : OP_READ_16;
    st_be64(c->r.cdb + 2, lba);
    st_be32(c->r.cdb + 10, ld_le32(c->f + MFI_IO_BLOCKS));
    return co_run(c, true, write, MFI_IO_SENSE);
}

/* ---- the way in ---- */

static uint8_t co_execute(struct mfi_cmd *c, bool *later)
{
    bool ready = c->s->fw_state == MFI_STATE_OPERATIONAL;

    switch (c->f[MFI_F_CMD]) {
    case MFI_INIT:
        return init_queues(c);
    case MFI_LD_READ: case MFI_LD_WRITE:
        return ready ? co_ld_io(c) : MFI_STAT_WRONG_STATE;
    case MFI_LD_SCSI: case MFI_PD_SCSI:
        return ready ? co_scsi(c) : MFI_STAT_WRONG_STATE;
    case MFI_DCMD:
        return co_megasas_dcmd(c, later);
    case MFI_ABORT:
        return co_abort(c);
    default:
        return MFI_STAT_INVALID_CMD;
    }
}

static void hold(struct mfi_cmd *c)
{
    if (c->s->n_held < MEGASAS_MAX_CMDS)
        c->s->held[c->s->n_held++] = c->frame;
}

static void co_frame(void *arg)
{
    struct mfi_cmd *c = arg;
    struct megasas *s = c->s;
    bool later = false;
    uint8_t status = MFI_STAT_OK;

    if (c->gen == s->gen)               /* else the firmware was reset before this began */
        status = co_execute(c, &later);
    dma_unmap(&c->data, c->data.len);
    dma_vec_free(&c->data);
    list_del(&c->link);
    s->n_flying--;
    if (c->gen == s->gen && c->stopped)
        hold(c);
    else if (c->gen == s->gen && !later)
        megasas_complete(s, c->frame, c->f, status, c->r.status);
    free(c);
    co_queue_wake_all(&s->idle);
}

void megasas_start(struct megasas *s, uint64_t frame)
{
    struct mfi_cmd *c;

    if (s->fw_state == MFI_STATE_FAULT || s->n_flying + s->n_held >= MEGASAS_MAX_CMDS) {
        log_guest("megasas '%s': a frame that the firmware cannot take", name(s));
        return;
    }
    c = xnew(struct mfi_cmd);
    if (!dma_read(&s->pci.dma, frame, c->f, sizeof c->f)) {
        log_guest("megasas '%s': frame 0x%llx is not RAM", name(s), (unsigned long long)frame);
        free(c);
        return;
    }
    c->s = s;
    c->frame = frame;
    c->gen = s->gen;
    c->flags = ld_le16(c->f + MFI_F_FLAGS);
    dma_vec_init(&c->data, &s->pci.dma, true);
    list_push(&s->flying, &c->link);
    s->n_flying++;
    co_spawn(NULL, s->pci.dev.dom, co_frame, c);
}
