/* SPDX-License-Identifier: MIT */
/*
 * Monitors: a character back end at one end, QMP (mode=control) or a person's console (mode=readline) at the other. This
 * file moves the bytes and keeps what waits to be read bounded. Main loop, except where said.
 */
#ifndef CTL_MON_H
#define CTL_MON_H

#include "chardev/chr.h"
#include "base/str.h"

#define MON_OUT_HIGH (64u << 10)        /* more than this unread: no further input is taken */
#define MON_OUT_MAX (4u << 20)          /* more than this unread: events are dropped */

struct mon;

struct mon_ops {
    void (*opened)(struct mon *);       /* the peer came: a new session */
    void (*closed)(struct mon *);       /* it went: drop what was begun */
    bool (*busy)(const struct mon *);   /* no further input now */
    bool (*running)(const struct mon *);        /* a command of it is under way; may be NULL */
    void (*read)(struct mon *, const uint8_t *buf, size_t n);
    void (*focus)(struct mon *, bool here);     /* a multiplexer's user came or went; may be NULL */
    void (*free)(struct mon *);
};

struct mon {
    struct list link;
    const struct mon_ops *ops;
    struct chr_front front;
    struct obj *chardev;                /* counted */
    char *id;
    size_t input_unit;                  /* bytes taken at a time; 0: many */
    bool open, crlf;                    /* crlf: "\n" goes out as "\r\n" */
    struct str out;                     /* what the chardev did not take yet, from out_pos */
    size_t out_pos;
};

/* Connects a monitor made by qmp_mon_new() or hmp_mon_new() to its chardev; takes it over. False: freed. */
bool mon_connect(struct mon *m, struct obj *chardev, const char *id, struct err *e) MUST_CHECK;
void mon_write(struct mon *m, const char *s, size_t n);
size_t mon_unread(const struct mon *m);
/* Input may be taken again: after ops->busy() became false. */
void mon_accept(struct mon *m);
bool mon_each(bool (*fn)(struct mon *, void *), void *arg);

/* Made unconnected. */
struct mon *qmp_mon_new(bool pretty);
/* @shared: quiet until a multiplexer gives it the focus. */
struct mon *hmp_mon_new(bool shared);
/* One command line as a person types it; a coroutine. @cpu: what `info registers` and `x` look at. */
void co_hmp_execute(const char *line, unsigned *cpu, struct str *out);

#endif
