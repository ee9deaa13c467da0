/* SPDX-License-Identifier: MIT */
#include "hw/scsi/scsi_lu.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/str.h"
#include "core/dev.h"
#include "hw/scsi/scsi_lu_int.h"

#define CLOCK_MASK 0xffffffffffffull    /* a timestamp has 48 bits */

static struct list units = LIST_INIT(units);    /* main loop */

/* ---- joining and leaving ---- */

/* An address in the locally assigned range (NAA 3) that an adapter has wherever it is plugged the same way: FNV-1a of its path. */
static uint64_t initiator_of(const struct scsi_bus *b)
{
    char *path = dev_path(b->bus.owner);
    uint64_t h = 0xcbf29ce484222325ull;

    for (const char *c = path; *c; c++)
        h = (h ^ (uint8_t)*c) * 0x100000001b3ull;
    free(path);
    return h >> 4 | 3ull << 60;
}

/* Attentions from others, in the path's own domain. */
static void told(void *arg)
{
    static const struct { unsigned note; uint32_t sense; } rows[] = {
        { PR_NOTE_PREEMPTED, SENSE_RESERVATIONS_PREEMPTED }, { PR_NOTE_RELEASED, SENSE_RESERVATIONS_RELEASED },
        { PR_NOTE_UNREGISTERED, SENSE_REGISTRATIONS_PREEMPTED }, { SCSI_NOTE_CLOCK, SENSE_TIMESTAMP_CHANGED },
        { SCSI_NOTE_ACCESS, SENSE_ACCESS_STATE_CHANGED },
    };
    struct scsi_path *p = arg;
    unsigned notes = atomic_exchange(&p->notes, 0);

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        if (notes & rows[i].note)
            scsi_attention(&disk_at(p)->s, rows[i].sense);
}

/* A medium that can be changed is none by which a unit is known. */
static bool is_alone(const struct scsi_disk *d) { return d->removable; }

/* The unit of disks on @d's node, as it is at present: nodes take each other's place while a disk runs. */
static struct scsi_lu *unit_on_node_of(const struct scsi_disk *d)
{
    struct scsi_lu *lu;
    struct scsi_path *p;

    list_for_each(lu, &units, link)
        list_for_each(p, &lu->paths, on_lu)
            if (!is_alone(d) && !is_alone(disk_at(p)) && blk_node_of(disk_at(p)->blk) == blk_node_of(d->blk))
                return lu;
    return NULL;
}

static struct scsi_lu *unit_new(void)
{
    struct scsi_lu *lu = xcalloc(1, sizeof *lu);

    list_init(&lu->paths);
    range_claims_init(&lu->claims);
    atomic_init(&lu->pi_type, -1);
    pthread_mutex_init(&lu->lock, NULL);
    list_push(&units, &lu->link);
    return lu;
}

static void unit_free_unused(struct scsi_lu *lu)
{
    if (!list_empty(&lu->paths))
        return;
    list_del(&lu->link);
    range_claims_fini(&lu->claims);
    pthread_mutex_destroy(&lu->lock);
    free(lu->file);
    free(lu);
}

static bool unit_file(struct scsi_lu *lu, const char *path, struct err *e)
{
    if (!path || str_eq(lu->file, path))
        return true;
    if (lu->file)
        return err_set(e, ERR_VALUE, "pr_file=%s: another disk on the same node has pr_file=%s", path, lu->file);
    if (!list_empty(&lu->paths))
        return err_set(e, ERR_VALUE, "pr_file=%s: another disk on the same node is there already without it", path);
    if (!scsi_pr_file_load(path, &lu->pr, e))
        return false;
    lu->file = xstrdup(path);
    return true;
}

/* Its blocks are the same by all ways. */
static bool same_room(struct scsi_lu *lu, const struct scsi_disk *d, struct err *e)
{
    struct scsi_path *p;

    list_for_each(p, &lu->paths, on_lu)
        if (disk_at(p)->protection != d->protection || (d->protection && scsi_disk_bs(disk_at(p)) != scsi_disk_bs(d)))
            return err_set(e, ERR_VALUE, "protection=%s: '%s' on the same node has blocks of its own with protection=%s", d->protection ? "on" : "off",
                           disk_at(p)->s.dev.obj.id, disk_at(p)->protection ? "on" : "off");
    return true;
}

atomic_int *scsi_lu_pi_type(const struct scsi_disk *d) { return &d->path.lu->pi_type; }

struct range_claims *scsi_lu_claims(struct scsi_disk *d) { return d->path.lu ? &d->path.lu->claims : &d->claims; }

/* The first port number that makes a nexus of its own. */
static uint16_t free_port(struct scsi_lu *lu, uint64_t initiator, uint16_t port)
{
    struct scsi_path *p;
again:
    list_for_each(p, &lu->paths, on_lu)
        if (p->nexus.initiator == initiator && p->nexus.port == port) {
            port++;
            goto again;
        }
    return port;
}

bool scsi_lu_join(struct scsi_disk *d, struct err *e)
{
    uint64_t initiator = initiator_of((struct scsi_bus *)d->s.dev.bus);
    struct scsi_lu *lu = unit_on_node_of(d);

    if (!lu)
        lu = unit_new();
    if (!same_room(lu, d, e) || !scsi_alua_fits(lu, d, e) || !unit_file(lu, d->pr_file, e)) {
        unit_free_unused(lu);
        return false;
    }
    d->path.lu = lu;
    d->path.nexus = (struct scsi_nexus){ initiator, free_port(lu, initiator, d->port_index ? d->port_index : 1) };
    d->path.told = (struct post){ .fn = told, .arg = &d->path, .dom = d->s.dev.dom };
    pthread_mutex_lock(&lu->lock);
    list_push(&lu->paths, &d->path.on_lu);
    pthread_mutex_unlock(&lu->lock);
    return true;
}

void scsi_lu_leave(struct scsi_disk *d)
{
    struct scsi_lu *lu = d->path.lu;

    if (!lu)
        return;
    pthread_mutex_lock(&lu->lock);
    list_del(&d->path.on_lu);
    pthread_mutex_unlock(&lu->lock);
    loop_post_cancel(domain_loop(d->s.dev.dom), &d->path.told);
    d->path.lu = NULL;
    unit_free_unused(lu);
}

struct lost { struct scsi_lu *lu; const struct scsi_path *path; };

static bool is_lost(const struct scsi_nexus *n, void *arg)
{
    struct lost *l = arg;
    struct scsi_path *p;

    list_for_each(p, &l->lu->paths, on_lu)
        if (p != l->path && p->nexus.initiator == n->initiator && p->nexus.port == n->port)
            return false;
    return true;
}

void scsi_lu_power_lost(struct scsi_disk *d)
{
    struct scsi_lu *lu = d->path.lu;
    struct lost l = { lu, &d->path };

    if (!lu)
        return;
    pthread_mutex_lock(&lu->lock);
    if (!lu->pr.aptpl)
        scsi_pr_forget(&lu->pr, is_lost, &l);
    lu->pr.generation = 0;
    lu->clock = (struct scsi_clock){ 0, -(clock_now(CLOCK_VM) / 1000000) };
    pthread_mutex_unlock(&lu->lock);
    atomic_store(&d->path.notes, 0);
}

void scsi_lu_save(const struct scsi_disk *d, struct scsi_pr *pr, struct scsi_clock *clock, struct scsi_defects *defects)
{
    struct scsi_lu *lu = d->path.lu;

    if (!lu)
        return;
    pthread_mutex_lock(&lu->lock);
    *pr = lu->pr;
    *clock = lu->clock;
    *defects = lu->defects;
    pthread_mutex_unlock(&lu->lock);
}

void scsi_lu_load(struct scsi_disk *d, const struct scsi_pr *pr, const struct scsi_clock *clock, const struct scsi_defects *defects)
{
    struct scsi_lu *lu = d->path.lu;

    if (!lu)
        return;
    pthread_mutex_lock(&lu->lock);
    lu->pr = *pr;
    lu->clock = *clock;
    lu->defects = *defects;
    atomic_store(&lu->pi_type, -1);             /* the medium may be one of another machine */
    pthread_mutex_unlock(&lu->lock);
}

/* ---- what a reservation keeps out ---- */

bool scsi_lu_conflict(struct scsi_req *r, const struct scsi_cmd *c)
{
    struct scsi_disk *d = disk_of(r);
    bool changes = c->flags & (SCF_WRITE | SCF_ALTERS), out;

    if (!d->path.lu || c->flags & (SCF_ALWAYS | SCF_SHARED))
        return false;
    if (c->op == OP_START_STOP_UNIT && r->cdb[4] & 1 && !(r->cdb[4] >> 4))      /* SBC-4, table 14: starting it is allowed */
        return false;
    if (c->op == OP_PREVENT_ALLOW && !(r->cdb[4] & 3))                          /* SPC-5, table 67: so is allowing removal */
        return false;
    pthread_mutex_lock(&d->path.lu->lock);
    out = scsi_pr_keeps_out(&d->path.lu->pr, &d->path.nexus, changes);
    pthread_mutex_unlock(&d->path.lu->lock);
    if (out)
        r->status = SCSI_RESERVATION_CONFLICT;
    return out;
}

/* ---- PERSISTENT RESERVE IN ---- */

static void report_capabilities(struct scsi_req *r, const struct scsi_lu *lu, bool active)
{
    uint8_t b[8] = { 0 };

    st_be16(b, sizeof b);
    b[2] = lu->file ? 0x01 : 0;                 /* PTPL_C; no CRH, SIP_C, ATP_C */
    b[3] = (uint8_t)(0x80 | (active ? 0x01 : 0));       /* TMV, PTPL_A */
    b[4] = 0xea;                                /* types 7, 6, 5, 3 and 1 */
    b[5] = 0x01;                                /* type 8 */
    scsi_reply(r, b, sizeof b, ld_be16(r->cdb + 7));
}

void scsi_pr_in(struct scsi_req *r)
{
    struct scsi_lu *lu = disk_of(r)->path.lu;
    uint8_t b[8 + SCSI_PR_DATA] = { 0 };
    unsigned n = 0, action = r->cdb[1] & 0x1f;
    struct scsi_pr pr;

    pthread_mutex_lock(&lu->lock);
    pr = lu->pr;
    pthread_mutex_unlock(&lu->lock);
    switch (action) {
    case PR_READ_KEYS: n = scsi_pr_keys(&pr, b + 8); break;
    case PR_READ_RESERVATION: n = scsi_pr_reservation(&pr, b + 8); break;
    default: n = scsi_pr_full_status(&pr, b + 8); break;
    case PR_REPORT_CAPABILITIES: report_capabilities(r, lu, pr.aptpl); return;
    }
    st_be32(b, pr.generation);
    st_be32(b + 4, n);
    scsi_reply(r, b, 8 + n, ld_be16(r->cdb + 7));
}

/* ---- PERSISTENT RESERVE OUT: on the main loop, one at a time for a unit ---- */

struct change { struct scsi_disk *d; struct scsi_pr_op op; struct scsi_pr_outcome out; struct scsi_pr next; int error; };

/* SAM-5, 5.6: the tasks of a nexus end; but those that wait for this to end cannot be waited for. */
static bool can_be_aborted(const struct scsi_req *r, const void *arg) { return r->cdb[0] != OP_PERSISTENT_RESERVE_OUT; }

static void co_abort_tasks(void *arg)
{
    struct scsi_disk *d = arg;

    if (co_scsi_abort(&d->s, can_be_aborted, NULL, SCSI_HOST_ABORTED))
        scsi_attention(&d->s, SENSE_COMMANDS_CLEARED);
}

static struct scsi_path *path_of(struct scsi_lu *lu, const struct scsi_nexus *n)
{
    struct scsi_path *p;

    list_for_each(p, &lu->paths, on_lu)
        if (p->nexus.initiator == n->initiator && p->nexus.port == n->port)
            return p;
    return NULL;
}

void scsi_lu_note(struct scsi_path *p, unsigned what)
{
    atomic_fetch_or(&p->notes, what);
    domain_post(&p->told);
}

/*
 * A disk that can be addressed as the main loop sees it is not taken down before what is queued for its domain: unplugging hides it on
 * the main loop first, and then waits on the disk's own loop for its requests.
 */
static void co_tell(struct change *c)
{
    struct scsi_lu *lu = c->d->path.lu;

    for (unsigned i = 0; i < c->out.notes; i++) {
        struct scsi_path *p = path_of(lu, &c->out.note[i].to);

        if (!p || !disk_at(p)->s.bus)
            continue;
        if (c->op.action == PR_PREEMPT_AND_ABORT && c->out.note[i].what == PR_NOTE_UNREGISTERED)
            co_on_loop(domain_loop(disk_at(p)->s.dev.dom), disk_at(p)->s.dev.dom, co_abort_tasks, disk_at(p));
        p = path_of(lu, &c->out.note[i].to);    /* it may have gone meanwhile */
        if (p)
            scsi_lu_note(p, c->out.note[i].what);
    }
}

static int save(void *arg)
{
    struct change *c = arg;

    return scsi_pr_file_save(c->d->path.lu->file, &c->next);
}

static bool nexus_possible(struct scsi_lu *lu, uint16_t port)
{
    struct scsi_path *p;

    list_for_each(p, &lu->paths, on_lu)
        if (p->nexus.port == port)
            return true;
    return false;
}

static void co_change(void *arg)
{
    struct change *c = arg;
    struct scsi_lu *lu = c->d->path.lu;
    bool kept;

    co_mutex_lock(&lu->turn);
    pthread_mutex_lock(&lu->lock);
    c->next = lu->pr;
    pthread_mutex_unlock(&lu->lock);
    kept = c->next.aptpl;
    if (c->op.action == PR_REGISTER_AND_MOVE && !nexus_possible(lu, c->op.to.port))
        c->out = (struct scsi_pr_outcome){ .status = SCSI_CHECK_CONDITION, .sense = SENSE_INVALID_FIELD_PARAM, .field = 18 };
    else
        scsi_pr_apply(&c->next, &c->d->path.nexus, &c->op, &c->out);
    if (c->out.status == SCSI_GOOD && (kept || c->next.aptpl))
        c->error = co_offload(save, c);         /* it is kept before anybody hears of it */
    if (c->out.status == SCSI_GOOD && !c->error) {
        pthread_mutex_lock(&lu->lock);
        lu->pr = c->next;
        pthread_mutex_unlock(&lu->lock);
        co_tell(c);
    }
    co_mutex_unlock(&lu->turn);
}

static bool wrong_field(struct scsi_req *r, unsigned byte)
{
    scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, byte);
    return false;
}

/* 6.16.4: the parameter list of REGISTER AND MOVE. */
static bool parse_move(struct scsi_req *r, const uint8_t *b, uint32_t len, struct scsi_pr_op *op)
{
    if (len != 48 || ld_be32(b + 20) != 24)
        return wrong_field(r, 20);
    if (b[24] != 0x06)                          /* 7.6.4.6: a SAS TransportID, which is what this unit shows */
        return wrong_field(r, 24);
    op->aptpl = b[17] & 1;
    op->unregister = b[17] & 2;
    op->to = (struct scsi_nexus){ ld_be64(b + 28), ld_be16(b + 18) };
    return true;
}

/* 6.16.2, 6.16.3. False after scsi_fail(). */
static bool parse(struct scsi_req *r, const struct scsi_lu *lu, struct scsi_pr_op *op)
{
    uint8_t b[48];
    uint32_t len = ld_be32(r->cdb + 5);

    *op = (struct scsi_pr_op){ .action = r->cdb[1] & 0x1f, .scope = r->cdb[2] >> 4, .type = r->cdb[2] & 0x0f };
    if (len > sizeof b || len < 24 || (op->action != PR_REGISTER_AND_MOVE && len != 24) || scsi_take(r, 0, b, len) != len) {
        scsi_fail(r, SENSE_PARAM_LENGTH);
        return false;
    }
    op->key = ld_be64(b);
    op->arg = ld_be64(b + 8);
    if (op->action == PR_REGISTER_AND_MOVE) {
        if (!parse_move(r, b, len, op))
            return false;
    } else if (b[20] & 0x0c) {                  /* SPEC_I_PT, ALL_TG_PT */
        return wrong_field(r, 20);
    } else {
        op->aptpl = b[20] & 1;
    }
    return !op->aptpl || lu->file || wrong_field(r, op->action == PR_REGISTER_AND_MOVE ? 17 : 20);
}

void co_scsi_pr_out(struct scsi_req *r)
{
    struct scsi_lu *lu = disk_of(r)->path.lu;
    struct change c = { .d = disk_of(r) };

    if (!parse(r, lu, &c.op))
        return;
    co_on_loop(loop_main(), NULL, co_change, &c);
    if (c.error) {
        log_warn("scsi: reservations cannot be written to '%s': %s", lu->file, strerror(-c.error));
        scsi_fail(r, SENSE_TARGET_FAILURE);
    } else if (c.out.status != SCSI_CHECK_CONDITION) {
        r->status = c.out.status;
    } else if (c.out.field < 0) {
        scsi_fail(r, c.out.sense);
    } else {
        scsi_fail_field(r, c.out.sense, (unsigned)c.out.field);
    }
}

/* ---- REPORT TIMESTAMP, SET TIMESTAMP: 6.36, 6.48 ---- */

void scsi_report_timestamp(struct scsi_req *r)
{
    struct scsi_lu *lu = disk_of(r)->path.lu;
    uint8_t b[12] = { 0 };
    struct scsi_clock c;
    uint64_t now;

    pthread_mutex_lock(&lu->lock);
    c = lu->clock;
    pthread_mutex_unlock(&lu->lock);
    now = (uint64_t)(clock_now(CLOCK_VM) / 1000000 + c.offset) & CLOCK_MASK;
    st_be16(b, sizeof b - 2);
    b[2] = c.origin;
    st_be16(b + 4, (uint16_t)(now >> 32));
    st_be32(b + 6, (uint32_t)now);
    scsi_reply(r, b, sizeof b, ld_be32(r->cdb + 6));
}

void scsi_set_timestamp(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    struct scsi_lu *lu = d->path.lu;
    struct scsi_path *p;
    uint8_t b[12];

    if (!ld_be32(r->cdb + 6))
        return;
    if (ld_be32(r->cdb + 6) < sizeof b || scsi_take(r, 0, b, sizeof b) != sizeof b) {
        scsi_fail(r, SENSE_PARAM_LENGTH);
        return;
    }
    pthread_mutex_lock(&lu->lock);
    lu->clock = (struct scsi_clock){ 2, (int64_t)((uint64_t)ld_be16(b + 4) << 32 | ld_be32(b + 6)) - clock_now(CLOCK_VM) / 1000000 };
    list_for_each(p, &lu->paths, on_lu)
        if (p != &d->path)
            scsi_lu_note(p, SCSI_NOTE_CLOCK);
    pthread_mutex_unlock(&lu->lock);
}
