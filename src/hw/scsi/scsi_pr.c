/* SPDX-License-Identifier: MIT */
/*
 * Persistent reservations (SPC-5, 5.14, 6.15, 6.16). An adapter is one initiator and its bus has no other, so what is kept is the one
 * registration there can be, and a reservation is always its own. They are lost at power on (APTPL is refused).
 */
#include "hw/scsi/scsi_disk.h"

enum { IN_READ_KEYS, IN_READ_RESERVATION, IN_REPORT_CAPABILITIES, IN_READ_FULL_STATUS };
enum { OUT_REGISTER, OUT_RESERVE, OUT_RELEASE, OUT_CLEAR, OUT_PREEMPT, OUT_PREEMPT_AND_ABORT, OUT_REGISTER_AND_IGNORE };
#define TYPES ((1u << 1) | (1u << 3) | (1u << 5) | (1u << 6) | (1u << 7) | (1u << 8))   /* 6.15.3.4 */

/* All registrants: any of them holds the reservation, and its key is shown as zero. */
static bool all_registrants(uint8_t type) { return type >= 7; }

static unsigned read_reservation(const struct scsi_pr *p, uint8_t *b)
{
    if (!p->type)
        return 0;
    st_be64(b, all_registrants(p->type) ? 0 : p->key);
    b[13] = p->type;
    return 16;
}

static unsigned full_status(const struct scsi_pr *p, uint8_t *b)
{
    if (!p->registered)
        return 0;
    st_be64(b, p->key);
    b[12] = p->type ? 1 : 0;                    /* R_HOLDER */
    b[13] = p->type;
    st_be16(b + 18, 1);                         /* relative target port */
    st_be32(b + 20, 24);                        /* 7.6.4.5: a TransportID of parallel SCSI, id 7, port 1 */
    b[24] = 0x01;
    st_be16(b + 26, 7);
    st_be16(b + 30, 1);
    return 48;
}

void scsi_pr_in(struct scsi_req *r)
{
    const struct scsi_pr *p = &disk_of(r)->pr;
    uint8_t b[64] = { 0 };
    unsigned n = 0;

    st_be32(b, p->generation);
    switch (r->cdb[1] & 0x1f) {
    case IN_READ_KEYS:
        if (p->registered) {
            st_be64(b + 8, p->key);
            n = 8;
        }
        break;
    case IN_READ_RESERVATION: n = read_reservation(p, b + 8); break;
    case IN_READ_FULL_STATUS: n = full_status(p, b + 8); break;
    case IN_REPORT_CAPABILITIES:
        st_be16(b, 8);
        b[2] = 0;                               /* no ATP_C, SIP_C, PTPL_C */
        b[3] = 0x80;                            /* TMV */
        b[4] = 0xea;                            /* types 7, 6, 5, 3 and 1 */
        b[5] = 0x01;                            /* type 8 */
        scsi_reply(r, b, 8, ld_be16(r->cdb + 7));
        return;
    default:
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    st_be32(b + 4, n);
    scsi_reply(r, b, 8 + n, ld_be16(r->cdb + 7));
}

static void do_register(struct scsi_req *r, struct scsi_pr *p, uint64_t key, uint64_t new_key, bool ignore)
{
    if (!ignore && key != (p->registered ? p->key : 0)) {
        r->status = SCSI_RESERVATION_CONFLICT;
        return;
    }
    if (!new_key && p->registered)              /* 5.14.11.3: unregistering releases */
        p->type = 0;
    p->registered = new_key != 0;
    p->key = new_key;
    p->generation++;
}

static void reserve(struct scsi_req *r, struct scsi_pr *p, uint8_t type)
{
    if (r->cdb[2] >> 4 || type > 8 || !(TYPES >> type & 1))
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 2);
    else if (p->type && p->type != type)
        r->status = SCSI_RESERVATION_CONFLICT;
    else
        p->type = type;
}

static void release(struct scsi_req *r, struct scsi_pr *p, uint8_t type)
{
    if (p->type && p->type != type)
        scsi_fail(r, SENSE_INVALID_RELEASE);
    else
        p->type = 0;
}

/* 5.14.11.4: whoever has the key is out, and the reservation of its holder is taken. */
static void preempt(struct scsi_req *r, struct scsi_pr *p, uint8_t type, uint64_t victim)
{
    if (p->type && all_registrants(p->type) && !victim) {
        p->type = type;                         /* all others go: there is none */
    } else if (!victim) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, 8);
        return;
    } else if (victim != p->key) {
        r->status = SCSI_RESERVATION_CONFLICT;  /* nobody has it */
        return;
    } else if (p->type) {
        p->type = type;                         /* its own: the type changes */
    }
    p->generation++;
}

void scsi_pr_out(struct scsi_req *r)
{
    struct scsi_pr *p = &disk_of(r)->pr;
    uint8_t b[24], sa = r->cdb[1] & 0x1f, type = r->cdb[2] & 0x0f;
    uint64_t key, arg;

    if (ld_be32(r->cdb + 5) != sizeof b || scsi_take(r, 0, b, sizeof b) != sizeof b) {
        scsi_fail(r, SENSE_PARAM_LENGTH);
        return;
    }
    key = ld_be64(b);
    arg = ld_be64(b + 8);
    if (b[20] & 0x0d) {                         /* SPEC_I_PT, ALL_TG_PT, APTPL */
        scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, 20);
        return;
    }
    if (sa == OUT_REGISTER || sa == OUT_REGISTER_AND_IGNORE) {
        do_register(r, p, key, arg, sa == OUT_REGISTER_AND_IGNORE);
        return;
    }
    if (sa > OUT_PREEMPT_AND_ABORT) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    if (!p->registered || key != p->key) {
        r->status = SCSI_RESERVATION_CONFLICT;
        return;
    }
    switch (sa) {
    case OUT_RESERVE: reserve(r, p, type); break;
    case OUT_RELEASE: release(r, p, type); break;
    case OUT_CLEAR:
        p->registered = false;
        p->type = 0;
        p->key = 0;
        p->generation++;
        break;
    default: preempt(r, p, type, arg); break;
    }
}

static const struct state_field pr_fields[] = {
    STATE_BOOL(struct scsi_pr, registered), STATE_UINT(struct scsi_pr, type, .max = 8), STATE_UINT(struct scsi_pr, key),
    STATE_UINT(struct scsi_pr, generation), STATE_END
};
const struct state_desc scsi_pr_state = { .name = "scsi-reservation", .version = 1, .fields = pr_fields };
