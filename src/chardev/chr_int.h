/* SPDX-License-Identifier: MIT */
/*
 * What a character back end is made of. Everything here runs on the main loop unless it says otherwise; back ends need no
 * lock. What crosses threads are the two byte rings of a link (chr.c), one link for each connected front end.
 */
#ifndef CHARDEV_CHR_INT_H
#define CHARDEV_CHR_INT_H

#include <sys/types.h>
#include "chardev/chr.h"

struct chr_link;

struct chr {
    struct obj obj;
    /* options of every back end */
    char *logfile;
    bool logappend, mux;
    bool monitored;                 /* written "mon:...": a monitor shares it */
    /* state */
    struct list links;              /* of struct chr_link, in the order they connected */
    unsigned n_links;
    bool open;                      /* the other side is there */
    bool tx_blocked;                /* write() said -EAGAIN; chr_tx_ready() ends it */
    int tx_errno;                   /* the error last reported; 0 after a success */
    int log_fd;                     /* -1: no log */
    int log_errno;
};

struct chr_class {
    struct obj_class obj;
    unsigned max_fronts;            /* 0 means 1 */
    bool writes_closed;             /* write() takes bytes while nobody is there, too: there is another chardev below, with a log of its own */
    /* Opens the back end; calls chr_set_open() when the other side is there. May wait (coroutine, or start-up). */
    bool (*open)(struct chr *, struct err *);
    void (*close)(struct chr *);    /* also after a failed open */
    /* Bytes taken, -EAGAIN (then chr_tx_ready() later), or another -errno (the bytes are dropped and it is reported). NULL: all vanish. */
    ssize_t (*write)(struct chr *, const uint8_t *buf, size_t n);
    void (*rx_resume)(struct chr *);        /* chr_rx_room() went up from 0; a front end came. May be NULL */
    void (*filename)(const struct chr *, struct str *out);      /* for query-chardev; NULL: the type's name */
    void (*what)(const struct chr *, struct str *out);          /* in messages: "file '/tmp/x'"; NULL: as filename */
    int (*take_fd)(struct chr *);               /* the oldest descriptor that the peer passed, or -1 */
    int (*dup_socket)(struct chr *);            /* a unix stream socket's descriptor, or -1 */
    void (*link_added)(struct chr *, struct chr_link *);        /* mux, hub */
    void (*link_removed)(struct chr *, struct chr_link *);
};

extern const struct prop chr_props[];
extern const struct chr_class chr_mux_class;

#define CHR_CLASS(c) ((const struct chr_class *)(c)->obj.cls)

/* ---- from a back end to its front end ---- */
size_t chr_rx_room(struct chr *c);                              /* 0: none now; rx_resume() follows */
bool chr_has_reader(struct chr *c);                             /* a front end that reads is connected */
void chr_rx(struct chr *c, const uint8_t *buf, size_t n);       /* n <= chr_rx_room() */
void chr_push_event(struct chr *c, enum chr_event ev);          /* in order with the bytes */
void chr_set_open(struct chr *c, bool open);                    /* with its event to every front end */
void chr_tx_ready(struct chr *c);                               /* write() is worth a try again */
void chr_drain(struct chr *c);                                  /* writes what front ends have queued */
void chr_filename(const struct chr *c, struct str *out);        /* as query-chardev shows it */

/* ---- the same for one of several front ends (mux) ---- */
size_t chr_link_room(struct chr_link *l);
void chr_link_rx(struct chr_link *l, const uint8_t *buf, size_t n);
void chr_link_event(struct chr_link *l, enum chr_event ev);
const char *chr_link_user(const struct chr_link *l);
bool chr_front_open(const struct chr *c);                       /* some front end is open (chr_set_front_open) */
struct chr_link *chr_link_next(struct chr *c, struct chr_link *l);  /* in a circle; NULL if there is none */

/* Moves every front end of @from to @to, in order. */
void chr_move_links(struct chr *from, struct chr *to);

/* ---- creation ---- */
const char *chr_type_name(const struct obj_class *c);           /* "socket" */
/* From parsed options with "backend", "id" and the type's own; "mux" wraps it. Borrowed; NULL with @e filled. */
struct chr *chr_create(json_t *opts, struct err *e) MUST_CHECK;
/* As a user asks; refused while a front end uses it. A mux takes the chardev that was made for it along. */
bool chr_delete(struct chr *c, struct err *e) MUST_CHECK;

#endif
