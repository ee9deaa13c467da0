/* SPDX-License-Identifier: MIT */
/* What user.c and user_opts.c share. */
#ifndef NET_USER_INT_H
#define NET_USER_INT_H

#include <slirp/libslirp.h>
#include "net/net_int.h"

struct user_fd;

struct user_net {
    struct netdev nd;
    /* options */
    bool restricted, ipv4, ipv6;
    char *net, *host, *dhcpstart, *dns, *hostname, *domainname, *tftp, *tftp_server_name, *bootfile, *smb;
    char *ipv6_prefix, *ipv6_host, *ipv6_dns;
    uint8_t ipv6_prefixlen;
    char **dnssearch, **hostfwd, **guestfwd;
    /* state */
    Slirp *slirp;
    struct user_fd **fds;               /* by descriptor number */
    int fd_end;
    unsigned generation;
    struct timer timeout;
    struct post poll;
};

extern const struct prop user_props[];
extern const struct netdev_class user_net_class;
bool user_check(struct obj *o, struct err *e);
/* Addresses from the options. Strings stay the object's. */
bool user_config(struct user_net *u, SlirpConfig *cfg, struct err *e) MUST_CHECK;
/* "[tcp|udp]:[ADDR]:PORT-[ADDR]:PORT" */
bool user_hostfwd_add(struct user_net *u, const char *rule, struct err *e) MUST_CHECK;
bool user_hostfwd_remove(struct user_net *u, const char *rule, struct err *e) MUST_CHECK;
/* "[tcp]:ADDR:PORT-cmd:COMMAND" or "-unix:PATH" */
bool user_guestfwd_add(struct user_net *u, const char *rule, struct err *e) MUST_CHECK;
/* Descriptors may have changed. */
void user_kick(struct user_net *u);

#endif
