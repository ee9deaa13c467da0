/* SPDX-License-Identifier: MIT */
/*
 * The server of GDB's remote serial protocol (GDB manual, appendix E): gdb.c moves packets and watches the run state, gdb_cmd.c
 * carries out commands, gdb_query.c answers q and Q packets. Main loop.
 */
#ifndef CTL_GDB_INT_H
#define CTL_GDB_INT_H

#include "base/str.h"
#include "chardev/chr.h"
#include "core/debug.h"

#define GDB_PACKET 0x4000u              /* bytes of a packet's body, at most */

struct gdb {
    struct chr_front front;
    struct obj *chardev;                /* counted */
    bool own;                           /* made here: goes with the server */
    /* incoming */
    enum { GDB_IDLE, GDB_BODY, GDB_ESCAPE, GDB_SUM1, GDB_SUM2 } state;
    char body[GDB_PACKET + 1];
    size_t len;
    uint8_t sum, want;
    bool no_ack, too_long;
    bool open, busy;                    /* busy: a monitor command runs, the next packet waits */
    /* outgoing */
    struct str out;
    size_t out_pos;
    struct str last;                    /* packet sent last, for `-` */
    /* session */
    unsigned g_cpu, c_cpu;              /* what Hg and Hc chose */
    bool phys;                          /* addresses are physical (PhyMemMode) */
    bool waiting;                       /* a run command is to be answered when the machine stops */
    unsigned list_at;                   /* of qsThreadInfo */
};
extern struct gdb gdb;

/* gdb.c: one packet, framed; @n may hold any bytes. */
void gdb_send(const void *body, size_t n);
void gdb_send_text(const char *s);
/* The reply that tells how the machine stands. */
void gdb_send_stop(void);
void gdb_hex(struct str *b, const void *data, size_t n);
/* Bytes of hex text; stops at what is no pair of digits. Returns their number. */
size_t gdb_unhex(const char *s, size_t len, uint8_t *out, size_t max);
/* A hex number that *@s points at, moved past it; false: none. */
bool gdb_number(const char **s, uint64_t *v);
/* "1a", "-1" (all), "0" (any). False: none there. @cpu -1 for all. */
bool gdb_thread(const char **s, int *cpu);

/* gdb_cmd.c: a packet in gdb.body. */
void gdb_command(void);
/* gdb_query.c: a packet that begins with q, Q or v; false: not known. */
bool gdb_query(void);
/* Removes every breakpoint of the session. */
void gdb_clear_breakpoints(void);

#endif
