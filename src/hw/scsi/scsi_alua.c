/* SPDX-License-Identifier: MIT */
/*
 * Asymmetric logical unit access (SPC-5, 5.15): ports of disks on one node are in groups, and each group has a state, which the command
 * line, a monitor (port_state) or an initiator (SET TARGET PORT GROUPS) sets. Groups and states are changed on the main loop.
 */
#include "hw/scsi/scsi_lu_int.h"

#define GROUPS_MAX 32u                          /* with which a unit is told of; each has one port at least */

const char *const scsi_access_names[] = { "active-optimized", "active-non-optimized", "standby", "unavailable", "offline", "transitioning", NULL };
static const enum scsi_access states[] = { ACCESS_OPTIMIZED, ACCESS_NON_OPTIMIZED, ACCESS_STANDBY, ACCESS_UNAVAILABLE, ACCESS_OFFLINE, ACCESS_TRANSITION };

bool scsi_alua_fits(struct scsi_lu *lu, const struct scsi_disk *d, struct err *e)
{
    struct scsi_path *p;
    unsigned n = 1;

    if (d->port_group && !d->port_index) {
        err_set(e, ERR_VALUE, "port_group=%u: a port in a group has a number", d->port_group);
        return err_hint(e, "port_index= gives it one, another for each way to the unit");
    }
    if (!d->port_group && d->port_state)
        return err_set(e, ERR_VALUE, "port_state=%s: '%s' is in no group of ports (port_group)", scsi_access_names[d->port_state], d->s.dev.obj.id);
    list_for_each(p, &lu->paths, on_lu) {
        const struct scsi_disk *o = disk_at(p);
        n++;
        if (!o->port_group != !d->port_group)
            return err_set(e, ERR_VALUE, "port_group=%u: '%s' on the same node has port_group=%u; all have one, or none", d->port_group,
                           o->s.dev.obj.id, o->port_group);
        if (d->port_group && o->port_index == d->port_index)
            return err_set(e, ERR_BUSY, "port_index=%u is that of '%s' on the same node", d->port_index, o->s.dev.obj.id);
        if (d->port_group && o->port_group == d->port_group && o->port_state != d->port_state)
            return err_set(e, ERR_VALUE, "port_state=%s: '%s' is in the same group, which is %s", scsi_access_names[d->port_state], o->s.dev.obj.id,
                           scsi_access_names[o->port_state]);
    }
    return !d->port_group || n <= GROUPS_MAX || err_set(e, ERR_BUSY, "%u ports of one unit are in groups, the most is %u", n, GROUPS_MAX);
}

/* All ports of a group, and all ways hear of it but the one that asked. Main loop. */
static void set_state(struct scsi_lu *lu, uint16_t group, int state, const struct scsi_path *by)
{
    struct scsi_path *p;
    bool changes = false;

    list_for_each(p, &lu->paths, on_lu) {
        struct scsi_disk *d = disk_at(p);
        if (d->port_group != group)
            continue;
        changes |= atomic_exchange(&d->access, states[state]) != states[state];
        d->port_state = state;
    }
    list_for_each(p, &lu->paths, on_lu)
        if (changes && p != by && disk_at(p)->s.bus)
            scsi_lu_note(p, SCSI_NOTE_ACCESS);
}

bool scsi_access_changed(struct obj *o, const struct prop *p, struct err *e)
{
    struct scsi_disk *d = (struct scsi_disk *)o;

    if (!d->path.lu) {                          /* before it is realized */
        atomic_store(&d->access, states[d->port_state]);
        return true;
    }
    if (!d->port_group)
        return err_set(e, ERR_STATE, "port_state: '%s' is in no group of ports (port_group)", o->id);
    set_state(d->path.lu, d->port_group, d->port_state, NULL);
    return true;
}

void scsi_access_load(struct scsi_disk *d) { atomic_store(&d->access, states[d->port_state]); }

/* 5.15.2.4.3 to 5.15.2.4.6 */
uint32_t scsi_access_sense(const struct scsi_disk *d, const struct scsi_cmd *c)
{
    enum scsi_access a = atomic_load(&d->access);
    bool moves = c->flags & SCF_MEDIUM || c->op == OP_START_STOP_UNIT || c->op == OP_PREVENT_ALLOW;

    if (a <= ACCESS_NON_OPTIMIZED || c->flags & SCF_ALWAYS || (c->flags & SCF_GROUPS && a != ACCESS_OFFLINE))
        return 0;
    switch (a) {
    case ACCESS_STANDBY: return moves ? SENSE_ACCESS_STANDBY : 0;
    case ACCESS_UNAVAILABLE: return SENSE_ACCESS_UNAVAILABLE;
    case ACCESS_TRANSITION: return SENSE_ACCESS_TRANSITION;
    default: return SENSE_UNIT_OFFLINE;
    }
}

/* ---- REPORT TARGET PORT GROUPS: 6.37 ---- */

struct group { uint16_t id; uint8_t access, n; uint16_t port[GROUPS_MAX]; };

/* Under the unit's lock. */
static unsigned collect(struct scsi_lu *lu, struct group *g)
{
    struct scsi_path *p;
    unsigned n = 0;

    list_for_each(p, &lu->paths, on_lu) {
        const struct scsi_disk *d = disk_at(p);
        unsigned i = 0;
        while (i < n && g[i].id != d->port_group)
            i++;
        if (i == n)
            g[n++] = (struct group){ .id = d->port_group, .access = (uint8_t)atomic_load(&d->access) };
        g[i].port[g[i].n++] = d->port_index;
    }
    return n;
}

void scsi_report_port_groups(struct scsi_req *r)
{
    struct scsi_lu *lu = disk_of(r)->path.lu;
    struct group g[GROUPS_MAX];
    uint8_t b[8 + 12 * GROUPS_MAX] = { 0 };
    unsigned format = r->cdb[1] >> 5, n, at = format ? 8 : 4;

    if (format > 1) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    pthread_mutex_lock(&lu->lock);
    n = collect(lu, g);
    pthread_mutex_unlock(&lu->lock);
    for (unsigned i = 0; i < n; i++) {
        b[at] = g[i].access;                    /* table 312; no group is preferred */
        b[at + 1] = 0xcf;                       /* all states but that of dependent units can be */
        st_be16(b + at + 2, g[i].id);
        b[at + 7] = g[i].n;
        at += 8;
        for (unsigned k = 0; k < g[i].n; k++, at += 4)
            st_be16(b + at + 2, g[i].port[k]);
    }
    st_be32(b, at - 4);
    b[4] |= format ? 0x10 : 0;                  /* the extended header; a transition takes no time */
    scsi_reply(r, b, at, ld_be32(r->cdb + 6));
}

/* ---- SET TARGET PORT GROUPS: 6.49, on the main loop ---- */

struct set { struct scsi_disk *d; unsigned n; uint8_t list[4 * GROUPS_MAX]; int wrong; };

static int state_of(uint8_t access)
{
    for (unsigned i = 0; i < ARRAY_SIZE(states); i++)
        if (states[i] == access && access <= ACCESS_UNAVAILABLE)        /* offline and transitioning are not for initiators to set */
            return (int)i;
    return -1;
}

static bool has_group(struct scsi_lu *lu, uint16_t group)
{
    struct scsi_path *p;

    list_for_each(p, &lu->paths, on_lu)
        if (disk_at(p)->port_group == group)
            return true;
    return false;
}

static void set_groups(void *arg)
{
    struct set *s = arg;
    struct scsi_lu *lu = s->d->path.lu;

    for (unsigned i = 0; i < s->n && s->wrong < 0; i++) {
        const uint8_t *p = s->list + 4 * i;
        if (state_of(p[0] & 0x0f) < 0)
            s->wrong = (int)(4 + 4 * i);
        else if (!has_group(lu, ld_be16(p + 2)))
            s->wrong = (int)(4 + 4 * i + 2);
    }
    for (unsigned i = 0; i < s->n && s->wrong < 0; i++)
        set_state(lu, ld_be16(s->list + 4 * i + 2), state_of(s->list[4 * i] & 0x0f), &s->d->path);
}

void co_scsi_set_port_groups(struct scsi_req *r)
{
    struct set s = { .d = disk_of(r), .wrong = -1 };
    uint32_t len = ld_be32(r->cdb + 6);

    if (!len)
        return;
    if (len < 4 || len % 4 || len > 4 + sizeof s.list || scsi_take(r, 4, s.list, len - 4) != len - 4) {
        scsi_fail(r, SENSE_PARAM_LENGTH);
        return;
    }
    s.n = (len - 4) / 4;
    co_on_loop(loop_main(), NULL, set_groups, &s);
    if (s.wrong >= 0)
        scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, (unsigned)s.wrong);
}
