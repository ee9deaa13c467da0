/* SPDX-License-Identifier: MIT */
/*
 * The persistent event log (5.16.1.14): what happened to the controllers of a subsystem. Events are kept oldest first, with their headers,
 * in as much as PELS says; the page tells the newest first. A reporting context is the page as it was when the context was established.
 */
#include "hw/nvme/pel.h"

#include <stdio.h>
#include <stdlib.h>
#include "base/str.h"

#define HEADER 512u
#define EVENT_HEADER 24u                /* EHL counts from its third byte: 21 */
#define ROOM ((uint32_t)(64 * KiB) - HEADER)

enum { ACTION_READ, ACTION_ESTABLISH, ACTION_RELEASE, ACTION_ESTABLISH_HEADER };

/* ---- events ---- */

static uint32_t event_size(const uint8_t *e) { return EVENT_HEADER + ld_le16(e + 22); }

/* Room for @size bytes at the end: the oldest events make it. Subsystem's lock held. */
static uint8_t *make_room(struct nvme_pel *p, uint32_t size)
{
    uint32_t gone = 0;

    if (!p->log)
        p->log = xcalloc(1, ROOM);
    while (p->len - gone + size > ROOM)
        gone += event_size(p->log + gone);
    p->len -= gone;
    memmove(p->log, p->log + gone, p->len);
    p->last = p->len;
    p->len += size;
    return p->log + p->last;
}

void nvme_pel_add(struct nvme *n, uint8_t type, const void *data, size_t len)
{
    uint8_t *e;

    pthread_mutex_lock(&n->ss->lock);
    e = make_room(&n->ss->pel, EVENT_HEADER + (uint32_t)len);
    memset(e, 0, EVENT_HEADER);
    e[0] = type;
    e[1] = 1;
    e[2] = EVENT_HEADER - 3;
    st_le16(e + 4, n->cntlid);
    st_le64(e + 6, nvme_timestamp(n));
    st_le16(e + 22, (uint16_t)len);
    memcpy(e + EVENT_HEADER, data, len);
    pthread_mutex_unlock(&n->ss->lock);
    nvme_state_dirty(n->ss);
}

/* Event 04h: the firmware, and one controller's descriptor. */
void nvme_pel_reset(struct nvme *n)
{
    uint8_t d[8 + 36] = { 0 };

    nvme_pel_release(n);
    if (n->pci.pf && !n->online)
        return;                         /* a secondary controller that is not there */
    memcpy(d, n->fw_slot[n->fw_active], NVME_FW_REV);
    st_le16(d + 8, n->cntlid);
    st_le32(d + 24, (uint32_t)n->power_cycles);
    st_le64(d + 28, (uint64_t)(clock_now(CLOCK_VM) - n->powered_ns) / 1000000);
    st_le64(d + 36, nvme_timestamp(n));
    nvme_pel_add(n, NVME_PEL_RESET, d, sizeof d);
}

void nvme_pel_error(struct nvme *n, uint16_t code)
{
    struct nvme_pel *p = &n->ss->pel;
    uint8_t d[4] = { 0 };
    bool again;

    st_le16(d, code);
    pthread_mutex_lock(&n->ss->lock);   /* the same again and again is one: it leaves the others their room */
    again = p->len && p->log[p->last] == NVME_PEL_HW_ERROR && ld_le16(p->log + p->last + 4) == n->cntlid && ld_le16(p->log + p->last + EVENT_HEADER) == code;
    pthread_mutex_unlock(&n->ss->lock);
    if (!again)
        nvme_pel_add(n, NVME_PEL_HW_ERROR, d, sizeof d);
}

void nvme_pel_health(struct nvme *n)
{
    uint8_t b[512] = { 0 };

    nvme_smart_page(n, b);
    nvme_pel_add(n, NVME_PEL_SMART, b, sizeof b);
}

void nvme_pel_namespace(struct nvme_req *r, uint32_t nsid, const struct nvme_ns *made)
{
    uint8_t d[48] = { 0 };

    st_le32(d, r->cmd.cdw10);
    if (made) {
        st_le64(d + 8, made->nsze);
        st_le64(d + 24, made->nsze);
        d[32] = made->flbas;
        d[33] = (uint8_t)(made->pi | made->pil << 3);
        d[34] = made->shared;
        st_le32(d + 36, made->anagrp);
    }
    st_le32(d + 44, nsid);
    nvme_pel_add(r->n, NVME_PEL_NAMESPACE, d, sizeof d);
}

void nvme_pel_feature(struct nvme_req *r, unsigned dwords, const void *data, uint16_t len)
{
    const uint32_t dw[] = { r->cmd.cdw10, r->cmd.cdw11, r->cmd.cdw12, r->cmd.cdw13, r->cmd.cdw14, r->cmd.cdw15 };
    uint8_t d[4 + sizeof dw + NVME_PAGE + 4];
    size_t at = 4;

    st_le32(d, dwords | (r->result ? 1u << 3 : 0) | (uint32_t)len << 16);
    for (unsigned i = 0; i < dwords; i++, at += 4)
        st_le32(d + at, dw[i]);
    if (len)
        memcpy(d + at, data, len);
    at += len;
    if (r->result) {
        st_le32(d + at, (uint32_t)r->result);
        at += 4;
    }
    nvme_pel_add(r->n, NVME_PEL_SET_FEATURE, d, at);
}

/* ---- the page ---- */

static void put_header(const struct nvme *n, uint8_t *b, uint32_t events, uint64_t length)
{
    static const uint8_t types[] = { NVME_PEL_SMART, NVME_PEL_FW_COMMIT, NVME_PEL_TIMESTAMP, NVME_PEL_RESET, NVME_PEL_HW_ERROR, NVME_PEL_NAMESPACE,
                                     NVME_PEL_FORMAT_START, NVME_PEL_FORMAT_END, NVME_PEL_SANITIZE_START, NVME_PEL_SANITIZE_END,
                                     NVME_PEL_SET_FEATURE, NVME_PEL_TELEMETRY, NVME_PEL_THERMAL };

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
    memcpy(b + 76, nvme_model(n), MIN(strlen(nvme_model(n)), 40));
    snprintf((char *)b + 116, 256, "%s", n->ss->nqn);
    st_le16(b + 372, n->ss->pel.generation);
    for (size_t i = 0; i < sizeof types; i++)
        b[480 + types[i] / 8] |= (uint8_t)(1u << (types[i] & 7));
}

/* Subsystem's lock held. */
static void establish(struct nvme *n)
{
    struct nvme_pel *p = &n->ss->pel;
    uint32_t events = 0, end = HEADER + p->len;

    p->context = xcalloc(1, end);
    p->context_len = end;
    p->holder = n->cntlid;
    p->generation++;
    for (uint32_t at = 0; at < p->len; at += event_size(p->log + at), events++) {
        end -= event_size(p->log + at);
        memcpy(p->context + end, p->log + at, event_size(p->log + at));
    }
    put_header(n, p->context, events, p->context_len);
}

static void release(struct nvme_pel *p)
{
    free(p->context);
    p->context = NULL;
    p->context_len = 0;
}

void nvme_pel_release(struct nvme *n)
{
    pthread_mutex_lock(&n->ss->lock);
    if (n->ss->pel.holder == n->cntlid)
        release(&n->ss->pel);
    pthread_mutex_unlock(&n->ss->lock);
}

/* RCI: whether there was a context before, and that the port of the controllers established it. */
#define RCI_BEFORE (1u << 16 | 1u << 18)

uint16_t nvme_pel_log(struct nvme_req *r, struct str *s)
{
    struct nvme_pel *p = &r->n->ss->pel;
    unsigned action = r->cmd.cdw10 >> 8 & 3;
    uint16_t st = NVME_OK;
    bool before;

    pthread_mutex_lock(&r->n->ss->lock);
    before = p->context;
    if (action == ACTION_RELEASE)
        release(p);
    else if (action == ACTION_READ ? !before : action == ACTION_ESTABLISH && before)
        st = NVME_SEQUENCE | NVME_DNR;
    else if (!before)
        establish(r->n);
    if (p->context && !st) {
        st_le32(p->context + 374, before ? RCI_BEFORE : 0);
        str_addn(s, p->context, action == ACTION_ESTABLISH_HEADER ? HEADER : p->context_len);
    } else {
        str_addn(s, "", 1);
    }
    pthread_mutex_unlock(&r->n->ss->lock);
    return st;
}

/* ---- what is kept: subsystem's lock held, or nobody is there yet ---- */

static const char digits[] = "0123456789abcdef";

static json_t *to_hex(const uint8_t *p, uint32_t n)
{
    char *text = xcalloc(2, n + 1u);
    json_t *v;

    for (uint32_t i = 0; i < n; i++) {
        text[2 * i] = digits[p[i] >> 4];
        text[2 * i + 1] = digits[p[i] & 15];
    }
    v = json_stringn_nocheck(text, 2 * (size_t)n);
    free(text);
    return v;
}

/* The bytes, allocated; NULL: none, or more than @max. */
static uint8_t *from_hex(json_t *v, uint32_t max, uint32_t *n)
{
    const char *s = json_string_value(v);
    size_t len = json_string_length(v);
    uint8_t *p;

    if (!len || len & 1 || len / 2 > max || strspn(s, digits) != len)
        return NULL;
    p = xcalloc(1, max);
    for (size_t i = 0; i < len; i++)
        p[i / 2] = (uint8_t)(p[i / 2] << 4 | (strchr(digits, s[i]) - digits));
    *n = (uint32_t)(len / 2);
    return p;
}

json_t *nvme_pel_to_json(const struct nvme_pel *p, bool live)
{
    json_t *o = json_pack("{s:o, s:i}", "log", to_hex(p->log, p->len), "generation", p->generation);

    if (live && p->context) {
        json_object_set_new(o, "context", to_hex(p->context, p->context_len));
        json_object_set_new(o, "holder", json_integer(p->holder));
    }
    return o;
}

void nvme_pel_from_json(struct nvme_pel *p, json_t *o)
{
    uint32_t at = 0;

    nvme_pel_free(p);
    p->generation = (uint16_t)json_integer_value(json_object_get(o, "generation"));
    p->holder = (uint16_t)json_integer_value(json_object_get(o, "holder"));
    p->context = from_hex(json_object_get(o, "context"), HEADER + ROOM, &p->context_len);
    if (p->context && p->context_len < HEADER)
        release(p);
    p->log = from_hex(json_object_get(o, "log"), ROOM, &p->len);
    while (p->log && p->len - at >= EVENT_HEADER && p->len - at >= event_size(p->log + at)) {
        p->last = at;
        at += event_size(p->log + at);
    }
    p->len = at;                        /* whole events only */
}

void nvme_pel_free(struct nvme_pel *p)
{
    free(p->log);
    free(p->context);
    *p = (struct nvme_pel){ 0 };
}
