/* SPDX-License-Identifier: MIT */
/* SCSI host device (VIRTIO 1.2, 5.6): a host adapter that brings a SCSI bus. Thread: the device's domain, which its units share. */
#ifndef HW_VIRTIO_VIRTIO_SCSI_H
#define HW_VIRTIO_VIRTIO_SCSI_H

#include "hw/scsi/scsi.h"
#include "hw/virtio/virtio.h"

#define VSCSI_MAX_TARGET 255
#define VSCSI_MAX_LUN 16383
#define VSCSI_MAX_QUEUES 256
#define VSCSI_CDB_DEFAULT 32
#define VSCSI_CDB_LIMIT 256
#define VSCSI_SENSE_DEFAULT 96
#define VSCSI_SENSE_LIMIT 65536
#define VSCSI_RUNNING_MAX 4096u         /* requests of a device at a time, each of which has a stack; then TASK SET FULL */

enum { VIRTIO_SCSI_F_INOUT = 0, VIRTIO_SCSI_F_HOTPLUG = 1, VIRTIO_SCSI_F_CHANGE = 2, VIRTIO_SCSI_F_T10_PI = 3 };    /* 5.6.3 */
enum { VSCSI_Q_CONTROL, VSCSI_Q_EVENT, VSCSI_Q_REQUEST };                                   /* 5.6.2 */

/* 5.6.4, little endian. */
struct virtio_scsi_config {
    uint32_t num_queues, seg_max, max_sectors, cmd_per_lun, event_info_size, sense_size, cdb_size;
    uint16_t max_channel, max_target;
    uint32_t max_lun;
};
static_assert(sizeof(struct virtio_scsi_config) == 36, "5.6.4");

/* 5.6.6.1: in front of the data; cdb_size bytes follow the first, sense_size bytes the second. */
struct virtio_scsi_cmd_req { uint8_t lun[8]; uint64_t id; uint8_t task_attr, prio, crn; } __attribute__((packed));
/* The same with VIRTIO_SCSI_F_T10_PI: protection information goes before the data of its direction. */
struct virtio_scsi_cmd_req_pi { struct virtio_scsi_cmd_req h; uint32_t pi_bytesout, pi_bytesin; } __attribute__((packed));
struct virtio_scsi_cmd_resp { uint32_t sense_len, residual; uint16_t status_qualifier; uint8_t status, response; };
static_assert(sizeof(struct virtio_scsi_cmd_req) == 19 && sizeof(struct virtio_scsi_cmd_req_pi) == 27 && sizeof(struct virtio_scsi_cmd_resp) == 12, "5.6.6.1");
enum { VIRTIO_SCSI_S_OK = 0, VIRTIO_SCSI_S_OVERRUN = 1, VIRTIO_SCSI_S_ABORTED = 2, VIRTIO_SCSI_S_BAD_TARGET = 3, VIRTIO_SCSI_S_RESET = 4,
       VIRTIO_SCSI_S_BUSY = 5, VIRTIO_SCSI_S_TRANSPORT_FAILURE = 6, VIRTIO_SCSI_S_TARGET_FAILURE = 7, VIRTIO_SCSI_S_NEXUS_FAILURE = 8,
       VIRTIO_SCSI_S_FAILURE = 9, VIRTIO_SCSI_S_FUNCTION_SUCCEEDED = 10, VIRTIO_SCSI_S_FUNCTION_REJECTED = 11,
       VIRTIO_SCSI_S_INCORRECT_LUN = 12 };

/* 5.6.6.2 */
struct virtio_scsi_ctrl_tmf { uint32_t type, subtype; uint8_t lun[8]; uint64_t id; };
struct virtio_scsi_ctrl_an { uint32_t type; uint8_t lun[8]; uint32_t event_requested; };
static_assert(sizeof(struct virtio_scsi_ctrl_tmf) == 24 && sizeof(struct virtio_scsi_ctrl_an) == 16, "5.6.6.2");
enum { VIRTIO_SCSI_T_TMF = 0, VIRTIO_SCSI_T_AN_QUERY = 1, VIRTIO_SCSI_T_AN_SUBSCRIBE = 2 };
enum { TMF_ABORT_TASK = 0, TMF_ABORT_TASK_SET = 1, TMF_CLEAR_ACA = 2, TMF_CLEAR_TASK_SET = 3, TMF_I_T_NEXUS_RESET = 4,
       TMF_LOGICAL_UNIT_RESET = 5, TMF_QUERY_TASK = 6, TMF_QUERY_TASK_SET = 7 };

/* 5.6.6.3 */
struct virtio_scsi_event { uint32_t event; uint8_t lun[8]; uint32_t reason; };
static_assert(sizeof(struct virtio_scsi_event) == 16, "5.6.6.3");
enum { VIRTIO_SCSI_T_NO_EVENT = 0, VIRTIO_SCSI_T_TRANSPORT_RESET = 1, VIRTIO_SCSI_T_PARAM_CHANGE = 3 };
#define VIRTIO_SCSI_T_EVENTS_MISSED 0x80000000u
enum { VIRTIO_SCSI_EVT_RESET_HARD = 0, VIRTIO_SCSI_EVT_RESET_RESCAN = 1, VIRTIO_SCSI_EVT_RESET_REMOVED = 2 };

struct virtio_scsi {
    struct virtio_dev v;                /* first */
    uint32_t num_queues, queue_size, max_sectors, cmd_per_lun;
    bool hotplug, param_change, t10_pi;
    struct obj *iothread;
    struct scsi_bus *bus;
    struct virtq *events;
    bool events_missed;
    struct list stopped;                /* of vscsi_req: tried again on `cont` */
    uint32_t running;                   /* requests that have a coroutine */
};

struct vscsi_req {
    struct vq_elem e;                   /* first */
    struct list link;                   /* in virtio_scsi.stopped */
    uint32_t target;
    struct scsi_req r;
};

static inline struct virtio_scsi *vscsi_of(struct virtio_dev *v) { return (struct virtio_scsi *)v; }
static inline const struct virtio_scsi_config *vscsi_config(const struct virtio_scsi *s)
{
    return (const struct virtio_scsi_config *)s->v.config;
}

/* virtio_scsi_io.c */
void vscsi_requested(struct virtq *vq);
void vscsi_start(struct vscsi_req *q);          /* a stopped or restored request */
/* 5.6.6.1: the address in a request; false if it is none. */
bool vscsi_parse_lun(const uint8_t lun[8], uint32_t *target, uint32_t *unit);
void vscsi_answer(struct vscsi_req *q, uint8_t response);       /* a request that was not executed */

/* virtio_scsi_ctl.c */
void vscsi_controlled(struct virtq *vq);
void vscsi_events_room(struct virtq *vq);
extern const struct scsi_hba vscsi_hba;

#endif
