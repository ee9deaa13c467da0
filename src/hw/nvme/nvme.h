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
#include "pci/pci.h"

#define NVME_QUEUE_ENTRIES 2048u        /* CAP.MQES + 1 */
#define NVME_AER_MAX 8u                 /* outstanding asynchronous event requests at most (aerl=) */
#define NVME_EVENTS_MAX 64u
#define NVME_PAGE 4096u
#define NVME_NS_MAX 256u                /* namespaces of a subsystem */
#define NVME_CTRL_MAX 128u              /* controllers of a subsystem */
#define NVME_LBAF_MAX 16u
#define NVME_FORMATS 8u                /* that every namespace offers */
#define NVME_MPS_MAX 4u                 /* CAP.MPSMAX: 64 KiB */
#define NVME_MDTS_MAX 9u
#define NVME_TEMP_OVER 343u             /* kelvin */
#define NVME_HELD 0xffffu               /* a handler's "status": the command completes later */
#define NVME_ERRORS 64u                 /* entries of the error log */

struct nvme;
struct nvme_ns;
struct nvme_subsys;

struct nvme_sq {
    struct nvme *n;
    struct post post;                   /* doorbell rung, or room again */
    _Atomic uint32_t tail_db;           /* as the guest wrote it */
    atomic_bool rung;
    bool live, deleting;
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
    struct post post;                   /* doorbell rung, or entries to tell of */
    _Atomic uint32_t head_db;
    atomic_bool rung;
    bool live, phase, irq_on, notify;
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
    bool delayed;                       /* waits where an abort reaches it */
    bool park;                          /* the machine was asked to stop: try again when it runs */
    struct dma_vec data, meta;
    uint8_t *bounce;                    /* kept with the pooled request */
    uint64_t bounce_size;
};

struct nvme_error {                     /* 5.16.1.2 */
    uint64_t count, lba;
    uint16_t sqid, cid, status, location;
    uint32_t nsid;
    uint8_t opcode;
};

/* What the command line says of a namespace. */
struct nvme_ns_opts {
    uint32_t nsid;
    bool detached, shared;
    enum tri shared_opt;
    uint8_t uuid[16];
    char *nguid;
    uint64_t eui64;
    bool eui64_default;
    uint16_t ms, mssrl, mcl_pad;
    uint32_t mcl;
    uint8_t msrc, mset, pi, pil, pif;
    bool zoned, cross_read, zd_auto;
    uint64_t zone_size, zone_capacity;
    uint32_t max_active, max_open, zd_ext, numzrwa;
    uint64_t zrwas, zrwafg;
    char *ruhs;
    uint16_t anagrp;
};

struct nvme_fmt { uint8_t ds; uint16_t ms; };

/* A block node in whose space namespaces are. */
struct nvme_unit {
    struct list link;                   /* in the subsystem's units */
    struct blk *blk;
    struct blk_caps caps;
    struct blk_front_opts *opt;
    struct nvme_subsys *ss;
};

struct nvme_ns {
    struct nvme_subsys *ss;
    struct nvme_unit *unit;
    atomic_bool live;                   /* allocated; slots are kept for ever, so that a look is enough */
    _Atomic uint32_t in_flight;         /* requests of all controllers */
    uint32_t nsid;
    uint64_t base, space;               /* bytes of the unit */
    /* format */
    struct nvme_fmt lbaf[NVME_LBAF_MAX];
    uint8_t n_lbaf, flbas, shift, csi;
    uint16_t ms;
    bool extended;                      /* metadata goes with each block, not in a buffer of its own */
    uint8_t pi, pil, pif;               /* type 0-3, first bytes of metadata, guard format */
    uint64_t nsze, meta_off;            /* blocks; where metadata begins, bytes from base */
    /* identity */
    uint8_t nguid[16], uuid[16];
    uint64_t eui64;
    bool shared, boot_detached;
    uint16_t mssrl;
    uint32_t mcl;
    uint8_t msrc;
    uint16_t anagrp;
    /* state */
    uint8_t write_protect;              /* 8.12.1: 0 none, 1 until changed, 2 until power cycle, 3 for ever */
    bool dulbe, formatting;
    struct nvme_zones *zones;
    struct nvme_resv *resv;
    struct nvme_uncor *uncor;           /* ranges that Write Uncorrectable made */
    _Atomic uint64_t units_read, units_written;     /* 512 bytes */
};

struct nvme_subsys {
    pthread_mutex_t lock;               /* leaf; never across a wait */
    char nqn[224];
    struct nvme *ctrl[NVME_CTRL_MAX];
    struct nvme_ns *ns[NVME_NS_MAX + 1];
    struct list units;
    bool own;                           /* of one controller that names no subsystem */
};

struct nvme {
    struct pci_dev pci;                 /* first */
    struct blk_front_opts opt;
    struct nvme_ns_opts ns_opt;
    char *serial;
    struct obj *subsys_link, *iothread;
    uint32_t max_ioqpairs, aer_max_queued;
    uint16_t msix_qsize;
    uint8_t mdts, mdts_field, aerl, zasl;
    bool intel_id, has_cache;           /* has_cache: some namespace has a volatile one */
    struct nvme_subsys own_ss, *ss;
    struct bus *bus;
    struct region bar, regs, doorbells;
    uint32_t msix_table, msix_pba;
    struct nvme_unit own_unit;          /* of drive=, and its namespace */
    struct nvme_ns *own_ns;
    struct timer keep_alive;
    struct run_listener listener;
    struct post resume, events_post;
    uint16_t cntlid, vectors;
    /* registers */
    uint64_t cap, asq, acq;
    uint32_t cc, csts, aqa, intms;
    bool disabling, quiesced, queues_made;
    uint32_t gen;                       /* of the enabled time: requests of an older one complete nowhere */
    uint32_t in_flight;
    struct co_queue drained;            /* woken when a count reaches zero */
    struct co_queue delayed;            /* commands that a fault holds back; woken when they must go */
    struct nvme_sq *sq;                 /* max_ioqpairs + 1 */
    struct nvme_cq *cq;
    struct list free_reqs, parked;      /* parked: stopped by werror=stop, begun again when the machine runs */
    uint32_t n_free, n_queues;          /* n_queues: max_ioqpairs + 1 */
    struct nvme_ns *_Atomic ns[NVME_NS_MAX + 1];        /* attached */
    /* events */
    uint16_t aer[NVME_AER_MAX];
    uint32_t n_aer, n_events, masked_events;
    uint32_t events[NVME_EVENTS_MAX];   /* type, information << 8, log page << 16 */
    _Atomic uint32_t changed_ns[(NVME_NS_MAX + 32) / 32];       /* set by any controller of the subsystem */
    atomic_bool ns_change, ana_change, nssr;
    /* features */
    uint32_t feat[256], feat_saved[256];
    uint32_t vector_off[2048 / 32];     /* coalescing disabled, a bit a vector */
    uint64_t host_id[2], apst[32];
    int64_t timestamp_set;              /* CLOCK_VM when the host set it */
    uint64_t timestamp;                 /* ms since the epoch, as set */
    uint8_t timestamp_origin;
    uint8_t host_behavior[3];
    bool host_id_wide, clean_shutdown;
    uint16_t temp_over, temp_under;
    /* counters */
    uint64_t reads, writes, errors, power_cycles, unsafe_shutdowns;
    int64_t powered_ns;
    struct nvme_error error[NVME_ERRORS];
    uint16_t temperature;               /* kelvin */
    uint8_t critical;
};

static inline uint32_t nvme_page(const struct nvme *n) { return NVME_PAGE << (n->cc >> NVME_CC_MPS_SHIFT & 15); }
static inline bool nvme_stale(const struct nvme_req *r) { return r->gen != r->n->gen; }
static inline bool nvme_ready(const struct nvme *n) { return n->csts & NVME_CSTS_RDY && !(n->csts & NVME_CSTS_CFS) && !n->disabling; }
/* The longest transfer, bytes. */
static inline uint64_t nvme_max_transfer(const struct nvme *n) { return (uint64_t)NVME_PAGE << n->mdts_field; }

/* ---- queue.c: LOOP, domain lock held ---- */
extern const struct mmio_ops nvme_doorbell_ops;         /* ANY, lock-free */
void nvme_queues_init(struct nvme *n);
void nvme_queues_fini(struct nvme *n);
void nvme_sq_open(struct nvme_sq *sq, uint16_t cqid, uint64_t addr, uint32_t size, uint8_t prio);
void nvme_cq_open(struct nvme_cq *cq, uint16_t vector, bool irq_on, uint64_t addr, uint32_t size);
/* Every queue closed; what is in flight becomes stale. */
void nvme_queues_close(struct nvme *n);
void nvme_cq_close(struct nvme_cq *cq);
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
       NVME_OP_ALL_NS = 8 /* FFFFFFFFh is fine */, NVME_OP_SANITIZE = 16 /* allowed while a sanitize runs */, NVME_OP_NO_NSID = 32 };
extern const struct nvme_op nvme_admin_ops[], nvme_io_ops[];
const struct nvme_op *nvme_op_find(const struct nvme_op *table, uint8_t opcode);
void co_nvme_command(void *req);
/* An asynchronous event (5.2.1). Domain lock held. */
void nvme_event(struct nvme *n, unsigned type_info, uint8_t log);
void nvme_events_reset(struct nvme *n);
/* The host read the log page: events of the type may come again. */
void nvme_event_unmask(struct nvme *n, uint8_t type);
/* Some controller of the subsystem changed @nsid: every other one is told. ANY, no subsystem lock held. */
void nvme_ns_changed(struct nvme_subsys *ss, uint32_t nsid, const struct nvme *but);

/* ---- identify.c, feature.c, log.c, io.c ---- */
uint16_t nvme_identify(struct nvme_req *r);
uint16_t co_nvme_get_feature(struct nvme_req *r);
uint16_t co_nvme_set_feature(struct nvme_req *r);
void nvme_features_reset(struct nvme *n, bool power_cycle);
uint16_t co_nvme_get_log(struct nvme_req *r);
void nvme_log_error(struct nvme_req *r);
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
/* Opens @opt's drive and makes the namespace that @no describes; attaches it to @n, or to all of the subsystem's. Main loop. */
struct nvme_ns *nvme_ns_create(struct nvme_subsys *ss, struct nvme *n, struct nvme_unit *u, struct blk_front_opts *opt,
                               struct nvme_ns_opts *no, struct dev *user, struct err *e) MUST_CHECK;
void nvme_ns_destroy(struct nvme_ns *ns);
/* A slot for namespace @nsid (0: a free one), zeroed; it is allocated once ->live is set. */
struct nvme_ns *nvme_ns_new(struct nvme_subsys *ss, uint32_t nsid, struct err *e);
bool nvme_unit_open(struct nvme_unit *u, struct nvme_subsys *ss, struct blk_front_opts *opt, struct dev *user, struct err *e) MUST_CHECK;
void nvme_unit_close(struct nvme_unit *u);
/* The NVME_FORMATS formats. */
void nvme_formats(struct nvme_fmt *out);
/* Shared namespaces that exist to the new controller; a new shared namespace to all. */
void nvme_attach_shared(struct nvme *n);
void nvme_attach_all(struct nvme_ns *ns);
void nvme_ns_set_format(struct nvme_ns *ns, unsigned lbaf, bool extended, unsigned pi, bool pil);
void nvme_attach(struct nvme *n, struct nvme_ns *ns);
void nvme_detach(struct nvme *n, struct nvme_ns *ns);
/* NULL: not allocated. */
static inline struct nvme_ns *nvme_ns_allocated(const struct nvme_subsys *ss, uint32_t nsid)
{
    struct nvme_ns *ns = nsid && nsid <= NVME_NS_MAX ? ss->ns[nsid] : NULL;
    return ns && atomic_load(&ns->live) ? ns : NULL;
}

/* ---- subsys.c ---- */
void nvme_subsys_init(struct nvme_subsys *ss);
void nvme_subsys_fini(struct nvme_subsys *ss);
bool nvme_subsys_join(struct nvme_subsys *ss, struct nvme *n, struct err *e) MUST_CHECK;
void nvme_subsys_leave(struct nvme *n);

/* ---- ctrl.c ---- */
void nvme_drained(struct nvme *n);      /* nothing is in flight any more */
void nvme_fail(struct nvme *n, const char *why);        /* CSTS.CFS */

extern const struct state_desc nvme_state;

#endif
