/* SPDX-License-Identifier: MIT */
/*
 * SCSI targets (SAM-5, SPC-5): a host adapter brings a `scsi-bus`; logical units plug into it by channel, scsi-id and lun. A request is
 * a struct of the adapter's; it is executed by a coroutine from its command block to its status, on the guest's memory.
 *
 * Thread: everything here runs in the adapter's domain, which its units share, unless it says main loop. One adapter is one initiator,
 * so reservations and unit attentions are kept for one nexus.
 */
#ifndef HW_SCSI_SCSI_H
#define HW_SCSI_SCSI_H

#include "core/dev.h"
#include "core/state.h"
#include "hw/scsi/scsi_spec.h"
#include "loop/co.h"
#include "mem/dma.h"

#define SCSI_CDB_MAX 32
#define SCSI_SENSE_MAX 96
#define SCSI_UA_MAX 8
#define SCSI_TRANSFER_MAX (32 * MiB)    /* of one command */
#define SCSI_LIST_MAX 2048u             /* bytes of addresses of REASSIGN BLOCKS */
#define SCSI_REQS_MAX 1024u             /* of one logical unit; then TASK SET FULL */

struct scsi_bus;
struct scsi_dev;

/* What an adapter can address, and what it wants to hear. */
struct scsi_hba {
    uint32_t max_channel, max_target, max_lun;
    bool well_known;                    /* it can address SCSI_LUN_REPORT_LUNS, too, which each target has then */
    /* A logical unit came, went, or changed (@sense: the unit attention's). Lock held. May be NULL */
    void (*plugged)(struct scsi_bus *, struct scsi_dev *, bool came);
    void (*changed)(struct scsi_bus *, struct scsi_dev *, uint32_t sense);
};

struct scsi_bus {
    struct bus bus;                     /* first */
    const struct scsi_hba *hba;
    void *arg;                          /* the adapter's */
    struct domain *dom;
    struct list devs;                   /* of struct scsi_dev that can be addressed */
};
extern const struct bus_class scsi_bus_class;

/* A part of the guest's memory. */
struct scsi_data { const struct dma_vec *v; uint64_t off, len; };

enum scsi_host { SCSI_HOST_OK, SCSI_HOST_OVERRUN /* the buffer is shorter than the medium's data */, SCSI_HOST_ABORTED, SCSI_HOST_RESET,
                 SCSI_HOST_STOPPED /* the machine stops (werror=stop); run it again when it goes on */,
                 /* of the host's device; an adapter without a word for it gives the status, which is CHECK CONDITION then */
                 SCSI_HOST_NO_TARGET, SCSI_HOST_BUSY, SCSI_HOST_TRANSPORT, SCSI_HOST_TARGET, SCSI_HOST_NEXUS, SCSI_HOST_FAILURE };

struct scsi_req {
    /* filled by the adapter */
    uint64_t tag;
    uint64_t lun;                       /* as the initiator addressed it, for units that do not exist; or SCSI_LUN_REPORT_LUNS */
    uint8_t cdb[SCSI_CDB_MAX];
    struct scsi_data out, in;           /* from and to the initiator */
    struct scsi_data pi_out, pi_in;     /* protection information apart from them; len 0: what there is of it is among the data */
    /* results */
    enum scsi_host host;
    uint8_t status, sense[SCSI_SENSE_MAX], sense_len;
    uint64_t done;                      /* bytes of data transferred */
    /* the core's */
    struct list link;                   /* in dev->reqs */
    struct scsi_dev *dev;               /* NULL: none at this address */
    enum scsi_host abort;               /* not OK: it is to end early with this */
};

/* One row of a command set. */
struct scsi_cmd {
    uint8_t op;
    int8_t sa;                          /* service action, -1: none */
    uint16_t flags;                     /* SCF_* */
    uint8_t len;                        /* bytes of the command block */
    void (*co_run)(struct scsi_req *);
    const char *usage;                  /* CDB usage map without its first byte, len - 1 bytes (SPC-5, 6.35.3) */
};
enum { SCF_ALWAYS = 1 /* served with a unit attention pending, a stopped unit, a foreign reservation */, SCF_MEDIUM = 2 /* needs one */,
       SCF_WRITE = 4 /* changes the medium */, SCF_NO_UA = 8 /* served before a unit attention is told */,
       SCF_DISCARD = 16 /* there where the back end can discard */, SCF_SHARED = 32 /* served whoever has a reservation */,
       SCF_ALTERS = 64 /* changes the unit, not its medium: like a write to a reservation */,
       SCF_NEXUS = 128 /* there where the unit knows who asks */, SCF_ZONED = 256 /* of zones only */, SCF_RANDOM = 512 /* not of zones */,
       SCF_GROUPS = 2048 /* there where the unit is behind groups of ports */,
       SCF_PROTECTED = 1024 /* there where the medium can have protection information */,
       SCF_PROTECT = 4096 /* ... and then the first bits of byte 1 say what becomes of it */ };

struct scsi_dev {
    struct dev dev;                     /* first */
    uint32_t channel, id, lun;          /* UINT32_MAX: the first free one */
    struct scsi_bus *bus;               /* while it can be addressed */
    struct list on_bus, reqs;
    uint32_t n_reqs;
    struct co_queue idle;               /* n_reqs == 0 */
    uint32_t ua[SCSI_UA_MAX], n_ua;     /* unit attention conditions, the oldest first */
    uint8_t type;                       /* peripheral device type: the class's, unless realize finds another */
    bool desc_sense;                    /* D_SENSE of the control mode page */
    uint16_t progress;                  /* of what keeps the unit busy, in 1/65536 */
};

struct scsi_dev_class {
    struct dev_class dev;
    const struct scsi_cmd *cmds;        /* ends with co_run NULL */
    void (*co_other)(struct scsi_req *);        /* what to do with commands that have no row. NULL: they are refused */
    uint8_t type;                       /* peripheral device type */
    /* Blocks of the medium and the size of one; for adapters that tell it themselves. NULL: none */
    uint64_t (*capacity)(const struct scsi_dev *, uint32_t *block);
    bool (*has)(const struct scsi_dev *, const struct scsi_cmd *);      /* this unit has the command. NULL: all */
    /* Sense to refuse a command of these flags with (no medium, stopped, sanitizing...), 0: go on */
    uint32_t (*co_ready)(struct scsi_dev *, const struct scsi_cmd *);
    /* A reservation of another nexus keeps the command out: the status is set. May be NULL */
    bool (*conflict)(struct scsi_req *, const struct scsi_cmd *);
    void (*reset)(struct scsi_dev *);   /* to power-on state. May be NULL */
    void (*usage)(const struct scsi_dev *, const struct scsi_cmd *, uint8_t *map);      /* bits that this unit knows, or does not. May be NULL */
};
#define SCSI_DEV_CLASS(d) ((const struct scsi_dev_class *)(d)->dev.obj.cls)

extern const struct dev_class scsi_dev_class;           /* abstract */
bool scsi_dev_init(struct obj *o, struct err *e);       /* for units that are plugged elsewhere, too */
extern const struct state_desc scsi_dev_state;

/* ---- for adapters ---- */
/* The bus of an adapter, named "ID.0". Main loop, in realize. NULL with @e filled. */
struct scsi_bus *scsi_bus_new(struct dev *owner, const struct scsi_hba *hba, void *arg, struct err *e) MUST_CHECK;
/* The unit at an address. With @any_lun, another one of the target if there is no such unit; NULL: no target. */
struct scsi_dev *scsi_find(struct scsi_bus *b, uint32_t channel, uint32_t id, uint32_t lun, bool any_lun);
/* Executes @r on a unit of the target (@d: what scsi_find(any_lun) gave), awaiting. Results are in @r. Coroutine. */
void co_scsi_run(struct scsi_req *r, struct scsi_dev *d);
/* Ends the requests of @d that @match accepts (NULL: all) with @why, and waits until they have. Their number. */
unsigned co_scsi_abort(struct scsi_dev *d, bool (*match)(const struct scsi_req *, const void *), const void *arg, enum scsi_host why);
unsigned scsi_pending(struct scsi_dev *d, bool (*match)(const struct scsi_req *, const void *), const void *arg);
/* Logical unit reset: aborts all and takes power-on state with the unit attention @sense. */
void co_scsi_reset(struct scsi_dev *d, uint32_t sense);
/* Bus reset without requests in flight (the adapter's own reset). */
void scsi_bus_power_on(struct scsi_bus *b);

/* Bytes that a command moves, at most SCSI_TRANSFER_MAX, and which way; 0: none, or the command is not known. scsi_length.c */
uint32_t scsi_transfer_len(const struct scsi_dev *d, const uint8_t *cdb, bool *to_device);

/* Bytes that follow the first ones of a parameter list, which alone scsi_transfer_len() knows of: @head says it. 0: none, or more than is taken. */
uint32_t scsi_list_rest(const uint8_t *cdb, const uint8_t *head);

/* ---- for logical units ---- */
bool scsi_dev_attach(struct scsi_dev *d, struct err *e) MUST_CHECK;     /* last in realize: it can be addressed now */
void co_scsi_dev_quiesce(struct dev *d);
void scsi_fail(struct scsi_req *r, uint32_t sense);                     /* CHECK CONDITION */
void scsi_fail_info(struct scsi_req *r, uint32_t sense, uint64_t info); /* with INFORMATION: an LBA, an offset */
void scsi_fail_field(struct scsi_req *r, uint32_t sense, unsigned byte);/* with the field pointer */
void scsi_attention(struct scsi_dev *d, uint32_t sense);                /* queues a unit attention, tells the adapter */
/* Data to the initiator, cut to @alloc bytes and its buffer. */
void scsi_reply(struct scsi_req *r, const void *buf, size_t n, uint64_t alloc);
/* @n bytes of parameters from the initiator; fewer if it sent fewer. */
size_t scsi_take(struct scsi_req *r, uint64_t off, void *buf, size_t n);
/* The row of a command that the unit has; @sa counts only where the operation code has service actions. NULL: none. */
const struct scsi_cmd *scsi_cmd_find(const struct scsi_dev *d, uint8_t op, uint16_t sa);
static inline bool scsi_cmd_there(const struct scsi_dev *d, const struct scsi_cmd *c)
{
    return !SCSI_DEV_CLASS(d)->has || SCSI_DEV_CLASS(d)->has(d, c);
}
/* The first row of an operation code that the unit has, whatever its service action. NULL: none. */
const struct scsi_cmd *scsi_cmd_any(const struct scsi_dev *d, uint8_t op);
/* Sense data for REQUEST SENSE and CHECK CONDITION; its length. The second: with what @d is busy with has come to. */
unsigned scsi_sense_build(uint8_t *buf, uint32_t sense, bool desc);
unsigned scsi_sense_of(const struct scsi_dev *d, uint8_t *buf, uint32_t sense, bool desc);
static inline bool scsi_aborted(const struct scsi_req *r) { return r->abort != SCSI_HOST_OK; }
/* What addresses without a unit answer, and the well known unit; @sibling: a unit of the target, NULL: there is no target. REPORT LUNS and REPORT SUPPORTED OPERATION CODES of units. */
void scsi_run_absent(struct scsi_req *r, struct scsi_dev *sibling);
void scsi_report_luns(struct scsi_req *r);
void scsi_report_opcodes(struct scsi_req *r);

/* Command block fields (SPC-5, 4.2). */
uint64_t scsi_cdb_lba(const uint8_t *cdb);
uint32_t scsi_cdb_len(const uint8_t *cdb);
uint32_t scsi_cdb_blocks(const uint8_t *cdb);           /* of a transfer: in READ(6) and WRITE(6), 0 stands for 256 (SBC-4, 5.8) */
uint16_t scsi_cdb_action(const uint8_t *cdb);           /* the service action, where there are some */
/* The byte with the PROTECT field, DPO, FUA and BYTCHK. */
static inline uint8_t scsi_cdb_flags(const uint8_t *cdb) { return cdb[0] == OP_VARIABLE_LENGTH ? cdb[10] : cdb[1]; }

#endif
