/* SPDX-License-Identifier: MIT */
/* The persistent event log (5.16.1.13): what happened to the controller, newest first, in a ring. */
#include "hw/nvme/pel.h"

#include <stdio.h>
#include "base/str.h"

#define HEADER 512u
#define EVENT_HEADER 24u                /* EHL counts from its third byte: 21 */

enum { ACTION_READ, ACTION_ESTABLISH, ACTION_RELEASE, ACTION_ESTABLISH_HEADER };

void nvme_pel_add(struct nvme *n, uint8_t type, const void *data, size_t len)
{
    struct nvme_pel_event *ev = &n->pel.event[n->pel.count++ % NVME_PEL_EVENTS];

    *ev = (struct nvme_pel_event){ .type = type, .len = (uint8_t)MIN(len, sizeof ev->data), .time = nvme_timestamp(n) };
    if (ev->len)
        memcpy(ev->data, data, ev->len);
}

/* Event 04h: the firmware, and one controller's descriptor (5.16.1.13.1.4). */
void nvme_pel_reset(struct nvme *n)
{
    uint8_t d[8 + 20] = { 0 };

    memcpy(d, n->fw_slot[n->fw_active], NVME_FW_REV);
    st_le16(d + 8, n->cntlid);
    st_le32(d + 12, (uint32_t)n->power_cycles);
    st_le64(d + 20, nvme_timestamp(n));
    nvme_pel_add(n, NVME_PEL_RESET, d, sizeof d);
}

static void put_header(const struct nvme *n, uint8_t *b, uint32_t events, uint64_t length)
{
    static const uint8_t types[] = { NVME_PEL_FW_COMMIT, NVME_PEL_TIMESTAMP, NVME_PEL_RESET, NVME_PEL_FORMAT_START, NVME_PEL_FORMAT_END,
                                     NVME_PEL_SANITIZE_START, NVME_PEL_SANITIZE_END, NVME_PEL_SET_FEATURE };

    b[0] = NVME_LOG_PERSISTENT;
    st_le32(b + 4, events);
    st_le64(b + 8, length);
    b[16] = 3;                          /* revision of the page */
    st_le16(b + 18, HEADER - 20);
    st_le64(b + 20, nvme_timestamp(n));
    st_le64(b + 28, (uint64_t)(clock_now(CLOCK_VM) - n->powered_ns) / INT64_C(3600000000000));
    st_le64(b + 44, n->power_cycles);
    st_le16(b + 52, nvme_pci_id(n, 0));
    st_le16(b + 54, nvme_pci_id(n, 0x2c));
    memset(b + 56, ' ', 60);
    memcpy(b + 56, n->serial, MIN(strlen(n->serial), 20));
    memcpy(b + 76, nvme_model(n), strlen(nvme_model(n)));
    snprintf((char *)b + 116, 256, "%s", n->ss->nqn);
    st_le16(b + 372, (uint16_t)n->pel.generation);
    for (size_t i = 0; i < sizeof types; i++)
        b[480 + types[i] / 8] |= (uint8_t)(1u << (types[i] & 7));
}

static void build(const struct nvme *n, struct str *s)
{
    uint32_t count = MIN(n->pel.count, NVME_PEL_EVENTS);
    uint8_t head[HEADER] = { 0 };

    str_addn(s, head, HEADER);
    for (uint32_t i = 0; i < count; i++) {
        const struct nvme_pel_event *ev = &n->pel.event[(n->pel.count - 1 - i) % NVME_PEL_EVENTS];
        uint8_t h[EVENT_HEADER] = { ev->type, 1, EVENT_HEADER - 3 };

        st_le16(h + 4, n->cntlid);
        st_le64(h + 6, ev->time);
        st_le16(h + 22, ev->len);
        str_addn(s, h, sizeof h);
        str_addn(s, ev->data, ev->len);
    }
    put_header(n, (uint8_t *)s->s, count, s->len);
}

uint16_t nvme_pel_log(struct nvme_req *r, struct str *s)
{
    struct nvme *n = r->n;
    unsigned action = r->cmd.cdw10 >> 8 & 3;

    if (action == ACTION_RELEASE) {
        n->pel.established = false;
        str_addn(s, "", 1);
        return NVME_OK;
    }
    if (action != ACTION_READ) {
        if (n->pel.established)
            return NVME_SEQUENCE | NVME_DNR;
        n->pel.established = true;
        n->pel.generation++;
    } else if (!n->pel.established) {
        return NVME_SEQUENCE | NVME_DNR;
    }
    build(n, s);
    return NVME_OK;
}
