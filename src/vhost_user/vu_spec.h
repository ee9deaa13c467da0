/* SPDX-License-Identifier: MIT */
/* The vhost-user protocol's messages, and the split ring (virtio 1.2, section 2.7). All little endian here: one host talks to itself. */
#ifndef VHOST_USER_VU_SPEC_H
#define VHOST_USER_VU_SPEC_H

#include <assert.h>
#include <stdint.h>

enum vu_request {
    VU_GET_FEATURES = 1, VU_SET_FEATURES = 2, VU_SET_OWNER = 3, VU_RESET_OWNER = 4, VU_SET_MEM_TABLE = 5, VU_SET_LOG_BASE = 6, VU_SET_LOG_FD = 7,
    VU_SET_VRING_NUM = 8, VU_SET_VRING_ADDR = 9, VU_SET_VRING_BASE = 10, VU_GET_VRING_BASE = 11, VU_SET_VRING_KICK = 12, VU_SET_VRING_CALL = 13,
    VU_SET_VRING_ERR = 14, VU_GET_PROTOCOL_FEATURES = 15, VU_SET_PROTOCOL_FEATURES = 16, VU_GET_QUEUE_NUM = 17, VU_SET_VRING_ENABLE = 18,
    VU_SET_BACKEND_REQ_FD = 21, VU_GET_CONFIG = 24, VU_SET_CONFIG = 25, VU_GET_INFLIGHT_FD = 31, VU_SET_INFLIGHT_FD = 32, VU_RESET_DEVICE = 34,
    VU_GET_MAX_MEM_SLOTS = 36, VU_ADD_MEM_REG = 37, VU_REM_MEM_REG = 38, VU_SET_STATUS = 39, VU_GET_STATUS = 40, VU_REQUESTS,
};
/* What the back end sends by itself. */
enum { VU_BACKEND_CONFIG_CHANGED = 2 };

enum { VU_VERSION = 1, VU_VERSION_MASK = 3, VU_FLAG_REPLY = 4, VU_FLAG_NEED_REPLY = 8 };
enum {
    VU_P_MQ = 0, VU_P_LOG_SHMFD = 1, VU_P_REPLY_ACK = 3, VU_P_BACKEND_REQ = 5, VU_P_CONFIG = 9, VU_P_INFLIGHT_SHMFD = 12, VU_P_RESET_DEVICE = 13,
    VU_P_CONFIGURE_MEM_SLOTS = 15, VU_P_STATUS = 16,
};
/* Feature bits of every device. */
enum { VU_F_LOG_ALL = 26, VU_F_INDIRECT_DESC = 28, VU_F_EVENT_IDX = 29, VU_F_PROTOCOL_FEATURES = 30, VU_F_VERSION_1 = 32 };
enum { VU_VRING_NO_FD = 0x100, VU_VRING_F_LOG = 1, VU_LOG_PAGE = 4096 };

struct vu_header { uint32_t request, flags, size; };
struct vu_state { uint32_t index, num; };
struct vu_addr { uint32_t index, flags; uint64_t desc, used, avail, log; };
struct vu_mem { uint64_t guest, size, user, off; };
struct vu_mem_table { uint32_t n, pad; struct vu_mem v[8]; };
struct vu_mem_one { uint64_t pad; struct vu_mem m; };
struct vu_log { uint64_t size, off; };
struct vu_config { uint32_t off, size, flags; uint8_t data[256]; };
struct vu_inflight { uint64_t size, off; uint16_t queues, ring_size; uint8_t pad[4]; };
static_assert(sizeof(struct vu_header) == 12 && sizeof(struct vu_addr) == 40 && sizeof(struct vu_config) == 268 && sizeof(struct vu_inflight) == 24, "vhost-user");

/* ---- requests under way, in memory that outlives the back end ("Inflight I/O tracking", split rings) ---- */
struct vu_slot { uint8_t inflight, pad[5]; uint16_t next; uint64_t counter; };
struct vu_slots { uint64_t features; uint16_t version, n, last_batch_head, used_idx; struct vu_slot v[]; };
static_assert(sizeof(struct vu_slot) == 16 && sizeof(struct vu_slots) == 16, "vhost-user");
enum { VU_SLOTS_ALIGN = 64 };

/* ---- split ring ---- */
enum { VU_DESC_NEXT = 1, VU_DESC_WRITE = 2, VU_DESC_INDIRECT = 4, VU_AVAIL_NO_INTERRUPT = 1, VU_USED_NO_NOTIFY = 1 };
struct vu_desc { uint64_t addr; uint32_t len; uint16_t flags, next; };
static_assert(sizeof(struct vu_desc) == 16, "virtio 2.7.5");

#endif
