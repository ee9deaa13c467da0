/* SPDX-License-Identifier: MIT */
/* Character back ends as a front end sees them. Back ends run on the main loop; writes may come from any thread. */
#ifndef CHARDEV_CHR_H
#define CHARDEV_CHR_H

#include "core/obj.h"
#include "loop/loop.h"

struct chr;                             /* a chardev object */
extern const struct obj_class chr_class;           /* abstract; ns "chardev" */

enum chr_event { CHR_OPENED, CHR_CLOSED, CHR_BREAK, CHR_MUX_IN, CHR_MUX_OUT };

/* One user of a chardev. Callbacks run on the home loop of @dom with its lock held (dom NULL: main loop, no lock). */
struct chr_front {
    struct chr *chr;
    struct domain *dom;
    size_t (*can_read)(void *arg);                          /* bytes it takes now; 0 stops the back end's reading */
    void (*read)(void *arg, const uint8_t *buf, size_t n);  /* n <= can_read() */
    void (*event)(void *arg, enum chr_event ev);            /* may be NULL */
    void (*writable)(void *arg);                            /* after a short chr_write; may be NULL */
    void *arg;
    void *priv;                                             /* the back end's */
};

/* Connects @f to the chardev named by a LINK property (NULL: bytes vanish). A chardev has one user unless it is a mux; a
 * second is refused, naming the first. Main loop. @user names the front end in messages. */
bool chr_connect(struct chr_front *f, struct obj *chardev, struct domain *dom, const char *user, struct err *e) MUST_CHECK;
void chr_disconnect(struct chr_front *f);
/* Takes up to @n bytes without waiting; the rest after `writable`. ANY, domain lock may be held; never calls back inside. */
size_t chr_write(struct chr_front *f, const void *buf, size_t n);
/* can_read() went up: the back end may read again. ANY. */
void chr_accept(struct chr_front *f);
bool chr_is_open(const struct chr_front *f);            /* the other side is there */
/* The oldest file descriptor that the peer passed along (SCM_RIGHTS) and nobody took yet; -1: none. The caller's. Main loop. */
int chr_take_fd(struct chr_front *f);
/*
 * The connection's socket, duplicated: for a front end without `read` that exchanges messages which bytes alone cannot carry. It sees the
 * connection's end as events; shutdown() of the socket ends it. -1: not open. The caller's. Main loop.
 */
int chr_dup_socket(struct chr_front *f);
/* The front end has somebody who reads and writes (a guest's process holds the port): "frontend-open" of query-chardev. True
 * from chr_connect() on until it is told otherwise. ANY. */
void chr_set_front_open(struct chr_front *f, bool open);

/* A chardev from a legacy string ("stdio", "mon:stdio", "unix:PATH,server=on,wait=off", "tcp:HOST:PORT,server", "file:X",
 * "pty", "null", "udp:...", "chardev:ID"), as -serial/-monitor/-qmp take it. @id is its id. Borrowed. Main loop. */
struct obj *chr_from_legacy(const char *id, const char *text, bool with_mux, struct err *e) MUST_CHECK;
/* A mux: its front ends take turns, and are told by CHR_MUX_IN and CHR_MUX_OUT. */
bool chr_is_shared(const struct obj *chardev);
/* It was written "mon:...": a monitor is to join the front ends. Main loop. */
bool chr_wants_monitor(const struct obj *chardev);
/* Restores the terminal; safe in a signal handler and at exit. */
void chr_term_restore(void);

#endif
