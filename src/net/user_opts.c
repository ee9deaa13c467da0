/* SPDX-License-Identifier: MIT */
/* The user network's options, forwarding rules, and its monitor commands. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/sock.h"
#include "core/cmd.h"
#include "net/user_int.h"

const struct prop user_props[] = {
    PROP_BOOL(struct user_net, restricted, "restrict", false, "The guest reaches neither the host nor the world"),
    PROP_BOOL(struct user_net, ipv4, "ipv4", true, "IPv4"),
    PROP_BOOL(struct user_net, ipv6, "ipv6", true, "IPv6"),
    PROP_STR_DEF(struct user_net, net, "net", "10.0.2.0/24", "IPv4 network of the guest: ADDR[/BITS or /MASK]"),
    PROP_STR(struct user_net, host, "host", 0, "Address of the host in it; x.x.x.2 if not given"),
    PROP_STR(struct user_net, dhcpstart, "dhcpstart", 0, "First of 16 addresses that DHCP gives; x.x.x.15 if not given"),
    PROP_STR(struct user_net, dns, "dns", 0, "Address of the name server; x.x.x.3 if not given"),
    PROP_STR_DEF(struct user_net, ipv6_prefix, "ipv6-prefix", "fec0::", "IPv6 network of the guest"),
    PROP_U8(struct user_net, ipv6_prefixlen, "ipv6-prefixlen", 64, 1, 126, "Its length in bits"),
    PROP_STR(struct user_net, ipv6_host, "ipv6-host", 0, "IPv6 address of the host; prefix::2 if not given"),
    PROP_STR(struct user_net, ipv6_dns, "ipv6-dns", 0, "IPv6 address of the name server; prefix::3 if not given"),
    PROP_STR(struct user_net, hostname, "hostname", 0, "Name that DHCP gives to the guest"),
    PROP_STR(struct user_net, domainname, "domainname", 0, "Domain that DHCP tells"),
    PROP_STRV(struct user_net, dnssearch, "dnssearch", "Domain to search, may be repeated"),
    PROP_STR(struct user_net, tftp, "tftp", 0, "Directory served by TFTP"),
    PROP_STR(struct user_net, tftp_server_name, "tftp-server-name", 0, "Name of the boot server that DHCP tells"),
    PROP_STR(struct user_net, bootfile, "bootfile", 0, "Boot file that DHCP tells"),
    PROP_STRV(struct user_net, hostfwd, "hostfwd", "tcp|udp:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT, may be repeated; host port 0: see info usernet"),
    PROP_STRV(struct user_net, guestfwd, "guestfwd", "tcp:ADDR:PORT-cmd:COMMAND or -unix:PATH, may be repeated"),
    { .name = "smb", .doc = "Directory shared by SMB", .type = PROP_T_STR, .flags = PF_HIDDEN, PROP_OFF(struct user_net, smb) },
    PROP_END
};

/* A name that DHCP can tell as a name of the DNS (RFC 1035, 2.3.4): labels of 1 to 63 bytes, 253 in all. */
static bool domain_ok(const char *name)
{
    size_t len = strlen(name), label;
    for (const char *p = name; ; p += label + 1) {
        label = strcspn(p, ".");
        if (!label || label > 63)
            return false;
        if (!p[label] || !p[label + 1])         /* the last one, a dot behind it or not */
            return len <= 253;
    }
}

/* Names that the network would cut short or leave out: sizes of the fields of DHCP and BOOTP (RFC 2131, 2132). */
static bool names_ok(const struct user_net *u, struct err *e)
{
    const struct { const char *what, *value; size_t max; } texts[] = {
        { "hostname", u->hostname, 32 }, { "domainname", u->domainname, 255 }, { "tftp-server-name", u->tftp_server_name, 255 },
        { "bootfile", u->bootfile, 127 },
    };
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (texts[i].value && (!*texts[i].value || strlen(texts[i].value) > texts[i].max))
            return err_set(e, ERR_VALUE, "%s '%.40s': 1 to %zu characters", texts[i].what, texts[i].value, texts[i].max);
    for (size_t i = 0; u->dnssearch && u->dnssearch[i]; i++)
        if (!domain_ok(u->dnssearch[i]))
            return err_set(e, ERR_VALUE, "dnssearch '%.80s' is not the name of a domain", u->dnssearch[i]);
    return true;
}

bool user_check(struct obj *o, struct err *e)
{
    struct user_net *u = (struct user_net *)o;
    struct stat st;
    if (u->smb) {
        err_set(e, ERR_NOT_BUILT, "smb is not in this build");
        return err_hint(e, "tftp=FOLDER gives files away; hostfwd=, guestfwd= and 10.0.2.2 lead to a server");
    }
    if (!u->ipv4 && !u->ipv6)
        return err_set(e, ERR_VALUE, "ipv4=off and ipv6=off leave no network");
    if (!u->ipv4 && (u->hostfwd || u->guestfwd))
        return err_set(e, ERR_VALUE, "hostfwd and guestfwd have no effect with ipv4=off");
    if (u->tftp && (stat(u->tftp, &st) < 0 || !S_ISDIR(st.st_mode)))
        return err_set(e, ERR_VALUE, "tftp directory '%s' does not exist", u->tftp);
    return names_ok(u, e);
}

/* ---- addresses ---- */

static bool parse_v4(const char *what, const char *text, struct in_addr *out, struct err *e)
{
    return inet_pton(AF_INET, text, out) == 1 || err_set(e, ERR_VALUE, "%s '%s' is not an IPv4 address", what, text);
}

static bool parse_v6(const char *what, const char *text, struct in6_addr *out, struct err *e)
{
    return inet_pton(AF_INET6, text, out) == 1 || err_set(e, ERR_VALUE, "%s '%s' is not an IPv6 address", what, text);
}

/* ADDR, ADDR/24, ADDR/255.255.255.0 */
static bool parse_net(const char *text, struct in_addr *net, struct in_addr *mask, struct err *e)
{
    char *copy = xstrdup(text), *slash = strchr(copy, '/');
    uint64_t bits = 24;
    bool ok = true;
    if (slash)
        *slash++ = 0;
    mask->s_addr = htonl(0xffffff00);
    if (slash && strchr(slash, '.'))
        ok = parse_v4("mask", slash, mask, e);
    else if (slash && (!parse_u64(slash, &bits) || bits < 4 || bits > 30))
        ok = err_set(e, ERR_VALUE, "net '%s': the length may be 4..30 bits", text);
    else
        mask->s_addr = htonl(~(uint32_t)0 << (32 - bits));
    ok = ok && parse_v4("net", copy, net, e);
    uint32_t m = ntohl(mask->s_addr);
    if (ok && (~m & (~m + 1)))
        ok = err_set(e, ERR_VALUE, "net '%s': the mask has a hole", text);
    net->s_addr &= mask->s_addr;
    free(copy);
    return ok;
}

/* The option, or number @n in the network; it must lie in it. */
static bool host_in_net(const char *what, const char *text, uint32_t n, const SlirpConfig *cfg, struct in_addr *out, struct err *e)
{
    out->s_addr = cfg->vnetwork.s_addr | htonl(n & ~ntohl(cfg->vnetmask.s_addr));
    if (text && !parse_v4(what, text, out, e))
        return false;
    if ((out->s_addr & cfg->vnetmask.s_addr) != cfg->vnetwork.s_addr)
        return err_set(e, ERR_VALUE, "%s '%s' is not in the network", what, text);
    return true;
}

static bool config_v6(struct user_net *u, SlirpConfig *cfg, struct err *e)
{
    if (!parse_v6("ipv6-prefix", u->ipv6_prefix, &cfg->vprefix_addr6, e))
        return false;
    cfg->vprefix_len = u->ipv6_prefixlen;
    cfg->vhost6 = cfg->vnameserver6 = cfg->vprefix_addr6;
    cfg->vhost6.s6_addr[15] |= 2;
    cfg->vnameserver6.s6_addr[15] |= 3;
    return (!u->ipv6_host || parse_v6("ipv6-host", u->ipv6_host, &cfg->vhost6, e)) &&
           (!u->ipv6_dns || parse_v6("ipv6-dns", u->ipv6_dns, &cfg->vnameserver6, e));
}

bool user_config(struct user_net *u, SlirpConfig *cfg, struct err *e)
{
    *cfg = (SlirpConfig){ .version = 4, .restricted = u->restricted, .in_enabled = u->ipv4, .in6_enabled = u->ipv6,
                          .vhostname = u->hostname, .tftp_server_name = u->tftp_server_name, .tftp_path = u->tftp,
                          .bootfile = u->bootfile, .vdnssearch = (const char **)u->dnssearch, .vdomainname = u->domainname };
    if (!parse_net(u->net, &cfg->vnetwork, &cfg->vnetmask, e) ||
        !host_in_net("host", u->host, 2, cfg, &cfg->vhost, e) ||
        !host_in_net("dhcpstart", u->dhcpstart, 15, cfg, &cfg->vdhcp_start, e) ||
        !host_in_net("dns", u->dns, 3, cfg, &cfg->vnameserver, e))
        return false;
    if (cfg->vhost.s_addr == cfg->vnameserver.s_addr)
        return err_set(e, ERR_VALUE, "host and dns have the same address");
    return config_v6(u, cfg, e);
}

/* ---- forwarding ---- */

struct fwd { bool udp; struct in_addr addr; uint16_t port; };

/* "[PROTO:][ADDR]:PORT"; @text is changed. */
static bool parse_fwd(char *text, struct fwd *f, struct err *e)
{
    char *colon = strchr(text, ':'), *addr = colon ? colon + 1 : NULL, *port = addr ? strrchr(addr, ':') : NULL;
    uint64_t v;
    if (!port)
        return err_set(e, ERR_VALUE, "it is not tcp|udp:[ADDR]:PORT");
    *colon = 0;
    *port++ = 0;
    if (*text && !str_eq(text, "tcp") && !str_eq(text, "udp"))
        return err_set(e, ERR_VALUE, "protocol '%s' is neither tcp nor udp", text);
    if (!parse_u64(port, &v) || v > 65535)
        return err_set(e, ERR_VALUE, "port '%s' is not a number of 0..65535", port);
    *f = (struct fwd){ .udp = str_eq(text, "udp"), .port = (uint16_t)v };
    return !*addr || parse_v4("address", addr, &f->addr, e);
}

/* ":PORT" or "ADDR:PORT" of the guest. */
static bool parse_guest(char *text, struct fwd *f, struct err *e)
{
    char *colon = strrchr(text, ':');
    uint64_t v;
    if (!colon || !parse_u64(colon + 1, &v) || !v || v > 65535)
        return err_set(e, ERR_VALUE, "'%s' is not [GUESTADDR]:GUESTPORT", text);
    *colon = 0;
    *f = (struct fwd){ .port = (uint16_t)v };
    return !*text || parse_v4("guest address", text, &f->addr, e);
}

static bool fwd_failed(const struct fwd *h, int os_errno, struct err *e)
{
    struct sock_addr a = { .in = { .sin_family = AF_INET, .sin_addr = h->addr, .sin_port = htons(h->port) }, .len = sizeof a.in };
    char text[SOCK_TEXT], who[96] = "";
    bool known = os_errno == EADDRINUSE && sock_holder(&a, h->udp ? SOCK_DGRAM : SOCK_STREAM, who, sizeof who);
    err_set(e, os_errno == EADDRINUSE ? ERR_BUSY : ERR_OS, "cannot listen on %s: %s%s%s", sock_format(&a, text), strerror(os_errno),
            known ? " by " : "", who);
    e->os_errno = os_errno;
    return false;
}

bool user_hostfwd_add(struct user_net *u, const char *rule, struct err *e)
{
    char *copy = xstrdup(rule), *dash = strchr(copy, '-');
    struct fwd h, g;
    bool ok;
    if (!dash) {
        free(copy);
        err_set(e, ERR_VALUE, "the guest's side is missing");
        return err_hint(e, "write tcp::2222-:22");
    }
    *dash = 0;
    ok = parse_fwd(copy, &h, e) && parse_guest(dash + 1, &g, e);
    free(copy);
    if (ok && slirp_add_hostfwd(u->slirp, h.udp, h.addr, h.port, g.addr, g.port) < 0)
        ok = fwd_failed(&h, errno, e);
    if (ok)
        user_kick(u);
    return ok;
}

bool user_hostfwd_remove(struct user_net *u, const char *rule, struct err *e)
{
    char *copy = xstrdup(rule);
    struct fwd h;
    bool ok = parse_fwd(copy, &h, e);
    free(copy);
    if (ok && slirp_remove_hostfwd(u->slirp, h.udp, h.addr, h.port) < 0)
        ok = err_set(e, ERR_NOT_FOUND, "no rule forwards '%s'", rule);
    if (ok)
        user_kick(u);
    return ok;
}

bool user_guestfwd_add(struct user_net *u, const char *rule, struct err *e)
{
    char *copy = xstrdup(rule), *dash = strchr(copy, '-');
    struct fwd f;
    int r = 0;
    bool ok = dash != NULL;
    if (!ok)
        err_set(e, ERR_VALUE, "the target is missing"), err_hint(e, "write tcp:10.0.2.100:80-cmd:COMMAND");
    else
        *dash = 0;
    ok = ok && parse_fwd(copy, &f, e);
    if (ok && f.udp)
        ok = err_set(e, ERR_VALUE, "only tcp can be forwarded");
    const char *to = ok ? dash + 1 : "";
    if (ok && str_starts(to, "cmd:"))
        r = slirp_add_exec(u->slirp, to + 4, &f.addr, f.port);
    else if (ok && str_starts(to, "unix:"))
        r = slirp_add_unix(u->slirp, to + 5, &f.addr, f.port);
    else if (ok)
        ok = err_set(e, ERR_VALUE, "target '%s' is neither cmd:COMMAND nor unix:PATH", to);
    if (r < 0)
        ok = err_set(e, ERR_VALUE, "the address is not in the guest's network, or is taken");
    free(copy);
    return ok;
}

/* ---- monitors ---- */

/* "[ID] RULE": the named network, or the first one. */
static struct user_net *net_of(const char **arg, struct err *e)
{
    const char *sp = strchr(*arg, ' ');
    struct obj *c = obj_container("netdev"), *it;
    char *id = sp ? xstrndup(*arg, (size_t)(sp - *arg)) : NULL;
    struct user_net *u = NULL;
    list_for_each(it, &c->children, sibling)
        if (!u && obj_is(it, &user_net_class.obj) && (!id || str_eq(id, it->id)))
            u = (struct user_net *)it;
    if (!u)
        err_set(e, ERR_NOT_FOUND, id ? "there is no user network '%s'" : "there is no user network", id);
    if (sp)
        *arg = sp + 1 + strspn(sp, " ") - 1;
    free(id);
    return u;
}

static void hostfwd(const char *arg, struct str *out, bool (*fn)(struct user_net *, const char *, struct err *))
{
    struct err e = ERR_INIT;
    struct user_net *u = net_of(&arg, &e);
    if (!u || !fn(u, arg, &e))
        hmp_error(out, &e);
}

static void hmp_hostfwd_add(const char *arg, struct str *out) { hostfwd(arg, out, user_hostfwd_add); }
static void hmp_hostfwd_remove(const char *arg, struct str *out) { hostfwd(arg, out, user_hostfwd_remove); }

static void hmp_info_usernet(const char *arg, struct str *out)
{
    struct obj *c = obj_container("netdev"), *it;
    list_for_each(it, &c->children, sibling) {
        if (!obj_is(it, &user_net_class.obj))
            continue;
        char *text = slirp_connection_info(((struct user_net *)it)->slirp);
        str_printf(out, "Hub -1 (%s):\n%s", it->id, text);
        free(text);
    }
}

static const struct hmp_cmd cmds[] = {
    { "hostfwd_add", "", "[NETDEV] tcp|udp:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT", "forwards a port of the host", hmp_hostfwd_add },
    { "hostfwd_remove", "", "[NETDEV] tcp|udp:[HOSTADDR]:HOSTPORT", "ends that", hmp_hostfwd_remove },
    { "info usernet", "", "", "connections of user networks", hmp_info_usernet },
};
HMP_CMD(&cmds[0]);
HMP_CMD(&cmds[1]);
HMP_CMD(&cmds[2]);
