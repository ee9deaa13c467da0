/* SPDX-License-Identifier: MIT */
/* Between the files of the iscsi driver: the library, the session with a target, the node. Home loop. */
#ifndef BLOCK_ISCSI_INT_H
#define BLOCK_ISCSI_INT_H

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include "block/asked.h"
#include "block/driver.h"
#include "block/ragged.h"

enum { ISCSI_IOV_MAX = 1024, ISCSI_CDB_MAX = 16 };

/* What is used of libiscsi, which is opened with the first node. */
struct iscsi_lib {
    typeof(&iscsi_create_context) create_context;
    typeof(&iscsi_destroy_context) destroy_context;
    typeof(&iscsi_set_isid_random) set_isid_random;
    typeof(&iscsi_set_targetname) set_targetname;
    typeof(&iscsi_set_session_type) set_session_type;
    typeof(&iscsi_set_header_digest) set_header_digest;
    typeof(&iscsi_set_initiator_username_pwd) set_initiator_username_pwd;
    typeof(&iscsi_set_noautoreconnect) set_noautoreconnect;
    typeof(&iscsi_connect_async) connect_async;
    typeof(&iscsi_login_async) login_async;
    typeof(&iscsi_logout_async) logout_async;
    typeof(&iscsi_nop_out_async) nop_out_async;
    typeof(&iscsi_get_target_address) get_target_address;
    typeof(&iscsi_get_error) get_error;
    typeof(&iscsi_get_fd) get_fd;
    typeof(&iscsi_which_events) which_events;
    typeof(&iscsi_service) service;
    typeof(&iscsi_scsi_command_async) scsi_command_async;
    typeof(&scsi_create_task) create_task;
    typeof(&scsi_free_scsi_task) free_scsi_task;
    typeof(&scsi_task_set_iov_in) task_set_iov_in;
    typeof(&scsi_task_set_iov_out) task_set_iov_out;
    typeof(&scsi_sense_key_str) sense_key_str;
    typeof(&scsi_sense_ascq_str) sense_ascq_str;
};
/* NULL with @e filled. Coroutine. */
const struct iscsi_lib *co_iscsi_lib(struct err *e) MUST_CHECK;

/* A SCSI command on its way, on the stack of who waits for it. */
struct iscsi_req {
    struct list link;               /* in ->sent, in the order of sending; or in ->draining */
    uint8_t cdb[ISCSI_CDB_MAX], cdb_len;
    bool to_device;
    const struct iovec *iov;
    unsigned niov;
    uint32_t len, timeout;          /* timeout: seconds; 0: for ever */
    /* results */
    bool lost;                      /* the session ended before the answer */
    bool late;                      /* and that was because this one had none for too long */
    int status;                     /* enum scsi_status */
    uint8_t sense[96], sense_len;
    uint32_t done;                  /* bytes */
    /* its own */
    struct blk_iscsi *s;
    int64_t sent;
    struct co_event over;
};

struct blk_iscsi {
    struct blk_node node;
    int transport, header_digest;
    char *portal, *target, *user, *password, *password_secret, *initiator_name;
    uint32_t lun, timeout, reconnect_delay;
    char *name;                     /* its address */
    char *what;                     /* "LUN 1 of iSCSI target 'iqn...' at host:port": for messages */
    char *secret;                   /* the password, or NULL */
    /* session */
    const struct iscsi_lib *lib;
    struct iscsi_context *ctx;      /* NULL: there is none */
    uint32_t isid;                  /* of all sessions of this node: a new one ends what is left of the old one at the target */
    struct loop_fd watch;
    struct timer tick;
    bool logged_in, closing;
    int trying;                     /* what came of connecting, of login, of logout: enum scsi_status, -1 while it is under way */
    struct co_event tried;
    char trouble[160];              /* why it ended, in the library's words; or empty */
    bool broken;                    /* found within the library, which is left first */
    unsigned nops;                  /* keepalives without an answer */
    int64_t last_nop;
    struct list sent, draining;
    struct blk_asked asked;         /* commands, until they are done */
    struct co_mutex connecting;
    int64_t last_warning;
    bool again, looking;            /* its size is looked at with the next command, is being looked at */
    /* the unit */
    uint8_t type;                   /* peripheral device type (SPC-6, 6.7.2) */
    bool probed;
    uint32_t block, max_transfer;   /* bytes */
    uint64_t max_unmap, max_same;   /* blocks, 0: it cannot */
    bool rw16, dpofua, write_protected, same_unmaps, reads_zeroes, unmap, provisioned, lba_status;
    struct blk_ragged ragged;
};

/* ---- iscsi_session.c ---- */
bool co_iscsi_connect(struct blk_iscsi *s, struct err *e) MUST_CHECK;
/* Logs out, as far as somebody listens; nothing is in flight. */
void co_iscsi_disconnect(struct blk_iscsi *s);
/* What is under way fails, and so does all that comes. */
void iscsi_abandon(struct blk_iscsi *s);
/* The command, once: 0: the target's answer is in @q, or @q->lost. -errno: it was not sent. */
int co_iscsi_send(struct blk_iscsi *s, struct iscsi_req *q);
/* A session is there, or was not to be had in time. */
int co_iscsi_ensure(struct blk_iscsi *s);
/* ->tick's: keepalives, commands that take too long. */
void iscsi_tick(void *blk_iscsi);
/* A line about this unit, at most one in a second. */
void iscsi_warn(struct blk_iscsi *s, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* ---- iscsi_scsi.c ---- */
/* Until the command is done or has failed for good: 0, or -errno of what the target says. */
int co_iscsi_run(struct blk_iscsi *s, struct iscsi_req *q);
/* A command of others, as it is: the target's answer is in @c, or that it could not be reached. On any loop. */
int co_iscsi_pass(struct blk_node *n, struct blk_scsi *c);
/* The target's words of the last answer. */
const char *iscsi_words(const struct blk_iscsi *s, const struct iscsi_req *q, char buf[160]);
/* Asks the unit what it is: type, size, limits. */
bool co_iscsi_probe(struct blk_iscsi *s, struct err *e) MUST_CHECK;
/* The size it has now; the node's follows. */
int co_iscsi_capacity(struct blk_iscsi *s);

#endif
