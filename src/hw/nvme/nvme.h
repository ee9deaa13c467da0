/* SPDX-License-Identifier: MIT */
/*
 * An NVM Express subsystem: controllers on PCI, namespaces, what they share. A controller is under its function's domain
 * lock, but the doorbells: their handlers latch a value and post. What controllers share (struct nvme_subsys, namespaces)
 * is under the subsystem's lock, a leaf that is never held across a wait. A command is a coroutine from its entry in the
 * submission queue to its completion; it takes its fields once, from a copy.
 */
#ifndef HW_NVME_NVME_H
#define HW_NVME_NVME_H

#include "block/blk.h"
#include "core/run.h"
#include "hw/nvme/spec.h"
#include "loop/co.h"
#include "loop/iothread_map.h"
#include "loop/range_claim.h"
#include "mem/ram.h"
#include "pci/pci.h"

#define NVME_QUEUE_ENTRIES 2048u        /* CAP.MQES + 1 */
#define NVME_AER_MAX 8u                 /* outstanding asynchronous event requests at most (aerl=) */
#define NVME_EVENTS_MAX 64u
#define NVME_PAGE 4096u
#define NVME_NS_MAX 256u                /* namespaces of a subsystem */
#define NVME_CTRL_MAX 128u              /* controllers of a subsystem */
#define NVME_LBAF_MAX 17u               /* the usual ones, and one that an option asks for */
#define NVME_ANA_GROUPS 8u
#define NVME_PH_MAX 128u                /* placement handles of a namespace */
#define NVME_FDP_EVENTS 63u
#define NVME_RESV_HOSTS 32u
#define NVME_RESV_NOTES 16u
#define NVME_TESTS 20u
#define NVME_MODEL "backplane NVMe Controller"
#define NVME_FW_SLOTS 3u
#define NVME_FW_REV 8u
#define NVME_FW_CHANGES 20u
#define NVME_FW_MAX (4 * MiB)
#define NVME_STREAMS 16u                /* of a subsystem */
#define NVME_HMB_LIST 4096u
#define NVME_IN_FLIGHT_MAX 1024u        /* commands of a controller at a time: each is a coroutine with a stack */
#define NVME_RPMB_HEADER 256u           /* bytes of a frame before its data; of the key that signs it */
#define NVME_RPMB_KEY 32u
#define NVME_FORMATS 16u               /* that every namespace offers */
#define NVME_MPS_MAX 4u                 /* CAP.MPSMAX: 64 KiB */
#define NVME_MDTS_MAX 9u
#define NVME_HELD 0xffffu               /* a handler's "status": the command completes later */
#define NVME_ERRORS 64u                 /* entries of the error log */

struct nvme;
struct nvme_ns;
struct nvme_subsys;

/* The memory of a queue, held while it is what the queue's address means. */
struct nvme_ring { struct dma_vec vec; uint64_t gen; };

struct nvme_sq {
    struct nvme *n;
    struct loop *loop;                  /* serves it, and runs its commands */
    struct post post;                   /* doorbell rung, or room again: nvme_sq_kick() */
    struct nvme_ring ring;
    _Atomic uint32_t tail_db;           /* as the guest wrote it */
    atomic_bool rung;
    bool live, deleting;
    bool half;                          /* its next commands are half a fused pair */
    uint8_t prio;                       /* 0 urgent .. 3 low, with weighted round robin */
    uint16_t id, cqid;
    uint32_t size, head;
    uint64_t addr;
    uint32_t in_flight;
    struct list reqs;                   /* of struct nvme_req, being executed */
    struct nvme_req *first;             /* of a fused pair, waiting for the second */
};

struct nvme_cq {
    struct nvme *n;
    struct loop *loop;
    struct post post;                   /* doorbell rung, or entries to tell of: nvme_cq_kick() */
    struct nvme_ring ring;
    _Atomic uint32_t head_db;
    _Atomic uint32_t quiet;             /* a doorbell below this is only latched: nobody waits for room, no pin to let fall */
    atomic_bool rung;
    atomic_bool irq_on;
    bool live, phase, notify;
    bool raised;                        /* the pin was told of what is in the queue */
    uint16_t id, vector;
    uint32_t size, head, tail;
    uint64_t addr;
    uint32_t sqs;                       /* submission queues that complete here */
    uint32_t held;                      /* completions since the last interrupt (coalescing) */
    struct timer coalesce;
    struct list waiting;                /* of struct nvme_req: there was no room */
};

struct nvme_req {
    struct list link;                   /* in sq->reqs, cq->waiting, n->parked or n->free_reqs */
    struct nvme *n;
    struct nvme_sq *sq;
    struct nvme_ns *ns;                 /* counted in its in_flight; NULL: none */
    struct nvme_req *fused;             /* the first half of a fused pair, held by the second */
    struct nvme_cmd cmd;
    uint64_t result;
    uint32_t gen;                       /* of the controller's enabled time */
    uint16_t status;
    bool abort;                         /* the host asked; looked at where a command can still stop */
    bool corrupt;                       /* a fault: what the host gets is damaged */
    bool delayed;                       /* waits where an abort reaches it */
    bool park;                          /* the machine was asked to stop: try again when it runs */
    struct dma_vec data, meta;
    uint8_t *bounce;                    /* kept with the pooled request */
    uint64_t bounce_size;
};

/* Asymmetric access states (8.1). */
enum nvme_ana { NVME_ANA_OPTIMIZED = 1, NVME_ANA_NON_OPTIMIZED, NVME_ANA_STATE_INACCESSIBLE, NVME_ANA_STATE_LOSS, NVME_ANA_STATE_CHANGE = 15 };

struct nvme_error {                     /* 5.16.1.2 */
    uint64_t count, lba;
    uint16_t sqid, cid, status, location;
    uint32_t nsid;
    uint8_t opcode;
};

/* Write protection (8.12): none, until it is changed, until the power cycle, for ever. */
enum nvme_protect { NVME_PROTECT_NONE, NVME_PROTECT_ON, NVME_PROTECT_CYCLE, NVME_PROTECT_EVER };

/* What a namespace says of atomic writes, all 0's based; @on: it says anything (NSFEAT.NSABP). */
struct nvme_ns_atomic { bool on; uint16_t nawun, nawupf, nabsn, nabspf, nabo; };

/* What the command line says of a namespace. */
struct nvme_ns_opts {
    uint32_t nsid;
    bool detached, shared;
    enum tri shared_opt;
    uint8_t uuid[16];
    char *nguid;
    uint64_t eui64;
    bool eui64_default;
    uint16_t ms, mssrl;
    uint32_t mcl;
    uint8_t msrc, mset, pi, pil, pif;
    bool zoned, kv, cross_read, auto_transition;
    uint64_t zone_size, zone_capacity;
    uint32_t max_active, max_open, zd_ext, numzrwa;
    uint64_t zrwas, zrwafg;
    char *ruhs;
    uint16_t anagrp;
    struct nvme_ns_atomic atomic;
};

struct nvme_fmt { uint8_t ds; uint16_t ms; };

/* A block node in whose space namespaces are. */
struct nvme_unit {
    struct list link;                   /* in the subsystem's units */
    struct blk *blk;
    struct blk_caps caps;
    struct blk_front_opts *opt;
    struct nvme_subsys *ss;
    bool coming;                        /* its own namespaces are being made: hosts make none on it yet. The subsystem's lock, as the next */
    bool going;                         /* no namespace is made on it any more; counted in ss->units_going */
};

/* Of a namespace: controllers that switched the directive on, streams it owns, streams that are open, oldest first. */
struct nvme_streams { uint32_t on[NVME_CTRL_MAX / 32]; uint16_t given, n_open, open[NVME_STREAMS + 1]; };

struct nvme_ns {
    struct nvme_subsys *ss;
    struct nvme_unit *unit;
    atomic_bool live;                   /* allocated; slots are kept for ever, so that a look is enough */
    bool going;                         /* no longer live, for its unit leaves: it will be there again with that */
    _Atomic uint32_t in_flight;         /* requests of all controllers */
    uint32_t nsid;
    uint64_t base, space;               /* bytes of the unit */
    /* format */
    struct nvme_fmt lbaf[NVME_LBAF_MAX];
    uint8_t n_lbaf, flbas, shift, csi;
    uint16_t ms;
    bool extended;                      /* metadata goes with each block, not in a buffer of its own */
    uint8_t pi, pil, pif, sts;          /* type 0-3, first bytes of metadata, guard format, storage tag bits */
    uint64_t nsze, meta_off;            /* blocks; where metadata begins, bytes from base */
    /* identity */
    uint8_t nguid[16], uuid[16];
    uint64_t eui64;
    bool shared;
    uint32_t attach[NVME_CTRL_MAX / 32];        /* controllers that have it, or will when they come */
    uint16_t mssrl;
    uint32_t mcl;
    uint8_t msrc;
    uint16_t anagrp;
    /* state */
    uint8_t write_protect;              /* enum nvme_protect */
    uint16_t tler;                      /* features: time for error recovery; deallocated blocks; EDNEK */
    bool dulbe, kv_error_on_delete;
    struct nvme_ns_atomic atomic;
    struct nvme_streams streams;        /* under the subsystem's lock */
    struct range_claims ranges;         /* of blocks: what commands work on */
    atomic_bool formatting, has_uncor, alone;
    _Atomic uint32_t writers;
    uint16_t ph[NVME_PH_MAX], n_ph;     /* placement handles: reclaim unit handles of the group */
    struct nvme_zones *zones;
    struct nvme_kv *kv;
    struct nvme_resv *resv;
    struct nvme_uncor *uncor;           /* ranges that Write Uncorrectable made */
    struct nvme_lba_types *lba_types;   /* what the host noted of ranges; NULL: nothing */
    _Atomic uint64_t units_read, units_written;     /* 512 bytes */
};

struct nvme_ruh { uint8_t used, events; };      /* reclaim unit handle; events: a bit a host event that is logged */
struct nvme_fdp_event { uint64_t time; uint32_t nsid; uint16_t pid, rg; uint8_t type, flags, ruhid; };
struct nvme_fdp {
    bool there, on;                     /* the subsystem can; it is enabled (5.27.1.23) */
    uint8_t rgif;                       /* bits of a placement id that name the reclaim group */
    uint16_t nrg, nruh;
    uint64_t runs;                      /* bytes of a reclaim unit */
    uint64_t *left;                     /* of the present unit, by handle and group */
    uint64_t host_bytes, media_bytes;
    struct nvme_ruh ruh[NVME_PH_MAX];
    struct nvme_fdp_event event[NVME_FDP_EVENTS];
    uint32_t n_events;
};

struct nvme_sanitize {
    bool running, failed;
    uint16_t progress, status;          /* as the log page tells them */
    uint32_t cdw10, pattern;
    uint64_t done;                      /* bytes, over all units and passes */
    struct nvme *runner;
};

struct nvme_test_result { uint8_t status; uint32_t nsid; uint64_t hours; };
struct nvme_test { uint8_t code; uint32_t nsid, n_results; int64_t start; struct nvme_test_result result[NVME_TESTS]; };
/* Boot partitions: the two halves of a block node. */
struct nvme_boot {
    struct obj *drive;
    struct blk *blk;                    /* NULL: none */
    uint64_t size, where;               /* bytes of one; BPMBL */
    uint32_t select;                    /* BPRSEL */
    uint8_t status, active;
    bool read_only;
};
/* Replay protected memory: what the drive keeps, once it is read, and the host's last request. */
struct nvme_rpmb {
    struct obj *drive;
    struct blk *blk;                    /* NULL: none */
    uint64_t size;                      /* bytes of data */
    bool read_only, loaded, key_set;
    struct co_mutex busy;               /* one request at a time */
    uint32_t counter;
    uint8_t key[NVME_RPMB_KEY], config[3];      /* config: of the configuration block, the bytes that have a meaning */
    bool asked;                         /* there is a request to answer */
    uint8_t request[NVME_RPMB_HEADER];
    uint16_t result;                    /* of the request, if it was a change */
};
struct nvme_hmb { uint32_t size, count; uint64_t list; };
struct nvme_cmb {
    struct region cmb, pmr, pmr_bar;
    struct ram *ram;
    uint32_t size_mb;
    uint64_t size, pmr_size;            /* bytes; 0: none */
    bool legacy;                        /* the scheme of NVMe 1.3: always there */
    uint64_t msc, pmrmsc;
    uint32_t sts, pmrctl, pmrsts;
    bool (*xlate)(void *arg, uint64_t iova, bool write, uint64_t *pa, uint64_t *len);      /* of the bus, under ours */
    void *xlate_arg;
};

struct nvme_thermal {
    uint16_t option;                    /* the temperature that the option says: kelvin */
    uint16_t temperature, over, under;  /* now, and what is told of as an event; */
    uint16_t sensor_over, sensor_under; /* by the sensor, which measures the same */
    uint32_t entered[2];                /* times that each level of thermal management began */
    int64_t since, ns[4];               /* accounted up to here: time in each level, above the warning and the critical temperature */
};

struct nvme_fw_change { uint64_t time, cycles; char from[NVME_FW_REV], to[NVME_FW_REV]; uint16_t number; uint8_t slot, action; };
/* What ocp.c tells. */
struct nvme_ocp {
    uint32_t panics;                    /* fatal statuses */
    uint32_t changes, kept;             /* of the firmware that runs: all, those that @change still has */
    struct nvme_fw_change change[NVME_FW_CHANGES];
};

/* A secondary controller, as its primary knows it; under the subsystem's lock. */
struct nvme_secondary {
    uint16_t cntlid, nvq, nvi;          /* queues (the admin one too) and vectors assigned */
    bool online;
    uint32_t times_off;                 /* that it was taken offline */
};
struct nvme_virt {
    uint8_t max_vfs;
    uint16_t vq_flexible, vi_flexible, max_vq, max_vi;      /* options */
    uint16_t vq, vi, vq_next, vi_next;  /* flexible resources that the primary has, and will have after its next reset */
    struct nvme_secondary sec[NVME_CTRL_MAX - 1];
};

/* Events, oldest first, and the page that a reporting context shows, NULL: none; under the subsystem's lock. */
struct nvme_pel { uint8_t *log, *context; uint32_t len, last, context_len; uint16_t generation, holder; };
struct nvme_resv_note { uint32_t nsid; uint8_t type; };

struct nvme_subsys {
    pthread_mutex_t lock;               /* leaf; never across a wait */
    char nqn[224];
    struct nvme *ctrl[NVME_CTRL_MAX];
    struct nvme_ns *ns[NVME_NS_MAX + 1];
    struct list units;
    atomic_uint units_going;            /* of these: so many are about to leave, and a sanitize stands until they have */
    atomic_bool sanitizing;             /* a coroutine goes through the units */
    _Atomic uint16_t uncor_changes;     /* generation of the LBA status log */
    atomic_bool atomic_writes;          /* some controller promises writes of several blocks */
    bool own;                           /* of one controller that names no subsystem */
    struct nvme_fdp fdp;
    struct nvme_sanitize sanitize;
    struct nvme_pel pel;
    /* the state file, persist.c */
    char *state_path;                   /* NULL: nothing is kept */
    json_t *saved;
    atomic_bool dirty, writing;
    struct post save_post;
    struct timer save_timer;
    struct co_mutex saving;
    struct run_listener end;
};

struct nvme {
    struct pci_dev pci;                 /* first */
    struct blk_front_opts opt;
    struct nvme_ns_opts ns_opt;
    char *serial;
    struct obj *subsys_link, *iothread;
    json_t *queue_map_opt;              /* option iothread-queue-mapping, and the threads it names */
    struct iothread_map queue_threads;
    uint32_t max_ioqpairs, aer_max_queued;
    uint16_t msix_qsize;
    uint8_t mdts, mdts_field, aerl, zasl, vsl;
    uint16_t awun, awupf, mqes;
    uint32_t num_queues;                /* the old name of max_ioqpairs + 1; 0: not said */
    bool ctratt_mem;
    uint8_t critical_opt;               /* critical warnings that are asked for */
    bool dbcs, ocp, exclusive_bar, auto_transition, atomic_dn;
    char *model, *fw_rev;               /* NULL: the usual */
    bool intel_id;
    atomic_bool has_cache;              /* some namespace has a volatile one */
    struct nvme_subsys own_ss, *ss;
    struct bus *bus;
    struct region bar, regs, doorbells;
    uint32_t msix_table, msix_pba;
    struct nvme_unit own_unit;          /* of drive=, and its namespace */
    struct timer keep_alive;
    struct run_resume resume;
    struct post events_post, warn_post, thermal_post;
    uint16_t cntlid, vectors;           /* vectors: that it may use now; */
    uint32_t qpairs;                    /* of max_ioqpairs, too */
    struct nvme_virt virt;              /* of a primary controller; */
    bool online;                        /* of a secondary one: what it knows; */
    uint32_t times_off;
    atomic_bool virt_changed;           /* there is news */
    /* registers */
    uint64_t cap, asq, acq;
    uint32_t cc, csts, aqa, intms;
    bool disabling, quiesced, queues_made;
    uint32_t credit[4];                 /* commands that each class has left in this round of arbitration; [0] is not used */
    bool starved;                       /* some queue was not looked at, too much was in flight */
    uint32_t gen;                       /* of the enabled time: requests of an older one complete nowhere */
    uint32_t in_flight;
    uint32_t background;                /* coroutines without a command: sanitize */
    struct co_queue drained;            /* of the home loop; woken when a count reaches zero */
    struct post drained_post;
    struct list waits;                  /* of struct nvme_wait: commands that wait for a moment */
    struct nvme_sq *sq;                 /* max_ioqpairs + 1 */
    struct nvme_cq *cq;
    struct list free_reqs, parked;      /* parked: stopped by werror=stop, begun again when the machine runs */
    uint32_t n_free, n_queues;          /* n_queues: max_ioqpairs + 1 */
    struct nvme_ns *_Atomic ns[NVME_NS_MAX + 1];        /* attached */
    /* events */
    uint16_t aer[NVME_AER_MAX];
    uint32_t n_aer, n_events, masked_events;
    uint64_t events[NVME_EVENTS_MAX];   /* type, information << 8, log page << 16, what it is about << 32 */
    _Atomic uint32_t changed_ns[(NVME_NS_MAX + 32) / 32];       /* set by any controller of the subsystem */
    _Atomic uint32_t changed_zones[(NVME_NS_MAX + 32) / 32];    /* namespaces, by nvme_zone_changes_itself() */
    atomic_bool lba_alert;              /* some block cannot be read any more */
    struct timer lba_timer;             /* the next alert, not sooner than the host wants it */
    bool lba_waits;                     /* it is armed: in a snapshot only */
    int64_t lba_alerted;                /* when the last one was */
    bool endgrp_event;                  /* the endurance group has news */
    atomic_bool ns_change, ana_change, nssr, resv_event, sanitize_event;
    /* features */
    uint32_t feat[256], feat_saved[256];
    uint32_t vector_off[2048 / 32];     /* coalescing disabled, a bit a vector */
    uint64_t host_id[2];
    int64_t timestamp_set;              /* CLOCK_VM when the host set it */
    uint64_t timestamp;                 /* ms since the epoch, as set */
    uint8_t timestamp_origin;
    uint8_t host_behavior[6], resv_mask[NVME_NS_MAX + 1];       /* the mask by namespace: reservation notifications that the host does not want */
    bool host_id_wide, clean_shutdown;
    /* counters */
    _Atomic uint64_t reads, writes, errors;
    uint64_t power_cycles, unsafe_shutdowns;
    bool features_kept;                 /* saved features came from the state file */
    char *state_opt;
    int64_t powered_ns;
    struct nvme_error error[NVME_ERRORS];
    struct nvme_thermal thermal;
    uint8_t critical;
    struct nvme_resv_note resv_note[NVME_RESV_NOTES];       /* under the subsystem's lock */
    uint32_t resv_notes;
    uint64_t resv_count;
    int ana_option;                     /* enum nvme_ana - 1, of every group that no other is said of */
    json_t *ana_groups_opt;
    struct { uint8_t state; uint64_t changes; } ana[NVME_ANA_GROUPS + 1];       /* enum nvme_ana of each group; under the domain's lock */
    uint64_t ana_changes;
    struct nvme_test test;
    struct timer test_timer;
    uint64_t shadow_db, shadow_ei;      /* doorbell buffers, 0: none */
    uint32_t hmb_pages;                 /* that it would like, 4 KiB each; 0: no host memory buffer */
    struct nvme_hmb hmb;
    char fw_slot[NVME_FW_SLOTS + 1][NVME_FW_REV];
    uint8_t *fw_buf;                    /* what was downloaded */
    uint64_t fw_cap;
    struct nvme_boot boot;
    struct nvme_rpmb rpmb;
    uint8_t fw_active, fw_next, fw_action;      /* fw_action: that committed fw_next */
    struct nvme_ocp ocp_data;
    uint64_t fw_len;                    /* downloaded so far */
    uint64_t telemetry_gen;
    struct nvme_cmb cmb;
    bool legacy_cmb;
    struct obj *pmrdev;
    json_t *faults_opt;
    struct nvme_fault *faults;
    uint32_t n_faults;
    uint64_t fault_hits;
    int link_option;                    /* enum pci_link */
    json_t *timing_opt;
    struct nvme_timing *timing;         /* NULL: commands take as long as they take */
    uint64_t timed_commands, timed_ns;
};

static inline uint32_t nvme_page(const struct nvme *n) { return NVME_PAGE << (n->cc >> NVME_CC_MPS_SHIFT & 15); }
static inline uint8_t nvme_ana_state(const struct nvme *n, uint16_t group) { return n->ana[group].state; }
static inline bool nvme_stale(const struct nvme_req *r) { return r->gen != r->n->gen; }
static inline bool nvme_ready(const struct nvme *n) { return n->csts & NVME_CSTS_RDY && !(n->csts & NVME_CSTS_CFS) && !n->disabling; }
/* The longest transfer, bytes. */
static inline uint64_t nvme_max_transfer(const struct nvme *n) { return (uint64_t)NVME_PAGE << n->mdts_field; }

/* ---- queue.c: LOOP, domain lock held ---- */
extern const struct mmio_ops nvme_doorbell_ops;         /* ANY, lock-free */
bool nvme_queues_init(struct nvme *n, struct err *e) MUST_CHECK;
void nvme_queues_fini(struct nvme *n);
void nvme_sq_open(struct nvme_sq *sq, uint16_t cqid, uint64_t addr, uint32_t size, uint8_t prio);
void nvme_cq_open(struct nvme_cq *cq, uint16_t vector, bool irq_on, uint64_t addr, uint32_t size);
static inline void nvme_sq_kick(struct nvme_sq *sq) { loop_post(sq->loop, &sq->post); }
static inline void nvme_cq_kick(struct nvme_cq *cq) { loop_post(cq->loop, &cq->post); }
/* Every queue closed; what is in flight becomes stale. */
void nvme_queues_close(struct nvme *n);
void nvme_cq_close(struct nvme_cq *cq);
void nvme_sq_close(struct nvme_sq *sq);
/* Addresses may mean other memory now: the controller's own windows moved. */
void nvme_rings_forget(struct nvme *n);
/* The first half of a pair whose second has not come goes back to its queue. */
void nvme_queues_rewind(struct nvme *n);
/* Ends @r with its status and result; @r is free or queued then. */
void nvme_complete(struct nvme_req *r);
/* Completes @cid of the admin queue without a request of its own (asynchronous events). */
void nvme_complete_cid(struct nvme *n, uint16_t cid, uint16_t status, uint64_t result);
void nvme_req_free(struct nvme_req *r);
void nvme_pin_update(struct nvme *n);
void nvme_kick_all(struct nvme *n);

/* ---- map.c ---- */
/* Maps @len bytes of the command's data pointer (4.1) into r->data. A status. */
uint16_t nvme_map(struct nvme_req *r, uint64_t len, bool dev_writes);
/* The same for the metadata pointer, into r->meta. */
uint16_t nvme_map_meta(struct nvme_req *r, uint64_t len, bool dev_writes);
/* Copies @len bytes of @buf to the host, or from it, by the data pointer. */
uint16_t nvme_to_host(struct nvme_req *r, const void *buf, uint64_t len);
uint16_t nvme_from_host(struct nvme_req *r, void *buf, uint64_t len);
/* @buf has @have bytes of a structure; the host asked for @want from @off: what lies behind the end is zero. */
uint16_t nvme_to_host_part(struct nvme_req *r, const void *buf, uint64_t have, uint64_t off, uint64_t want);
void nvme_vec_put(const struct dma_vec *v, uint64_t at, const void *buf, uint64_t len);
void nvme_vec_get(const struct dma_vec *v, uint64_t at, void *buf, uint64_t len);
/* @nlb times @block bytes of @data, then @ms of @meta, between the list and two buffers. */
void nvme_vec_blocks(const struct dma_vec *v, uint8_t *data, uint64_t block, uint8_t *meta, uint64_t ms, uint64_t nlb, bool put);
/* A buffer of at least @len bytes that lives with the request; NULL where there is no memory. */
uint8_t *nvme_bounce(struct nvme_req *r, uint64_t len);

/* ---- admin.c ---- */
/* One row a command; also what the Commands Supported and Effects log tells (5.16.1.6). */
struct nvme_op {
    uint8_t opcode;
    const char *name;
    uint32_t effects;                   /* without CSUPP */
    uint16_t flags;
    uint16_t (*co)(struct nvme_req *r); /* a status */
};
enum { NVME_OP_NS = 1 /* needs an active namespace */, NVME_OP_WRITES = 2, NVME_OP_ZONED = 4 /* zoned command set only */,
       NVME_OP_ALL_NS = 8 /* FFFFFFFFh is fine */, NVME_OP_READS = 64, NVME_OP_SANITIZE = 16 /* allowed while a sanitize runs */,
       NVME_OP_DATA = 512 /* moves blocks */, NVME_OP_RANGE = 1024 /* dwords 10 to 12 tell the blocks */,
       NVME_OP_BLOCKS = 2048 /* not for keys and values */,
       NVME_OP_DBBUF = 128, NVME_OP_VIRT = 256 /* where the option is on */ };
extern const struct nvme_op nvme_admin_ops[], nvme_io_ops[];
const struct nvme_op *nvme_op_find(const struct nvme_op *table, uint8_t opcode);
static inline bool nvme_op_offered(const struct nvme *n, const struct nvme_op *op)
{
    return op && !(op->flags & NVME_OP_DBBUF && !n->dbcs) && !(op->flags & NVME_OP_VIRT && !n->virt.max_vfs);
}
void co_nvme_command(void *req);
/* An asynchronous event (5.2.1). Domain lock held. */
void nvme_event(struct nvme *n, unsigned type_info, uint8_t log);
/* The same with an event specific parameter. */
void nvme_event_about(struct nvme *n, unsigned type_info, uint8_t log, uint32_t what);
void nvme_events_reset(struct nvme *n);
/* The host read the log page: events of the type may come again. */
void nvme_event_unmask(struct nvme *n, uint8_t type);
/* Some controller of the subsystem changed @nsid: every other one is told. ANY, no subsystem lock held. */
void nvme_ns_changed(struct nvme_subsys *ss, uint32_t nsid, const struct nvme *but);

/* ---- identify.c, feature.c, log.c, io.c ---- */
uint16_t nvme_identify(struct nvme_req *r);
/* Which value of a feature Get Features wants; what cannot be saved is never asked for as NVME_SAVED. */
enum nvme_select { NVME_CURRENT, NVME_DEFAULT, NVME_SAVED };
uint32_t nvme_feature_scalar(const struct nvme *n, uint8_t fid, enum nvme_select sel);
uint16_t co_nvme_get_feature(struct nvme_req *r);
uint16_t co_nvme_set_feature(struct nvme_req *r);
void nvme_features_reset(struct nvme *n, bool first);
/* Those of namespaces, which belong to every controller: their defaults. */
void nvme_ns_features_reset(struct nvme_subsys *ss);
uint16_t co_nvme_get_log(struct nvme_req *r);
void nvme_log_error(struct nvme_req *r);
/* The health log, 512 zeroed bytes. */
void nvme_smart_page(struct nvme *n, uint8_t *b);
uint64_t nvme_timestamp(const struct nvme *n);
uint16_t co_nvme_flush_all(struct nvme *n);

/* ---- ns.c ---- */
extern const struct prop nvme_ns_props[];               /* over struct nvme_ns_opts */
/* The attached namespace @nsid of @n with a request counted on it, or NULL. */
struct nvme_ns *nvme_ns_get(struct nvme *n, uint32_t nsid);
void nvme_ns_put(struct nvme_ns *ns);
static inline struct nvme_ns *nvme_ns_at(const struct nvme *n, uint32_t nsid)
{
    return nsid && nsid <= NVME_NS_MAX ? atomic_load(&n->ns[nsid]) : NULL;
}
/* Opens @opt's drive and makes the namespaces on it: the one that @no describes, or those that the state file knows; attaches
 * them as they say, a private one to @n. Main loop. */
bool nvme_unit_create(struct nvme_subsys *ss, struct nvme *n, struct nvme_unit *u, struct blk_front_opts *opt, struct nvme_ns_opts *no,
                      struct dev *user, struct err *e) MUST_CHECK;
/* Every namespace on the unit is gone from now on; the id of the first. Commands to them may still run: nvme_unit_busy(). */
uint32_t nvme_unit_leave(struct nvme_unit *u);
bool nvme_unit_busy(const struct nvme_unit *u);
void nvme_ns_destroy(struct nvme_ns *ns);
/* A slot for namespace @nsid (0: a free one), zeroed; it is allocated once ->live is set. */
struct nvme_ns *nvme_ns_new(struct nvme_subsys *ss, uint32_t nsid, struct err *e);
void nvme_unit_close(struct nvme_unit *u);
/* Nothing unreadable, no reservations. */
void nvme_ns_clear(struct nvme_ns *ns);
/* What a deleted or destroyed namespace owned. */
void nvme_ns_clean(struct nvme_ns *ns);
/* Gives it identifiers of its own. */
void nvme_ns_identify_as(struct nvme_ns *ns);
/* Whether protection of @pi (0: none) fits in @ms bytes of metadata. */
bool nvme_pi_fits(unsigned pi, uint8_t pif, uint16_t ms);
#define NVME_PIF_DEFAULT 0
bool nvme_zones_new(struct nvme_ns *ns, const struct nvme_ns_opts *o, struct err *e) MUST_CHECK;
void nvme_zones_free(struct nvme_ns *ns);
/* Zones that writes opened are never closed for others. */
void nvme_zones_no_auto(struct nvme_ns *ns);
/* Whether zones can be told in blocks of a format; after a change of format, the same zones, empty. */
bool nvme_zones_fit(const struct nvme_ns *ns, const struct nvme_fmt *f);
void nvme_zones_reformat(struct nvme_ns *ns);
void nvme_zones_power_cycle(struct nvme_ns *ns);
uint64_t nvme_zones_capacity(const struct nvme_ns *ns);     /* blocks that can be written */
void nvme_zones_identify(const struct nvme_ns *ns, unsigned formats, uint8_t *b);
/* Bytes of all units, and of them what no namespace has. */
void nvme_capacity(struct nvme_subsys *ss, uint64_t *total, uint64_t *unused);
/* Something that is kept on the host changed. ANY, the subsystem's lock held or not. */
void nvme_state_dirty(struct nvme_subsys *ss);
static inline void nvme_ns_dirty(struct nvme_ns *ns) { nvme_state_dirty(ns->ss); }
/* The NVME_FORMATS formats. */
void nvme_formats(struct nvme_fmt *out);
/* Namespaces that are meant for the new controller. */
void nvme_attach_known(struct nvme *n);
void nvme_ns_set_format(struct nvme_ns *ns, unsigned lbaf, bool extended, unsigned pi, bool pil);
void nvme_attach(struct nvme *n, struct nvme_ns *ns);
void nvme_detach(struct nvme *n, struct nvme_ns *ns);
/* NULL: not allocated. */
static inline struct nvme_ns *nvme_ns_allocated(const struct nvme_subsys *ss, uint32_t nsid)
{
    struct nvme_ns *ns = nsid && nsid <= NVME_NS_MAX ? ss->ns[nsid] : NULL;
    return ns && atomic_load(&ns->live) ? ns : NULL;
}
/* What has the id: it is there, is being made or deleted, or will be there again with its unit. NULL: another can have it. */
static inline struct nvme_ns *nvme_ns_taken(const struct nvme_subsys *ss, uint32_t nsid)
{
    struct nvme_ns *ns = ss->ns[nsid];

    return ns && (atomic_load(&ns->live) || atomic_load(&ns->in_flight) || ns->going) ? ns : NULL;
}

/* ---- subsys.c ---- */
void nvme_subsys_init(struct nvme_subsys *ss);
void nvme_subsys_fini(struct nvme_subsys *ss);
bool nvme_subsys_join(struct nvme_subsys *ss, struct nvme *n, struct err *e) MUST_CHECK;
void nvme_subsys_leave(struct nvme *n);

/* ---- ctrl.c ---- */
void nvme_drained(struct nvme *n);      /* nothing is in flight any more */
void nvme_drained_wake(struct nvme *n); /* who waits for it looks again. ANY, domain lock held */
void nvme_fail(struct nvme *n, const char *why);        /* CSTS.CFS */

extern const struct state_desc nvme_state;

#endif
