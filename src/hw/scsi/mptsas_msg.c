/* SPDX-License-Identifier: MIT */
/* Fusion-MPT messages that are answered at once, the queue of answers, events. */
#include "hw/scsi/mptsas.h"

#include "base/log.h"

static const char *name(const struct mptsas *s) { return s->pci.dev.obj.id; }

/* ---- the way out ---- */

void mptsas_reply_begin(const uint8_t *f, uint8_t *reply, uint32_t status)
{
    memset(reply, 0, MPTSAS_FRAME);
    reply[MPI_M_FUNCTION] = f[MPI_M_FUNCTION];
    reply[MPI_M_FLAGS] = f[MPI_M_FLAGS] & (uint8_t)~MPI_FLAG_CONTINUATION;
    memcpy(reply + MPI_M_CONTEXT, f + MPI_M_CONTEXT, 4);
    st_le16(reply + MPI_R_STATUS, (uint16_t)status);
}

static void post(struct mptsas *s, uint32_t v)
{
    if (!mpt_fifo_put(&s->post, v))
        mptsas_fault(s, MPI_INSUFFICIENT_RESOURCES);
    mptsas_update_line(s);
}

void mptsas_context_post(struct mptsas *s, uint32_t context)
{
    post(s, context & ~MPI_ADDRESS_REPLY);
}

/* An answer of @n bytes in a frame that the host gave. */
void mptsas_reply_post(struct mptsas *s, uint8_t *reply, unsigned n)
{
    uint32_t low;

    reply[MPI_M_LENGTH] = (uint8_t)(n / 4);
    if (!mpt_fifo_get(&s->free, &low)) {
        mptsas_fault(s, MPI_INSUFFICIENT_RESOURCES);
        return;
    }
    if (!dma_write(&s->pci.dma, (uint64_t)s->mfa_high << 32 | low, reply, MIN(n, s->reply_size)))
        log_guest("mptsas '%s': a reply frame at 0x%x is not RAM", name(s), low);
    post(s, MPI_ADDRESS_REPLY | low >> 1);
}

/* ---- events ---- */

static void event_send(struct mptsas *s, const struct mptsas_event *ev)
{
    uint8_t r[MPTSAS_FRAME] = { 0 };

    r[MPI_M_FUNCTION] = MPI_EVENT_NOTIFICATION;
    r[MPI_M_FLAGS] = MPI_FLAG_CONTINUATION;
    st_le16(r + MPI_EVR_DATA_LEN, (uint16_t)(ev->len / 4));
    st_le32(r + MPI_M_CONTEXT, s->event_context);
    st_le32(r + MPI_EVR_EVENT, ev->event);
    memcpy(r + MPI_EVR_DATA, ev->data, ev->len);
    mptsas_reply_post(s, r, MPI_EVR_DATA + ev->len);
}

void mptsas_events_flush(struct mptsas *s)
{
    while (s->n_events && s->free.n && s->state == MPI_IOC_OPERATIONAL) {
        event_send(s, &s->events[s->event_head]);
        s->event_head = (s->event_head + 1) % MPTSAS_EVENTS;
        s->n_events--;
    }
}

static void event_queue(struct mptsas *s, const struct mptsas_event *ev)
{
    if (!s->events_on)
        return;
    if (s->n_events == MPTSAS_EVENTS) {
        log_guest("mptsas '%s': the host takes no events; one is lost", name(s));
        return;
    }
    s->events[(s->event_head + s->n_events++) % MPTSAS_EVENTS] = *ev;
    mptsas_events_flush(s);
}

static void event_link(struct mptsas *s, unsigned phy, uint8_t was, uint8_t is)
{
    struct mptsas_event ev = { .event = MPI_EVENT_PHY_LINK, .len = 12 };

    ev.data[0] = (uint8_t)phy;
    ev.data[1] = (uint8_t)(is << 4 | was);
    st_le16(ev.data + 2, mptsas_phy_handle(phy));
    st_le64(ev.data + 4, mptsas_phy_name(s, phy));
    event_queue(s, &ev);
}

static void event_device(struct mptsas *s, unsigned id, bool came)
{
    struct mptsas_event ev = { .event = MPI_EVENT_DEVICE_STATUS, .len = 36 };

    ev.data[0] = (uint8_t)id;
    ev.data[2] = came ? MPI_DEVICE_ADDED : MPI_DEVICE_GONE;
    st_le16(ev.data + 0x06, mptsas_target_handle(id));
    st_le32(ev.data + 0x08, MPI_DEV_END | MPI_DEV_SSP_TARGET);
    st_le16(ev.data + 0x0c, mptsas_phy_handle(id));
    ev.data[0x0e] = (uint8_t)id;
    st_le64(ev.data + 0x10, mptsas_target_name(s, id));
    st_le16(ev.data + 0x20, 0xffff);            /* no task */
    event_queue(s, &ev);
}

void mptsas_event_target(struct mptsas *s, unsigned id, bool came)
{
    if (came)
        event_link(s, id, MPI_LINK_UNKNOWN, MPI_LINK_3_0);
    event_device(s, id, came);
    if (!came)
        event_link(s, id, MPI_LINK_3_0, MPI_LINK_UNKNOWN);
}

/* ---- messages. Each fills the answer, which has begun well, and gives its length ---- */

static unsigned ioc_init(struct mptsas *s, const uint8_t *f, uint8_t *r)
{
    uint16_t size = ld_le16(f + MPI_INIT_REPLY_SIZE);

    r[MPI_INIT_WHO] = f[MPI_INIT_WHO];
    memcpy(r + MPI_INIT_FLAGS, f + MPI_INIT_FLAGS, 3);      /* and the most devices and buses */
    if (s->state != MPI_IOC_READY) {
        st_le16(r + MPI_R_STATUS, MPI_INVALID_STATE);
        return MPI_R_DEFAULT;
    }
    if (size < MPI_IOR_SIZE) {
        st_le16(r + MPI_R_STATUS, MPI_INVALID_FIELD);
        return MPI_R_DEFAULT;
    }
    s->who = f[MPI_INIT_WHO] & 7;
    s->max_devices = f[MPI_INIT_MAX_DEVICES];
    s->max_buses = f[MPI_INIT_MAX_BUSES];
    s->reply_size = size;
    s->mfa_high = ld_le32(f + MPI_INIT_MFA_HIGH);
    s->sense_high = ld_le32(f + MPI_INIT_SENSE_HIGH);
    s->state = MPI_IOC_OPERATIONAL;
    return MPI_R_DEFAULT;
}

static unsigned ioc_facts(struct mptsas *s, const uint8_t *f, uint8_t *r)
{
    st_le16(r, MPI_VERSION);
    st_le16(r + 0x04, MPI_HEADER_VERSION);
    r[0x14] = MPTSAS_CHAINS;
    r[0x15] = s->who;
    r[0x16] = 8;                                /* words of the unit in which frames are told from each other */
    st_le16(r + 0x18, MPTSAS_REPLY_FRAMES);
    st_le16(r + 0x1a, MPTSAS_FRAME / 4);
    st_le16(r + 0x1e, MPI_PRODUCT_ID);
    st_le32(r + 0x20, s->mfa_high);
    st_le16(r + 0x24, MPTSAS_REQUESTS);
    r[0x26] = 1;                                /* ports */
    r[0x27] = s->events_on;
    st_le32(r + 0x28, s->sense_high);
    st_le16(r + 0x2c, s->reply_size);
    r[0x2e] = s->max_devices ? s->max_devices : MPTSAS_PHYS;
    r[0x2f] = 1;                                /* buses */
    st_le32(r + 0x34, MPI_CAP_HIGH_PRI_Q);
    st_le32(r + 0x38, MPI_FW_VERSION);
    st_le16(r + 0x3c, MPTSAS_REQUESTS);         /* urgent messages */
    return 0x50;
}

static unsigned port_message(const uint8_t *f, uint8_t *r, unsigned n)
{
    r[MPI_PORT_NUMBER] = f[MPI_PORT_NUMBER];
    if (f[MPI_PORT_NUMBER])
        st_le16(r + MPI_R_STATUS, MPI_INVALID_FIELD);
    return n;
}

static unsigned port_facts(struct mptsas *s, const uint8_t *f, uint8_t *r)
{
    if (!f[MPI_PORT_NUMBER]) {
        r[0x15] = MPI_PORT_TYPE_SAS;
        st_le16(r + 0x16, MPTSAS_PHYS);         /* devices */
        st_le16(r + 0x18, MPTSAS_PHYS);         /* its own id, behind theirs */
        st_le16(r + 0x1a, MPI_PROTOCOL_INITIATOR);
    }
    return port_message(f, r, 0x28);
}

static unsigned port_enable(struct mptsas *s, const uint8_t *f, uint8_t *r) { return port_message(f, r, MPI_R_DEFAULT); }

static unsigned event_notification(struct mptsas *s, const uint8_t *f, uint8_t *r)
{
    s->events_on = f[MPI_EVENT_SWITCH] == 1;
    s->event_context = ld_le32(f + MPI_M_CONTEXT);
    if (s->events_on)
        r[MPI_M_FLAGS] |= MPI_FLAG_CONTINUATION;
    else
        s->n_events = 0;
    st_le16(r + MPI_EVR_DATA_LEN, 1);
    st_le32(r + MPI_EVR_EVENT, MPI_EVENT_CHANGE);
    r[MPI_EVR_DATA] = s->events_on;
    return MPI_EVR_DATA + 4;
}

static unsigned event_ack(struct mptsas *s, const uint8_t *f, uint8_t *r) { return MPI_R_DEFAULT; }

/* There is no expander to talk to. */
static unsigned smp_passthrough(struct mptsas *s, const uint8_t *f, uint8_t *r)
{
    r[0] = f[0];
    r[1] = f[1];
    r[MPI_SMPR_SAS_STATUS] = MPI_SMP_BAD_DESTINATION;
    st_le16(r + MPI_R_STATUS, MPI_SAS_SMP_REQUEST_FAILED);
    return MPI_SMPR_SIZE;
}

/* Links come up again at once, and nothing is mapped for good that could be forgotten. What is at a phy has been reset (co_mptsas_control). */
static unsigned unit_control(struct mptsas *s, const uint8_t *f, uint8_t *r)
{
    bool phy = f[0] == MPI_SAS_PHY_LINK_RESET || f[0] == MPI_SAS_PHY_HARD_RESET || f[0] == MPI_SAS_PHY_CLEAR_LOG;

    r[0] = f[0];
    if (phy ? f[MPI_SAS_CONTROL_PHY] >= MPTSAS_PHYS : f[0] != MPI_SAS_CLEAR_ALL && f[0] != MPI_SAS_CLEAR_NOT_PRESENT)
        st_le16(r + MPI_R_STATUS, MPI_INVALID_FIELD);
    return MPI_R_DEFAULT;
}

static const struct { uint8_t function; bool operational; unsigned (*run)(struct mptsas *, const uint8_t *, uint8_t *); } messages[] = {
    { MPI_IOC_INIT, false, ioc_init },
    { MPI_IOC_FACTS, false, ioc_facts },
    { MPI_PORT_FACTS, false, port_facts },
    { MPI_PORT_ENABLE, true, port_enable },
    { MPI_EVENT_NOTIFICATION, true, event_notification },
    { MPI_EVENT_ACK, true, event_ack },
    { MPI_CONFIG, true, mptsas_config },
    { MPI_SMP_PASSTHROUGH, true, smp_passthrough },
    { MPI_SAS_IO_UNIT_CONTROL, true, unit_control },
};

unsigned mptsas_message(struct mptsas *s, const uint8_t f[MPTSAS_FRAME], uint8_t r[MPTSAS_FRAME])
{
    unsigned i = 0, n = MPI_R_DEFAULT;

    while (i < ARRAY_SIZE(messages) && messages[i].function != f[MPI_M_FUNCTION])
        i++;
    mptsas_reply_begin(f, r, MPI_SUCCESS);
    if (i == ARRAY_SIZE(messages))
        st_le16(r + MPI_R_STATUS, MPI_INVALID_FUNCTION);
    else if (messages[i].operational && s->state != MPI_IOC_OPERATIONAL)
        st_le16(r + MPI_R_STATUS, MPI_OP_STATE_NOT_SUPPORTED);
    else
        n = messages[i].run(s, f, r);
    r[MPI_M_LENGTH] = (uint8_t)(n / 4);
    return n;
}
