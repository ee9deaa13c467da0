/* SPDX-License-Identifier: MIT */
/* The other side of the bus: targets that are selected, take messages and commands, leave, come back, move data (SPI-3, SCSI-2 6 and 7). */
#include <stdlib.h>
#include "base/log.h"
#include "hw/scsi/lsi.h"

enum { MSG_COMPLETE = 0x00, MSG_EXTENDED = 0x01, MSG_SAVE_POINTERS = 0x02, MSG_DISCONNECT = 0x04, MSG_ABORT_SET = 0x06, MSG_REJECT = 0x07,
       MSG_TARGET_RESET = 0x0c, MSG_ABORT_TASK = 0x0d, MSG_CLEAR_SET = 0x0e, MSG_LUN_RESET = 0x17, MSG_SIMPLE = 0x20, MSG_ORDERED = 0x22,
       MSG_IDENTIFY = 0x80, IDENTIFY_MAY_LEAVE = 0x40 };

/* ---- requests ---- */

struct lsi_req *lsi_req_new(struct lsi *s, uint32_t len)
{
    struct lsi_req *q;

    if (s->n_reqs >= LSI_REQS || len > LSI_MEMORY - MIN(s->memory, LSI_MEMORY))
        return NULL;
    q = xnew(struct lsi_req);
    q->buf = len ? calloc(1, len) : xcalloc(1, 1);
    if (!q->buf) {
        free(q);
        return NULL;
    }
    q->s = s;
    q->len = len;
    q->iov = (struct iovec){ q->buf, len };
    q->vec = (struct dma_vec){ .dma = &s->pci.dma, .dev_writes = true, .n = 1, .cap = 1, .iov = &q->iov, .len = len };
    s->memory += len;
    s->n_reqs++;
    list_push(&s->reqs, &q->link);
    return q;
}

void lsi_req_free(struct lsi_req *q)
{
    struct lsi *s = q->s;

    if (s->cur == q)
        s->cur = NULL;
    list_del(&q->link);
    s->memory -= q->len;
    s->n_reqs--;
    free(q->buf);
    free(q);
}

/* Nobody waits for it any more. It goes when the unit lets it. */
static void kill_req(struct lsi_req *q)
{
    if (!q->flying) {
        lsi_req_free(q);
        return;
    }
    q->dead = true;
    q->r.abort = SCSI_HOST_ABORTED;
    if (q->s->cur == q)
        q->s->cur = NULL;
}

static void kill_matching(struct lsi *s, int target, int lun, int tag)
{
    struct lsi_req *q;

    list_for_each(q, &s->reqs, link)
        if ((target < 0 || q->target == target) && (lun < 0 || q->lun == lun) && (tag < 0 || (q->tagged && q->tag == tag)))
            kill_req(q);
}

/* ---- phases ---- */

static void bus_free(struct lsi *s)
{
    s->phase = PH_FREE;
    s->cur = NULL;
    s->atn = s->leaving = s->over = false;
    s->n_msg = s->n_cdb = 0;
}

static void say(struct lsi *s, uint8_t m)
{
    if (s->n_msg < LSI_MSG_MAX)
        s->msg[s->n_msg++] = m;
    s->phase = PH_MSG_IN;
}

/* What the connected target asks for next, after messages. */
static void next_phase(struct lsi *s)
{
    struct lsi_req *q = s->cur;

    if (s->n_msg)
        s->phase = PH_MSG_IN;
    else if (s->atn)
        s->phase = PH_MSG_OUT;
    else if (!q)
        s->phase = PH_COMMAND;
    else if (!q->done && q->to_device && q->pos < q->len && !q->flying)
        s->phase = PH_DATA_OUT;
    else if (!q->done)
        s->phase = PH_WAIT;
    else if (!q->to_device && q->pos < q->have)
        s->phase = PH_DATA_IN;
    else
        s->phase = PH_STATUS;
}

/* The unit has it: whoever may leaves the bus meanwhile. */
static void after_submit(struct lsi *s, struct lsi_req *q)
{
    if (!q->done && q->may_leave && s->cur == q) {
        if (q->taken)
            say(s, MSG_SAVE_POINTERS);
        say(s, MSG_DISCONNECT);
        s->leaving = true;
    }
    next_phase(s);
}

static void keep_sense(struct lsi_req *q)
{
    struct lsi *s = q->s;

    if (q->target >= LSI_TARGETS || q->lun >= LSI_LUNS)
        return;
    s->sense[q->target][q->lun].len = q->r.status == SCSI_CHECK_CONDITION ? q->r.sense_len : 0;
    memcpy(s->sense[q->target][q->lun].data, q->r.sense, SCSI_SENSE_MAX);
}

static void finish(struct lsi_req *q)
{
    struct lsi *s = q->s;

    q->done = true;
    q->have = q->to_device ? 0 : (uint32_t)MIN(q->r.done, q->len);
    q->pos = q->to_device ? q->pos : 0;
    keep_sense(q);
    if (s->cur == q && s->phase == PH_WAIT) {
        next_phase(s);
        if (s->run == LSI_WAIT_PHASE)
            s->run = LSI_RUNNING;
    }
    if (s->run == LSI_WAIT_RESELECT || s->run == LSI_RUNNING)
        domain_post(&s->more);
}

/* The reset of a unit that takes its time would end a command that came after it, too, and nobody would hear of that. */
static bool waits_for_reset(struct lsi *s, const struct lsi_req *q)
{
    const struct scsi_dev *d = scsi_find(s->bus, 0, q->target, q->lun, false);

    return d && !q->dead && (s->reset_luns[q->target] >> q->lun & 1 || s->reset_now == d);
}

static void co_request(void *arg)
{
    struct lsi_req *q = arg;
    struct lsi *s = q->s;
    struct scsi_dev *d;

    while (waits_for_reset(s, q))
        co_queue_wait(&s->idle);
    d = q->dead ? NULL : scsi_find(s->bus, 0, q->target, q->lun, true);
    if (d)
        co_scsi_run(&q->r, d);
    else
        q->r.status = SCSI_BUSY;                    /* the target was taken away meanwhile */
    q->flying = false;
    s->n_flying--;
    if (q->dead || q->r.host == SCSI_HOST_ABORTED || q->r.host == SCSI_HOST_RESET)
        lsi_req_free(q);
    else if (q->r.host == SCSI_HOST_STOPPED)
        q->stopped = true;
    else
        finish(q);
    co_queue_wake_all(&s->idle);
}

void lsi_submit(struct lsi_req *q)
{
    struct lsi *s = q->s;

    q->stopped = false;
    q->r.tag = (uint64_t)(uintptr_t)q;
    q->r.lun = q->lun;
    q->r.out = (struct scsi_data){ &q->vec, 0, q->to_device ? q->len : 0 };
    q->r.in = (struct scsi_data){ &q->vec, 0, q->to_device ? 0 : q->len };
    q->flying = true;
    s->n_flying++;
    co_spawn(NULL, s->pci.dev.dom, co_request, q);
}

/* Sense data of the last command: the unit has told it already, so it is kept here. */
static bool kept_sense(struct lsi *s, struct lsi_req *q)
{
    if (q->r.cdb[0] != OP_REQUEST_SENSE || q->target >= LSI_TARGETS || q->lun >= LSI_LUNS || !s->sense[q->target][q->lun].len)
        return false;
    q->have = MIN(q->len, s->sense[q->target][q->lun].len);
    memcpy(q->buf, s->sense[q->target][q->lun].data, q->have);
    s->sense[q->target][q->lun].len = 0;
    q->done = true;
    return true;
}

static void start_command(struct lsi *s)
{
    const struct scsi_dev *d = scsi_find(s->bus, 0, s->target, s->lun, true);
    bool to_device = false;
    uint32_t len = d ? scsi_transfer_len(d, s->cdb, &to_device) : 0;
    struct lsi_req *q = lsi_req_new(s, len);
    bool full = !q;

    if (full)
        q = lsi_req_new(s, 0);
    if (!q) {
        bus_free(s);
        return;
    }
    memcpy(q->r.cdb, s->cdb, s->n_cdb);
    q->cdb_len = s->n_cdb;
    q->target = s->target;
    q->lun = s->lun;
    q->tag = s->tag;
    q->tagged = s->tagged;
    q->may_leave = s->may_leave;
    q->to_device = to_device && !full;
    s->cur = q;
    s->n_cdb = 0;
    if (full) {
        q->done = true;
        q->r.status = SCSI_TASK_SET_FULL;
    } else if (!kept_sense(s, q) && !(q->to_device && q->len)) {
        lsi_submit(q);
        after_submit(s, q);
        return;
    }
    next_phase(s);
}

/* ---- selection ---- */

void lsi_select(struct lsi *s, uint8_t id, bool atn)
{
    bus_free(s);
    s->target = id;
    s->lun = s->tag = 0;
    s->tagged = s->may_leave = false;
    s->atn = atn;
    s->phase = !scsi_find(s->bus, 0, id, 0, true) ? PH_NOBODY : atn ? PH_MSG_OUT : PH_COMMAND;
}

/* SCSI-2, 6.1.4: the target says who it is and which command it goes on with. */
bool lsi_reselect(struct lsi *s)
{
    struct lsi_req *q;

    list_for_each(q, &s->reqs, link) {
        if (!q->done || q == s->cur || q->dead)
            continue;
        bus_free(s);
        s->cur = q;
        s->target = q->target;
        s->lun = q->lun;
        s->reg[R_SSID] = 0x80 | q->target;
        say(s, MSG_IDENTIFY | q->lun);
        if (q->tagged) {
            say(s, MSG_SIMPLE);
            say(s, q->tag);
        }
        return true;
    }
    return false;
}

void lsi_set_atn(struct lsi *s)
{
    s->atn = true;
    if (s->phase < PH_FREE && s->phase != PH_DATA_OUT && s->phase != PH_DATA_IN) {
        s->n_msg = 0;                               /* what it still had to say is not heard */
        s->phase = PH_MSG_OUT;
    }
}

/* ---- messages from the chip ---- */

/* However often the host asks, one goes over the units; what is asked for meanwhile is done once more. */
static void co_reset(void *arg)
{
    struct lsi *s = arg;
    bool more = true;

    while (more) {
        more = false;
        for (unsigned t = 0; t < LSI_TARGETS; t++)
            for (unsigned lun = 0; lun < LSI_LUNS; lun++) {
                struct scsi_dev *d = s->reset_luns[t] >> lun & 1 ? scsi_find(s->bus, 0, t, lun, false) : NULL;
                s->reset_luns[t] &= (uint8_t)~(1u << lun);
                if (!d)
                    continue;
                more = true;
                s->reset_now = d;
                co_scsi_reset(d, s->reset_bus ? SENSE_BUS_RESET : SENSE_DEVICE_RESET);
                s->reset_now = NULL;
                co_queue_wake_all(&s->idle);
            }
    }
    s->resetting = s->reset_bus = false;
    s->n_flying--;
    co_queue_wake_all(&s->idle);
}

static void reset_begin(struct lsi *s)
{
    if (s->resetting)
        return;
    s->resetting = true;
    s->n_flying++;
    co_spawn(NULL, s->pci.dev.dom, co_reset, s);
}

/* @lun 0xff: all of its units. */
static void reset_target(struct lsi *s, uint8_t target, uint8_t lun)
{
    kill_matching(s, target, lun == 0xff ? -1 : lun, -1);
    if (target >= LSI_TARGETS || (lun != 0xff && lun >= LSI_LUNS))
        return;
    s->reset_luns[target] |= lun == 0xff ? 0xff : (uint8_t)(1u << lun);
    reset_begin(s);
}

/* One message; false: the bus is free after it. */
static bool message(struct lsi *s, uint8_t m, uint8_t arg)
{
    if (m & MSG_IDENTIFY) {
        s->lun = m & 0x3f;
        s->may_leave = m & IDENTIFY_MAY_LEAVE;
        return true;
    }
    switch (m) {
    case MSG_SIMPLE: case MSG_SIMPLE + 1: case MSG_ORDERED:
        s->tagged = true;
        s->tag = arg;
        return true;
    case MSG_ABORT_TASK:
        kill_matching(s, s->target, s->lun, s->tagged ? s->tag : -1);
        return false;
    case MSG_ABORT_SET: case MSG_CLEAR_SET:
        kill_matching(s, s->target, s->lun, -1);
        return false;
    case MSG_TARGET_RESET:
        reset_target(s, s->target, 0xff);
        return false;
    case MSG_LUN_RESET:
        reset_target(s, s->target, s->lun);
        return false;
    case MSG_EXTENDED:                              /* transfers are as fast as they are: there is nothing to agree on */
        say(s, MSG_REJECT);
        return true;
    default:
        return true;
    }
}

static uint32_t message_len(const uint8_t *m, uint32_t n)
{
    if (m[0] == MSG_EXTENDED)
        return n < 2 ? n : MIN(n, 2u + (m[1] ? m[1] : 256u));
    return m[0] >= MSG_SIMPLE && m[0] <= 0x2f ? MIN(n, 2u) : 1;
}

static uint32_t take_messages(struct lsi *s, const uint8_t *m, uint32_t n)
{
    uint32_t len;

    s->atn = false;                                 /* it falls with the last byte */
    for (uint32_t i = 0; i < n; i += len) {
        len = message_len(m + i, n - i);
        if (!message(s, m[i], len > 1 ? m[i + 1] : 0)) {
            bus_free(s);
            return n;
        }
    }
    next_phase(s);
    return n;
}

/* ---- transfers ---- */

static uint32_t cdb_size(uint8_t op)
{
    static const uint8_t sizes[8] = { 6, 10, 10, 16, 16, 12, 16, 16 };      /* SPC-5, 4.2.5.1 */

    return sizes[op >> 5];
}

static uint32_t take_command(struct lsi *s, const uint8_t *buf, uint32_t n)
{
    uint32_t i = 0;

    while (i < n && (!s->n_cdb || s->n_cdb < cdb_size(s->cdb[0])))
        s->cdb[s->n_cdb++] = buf[i++];
    if (s->n_cdb == cdb_size(s->cdb[0]))
        start_command(s);
    return i;
}

/* What has come so far says that more belongs to it. */
static bool more_to_take(struct lsi_req *q)
{
    uint32_t rest = q->len == 4 ? scsi_list_rest(q->r.cdb, q->buf) : 0;
    uint8_t *buf = rest ? realloc(q->buf, q->len + rest) : NULL;

    if (!buf)
        return false;
    q->buf = buf;
    q->len += rest;
    q->s->memory += rest;
    q->iov = (struct iovec){ q->buf, q->len };
    q->vec.len = q->len;
    return true;
}

static uint32_t take_data(struct lsi *s, const uint8_t *buf, uint32_t n)
{
    struct lsi_req *q = s->cur;

    n = MIN(n, q->len - q->pos);
    memcpy(q->buf + q->pos, buf, n);
    q->pos += n;
    if (q->pos == q->len && !more_to_take(q)) {
        q->taken = true;
        lsi_submit(q);
        if (s->cur == q)
            after_submit(s, q);
    }
    return n;
}

uint32_t lsi_move_out(struct lsi *s, const uint8_t *buf, uint32_t n)
{
    switch (s->phase) {
    case PH_MSG_OUT: return take_messages(s, buf, n);
    case PH_COMMAND: return take_command(s, buf, n);
    case PH_DATA_OUT: return take_data(s, buf, n);
    default: return 0;
    }
}

static uint32_t give_messages(struct lsi *s, uint8_t *buf, uint32_t n)
{
    n = MIN(n, s->n_msg);
    memcpy(buf, s->msg, n);
    s->n_msg = (uint8_t)(s->n_msg - n);
    memmove(s->msg, s->msg + n, s->n_msg);
    if (s->n_msg)
        return n;
    if (s->over && s->cur)
        lsi_req_free(s->cur);
    if (s->over || s->leaving)
        bus_free(s);
    else
        next_phase(s);
    return n;
}

static uint32_t give_data(struct lsi *s, uint8_t *buf, uint32_t n)
{
    struct lsi_req *q = s->cur;

    n = MIN(n, q->have - q->pos);
    memcpy(buf, q->buf + q->pos, n);
    q->pos += n;
    next_phase(s);
    return n;
}

uint32_t lsi_move_in(struct lsi *s, uint8_t *buf, uint32_t n)
{
    if (s->phase == PH_MSG_IN)
        return give_messages(s, buf, n);
    if (s->phase == PH_DATA_IN)
        return give_data(s, buf, n);
    if (s->phase != PH_STATUS || !n)
        return 0;
    buf[0] = s->cur->r.status;
    s->over = true;
    say(s, MSG_COMPLETE);
    return 1;
}

/* ---- resets ---- */

void lsi_forget_all(struct lsi *s)
{
    bus_free(s);
    kill_matching(s, -1, -1, -1);
}

void lsi_bus_reset(struct lsi *s)
{
    lsi_forget_all(s);
    memset(s->sense, 0, sizeof s->sense);
    memset(s->reset_luns, 0xff, sizeof s->reset_luns);
    s->reset_bus = true;
    reset_begin(s);
}
