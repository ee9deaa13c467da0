/* SPDX-License-Identifier: MIT */
/* The telnet protocol (RFC 854) as far as a console needs it. Thread: the owner's. */
#ifndef CHARDEV_CHR_TELNET_H
#define CHARDEV_CHR_TELNET_H

#include <stddef.h>
#include <stdint.h>

struct telnet { uint8_t state; };

enum { TELNET_HELLO_LEN = 12 };
/* What a server says first: it echoes, no go-ahead, eight bits both ways (RFC 857, 858, 856). */
extern const uint8_t telnet_hello[TELNET_HELLO_LEN];

/* Takes the protocol out of @buf in place; returns the bytes that are left. *@breaks counts BRK commands. */
size_t telnet_strip(struct telnet *t, uint8_t *buf, size_t n, unsigned *breaks);

#endif
