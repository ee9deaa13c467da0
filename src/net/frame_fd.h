/* SPDX-License-Identifier: MIT */
/*
 * A descriptor where each read() is one frame and each write() sends one (datagram socket, tap device), joined to a port with
 * back pressure both ways. On the main loop.
 */
#ifndef NET_FRAME_FD_H
#define NET_FRAME_FD_H

#include "loop/loop.h"
#include "net/net.h"

struct frame_fd {
    struct net_port *port;
    /* Reads one frame to @buf: its length, 0 to leave this one out, or -1 with errno. */
    ssize_t (*read)(void *arg, uint8_t *buf, size_t max);
    void *arg;
    struct loop_fd lf;
    uint8_t *in;
    size_t in_len;                      /* the frame that the guest has no room for yet; 0: none */
    bool out_full;
};

/* Starts to read. @port, @fd and what @arg points at stay the caller's and outlive it. */
void frame_fd_start(struct frame_fd *f, struct net_port *port, int fd, ssize_t (*read)(void *, uint8_t *, size_t), void *arg);
/* Also if it never started. */
void frame_fd_stop(struct frame_fd *f);
/* A write met EAGAIN: net_port_ready() follows once the descriptor takes more. */
void frame_fd_full(struct frame_fd *f);
/* The guest has room again: for net_port_ops.sent. */
void frame_fd_room(struct frame_fd *f);

#endif
