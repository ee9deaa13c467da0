/* SPDX-License-Identifier: MIT */
/*
 * "tap": an interface of the host's kernel (linux/if_tun.h), with checksum and segmentation offloads where the kernel has them;
 * and "bridge": a tap that a privileged helper made and put on a bridge. On the main loop.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fdset.h"
#include "base/log.h"
#include "loop/co.h"
#include "net/frame_fd.h"
#include "net/net_int.h"
#include "net/script.h"

#define IFUP "/etc/qemu-ifup"
#define IFDOWN "/etc/qemu-ifdown"
#define BRIDGE_HELPER "/usr/lib/qemu/qemu-bridge-helper"
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

enum { VNET_HDR = 10 };                 /* without num_buffers: the header's size while the card does not use it */

struct tap {
    struct netdev nd;
    /* options */
    char *ifname, *script, *downscript, *helper, *br, *fd_text;
    uint64_t sndbuf;
    int vnet_hdr;                       /* enum tri */
    /* state */
    int fd;
    bool have_hdr, ours;                /* ours: made by us; the script for its end is due */
    unsigned hdr_len;                   /* that the card uses; 0: we add and take the kernel's */
    char name[IFNAMSIZ];
    struct frame_fd frames;
};

/* ---- packets ---- */

static ssize_t tap_read(void *arg, uint8_t *buf, size_t max)
{
    struct tap *t = arg;
    ssize_t n = read(t->fd, buf, max);
    if (n <= 0 || !t->have_hdr || t->hdr_len)
        return n;
    n = MAX(n - VNET_HDR, 0);
    memmove(buf, buf + VNET_HDR, (size_t)n);
    return n;
}

static bool tap_receive(void *arg, const uint8_t *pkt, size_t n)
{
    static const uint8_t no_offload[VNET_HDR];
    struct tap *t = arg;
    struct iovec iov[2] = { { (void *)no_offload, VNET_HDR }, { (void *)pkt, n } };
    bool bare = t->have_hdr && !t->hdr_len;
    if (writev(t->fd, bare ? iov : iov + 1, bare ? 2 : 1) >= 0 || errno != EAGAIN)
        return true;                    /* an interface that is down answers EIO: lost */
    frame_fd_full(&t->frames);
    return false;
}

static void tap_sent(void *arg) { frame_fd_room(&((struct tap *)arg)->frames); }

static unsigned tun_flags(const struct net_caps *c)
{
    return (c->csum ? TUN_F_CSUM : 0) | (c->tso4 ? TUN_F_TSO4 : 0) | (c->tso6 ? TUN_F_TSO6 : 0) | (c->ecn ? TUN_F_TSO_ECN : 0) |
           (c->ufo ? TUN_F_UFO : 0) | (c->uso ? TUN_F_USO4 | TUN_F_USO6 : 0);
}

static void tap_set_offload(void *arg, const struct net_caps *use, unsigned hdr_len)
{
    struct tap *t = arg;
    int size = hdr_len ? (int)hdr_len : VNET_HDR;
    if (!t->have_hdr)
        return;
    t->hdr_len = hdr_len;
    ioctl(t->fd, TUNSETVNETHDRSZ, &size);
    ioctl(t->fd, TUNSETOFFLOAD, (unsigned long)tun_flags(use));
}

static const struct net_port_ops tap_ops = { .receive = tap_receive, .sent = tap_sent, .set_offload = tap_set_offload };

/* ---- opening ---- */

/* Which offloads this kernel has for guests: each is asked for, then none is left on. */
static void probe_caps(struct tap *t)
{
    struct net_caps c = { .vnet_hdr = t->have_hdr };
    if (t->have_hdr && !ioctl(t->fd, TUNSETOFFLOAD, TUN_F_CSUM)) {
        c.csum = true;
        c.tso4 = !ioctl(t->fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4);
        c.tso6 = !ioctl(t->fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO6);
        c.ecn = !ioctl(t->fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN);
        c.ufo = !ioctl(t->fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_UFO);
        c.uso = !ioctl(t->fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6);
        ioctl(t->fd, TUNSETOFFLOAD, 0ul);
    }
    net_port_set_caps(t->nd.port, &c);
}

static bool tap_make(struct tap *t, struct err *e)
{
    struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI };
    unsigned features = 0;
    t->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (t->fd < 0) {
        err_os(e, errno, "cannot open /dev/net/tun");
        return err_hint(e, "-netdev user needs no rights, -netdev bridge needs the bridge helper");
    }
    if (ioctl(t->fd, TUNGETFEATURES, &features) == 0 && (features & IFF_VNET_HDR) && t->vnet_hdr != TRI_OFF)
        ifr.ifr_flags |= IFF_VNET_HDR;
    if (t->ifname)
        memcpy(ifr.ifr_name, t->ifname, strlen(t->ifname));
    if (ioctl(t->fd, TUNSETIFF, &ifr) < 0) {
        int why = errno;
        err_os(e, why, "cannot make the tap interface%s%s", t->ifname ? " " : "", t->ifname ? t->ifname : "");
        return err_hint(e, why == EBUSY ? "another program uses it" : why == EPERM ? "only root may; or let it make one: ip tuntap add mode tap user $USER"
                                                                                    : "is that the name of another kind of interface?");
    }
    return true;
}

static bool tap_adopt(struct tap *t, struct err *e)
{
    struct ifreq ifr = { 0 };
    int v = fd_take(t->fd_text, e);
    if (v < 0)
        return false;
    if (ioctl(v, TUNGETIFF, &ifr) < 0)
        return err_os(e, errno, "fd %d is not a tap interface", v);
    if (!(ifr.ifr_flags & IFF_TAP))
        return err_set(e, ERR_VALUE, "fd %d is a tun interface, not a tap", v);
    t->fd = v;
    return true;
}

/* Reads what kind of interface it became. */
static bool tap_learn(struct tap *t, struct err *e)
{
    struct ifreq ifr = { 0 };
    int size = VNET_HDR, sndbuf = t->sndbuf ? (int)t->sndbuf : INT32_MAX;
    if (ioctl(t->fd, TUNGETIFF, &ifr) < 0)
        return err_os(e, errno, "cannot ask the tap interface");
    snprintf(t->name, sizeof t->name, "%.*s", IFNAMSIZ - 1, ifr.ifr_name);
    t->have_hdr = ifr.ifr_flags & IFF_VNET_HDR;
    if (t->have_hdr && ioctl(t->fd, TUNSETVNETHDRSZ, &size) < 0)
        return err_os(e, errno, "cannot set the header size of %s", t->name);
    if (!t->have_hdr && t->vnet_hdr == TRI_ON)
        return err_set(e, ERR_VALUE, "vnet_hdr=on: %s has no offload headers", t->name);
    if (ioctl(t->fd, TUNSETSNDBUF, &sndbuf) < 0 && t->sndbuf)
        return err_os(e, errno, "cannot set sndbuf of %s", t->name);
    if (fcntl(t->fd, F_SETFL, fcntl(t->fd, F_GETFL) | O_NONBLOCK) < 0)
        return err_os(e, errno, "cannot set up %s", t->name);
    return true;
}

/* "no": none; not given: QEMU's default script, if it is there. */
static const char *script_path(const char *given, const char *standard)
{
    if (given)
        return str_eq(given, "no") || !*given ? NULL : given;
    return access(standard, X_OK) == 0 ? standard : NULL;
}

/* Gets the interface ready: from a descriptor, a helper, or the kernel and a script. */
static bool tap_setup(struct tap *t, struct err *e)
{
    if (t->fd_text)
        return tap_adopt(t, e) && tap_learn(t, e);
    if (t->helper || t->br) {
        t->fd = script_bridge_helper(t->helper ? t->helper : BRIDGE_HELPER, t->br ? t->br : "br0", e);
        return t->fd >= 0 && tap_learn(t, e);
    }
    const char *up = script_path(t->script, IFUP);
    t->ours = tap_make(t, e) && tap_learn(t, e) && (!up || script_run(up, t->name, e));
    return t->ours;
}

struct tap_start { struct tap *t; struct err *e; bool ok; };

static int setup_on_worker(void *arg)
{
    struct tap_start *s = arg;
    s->ok = tap_setup(s->t, s->e);
    return 0;
}

static void co_setup(void *arg) { co_offload(setup_on_worker, arg); }

static bool tap_open(struct netdev *nd, struct err *e)
{
    struct tap *t = (struct tap *)nd;
    struct tap_start s = { t, e, false };
    co_call(co_setup, &s);
    if (!s.ok)
        return false;
    nd->port = net_port_new(&nd->obj, &tap_ops, t);
    probe_caps(t);
    frame_fd_start(&t->frames, nd->port, t->fd, tap_read, t);
    return true;
}

static void tap_close(struct netdev *nd)
{
    struct tap *t = (struct tap *)nd;
    struct err e = ERR_INIT;
    const char *down = t->ours ? script_path(t->downscript, IFDOWN) : NULL;
    frame_fd_stop(&t->frames);
    if (down && !script_run(down, t->name, &e))
        log_warn("netdev '%s': %s", nd->obj.id, e.msg);
    if (t->fd >= 0)
        close(t->fd);
}

static void tap_info(const struct netdev *nd, struct str *out)
{
    const struct tap *t = (const struct tap *)nd;
    str_printf(out, "ifname=%s,vnet_hdr=%s", t->name, t->have_hdr ? "on" : "off");
}

/* ---- options ---- */

static bool tap_init(struct obj *o, struct err *e)
{
    ((struct tap *)o)->fd = -1;
    return true;
}

static bool tap_check(struct obj *o, struct err *e)
{
    struct tap *t = (struct tap *)o;
    if (t->ifname && (!*t->ifname || strlen(t->ifname) >= IFNAMSIZ))
        return err_set(e, ERR_VALUE, "ifname '%s' is not 1 to %d characters long", t->ifname, IFNAMSIZ - 1);
    if (t->fd_text && (t->ifname || t->helper || t->br || t->script || t->downscript))
        return err_set(e, ERR_VALUE, "with fd=, the options ifname, script, downscript, helper and br have no effect");
    if ((t->helper || t->br) && (t->ifname || t->script || t->downscript))
        return err_set(e, ERR_VALUE, "with a bridge helper, the options ifname, script and downscript have no effect");
    return true;
}

static const struct prop tap_props[] = {
    PROP_STR(struct tap, ifname, "ifname", 0, "Name of the interface; the kernel chooses tapN if not given"),
    PROP_STR(struct tap, script, "script", 0, "Program that sets the interface up; 'no': none; " IFUP " if that is there"),
    PROP_STR(struct tap, downscript, "downscript", 0, "Program that is run at the end; 'no': none; " IFDOWN " if that is there"),
    PROP_STR(struct tap, fd_text, "fd", 0, "Number of an open tap interface that was inherited"),
    PROP_STR(struct tap, helper, "helper", 0, "Program that makes the interface on a bridge and hands it over"),
    PROP_STR(struct tap, br, "br", 0, "Bridge for the helper (br0)"),
    PROP_SIZE(struct tap, sndbuf, "sndbuf", 0, 0, INT32_MAX, "Most bytes that wait in the kernel; 0: no limit"),
    PROP_TRI(struct tap, vnet_hdr, "vnet_hdr", TRI_AUTO, "Offload headers: checksums and segmentation are left to the kernel"),
    PROP_END
};

static const struct netdev_class tap_class = {
    .obj = { .name = "netdev-tap", .desc = "Interface of the host's kernel", .base = &netdev_class, .size = sizeof(struct tap),
             .props = tap_props, .init = tap_init, .check = tap_check },
    .open = tap_open, .close = tap_close, .info = tap_info,
};
OBJ_CLASS(&tap_class.obj);

/* ---- bridge ---- */

struct bridge_opts { struct netdev nd; /* as the class has it; never made */ char *br, *helper; };

static const struct prop bridge_props[] = {
    PROP_STR_DEF(struct bridge_opts, br, "br", "br0", "Bridge of the host"),
    PROP_STR_DEF(struct bridge_opts, helper, "helper", BRIDGE_HELPER, "Program that makes the interface and hands it over"),
    PROP_END
};

static json_t *bridge_expand(json_t *opts, struct err *e)
{
    struct bridge_opts b = { 0 };
    json_t *o = NULL;
    prop_defaults(bridge_props, &b);
    if (prop_set_all(bridge_props, &b, NULL, opts, "netdev 'bridge'", e))
        o = json_pack("{ssssss}", "type", "tap", "br", b.br, "helper", b.helper);
    prop_release(bridge_props, &b);
    return o;
}

static const struct netdev_class bridge_class = {
    .obj = { .name = "netdev-bridge", .desc = "Interface on a bridge of the host, made by a privileged helper", .base = &netdev_class,
             .size = sizeof(struct bridge_opts), .props = bridge_props },
    .expand = bridge_expand,
};
OBJ_CLASS(&bridge_class.obj);
