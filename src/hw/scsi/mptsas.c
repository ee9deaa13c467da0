/* SPDX-License-Identifier: MIT */
/* The SAS1068 function: registers, doorbell, interrupts, options, life. */
#include "hw/scsi/mptsas.h"

#include "base/log.h"

enum { IO_SIZE = 0x100, MMIO_SIZE = 0x4000, DIAG_SIZE = 0x10000 };

static const char *name(const struct mptsas *s) { return s->pci.dev.obj.id; }

/* ---- queues of words ---- */

bool mpt_fifo_put(struct mpt_fifo *f, uint32_t v)
{
    if (f->n == MPTSAS_FIFO)
        return false;
    f->v[(f->head + f->n++) % MPTSAS_FIFO] = v;
    return true;
}

bool mpt_fifo_get(struct mpt_fifo *f, uint32_t *v)
{
    if (!f->n)
        return false;
    *v = f->v[f->head];
    f->head = (f->head + 1) % MPTSAS_FIFO;
    f->n--;
    return true;
}

/* ---- interrupts ---- */

static uint32_t int_status(const struct mptsas *s) { return s->int_status | (s->post.n ? MPI_HIS_REPLY : 0); }

void mptsas_update_line(struct mptsas *s)
{
    bool on = int_status(s) & ~s->int_mask & (MPI_HIS_REPLY | MPI_HIS_DOORBELL);

    if (on && !s->raised)
        pci_msi_notify(&s->pci, 0);
    s->raised = on;
    pci_intx_set(&s->pci, on && !pci_msi_enabled(&s->pci));
}

static void doorbell_raise(struct mptsas *s)
{
    s->int_status |= MPI_HIS_DOORBELL;
    mptsas_update_line(s);
}

/* ---- resets ---- */

/* Messages in flight and answers that were not fetched are forgotten; the controller is ready. */
static void soft_reset(struct mptsas *s)
{
    struct mpt_req *q;

    s->gen++;
    s->n_held = 0;
    list_for_each(q, &s->flying, link)
        q->r.abort = SCSI_HOST_RESET;
    s->state = MPI_IOC_READY;
    s->fault = 0;
    s->who = MPI_WHO_NOBODY;
    s->max_devices = s->max_buses = 0;
    s->reply_size = 0;
    s->mfa_high = s->sense_high = 0;
    s->door = DOORBELL_IDLE;
    s->door_n = s->door_at = 0;
    s->free.n = s->post.n = 0;
    s->events_on = false;
    s->n_events = 0;
    s->int_status = 0;
    mptsas_update_line(s);
}

static void hard_reset(struct mptsas *s)
{
    soft_reset(s);
    s->int_mask = MPI_HIS_REPLY | MPI_HIS_DOORBELL;
    s->diag_key = 0;
    s->diag = MPI_DIAG_RESET_HISTORY;
    mptsas_update_line(s);
}

/* The firmware has stopped; the host finds out by the doorbell, and resets it. */
void mptsas_fault(struct mptsas *s, uint32_t code)
{
    log_guest("mptsas '%s': the firmware stops with fault 0x%04x", name(s), code);
    s->state = MPI_IOC_FAULT;
    s->fault = code;
}

/* The diagnostic register opens after five keys, in their order. */
static void write_sequence(struct mptsas *s, uint32_t v)
{
    static const uint8_t keys[] = { 0x04, 0x0b, 0x02, 0x07, 0x0d };

    v &= 0x0f;
    if (v == keys[s->diag_key]) {
        if (++s->diag_key == sizeof keys) {
            s->diag_key = 0;
            s->diag |= MPI_DIAG_DRWE;
        }
        return;
    }
    s->diag_key = v == keys[0];
    s->diag &= ~(uint32_t)MPI_DIAG_DRWE;
}

static void write_diag(struct mptsas *s, uint32_t v)
{
    if (!(s->diag & MPI_DIAG_DRWE))
        return;
    if (v & MPI_DIAG_RESET_ADAPTER)
        hard_reset(s);
    else if (!(v & MPI_DIAG_RESET_HISTORY))
        s->diag &= ~(uint32_t)MPI_DIAG_RESET_HISTORY;
}

/* ---- the doorbell: a word a write from the host, half a word a time back, each acknowledged ---- */

static void doorbell_run(struct mptsas *s)
{
    uint8_t reply[MPTSAS_FRAME];
    bool waits = s->door_buf[MPI_M_FUNCTION] != MPI_SCSI_IO && mptsas_waits(s, s->door_buf);
    unsigned n = 0;

    if (waits)                                  /* its answer comes through the queue */
        mptsas_spawn(s, s->door_buf, 0);
    else
        n = mptsas_message(s, s->door_buf, reply);
    s->door = n ? DOORBELL_REPLY : DOORBELL_IDLE;
    s->door_n = n / 2;
    s->door_at = 0;
    memcpy(s->door_buf, reply, n);
    if (n)
        doorbell_raise(s);
}

static void doorbell_begin(struct mptsas *s, uint32_t v)
{
    unsigned n = v >> 16 & 0xff;

    if (s->door != DOORBELL_IDLE || !n || n > MPTSAS_FRAME / 4) {
        log_guest("mptsas '%s': a handshake of %u words%s", name(s), n, s->door != DOORBELL_IDLE ? " within another" : "");
        return;
    }
    s->door = DOORBELL_REQUEST;
    s->door_n = n;
    s->door_at = 0;
    memset(s->door_buf, 0, sizeof s->door_buf);
    doorbell_raise(s);
}

static void io_unit_reset(struct mptsas *s)
{
    soft_reset(s);
    scsi_bus_power_on(s->bus);
}

static void doorbell_write(struct mptsas *s, uint32_t v)
{
    if (s->door == DOORBELL_REQUEST) {
        st_le32(s->door_buf + 4 * s->door_at, v);
        if (++s->door_at == s->door_n)
            doorbell_run(s);
        return;
    }
    switch (v >> 24) {
    case MPI_MESSAGE_UNIT_RESET: soft_reset(s); break;
    case MPI_IO_UNIT_RESET: io_unit_reset(s); break;
    case MPI_HANDSHAKE: doorbell_begin(s, v); break;
    default: log_guest("mptsas '%s': function 0x%02x is none of the doorbell's", name(s), v >> 24); break;
    }
}

static uint32_t doorbell_read(const struct mptsas *s)
{
    uint32_t v = s->state << 28 | (uint32_t)s->who << 24;

    if (s->door != DOORBELL_IDLE)
        v |= MPI_DOORBELL_ACTIVE;
    if (s->state == MPI_IOC_FAULT)
        v |= s->fault;
    else if (s->door == DOORBELL_REPLY)
        v |= ld_le16(s->door_buf + 2 * s->door_at);
    return v;
}

/* The host acknowledges the doorbell's interrupt: the next half word, or the end. */
static void doorbell_ack(struct mptsas *s)
{
    s->int_status &= ~(uint32_t)MPI_HIS_DOORBELL;
    if (s->door == DOORBELL_REPLY) {
        if (++s->door_at == s->door_n)
            s->door = DOORBELL_END;
        doorbell_raise(s);
        return;
    }
    if (s->door == DOORBELL_END)
        s->door = DOORBELL_IDLE;
    mptsas_update_line(s);
}

/* ---- registers ---- */

static uint32_t take_reply(struct mptsas *s)
{
    uint32_t v;

    if (!mpt_fifo_get(&s->post, &v))
        return MPI_NO_REPLY;
    if (!s->post.n)
        mptsas_update_line(s);
    return v;
}

static uint64_t regs_read(void *opaque, uint64_t off, unsigned size)
{
    struct mptsas *s = opaque;

    switch (off) {
    case MPI_DOORBELL: return doorbell_read(s);
    case MPI_DIAGNOSTIC: return s->diag;
    case MPI_INT_STATUS: return int_status(s);
    case MPI_INT_MASK: return s->int_mask;
    case MPI_REPLY_QUEUE: return take_reply(s);
    default: return 0;
    }
}

static void give_frame(struct mptsas *s, uint32_t v)
{
    if (s->free.n >= MPTSAS_REPLY_FRAMES || !mpt_fifo_put(&s->free, v))
        mptsas_fault(s, MPI_INSUFFICIENT_RESOURCES);
    else
        mptsas_events_flush(s);
}

static void regs_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct mptsas *s = opaque;
    uint32_t v = (uint32_t)val;

    switch (off) {
    case MPI_DOORBELL: doorbell_write(s, v); break;
    case MPI_WRITE_SEQUENCE: write_sequence(s, v); break;
    case MPI_DIAGNOSTIC: write_diag(s, v); break;
    case MPI_INT_STATUS: doorbell_ack(s); break;
    case MPI_INT_MASK:
        s->int_mask = v & (MPI_HIS_REPLY | MPI_HIS_DOORBELL);
        mptsas_update_line(s);
        break;
    case MPI_REQUEST_QUEUE: case MPI_HI_PRI_QUEUE: mptsas_start(s, v); break;
    case MPI_REPLY_QUEUE: give_frame(s, v); break;
    default: break;
    }
}

static uint64_t diag_read(void *opaque, uint64_t off, unsigned size) { return 0; }
static void diag_write(void *opaque, uint64_t off, uint64_t v, unsigned size) { }

static const struct mmio_ops regs_ops = { .read = regs_read, .write = regs_write, .min = 4, .max = 4, .valid_min = 1, .valid_max = 8 };
static const struct mmio_ops diag_ops = { .read = diag_read, .write = diag_write, .max = 8 };

/* ---- units that come and go: a target is a SAS device, its units are told by attentions ---- */

static void unit_plugged(struct scsi_bus *b, struct scsi_dev *d, bool came)
{
    struct scsi_dev *other;
    bool alone = true;

    list_for_each(other, &b->devs, on_bus)
        alone &= other == d || other->id != d->id;
    if (alone)
        mptsas_event_target(b->arg, d->id, came);
}

static const struct scsi_hba mptsas_hba = { .max_target = MPTSAS_PHYS - 1, .max_lun = 255, .well_known = true, .plugged = unit_plugged };

/* ---- life ---- */

static void mptsas_resume(void *arg)
{
    struct mptsas *s = arg;
    uint32_t n = s->n_held;

    s->n_held = 0;
    for (uint32_t i = 0; i < n; i++)            /* a slot is read before starting a message can fill it */
        mptsas_start(s, s->held[i]);
}

static void drop_regions(struct mptsas *s)
{
    region_fini(&s->io);
    region_fini(&s->mmio);
    region_fini(&s->diag_bar);
}

static bool mptsas_realize(struct dev *d, struct err *e)
{
    struct mptsas *s = (struct mptsas *)d;

    s->bus = scsi_bus_new(d, &mptsas_hba, s, e);
    if (!s->bus)
        return false;
    list_init(&s->flying);
    region_init_mmio(&s->io, "mptsas-io", IO_SIZE, &regs_ops, s, d->dom);
    region_init_mmio(&s->mmio, "mptsas-mmio", MMIO_SIZE, &regs_ops, s, d->dom);
    region_init_mmio(&s->diag_bar, "mptsas-diag", DIAG_SIZE, &diag_ops, s, d->dom);
    pci_bar_add(&s->pci, 0, PCI_BAR_IO, &s->io);
    pci_bar_add(&s->pci, 1, PCI_BAR_MEM32, &s->mmio);
    pci_bar_add(&s->pci, 2, PCI_BAR_MEM32, &s->diag_bar);
    pci_intx_init(&s->pci, 1);
    if (s->msi != TRI_OFF && !pci_msi_init(&s->pci, 1, false, e)) {
        pci_fini(&s->pci);
        drop_regions(s);
        return false;
    }
    run_resume_init(&s->resume, d->dom, mptsas_resume, s);
    return true;
}

static void mptsas_unrealize(struct dev *d)
{
    struct mptsas *s = (struct mptsas *)d;

    run_resume_fini(&s->resume);
    drop_regions(s);
}

static void mptsas_reset(struct dev *d, enum reset_kind k)
{
    struct mptsas *s = (struct mptsas *)d;

    hard_reset(s);
    s->diag = 0;
    scsi_bus_power_on(s->bus);
}

static void mptsas_reset_out(struct dev *d) { mptsas_update_line((struct mptsas *)d); }

static void co_mptsas_quiesce(struct dev *d)
{
    struct mptsas *s = (struct mptsas *)d;

    while (s->n_flying)
        co_queue_wait(&s->idle);
}

/* ---- saved state ---- */

#define U(f, ...) STATE_UINT(struct mptsas, f, __VA_ARGS__)
static const struct state_field fifo_fields[] = {
    STATE_UINT(struct mpt_fifo, head, .max = MPTSAS_FIFO - 1), STATE_UINT(struct mpt_fifo, n, .max = MPTSAS_FIFO), STATE_ARRAY(struct mpt_fifo, v), STATE_END
};
static const struct state_desc fifo_state = { .name = "mptsas-queue", .version = 1, .fields = fifo_fields };
static const struct state_field event_fields[] = {
    STATE_UINT(struct mptsas_event, event), STATE_UINT(struct mptsas_event, len, .max = MPTSAS_EVENT_DATA), STATE_BYTES(struct mptsas_event, data), STATE_END
};
static const struct state_desc event_state = { .name = "mptsas-event", .version = 1, .fields = event_fields };
static const struct state_field mptsas_fields[] = {
    STATE_STRUCT(struct mptsas, pci, &pci_dev_state), U(state, .max = MPI_IOC_FAULT), U(fault, .max = UINT16_MAX), U(who, .max = 7), U(max_devices), U(max_buses), U(reply_size),
    U(mfa_high), U(sense_high), U(int_status, .max = MPI_HIS_DOORBELL), U(int_mask, .max = MPI_HIS_REPLY | MPI_HIS_DOORBELL), U(diag, .max = 0xff),
    U(diag_key, .max = 4), U(door, .max = DOORBELL_END), U(door_n, .max = MPTSAS_FRAME / 2), U(door_at, .max = MPTSAS_FRAME / 2),
    STATE_BYTES(struct mptsas, door_buf), STATE_STRUCT(struct mptsas, free, &fifo_state), STATE_STRUCT(struct mptsas, post, &fifo_state),
    STATE_BOOL(struct mptsas, raised), STATE_BOOL(struct mptsas, events_on), U(event_context), U(event_head, .max = MPTSAS_EVENTS - 1), U(n_events, .max = MPTSAS_EVENTS),
    STATE_STRUCTS(struct mptsas, events, &event_state), STATE_ARRAY(struct mptsas, held), U(n_held, .max = MPTSAS_REQUESTS), STATE_END
};

/* What an index of the doorbell may be depends on its state. */
static bool mptsas_post_load(void *obj, struct err *e)
{
    struct mptsas *s = obj;

    if (s->state == 3)
        return err_set(e, ERR_VALUE, "a state that the controller does not have");
    if ((s->door == DOORBELL_REQUEST && s->door_n > MPTSAS_FRAME / 4) ||
        ((s->door == DOORBELL_REQUEST || s->door == DOORBELL_REPLY) && s->door_at >= s->door_n))
        return err_set(e, ERR_VALUE, "a doorbell beyond its message");
    return true;
}
static const struct state_desc mptsas_state = { .name = "mptsas", .version = 1, .fields = mptsas_fields, .post_load = mptsas_post_load };

static const struct prop mptsas_props[] = {
    { .name = "sas_address", .doc = "World wide name of its first port; 0: made from where it is plugged", .type = PROP_T_U64,
      PROP_OFF(struct mptsas, sas_address), .flags = PF_HEX },
    PROP_TRI(struct mptsas, msi, "msi", TRI_AUTO, "Interrupts by MSI; auto: yes"),
    PROP_END
};

static const struct pci_class mptsas_class = {
    .dev = { .obj = { .name = "mptsas1068", .desc = "LSI SAS1068 controller (Fusion-MPT)", .base = &pci_dev_class.dev.obj, .size = sizeof(struct mptsas),
                      .props = mptsas_props },
             .cat = "Storage", .plugs_into = &pci_bus_class, .realize = mptsas_realize, .unrealize = mptsas_unrealize, .reset = mptsas_reset,
             .reset_out = mptsas_reset_out, .co_quiesce = co_mptsas_quiesce, .state = &mptsas_state, .hotplug = true },
    .vendor = 0x1000, .device = 0x0054, .subvendor = 0x1000, .subdevice = 0x8000, .class_code = 0x010000,
};
OBJ_CLASS(&mptsas_class.dev.obj);
