/* SPDX-License-Identifier: MIT */
/* The MegaRAID function: registers, interrupts, options, life. */
#include "hw/scsi/megasas.h"

#include "base/log.h"

enum { BAR_SIZE = 0x4000, REGS_SIZE = 0x1000, MSIX_TABLE = 0x2000, MSIX_PBA = 0x3800, IO_SIZE = 0x100, QUEUE_SIZE = 0x40000 };

/* What differs between the models. */
struct megasas_class { struct pci_class pci; uint32_t reply_bit; unsigned mmio_bar, io_bar; };

static const struct megasas_class *model(const struct megasas *s) { return (const struct megasas_class *)s->pci.dev.obj.cls; }

/* ---- interrupts ---- */

static void update_line(struct megasas *s)
{
    bool on = s->reply_pending && !(s->mask & model(s)->reply_bit);

    pci_intx_set(&s->pci, on && !pci_msi_enabled(&s->pci));
}

void megasas_reply_raised(struct megasas *s)
{
    bool was = s->reply_pending;

    s->reply_pending = true;
    if (!was && !(s->mask & model(s)->reply_bit) && pci_msi_notify(&s->pci, 0))
        return;
    update_line(s);
}

static void write_mask(struct megasas *s, uint32_t v)
{
    bool was = s->mask & model(s)->reply_bit;

    s->mask = v;
    if (was && !(v & model(s)->reply_bit) && s->reply_pending && pci_msi_notify(&s->pci, 0))
        return;
    update_line(s);
}

/* ---- the firmware ---- */

/* Back to where a driver starts: no queues, nothing in flight. */
static void firmware_reset(struct megasas *s)
{
    megasas_abort_all(s);
    s->fw_state = MFI_STATE_READY;
    s->reply_pending = false;
    s->reply = s->producer = s->consumer = s->wait_frame = 0;
    s->reply_entries = s->reply_head = 0;
    s->high_addr = 0;
}

static void inbound_doorbell(struct megasas *s, uint32_t v)
{
    if (v & MFI_DB_ABORT)
        megasas_abort_all(s);
    if (v & (MFI_DB_READY | MFI_DB_RESET))
        firmware_reset(s);
    if (v & MFI_DB_STOP)
        s->fw_state = MFI_STATE_FAULT;
    update_line(s);
}

/* The diagnostic register opens after six keys, in their order. */
static void write_sequence(struct megasas *s, uint32_t v)
{
    static const uint8_t keys[] = { 0x00, 0x04, 0x0b, 0x02, 0x07, 0x0d };

    if (v == keys[s->diag_key])
        s->diag_key++;
    else
        s->diag_key = v == keys[0];
    if (s->diag_key < sizeof keys)
        return;
    s->diag_key = 0;
    s->diag |= MFI_DIAG_WRITE_ENABLE;
}

static void host_diag(struct megasas *s, uint32_t v)
{
    if (!(s->diag & MFI_DIAG_WRITE_ENABLE))
        return;
    s->diag = (uint8_t)(v & MFI_DIAG_WRITE_ENABLE);
    if (!(v & MFI_DIAG_RESET))
        return;
    firmware_reset(s);
    s->mask = UINT32_MAX;
    s->diag = 0;
    update_line(s);
}

/* ---- registers ---- */

static uint64_t regs_read(void *opaque, uint64_t off, unsigned size)
{
    struct megasas *s = opaque;
    uint32_t status = s->reply_pending ? model(s)->reply_bit : 0;

    switch (off) {
    case MFI_OUTBOUND_MSG0: case MFI_SCRATCH_PAD0:
        return s->fw_state | (s->pci.msix ? MFI_STATE_MSIX : 0) | s->max_sge << 16 | s->max_cmds;
    case MFI_OUTBOUND_STATUS: case MFI_OUTBOUND_DOORBELL:
        return status;
    case MFI_OUTBOUND_MASK:
        return s->mask;
    case MFI_HOST_DIAG:
        return s->diag;
    default:
        return 0;
    }
}

static void queue_write(struct megasas *s, uint32_t v)
{
    uint64_t high = s->high_addr;

    s->high_addr = 0;
    megasas_start(s, high << 32 | (v & ~0x1fu));
}

static void regs_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct megasas *s = opaque;
    uint32_t v = (uint32_t)val;

    switch (off) {
    case MFI_INBOUND_DOORBELL:
        inbound_doorbell(s, v);
        break;
    case MFI_OUTBOUND_MASK:
        write_mask(s, v);
        break;
    case MFI_INBOUND_QUEUE: case MFI_INBOUND_LOW:
        queue_write(s, v);
        break;
    case MFI_INBOUND_HIGH:
        s->high_addr = v;
        break;
    case MFI_OUTBOUND_DOORBELL: case MFI_DOORBELL_CLEAR:
        if (v)
            s->reply_pending = false;
        update_line(s);
        break;
    case MFI_HOST_DIAG:
        host_diag(s, v);
        break;
    case MFI_WRITE_SEQUENCE:
        write_sequence(s, v);
        break;
    default:
        break;
    }
}

static uint64_t queue_read(void *opaque, uint64_t off, unsigned size) { return 0; }
static void queue_ignored(void *opaque, uint64_t off, uint64_t v, unsigned size) { }

static const struct mmio_ops regs_ops = { .read = regs_read, .write = regs_write, .min = 4, .max = 4, .valid_min = 1, .valid_max = 8 };
static const struct mmio_ops queue_ops = { .read = queue_read, .write = queue_ignored, .max = 8 };

/* ---- units that come and go ---- */

bool megasas_is_ld(const struct megasas *s, const struct scsi_dev *d)
{
    return !s->use_jbod && d->type == SCSI_TYPE_DISK;
}

static void unit_plugged(struct scsi_bus *b, struct scsi_dev *d, bool came)
{
    struct megasas *s = b->arg;

    if (!megasas_is_ld(s, d))
        megasas_event_log(s, came ? MFI_EVT_PD_INSERTED : MFI_EVT_PD_REMOVED, d->id);
    else
        megasas_event_log(s, came ? MFI_EVT_LD_CREATED : MFI_EVT_LD_DELETED, d->id);
}

static const struct scsi_hba megasas_hba = { .max_target = MFI_LD_LIST_MAX - 1, .max_lun = 7, .plugged = unit_plugged };

/* ---- life ---- */

static void megasas_resume(void *arg)
{
    struct megasas *s = arg;
    uint32_t n = s->n_held;

    s->n_held = 0;
    for (uint32_t i = 0; i < n; i++)            /* a slot is read before starting a frame can fill it */
        megasas_start(s, s->held[i]);
}

static bool add_interrupts(struct megasas *s, struct err *e)
{
    pci_intx_init(&s->pci, 1);
    return (s->msi == TRI_OFF || pci_msi_init(&s->pci, 1, false, e)) &&
           (s->msix == TRI_OFF || pci_msix_init(&s->pci, 1, model(s)->mmio_bar, MSIX_TABLE, MSIX_PBA, &s->bar, e));
}

static void drop_regions(struct megasas *s)
{
    region_fini(&s->queue);
    region_fini(&s->io);
    region_fini(&s->regs);
    region_fini(&s->bar);
}

static bool megasas_realize(struct dev *d, struct err *e)
{
    struct megasas *s = (struct megasas *)d;

    s->bus = scsi_bus_new(d, &megasas_hba, s, e);
    if (!s->bus)
        return false;
    list_init(&s->flying);
    region_init_container(&s->bar, "megasas", BAR_SIZE);
    region_init_mmio(&s->regs, "megasas-regs", REGS_SIZE, &regs_ops, s, d->dom);
    region_init_mmio(&s->io, "megasas-io", IO_SIZE, &regs_ops, s, d->dom);
    region_init_mmio(&s->queue, "megasas-queue", QUEUE_SIZE, &queue_ops, s, d->dom);
    region_add(&s->bar, 0, &s->regs, 0);
    pci_bar_add(&s->pci, model(s)->mmio_bar, PCI_BAR_MEM64, &s->bar);
    pci_bar_add(&s->pci, model(s)->io_bar, PCI_BAR_IO, &s->io);
    pci_bar_add(&s->pci, 3, PCI_BAR_MEM64, &s->queue);
    if (!add_interrupts(s, e)) {
        pci_fini(&s->pci);
        drop_regions(s);
        return false;
    }
    run_resume_init(&s->resume, d->dom, megasas_resume, s);
    return true;
}

static void megasas_unrealize(struct dev *d)
{
    struct megasas *s = (struct megasas *)d;

    run_resume_fini(&s->resume);
    drop_regions(s);
}

static void megasas_reset(struct dev *d, enum reset_kind k)
{
    struct megasas *s = (struct megasas *)d;

    firmware_reset(s);
    s->mask = UINT32_MAX;
    s->diag = s->diag_key = 0;
    s->last_event = 0;
    megasas_default_properties(s);
    scsi_bus_power_on(s->bus);
}

static void megasas_reset_out(struct dev *d) { update_line((struct megasas *)d); }

static void co_megasas_quiesce(struct dev *d)
{
    struct megasas *s = (struct megasas *)d;

    while (s->n_flying)
        co_queue_wait(&s->idle);
}

/* ---- saved state ---- */

#define U(f, ...) STATE_UINT(struct megasas, f, __VA_ARGS__)
static const struct state_field event_fields[] = {
    STATE_UINT(struct megasas_event, seq), STATE_UINT(struct megasas_event, time), STATE_UINT(struct megasas_event, code),
    STATE_UINT(struct megasas_event, target, .max = 255), STATE_END
};
static const struct state_desc event_state = { .name = "megasas-event", .version = 1, .fields = event_fields };
static const struct state_field megasas_fields[] = {
    STATE_STRUCT(struct megasas, pci, &pci_dev_state), U(fw_state), U(mask), U(high_addr), STATE_BOOL(struct megasas, reply_pending),
    U(diag_key, .max = 5), U(diag, .max = MFI_DIAG_WRITE_ENABLE), U(reply), U(producer), U(consumer), U(reply_entries, .max = UINT16_MAX + 1),
    U(reply_head, .max = UINT16_MAX), STATE_BOOL(struct megasas, context64), STATE_ARRAY(struct megasas, held), U(n_held, .max = MEGASAS_MAX_CMDS),
    STATE_BYTES(struct megasas, properties), STATE_STRUCTS(struct megasas, events, &event_state), U(last_event), U(wait_seq), U(wait_frame), STATE_END
};

static bool megasas_post_load(void *obj, struct err *e)
{
    struct megasas *s = obj;

    if (s->fw_state != MFI_STATE_READY && s->fw_state != MFI_STATE_FAULT)
        s->fw_state = MFI_STATE_OPERATIONAL;
    if (s->reply_head >= s->reply_entries)
        s->reply_head = 0;
    return true;
}
static const struct state_desc megasas_state = { .name = "megasas", .version = 1, .fields = megasas_fields, .post_load = megasas_post_load };

/* ---- options ---- */

#define MEGASAS_PROPS(cmds)                                                                                                         \
    PROP_U32(struct megasas, max_sge, "max_sge", 80, 17, MEGASAS_MAX_SGE, "Parts of memory in one frame, as the driver is told"),   \
    PROP_U32(struct megasas, max_cmds, "max_cmds", cmds, 64, MEGASAS_MAX_CMDS - 1, "Frames in flight, as the driver is told"),      \
    PROP_STR(struct megasas, serial, "hba_serial", 0, "Serial number of the controller, up to 31 characters; the id if left out"),  \
    { .name = "sas_address", .doc = "World wide name of its port; 0: made from where it is plugged", .type = PROP_T_U64,            \
      PROP_OFF(struct megasas, sas_address), .flags = PF_HEX },                                                                     \
    PROP_TRI(struct megasas, msi, "msi", TRI_AUTO, "Interrupts by MSI; auto: yes"),                                                 \
    PROP_TRI(struct megasas, msix, "msix", TRI_AUTO, "Interrupts by MSI-X; auto: yes"),                                             \
    PROP_BOOL(struct megasas, use_jbod, "use_jbod", false, "Disks are physical drives of the system, not logical drives"),          \
    PROP_END

static const struct prop gen1_props[] = { MEGASAS_PROPS(1000) };
static const struct prop gen2_props[] = { MEGASAS_PROPS(1008) };

static bool megasas_check(struct obj *o, struct err *e)
{
    struct megasas *s = (struct megasas *)o;

    return !s->serial || strlen(s->serial) < 32 || err_set(e, ERR_VALUE, "hba_serial=%s is longer than 31 characters", s->serial);
}

#define MEGASAS_CLASS(cname, text, rows, dev_id, sub_id)                                                                            \
    .pci = { .dev = { .obj = { .name = cname, .desc = text, .base = &pci_dev_class.dev.obj, .size = sizeof(struct megasas), .props = rows, \
                               .check = megasas_check },                                                                            \
                      .cat = "Storage", .plugs_into = &pci_bus_class, .realize = megasas_realize, .unrealize = megasas_unrealize,   \
                      .reset = megasas_reset, .reset_out = megasas_reset_out, .co_quiesce = co_megasas_quiesce, .state = &megasas_state, \
                      .hotplug = true },                                                                                            \
             .vendor = 0x1000, .device = dev_id, .subvendor = 0x1000, .subdevice = sub_id, .class_code = 0x010400, .express = true }

static const struct megasas_class gen1_class = {
    MEGASAS_CLASS("megasas", "LSI MegaRAID SAS 1078", gen1_props, 0x0060, 0x1013), .reply_bit = MFI_REPLY_1078, .mmio_bar = 0, .io_bar = 2,
};
static const struct megasas_class gen2_class = {
    MEGASAS_CLASS("megasas-gen2", "LSI MegaRAID SAS 2108", gen2_props, 0x0079, 0x9261), .reply_bit = MFI_REPLY_GEN2, .mmio_bar = 1, .io_bar = 0,
};
OBJ_CLASS(&gen1_class.pci.dev.obj);
OBJ_CLASS(&gen2_class.pci.dev.obj);
