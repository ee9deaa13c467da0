/* SPDX-License-Identifier: MIT */
/*
 * MFI, the firmware interface of LSI's MegaRAID SAS controllers, as their public driver headers lay it out (LSI, "MegaRAID SAS
 * Software"; FreeBSD mfireg.h). Everything is little endian.
 */
#ifndef HW_SCSI_MFI_SPEC_H
#define HW_SCSI_MFI_SPEC_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* Registers of the message unit. */
enum { MFI_INBOUND_MSG0 = 0x10, MFI_OUTBOUND_MSG0 = 0x18, MFI_INBOUND_DOORBELL = 0x20, MFI_OUTBOUND_DOORBELL = 0x2c, MFI_OUTBOUND_STATUS = 0x30,
       MFI_OUTBOUND_MASK = 0x34, MFI_INBOUND_QUEUE = 0x40, MFI_DOORBELL_CLEAR = 0xa0, MFI_SCRATCH_PAD0 = 0xb0, MFI_INBOUND_LOW = 0xc0,
       MFI_INBOUND_HIGH = 0xc4, MFI_HOST_DIAG = 0xf8, MFI_WRITE_SEQUENCE = 0xfc };

/* The firmware's state, in the upper bits of the scratch pad. */
#define MFI_STATE_READY 0xb0000000u
#define MFI_STATE_OPERATIONAL 0xc0000000u
#define MFI_STATE_FAULT 0xf0000000u
#define MFI_STATE_MSIX 0x04000000u

enum { MFI_DB_ABORT = 0x01, MFI_DB_READY = 0x02, MFI_DB_STOP = 0x20, MFI_DB_RESET = 0x40 };
enum { MFI_DIAG_WRITE_ENABLE = 0x80, MFI_DIAG_RESET = 0x04 };
#define MFI_REPLY_1078 0x80000000u
#define MFI_REPLY_GEN2 0x00000001u

enum { MFI_FRAME = 64, MFI_SGE32 = 8, MFI_SGE64 = 12, MFI_SGE_IEEE = 16 };
enum mfi_cmd_op { MFI_INIT = 0, MFI_LD_READ = 1, MFI_LD_WRITE = 2, MFI_LD_SCSI = 3, MFI_PD_SCSI = 4, MFI_DCMD = 5, MFI_ABORT = 6 };
enum { MFI_FLAG_DONT_POST = 0x01, MFI_FLAG_SGL64 = 0x02, MFI_FLAG_SENSE64 = 0x04, MFI_FLAG_WRITE = 0x08, MFI_FLAG_READ = 0x10, MFI_FLAG_IEEE = 0x20 };
enum { MFI_QUEUE_CONTEXT64 = 2 };       /* of the initialisation's flags */

enum mfi_status { MFI_STAT_OK = 0x00, MFI_STAT_INVALID_CMD = 0x01, MFI_STAT_INVALID_DCMD = 0x02, MFI_STAT_INVALID_PARAMETER = 0x03,
                  MFI_STAT_ABORT_NOT_POSSIBLE = 0x05, MFI_STAT_DEVICE_NOT_FOUND = 0x0c, MFI_STAT_NOT_FOUND = 0x23, MFI_STAT_SCSI_DONE_WITH_ERROR = 0x2d,
                  MFI_STAT_SCSI_IO_FAILED = 0x2e, MFI_STAT_SCSI_RESERVATION_CONFLICT = 0x2f, MFI_STAT_WRONG_STATE = 0x32 };

/* Fields that all frames have, and where the scatter list of each kind begins. */
enum { MFI_F_CMD = 0x00, MFI_F_SENSE_LEN = 0x01, MFI_F_STATUS = 0x02, MFI_F_SCSI_STATUS = 0x03, MFI_F_TARGET = 0x04, MFI_F_LUN = 0x05,
       MFI_F_CDB_LEN = 0x06, MFI_F_SGE_COUNT = 0x07, MFI_F_CONTEXT = 0x08, MFI_F_FLAGS = 0x10, MFI_F_LENGTH = 0x14 };
enum { MFI_SCSI_SENSE = 0x18, MFI_SCSI_CDB = 0x20, MFI_SCSI_SGL = 0x30 };
enum { MFI_IO_BLOCKS = 0x14, MFI_IO_SENSE = 0x18, MFI_IO_LBA_LO = 0x20, MFI_IO_LBA_HI = 0x24, MFI_IO_SGL = 0x28 };
enum { MFI_DCMD_OPCODE = 0x18, MFI_DCMD_MBOX = 0x1c, MFI_DCMD_SGL = 0x28 };
enum { MFI_INIT_QUEUE_INFO = 0x18, MFI_ABORT_FRAME = 0x20 };
/* What an initialisation points to. */
enum { MFI_QI_FLAGS = 0x00, MFI_QI_ENTRIES = 0x04, MFI_QI_REPLY = 0x08, MFI_QI_PRODUCER = 0x10, MFI_QI_CONSUMER = 0x18, MFI_QI_SIZE = 0x20 };

/* Direct commands. */
enum { DCMD_CTRL_GET_INFO = 0x01010000, DCMD_CTRL_GET_PROPERTIES = 0x01020100, DCMD_CTRL_SET_PROPERTIES = 0x01020200,
       DCMD_EVENT_GET_INFO = 0x01040100, DCMD_EVENT_GET = 0x01040300, DCMD_EVENT_WAIT = 0x01040500, DCMD_CTRL_SHUTDOWN = 0x01050000,
       DCMD_HIBERNATE_SHUTDOWN = 0x01060000, DCMD_TIME_SECS_GET = 0x01080201, DCMD_CACHE_FLUSH = 0x01101000, DCMD_PD_GET_LIST = 0x02010000,
       DCMD_PD_LIST_QUERY = 0x02010100, DCMD_PD_GET_INFO = 0x02020000, DCMD_LD_GET_LIST = 0x03010000, DCMD_LD_LIST_QUERY = 0x03010100,
       DCMD_LD_GET_INFO = 0x03020000, DCMD_LD_GET_PROPERTIES = 0x03030000,
       DCMD_CLUSTER_RESET_ALL = 0x08010100, DCMD_CLUSTER_RESET_LD = 0x08010200 };
enum { MFI_PD_QUERY_EXPOSED = 5 };
enum { MFI_LD_OPTIMAL = 3, MFI_PD_ONLINE = 0x18, MFI_PD_SYSTEM = 0x40 };

struct mfi_version { char name[8], version[32], date[16], time[16]; };
struct mfi_ctrl_info {
    struct { uint16_t vendor, device, subvendor, subdevice; uint8_t res[24]; } pci;
    struct { uint8_t type, res[6], port_count; uint64_t port_addr[8]; } host, device;
    uint32_t image_check_word, image_count;
    struct mfi_version image[8];
    uint32_t pending_count;
    struct mfi_version pending[8];
    uint8_t max_arms, max_spans, max_arrays, max_lds;
    char product[80], serial[32];
    uint32_t hw_present, fw_time;
    uint16_t max_cmds, max_sge;
    uint32_t max_request_size;          /* sectors */
    uint16_t lds, lds_degraded, lds_offline, pds, pd_disks, pd_predicted, pd_failed, nvram_size, memory_size, flash_size, ecc_soft, ecc_hard;
    uint8_t cluster_permitted, cluster_active;
    uint16_t max_strips_per_io;
    uint32_t raid_levels, adapter_ops, ld_ops;
    uint8_t stripe_min, stripe_max, res1[2];    /* powers of two of 512 bytes */
    uint32_t pd_ops, pd_mix;
    uint8_t ecc_bucket_count, res2[11], properties[64];
    char package_version[96];
    uint8_t res3[0x800 - 0x6a0];
} __attribute__((packed));
static_assert(sizeof(struct mfi_ctrl_info) == 0x800 && offsetof(struct mfi_ctrl_info, properties) == 0x600, "controller information");

struct mfi_pd_address {
    uint16_t device, encl_device;
    uint8_t encl_index, slot, scsi_type, ports;
    uint64_t sas_addr[2];
} __attribute__((packed));
struct mfi_pd_list { uint32_t size, count; struct mfi_pd_address addr[]; } __attribute__((packed));
static_assert(sizeof(struct mfi_pd_address) == 24, "physical drive address");

struct mfi_pd_info {
    uint16_t device, seq;
    uint8_t inquiry[96], vpd83[64], not_supported, scsi_type, ports, speed;
    uint32_t media_errors, other_errors, predicted_failures, last_event;
    uint16_t state;
    uint8_t removal_disabled, link_speed;
    uint32_t ddf;
    uint8_t paths, path_broken, res1[6];
    uint64_t sas_addr[4], raw_size, non_coerced_size, coerced_size;     /* sectors */
    uint16_t encl_device;
    uint8_t encl_index, slot, res2[512 - 260];
} __attribute__((packed));
static_assert(sizeof(struct mfi_pd_info) == 512 && offsetof(struct mfi_pd_info, raw_size) == 232, "physical drive information");

struct mfi_ld_entry { uint8_t target, res1; uint16_t seq; uint8_t state, res2[3]; uint64_t sectors; } __attribute__((packed));
enum { MFI_LD_LIST_MAX = 64 };
struct mfi_ld_list { uint32_t count, res; struct mfi_ld_entry ld[MFI_LD_LIST_MAX]; } __attribute__((packed));
struct mfi_ld_targets { uint32_t size, count; uint8_t pad[3], target[256]; } __attribute__((packed));

struct mfi_ld_properties {
    uint8_t target, res1;
    uint16_t seq;
    char name[16];
    uint8_t default_cache, access, disk_cache, cache, no_background_init, res2[7];      /* 0: written through, read and written, unchanged */
} __attribute__((packed));
struct mfi_ld_info {
    struct mfi_ld_properties properties;
    uint8_t raid_level, raid_qualifier, raid_secondary, stripe, drives, spans, state, init_state, consistent, res1[6], is_cache, res2[16];
    struct { uint64_t start, blocks; uint16_t array; uint8_t res[6]; } __attribute__((packed)) span[8];
    uint64_t sectors;
    uint8_t progress[36];
    uint16_t owner;
    uint8_t reconstructed, res3, vpd83[64], res4[16];
} __attribute__((packed));
static_assert(sizeof(struct mfi_ld_info) == 384 && offsetof(struct mfi_ld_info, sectors) == 256, "logical drive information");

struct mfi_event_info { uint32_t newest, oldest, cleared, shutdown, boot; };
struct mfi_event {
    uint32_t seq, time, code;
    uint16_t locale;
    uint8_t res1;
    int8_t class;
    uint8_t arg_type, res2[15], args[96];
    char description[128];
} __attribute__((packed));
static_assert(sizeof(struct mfi_event) == 256, "event detail");
struct mfi_event_list { uint32_t count, res; struct mfi_event event[]; };
enum { MFI_EVT_PD_INSERTED = 0x005b, MFI_EVT_PD_REMOVED = 0x0070, MFI_EVT_LD_CREATED = 0x008a, MFI_EVT_LD_DELETED = 0x008b };
enum { MFI_LOCALE_LD = 1, MFI_LOCALE_PD = 2 };
enum { MFI_ARGS_LD = 2, MFI_ARGS_PD = 10 };

#endif
