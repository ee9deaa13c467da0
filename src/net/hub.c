/* SPDX-License-Identifier: MIT */
/* "hubport": a port of a hub; what comes in at one goes out at all others. A hub is there as long as it has ports. Main loop. */
#include "net/net_int.h"

struct hub_port { struct netdev nd; struct list on_hub; uint32_t hubid; struct obj *netdev; };

static struct list hub_ports = LIST_INIT(hub_ports);

/* A port that is full loses the packet, as a wire would. */
static bool hub_receive(void *arg, const uint8_t *pkt, size_t n)
{
    struct hub_port *from = arg, *to;
    struct iovec iov = { (void *)pkt, n };
    list_for_each(to, &hub_ports, on_hub)
        if (to != from && to->hubid == from->hubid)
            net_send(to->nd.port, &iov, 1);
    return true;
}

static const struct net_port_ops hub_ops = { .receive = hub_receive };

static bool hub_open(struct netdev *nd, struct err *e)
{
    struct hub_port *h = (struct hub_port *)nd;
    /* With netdev= the hub is that back end's front end. */
    nd->port = h->netdev ? net_port_connect(h->netdev, NULL, &hub_ops, h, nd->obj.id, e) : net_port_new(&nd->obj, &hub_ops, h);
    if (!nd->port)
        return false;
    list_push(&hub_ports, &h->on_hub);
    return true;
}

static void hub_close(struct netdev *nd)
{
    struct hub_port *h = (struct hub_port *)nd;
    if (nd->port)
        list_del(&h->on_hub);
}

bool hub_has(const struct netdev *nd)
{
    const struct hub_port *h;
    list_for_each(h, &hub_ports, on_hub)
        if (&h->nd == nd)
            return true;
    return false;
}

/* The lowest number of a hub from @from on. */
static bool next_hub(uint32_t from, uint32_t *hub)
{
    const struct hub_port *h;
    bool any = false;
    list_for_each(h, &hub_ports, on_hub) {
        if (h->hubid >= from && (!any || h->hubid < *hub)) {
            *hub = h->hubid;
            any = true;
        }
    }
    return any;
}

void hub_each_port(void (*fn)(void *, unsigned, bool, const char *, const struct net_port *), void *arg)
{
    const struct hub_port *h;
    for (uint32_t hub = 0, from = 0; next_hub(from, &hub); from = hub + 1) {
        bool first = true;
        list_for_each(h, &hub_ports, on_hub) {
            if (h->hubid != hub)
                continue;
            fn(arg, hub, first, h->nd.obj.id, net_port_peer(h->nd.port));
            first = false;
        }
    }
}

static void hub_info(const struct netdev *nd, struct str *out) { str_printf(out, "hubid=%u", ((const struct hub_port *)nd)->hubid); }

static const struct prop hub_props[] = {
    PROP_U32(struct hub_port, hubid, "hubid", 0, 0, INT32_MAX, "Number of the hub"),
    PROP_LINK(struct hub_port, netdev, "netdev", &netdev_class, 0, "Back end that is plugged into this port, instead of a card"),
    PROP_END
};

static const struct netdev_class hub_class = {
    .obj = { .name = "netdev-hubport", .desc = "Port of a hub that joins several networks", .base = &netdev_class,
             .size = sizeof(struct hub_port), .props = hub_props },
    .open = hub_open, .close = hub_close, .info = hub_info,
};
OBJ_CLASS(&hub_class.obj);
