/* SPDX-License-Identifier: MIT */
/*
 * Actions of the command "transaction": all of them happen, at one moment as far as guests can tell, or none. Each is a command of
 * its own, too. Rows of any file. Coroutines on the main loop.
 */
#ifndef BLOCK_TRANSACTION_H
#define BLOCK_TRANSACTION_H

#include <jansson.h>
#include "base/linkset.h"
#include "block/job.h"

struct txn_act {
    const struct txn_action *action;
    void *args;                     /* parsed by the action's rows */
    struct job_txn *jobs;           /* of jobs that end together; NULL: each by itself */
    /* For the action to remember between its steps. */
    struct blk_node *node, *top;
    const struct blk_node *named;   /* what the image of ->top names as the one below */
    struct job *job;
    void *saved;
    bool was_read_only;             /* ->node */
    bool done;                      /* prepared: one of the other steps follows */
};

struct txn_action {
    const char *type;               /* as "transaction" and the command call it */
    const struct prop *props;
    size_t args_size;
    bool starts_job;                /* which may be one of a group */
    /* The name of the node whose requests wait meanwhile, or NULL. May be NULL. */
    const char *(*node)(const void *args);
    /* Opens what is needed later, while requests go on: that may take its time. co_forget is due where co_prepare does not follow. May be NULL. */
    bool (*co_open)(struct txn_act *, struct err *);
    void (*co_forget)(struct txn_act *);
    /* All else that can fail. */
    bool (*co_prepare)(struct txn_act *, struct err *);
    void (*co_commit)(struct txn_act *);        /* may be NULL */
    void (*co_abort)(struct txn_act *);         /* undoes co_prepare; may be NULL */
};
LINKSET_DECLARE(txn_actions, struct txn_action);
#define TXN_ACTION(ptr) LINKSET_ADD(txn_actions, struct txn_action, ptr)

/* The action alone, as a command: an empty object, or NULL with @e filled. */
json_t *co_txn_alone(const struct txn_action *a, void *args, struct err *e);

#endif
