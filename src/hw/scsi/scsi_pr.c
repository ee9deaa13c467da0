/* SPDX-License-Identifier: MIT */
#include "hw/scsi/scsi_pr.h"

#include <string.h>
#include "base/bits.h"
#include "hw/scsi/scsi_spec.h"

#define TYPES (1u << PR_WRITE_EXCLUSIVE | 1u << PR_EXCLUSIVE | 1u << PR_WRITE_EXCLUSIVE_RO | 1u << PR_EXCLUSIVE_RO | \
               1u << PR_WRITE_EXCLUSIVE_AR | 1u << PR_EXCLUSIVE_AR)
#define TID_SAS 0x06            /* 7.6.4: format 0, protocol SAS */
#define NOBODY (-1)

/* All registrants: any of them holds the reservation, and its key is shown as zero. */
static bool all_hold(const struct scsi_pr *p) { return p->type >= PR_WRITE_EXCLUSIVE_AR; }
static bool same(const struct scsi_nexus *a, const struct scsi_nexus *b) { return a->initiator == b->initiator && a->port == b->port; }

static int find(const struct scsi_pr *p, const struct scsi_nexus *n)
{
    for (unsigned i = 0; i < SCSI_PR_MAX; i++)
        if (p->reg[i].key && same(&p->reg[i].nexus, n))
            return (int)i;
    return NOBODY;
}

static bool holds(const struct scsi_pr *p, int i) { return p->type && i >= 0 && (all_hold(p) || p->holder == i); }

static unsigned count(const struct scsi_pr *p)
{
    unsigned n = 0;

    for (unsigned i = 0; i < SCSI_PR_MAX; i++)
        n += p->reg[i].key != 0;
    return n;
}

bool scsi_pr_keeps_out(const struct scsi_pr *p, const struct scsi_nexus *n, bool changes)
{
    int i = find(p, n);
    bool exclusive = p->type == PR_EXCLUSIVE || p->type == PR_EXCLUSIVE_RO || p->type == PR_EXCLUSIVE_AR;

    if (!p->type || (p->type >= PR_WRITE_EXCLUSIVE_RO ? i >= 0 : holds(p, i)))
        return false;
    return changes || exclusive;
}

/* ---- what others are told ---- */

static void note(struct scsi_pr_outcome *o, const struct scsi_nexus *to, uint8_t what)
{
    o->note[o->notes].to = *to;
    o->note[o->notes++].what = what;
}

static void note_others(const struct scsi_pr *p, struct scsi_pr_outcome *o, const struct scsi_nexus *by, uint8_t what)
{
    for (unsigned i = 0; i < SCSI_PR_MAX; i++)
        if (p->reg[i].key && !same(&p->reg[i].nexus, by))
            note(o, &p->reg[i].nexus, what);
}

static void conflict(struct scsi_pr_outcome *o) { o->status = SCSI_RESERVATION_CONFLICT; }

static void wrong(struct scsi_pr_outcome *o, uint32_t sense, int field)
{
    o->status = SCSI_CHECK_CONDITION;
    o->sense = sense;
    o->field = field;
}

/* ---- actions ---- */

/* 5.14.11.3: with its holder, or the last of all who hold it, a reservation goes. Those who are left of "registrants only" are told. */
static void unregister(struct scsi_pr *p, int i, struct scsi_pr_outcome *o)
{
    const struct scsi_nexus by = p->reg[i].nexus;
    bool was = holds(p, i) && (!all_hold(p) || count(p) == 1);

    p->reg[i].key = 0;
    if (!was)
        return;
    if (p->type >= PR_WRITE_EXCLUSIVE_RO)
        note_others(p, o, &by, PR_NOTE_RELEASED);
    p->type = 0;
}

/* The place of @n with key @key, made where it has none; NOBODY: all places are taken. */
static int put(struct scsi_pr *p, const struct scsi_nexus *n, uint64_t key)
{
    int at = find(p, n);

    for (unsigned i = 0; at < 0 && i < SCSI_PR_MAX; i++)
        if (!p->reg[i].key)
            at = (int)i;
    if (at >= 0)
        p->reg[at] = (struct scsi_pr_reg){ key, *n };
    return at;
}

static void do_register(struct scsi_pr *p, const struct scsi_nexus *by, const struct scsi_pr_op *op, struct scsi_pr_outcome *o)
{
    int i = find(p, by);

    if (op->action == PR_REGISTER && op->key != (i >= 0 ? p->reg[i].key : 0)) {
        conflict(o);
        return;
    }
    if (!op->arg && i < 0)              /* 5.14.7: nothing to take away */
        return;
    if (!op->arg)
        unregister(p, i, o);
    else if (put(p, by, op->arg) < 0) {
        wrong(o, SENSE_INSUFFICIENT_REGISTRATION, -1);
        return;
    }
    p->aptpl = op->aptpl;
    p->generation++;
}

static bool type_ok(const struct scsi_pr_op *op, struct scsi_pr_outcome *o)
{
    if (!op->scope && op->type < 32 && TYPES >> op->type & 1)
        return true;
    wrong(o, SENSE_INVALID_FIELD_CDB, 2);
    return false;
}

static void reserve(struct scsi_pr *p, int by, const struct scsi_pr_op *op, struct scsi_pr_outcome *o)
{
    if (!type_ok(op, o))
        return;
    if (p->type && (!holds(p, by) || p->type != op->type)) {
        conflict(o);
        return;
    }
    if (!p->type)
        p->holder = (uint8_t)by;
    p->type = op->type;
}

static void release(struct scsi_pr *p, int by, const struct scsi_pr_op *op, struct scsi_pr_outcome *o)
{
    if (!holds(p, by))                  /* 5.14.11.2: no error, nothing happens */
        return;
    if (p->type != op->type || op->scope) {
        wrong(o, SENSE_INVALID_RELEASE, -1);
        return;
    }
    if (p->type >= PR_WRITE_EXCLUSIVE_RO)
        note_others(p, o, &p->reg[by].nexus, PR_NOTE_RELEASED);
    p->type = 0;
}

static void clear(struct scsi_pr *p, int by, struct scsi_pr_outcome *o)
{
    note_others(p, o, &p->reg[by].nexus, PR_NOTE_PREEMPTED);
    memset(p->reg, 0, sizeof p->reg);
    p->type = 0;
    p->generation++;
}

/* Others with @key (0: all others) go and are told. Whether anybody has the key; who asks keeps its own. */
static bool put_out(struct scsi_pr *p, int by, uint64_t key, struct scsi_pr_outcome *o)
{
    bool any = !key || p->reg[by].key == key;

    for (int i = 0; i < (int)SCSI_PR_MAX; i++)
        if (p->reg[i].key && i != by && (!key || p->reg[i].key == key)) {
            note(o, &p->reg[i].nexus, PR_NOTE_UNREGISTERED);
            p->reg[i].key = 0;
            any = true;
        }
    return any;
}

/* 5.14.11.4: whoever has the key is out; if that is the holder's, its reservation becomes one of who asks. */
static void preempt(struct scsi_pr *p, int by, const struct scsi_pr_op *op, struct scsi_pr_outcome *o)
{
    bool takes = p->type && op->arg == (all_hold(p) ? 0 : p->reg[p->holder].key);

    if (!op->arg && !takes) {
        wrong(o, SENSE_INVALID_FIELD_PARAM, 8);
        return;
    }
    if (takes && !type_ok(op, o))
        return;
    if (!put_out(p, by, op->arg, o)) {
        conflict(o);
        return;
    }
    if (takes) {
        if (p->type != op->type)        /* who stays registered gets another kind of reservation */
            note_others(p, o, &p->reg[by].nexus, PR_NOTE_RELEASED);
        p->type = op->type;
        p->holder = (uint8_t)by;
    }
    p->generation++;
}

/* 5.14.8 */
static void move(struct scsi_pr *p, int by, const struct scsi_pr_op *op, struct scsi_pr_outcome *o)
{
    int to;

    if (!holds(p, by) || all_hold(p)) {
        conflict(o);
        return;
    }
    if (!op->arg || same(&p->reg[by].nexus, &op->to)) {
        wrong(o, SENSE_INVALID_FIELD_PARAM, op->arg ? 24 : 8);
        return;
    }
    to = put(p, &op->to, op->arg);
    if (to < 0) {
        wrong(o, SENSE_INSUFFICIENT_REGISTRATION, -1);
        return;
    }
    p->holder = (uint8_t)to;
    if (op->unregister)
        p->reg[by].key = 0;
    p->aptpl = op->aptpl;
    p->generation++;
}

void scsi_pr_apply(struct scsi_pr *p, const struct scsi_nexus *by, const struct scsi_pr_op *op, struct scsi_pr_outcome *o)
{
    int i = find(p, by);

    *o = (struct scsi_pr_outcome){ .status = SCSI_GOOD, .field = -1 };
    if (op->action == PR_REGISTER || op->action == PR_REGISTER_AND_IGNORE) {
        do_register(p, by, op, o);
        return;
    }
    if (i < 0 || op->key != p->reg[i].key) {
        conflict(o);
        return;
    }
    switch (op->action) {
    case PR_RESERVE: reserve(p, i, op, o); break;
    case PR_RELEASE: release(p, i, op, o); break;
    case PR_CLEAR: clear(p, i, o); break;
    case PR_REGISTER_AND_MOVE: move(p, i, op, o); break;
    default: preempt(p, i, op, o); break;
    }
}

void scsi_pr_forget(struct scsi_pr *p, bool (*gone)(const struct scsi_nexus *, void *), void *arg)
{
    for (int i = 0; i < (int)SCSI_PR_MAX; i++)
        if (p->reg[i].key && gone(&p->reg[i].nexus, arg)) {
            if (holds(p, i) && (!all_hold(p) || count(p) == 1))
                p->type = 0;
            p->reg[i].key = 0;
        }
}

/* ---- PERSISTENT RESERVE IN: 6.15 ---- */

unsigned scsi_pr_keys(const struct scsi_pr *p, uint8_t *b)
{
    unsigned n = 0;

    for (unsigned i = 0; i < SCSI_PR_MAX; i++)
        if (p->reg[i].key) {
            st_be64(b + n, p->reg[i].key);
            n += 8;
        }
    return n;
}

unsigned scsi_pr_reservation(const struct scsi_pr *p, uint8_t *b)
{
    if (!p->type)
        return 0;
    memset(b, 0, 16);
    st_be64(b, all_hold(p) ? 0 : p->reg[p->holder].key);
    b[13] = p->type;
    return 16;
}

unsigned scsi_pr_full_status(const struct scsi_pr *p, uint8_t *b)
{
    unsigned n = 0;

    for (unsigned i = 0; i < SCSI_PR_MAX; i++) {
        uint8_t *d = b + n;

        if (!p->reg[i].key)
            continue;
        memset(d, 0, 48);
        st_be64(d, p->reg[i].key);
        if (holds(p, (int)i)) {
            d[12] = 1;                  /* R_HOLDER */
            d[13] = p->type;
        }
        st_be16(d + 18, p->reg[i].nexus.port);
        st_be32(d + 20, 24);
        d[24] = TID_SAS;
        st_be64(d + 28, p->reg[i].nexus.initiator);
        n += 48;
    }
    return n;
}

/* ---- saved state ---- */

static const struct state_field nexus_fields[] = {
    STATE_UINT(struct scsi_nexus, initiator), STATE_UINT(struct scsi_nexus, port), STATE_END
};
static const struct state_desc nexus_state = { .name = "scsi-nexus", .version = 1, .fields = nexus_fields };
static const struct state_field reg_fields[] = {
    STATE_UINT(struct scsi_pr_reg, key), STATE_STRUCT(struct scsi_pr_reg, nexus, &nexus_state), STATE_END
};
static const struct state_desc reg_state = { .name = "scsi-registration", .version = 1, .fields = reg_fields };
static const struct state_field pr_fields[] = {
    STATE_STRUCTS(struct scsi_pr, reg, &reg_state), STATE_UINT(struct scsi_pr, generation),
    STATE_UINT(struct scsi_pr, type, .max = PR_EXCLUSIVE_AR),
    STATE_UINT(struct scsi_pr, holder, .max = SCSI_PR_MAX - 1), STATE_BOOL(struct scsi_pr, aptpl), STATE_END
};
static bool pr_post_load(void *obj, struct err *e)
{
    struct scsi_pr *p = obj;

    if (p->type && (!(TYPES >> p->type & 1) || !count(p) || (!all_hold(p) && !p->reg[p->holder].key)))
        return err_set(e, ERR_VALUE, "a reservation that nobody holds");
    return true;
}
const struct state_desc scsi_pr_state = { .name = "scsi-reservation", .version = 1, .fields = pr_fields, .post_load = pr_post_load };
