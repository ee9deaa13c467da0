/* SPDX-License-Identifier: MIT */
/* `info network`: who is connected to whom. */
#include "core/backend.h"
#include "core/cmd.h"
#include "net/net_int.h"

/* One end: a card, or a back end with what its class tells. */
static void put_end(struct str *out, const struct net_port *p)
{
    const struct netdev *nd = net_port_netdev(p);
    if (net_port_is_front(p)) {
        str_printf(out, "%s: index=0,type=nic,%s", net_port_user(p), net_port_text(p));
    } else {
        str_printf(out, "%s: index=0,type=%s,", nd->obj.id, backend_type(&netdev_class, nd->obj.cls));
        if (NETDEV_CLASS(nd)->info)
            NETDEV_CLASS(nd)->info(nd, out);
    }
    str_add(out, net_link_up(p) ? "" : " (link down)");
    if (net_port_drops(p))
        str_printf(out, " (lost on the way here: %llu packets)", (unsigned long long)net_port_drops(p));
    str_add(out, "\n");
}

static void put_hub_port(void *arg, unsigned hub, bool first, const char *name, const struct net_port *other)
{
    struct str *out = arg;
    if (first)
        str_printf(out, "hub %u\n", hub);
    str_printf(out, " \\ %s%s", name, other ? ": " : "\n");
    if (other)
        put_end(out, other);
}

static void hmp_info_network(const char *arg, struct str *out)
{
    struct obj *all = obj_container("netdev"), *it;
    const struct net_port *card = NULL;
    hub_each_port(put_hub_port, out);
    list_for_each(it, &all->children, sibling) {
        const struct net_port *p = ((struct netdev *)it)->port, *front = p ? net_port_peer(p) : NULL;
        if (!p || hub_has((struct netdev *)it) || (front && !net_port_is_card(front)))
            continue;
        if (front) {
            put_end(out, front);
            str_add(out, " \\ ");
        }
        put_end(out, p);
    }
    while ((card = net_card_next(card)))
        if (!net_port_peer(card))
            put_end(out, card);
}
static const struct hmp_cmd hmp_network = { .name = "info network", .aliases = "", .args = "", .doc = "network back ends and cards",
    .co_run = hmp_info_network };
HMP_CMD(&hmp_network);
