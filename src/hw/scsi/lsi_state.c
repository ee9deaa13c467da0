/* SPDX-License-Identifier: MIT */
/* Saved state of the LSI53C895A: its registers and memory, the bus, and commands that wait for it or for the machine to go on. */
#include <stdlib.h>
#include "hw/scsi/lsi.h"

enum { REC_HEAD = 44 };
enum { REC_TAGGED = 1, REC_MAY_LEAVE = 2, REC_TO_DEVICE = 4, REC_TAKEN = 8, REC_DONE = 16, REC_STOPPED = 32, REC_CURRENT = 64 };

static void save_reqs(const void *obj, struct str *out)
{
    const struct lsi *s = obj;
    const struct lsi_req *q;

    list_for_each(q, &s->reqs, link) {
        uint8_t h[REC_HEAD] = { q->target, q->lun, q->tag, q->cdb_len };
        h[4] = (uint8_t)((q->tagged ? REC_TAGGED : 0) | (q->may_leave ? REC_MAY_LEAVE : 0) | (q->to_device ? REC_TO_DEVICE : 0) | (q->taken ? REC_TAKEN : 0) |
                         (q->done ? REC_DONE : 0) | (q->stopped ? REC_STOPPED : 0) | (q == s->cur ? REC_CURRENT : 0));
        h[5] = q->r.status;
        st_le32(h + 8, q->len);
        st_le32(h + 12, q->have);
        st_le32(h + 16, q->pos);
        memcpy(h + 20, q->r.cdb, 16);
        str_addn(out, h, sizeof h);
        str_addn(out, q->buf, q->len);
    }
}

/* One record; its size, 0: it is none. */
static size_t load_req(struct lsi *s, const uint8_t *h, size_t left)
{
    uint32_t len, have, pos;
    struct lsi_req *q;

    if (left < REC_HEAD)
        return 0;
    len = ld_le32(h + 8);
    have = ld_le32(h + 12);
    pos = ld_le32(h + 16);
    if (len > left - REC_HEAD || have > len || pos > len || h[0] >= LSI_TARGETS || h[1] >= 64 || h[3] > 16)
        return 0;
    q = lsi_req_new(s, len);
    if (!q)
        return 0;
    q->target = h[0];
    q->lun = h[1];
    q->tag = h[2];
    q->cdb_len = h[3];
    q->tagged = h[4] & REC_TAGGED;
    q->may_leave = h[4] & REC_MAY_LEAVE;
    q->to_device = h[4] & REC_TO_DEVICE;
    q->taken = h[4] & REC_TAKEN;
    q->done = h[4] & REC_DONE;
    q->stopped = h[4] & REC_STOPPED;
    q->r.status = h[5];
    q->have = have;
    q->pos = pos;
    memcpy(q->r.cdb, h + 20, 16);
    memcpy(q->buf, h + REC_HEAD, len);
    if (h[4] & REC_CURRENT)
        s->cur = q;
    return REC_HEAD + len;
}

static bool load_reqs(void *obj, const void *data, size_t len, struct err *e)
{
    struct lsi *s = obj;
    size_t n;

    lsi_forget_all(s);
    for (const uint8_t *p = data; len; p += n, len -= n) {
        n = load_req(s, p, len);
        if (!n)
            return err_set(e, ERR_VALUE, "lsi53c895a: a command in the saved state is none");
    }
    return true;
}
static const struct state_custom reqs_custom = { save_reqs, load_reqs };

/* A phase that no command stands behind is none. */
static bool lsi_loaded(void *obj, struct err *e)
{
    struct lsi *s = obj;

    if ((s->phase == PH_STATUS || s->phase <= PH_DATA_IN || s->phase == PH_WAIT) && !s->cur)
        s->phase = PH_FREE;
    if (s->over && !s->cur)
        s->over = false;
    s->n_cdb = MIN(s->n_cdb, 15);
    for (unsigned t = 0; t < LSI_TARGETS; t++)
        for (unsigned lun = 0; lun < LSI_LUNS; lun++)
            s->sense[t][lun].len = MIN(s->sense[t][lun].len, SCSI_SENSE_MAX);
    timer_disarm(&s->gen);
    if (s->reg[R_STIME1] & 0xf)
        timer_arm(&s->gen, clock_now(CLOCK_VM) + ((int64_t)125000 << (s->reg[R_STIME1] & 0xf)));
    return true;
}

#define U(f, ...) STATE_UINT(struct lsi, f, __VA_ARGS__)
#define B(f) STATE_BOOL(struct lsi, f)
static const struct state_field lsi_fields[] = {
    STATE_STRUCT(struct lsi, pci, &pci_dev_state), STATE_CUSTOM(struct lsi, reqs, &reqs_custom), STATE_BYTES(struct lsi, reg), STATE_BYTES(struct lsi, ram),
    U(run, .max = LSI_WAIT_PHASE), U(phase, .max = PH_NOBODY), B(carry), B(atn), B(intfly), U(target, .max = 15), U(lun, .max = 63), U(tag), B(tagged),
    B(may_leave), B(leaving), B(over), STATE_BYTES(struct lsi, msg), U(n_msg, .max = LSI_MSG_MAX), STATE_BYTES(struct lsi, cdb), U(n_cdb, .max = 16),
    STATE_BYTES(struct lsi, sense), STATE_END
};
const struct state_desc lsi_state = { .name = "lsi53c895a", .version = 1, .fields = lsi_fields, .post_load = lsi_loaded };
