/* SPDX-License-Identifier: MIT */
/* Disks and CD-ROM drives as SCSI logical units: `scsi-hd` (SBC-4) and `scsi-cd` (MMC-6). */
#ifndef HW_SCSI_SCSI_DISK_H
#define HW_SCSI_SCSI_DISK_H

#include "block/blk.h"
#include "block/pi.h"
#include "core/run.h"
#include "hw/scsi/scsi.h"
#include "hw/scsi/scsi_lu.h"
#include "loop/range_claim.h"

#define SCSI_STEP (512 * KiB)                   /* of commands that need no buffer of the guest */
#define SCSI_UNMAP_DESCRIPTORS 255u
#define SCSI_CAW_BYTES (128 * KiB)              /* COMPARE AND WRITE */

/* What the log pages tell. */
enum scsi_counter { SCSI_COUNT_READ, SCSI_COUNT_WRITE, SCSI_COUNT_VERIFY, SCSI_COUNTERS };
struct scsi_io_count { uint64_t commands, moved /* bytes: these two of the statistics */, bytes, errors; };
#define SCSI_SELF_TESTS 20u
struct scsi_self_test { uint8_t code /* 0: none */, result; uint16_t hours; uint64_t lba; };
#define SCSI_BUFFER 4096u

struct scsi_disk {
    struct scsi_dev s;                          /* first */
    /* options */
    struct blk_front_opts opt;
    char *serial, *vendor, *product, *version, *device_id, *pr_file;
    uint64_t wwn, max_unmap_size, max_io_size;
    uint64_t port_wwn;
    uint16_t rotation_rate, port_index, port_group;
    int port_state;                             /* row of scsi_access_names; main loop */
    atomic_uint access;                         /* the same, enum scsi_access */
    bool removable, dpofua, protection;
    /* state */
    struct blk *blk;
    struct blk_caps caps;
    uint64_t pi_blocks;                         /* where there is room for protection information: how many blocks; else 0 */
    bool ato, dpicz;                            /* of the control mode page: initiators own the application tag; without a field nothing is checked */
    uint64_t blocks;                            /* as the initiator was told last */
    bool stopped, locked, tray_open;
    bool wce_at_reset;
    uint8_t media_event;                        /* of a CD drive, for GET EVENT STATUS: enum scsi_media_event, 0: none */
    bool features_changed;                      /* other features are current than it has been told */
    uint32_t overwriting, overwrite_failed;     /* sense while all is overwritten, after that has failed; 0: not so */
    bool resting, parked;                       /* the machine stands, or the disk goes; an overwrite is there that waits meanwhile */
    uint32_t rests_as;                          /* ... and then, in a machine that goes on elsewhere, has failed with this sense; 0: there is none */
    struct co_event go_on;
    struct run_resume resume;
    struct range_claims claims;                  /* of a disk that is no part of a unit (path.lu) */
    struct scsi_path path;                      /* what it shares with other disks on its node */
    struct scsi_pr saved_pr;                    /* of that, in a snapshot only */
    struct scsi_clock saved_clock;
    struct scsi_defects saved_defects;
    struct scsi_io_count count[SCSI_COUNTERS];
    struct scsi_self_test tests[SCSI_SELF_TESTS];       /* the newest first */
    uint32_t test_gen;                          /* raised when a self-test is stopped */
    uint8_t buffer[SCSI_BUFFER];                /* of READ BUFFER and WRITE BUFFER */
    uint32_t echo_len;
};

static inline struct scsi_disk *disk_of(const struct scsi_req *r) { return (struct scsi_disk *)r->dev; }
bool scsi_disk_is_cd(const struct scsi_disk *d);
bool scsi_disk_has_medium(const struct scsi_disk *d);
bool scsi_disk_read_only(const struct scsi_disk *d);
static inline uint32_t scsi_disk_bs(const struct scsi_disk *d) { return d->opt.logical_block_size; }
uint64_t scsi_disk_blocks(const struct scsi_disk *d);
/* [lba, lba + n) lies on the medium, else the request fails. */
bool scsi_disk_range(struct scsi_req *r, uint64_t lba, uint64_t n);
/* The outcome of back-end work as status; true if it went well or the error is to be ignored. */
bool scsi_disk_result(struct scsi_req *r, int error, bool is_read, uint64_t lba);
void scsi_disk_tray(struct scsi_disk *d, bool open);

extern const struct scsi_cmd scsi_hd_cmds[], scsi_cd_cmds[];
void scsi_disk_usage(const struct scsi_dev *s, const struct scsi_cmd *c, uint8_t *map);

/* For disks on other buses, behind a translation of commands: the parts of their classes. Base: scsi_disk_class. */
extern const struct dev_class scsi_disk_class;
bool scsi_text_fits(const char *name, const char *text, size_t most, struct err *e) MUST_CHECK;  /* an option of the device has room */
extern const struct state_desc scsi_disk_state;
bool scsi_disk_open(struct scsi_disk *d, struct err *e) MUST_CHECK;     /* in realize and unrealize: main loop */
void scsi_disk_close(struct scsi_disk *d);
void scsi_disk_reset(struct dev *dev, enum reset_kind k);
bool scsi_disk_has(const struct scsi_dev *s, const struct scsi_cmd *c);
uint32_t co_scsi_disk_ready(struct scsi_dev *s, const struct scsi_cmd *c);
void scsi_disk_to_default(struct scsi_dev *s);

/* scsi_vpd.c */
void scsi_inquiry(struct scsi_req *r);
/* scsi_mode.c */
/* The geometry that mode pages tell, which disks of zones have not: false then. */
bool scsi_disk_geometry(const struct scsi_disk *d, uint32_t *heads, uint32_t *sectors);
void scsi_mode_sense(struct scsi_req *r);
void scsi_mode_select(struct scsi_req *r);
/* scsi_sbc.c */
void co_scsi_read(struct scsi_req *r);
void co_scsi_write(struct scsi_req *r);
void co_scsi_verify(struct scsi_req *r);
void co_scsi_write_verify(struct scsi_req *r);
void co_scsi_sync_cache(struct scsi_req *r);
void scsi_prefetch(struct scsi_req *r);
void scsi_read_capacity_10(struct scsi_req *r);
void scsi_read_capacity_16(struct scsi_req *r);
void co_scsi_get_lba_status(struct scsi_req *r);
/* scsi_sbc_range.c */
/* Writers claim their blocks, by whatever way they come; who needs them alone waits for those before it. Coroutines */
void co_scsi_claim(struct scsi_disk *d, struct range_claim *c, uint64_t lba, uint64_t blocks, bool alone);
void co_scsi_claim_all(struct scsi_disk *d, struct range_claim *c);
void scsi_release(struct scsi_disk *d, struct range_claim *c);
void co_scsi_unmap(struct scsi_req *r);
void co_scsi_write_same(struct scsi_req *r);
void co_scsi_compare_and_write(struct scsi_req *r);
void co_scsi_sanitize(struct scsi_req *r);
/*
 * Overwrites the medium with @block (the callee's; NULL: zeroes), before the answer or behind it. Meanwhile commands fail with
 * @now, and if it fails with @failed until it has been done. Where there is room for protection information, the medium is formatted with it (@type).
 */
void co_scsi_overwrite_all(struct scsi_req *r, uint32_t now, uint32_t failed, uint8_t *block, unsigned type, bool immed);
bool scsi_overwrite_stops(const struct scsi_disk *d);   /* what it has begun is to end soon: the machine stops, or the disk goes */
void scsi_disk_rest(struct scsi_disk *d);               /* it does; and the machine goes on */
void scsi_disk_resumed(void *disk);
/* scsi_alua.c: asymmetric logical unit access (SPC-5, 5.15) */
enum scsi_access { ACCESS_OPTIMIZED = 0, ACCESS_NON_OPTIMIZED = 1, ACCESS_STANDBY = 2, ACCESS_UNAVAILABLE = 3, ACCESS_OFFLINE = 14, ACCESS_TRANSITION = 15 };
extern const char *const scsi_access_names[];
bool scsi_access_changed(struct obj *o, const struct prop *p, struct err *e);
void scsi_access_load(struct scsi_disk *d);     /* port_state has come from a snapshot */
uint32_t scsi_access_sense(const struct scsi_disk *d, const struct scsi_cmd *c);       /* to refuse a command with; 0: it goes on */
void scsi_report_port_groups(struct scsi_req *r);
void co_scsi_set_port_groups(struct scsi_req *r);
/* scsi_pi.c: protection information */
bool scsi_pi_fit(struct scsi_disk *d, struct err *e) MUST_CHECK;        /* in realize */
unsigned scsi_pi_type(const struct scsi_disk *d);       /* how the medium is formatted: 0: without, 1 to 3 */
int co_scsi_pi_load(struct scsi_disk *d);               /* finds that out, if it is not known. 0 or -errno */
int co_scsi_pi_format(struct scsi_disk *d, unsigned type);      /* all tuples and the header anew */
int co_scsi_pi_forget(struct scsi_disk *d, uint64_t lba, uint64_t blocks);      /* these blocks have no information any more */
/* The PROTECT field is one that the medium's format allows; else the request fails. */
bool scsi_pi_allowed(struct scsi_req *r);
/* Commands on a medium of type 1 to 3; range and field are right. */
void co_scsi_pi_read(struct scsi_req *r, uint64_t lba, uint32_t blocks);
bool co_scsi_pi_write(struct scsi_req *r, uint64_t lba, uint32_t blocks, bool fua);
void co_scsi_pi_verify(struct scsi_req *r, uint64_t lba, uint32_t blocks, unsigned bytchk);
void co_scsi_pi_write_same(struct scsi_req *r, uint64_t lba, uint64_t blocks, bool no_data);
/* Data from elsewhere, in a write that is alone. */
bool co_scsi_pi_store(struct scsi_req *r, uint64_t lba, uint32_t blocks, const uint8_t *data, bool fua);
/* scsi_defects.c: blocks that were given other places */
extern const struct state_desc scsi_defects_state;
void scsi_read_defects(struct scsi_req *r);
void co_scsi_reassign_blocks(struct scsi_req *r);
/* scsi_zbc.c: disks of zones (ZBC), those of the back end */
bool scsi_zones_fit(struct scsi_disk *d, struct err *e) MUST_CHECK;     /* in realize: what SCSI can tell of them */
uint32_t scsi_zone_sense(const struct scsi_disk *d, int error);         /* of what a zone refuses; 0: it is no such error */
void co_scsi_report_zones(struct scsi_req *r);
void co_scsi_zone_op(struct scsi_req *r);
/* All that can be written is zeroes, and zones are empty. 0 or -errno */
int co_scsi_zones_clear(struct scsi_disk *d);
/* scsi_format.c */
void co_scsi_format_unit(struct scsi_req *r);
void scsi_read_buffer(struct scsi_req *r);
void scsi_write_buffer(struct scsi_req *r);
void scsi_report_tmf(struct scsi_req *r);
/* scsi_log.c */
void scsi_log_sense(struct scsi_req *r);
void scsi_log_select(struct scsi_req *r);
void co_scsi_send_diagnostic(struct scsi_req *r);
/* The short and extended tests in the background (1, 2) or awaited (5, 6: until @by, if there is one, is aborted); 4 stops one. False: it failed. */
bool co_scsi_self_test(struct scsi_disk *d, uint8_t code, const struct scsi_req *by);
void scsi_self_test_stop(struct scsi_disk *d, bool by_reset);
bool scsi_self_test_runs(const struct scsi_disk *d);
void scsi_count(struct scsi_disk *d, enum scsi_counter what, uint64_t bytes, bool failed);
/* scsi_mmc.c: the disc of a CD drive */
void scsi_read_toc(struct scsi_req *r);
void scsi_read_disc_information(struct scsi_req *r);
void scsi_read_track_information(struct scsi_req *r);
void scsi_read_subchannel(struct scsi_req *r);
void scsi_read_disc_structure(struct scsi_req *r);
/* scsi_mmc_drive.c: the drive */
enum scsi_media_event { MEDIA_EJECT_REQUEST = 1, MEDIA_NEW, MEDIA_REMOVED };            /* MMC-6, 6.7.2.5 */
void scsi_media_event(struct scsi_disk *d, enum scsi_media_event what);                 /* for GET EVENT STATUS NOTIFICATION */
void scsi_get_configuration(struct scsi_req *r);
void scsi_get_event_status(struct scsi_req *r);
void scsi_mechanism_status(struct scsi_req *r);
void scsi_set_cd_speed(struct scsi_req *r);
void scsi_get_performance(struct scsi_req *r);
void scsi_set_streaming(struct scsi_req *r);
/* scsi_mmc_read.c: raw sectors */
void co_scsi_read_cd(struct scsi_req *r);

#endif
