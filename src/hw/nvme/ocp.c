/* SPDX-License-Identifier: MIT */
#include "hw/nvme/ocp.h"

#include "base/str.h"
#include "hw/nvme/cmd_int.h"

#define F(f, ...) STATE_UINT(struct nvme_fw_change, f, __VA_ARGS__)
static const struct state_field change_fields[] = {
    F(time), F(cycles), F(number), STATE_BYTES(struct nvme_fw_change, from), STATE_BYTES(struct nvme_fw_change, to), F(slot), F(action), STATE_END
};
static const struct state_desc change_state = { .name = "nvme-fw-change", .version = 1, .fields = change_fields };
static const struct state_field fields[] = {
    STATE_UINT(struct nvme_ocp, panics), STATE_UINT(struct nvme_ocp, changes), STATE_UINT(struct nvme_ocp, kept, .max = NVME_FW_CHANGES),
    STATE_STRUCTS(struct nvme_ocp, change, &change_state), STATE_END
};
const struct state_desc nvme_ocp_state = { .name = "nvme-ocp", .version = 1, .fields = fields };

/* A page ends with its version and an identifier of its layout. */
static void put_end(uint8_t *b, size_t size, uint16_t version, const uint8_t guid[16])
{
    st_le16(b + size - 18, version);
    memcpy(b + size - 16, guid, 16);
}

/* ---- C0h: extended health, 4.8.5 ---- */

uint16_t nvme_ocp_smart_log(struct nvme_req *r, struct str *s)
{
    static const uint8_t guid[16] = { 0xc5, 0xaf, 0x10, 0x28, 0xea, 0xbf, 0xf2, 0xa4, 0x9c, 0x4f, 0x6f, 0x7c, 0xc9, 0x14, 0xd5, 0xaf };
    const struct nvme *n = r->n;
    uint64_t rd = 0, wr = 0;
    uint8_t *b;

    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        const struct nvme_ns *ns = nvme_ns_at(n, i);
        rd += ns ? atomic_load_explicit(&ns->units_read, memory_order_relaxed) : 0;
        wr += ns ? atomic_load_explicit(&ns->units_written, memory_order_relaxed) : 0;
    }
    b = nvme_log_room(s, 512);
    st_le64(b, wr * 512);                               /* physical media units written, read: bytes */
    st_le64(b + 16, rd * 512);
    st_le64(b + 120, 100);                              /* free blocks: per cent */
    st_le64(b + 136, n->unsafe_shutdowns);
    put_end(b, 512, 3, guid);
    return NVME_OK;
}

/* ---- C1h: what a host does after a fatal status ---- */

enum { RECOVERS_BY_CONTROLLER_RESET = 1, PANIC_IS_CFS = 1 << 1 };
#define PANIC_ID 1u                     /* the only kind: nvme_fail() */

uint16_t nvme_ocp_recovery_log(struct nvme_req *r, struct str *s)
{
    static const uint8_t guid[16] = { 0x44, 0xd9, 0x31, 0x21, 0xfe, 0x30, 0x34, 0xae, 0xab, 0x4d, 0xfd, 0x3d, 0xba, 0x83, 0x19, 0x5a };
    uint32_t panics = r->n->ocp_data.panics;
    uint8_t *b = nvme_log_room(s, 512);

    b[2] = RECOVERS_BY_CONTROLLER_RESET;                /* at once: the time to wait before it is 0 */
    st_le64(b + 4, panics ? PANIC_ID : 0);
    st_le32(b + 12, PANIC_IS_CFS);
    b[31] = (uint8_t)MIN(panics, UINT8_MAX);
    for (unsigned i = 0; i < 4 && i + 1 < panics; i++)
        st_le64(b + 32 + 8 * i, PANIC_ID);              /* those before */
    put_end(b, 512, 2, guid);
    return NVME_OK;
}

/* ---- C2h: firmware that ran, oldest first; feature C1h ---- */

void nvme_ocp_activated(struct nvme *n, unsigned slot, unsigned action)
{
    struct nvme_ocp *o = &n->ocp_data;
    struct nvme_fw_change *c = &o->change[o->changes % NVME_FW_CHANGES];

    *c = (struct nvme_fw_change){ .time = nvme_timestamp(n), .cycles = n->power_cycles, .number = (uint16_t)++o->changes, .slot = (uint8_t)slot,
                                  .action = (uint8_t)action };
    memcpy(c->from, n->fw_slot[n->fw_active], NVME_FW_REV);
    memcpy(c->to, n->fw_slot[slot], NVME_FW_REV);
    o->kept = MIN(o->kept + 1, NVME_FW_CHANGES);
}

uint16_t nvme_ocp_firmware_log(struct nvme_req *r, struct str *s)
{
    static const uint8_t guid[16] = { 0x6d, 0x79, 0x9a, 0x76, 0xb4, 0xda, 0xf6, 0xa3, 0xe2, 0x4d, 0xb2, 0x8a, 0xac, 0xf3, 0x1c, 0xd1 };
    const struct nvme_ocp *o = &r->n->ocp_data;
    uint8_t *b = nvme_log_room(s, 4096);

    b[0] = NVME_LOG_OCP_FIRMWARE;
    st_le32(b + 4, o->kept);
    for (uint32_t i = 0; i < o->kept; i++) {
        const struct nvme_fw_change *c = &o->change[(o->changes - o->kept + i) % NVME_FW_CHANGES];
        uint8_t *d = b + 8 + 64 * i;

        d[0] = 1;                                       /* version, length of the entry */
        d[1] = 64;
        st_le16(d + 4, c->number);
        st_le64(d + 6, c->time);
        st_le64(d + 22, c->cycles);
        memcpy(d + 30, c->from, NVME_FW_REV);
        memcpy(d + 38, c->to, NVME_FW_REV);
        d[46] = c->slot;
        d[47] = c->action;
    }
    put_end(b, 4096, 1, guid);
    return NVME_OK;
}

#define CLEAR (1u << 31)

uint16_t co_nvme_ocp_clear_history(struct nvme_req *r, uint32_t v)
{
    if (v & CLEAR)
        r->n->ocp_data.kept = 0;
    return NVME_OK;
}

/* ---- feature C3h: an emulated link corrects no errors; there is nothing to forget ---- */

uint16_t co_nvme_ocp_clear_bus_errors(struct nvme_req *r, uint32_t v) { return NVME_OK; }
